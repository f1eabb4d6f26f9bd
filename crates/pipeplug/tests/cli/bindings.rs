//! `pipeplug bindings`: code for other languages. The checks of sdk/python, sdk/node and sdk/go run their
//! type checkers over what it writes for `bindings/shapes.json` and `bindings/names.json`, and send the
//! values of `bindings/values.json` through it.

mod names;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pipeplug_service::{Client as _, Interface, StreamIn, StreamOut, data, service};
use serde_json::{Value, json};

use crate::common::{MIRROR, Place, has_strict_sandbox};

/// All shapes of types: */ """ ''' \ </script> `${x}` "quoted".
///
/// A second line,\u{2028}and what ends lines elsewhere.
#[service(version = 3, oldest = 2)]
#[expect(dead_code, reason = "only its description is used")]
trait Shapes {
    /// Gives back its argument. */ """
    fn same(&self, value: Everything) -> Result<Everything, ShapeError>;
    /// Has words of the languages as its name and arguments.
    fn class(
        &self,
        from: String,
        #[serde(default, rename = "import")] others: Vec<String>,
        r#type: Option<u8>,
    ) -> Option<Shape>;
    fn nothing(&self);
    #[one_way]
    fn tell(&self, tree: Tree);
    #[one_way]
    fn log(&self, lines: StreamIn<String>);
    /// Takes items and gives items.
    fn both(&self, prefix: String, lines: StreamIn<Tree>) -> StreamOut<Shape>;
    fn count(&self, lines: StreamIn<String>) -> u64;
    fn words(&self, #[serde(default = "three")] most: u32) -> StreamOut<String>;
    /// Takes items and gives items, or fails.
    fn turn(&self, lines: StreamIn<Vec<String>>) -> Result<StreamOut<Vec<Tree>>, ShapeError>;
    #[idempotent]
    fn fails(&self) -> Result<(), PlainError>;
}

/// Shapes that Go has, too. */ """
#[service(version = 1)]
#[expect(dead_code, reason = "only its description is used")]
trait Plain {
    /// Gives back its argument. */ """
    fn same(&self, value: Common) -> Result<Common, ShapeError>;
    fn r#type(
        &self,
        range: String,
        #[serde(default)] r#func: Vec<String>,
        map: Option<u8>,
    ) -> Vec<String>;
    fn nothing(&self);
    #[one_way]
    fn tell(&self, tree: Tree);
    fn both(&self, prefix: String, lines: StreamIn<Tree>) -> StreamOut<Mood>;
    fn count(&self, lines: StreamIn<String>) -> u64;
    fn words(&self, #[serde(default = "three")] most: u32) -> StreamOut<String>;
    /// Takes items and gives items, or fails.
    fn turn(&self, lines: StreamIn<Vec<String>>) -> Result<StreamOut<Vec<Tree>>, ShapeError>;
    #[idempotent]
    fn fails(&self) -> Result<(), ShapeError>;
}

/// Shapes that Go has. \ `x`
#[data]
#[derive(Debug, PartialEq, Clone)]
struct Common {
    /// Bounds. */ """ \
    byte: u8,
    bytes: Vec<u8>,
    large: i64,
    text: Option<String>,
    #[serde(default = "three")]
    most: u32,
    #[serde(rename = "odd-name (x)")]
    odd: u8,
    mood: Mood,
    documented: Documented,
    tagged: Vec<Tagged>,
    content: Content,
    map: BTreeMap<String, Mood>,
    tree: Tree,
    any: Value,
    empty: Empty,
    newtype: Newtype,
    nest: Nest,
    folder: Folder,
    odd_ones: Vec<Odd>,
    rows: Vec<Vec<String>>,
    #[serde(flatten)]
    flat: Flat,
}

fn three() -> u32 {
    3
}

/// Every shape.
#[data]
#[derive(Debug, PartialEq, Clone)]
struct Everything {
    /// Bounds. */ """ \
    byte: u8,
    large: i64,
    number: f64,
    letter: char,
    yes: bool,
    text: Option<String>,
    #[serde(default = "three")]
    most: u32,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(rename = "camelCase")]
    camel: String,
    #[serde(rename = "odd-name, \"x\"")]
    odd: u8,
    #[serde(rename = "class")]
    keyword: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    absent: Option<Mood>,
    mood: Mood,
    documented: Documented,
    shapes: Vec<Shape>,
    tagged: Tagged,
    content: Content,
    untagged: Vec<Untagged>,
    map: BTreeMap<String, Mood>,
    numbers: BTreeMap<u32, bool>,
    tree: Tree,
    pair: (u8, String),
    three: [u8; 3],
    any: Value,
    unit: (),
    empty: Empty,
    newtype: Newtype,
    nest: Nest,
    folder: Folder,
    odd_ones: Vec<Odd>,
    any_ones: Vec<AnyOne>,
    rows: Vec<Vec<String>>,
    #[serde(flatten)]
    flat: Flat,
}

#[data]
#[derive(Debug, PartialEq, Clone)]
enum Mood {
    Good,
    #[serde(rename = "not-so good")]
    Bad,
}

#[data]
#[derive(Debug, PartialEq, Clone)]
enum Documented {
    /// The first.
    First,
    /// The second.
    Second,
}

/// A shape.
#[data]
#[derive(Debug, PartialEq, Clone)]
enum Shape {
    Empty,
    /// Round.
    Circle {
        radius: f64,
    },
    Square(f64),
    Line(u8, u8),
    Group(Vec<Shape>),
    Tree(Tree),
}

#[data]
#[derive(Debug, PartialEq, Clone)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Tagged {
    Circle {
        radius: f64,
    },
    Named(Flat),
    Nothing,
    #[serde(rename = "groß <&>")]
    Listed {
        lines: Vec<String>,
    },
}

