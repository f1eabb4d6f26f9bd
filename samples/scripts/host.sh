#!/bin/sh
# A host in POSIX sh: starts a plugin, asks who it is, calls it once, and stops it.
#
#     samples/scripts/host.sh PLUGIN COMMAND TEXT
#
# `pipeplug chunk` reads and writes the protocol. TEXT is put into JSON as it is, so it may hold neither `"` nor `\`.
set -eu
plugin=$1 command=$2 text=$3

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkfifo "$dir/to" "$dir/from" "$dir/lines"

# The plugin reads descriptor 3 and writes descriptor 4.
"$plugin" 3 4 3<"$dir/to" 4>"$dir/from" </dev/null >&2 &
exec 5>"$dir/to" 6<"$dir/from"
pipeplug chunk decode <&6 >"$dir/lines" 5>&- &
exec 7<"$dir/lines"

# Sends a request and waits for its response. Meanwhile requests of the plugin are refused, and its one-ways shown.
call() {
    printf '{"id":%s,"command":"%s","text":"%s"}\n' "$1" "$2" "$3" | pipeplug chunk encode >&5
    while IFS= read -r line <&7; do
        case $line in
        '{"id":'"$1"',"direction":"response"'*) printf '%s\n' "$line" && return ;;
        *'"direction":"request"'*)
            id=${line#'{"id":'}
            printf '{"id":%s,"direction":"response","command":"cmd.error","text":"this host has no commands"}\n' "${id%%,*}" |
                pipeplug chunk encode >&5
            ;;
        *) printf 'from the plugin: %s\n' "$line" >&2 ;;
        esac
    done
    echo "the plugin ended before it answered $2" >&2
    return 1
}

call 1 GetMetadata ''
call 2 "$command" "$text"
echo '{"direction":"one-way","command":"cmd.stop"}' | pipeplug chunk encode >&5
exec 5>&-
wait
