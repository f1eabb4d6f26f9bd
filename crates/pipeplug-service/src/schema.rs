//! JSON Schemas of an interface, as far as schemars writes them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::interface::Interface;

/// A schema, and the interface whose definitions it refers to.
#[derive(Clone, Copy)]
pub(crate) struct Schema<'a> {
    pub(crate) value: &'a Value,
    pub(crate) root: &'a Interface,
}

/// Alternatives within alternatives that are followed. The other side may have described more, which
/// no type has.
const LEVELS: usize = 64;

/// Prefix of a reference to a definition.
const DEFS: &str = "#/$defs/";

impl<'a> Schema<'a> {
    pub(crate) fn with(self, value: &'a Value) -> Self {
        Self { value, root: self.root }
    }

    pub(crate) fn get(self, key: &str) -> Option<&'a Value> {
        self.value.get(key)
    }

    /// Name of the definition that it refers to.
    pub(crate) fn reference(self) -> Option<&'a str> {
        self.get("$ref")?.as_str()?.strip_prefix(DEFS)
    }

    /// Returns true if it has properties beside those of the schema that it refers to: the tag of a variant that
    /// holds a struct.
    pub(crate) fn has_own_properties(self) -> bool {
        self.reference().is_some() && self.get("properties").is_some()
    }

    /// The schema that it refers to, or itself.
    pub(crate) fn resolved(self) -> Self {
        let mut schema = self;
        // A definition may be a reference itself. A chain this long is a circle.
        for _ in 0..16 {
            let target = match (schema.reference(), schema.get("allOf").and_then(Value::as_array)) {
                (Some(name), _) => self.root.definitions.get(name),
                // A reference with docs beside it, as some generators write it.
                (None, Some(all)) if schema.get("properties").is_none() && all.len() == 1 => {
                    all.first()
                }
                _ => None,
            };
            let Some(value) = target else { return schema };
            schema = self.with(value);
        }
        schema
    }

    /// Returns true if an object of the schema may have no other properties.
    pub(crate) fn is_closed(self) -> bool {
        self.get("additionalProperties") == Some(&Value::Bool(false))
    }

    pub(crate) fn properties(self) -> impl Iterator<Item = (&'a String, Self)> {
        let properties = self.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(move |(name, value)| (name, self.with(value)))
    }

    pub(crate) fn property(self, name: &str) -> Option<Self> {
        self.get("properties")?.get(name).map(|value| self.with(value))
    }

    /// Schema of a property by a pattern of its name, as a map with numbers as keys has it. Other patterns than
    /// those are not looked at: any name may be one of them, with any value.
    pub(crate) fn pattern_property(self, name: &str) -> Option<Option<Self>> {
        let patterns = self.get("patternProperties")?.as_object()?;
        let digits =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
        let mut has_others = false;
        for (pattern, schema) in patterns {
            let fits = match pattern.as_str() {
                r"^\d+$" => digits(name),
                r"^-?\d+$" => digits(name.strip_prefix('-').unwrap_or(name)),
                _ => {
                    has_others = true;
                    false
                }
            };
            if fits {
                return Some(Some(self.with(schema)));
            }
        }
        has_others.then_some(None)
    }

    /// Names of the properties that are required.
    pub(crate) fn required(self) -> BTreeSet<&'a str> {
        let required = self.get("required").and_then(Value::as_array);
        required.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Alternatives, each with a key by which those of two versions are matched.
    pub(crate) fn variants(self) -> Vec<(String, Variant<'a>)> {
        let mut variants = Vec::new();
        self.add_variants(&mut variants, &mut BTreeSet::new(), LEVELS);
        variants
    }

    /// Adds the alternatives. `seen` has the definitions that were followed: one may refer to itself.
    /// Those that are nested deeper than `levels` are left out.
    fn add_variants(
        self,
        variants: &mut Vec<(String, Variant<'a>)>,
        seen: &mut BTreeSet<&'a str>,
        levels: usize,
    ) {
        let Some(levels) = levels.checked_sub(1) else { return };
        if self.has_own_properties() {
            return variants.push((self.object_key(), Variant::Schema(self.resolved())));
        }
        if self.reference().is_some_and(|name| !seen.insert(name)) {
            return;
        }
        let schema = self.resolved();
        for key in ["oneOf", "anyOf"] {
            if let Some(alternatives) = schema.get(key).and_then(Value::as_array) {
                for alternative in alternatives {
                    schema.with(alternative).add_variants(variants, seen, levels);
                }
                return;
            }
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            variants.extend(values.iter().map(|value| (value.to_string(), Variant::Constant)));
            return;
        }
        if let Some(value) = schema.get("const") {
            variants.push((value.to_string(), Variant::Constant));
            return;
        }
        let mut add = |name: &str| {
            let key = if name == "object" { schema.object_key() } else { name.into() };
            variants.push((key, Variant::Schema(schema)));
        };
        match schema.get("type") {
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).for_each(add),
            Some(Value::String(name)) => add(name),
            _ => add("any value"),
        }
    }

    /// Key of an object: the tag of a variant of an enumeration, or just `object`.
    pub(crate) fn object_key(self) -> String {
        let required = self.required();
        let tag = self.properties().find_map(|(name, property)| {
            let constant = property.get("const").filter(|_| required.contains(name.as_str()))?;
            Some(format!("{name}={constant}"))
        });
        tag.or_else(|| {
            // Serde's external tag: one property, and no other is allowed.
            let mut properties = self.properties();
            let (name, _) = properties.next()?;
            (properties.next().is_none() && self.is_closed()).then(|| format!("{{\"{name}\"}}"))
        })
        .unwrap_or_else(|| "object".into())
    }

    /// The least and the largest value of an integer, and its name for people.
    pub(crate) fn range(self) -> (i128, i128, String) {
        let format = self.get("format").and_then(Value::as_str).unwrap_or("integer");
        let (least, largest) = match format {
            "int8" => (i8::MIN.into(), i8::MAX.into()),
            "int16" => (i16::MIN.into(), i16::MAX.into()),
            "int32" => (i32::MIN.into(), i32::MAX.into()),
            "int64" | "int" => (i64::MIN.into(), i64::MAX.into()),
            "uint8" => (0, u8::MAX.into()),
            "uint16" => (0, u16::MAX.into()),
            "uint32" => (0, u32::MAX.into()),
            "uint64" | "uint" => (0, u64::MAX.into()),
            _ => (i128::MIN, i128::MAX),
        };
        let bound = |key| {
            let value = self.get(key)?;
            value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from))
        };
        let least = bound("minimum").map_or(least, |bound| bound.max(least));
        let largest = bound("maximum").map_or(largest, |bound| bound.min(largest));
        (least, largest, format.into())
    }
}

/// An alternative of a schema.
#[derive(Clone, Copy)]
pub(crate) enum Variant<'a> {
    /// One value, which is the key.
    Constant,
    Schema(Schema<'a>),
}
