//! Go 1.19, on top of the library in sdk/go.

mod docs;
mod lists;
mod methods;
mod unions;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::HEADER;
use super::model::{Body, Field, Named, Service, Type};
use super::names::{Scope, ascii, pascal, pieces, quoted_wide};

/// Names that types cannot have.
pub(super) const TYPES: &[&str] = &["Name", "Version"];

/// Names that packages cannot have: keywords, and words that mean something to the tools.
const WORDS: &[&str] = &[
    "break",
    "case",
    "chan",
    "const",
    "context",
    "continue",
    "default",
    "defer",
    "documentation",
    "else",
    "fallthrough",
    "for",
    "func",
    "go",
    "goto",
    "if",
    "import",
    "init",
    "interface",
    "json",
    "main",
    "map",
    "package",
    "range",
    "return",
    "select",
    "struct",
    "switch",
    "type",
    "var",
];

/// Names that folders of packages cannot have.
const FOLDERS: &[&str] = &["aux", "con", "internal", "nul", "prn", "testdata", "vendor"];

/// Characters of a line of the description.
const WIDTH: usize = 96;

struct Go<'a> {
    service: &'a Service,
    text: String,
    /// Names of the package.
    scope: Scope,
}

type Written<T = ()> = Result<T, String>;

/// Writes the code of a service.
pub(super) fn generate(service: &Service) -> Written<String> {
    let own = pascal(&service.name);
    let taken: Vec<String> = service.types.iter().map(|it| it.name.clone()).collect();
    let taken: Vec<&str> = taken.iter().map(String::as_str).chain(TYPES.iter().copied()).collect();
    let mut scope = Scope::without(&taken);
    let names = [
        format!("{own}Client"),
        format!("{own}Server"),
        format!("New{own}Client"),
        format!("New{own}Service"),
    ];
    for name in &names {
        scope.take(name);
    }
    let mut go = Go { service, text: String::new(), scope };
    for named in &service.types {
        go.named(named)?;
    }
    let signatures = go.signatures()?;
    go.client(&own, &signatures)?;
    go.server(&own, &signatures);
    let _ = write!(
        go.text,
        "// description is what others see of the service.\nconst description = \"\" +\n"
    );
    let text = pieces(&ascii(&service.description), WIDTH);
    let text: Vec<_> = text.iter().map(|piece| format!("\t{}", quoted_wide(piece))).collect();
    let _ = writeln!(go.text, "{}", text.join(" +\n"));
    go.helpers();
    Ok(format!("{}{}", head(&go), go.text))
}

fn head(go: &Go<'_>) -> String {
    let Service { name, version, docs, .. } = go.service;
    let mut text = format!("// {HEADER}\n\n");
    let line =
        format!("Package {name} has the types, a client and a server of the service {name}.");
    text.push_str(&docs::outer(&format!("{line}\n\n{docs}")));
    let _ = write!(text, "package {}\n\nimport (\n", package(name));
    let has_choice = go.service.types.iter().any(|it| matches!(it.body, Body::Union(_)));
    let modules =
        [("context", !go.service.methods.is_empty()), ("encoding/json", true), ("fmt", has_choice)];
    for (module, _) in modules.iter().filter(|(_, is_used)| *is_used) {
        let _ = writeln!(text, "\t\"{module}\"");
    }
    text.push_str("\n\tpipeplug \"github.com/pipeplug/pipeplug/sdk/go\"\n)\n\n");
    let _ = write!(
        text,
        "// Name and Version are those of the service.\nconst (\n\tName    = {}\n\tVersion = {version}\n)\n\n",
        quoted_wide(name)
    );
    text
}

/// Name of the package: a service may be called like a keyword.
fn package(name: &str) -> String {
    if WORDS.contains(&name) || name.ends_with("_test") {
        format!("{name}_")
    } else {
        name.to_owned()
    }
}

/// Path of the code of a service, in a directory. The directory is that of the package.
pub(super) fn file(service: &str) -> PathBuf {
    // An import path has none of the names that mean something to Go or to Windows.
    let is_port = |port| service.strip_prefix(port).is_some_and(|it| it.len() == 1);
    let is_taken = FOLDERS.contains(&service) || is_port("com") || is_port("lpt");
    let folder = if is_taken { format!("{service}_") } else { service.to_owned() };
    // The end of a name such as `x_windows.go` or `x_test.go` says when a file is compiled.
    let end = if service.contains('_') { "_service" } else { "" };
    Path::new(&folder).join(format!("{folder}{end}.go"))
}

/// Comment, name, type and end of a line.
type Row = (Vec<String>, String, String, String);

