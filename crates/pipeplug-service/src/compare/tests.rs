use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

/// An interface with one method that takes one argument or gives one result, of this type.
fn with(place: &str, schema: Value, definitions: Value) -> Interface {
    let mut method = json!({ "name": "m", "command": "s.m" });
    method[place] = match place {
        "arguments" => {
            json!({ "type": "object", "properties": { "a": schema }, "required": ["a"] })
        }
        _ => schema,
    };
    serde_json::from_value(json!({
        "name": "s", "version": 1, "oldest": 1, "methods": [method], "$defs": definitions,
    }))
    .unwrap()
}

/// Compares two types of an argument and of a result.
#[track_caller]
fn types(old: Value, new: Value, expected: &[(&str, Effect)]) {
    let of = |place: &str, schema: &Value| {
        let definitions = schema.get("$defs").cloned().unwrap_or_else(|| json!({}));
        with(place, schema.clone(), definitions)
    };
    let changes = compare(&of("arguments", &old), &of("arguments", &new));
    let found: Vec<_> = changes
        .iter()
        .map(|change| {
            let what = change.what.strip_prefix("argument \"a").unwrap();
            (what.trim_start_matches(['"', '.']), change.effect)
        })
        .collect();
    assert_eq!(found, expected, "{old} {new}");
    // What a caller gets has the opposite effects.
    let changes = compare(&of("result", &old), &of("result", &new));
    for (change, (_, effect)) in changes.iter().zip(expected) {
        let opposite = Effect::new(
            matches!(effect, Effect::BreaksServices | Effect::BreaksBoth),
            matches!(effect, Effect::BreaksCallers | Effect::BreaksBoth),
        );
        assert_eq!(change.effect, opposite, "{change}");
    }
    // And so has the way back.
    let back = compare(&of("arguments", &new), &of("arguments", &old));
    let breaks = |changes: &[Change], test: fn(&Change) -> bool| changes.iter().any(test);
    let there = compare(&of("arguments", &old), &of("arguments", &new));
    assert_eq!(breaks(&there, Change::breaks_callers), breaks(&back, Change::breaks_services));
    assert_eq!(breaks(&there, Change::breaks_services), breaks(&back, Change::breaks_callers));
}

use Effect::{BreaksBoth, BreaksCallers, BreaksServices, Compatible};

#[test]
fn types_that_become_wider_or_narrower() {
    let integer = |format: &str| json!({ "type": "integer", "format": format });
    types(integer("uint32"), integer("uint32"), &[]);
    types(integer("uint8"), integer("uint32"), &[(" is uint32 instead of uint8", BreaksServices)]);
    types(integer("int64"), integer("uint64"), &[(" is uint64 instead of int64", BreaksBoth)]);
    let (zero, one) =
        (json!({ "type": "integer", "minimum": 0 }), json!({ "type": "integer", "minimum": 1 }));
    types(zero, one, &[(" is from 1 up instead of from 0 up", BreaksCallers)]);
    types(
        json!({ "type": "integer" }),
        json!({ "type": "number" }),
        &[(" is number instead of integer", BreaksServices)],
    );
    types(
        json!({ "type": "string" }),
        json!({ "type": "boolean" }),
        &[(" is boolean instead of string", BreaksBoth)],
    );
    types(
        json!({ "type": "string" }),
        json!(true),
        &[(" is any value instead of string", BreaksServices)],
    );
    types(
        json!({ "type": "string" }),
        json!({ "type": ["string", "null"] }),
        &[(" can be null now", BreaksServices)],
    );
    types(
        json!({ "type": "string" }),
        json!({ "type": "string", "format": "uuid" }),
        &[(" has the format uuid instead of none", BreaksCallers)],
    );
    types(
        json!({ "type": "string" }),
        json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        &[(" has 1 characters instead of any number of characters", BreaksCallers)],
    );
}

