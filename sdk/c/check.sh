#!/usr/bin/env bash
# Everything that CI has to know of the C library. Takes the program pipeplug from $PIPEPLUG, and the Rust samples from
# its folder. Exits with 77 if a tool is missing, and writes into a temporary folder only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

missing() {
    printf 'missing: %s\n' "$1"
    exit 77
}
for tool in gcc make pkg-config valgrind; do
    command -v "$tool" >/dev/null || missing "$tool (Debian: apt-get install gcc libc6-dev make pkg-config valgrind)"
done
pipeplug=${PIPEPLUG:-$root/target/debug/pipeplug}
[[ -x $pipeplug ]] || pipeplug=$(command -v pipeplug) || missing 'pipeplug (cargo build -p pipeplug, or set PIPEPLUG)'
pipeplug=$(realpath "$pipeplug")
rust=$(dirname "$pipeplug")

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
# Sanitizers end with this, so that a program which fails otherwise is told apart.
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
cd "$here"

# Builds with warnings as errors.
build() { # folder, flags, targets…
    local warnings='-Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes'
    make -s OUT="$dir/$1" CC=gcc CFLAGS="-g $warnings $2" "${@:3}"
}

begin 'gcc -Wall -Wextra -Werror -std=c99 -pedantic'
build plain -O2 all samples tests bench
begin 'conversions'
gcc -std=c99 -pedantic -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Wconversion -Wcast-qual -Werror -fsyntax-only pipeplug.c
# What else is installed: another compiler, C++, and 32 bits.
if command -v clang >/dev/null; then
    begin 'clang'
    make -s OUT="$dir/clang" CC=clang CFLAGS='-Wall -Wextra -Werror -Wshadow -Wconversion' all
    make -s OUT="$dir/clang" CC=clang CFLAGS='-Wall -Wextra -Werror -Wshadow' samples tests bench
fi
if command -v g++ >/dev/null; then
    begin 'a host in C++'
    cat >"$dir/host.cpp" <<'END'
#include "pipeplug.h"
#include <cstdio>
int main(int, char **argv) {
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_peer *plugin = ppg_plugin_new(argv[1]);
    ppg_reply *reply = NULL;
    ppg_error error;
    options.timeout_ms = 5000;
    if (ppg_plugin_start(plugin, &error) == PPG_OK && ppg_call(plugin, "upper", "hello", 5, &options, &reply, &error) == PPG_OK)
        std::puts(ppg_reply_text(reply));
    ppg_reply_free(reply);
    ppg_free(plugin);
}
END
    g++ -std=c++98 -Wall -Wextra -Werror -Wconversion -Wold-style-cast -Wno-long-long -I. -o "$dir/host" "$dir/host.cpp" "$dir/plain/libpipeplug.a" -lpthread
    [[ $("$dir/host" "$dir/plain/echo") = HELLO ]]
fi
# The headers of the kernel for 32 bits come by a package of their own, which those for other machines displace.
if gcc -m32 -o "$dir/probe" -x c - <<<$'#include <errno.h>\nint main(void) { return 0; }' 2>/dev/null && "$dir/probe"; then
    begin '32 bits'
    build narrow '-m32 -O1 -Wconversion' all
    build narrow '-m32 -O1' tests
    "$dir/narrow/vectors" "$root/crates/pipeplug-wire/tests/vectors"
    timeout 60 "$dir/narrow/test" "$dir/narrow/all" 2>"$dir/log" || { cat "$dir/log"; false; }
fi
begin 'builds with sanitizers'
build asan '-O1 -fsanitize=address,undefined -fno-sanitize-recover' samples tests
build tsan '-O1 -fsanitize=thread' tests

begin 'test vectors, sanitizers: address, undefined'
"$dir/asan/vectors" "$root/crates/pipeplug-wire/tests/vectors"
begin 'random input, sanitizers: address, undefined'
timeout 60 "$dir/asan/fuzz" "$root/crates/pipeplug-wire/tests/vectors" 300000 "${SEED:-1}"
begin 'without memory, sanitizers: address, undefined'
timeout 60 "$dir/asan/oom" 2>"$dir/log" || { cat "$dir/log"; false; }
begin 'tests, sanitizers: address, undefined'
timeout 60 "$dir/asan/test" "$dir/asan/all" 2>"$dir/log" || { cat "$dir/log"; false; }
begin 'tests, sanitizer: thread'
timeout 60 "$dir/tsan/test" "$dir/tsan/all" 2>"$dir/log" || { cat "$dir/log"; false; }
begin 'tests, valgrind'
timeout 100 valgrind -q --error-exitcode=9 --leak-check=full "$dir/plain/test" "$dir/plain/all" calls 2>"$dir/log" ||
    { cat "$dir/log"; false; }

# Shows what did not pass.
conform() {
    timeout 100 "$pipeplug" conform "$@" >"$dir/conform" 2>&1 || { grep -v '^pass' "$dir/conform"; false; }
    tail -n 1 "$dir/conform"
}
begin 'conform as guest'
conform "$dir/asan/all"
conform "$dir/asan/greeter-plugin" --check services
begin 'conform as host'
conform --as host -- "$dir/asan/call" '{plugin}' echo hello

