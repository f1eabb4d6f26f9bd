#!/bin/sh
# A host: has a plugin with the service `greeter` greet in each of its languages.
#
#     greet.sh PLUGIN NAME
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

if [ $# -lt 2 ]; then
    echo 'usage: greet.sh PLUGIN NAME' >&2
    exit 2
fi
if ! ppg_start "$1" || ! ppg_call greeter.languages; then
    printf 'greet.sh: %s\n' "$ppg_error" >&2
    ppg_stop
    exit 1
fi
# ["de","en","fr"]
languages=$(ppg_text | tr '[],"' '    ')
for language in $languages tlh; do
    if ppg_call greeter.greet "{\"name\":$(ppg_quote "$2"),\"language\":\"$language\"}"; then
        greeting=$(ppg_text)
        ppg_json_get "{\"greeting\":$greeting}" greeting
        echo
    elif [ "$ppg_code" = method_error ]; then
        echo "not in $language"
    else
        printf 'greet.sh: %s\n' "$ppg_error" >&2
    fi
done
ppg_stop
