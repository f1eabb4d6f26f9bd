//! Wrong command lines and failed starts: exit status, and a message with the next step.

use std::os::unix::fs::PermissionsExt;

use crate::common::{MIRROR, Place, pipeplug};

#[track_caller]
fn usage(args: &[&str], told: &str) {
    pipeplug(args).run().exits(2).prints("").says(told);
}

#[test]
fn an_unknown_command_is_short_and_has_a_next_step() {
    let run = |command| pipeplug(["run", "@echo", "--call", command]).run().exits(1);
    run("ehco").says_only(
        "pipeplug: ehco: unknown command \"ehco\" (unknown_command)\n  did you mean \"echo\"?\n",
    );
    let ran = run("nothing-like-it").says(
        "pipeplug: nothing-like-it: unknown command \"nothing-like-it\" (unknown_command)\n  it \
         knows echo, grep, ",
    );
    assert!(ran.stderr.lines().count() == 2 && ran.stderr.len() < 300, "{}", ran.stderr);
    run("steps").says_only("pipeplug: steps: DATA is missing: it is a number, as in steps 3\n");
    // A plugin that does not list its commands.
    let place = Place::new();
    let path = place.standard(
        "coded",
        r#"while recv; do
            case $cmd in
            cmd.stop) exit 0 ;;
            x) send 3 cmd.failure '{"code":"unknown_command","message":"no x"}' ;;
            *) send 3 "$cmd" '{}' ;;
            esac
        done"#,
    );
    pipeplug(["run", path.to_str().unwrap(), "--call", "x"]).run().exits(1).says_only(
        "pipeplug: x: no x (unknown_command)\n  `pipeplug inspect` shows what the plugin says of \
         its commands\n",
    );
}

#[test]
fn a_built_in_plugin_is_named_as_the_command_line_names_it() {
    pipeplug(["run", "@echo", "--timeout", "0.001ms", "--call", "echo"])
        .run()
        .exits(124)
        .says("pipeplug: plugin \"@echo\" did not answer");
}

#[test]
fn the_code_of_a_plugins_error_is_shown() {
    pipeplug(["run", "@echo", "--call", "env", "NOT_SET"])
        .run()
        .exits(1)
        .says_only("pipeplug: env: NOT_SET is not set (not_set)\n");
}

#[test]
fn commands_of_the_protocol_are_refused_before_the_start() {
    let refused = |args: [&str; 2], told: &str| {
        pipeplug(["run", "/nonexistent/plugin"].iter().chain(&args))
            .run()
            .exits(2)
            .prints("")
            .says(told);
    };
    let text = "it is a command of the protocol; ";
    refused(["--call", "cmd.ping"], &format!("cmd.ping: {text}pipeplug sends"));
    refused(["--notify", "cmd.stop"], &format!("cmd.stop: {text}`pipeplug run` stops"));
    refused(["--call", "GetMetadata"], &format!("GetMetadata: {text}`pipeplug inspect`"));
    refused(["--call", "cmd.new\x1b"], &format!("cmd.new\\u{{1b}}: {text}"));
    refused(["--answer", "cmd.ping=x"], &format!("cmd.ping: {text}"));
}

