//! Go 1.19, on top of the library in sdk/go.

mod methods;

use std::fmt::Write as _;

use serde_json::Value;

use super::HEADER;
use super::model::{Body, Field, Named, Service, Type, Variant, VariantKind};
use super::names::{Scope, ascii, lines, pascal, pieces, quoted, wrapped};

/// Names that types cannot have.
pub(super) const TYPES: &[&str] = &["Name", "Version"];

/// Characters of a line of docs.
const WIDTH: usize = 96;

struct Go<'a> {
    service: &'a Service,
    text: String,
    /// Names of the package.
    scope: Scope,

    needs_errors: bool,
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
    let mut go = Go { service, text: String::new(), scope, needs_errors: false };
    for named in &service.types {
        go.named(named)?;
    }
    let mut arguments = Vec::new();
    for method in &service.methods {
        let name = go.scope.take_numbered(&format!("{}Arguments", pascal(&method.name)));
        if !method.arguments.is_empty() {
            let docs = format!("{name} are the arguments of the method {}.", quoted(&method.name));
            go.structure(&name, &docs, &method.arguments, Use::Arguments)?;
        }
        arguments.push(name);
    }
    go.client(&own, &arguments)?;
    go.server(&own, &arguments)?;
    let _ = write!(
        go.text,
        "// description is what others see of the service.\nconst description = \"\" +\n"
    );
    let text = pieces(&ascii(&service.description), WIDTH);
    let text: Vec<_> = text.iter().map(|piece| format!("\t{}", quoted(piece))).collect();
    let _ = writeln!(go.text, "{}", text.join(" +\n"));
    Ok(format!("{}{}", head(&go), go.text))
}

fn head(go: &Go<'_>) -> String {
    let Service { name, version, docs, .. } = go.service;
    let mut text = format!("// {HEADER}\n\n");
    let _ = writeln!(
        text,
        "// Package {name} has the types, a client and a server of the service {name}."
    );
    for line in comment(docs, "", "//") {
        let _ = writeln!(text, "{line}");
    }
    let _ =
        write!(text, "package {}\n\nimport (\n\t\"context\"\n\t\"encoding/json\"\n", package(name));
    if go.needs_errors {
        text.push_str("\t\"fmt\"\n");
    }
    text.push_str("\n\tpipeplug \"github.com/pipeplug/pipeplug/sdk/go\"\n)\n\n");
    let _ = write!(
        text,
        "// Name and Version are those of the service.\nconst (\n\tName    = {}\n\tVersion = {version}\n)\n\n",
        quoted(name)
    );
    text
}

/// Name of the package: a service may be called like a keyword.
fn package(name: &str) -> String {
    let words = [
        "break",
        "case",
        "chan",
        "const",
        "context",
        "continue",
        "default",
        "defer",
        "else",
        "fallthrough",
        "for",
        "func",
        "go",
        "goto",
        "if",
        "import",
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
    if words.contains(&name) { format!("{name}_") } else { name.to_owned() }
}

/// Lines of a comment: a first one that is empty if there is text before it.
fn comment(docs: &str, indent: &str, before: &str) -> Vec<String> {
    let all = wrapped(docs, WIDTH);
    let before = (!before.is_empty() && !all.is_empty()).then(|| format!("{indent}{before}"));
    let all = all.into_iter().map(|line| format!("{indent}// {line}").trim_end().to_owned());
    before.into_iter().chain(all).collect()
}

/// Comment, name, type and end of a line.
type Row = (Vec<String>, String, String, String);

/// Place of a struct.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Arguments,
    Type,
    /// Variant of a choice, which adds the property that tells it from others.
    Variant,
}

