#!/bin/sh
# Builds the samples into a folder, under the names that they have in every language.
#
#     sdk/go/samples.sh FOLDER
#
# Exits with 77 if a tool is missing.
set -eu
command -v go >/dev/null || {
    echo 'missing: go 1.19 or later (apt-get install golang-go, or https://go.dev/dl)'
    exit 77
}
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cd "$(dirname "$0")"
# Nothing is taken from the network, or from the user's settings.
export GOPROXY=off GOFLAGS='' GOWORK=off GO111MODULE=on GOENV=off GOTOOLCHAIN=local
for program in echo greeter/plugin greeter/host sample1/plugin sample1/host; do
    go build -o "$dir/$(echo "$program" | tr / -)" "./samples/$program"
done