#[test]
fn wrong_options_are_explained() {
    usage(&["run"], "<PLUGIN>");
    usage(
        &["run", "--call", "echo", "@echo"],
        "tip: write PLUGIN first; a word after --call CMD is its DATA",
    );
    usage(
        &["run", "@echo", "--call", "echo", "a", "b"],
        "tip: put DATA of several words in quotes",
    );
    usage(
        &["run", "@echo", "--timeout", "3x"],
        "unknown unit \"x\"; write a time as 500ms, 2s, 1m30s or 1h",
    );
    usage(&["run", "@echo", "--timeout", "0"], "a time of 0 is not possible");
    usage(
        &["run", "@echo", "--limit-buffer", "1X"],
        "unknown unit \"X\"; write a size as 4096, 64K",
    );
    usage(&["run", "@echo", "--answer", "who"], "there is no `=`; write CMD=DATA");
    usage(&["run", "@echo", "--env", "WHO"], "there is no `=`; write NAME=VALUE");
    usage(
        &["run", "@echo", "--call", "x", "@"],
        "`@` names no file: write @FILE, @- for stdin, or @@",
    );
    usage(
        &["inspect", "@echo", "a"],
        "tip: put DATA of several words in quotes, and the plugin's own ARGS after --",
    );
    let ran = pipeplug(["list", "a"]).run().exits(2).says("unexpected argument 'a' found");
    assert!(!ran.stderr.contains("tip:"), "{}", ran.stderr);
    let ran = pipeplug(["run", "@echo", "--call", "x", "@"]).run();
    assert!(!ran.stderr.contains("Usage"), "{}", ran.stderr);
    usage(&["run", "@echo", "--format", "odd"], "[possible values: standard, classic]");
    usage(&["run", "@echo", "--stdio", "--stdout", "log"], "cannot be used with");
    let spaced = "a b: the command has a space at byte 1, which the classic format cannot carry";
    usage(&["run", "@echo", "--format", "classic", "--call", "a b"], spaced);
    usage(&["run", "/nonexistent/plugin", "--format", "classic", "--notify", "a b"], spaced);
    usage(&["unknown"], "unrecognized subcommand 'unknown'");
    usage(
        &["run", "@echo", "--call", "echo", "--foo"],
        "tip: DATA that begins with two dashes comes from a file or stdin: --call echo @FILE, or \
         @-",
    );
    usage(
        &["run", "@echo", "--timeout", "-5s"],
        "tip: a value that begins with a dash follows a `=`: --timeout=-5s",
    );
    usage(&["inspect", "@echo", "--foo=1"], "tip: the plugin's own ARGS follow --");
    for args in [&["run", "@echo", "--call", "x", "--foo"][..], &["run", "@echo", "--grace", "-5s"]]
    {
        let ran = pipeplug(args).run().exits(2);
        assert!(!ran.stderr.contains("as a value"), "{}", ran.stderr);
    }
    usage(
        &["run", "--locked", "nofile.lock", "@echo"],
        "tip: the name of a lock file follows a `=`: --locked=nofile.lock",
    );
    usage(&["./py", "--call", "echo"], "tip: a plugin is started by `run`: pipeplug run ./py");
    usage(&["@echo"], "tip: a plugin is started by `run`: pipeplug run @echo");
    for host in ["", "a/b", ".."] {
        for command in
            [&["list"][..], &["rm", "x"], &["add", "x"], &["run", "x"], &["inspect", "x"]]
        {
            usage(&[command, &["--host", host]].concat(), "no host can be named");
        }
    }
    usage(&["rnu"], "tip: a similar subcommand exists: 'run'");
    usage(&["lst"], "tip: a similar subcommand exists: 'list'");
}

#[test]
fn a_path_that_leads_nowhere_is_not_found() {
    pipeplug(["run", "/nonexistent/plugin"]).run().exits(3).says_only(
        "pipeplug: no plugin at \"/nonexistent/plugin\": no such file; check the path, \
                    `PATH` is not searched\n",
    );
}

#[test]
fn what_is_not_there_is_told_with_a_next_step_by_each_command() {
    let place = Place::new();
    let file = place.executable("file", "#!/bin/sh\n");
    let file = file.to_str().unwrap();
    for command in ["run", "inspect", "add", "pin"] {
        place
            .pipeplug([command, "/nonexistent/plugin"])
            .run()
            .exits(3)
            .says("no plugin at \"/nonexistent/plugin\": no such file; check the path");
    }
    let told =
        format!("no plugin at \"{file}/\": \"{file}\" is not a directory; name the file itself");
    place.pipeplug(["run", &format!("{file}/")]).run().exits(3).says(&told);
    place.pipeplug(["rm", "nosuch"]).run().exits(3).says(
        "no plugin \"nosuch\" of pipeplug was added; `pipeplug list` lists the installed \
               plugins",
    );
    place
        .pipeplug(["rm", "nosuch", "--host", "editor"])
        .run()
        .exits(3)
        .says("`pipeplug list --host editor`");
}