#[data]
#[derive(Debug, PartialEq, Clone)]
#[serde(tag = "t", content = "c")]
enum Content {
    Number(u8),
    Text { text: String },
}

#[data]
#[derive(Debug, PartialEq, Clone)]
#[serde(untagged)]
enum Untagged {
    Number(u32),
    Text(String),
    Object { key: String },
    List(Vec<bool>),
}

#[data]
#[derive(Debug, PartialEq, Clone)]
struct Tree {
    label: String,
    #[serde(default)]
    children: Vec<Tree>,
    parent: Option<Box<Tree>>,
}

#[data]
#[derive(Debug, PartialEq, Clone)]
struct Flat {
    flat: String,
}

#[data]
#[derive(Debug, PartialEq, Clone)]
struct Empty {}

#[data]
#[derive(Debug, PartialEq, Clone)]
struct Newtype(u16);

/// A list of itself.
#[data]
#[derive(Debug, PartialEq, Clone)]
struct Nest(Vec<Nest>);

/// A map of lists of itself.
#[data]
#[derive(Debug, PartialEq, Clone)]
struct Folder(BTreeMap<String, Vec<Folder>>);

/// Names that JSON may write in several ways, and variants with null and with empty lists.
#[data]
#[derive(Debug, PartialEq, Clone)]
enum Odd {
    #[serde(rename = "größe <&> \"'😀")]
    Name,
    #[serde(rename = "Öl <&>")]
    Many(Vec<Odd>),
    Rows(Vec<Vec<String>>),
    Optional(Option<String>),
    OptionalTree {
        tree: Option<Tree>,
        rows: Option<Vec<Vec<String>>>,
    },
}

/// A choice of itself.
#[data]
#[derive(Debug, PartialEq, Clone)]
#[serde(untagged)]
enum AnyOne {
    Text(String),
    List(Vec<AnyOne>),
    Map(BTreeMap<String, AnyOne>),
}

/// A reason.
#[data]
#[derive(Debug, thiserror::Error)]
enum ShapeError {
    #[error("empty")]
    Empty,
    /// With a name.
    #[error("unknown")]
    Unknown { name: String },
    #[error("wrapped")]
    Wrapped(Tree),
}

#[data]
#[derive(Debug, thiserror::Error)]
#[error("{class}")]
struct PlainError {
    class: String,
}

fn everything() -> Everything {
    let leaf = leaf();
    let tree = Tree {
        label: "root".into(),
        children: vec![leaf.clone()],
        parent: Some(Box::new(leaf.clone())),
    };
    Everything {
        byte: 255,
        large: i64::MIN,
        number: 1.5,
        letter: 'ß',
        yes: true,
        text: None,
        most: 4,
        tags: vec!["a".into()],
        camel: "c".into(),
        odd: 1,
        keyword: 2,
        absent: None,
        mood: Mood::Bad,
        documented: Documented::Second,
        shapes: vec![
            Shape::Empty,
            Shape::Circle { radius: 0.5 },
            Shape::Square(2.5),
            Shape::Line(1, 2),
            Shape::Group(vec![Shape::Empty]),
            Shape::Tree(leaf),
        ],
        tagged: Tagged::Named(Flat { flat: "f".into() }),
        content: Content::Text { text: "t".into() },
        untagged: vec![
            Untagged::Number(7),
            Untagged::Text("t".into()),
            Untagged::Object { key: "k".into() },
            Untagged::List(vec![true]),
        ],
        map: BTreeMap::from([("a b".into(), Mood::Good)]),
        numbers: BTreeMap::from([(7, true)]),
        tree,
        pair: (1, "two".into()),
        three: [1, 2, 3],
        any: json!({ "x": [null, 1] }),
        unit: (),
        empty: Empty {},
        newtype: Newtype(9),
        nest: nest(),
        folder: folder(),
        odd_ones: odd_ones(),
        any_ones: vec![
            AnyOne::Text("<é>".into()),
            AnyOne::List(vec![AnyOne::List(Vec::new()), AnyOne::Text(String::new())]),
            AnyOne::Map(BTreeMap::from([("".into(), AnyOne::List(Vec::new()))])),
        ],
        rows: vec![Vec::new(), vec!["x".into()]],
        flat: Flat { flat: "flat".into() },
    }
}

fn nest() -> Nest {
    Nest(vec![Nest(Vec::new()), Nest(vec![Nest(Vec::new())])])
}

fn folder() -> Folder {
    let empty = Folder(BTreeMap::new());
    Folder(BTreeMap::from([("a".into(), vec![empty]), ("b <ü>".into(), Vec::new())]))
}

fn odd_ones() -> Vec<Odd> {
    vec![
        Odd::Name,
        Odd::Many(vec![Odd::Name, Odd::Many(Vec::new())]),
        Odd::Rows(vec![Vec::new(), vec!["a".into()]]),
        Odd::Optional(None),
        Odd::Optional(Some("null".into())),
        Odd::OptionalTree { tree: None, rows: Some(vec![Vec::new()]) },
        Odd::OptionalTree { tree: Some(leaf()), rows: None },
    ]
}

fn leaf() -> Tree {
    Tree { label: "leaf".into(), children: Vec::new(), parent: None }
}

fn tagged() -> [Tagged; 4] {
    [
        Tagged::Circle { radius: 0.25 },
        Tagged::Named(Flat { flat: "f".into() }),
        Tagged::Nothing,
        Tagged::Listed { lines: Vec::new() },
    ]
}

