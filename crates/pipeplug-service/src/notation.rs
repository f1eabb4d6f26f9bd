//! Types and methods of an interface as people read them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::interface::{Interface, Method};
use crate::schema::Schema;

/// Depth to which a type without a name is written out.
const DEPTH: usize = 6;

/// An argument of a method, or a property of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Argument<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its type, and its default, as in `most: integer = 3`.
    pub text: String,
    /// Its documentation.
    pub docs: &'a str,
}

impl Interface {
    /// Writes a type: `[string]`, `{line: integer, text: string}`, or the name of a definition.
    #[must_use]
    pub fn notation(&self, schema: &Value) -> String {
        Schema { value: schema, root: self }.notation(DEPTH)
    }

    /// Writes a method: `spell.suggest(word: string, most: integer = 3) -> [string], or SpellError`.
    #[must_use]
    pub fn signature(&self, method: &Method) -> String {
        let mut inputs: Vec<_> =
            self.arguments(method).into_iter().map(|argument| argument.text).collect();
        if let Some(items) = &method.items_in {
            inputs.push(format!("stream of {}", self.notation(items)));
        }
        let output = match (&method.items_out, &method.result) {
            (Some(items), _) => format!(" -> stream of {}", self.notation(items)),
            (None, Some(result)) => format!(" -> {}", self.notation(result)),
            (None, None) => String::new(),
        };
        let error = match &method.error {
            Some(error) if output.is_empty() => format!(" -> nothing, or {}", self.notation(error)),
            Some(error) => format!(", or {}", self.notation(error)),
            None => String::new(),
        };
        let one_way = if method.one_way { ", one-way" } else { "" };
        format!("{}({}){output}{error}{one_way}", method.command, inputs.join(", "))
    }

    /// Arguments of a method: first the required ones.
    #[must_use]
    pub fn arguments<'a>(&'a self, method: &'a Method) -> Vec<Argument<'a>> {
        method
            .arguments
            .as_ref()
            .map(|schema| Schema { value: schema, root: self }.resolved().fields(DEPTH))
            .unwrap_or_default()
    }

    /// Definitions that the methods refer to, with their types and docs.
    pub fn definitions(&self) -> impl Iterator<Item = Argument<'_>> {
        self.definitions.iter().map(|(name, schema)| {
            let schema = Schema { value: schema, root: self };
            Argument { name, text: schema.notation(DEPTH), docs: schema.docs() }
        })
    }
}

