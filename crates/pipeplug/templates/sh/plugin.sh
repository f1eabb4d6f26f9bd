#!/bin/sh
# The plugin {{name}}.
. "$(dirname "$0")/pipeplug.sh"

# Writes the reply. The data of the request are what ppg_text or ppg_bytes write.
hello() {
    printf 'hello, '
    ppg_bytes
}

# Handles a request.
answer() {
    case $ppg_command in
    hello) ppg_answer_output hello ;;
    *) ppg_unknown ;;
    esac
}

ppg_set Cmd hello
ppg_set Description 'greets whom it is told'
ppg_set pipeplug.name '{{name}}'
ppg_set pipeplug.version 0.1.0
ppg_serve answer "$@"
