//! Checks of arguments before they are sent.

mod tree;
mod value;

use std::fmt;
use std::ops::Range;

use pipeplug_net::Escaped;
use serde_json::Value;

use crate::interface::{Interface, Method};
use crate::router::nearest;
use crate::schema::Schema;
use tree::{Key, Kind, Node};
use value::{Meant, is_a, is_in_limits, is_meant, shown};

/// Schemas for one value that are followed one into another. More are a circle.
const LEVELS: u32 = 16;
/// Comparisons of a value and a schema in one check. A schema that takes more is not meant to be
/// checked.
const STEPS: u32 = 10_000_000;

/// Mistake in the arguments of a method, or in another value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mistake {
    /// Path of the value, such as `most` or `lines[2].number`. Empty for all of the arguments.
    pub path: String,
    /// Bytes of the text that the mistake is about.
    pub at: Range<usize>,
    message: String,
}

impl Mistake {
    fn new(path: &str, at: Range<usize>, message: String) -> Self {
        Self { path: path.into(), at, message }
    }

    /// Line and column of the mistake in the text, which both count from 1. Columns are characters.
    #[must_use]
    pub fn position(&self, text: &[u8]) -> (usize, usize) {
        let before = text.get(..self.at.start).unwrap_or(text);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let column = String::from_utf8_lossy(before.get(start..).unwrap_or_default());
        (line, column.chars().count() + 1)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.message))
    }
}

impl std::error::Error for Mistake {}

impl Interface {
    /// Checks arguments of a method that a person has written. Fields that the schema does not have,
    /// which services ignore, are most likely misspelt, and mistakes here. No bytes are no
    /// arguments.
    ///
    /// # Errors
    /// They do not fit.
    pub fn check(&self, method: &Method, arguments: &[u8]) -> Result<(), Mistake> {
        let nothing = Value::Object(serde_json::Map::new());
        let schema = method.arguments.as_ref().unwrap_or(&nothing);
        let arguments = if arguments.is_empty() { b"{}" } else { arguments };
        Check::arguments(self).run(schema, arguments)
    }

    /// Checks a value, such as one argument, against a schema of the interface.
    ///
    /// # Errors
    /// It does not fit.
    pub fn check_value(&self, schema: &Value, value: &[u8]) -> Result<(), Mistake> {
        Check { words: Words::Value, ..Check::arguments(self) }.run(schema, value)
    }

    /// Returns true if a service takes a value: it ignores unknown fields.
    #[cfg(test)]
    pub(crate) fn takes(&self, schema: &Value, value: &Value) -> bool {
        let check =
            Check { unknown: Unknown::Ignored, words: Words::Value, ..Check::arguments(self) };
        check.run(schema, value.to_string().as_bytes()).is_ok()
    }
}

/// Names for what is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Words {
    Arguments,
    Value,
}

struct Check<'a> {
    interface: &'a Interface,
    words: Words,
    unknown: Unknown,
    steps: u32,
}

/// Treatment of fields that the schema does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Mistake,
    /// As services do.
    #[cfg(test)]
    Ignored,
}

/// Place of a value that is being checked.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a str,
    level: u32,
    /// Schema that has more properties of the same object.
    beside: Option<Schema<'a>>,
    /// True if another schema names the rest of the properties.
    is_part: bool,
}

impl<'a> At<'a> {
    fn new(path: &'a str) -> Self {
        Self { path, level: 0, beside: None, is_part: false }
    }
}

impl<'a> Check<'a> {
    fn arguments(interface: &'a Interface) -> Self {
        Self { interface, words: Words::Arguments, unknown: Unknown::Mistake, steps: STEPS }
    }

    fn run(mut self, schema: &Value, json: &[u8]) -> Result<(), Mistake> {
        let text = std::str::from_utf8(json).map_err(|error| {
            let at = error.valid_up_to();
            Mistake::new("", at..at + 1, "it is no JSON: it is not UTF-8".into())
        })?;
        let node = Node::parse(text).map_err(|error| {
            let end = text[error.at..].chars().next().map_or(0, char::len_utf8);
            let message = format!("it is no JSON: {}", error.problem);
            Mistake::new("", error.at..error.at + end, message)
        })?;
        let schema = Schema { value: schema, root: self.interface };
        if self.words == Words::Arguments && !matches!(node.kind, Kind::Object(_)) {
            let message = format!("the arguments are {}, and should be an object", shown(&node));
            return Err(Mistake::new("", node.at, message));
        }
        self.value(schema, &node, At::new(""))
    }