#[test]
fn objects() {
    let object = |properties: Value, required: Value| json!({ "type": "object", "properties": properties, "required": required });
    let x = json!({ "type": "string" });
    types(
        object(json!({}), json!([])),
        object(json!({ "x": x }), json!([])),
        &[("x\" is new, and may be missing", Compatible)],
    );
    types(
        object(json!({}), json!([])),
        object(json!({ "x": x }), json!(["x"])),
        &[("x\" is new, and required", BreaksCallers)],
    );
    types(
        object(json!({ "x": x }), json!(["x"])),
        object(json!({ "x": x }), json!([])),
        &[("x\" may be missing now", BreaksServices)],
    );
    types(
        object(json!({ "x": { "type": "integer", "default": 1 } }), json!([])),
        object(json!({ "x": { "type": "integer", "default": 2 } }), json!([])),
        &[("x\" has the default 2 instead of 1", Compatible)],
    );
    // An object that refuses unknown fields does so with newer callers.
    let closed = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let open = json!({ "type": "object", "properties": { "x": x, "y": x }, "additionalProperties": false });
    types(
        closed,
        open,
        &[
            ("x\" is new, and may be missing", BreaksServices),
            ("y\" is new, and may be missing", BreaksServices),
        ],
    );
    types(
        json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
        json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        &[("*\" is string instead of integer", BreaksBoth)],
    );
    types(
        json!({ "type": "object", "additionalProperties": { "type": "integer" } }),
        json!({ "type": "object", "properties": {} }),
        &[(" is no map any more", BreaksBoth)],
    );
}

#[test]
fn lists_and_tuples() {
    let list = |items: Value| json!({ "type": "array", "items": items });
    let tuple = |items: Value| json!({ "type": "array", "prefixItems": items });
    types(
        list(json!({ "type": "string" })),
        list(json!({ "type": "integer" })),
        &[("[]\" is integer instead of string", BreaksBoth)],
    );
    types(
        list(json!(true)),
        tuple(json!([true, true])),
        &[(" is a tuple of 2 instead of a list", BreaksBoth)],
    );
    types(
        tuple(json!([{ "type": "integer" }, true])),
        tuple(json!([{ "type": "number" }, true])),
        &[("[0]\" is number instead of integer", BreaksServices)],
    );
    types(
        json!({ "type": "array", "items": true, "minItems": 3, "maxItems": 3 }),
        json!({ "type": "array", "items": true, "minItems": 4, "maxItems": 4 }),
        &[(" has 4 items instead of 3 items", BreaksBoth)],
    );
}

