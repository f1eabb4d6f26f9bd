use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Serialize;
use serde_json::json;

use super::*;
use crate::{Client as _, data, service};

/// A line.
#[data]
#[derive(Debug)]
struct Line {
    number: u32,
    #[serde(default)]
    text: Option<String>,
}

#[data]
#[derive(Debug)]
enum Shape {
    Point,
    Circle { radius: f64 },
    Named(String),
}

#[data]
#[derive(Debug)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Event {
    Opened { path: String },
    Closed { status: i8 },
}

#[data]
#[derive(Debug)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Part {
    Line(Line),
    Again(Line),
    Tree(Tree),
}

#[data]
#[derive(Debug)]
#[serde(untagged)]
enum Loose {
    Number(i64),
    Line(Line),
}

#[data]
#[derive(Debug)]
struct Flat {
    name: String,
    #[serde(flatten)]
    event: Event,
}

#[data]
#[derive(Debug)]
struct Tree {
    children: Vec<Tree>,
}

#[data]
#[derive(Debug)]
struct All {
    shape: Shape,
    event: Event,
    part: Part,
    loose: Loose,
    flat: Flat,
    tree: Tree,
    pair: (u8, bool),
    map: BTreeMap<String, Option<Line>>,
    numbers: BTreeMap<i16, bool>,
    any: serde_json::Value,
    letter: char,
}

