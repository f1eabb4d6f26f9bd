#!/bin/sh
# Calls its plugin, which calls back as often.
#
#     sample1_host.sh PLUGIN [CALLS]
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

docker_host=unix:///var/run/docker.sock calls=${2:-100} replies=none number=0

# shellcheck disable=SC2317 # the library calls it
answer() {
    case $ppg_command in
    GetDockerHost) ppg_answer "$docker_host" ;;
    Repeat) ppg_answer "$(ppg_text)$(ppg_text)" ;;
    Done) replies=$(ppg_text) ;;
    *) ppg_unknown ;;
    esac
}

stop() {
    printf 'sample1_host.sh: %s\n' "$1" >&2
    ppg_stop
    exit 1
}

ppg_on_request answer
ppg_start "${1:?usage: sample1_host.sh PLUGIN [CALLS]}" || stop "$ppg_error"
while [ "$number" -lt "$calls" ]; do
    ppg_call Echo "echo $number" || stop "$ppg_error"
    [ "$(ppg_text)" = "echo $number" ] || stop "Echo brought $(ppg_text)"
    number=$((number + 1))
done
ppg_call Start "$calls" || stop "$ppg_error"
ppg_call DockerHost || stop "$ppg_error"
[ "$(ppg_text)" = "$docker_host" ] || stop "the docker host is $(ppg_text)"
[ "$replies" = "$calls" ] || stop "the plugin had $replies replies"
ppg_stop && echo "sample1: $calls Echo, $replies Repeat, docker host $docker_host, done"
