//! Comparison of two JSON Schemas, as far as schemars writes them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::schema::{Schema, Variant};

/// A difference between two schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Difference {
    /// Path of the property: names joined by dots. Empty for the whole value.
    pub(super) path: String,
    pub(super) what: String,
    /// True for an alternative that has come or gone.
    pub(super) is_alternative: bool,
    /// True if each value of the old schema is one of the new schema too.
    pub(super) old_fits_new: bool,
    /// True if each value of the new schema is one of the old schema too.
    pub(super) new_fits_old: bool,
}

/// Schema of items that are not described.
static ANY: Value = Value::Bool(true);

/// Pairs of schemas that are compared, at most. Schemas that have more of them are not meant to be
/// compared.
const STEPS: u32 = 100_000;

/// Levels of schemas within schemas that are compared, at most: each takes a part of the stack, and
/// the other side may have described any number of them.
const LEVELS: u32 = 128;

/// Differences of two schemas.
pub(super) fn differences(old: Schema<'_>, new: Schema<'_>) -> Vec<Difference> {
    let mut walk =
        Walk { found: Vec::new(), seen: BTreeSet::new(), steps: STEPS, level: 0, is_cut: false };
    walk.schemas("", old, new);
    if walk.steps == 0 || walk.is_cut {
        walk.found("", "is too large to compare".into(), false, false);
    }
    walk.found
}

struct Walk {
    found: Vec<Difference>,
    /// Pairs of schemas that were compared, by their addresses: one may refer to itself.
    seen: BTreeSet<(usize, usize)>,
    /// Comparisons that are left.
    steps: u32,
    level: u32,
    /// True if there were more levels than are compared.
    is_cut: bool,
}

impl Walk {
    fn found(&mut self, path: &str, what: String, old_fits_new: bool, new_fits_old: bool) {
        let path = path.into();
        let is_alternative = false;
        self.found.push(Difference { path, what, is_alternative, old_fits_new, new_fits_old });
    }

    /// Notes an alternative that has come or gone.
    fn alternative(&mut self, path: &str, what: String, old_fits_new: bool, new_fits_old: bool) {
        self.found(path, what, old_fits_new, new_fits_old);
        if let Some(found) = self.found.last_mut() {
            found.is_alternative = true;
        }
    }

    fn schemas(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        self.steps = self.steps.saturating_sub(1);
        if self.steps == 0 {
            return;
        }
        if self.level == LEVELS {
            self.is_cut = true;
            return;
        }
        self.level += 1;
        self.within(path, old, new);
        self.level -= 1;
    }

