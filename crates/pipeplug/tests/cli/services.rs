//! Typed services: `inspect`, checked calls, `diff`, and interfaces in a lock file.

use std::fs;
use std::path::PathBuf;

use pipeplug_service::{Client as _, Interface, StreamIn, StreamOut, data, service};
use serde_json::{Value, json};

use crate::common::{MIRROR, Place};

/// Spelling.
///
/// In one language.
#[service(version = 3, oldest = 2)]
#[expect(dead_code, reason = "only its description is used")]
trait Spell {
    /// Suggestions for a word, best first.
    ///
    /// At most `most` of them.
    fn suggest(
        &self,
        /// The word as it was written.
        word: String,
        #[serde(default = "three")] most: u32,
        #[serde(default)] tags: Vec<u8>,
    ) -> Result<Vec<String>, SpellError>;
    /// Mistakes of a text.
    fn check(&self, language: String, text: StreamIn<Line>) -> StreamOut<Typo>;
    #[one_way]
    fn learn(&self, word: String);
}

fn three() -> u32 {
    3
}

/// Reason that there are no suggestions.
#[data]
#[derive(Debug, thiserror::Error)]
enum SpellError {
    #[error("there is no word {word:?}")]
    Unknown { word: String },
    #[error("the dictionary is empty")]
    Empty,
}

#[data]
#[derive(Debug)]
struct Line {
    number: u32,
    text: String,
}

/// A mistake.
#[data]
#[derive(Debug)]
struct Typo {
    line: u32,
    word: String,
}

/// A second service.
#[service(version = 1)]
#[expect(dead_code, reason = "only its description is used")]
trait Admin {
    fn reset(&self);
}

pub(crate) fn spell() -> Interface {
    SpellClient::interface().clone()
}

fn described(services: &[Interface]) -> String {
    json!({ "services": services }).to_string()
}

/// A plugin that answers each call with what it was sent.
pub(crate) fn plugin(place: &Place, name: &str, services: &[Interface]) -> PathBuf {
    let names: Vec<_> = services.iter().map(|one| one.service_name().to_string()).collect();
    place.file(&format!("{name}.json"), described(services).as_bytes());
    let file = place.path().join(format!("{name}.json"));
    let body = format!(
        r#"
description=$(cat {file:?})
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{{"pipeplug.services":"{}"}}' ;;
    GetServices) echo described >&2; send 3 "$cmd" "$description" ;;
    *) send 3 "$cmd" "<$cmd $data>" ;;
    esac
done
"#,
        names.join(" ")
    );
    place.standard(name, &body)
}

/// Arguments of a call of the plugin in this place.
fn call<'a>(plugin: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["run", plugin, "--call"], rest].concat()
}

#[test]
fn inspect_lists_methods_with_types_and_docs() {
    let place = Place::new();
    let path = plugin(&place, "spell", &[spell(), AdminClient::interface().clone()]);
    // The sandbox lets the shell read the description only if it is granted.
    let args = ["inspect", path.to_str().unwrap(), "--sandbox", "none"];
    let ran = place.pipeplug(args).run().exits(0);
    let expected = "
service spell, version 3
  Serves callers of version 2 too.
  Spelling.

  spell.suggest(word: string, most: integer = 3, tags: [integer] = []) -> [string], or SpellError
      Suggestions for a word, best first.
        word  The word as it was written.

  spell.check(language: string, stream of Line) -> stream of Typo
      Mistakes of a text.

  spell.learn(word: string), one-way

  types
    Line = {number: integer, text: string}
    SpellError = \"Empty\" | {Unknown: {word: string}}
        Reason that there are no suggestions.
    Typo = {line: integer, word: string}
        A mistake.

service admin, version 1
  A second service.

  admin.reset()
";
    ran.prints_part(expected);

    let ran = place.pipeplug([&args[..], &["--schema"]].concat()).run().exits(0);
    let schema: Value = serde_json::from_str(ran.text()).unwrap();
    assert_eq!(schema["services"][0], json!(spell()));
    let ran = place.pipeplug([&args[..], &["--json"]].concat()).run().exits(0);
    assert_eq!(ran.json()[0]["services"], schema["services"]);
}

