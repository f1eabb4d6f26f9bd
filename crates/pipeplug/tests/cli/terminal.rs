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

/// What would set a title, clear the screen, and turn text around, as UTF-8 and as the bytes of old terminals.
const RUDE: &str = r"\033]0;title\a\033[2J\xc2\x9b31m\xe2\x80\xae\r\x9b1m\x7f";

/// Everything that a plugin can have shown, on each way that there is: its stderr and stdout, its metadata, what it asks and
/// tells, replies, errors, its end, and what the libraries log of it.
#[test]
fn nothing_of_a_plugin_steers_the_terminal() {
    let place = Place::new();
    let body = r#"
        rude=$(printf 'RUDE') text=$(printf 'TEXT')
        printf '%s\n' "$rude" >&2
        printf '%s\n' "$rude"
        id=9
        while recv; do case $cmd in
            GetMetadata) send 3 "$cmd" '{"Description":"JSON","JSON":"x","pipeplug.features":"JSON"}' ;;
            tell) id=5; send 1 "$text" "$rude"; send 1 "cmd.$text" x; send 2 "$text" "$rude" ;;
            fail) send 3 cmd.error "$rude" ;;
            die) printf 'thread %s panicked at %s:\n%s\n' "'main'" "$rude" "$rude" >&2; exit 101 ;;
            garbage) printf '%s\000' "$rude" >&"$out"; sleep 1000 ;;
            cmd.stop) exit 0 ;;
            *) send 3 "$text" "$rude" ;;
        esac; done"#;
    let text = RUDE.replace(r"\x9b1m", "");
    let json = r"\u001b]0;title\u0007\u001b[2J\u009b31m\u202e\r\u007f";
    let body = body.replace("RUDE", RUDE).replace("TEXT", &text).replace("JSON", json);
    let path = place.standard("pipeplug-rude", &body);
    let path = path.to_str().unwrap();
    let ways: [&[&str]; 9] = [
        &["run", path, "-v", "--call", "reply", "--notify", "tell", "--call", "fail"],
        &["run", path, "-vv", "--call", "reply", "--notify", "tell", "--call", "fail"],
        &["run", path, "-v", "--allow", "x", "--notify", "tell", "--call", "fail"],
        &["run", path, "--json", "--call", "reply", "--notify", "tell", "--call", "fail"],
        &["run", path, "--call", "die"],
        &["run", path, "--json", "--call", "die"],
        &["run", path, "--grace", "100ms", "--call", "garbage"],
        &["inspect", path],
        &["list"],
    ];
    for args in ways.iter().copied().chain([&["inspect", path, "--json"][..], &["list", "--json"]]) {
        let mut run = place.pipeplug([args, &["--color", "never"]].concat());
        run.command.env("RUST_BACKTRACE", "0");
        let (shown, _) = in_terminal(run);
        // The terminal itself makes CR LF of each end of line.
        let shown = shown.replace("\r\n", "\n");
        let harmful =
            |c: &char| (c.is_control() && !"\n\t".contains(*c)) || ('\u{202a}'..='\u{202e}').contains(c);
        assert_eq!(shown.chars().find(harmful), None, "{args:?}: {shown:?}");
        assert!(shown.contains("title"), "{args:?} shows it in some way: {shown:?}");
    }
}
