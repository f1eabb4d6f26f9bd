//! Plugins with another protocol than the default: over stdin and stdout, or in the classic format.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{MIRROR, Place, pipeplug, settle};

/// Makes a plugin of this name that knows no other descriptors than its stdin and stdout: a sample that
/// forgets its arguments.
fn hello(place: &Place, name: &str) -> PathBuf {
    let sample = include_str!("../../../../samples/scripts/hello.sh");
    place.executable(name, &sample.replacen('\n', "\nset --\n", 1))
}

/// Makes a plugin on stdin and stdout of one of the helpers, which have the descriptors as
/// arguments.
fn on_stdio(place: &Place, name: &str, inner: &Path) -> PathBuf {
    place.executable(name, &format!("#!/bin/sh\nexec '{}' 0 1\n", inner.display()))
}

#[test]
fn a_plugin_on_stdin_and_stdout_names_the_option() {
    let place = Place::new();
    let path = hello(&place, "hello.sh");
    let path = path.to_str().unwrap();
    for command in ["run", "inspect"] {
        pipeplug([command, path, "--sandbox", "none"]).run().exits(4).says(
            "is it a plugin? If it speaks the classic format use --format classic, if it \
                   uses stdin and stdout use --stdio\n",
        );
    }
    pipeplug(["run", path, "--stdio", "--call", "hello", "world"])
        .run()
        .exits(0)
        .prints("hello, world");
    let ran = pipeplug(["run", "/bin/true", "--stdio"]).run().exits(4);
    assert!(!ran.stderr.contains("use --stdio"), "{}", ran.stderr);
}

