#!/bin/sh
# Puts the samples into a folder, ready to run, under the names that they have in every language. They need `pipeplug` on
# the PATH.
#
#     sdk/sh/samples.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
cp -R "$here/pipeplug.sh" "$here/samples" "$dir"
# sample NAME SCRIPT: a script looks for the library by its own path.
sample() {
    printf '#!/bin/sh\nexec "%s/samples/%s" "$@"\n' "$dir" "$2" >"$dir/$1"
    chmod +x "$dir/$1"
}
sample echo echo.sh
sample greeter-host greet.sh
sample greeter-plugin greeter.sh
sample sample1-host sample1_host.sh
sample sample1-plugin sample1.sh
