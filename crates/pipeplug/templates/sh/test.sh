#!/bin/sh
# Tests of the plugin {{name}}: ./test.sh
plugin=$(dirname "$0")/{{name}}.sh
failed=0

check() { # name, expected, and what came
    if [ "$2" = "$3" ]; then
        echo "ok   $1"
    else
        printf 'FAIL %s\n  expected %s\n  came     %s\n' "$1" "$2" "$3"
        failed=1
    fi
}

check greets 'hello, world' "$(pipeplug run "$plugin" --call hello world)"
check 'takes any bytes' 'hello, a "b" \c' "$(pipeplug run "$plugin" --stdio --call hello 'a "b" \c')"
check 'other commands are errors' 'pipeplug: odd: unknown command "odd", there is only hello' \
    "$(pipeplug run "$plugin" --call odd 2>&1)"
pipeplug conform "$plugin" --basic --call hello=world >/dev/null && conforms=yes || conforms=no
check 'speaks the protocol (pipeplug conform)' yes $conforms
exit $failed