fn common() -> Common {
    let Everything { mood, documented, content, map, tree, any, .. } = everything();
    Common {
        byte: 255,
        bytes: vec![0, 255],
        large: i64::MIN,
        text: Some("<é>".into()),
        most: 4,
        odd: 1,
        mood,
        documented,
        tagged: tagged().into(),
        content,
        map,
        tree,
        any,
        empty: Empty {},
        newtype: Newtype(9),
        nest: nest(),
        folder: folder(),
        odd_ones: odd_ones(),
        rows: vec![Vec::new(), vec!["x".into()]],
        flat: Flat { flat: "flat".into() },
    }
}

/// Values that come back unchanged from each language, by service.
fn values() -> Value {
    // Numbers of JavaScript have 53 bits.
    let all = Everything { large: -(1 << 53) + 1, ..everything() };
    let [first, .., last] = tagged();
    let shapes = [
        all.clone(),
        Everything { tagged: first, absent: Some(Mood::Good), ..all.clone() },
        Everything { tagged: last, content: Content::Number(1), text: Some("x".into()), ..all },
    ];
    let plain = [
        common(),
        Common {
            bytes: Vec::new(),
            text: None,
            tagged: Vec::new(),
            content: Content::Number(1),
            map: BTreeMap::new(),
            any: Value::Null,
            nest: Nest(Vec::new()),
            folder: Folder(BTreeMap::new()),
            odd_ones: Vec::new(),
            rows: Vec::new(),
            ..common()
        },
    ];
    json!({ "shapes": shapes, "plain": plain })
}

fn described(services: &[Interface]) -> String {
    serde_json::to_string_pretty(&json!({ "services": services })).unwrap() + "\n"
}

