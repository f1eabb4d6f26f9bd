#!/bin/sh
# Builds the samples into a folder, under the names that they have in every language.
#
#     sdk/c/samples.sh FOLDER
#
# Exits with 77 if a tool is missing.
set -eu
for tool in gcc make; do
    command -v "$tool" >/dev/null || {
        echo "missing: $tool (apt-get install gcc libc6-dev make)"
        exit 77
    }
done
make -s -C "$(dirname "$0")" OUT="$(mkdir -p "$1" && cd "$1" && pwd)" CC=gcc samples
