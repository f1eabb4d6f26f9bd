#!/bin/sh
# Checks of the Node library, as CI runs them: linter, type checker, tests, the package in a clean directory,
# conformance of both sides, and a soak. Writes into temporary folders only.
#
#   PIPEPLUG=path/of/pipeplug sdk/node/check.sh
#
# Exit status: 0 if all is well, 77 if a tool is missing, 1 if a check failed.
set -u
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd) || exit 1
repository=$(CDPATH='' cd -- "$here/../.." && pwd) || exit 1

missing() {
    echo "sdk/node: $1 is missing: $2" >&2
    exit 77
}

pipeplug=${PIPEPLUG:-}
if [ -z "$pipeplug" ]; then
    pipeplug=$repository/target/debug/pipeplug
    [ -x "$pipeplug" ] || pipeplug=$(command -v pipeplug) || missing pipeplug "cargo build -p pipeplug, or set PIPEPLUG to its path"
fi
command -v "$pipeplug" >/dev/null || missing "$pipeplug" "set PIPEPLUG to the path of pipeplug"
pipeplug=$(command -v "$pipeplug")
case $pipeplug in
/*) ;;
*) pipeplug=$(pwd)/$pipeplug ;;
esac
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

step() {
    name=$1
    shift
    if "$@" >"$work/log" 2>&1; then
        echo "ok    $name"
    else
        echo "FAIL  $name: $*" >&2
        grep -A 25 '^not ok' "$work/log" >&2 || tail -n 60 "$work/log" >&2
        exit 1
    fi
}

# A copy, in which the package is built. The tests look for the vectors where the repository has them.
mkdir -p "$work/crates/pipeplug-wire/tests"
cp -R "$repository/crates/pipeplug-wire/tests/vectors" "$work/crates/pipeplug-wire/tests/" || exit 1
built=0
"$here/samples.sh" "$work/sdk/node" >"$work/log" 2>&1 || built=$?
if [ "$built" = 77 ]; then
    tail -n 6 "$work/log" >&2
    exit 77
fi
step "types, and the samples" sh -c "cat '$work/log'; exit $built"
cd "$work/sdk/node" || exit 1

bindings=$repository/crates/pipeplug/tests/cli/bindings
generated() { # code of a description with all shapes of types, and of one with names that mean something
    # In the copy, where the package is found by its own name.
    "$pipeplug" bindings --lang typescript "$bindings/shapes.json" --out test/package/ &&
        "$pipeplug" bindings --lang typescript "$bindings/names.json" --out test/package/names/ &&
        npx --no-install tsc --rootDir . --outDir made --strict --module Node16 --target ES2022 --types node \
            test/package/same.mts test/package/plain.ts test/package/names/*.ts
}
step "generated code, all shapes and names" generated
same() { # values that go through it, from Node and from Rust
    chmod +x made/test/package/same.mjs && node made/test/package/same.mjs --host "$bindings/values.json" "$pipeplug"
}
step "values through the generated code" same
step "values against schemas" node --test test/schema.test.mjs
rm -r made test/package/names test/package/shapes.ts test/package/plain.ts
single() { # the copy of the library for new projects
    mkdir "$work/single" && node single.mjs "$work/single" &&
        diff -r "$work/single" "$repository/crates/pipeplug/libraries/node" ||
        { echo "it is not current: npm run single, in sdk/node"; return 1; }
}
step "one file, as pipeplug new has it" single
step "lint" npx --no-install biome check .
step "tests" timeout 200 node --test test/vectors.test.mjs test/plugin.test.mjs test/mistakes.test.mjs \
    test/thrown.test.mjs test/attacks.test.mjs

packed() {
    npm pack --pack-destination "$work" || return 1
    mkdir "$work/clean" && cd "$work/clean" || return 1
    # A clean directory, which has the package and nothing else.
    npm init -y >/dev/null && npm install --offline --no-audit --no-fund "$work"/pipeplug-*.tgz || return 1
    test "$(ls node_modules)" = pipeplug || return 1
    cat >cjs.cjs <<'END'
const { register } = require("pipeplug");
register({ commands: { upper: (request) => request.text().toUpperCase() } });
END
    cat >esm.mjs <<'END'
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { Failure, Plugin } from "pipeplug";
if (createRequire(import.meta.url)("pipeplug").Failure !== Failure) throw new Error("there are two copies");
const plugin = await Plugin.start(fileURLToPath(new URL("cjs.cjs", import.meta.url)));
if ((await plugin.callText("upper", "hello")) !== "HELLO") throw new Error("another reply");
await plugin.stop();
END
    node esm.mjs || return 1
    cp "$work/sdk/node/test/package/use.ts" use.cts && cp use.cts use.mts || return 1
    # The types of Node, and nothing else of the tools.
    tsc=$(cd "$work/sdk/node/node_modules" && pwd -P)
    "$tsc/.bin/tsc" --noEmit --strict --module Node16 --target ES2022 --types node --typeRoots "$tsc/@types" use.cts use.mts || return 1
    "$tsc/.bin/tsc" --noEmit --strict --module ESNext --moduleResolution bundler --target ES2022 --types node --typeRoots "$tsc/@types" use.mts
}
step "package, installed and used" packed

cd "$work/sdk/node" || exit 1
for format in standard classic; do
    step "conform as plugin, $format" "$pipeplug" conform --format $format ./test/conformer.mjs
    tail -n 1 "$work/log"
done
step "conform as plugin, stdin and stdout" "$pipeplug" conform --stdio ./test/conformer.mjs
tail -n 1 "$work/log"
project() { # in TypeScript, with the compiler that is here
    modules=$(cd node_modules && pwd -P)
    cd "$work" && "$pipeplug" new my-hello --lang typescript && cd my-hello && ln -s "$modules" node_modules &&
        npm test && "$pipeplug" conform ./my-hello.js --call hello=x
}
step "a new project in TypeScript" project
cd "$work/sdk/node" || exit 1
step "conform as host" "$pipeplug" conform --as host --jobs 2 -- node ./test/conformer-host.mjs '{plugin}'
tail -n 1 "$work/log"
step "greeter: Node calls Node" node samples/greeter-host.mjs Ann
step "sample1: Node calls Node" node samples/sample1-host.mjs
step "echo: Rust calls Node" "$pipeplug" run ./samples/echo.mjs --call upper hello
step "greeter: Rust calls Node" "$pipeplug" run ./samples/greeter-plugin.mjs --call greeter.greet name=Ann language=fr
step "soak" node test/soak.mjs "$pipeplug"
cat "$work/log"
