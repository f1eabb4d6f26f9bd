//! The log of a plugin.

use crate::common::{ANSWERS, Place, pipeplug};

#[test]
fn json_of_a_usual_library_is_shown_as_text() {
    pipeplug(["run", "@echo", "--call", "event", "warn slow\u{1b}"])
        .run()
        .exits(0)
        .says_only("echo: WARN pipeplug::builtin::echo: slow\\u{1b} {\"count\":1}\n");
    // Any other text is as it is.
    let text = r#"{"a":1}"#;
    let said = format!("echo: {text}\n");
    pipeplug(["run", "@echo", "--call", "log", text]).run().exits(0).says_only(&said);
    // For programs, the line is what the plugin wrote.
    let ran = pipeplug(["run", "@echo", "--json", "--call", "event", "error no"]).run().exits(0);
    let events = ran.json();
    let line = events.iter().find(|event| event["event"] == "stderr").unwrap();
    assert!(line["line"].as_str().unwrap().starts_with("{\"timestamp\":"), "{line}");
}

#[test]
fn the_level_is_an_option() {
    let calls = ["--call", "event", "debug a", "--call", "event", "info b"];
    for (level, shown) in
        [("debug", &["DEBUG", "INFO"][..]), ("info", &["INFO"]), ("warn", &[]), ("off", &[])]
    {
        let options = ["run", "@echo", "--log-level", level];
        let ran = pipeplug([&options[..], &calls].concat()).run().exits(0);
        let of_echo = ran.stderr.lines().filter(|line| line.contains("pipeplug::builtin::echo"));
        let levels: Vec<_> = of_echo.filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(levels, shown, "{level}: {}", ran.stderr);
    }
    pipeplug(["run", "@echo", "--log-level", "loud"])
        .run()
        .exits(2)
        .says("there is no such log level: off, error, warn, info, debug and trace are");
}

#[test]
fn a_plugin_that_sets_its_level_by_itself_is_told_of() {
    let place = Place::new();
    let plugin = place.standard("base", ANSWERS);
    let plugin = plugin.to_str().unwrap();
    pipeplug(["run", plugin, "--log-level", "debug", "--call", "a"])
        .run()
        .exits(0)
        .says("base does not take the level of its log from its host: --log-level has no effect\n");
}
