#!/bin/sh
# Tests of the library's functions on text and JSON, and of a plugin's own calls and errors.
#
#     test.sh    with PIPEPLUG, in any shell: dash test.sh, bash test.sh
here=${0%/*}
# shellcheck source=sdk/sh/pipeplug.sh
. "$here/../pipeplug.sh"
failed=0 checked=0
newline='
'

same() { # name, got, expected
    checked=$((checked + 1))
    [ "$2" = "$3" ] && return
    printf 'test.sh: %s: got %s, expected %s\n' "$1" "$2" "$3" >&2
    failed=$((failed + 1))
}

fails() { # name, command…
    name=$1
    shift
    "$@" >/dev/null 2>&1
    same "$name" "$(($? != 0))" 1
}

same 'escape' "$(ppg_escape 'plain é')" 'plain é'
same 'escape quotes' "$(ppg_escape 'a"b\c')" 'a\"b\\c'
same 'escape line feed' "$(ppg_escape "a${newline}b")" 'a\nb'
same 'escape controls' "$(ppg_escape "$(printf 'a\tb\rc\001d\033')")" 'a\tb\rc\u0001d\u001b'
same 'quote keeps line feeds at the end' "$(ppg_quote "a$newline")" '"a\n"'
same 'unescape' "$(ppg_unescape 'a\"b\\c\/d\te')" "$(printf 'a"b\\c/d\te')"
same 'unescape controls' "$(ppg_unescape 'a\u0001b')" "$(printf 'a\001b')"
same 'unescape characters' "$(ppg_unescape '\u00e9\u20ac')" 'é€'
same 'unescape backslash n' "$(ppg_unescape '\\n')" '\n'
fails 'a NUL is no text' ppg_unescape 'a\u0000'
fails 'nor is a surrogate' ppg_unescape '\ud83d\ude00'
# shellcheck disable=SC2016 # nothing is to expand
text=$(printf '%s' 'all "of" \it: %s \\n *?[a] $x `y`')
same 'there and back' "$(ppg_unescape "$(ppg_escape "$text")")" "$text"

object='{"a":"x","b" : "y\"z","c":12,"d":"","e":{"f":"g"},"last":"q"}'
same 'get' "$(ppg_json_get "$object" a)" x
same 'get with space and quote' "$(ppg_json_get "$object" b)" 'y"z'
same 'get a number' "$(ppg_json_get "$object" c)" 12
same 'get an empty text' "$(ppg_json_get "$object" d)" ''
same 'get the last' "$(ppg_json_get "$object" last)" q
fails 'get what is not there' ppg_json_get "$object" z
fails 'get of no object' ppg_json_get '"a"' a
same 'get a key in a value' "$(ppg_json_get '{"x":"\"a\":\"wrong\"","a":"right"}' a)" right

ppg_take_apart '{"id":"18446744073709551615","direction":"request","command":"a\"b","text":"x\",\"offset\":1","offset":0,"bytes":1,"format":"classic"}'
same 'id' "$ppg_id" '"18446744073709551615"'
same 'command' "$ppg_command" 'a"b'
same 'text' "$(ppg_text)" 'x","offset":1'
same 'format' "$ppg_format" classic
ppg_take_apart '{"id":1,"direction":"one-way","command":"x","base64":"AAEC","offset":0,"bytes":1,"format":"standard"}'
same 'bytes' "$(ppg_bytes | od -An -tx1 | tr -d ' ')" 000102
fails 'bytes are no text' ppg_text
fails 'skipped' ppg_take_apart '{"id":5,"direction":"request","skipped":"too long","command_bytes":7,"buffer_bytes":3,"offset":0,"bytes":7,"format":"standard"}'

# The plugin below, called by this script.
# shellcheck disable=SC2317 # the library calls it
answer() {
    case $ppg_command in
    name) ppg_answer 'the test' ;;
    refuse) ppg_fail no_way "no \"way\"" '{"a":1}' ;;
    told) told=$(ppg_text) && ppg_answer '' ;;
    *) ppg_unknown ;;
    esac
}
ppg_on_request answer
ppg_start "$here/plugin.sh" one 'two words' || exit 1
same 'metadata' "$(ppg_peer Description)" 'a "test"'
ppg_call args && same 'arguments' "$(ppg_text)" 'one|two words'
ppg_call host && same 'host' "$(ppg_text)" 'the test'
ppg_call stray && same 'what is printed is no chunk' "$(ppg_text)" answered
ppg_call back 'line
of text' && same 'a call back' "$(ppg_text)" 'no "way" (no_way)'
ppg_notify note 'hello' && ppg_call noted && same 'one-way' "$(ppg_text)" hello
ppg_call tell "a\"b${newline}c" && same 'told' "$told" "a\"b${newline}c"
ppg_call output '!
' && same 'output of a function' "$(ppg_text)x" 'a "b" \c!x'
if ppg_call failing; then echo 'failing is answered'; else same 'a function that fails' "$ppg_error" 'failing has failed; its standard error may say why'; fi
ppg_call bytes && same 'bytes of a plugin' "$(ppg_bytes | od -An -tx1 | tr -d ' ')" 00ff0a
ppg_call nothing
same 'without an answer' "$?/$ppg_code" 1/unanswered
ppg_call none
same 'unknown command' "$?/$ppg_code" 1/unknown_command
ppg_call cmd.stop
same 'reserved' "$?" 1
ppg_call has stream
same 'no stream' "$(ppg_text)" no
ppg_stop
same 'status after a stop' $? 0

ppg_start "$here/plugin.sh" --fail 2>/dev/null
same 'a start that fails' $? 1
ppg_start "$here/plugin.sh"
ppg_call crash
same 'a crash' $? 2
ppg_stop 2>/dev/null
same 'status after a crash' "$(($? != 0))" 1
ppg_start /no/such/plugin 2>/dev/null
same 'no plugin' $? 1

printf 'test.sh: %s checked, %s failed\n' $checked $failed
[ $failed = 0 ]