fn services() -> [Interface; 2] {
    [ShapesClient::interface().clone(), PlainClient::interface().clone()]
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_files_that_the_checks_of_the_languages_use_are_current() {
    let pretty = |value: &Value| serde_json::to_string_pretty(value).unwrap() + "\n";
    for (name, text) in [
        ("shapes.json", described(&services())),
        ("values.json", pretty(&values())),
        ("names.json", format!("{}\n", names::description())),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/bindings").join(name);
        if std::env::var_os("UPDATE_SHAPES").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let is_current = fs::read_to_string(&path).is_ok_and(|it| it == text);
        assert!(is_current, "{name} is not current: run this test with UPDATE_SHAPES=1");
    }
}

#[test]
fn files_that_were_not_generated_stay() {
    let place = Place::new();
    let schema = place.file("shapes.json", described(&services()).as_bytes());
    let own = place.file("own.py", b"x = 1\n");
    let (schema, own) = (schema.to_str().unwrap(), own.to_str().unwrap());
    let bindings = |args: &[&str]| {
        place.pipeplug(["bindings", "--lang", "python", schema].iter().chain(args)).run()
    };
    bindings(&["--service", "plain", "--out", own]).exits(2).says("is not replaced");
    assert_eq!(fs::read_to_string(own).unwrap(), "x = 1\n");
    bindings(&["--service", "plain", "--check", own]).exits(1).says("differs from line 1");
    bindings(&["--out", "x.py"]).exits(2).says("several services");
    bindings(&["--service", "x"]).exits(2).says("there is no service \"x\"");
    let folder = place.path().join("all/");
    bindings(&["--out", &format!("{}/", folder.display())]).exits(0);
    let plain = folder.join("plain.py");
    bindings(&["--service", "plain", "--check", plain.to_str().unwrap()]).exits(0);
    // The same bytes each time, and a generated file is replaced.
    let first = fs::read(&plain).unwrap();
    fs::write(&plain, [&first[..], b"x"].concat()).unwrap();
    bindings(&["--service", "plain", "--check", plain.to_str().unwrap()]).exits(1);
    bindings(&["--service", "plain", "--out", plain.to_str().unwrap()]).exits(0);
    assert_eq!(fs::read(&plain).unwrap(), first);
}

#[test]
fn files_have_names_that_the_languages_take() {
    let place = Place::new();
    let schema = place.file("names.json", names::description().to_string().as_bytes());
    for (language, files) in [
        ("go", "init/init.go con_/con_.go foo_test/foo_test_service.go vendor_/vendor_.go"),
        ("python", "json_service.py class_service.py foo_test.py pipeplug_service.py"),
        ("typescript", "json.ts class.ts"),
    ] {
        let folder = place.path().join(language);
        let out = format!("{}/", folder.display());
        let args = ["bindings", "--lang", language, schema.to_str().unwrap(), "--out", &out];
        place.pipeplug(args).run().exits(0);
        for file in files.split(' ') {
            assert!(folder.join(file).exists(), "there is no {file} of {language}");
        }
    }
}

#[test]
fn arguments_of_two_methods_have_their_own_defaults() {
    let place = Place::new();
    let method = |name: &str, argument: &str, default: &str| {
        let texts = json!({ "type": "array", "items": { "type": "string" }, "default": [default] });
        let arguments = json!({ "type": "object", "properties": { argument: texts } });
        json!({ "name": name, "command": format!("x.{name}"), "docs": "@service", "arguments": arguments })
    };
    let methods = [method("a_b", "c", "first"), method("a", "b_c", "second")];
    let service = json!({ "name": "x", "version": 1, "oldest": 1, "methods": methods });
    let schema = json!({ "services": [service] }).to_string();
    let schema = place.file("x.json", schema.as_bytes());
    let args = ["bindings", "--lang", "python", schema.to_str().unwrap()];
    let code = place.pipeplug(args).run().exits(0);
    let code = code.text();
    let name = |default: &str| {
        let (before, _) = code.split_once(&format!(" = [\"{default}\"]\n")).unwrap();
        before.rsplit('\n').next().unwrap().split(':').next().unwrap().to_owned()
    };
    let (first, second) = (name("first"), name("second"));
    assert_ne!(first, second);
    // In the class of functions and in that of coroutines.
    assert_eq!(code.matches(&format!("c: List[str] = {first},")).count(), 2);
    assert_eq!(code.matches(&format!("b_c: List[str] = {second},")).count(), 2);
}

#[test]
fn a_type_that_is_not_expressed_is_named() {
    let place = Place::new();
    for (language, result, name) in [
        (
            "go",
            json!({ "type": "array", "prefixItems": [true], "minItems": 1, "maxItems": 1 }),
            "tuple",
        ),
        ("python", json!({ "type": ["string", "integer"] }), "several types"),
        ("typescript", json!({ "$ref": "#/$defs/None" }), "not there"),
        (
            "python",
            json!({ "type": "object", "properties": { "a": true }, "additionalProperties": { "type": "string" } }),
            "others with any name",
        ),
    ] {
        let method = json!({ "name": "odd", "command": "a.odd", "result": result });
        let services = json!({ "services": [{ "name": "a", "version": 1, "oldest": 1, "methods": [method] }] });
        let schema = place.file("a.json", services.to_string().as_bytes());
        let args = ["bindings", "--lang", language, schema.to_str().unwrap()];
        place.pipeplug(args).run().exits(2).says("the method \"odd\"").says(name);
    }
}

/// A description of a service `svc` with one method, whose argument is `A`.
fn with_definitions(definitions: &Value) -> String {
    with_argument(definitions, &json!({ "$ref": "#/$defs/A" }))
}

/// The same, with another argument that can be left out.
fn with_argument(definitions: &Value, argument: &Value) -> String {
    let arguments = json!({ "type": "object", "properties": { "x": argument } });
    let method = json!({ "name": "m", "command": "svc.m", "arguments": arguments });
    let service = json!({ "name": "svc", "version": 1, "oldest": 1, "methods": [method], "$defs": definitions });
    json!({ "services": [service] }).to_string()
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

const LANGUAGES: [&str; 3] = ["python", "typescript", "go"];

#[test]
fn a_type_that_is_a_part_of_itself_without_end_is_refused_with_its_cycle() {
    let place = Place::new();
    let (a, b, c) = (reference("A"), reference("B"), reference("C"));
    let field = |of: &Value| json!({ "type": "object", "properties": { "next": of }, "required": ["next"] });
    let or_null = |it: &Value| json!({ "anyOf": [it, { "type": "null" }] });
    let tuple =
        |it: &Value| json!({ "type": "array", "prefixItems": [it], "minItems": 1, "maxItems": 1 });
    let tagged = |it: &Value| {
        json!({ "oneOf": [{
            "type": "object", "properties": { "Neg": it }, "required": ["Neg"], "additionalProperties": false
        }] })
    };
    for (definitions, cycle) in [
        (json!({ "A": a }), "A -> A"),
        (json!({ "A": or_null(&a) }), "A -> A"),
        (json!({ "A": { "anyOf": [a, { "type": "string" }, { "type": "integer" }] } }), "A -> A"),
        (
            json!({ "A": or_null(&b), "B": { "anyOf": [c, { "type": "string" }, { "type": "boolean" }] }, "C": a }),
            "A -> B -> C -> A",
        ),
        (json!({ "A": { "allOf": [b, b] }, "B": { "allOf": [a, a] } }), "B -> A -> B"),
        (json!({ "A": field(&a) }), "A -> A"),
        (json!({ "A": field(&b), "B": field(&c), "C": field(&b) }), "B -> C -> B"),
        (json!({ "A": tuple(&a) }), "A -> A"),
        (json!({ "A": tagged(&b), "B": field(&a) }), "A -> B -> A"),
    ] {
        // A default once made the search for its type endless.
        let text = with_argument(&definitions, &json!({ "allOf": [a], "default": 5 }));
        let schema = place.file("a.json", text.as_bytes());
        for language in LANGUAGES {
            let args = ["bindings", "--lang", language, schema.to_str().unwrap()];
            let ran = place.pipeplug(args).run().exits(2).prints("");
            ran.says(" contains itself: ").says(cycle).says("put it into a list, a map or a field");
        }
    }
}

#[test]
fn a_type_may_have_itself_in_a_list_a_map_a_choice_and_an_optional_field() {
    let place = Place::new();
    let a = reference("A");
    let tagged = |tag: &str, it: &Value| json!({ "type": "object", "properties": { tag: it }, "required": [tag], "additionalProperties": false });
    let object = json!({ "type": "object", "properties": {
        "kids": { "type": "array", "items": a },
        "by_name": { "type": "object", "additionalProperties": a },
        "up": { "anyOf": [a, { "type": "null" }] },
        "down": a,
    }, "required": ["kids", "by_name", "up"] });
    for definitions in [
        json!({ "A": { "type": "array", "items": a } }),
        json!({ "A": { "type": "object", "additionalProperties": a } }),
        json!({ "A": { "oneOf": [tagged("Neg", &a), tagged("Lit", &json!({ "type": "integer" }))] } }),
        json!({ "A": object }),
    ] {
        let schema = place.file("a.json", with_definitions(&definitions).as_bytes());
        for language in LANGUAGES {
            let args = ["bindings", "--lang", language, schema.to_str().unwrap()];
            place.pipeplug(args).run().exits(0);
        }
    }
}

#[test]
fn a_small_description_that_stands_for_a_huge_one_is_refused() {
    let place = Place::new();
    // Each type is twice the next one.
    let number = 29;
    let chain = |of: &dyn Fn(Value) -> Value| -> Value {
        let mut all: serde_json::Map<_, _> =
            (0..number).map(|n| (format!("D{n}"), of(reference(&format!("D{}", n + 1))))).collect();
        all.insert(format!("D{number}"), json!({ "type": "object", "properties": { "v": true } }));
        all.insert("A".into(), reference("D0"));
        Value::Object(all)
    };
    let joined = chain(&|next| json!({ "allOf": [next, next] }));
    let schema = place.file("joined.json", with_definitions(&joined).as_bytes());
    for language in LANGUAGES {
        let args = ["bindings", "--lang", language, schema.to_str().unwrap()];
        place.pipeplug(args).run().exits(2).says("the type D0 is too large").says("\"allOf\"");
    }
    let choices = chain(&|next| json!({ "anyOf": [next, next, { "type": "boolean" }] }));
    let text = with_argument(&choices, &json!({ "allOf": [reference("A")], "default": 5 }));
    let schema = place.file("choices.json", text.as_bytes());
    let args = ["bindings", "--lang", "python", schema.to_str().unwrap()];
    place.pipeplug(args).run().exits(2).says("the default 5, which is too large");
    // The search for types was once recursive.
    let mut names: serde_json::Map<_, _> = (0..50_000)
        .map(|n| {
            (
                format!("D{n}"),
                json!({ "anyOf": [reference(&format!("D{}", n + 1)), { "type": "null" }] }),
            )
        })
        .collect();
    names.insert("D50000".into(), json!({ "type": "string" }));
    let text = with_argument(
        &Value::Object(names),
        &json!({ "allOf": [reference("D0")], "default": "x" }),
    );
    let schema = place.file("names.json", text.as_bytes());
    let args = ["bindings", "--lang", "python", schema.to_str().unwrap()];
    place.pipeplug(args).run().exits(2).says("more than 64 times");
}

#[test]
fn the_middle_of_a_long_place_is_left_out() {
    let place = Place::new();
    let deep =
        (0..55).fold(json!({ "type": "odd" }), |it, _| json!({ "type": "array", "items": it }));
    let schema = place.file("a.json", with_definitions(&json!({ "A": deep })).as_bytes());
    let args = ["bindings", "--lang", "go", schema.to_str().unwrap()];
    place.pipeplug(args).run().exits(2).says(
        "the service svc: an item of an item of an item of … of an item of an item of the type A has the \
         unknown type \"odd\"",
    );
}

#[test]
fn what_is_no_regular_file_is_not_opened() {
    let place = Place::new();
    let text = with_definitions(&json!({ "A": { "type": "string" } }));
    let schema = place.file("a.json", text.as_bytes());
    let fifo = place.fifo("fifo");
    for path in [Path::new("/dev/full"), Path::new("/dev/zero"), &fifo] {
        let args = ["bindings", "--lang", "python", schema.to_str().unwrap()];
        let with = |option| args.into_iter().chain([option, path.to_str().unwrap()]);
        let ran = place.pipeplug(with("--out")).run().exits(2);
        ran.says("is no regular file; leave out --out to write to standard output");
        place.pipeplug(with("--check")).run().exits(2).says("is no regular file");
    }
    // A directory that has such a file.
    let folder = place.path().join("all");
    fs::create_dir(&folder).unwrap();
    nix::unistd::mkfifo(&folder.join("svc.py"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let args = ["bindings", "--lang", "python", schema.to_str().unwrap(), "--out"];
    place.pipeplug(args.iter().copied().chain([folder.to_str().unwrap()])).run().exits(2);
}

#[test]
fn nothing_is_written_if_one_file_cannot_be() {
    let place = Place::new();
    let all = services();
    let folder = place.path().join("all");
    fs::create_dir(&folder).unwrap();
    let run = |services: &[Interface]| {
        let schema = place.file("all.json", described(services).as_bytes());
        let args = ["bindings", "--lang", "python", schema.to_str().unwrap(), "--out"];
        place.pipeplug(args.iter().copied().chain([folder.to_str().unwrap()])).run()
    };
    run(&[all[0].clone(), all[0].clone()]).exits(2).says("two services \"shapes\"");
    fs::write(folder.join("plain.py"), "x = 1\n").unwrap();
    run(&all).exits(2).says("plain.py is not replaced");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(left, ["plain.py"]);
}

#[test]
fn ends_of_lines_that_differ_are_named() {
    let place = Place::new();
    let schema = place.file("all.json", described(&services()[1..]).as_bytes());
    let file = place.path().join("plain.py");
    let (schema, path) = (schema.to_str().unwrap(), file.to_str().unwrap());
    let bindings =
        |option| place.pipeplug(["bindings", "--lang", "python", schema, option, path]).run();
    bindings("--out").exits(0);
    let code = fs::read_to_string(&file).unwrap();
    for changed in [code.replace('\n', "\r\n"), code.trim_end().to_owned()] {
        fs::write(&file, changed).unwrap();
        bindings("--check").exits(1).says("only its ends of lines differ");
        bindings("--out").exits(0);
        assert_eq!(fs::read_to_string(&file).unwrap(), code);
    }
    fs::write(&file, code.clone() + "\n").unwrap();
    bindings("--check")
        .exits(1)
        .says(&format!("differs from line {} on", code.lines().count() + 1));
}

#[test]
fn a_file_that_is_no_description_is_named_with_the_place() {
    let place = Place::new();
    let text = with_definitions(&json!({ "A": { "type": "string" } }));
    let go = |name: &str, bytes: &[u8]| {
        let schema = place.file(name, bytes);
        place.pipeplug(["bindings", "--lang", "go", schema.to_str().unwrap()]).run()
    };
    let no_description = |name: &str, bytes: &[u8], problem: &str| {
        go(name, bytes).exits(2).says("is no description of services").says(problem);
    };
    go("mark.json", &[b"\xef\xbb\xbf", text.as_bytes()].concat()).exits(0);
    go("without_ending", &[b"\n", text.as_bytes()].concat()).exits(0);
    no_description("list.json", b" [{}]", "begins with \"[\" in place of \"{\" at line 1 column 2");
    no_description("empty", b"", "it is empty");
    no_description("cut", &text.as_bytes()[..40], "at line 1 column 40");
    no_description("notes.txt", b"hello", "begins with \"h\"");
    let empty = place.file("none.json", br#"{ "services": [] }"#);
    for more in [&[][..], &["--service", "x"]] {
        let args = ["bindings", "--lang", "go", empty.to_str().unwrap()];
        let ran = place.pipeplug(args.iter().chain(more)).run().exits(2);
        ran.says_only("pipeplug: the description has no services\n");
    }
    // What is a plugin by its first bytes stays one.
    go("script", b"#!/bin/sh\n").exits(4).says("chmod +x");
}

#[test]
fn a_plugin_of_several_files_gets_what_the_error_names() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    place.file("words.sh", b"WORDS=1\n");
    let body = format!(". \"${{0%/*}}/words.sh\" || exit 3\n{MIRROR}");
    let path = place.standard("several", &body);
    let (path, folder) = (path.to_str().unwrap(), place.path().to_str().unwrap());
    let lock = place.path().join("lock.toml");
    for command in [
        &["bindings", "--lang", "go", path][..],
        &["diff", path, path],
        &["pin", "--interface", "--lock-file", lock.to_str().unwrap(), path],
    ] {
        let with = |more: &[&str]| place.pipeplug(command.iter().chain(more)).run();
        let refused = with(&[]).says("--sandbox none starts it without one").says("--sandbox-read");
        assert_ne!(refused.code, Some(0));
        for more in [&["--sandbox", "none"][..], &["--sandbox-read", folder]] {
            let ran = with(more);
            // It starts, and has no services.
            assert!(command[0] == "pin" || ran.stderr.contains("has no typed services"), "{ran:?}");
            assert!(!ran.stderr.contains("sandbox"), "{ran:?}");
        }
        with(&["--sandbox", "none", "--sandbox-read", folder]).exits(2).says("needs a sandbox");
    }
    // Any other option of `inspect`, and arguments of the plugin.
    let args = ["bindings", "--lang", "go", path, "--sandbox", "none", "--format", "classic"];
    place.pipeplug(args.into_iter().chain(["--timeout", "1s"])).run().says("leave --format out");
}

#[test]
fn code_in_typescript_imports_the_library_from_where_it_is() {
    let place = Place::new();
    let schema =
        place.file("a.json", with_definitions(&json!({ "A": { "type": "string" } })).as_bytes());
    let bindings = |language, more: &[&str]| {
        let args = ["bindings", "--lang", language, schema.to_str().unwrap()];
        place.pipeplug(args.iter().chain(more)).run()
    };
    let code = bindings("typescript", &[]).exits(0);
    assert!(code.text().contains("\n} from \"pipeplug\";\n"), "{code:?}");
    let code = bindings("typescript", &["--import", "./pipeplug.js"]).exits(0);
    assert!(code.text().contains("\n} from \"./pipeplug.js\";\n"), "{code:?}");
    // The text cannot end the literal.
    let code = bindings("typescript", &["--import", "a\"b"]).exits(0);
    assert!(code.text().contains("\n} from \"a\\\"b\";\n"), "{code:?}");
    bindings("typescript", &["--import", ""]).exits(2).prints("").says("--import is empty");
    for language in ["python", "go"] {
        let ran = bindings(language, &["--import", "./pipeplug.js"]).exits(2).prints("");
        ran.says("--import is for TypeScript only").says("leave --import out");
    }
}

#[test]
fn a_dash_is_standard_output() {
    let place = Place::new();
    let schema = place.file("all.json", described(&services()).as_bytes());
    let bindings = |more: &[&str]| {
        let args = ["bindings", "--lang", "go", schema.to_str().unwrap()];
        let mut run = place.pipeplug(args.iter().chain(more));
        run.command.current_dir(place.path());
        run.run()
    };
    let printed = bindings(&["--service", "plain"]).exits(0);
    bindings(&["--service", "plain", "--out", "-"]).exits(0).prints(printed.text());
    bindings(&["--out", "-"]).exits(2).says("there are several services");
    assert!(!place.path().join("-").exists());
}

#[test]
fn only_a_file_whose_first_line_is_the_header_is_replaced() {
    let place = Place::new();
    let schema = place.file("all.json", described(&services()[1..]).as_bytes());
    let header = "Code generated by pipeplug bindings. DO NOT EDIT.";
    let write = |old: &str| {
        let file = place.file("own.py", old.as_bytes());
        let args = ["bindings", "--lang", "python", schema.to_str().unwrap(), "--out"];
        (place.pipeplug(args.iter().copied().chain([file.to_str().unwrap()])).run(), file)
    };
    for old in [
        format!("# Unlike files with \"{header}\"\nx = 1\n"),
        format!("# {header} Or do.\n"),
        format!("x = 1\n# {header}\n"),
        format!("{header}\n"),
        format!("\n# {header}\n"),
    ] {
        let (ran, file) = write(&old);
        ran.exits(2).says("is not replaced").says("its first line is not the comment");
        assert_eq!(fs::read_to_string(file).unwrap(), old);
    }
    for old in [
        String::new(),
        format!("# {header}"),
        format!("# {header}\r\nx = 1\r\n"),
        format!("// {header}\nx\n"),
        format!("\u{feff}# {header}\nx\n"),
    ] {
        let (ran, file) = write(&old);
        ran.exits(0);
        assert!(fs::read_to_string(file).unwrap().contains("class Plain"), "{old}");
    }
}

#[test]
fn a_choice_of_nothing_is_refused() {
    let place = Place::new();
    let list = |it: Value| json!({ "type": "array", "items": it });
    for key in ["oneOf", "anyOf"] {
        let empty = json!({ key: [] });
        let object = json!({ "type": "object", "properties": { "a": true }, key: [] });
        let variants = json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }, empty] });
        for schema in [
            empty.clone(),
            list(empty.clone()),
            object,
            variants,
            json!({ "allOf": [empty, { "type": "object" }] }),
            json!({ "const": "x", key: [] }),
            json!({ "type": "string", key: {} }),
        ] {
            // In a definition, and inline.
            for text in [
                with_definitions(&json!({ "A": schema })),
                with_argument(&json!({}), &list(schema.clone())),
            ] {
                let file = place.file("a.json", text.as_bytes());
                for language in LANGUAGES {
                    let args = ["bindings", "--lang", language, file.to_str().unwrap()];
                    let ran = place.pipeplug(args).run().exits(2).prints("");
                    ran.says(&format!("{key:?}: ")).says("allows no value");
                }
            }
        }
    }
}