/// Serde writes the tag of such a variant beside the fields of the struct, and schemars beside a reference to them.
#[test]
fn tagged_variants_that_hold_structs() {
    let with = |tags: &[&str]| {
        let mut interface = Interface::new("c", 1, |_| {});
        let object = json!({ "type": "object", "properties": { "x": true }, "required": ["x"] });
        interface.definitions.insert("A".into(), object);
        let variants = tags.iter().map(|tag| {
            json!({
                "type": "object", "properties": { "kind": { "const": tag } }, "required": ["kind"],
                "$ref": "#/$defs/A",
            })
        });
        let result = json!({ "oneOf": variants.collect::<Vec<_>>() });
        interface.methods =
            vec![Method { name: "m".into(), result: Some(result), ..Method::default() }];
        interface
    };
    assert_eq!(compare(&with(&["a", "b"]), &with(&["b", "a"])), []);
    let found = format!("{:?}", compare(&with(&["a", "b"]), &with(&["a", "c"])));
    assert!(found.contains(r#"cannot be kind=\"b\" any more"#), "{found}");
    assert!(found.contains(r#"can be kind=\"c\" now"#), "{found}");
}

#[test]
fn enumerations() {
    let tagged = |names: &[&str]| {
        let variants: Vec<_> = names
            .iter()
            .map(|name| {
                json!({
                    "type": "object", "properties": { (*name): { "type": "string" } },
                    "required": [name], "additionalProperties": false,
                })
            })
            .collect();
        json!({ "oneOf": variants })
    };
    types(
        json!({ "type": "string", "enum": ["a", "b"] }),
        json!({ "type": "string", "enum": ["b", "c"] }),
        &[(" cannot be \"a\" any more", BreaksCallers), (" can be \"c\" now", BreaksServices)],
    );
    types(tagged(&["A", "B"]), tagged(&["B", "A"]), &[]);
    types(tagged(&["A", "B"]), tagged(&["A"]), &[(" cannot be {\"B\"} any more", BreaksCallers)]);
    // A variant without fields gets some.
    types(
        json!({ "oneOf": [{ "const": "A" }, { "const": "B" }] }),
        json!({ "oneOf": [{ "const": "A" }, tagged(&["B"])["oneOf"][0]] }),
        &[(" cannot be \"B\" any more", BreaksCallers), (" can be {\"B\"} now", BreaksServices)],
    );
    // Untagged: alternatives have no name, and their order does not count.
    let object = |name: &str| json!({ "type": "object", "properties": { (name): true }, "required": [name] });
    types(
        json!({ "anyOf": [object("a"), object("b"), { "type": "integer" }] }),
        json!({ "anyOf": [{ "type": "integer" }, object("b"), object("a")] }),
        &[],
    );
    // A struct with a flattened enumeration.
    let flat = |name: &str| {
        json!({
            "type": "object", "properties": { (name): { "type": "string" } }, "required": [name],
            "oneOf": [object("x")],
        })
    };
    types(
        flat("n"),
        flat("m"),
        &[("n\" is gone", BreaksServices), ("m\" is new, and required", BreaksCallers)],
    );
}

#[test]
fn methods() {
    let interface = |methods: Value| -> Interface {
        serde_json::from_value(
            json!({ "name": "s", "version": 1, "oldest": 1, "methods": methods }),
        )
        .unwrap()
    };
    let one = |method: Value| {
        let mut method = method;
        method["name"] = "m".into();
        method["command"] = "s.m".into();
        interface(json!([method]))
    };
    let is = |old: Interface, new: Interface, expected: &[(&str, Effect)]| {
        let changes = compare(&old, &new);
        let found: Vec<_> =
            changes.iter().map(|change| (change.to_string(), change.effect)).collect();
        let found: Vec<_> = found.iter().map(|(what, effect)| (what.as_str(), *effect)).collect();
        assert_eq!(found, expected);
    };
    is(one(json!({})), interface(json!([])), &[("m: the method is gone", BreaksCallers)]);
    is(interface(json!([])), one(json!({})), &[("m: the method is new", BreaksServices)]);
    is(
        one(json!({})),
        one(json!({ "one_way": true })),
        &[("m: a call becomes a one-way", Compatible)],
    );
    is(
        one(json!({ "result": { "type": "string" } })),
        one(json!({ "one_way": true })),
        &[
            ("m: a call becomes a one-way", Compatible),
            ("m: result is null instead of string", BreaksBoth),
        ],
    );
    is(
        one(json!({ "idempotent": true })),
        one(json!({})),
        &[("m: it is not idempotent any more: callers that exist repeat it", BreaksCallers)],
    );
    is(
        one(json!({ "error": { "enum": ["a"] } })),
        one(json!({ "error": { "enum": ["a", "b"] } })),
        &[("m: error can be \"b\" now", Compatible)],
    );
    is(
        one(json!({ "items_out": true })),
        one(json!({})),
        &[("m: the items of its result are gone", BreaksBoth)],
    );
    is(
        one(json!({ "docs": "a", "result": { "type": "string", "description": "b" } })),
        one(json!({ "docs": "c", "result": { "type": "string" } })),
        &[],
    );
    let mut newer = one(json!({}));
    (newer.version, newer.oldest) = (2, 2);
    is(one(json!({})), newer.clone(), &[("version 1 becomes 2", BreaksBoth)]);
    newer.oldest = 1;
    is(one(json!({})), newer, &[("version 1 becomes 2", BreaksServices)]);
}

#[test]
fn a_schema_without_end_is_compared() {
    // Each definition has two of the next one: there are 2^60 paths.
    let mut definitions = Map::new();
    for n in 0..60 {
        let next = json!({ "$ref": format!("#/$defs/D{}", n + 1) });
        let properties = json!({ "a": next, "b": next });
        definitions.insert(format!("D{n}"), json!({ "type": "object", "properties": properties }));
    }
    definitions.insert("D60".into(), json!({ "$ref": "#/$defs/D0" }));
    let interface = with("result", json!({ "$ref": "#/$defs/D0" }), Value::Object(definitions));
    assert_eq!(compare(&interface, &interface), []);
}

#[test]
fn a_type_that_has_itself_is_compared() {
    let list = |value: &str| {
        let next = json!({ "anyOf": [{ "$ref": "#/$defs/Node" }, { "type": "null" }] });
        let properties = json!({ "value": { "type": value }, "next": next });
        let node = json!({ "type": "object", "properties": properties, "required": ["value"] });
        with("result", json!({ "$ref": "#/$defs/Node" }), json!({ "Node": node }))
    };
    assert_eq!(compare(&list("string"), &list("string")), []);
    let changes = compare(&list("string"), &list("boolean"));
    let found: Vec<_> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["m: result \"value\" is boolean instead of string"]);
}

/// Schemas as schemars writes them, which refer to two definitions.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "string" })),
        Just(json!({ "type": ["string", "null"] })),
        Just(json!({ "type": "boolean" })),
        Just(json!({ "type": "number" })),
        Just(json!({ "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255 })),
        Just(json!({ "type": "integer", "format": "int64" })),
        Just(json!({ "type": "string", "enum": ["a", "b"] })),
        Just(json!({ "const": "a" })),
        Just(json!(true)),
        Just(json!({ "$ref": "#/$defs/A" })),
        Just(json!({ "$ref": "#/$defs/B" })),
    ];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let fields = proptest::collection::btree_map("[ab]", (inner.clone(), any::<bool>()), 0..3);
        let object = (fields, any::<bool>()).prop_map(|(fields, is_closed)| {
            let required: Vec<_> = fields
                .iter()
                .filter_map(|(name, (_, required))| required.then_some(name.clone()))
                .collect();
            let properties: Map<_, _> =
                fields.into_iter().map(|(name, (schema, _))| (name, schema)).collect();
            let mut object =
                json!({ "type": "object", "properties": properties, "required": required });
            if is_closed {
                object["additionalProperties"] = false.into();
            }
            object
        });
        let several = proptest::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            object,
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            inner.prop_map(|rest| json!({ "type": "object", "additionalProperties": rest })),
            several.clone().prop_map(|items| {
                let len = items.len();
                json!({ "type": "array", "prefixItems": items, "minItems": len, "maxItems": len })
            }),
            several.prop_map(|variants| json!({ "anyOf": variants })),
        ]
    })
}

fn interface() -> impl Strategy<Value = Interface> {
    (schema(), schema(), schema())
        .prop_map(|(schema, a, b)| with("arguments", schema, json!({ "A": a, "B": b })))
}

/// Changes one of the schemas in a schema: the one with that number.
fn change(schema: &mut Value, number: &mut usize, kind: usize, other: &Value) {
    if *number == 0 {
        let is_object = schema.get("properties").is_some();
        let has_a = is_object && schema["properties"].get("a").is_some();
        match (kind, schema.get_mut("required").and_then(Value::as_array_mut)) {
            (0, Some(required)) => drop(required.pop()),
            (1, Some(required)) if has_a && required.is_empty() => required.push("a".into()),
            (2, _) if is_object => schema["properties"]["b"] = other.clone(),
            (3, _) => *schema = json!({ "anyOf": [schema.clone(), other] }),
            _ => *schema = other.clone(),
        }
        return *number = usize::MAX;
    }
    *number -= 1;
    for key in ["properties", "items", "additionalProperties", "prefixItems", "anyOf"] {
        match schema.get_mut(key) {
            Some(Value::Object(object)) if key == "properties" => {
                object.values_mut().for_each(|inner| change(inner, number, kind, other));
            }
            Some(Value::Array(inner)) => {
                inner.iter_mut().for_each(|inner| change(inner, number, kind, other));
            }
            Some(inner @ Value::Object(_)) => change(inner, number, kind, other),
            _ => {}
        }
    }
}

/// Two versions of an interface, between which little has changed.
fn versions() -> impl Strategy<Value = (Interface, Interface)> {
    (interface(), schema(), 1_usize..8, 0_usize..5).prop_map(|(old, other, number, kind)| {
        let mut new = old.clone();
        let argument = new.methods[0].arguments.as_mut().unwrap();
        let mut number = number;
        change(argument, &mut number, kind, &other);
        (old, new)
    })
}

/// Makes a value of a schema. `None` if it is not found within a few levels.
fn sample(
    interface: &Interface,
    schema: &Value,
    choices: &mut impl FnMut(usize) -> usize,
    depth: u32,
) -> Option<Value> {
    let depth = depth.checked_sub(1)?;
    let schema = Schema { value: schema, root: interface }.resolved().value;
    let inner = |schema: &Value, choices: &mut _| sample(interface, schema, choices, depth);
    if let Some(variants) = schema.get("anyOf").and_then(Value::as_array) {
        return inner(&variants[choices(variants.len())], choices);
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values[choices(values.len())].clone());
    }
    if let Some(value) = schema.get("const") {
        return Some(value.clone());
    }
    if let Some(items) = schema.get("prefixItems").and_then(Value::as_array) {
        return items.iter().map(|item| inner(item, choices)).collect();
    }
    Some(match schema.get("type") {
        Some(Value::Array(_)) => [json!("a"), json!(null)][choices(2)].clone(),
        Some(name) => match name.as_str()? {
            "string" => [json!("a"), json!("x")][choices(2)].clone(),
            "boolean" => json!(choices(2) == 0),
            "number" => json!(1.5),
            "integer" if schema.get("maximum").is_some() => json!(7),
            "integer" => json!(-1000),
            "array" => match schema.get("items") {
                Some(items) if choices(3) > 0 => json!([inner(items, choices)?]),
                _ => json!([]),
            },
            _ => {
                let mut object = Map::new();
                let required = schema.get("required").and_then(Value::as_array);
                for (name, property) in
                    schema.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    let is_required =
                        required.is_some_and(|all| all.iter().any(|other| other == name));
                    if is_required || choices(2) == 0 {
                        object.insert(name.clone(), inner(property, choices)?);
                    }
                }
                if let Some(rest) =
                    schema.get("additionalProperties").filter(|rest| rest.is_object())
                {
                    object.insert("z".into(), inner(rest, choices)?);
                }
                Value::Object(object)
            }
        },
        None => [json!(null), json!([1]), json!({ "a": "x" })][choices(3)].clone(),
    })
}

