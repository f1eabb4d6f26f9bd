#!/bin/sh
# Everything that CI has to know of the Go library: format, vet, tests with the race detector, the module installed
# into a clean environment and used from there, conformance as guest and as host, the samples with the other languages'
# of Rust, and a soak.
#
# PIPEPLUG is the path of the executable pipeplug. Default: target/debug/pipeplug, then pipeplug on PATH. The samples of
# Rust are taken from its folder, if they are there. SEED is that of the soak.
#
# Exit status: 0 if all is well, 77 if a tool is missing, 1 on a failure. Writes into temporary
# folders only, and into the build cache of go (GOCACHE): a first run takes a minute or two longer.
set -u

sdk=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$sdk/../.." && pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$sdk" || exit 1

missing() {
    echo "missing: $1" >&2
    exit 77
}
fail() {
    echo "FAILED: $1" >&2
    exit 1
}
# check NAME COMMAND…: a step whose output is shown if it fails.
check() {
    name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok      $name"
    else
        cat "$work/log" >&2
        fail "$name"
    fi
}

command -v go >/dev/null || missing "go 1.19 or later (apt-get install golang-go, or https://go.dev/dl)"
command -v gcc >/dev/null || missing "gcc, which go test -race needs (apt-get install gcc libc6-dev)"
pipeplug=${PIPEPLUG:-}
if [ -z "$pipeplug" ]; then
    pipeplug=$root/target/debug/pipeplug
    [ -x "$pipeplug" ] || pipeplug=$(command -v pipeplug) || missing "pipeplug (cargo build -p pipeplug, or name it in PIPEPLUG)"
fi
[ -x "$pipeplug" ] || missing "$pipeplug, which PIPEPLUG names"
pipeplug=$(cd "$(dirname "$pipeplug")" && pwd)/$(basename "$pipeplug")
rust=$(dirname "$pipeplug")

# Nothing is taken from the network, or from the user's settings.
export GOPROXY=off GOFLAGS='' GOWORK=off GO111MODULE=on GOENV=off GOTOOLCHAIN=local

# Static checks and tests.
formatted() {
    unformatted=$(gofmt -l .)
    echo "$unformatted"
    [ -z "$unformatted" ]
}
check "gofmt" formatted
check "go vet" go vet ./...
check "go vet for another system" env GOOS=darwin CGO_ENABLED=0 go vet .
only_standard() {
    others=$(go list -deps . | grep '\..*/' | grep -v '^github.com/pipeplug/pipeplug/sdk/go' | grep -v '^vendor/')
    echo "$others"
    [ -z "$others" ]
}
check "only the standard library" only_standard
# Code that `pipeplug bindings` writes for all shapes of types: its tests are with those of the library.
bindings=$root/crates/pipeplug/tests/cli/bindings
current() {
    "$pipeplug" bindings --lang go "$bindings/shapes.json" --service plain --check internal/plain/plain.go && return
    echo "pipeplug bindings --lang go $bindings/shapes.json --service plain --out $sdk/internal/"
    return 1
}
check "internal/plain is current" current
check "go test -race" env PIPEPLUG="$pipeplug" go test -race -count=1 ./...

# The same for names that mean something to Go, in a module of its own.
generated() {
    mkdir "$work/bindings" && cd "$work/bindings" || return 1
    "$pipeplug" bindings --lang go "$bindings/names.json" --out ./ || return 1
    printf 'module example.com/bindings\n\ngo 1.19\n\nrequire %s v0.0.0\n\nreplace %s => %s\n' \
        github.com/pipeplug/pipeplug/sdk/go github.com/pipeplug/pipeplug/sdk/go "$sdk" >go.mod
    unformatted=$(gofmt -l .)
    echo "$unformatted"
    [ -z "$unformatted" ] && go vet ./... || return 1
    # No file and no folder is left out.
    [ "$(go list ./... | wc -l)" -eq "$(find . -name '*.go' | wc -l)" ]
}
(check "generated code" generated) || exit 1

# Programs of the checks.
mkdir "$work/bin"
build() {
    ./samples.sh "$work/bin" || return 1
    for program in testguest testhost soak; do
        go build -o "$work/bin/$program" "./internal/$program" || return 1
    done
}
check "go build" build
bin=$work/bin

