//! Comparison of data: as JSON where both are, else byte by byte.

use pipeplug_host::{CallError, Reply};
use serde_json::Value;

use crate::output::text::{QuotedData, shortened};
use crate::trace::spans::{Outcome, Span};

/// Number of places that are named.
const PLACES: usize = 5;
/// Width of a value that is shown.
const SHOWN: usize = 60;

/// A JSON pointer: its parts, unescaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

/// Parses a pointer of RFC 6901.
pub(super) fn parse_pointer(text: &str) -> Result<Pointer, String> {
    let rest = text.strip_prefix('/').ok_or_else(|| {
        format!("a pointer begins with a slash; write /{text}, or /a/0 for the first item of a")
    })?;
    Ok(Pointer(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()))
}

impl Pointer {
    /// Text of the pointer.
    pub(super) fn text(&self) -> String {
        let parts = self.0.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
        parts.map(|part| format!("/{part}")).collect()
    }

    /// Removes what it names.
    fn remove_from(&self, value: &mut Value) {
        let Some((last, above)) = self.0.split_last() else { return };
        let mut place = value;
        for part in above {
            let next = match place {
                Value::Object(object) => object.get_mut(part),
                Value::Array(items) => part.parse().ok().and_then(|i: usize| items.get_mut(i)),
                _ => None,
            };
            let Some(next) = next else { return };
            place = next;
        }
        match place {
            Value::Object(object) => {
                object.remove(last);
            }
            // The others keep their places.
            Value::Array(items) => {
                if let Some(item) = last.parse().ok().and_then(|i: usize| items.get_mut(i)) {
                    *item = Value::Null;
                }
            }
            _ => {}
        }
    }
}

/// Differences of data, a line each. Empty if there is none.
pub(super) fn data(recorded: &[u8], now: &[u8], ignored: &[Pointer]) -> Vec<String> {
    if recorded == now {
        return Vec::new();
    }
    let parse = |data| serde_json::from_slice::<Value>(data).ok();
    if let (Some(mut recorded), Some(mut now)) = (parse(recorded), parse(now)) {
        return json(&mut recorded, &mut now, ignored);
    }
    let shown = |data| match QuotedData(data).to_string() {
        text if text.is_empty() => " nothing".to_owned(),
        text => text,
    };
    vec![format!("recorded{}", shown(recorded)), format!("now     {}", shown(now))]
}

/// Differences of two JSON values.
pub(super) fn json(recorded: &mut Value, now: &mut Value, ignored: &[Pointer]) -> Vec<String> {
    for pointer in ignored {
        pointer.remove_from(recorded);
        pointer.remove_from(now);
    }
    let mut places = Vec::new();
    walk(&mut String::new(), Some(recorded), Some(now), &mut places);
    let more = places.len().saturating_sub(PLACES);
    places.truncate(PLACES);
    if more > 0 {
        places.push(format!("and {more} more"));
    }
    places
}

fn walk(path: &mut String, old: Option<&Value>, new: Option<&Value>, places: &mut Vec<String>) {
    let len = path.len();
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                path.push_str(&Pointer(vec![key.clone()]).text());
                walk(path, old.get(key), new.get(key), places);
                path.truncate(len);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for i in 0..old.len().max(new.len()) {
                path.push_str(&format!("/{i}"));
                walk(path, old.get(i), new.get(i), places);
                path.truncate(len);
            }
        }
        (old, new) if old == new => {}
        (old, new) => {
            let shown = |value: Option<&Value>| match value {
                Some(value) => shortened(&value.to_string(), SHOWN),
                None => "missing".to_owned(),
            };
            let place = if path.is_empty() { "the value" } else { path.as_str() };
            places.push(format!("{place}: was {}, is {}", shown(old), shown(new)));
        }
    }
}

