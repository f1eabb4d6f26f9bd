#!/bin/sh
# Builds the package in a copy, and gives the samples the names that they have in every language.
#
#     sdk/node/samples.sh FOLDER
#
# Exits with 77 if a tool is missing.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
missing() {
    echo "missing: $1 ($2)"
    exit 77
}
command -v node >/dev/null || missing node 'apt-get install nodejs npm'
command -v npm >/dev/null || missing npm 'apt-get install npm'
node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 18 ? 1 : 0)' || missing "Node 18 or newer" "this one is $(node --version)"
mkdir -p "$1"
cd "$1"
# A copy: nothing is written beside the sources.
(cd "$here" && tar cf - --exclude=node_modules --exclude=dist --exclude='*.tgz' .) | tar xf -
# The tools are those of package-lock.json.
if [ -d "$here/node_modules/typescript" ]; then
    ln -sfn "$here/node_modules" node_modules
else
    npm ci --no-audit --no-fund >npm.log 2>&1 || {
        tail -n 5 npm.log >&2
        missing 'the development tools' 'npm ci in sdk/node needs the package registry, or a cache of it'
    }
    rm npm.log
fi
npx --no-install tsc -p .
for name in echo greeter-host greeter-plugin sample1-host sample1-plugin; do
    ln -sf "samples/$name.mjs" "$name"
done
