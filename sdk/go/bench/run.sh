#!/bin/sh
# Measures this library beside net/rpc over pipes and hashicorp/go-plugin (Debian:
# golang-github-hashicorp-go-plugin-dev), and the guest called by the Rust host.
#
#   bench/run.sh [ROUNDS [SECONDS]]
#
# PIPEPLUG is the path of the executable pipeplug, BENCH_SUBJECT one of the subjects, such as "1 MiB". Writes into a temporary folder only.
set -eu
sdk=$(cd "$(dirname "$0")/.." && pwd)
rounds=${1:-3} seconds=${2:-1}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$sdk"
go build -o "$work/bench" ./bench
peers="pipeplug net/rpc"
if [ -d /usr/share/gocode/src/github.com/hashicorp/go-plugin ]; then
    mkdir -p "$work/gopath/src/github.com/pipeplug/pipeplug/sdk"
    ln -s "$sdk" "$work/gopath/src/github.com/pipeplug/pipeplug/sdk/go"
    (
        cd "$work/gopath/src/github.com/pipeplug/pipeplug/sdk/go/bench/_goplugin"
        GO111MODULE=off GOFLAGS='' GOPATH=/usr/share/gocode:$work/gopath go build -o "$work/goplugin" main.go
    )
    peers="$peers go-plugin/netrpc go-plugin/grpc"
else
    echo "go-plugin is left out: apt-get install golang-github-hashicorp-go-plugin-dev" >&2
fi
round=0
while [ "$round" -lt "$rounds" ]; do
    # Every other round the other way round: no peer is always measured first.
    order=
    for peer in $peers; do
        if [ $((round % 2)) -eq 0 ]; then order="$order $peer"; else order="$peer $order"; fi
    done
    for peer in $order; do
        case $peer in
        go-plugin/*) "$work/goplugin" "${peer#*/}" "${seconds}s" ;;
        *) "$work/bench" -peer "$peer" -duration "${seconds}s" ;;
        esac >>"$work/results"
    done
    round=$((round + 1))
done
"$work/bench" -report "$work/results"
if [ -n "${PIPEPLUG:-}" ]; then
    echo
    echo "The guest, called by the Rust host (pipeplug bench):"
    export PIPEPLUG_BENCH_GUEST=pipeplug
    for load in "" "--concurrency 64" "--concurrency 1000" "--size 1M"; do
        # shellcheck disable=SC2086
        "$PIPEPLUG" bench "$work/bench" --env PIPEPLUG_BENCH_GUEST=pipeplug --call echo --duration "${seconds}s" $load |
            awk -v load="${load:-sequential}" '/^ *(rate|p50)/ { line = line " " $0 } END { print load ":" line }'
    done
fi