    fn value(&mut self, schema: Schema<'_>, node: &Node<'_>, at: At<'_>) -> Result<(), Mistake> {
        self.steps = self.steps.saturating_sub(1);
        if at.level > LEVELS || self.steps == 0 || schema.value == &Value::Bool(true) {
            return Ok(());
        }
        let at = At { level: at.level + 1, ..at };
        if schema.reference().is_some() {
            let target = schema.resolved();
            // A reference that leads nowhere says nothing.
            if target.reference().is_some() {
                return Ok(());
            }
            if !schema.has_own_properties() {
                return self.value(target, node, at);
            }
            if let Kind::Object(entries) = &node.kind {
                self.object(schema, entries, node, At { is_part: true, ..at })?;
            }
            // One level is enough: more properties beside it are those of a flattened enumeration.
            let is_part =
                at.is_part || at.beside.is_some_and(|beside| beside.properties().next().is_some());
            return self.value(target, node, At { beside: Some(schema), is_part, ..at });
        }
        let list = |key| schema.get(key).and_then(Value::as_array);
        if let Some(values) = list("enum") {
            return self.constants(schema, values, node, at);
        }
        if let Some(value) = schema.get("const") {
            return self.constants(schema, std::slice::from_ref(value), node, at);
        }
        if let Some(alternatives) = list("oneOf").or_else(|| list("anyOf")) {
            self.alternatives(schema, alternatives, node, At { beside: Some(schema), ..at })?;
        }
        for all in list("allOf").into_iter().flatten() {
            self.value(schema.with(all), node, At { is_part: true, ..at })?;
        }
        let types: Vec<_> = match schema.get("type") {
            Some(Value::String(name)) => vec![name.as_str()],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|name| is_a(name, node)) {
            return Err(self.wrong(schema, node, at));
        }
        match &node.kind {
            Kind::Object(entries) => self.object(schema, entries, node, at),
            Kind::Array(items) => self.array(schema, items, node, at),
            Kind::Scalar(value) if is_in_limits(schema, value, node.text) => Ok(()),
            Kind::Scalar(_) => Err(self.wrong(schema, node, at)),
        }
    }

    fn constants(
        &self,
        schema: Schema<'_>,
        values: &[Value],
        node: &Node<'_>,
        at: At<'_>,
    ) -> Result<(), Mistake> {
        let Kind::Scalar(given) = &node.kind else { return Err(self.wrong(schema, node, at)) };
        if values.contains(given) {
            return Ok(());
        }
        let names = values.iter().filter_map(Value::as_str);
        let meant = given.as_str().and_then(|given| nearest(given, names));
        let hint = meant.map(|meant| format!("; did you mean \"{meant}\"?")).unwrap_or_default();
        let mistake = self.wrong(schema, node, at);
        Err(Mistake { message: mistake.message + &hint, ..mistake })
    }

    fn alternatives(
        &mut self,
        schema: Schema<'_>,
        alternatives: &[Value],
        node: &Node<'_>,
        at: At<'_>,
    ) -> Result<(), Mistake> {
        let mut mistakes = Vec::new();
        for alternative in alternatives {
            let alternative = schema.with(alternative);
            match self.value(alternative, node, at) {
                Ok(()) => return Ok(()),
                Err(mistake) => {
                    let is_tagged = alternative.has_own_properties();
                    let named = if is_tagged { alternative } else { alternative.resolved() };
                    mistakes.push((is_meant(named, node), mistake));
                }
            }
        }
        // The mistake of the alternative that was meant: by its tag, or if only one has such values.
        let meant = mistakes.iter().filter(|(meant, _)| *meant == Meant::Named);
        let meant: Vec<_> = if meant.clone().count() == 0 {
            mistakes.iter().filter(|(meant, _)| *meant == Meant::Perhaps).collect()
        } else {
            meant.collect()
        };
        match meant.as_slice() {
            [(_, mistake)] => Err(mistake.clone()),
            _ => {
                let texts = alternatives.iter().filter_map(|alternative| {
                    let alternative = schema.with(alternative).resolved();
                    let values = alternative.get("enum").and_then(Value::as_array);
                    let values = values.map(Vec::as_slice);
                    values.or_else(|| alternative.get("const").map(std::slice::from_ref))
                });
                let texts: Vec<_> = texts.flatten().cloned().collect();
                if !texts.is_empty() && matches!(&node.kind, Kind::Scalar(Value::String(_))) {
                    return self.constants(schema, &texts, node, at);
                }
                Err(self.wrong(schema, node, at))
            }
        }
    }