#[test]
fn nulls_are_null_and_a_reference_may_have_more_beside_it() {
    let place = Place::new();
    let none = json!({ "type": "null" });
    let text = json!({ "type": "string" });
    let field =
        |it: &Value| json!({ "type": "object", "properties": { "a": it }, "required": ["a"] });
    for (schema, kind) in [
        (json!({ "oneOf": [none] }), "null"),
        (json!({ "oneOf": [none, none] }), "null"),
        (json!({ "anyOf": [none, none, none] }), "null"),
        (json!({ "anyOf": [none, text, none] }), "string | null"),
        (json!({ "$ref": "#/$defs/B", "minLength": 1 }), "string"),
    ] {
        for (definitions, line) in [
            (json!({ "A": schema, "B": text }), format!("export type A = {kind};\n")),
            (json!({ "A": field(&schema), "B": text }), format!("{kind};\n")),
        ] {
            let file = place.file("a.json", with_definitions(&definitions).as_bytes());
            for language in LANGUAGES {
                let args = ["bindings", "--lang", language, file.to_str().unwrap()];
                let code = place.pipeplug(args).run().exits(0);
                let is_there = language != "typescript" || code.text().contains(&line);
                assert!(is_there, "{definitions}: {line} is not in {code:?}");
            }
        }
    }
}