impl Go<'_> {
    fn comment(&mut self, docs: &str) {
        self.text.push_str(&docs::outer(docs));
    }

    fn kind(&self, kind: &Type, place: &str) -> Written<String> {
        Ok(match kind {
            Type::Any => "json.RawMessage".into(),
            Type::Null => "*struct{}".into(),
            Type::Bool => "bool".into(),
            Type::Integer(format) => match format.as_str() {
                "int8" | "int16" | "int32" | "int64" | "uint8" | "uint16" | "uint32" | "uint64" => {
                    format.clone()
                }
                "uint" => "uint64".into(),
                "int128" | "uint128" => "json.Number".into(),
                _ => "int64".into(),
            },
            Type::Float => "float64".into(),
            Type::String => "string".into(),
            Type::Constants(values) if values.iter().all(Value::is_string) => "string".into(),
            Type::Constants(values) if values.iter().all(Value::is_boolean) => "bool".into(),
            Type::Constants(values) if values.iter().all(Value::is_i64) => "int64".into(),
            Type::Constants(_) => return Err(format!("{place} is one of values of several types")),
            Type::List(item) => format!("[]{}", self.item(item, place)?),
            Type::Tuple(_) => return Err(format!("{place} is a tuple, for which Go has no type")),
            Type::Map(value) => format!("map[string]{}", self.kind(value, place)?),
            Type::Nullable(inner) => format!("*{}", self.kind(inner, place)?),
            Type::Named(index) => self.service.types[*index].name.clone(),
        })
    }

    /// Type of the items of a list.
    fn item(&self, kind: &Type, place: &str) -> Written<String> {
        match self.service.resolved(kind) {
            // Package json has a []uint8 as text.
            Type::Integer(format) if format == "uint8" => Ok("uint16".into()),
            _ => self.kind(kind, place),
        }
    }

    fn named(&mut self, named: &Named) -> Written {
        let name = &named.name;
        // The docs of a type begin with its name, by convention.
        let docs = format!("{name} is a type of the service.\n\n{}", named.docs);
        if named.is_error && !matches!(named.body, Body::Union(_)) {
            return Err(format!(
                "the error {} is no choice with data: only such errors are supported",
                named.described
            ));
        }
        match &named.body {
            Body::Struct(fields) => self.structure(name, &named.described, &docs, fields, false)?,
            Body::Enum(values) => {
                self.comment(&docs);
                let _ = write!(self.text, "type {name} string\n\n// Values of {name}.\nconst (\n");
                let mut rows = Vec::new();
                for (value, docs) in values {
                    let constant = self.scope.take_numbered(&format!("{name}{}", pascal(value)));
                    let value = format!("= {}", quoted_wide(value));
                    rows.push((docs::inner(docs, "\t"), constant, name.clone(), value));
                }
                self.rows(&rows);
                self.text.push_str(")\n\n");
            }
            Body::Alias(kind) => {
                self.comment(&docs);
                self.alias(name, kind, &format!("the type {}", named.described))?;
            }
            Body::Union(variants) => self.union(named, variants)?,
        }
        Ok(())
    }

    /// A struct, whose fields have defaults if they are arguments. Messages name it `owner`.
    fn structure(
        &mut self,
        name: &str,
        owner: &str,
        docs: &str,
        fields: &[Field],
        are_arguments: bool,
    ) -> Written {
        self.comment(docs);
        let mut scope = Scope::without(&["Error", "MarshalJSON", "UnmarshalJSON"]);
        let mut rows = Vec::new();
        // Package json writes a list that is nil as null.
        let mut never_nil = String::new();
        for field in fields {
            let place = format!("the field {:?} of {owner}", field.name);
            let own = scope.take(&pascal(&field.name));
            let is_sign = |c: char| "!#$%&()*+-./:;<=>?@[]^_{|}~ ".contains(c);
            if field.name.is_empty()
                || !field.name.chars().all(|c| c.is_alphanumeric() || is_sign(c))
            {
                return Err(format!("{place} has a name that package encoding/json does not take"));
            }
            let mut kind = field.kind.clone();
            let mut tag = field.name.clone();
            if field.required {
                if tag == "-" {
                    tag.push(',');
                }
            } else {
                tag.push_str(",omitempty");
                let is_nil = matches!(
                    self.service.resolved(&kind),
                    Type::Nullable(_) | Type::Null | Type::Any
                );
                if !is_nil {
                    kind = Type::Nullable(Box::new(kind));
                }
            }
            let value = format!("v.{own}");
            if let Some(filled) = self.filled(&kind, &value, 1, &place)? {
                let _ = writeln!(never_nil, "\t{value} = {filled}");
            }
            let mut tags = format!("json:{}", quoted_wide(&tag));
            let default = field.default.as_ref().filter(|it| !it.is_null());
            if let Some(default) = default.filter(|_| are_arguments) {
                let _ = write!(tags, " default:{}", quoted_wide(&ascii(default)));
            }
            let tags = if tags.contains('`') { quoted_wide(&tags) } else { format!("`{tags}`") };
            let mut docs = docs::inner(&field.docs, "\t");
            if let Some(default) = default.filter(|_| !field.required) {
                docs.extend(docs::inner(&format!("Default: {}", ascii(default)), "\t"));
            }
            rows.push((docs, own, self.kind(&kind, &place)?, tags));
        }
        let _ = writeln!(self.text, "type {name} struct {{");
        self.rows(&rows);
        self.text.push_str("}\n\n");
        if !never_nil.is_empty() {
            let _ = write!(
                self.text,
                "// MarshalJSON writes lists and maps that are nil as empty ones.\nfunc (v {name}) MarshalJSON() \
                 ([]byte, error) {{\n\ttype plain {name}\n{never_nil}\treturn json.Marshal(plain(v))\n}}\n\n"
            );
        }
        Ok(())
    }

    /// Fields of a struct, aligned as gofmt does: in runs without comments between them.
    fn rows(&mut self, rows: &[Row]) {
        let mut at = 0;
        while at < rows.len() {
            let rest = &rows[at + 1..];
            let end =
                at + 1 + rest.iter().position(|(docs, ..)| !docs.is_empty()).unwrap_or(rest.len());
            let run = &rows[at..end];
            let width = |of: fn(&Row) -> usize| run.iter().map(of).max().unwrap_or(0);
            let names = width(|row| row.1.chars().count());
            let kinds = width(|row| row.2.chars().count());
            for (docs, name, kind, tag) in run {
                for line in docs {
                    let _ = writeln!(self.text, "{line}");
                }
                let line = if tag.is_empty() {
                    format!("\t{name:names$} {kind}")
                } else {
                    format!("\t{name:names$} {kind:kinds$} {tag}")
                };
                let _ = writeln!(self.text, "{}", line.trim_end());
            }
            at = end;
        }
    }
}