proptest! {
    #[test]
    fn an_interface_has_no_differences_to_itself(interface in interface()) {
        prop_assert_eq!(compare(&interface, &interface), []);
    }

    /// Without a change that breaks callers the new service takes what callers send.
    #[test]
    fn what_breaks_is_found(
        (old, new) in versions(),
        picks in proptest::collection::vec(0_usize..60, 40),
    ) {
        let arguments = |interface: &Interface| {
            interface.methods[0].arguments.clone().unwrap()
        };
        let changes = compare(&old, &new);
        let mut picks = picks.into_iter().cycle();
        let mut choices = |below: usize| picks.next().unwrap() % below;
        for _ in 0..8 {
            for (from, to, breaks) in [
                (&old, &new, Change::breaks_callers as fn(&Change) -> bool),
                (&new, &old, Change::breaks_services),
            ] {
                let Some(value) = sample(from, &arguments(from), &mut choices, 8) else { continue };
                prop_assert!(from.takes(&arguments(from), &value), "{} is no sample", value);
                let taken = to.takes(&arguments(to), &value);
                prop_assert!(taken || changes.iter().any(breaks), "{} is not taken: {:?}", value, changes);
            }
        }
    }
}

/// A description as a hostile peer could send it.
fn hostile(definition: impl Fn(usize) -> Value) -> Interface {
    let definitions: serde_json::Map<_, _> =
        (0..10_000).map(|index| (format!("A{index}"), definition(index))).collect();
    serde_json::from_value(json!({
        "name": "tree", "version": 1, "oldest": 1,
        "methods": [{ "name": "get", "command": "tree.get", "result": { "$ref": "#/$defs/A0" } }],
        "$defs": definitions,
    }))
    .unwrap()
}

