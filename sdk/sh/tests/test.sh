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
same 'get a member of other JSON' "$(ppg_json_raw '{"data" : {"x":[1,"}\"\\",{"y":2}],"z":null} ,"m":"n"}' data)" '{"x":[1,"}\"\\",{"y":2}],"z":null}'
same 'get the last member of other JSON' "$(ppg_json_raw '{"a":"data","data":[ ]}' data)" '[ ]'
same 'get what has backslashes' "$(ppg_json_get '{"a":"\\\\n\/\\/\u0041\\u0041"}' a)" '\\n/\/A\u0041'
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
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
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
text=$(awk 'BEGIN { for (i = 0; i < 3000; i++) printf "line %d \\ \"quoted\"\t%c end\n", i, 1 + i % 8 }')
ppg_call same "$text$newline" && same 'a large text' "$(ppg_text && echo x)" "$text${newline}x"
awk 'BEGIN { for (i = 0; i < 131072; i++) printf "\\0%03o", i % 256; print "" }' | while read -r octals; do printf %b "$octals"; done >"$folder/bytes"
ppg_call_field copy "\"base64\":\"$(base64 <"$folder/bytes" | tr -d '\n')\"" && ppg_bytes >"$folder/back"
same 'bytes of all kinds' "$(cmp "$folder/bytes" "$folder/back" 2>&1)" ''
ppg_call fails
same 'a handler that fails' "$?/$ppg_code/$ppg_error" '1/unanswered/the handler has failed with status 3, and without an answer'
ppg_call data
same 'an error with data' "$?/$ppg_code/$ppg_error_data" '1/no_page/{"name":"a \"b\""}'
ppg_call badcode
same 'a code that is none' "$?/$ppg_code/$ppg_error/$ppg_error_data" '1//no such page/'
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

does_not_start() { # name, text of the error
    name=$1
    ppg_start "$folder/$name" 2>/dev/null
    same "$name does not start" $? 1
    case $ppg_error in
    *"$folder/$name\""*"$2"*) same "$name: error" '' '' ;;
    *) same "$name: error" "$ppg_error" "… \"$folder/$name\" … $2" ;;
    esac
}
script() { # name, text
    # shellcheck disable=SC2059 # it has line ends
    printf "$2" >"$folder/$1"
    chmod +x "$folder/$1"
}
does_not_start none 'no such file; check the path, PATH is not searched'
ln -s /no/such "$folder/link"
does_not_start link 'is a symbolic link to a file that does not exist'
mkdir "$folder/directory"
does_not_start directory 'is a directory: name the executable file inside it'
script plain '#!/bin/sh\n'
chmod -x "$folder/plain"
# shellcheck disable=SC2016 # a command to show
does_not_start plain 'is not executable: run `chmod +x` on it'
script empty ''
does_not_start empty 'it is empty'
script no-line 'echo hello\n'
does_not_start no-line 'it has neither'
script no-interpreter '#! /no/such/sh -e\n'
does_not_start no-interpreter 'needs the interpreter "/no/such/sh", which does not exist'
script crlf '#!/bin/sh\r\n'
does_not_start crlf 'ends in CR LF'
script crlf-env '#!/usr/bin/env python3\r\n'
# shellcheck disable=SC2016 # a line to show
does_not_start crlf-env '; its `#!` line ends with a carriage return, which is taken for a part of its last word: save the file with Unix line ends'
script through-file '#!/etc/passwd/sh\n'
does_not_start through-file 'needs the interpreter "/etc/passwd/sh", which does not exist'
script closed '#!/etc/passwd\n'
does_not_start closed 'needs the interpreter "/etc/passwd", which is no file that this user may execute'
script folder-as-interpreter '#!/etc\n'
does_not_start folder-as-interpreter 'needs the interpreter "/etc", which is no file'
script exits '#!/bin/sh\nexit 3\n'
does_not_start exits 'ended before it answered: exit status 3'
script killed '#!/bin/sh\nkill -9 $$\n'
does_not_start killed 'ended before it answered: killed by signal 9 (SIGKILL)'
printf '\177ELF\002\002\001\000\000\000\000\000\000\000\000\000\000\002\000\026\000\000\000\001' >"$folder/machine"
chmod +x "$folder/machine"
if [ -e /proc/$$/exe ]; then does_not_start machine 'is built for another machine'; fi
script slow '#!/bin/sh\nexec sleep 30\n'
ppg_start_timeout=1
does_not_start slow 'did not answer within 1 s; a slow one needs more time: set ppg_start_timeout'
ppg_start_timeout=10
ppg_start "$here/plugin.sh" --fail 2>/dev/null
same 'a start that fails' "$?/${ppg_error#*plugin.sh\" }" '1/ended before it answered: exit status 1; its standard error may say why'

ppg_start "$here/plugin.sh"
ppg_call crash
same 'a crash' "$?/${ppg_error#*plugin.sh\" }" '2/has ended: exit status 7'
ppg_stop 2>/dev/null
same 'status after a crash' $? 7
ppg_call args
same 'a call after that' "$?/$ppg_error" '2/no plugin is running'
# A program of its own: a script in a shell is more than one process.
script kills '#!/bin/sh\nprintf "1\\0003\\00011\\000GetMetadata\\0002\\000{}" >&4\nsleep 1\nkill -9 $$\n'
ppg_start "$folder/kills" && ppg_call any 2>/dev/null
same 'a kill' "$?/$ppg_error" "2/plugin \"$folder/kills\" has ended: killed by signal 9 (SIGKILL)"
ppg_stop 2>/dev/null
same 'status after a kill' $? 137
ppg_start plugin.sh 2>/dev/null
same 'a plugin on the PATH is not meant' "$?/$ppg_error" '1/no plugin at "./plugin.sh": no such file; check the path, PATH is not searched'

# The end of a child (SIGCHLD) interrupts what a shell waits for.
count=0 started=0
while [ $count -lt 60 ]; do
    for pause in 05 1 15 2 25 3 4 5; do sleep 0.0$pause & done
    ppg_start "$here/../samples/echo.sh" && started=$((started + 1))
    ppg_stop
    count=$((count + 1))
done
same 'starts while other children end' $started 60

printf 'test.sh: %s checked, %s failed\n' $checked $failed
[ $failed = 0 ]