    fn object(
        &mut self,
        schema: Schema<'_>,
        entries: &[(Key, Node<'_>)],
        node: &Node<'_>,
        at: At<'_>,
    ) -> Result<(), Mistake> {
        let inner = |name: &str| {
            if at.path.is_empty() { name.to_owned() } else { format!("{}.{name}", at.path) }
        };
        let kind =
            if at.path.is_empty() && self.words == Words::Arguments { "argument" } else { "field" };
        for (index, (key, value)) in entries.iter().enumerate() {
            let name = key.name.as_str();
            let path = inner(name);
            if entries.iter().take(index).any(|(other, _)| other.name == name) {
                let message = format!("the {kind} \"{path}\" is there twice");
                return Err(Mistake::new(&path, key.at.clone(), message));
            }
            if let Some(property) = schema.property(name) {
                self.value(property, value, At::new(&path))?;
                continue;
            }
            if let Some(by_pattern) = schema.pattern_property(name) {
                if let Some(property) = by_pattern {
                    self.value(property, value, At::new(&path))?;
                }
                continue;
            }
            match schema.get("additionalProperties") {
                Some(rest @ Value::Object(_)) => {
                    let rest = schema.with(rest);
                    self.value(rest, value, At::new(&path))?;
                }
                Some(Value::Bool(true)) => {}
                _ if self.takes(schema, name, at) => {}
                _ => return Err(self.unknown(schema, key, kind, at)),
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        let missing: Vec<_> = required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .filter(|name| entries.iter().all(|(key, _)| key.name != *name))
            .collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let path = inner(first);
        let place = node.at.end.saturating_sub(1)..node.at.end;
        let expected = schema.property(first).map(|property| property.expected());
        let message = match (missing.as_slice(), expected) {
            ([_], Some(expected)) => format!("the {kind} \"{path}\" is missing: {expected}"),
            ([_], None) => format!("the {kind} \"{path}\" is missing"),
            _ => format!("the {kind}s \"{}\" are missing", missing.join("\", \"")),
        };
        Err(Mistake::new(&path, place, message))
    }

    /// Returns true if a property may have that name, though this schema does not name it.
    fn takes(&self, schema: Schema<'_>, name: &str, at: At<'_>) -> bool {
        // Alternatives have checked it already.
        let is_checked = ["oneOf", "anyOf", "allOf"].iter().any(|key| schema.get(key).is_some());
        let is_beside = at.beside.is_some_and(|beside| beside.property(name).is_some());
        let names_none =
            ["properties", "additionalProperties"].iter().all(|key| schema.get(key).is_none());
        let is_method = at.path.is_empty() && self.words == Words::Arguments;
        let is_ignored = self.unknown != Unknown::Mistake && !schema.is_closed();
        is_ignored
            || at.is_part
            || is_checked
            || is_beside
            || (names_none && (at.beside.is_some() || !is_method))
    }

    fn unknown(&self, schema: Schema<'_>, key: &Key, kind: &str, at: At<'_>) -> Mistake {
        let others = at.beside.into_iter().flat_map(Schema::properties);
        let names: Vec<_> =
            schema.properties().chain(others).map(|(name, _)| name.as_str()).collect();
        let hint = match nearest(&key.name, names.iter().copied()) {
            Some(meant) => format!("; did you mean \"{meant}\"?"),
            None if schema.get("patternProperties").is_some() => {
                "; a name is a whole number".into()
            }
            None if names.is_empty() => "; it takes none".into(),
            None => format!("; there is {}", names.join(", ")),
        };
        let of = if at.path.is_empty() { String::new() } else { format!(" in \"{}\"", at.path) };
        let message = format!("there is no {kind} \"{}\"{of}{hint}", key.name);
        Mistake::new(&key.name, key.at.clone(), message)
    }

    fn array(
        &mut self,
        schema: Schema<'_>,
        items: &[Node<'_>],
        node: &Node<'_>,
        at: At<'_>,
    ) -> Result<(), Mistake> {
        let first =
            schema.get("prefixItems").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let count = |key, default| {
            let count = schema.get(key).and_then(Value::as_u64);
            count.map_or(default, |count| usize::try_from(count).unwrap_or(usize::MAX))
        };
        let (least, most) = (count("minItems", 0), count("maxItems", usize::MAX));
        if !(least..=most).contains(&items.len()) {
            let expected = match (least, most) {
                (least, usize::MAX) => format!("at least {least}"),
                (least, most) if least == most => least.to_string(),
                (least, most) => format!("{least} to {most}"),
            };
            let name = self.name(at);
            let message = format!("{name} has {} items, and should have {expected}", items.len());
            return Err(Mistake::new(at.path, node.at.clone(), message));
        }
        for (index, item) in items.iter().enumerate() {
            let Some(expected) = first.get(index).or_else(|| schema.get("items")) else { continue };
            let path = format!("{}[{index}]", at.path);
            self.value(schema.with(expected), item, At::new(&path))?;
        }
        Ok(())
    }

    /// Name of the value in messages.
    fn name(&self, at: At<'_>) -> String {
        match (at.path, self.words) {
            ("", Words::Arguments) => "the object of arguments".into(),
            ("", Words::Value) => "the value".into(),
            (path, Words::Arguments) => {
                let is_inside = path.contains(['.', '[']);
                if is_inside { format!("\"{path}\"") } else { format!("the argument \"{path}\"") }
            }
            (path, Words::Value) => format!("\"{path}\""),
        }
    }

    fn wrong(&self, schema: Schema<'_>, node: &Node<'_>, at: At<'_>) -> Mistake {
        let (name, given, expected) = (self.name(at), shown(node), schema.expected());
        let message = format!("{name} is {given}, and should be {expected}");
        Mistake::new(at.path, node.at.clone(), message)
    }
}

#[cfg(test)]
mod tests;
