//! `--stream`: stdin or a file to the plugin, part by part, and the parts of the reply to stdout.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{MIRROR, Place, pipeplug, wait};

#[test]
fn stdin_goes_to_the_plugin_and_the_parts_of_its_reply_to_stdout() {
    pipeplug(["run", "@echo", "--call", "grep", "b", "--stream"])
        .stdin("a\nbb\nabc")
        .run()
        .exits(0)
        .prints("bb\nabc")
        .says_only("");
    pipeplug(["run", "@echo", "--call", "echo", "first ", "--call", "echo", "@-", "--stream"])
        .stdin("second")
        .run()
        .exits(0)
        .prints("first second");
}

#[test]
fn a_file_of_any_size_is_sent_as_it_is() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(10_000_001).collect();
    let data = format!("@{}", place.file("data", &bytes).display());
    let ran = pipeplug(["run", "@echo", "--call", "echo", &data, "--stream"]).run().exits(0);
    assert!(ran.stdout == bytes);
}

#[test]
fn a_part_is_shown_before_stdin_ends() {
    let mut run = pipeplug(["run", "@echo", "--call", "grep", "a", "--stream"]);
    let mut child = run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = BufReader::new(stdout).lines();
    for line in ["a 1", "a 2", "a 3"] {
        writeln!(stdin, "not this\n{line}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), line);
    }
    drop(stdin);
    assert!(lines.next().is_none());
    assert_eq!(wait(child), Some(0));
}

#[test]
fn a_reader_that_has_enough_ends_it_without_a_message() {
    let mut run = pipeplug(["run", "@echo", "--call", "grep", "y", "--stream"]);
    run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.command.spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut stderr = child.stderr.take().unwrap();
    let writing = std::thread::spawn(move || while stdin.write_all(b"y\ny\ny\n").is_ok() {});
    assert_eq!(BufReader::new(stdout).lines().next().unwrap().unwrap(), "y");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    assert_eq!((wait(child), said.as_str()), (Some(0), ""));
    writing.join().unwrap();
}

#[test]
fn a_plugin_that_is_killed_amid_a_stream_is_an_error() {
    let mut run = pipeplug(["run", "@echo", "--json", "--call", "echo", "@-", "--stream"]);
    run.command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = run.command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let pid = events.next().unwrap()["pid"].as_i64().unwrap();
    stdin.write_all(b"part").unwrap();
    let part = events.next().unwrap();
    assert_eq!((&part["event"], &part["data"]), (&"part".into(), &"part".into()));
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    let error = events.next().unwrap();
    assert_eq!((&error["event"], &error["exit_code"]), (&"error".into(), &5.into()), "{error}");
    assert_eq!(wait(child), Some(5));
}

#[test]
fn a_one_way_may_be_a_stream() {
    pipeplug(["run", "@echo", "--notify", "echo", "@-", "--stream", "-v"])
        .stdin("a\n".repeat(100_000))
        .run()
        .exits(0)
        .prints("");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_of_the_command_line() {
    // It can be opened, and a read fails: nothing is mapped at 0 (proc(5)).
    let data = "@/proc/self/mem";
    if std::fs::File::open(&data[1..]).is_err() {
        return;
    }
    let why = "cannot read the data file /proc/self/mem: Input/output error (os error 5)\n";
    pipeplug(["run", "@echo", "--call", "echo", data, "--stream"])
        .run()
        .exits(2)
        .says_only(&format!("pipeplug: {why}"));
    pipeplug(["run", "@echo", "--notify", "echo", data, "--stream"]).run().exits(2).says(why);
}

#[test]
fn a_stream_that_the_plugin_ignores_is_told_of() {
    let note = "upper: not all of the input was taken: the handler takes no parts\n";
    let upper = |input: &str| {
        pipeplug(["run", "@echo", "--call", "upper", "x", "--stream"]).stdin(input).run()
    };
    upper("one\ntwo\n").exits(0).prints("X").says_only(&format!("pipeplug: {note}"));
    upper("").exits(0).prints("X").says_only("");
    let ran = pipeplug(["run", "@echo", "--json", "--call", "upper", "x", "--stream"])
        .stdin("one")
        .run()
        .exits(0)
        .says_only("");
    let refused: Vec<_> =
        ran.json().into_iter().filter(|event| event["event"] == "refused").collect();
    assert_eq!(
        refused,
        [serde_json::json!({
            "event": "refused", "command": "upper", "reason": "the handler takes no parts",
        })]
    );
    pipeplug(["run", "@echo", "--notify", "upper", "x", "--stream"])
        .stdin("one\n".repeat(1_000_000))
        .run()
        .exits(1)
        .says("upper: the receiver takes no more parts: the handler takes no parts\n");
}

#[test]
fn what_cannot_be_a_stream_is_told() {
    pipeplug(["run", "@echo", "--stream"]).run().exits(2).says("--stream needs a --call");
    pipeplug(["run", "@echo", "--call", "echo", "@/no/such", "--stream"])
        .run()
        .exits(2)
        .says("cannot read the data file /no/such");
    pipeplug(["run", "@echo", "--call", "echo", "@-", "--call", "echo", "a", "--stream"])
        .run()
        .exits(2)
        .says("stdin is used twice");
    pipeplug(["run", "@echo", "--call", "echo", "@/", "--stream"]).run().exits(2).says_only(
        "pipeplug: cannot read the data file /: Is a directory (os error 21); for the text \
             `@/` itself write @@/\n",
    );
    let place = Place::new();
    let path = place.standard("old", MIRROR);
    pipeplug(["run", path.to_str().unwrap(), "--call", "x", "y", "--stream"])
        .run()
        .exits(1)
        .says("x: not sent: the other side does not know the feature stream");
}
