//! What differs in a terminal.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::thread;

use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::common::{Place, Run, pipeplug, wait};

/// Runs it with stdout and stderr in a terminal of 60 columns, and gives what that got.
fn in_terminal(mut run: Run) -> (String, Option<i32>) {
    let size = Winsize { ws_row: 24, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    run.command
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap());
    let child = run.command.spawn().unwrap();
    // The command and this hold the other copies.
    drop((run, slave));
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut buffer = [0; 1024];
        // A terminal that nobody has open any more gives EIO: pty(7).
        while let Ok(count @ 1..) = File::from(master.try_clone().unwrap()).read(&mut buffer) {
            bytes.extend_from_slice(&buffer[..count]);
        }
        bytes
    });
    let code = wait(child);
    (String::from_utf8(reader.join().unwrap()).unwrap(), code)
}

#[test]
fn each_reply_ends_its_line() {
    let args = [
        "run", "@echo", "--call", "echo", "a", "--call", "echo", "b\n", "--call", "log", "--call", "echo",
        "c",
    ];
    let mut run = pipeplug(args);
    run.command.env("NO_COLOR", "1");
    let (text, code) = in_terminal(run);
    assert_eq!((text.replace("echo: \r\n", "").as_str(), code), ("a\r\nb\r\nc\r\n", Some(0)));
}

#[test]
fn errors_are_coloured_unless_that_is_not_wanted() {
    let args = ["run", "@echo", "--call", "fail", "no"];
    let (text, _) = in_terminal(pipeplug(args));
    assert!(text.contains("\x1b[") && text.contains("pipeplug:"), "{text:?}");
    let (text, _) = in_terminal(pipeplug([&args[..], &["--color", "never"]].concat()));
    assert_eq!(text, "pipeplug: fail: no\r\n");
    let mut run = pipeplug(args);
    run.command.env("NO_COLOR", "1");
    assert_eq!(in_terminal(run).0, "pipeplug: fail: no\r\n");
}

#[test]
fn a_run_without_calls_says_what_it_waits_for() {
    let place = Place::new();
    let path = place.standard("brief", "recv; send 3 x '{}'; exit 0");
    let (text, code) = in_terminal(place.pipeplug(["run", path.to_str().unwrap(), "--color", "never"]));
    assert!(text.starts_with("pipeplug: brief runs until"), "{text:?}");
    assert!(text.contains("until it ends or Ctrl-C"), "{text:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn long_texts_keep_within_the_width() {
    let (text, code) = in_terminal(pipeplug(["inspect", "@echo", "--color", "never"]));
    assert_eq!(code, Some(0));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.len() > 10, "{text}");
    for line in lines.iter().filter(|line| !line.starts_with("path")) {
        assert!(line.chars().count() <= 60, "{line:?}");
    }
}
