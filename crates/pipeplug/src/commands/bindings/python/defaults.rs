//! Values of what is left out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::Value;

use crate::output::text;

use super::super::model::{Body, Field, Named, Type, VariantKind, endless};
use super::super::names::{Scope, quoted_wide, snake, upper};
use super::{Python, WORDS, literal, plain};

/// Tries of types for the values of a default. A choice of choices can need very many.
const TRIES: usize = 100_000;

/// Types and values that contain the one that is tried.
const DEPTH: usize = 256;

/// Search for the types of the values of a default.
struct Search<'a> {
    python: &'a Python<'a>,
    /// Rest of [`TRIES`], and of [`DEPTH`].
    tries: Cell<usize>,
    depth: Cell<usize>,
    /// One of them was not enough.
    is_given_up: Cell<bool>,
    /// Fields that objects of the values leave out: names of the type and of the field.
    left_out: RefCell<Vec<(&'a str, &'a str)>>,
}

impl<'a> Search<'a> {
    fn new(python: &'a Python<'a>) -> Self {
        Self {
            python,
            tries: Cell::new(TRIES),
            depth: Cell::new(DEPTH),
            is_given_up: Cell::new(false),
            left_out: RefCell::new(Vec::new()),
        }
    }

    /// Forgets the fields that were left out by what does not fit.
    fn or_forget<T>(&self, mark: usize, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.left_out.borrow_mut().truncate(mark);
        }
        found
    }
}

impl Python<'_> {
    /// Checks that no default needs itself: an object of a default has the defaults of the fields that
    /// it leaves out.
    pub(super) fn check_defaults(&self) -> Result<(), String> {
        let mut all = Vec::new();
        for named in &self.service.types {
            let Body::Struct(fields) = &named.body else { continue };
            for field in fields.iter().filter(|field| !field.required) {
                if let Some(default) = field.default.as_ref().filter(|it| !it.is_null()) {
                    all.push((named, field, default));
                }
            }
        }
        let key = |named: &'_ Named, field: &'_ Field| (named.name.clone(), field.name.clone());
        let indexes: BTreeMap<_, _> = all
            .iter()
            .enumerate()
            .map(|(index, (named, field, _))| (key(named, field), index))
            .collect();
        let needs: Vec<_> = all
            .iter()
            .map(|(_, field, default)| {
                let search = Search::new(self);
                // One that does not fit is an error later.
                let _ = search.value(&field.kind, default);
                let left_out = search.left_out.into_inner().into_iter();
                let own = |(name, field): (&str, &str)| (name.to_owned(), field.to_owned());
                vec![left_out.filter_map(|it| indexes.get(&own(it)).copied()).collect()]
            })
            .collect();
        let Some(cycle) = endless(&needs) else { return Ok(()) };
        let (named, field, default) = all[cycle[0]];
        let mut names: Vec<_> = cycle
            .iter()
            .map(|index| format!("{}.{}", all[*index].0.described, all[*index].1.name))
            .collect();
        names.push(names[0].clone());
        Err(format!(
            "the field {:?} of {} has the default {}, which leaves out a field whose default is it \
             again, without end: {}; let the field be null or missing by default",
            field.name,
            named.described,
            text::cut(&default.to_string()),
            names.join(" -> ")
        ))
    }

    /// Type and default of what can be left out.
    pub(super) fn optional(
        &self,
        field: &Field,
        kind: String,
        notes: &mut Vec<String>,
    ) -> Result<(String, Option<String>), String> {
        if field.required {
            return Ok((kind, None));
        }
        let takes_null = matches!(
            self.service.resolved(&field.kind),
            Type::Nullable(_) | Type::Any | Type::Null
        );
        match field.default.as_ref().filter(|default| !default.is_null()) {
            Some(default) => {
                let search = Search::new(self);
                let value = search.value(&field.kind, default);
                let problem = if search.is_given_up.get() {
                    "is too large, or too deep, to find types for all of it"
                } else {
                    "does not fit its type"
                };
                let value = value.ok_or_else(|| {
                    let default = default.to_string();
                    format!("the default {}, which {problem}", text::cut(&default))
                })?;
                Ok((kind, Some(value)))
            }
            None if takes_null => Ok((kind, Some("None".into()))),
            None => {
                notes.push("\"omit\": True".into());
                Ok((format!("Optional[{kind}]"), Some("None".into())))
            }
        }
    }
}