#[test]
fn a_default_that_needs_itself_is_refused_in_python() {
    let place = Place::new();
    let object = |of: &str, default: Value| {
        json!({ "type": "object", "required": ["x"], "properties": {
            "x": { "type": "integer" },
            "n": { "allOf": [reference(of)], "default": default },
        } })
    };
    let list = |default: Value| {
        json!({ "type": "object", "properties": {
            "n": { "type": "array", "items": reference("a"), "default": default },
        } })
    };
    let run = |definitions: &Value| {
        let definitions = &mut definitions.clone();
        definitions["A"] = reference("a");
        let file = place.file("a.json", with_definitions(definitions).as_bytes());
        let args = ["bindings", "--lang", "python", file.to_str().unwrap()];
        place.pipeplug(args).run()
    };
    let x = || json!({ "x": 1 });
    let deeper = json!({ "x": 1, "n": { "x": 2 } });
    for (definitions, cycle) in [
        (json!({ "a": object("a", x()) }), ": a.n -> a.n;"),
        (json!({ "a": object("a", deeper) }), ": a.n -> a.n;"),
        (json!({ "a": object("b", x()), "b": object("a", x()) }), ": a.n -> b.n -> a.n;"),
        (json!({ "a": list(json!([{}])) }), ": a.n -> a.n;"),
    ] {
        let ran = run(&definitions).exits(2).prints("");
        ran.says("the field \"n\" of a has the default").says(cycle);
    }
    let whole = json!({ "x": 1, "n": { "x": 2, "n": null } });
    let or_null = json!({ "type": "object", "required": ["x"], "properties": {
        "x": { "type": "integer" },
        "n": { "anyOf": [reference("a"), { "type": "null" }], "default": whole },
    } });
    let b = json!({ "type": "object", "required": ["x"], "properties": { "x": { "type": "integer" } } });
    for definitions in [
        json!({ "a": or_null }),
        json!({ "a": list(json!([])) }),
        json!({ "a": list(json!([{ "n": [] }])) }),
        json!({ "a": object("b", x()), "b": b }),
    ] {
        run(&definitions).exits(0);
    }
}

