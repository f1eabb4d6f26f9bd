//! Names that mean something in a language, as names of everything in a description.

use serde_json::{Map, Value, json};

/// Keywords, built-in names, and names that generated code imports or uses.
const WORDS: &str = "
    any Any append args Array arguments as asError assert async AsyncIterator await bool break
    byte call Caller CallError CallFailed CallOptions case catch chan class ClassVar client
    close cls code const constructor context continue copy ctx data dataclass debugger def
    default defer del delete description Dict dict do elif else enum Enum err error Error errors
    eval except Exception export extends fallthrough False false field finally float fmt for
    from func function global go goto hasOwnProperty id if implements import in init instanceof
    int interface is isText ItemCall items Iterator json lambda len let List list listOf Literal
    make map MarshalJSON message Message method MethodError mro name Name new New nil None none
    nonlocal not NotImplementedError null number object of Omit options Optional or out own
    package Partial pass path Pick pipeplug plain Plugin print private Promise protected
    __proto__ prototype public raise range Readonly Record recover request Required result
    return s select self send serve server service Service ServiceDescription ServiceRequest set
    static str string String struct super switch symbol text then this throw toString True true
    try Tuple tuple type TypeError typeof typing undefined Union unknown UnmarshalJSON Unwrap v
    value valueOf var Version version void while with with_message withTag yield NewWordsClient
    NewWordsService Words WordsClient WordsServer AsyncWords WordsArguments serveWords";

/// Names that languages cannot have as they are.
const SIGNS: &[&str] = &["", "-", "1", "😀", "é", "a-b", "a b", "a_b", "aB"];

/// Services with these names, of which some are files that a language keeps for itself.
const SERVICES: &str = "
    any async_iterator asyncio c class client con context dataclasses documentation enum error
    fmt foo_js foo_linux foo_test foo_windows_amd64 func go import init internal iterator json
    list lpt1 main map method_error none pipeplug service string test testdata type typing union
    vendor windows";

/// The description of these services, and of one with all the words.
pub(super) fn description() -> Value {
    let mut services: Vec<Value> =
        SERVICES.split_whitespace().map(|name| service(name, &[name])).collect();
    let words: Vec<&str> = SIGNS.iter().copied().chain(WORDS.split_whitespace()).collect();
    services.push(service("words", &words));
    services.push(json!({ "name": "empty", "version": 1, "oldest": 1, "methods": [] }));
    json!({ "services": services })
}

/// A service in which each word is the name of a type, field, method, argument, variant and value.
fn service(name: &str, words: &[&str]) -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": text, "default": ["x"] });
    let object = |words: &[&str], kind: &Value| {
        let fields: Map<String, Value> =
            words.iter().map(|word| ((*word).to_owned(), kind.clone())).collect();
        json!({ "type": "object", "properties": fields })
    };
    // Package encoding/json takes no other names of fields.
    let fields: Vec<&str> =
        words.iter().copied().filter(|it| !it.is_empty() && *it != "😀").collect();
    let mut types: Map<String, Value> =
        words.iter().map(|word| ((*word).to_owned(), object(&fields[..1], &text))).collect();
    let tagged = |word: &&str| {
        json!({
            "type": "object", "properties": { *word: text }, "required": [word],
            "additionalProperties": false,
        })
    };
    let internal = words.iter().map(|word| {
        json!({ "type": "object", "properties": { "type": { "const": word } }, "required": ["type"] })
    });
    let mut required = object(&fields, &text);
    required["required"] = json!(fields);
    for (name, schema) in [
        ("All fields", required),
        ("Optional fields", object(&fields, &text)),
        ("A value", json!({ "enum": words })),
        ("A constant", json!({ "oneOf": [{ "enum": words }, tagged(&"other")] })),
        ("A tag", json!({ "oneOf": words.iter().map(tagged).collect::<Vec<_>>() })),
        ("An inner tag", json!({ "oneOf": internal.collect::<Vec<_>>() })),
    ] {
        types.insert(name.into(), schema);
    }
    let mut methods: Vec<Value> = words
        .iter()
        .map(|word| {
            json!({
                "name": word, "command": format!("{name}.{word}"),
                "arguments": object(&fields[..1], &texts),
                "result": { "$ref": format!("#/$defs/{word}") },
                "error": { "$ref": "#/$defs/A tag" },
            })
        })
        .collect();
    methods.push(json!({
        "name": "takes all", "command": format!("{name}.takes all"),
        "arguments": object(&fields, &texts), "items_in": text, "items_out": texts,
        "error": { "$ref": "#/$defs/A tag" },
    }));
    json!({ "name": name, "version": 1, "oldest": 1, "$defs": types, "methods": methods })
}
