# shellcheck shell=sh disable=SC2034 # scripts that source it use its variables
# pipeplug for POSIX shells: source this file. `pipeplug chunk` (or $PIPEPLUG) reads and writes the protocol, in both
# formats and for any bytes.
#
# A plugin:                                       A host:
#
#     . ./pipeplug.sh                                 . ./pipeplug.sh
#     answer() {                                      ppg_start ./plugin &&
#         case $ppg_command in                            ppg_call upper hello &&
#         upper) ppg_answer "$(ppg_text | tr a-z A-Z)" ;;     ppg_text
#         *) ppg_unknown ;;                           ppg_stop
#         esac
#     }
#     ppg_serve answer "$@"
#
# A side handles one chunk after the other. Names that begin with ppg_ belong to this file. It uses the descriptors 6 to 9.
# Data is kept as a field of JSON, `"text":"…"` or, for bytes that are not UTF-8, `"base64":"…"`.

PIPEPLUG=${PIPEPLUG:-pipeplug}
ppg_metadata='' ppg_features='context progress failure config log' ppg_services='' ppg_descriptions=''
ppg_log_level=info ppg_peer='' ppg_stopping='' ppg_count=0 ppg_handler='' ppg_dir='' ppg_pid='' ppg_start='' ppg_started=''
ppg_progress_of='' ppg_gone='' ppg_error='' ppg_code='' ppg_error_data='' ppg_is_guest='' ppg_format=standard ppg_plugin=''
ppg_nested='' ppg_answered='' ppg_id=0 ppg_direction='' ppg_command='' ppg_quoted='' ppg_data='' ppg_status_of=''
# Seconds for the start of a plugin.
ppg_start_timeout=10
ppg_newline='
'
ppg_tab=$(printf '\t') ppg_return=$(printf '\r')
# All control characters but NUL, which no variable holds, and line feed.
ppg_controls=$(printf '\001\002\003\004\005\006\007\010\011\013\014\015\016\017\020\021\022\023\024\025\026\027\030\031\032\033\034\035\036\037')

# Scripts of sed(1): control characters as JSON has them, and as printf(1) does.
ppg_to_json=$(awk 'BEGIN { for (i = 1; i < 32; i++) if (i != 10) printf i == 9 ? "s/%c/\\\\t/g\n" : i == 13 ? "s/%c/\\\\r/g\n" : "s/%c/\\\\u%04x/g\n", i, i }')
ppg_from_json=$(awk 'BEGIN { for (i = 1; i < 32; i++) printf "s/\\\\u%04x/\\\\0%03o/g\n", i, i }')
ppg_to_json_again=$(awk 'BEGIN { for (i = 1; i < 32; i++) printf "s/\\\\0%03o/\\\\u%04x/g\n", i, i }')

# ---- Text and JSON ----

# Writes the text as the inside of a JSON string.
ppg_escape() {
    case $1 in
    *[\\\""$ppg_controls$ppg_newline"]*) ;;
    *) printf %s "$1" && return ;;
    esac
    # All at once: a loop over a megabyte copies it for each quote. The x keeps line feeds at the end.
    ppg_rest=$(printf '%sx' "$1" | LC_ALL=C sed -e 's/[\\"]/\\&/g' -e "$ppg_to_json" -e '$!s/$/\\n/' | tr -d '\n')
    printf %s "${ppg_rest%x}"
}

# Writes JSON in which a quote ends a string, always: those inside of strings, and backslashes, are octal numbers as
# printf(1) has them, which JSON does not.
ppg_shield() { printf '%s\n' "$1" | LC_ALL=C sed -e 's/\\\\/\\0134/g' -e 's/\\"/\\042/g' -e 's/\\\//\//g' -e "$ppg_from_json"; }

# Writes what the inside of a JSON string stands for. Fails if that has a NUL, or characters written as surrogates.
ppg_unescape() {
    case $1 in
    *\\*) ppg_unshield "$(ppg_shield "$1")" ;;
    *) printf %s "$1" ;;
    esac
}

