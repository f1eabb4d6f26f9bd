#!/bin/sh
# Everything that CI has to know of the Python library: linter, types, tests, package, conformance, soak.
#
#   PIPEPLUG=path/of/pipeplug PYTHON=python3 ./check.sh
#
# Exits with 0 if all is well, with 77 if a tool is missing, and with something else if a check fails.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}

missing() {
    echo "check.sh: $1" >&2
    exit 77
}

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null ||
    missing "Python 3.9 or newer is missing: apt-get install python3, or set PYTHON"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    missing "the module venv is missing: apt-get install python3-venv"
if [ -z "${PIPEPLUG:-}" ]; then
    PIPEPLUG=$root/target/debug/pipeplug
    [ -x "$PIPEPLUG" ] || PIPEPLUG=$(command -v pipeplug) ||
        missing "pipeplug is missing: cargo build -p pipeplug, or set PIPEPLUG"
fi
[ -x "$PIPEPLUG" ] || missing "$PIPEPLUG is no executable: cargo build -p pipeplug, or set PIPEPLUG"
PIPEPLUG=$(cd "$(dirname "$PIPEPLUG")" && pwd)/$(basename "$PIPEPLUG")
"$PIPEPLUG" conform --list >/dev/null 2>&1 ||
    missing "$PIPEPLUG has no command conform: cargo build -p pipeplug"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' INT TERM
unset PYTHONPATH PYTHONHOME
export PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1

step() { # name, command…
    name=$1
    shift
    if "$@" >"$scratch/log" 2>&1; then
        echo "ok    $name"
    else
        status=$?
        cat "$scratch/log"
        echo "FAIL  $name (exit status $status): $*" >&2
        exit 1
    fi
}

# Tools, in an environment of their own. They may be there already.
tools=$scratch/tools
"$python" -m venv --system-site-packages "$tools" || missing "no environment can be made: apt-get install python3-venv"
"$tools/bin/python" -c 'import build, hatchling, mypy; import ruff' 2>/dev/null ||
    "$tools/bin/pip" install -q 'ruff>=0.6' 'mypy>=1.11' 'build>=1' 'hatchling>=1.21' >"$scratch/log" 2>&1 ||
    missing "ruff, mypy, build and hatchling cannot be installed: pip install ruff mypy build hatchling"
cd "$here" || exit 1
step "ruff check" "$tools/bin/python" -m ruff check --no-cache .
step "ruff format" "$tools/bin/python" -m ruff format --no-cache --check .
step "mypy --strict" "$tools/bin/python" -m mypy --strict --cache-dir "$scratch/mypy" src
step "mypy --strict, tests" env MYPYPATH=src:tests:samples "$tools/bin/python" -m mypy --strict \
    --cache-dir "$scratch/mypy" tests/test_*.py tests/soak.py tests/stress.py tests/plugin*.py
generated() { # code of a description with all shapes of types
    "$PIPEPLUG" bindings --lang python "$root/crates/pipeplug/tests/cli/bindings/shapes.json" --out "$scratch/bindings/" &&
        "$tools/bin/python" -m ruff check --no-cache --config pyproject.toml "$scratch/bindings" &&
        MYPYPATH=src "$tools/bin/python" -m mypy --strict --cache-dir "$scratch/mypy" "$scratch/bindings/shapes.py" "$scratch/bindings/plain.py"
}
step "generated code, all shapes" generated
named() { # code of a description with names that mean something to Python
    "$PIPEPLUG" bindings --lang python "$root/crates/pipeplug/tests/cli/bindings/names.json" --out "$scratch/names/" &&
        MYPYPATH=src "$tools/bin/python" -m mypy --strict --cache-dir "$scratch/mypy" "$scratch"/names/*.py || return 1
    for file in "$scratch"/names/*.py; do
        PYTHONPATH=src "$python" "$file" || return 1
    done
}
step "generated code, all names" named
step "mypy --strict, samples" env MYPYPATH=src:samples "$tools/bin/python" -m mypy --strict \
    --cache-dir "$scratch/mypy" samples/*.py

# The package, in a clean environment. The wheel is built from the source distribution.
step "build" "$tools/bin/python" -m build -q --no-isolation --outdir "$scratch/dist" .
"$python" -m venv "$scratch/clean" || exit 1
step "install" "$scratch/clean/bin/pip" install -q --no-index "$scratch"/dist/*.whl
PATH=$scratch/clean/bin:$PATH
export PATH
step "installed package" python -c "
import pipeplug, pathlib
place = pathlib.Path(pipeplug.__file__)
assert '$scratch/clean' in str(place), place
assert (place.parent / 'py.typed').exists()"
step "typed for its users" env MYPYPATH= "$tools/bin/python" -m mypy --strict --cache-dir "$scratch/mypy2" \
    --python-executable "$scratch/clean/bin/python" samples/echo.py
step "tests" python -m unittest discover -s tests

# The other side is the one in Rust.
conform() { # name, arguments…
    name=$1
    shift
    step "conform, $name" "$PIPEPLUG" conform --timeout 60s "$@"
    tail -n 1 "$scratch/log" | sed 's/^/      /'
}
conform "plugin by threads" samples/echo.py
conform "plugin by threads, classic" --format classic samples/echo.py
conform "plugin by asyncio" samples/echo_async.py
conform "plugin with a service" --check services --check start --call greeter.languages= samples/greeter_plugin.py
conform "host by threads" --as host -- samples/echo_host.py '{plugin}'
conform "host by asyncio" --as host -- samples/echo_host_async.py '{plugin}'

step "sample1" sh -c "samples/sample1_host.py | grep -x 'sample1: 5000 Echo, 5000 Repeat, docker host unix:///var/run/docker.sock, done'"
expected='guten Tag, Ann
hello, Ann
bonjour, Ann
not in tlh'
greeter() { [ "$("$@")" = "$expected" ]; }
step "greeter" greeter samples/greeter_host.py Ann
step "greeter, called by Rust" sh -c "'$PIPEPLUG' run --sandbox none samples/greeter_plugin.py --call greeter.greet name=Ann language=fr | grep -x '\"bonjour, Ann\"'"
# The sample in Rust, where it is built. `cargo xtask languages --matrix` has the calls between them.
beside=$(dirname "$PIPEPLUG")
if [ -x "$beside/greeter-plugin" ]; then
    step "greeter, the same interface" sh -c "'$PIPEPLUG' inspect --schema '$beside/greeter-plugin' >'$scratch/rust.json' &&
        '$PIPEPLUG' inspect --sandbox none --schema samples/greeter_plugin.py >'$scratch/here.json' &&
        '$PIPEPLUG' diff '$scratch/rust.json' '$scratch/here.json' | grep -x 'No differences.'"
fi
step "greeter.py is current" sh -c "'$PIPEPLUG' inspect --sandbox none --schema samples/greeter_plugin.py >'$scratch/greeter.json' &&
    '$PIPEPLUG' bindings --lang python '$scratch/greeter.json' --check samples/greeter.py"
step "stress" python tests/stress.py --hosts 4 --seconds 10
step "soak" python tests/soak.py "$PIPEPLUG"
sed 's/^/      /' "$scratch/log"
echo "all is well"
