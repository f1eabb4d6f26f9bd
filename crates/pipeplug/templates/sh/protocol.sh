# The pipeplug protocol for a plugin in POSIX sh. The commands `pipeplug` and `base64` do the work with bytes, so that both
# formats and any data are possible. One request is handled after the other. Calls to the host and streams are not here:
# docs/protocol.md of pipeplug has the whole protocol.

# Writes a response to the request $id: $1 is its command, as JSON, and $2 its content.
respond() {
    printf '{"id":%s,"direction":"response","command":%s,%s,"format":%s}\n' "$id" "$1" "$2" "$format"
}

# Has `answer COMMAND` handle a chunk, with the data on its stdin, and sets $reply to its stdout in Base64, and $ended to
# `failed` if it did.
handle() {
    name=${command#\"}
    reply=$({ printf %s "$data" | base64 -d | { (answer "${name%\"}") || printf '!' >&3; } | base64 | tr -d '\n'; } 3>&1)
    ended=well
    # No digit of Base64. It may come before the reply or after it.
    case $reply in *!*) ended=failed reply=${reply%%!*}${reply#*!} ;; esac
}

# Answers requests until the host stops the plugin: serve METADATA "$@".
serve() {
    metadata=$1
    shift
    case ${1-}/${2-} in
    [0-9]/[0-9]) exec <&"$1" >&"$2" ;;
    *[!0-9/]* | /* | */ | */*/*) ;; # stdin and stdout
    *) exec <"/dev/fd/$1" >"/dev/fd/$2" ;; # dash knows descriptors of one digit
    esac
    # Each line has the same fields in the same order: id, direction, command, base64, offset, bytes, format. A chunk over a
    # limit has other ones.
    pipeplug chunk decode --details --base64 | while IFS= read -r line; do
        rest=${line#'{"id":'}
        id=${rest%%,*}
        rest=${rest#*',"direction":'}
        direction=${rest%%,*}
        format=${line##*',"format":'}
        format=${format%\}}
        # Each is looked for from the end that is near: shells take long to search a large text from the other one.
        command=${rest#*',"command":'}
        command=${command%%',"base64":'*}
        data=${rest#*',"base64":"'}
        data=${data%'","offset":'*}
        case $direction/$rest in
        '"request"/'*',"skipped":'*',"command_bytes":'*) respond '"cmd.error"' '"text":"it is over a limit"' ;;
        *',"skipped":'*',"command_bytes":'*) ;;
        '"request"/'*)
            case $command in
            '"GetMetadata"') respond "$command" "\"json\":$metadata" ;;
            '"cmd.ping"') respond "$command" '"text":""' ;;
            *)
                handle
                [ $ended = well ] || command='"cmd.error"'
                respond "$command" "\"base64\":\"$reply\""
                ;;
            esac
            ;;
        '"one-way"/'*)
            case $command in
            '"cmd.stop"') exit 0 ;;
            '"cmd.'*) ;;
            *)
                handle
                [ $ended = well ] || printf '%s: %s\n' "$command" "$(printf %s "$reply" | base64 -d)" >&2
                ;;
            esac
            ;;
        esac
    done | pipeplug chunk encode
}