#[service(version = 1)]
#[expect(dead_code, reason = "only its description is used")]
trait Many {
    fn suggest(&self, word: String, #[serde(default)] most: u32, #[serde(default)] deep: Vec<Line>);
    fn all(&self, all: All);
    fn nothing(&self);
}

fn mistake(method: &str, json: &str) -> Option<String> {
    let many = ManyClient::interface();
    let method = many.method(method).unwrap();
    many.check(method, json.as_bytes()).err().map(|mistake| {
        let (line, column) = mistake.position(json.as_bytes());
        let at = json.get(mistake.at.clone()).unwrap_or_default();
        format!("{}|{at}|{line}:{column}|{mistake}", mistake.path)
    })
}

#[track_caller]
fn finds(method: &str, json: &str, expected: &str) {
    assert_eq!(mistake(method, json).as_deref(), Some(expected), "{json}");
}

#[track_caller]
fn fits(method: &str, json: &str) {
    assert_eq!(mistake(method, json), None, "{json}");
}

#[test]
fn arguments_that_fit_have_no_mistake() {
    fits("suggest", r#"{"word":"a"}"#);
    fits("suggest", r#"{ "most": 4294967295, "word": "", "deep": [{"number": 1, "text": null}] }"#);
    fits("nothing", "");
    fits("nothing", " { } ");
}

#[test]
fn names_are_checked() {
    finds(
        "suggest",
        r#"{"wrod":"teh"}"#,
        r#"wrod|"wrod"|1:2|there is no argument "wrod"; did you mean "word"?"#,
    );
    finds(
        "suggest",
        r#"{"word":"teh","language":1}"#,
        r#"language|"language"|1:15|there is no argument "language"; there is deep, most, word"#,
    );
    finds("nothing", r#"{"a":1}"#, r#"a|"a"|1:2|there is no argument "a"; it takes none"#);
    finds("suggest", "", r#"word||1:1|the argument "word" is missing: a string"#);
    finds(
        "suggest",
        r#"{"word":"a","word":"b"}"#,
        r#"word|"word"|1:13|the argument "word" is there twice"#,
    );
    finds(
        "suggest",
        r#"{"word":"a","deep":[{"number":1},{"nmber":2}]}"#,
        r#"nmber|"nmber"|1:35|there is no field "nmber" in "deep[1]"; did you mean "number"?"#,
    );
    finds(
        "suggest",
        r#"{"word":"a","deep":[{}]}"#,
        r#"deep[0].number|}|1:22|the field "deep[0].number" is missing: an integer from 0 to 4294967295"#,
    );
}

#[test]
fn types_and_limits_are_checked() {
    finds(
        "suggest",
        "{\"word\":\"é\",\n \"most\": \"three\"}",
        "most|\"three\"|2:10|the argument \"most\" is \"three\", and should be an integer from 0 to \
         4294967295",
    );
    for (json, given) in
        [("-1", "-1"), ("4294967296", "4294967296"), ("1.0", "1.0"), ("null", "null")]
    {
        let json = format!(r#"{{"word":"a","most":{json}}}"#);
        finds(
            "suggest",
            &json,
            &format!(
                "most|{given}|1:20|the argument \"most\" is {given}, and should be an integer from \
                 0 to 4294967295"
            ),
        );
    }
    finds(
        "suggest",
        r#"{"word":{"a":1}}"#,
        r#"word|{"a":1}|1:9|the argument "word" is {"a":1}, and should be a string"#,
    );
    finds(
        "suggest",
        r#"{"word":"a","deep":[{"number":1,"text":2}]}"#,
        r#"deep[0].text|2|1:40|"deep[0].text" is 2, and should be string | null"#,
    );
    finds("suggest", "[]", "|[]|1:1|the arguments are [], and should be an object");
    finds("suggest", r#"{"word":x}"#, "|x|1:9|it is no JSON: expected value");
    finds("suggest", r#"{"word":"a""#, "|\"|1:11|it is no JSON: EOF while parsing an object");
}

fn all(key: &str, value: Value) -> String {
    let mut all = json!({
        "shape": "Point", "event": {"kind": "opened", "path": "x"}, "loose": 1,
        "part": {"kind": "again", "number": 1},
        "flat": {"name": "n", "kind": "closed", "status": -1}, "tree": {"children": []},
        "pair": [1, true], "map": {"a": null}, "numbers": {"-7": true}, "any": {"x": [1]}, "letter": "é",
    });
    all[key] = value;
    json!({ "all": all }).to_string()
}

#[test]
fn variants_are_checked_by_what_was_meant() {
    let check = |key: &str, value: Value| {
        let found = mistake("all", &all(key, value))?;
        let (path, rest) = found.split_once('|').unwrap();
        Some(format!("{path}: {}", rest.splitn(3, '|').nth(2).unwrap()))
    };
    let fine = |key: &str, value: Value| assert_eq!(check(key, value.clone()), None, "{value}");
    let wrong = |key: &str, value: Value, expected: &str| {
        let found = check(key, value.clone()).unwrap_or_default();
        assert!(found.contains(expected), "{value}: {found}");
    };
    fine("shape", json!("Point"));
    fine("shape", json!({"Circle": {"radius": 2}}));
    fine("shape", json!({"Named": "x"}));
    wrong("shape", json!("Pont"), "did you mean \"Point\"?");
    wrong("shape", json!({"Circle": {"radius": "x"}}), "shape.Circle.radius: ");
    wrong("shape", json!({"Circle": {"radius": 1, "x": 1}}), "no field \"x\"");
    wrong("shape", json!({"Square": {}}), "and should be \"Point\" | {Circle: ");
    wrong("shape", json!(3), "and should be");
    fine("event", json!({"kind": "closed", "status": 1}));
    wrong("event", json!({"kind": "closed", "status": 128}), "from -128 to 127");
    wrong("event", json!({"kind": "closed", "status": 1, "path": "x"}), "no field \"path\"");
    wrong("event", json!({"kind": "shut"}), "event: ");
    fine("part", json!({"kind": "line", "number": 1, "text": null}));
    fine("part", json!({"kind": "tree", "children": []}));
    wrong("part", json!({"kind": "again", "number": "x"}), "part.number: ");
    wrong("part", json!({"kind": "tree", "number": 1}), "no field \"number\"");
    wrong("part", json!({"kind": "line", "number": 1, "nmber": 2}), "no field \"nmber\"");
    wrong("part", json!({"kind": "lines", "number": 1}), "part: ");
    wrong("part", json!({"number": 1}), "part: ");
    fine("loose", json!({"number": 1}));
    wrong("loose", json!({"number": "x"}), "loose.number: ");
    wrong("loose", json!("x"), "and should be");
    fine("flat", json!({"name": "n", "kind": "opened", "path": "x"}));
    wrong("flat", json!({"name": 1, "kind": "opened", "path": "x"}), "flat.name: ");
    wrong("flat", json!({"name": "n", "kind": "opened", "path": 1}), "flat.path: ");
    wrong("flat", json!({"name": "n", "kind": "opened", "path": "x", "y": 1}), "no field \"y\"");
    fine("tree", json!({"children": [{"children": [{"children": []}]}]}));
    wrong(
        "tree",
        json!({"children": [{"children": [{}]}]}),
        "tree.children[0].children[0].children",
    );
    wrong("pair", json!([1]), "has 1 items, and should have 2");
    wrong("pair", json!([1, 2]), "pair[1]: ");
    fine("map", json!({"x": {"number": 1}}));
    wrong("map", json!({"x": {"number": -1}}), "map.x.number: ");
    fine("numbers", json!({"0": true, "-32768": false}));
    wrong("numbers", json!({"1": 2}), "numbers.1: ");
    wrong("numbers", json!({"one": true}), "a name is a whole number");
    wrong("numbers", json!({"-": true}), "no field \"-\"");
    fine("any", json!(null));
    fine("letter", json!("x"));
    wrong("letter", json!("xy"), "should be one character");
}

#[test]
fn a_schema_that_is_a_circle_ends() {
    let schema = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    let mut circle = Interface::new("c", 1, |_| {});
    circle.definitions.insert("A".into(), schema("B"));
    circle.definitions.insert("B".into(), schema("A"));
    circle.definitions.insert("C".into(), json!({ "anyOf": [schema("C"), schema("C")] }));
    for name in ["A", "C", "gone"] {
        let _ = circle.check_value(&schema(name), b"1");
        let _ = circle.notation(&schema(name));
        let method = Method { name: "m".into(), result: Some(schema(name)), ..Method::default() };
        circle.methods = vec![method];
        assert_eq!(crate::compare(&circle, &circle), []);
    }
}

/// Values of every kind of type, with the result of serde for a change of them.
#[derive(Debug, Serialize)]
struct Given {
    word: String,
    most: u32,
    deep: Vec<Line>,
}

proptest! {
    #[test]
    fn all_that_serde_writes_fits(
        word in ".{0,8}",
        most: u32,
        deep in proptest::collection::vec((any::<u32>(), proptest::option::of(".{0,4}")), 0..4),
    ) {
        let deep = deep.into_iter().map(|(number, text)| Line { number, text }).collect();
        let text = serde_json::to_string_pretty(&Given { word, most, deep }).unwrap();
        prop_assert_eq!(mistake("suggest", &text), None);
    }

    /// With the same names, this check and serde agree.
    #[test]
    fn mistakes_are_those_of_serde(
        word in prop_oneof![Just("\"a\""), Just("1"), Just("null"), Just("[]")],
        most in prop_oneof!["-?[0-9]{1,11}", "[0-9]\\.[0-9]", "\"1\"", "true"],
        text in prop_oneof![Just("\"a\""), Just("1"), Just("null"), Just("{}")],
    ) {
        let json = format!(r#"{{"word":{word},"most":{most},"deep":[{{"number":{most},"text":{text}}}]}}"#);
        #[derive(serde::Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Taken { word: String, most: u32, deep: Vec<Line> }
        let taken = serde_json::from_str::<Taken>(&json).map(drop);
        prop_assert_eq!(taken.is_ok(), mistake("suggest", &json).is_none(), "{} {:?}", json, taken);
    }
}