/// Differences between the recorded end of a call and its end now.
pub(super) fn result(
    span: &Span,
    now: &Result<Reply, CallError>,
    ignored: &[Pointer],
) -> Vec<String> {
    let recorded = match &span.outcome {
        Outcome::Reply => match &span.reply {
            Some(reply) if reply.is_whole() => {
                let data = reply.data.as_deref().unwrap_or_default();
                Ok(Some(data))
            }
            _ => Ok(None),
        },
        Outcome::Error { code, message } => Err((code.as_deref(), message.as_deref())),
        Outcome::Closed(_) => {
            return match now {
                Err(CallError::Closed { .. }) => Vec::new(),
                Err(_) | Ok(_) => vec![
                    "recorded no response: the connection had ended".to_owned(),
                    format!("now      {}", in_words(now)),
                ],
            };
        }
        Outcome::Open | Outcome::Cancelled | Outcome::OneWay => return Vec::new(),
    };
    match (recorded, now) {
        (Ok(None), Ok(_)) => Vec::new(),
        (Ok(Some(recorded)), Ok(now)) => data(recorded, now.as_bytes(), ignored),
        (Err((code, message)), Err(CallError::Remote { code: now, message: said, .. }))
            if code == now.as_deref() && message.is_none_or(|message| message == said) =>
        {
            Vec::new()
        }
        (Ok(recorded), now) => vec![
            format!(
                "recorded a reply{}",
                recorded.map_or(String::new(), |it| QuotedData(it).to_string())
            ),
            format!("now      {}", in_words(now)),
        ],
        (Err((code, message)), now) => vec![
            format!("recorded {}", error_in_words(code, message.unwrap_or("(not recorded)"))),
            format!("now      {}", in_words(now)),
        ],
    }
}

fn error_in_words(code: Option<&str>, message: &str) -> String {
    let code = code.map(|code| format!(" {code}")).unwrap_or_default();
    format!("the error{code}{}", QuotedData(message.as_bytes()))
}

fn in_words(result: &Result<Reply, CallError>) -> String {
    match result {
        Ok(reply) => format!("a reply{}", QuotedData(reply.as_bytes())),
        Err(CallError::Remote { code, message, .. }) => error_in_words(code.as_deref(), message),
        Err(error) => {
            let text = error.to_string();
            text.lines().next().unwrap_or_default().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn differences(recorded: &str, now: &str, ignored: &[&str]) -> Vec<String> {
        let ignored: Vec<_> = ignored.iter().map(|text| parse_pointer(text).unwrap()).collect();
        data(recorded.as_bytes(), now.as_bytes(), &ignored)
    }

    #[test]
    fn json_is_compared_by_its_meaning() {
        assert!(differences(r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [1, 2], "a": 1 }"#, &[]).is_empty());
        assert_eq!(
            differences(r#"{"a":1,"b":[1,2],"c/d":0}"#, r#"{"a":2,"b":[1],"e":0}"#, &[]),
            [
                "/a: was 1, is 2",
                "/b/1: was 2, is missing",
                "/c~1d: was 0, is missing",
                "/e: was missing, is 0"
            ]
        );
        assert_eq!(differences("1", "2", &[]), ["the value: was 1, is 2"]);
    }

    #[test]
    fn what_a_pointer_names_is_left_out() {
        let (old, new) = (r#"{"a":{"t":1},"b":[1,2]}"#, r#"{"a":{"t":2},"b":[3,2]}"#);
        assert_eq!(differences(old, new, &["/a/t"]), ["/b/0: was 1, is 3"]);
        assert!(differences(old, new, &["/a/t", "/b/0"]).is_empty());
        assert_eq!(differences(old, new, &["/x/y", "/b/7", "/b/0/z"]).len(), 2);
        assert!(parse_pointer("a").unwrap_err().contains("write /a"));
        assert_eq!(parse_pointer("/c~1d/~0").unwrap().text(), "/c~1d/~0");
    }

    #[test]
    fn other_data_is_shown() {
        assert_eq!(differences("a", "b\n", &[]), ["recorded \"a\"", "now      \"b\\n\""]);
        assert_eq!(differences("", "b", &[]), ["recorded nothing", "now      \"b\""]);
    }
}
