#!/bin/sh
# The smallest plugin: `echo` says back what it is told, `upper` says it louder, `log` goes to standard error.
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

# shellcheck disable=SC2317 # ppg_serve calls it
answer() {
    case $ppg_command in
    echo) ppg_answer_same ;;
    upper) ppg_answer "$(ppg_text | tr '[:lower:]' '[:upper:]')" ;;
    log)
        ppg_text >&2
        echo >&2
        ppg_answer ''
        ;;
    sleep)
        ppg_progress 1 2 'sleeping'
        sleep 1
        ppg_answer slept
        ;;
    *) ppg_unknown ;;
    esac
}

ppg_set Description 'says back what it is told'
ppg_serve answer "$@"
