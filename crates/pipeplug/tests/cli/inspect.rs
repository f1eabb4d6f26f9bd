//! `pipeplug inspect`.

use crate::common::{MIRROR, Place, pipeplug};

#[test]
fn a_table_says_what_is_known() {
    let ran = pipeplug(["inspect", "@echo"]).run().exits(0).says_only("");
    let value = |key: &str| {
        let line = ran.text().lines().find(|line| line.starts_with(&format!("{key} "))).expect(key);
        line[key.len()..].trim().to_owned()
    };
    assert_eq!(value("plugin"), "echo");
    assert_eq!(value("format"), "standard");
    assert_eq!(value("protocol"), "1");
    assert!(value("pid").parse::<u32>().unwrap() > 1);
    assert!(value("started in").contains('s'));
    assert!(value("features").contains("flow"));
    assert!(value("Description").starts_with("answers what it is told"));
}

#[test]
fn json_is_one_object() {
    let place = Place::new();
    let path = place.classic("old", MIRROR);
    let ran = place
        .pipeplug(["inspect", path.to_str().unwrap(), "--format", "classic", "--json"])
        .run()
        .exits(0);
    let objects = ran.says_only("").json();
    assert_eq!(objects.len(), 1);
    assert_eq!(objects[0]["metadata"]["Description"], "a mirror");
    assert_eq!(objects[0]["format"], "classic");
    assert_eq!(objects[0]["path"], path.to_str().unwrap());
    assert!(objects[0]["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_plugin_that_says_nothing_is_said_to() {
    let place = Place::new();
    let path = place.standard("silent", "recv; send 3 cmd.error 'unknown command'; recv; exit 0");
    let ran = place.pipeplug(["inspect", path.to_str().unwrap()]).run().exits(0);
    assert!(ran.text().contains("The plugin has no metadata of its own.\n"), "{}", ran.text());
    assert!(ran.text().contains("protocol    (not given)\n"), "{}", ran.text());
}

#[test]
fn what_it_says_cannot_steer_the_terminal() {
    let place = Place::new();
    let path =
        place.standard("rude", r#"recv; send 3 x '{"Help\u001b":"a\u001b[2Jb\nc"}'; recv; exit 0"#);
    let ran = place.pipeplug(["inspect", path.to_str().unwrap()]).run().exits(0);
    assert!(ran.text().contains("Help\\u{1b}  a\\u{1b}[2Jb\\nc\n"), "{}", ran.text());
}

#[test]
fn the_options_of_how_to_start_are_those_of_run() {
    let args = [
        "inspect",
        "@echo",
        "--stdio",
        "--format",
        "classic",
        "--timeout",
        "60s",
        "--env",
        "A=b",
        "--json",
        "--",
        "x",
    ];
    assert_eq!(pipeplug(args).run().exits(0).json()[0]["format"], "classic");
    pipeplug(["inspect", "/nonexistent/x"]).run().exits(3);
}
