//! Python 3.9, on top of the library in sdk/python.

mod defaults;
mod methods;
mod modules;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::HEADER;
use super::model::{Body, Named, Service, Type, VariantKind};
use super::names::{Scope, ascii, pascal, pieces, quoted_wide, wrapped};

pub(super) use modules::file;

/// Names that types cannot have.
pub(super) const TYPES: &[&str] = &[
    "Any",
    "Annotated",
    "AsyncIterator",
    "ClassVar",
    "Dict",
    "Enum",
    "Exception",
    "Iterator",
    "List",
    "Literal",
    "MethodError",
    "None",
    "NotImplementedError",
    "Optional",
    "Tuple",
    "True",
    "False",
    "Union",
];

/// Names that fields, methods and parameters cannot have: keywords, and names that the code uses.
const WORDS: &[&str] = &[
    "and",
    "as",
    "assert",
    "async",
    "await",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "else",
    "except",
    "finally",
    "for",
    "from",
    "global",
    "if",
    "import",
    "in",
    "is",
    "lambda",
    "nonlocal",
    "not",
    "or",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
    "self",
    "bool",
    "dataclass",
    "dict",
    "field",
    "float",
    "int",
    "json",
    "list",
    "method",
    "object",
    "service",
    "str",
    "tuple",
    "args",
    "add_note",
    "with_message",
    "with_traceback",
    "mro",
];

/// Characters of a line of a literal.
const PIECE: usize = 100;

struct Python<'a> {
    service: &'a Service,
    text: String,
    /// Choices, which are evaluated at once, behind the classes that they name.
    choices: String,
    /// Defaults of arguments that are lists and the like, before the classes of the service.
    defaults: String,
    /// Names of these defaults, by method and argument.
    default_names: BTreeMap<(String, String), String>,
    /// Names of the module.
    scope: Scope,
    /// Text of `Other` variants and the like, by type.
    owned: BTreeSet<usize>,
}

/// Writes the code of a service.
pub(super) fn generate(service: Service) -> Result<String, String> {
    let mut taken: Vec<&str> = service.types.iter().map(|it| it.name.as_str()).collect();
    taken.extend(TYPES);
    taken.push("_DESCRIPTION");
    let mut owned = BTreeSet::new();
    for named in &service.types {
        if let Body::Union(variants) = &named.body {
            for variant in variants {
                match &variant.kind {
                    VariantKind::Tagged(_, Type::Named(index))
                        if service.types[*index].is_inline() =>
                    {
                        owned.insert(*index);
                    }
                    VariantKind::Internal(_, _, Type::Named(index)) => {
                        owned.insert(*index);
                    }
                    _ => {}
                }
            }
        }
    }
    let mut python = Python {
        service: &service,
        text: String::new(),
        choices: String::new(),
        defaults: String::new(),
        default_names: BTreeMap::new(),
        scope: Scope::without(&taken),
        owned,
    };
    python.check_defaults()?;
    for (index, named) in service.types.iter().enumerate() {
        if !python.owned.contains(&index) {
            python.named(named)?;
        }
    }
    let choices = std::mem::take(&mut python.choices);
    python.text.push_str(&choices);
    for named in &service.types {
        if let (Body::Alias(kind), false) = (&named.body, named.is_error) {
            let text = python.alias(kind, &named.described)?;
            python.comment(&named.docs, "");
            let _ = write!(python.text, "{} = {text}\n\n", named.name);
        }
    }
    let mut class = pascal(&service.name);
    // These names are imported.
    if TYPES.iter().any(|it| *it == class || it.strip_prefix("Async") == Some(&class)) {
        class.push_str("Service");
    }
    let types = std::mem::take(&mut python.text);
    python.interface(&class, false)?;
    python.interface(&format!("Async{class}"), true)?;
    let body = types + &python.defaults + &python.text;
    Ok(format!("{}{body}", head(&service, &body)).trim_end().to_owned() + "\n")
}

/// Header, imports and the description.
fn head(service: &Service, body: &str) -> String {
    let uses = |name: &str| {
        body.match_indices(name).any(|(at, _)| {
            let is_part = |c: char| c.is_alphanumeric() || c == '_';
            !body[..at].ends_with(is_part) && !body[at + name.len()..].starts_with(is_part)
        })
    };
    let import = |module: &str, names: &[&str]| {
        let names: Vec<_> = names.iter().copied().filter(|name| uses(name)).collect();
        if names.is_empty() {
            String::new()
        } else {
            format!("from {module} import {}\n", names.join(", "))
        }
    };
    let mut text = format!(
        "# {HEADER}\n# fmt: off\n\"\"\"The service {}, version {}.\"\"\"\n\nfrom __future__ import \
         annotations\n\nimport json\n",
        service.name, service.version
    );
    text += &import("dataclasses", &["dataclass", "field"]);
    text += &import("enum", &["Enum"]);
    text += &import(
        "typing",
        &[
            "Any",
            "AsyncIterator",
            "ClassVar",
            "Dict",
            "Iterator",
            "List",
            "Literal",
            "Optional",
            "Tuple",
            "Union",
        ],
    );
    text += "\n";
    text += &import("pipeplug", &["MethodError", "method", "service"]);
    text += "\n# What others see of the service.\n_DESCRIPTION = json.loads(\n";
    for piece in pieces(&ascii(&service.description), PIECE) {
        let piece = piece.replace('\\', "\\\\").replace('\'', "\\'");
        let _ = writeln!(text, "    '{piece}'");
    }
    text += ")\n\n\n";
    text
}

impl Python<'_> {
    fn comment(&mut self, docs: &str, indent: &str) {
        for line in wrapped(docs, PIECE) {
            let _ = writeln!(self.text, "{}", format!("{indent}#: {line}").trim_end());
        }
    }

    /// A docstring of a first part, and of more below it.
    fn docstring(&mut self, docs: &str, more: &[String], indent: &str) {
        let mut all = wrapped(docs, PIECE);
        if !more.is_empty() && !all.is_empty() {
            all.push(String::new());
        }
        all.extend(more.iter().cloned());
        let all: Vec<_> =
            all.iter().map(|line| line.replace('\\', "\\\\").replace('"', "\\\"")).collect();
        // Quotes are needed only where there are three of them.
        let all: Vec<_> = all
            .iter()
            .map(|line| {
                if line.contains("\\\"\\\"") || line.ends_with("\\\"") {
                    line.clone()
                } else {
                    line.replace("\\\"", "\"")
                }
            })
            .collect();
        match all.as_slice() {
            [] => {}
            [one] => {
                let _ = writeln!(self.text, "{indent}\"\"\"{one}\"\"\"");
            }
            [first, rest @ ..] => {
                let _ = writeln!(self.text, "{indent}\"\"\"{first}");
                for line in rest {
                    let _ = writeln!(self.text, "{}", format!("{indent}{line}").trim_end());
                }
                let _ = writeln!(self.text, "{indent}\"\"\"");
            }
        }
    }
}

fn case(tag: &str) -> Vec<String> {
    vec![format!("__pipeplug_case__: ClassVar[str] = {}", quoted_wide(tag))]
}

fn unexpected(named: &Named) -> String {
    format!("the type {} is no object", named.described)
}

/// A constant.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted_wide(text),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        other => other.to_string(),
    }
}

/// Any JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        Value::Object(values) => {
            let entries: Vec<_> = values
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted_wide(key), plain(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => literal(other),
    }
}
