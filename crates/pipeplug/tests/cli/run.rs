//! Calls, one-ways and answers.

use crate::common::{MIRROR, Place, pipeplug};

#[test]
fn the_reply_alone_is_on_stdout() {
    pipeplug(["run", "@echo", "--call", "echo", "hello"])
        .run()
        .exits(0)
        .prints("hello")
        .says_only("");
}

#[test]
fn replies_stand_behind_each_other_byte_for_byte() {
    pipeplug([
        "run", "@echo", "--call", "echo", "a\n\n", "--call", "echo", "--call", "upper", "b\r",
        "--call", "echo", "ü",
    ])
    .run()
    .exits(0)
    .prints("a\n\nB\rü");
}

#[test]
fn calls_and_notifies_go_out_in_the_order_given() {
    // The mirror is one thread, so what it writes is in the order of what it got.
    let place = Place::new();
    let plugin = place.standard(
        "recorder",
        r#"while recv; do
            case $cmd in
            cmd.stop) exit 0 ;;
            GetMetadata) send 3 "$cmd" '{}' ;;
            *) echo "$dir $cmd $data" >&2; if [[ $dir = 2 ]]; then send 3 "$cmd" "$cmd"; fi ;;
            esac
        done"#,
    );
    let args = [
        "--notify", "a", "1", "--call", "b", "2", "--notify", "c", "--call", "d", "-5", "--notify",
        "e",
    ];
    place
        .pipeplug([&["run", plugin.to_str().unwrap()], &args[..]].concat())
        .run()
        .exits(0)
        .prints("bd")
        .says_only(
            "recorder: 1 a 1\nrecorder: 2 b 2\nrecorder: 1 c \nrecorder: 2 d -5\nrecorder: 1 e \n",
        );
}

#[test]
fn a_plugin_is_found_by_path_file_and_name() {
    let place = Place::new();
    let path = place.standard("pipeplug-mirror", MIRROR);
    for plugin in [path.to_str().unwrap(), "./pipeplug-mirror", "pipeplug-mirror", "mirror"] {
        let mut run = place.pipeplug(["run", plugin, "--call", "x", "y"]);
        run.command.current_dir(place.path());
        run.run().exits(0).prints("<x y>").says_only("");
    }
}

#[test]
fn a_classic_plugin_is_called_in_its_format() {
    let place = Place::new();
    let path = place.classic("old", MIRROR);
    let args =
        ["run", path.to_str().unwrap(), "--format", "classic", "--call", "x", "y", "--call", "z"];
    place.pipeplug(args).run().exits(0).prints("<x y><z >").says_only("");
}

#[test]
fn all_ways_to_connect_carry_the_same() {
    for options in
        [&["--stdio"][..], &["--format", "classic"], &["--stdio", "--format", "classic"], &[]]
    {
        let args = [&["run", "@echo", "--call", "reverse", "abc"], options].concat();
        pipeplug(args).run().exits(0).prints("cba").says_only("");
    }
}

#[test]
fn the_plugin_has_its_own_arguments_environment_and_directory() {
    let place = Place::new();
    let dir = place.path().to_str().unwrap();
    let args = [
        "run",
        "@echo",
        "--env",
        "GREETING=a=b",
        "--cwd",
        dir,
        "--call",
        "env",
        "GREETING",
        "--call",
        "cwd",
    ];
    let expected = format!("a=b{}", place.path().canonicalize().unwrap().display());
    pipeplug(args).run().exits(0).prints(&expected);
    pipeplug(["run", "@echo", "--call", "args", "--", "--call", "-v", "x"])
        .run()
        .exits(0)
        .prints("--call -v x");
    // Numbers of the plugin's own are not taken for its descriptors.
    pipeplug(["run", "@echo", "--stdio", "--call", "args", "--", "7", "8"])
        .run()
        .exits(0)
        .prints("7 8");
}

#[test]
fn the_plugins_stdout_goes_where_it_is_told() {
    let run = |place| {
        pipeplug(["run", "@echo", "--stdout", place, "--call", "print", "x", "--call", "echo", "y"])
            .run()
    };
    run("log").exits(0).prints("y").says_only("echo (stdout): x\n");
    run("null").exits(0).prints("y").says_only("");
    run("inherit").exits(0).prints("x\ny").says_only("");
    // Without the option it is logged, so that replies stay alone.
    pipeplug(["run", "@echo", "--call", "print", "x"])
        .run()
        .prints("")
        .says_only("echo (stdout): x\n");
}

