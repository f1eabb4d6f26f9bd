//! Arguments as `NAME=VALUE`, whose types the service describes.

use std::ops::Range;

use pipeplug_service::{Interface, Method, Mistake};
use serde_json::Value;

use super::Checking;

/// Mistake in the words, with its place in the line of all words.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) mistake: Mistake,
    pub(super) line: String,
    pub(super) at: Range<usize>,
}

/// An argument, and its place in the line.
struct Word<'a> {
    name: &'a str,
    value: &'a str,
    start: usize,
}

impl Word<'_> {
    fn name_at(&self) -> Range<usize> {
        self.start..self.start + self.name.len()
    }

    fn value_at(&self) -> Range<usize> {
        let start = self.name_at().end + 1;
        start..start + self.value.len()
    }
}

/// Makes the JSON of arguments, in the order of the words.
///
/// # Errors
/// They do not fit the method, unless that is not checked.
pub(super) fn to_json(
    service: &Interface,
    method: &Method,
    words: &[Vec<u8>],
    checking: Checking,
) -> Result<Vec<u8>, Wrong> {
    // Names are ASCII, and so is the mark after them.
    let words: Vec<_> = words.iter().map(|word| String::from_utf8_lossy(word)).collect();
    let line = words.join(" ");
    let mut json = String::from("{");
    let mut parsed = Vec::new();
    let mut places = Vec::new();
    let mut start = 0;
    for text in &words {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let word = Word { name, value, start };
        start += text.len() + 1;
        let property = property(service, method, name);
        let value = value_of(service, property, value);
        if json.len() > 1 {
            json.push(',');
        }
        let begin = json.len();
        json.push_str(&format!("{}:", Value::from(name)));
        let value_begin = json.len();
        json.push_str(&value);
        places.push((begin..value_begin - 1, value_begin..json.len(), value == word.value));
        parsed.push(word);
    }
    json.push('}');
    if checking == Checking::Unchecked {
        return Ok(json.into_bytes());
    }
    match service.check(method, json.as_bytes()) {
        Ok(()) => Ok(json.into_bytes()),
        Err(mistake) => {
            let at = place(&mistake, &parsed, &places).unwrap_or(line.len()..line.len());
            Err(Wrong { mistake, line, at })
        }
    }
}

/// Finds the place in the line of a mistake in the JSON.
fn place(
    mistake: &Mistake,
    words: &[Word<'_>],
    places: &[(Range<usize>, Range<usize>, bool)],
) -> Option<Range<usize>> {
    let at = &mistake.at;
    words.iter().zip(places).find_map(|(word, (name, value, is_same))| {
        if name.contains(&at.start) {
            return Some(word.name_at());
        }
        if !value.contains(&at.start) {
            return None;
        }
        // JSON that was written as it is has the same offsets.
        let shown = word.value_at();
        let offset = |at: usize| shown.start + at.saturating_sub(value.start);
        let inside = offset(at.start)..offset(at.end).min(shown.end);
        Some(if *is_same { inside } else { shown })
    })
}

/// Schema of an argument, and not the name of a definition.
pub(crate) fn argument_schema<'a>(
    service: &'a Interface,
    method: &'a Method,
    name: &str,
) -> Option<&'a Value> {
    Some(resolved(service, property(service, method, name)?))
}

fn property<'a>(service: &'a Interface, method: &'a Method, name: &str) -> Option<&'a Value> {
    resolved(service, method.arguments.as_ref()?).get("properties")?.get(name)
}

