//! Choices.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::model::{Named, Variant, VariantKind};
use super::super::names::{Scope, ascii, quoted_wide};
use super::{Go, Written, docs};

impl Go<'_> {
    pub(super) fn union(&mut self, named: &Named, variants: &[Variant]) -> Written {
        let name = &named.name;
        let mut scope =
            Scope::without(&["Error", "MarshalJSON", "UnmarshalJSON", "Message", "Unwrap"]);
        let docs =
            format!("{name} is a choice: exactly one of its fields is set.\n\n{}", named.docs);
        self.comment(&docs);
        let mut rows = Vec::new();
        let (mut write, mut read) = (String::new(), String::new());
        for variant in variants {
            let own = scope.take(&variant.name);
            let docs = docs::inner(&variant.docs, "\t");
            let place = format!("the variant {:?} of {}", variant.name, named.described);
            let (field, condition, from, into, is_this) = match &variant.kind {
                VariantKind::Constant(value) => {
                    let json = quoted_wide(&ascii(value));
                    let is_this = match value {
                        Value::String(text) => format!("isText(data, {})", quoted_wide(text)),
                        _ => format!("string(data) == {json}"),
                    };
                    let into = format!("v.{own} = true\n\t\treturn nil");
                    ("bool".into(), "", format!("[]byte({json}), nil"), into, is_this)
                }
                VariantKind::Tagged(tag, kind) => {
                    let value = format!("*v.{own}");
                    let value = self.filled(kind, &value, 2, &place)?.unwrap_or(value);
                    let kind = self.kind(kind, &place)?;
                    let tag = quoted_wide(tag);
                    let from = format!("json.Marshal(map[string]any{{{tag}: {value}}})");
                    let into =
                        format!("v.{own} = new({kind})\n\t\treturn json.Unmarshal(text, v.{own})");
                    (
                        format!("*{kind}"),
                        " != nil",
                        from,
                        into,
                        format!("text, ok := object[{tag}]; ok"),
                    )
                }
                VariantKind::Internal(property, value, kind) => {
                    let kind = self.kind(kind, &place)?;
                    let (key, text) = (quoted_wide(property), quoted_wide(value));
                    let tag = format!("{}:{}", ascii(&json!(property)), ascii(&json!(value)));
                    let from = format!("withTag({}, v.{own})", quoted_wide(&tag));
                    let into =
                        format!("v.{own} = new({kind})\n\t\treturn json.Unmarshal(data, v.{own})");
                    (
                        format!("*{kind}"),
                        " != nil",
                        from,
                        into,
                        format!("isText(object[{key}], {text})"),
                    )
                }
                VariantKind::Other(_) => {
                    return Err(format!("{place} has no tag that tells it from the others"));
                }
            };
            let _ = write!(write, "\tcase v.{own}{condition}:\n\t\treturn {from}\n");
            let _ = write!(read, "\tif {is_this} {{\n\t\t{into}\n\t}}\n");
            rows.push((docs, own, field, String::new()));
        }
        let _ = writeln!(self.text, "type {name} struct {{");
        if named.is_error {
            let docs = vec![
                "\t// Message is the text for people. It is sent besides the data.".to_owned(),
            ];
            rows.push((docs, "Message".to_owned(), "string".to_owned(), "`json:\"-\"`".to_owned()));
        }
        self.rows(&rows);
        let object = if read.contains("object[") {
            "\tvar object map[string]json.RawMessage\n\t_ = json.Unmarshal(data, &object) // a variant may be no object\n"
        } else {
            ""
        };
        let none = quoted_wide(&format!("none of the variants of {name} is set"));
        let unknown = quoted_wide(&format!("%.100q is no variant of {name}"));
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
                 string(text)\n}}\n\n// as{name} finds the error of a method in that of a call.\nfunc as{name}(err error) error \
                 {{\n\tif own, message, ok := pipeplug.MethodError[{name}](err); ok {{\n\t\town.Message = message\n\t\treturn \
                 &own\n\t}}\n\treturn err\n}}\n\n"
            );
        }
        Ok(())
    }
}
