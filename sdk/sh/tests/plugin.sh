#!/bin/sh
# The plugin of test.sh.
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

# shellcheck disable=SC2317 # the library calls it
start() {
    [ "$args" != --fail ] || return 1
    ppg_call name && name=$(ppg_text)
}

# shellcheck disable=SC2317
answer() {
    case $ppg_command in
    args) ppg_answer "$args" ;;
    host) ppg_answer "$name" ;;
    stray)
        echo 'a stray line'
        ppg_answer answered
        ;;
    back)
        ppg_call refuse "$(ppg_text)"
        ppg_answer "$ppg_error ($ppg_code)"
        ;;
    note) note=$(ppg_text) ;;
    noted) ppg_answer "$note" ;;
    tell)
        ppg_call told "$(ppg_text)"
        ppg_answer ''
        ;;
    bytes) ppg_answer_output printf '\000\377\n' ;;
    output) ppg_answer_output output ;;
    failing) ppg_answer_output failing ;;
    nothing) ;;
    same)
        # By way of a variable; $(…) drops line feeds at the end.
        text=$(ppg_text && echo x)
        ppg_answer "${text%x}"
        ;;
    copy)
        printf 'more than a chunk' >&1
        ppg_answer_output ppg_bytes
        ;;
    fails) return 3 ;;
    data) ppg_fail no_page 'there is no page "a"' '{"name":"a \"b\""}' ;;
    badcode) ppg_fail 'no such page' ;;
    has)
        if ppg_has "$(ppg_text)"; then ppg_answer yes; else ppg_answer no; fi
        ;;
    crash) exit 7 ;;
    *) ppg_unknown ;;
    esac
}

# shellcheck disable=SC2317
output() { printf '%s' 'a "b" \c' && ppg_bytes; }
# shellcheck disable=SC2317
failing() { echo half && return 3; }

case ${1-}/${2-} in
[0-9]*/[0-9]*) args=${3-}${4:+|$4} ;;
*) args=${1-} ;;
esac
ppg_set Description 'a "test"'
ppg_on_start start
ppg_serve answer "$@"
