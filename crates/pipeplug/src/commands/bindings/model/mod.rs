//! Services as a generator needs them: every object and every choice has a name.

mod cycles;
mod schema;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use pipeplug_service::Interface;
use serde_json::{Map, Value};

use crate::output::text;

use super::names::{Scope, pascal};

pub(super) use cycles::endless;

/// A service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) oldest: u32,
    pub(super) docs: String,
    pub(super) methods: Vec<Method>,
    pub(super) types: Vec<Named>,
    /// Its description, as it is sent.
    pub(super) description: Value,
}

/// A method.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) docs: String,
    pub(super) one_way: bool,
    pub(super) idempotent: bool,
    pub(super) arguments: Vec<Field>,
    pub(super) items_in: Option<Type>,
    pub(super) items_out: Option<Type>,
    pub(super) result: Option<Type>,
    pub(super) error: Option<Type>,
}

/// A property of an object, or an argument.
#[derive(Debug, Clone)]
pub(super) struct Field {
    /// Its name in JSON.
    pub(super) name: String,
    pub(super) docs: String,
    pub(super) kind: Type,
    pub(super) required: bool,
    pub(super) default: Option<Value>,
}

/// A type with a name.
#[derive(Debug)]
pub(super) struct Named {
    /// Unique among the types, also after a change of case.
    pub(super) name: String,
    /// Its name in the description, for messages, or `name` without one.
    pub(super) described: String,
    pub(super) docs: String,
    pub(super) body: Body,
    /// A method fails with it.
    pub(super) is_error: bool,
    /// Without a name in the description: stands in one place only.
    is_inline: bool,
}

impl Named {
    /// An object that has no name in the description.
    pub(super) fn is_inline(&self) -> bool {
        self.is_inline && matches!(self.body, Body::Struct(_))
    }
}

#[derive(Debug)]
pub(super) enum Body {
    Struct(Vec<Field>),
    /// Strings.
    Enum(Vec<(String, String)>),
    Union(Vec<Variant>),
    Alias(Type),
}

/// An alternative of a choice.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: String,
    pub(super) docs: String,
    pub(super) kind: VariantKind,
}

#[derive(Debug)]
pub(super) enum VariantKind {
    /// One value.
    Constant(Value),
    /// `{"tag": content}`.
    Tagged(String, Type),
    /// An object whose property says which one it is, and the type without this property.
    Internal(String, String, Type),
    Other(Type),
}

/// A type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Type {
    Any,
    Null,
    Bool,
    /// With its format, such as `uint8`, or an empty one.
    Integer(String),
    Float,
    String,
    /// One of some values.
    Constants(Vec<Value>),
    List(Box<Type>),
    Tuple(Vec<Type>),
    Map(Box<Type>),
    Nullable(Box<Type>),
    /// Index of a type.
    Named(usize),
}

/// Depth of a schema.
const DEPTH: usize = 64;

/// Parts of all schemas of a service. A part counts each time that it is looked at: `allOf` takes a
/// copy of what it refers to, so that a small description can stand for a huge one.
const WORK: usize = 4_000_000;

/// Parts of a place that an error names. Those in the middle are left out.
const PLACE_PARTS: usize = 6;

type Parsed<T> = Result<T, String>;

struct Parser<'a> {
    interface: &'a Interface,
    /// Rest of [`WORK`].
    work: Cell<usize>,
    types: Vec<Named>,
    names: Scope,
    /// Types of the definitions.
    known: BTreeMap<String, usize>,
}

impl Service {
    /// Takes a description apart. `taken` are names that types cannot have.
    ///
    /// # Errors
    /// It has something that no generator can express, which the text names.
    pub(super) fn parse(interface: &Interface, taken: &[&str]) -> Parsed<Self> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))
        };
        if !is_name(&interface.name) {
            return Err(format!(
                "{:?} is no name of a service: lowercase letters, digits and _",
                interface.name
            ));
        }
        if interface.oldest > interface.version {
            return Err(format!(
                "its oldest version, {}, is newer than its version, {}",
                interface.oldest, interface.version
            ));
        }
        let own = pascal(&interface.name);
        let mut names = Scope::without(taken);
        for suffix in ["", "Async", "Client", "Server", "Service"] {
            names.take(&format!("{own}{suffix}"));
            names.take(&format!("New{own}{suffix}"));
        }
        names.take(&format!("Async{own}"));
        let mut parser = Parser {
            interface,
            work: Cell::new(WORK),
            types: Vec::new(),
            names,
            known: BTreeMap::new(),
        };
        // The names of definitions come first, so that they keep theirs.
        for name in interface.definitions.keys() {
            let index = parser.reserve(name);
            parser.types[index].is_inline = false;
            parser.types[index].described.clone_from(name);
            parser.known.insert(name.clone(), index);
        }
        for (name, schema) in &interface.definitions {
            let index = parser.known[name];
            let place = format!("the type {name}");
            let body = parser.body(schema, &place, index, DEPTH)?;
            parser.types[index].docs = docs_of(schema);
            parser.types[index].body = body;
        }
        let mut seen = BTreeSet::new();
        let mut methods = Vec::new();
        for method in &interface.methods {
            if !seen.insert(&method.name) {
                return Err(format!("there are two methods {:?}", method.name));
            }
            methods.push(parser.method(method)?);
        }
        let types = parser.types;
        cycles::check(&types)?;
        let description = serde_json::to_value(interface).map_err(|error| error.to_string())?;
        Ok(Self {
            name: interface.name.clone(),
            version: interface.version,
            oldest: interface.oldest,
            docs: interface.docs.clone(),
            methods,
            types,
            description,
        })
    }

    /// Follows names that only stand for another type.
    pub(super) fn resolved<'a>(&'a self, kind: &'a Type) -> &'a Type {
        let mut kind = kind;
        while let Type::Named(index) = kind {
            match &self.types[*index].body {
                Body::Alias(next) => kind = next,
                _ => break,
            }
        }
        kind
    }
}

