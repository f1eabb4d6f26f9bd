//! Types of schemas.

use serde_json::{Map, Value};

use super::super::names::{Scope, pascal};
use super::{
    Body, Parsed, Parser, Type, Variant, VariantKind, check_choices, constants, docs_of, nullable,
    within,
};

impl Parser<'_> {
    /// The type of a schema. An object or choice is added under the name.
    pub(super) fn kind(
        &mut self,
        schema: &Value,
        name: &str,
        place: &str,
        depth: usize,
    ) -> Parsed<Type> {
        let depth = self.visit(place, depth)?;
        let object = match schema {
            Value::Bool(true) => return Ok(Type::Any),
            Value::Object(object) => object,
            _ => return Err(format!("{place} allows no value")),
        };
        check_choices(object, place)?;
        if let Some(reference) = only_reference(object) {
            let (target, _) = self.target(reference, place)?;
            return Ok(Type::Named(self.known[target]));
        }
        if let Some([only]) = object.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
            && !object.contains_key("properties")
        {
            return self.kind(only, name, place, depth);
        }
        for key in ["anyOf", "oneOf"] {
            // `Option` of something else than a plain type.
            let Some(Value::Array(choices)) = object.get(key) else { continue };
            let is_null = |it: &&Value| it.get("type").is_some_and(|it| it == "null");
            let rest: Vec<_> = choices.iter().filter(|it| !is_null(it)).collect();
            match rest.as_slice() {
                [] => return Ok(Type::Null),
                [one] if choices.len() > 1 => {
                    return Ok(nullable(self.kind(one, name, place, depth)?));
                }
                _ => {}
            }
        }
        if let Some(Value::Array(types)) = object.get("type") {
            let others: Vec<_> = types.iter().filter(|it| *it != "null").collect();
            let [one] = others.as_slice() else {
                return Err(format!("{place} has several types: {}", Value::from(types.clone())));
            };
            let mut of_one = object.clone();
            of_one.insert("type".into(), (*one).clone());
            if let Some(Value::Array(values)) = of_one.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            let kind = self.kind(&Value::Object(of_one), name, place, depth)?;
            return Ok(if others.len() == types.len() { kind } else { nullable(kind) });
        }
        match self.simple(object, name, place, depth)? {
            Some(kind) => Ok(kind),
            None => {
                let index = self.reserve(name);
                let body = self.body(schema, place, index, depth)?;
                self.types[index].body = body;
                self.types[index].docs = docs_of(schema);
                Ok(Type::Named(index))
            }
        }
    }

    /// A type that needs no name.
    pub(super) fn simple(
        &mut self,
        object: &Map<String, Value>,
        name: &str,
        place: &str,
        depth: usize,
    ) -> Parsed<Option<Type>> {
        for key in ["patternProperties", "if", "dependentSchemas", "contains", "$dynamicRef"] {
            let is_of_map = key == "patternProperties" && !object.contains_key("properties");
            if object.contains_key(key) && !is_of_map {
                return Err(format!("{place} has the keyword {key:?}, which is not supported"));
            }
        }
        if let Some(value) = object.get("const") {
            return constants(std::slice::from_ref(value), place).map(Some);
        }
        if let Some(Value::Array(values)) = object.get("enum") {
            let named = values.len() > 1 && values.iter().all(Value::is_string);
            return if named { Ok(None) } else { constants(values, place).map(Some) };
        }
        if ["oneOf", "anyOf", "allOf", "$ref"].iter().any(|key| object.contains_key(*key)) {
            return Ok(None);
        }
        let kind = object.get("type").and_then(Value::as_str);
        let kind = kind.or_else(|| object.contains_key("properties").then_some("object"));
        Ok(Some(match kind {
            None if object.contains_key("not") || object.contains_key("type") => {
                return Err(format!("{place} is described by what it is not"));
            }
            None => Type::Any,
            Some("null") => Type::Null,
            Some("boolean") => Type::Bool,
            Some("integer") => {
                let format = object.get("format").and_then(Value::as_str);
                Type::Integer(format.unwrap_or_default().to_owned())
            }
            Some("number") => Type::Float,
            Some("string") => Type::String,
            Some("array") => {
                if let Some(Value::Array(items)) = object.get("prefixItems") {
                    if object.get("items").is_some_and(|it| *it != Value::Bool(false))
                        && object.get("maxItems").and_then(Value::as_u64)
                            != Some(items.len() as u64)
                    {
                        return Err(format!("{place} is a tuple with more items behind it"));
                    }
                    let items = items.iter().enumerate().map(|(index, item)| {
                        let place = within(&format!("item {index}"), place);
                        self.kind(item, &format!("{name}{index}"), &place, depth)
                    });
                    return Ok(Some(Type::Tuple(items.collect::<Parsed<_>>()?)));
                }
                let place = within("an item", place);
                let any = Value::Bool(true);
                let item = object.get("items").unwrap_or(&any);
                if object.get("maxItems").and_then(Value::as_u64) == Some(0) {
                    return Ok(Some(Type::Tuple(Vec::new())));
                }
                Type::List(Box::new(self.kind(item, &format!("{name}Item"), &place, depth)?))
            }
            Some("object") => {
                let patterns = object.get("patternProperties").and_then(Value::as_object);
                let values: Vec<&Value> = patterns.into_iter().flat_map(Map::values).collect();
                let others = object.get("additionalProperties");
                let value = match (values.as_slice(), others) {
                    // Keys that are numbers.
                    ([one], _) => Some(*one),
                    ([], Some(any @ (Value::Bool(true) | Value::Object(_))))
                        if !object.contains_key("properties") =>
                    {
                        Some(any)
                    }
                    ([], _) => None,
                    _ => return Err(format!("{place} has several patterns of names")),
                };
                let Some(value) = value else { return Ok(None) };
                let place = within("a value", place);
                Type::Map(Box::new(self.kind(value, &format!("{name}Value"), &place, depth)?))
            }
            Some(other) => return Err(format!("{place} has the unknown type {other:?}")),
        }))
    }

    /// The body of the type at an index.
    pub(super) fn body(
        &mut self,
        schema: &Value,
        place: &str,
        index: usize,
        depth: usize,
    ) -> Parsed<Body> {
        let depth = self.visit(place, depth)?;
        let name = self.types[index].name.clone();
        if schema.as_object().is_none_or(|object| only_reference(object).is_some()) {
            return Ok(Body::Alias(self.kind(schema, &name, place, depth)?));
        }
        let object = self.flat(schema, place, depth)?;
        if let Some(Value::Array(values)) = object.get("enum")
            && let Some(texts) = values.iter().map(Value::as_str).collect::<Option<Vec<_>>>()
            && !texts.is_empty()
        {
            return Ok(Body::Enum(texts.iter().map(|it| ((*it).into(), String::new())).collect()));
        }
        let choices = object.get("oneOf").or_else(|| object.get("anyOf"));
        if let Some(Value::Array(choices)) = choices {
            let is_null = |it: &&Value| it.get("type").is_some_and(|it| it == "null");
            let nulls = choices.iter().filter(is_null).count();
            if nulls > 0 && choices.len() - nulls <= 1 {
                let object = Value::Object(object);
                return Ok(Body::Alias(self.kind(&object, &name, place, depth)?));
            }
            let text = |it: &Value| Some((it.get("const")?.as_str()?.to_owned(), docs_of(it)));
            if let Some(texts) = choices.iter().map(text).collect::<Option<Vec<_>>>() {
                return Ok(Body::Enum(texts));
            }
            let mut scope = Scope::default();
            let mut variants = Vec::new();
            for (number, choice) in choices.iter().enumerate() {
                let shared = object.get("properties").and_then(Value::as_object);
                let choice = match shared.filter(|it| !it.is_empty()) {
                    None => choice.clone(),
                    // A flattened choice: each has the other properties, too.
                    Some(_) => {
                        let mut rest = object.clone();
                        rest.retain(|key, _| matches!(key.as_str(), "properties" | "required"));
                        rest.insert("allOf".into(), Value::Array(vec![choice.clone()]));
                        Value::Object(rest)
                    }
                };
                self.variants(&choice, number, &name, place, depth, &mut scope, &mut variants)?;
            }
            return Ok(Body::Union(variants));
        }
        let mut bare = object.clone();
        bare.remove("description");
        if object.get("type").is_some_and(Value::is_array) {
            return Ok(Body::Alias(self.kind(&Value::Object(object), &name, place, depth)?));
        }
        match self.simple(&bare, &name, place, depth)? {
            Some(kind) => Ok(Body::Alias(kind)),
            None => Ok(Body::Struct(self.fields(&object, &name, place, depth)?)),
        }
    }

    /// Adds the variants of one alternative: a list of strings is several.
    #[expect(clippy::too_many_arguments, reason = "they are the state of one loop")]
    pub(super) fn variants(
        &mut self,
        choice: &Value,
        number: usize,
        parent: &str,
        place: &str,
        depth: usize,
        scope: &mut Scope,
        variants: &mut Vec<Variant>,
    ) -> Parsed<()> {
        let docs = docs_of(choice);
        let mut add = |name: &str, kind| {
            let name = scope.take(&pascal(name));
            variants.push(Variant { name, docs: docs.clone(), kind });
        };
        let values = match (choice.get("const"), choice.get("enum")) {
            (Some(value), _) => vec![value.clone()],
            (None, Some(Value::Array(values))) => values.clone(),
            _ => Vec::new(),
        };
        if !values.is_empty() {
            constants(&values, place)?;
            for value in values {
                let name = value.as_str().map_or_else(|| format!("value {value}"), str::to_owned);
                add(&name, VariantKind::Constant(value));
            }
            return Ok(());
        }
        let is_reference = choice.get("$ref").is_some() && choice.get("properties").is_none();
        if !choice.is_object() || is_reference {
            let name = choice.get("$ref").and_then(Value::as_str).unwrap_or("variant");
            let name = name.trim_start_matches("#/$defs/").to_owned();
            let name = if is_reference { name } else { format!("variant {number}") };
            let kind = self.kind(choice, &format!("{parent}{}", pascal(&name)), place, depth)?;
            add(&name, VariantKind::Other(kind));
            return Ok(());
        }
        let mut object = self.flat(choice, place, depth)?;
        let properties = object.get("properties").and_then(Value::as_object).cloned();
        let properties = properties.unwrap_or_default();
        let required =
            object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        let is_closed = object.get("additionalProperties") == Some(&Value::Bool(false));
        let mut entries = properties.iter();
        if let (Some((tag, inner)), None, true) = (entries.next(), entries.next(), is_closed)
            && required.iter().any(|it| it == tag.as_str())
        {
            let place = within(&format!("the variant {tag:?}"), place);
            let kind = self.kind(inner, &format!("{parent}{}", pascal(tag)), &place, depth)?;
            add(tag, VariantKind::Tagged(tag.clone(), kind));
            return Ok(());
        }
        let tag = properties.iter().find_map(|(name, property)| {
            let value = property.get("const")?.as_str()?;
            let is_required = required.iter().any(|it| it == name.as_str());
            is_required.then(|| (name.clone(), value.to_owned()))
        });
        if let Some((property, value)) = tag {
            if let Some(Value::Object(properties)) = object.get_mut("properties") {
                properties.remove(&property);
            }
            if let Some(Value::Array(required)) = object.get_mut("required") {
                required.retain(|it| *it != property.as_str());
            }
            let place = within(&format!("the variant {value:?}"), place);
            let index = self.reserve(&format!("{parent}{}", pascal(&value)));
            let name = self.types[index].name.clone();
            let fields = self.fields(&object, &name, &place, depth)?;
            self.types[index].docs.clone_from(&docs);
            self.types[index].body = Body::Struct(fields);
            add(&value, VariantKind::Internal(property, value.clone(), Type::Named(index)));
            return Ok(());
        }
        let title = object.get("title").and_then(Value::as_str);
        let name = title.map_or_else(|| format!("variant {number}"), str::to_owned);
        let place = within(&format!("alternative {}", number + 1), place);
        let full = format!("{parent}{}", pascal(&name));
        let kind = self.kind(&Value::Object(object), &full, &place, depth)?;
        let name = match &kind {
            Type::String => "string",
            Type::Bool => "bool",
            Type::Integer(_) => "integer",
            Type::Float => "number",
            Type::List(_) => "list",
            Type::Tuple(_) => "tuple",
            Type::Map(_) => "map",
            _ => &name,
        };
        add(name, VariantKind::Other(kind));
        Ok(())
    }
}

/// Target of the reference of a schema that says nothing else of its values.
fn only_reference(object: &Map<String, Value>) -> Option<&Value> {
    let is_plain = |key: &String| {
        matches!(
            key.as_str(),
            "$ref" | "description" | "default" | "title" | "deprecated" | "examples"
        )
    };
    object.get("$ref").filter(|_| object.keys().all(is_plain))
}
