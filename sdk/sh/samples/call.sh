#!/bin/sh
# A host: starts a plugin, calls it, and stops it.
#
#     call.sh PLUGIN COMMAND [DATA]
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

if [ $# -lt 2 ]; then
    echo 'usage: call.sh PLUGIN COMMAND [DATA]' >&2
    exit 2
fi
if ppg_start "$1" && ppg_call "$2" "${3-}"; then
    ppg_bytes
    echo
    ppg_stop
else
    printf 'call.sh: %s\n' "$ppg_error" >&2
    ppg_stop
    exit 1
fi
