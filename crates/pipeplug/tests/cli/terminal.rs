//! Output in a terminal.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::thread;

use nix::pty::{OpenptyResult, Winsize, openpty};

use crate::common::{MIRROR, Place, Run, pipeplug, wait};

/// Runs it with stdout and stderr in a terminal of 60 columns, and gives what that got.
fn in_terminal(run: Run) -> (String, Option<i32>) {
    in_terminal_of(run, 60)
}

pub(crate) fn in_terminal_of(mut run: Run, columns: u16) -> (String, Option<i32>) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
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
        // A terminal that no process has open any more gives EIO: pty(7).
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
        "run", "@echo", "--call", "echo", "a", "--call", "echo", "b\n", "--call", "log", "--call",
        "echo", "c",
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
fn variables_choose_colours_and_options_win() {
    let coloured = |args: &[&str], variables: &[(&str, &str)]| {
        let mut run = pipeplug([&["run", "@echo", "--call", "fail", "no"], args].concat());
        run.command.envs(variables.iter().copied());
        run.run().exits(1).stderr.contains('\x1b')
    };
    // In a pipe.
    assert!(!coloured(&[], &[]));
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(!coloured(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(coloured(&["--color", "always"], &[("NO_COLOR", "1")]));
    // Help, which clap writes.
    let mut run = pipeplug(["run", "--help"]);
    run.command.env("CLICOLOR_FORCE", "1");
    assert!(run.run().text().contains('\x1b'));
}

#[test]
fn tables_and_options_fit_narrow_terminals() {
    for columns in [40, 80] {
        let shown = |args: &[&str]| {
            let mut run = pipeplug(args);
            run.command.env("NO_COLOR", "1").env("COLUMNS", columns.to_string());
            in_terminal_of(run, columns).0.replace('\r', "")
        };
        let wide = |text: &str| {
            text.lines().find(|line| line.chars().count() > usize::from(columns)).map(str::to_owned)
        };
        if columns == 80 {
            // A path is not broken.
            let table = shown(&["inspect", "@echo"]);
            let table: Vec<_> = table.lines().filter(|line| !line.starts_with("path")).collect();
            assert!(table.len() > 8);
            assert_eq!(wide(&table.join("\n")), None);
        }
        // Examples are lines to type, and stay whole.
        let help = shown(&["run", "-h"]);
        let options = help.split("Examples:").next().unwrap();
        let usage = options.find("Arguments:").unwrap();
        assert_eq!(wide(&options[usage..]), None);
    }
}

#[test]
fn a_listing_that_takes_long_shows_how_far_it_is() {
    let place = Place::new();
    // Longer than a listing is silent.
    place.standard("pipeplug-slow", &format!("sleep 2\n{MIRROR}"));
    let (text, code) =
        in_terminal(place.pipeplug(["list", "--sandbox", "none", "--color", "never"]));
    assert!(text.starts_with("\rprobing plugins: 0 of 1\x1b[K"), "{text:?}");
    assert!(text.contains("\r\x1b[K") && text.contains("  slow      a mirror\r\n"), "{text:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_call_with_progress_draws_a_bar_that_is_gone_at_its_end() {
    let args = ["run", "@echo", "--color", "never", "--call", "steps", "30", "--call", "echo", "x"];
    let (text, code) = in_terminal(pipeplug(args));
    assert_eq!(code, Some(0));
    assert!(text.contains("steps [") && text.contains("%") && text.contains("/30"), "{text:?}");
    // The reply stands on a line that was cleared.
    assert!(text.ends_with("\r\x1b[2Kx\r\n"), "{text:?}");
    // Where stderr is no terminal there is none.
    pipeplug(args).run().exits(0).prints("x").says_only("");
}

#[test]
fn what_a_plugin_says_stands_on_lines_of_its_own_beside_the_bar() {
    let place = Place::new();
    let body = r#"
        while recv; do case $cmd in
            GetMetadata) send 3 "$cmd" '{"pipeplug.features":"context progress"}' ;;
            cmd.context) ;;
            work)
                send 3 cmd.progress '{"done":1,"total":2,"message":"rude \u001b[2J"}'
                sleep 0.3
                echo aside >&2
                sleep 0.3
                send 3 cmd.progress '{"done":7}'
                sleep 0.3
                send 3 work '' ;;
            *) exit 0 ;;
        esac; done"#;
    let path = place.standard("worker", body);
    let run = place.pipeplug(["run", path.to_str().unwrap(), "--color", "never", "--call", "work"]);
    let (text, code) = in_terminal(run);
    assert_eq!(code, Some(0), "{text:?}");
    assert!(text.contains("work [") && text.contains(" 50% 1/2 rude \\u{1b}[2J"), "{text:?}");
    assert!(text.contains("\x1b[2Kworker: aside\r\n"), "{text:?}");
    assert!(text.contains("work 7 "), "{text:?}");
    assert!(!text.contains("\x1b[2J"), "{text:?}");
}

#[test]
fn a_run_without_calls_says_what_it_waits_for() {
    let place = Place::new();
    let path = place.standard("brief", "recv; send 3 x '{}'; exit 0");
    let (text, code) =
        in_terminal(place.pipeplug(["run", path.to_str().unwrap(), "--color", "never"]));
    assert!(text.starts_with("pipeplug: brief runs until"), "{text:?}");
    assert!(text.contains("until it ends or Ctrl-C"), "{text:?}");
    assert_eq!(code, Some(0));
}