fn resolved<'a>(service: &'a Interface, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    // A chain this long is a circle.
    for _ in 0..16 {
        let name = schema.get("$ref").and_then(Value::as_str);
        let name = name.and_then(|name| name.strip_prefix("#/$defs/"));
        match name.and_then(|name| service.definitions.get(name)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

/// Makes JSON of a value. An argument that takes text has the value as it is; any other takes JSON,
/// and text where that fits better.
fn value_of(service: &Interface, schema: Option<&Value>, value: &str) -> String {
    let text = Value::from(value).to_string();
    let is_json = serde_json::from_str::<Value>(value).is_ok();
    let Some(schema) = schema else { return if is_json { value.into() } else { text } };
    let takes = |json: &str| service.check_value(schema, json.as_bytes()).is_ok();
    let takes_any_text = takes("\"\"") || takes(&text);
    let takes_other = || {
        // Numbers, booleans, lists and objects; null is the same as no argument.
        is_json && !value.starts_with('"') && value != "null" && takes(value)
    };
    match (takes_any_text, is_json) {
        (true, _) if takes_other() => value.into(),
        (true, _) => text,
        (false, true) => value.into(),
        (false, false) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Interface {
        serde_json::from_value(serde_json::json!({
            "name": "s", "version": 1, "oldest": 1,
            "methods": [{ "name": "m", "command": "s.m", "arguments": {
                "type": "object",
                "properties": {
                    "word": { "type": "string" },
                    "mood": { "$ref": "#/$defs/Mood" },
                    "most": { "type": "integer", "minimum": 0 },
                    "tags": { "type": "array", "items": { "type": "integer" } },
                    "maybe": { "type": ["string", "null"] },
                    "either": { "type": ["string", "integer"] },
                    "any": true,
                    "yes": { "type": "boolean" },
                    "letter": { "type": "string", "minLength": 1, "maxLength": 1 },
                },
                "required": ["word"],
            }}],
            "$defs": { "Mood": { "type": "string", "enum": ["Good", "Bad"] } },
        }))
        .unwrap()
    }

    fn json(words: &[&str]) -> Result<String, String> {
        let service = service();
        let words: Vec<_> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        let method = service.method("m").unwrap();
        match to_json(&service, method, &words, Checking::Checked) {
            Ok(json) => Ok(String::from_utf8(json).unwrap()),
            Err(Wrong { mistake, line, at }) => {
                Err(format!("{}|{}|{mistake}", &line[at.clone()], at.start))
            }
        }
    }

    #[test]
    fn types_decide_how_text_becomes_json() {
        for (word, expected) in [
            ("word=3", r#"{"word":"3"}"#),
            ("word=a \"b\"=c", r#"{"word":"a \"b\"=c"}"#),
            ("word=", r#"{"word":""}"#),
            ("word=null", r#"{"word":"null"}"#),
        ] {
            assert_eq!(json(&[word]).as_deref(), Ok(expected));
        }
        for (word, expected) in [
            ("mood=Bad", r#""mood":"Bad""#),
            ("most=7", r#""most":7"#),
            ("tags=[1, 2]", r#""tags":[1, 2]"#),
            ("maybe=x", r#""maybe":"x""#),
            ("maybe=3", r#""maybe":"3""#),
            ("either=3", r#""either":3"#),
            ("either=three", r#""either":"three""#),
            ("any={\"a\":null}", r#""any":{"a":null}"#),
            ("any=a b", r#""any":"a b""#),
            ("yes=true", r#""yes":true"#),
            ("letter=5", r#""letter":"5""#),
        ] {
            let expected = format!(r#"{{"word":"x",{expected}}}"#);
            assert_eq!(json(&["word=x", word]), Ok(expected));
        }
    }

    #[test]
    fn mistakes_have_their_place_in_the_words() {
        let is = |words: &[&str], expected: &str| assert_eq!(json(words), Err(expected.into()));
        is(&["word=a", "mots=3"], "mots|7|there is no argument \"mots\"; did you mean \"most\"?");
        is(
            &["word=a", "most=three"],
            "three|12|the argument \"most\" is \"three\", and should be an integer from 0 up",
        );
        is(
            &["word=a", "tags=[1,\"x\"]"],
            "\"x\"|15|\"tags[1]\" is \"x\", and should be an integer",
        );
        is(&["most=3"], "|6|the argument \"word\" is missing: a string");
        is(&["word=a", "word=b"], "word|7|the argument \"word\" is there twice");
        is(
            &["word=é", "mood=Godo"],
            "Godo|13|the argument \"mood\" is \"Godo\", and should be \"Good\" | \"Bad\"; did you \
             mean \"Good\"?",
        );
        is(
            &["word=a", "tags=[1"],
            "[1|12|the argument \"tags\" is \"[1\", and should be [integer]",
        );
    }
}
