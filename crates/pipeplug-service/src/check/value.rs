//! Properties of single values: their type, limits and text.

use serde_json::Value;

use super::tree::{Kind, Node};
use crate::schema::Schema;

/// Bytes of a value that a message shows.
const SHOWN: usize = 40;

/// Likeliness that a value was meant to be of an alternative.
#[derive(PartialEq, Eq)]
pub(super) enum Meant {
    /// Its tag says so.
    Named,
    Perhaps,
    No,
}

/// Finds out if a value was meant to be of an alternative.
pub(super) fn is_meant(schema: Schema<'_>, node: &Node<'_>) -> Meant {
    let is_one = |name: &str| is_a(name, node);
    let types = schema.get("type");
    let has_type = match types {
        Some(Value::String(name)) => is_one(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is_one),
        _ => schema.get("const").or_else(|| schema.get("enum")).is_none(),
    };
    let Kind::Object(entries) = &node.kind else {
        return if has_type { Meant::Perhaps } else { Meant::No };
    };
    if !has_type {
        return Meant::No;
    }
    let mut properties = schema.properties().peekable();
    let has_tag = schema.properties().any(|(name, property)| {
        property.get("const").is_some_and(|constant| {
            let given = entries.iter().find(|(key, _)| key.name == *name);
            matches!(given, Some((_, Node { kind: Kind::Scalar(given), .. })) if given == constant)
        })
    });
    // Serde's external tag.
    let is_closed = schema.is_closed();
    let is_named = properties.next().is_some_and(|(name, _)| {
        is_closed && properties.peek().is_none() && entries.iter().any(|(key, _)| key.name == *name)
    });
    if has_tag || is_named { Meant::Named } else { Meant::Perhaps }
}

/// Returns true for a value of a type of JSON Schema.
pub(super) fn is_a(name: &str, node: &Node<'_>) -> bool {
    match (&node.kind, name) {
        (Kind::Object(_), "object") | (Kind::Array(_), "array") => true,
        (Kind::Scalar(value), name) => match value {
            Value::Null => name == "null",
            Value::Bool(_) => name == "boolean",
            Value::String(_) => name == "string",
            Value::Number(_) => name == "number" || (name == "integer" && is_integer(node.text)),
            _ => false,
        },
        _ => false,
    }
}

/// Checks the limits of a number, and the length of a string.
pub(super) fn is_in_limits(schema: Schema<'_>, value: &Value, text: &str) -> bool {
    match value {
        Value::Number(number) => {
            let is_integer = |name: &Value| name == "integer";
            let types = schema.get("type");
            let is_integer = types.is_some_and(is_integer)
                || types.and_then(Value::as_array).is_some_and(|types| {
                    types.iter().any(is_integer) && !types.iter().any(|name| name == "number")
                });
            if is_integer {
                let (least, largest, _) = schema.range();
                return text.parse().is_ok_and(|value: i128| (least..=largest).contains(&value));
            }
            let number = number.as_f64().unwrap_or_default();
            let bound = |key| schema.get(key).and_then(Value::as_f64);
            bound("minimum").is_none_or(|least| least <= number)
                && bound("maximum").is_none_or(|largest| number <= largest)
        }
        Value::String(text) => {
            let bound = |key| schema.get(key).and_then(Value::as_u64);
            let len = text.chars().count() as u64;
            bound("minLength").is_none_or(|least| least <= len)
                && bound("maxLength").is_none_or(|most| len <= most)
        }
        _ => true,
    }
}

/// The text of a value, shortened.
pub(super) fn shown(node: &Node<'_>) -> String {
    let kind = match node.kind {
        Kind::Object(_) => "an object",
        Kind::Array(_) => "an array",
        Kind::Scalar(_) if node.text.len() <= SHOWN => return node.text.into(),
        Kind::Scalar(_) => {
            return format!("{}…", node.text.chars().take(SHOWN).collect::<String>());
        }
    };
    if node.text.len() <= SHOWN && !node.text.contains('\n') {
        node.text.into()
    } else {
        kind.into()
    }
}

/// Returns true for a number that serde takes as an integer: without a fraction or exponent. A
/// negative zero is a floating point number.
fn is_integer(number: &str) -> bool {
    !number.contains(['.', 'e', 'E']) && number != "-0"
}