impl Parser<'_> {
    /// Adds a type, whose body follows.
    fn reserve(&mut self, name: &str) -> usize {
        let name = self.names.take_numbered(&pascal(name));
        let body = Body::Alias(Type::Any);
        self.types.push(Named {
            described: name.clone(),
            name,
            docs: String::new(),
            body,
            is_error: false,
            is_inline: true,
        });
        self.types.len() - 1
    }

    fn method(&mut self, method: &pipeplug_service::Method) -> Parsed<Method> {
        let place = format!("the method {:?}", method.name);
        if method.command != format!("{}.{}", self.interface.name, method.name) {
            return Err(format!("{place} is called by another command: {:?}", method.command));
        }
        let base = pascal(&method.name);
        let fields = match &method.arguments {
            None => Vec::new(),
            Some(schema) => {
                let object = self.flat(schema, &place, DEPTH)?;
                if object.contains_key("oneOf") || object.contains_key("anyOf") {
                    return Err(format!("the arguments of {place} are a choice of objects"));
                }
                self.fields(&object, &base, &place, DEPTH)?
            }
        };
        let mut part = |schema: &Option<Value>, what: &str| {
            let place = within(&format!("the {what}"), &place);
            let name = format!("{base}{}", pascal(what));
            schema.as_ref().map(|schema| self.kind(schema, &name, &place, DEPTH)).transpose()
        };
        let items_in = part(&method.items_in, "item")?;
        let items_out = part(&method.items_out, "result item")?;
        let result = part(&method.result, "result")?;
        let error = part(&method.error, "error")?;
        if method.one_way && (result.is_some() || items_out.is_some()) {
            return Err(format!("{place} is one-way, and has a result"));
        }
        if items_out.is_some() && result.as_ref().is_some_and(|result| *result != Type::Null) {
            return Err(format!("{place} has a result and items of a result"));
        }
        let error = error.map(|error| self.error(error, &format!("{base}Error")));
        Ok(Method {
            name: method.name.clone(),
            docs: method.docs.clone(),
            one_way: method.one_way,
            idempotent: method.idempotent,
            arguments: fields,
            items_in,
            items_out,
            // A result that is always null is none.
            result: result.filter(|result| *result != Type::Null),
            error,
        })
    }

    /// The error of a method has a name.
    fn error(&mut self, error: Type, name: &str) -> Type {
        let index = match error {
            Type::Named(index) => index,
            other => {
                let index = self.reserve(name);
                self.types[index].body = Body::Alias(other);
                index
            }
        };
        self.types[index].is_error = true;
        Type::Named(index)
    }

    /// Counts a schema as looked at. Returns the depth that its parts may have.
    fn visit(&self, place: &str, depth: usize) -> Parsed<usize> {
        self.count(1, place)?;
        depth.checked_sub(1).ok_or_else(|| format!("{place} is nested too deep"))
    }

    fn count(&self, parts: usize, place: &str) -> Parsed<()> {
        let left = self.work.get().checked_sub(parts).ok_or_else(|| {
            format!(
                "{place} is too large: the schemas have more than {WORK} parts once those of \
                 \"allOf\" are joined; let a property refer to them in place of that"
            )
        })?;
        self.work.set(left);
        Ok(())
    }

    /// The object of a schema, with what it refers to if it adds properties to that.
    fn flat(&self, schema: &Value, place: &str, depth: usize) -> Parsed<Map<String, Value>> {
        self.flat_within(schema, place, depth, &mut Vec::new())
    }

    /// [`flat`](Self::flat) of a schema that is part of other types.
    fn flat_within<'b>(
        &'b self,
        schema: &'b Value,
        place: &str,
        depth: usize,
        within: &mut Vec<&'b str>,
    ) -> Parsed<Map<String, Value>> {
        let depth = self.visit(place, depth)?;
        let object = schema.as_object().ok_or_else(|| format!("{place} is no object"))?;
        self.count(parts(schema), place)?;
        check_choices(object, place)?;
        let mut merged = object.clone();
        merged.remove("$ref");
        merged.remove("allOf");
        let mut others = Vec::new();
        if let Some(reference) = object.get("$ref") {
            let (name, target) = self.target(reference, place)?;
            if let Some(first) = within.iter().position(|it| *it == name) {
                return Err(cycles::error(within[first..].iter().copied()));
            }
            within.push(name);
            others.push(self.flat_within(target, place, depth, within)?);
            within.pop();
        }
        for target in object.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            others.push(self.flat_within(target, place, depth, within)?);
        }
        for (key, value) in others.into_iter().flatten() {
            self.count(parts(&value), place)?;
            match (merged.get_mut(&key), value) {
                (Some(Value::Object(own)), Value::Object(other)) if key == "properties" => {
                    own.extend(other);
                }
                (Some(Value::Array(own)), Value::Array(other)) if key == "required" => {
                    own.extend(other);
                }
                (Some(_), _) if key == "oneOf" || key == "anyOf" => {
                    return Err(format!("{place} joins two choices"));
                }
                (Some(_), _) => {}
                (None, value) => {
                    merged.insert(key, value);
                }
            }
        }
        Ok(merged)
    }

    fn target<'b>(&'b self, reference: &'b Value, place: &str) -> Parsed<(&'b str, &'b Value)> {
        let name = reference.as_str().and_then(|it| it.strip_prefix("#/$defs/"));
        let found = name.and_then(|name| Some((name, self.interface.definitions.get(name)?)));
        found.ok_or_else(|| format!("{place} refers to {reference}, which is not there"))
    }

    fn fields(
        &mut self,
        object: &Map<String, Value>,
        parent: &str,
        place: &str,
        depth: usize,
    ) -> Parsed<Vec<Field>> {
        let others = object.get("additionalProperties");
        let has_properties = object.get("properties").is_some_and(|it| it.is_object());
        if others.is_some_and(|it| it.is_object()) && has_properties {
            return Err(format!("{place} has named properties, and others with any name"));
        }
        let required = object.get("required").and_then(Value::as_array);
        let mut required_at = BTreeMap::new();
        for (at, name) in required.into_iter().flatten().filter_map(Value::as_str).enumerate() {
            required_at.entry(name).or_insert(at);
        }
        let properties = object.get("properties").and_then(Value::as_object);
        // Those that are required are first, in their order.
        let order = |name: &String| required_at.get(name.as_str()).copied().unwrap_or(usize::MAX);
        let mut properties: Vec<_> = properties.into_iter().flatten().collect();
        properties.sort_by_key(|(name, _)| order(name));
        let mut fields = Vec::new();
        for (name, schema) in properties {
            let place = within(&format!("{name:?}"), place);
            let kind = self.kind(schema, &format!("{parent}{}", pascal(name)), &place, depth)?;
            fields.push(Field {
                name: name.clone(),
                docs: docs_of(schema),
                kind,
                required: required_at.contains_key(name.as_str()),
                default: schema.get("default").cloned(),
            });
        }
        Ok(fields)
    }
}

