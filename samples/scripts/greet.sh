#!/bin/sh
# A plugin in POSIX sh, for any bytes and both formats. `pipeplug chunk` reads and writes the protocol:
#
#     pipeplug run samples/scripts/greet.sh --stdio --call hello world
#
# A chunk is a line of JSON. Since `decode` always writes the same fields in the same order, no JSON library is needed to
# take it apart; with jq it is shorter (docs/protocol.md).

# Sets $id, $direction, $command, and $content: `"text":"…"`, or `"base64":"…"` for bytes that are not UTF-8.
take_apart() {
    rest=${1#'{"id":'}
    id=${rest%%,*}
    rest=${rest#*',"direction":'}
    direction=${rest%%,*}
    rest=${rest#*',"command":'}
    # Text in the buffer has a backslash before each of its quotes, so it cannot contain what is looked for here.
    command=${rest%%',"text":'*}
    command=${command%%',"base64":'*}
    content=${rest#"$command",}
    format=${content##*',"format":'}
    content=${content%%',"offset":'*}
}

# Answers the request with a content, with another command if there is a second argument.
respond() {
    printf '{"id":%s,"direction":"response","command":%s,%s,"format":%s\n' "$id" "${2:-$command}" "$1" "$format"
}

# Descriptors 3 and 4, or with --stdio standard input and output.
pipeplug chunk decode --details <&"${1:-0}" | while IFS= read -r line; do
    take_apart "$line"
    case $direction/$command in
    '"request"/"GetMetadata"') respond '"json":{"Cmd":"hello","Description":"greets whom it is told"}' ;;
    '"request"/"hello"')
        case $content in
        '"text":"'*) respond "\"text\":\"hello, ${content#'"text":"'}" ;;
        *) respond '"text":"hello takes text"' '"cmd.error"' ;;
        esac
        ;;
    '"request"/"same"') respond "$content" ;;
    '"request"/"cmd.ping"') respond '"text":""' ;;
    '"request"/'*) respond '"text":"there are only hello and same"' '"cmd.error"' ;;
    '"one-way"/"cmd.stop"') exit 0 ;;
    esac
done | pipeplug chunk encode >&"${2:-1}"