#[test]
fn descriptions_of_any_depth_leave_the_stack_alone() {
    let next = |index: usize| json!({ "$ref": format!("#/$defs/A{}", index + 1) });
    let alternatives = hostile(|index| json!({ "anyOf": [next(index), { "type": "null" }] }));
    let objects =
        hostile(|index| json!({ "type": "object", "properties": { "child": next(index) } }));
    let lists = hostile(|index| json!({ "type": "array", "items": next(index) }));
    let recursive = |definition| hostile(move |_| Value::clone(&definition));
    let tree =
        recursive(json!({ "type": "object", "properties": { "child": { "$ref": "#/$defs/A0" } } }));
    for (old, new) in [
        (&alternatives, &alternatives),
        (&objects, &objects),
        (&tree, &objects),
        (&objects, &tree),
        (&lists, &lists),
        (&alternatives, &objects),
    ] {
        let _ = compare(old, new);
    }
    let changes = compare(&tree, &objects);
    assert!(
        changes.iter().any(|change| change.what.contains("too large to compare")),
        "{changes:?}"
    );
}

#[test]
fn descriptions_with_many_properties_take_no_time_to_speak_of() {
    let names: Vec<_> = (0..60_000).map(|index| format!("p{index}")).collect();
    let properties: Map<_, _> =
        names.iter().map(|name| (name.clone(), json!({ "const": 1 }))).collect();
    let required: Vec<_> = names.iter().map(|name| format!("x{name}")).collect();
    let wide = json!({ "type": "object", "properties": properties, "required": required });
    let wide = with("arguments", wide, json!({}));
    let begin = std::time::Instant::now();
    let narrow = with("arguments", json!({ "type": "object" }), json!({}));
    assert!(!compare(&wide, &narrow).is_empty());
    assert!(!compare(&narrow, &wide).is_empty());
    assert!(wide.signature(&wide.methods[0]).len() > 60_000);
    // It was minutes.
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
}