/// Checks that a choice has something to choose.
fn check_choices(object: &Map<String, Value>, place: &str) -> Parsed<()> {
    for key in ["anyOf", "oneOf"] {
        if let Some(choices) = object.get(key)
            && choices.as_array().is_none_or(Vec::is_empty)
        {
            return Err(format!(
                "{place} has {key:?}: {}, which allows no value: it needs a list of schemas",
                text::cut(&choices.to_string())
            ));
        }
    }
    Ok(())
}

/// Parts of a schema. Its depth is that of the JSON of a description, which has a limit.
fn parts(schema: &Value) -> usize {
    1 + match schema {
        Value::Object(entries) => entries.values().map(parts).sum(),
        Value::Array(items) => items.iter().map(parts).sum(),
        _ => 0,
    }
}

/// A place inside of another.
fn within(part: &str, place: &str) -> String {
    let mut parts: Vec<_> = std::iter::once(part).chain(place.split(" of ")).collect();
    if parts.len() > PLACE_PARTS {
        let end = parts.len() - PLACE_PARTS / 2;
        parts.splice(PLACE_PARTS / 2..end, ["…"]);
    }
    parts.join(" of ")
}

fn nullable(kind: Type) -> Type {
    match kind {
        Type::Any | Type::Null | Type::Nullable(_) => kind,
        kind => Type::Nullable(Box::new(kind)),
    }
}

fn constants(values: &[Value], place: &str) -> Parsed<Type> {
    let is_known = |value: &Value| value.is_string() || value.is_boolean() || value.is_i64();
    if values.is_empty() || !values.iter().all(is_known) {
        let values = Value::from(values.to_vec());
        return Err(format!(
            "{place} is one of {values}: only text, whole numbers, true and false are supported"
        ));
    }
    Ok(Type::Constants(values.to_vec()))
}

/// Docs of a schema.
pub(super) fn docs_of(schema: &Value) -> String {
    schema.get("description").and_then(Value::as_str).unwrap_or_default().to_owned()
}