    fn within(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        self.alternatives(path, old.variants(), new.variants());
        // Properties beside the alternatives: those of a struct with a flattened enumeration.
        let (old, new) = (old.resolved(), new.resolved());
        let has_both = |schema: Schema<'_>| {
            let has_alternatives = ["oneOf", "anyOf"].iter().any(|key| schema.get(key).is_some());
            has_alternatives && schema.get("properties").is_some()
        };
        if has_both(old) && has_both(new) {
            self.objects(path, old, new);
        }
    }

    fn alternatives(
        &mut self,
        path: &str,
        old: Vec<(String, Variant<'_>)>,
        mut new: Vec<(String, Variant<'_>)>,
    ) {
        if let ([(old_key, Variant::Schema(old))], [(new_key, Variant::Schema(new))]) =
            (old.as_slice(), new.as_slice())
            && old_key != new_key
        {
            let old_fits_new = fits(old_key, new_key);
            let new_fits_old = fits(new_key, old_key);
            if is_object(*old) && is_object(*new) {
                if self.seen.insert((address(*old), address(*new))) {
                    self.objects(path, *old, *new);
                }
                return;
            }
            let what = format!("is {new_key} instead of {old_key}");
            return self.found(path, what, old_fits_new, new_fits_old);
        }
        let (all_old, all_new): (Vec<_>, Vec<_>) = (keys(&old), keys(&new));
        for (key, variant) in old {
            let Some(index) = self.counterpart(&key, variant, &new) else {
                let is_covered = all_new.iter().any(|other| fits(&key, other));
                self.alternative(path, format!("cannot be {key} any more"), is_covered, true);
                continue;
            };
            if let (Variant::Schema(old), (_, Variant::Schema(new))) = (variant, new.remove(index))
            {
                self.values(path, &key, old, new);
            }
        }
        for (key, _) in new {
            let is_covered = all_old.iter().any(|other| fits(&key, other));
            self.alternative(path, format!("can be {key} now"), true, is_covered);
        }
    }

    /// Finds the alternative that is the same in the other version: of several with one key, as an
    /// untagged enumeration has, one without differences, or else the first.
    fn counterpart(
        &mut self,
        key: &str,
        variant: Variant<'_>,
        others: &[(String, Variant<'_>)],
    ) -> Option<usize> {
        let mut same = (0..others.len()).filter(|index| others[*index].0 == key);
        let first = same.next()?;
        let mut rest = same.peekable();
        if rest.peek().is_none() {
            return Some(first);
        }
        let Variant::Schema(old) = variant else { return Some(first) };
        let equal = std::iter::once(first).chain(rest).find(|index| {
            let Variant::Schema(new) = others[*index].1 else { return false };
            let Self { steps, level, is_cut, .. } = *self;
            let seen = self.seen.clone();
            let mut walk = Walk { found: Vec::new(), seen, steps, level, is_cut };
            walk.values("", key, old, new);
            (self.steps, self.is_cut) = (walk.steps, walk.is_cut);
            walk.found.is_empty()
        });
        equal.or(Some(first))
    }

    /// Compares two schemas of the same kind of value.
    fn values(&mut self, path: &str, key: &str, old: Schema<'_>, new: Schema<'_>) {
        // Whatever refers to itself comes by here, in an object or list.
        let has_more = matches!(key, "array") || is_object(old);
        if has_more && !self.seen.insert((address(old), address(new))) {
            return;
        }
        match key {
            "integer" => {
                let (old_least, old_largest, old_name) = old.range();
                let (new_least, new_largest, new_name) = new.range();
                let old_fits_new = new_least <= old_least && old_largest <= new_largest;
                let new_fits_old = old_least <= new_least && new_largest <= old_largest;
                if !(old_fits_new && new_fits_old) {
                    let what = if old_name == new_name {
                        let (old, new) =
                            (range((old_least, old_largest)), range((new_least, new_largest)));
                        format!("is {new} instead of {old}")
                    } else {
                        format!("is {new_name} instead of {old_name}")
                    };
                    self.found(path, what, old_fits_new, new_fits_old);
                }
            }
            "array" => self.arrays(path, old, new),
            "string" => {
                self.bounds(path, "characters", ("minLength", "maxLength"), old, new);
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
            schema.value.get("prefixItems").and_then(Value::as_array).map(Vec::len)
        };
        if tuple(old) != tuple(new) {
            let name = |schema| match tuple(schema) {
                Some(len) => format!("a tuple of {len}"),
                None => "a list".into(),
            };
            let what = format!("is {} instead of {}", name(new), name(old));
            return self.found(path, what, false, false);
        }
        self.bounds(path, "items", ("minItems", "maxItems"), old, new);
        if let (Some(Value::Array(olds)), Some(Value::Array(news))) =
            (old.get("prefixItems"), new.get("prefixItems"))
        {
            for (index, (item, other)) in olds.iter().zip(news).enumerate() {
                self.schemas(&format!("{path}[{index}]"), old.with(item), new.with(other));
            }
        }
        let item = |schema: Schema<'_>| schema.value.get("items").cloned();
        if let (None, None) = (item(old), item(new)) {
            return;
        }
        let old = old.with(old.get("items").unwrap_or(&ANY));
        let new = new.with(new.get("items").unwrap_or(&ANY));
        self.schemas(&format!("{path}[]"), old, new);
    }

    /// Compares the least and largest number of what a value has.
    fn bounds(
        &mut self,
        path: &str,
        what: &str,
        (least, most): (&str, &str),
        old: Schema<'_>,
        new: Schema<'_>,
    ) {
        let range = |schema: Schema<'_>| {
            let bound = |key| schema.value.get(key).and_then(Value::as_u64);
            (bound(least).unwrap_or(0), bound(most).unwrap_or(u64::MAX))
        };
        let (old, new) = (range(old), range(new));
        if old != new {
            let name = |range| match range {
                (0, u64::MAX) => format!("any number of {what}"),
                (least, u64::MAX) => format!("at least {least} {what}"),
                (least, most) if least == most => format!("{least} {what}"),
                (least, most) => format!("{least} to {most} {what}"),
            };
            let text = format!("has {} instead of {}", name(new), name(old));
            let fits =
                |inner: (u64, u64), outer: (u64, u64)| outer.0 <= inner.0 && inner.1 <= outer.1;
            self.found(path, text, fits(old, new), fits(new, old));
        }
    }

    fn objects(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        let inner = |name: &str| {
            if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
        };
        let (old_rest, new_rest) = (old.rest(), new.rest());
        let (old_required, new_required) = (old.required(), new.required());
        for (name, property) in old.properties() {
            let path = inner(name);
            let was_required = old_required.contains(name.as_str());
            let Some(newer) = new.property(name) else {
                self.found(&path, "is gone".into(), !new.is_closed(), !was_required);
                continue;
            };
            match (was_required, new_required.contains(name.as_str())) {
                (false, true) => self.found(&path, "is required now".into(), false, true),
                (true, false) => self.found(&path, "may be missing now".into(), true, false),
                (false, false) => self.defaults(&path, property, newer),
                (true, true) => {}
            }
            self.schemas(&path, property, newer);
        }
        for (name, _) in new.properties().filter(|(name, _)| old.property(name).is_none()) {
            let is_required = new_required.contains(name.as_str());
            let what =
                if is_required { "is new, and required" } else { "is new, and may be missing" };
            self.found(&inner(name), what.into(), !is_required, !old.is_closed());
        }
        // Of maps.
        match (old_rest, new_rest) {
            (Some(older), Some(newer)) => self.schemas(&inner("*"), older, newer),
            (None, None) => {}
            (None, Some(_)) => self.found(path, "is a map now".into(), false, false),
            (Some(_), None) => self.found(path, "is no map any more".into(), false, false),
        }
    }

    fn defaults(&mut self, path: &str, old: Schema<'_>, new: Schema<'_>) {
        let (old, new) = (old.get("default"), new.get("default"));
        if old == new {
            return;
        }
        let name = |default: Option<&Value>| default.map_or("none".into(), Value::to_string);
        let what = format!("has the default {} instead of {}", name(new), name(old));
        self.found(path, what, true, true);
    }
}

impl<'a> Schema<'a> {
    /// Schema of all properties that have no name in the schema.
    fn rest(self) -> Option<Self> {
        let rest = self.get("additionalProperties").filter(|rest| rest.is_object())?;
        Some(self.with(rest))
    }
}

/// Range of an integer in words.
fn range(range: (i128, i128)) -> String {
    match range {
        (i128::MIN, i128::MAX) => "any integer".into(),
        (least, i128::MAX) => format!("from {least} up"),
        (i128::MIN, largest) => format!("up to {largest}"),
        (least, largest) => format!("{least} to {largest}"),
    }
}

fn address(schema: Schema<'_>) -> usize {
    std::ptr::from_ref(schema.value).addr()
}

/// Keys of alternatives.
fn keys(variants: &[(String, Variant<'_>)]) -> Vec<String> {
    variants.iter().map(|(key, _)| key.clone()).collect()
}

fn is_object(schema: Schema<'_>) -> bool {
    schema.get("type").is_some_and(|name| name == "object")
}

/// Returns true if each value of a kind is one of another kind too.
fn fits(kind: &str, other: &str) -> bool {
    other == "any value"
        || (kind == "integer" && other == "number")
        // A constant is a value of its type.
        || (kind.starts_with('"') && other == "string")
        || (kind.parse::<i128>().is_ok() && matches!(other, "integer" | "number"))
        || (matches!(kind, "true" | "false") && other == "boolean")
}