#[test]
fn versions_in_the_wrong_order_are_refused() {
    let place = Place::new();
    let services =
        json!({ "services": [{ "name": "a", "version": 2, "oldest": 3, "methods": [] }] });
    let file = place.file("a.json", services.to_string().as_bytes());
    for language in LANGUAGES {
        let args = ["bindings", "--lang", language, file.to_str().unwrap()];
        let ran = place.pipeplug(args).run().exits(2).prints("");
        ran.says("its oldest version, 3, is newer than its version, 2");
    }
}

#[test]
fn messages_have_the_names_of_the_description() {
    let place = Place::new();
    let tuple = json!({ "type": "array", "prefixItems": [true], "minItems": 1, "maxItems": 1 });
    let field =
        |it: &Value| json!({ "type": "object", "properties": { "f": it }, "required": ["f"] });
    let empty = json!({ "type": "array", "maxItems": 0 });
    let untagged = json!({ "oneOf": [{ "type": "string" }, { "type": "integer" }] });
    for (language, schema, message) in [
        ("go", tuple.clone(), "the type my_type is a tuple"),
        ("go", field(&tuple), "the field \"f\" of my_type is a tuple"),
        ("go", untagged, " of my_type has no tag"),
        (
            "go",
            field(&reference("my_type")),
            "the type my_type contains itself: my_type -> my_type",
        ),
        ("python", empty.clone(), "the type my_type has an empty tuple"),
        ("python", field(&empty), "the field \"f\" of my_type has an empty tuple"),
    ] {
        let text = with_argument(&json!({ "my_type": schema }), &reference("my_type"));
        let file = place.file("a.json", text.as_bytes());
        let args = ["bindings", "--lang", language, file.to_str().unwrap()];
        place.pipeplug(args).run().exits(2).says(message);
    }
    let text = with_argument(&json!({}), &tuple);
    let file = place.file("a.json", text.as_bytes());
    let args = ["bindings", "--lang", "go", file.to_str().unwrap()];
    place.pipeplug(args).run().exits(2).says("the field \"x\" of the method \"m\" is a tuple");
}