#[test]
fn a_start_that_takes_long_says_what_it_waits_for() {
    let place = Place::new();
    let path = place.standard("slow", "exec sleep 600");
    let args = ["run", path.to_str().unwrap(), "--color", "never", "--timeout", "5s"];
    let note = "slow has not answered yet; --timeout limits the wait for it, Ctrl-C ends it";
    let (text, code) = in_terminal_of(place.pipeplug(args), 200);
    assert_eq!((text.matches(note).count(), code), (1, Some(124)), "{text:?}");
    // Not in a pipe.
    let ran = place.pipeplug(args).run().exits(124);
    assert!(!ran.stderr.contains(note), "{ran:?}");
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

/// Sequences that set a title, clear the screen, and reverse text, as UTF-8 and as bytes for old
/// terminals.
const RUDE: &str = r"\033]0;title\a\033[2J\xc2\x9b31m\xe2\x80\xae\r\x9b1m\x7f";

/// Everything that a plugin can have shown, on each way that there is: its stderr and stdout, its
/// metadata, what it asks and tells, replies, errors, its end, and what the libraries log of it.
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
    for args in ways.iter().copied().chain([&["inspect", path, "--json"][..], &["list", "--json"]])
    {
        let mut run = place.pipeplug([args, &["--color", "never"]].concat());
        run.command.env("RUST_BACKTRACE", "0");
        shows_unharmed(run, "title");
    }
}

/// Asserts that it shows that part, and nothing that steers the terminal.
#[track_caller]
fn shows_unharmed(run: Run, part: &str) {
    let args = format!("{:?}", run.command);
    let (shown, _) = in_terminal(run);
    // The terminal itself makes CR LF of each end of line.
    let shown = shown.replace("\r\n", "\n");
    let harmful = |c: &char| {
        (c.is_control() && !"\n\t".contains(*c)) || ('\u{202a}'..='\u{202e}').contains(c)
    };
    assert_eq!(shown.chars().find(harmful), None, "{args}: {shown:?}");
    assert!(shown.contains(part), "{args} shows it in some way: {shown:?}");
}

/// The name of a file is its own author's, too: it comes out of an archive, or by a glob of a
/// shell.
#[test]
fn no_file_name_steers_the_terminal() {
    let place = Place::new();
    let name = "\x1b]0;title\x07\x1b[2J\u{9b}31m\u{202e}\r\x7f";
    let body = r#"
        while recv; do case $cmd in
            GetMetadata) send 3 "$cmd" '{}' ;;
            tell) id=5; send 2 other x; id=7; send 3 unasked x ;;
            die) exit 101 ;;
            garbage) printf 'garbage\000' >&"$out"; sleep 1000 ;;
            cmd.stop) exit 0 ;;
            *) send 3 "$cmd" x ;;
        esac; done"#;
    let rude = place.standard(&format!("pipeplug-{name}"), body);
    let rude = rude.to_str().unwrap();
    let silent = place.executable(&format!("{name}-silent"), "#!/bin/sh\nexit 3\n");
    let plain = place.file(&format!("{name}-plain"), b"");
    let lock = place.file(&format!("{name}.lock"), b"{}");
    let dangling = place.path().join(format!("pipeplug-{name}-dangling"));
    std::os::unix::fs::symlink(&lock, place.path().join("pipeplug-not-executable")).unwrap();
    std::os::unix::fs::symlink(place.path().join(name), dangling).unwrap();
    // What has the name in an earlier place is passed over, with a note.
    let earlier = Place::new();
    earlier.file(&format!("pipeplug-{name}"), b"");
    let [silent, plain, lock] = [&silent, &plain, &lock].map(|path| path.to_str().unwrap());
    let locked = format!("--locked={lock}");
    let ways: &[&[&str]] = &[
        &["run", rude, "-v", "--call", "reply"],
        &["run", rude, "-vv", "--call", "reply", "--notify", "tell", "--call", "reply"],
        &["run", rude, "-v", "--allow", "x", "--notify", "tell", "--call", "reply"],
        &["run", rude, "--json", "--call", "reply", "--call", "die"],
        &["run", rude, "--call", "die"],
        &["run", rude, "-vv", "--grace", "100ms", "--call", "garbage"],
        &["run", rude, "--cwd", name],
        &["run", rude, "-vv", "--sandbox", "strict", "--call", "die"],
        &["run", name, "-v", "--call", "die"],
        &["run", silent],
        &["run", plain],
        &["run", name, &locked],
        &["run", rude, name],
        &["run", &format!("@{name}")],
        &["run", "no-such", &format!("--{name}")],
        &["run", rude, "--sandbox", name],
        &["run", rude, "--sandbox-read", "x", "--sandbox", "basic", "--timeout", name],
        &["inspect", rude, "-vv"],
        &["inspect", rude, "--json"],
        &["inspect", silent],
        &["list"],
        &["list", "-vv", "--refresh"],
        &["list", "--json"],
        &["list", "--host", name],
        &["pin", rude, "--lock-file", lock],
        &["pin", rude, silent, "--lock-file", &format!("{lock}.new")],
        &["pin", name, &format!("--{name}")],
        &["pin", &format!("{name}-missing")],
        &["add", silent],
        &["add", plain, "-vv"],
        &["add", rude, "-vv"],
        &["add", rude],
        &["add", silent, "--no-metadata", "--name", "shown"],
        &["add", plain, "--host", name, "--no-metadata"],
        &["list", "-v"],
        &["rm", &format!("{name}x")],
        &["rm", name, name],
        &["rm", "shown", "-vv"],
    ];
    for args in ways {
        let mut run = place.pipeplug([args, &["--color", "never"][..]].concat());
        run.command.env("RUST_BACKTRACE", "0").current_dir(place.path());
        let path = std::env::join_paths([earlier.path(), place.path()]).unwrap();
        run.command.env("PIPEPLUG_PATH", path);
        shows_unharmed(run, "title");
    }
}
