#!/bin/sh
# Measures the plugin in Node, and the built-in one in Rust, below the host in Rust: PIPEPLUG=… bench/rust.sh
cd "$(dirname "$0")/.." || exit 1
for options in "--concurrency 1" "--concurrency 64" "--concurrency 1000" "--size 1M"; do
    for plugin in ./samples/echo.mjs @echo; do
        # shellcheck disable=SC2086 # several words
        rate=$("${PIPEPLUG:-pipeplug}" bench "$plugin" --call echo --duration 2s $options | sed -n 's/^  rate *//p')
        printf '%-20s %-20s %s\n' "$options" "$plugin" "$rate"
    done
done
