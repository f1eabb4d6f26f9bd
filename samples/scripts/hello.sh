#!/bin/sh
# A plugin in POSIX sh, which talks over stdin and stdout:
#
#     pipeplug run samples/scripts/hello.sh --stdio --call hello world
#
# It is for text, since shell variables cannot hold a NUL, and for small data: each byte of a header costs two processes.

export LC_ALL=C # so that ${#2} counts bytes

# Sets $number to the digits before the next NUL; fails at the end of the input.
take_number() {
    number=
    while :; do
        # With bs=1 dd reads exactly one byte. tr replaces the NUL, which $(...) cannot hold.
        byte=$(dd bs=1 count=1 2>/dev/null | tr '\000' .)
        case $byte in
        .) return 0 ;;
        '') return 1 ;;
        *) number=$number$byte ;;
        esac
    done
}

# Sets $bytes to the next $1 bytes.
take_bytes() {
    bytes=
    # The meaning of count=0 differs between versions of dd.
    [ "$1" -gt 0 ] || return 0
    # $(...) strips newlines at the end; the x protects those that are data.
    bytes=$(dd bs=1 count="$1" 2>/dev/null && printf x) && bytes=${bytes%x}
}

take_chunk() {
    take_number && id=$number &&
        take_number && direction=$number &&
        take_number && take_bytes "$number" && cmd=$bytes &&
        # The NUL after the command.
        dd bs=1 count=1 >/dev/null 2>&1 &&
        take_number && take_bytes "$number" && buffer=$bytes
}

# Answers the request $1 with the command $2 and the buffer $3. The 3 between NULs marks a response.
respond() {
    printf '%s\0003\000%s\000%s\000%s\000%s' "$1" "${#2}" "$2" "${#3}" "$3"
}

while take_chunk; do
    # 1 is a one-way, 2 a request.
    case $direction/$cmd in
    2/GetMetadata) respond "$id" "$cmd" '{"Cmd":"hello","Description":"greets whom it is told"}' ;;
    2/cmd.ping) respond "$id" "$cmd" '' ;;
    2/hello) respond "$id" "$cmd" "hello, $buffer" ;;
    2/*) respond "$id" cmd.error "unknown command \"$cmd\", there is only hello" ;;
    1/cmd.stop) exit 0 ;;
    esac
done
# The host closed the pipe without cmd.stop.
exit 1
