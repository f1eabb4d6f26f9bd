//! Services.

use serde_json::{Map, Value};

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::checks::start::is_service;
use crate::commands::conform::guest::{FEATURES, Guest, Setup};
use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{is_error, shown};

const SECTION: &str = "Services";
const GET_SERVICES: &str = "GetServices";
/// Depth of a schema up to which it is looked at.
const DEPTH_MAX: usize = 64;

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "services/without",
        section: SECTION,
        sends: "GetServices to a plugin without services",
        expects: "an error",
        scope: Scope::Every,
        run: without,
    },
    Check {
        name: "services/described",
        section: SECTION,
        sends: "GetServices",
        expects: "the services of `pipeplug.services`, with the same names and versions",
        scope: Scope::Every,
        run: described,
    },
    Check {
        name: "services/methods",
        section: SECTION,
        sends: "GetServices",
        expects: "methods with `name` and `command`, whose other keys are of their types",
        scope: Scope::Every,
        run: methods,
    },
    Check {
        name: "services/schemas",
        section: SECTION,
        sends: "GetServices",
        expects: "schemas that are JSON Schema, and whose references lead to `$defs`",
        scope: Scope::Every,
        run: schemas,
    },
    Check {
        name: "services/odd-arguments",
        section: SECTION,
        sends: "a call of each method with arguments that are no JSON object, then a ping",
        expects: "an error to each, and an answer to the ping",
        scope: Scope::Every,
        run: odd_arguments,
    },
];

/// Starts a plugin that has services.
fn begin<'a>(setup: &'a Setup<'a>) -> Checked<Guest<'a>> {
    let guest = setup.begin_with(FEATURES, &[])?;
    if guest.words("pipeplug.services").next().is_none() {
        return Err(not_applicable("the plugin names no services in `pipeplug.services`"));
    }
    Ok(guest)
}

fn without(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    if guest.words("pipeplug.services").next().is_some() {
        return Err(not_applicable("the plugin has services"));
    }
    guest.refused(GET_SERVICES, b"").map(drop)
}

/// The services of the description.
fn descriptions(guest: &mut Guest<'_>) -> Checked<Vec<Map<String, Value>>> {
    let response = guest.call(GET_SERVICES, b"")?;
    if is_error(&response) {
        return Err(came(shown(&response)));
    }
    let Ok(Value::Object(mut description)) = serde_json::from_slice(&response.buffer) else {
        return Err(came(format!("no JSON object: {}", shown(&response))));
    };
    let Some(Value::Array(services)) = description.remove("services") else {
        return Err(came(format!("no list `services`: {}", shown(&response))));
    };
    services
        .into_iter()
        .map(|service| match service {
            Value::Object(service) => Ok(service),
            other => Err(came(format!("a service that is no object: {other}"))),
        })
        .collect()
}

fn described(setup: &Setup) -> Checked {
    let mut guest = begin(setup)?;
    let mut told = Vec::new();
    for service in descriptions(&mut guest)? {
        let name = service.get("name").and_then(Value::as_str).unwrap_or_default();
        let number = |key: &str| service.get(key).and_then(Value::as_u64);
        let Some(version) = number("version") else {
            return Err(came(format!("a service {name:?} without `version`")));
        };
        let word = match number("oldest") {
            Some(oldest) if oldest != version => format!("{name}/{oldest}-{version}"),
            _ => format!("{name}/{version}"),
        };
        if !is_service(&word) {
            return Err(came(format!("the service {word:?}")));
        }
        told.push(word);
    }
    let mut named: Vec<String> = guest.words("pipeplug.services").map(normalized).collect();
    told.sort();
    named.sort();
    if told == named {
        return Ok(());
    }
    Err(came(format!(
        "`{}` in the description, and `{}` in the metadata",
        told.join(" "),
        named.join(" ")
    )))
}

/// `name/1` for `name/1-1`.
fn normalized(word: &str) -> String {
    match word.split_once('/').and_then(|(name, range)| Some((name, range.split_once('-')?))) {
        Some((name, (oldest, newest))) if oldest == newest => format!("{name}/{newest}"),
        _ => word.to_owned(),
    }
}

fn each_method(
    service: &Map<String, Value>,
    mut visit: impl FnMut(&Map<String, Value>) -> Checked,
) -> Checked {
    let Some(Value::Array(methods)) = service.get("methods") else {
        return Err(came(format!("a service without a list `methods`: {:?}", service.get("name"))));
    };
    methods.iter().try_for_each(|method| match method {
        Value::Object(method) => visit(method),
        other => Err(came(format!("a method that is no object: {other}"))),
    })
}

