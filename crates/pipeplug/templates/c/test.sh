#!/bin/sh
# Tests of the plugin: make check
plugin=$1
failed=0

# Compares what the plugin writes with what it should.
check() { # name, sent, expected; both for printf
    dir=$(mktemp -d)
    printf "$3" >"$dir/expected"
    printf "$2" | "$plugin" >"$dir/came" || { echo "FAIL $1: exit status $?"; failed=1; }
    if cmp "$dir/expected" "$dir/came"; then echo "ok   $1"; else echo "FAIL $1"; failed=1; fi
    rm -r "$dir"
}

# Chunks of the standard format: threadID, direction (1 one-way, 2 request, 3 response), len(cmd), cmd, len(buffer), buffer.
stop='0\0001\0008\000cmd.stop\0000\000'
check greets "1\0002\0005\000hello\0005\000world$stop" '1\0003\0005\000hello\00012\000hello, world'
check 'other commands are errors' "2\0002\0003\000odd\0000\000$stop" \
    '2\0003\0009\000cmd.error\00042\000unknown command "odd", there is only hello'
exit $failed