#[test]
fn an_installed_plugin_goes_before_a_file_in_the_working_directory() {
    let place = Place::new();
    place.standard("pipeplug-mirror", MIRROR);
    let file = place.executable("mirror", "#!/bin/sh\necho the file >&2; exit 9\n");
    let here = |args: &[&str]| {
        let mut run = place.pipeplug(args);
        run.command.current_dir(file.parent().unwrap());
        run.run()
    };
    here(&["run", "mirror", "--call", "x", "y"])
        .exits(0)
        .prints("<x y>")
        .says("mirror is the installed plugin")
        .says("the file in this directory is ./mirror");
    here(&["run", "./mirror"]).exits(4).says("the file");
    std::fs::remove_file(place.path().join("pipeplug-mirror")).unwrap();
    here(&["run", "mirror", "-v"])
        .exits(4)
        .says("no plugin mirror is installed: using the file ./mirror")
        .says("plugin \"./mirror\" ended before it answered");
}

#[test]
fn a_limit_that_the_start_runs_into_is_named() {
    pipeplug(["run", "@echo", "--limit-buffer", "3"])
        .run()
        .exits(4)
        .says("the limit is that of --limit-buffer");
}

#[test]
fn a_name_that_is_near_another_is_corrected() {
    let place = Place::new();
    place.standard("pipeplug-mirror", MIRROR);
    place
        .pipeplug(["run", "miror"])
        .run()
        .exits(3)
        .says("no plugin \"miror\", did you mean \"mirror\"?")
        .says("./miror");
    place
        .pipeplug(["inspect", "zzz"])
        .run()
        .exits(3)
        .says("no plugin \"zzz\"; searched")
        .says("pipeplug list");
}

#[test]
fn an_unknown_built_in_plugin_names_those_there_are() {
    pipeplug(["run", "@ecko"]).run().exits(3).says_only(
        "pipeplug: no built-in plugin \"@ecko\", there is @echo; for a file of that name write \
         ./@ecko\n",
    );
}

#[test]
fn what_cannot_be_executed_is_told_apart() {
    let place = Place::new();
    let dir = place.path().to_str().unwrap();
    place
        .pipeplug(["run", dir])
        .run()
        .exits(4)
        .says("is a directory: name the executable file inside it");
    let file = place.file("plain", b"#!/bin/sh\n");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    place
        .pipeplug(["run", path])
        .run()
        .exits(4)
        .says("is not executable (mode 0644): run `chmod +x` on it");
    std::fs::create_dir(place.path().join("folder")).unwrap();
    let mut run = place.pipeplug(["run", "folder"]);
    run.command.current_dir(place.path());
    run.run().exits(4).says("\"folder\" is a directory: name the executable file inside it");
}

#[test]
fn a_named_plugin_that_cannot_be_used_is_no_missing_one() {
    let place = Place::new();
    let file = place.file("pipeplug-plain", b"#!/bin/sh\n");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    place
        .pipeplug(["run", "plain"])
        .run()
        .exits(4)
        .says("not executable (mode 0644), run `chmod +x` on it");
}

#[test]
fn a_plugin_of_the_other_format_names_the_option() {
    let place = Place::new();
    // It answers as a classic peer does whatever it is asked.
    let path = place.executable(
        "old",
        "#!/bin/sh\nprintf '1\\0003\\000GetMetadata 2\\000{}' >&4\nexec sleep 600\n",
    );
    place
        .pipeplug(["run", path.to_str().unwrap()])
        .run()
        .exits(4)
        .prints("")
        .says("--format classic");
}

#[test]
fn programs_that_are_no_plugins_are_told_for_what_they_are() {
    let run_for = |time: &str, program: &str, told: &str| {
        pipeplug(["run", program, "--stdio", "--timeout", time])
            .run()
            .prints("")
            .says(told)
            .code
            .unwrap()
    };
    let run = |program: &str, told: &str| run_for("60s", program, told);
    assert_eq!(run("/bin/true", "plugin \"/bin/true\" ended before it answered: exit status 0"), 4);
    let copies = "plugin \"/bin/cat\" sent the host's own first request back: it copies its input \
                  to its output; is it a plugin?";
    assert_eq!(run("/bin/cat", copies), 4);
    pipeplug(["run", "/bin/cat", "--stdio"]).run().says_only(&format!("pipeplug: {copies}\n"));
    let silent = "plugin \"/bin/sh\" did not answer GetMetadata within 500ms";
    assert_eq!(run_for("500ms", "/bin/sh", silent), 124);
    let place = Place::new();
    let yes = place.executable("yes", "#!/bin/sh\nexec yes\n");
    assert_eq!(run(yes.to_str().unwrap(), "wrote what is no message: \"y\\ny\\n"), 4);
}

