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
check 'other commands are errors' 'pipeplug: odd: unknown command "odd" (unknown_command)' \
    "$(pipeplug run "$plugin" --call odd 2>&1 | head -n 1)"
if report=$(pipeplug conform "$plugin" --basic --timeout 60s --call hello=world 2>&1); then
    echo 'ok   speaks the protocol (pipeplug conform)'
else
    printf 'FAIL speaks the protocol (pipeplug conform)\n%s\n' "$report"
    failed=1
fi
exit $failed
