//! `run` with many calls: `--repeat`, `--parallel`, `--data-each`, `--watch`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::common::{LONG, MIRROR, Place, Ran, pipeplug, wait};

fn run(args: &[&str]) -> Ran {
    pipeplug([&["run", "@echo"], args].concat()).run()
}

fn text(ran: &Ran) -> &str {
    std::str::from_utf8(&ran.stdout).unwrap()
}

#[test]
fn all_calls_are_repeated_in_order() {
    let ran = run(&["--repeat", "3", "--call", "count", "--call", "echo", ","]);
    assert_eq!((ran.code, text(&ran)), (Some(0), "1,3,5,"), "one start: {ran:?}");
    let ran = run(&["--repeat", "3", "--notify", "log", "x"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), "echo: x\necho: x\necho: x\n"));
    let ran = run(&["--repeat", "2", "--call", "fail", "no", "--call", "echo", "x"]);
    assert_eq!((ran.code, text(&ran)), (Some(1), "xx"));
    assert!(ran.stderr.ends_with("pipeplug: 2 of 4 failed\n"), "{ran:?}");
}

#[test]
fn parallel_calls_overlap_and_replies_keep_their_order() {
    let place = Place::new();
    let words: Vec<_> = (0..200).map(|number| number.to_string()).collect();
    let lines = place.file("lines", format!("{}\n", words.join("\n")).as_bytes());
    let lines = lines.to_str().unwrap();
    let ran = run(&["--call", "echo", "--data-each", lines, "--parallel", "20"]);
    assert_eq!((ran.code, text(&ran)), (Some(0), format!("{}\n", words.join("\n")).as_str()));
    // Later calls that are done first wait for earlier ones.
    let times = place.file("times", b"600\n1\n500\n2");
    let times = times.to_str().unwrap();
    let begun = Instant::now();
    let ran = run(&["--call", "sleep", "--data-each", times, "--parallel", "4", "--json"]);
    assert!(begun.elapsed() < Duration::from_millis(1100), "they overlap");
    let events: Vec<Value> =
        text(&ran).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let replies = events.iter().filter(|event| event["event"] == "reply");
    let lines: Vec<_> = replies.map(|event| event["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 2, 3, 4]);
}

#[test]
fn a_line_that_fails_is_named_and_the_next_one_follows() {
    let place = Place::new();
    let lines = place.file("lines", b"1\nx\n\n2");
    let lines = lines.to_str().unwrap();
    let args = ["--call", "sleep", "--data-each", lines];
    let ran = run(&args);
    assert_eq!((ran.code, text(&ran)), (Some(1), "\n\n"), "{ran:?}");
    for told in ["line 2: sleep: \"x\" is not a number", "line 3: sleep: ", "2 of 4 failed"] {
        assert!(ran.stderr.contains(told), "{told}: {ran:?}");
    }
    let ran = run(&[&args[..], &["--json"]].concat());
    let errors = text(&ran).lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let errors: Vec<_> = errors.filter(|event| event["event"] == "error").collect();
    assert_eq!((&errors[0]["line"], &errors[0]["exit_code"]), (&2.into(), &1.into()));
    // What ends the run says where.
    let lines = place.file("crash", b"a\nb");
    let ran = run(&["--call", "crash", "--data-each", lines.to_str().unwrap()]);
    assert_eq!(ran.code, Some(5), "{ran:?}");
    assert!(ran.stderr.contains("line 1: crash: "), "{ran:?}");
    let lines = place.file("slow", b"1\n60000");
    let args = ["--call", "sleep", "--timeout", "300ms", "--data-each", lines.to_str().unwrap()];
    let ran = run(&args);
    assert_eq!((ran.code, text(&ran)), (Some(124), "\n"), "{ran:?}");
    assert!(ran.stderr.contains("line 2: sleep: "), "{ran:?}");
}

#[test]
fn lines_of_stdin_are_called_as_they_come() {
    let mut run =
        pipeplug(["run", "@echo", "--call", "upper", "--data-each", "-", "--parallel", "4"]);
    run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = run.command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
    for word in ["one", "two"] {
        writeln!(stdin, "{word}").unwrap();
        assert_eq!(replies.next().unwrap().unwrap(), word.to_uppercase());
    }
    drop(stdin);
    assert!(replies.next().is_none());
    assert_eq!(wait(child), Some(0));
}

#[test]
fn an_interrupt_ends_it() {
    let mut run = pipeplug(["run", "@echo", "--call", "upper", "--data-each", "-"]);
    run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = run.command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "one").unwrap();
    let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(replies.next().unwrap().unwrap(), "ONE");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(wait(child), Some(130), "although stdin has not ended");
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let cases: [(&[&str], &str); 10] = [
        (&["--repeat", "2"], "--repeat needs a --call"),
        (&["--parallel", "2"], "--parallel needs a --call"),
        (&["--data-each", "/dev/null"], "--data-each needs one --call"),
        (&["--call", "a", "--call", "b", "--data-each", "/dev/null"], "needs one --call"),
        (&["--call", "a", "x", "--data-each", "/dev/null"], "gives the call its DATA"),
        (
            &["--call", "a", "--data-each", "/nonexistent"],
            "cannot read the file /nonexistent of --data-each",
        ),
        (&["--call", "a", "--data-each", "/"], "cannot read the file / of --data-each"),
        (&["--call", "a", "--data-each", "-", "--answer", "b=@-"], "stdin is used twice"),
        (&["--call", "a", "--repeat", "2", "--stream"], "cannot be used with"),
        (&["--call", "a", "--watch"], "--watch needs a plugin whose file"),
    ];
    for (args, told) in cases {
        let ran = run(args);
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(told), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_change_of_the_file_starts_it_again() {
    let place = Place::new();
    let answers = |word: &str| MIRROR.replace("<$cmd $data>", &format!("{word}\\n"));
    let answers = |word: &str| answers(word).replace("\\n", "\n");
    let plugin = place.standard("watched", &answers("first"));
    let mut run = place.pipeplug(["run", plugin.to_str().unwrap(), "--watch", "--call", "x"]);
    run.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.command.spawn().unwrap();
    let mut replies = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut notes = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut wait_for = |told: &str| {
        let found = notes.by_ref().map(Result::unwrap).find(|line| line.contains(told));
        found.unwrap_or_else(|| panic!("{told:?} is not said"))
    };
    assert_eq!(replies.next().unwrap().unwrap(), "first");
    wait_for("waiting for a change");
    // Replaced as a whole, as compilers do, with no file in between.
    let new = place.standard("new", &answers("second"));
    std::fs::remove_file(&plugin).unwrap();
    thread::sleep(Duration::from_millis(300));
    std::fs::rename(new, &plugin).unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "second");
    // One that does not start is reported, and the next change is waited for.
    wait_for("waiting for a change");
    let new = place.executable("new", "#!/bin/sh\nexit 3\n");
    std::fs::rename(new, &plugin).unwrap();
    wait_for("exit status 3");
    wait_for("waiting for a change");
    let new = place.standard("new", &answers("third"));
    std::fs::rename(new, &plugin).unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "third");
    wait_for("waiting for a change");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(wait(child), Some(130));
}

#[test]
fn a_plugin_that_runs_is_stopped_when_its_file_changes() {
    let place = Place::new();
    let hangs = "while recv; do case $cmd in cmd.stop) exit 0 ;; GetMetadata) send 3 \"$cmd\" '{}' ;; \
                 esac; done";
    let plugin = place.standard("watched", hangs);
    // A call that has no reply, and none at all.
    for calls in [&["--call", "x"][..], &[]] {
        let mut run =
            place.pipeplug([&["run", plugin.to_str().unwrap(), "--watch", "-v"], calls].concat());
        run.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = run.command.spawn().unwrap();
        let mut notes = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let begun = Instant::now();
        notes.by_ref().find(|line| line.contains("started in")).unwrap();
        let new = place.standard("new", hangs);
        std::fs::rename(new, &plugin).unwrap();
        let next = notes.by_ref().find(|line| !line.contains("features")).unwrap();
        assert!(next.contains("has changed"), "no error: {next}");
        notes.by_ref().find(|line| line.contains("started in")).unwrap();
        assert!(begun.elapsed() < LONG);
        kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(wait(child), Some(130));
    }
}

#[test]
fn short_help_fits_on_a_screen() {
    for command in ["run", "bench", "inspect", "doctor", "shell"] {
        let mut run = pipeplug([command, "-h"]);
        run.command.env("COLUMNS", "80");
        let ran = run.run();
        let text = text(&ran);
        assert!((24..=40).contains(&text.lines().count()), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(!text.contains("--docker") && !text.contains("--sandbox"), "{text}");
        let last: Vec<_> = text.trim_end().lines().rev().take(2).collect();
        let last = last.join(" ");
        for topic in ["launchers", "containers", "Kubernetes", "rights and sandbox", "--help"] {
            assert!(last.contains(topic), "{topic}: {last}");
        }
        let long = pipeplug([command, "--help"]).run();
        let long = std::str::from_utf8(&long.stdout).unwrap();
        assert!(long.contains("--docker") && long.contains("--sandbox-read"), "{long}");
    }
}
