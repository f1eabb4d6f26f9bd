#!/bin/sh
# Greets in a few languages, as the service `greeter`.
# shellcheck source=sdk/sh/pipeplug.sh
. "${0%/*}/../pipeplug.sh"

# shellcheck disable=SC2317 # ppg_serve calls it
answer() {
    arguments=$(ppg_text) || arguments='?'
    case $ppg_command in
    greeter.*)
        case $arguments in
        '' | '{'*'}') ;;
        *)
            ppg_fail invalid_argument 'the arguments should be a JSON object'
            return
            ;;
        esac
        ;;
    esac
    case $ppg_command in
    greeter.greet)
        name=$(ppg_json_get "$arguments" name) || {
            ppg_fail invalid_argument 'the argument "name" is missing' '{"field":"name"}'
            return
        }
        language=$(ppg_json_get "$arguments" language) || language=en
        case $language in
        de) greeting='guten Tag' ;;
        en) greeting=hello ;;
        fr) greeting=bonjour ;;
        *)
            language=$(ppg_quote "$language")
            ppg_fail method_error "no greeting in the language $language is known" "{\"UnknownLanguage\":{\"language\":$language}}"
            return
            ;;
        esac
        ppg_answer_field "\"json\":$(ppg_quote "$greeting, $name")"
        ;;
    greeter.languages) ppg_answer_field '"json":["de","en","fr"]' ;;
    *) ppg_unknown ;;
    esac
}

# shellcheck disable=SC2016 # $ref and $defs are JSON
ppg_service greeter/1 '{"name":"greeter","version":1,"oldest":1,"docs":"Greets people.","methods":[
    {"name":"greet","command":"greeter.greet","docs":"Greets a person, in one of the languages of the plugin.",
        "arguments":{"type":"object","required":["name"],"properties":{
            "name":{"type":"string","description":"Name of the person."},
            "language":{"type":"string","default":"en","description":"Code of the language, such as `en`."}}},
        "result":{"type":"string"},"error":{"$ref":"#/$defs/GreetError"}},
    {"name":"languages","command":"greeter.languages","docs":"Codes of the languages.",
        "result":{"type":"array","items":{"type":"string"}}}],
    "$defs":{"GreetError":{"description":"Reason that a person is not greeted.","oneOf":[
        {"type":"object","description":"The plugin does not speak the language.","additionalProperties":false,
            "required":["UnknownLanguage"],"properties":{"UnknownLanguage":{"type":"object","required":["language"],
                "properties":{"language":{"type":"string","description":"Code of the language."}}}}}]}}}'
ppg_serve answer "$@"
