#!/bin/sh
# A plugin in POSIX sh:
#
#     pipeplug run samples/scripts/hello.sh --call hello world
#
# It is for text, since shell variables cannot hold a NUL, and for small data: each byte of a header costs two processes.

export LC_ALL=C # so that ${#2} counts bytes

# The descriptors that the host names, otherwise stdin and stdout. In POSIX, `<&` takes one digit; /dev/fd has all.
case ${1-}/${2-} in
[0-9]/[0-9]) exec <&"$1" >&"$2" ;;
*[!0-9/]* | /* | */ | */*/*) ;;
*) exec <"/dev/fd/$1" >"/dev/fd/$2" ;;
esac

# The longest command.
limit=65536

broken() {
    echo "hello.sh: not a chunk: $1" >&2
    exit 1
}

# Sets $number to the digits before the next NUL; fails at the end of the input.
take_number() {
    number=
    while :; do
        # With bs=1 dd reads exactly one byte. tr replaces the NUL, which $(...) cannot hold.
        byte=$(dd bs=1 count=1 2>/dev/null | tr '\000' .)
        case $number/$byte in
        /.) broken 'a number without digits' ;;
        */.) break ;;
        */) return 1 ;;
        0/*) broken "$number$byte" ;;
        */[0-9]) number=$number$byte ;;
        *) broken "$number$byte" ;;
        esac
    done
    # test and $((...)) may have less than 64 bits.
    [ ${#number} -lt 20 ] ||
        { [ ${#number} -eq 20 ] && expr "x$number" '<=' x18446744073709551615 >/dev/null; } ||
        broken "$number"
}

# Sets $bytes to the next $1 bytes, with the byte 1 for each NUL; fails at the end of the input.
take_bytes() {
    bytes=
    # The meaning of count=0 differs between versions of dd.
    [ "$1" -gt 0 ] || return 0
    # $(...) strips newlines at the end; the x protects those that are data.
    bytes=$(dd bs=1 count="$1" 2>/dev/null | tr '\000' '\001' && printf x) && bytes=${bytes%x}
    [ ${#bytes} -eq "$1" ]
}

take_chunk() {
    take_number && id=$number &&
        take_number && direction=$number &&
        take_number && take_bytes "$number" && cmd=$bytes || return 1
    # The NUL after the command.
    byte=$(dd bs=1 count=1 2>/dev/null | tr '\000' .)
    [ "$byte" = . ] || broken "no NUL after the command"
    take_number && take_bytes "$number" && buffer=$bytes
}

# Answers the request $1 with the command $2 and the buffer $3. The 3 between NULs marks a response.
respond() {
    printf '%s\0003\000%s\000%s\000%s\000%s' "$1" "${#2}" "$2" "${#3}" "$3"
}

while take_chunk; do
    # Others are skipped, whatever they hold: 1 is a one-way, 2 a request, 3 a response.
    case $direction in [123]) ;; *) continue ;; esac
    if [ ${#cmd} -gt $limit ]; then
        [ "$direction" != 2 ] || respond "$id" cmd.error "the command is over $limit bytes"
        continue
    fi
    printf %s "$cmd" | iconv -f UTF-8 -t UTF-8 >/dev/null 2>&1 || broken "a command that is not UTF-8"
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