# The same for one that was shielded.
ppg_unshield() {
    ppg_rest=$1
    while :; do
        ppg_head=${ppg_rest%%\\u*}
        printf %b "$ppg_head"
        [ "$ppg_head" != "$ppg_rest" ] || break
        ppg_rest=${ppg_rest#"$ppg_head"??}
        ppg_tail=${ppg_rest#????}
        ppg_one=$((0x${ppg_rest%"$ppg_tail"}))
        ppg_rest=$ppg_tail
        [ $ppg_one -gt 0 ] || return 1
        if [ $ppg_one -lt 128 ]; then
            # shellcheck disable=SC2059 # an octal number
            printf "\\$(printf %03o $ppg_one)"
        elif [ $ppg_one -lt 2048 ]; then
            # shellcheck disable=SC2059
            printf "\\$(printf %03o $((192 + ppg_one / 64)))\\$(printf %03o $((128 + ppg_one % 64)))"
        elif [ $ppg_one -lt 55296 ] || [ $ppg_one -gt 57343 ]; then
            # shellcheck disable=SC2059
            printf "\\$(printf %03o $((224 + ppg_one / 4096)))\\$(printf %03o $((128 + ppg_one / 64 % 64)))\\$(printf %03o $((128 + ppg_one % 64)))"
        else
            return 1
        fi
    done
}

# Writes a JSON string for the text.
ppg_quote() {
    printf '"%s"' "$(ppg_escape "$1")"
}

# Sets $ppg_rest to what follows the key $2 in the JSON object $1, shielded. Fails if there is none.
ppg_json_find() {
    ppg_rest=$(ppg_shield "$1")
    while :; do
        case $ppg_rest in
        *\"$2\"*) ;;
        *) return 1 ;;
        esac
        ppg_rest=${ppg_rest#*\""$2"\"}
        ppg_rest=${ppg_rest#"${ppg_rest%%[!" $ppg_tab$ppg_newline$ppg_return"]*}"}
        case $ppg_rest in
        :*) break ;; # otherwise it is a value
        esac
    done
    ppg_rest=${ppg_rest#:}
    ppg_rest=${ppg_rest#"${ppg_rest%%[!" $ppg_tab$ppg_newline$ppg_return"]*}"}
}

# Writes the text of the member $2 of the JSON object $1, whose members are strings, or its JSON text if it is another
# value without commas and braces. Fails if there is none. It is for flat objects: a key of an inner object is found, too.
ppg_json_get() {
    ppg_json_find "$1" "$2" || return 1
    case $ppg_rest in
    \"*\"*)
        ppg_rest=${ppg_rest#?}
        ppg_unshield "${ppg_rest%%\"*}"
        ;;
    *) printf %s "${ppg_rest%%[,\}" $ppg_tab$ppg_newline"]*}" ;;
    esac
}

# Writes the JSON text of a member, whatever it is.
ppg_json_raw() {
    ppg_json_find "$1" "$2" || return 1
    ppg_out='' ppg_depth=0
    while :; do
        ppg_head=${ppg_rest%%[]\[\{\}\",]*}
        ppg_out=$ppg_out$ppg_head
        [ "$ppg_head" != "$ppg_rest" ] || break
        ppg_rest=${ppg_rest#"$ppg_head"}
        case $ppg_rest in
        \"*)
            ppg_rest=${ppg_rest#?}
            ppg_out="$ppg_out\"${ppg_rest%%\"*}\""
            ppg_rest=${ppg_rest#*\"}
            continue
            ;;
        [\[\{]*) ppg_depth=$((ppg_depth + 1)) ;;
        ,*) [ $ppg_depth -gt 0 ] || break ;;
        *)
            [ $ppg_depth -gt 0 ] || break
            ppg_depth=$((ppg_depth - 1))
            ;;
        esac
        ppg_tail=${ppg_rest#?}
        ppg_out=$ppg_out${ppg_rest%"$ppg_tail"}
        ppg_rest=$ppg_tail
    done
    printf '%s\n' "$ppg_out" | LC_ALL=C sed -e "$ppg_to_json_again" -e 's/\\0134/\\\\/g' -e 's/\\042/\\"/g' -e 's/[[:space:]]*$//'
}

# Writes the data of the request, or of the reply, as text. Fails if they are no text.
ppg_text() {
    case $ppg_data in
    '"text":"'*)
        ppg_rest=${ppg_data#'"text":"'}
        ppg_unescape "${ppg_rest%\"}"
        ;;
    *) return 1 ;;
    esac
}

# Writes the data as they are. Needs base64(1), unless they are text without NUL.
ppg_bytes() {
    case $ppg_data in
    '"base64":"'*)
        ppg_rest=${ppg_data#'"base64":"'}
        printf %s "${ppg_rest%\"}" | base64 -d
        ;;
    *) ppg_text ;;
    esac
}

# ---- Chunks ----

# Sets $ppg_id, $ppg_direction, $ppg_command and $ppg_data from a line of `pipeplug chunk decode --details`. The fields
# are always in this order, and a quote inside of a text has a backslash before it. Returns 1 for what was skipped.
ppg_take_apart() {
    # By bytes, which is much faster in shells that know characters: a line may have a megabyte.
    ppg_locale=${LC_ALL-}
    LC_ALL=C
    ppg_split "$1"
    ppg_one=$?
    if [ -n "$ppg_locale" ]; then LC_ALL=$ppg_locale; else unset LC_ALL; fi
    [ $ppg_one = 0 ] || return 1
    case $ppg_quoted in
    *\\*) ppg_command=$(ppg_unescape "$ppg_quoted") || ppg_command='?' ;;
    *) ppg_command=$ppg_quoted ;;
    esac
}

ppg_split() {
    ppg_rest=${1#'{"id":'}
    ppg_id=${ppg_rest%%,*}
    ppg_rest=${ppg_rest#*',"direction":'}
    ppg_direction=${ppg_rest%%,*}
    ppg_format=${ppg_rest##*',"format":"'}
    ppg_format=${ppg_format%\"*}
    ppg_rest=${ppg_rest#"$ppg_direction,"}
    case $ppg_rest in
    '"command":"'*) ;;
    *)
        ppg_command='' ppg_skipped=''
        case $ppg_rest in
        '"skipped":"'*) ppg_skipped=${ppg_rest#'"skipped":"'} ppg_skipped=${ppg_skipped%%\"*} ;;
        esac
        return 1
        ;;
    esac
    ppg_rest=${ppg_rest#'"command":"'}
    ppg_data=${ppg_rest%%'","text":"'*}
    ppg_data=${ppg_data%%'","base64":"'*}
    ppg_quoted=$ppg_data
    ppg_data=${ppg_rest#"$ppg_quoted\","}
    ppg_data=${ppg_data%',"offset":'*}
}

# Sends a chunk: id, direction, command as the inside of a JSON string, field of JSON with the data.
ppg_send() {
    ppg_line="{\"id\":$1,\"direction\":\"$2\",\"command\":\"$3\",$4,\"format\":\"$ppg_format\"}"
    # A pipe without a reader is no reason to end a script that is a host.
    if [ -n "$ppg_is_guest" ]; then
        printf '%s\n' "$ppg_line" >&9
    else
        (
            trap '' PIPE
            printf '%s\n' "$ppg_line" >&9
        )
    fi 2>/dev/null || ppg_gone=yes
}

# Returns 0 if there is a program that reads chunks.
ppg_has_program() {
    command -v "$PIPEPLUG" >/dev/null && return
    ppg_error="the program $PIPEPLUG is missing: put it on the PATH, or its path into PIPEPLUG"
    printf '%s: %s\n' "${0##*/}" "$ppg_error" >&2
    return 1
}

# ---- Requests, for handlers ----

# Answers with text.
ppg_answer() { ppg_answer_field "\"text\":\"$(ppg_escape "$1")\""; }

# Answers with the data of the request.
ppg_answer_same() { ppg_answer_field "$ppg_data"; }

# Answers with the bytes that a command or function writes to its stdout, or with an error if its status is not 0:
# ppg_answer_output COMMAND [ARG...]. Needs base64(1).
ppg_answer_output() {
    # No digit of Base64. It comes before the bytes or after them.
    ppg_out=$({ { "$@" || printf '!' >&3; } | base64 | tr -d '\n'; } 3>&1)
    case $ppg_out in
    *!*) ppg_fail '' "$1 has failed; its standard error may say why" ;;
    *) ppg_answer_field "\"base64\":\"$ppg_out\"" ;;
    esac
}

# Answers with a field of JSON: `"json":…`, `"text":"…"` or `"base64":"…"`.
ppg_answer_field() {
    if [ "$ppg_direction" = '"request"' ] && [ -z "$ppg_answered" ]; then
        ppg_answered=yes
        ppg_send "$ppg_id" response "$ppg_quoted" "$1"
    fi
}

# Answers with an error: its code (may be empty), its message, and its data as JSON (may be left out). A code has no spaces:
# what has is refused with status 1, and said on standard error; the caller gets the message, or what was there in its place.
ppg_fail() {
    case $1 in
    *["$ppg_controls$ppg_newline \\\""]*)
        printf '%s: "%s" is no code of an error: ppg_fail CODE MESSAGE [JSON]\n' "${0##*/}" "$1" >&2
        ppg_fail '' "${2:-$1}"
        return 1
        ;;
    esac
    if [ "$ppg_direction" != '"request"' ]; then
        printf '%s: the one-way "%s" failed: %s\n' "${0##*/}" "$ppg_command" "$2" >&2
    elif [ -z "$ppg_answered" ]; then
        ppg_answered=yes
        if [ -n "$1" ] && ppg_has failure; then
            ppg_send "$ppg_id" response cmd.failure \
                "\"json\":{\"code\":$(ppg_quote "$1"),\"message\":$(ppg_quote "$2"),\"data\":${3:-null}}"
        else
            ppg_send "$ppg_id" response cmd.error "\"text\":\"$(ppg_escape "$2")\""
        fi
    fi
}

# Answers that there is no such command.
ppg_unknown() { ppg_fail unknown_command "unknown command \"$ppg_command\""; }

# Reports progress: done, total (0 for none), message (may be left out).
ppg_progress() {
    if [ "$ppg_progress_of" = "$ppg_id" ] && [ -z "$ppg_answered" ]; then
        ppg_one="\"done\":$1"
        [ "${2:-0}" = 0 ] || ppg_one="$ppg_one,\"total\":$2"
        [ -z "${3-}" ] || ppg_one="$ppg_one,\"message\":$(ppg_quote "$3")"
        ppg_send "$ppg_id" response cmd.progress "\"json\":{$ppg_one}"
    fi
}

# ---- Both sides ----

# Adds an entry to the metadata of this side: key, value.
ppg_set() { ppg_metadata="$ppg_metadata$(ppg_quote "$1"):$(ppg_quote "$2"),"; }

# Adds a service: name and version as in `greeter/1`, and its description, the JSON object of GetServices.
ppg_service() {
    ppg_services="$ppg_services${ppg_services:+ }$1"
    # A chunk is one line; inside of strings a line feed is written as an escape.
    ppg_descriptions="$ppg_descriptions${ppg_descriptions:+,}$(printf %s "$2" | tr '\n' ' ')"
}

# Returns 0 if the other side has named the feature.
ppg_has() {
    case " $(ppg_peer pipeplug.features) " in
    *" $1 "*) ;;
    *) return 1 ;;
    esac
}

# Writes an entry of the other side's metadata. Fails if there is none.
ppg_peer() { ppg_json_get "$ppg_peer" "$1"; }

# Calls the other side: command, text. Returns 0 with the reply in $ppg_data, 1 after an error, whose message is
# $ppg_error, whose code is $ppg_code and whose data are $ppg_error_data (JSON; both may be empty), and 2 if the other side
# has ended: $ppg_error says how. Meanwhile other requests are handled.
ppg_call() { ppg_call_field "$1" "\"text\":\"$(ppg_escape "${2-}")\""; }

# The same with a field of JSON as the data.
ppg_call_field() {
    case $1 in
    cmd.*)
        ppg_error="\"$1\" belongs to the protocol" ppg_code='' ppg_error_data=''
        return 1
        ;;
    esac
    if [ -z "$ppg_is_guest$ppg_pid" ]; then
        ppg_ended
        return 2
    fi
    # What the handler that calls works on is kept for it.
    ppg_kept="$ppg_id|$ppg_direction|$ppg_answered|$ppg_quoted" ppg_kept_command=$ppg_command
    ppg_count=$((ppg_count + 1))
    ppg_wait_for=$ppg_count
    ppg_send "$ppg_count" request "$(ppg_escape "$1")" "$2"
    ppg_result=2
    while IFS= read -r ppg_line <&6; do
        if ppg_take_apart "$ppg_line" && [ "$ppg_direction" = '"response"' ]; then
            [ "$ppg_id" = "$ppg_wait_for" ] || continue
            case $ppg_command in
            cmd.progress | cmd.part | cmd.enough | cmd.part.credit) continue ;;
            cmd.error) ppg_result=1 ppg_code='' ppg_error_data='' ppg_error=$(ppg_text) || ppg_error='the error is no text' ;;
            cmd.failure)
                ppg_one=$(ppg_text) || ppg_one=''
                ppg_result=1
                ppg_code=$(ppg_json_get "$ppg_one" code) || ppg_code=''
                ppg_error=$(ppg_json_get "$ppg_one" message) || ppg_error=$ppg_one
                ppg_error_data=$(ppg_json_raw "$ppg_one" data) || ppg_error_data=''
                [ "$ppg_error_data" != null ] || ppg_error_data=''
                ;;
            *) ppg_result=0 ;;
            esac
            break
        fi
        # A request: its handler may call, too.
        ppg_outer="$ppg_kept" ppg_outer_command=$ppg_kept_command ppg_outer_wait=$ppg_wait_for
        if [ "$ppg_direction" = '"request"' ] && [ -n "$ppg_command" ] && [ "$ppg_command" != cmd.ping ] && [ -n "$ppg_nested" ]; then
            ppg_answered=''
            ppg_fail overloaded 'this side handles one request after the other'
        else
            ppg_nested=yes
            ppg_dispatch
            ppg_nested=''
        fi
        ppg_kept=$ppg_outer ppg_kept_command=$ppg_outer_command ppg_wait_for=$ppg_outer_wait
    done
    [ $ppg_result != 2 ] || ppg_ended
    ppg_id=${ppg_kept%%|*}
    ppg_rest=${ppg_kept#*|}
    ppg_direction=${ppg_rest%%|*}
    ppg_rest=${ppg_rest#*|}
    ppg_answered=${ppg_rest%%|*}
    ppg_quoted=${ppg_rest#*|}
    ppg_command=$ppg_kept_command
    return $ppg_result
}

# Sets $ppg_error to how the other side has ended: of a plugin with its exit status, or the signal.
ppg_ended() {
    ppg_code='' ppg_error_data=''
    if [ -n "$ppg_is_guest" ]; then
        ppg_error='the host is gone'
    elif [ -z "$ppg_pid" ]; then
        ppg_error='no plugin is running'
    elif ppg_reap; then
        ppg_error="plugin \"$ppg_plugin\" has ended: $(ppg_status_text "$ppg_status_of")"
    else
        ppg_error="plugin \"$ppg_plugin\" has closed the connection, and still runs (process $ppg_pid)"
    fi
}

# Waits a moment for the end of the plugin, and takes its status. Fails if it still runs.
ppg_reap() {
    ppg_tries=0
    while [ -z "$ppg_status_of" ]; do
        # A sleep in the foreground, so that the shell notices its child: one that has ended is there until then.
        sleep 0.02 2>/dev/null || sleep 1
        if ! kill -0 "$ppg_pid" 2>/dev/null; then
            ppg_status_of=0
            wait "$ppg_pid" || ppg_status_of=$?
        elif [ "$((ppg_tries = ppg_tries + 1))" -ge 25 ]; then
            return 1
        fi
    done
}

# Writes a status of wait(1) in words.
ppg_status_text() {
    if [ "$1" -gt 128 ] && ppg_one=$(kill -l "$(($1 - 128))" 2>/dev/null); then
        printf 'killed by signal %s (SIG%s)' "$(($1 - 128))" "${ppg_one#SIG}"
    else
        printf 'exit status %s' "$1"
    fi
}

# Sends a one-way: command, text.
ppg_notify() {
    case $1 in
    cmd.*) return 1 ;;
    esac
    ppg_send 0 one-way "$(ppg_escape "$1")" "\"text\":\"$(ppg_escape "${2-}")\""
}

ppg_own_metadata() {
    printf '{%s"pipeplug.protocol":"1","pipeplug.features":"%s"' "$ppg_metadata" "$ppg_features"
    [ -z "$ppg_services" ] || printf ',"pipeplug.services":"%s"' "$ppg_services"
    printf '}'
}

# Handles the chunk that was taken apart.
ppg_dispatch() {
    ppg_answered=''
    case $ppg_direction/$ppg_command in
    '"request"/GetMetadata')
        if [ -z "$ppg_is_guest" ]; then
            ppg_unknown
        else
            ppg_peer=$(ppg_text) || ppg_peer=''
            ppg_level=$(ppg_peer pipeplug.log_level) && ppg_set_log_level "$ppg_level"
            if [ -n "$ppg_start" ] && [ -z "$ppg_started" ]; then
                ppg_kept_data=$ppg_data
                "$ppg_start" || exit 1
                ppg_data=$ppg_kept_data
            fi
            ppg_started=yes
            ppg_answer_field "\"json\":$(ppg_own_metadata)"
        fi
        ;;
    '"request"/cmd.ping') ppg_answer_field '"text":""' ;;
    '"request"/cmd.'*) ppg_fail unknown_command "the protocol has no request \"$ppg_command\"" ;;
    '"request"/GetServices')
        if [ -n "$ppg_services" ]; then
            ppg_answer_field "\"json\":{\"services\":[$ppg_descriptions]}"
        else
            ppg_unknown
        fi
        ;;
    '"request"/'*)
        ppg_one=0
        "$ppg_handler" || ppg_one=$?
        if [ -n "$ppg_answered" ]; then
            :
        elif [ "$ppg_one" = 0 ]; then
            ppg_fail unanswered 'the handler has returned without an answer'
        else
            ppg_fail unanswered "the handler has failed with status $ppg_one, and without an answer"
        fi
        ;;
    '"one-way"/cmd.stop') [ -z "$ppg_is_guest" ] || ppg_stopping=yes ;;
    '"one-way"/cmd.log_level') ppg_set_log_level "$(ppg_text)" ;;
    '"one-way"/cmd.context')
        ppg_one=$(ppg_text) && [ "$(ppg_json_get "$ppg_one" progress)" = true ] && ppg_progress_of=$ppg_id
        ;;
    '"one-way"/cmd.'*) ;;
    '"one-way"/'*) "$ppg_handler" || printf '%s: the one-way "%s" failed with status %s\n' "${0##*/}" "$ppg_command" "$?" >&2 ;;
    esac
}