#[test]
fn a_plugin_that_stays_silent_has_both_options_named() {
    let place = Place::new();
    // It waits for what begins a chunk of its own format.
    let path = place.executable("silent", "#!/bin/sh\nexec sleep 600\n");
    let path = path.to_str().unwrap();
    let options = ["run", path, "--timeout", "300ms"];
    place.pipeplug(options).run().exits(124).says(
        "if it speaks the classic format use --format classic, if it uses stdin and stdout use \
         --stdio\n",
    );
    let ran = place
        .pipeplug([&options[..], &["--format", "classic", "--stdio"]].concat())
        .run()
        .exits(124);
    assert!(
        ran.stderr.ends_with("if it speaks the standard format leave --format out\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn add_finds_out_which_it_is_and_prints_a_command_that_works() {
    let (place, home) = (Place::new(), Place::new());
    let run = |args: &[&str]| {
        let mut run = pipeplug(args);
        run.command.env("HOME", home.path()).current_dir(place.path());
        run.run()
    };
    let classic = place.classic("inner", MIRROR);
    on_stdio(&place, "both", &classic);
    hello(&place, "hello");
    for (name, options, call, reply) in [
        ("hello", "--stdio", ["hello", "x"], "hello, x"),
        ("both", "--stdio --format classic", ["a", "b"], "<a b>"),
    ] {
        // What one plugin executes beside itself no strict sandbox has.
        let added = run(&["add", name, "--sandbox", "none"]).exits(0).says_only("");
        let command = format!("  run     pipeplug run {name} {options} --call CMD\n");
        assert!(added.text().contains(&command), "{}", added.text());
        let options: Vec<_> = options.split(' ').collect();
        run(&[&["run", name][..], &options, &["--call"], &call].concat()).exits(0).prints(reply);
        // It is remembered, so that nothing has to be typed again.
        let by_name = |args: &[&str]| {
            let mut run = pipeplug([&["run", name], args].concat());
            run.command.env("HOME", home.path()).current_dir("/");
            run.run()
        };
        by_name(&[&["--call"][..], &call].concat()).exits(0).prints(reply);
        by_name(&["-v", "--call", "x"])
            .says(&format!("using {}", options[0]))
            .says(", as remembered from its last probe\n");
        let row = run(&["list", "--json", "--sandbox", "none"]).exits(0).json().swap_remove(0);
        assert_eq!((&row["stdio"], &row["remembered"]), (&true.into(), &true.into()), "{row}");
    }
    let listed = run(&["list", "--json", "--sandbox", "none"]).exits(0);
    for row in listed.json() {
        assert_eq!((&row["state"], &row["stdio"]), (&"usable".into(), &true.into()), "{row}");
    }
}

#[test]
fn what_list_found_out_is_remembered() {
    let place = Place::new();
    hello(&place, "pipeplug-hello");
    place.standard("pipeplug-mirror", MIRROR);
    settle();
    for remembered in [false, true] {
        let rows = place.pipeplug(["list", "--json", "--sandbox", "none"]).run().exits(0).json();
        let shown: Vec<_> =
            rows.iter().map(|row| (row["stdio"].clone(), row["remembered"].clone())).collect();
        assert_eq!(shown, [(true.into(), remembered.into()), (false.into(), remembered.into())]);
    }
}

#[test]
fn a_plugin_that_is_found_by_its_name_is_talked_to_as_is_remembered() {
    let place = Place::new();
    hello(&place, "pipeplug-hello");
    place.classic("pipeplug-classic", MIRROR);
    settle();
    let run = |args: &[&str]| place.pipeplug([&["run"], args].concat()).run();
    run(&["hello", "--call", "hello", "world"]).exits(4).says("use --stdio");
    place.pipeplug(["list", "--sandbox", "none"]).run().exits(0);
    run(&["hello", "--call", "hello", "world"]).exits(0).prints("hello, world");
    run(&["classic", "--call", "a", "b"]).exits(0).prints("<a b>");
    // What is typed counts, and a path is no name.
    run(&["hello", "--format", "standard", "--call", "hello", "world"]).exits(4);
    run(&["hello", "--stdin", "null", "--call", "hello", "world"]).exits(4);
    let path = place.path().join("pipeplug-hello");
    run(&[path.to_str().unwrap(), "--call", "hello", "world"]).exits(4);
    // Another file is another plugin.
    place.standard("pipeplug-hello", MIRROR);
    run(&["hello", "--call", "a", "b"]).exits(0).prints("<a b>");
}

#[test]
fn many_that_hang_are_listed_in_the_time_of_one() {
    let place = Place::new();
    for i in 0..25 {
        place.executable(&format!("pipeplug-hung{i}"), "#!/bin/sh\nexec sleep 600\n");
    }
    let begun = Instant::now();
    let ran = place.pipeplug(["list", "--refresh", "--json", "--sandbox", "none"]).run().exits(0);
    assert_eq!(ran.json().iter().filter(|row| row["state"] == "unusable").count(), 25);
    // Eight at once took 55 s with the same timeout.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[test]
fn what_cargo_writes_beside_a_plugin_is_not_listed() {
    let place = Place::new();
    place.standard("pipeplug-mirror", MIRROR);
    place.file("pipeplug-mirror.d", b"mirror: mirror.rs\n");
    place.file("pipeplug-alone.d", b"");
    let rows = place.pipeplug(["list", "--json", "--no-metadata"]).run().exits(0).json();
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["alone.d", "mirror"]);
}

#[test]
fn plugins_of_another_host_are_run_by_their_names() {
    let place = Place::new();
    place.standard("editor-mirror", MIRROR);
    place
        .pipeplug(["run", "mirror", "--host", "editor", "--call", "x", "y"])
        .run()
        .exits(0)
        .prints("<x y>");
    place
        .pipeplug(["inspect", "mirror", "--host", "editor"])
        .run()
        .exits(0)
        .prints_part("a mirror");
    place
        .pipeplug(["run", "other", "--host", "editor"])
        .run()
        .exits(3)
        .says("`pipeplug list --host editor` lists the plugins that are found by name");
    place.pipeplug(["run", "mirror"]).run().exits(3);
}