#[test]
fn a_plugin_without_services_has_no_schema() {
    let place = Place::new();
    let path = place.standard("mirror", MIRROR);
    let path = path.to_str().unwrap();
    place
        .pipeplug(["inspect", path, "--schema"])
        .run()
        .exits(1)
        .prints("")
        .says("mirror has no typed services, which its metadata would list as pipeplug.services");
    let ran = place.pipeplug(["inspect", path, "--json"]).run().exits(0);
    assert_eq!(ran.json()[0].get("services"), None);
}

#[test]
fn arguments_that_fit_are_sent() {
    let place = Place::new();
    plugin(&place, "spell", &[spell()]);
    for (rest, sent) in [
        (&["spell.suggest", r#"{ "word": "teh" }"#][..], r#"{ "word": "teh" }"#),
        (&["spell.suggest", "word=teh", "most=4"], r#"{"word":"teh","most":4}"#),
        (&["spell.suggest", "tags=[1, 2]", "word=a b"], r#"{"tags":[1, 2],"word":"a b"}"#),
        (&["spell.suggest", "word=7"], r#"{"word":"7"}"#),
    ] {
        place
            .pipeplug(call("./spell", rest))
            .in_place()
            .run()
            .exits(0)
            .prints(&format!("<spell.suggest {sent}>"));
    }
    place
        .pipeplug(call("./spell", &["spell.suggest", "@-"]))
        .in_place()
        .stdin(r#"{"word":"x"}"#)
        .run()
        .exits(0)
        .prints(r#"<spell.suggest {"word":"x"}>"#);
}

#[test]
fn arguments_that_do_not_fit_are_not_sent() {
    let place = Place::new();
    plugin(&place, "spell", &[spell()]);
    let signature = "  spell.suggest(word: string, most: integer = 3, tags: [integer] = []) -> \n      \
                     [string], or SpellError\n";
    let signature = signature.replace(" \n", "\n");
    let line = r#"  {"word":"teh","most":"three"}"#;
    let carets = "                       ^^^^^^^";
    place
        .pipeplug(call("./spell", &["spell.suggest", r#"{"word":"teh","most":"three"}"#]))
        .in_place()
        .run()
        .exits(2)
        .prints("")
        .says_only(&format!(
            "spell: described\npipeplug: spell.suggest: the argument \"most\" is \"three\", and \
             should be an integer from 0 to 4294967295, at line 1, column \
             22\n{line}\n{carets}\n{signature}"
        ));
    place
        .pipeplug(call("./spell", &["spell.suggest", "word=teh", "mots=3"]))
        .in_place()
        .run()
        .exits(2)
        .prints("")
        .says("there is no argument \"mots\"; did you mean \"most\"?\n  word=teh mots=3\n           ^^^^\n");
    for (rest, says) in [
        (
            &["spell.sugest", "word=a"][..],
            "there is no method \"sugest\" in the service \"spell\"; did you mean \"suggest\"?",
        ),
        (&["spell.forget"], "it has suggest, check, learn"),
        (&["spell.suggest"], "the argument \"word\" is missing: a string"),
        (&["spell.suggest", "teh"], "arguments are a JSON object, or NAME=VALUE"),
        // All calls are checked before the first is sent.
        (
            &["spell.suggest", "word=a", "--call", "spell.suggest", "word=b", "most=-1"],
            "\"most\" is -1",
        ),
        (
            &["spell.suggest", "word=a", "--notify", "spell.learn", "wrod=b"],
            "did you mean \"word\"?",
        ),
    ] {
        place.pipeplug(call("./spell", rest)).in_place().run().exits(2).prints("").says(says);
    }
    let file = place.file("lines.json", b"{\n  \"word\": \"x\",\n  \"most\": 1.5\n}");
    let data = format!("@{}", file.to_str().unwrap());
    place
        .pipeplug(call("./spell", &["spell.suggest", &data]))
        .in_place()
        .run()
        .exits(2)
        .says("at line 3, column 11\n    \"most\": 1.5\n            ^^^\n");
}

#[test]
fn a_mistake_has_its_place_in_json_events_too() {
    let place = Place::new();
    plugin(&place, "spell", &[spell()]);
    let args = call("./spell", &["spell.suggest", r#"{"word":1}"#, "--json"]);
    let ran = place.pipeplug(args).in_place().run().exits(2);
    let events = ran.json();
    let error = events.iter().find(|event| event["event"] == "error").unwrap();
    assert_eq!(error["command"], "spell.suggest");
    assert_eq!(error["code"], "invalid_argument");
    assert_eq!(error["data"], json!({ "field": "word", "line": 1, "column": 9 }));
    assert_eq!(error["exit_code"], 2);
}

#[test]
fn other_calls_are_as_they_were() {
    let place = Place::new();
    plugin(&place, "spell", &[spell()]);
    place.standard("mirror", MIRROR);
    // Nothing is asked for where nothing is checked.
    for (rest, sent) in [
        (&["plain", "word=teh"][..], "<plain word=teh>"),
        (&["other.suggest", "x"], "<other.suggest x>"),
        (&["other.suggest", "x=1"], "<other.suggest x=1>"),
        (&["spell.suggest@postcard:12", "x"], "<spell.suggest@postcard:12 x>"),
        (&["spell.suggest", "x", "--unchecked"], "<spell.suggest x>"),
    ] {
        place.pipeplug(call("./spell", rest)).in_place().run().exits(0).prints(sent).says_only("");
    }
    // Types make JSON of words that are not checked.
    place
        .pipeplug(call("./spell", &["spell.suggest", "word=7", "new=7", "--unchecked"]))
        .in_place()
        .run()
        .exits(0)
        .prints(r#"<spell.suggest {"word":"7","new":7}>"#);
    place
        .pipeplug(call("./mirror", &["a.b", "x=1"]))
        .in_place()
        .run()
        .exits(0)
        .prints("<a.b x=1>")
        .says_only("");
    place
        .pipeplug(call("./mirror", &["a.b", "x=1", "y=2"]))
        .in_place()
        .run()
        .exits(2)
        .prints("")
        .says("NAME=VALUE is for the typed services that a plugin describes");
}

#[test]
fn a_description_that_cannot_be_read_checks_nothing() {
    let place = Place::new();
    plugin(&place, "spell", &[spell()]);
    place.file("spell.json", b"[]");
    place
        .pipeplug(call("./spell", &["spell.suggest", "{}"]))
        .in_place()
        .run()
        .exits(0)
        .prints("<spell.suggest {}>")
        .says("arguments are not checked: spell does not describe its services");
    let inspect = ["inspect", "./spell", "--sandbox", "none"];
    let ran = place.pipeplug(inspect).in_place().run().exits(1);
    ran.prints_part("pipeplug.services  spell/2-3").says("spell does not describe its services");
    let schema = [&inspect[..], &["--schema"]].concat();
    place.pipeplug(schema).in_place().run().exits(1).prints("");
}

/// An older version: a method less, and an argument more.
fn older() -> Interface {
    let mut older = spell();
    older.methods.retain(|method| method.name != "learn");
    let arguments = older.methods[0].arguments.as_mut().unwrap();
    arguments["properties"]["most"] = json!({ "type": "integer", "format": "uint8", "default": 3 });
    older
}

#[test]
fn diff_says_what_an_update_breaks() {
    let place = Place::new();
    plugin(&place, "new", &[spell()]);
    place.file("old", described(&[older()]).as_bytes());
    let diff = |args: &[&str]| {
        let args = [&["diff", "--sandbox", "none"], args].concat();
        place.pipeplug(args).in_place().run()
    };
    let expected = "\
service spell, version 3
  breaks services: new callers need the new version
    suggest: argument \"most\" is uint32 instead of uint8
    learn: the method is new

0 changes break callers, 2 break services, 0 are compatible.
";
    diff(&["old", "./new"]).exits(0).prints(expected);
    let expected = "\
service spell, version 3
  breaks callers, which expect the old version
    suggest: argument \"most\" is uint8 instead of uint32
    learn: the method is gone
  The version says that callers of version 3 are served: it should be 4, with `oldest` 4.

2 changes break callers, 0 break services, 0 are compatible.
";
    diff(&["./new", "old"]).exits(1).prints(expected);
    let ran = diff(&["./new", "old", "--json"]).exits(1);
    let json = ran.json();
    assert_eq!(json[0]["breaks_callers"], 2);
    assert_eq!(
        json[0]["services"][0]["changes"][1],
        json!({ "method": "learn", "what": "the method is gone", "effect": "breaks_callers" })
    );
    diff(&["./new", "new.json"]).exits(0).prints_part("No differences.\n");
}

#[test]
fn diff_tells_apart_what_it_cannot_compare() {
    let place = Place::new();
    place.file("old", described(&[older()]).as_bytes());
    place.file("wrong", b"{\"services\": 3}");
    place.standard("mirror", MIRROR);
    let diff = |args: &[&str]| {
        place.pipeplug([&["diff", "--sandbox", "none"], args].concat()).in_place().run()
    };
    diff(&["old"]).exits(2).says("<NEW>");
    diff(&["old", "wrong"]).exits(2).says("is no description of services");
    diff(&["old", "nothing"]).exits(3);
    diff(&["old", "./mirror"]).exits(4).says("has no typed services");
    diff(&["--locked", "./mirror"]).exits(4).says("there is no lock file");
    diff(&["--locked", "@echo"]).exits(2).says("in no lock file");
}

#[test]
fn a_lock_file_pins_the_interface() {
    let place = Place::new();
    plugin(&place, "spell", &[spell()]);
    let run = |args: &[&str]| place.pipeplug(args).in_place().run();
    run(&["pin", "./spell"]).exits(0);
    run(&["diff", "--locked", "./spell"]).exits(4).says("has no interface of ./spell");
    run(&["pin", "--interface", "--sandbox", "none", "./spell"]).exits(0);
    let start = ["run", "--locked", "./spell", "--call", "echo", "x"];
    run(&start).exits(0).prints("<echo x>");
    run(&["diff", "--sandbox", "none", "--locked", "./spell"])
        .exits(0)
        .prints_part("No differences");

    // The file is the same, and what it reads is not.
    let file = place.path().join("spell.json");
    fs::write(&file, described(&[older()])).unwrap();
    run(&start).exits(4).prints("").says(
        "does not have the interface that is pinned in \"pipeplug.lock\": spell.suggest: argument \
         \"most\" is uint8 instead of uint32, spell.learn: the method is gone; if that is intended, \
         `pipeplug pin --interface` pins the new one",
    );
    run(&["diff", "--sandbox", "none", "--locked", "./spell"]).exits(1);
    fs::write(&file, described(&[])).unwrap();
    run(&start).exits(4).says("spell: the service is gone");
    // What is new breaks no caller.
    let mut newer = spell();
    newer.methods.extend(AdminClient::interface().methods.clone());
    fs::write(&file, described(&[newer])).unwrap();
    run(&start).exits(0);
    // A new sum keeps the interface.
    run(&["pin", "./spell"]).exits(0);
    run(&["diff", "--sandbox", "none", "--locked", "./spell"]).exits(0).prints_part("reset");
    place.standard("mirror", MIRROR);
    run(&["pin", "--interface", "--sandbox", "none", "./mirror"])
        .exits(1)
        .says("no typed services");
}