#[test]
fn an_error_of_the_plugin_is_told_and_the_rest_is_called() {
    pipeplug([
        "run",
        "@echo",
        "--call",
        "echo",
        "a",
        "--call",
        "fail",
        "no\x1b[2J",
        "--call",
        "echo",
        "b",
    ])
    .run()
    .exits(1)
    .prints("ab")
    .says_only("pipeplug: fail: no\\u{1b}[2J\n");
}

#[test]
fn requests_of_the_plugin_are_answered_as_told() {
    let place = Place::new();
    let file = place.file("data", b"from a file");
    let answer = format!("file=@{}", file.display());
    pipeplug([
        "run",
        "@echo",
        "--answer",
        "who=you=me",
        "--answer",
        &answer,
        "--call",
        "ask",
        "who",
        "--call",
        "ask",
        "file",
    ])
    .run()
    .exits(0)
    .prints("you=mefrom a file")
    .says_only("");
}

#[test]
fn other_requests_are_shown_and_refused() {
    pipeplug(["run", "@echo", "--answer", "who=me", "--call", "ask", "weather \x07"])
        .run()
        .exits(1)
        .prints("")
        .says(
            "echo asks weather \"\\u{7}\", which has no answer: --answer weather=DATA gives one\n",
        )
        .says("pipeplug: ask: weather: the host has no answer to \"weather\"");
}

#[test]
fn one_ways_of_the_plugin_are_shown() {
    pipeplug(["run", "@echo", "--call", "tell", "progress 50%"])
        .run()
        .exits(0)
        .prints("")
        .says_only("echo tells progress \"50%\"\n");
}

#[test]
fn what_a_plugin_writes_cannot_steer_the_terminal() {
    let place = Place::new();
    let path = place.standard(
        "rude",
        r#"printf '\033]0;title\a\033[31mred\tx\n' >&2; recv; send 3 x '{"A\u001b":"\u009b1m"}'; recv"#,
    );
    let ran = place.pipeplug(["run", path.to_str().unwrap(), "-v", "--notify", "x"]).run().exits(0);
    assert!(!ran.stderr.contains(['\x1b', '\u{9b}', '\x07']), "{:?}", ran.stderr);
    ran.says("rude: \\u{1b}]0;title\\u{7}\\u{1b}[31mred\tx\n").says("A\\u{1b}: \\u{9b}1m");
}

#[test]
fn details_are_told_on_request() {
    let ran =
        pipeplug(["run", "@echo", "-v", "--call", "echo", "abc"]).run().exits(0).prints("abc");
    ran.says("pipeplug: echo started in ")
        .says("pipeplug:   Description: ")
        .says("pipeplug: echo: reply of 3 B after ")
        .says("pipeplug: echo: stopped when asked, exit status 0\n");
    pipeplug(["run", "@echo", "-vv", "--call", "echo", "abc"])
        .run()
        .exits(0)
        .prints("abc")
        .says("DEBUG");
}

#[test]
fn without_calls_it_runs_until_the_plugin_ends() {
    let place = Place::new();
    let path = place.standard("brief", "recv; send 3 x '{}'; echo bye >&2; exit 0");
    place
        .pipeplug(["run", path.to_str().unwrap()])
        .run()
        .exits(0)
        .prints("")
        .says_only("brief: bye\n");
    let path = place.standard("bad", "recv; send 3 x '{}'; exit 7");
    place
        .pipeplug(["run", path.to_str().unwrap()])
        .run()
        .exits(5)
        .says("bad has ended by itself: exit status 7");
}

#[test]
fn colors_are_for_those_who_see_them() {
    let run = |args: &[&str]| {
        pipeplug([&["run", "@echo", "--call", "log", "x"], args].concat()).run().exits(0)
    };
    run(&[]).says_only("echo: x\n");
    run(&["--color", "never"]).says_only("echo: x\n");
    let colored = run(&["--color", "always"]);
    assert!(colored.stderr.starts_with("\x1b["), "{:?}", colored.stderr);
}