#[test]
fn a_line_between_two_messages_is_shown() {
    let place = Place::new();
    let path = place.standard(
        "chatty",
        r#"
while recv; do
    case $cmd in
    GetMetadata) send 3 "$cmd" '{}' ;;
    *) printf 'Connected to the database\n' >&"$out" ;;
    esac
done
"#,
    );
    place
        .pipeplug(["run", path.to_str().unwrap(), "--call", "x"])
        .run()
        .prints("")
        .says("the other side broke the protocol")
        .says("the chunk begins with \"Connected to the database\\n\"");
}

#[test]
fn a_plugin_that_ends_at_once_has_its_last_words_told() {
    let place = Place::new();
    let path = place.executable("broken", "#!/bin/sh\necho 'no licence' >&2\nexit 3\n");
    place
        .pipeplug(["run", path.to_str().unwrap(), "--call", "x"])
        .run()
        .exits(4)
        .says("broken: no licence\n")
        .says("ended before it answered: exit status 3");
}

#[test]
fn files_of_the_name_that_were_passed_over_are_told() {
    let (first, second) = (Place::new(), Place::new());
    let file = first.file("pipeplug-mirror", b"");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    second.standard("pipeplug-mirror", MIRROR);
    let mut run = pipeplug(["run", "mirror", "--call", "x"]);
    run.command.env("PIPEPLUG_PATH", std::env::join_paths([first.path(), second.path()]).unwrap());
    let told = format!("{} was passed over: not executable (mode 0644)", file.display());
    run.run().exits(0).prints("<x >").says(&told);
}

#[test]
fn what_is_too_long_for_a_reader_is_cut() {
    let long = "x".repeat(10_000);
    let cases: [&[&str]; 12] = [
        &[&long],
        &["run", &long],
        &["run", &format!("./{long}")],
        &["run", &format!("@{long}")],
        &["run", "@echo", &format!("--{long}")],
        &["run", "@echo", "--call", &long],
        &["run", "@echo", "--call", "echo", &format!("@{long}")],
        &["run", "@echo", "--timeout", &format!("1{long}")],
        &["run", "@echo", "--answer", &long],
        &["bench", "@echo", "--call", "echo", "--size", &format!("1{long} y")],
        &["conform", "@echo", "--check", &long],
        &["new", &long],
    ];
    for args in cases {
        let ran = pipeplug(args.iter().copied()).run();
        assert_ne!(ran.code, Some(0));
        assert!(ran.stderr.contains("xxx…xxx"), "{}", ran.stderr);
        assert!(ran.stderr.lines().all(|line| line.len() < 2000), "{}", ran.stderr);
    }
    let path = format!("./{}", "x".repeat(250));
    pipeplug(["run", &path]).run().says(&path[1..]);
}

#[test]
fn help_and_version_are_no_errors() {
    let version = format!("pipeplug {}\n", env!("CARGO_PKG_VERSION"));
    pipeplug(["--version"]).run().exits(0).prints(&version);
    for args in [&["--help"][..], &["help", "run"], &["list", "--help"], &["inspect", "--help"]] {
        let ran = pipeplug(args).run().exits(0).says_only("");
        assert!(ran.text().contains("Examples:\n"), "{args:?}");
    }
    let run = pipeplug(["help", "run"]).run();
    assert!(run.text().contains("Exit status:\n") && run.text().contains("JSON (--json)"));
}

#[test]
fn what_is_no_file_is_named() {
    let place = Place::new();
    let fifo = place.fifo("fifo");
    let socket = place.path().join("socket");
    let _listens = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for command in ["run", "inspect", "add"] {
        for (path, says) in [
            (
                fifo.to_str().unwrap(),
                "is a FIFO, which cannot be executed: write what comes out of it to a file",
            ),
            (
                "/dev/null",
                "is a device, which cannot be executed: name the plugin's executable file",
            ),
            (
                socket.to_str().unwrap(),
                "is a socket, which cannot be executed: a plugin that listens on it is attached to",
            ),
        ] {
            place.pipeplug([command, path]).run().exits(4).says(says);
        }
    }
    let sum = "0".repeat(64);
    place
        .pipeplug(["run", "--sha256", &sum, fifo.to_str().unwrap()])
        .run()
        .exits(4)
        .says("is a FIFO");
}
