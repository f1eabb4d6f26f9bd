//! Lists and maps, which package json writes as null where they are nil.

use std::fmt::Write as _;

use super::super::model::Type;
use super::{Go, Written};

/// Functions of the package that it has if it uses them.
const HELPERS: &[(&str, &str)] = &[
    (
        "listOf",
        "// listOf returns a list that is not nil.
func listOf[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}
",
    ),
    (
        "mapOf",
        "// mapOf returns a map that is not nil.
func mapOf[T any](items map[string]T) map[string]T {
	if items == nil {
		return map[string]T{}
	}
	return items
}
",
    ),
    (
        "eachOf",
        "// eachOf returns a list that is not nil, of what f makes of each item.
func eachOf[T any](items []T, f func(T) T) []T {
	all := make([]T, 0, len(items))
	for _, it := range items {
		all = append(all, f(it))
	}
	return all
}
",
    ),
    (
        "valuesOf",
        "// valuesOf returns a map that is not nil, of what f makes of each value.
func valuesOf[T any](items map[string]T, f func(T) T) map[string]T {
	all := make(map[string]T, len(items))
	for key, it := range items {
		all[key] = f(it)
	}
	return all
}
",
    ),
    (
        "pointerTo",
        "// pointerTo returns nil, or a pointer to what f makes of the value.
func pointerTo[T any](value *T, f func(T) T) *T {
	if value == nil {
		return nil
	}
	made := f(*value)
	return &made
}
",
    ),
    (
        "isText",
        "// isText is true if the JSON is this text.
func isText(data []byte, text string) bool {
	var found *string
	return json.Unmarshal(data, &found) == nil && found != nil && *found == text
}
",
    ),
    (
        "withTag",
        "// withTag returns an object with one more property.
func withTag(property string, object any) ([]byte, error) {
	text, err := json.Marshal(object)
	if err != nil || len(text) < 2 {
		return text, err
	}
	if len(text) > 2 {
		property += \",\"
	}
	return append([]byte(\"{\"+property), text[1:]...), nil
}
",
    ),
];

impl Go<'_> {
    /// A name for a type. That of a list or a map is a type of its own: it may contain itself, and is
    /// never null unless it may be.
    pub(super) fn alias(&mut self, name: &str, kind: &Type, place: &str) -> Written {
        let (inner, is_nullable) = match kind {
            Type::Nullable(inner) => (inner.as_ref(), true),
            kind => (kind, false),
        };
        if !matches!(inner, Type::List(_) | Type::Map(_)) {
            let kind = self.kind(kind, place)?;
            let _ = write!(self.text, "type {name} = {kind}\n\n");
            return Ok(());
        }
        let own = self.kind(inner, place)?;
        let filled = self.filled(inner, &format!("{own}(v)"), 1, place)?.unwrap_or_default();
        let (docs, null) = if is_nullable {
            ("null if it is nil", "\tif v == nil {\n\t\treturn []byte(\"null\"), nil\n\t}\n")
        } else {
            ("an empty list or map if it is nil", "")
        };
        let _ = write!(
            self.text,
            "type {name} {own}\n\n// MarshalJSON writes {docs}.\nfunc (v {name}) MarshalJSON() ([]byte, error) \
             {{\n{null}\treturn json.Marshal({filled})\n}}\n\n"
        );
        Ok(())
    }

    /// Expression of a value in which no list and no map is nil. `None` if it has neither. Types with a
    /// name see to that themselves.
    /// The expression stands in a block of so many tabs.
    pub(super) fn filled(
        &self,
        kind: &Type,
        value: &str,
        tabs: usize,
        place: &str,
    ) -> Written<Option<String>> {
        let (inner, is_empty, each) = match kind {
            Type::List(inner) => (inner, Some("listOf"), "eachOf"),
            Type::Map(inner) => (inner, Some("mapOf"), "valuesOf"),
            Type::Nullable(inner) => (inner, None, "pointerTo"),
            _ => return Ok(None),
        };
        let filled = self.filled(inner, "it", tabs + 1, place)?;
        let kind = match kind {
            Type::List(_) => self.item(inner, place)?,
            _ => self.kind(inner, place)?,
        };
        let indent = "\t".repeat(tabs);
        Ok(match filled {
            None => is_empty.map(|function| format!("{function}[{kind}]({value})")),
            // Without the type, the compiler gives up on types that are nested deep.
            Some(filled) => Some(format!(
                "{each}[{kind}]({value}, func(it {kind}) {kind} {{\n{indent}\treturn {filled}\n{indent}}})"
            )),
        })
    }

    /// Adds the functions that the code uses.
    pub(super) fn helpers(&mut self) {
        for (name, text) in HELPERS {
            if [format!("{name}("), format!("{name}[")].iter().any(|it| self.text.contains(it)) {
                let _ = write!(self.text, "\n{text}");
            }
        }
    }
}
