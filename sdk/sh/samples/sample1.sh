#!/bin/sh
# Asks the host for the Docker host when it starts, then answers and calls back.
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

# shellcheck disable=SC2317 # the library calls them
start() {
    ppg_call GetDockerHost || return 1
    docker_host=$(ppg_text)
    echo "sample1.sh: the docker host is $docker_host" >&2
}

# Calls the host as often as it asks for, and sends it a one-way after the last reply.
# shellcheck disable=SC2317
repeat() {
    count=$(ppg_text) number=0
    while [ "$number" -lt "$count" ]; do
        text="repeat $number."
        if ! ppg_call Repeat "$text" || [ "$(ppg_text)" != "$text$text" ]; then
            ppg_fail '' "Repeat of $text failed: $ppg_error"
            return
        fi
        number=$((number + 1))
    done
    ppg_notify Done "$count"
    ppg_answer ''
}

# shellcheck disable=SC2317
answer() {
    case $ppg_command in
    Echo) ppg_answer_same ;;
    DockerHost) ppg_answer "$docker_host" ;;
    Start) repeat ;;
    *) ppg_unknown ;;
    esac
}

ppg_on_start start
ppg_serve answer "$@"