# ---- Guest ----

# Takes the level of the log, if it is one.
ppg_set_log_level() {
    case $1 in
    off | error | warn | info | debug | trace) ppg_log_level=$1 ;;
    esac
}

# Logs: level, message.
ppg_log() {
    ppg_one='off error warn info debug trace '
    ppg_tail=${ppg_one%%"$1 "*}
    ppg_one=${ppg_one%%"$ppg_log_level "*}
    [ ${#ppg_tail} -gt ${#ppg_one} ] || printf '{"level":"%s","msg":%s}\n' "$1" "$(ppg_quote "$2")" >&2
}

# Writes the configuration that the host has sent, as JSON. Fails if there is none.
ppg_config() { ppg_peer pipeplug.config; }

# Has a function run after the host's metadata have come, and before any request. If it fails, the plugin does not start.
ppg_on_start() { ppg_start=$1; }

# Serves the host until the end, and exits: 0 after a stop, 1 if the host is gone or the plugin did not start, 2 if no
# host has started it. The arguments are the handler and those of the script.
ppg_serve() {
    ppg_handler=$1 ppg_is_guest=yes
    shift
    ppg_in=0 ppg_to=1
    case ${1-}/${2-} in
    /* | */ | *[!0-9/]* | */*/*) ;;
    *)
        ppg_in=$1 ppg_to=$2
        shift 2
        ;;
    esac
    if [ "$ppg_in" = 0 ] && [ -t 0 ]; then
        ppg_without_host
        exit 2
    fi
    ppg_has_program || exit 2
    # Shells dup descriptors of one digit only; /dev/fd has the others.
    case $ppg_in in
    ?) exec 8<&"$ppg_in" ;;
    *) exec 8<"/dev/fd/$ppg_in" ;;
    esac || exit 2
    case $ppg_to in
    ?) exec 7>&"$ppg_to" ;;
    *) exec 7>"/dev/fd/$ppg_to" ;;
    esac || exit 2
    [ "$ppg_in" -gt 6 ] || [ "$ppg_in" -eq 2 ] || exec 0</dev/null
    # What is printed goes to standard error, and the other ends are closed.
    exec 1>&2
    for ppg_one in "$ppg_in" "$ppg_to"; do
        case $ppg_one in
        3) exec 3>&- ;;
        4) exec 4>&- ;;
        5) exec 5>&- ;;
        6) exec 6>&- ;;
        9) exec 9>&- ;;
        esac
    done
    # What is no chunk is a line as well, so that it is told apart from an input in which nothing comes.
    # shellcheck disable=SC2069 # in this order: the pipe becomes 9, and the status goes where $(…) reads
    ppg_status=$({
        { "$PIPEPLUG" chunk decode --details <&8 || echo broken; } 7>&- 3>&- | {
            exec 8<&- 6<&0 9>&1 1>&2 0</dev/null 7>&-
            ppg_loop "$@"
            echo $? >&3
        } | "$PIPEPLUG" chunk encode >&7 8<&- 3>&-
    } 3>&1)
    [ -n "$ppg_status" ] || ppg_status=1
    exit "$ppg_status"
}

ppg_without_host() {
    printf '%s is a plugin: a host starts it. To try it, type: pipeplug run %s\n' "${0##*/}" "$0" >&2
}

ppg_loop() (
    ppg_heard='' ppg_id=0 ppg_direction='' ppg_command='' ppg_quoted='' ppg_answered='' ppg_nested='' ppg_gone=''
    trap '' PIPE
    while [ -z "$ppg_stopping$ppg_gone" ] && IFS= read -r ppg_line <&6; do
        ppg_heard=yes
        if ppg_take_apart "$ppg_line"; then
            ppg_dispatch
        elif [ "$ppg_direction" = '"request"' ]; then
            ppg_answered=''
            ppg_fail too_large "$ppg_skipped"
        fi
    done
    # The input has ended before anything came.
    if [ -z "$ppg_heard" ]; then
        ppg_without_host
        return 2
    fi
    [ -n "$ppg_stopping" ]
)

# ---- Host ----

# Has a function handle the requests and one-ways of the plugin. Without one they are refused.
ppg_on_request() { ppg_handler=$1; }

# Sets $ppg_error to the reason that a file cannot be executed. Fails if there is none.
ppg_why_not() {
    ppg_one=''
    [ ! -f "$1" ] || ppg_one=$(dd if="$1" bs=2 count=1 2>/dev/null | od -An -tx1 | tr -d ' \n')
    ppg_error=''
    if [ ! -e "$1" ]; then
        ppg_error="no plugin at \"$1\": no such file; check the path, PATH is not searched"
        [ ! -h "$1" ] || ppg_error="no plugin at \"$1\": it is a symbolic link to a file that does not exist"
    elif [ -d "$1" ]; then
        ppg_error="plugin \"$1\" is a directory: name the executable file inside it"
    elif [ ! -x "$1" ]; then
        ppg_error="plugin \"$1\" is not executable: run \`chmod +x\` on it"
    elif [ ! -f "$1" ]; then
        ppg_error="plugin \"$1\" is a FIFO, a socket or a device, which cannot be executed"
    elif [ -z "$ppg_one" ] && [ ! -s "$1" ]; then
        ppg_error="plugin \"$1\" is not a program: it is empty; start a script with a line like \`#!/bin/sh\`"
    elif [ "$ppg_one" = 2321 ]; then
        IFS= read -r ppg_one <"$1" || [ -n "$ppg_one" ]
        ppg_one=${ppg_one#'#!'}
        ppg_one=${ppg_one#"${ppg_one%%[!" $ppg_tab"]*}"}
        ppg_one=${ppg_one%%[" $ppg_tab"]*}
        if [ -d "$ppg_one" ] || { [ -e "$ppg_one" ] && [ ! -x "$ppg_one" ]; }; then
            ppg_error="plugin \"$1\" needs the interpreter \"$ppg_one\", which is no file that this user may execute: correct its mode, or the \`#!\` line"
        elif [ -e "$ppg_one" ]; then
            return 1
        elif [ "${ppg_one%"$ppg_return"}" != "$ppg_one" ]; then
            ppg_error="plugin \"$1\" needs an interpreter whose name ends in CR: its first line ends in CR LF, convert the file to Unix line ends"
        else
            ppg_error="plugin \"$1\" needs the interpreter \"$ppg_one\", which does not exist: install it, or correct the plugin's \`#!\` line"
        fi
    else
        # Programs of this system begin as its shell does. A text that begins otherwise would be run as a script of this shell.
        case $ppg_one in
        7f45 | cffa | feed | cafe | "") return 1 ;;
        esac
        ppg_error="plugin \"$1\" is not a program: it has neither a \`#!\` line nor the header of one; start a script with a line like \`#!/bin/sh\`"
    fi
}

# Tells whether the `#!` line of a script ends with a carriage return: that belongs to its last word for the kernel.
ppg_ends_in_cr() {
    [ "$(dd if="$1" bs=2 count=1 2>/dev/null | od -An -tx1 | tr -d ' \n')" = 2321 ] || return 1
    IFS= read -r ppg_one <"$1" && [ "${ppg_one%"$ppg_return"}" != "$ppg_one" ]
}

# Writes the machine that a program is for, as hex digits of its ELF header.
ppg_machine() { dd if="$1" bs=20 count=1 2>/dev/null | od -An -tx1 | tr -d ' \n' | sed 's/^7f454c46\(....\).*\(....\)$/\1\2/'; }

# Starts a plugin with its arguments, and waits for its metadata, at most $ppg_start_timeout seconds. Returns 1 if it does
# not start: $ppg_error says why.
ppg_start() {
    ppg_pid='' ppg_is_guest='' ppg_format=standard ppg_count=0 ppg_id=0 ppg_direction='' ppg_command='' ppg_quoted='' ppg_answered=''
    ppg_nested='' ppg_gone='' ppg_features='failure' ppg_status_of='' ppg_code='' ppg_error_data=''
    [ -n "$ppg_handler" ] || ppg_handler=ppg_unknown
    ppg_has_program || return 1
    case ${1-} in
    '') ppg_error='ppg_start needs the path of a plugin' && return 1 ;;
    */*) ppg_plugin=$1 ;;
    *) ppg_plugin=./$1 ;;
    esac
    if ppg_why_not "$ppg_plugin"; then return 1; fi
    shift
    if ! ppg_dir=$(mktemp -d) || ! mkfifo "$ppg_dir/to" "$ppg_dir/from" "$ppg_dir/lines" "$ppg_dir/chunks"; then
        ppg_error='cannot make the pipes of a plugin; is there room for temporary files?'
        return 1
    fi
    # The plugin reads descriptor 3 and writes descriptor 4.
    "$ppg_plugin" 3 4 "$@" 3<"$ppg_dir/to" 4>"$ppg_dir/from" </dev/null >&2 &
    ppg_pid=$!
    # This shell opens nothing that it would have to wait for: the end of another child (SIGCHLD) interrupts that, which
    # is an error in some shells. Descriptor 5 is both ends of a pipe, until each side has its own.
    exec 5<>"$ppg_dir/chunks"
    "$PIPEPLUG" chunk encode <"$ppg_dir/chunks" >"$ppg_dir/to" 5>&- &
    exec 9>"$ppg_dir/chunks" 5<>"$ppg_dir/lines"
    "$PIPEPLUG" chunk decode --details <"$ppg_dir/from" >"$ppg_dir/lines" 5>&- 9>&- &
    exec 6<"$ppg_dir/lines" 5>&-
    # Ends the plugin if the folder is still there after the time.
    (
        ppg_one=0
        while [ $ppg_one -lt "$ppg_start_timeout" ] && [ -d "$ppg_dir" ]; do
            sleep 1
            ppg_one=$((ppg_one + 1))
        done
        if mv "$ppg_dir" "$ppg_dir.late"; then kill -KILL "$ppg_pid"; fi
    ) 6<&- 9>&- </dev/null >/dev/null 2>&1 &
    ppg_peer='{}' ppg_one=0
    ppg_call_field GetMetadata "\"json\":$(ppg_own_metadata)" || ppg_one=$?
    rm -rf "$ppg_dir"
    case $ppg_one in
    0)
        ppg_peer=$(ppg_text) || ppg_peer=''
        case $ppg_peer in
        '{'*'}') return 0 ;;
        esac
        ppg_error="plugin \"$ppg_plugin\" did not start: its metadata are no JSON object"
        ;;
    1) return 0 ;; # it has none
    *)
        if [ -d "$ppg_dir.late" ]; then
            rmdir "$ppg_dir.late" 2>/dev/null || rm -rf "$ppg_dir.late"
            ppg_error="plugin \"$ppg_plugin\" did not answer within $ppg_start_timeout s; a slow one needs more time: set ppg_start_timeout; a script can start plugins on the descriptors 3 and 4, in the standard format"
        elif [ -n "$ppg_status_of" ]; then
            ppg_error="plugin \"$ppg_plugin\" ended before it answered: $(ppg_status_text "$ppg_status_of"); its standard error may say why"
            if [ "$ppg_status_of" != 0 ] && ppg_ends_in_cr "$ppg_plugin"; then
                ppg_error="$ppg_error; its \`#!\` line ends with a carriage return, which is taken for a part of its last word: save the file with Unix line ends"
            fi
            ppg_one=$(ppg_machine "$ppg_plugin") ppg_two=$(ppg_machine "/proc/$$/exe")
            case $ppg_one/$ppg_two in
            ????????/????????) [ "$ppg_one" = "$ppg_two" ] || ppg_error="$ppg_error; it is built for another machine than this shell" ;;
            esac
        else
            ppg_error="plugin \"$ppg_plugin\" closed the connection before it answered, and ran on"
        fi
        ;;
    esac
    exec 9>&- 6<&-
    if [ -z "$ppg_status_of" ]; then
        kill -KILL "$ppg_pid" 2>/dev/null
        wait "$ppg_pid"
    fi
    ppg_pid=''
    return 1
}

# Asks the plugin to end, and waits for it. Returns its exit status, or 1 if no plugin is running.
ppg_stop() {
    [ -n "$ppg_pid" ] || return 1
    ppg_send 0 one-way cmd.stop '"text":""'
    exec 9>&-
    if [ -z "$ppg_status_of" ]; then
        ppg_status_of=0
        wait "$ppg_pid" || ppg_status_of=$?
    fi
    ppg_pid=''
    exec 6<&-
    return "$ppg_status_of"
}