fn methods(setup: &Setup) -> Checked {
    let mut guest = begin(setup)?;
    for service in descriptions(&mut guest)? {
        each_method(&service, |method| {
            for key in ["name", "command"] {
                if !method.get(key).is_some_and(Value::is_string) {
                    return Err(came(format!("a method without {key:?}: {method:?}")));
                }
            }
            for key in ["one_way", "idempotent"] {
                if method.get(key).is_some_and(|value| *value != Value::Bool(true)) {
                    return Err(came(format!("{key:?} that is not `true`: {method:?}")));
                }
            }
            if method.get("docs").is_some_and(|docs| !docs.is_string()) {
                return Err(came(format!("`docs` that are no text: {method:?}")));
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn schemas(setup: &Setup) -> Checked {
    let mut guest = begin(setup)?;
    for service in descriptions(&mut guest)? {
        let no_defs = Map::new();
        let defs = match service.get("$defs") {
            None => &no_defs,
            Some(Value::Object(defs)) => defs,
            Some(other) => return Err(came(format!("`$defs` that are no object: {other}"))),
        };
        let check = |schema: &Value, place: &str| {
            is_schema(schema, defs, 0).map_err(|why| came(format!("the schema of {place}: {why}")))
        };
        for (name, schema) in defs {
            check(schema, name)?;
        }
        each_method(&service, |method| {
            let name = method.get("name").and_then(Value::as_str).unwrap_or("?");
            for key in ["arguments", "items_in", "items_out", "result", "error"] {
                if let Some(schema) = method.get(key) {
                    check(schema, &format!("{key:?} of {name:?}"))?;
                }
            }
            let arguments = method.get("arguments").and_then(|schema| schema.get("type"));
            if arguments.is_some_and(|kind| kind != "object") {
                return Err(came(format!("arguments of {name:?} that are no object")));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Looks whether this is a schema of draft 2020-12, in the keywords that are used for data.
fn is_schema(schema: &Value, defs: &Map<String, Value>, depth: usize) -> Result<(), String> {
    const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "string", "integer"];
    if depth > DEPTH_MAX {
        return Err(format!("it is deeper than {DEPTH_MAX} levels"));
    }
    let schema = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(schema) => schema,
        other => return Err(format!("{other} is neither an object nor a boolean")),
    };
    let inner = |schema: &Value| is_schema(schema, defs, depth + 1);
    for (key, value) in schema {
        let is_right = match key.as_str() {
            "$ref" => {
                let name = value.as_str().and_then(|path| path.strip_prefix("#/$defs/"));
                name.is_some_and(|name| {
                    defs.contains_key(&name.replace("~1", "/").replace("~0", "~"))
                })
            }
            "type" => match value {
                Value::String(name) => TYPES.contains(&name.as_str()),
                Value::Array(names) => {
                    !names.is_empty()
                        && names
                            .iter()
                            .all(|name| name.as_str().is_some_and(|n| TYPES.contains(&n)))
                }
                _ => false,
            },
            "properties" | "patternProperties" | "$defs" | "dependentSchemas" => match value {
                Value::Object(schemas) => {
                    schemas.values().try_for_each(inner)?;
                    true
                }
                _ => false,
            },
            "items"
            | "additionalProperties"
            | "not"
            | "contains"
            | "propertyNames"
            | "if"
            | "then"
            | "else"
            | "unevaluatedItems"
            | "unevaluatedProperties" => {
                inner(value)?;
                true
            }
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => match value {
                Value::Array(schemas) if !schemas.is_empty() => {
                    schemas.iter().try_for_each(inner)?;
                    true
                }
                _ => false,
            },
            "required" => value.as_array().is_some_and(|names| names.iter().all(Value::is_string)),
            "enum" | "examples" => value.is_array(),
            "title" | "description" | "format" | "pattern" | "$comment" | "$schema" | "$id"
            | "contentEncoding" | "contentMediaType" => value.is_string(),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" | "minContains" | "maxContains" => {
                value.as_f64().is_some_and(|number| number >= 0.0 && number.fract() == 0.0)
            }
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => value.is_number(),
            "multipleOf" => value.as_f64().is_some_and(|number| number > 0.0),
            "uniqueItems" | "deprecated" | "readOnly" | "writeOnly" => value.is_boolean(),
            // `const` and `default` are any value; unknown keywords are annotations.
            _ => true,
        };
        if !is_right {
            return Err(format!("{key:?} has the value {value}"));
        }
    }
    Ok(())
}

fn odd_arguments(setup: &Setup) -> Checked {
    let mut guest = begin(setup)?;
    let mut tried = 0;
    for service in descriptions(&mut guest)? {
        let mut commands = Vec::new();
        each_method(&service, |method| {
            let takes_request = !method.contains_key("one_way");
            let is_plain = !method.contains_key("items_in") && !method.contains_key("items_out");
            let command = method.get("command").and_then(Value::as_str);
            commands.extend(command.filter(|_| takes_request && is_plain).map(str::to_owned));
            Ok(())
        })?;
        for cmd in commands {
            guest.refused(&cmd, b"no JSON")?;
            tried += 1;
        }
    }
    if tried == 0 {
        return Err(not_applicable("the services have no method with a plain request"));
    }
    guest.ping()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schemas_are_told_from_other_values() {
        let defs = json!({ "Name": { "type": "string" } });
        let defs = defs.as_object().unwrap();
        for right in [
            json!(true),
            json!({}),
            json!({ "$ref": "#/$defs/Name" }),
            json!({ "type": ["string", "null"], "maxLength": 3 }),
            json!({ "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"] }),
            json!({ "type": "array", "items": { "anyOf": [true, { "type": "null" }] } }),
        ] {
            assert_eq!(is_schema(&right, defs, 0), Ok(()), "{right}");
        }
        for wrong in [
            json!("string"),
            json!({ "type": "text" }),
            json!({ "$ref": "#/$defs/Other" }),
            json!({ "properties": { "a": 1 } }),
            json!({ "required": "a" }),
            json!({ "anyOf": [] }),
            json!({ "items": { "minimum": "1" } }),
        ] {
            assert!(is_schema(&wrong, defs, 0).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_version_is_no_range() {
        assert_eq!(normalized("a/1-1"), "a/1");
        assert_eq!(normalized("a/1-2"), "a/1-2");
        assert_eq!(normalized("a/2"), "a/2");
    }
}