impl Go<'_> {
    fn comment(&mut self, docs: &str, indent: &str) {
        for line in comment(docs, indent, "") {
            let _ = writeln!(self.text, "{line}");
        }
    }

    fn docs(&mut self, name: &str, docs: &str) {
        // The docs of a type begin with its name, by convention.
        let empty = lines(docs).is_empty();
        let _ = writeln!(self.text, "// {name} is a type of the service.");
        if !empty {
            self.text.push_str("//\n");
            self.comment(docs, "");
        }
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
            // Package json has a []uint8 as text.
            Type::List(item) => match self.service.resolved(item) {
                Type::Integer(format) if format == "uint8" => "[]uint16".into(),
                _ => format!("[]{}", self.kind(item, place)?),
            },
            Type::Tuple(_) => return Err(format!("{place} is a tuple, for which Go has no type")),
            Type::Map(value) => format!("map[string]{}", self.kind(value, place)?),
            Type::Nullable(inner) => format!("*{}", self.kind(inner, place)?),
            Type::Named(index) => self.service.types[*index].name.clone(),
        })
    }

    fn named(&mut self, named: &Named) -> Written {
        let name = &named.name;
        match &named.body {
            Body::Struct(fields) => {
                let is_variant = self.is_variant(name);
                let usage = if is_variant { Use::Variant } else { Use::Type };
                let docs = format!("{name} is a type of the service.\n\n{}", named.docs);
                self.structure(name, &docs, fields, usage)?;
            }
            Body::Enum(values) => {
                self.docs(name, &named.docs);
                let _ = write!(self.text, "type {name} string\n\n// Values of {name}.\nconst (\n");
                let mut rows = Vec::new();
                for (value, docs) in values {
                    let constant = self.scope.take_numbered(&format!("{name}{}", pascal(value)));
                    let value = format!("= {}", quoted_go(value));
                    rows.push((comment(docs, "\t", ""), constant, name.clone(), value));
                }
                self.rows(&rows);
                self.text.push_str(")\n\n");
            }
            Body::Alias(kind) => {
                if named.is_error {
                    return Err(format!("the error {name} is no object and no choice"));
                }
                let kind = self.kind(kind, &format!("the type {name}"))?;
                self.docs(name, &named.docs);
                let _ = write!(self.text, "type {name} = {kind}\n\n");
            }
            Body::Union(variants) => self.union(named, variants)?,
        }
        if named.is_error && !matches!(named.body, Body::Union(_)) {
            return Err(format!(
                "the error {name} is no choice with data: only such errors are supported"
            ));
        }
        Ok(())
    }

    /// True if a type is a variant that is told from others by one of its properties.
    fn is_variant(&self, name: &str) -> bool {
        self.service.types.iter().any(|it| match &it.body {
            Body::Union(variants) => variants.iter().any(|variant| match &variant.kind {
                VariantKind::Internal(_, _, Type::Named(index)) => {
                    self.service.types[*index].name == name
                }
                _ => false,
            }),
            _ => false,
        })
    }

    fn structure(&mut self, name: &str, docs: &str, fields: &[Field], usage: Use) -> Written {
        self.comment(docs, "");
        let mut scope = Scope::without(&["Error", "MarshalJSON", "UnmarshalJSON"]);
        let mut rows = Vec::new();
        // Package json writes a list that is nil as null.
        let mut never_nil = Vec::new();
        for field in fields {
            let place = format!("the field {:?} of {name}", field.name);
            let own = scope.take(&pascal(&field.name));
            let is_sign = |c: char| "!#$%&()*+-./:;<=>?@[]^_{|}~ ".contains(c);
            if field.name.is_empty()
                || !field.name.chars().all(|c| c.is_alphanumeric() || is_sign(c))
            {
                return Err(format!("{place} has a name that package encoding/json does not take"));
            }
            let mut kind = self.kind(&field.kind, &place)?;
            let resolved = self.service.resolved(&field.kind);
            let mut tag = field.name.clone();
            if field.required {
                match resolved {
                    Type::List(_) => never_nil.push((own.clone(), kind.clone())),
                    Type::Map(_) => never_nil.push((own.clone(), kind.clone())),
                    _ => {}
                }
                if tag == "-" {
                    tag.push(',');
                }
            } else {
                tag.push_str(",omitempty");
                let is_nil = matches!(resolved, Type::Nullable(_) | Type::Null | Type::Any);
                if !is_nil {
                    kind = format!("*{kind}");
                }
            }
            let mut tags = format!("json:{}", quoted_go(&tag));
            if let Some(default) =
                field.default.as_ref().filter(|it| !it.is_null() && usage == Use::Arguments)
            {
                let _ = write!(tags, " default:{}", quoted_go(&ascii(default)));
            }
            let tags = if tags.contains('`') { quoted_go(&tags) } else { format!("`{tags}`") };
            let mut docs = comment(&field.docs, "\t", "");
            if let Some(default) =
                field.default.as_ref().filter(|it| !field.required && !it.is_null())
            {
                docs.extend(comment(&format!("Default: {}", ascii(default)), "\t", ""));
            }
            rows.push((docs, own, kind, tags));
        }
        let _ = writeln!(self.text, "type {name} struct {{");
        self.rows(&rows);
        self.text.push_str("}\n\n");
        if !never_nil.is_empty() && usage != Use::Variant {
            let _ = write!(
                self.text,
                "// MarshalJSON writes lists and maps that are nil as empty ones.\nfunc (v {name}) MarshalJSON() \
                 ([]byte, error) {{\n\ttype plain {name}\n"
            );
            for (own, kind) in never_nil {
                let _ =
                    write!(self.text, "\tif v.{own} == nil {{\n\t\tv.{own} = {kind}{{}}\n\t}}\n");
            }
            self.text.push_str("\treturn json.Marshal(plain(v))\n}\n\n");
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

    fn union(&mut self, named: &Named, variants: &[Variant]) -> Written {
        let name = &named.name;
        let mut scope =
            Scope::without(&["Error", "MarshalJSON", "UnmarshalJSON", "Message", "Unwrap"]);
        let docs =
            format!("{name} is a choice: exactly one of its fields is set.\n\n{}", named.docs);
        self.comment(&docs, "");
        let mut rows = Vec::new();
        let (mut write, mut read) = (String::new(), String::new());
        for variant in variants {
            let own = scope.take(&variant.name);
            let docs = comment(&variant.docs, "\t", "");
            let place = format!("the variant {:?} of {name}", variant.name);
            match &variant.kind {
                VariantKind::Constant(value) => {
                    let text = quoted_go(&ascii(value));
                    let _ = write!(write, "\tcase v.{own}:\n\t\treturn []byte({text}), nil\n");
                    let _ = write!(
                        read,
                        "\tif string(data) == {text} {{\n\t\tv.{own} = true\n\t\treturn nil\n\t}}\n"
                    );
                    rows.push((docs, own, "bool".to_owned(), String::new()));
                }
                VariantKind::Tagged(tag, kind) => {
                    let kind = self.kind(kind, &place)?;
                    let tag = quoted_go(tag);
                    let _ = write!(
                        write,
                        "\tcase v.{own} != nil:\n\t\treturn json.Marshal(map[string]any{{{tag}: v.{own}}})\n"
                    );
                    let _ = write!(
                        read,
                        "\tif text, ok := object[{tag}]; ok {{\n\t\treturn json.Unmarshal(text, &v.{own})\n\t}}\n"
                    );
                    rows.push((docs, own, format!("*{kind}"), String::new()));
                }
                VariantKind::Internal(property, value, kind) => {
                    let kind = self.kind(kind, &place)?;
                    let is_sign = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
                    if property.is_empty() || !property.chars().all(is_sign) {
                        return Err(format!(
                            "{place} is told by the property {property:?}, which Go cannot name"
                        ));
                    }
                    let (tag, text) =
                        (quoted_go(&ascii(&Value::from(value.as_str()))), quoted_go(value));
                    let _ = write!(
                        write,
                        "\tcase v.{own} != nil:\n\t\treturn json.Marshal(struct {{\n\t\t\tKind string `json:\"{property}\"`\n\t\t\t*{kind}\n\t\t}}{{{text}, v.{own}}})\n"
                    );
                    let _ = write!(
                        read,
                        "\tif string(object[{}]) == {tag} {{\n\t\treturn json.Unmarshal(data, &v.{own})\n\t}}\n",
                        quoted_go(property)
                    );
                    rows.push((docs, own, format!("*{kind}"), String::new()));
                }
                VariantKind::Other(_) => {
                    return Err(format!("{place} has no tag that tells it from the others"));
                }
            }
        }
        let _ = writeln!(self.text, "type {name} struct {{");
        if named.is_error {
            let docs = vec![
                "\t// Message is the text for people. It is sent besides the data.".to_owned(),
            ];
            rows.push((docs, "Message".to_owned(), "string".to_owned(), "`json:\"-\"`".to_owned()));
        }
        self.rows(&rows);
        self.needs_errors = true;
        let object = if read.contains("object[") {
            "\tvar object map[string]json.RawMessage\n\t_ = json.Unmarshal(data, &object) // a variant may be no object\n"
        } else {
            ""
        };
        let none = quoted_go(&format!("none of the variants of {name} is set"));
        let unknown = quoted_go(&format!("%.100q is no variant of {name}"));
        let _ = write!(
            self.text,
            "}}\n\n// MarshalJSON writes the variant that is set.\nfunc (v {name}) MarshalJSON() ([]byte, error) \
             {{\n\tswitch {{\n{write}\t}}\n\treturn nil, fmt.Errorf({none})\n}}\n\n// UnmarshalJSON sets the variant \
             that the data has.\nfunc (v *{name}) UnmarshalJSON(data []byte) error {{\n\t*v = {name}{{}}\n{object}{read}\treturn fmt.Errorf({unknown}, data)\n}}\n\n"
        );
        if named.is_error {
            let _ = write!(
                self.text,
                "// Error is the message, or the data.\nfunc (v *{name}) Error() string {{\n\tif v.Message != \"\" {{\n\t\treturn \
                 v.Message\n\t}}\n\ttext, err := json.Marshal(v)\n\tif err != nil {{\n\t\treturn err.Error()\n\t}}\n\treturn \
                 string(text)\n}}\n\n"
            );
        }
        Ok(())
    }
}

/// A string of Go, in ASCII.
fn quoted_go(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            ' '..='~' => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
