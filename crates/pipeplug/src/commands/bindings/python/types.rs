//! Classes of the types.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::super::model::{Body, Field, Named, Type, Variant, VariantKind};
use super::super::names::{Scope, lines, pascal, quoted_wide, snake, upper};
use super::{Python, WORDS, case, literal, unexpected};

impl Python<'_> {
    /// Type as it stands in an annotation.
    pub(super) fn kind(&self, kind: &Type) -> Result<String, String> {
        Ok(match kind {
            Type::Any => "Any".into(),
            Type::Null => "None".into(),
            Type::Bool => "bool".into(),
            Type::Integer(_) => "int".into(),
            Type::Float => "float".into(),
            Type::String => "str".into(),
            Type::Constants(values) => {
                let values: Vec<_> = values.iter().map(literal).collect();
                format!("Literal[{}]", values.join(", "))
            }
            Type::List(item) => format!("List[{}]", self.kind(item)?),
            Type::Tuple(items) if items.is_empty() => return Err("an empty tuple".into()),
            Type::Tuple(items) => {
                let items: Result<Vec<_>, _> = items.iter().map(|item| self.kind(item)).collect();
                format!("Tuple[{}]", items?.join(", "))
            }
            Type::Map(value) => format!("Dict[str, {}]", self.kind(value)?),
            Type::Nullable(inner) => format!("Optional[{}]", self.kind(inner)?),
            Type::Named(index) => self.service.types[*index].name.clone(),
        })
    }

    /// Right side of an alias, which is evaluated at once: other aliases are quoted.
    pub(super) fn alias(&self, kind: &Type, place: &str) -> Result<String, String> {
        let kind = self.service.resolved(kind);
        let text = self.kind(kind).map_err(|problem| format!("the type {place} has {problem}"))?;
        Ok(self.quoted_aliases(text))
    }

    pub(super) fn quoted_aliases(&self, text: String) -> String {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let mut quoted = String::new();
        let mut rest = text.as_str();
        while let Some(c) = rest.chars().next() {
            if c == '"' {
                // A literal: to its end.
                let mut end = 1;
                let bytes = rest.as_bytes();
                while bytes.get(end).is_some_and(|&byte| byte != b'"') {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                let (literal, after) = rest.split_at((end + 1).min(rest.len()));
                quoted.push_str(literal);
                rest = after;
                continue;
            }
            let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len()).max(c.len_utf8());
            let (word, after) = rest.split_at(end);
            let is_alias = self.service.types.iter().any(|named| {
                named.name == word
                    && !named.is_error
                    && matches!(named.body, Body::Alias(_) | Body::Union(_))
            });
            let _ = if is_alias { write!(quoted, "\"{word}\"") } else { write!(quoted, "{word}") };
            rest = after;
        }
        quoted
    }

    pub(super) fn named(&mut self, named: &Named) -> Result<(), String> {
        let name = &named.name;
        match &named.body {
            Body::Struct(fields) if named.is_error => {
                self.class(name, "MethodError", &named.docs, &[], fields)
            }
            Body::Struct(fields) => self.class(name, "", &named.docs, &[], fields),
            Body::Enum(values) if named.is_error => {
                self.error(named)?;
                for (value, docs) in values {
                    let own = self.scope.take(&format!("{name}{}", pascal(value)));
                    self.class(&own, name, docs, &case(value), &[])?;
                }
                Ok(())
            }
            Body::Enum(values) => {
                let _ = writeln!(self.text, "class {name}(str, Enum):");
                self.docstring(&named.docs, &[], "    ");
                if !lines(&named.docs).is_empty() {
                    self.text.push('\n');
                }
                let mut scope = Scope::default();
                for (value, docs) in values {
                    self.comment(docs, "    ");
                    let own = scope.take(&upper(value));
                    let _ = writeln!(self.text, "    {own} = {}", quoted_wide(value));
                }
                self.text.push_str("\n\n");
                Ok(())
            }
            Body::Union(variants) if named.is_error => {
                let has_cases = variants.iter().all(|it| match &it.kind {
                    VariantKind::Constant(value) => value.is_string(),
                    VariantKind::Tagged(..) => true,
                    _ => false,
                });
                if has_cases {
                    self.error(named)?;
                    return variants
                        .iter()
                        .try_for_each(|it| self.variant(named, it, name).map(drop));
                }
                let kinds: Result<Vec<_>, _> =
                    variants.iter().map(|it| self.variant(named, it, "")).collect();
                self.value(named, &format!("Union[{}]", kinds?.join(", ")))
            }
            Body::Union(variants) => {
                let kinds: Result<Vec<_>, _> =
                    variants.iter().map(|it| self.variant(named, it, "")).collect();
                let mut kinds = kinds?;
                let mut seen = BTreeSet::new();
                kinds.retain(|kind| seen.insert(kind.clone()));
                let kinds: Vec<_> = kinds
                    .into_iter()
                    .map(|kind| format!("    {},\n", self.quoted_aliases(kind)))
                    .collect();
                let written = std::mem::take(&mut self.text);
                self.comment(&named.docs, "");
                let choice = std::mem::replace(&mut self.text, written);
                let _ = write!(self.choices, "{choice}{name} = Union[\n{}]\n\n\n", kinds.concat());
                Ok(())
            }
            Body::Alias(kind) if named.is_error => {
                let kind = self.kind(kind)?;
                self.value(named, &kind)
            }
            // Behind the classes.
            Body::Alias(_) => Ok(()),
        }
    }

    /// The base of the cases of an error.
    pub(super) fn error(&mut self, named: &Named) -> Result<(), String> {
        let docs =
            if lines(&named.docs).is_empty() { "An error of the service." } else { &named.docs };
        let _ = writeln!(self.text, "class {}(MethodError):", named.name);
        self.docstring(docs, &[], "    ");
        self.text.push_str("\n\n");
        Ok(())
    }

    /// An error whose JSON is a value.
    pub(super) fn value(&mut self, named: &Named, kind: &str) -> Result<(), String> {
        let _ = writeln!(self.text, "@dataclass(eq=False)\nclass {}(MethodError):", named.name);
        let docs =
            if lines(&named.docs).is_empty() { "An error of the service." } else { &named.docs };
        self.docstring(docs, &[], "    ");
        let _ = write!(
            self.text,
            "\n    __pipeplug_value__: ClassVar[bool] = True\n    value: {kind}\n\n\n"
        );
        Ok(())
    }

    /// Writes the class of a variant, if it needs one, and returns its type.
    pub(super) fn variant(
        &mut self,
        parent: &Named,
        variant: &Variant,
        base: &str,
    ) -> Result<String, String> {
        let class = |this: &mut Self| this.scope.take(&format!("{}{}", parent.name, variant.name));
        match &variant.kind {
            VariantKind::Constant(Value::String(value)) if !base.is_empty() => {
                let name = class(self);
                self.class(&name, base, &variant.docs, &case(value), &[])?;
                Ok(name)
            }
            VariantKind::Constant(value) => Ok(format!("Literal[{}]", literal(value))),
            VariantKind::Tagged(tag, Type::Named(index)) if self.owned.contains(index) => {
                let named = &self.service.types[*index];
                let Body::Struct(fields) = &named.body else { return Err(unexpected(named)) };
                let docs = if variant.docs.is_empty() { &named.docs } else { &variant.docs };
                self.class(&named.name, base, docs, &case(tag), fields)?;
                Ok(named.name.clone())
            }
            VariantKind::Tagged(tag, inner) => {
                let name = class(self);
                let mut constants = case(tag);
                constants.push("__pipeplug_value__: ClassVar[bool] = True".into());
                let value = Field {
                    name: "value".into(),
                    docs: String::new(),
                    kind: inner.clone(),
                    required: true,
                    default: None,
                };
                self.class(&name, base, &variant.docs, &constants, &[value])?;
                Ok(name)
            }
            VariantKind::Internal(property, value, Type::Named(index)) => {
                let named = &self.service.types[*index];
                let Body::Struct(fields) = &named.body else { return Err(unexpected(named)) };
                self.class_with(
                    &named.name,
                    base,
                    &variant.docs,
                    &[],
                    fields,
                    Some((property, value)),
                )?;
                Ok(named.name.clone())
            }
            VariantKind::Internal(_, _, kind) | VariantKind::Other(kind) => self.kind(kind),
        }
    }

    pub(super) fn class(
        &mut self,
        name: &str,
        base: &str,
        docs: &str,
        constants: &[String],
        fields: &[Field],
    ) -> Result<(), String> {
        self.class_with(name, base, docs, constants, fields, None)
    }

    pub(super) fn class_with(
        &mut self,
        name: &str,
        base: &str,
        docs: &str,
        constants: &[String],
        fields: &[Field],
        tag: Option<(&str, &str)>,
    ) -> Result<(), String> {
        let options = if base.is_empty() { "" } else { "(eq=False)" };
        let base = if base.is_empty() { String::new() } else { format!("({base})") };
        let _ = writeln!(self.text, "@dataclass{options}\nclass {name}{base}:");
        self.docstring(docs, &[], "    ");
        let has_docs = !lines(docs).is_empty();
        let is_empty = constants.is_empty() && fields.is_empty() && tag.is_none();
        match (has_docs, is_empty) {
            (true, false) => self.text.push('\n'),
            (false, true) => self.text.push_str("    pass\n"),
            _ => {}
        }
        for constant in constants {
            let _ = writeln!(self.text, "    {constant}");
        }
        let mut scope = Scope::without(WORDS);
        let mut ordered: Vec<_> = fields.iter().collect();
        ordered.sort_by_key(|field| !field.required);
        for field in ordered {
            self.comment(&field.docs, "    ");
            let own = scope.take(&snake(&field.name));
            let line = self.field(field, &own).map_err(|problem| {
                let named = self.service.types.iter().find(|named| named.name == name);
                let owner = named.map_or(name, |named| &named.described);
                format!("the field {:?} of {owner} has {problem}", field.name)
            })?;
            let _ = writeln!(self.text, "    {line}");
        }
        if let Some((property, value)) = tag {
            let own = scope.take(&snake(property));
            let (property, value) = (quoted_wide(property), quoted_wide(value));
            let _ = writeln!(
                self.text,
                "    {own}: Literal[{value}] = field(\n        default={value}, metadata={{\"json\": {property}, \"tag\": True}}\n    )"
            );
        }
        self.text.push_str("\n\n");
        Ok(())
    }

    pub(super) fn field(&self, field: &Field, own: &str) -> Result<String, String> {
        let kind = self.kind(&field.kind)?;
        let mut notes = Vec::new();
        if own != field.name {
            notes.push(format!("\"json\": {}", quoted_wide(&field.name)));
        }
        let (kind, default) = self.optional(field, kind, &mut notes)?;
        let notes = if notes.is_empty() {
            String::new()
        } else {
            format!("metadata={{{}}}", notes.join(", "))
        };
        Ok(match (default, notes.is_empty()) {
            (None, true) => format!("{own}: {kind}"),
            (None, false) => format!("{own}: {kind} = field({notes})"),
            (Some(value), is_bare) => {
                let is_simple = !value.contains(['(', '[', '{']) || value.starts_with('"');
                let notes = if is_bare { String::new() } else { format!(", {notes}") };
                match (is_simple, is_bare) {
                    (true, true) => format!("{own}: {kind} = {value}"),
                    (true, false) => format!("{own}: {kind} = field(default={value}{notes})"),
                    (false, _) => {
                        let factory = match value.as_str() {
                            "[]" => "list".into(),
                            "{}" => "dict".into(),
                            value => format!("lambda: {value}"),
                        };
                        format!("{own}: {kind} = field(default_factory={factory}{notes})")
                    }
                }
            }
        })
    }
}
