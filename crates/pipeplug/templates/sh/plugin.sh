#!/bin/sh
# The plugin {{name}}.

metadata='{"Cmd":"hello","Description":"greets whom it is told","pipeplug.name":"{{name}}","pipeplug.version":"0.1.0"}'

# Answers the request $1: its data are stdin, and the reply is stdout. With another status than 0 that is the message of an
# error.
answer() {
    case $1 in
    hello)
        printf 'hello, '
        cat
        ;;
    *)
        printf 'unknown command "%s", there is only hello' "$1"
        return 1
        ;;
    esac
}

. "$(dirname "$0")/protocol.sh"
serve "$metadata" "$@"
