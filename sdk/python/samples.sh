#!/bin/sh
# Puts the samples into a folder, ready to run, under the names that they have in every language.
#
#     sdk/python/samples.sh FOLDER
#
# Exits with 77 if a tool is missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || {
    echo 'missing: Python 3.9 or newer (apt-get install python3)'
    exit 77
}
mkdir -p "$1"
# Python looks for the package beside the script.
cp -R "$here/src/pipeplug" "$here"/samples/*.py "$1"
for name in echo greeter_host greeter_plugin sample1_host sample1_plugin; do
    ln -sf "$name.py" "$1/$(echo "$name" | tr _ -)"
done
