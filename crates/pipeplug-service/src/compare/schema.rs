//! Comparison of two JSON Schemas, as far as schemars writes them.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::interface::Interface;

/// A schema, and the interface whose definitions it refers to.
#[derive(Clone, Copy)]
pub(super) struct Schema<'a> {
    pub(super) value: &'a Value,
    pub(super) root: &'a Interface,
}

/// A difference between two schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Path of the property: names joined by dots. Empty for the whole value.
    pub(super) path: String,
    pub(super) what: String,
    /// True if each value of the old schema is one of the new schema too.
    pub(super) old_fits_new: bool,
    /// True if each value of the new schema is one of the old schema too.
    pub(super) new_fits_old: bool,
}

/// Differences of two schemas.
pub(super) fn differences(old: Schema<'_>, new: Schema<'_>) -> Vec<Difference> {
    let mut walk = Walk { found: Vec::new(), open: BTreeSet::new() };
    walk.schemas("", old, new);
    walk.found
}

/// Prefix of a reference to a definition.
const DEFS: &str = "#/$defs/";

impl<'a> Schema<'a> {
    fn with(self, value: &'a Value) -> Self {
        Self { value, root: self.root }
    }

    fn get(self, key: &str) -> Option<&'a Value> {
        self.value.get(key)
    }

    /// Name of the definition that it refers to.
    fn reference(self) -> Option<&'a str> {
        self.get("$ref")?.as_str()?.strip_prefix(DEFS)
    }

    /// The schema that it refers to, or itself.
    fn resolved(self) -> Self {
        let mut schema = self;
        // A definition may be a reference itself. A chain this long is a circle.
        for _ in 0..16 {
            let Some(name) = schema.reference() else { return schema };
            let Some(value) = self.root.definitions.get(name) else { return schema };
            schema = self.with(value);
        }
        schema
    }

    fn properties(self) -> impl Iterator<Item = (&'a String, Self)> {
        let properties = self.get("properties").and_then(Value::as_object);
        properties.into_iter().flatten().map(move |(name, value)| (name, self.with(value)))
    }

    fn property(self, name: &str) -> Option<Self> {
        self.get("properties")?.get(name).map(|value| self.with(value))
    }

    fn requires(self, name: &str) -> bool {
        let required = self.get("required").and_then(Value::as_array);
        required.is_some_and(|required| required.iter().any(|value| value == name))
    }

    /// Alternatives, each with a key by which those of two versions are matched.
    fn variants(self) -> Vec<(String, Variant<'a>)> {
        let schema = self.resolved();
        for key in ["oneOf", "anyOf"] {
            if let Some(variants) = schema.get(key).and_then(Value::as_array) {
                return variants
                    .iter()
                    .flat_map(|variant| schema.with(variant).variants())
                    .collect();
            }
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values.iter().map(|value| (value.to_string(), Variant::Constant)).collect();
        }
        if let Some(value) = schema.get("const") {
            return vec![(value.to_string(), Variant::Constant)];
        }
        match schema.get("type") {
            Some(Value::Array(types)) => types
                .iter()
                .filter_map(Value::as_str)
                .map(|name| (name.to_owned(), Variant::Schema(schema)))
                .collect(),
            Some(Value::String(name)) if name == "object" => {
                vec![(schema.object_key(), Variant::Schema(schema))]
            }
            Some(Value::String(name)) => vec![(name.clone(), Variant::Schema(schema))],
            _ => vec![("any value".into(), Variant::Schema(schema))],
        }
    }

    /// Key of an object: the tag of a variant of an enumeration, or just `object`.
    fn object_key(self) -> String {
        let tag = self.properties().find_map(|(name, property)| {
            let constant = property.get("const").filter(|_| self.requires(name))?;
            Some(format!("{name}={constant}"))
        });
        tag.or_else(|| {
            // Serde's external tag: one property, and no other is allowed.
            let mut properties = self.properties();
            let (name, _) = properties.next()?;
            let is_closed = self.get("additionalProperties") == Some(&Value::Bool(false));
            (properties.next().is_none() && is_closed).then(|| format!("\"{name}\""))
        })
        .unwrap_or_else(|| "object".into())
    }

    /// The least and the largest value of an integer, and its name for people.
    fn range(self) -> (i128, i128, String) {
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
enum Variant<'a> {
    /// One value, which is the key.
    Constant,
    Schema(Schema<'a>),
}

struct Walk {
    found: Vec<Difference>,
    /// Pairs of definitions that are being compared, which may refer to themselves.
    open: BTreeSet<(String, String)>,
}

impl Walk {
    fn found(&mut self, path: &str, what: String, old_fits_new: bool, new_fits_old: bool) {
        self.found.push(Difference { path: path.into(), what, old_fits_new, new_fits_old });
    }

    fn schemas(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        let pair = match (old.reference(), new.reference()) {
            (Some(old), Some(new)) => {
                let pair = (old.to_owned(), new.to_owned());
                if !self.open.insert(pair.clone()) {
                    return;
                }
                Some(pair)
            }
            _ => None,
        };
        self.alternatives(path, &old.variants(), &new.variants());
        if let Some(pair) = pair {
            self.open.remove(&pair);
        }
    }

    fn alternatives(
        &mut self,
        path: &str,
        old: &[(String, Variant<'_>)],
        new: &[(String, Variant<'_>)],
    ) {
        if let ([(old_key, Variant::Schema(old))], [(new_key, Variant::Schema(new))]) = (old, new)
            && old_key != new_key
        {
            let old_fits_new = fits(old_key, new_key);
            let new_fits_old = fits(new_key, old_key);
            if is_object(*old) && is_object(*new) {
                return self.objects(path, *old, *new);
            }
            let what = format!("is {new_key} instead of {old_key}");
            return self.found(path, what, old_fits_new, new_fits_old);
        }
        for (key, variant) in old {
            match (variant, new.iter().find(|(other, _)| other == key)) {
                (Variant::Schema(old), Some((_, Variant::Schema(new)))) => {
                    self.values(path, key, *old, *new);
                }
                (_, Some(_)) => {}
                (_, None) => {
                    let is_covered = new.iter().any(|(other, _)| fits(key, other));
                    self.found(path, format!("cannot be {key} any more"), is_covered, true);
                }
            }
        }
        for (key, _) in new.iter().filter(|(key, _)| old.iter().all(|(other, _)| other != key)) {
            let is_covered = old.iter().any(|(other, _)| fits(key, other));
            self.found(path, format!("can be {key} now"), true, is_covered);
        }
    }

    /// Compares two schemas of the same kind of value.
    fn values(&mut self, path: &str, key: &str, old: Schema<'_>, new: Schema<'_>) {
        match key {
            "integer" => {
                let (old_least, old_largest, old_name) = old.range();
                let (new_least, new_largest, new_name) = new.range();
                let old_fits_new = new_least <= old_least && old_largest <= new_largest;
                let new_fits_old = old_least <= new_least && new_largest <= old_largest;
                if !(old_fits_new && new_fits_old) {
                    let what = if old_name == new_name {
                        format!(
                            "is {new_least} to {new_largest} instead of {old_least} to {old_largest}"
                        )
                    } else {
                        format!("is {new_name} instead of {old_name}")
                    };
                    self.found(path, what, old_fits_new, new_fits_old);
                }
            }
            "array" => self.arrays(path, old, new),
            "string" => {
                for keyword in ["format", "pattern"] {
                    let text = |schema: Schema<'_>| {
                        schema.get(keyword).and_then(Value::as_str).map(str::to_owned)
                    };
                    let (old, new) = (text(old), text(new));
                    if old != new {
                        let name =
                            |text: &Option<String>| text.clone().unwrap_or_else(|| "none".into());
                        let what =
                            format!("has the {keyword} {} instead of {}", name(&new), name(&old));
                        // A text without a format may be any.
                        self.found(path, what, new.is_none(), old.is_none());
                    }
                }
            }
            _ if is_object(old) && is_object(new) => self.objects(path, old, new),
            _ => {}
        }
    }

    fn arrays(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        let tuple = |schema: Schema<'_>| {
            let items = schema.value.get("prefixItems").and_then(Value::as_array);
            items.map_or(0, Vec::len)
        };
        if tuple(old) != tuple(new) {
            let what = format!("has {} items instead of {}", tuple(new), tuple(old));
            return self.found(path, what, false, false);
        }
        if let (Some(Value::Array(olds)), Some(Value::Array(news))) =
            (old.get("prefixItems"), new.get("prefixItems"))
        {
            for (index, (item, other)) in olds.iter().zip(news).enumerate() {
                self.schemas(&format!("{path}[{index}]"), old.with(item), new.with(other));
            }
        }
        let any = Value::Bool(true);
        let item = |schema: Schema<'_>| schema.value.get("items").cloned();
        if let (None, None) = (item(old), item(new)) {
            return;
        }
        let old = old.with(old.get("items").unwrap_or(&any));
        let new = new.with(new.get("items").unwrap_or(&any));
        self.schemas(&format!("{path}[]"), old, new);
    }

    fn objects(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        let inner = |name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        for (name, property) in old.properties() {
            let path = inner(name);
            let was_required = old.requires(name);
            let Some(newer) = new.property(name) else {
                self.found(&path, "is gone".into(), true, !was_required);
                continue;
            };
            match (was_required, new.requires(name)) {
                (false, true) => self.found(&path, "is required now".into(), false, true),
                (true, false) => self.found(&path, "may be missing now".into(), true, false),
                _ => {}
            }
            self.schemas(&path, property, newer);
        }
        for (name, _) in new.properties().filter(|(name, _)| old.property(name).is_none()) {
            let is_required = new.requires(name);
            let what =
                if is_required { "is new, and required" } else { "is new, and may be missing" };
            self.found(&inner(name), what.into(), !is_required, true);
        }
        // Of maps.
        let rest = |schema: &Map<String, Value>| {
            schema.get("additionalProperties").filter(|rest| rest.is_object()).cloned()
        };
        let (old_rest, new_rest) =
            (old.value.as_object().and_then(rest), new.value.as_object().and_then(rest));
        if let (Some(older), Some(newer)) = (&old_rest, &new_rest) {
            let (older, newer) =
                (Schema { value: older, root: old.root }, Schema { value: newer, root: new.root });
            self.schemas(&inner("*"), older, newer);
        }
    }
}

fn is_object(schema: Schema<'_>) -> bool {
    schema.get("type").is_some_and(|name| name == "object")
}

/// Returns true if each value of a kind is one of another kind too.
fn fits(kind: &str, other: &str) -> bool {
    other == "any value"
        || (kind == "integer" && other == "number")
        // A constant text is a text.
        || (kind.starts_with('"') && other == "string")
}
