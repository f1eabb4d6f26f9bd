//! `--config`: the configuration of a plugin.

use crate::common::{ANSWERS, Place, pipeplug};

#[test]
fn text_and_a_file_reach_the_plugin_as_they_are() {
    let place = Place::new();
    let file = place.file("config.json", b"\n {\"b\": 1,\n \"a\": [\"\\u00e4\"]}\n");
    let file = file.to_str().unwrap();
    for (arg, shown) in [
        (r#"{"b": 1}"#, r#"{"b":1}"#),
        (" [1, 2]", "[1,2]"),
        (r#""text""#, r#""text""#),
        (file, r#"{"a":["ä"],"b":1}"#),
    ] {
        for format in ["standard", "classic"] {
            let args = ["run", "@echo", "--format", format, "--config", arg, "--call", "config"];
            pipeplug(args).run().exits(0).prints(shown).says_only("");
        }
    }
    pipeplug(["run", "@echo", "--call", "config"]).run().exits(1).says("has no configuration");
}

#[test]
fn what_is_no_json_names_line_and_column_and_starts_nothing() {
    let place = Place::new();
    let file = place.file("config.json", b"{\"a\":\n  [1, secret]}");
    let file = file.to_str().unwrap();
    let run = |arg| pipeplug(["run", "@echo", "--config", arg, "--call", "log", "started"]).run();
    run("[1")
        .exits(2)
        .says_only("pipeplug: --config is no JSON: EOF while parsing a list at line 1 column 2\n");
    run(file).exits(2).says_only(&format!(
        "pipeplug: the configuration file {file} is no JSON: expected value at line 2 column 7\n"
    ));
    let expected = "--config takes the name of a file with JSON, or JSON text that begins with \
                    `{`, `[` or `\"`, as in --config settings.json or --config '{\"level\": 3}'\n";
    run("/nonexistent").exits(2).says_only(&format!(
        "pipeplug: cannot read the configuration file /nonexistent: No such file or directory (os \
         error 2); {expected}"
    ));
    for empty in ["", " \n"] {
        run(empty)
            .exits(2)
            .says_only(&format!("pipeplug: --config {empty:?} has nothing in it: {expected}"));
    }
    // As in DATA, where they have a meaning.
    run("@config.json").exits(2).says("; the name of the file is written without `@`\n");
    for stdin in ["-", "@-"] {
        run(stdin).exits(2).says("; --config /dev/stdin reads stdin\n");
    }
    let file = place.file("empty.json", b"\n");
    let file = file.to_str().unwrap();
    run(file)
        .exits(2)
        .says_only(&format!("pipeplug: the configuration file {file} is empty: {expected}"));
    let large = format!("[\"{}\"]", "x".repeat(1 << 20));
    let file = place.file("large.json", large.as_bytes());
    run(file.to_str().unwrap()).exits(2).says("has 1048580 bytes of JSON, the limit is 1048576");
}

#[test]
fn no_output_shows_it() {
    for options in [&["-v"][..], &["-vv"], &["--json"], &["-vv", "--json"]] {
        let args = [&["run", "@echo", "--config", r#"["hunter2"]"#], options].concat();
        let ran = pipeplug([&args[..], &["--call", "crash"]].concat()).run();
        let all = format!("{}{}", ran.text(), ran.stderr);
        assert!(!all.contains("hunter2"), "{all}");
    }
    pipeplug(["run", "@echo", "--config", r#"["hunter2"]"#, "-v", "--call", "count"])
        .run()
        .exits(0)
        .says("the configuration has 11 bytes\n");
}

#[test]
fn a_plugin_of_the_base_protocol_cannot_take_one() {
    let place = Place::new();
    let plugin = place.standard("base", ANSWERS);
    let plugin = plugin.to_str().unwrap();
    pipeplug(["run", plugin, "--config", "[]", "--call", "a"])
        .run()
        .exits(4)
        .says("cannot take the configuration")
        .says("upgrade the plugin, or start it without a configuration");
    pipeplug(["run", plugin, "--call", "a"]).run().exits(0).prints("{}");
}