#[cfg(target_os = "linux")]
#[test]
fn sigterm_ends_the_command_before_it_has_written() {
    use std::os::unix::process::ExitStatusExt as _;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let place = Place::new();
    let method = |n| {
        let arguments = json!({ "type": "object", "properties": { "x": { "type": "string" } } });
        json!({ "name": format!("m{n}"), "command": format!("a.m{n}"), "arguments": arguments })
    };
    let methods: Vec<_> = (0..60_000).map(method).collect();
    let service = json!({ "name": "a", "version": 1, "oldest": 1, "methods": methods });
    let text = json!({ "services": [service] }).to_string();
    let schema = place.file("large.json", text.as_bytes());
    let out = place.path().join("a.py");
    let args = ["bindings", "--lang", "python", schema.to_str().unwrap(), "--out"];
    let mut run = place.pipeplug(args.iter().copied().chain([out.to_str().unwrap()]));
    let mut child = run.command.spawn().unwrap();
    let pid = Pid::from_raw(child.id().try_into().unwrap());
    // From then on SIGTERM is handled.
    let handles = || {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        caught >> (Signal::SIGTERM as i32 - 1) & 1 == 1
    };
    while !handles() {
        std::thread::yield_now();
    }
    kill(pid, Signal::SIGTERM).unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    assert!(!out.exists());
}

#[test]
fn values_of_rust_types_are_the_same_after_a_way_through_python() {
    let python = Command::new("python3")
        .args(["-c", "import sys; assert sys.version_info >= (3, 9)"])
        .status();
    if !python.is_ok_and(|it| it.success()) {
        assert!(std::env::var_os("CI").is_none(), "python3, 3.9 or newer, is missing");
        return;
    }
    let place = Place::new();
    let schema = place.file("shapes.json", described(&services()).as_bytes());
    let module = place.path().join("shapes.py");
    let schema = schema.to_str().unwrap();
    let args = [
        "bindings",
        "--lang",
        "python",
        "--service",
        "shapes",
        schema,
        "--out",
        module.to_str().unwrap(),
    ];
    place.pipeplug(args).run().exits(0);
    let sdk = repository().join("sdk/python/src").canonicalize().unwrap();
    let plugin = format!(
        "#!/usr/bin/env python3
import json, sys
sys.path[:0] = [{sdk:?}, {folder:?}]
from pipeplug import Guest
import shapes

class Mine(shapes.Shapes):
    def same(self, value):
        assert isinstance(value, shapes.Everything)
        assert isinstance(value.tree.children[0], shapes.Tree)
        assert value.shapes[1].radius == 0.5 and value.shapes[2].value == 2.5
        if value.byte == 0:
            raise shapes.ShapeErrorUnknown(name='zero').with_message('it is zero')
        if value.byte == 1:
            raise shapes.ShapeErrorWrapped(value.tree)
        return value
    def class_(self, from_, import_=(), type_=None):
        return shapes.ShapeCircle(radius=len(from_) + len(import_))
    def words(self, most=3):
        return iter('abcdef'[:most])
    def turn(self, items):
        for lines in items:
            if lines == ['fail']:
                raise shapes.ShapeErrorUnknown(name='<ü>')
            yield [shapes.Tree(label=line) for line in lines]

def host(path):
    from pipeplug import Plugin
    from pipeplug._types import from_json
    with Plugin.start(path) as plugin:
        client = plugin.client(shapes.Shapes)
        for value in json.load(sys.stdin)['shapes']:
            value = from_json(shapes.Everything, value)
            assert client.same(value) == value
        trees = [[tree.label for tree in trees] for trees in client.turn(iter([[], ['a', 'b']]))]
        assert trees == [[], ['a', 'b']], trees
        try:
            list(client.turn(iter([['fail']])))
            raise SystemExit('no error')
        except shapes.ShapeErrorUnknown as error:
            assert error.name == '<ü>'

if sys.argv[1:] == ['host']:
    host(sys.argv[0])
else:
    guest = Guest('shapes')
    guest.service(Mine())
    guest.run()
",
        folder = place.path()
    );
    let path = place.executable("shapes-plugin", &plugin);
    let call = |method: &str, data: &Value| {
        let args = ["run", path.to_str().unwrap(), "--sandbox", "none", "--call", method];
        place.pipeplug(args.map(str::to_owned).into_iter().chain([data.to_string()])).run()
    };
    let value = everything();
    let others: Vec<Everything> = serde_json::from_value(values()["shapes"].clone()).unwrap();
    for value in others.iter().chain([&value]) {
        let back = call("shapes.same", &json!({ "value": value })).exits(0);
        assert_eq!(serde_json::from_str::<Everything>(back.text()).unwrap(), *value);
    }
    // And from Python to Python.
    let mut host = Command::new(&path);
    host.arg("host").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut host = host.spawn().unwrap();
    host.stdin.take().unwrap().write_all(values().to_string().as_bytes()).unwrap();
    let output = host.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let zero = json!({ "value": Everything { byte: 0, ..value.clone() } });
    call("shapes.same", &zero).exits(1);
    let shape = call("shapes.class", &json!({ "from": "abc", "import": ["x"] })).exits(0);
    assert_eq!(serde_json::from_str::<Shape>(shape.text()).unwrap(), Shape::Circle { radius: 4.0 });
}