impl<'a> Schema<'a> {
    pub(crate) fn docs(self) -> &'a str {
        self.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    /// Properties of an object: the required ones in their order, then the others.
    fn fields(self, depth: usize) -> Vec<Argument<'a>> {
        let names = self.get("required").and_then(Value::as_array);
        let names = names.into_iter().flatten().filter_map(Value::as_str);
        let first = names.filter_map(|name| {
            let property = self.property(name)?;
            let text = format!("{name}: {}", property.notation(depth));
            Some(Argument { name, text, docs: property.docs() })
        });
        let required = self.required();
        let rest = self.properties().filter(|(name, _)| !required.contains(name.as_str()));
        let rest = rest.map(|(name, property)| {
            let kind = property.not_null(depth);
            let text = match property.get("default").filter(|default| !default.is_null()) {
                Some(default) => format!("{name}: {kind} = {default}"),
                None => format!("{name}?: {kind}"),
            };
            Argument { name, text, docs: property.docs() }
        });
        first.chain(rest).collect()
    }

    /// The type of a value that may be left out instead of being null.
    fn not_null(self, depth: usize) -> String {
        let text = self.notation(depth);
        text.strip_suffix(" | null").map(str::to_owned).unwrap_or(text)
    }

    pub(crate) fn notation(self, depth: usize) -> String {
        if let Some(name) = self.reference() {
            return name.into();
        }
        let Some(deeper) = depth.checked_sub(1) else { return "…".into() };
        let joined = |schemas: &[Value], mark: &str| {
            let mut seen = BTreeSet::new();
            let texts = schemas.iter().map(|schema| self.with(schema).notation(deeper));
            let texts: Vec<_> = texts.filter(|text| seen.insert(text.clone())).collect();
            texts.join(mark)
        };
        let variants = |key| self.get(key).and_then(Value::as_array).map(Vec::as_slice);
        if let Some(value) = self.get("const") {
            return value.to_string();
        }
        if let Some(values) = variants("enum") {
            return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
        }
        let alternatives = variants("oneOf").or_else(|| variants("anyOf"));
        if let Some(alternatives) = alternatives {
            let text = joined(alternatives, " | ");
            // Of a flattened enumeration.
            let shared = self.properties().next().is_some();
            return if shared { format!("{} & ({text})", self.object(deeper)) } else { text };
        }
        if let Some(all) = variants("allOf") {
            return joined(all, " & ");
        }
        match self.get("type") {
            Some(Value::String(name)) => self.of_type(name, deeper),
            Some(Value::Array(names)) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(|name| self.of_type(name, deeper)).collect::<Vec<_>>().join(" | ")
            }
            _ if self.properties().next().is_some() => self.object(deeper),
            _ => "any".into(),
        }
    }

    fn of_type(self, name: &str, depth: usize) -> String {
        match name {
            "array" => match (self.get("prefixItems").and_then(Value::as_array), self.get("items"))
            {
                (Some(items), _) => {
                    let items = items.iter().map(|item| self.with(item).notation(depth));
                    format!("({})", items.collect::<Vec<_>>().join(", "))
                }
                (None, Some(item)) => format!("[{}]", self.with(item).notation(depth)),
                (None, None) => "[any]".into(),
            },
            "object" => self.object(depth),
            name => name.into(),
        }
    }

    fn object(self, depth: usize) -> String {
        let mut fields: Vec<_> =
            self.fields(depth).into_iter().map(|argument| argument.text).collect();
        if let Some(rest) = self.get("additionalProperties").filter(|rest| rest.is_object()) {
            fields.push(format!("*: {}", self.with(rest).notation(depth)));
        }
        if fields.is_empty() { "object".into() } else { format!("{{{}}}", fields.join(", ")) }
    }

    /// Description of the values that fit, as in `a string` or `an integer from 0 to 255`.
    pub(crate) fn expected(self) -> String {
        let schema = self.resolved();
        match schema.get("type").and_then(Value::as_str) {
            _ if schema.get("enum").is_some() || schema.get("const").is_some() => {
                schema.notation(DEPTH)
            }
            Some("string") if schema.get("maxLength") == Some(&1.into()) => "one character".into(),
            Some("string") => "a string".into(),
            Some("integer") => match schema.range() {
                (i128::MIN, i128::MAX, _) => "an integer".into(),
                (least, i128::MAX, _) => format!("an integer from {least} up"),
                (i128::MIN, largest, _) => format!("an integer up to {largest}"),
                (least, largest, _) => format!("an integer from {least} to {largest}"),
            },
            Some("number") => "a number".into(),
            Some("boolean") => "true or false".into(),
            Some("null") => "null".into(),
            _ => match self.reference() {
                Some(name) => format!("a {name}, {}", schema.notation(DEPTH)),
                None => schema.notation(DEPTH),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Client as _, StreamIn, StreamOut, data, service};

    #[data]
    #[derive(Debug)]
    enum Mood {
        Good,
        Bad,
    }

    #[data]
    #[derive(Debug)]
    enum Failed {
        Empty,
        Unknown { word: String },
    }

    impl std::fmt::Display for Failed {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("failed")
        }
    }

    /// A line.
    #[data]
    #[derive(Debug)]
    struct Line {
        number: u32,
        text: Option<String>,
    }

    #[service(version = 1)]
    #[expect(dead_code, reason = "only its description is used")]
    trait Notes {
        fn suggest(
            &self,
            word: String,
            #[serde(default)] most: u8,
            #[serde(default)] about: Option<String>,
        ) -> Result<Vec<String>, Failed>;
        fn pairs(&self, of: (u8, String), mood: Mood) -> BTreeMap<String, Vec<Line>>;
        fn check(&self, language: String, text: StreamIn<Line>) -> StreamOut<bool>;
        #[one_way]
        fn learn(&self, z: String, a: f64, list: Option<Line>);
        fn fail(&self) -> Result<(), Failed>;
        fn nothing(&self);
    }

    #[test]
    fn methods_and_types_are_written_for_people() {
        let notes = NotesClient::interface();
        let signatures: Vec<_> =
            notes.methods.iter().map(|method| notes.signature(method)).collect();
        assert_eq!(
            signatures,
            [
                "notes.suggest(word: string, about?: string, most: integer = 0) -> [string], or \
                 Failed",
                "notes.pairs(of: (integer, string), mood: Mood) -> {*: [Line]}",
                "notes.check(language: string, stream of Line) -> stream of boolean",
                "notes.learn(z: string, a: number, list?: Line), one-way",
                "notes.fail() -> nothing, or Failed",
                "notes.nothing()",
            ]
        );
        let definitions: Vec<_> = notes
            .definitions()
            .map(|argument| format!("{} = {}", argument.name, argument.text))
            .collect();
        assert_eq!(
            definitions,
            [
                "Failed = \"Empty\" | {Unknown: {word: string}}",
                "Line = {number: integer, text?: string}",
                "Mood = \"Good\" | \"Bad\"",
            ]
        );
        assert_eq!(notes.definitions().nth(1).map(|line| line.docs), Some("A line."));
    }
}
