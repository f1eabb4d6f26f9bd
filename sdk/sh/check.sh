#!/usr/bin/env bash
# Everything that CI has to know of the library for shells. Takes the program pipeplug from $PIPEPLUG, and the Rust
# samples from its folder. Exits with 77 if a tool is missing, and writes into a temporary folder only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

missing() {
    printf 'missing: %s\n' "$1"
    exit 77
}
for tool in dash bash shellcheck base64 gcc; do
    command -v "$tool" >/dev/null || missing "$tool (Debian: apt-get install dash bash shellcheck coreutils gcc libc6-dev)"
done
pipeplug=${PIPEPLUG:-$root/target/debug/pipeplug}
[[ -x $pipeplug ]] || pipeplug=$(command -v pipeplug) || missing 'pipeplug (cargo build -p pipeplug, or set PIPEPLUG)'
pipeplug=$(realpath "$pipeplug")
rust=$(dirname "$pipeplug")
# The scripts find it by its name: a plugin gets PATH from its host, and no other variable of this script.
unset PIPEPLUG

dir=$(mktemp -d)
step=
cleanup() {
    local status=$?
    rm -rf "$dir"
    [[ $status = 0 ]] || printf 'FAILED: %s\n' "$step"
}
trap cleanup EXIT
begin() {
    step=$1
    printf -- '--- %s\n' "$step"
}
mkdir "$dir/bin"
ln -s "$pipeplug" "$dir/bin/pipeplug"
export PATH=$dir/bin:$PATH

begin shellcheck
cd "$root"
shellcheck -x sdk/sh/pipeplug.sh sdk/sh/samples/*.sh sdk/sh/tests/*.sh sdk/sh/check.sh

# A copy is what users have: two files of it are all that a script needs.
begin 'copied into a clean folder'
shells='dash bash'
if command -v busybox >/dev/null; then shells="$shells busybox"; fi
for shell in $shells; do
    mkdir -p "$dir/$shell"
    cp -r "$here/pipeplug.sh" "$here/samples" "$here/tests" "$dir/$shell"
    program=$(command -v "$shell")
    if [[ $shell = busybox ]]; then program="$program sh"; fi
    sed -i "1s|.*|#!$program|" "$dir/$shell"/samples/*.sh "$dir/$shell"/tests/*.sh
done
cd "$dir"

conform() {
    # A shell reads a pipe byte by byte, which takes its time for a megabyte on a busy machine.
    timeout 100 pipeplug conform --timeout 30s "$@" >"$dir/log" 2>&1 || { grep -v '^pass' "$dir/log"; false; }
    tail -n 1 "$dir/log"
}
same() { # expected, command…
    local expected=$1 got
    shift
    got=$(timeout 60 "$@" 2>"$dir/log") || { cat "$dir/log"; return 1; }
    [[ $got = "$expected" ]] || { printf '%s: expected %q, got %q\n' "$*" "$expected" "$got"; return 1; }
}
status() { # expected, command…
    local expected=$1 got=0
    shift
    "$@" >/dev/null 2>"$dir/log" || got=$?
    [[ $got = "$expected" ]] || { printf '%s: expected %s, got %s\n' "$*" "$expected" "$got"; cat "$dir/log"; return 1; }
}
greetings=$'guten Tag, Ann\nhello, Ann\nbonjour, Ann\nnot in tlh'
sample1='sample1: 100 Echo, 100 Repeat, docker host unix:///var/run/docker.sock, done'
for shell in $shells; do
    begin "$shell: tests"
    timeout 60 "$shell/tests/test.sh" 2>"$dir/log" || { cat "$dir/log"; false; }
    begin "$shell: conform as guest"
    conform "$shell/samples/echo.sh" --basic
    conform "$shell/samples/greeter.sh" --basic --check services
    # Left out by --basic, and yet not a matter of one chunk after the other.
    conform "$shell/samples/echo.sh" --check format
    begin "$shell: conform as host"
    conform --as host -- "$shell/samples/call.sh" '{plugin}' echo hello
    begin "$shell: samples"
    same HELLO pipeplug run "$shell/samples/echo.sh" --call upper hello
    same HELLO pipeplug run "$shell/samples/echo.sh" --stdio --call upper hello
    same HELLO pipeplug run "$shell/samples/echo.sh" --format classic --call upper hello
    same '"hello, Ann"' pipeplug run "$shell/samples/greeter.sh" --call greeter.greet '{"name":"Ann"}'
    same "$greetings" "$shell/samples/greet.sh" "$shell/samples/greeter.sh" Ann
    same "$sample1" "$shell/samples/sample1_host.sh" "$shell/samples/sample1.sh"
    if [[ -x $rust/greeter-plugin ]]; then
        same "$greetings" "$shell/samples/greet.sh" "$rust/greeter-plugin" Ann
        same "$sample1" "$shell/samples/sample1_host.sh" "$rust/sample1-plugin"
        same "${sample1//100 /5000 }" "$rust/sample1-host" "$shell/samples/sample1.sh"
    fi
    begin "$shell: ends and exit statuses"
    status 1 bash -c "printf '1\\0002\\0008\\000cmd.ping\\0000\\000' | $shell/samples/echo.sh"
    status 2 bash -c ": | $shell/samples/echo.sh"
    status 0 bash -c "printf '0\\0001\\0008\\000cmd.stop\\0000\\000' | $shell/samples/echo.sh"
done

begin 'a plugin without pipeplug chunk'
conform "$root/samples/scripts/hello.sh" --basic --call hello=you --check start --check call --check broken --check end

begin 'soak: 10,000 calls with cancellations and kills'
gcc -O1 -std=c99 -D_POSIX_C_SOURCE=200809L -I"$root/sdk/c" -o soak "$root/sdk/c/tests/soak.c" "$root/sdk/c/pipeplug.c" -lpthread
timeout 100 ./soak 10000 "${SEED:-1}" 3000 dash/samples/echo.sh
begin 'soak: calls of the Rust host'
# 10,000 calls of the Rust host, 64 at once, each with its own reply.
awk -v seed="${SEED:-1}" 'BEGIN {
    srand(seed)
    for (i = 0; i < 10000; i++) {
        line = i ":"
        for (n = int(rand() * (i % 50 == 0 ? 3000 : 200)); n > 0; n -= 8) line = line int(rand() * 100000000)
        print line
    }
}' >"$dir/lines"
timeout 60 pipeplug run dash/samples/echo.sh --call echo --data-each "$dir/lines" --parallel 64 >"$dir/replies" 2>"$dir/log" || { tail "$dir/log"; false; }
cmp "$dir/lines" "$dir/replies"

echo 'the library for shells is well'