begin 'installed into a clean folder, and used from there'
make -s install OUT="$dir/plain" PREFIX=/opt/pipeplug DESTDIR="$dir/root"
mkdir "$dir/user"
cp samples/echo.c samples/call.c "$dir/user"
# The plugin and the host of the README.
awk -v dir="$dir/user" '/^```c$/ { out = dir "/readme" ++n ".c"; next } /^```$/ { out = "" } out != "" { print >out }' README.md
(
    cd "$dir/user"
    export PKG_CONFIG_SYSROOT_DIR=$dir/root PKG_CONFIG_LIBDIR=$dir/root/opt/pipeplug/lib/pkgconfig
    read -ra flags <<<"$(pkg-config --cflags --libs pipeplug)"
    gcc -std=c99 -o call call.c "${flags[@]}"
    # A host does not pass LD_LIBRARY_PATH on.
    gcc -std=c99 -o echo echo.c "${flags[0]}" "$dir/root/opt/pipeplug/lib/libpipeplug.a" -lpthread
    [[ $(LD_LIBRARY_PATH=$dir/root/opt/pipeplug/lib ./call ./echo upper hello) = HELLO ]]
    gcc -std=c99 -o plugin readme1.c "${flags[0]}" "$dir/root/opt/pipeplug/lib/libpipeplug.a" -lpthread
    gcc -std=c99 -o host readme2.c "${flags[@]}"
    [[ $(LD_LIBRARY_PATH=$dir/root/opt/pipeplug/lib ./host) = hello ]]
    [[ $(pkg-config --modversion pipeplug) = $(sed -n 's/#define PPG_VERSION "\(.*\)"/\1/p' "$dir/root/opt/pipeplug/include/pipeplug.h") ]]
)

begin 'samples'
same() { # expected, command…
    local expected=$1 got
    shift
    got=$(timeout 60 "$@" 2>"$dir/log") || { cat "$dir/log"; return 1; }
    [[ $got = "$expected" ]] || { printf '%s: expected %q, got %q\n' "$*" "$expected" "$got"; return 1; }
}
sample1='sample1: 5000 Echo, 5000 Repeat, docker host unix:///var/run/docker.sock, done'
greetings=$'guten Tag, Ann\nhello, Ann\nbonjour, Ann\nnot in tlh'
same hello "$pipeplug" run "$dir/asan/echo" --call echo hello
same HELLO "$pipeplug" run "$dir/asan/echo" --stdio --call upper hello
same HELLO "$pipeplug" run "$dir/asan/echo" --format classic --call upper hello
same '"hello, Ann"' "$pipeplug" run "$dir/asan/greeter-plugin" --call greeter.greet '{"name":"Ann"}'
same "$greetings" "$dir/asan/greeter-host" "$dir/asan/greeter-plugin" Ann
same "$sample1" "$dir/asan/sample1-host" "$dir/asan/sample1-plugin"
if [[ -x $rust/greeter-plugin ]]; then
    same "$greetings" "$dir/asan/greeter-host" "$rust/greeter-plugin" Ann
    same "$sample1" "$dir/asan/sample1-host" "$rust/sample1-plugin"
    same "$sample1" "$rust/sample1-host" "$dir/asan/sample1-plugin"
    same HELLO "$dir/asan/call" "$rust/echo" upper hello
fi

begin 'ends and exit statuses'
# Without a host, with one that is gone, and with descriptors that are none.
status() { # expected, command…
    local expected=$1 got=0
    shift
    "$@" >/dev/null 2>"$dir/log" || got=$?
    [[ $got = "$expected" ]] || { printf '%s: expected %s, got %s\n' "$*" "$expected" "$got"; cat "$dir/log"; return 1; }
}
status 2 "$dir/asan/echo" </dev/null
status 2 bash -c ": | '$dir/asan/echo'"
status 1 bash -c "printf '1\\0002\\0008\\000cmd.ping\\0000\\000' | '$dir/asan/echo'"
status 0 bash -c "printf '0\\0001\\0008\\000cmd.stop\\0000\\000' | '$dir/asan/echo'"
status 2 "$dir/asan/echo" 77 78
# The start comes before the first request of a host that does not ask for metadata, and what fails to start is not called.
status 1 bash -c "printf '1\\0002\\0004\\000echo\\0001\\000x' | '$dir/asan/all' 0 1 --fail | cat; exit \${PIPESTATUS[1]}"
grep -q 'no license' "$dir/log"
status 143 bash -c "sleep 9 | '$dir/plain/echo' & pid=\$!; sleep 0.3; kill \$pid; wait \$pid"

begin 'soak: 10,000 calls with cancellations and kills'
if [[ -x $rust/echo ]]; then
    timeout 60 "$dir/asan/soak" 10000 "${SEED:-1}" "$rust/echo"
fi
timeout 60 "$dir/asan/soak" 10000 "${SEED:-1}" "$dir/asan/all"
timeout 60 "$dir/tsan/soak" 3000 "${SEED:-1}" "$dir/tsan/all"
begin 'soak: calls of the Rust host'
# 10,000 calls of the Rust host, 64 at once, each with its own reply.
awk -v seed="${SEED:-1}" 'BEGIN {
    srand(seed)
    for (i = 0; i < 10000; i++) {
        line = i ":"
        for (n = int(rand() * (i % 50 == 0 ? 20000 : 200)); n > 0; n -= 8) line = line int(rand() * 100000000)
        print line
    }
}' >"$dir/lines"
timeout 60 "$pipeplug" run "$dir/asan/all" --call echo --data-each "$dir/lines" --parallel 64 >"$dir/replies" 2>"$dir/log" || { tail "$dir/log"; false; }
cmp "$dir/lines" "$dir/replies"
timeout 60 "$pipeplug" bench "$dir/asan/all" --call echo --size 3000 --concurrency 64 --duration 3s --json >"$dir/bench" 2>/dev/null
grep -q '"failed":0,' "$dir/bench" || { cat "$dir/bench"; false; }

echo 'the C library is well'