# The module as a proxy gives it out, used by a module elsewhere.
version=v0.0.0-check
module=github.com/pipeplug/pipeplug/sdk/go
packed() {
    proxy=$work/proxy/$module/@v
    tree="$work/zip/$module@$version"
    mkdir -p "$proxy" "$tree" || return 1
    (cd "$sdk" && find . -type f ! -name '*_test.go' | tar cf - -T -) | (cd "$tree" && tar xf -) || return 1
    cp "$sdk/go.mod" "$proxy/$version.mod" || return 1
    echo "{\"Version\":\"$version\"}" >"$proxy/$version.info"
    echo "$version" >"$proxy/list"
    cat >"$work/zip/zip.go" <<'ZIP' || return 1
package main

import (
	"archive/zip"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	out, err := os.Create(os.Args[1])
	if err == nil {
		w := zip.NewWriter(out)
		err = filepath.WalkDir("github.com", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			f, err := w.Create(path)
			if err == nil {
				_, err = f.Write(text)
			}
			return err
		})
		if err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		panic(err)
	}
}
ZIP
    (cd "$work/zip" && go run zip.go "$proxy/$version.zip")
}
check "module packed" packed
# readme_program NUMBER: a program of the README.
readme_program() {
    awk -v number="$1" '/^```go$/ { n++; inside = n == number; next } /^```$/ { inside = 0 } inside' "$sdk/README.md"
}
used() {
    mkdir "$work/user" && cd "$work/user" || return 1
    export GOPROXY="file://$work/proxy" GONOSUMDB='*' GONOSUMCHECK=1 GOFLAGS=-mod=mod GOSUMDB=off
    export GOMODCACHE="$work/modcache" GOPATH="$work/gopath"
    go mod init example.com/user || return 1
    readme_program 1 >main.go
    go get "$module@$version" && go build -o plugin . || return 1
    [ "$("$pipeplug" run ./plugin --call upper hello)" = HELLO ] || return 1
    mkdir host || return 1
    readme_program 2 >host/main.go
    go vet ./... && [ "$(go run ./host)" = "HELLO <nil>" ]
}
(check "module installed elsewhere, with the programs of the README" used) || exit 1

# What the README says, word for word, in an empty folder.
followed() {
    mkdir "$work/reader" && cd "$work/reader" || return 1
    sed -n '/^    mkdir/,/^$/s/^    //p' "$sdk/README.md" | sed "s|=DIR/|=$root/|" >commands || return 1
    cat commands
    # shellcheck disable=SC1091
    . ./commands || return 1
    readme_program 1 >main.go
    go build -o plugin . || return 1
    mkdir host && readme_program 2 >host/main.go && [ "$(go run ./host)" = "HELLO <nil>" ] || return 1
    [ "$("$pipeplug" run ./plugin --call upper hello)" = HELLO ]
}
(check "the commands of the README" followed) || exit 1

# Conformance.
for options in "" "--format classic" "--stdio" "--stdio --format classic"; do
    # shellcheck disable=SC2086
    check "conform as guest $options" "$pipeplug" conform $options "$bin/testguest"
    tail -n 1 "$work/log"
done
check "conform of a guest with a service" "$pipeplug" conform --check services "$bin/greeter-plugin"
check "conform of a guest that calls back" "$pipeplug" conform "$bin/testguest" --call "ask=mirror x" --answer mirror=y \
    --check flow --check format
for options in "" -classic; do
    # shellcheck disable=SC2086
    check "conform as host $options" "$pipeplug" conform --as host -- "$bin/testhost" $options "{plugin}"
    tail -n 1 "$work/log"
done

# Samples, with those of Rust on the other side.
says() {
    want=$1
    shift
    got=$("$@") || return 1
    echo "$got"
    [ "$got" = "$want" ]
}
greetings='guten Tag, Ann
hello, Ann
bonjour, Ann
not in tlh'
done_='sample1: 5000 Echo, 5000 Repeat, docker host unix:///var/run/docker.sock, done'
check "echo, called by Rust" says HELLO "$pipeplug" run "$bin/echo" --call upper hello
check "greeter, called by Rust" says '"bonjour, Ann"' "$pipeplug" run "$bin/greeter-plugin" --call greeter.greet name=Ann language=fr
check "greeter" says "$greetings" "$bin/greeter-host" "$bin/greeter-plugin" Ann
check "sample1" says "$done_" "$bin/sample1-host" "$bin/sample1-plugin"
# `cargo xtask languages --matrix` has the calls between them.
greeter_is_current() {
    "$pipeplug" inspect --schema "$bin/greeter-plugin" >"$work/greeter.json" &&
        "$pipeplug" bindings --lang go "$work/greeter.json" --check samples/greeter/greeter.go
}
check "samples/greeter/greeter.go is current" greeter_is_current
if [ -x "$rust/greeter-plugin" ]; then
    check "greeter: the descriptions agree" "$pipeplug" diff "$rust/greeter-plugin" "$bin/greeter-plugin"
fi

# Soak: 10,000 calls with random sizes, cancellations and kills; the plugin is that of Rust, then that of Go.
seed=${SEED:-$(date +%s)}
check "soak with the Rust guest, seed $seed" "$bin/soak" -seed "$seed" "$pipeplug" __plugin echo
check "soak with the Rust guest, classic, seed $seed" "$bin/soak" -classic -seed "$seed" "$pipeplug" __plugin echo
check "soak with the Go guest, seed $seed" "$bin/soak" -seed "$seed" "$bin/testguest"
check "soak with the Rust host" "$pipeplug" bench "$bin/testguest" --call echo --size 10K --concurrency 64 --duration 2s
rust_host_gives_up() {
    # Each call is given up, and the plugin goes on.
    "$pipeplug" bench "$bin/testguest" --call sleep 10000 --timeout 300ms --concurrency 1000 --duration 1s
    [ $? -eq 1 ] && "$pipeplug" run "$bin/testguest" --call echo x
}
check "calls that the Rust host gives up" rust_host_gives_up
echo "all is well"