impl<'a> Search<'a> {
    /// Expression of a value. `None` if it does not fit the type.
    fn value(&self, kind: &'a Type, value: &Value) -> Option<String> {
        let left = self.tries.get().checked_sub(1).zip(self.depth.get().checked_sub(1));
        let Some((tries, depth)) = left.filter(|_| !self.is_given_up.get()) else {
            self.is_given_up.set(true);
            return None;
        };
        self.tries.set(tries);
        self.depth.set(depth);
        let mark = self.left_out.borrow().len();
        let expression = self.expression(kind, value);
        self.depth.set(depth + 1);
        self.or_forget(mark, expression.filter(|_| !self.is_given_up.get()))
    }

    fn expression(&self, kind: &'a Type, value: &Value) -> Option<String> {
        let all = |values: &[Value], kind: &'a Type| -> Option<Vec<String>> {
            values.iter().map(|value| self.value(kind, value)).collect()
        };
        match (self.python.service.resolved(kind), value) {
            (Type::Nullable(_) | Type::Null | Type::Any, Value::Null) => Some("None".into()),
            (Type::Nullable(inner), value) => self.value(inner, value),
            (Type::Any, value) => Some(plain(value)),
            (Type::Bool, Value::Bool(_)) | (Type::String, Value::String(_)) => Some(literal(value)),
            (Type::Integer(_), Value::Number(number)) if !number.is_f64() => Some(literal(value)),
            (Type::Float, Value::Number(_)) => Some(literal(value)),
            (Type::Constants(values), value) if values.contains(value) => Some(literal(value)),
            (Type::List(item), Value::Array(values)) => {
                Some(format!("[{}]", all(values, item)?.join(", ")))
            }
            (Type::Tuple(kinds), Value::Array(values)) if kinds.len() == values.len() => {
                let items: Option<Vec<_>> =
                    kinds.iter().zip(values).map(|(kind, value)| self.value(kind, value)).collect();
                Some(format!("({},)", items?.join(", ")))
            }
            (Type::Map(inner), Value::Object(values)) => {
                let entries: Option<Vec<_>> = values
                    .iter()
                    .map(|(key, value)| {
                        Some(format!("{}: {}", quoted_wide(key), self.value(inner, value)?))
                    })
                    .collect();
                Some(format!("{{{}}}", entries?.join(", ")))
            }
            (Type::Named(index), value) => self.named(&self.python.service.types[*index], value),
            _ => None,
        }
    }

    fn named(&self, named: &'a Named, value: &Value) -> Option<String> {
        match &named.body {
            Body::Enum(values) => {
                let mut scope = Scope::default();
                let names: Vec<_> =
                    values.iter().map(|(it, _)| (scope.take(&upper(it)), it)).collect();
                let (name, _) = names.into_iter().find(|(_, it)| value == it.as_str())?;
                Some(format!("{}.{name}", named.name))
            }
            Body::Struct(fields) => {
                let mark = self.left_out.borrow().len();
                self.or_forget(mark, self.call(&named.name, fields, value.as_object()?))
            }
            Body::Union(variants) => {
                variants.iter().find_map(|variant| match (&variant.kind, value) {
                    (VariantKind::Constant(constant), value) if constant == value => {
                        Some(literal(value))
                    }
                    (VariantKind::Tagged(tag, Type::Named(index)), Value::Object(object))
                        if object.len() == 1 && self.python.owned.contains(index) =>
                    {
                        self.named(&self.python.service.types[*index], object.get(tag)?)
                    }
                    (
                        VariantKind::Internal(property, tag, Type::Named(index)),
                        Value::Object(object),
                    ) if object.get(property)? == tag.as_str() => {
                        let mut object = object.clone();
                        object.remove(property);
                        self.named(&self.python.service.types[*index], &Value::Object(object))
                    }
                    (VariantKind::Other(kind), value) => self.value(kind, value),
                    _ => None,
                })
            }
            Body::Alias(kind) => self.value(kind, value),
        }
    }

    fn call(
        &self,
        name: &'a str,
        fields: &'a [Field],
        object: &serde_json::Map<String, Value>,
    ) -> Option<String> {
        let mut scope = Scope::without(WORDS);
        let mut arguments = Vec::new();
        let mut ordered: Vec<_> = fields.iter().collect();
        ordered.sort_by_key(|field| !field.required);
        for field in ordered {
            let own = scope.take(&snake(&field.name));
            match object.get(&field.name) {
                Some(value) => arguments.push(format!("{own}={}", self.value(&field.kind, value)?)),
                None if field.required => return None,
                None => self.left_out.borrow_mut().push((name, &field.name)),
            }
        }
        Some(format!("{name}({})", arguments.join(", ")))
    }
}
