//! `pipeplug dev`: a plugin is built and replaced after each change.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{LONG, Place, has_tool, is_gone, wait};
use crate::new::{path_with_program, project};

/// The command while it runs.
struct Dev {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Lines of stdout and of stderr.
    replies: Receiver<String>,
    notes: Receiver<String>,
}

impl Dev {
    fn start(place: &Place, args: &[&str]) -> Self {
        let mut run = place.pipeplug([&["dev"], args].concat()).in_place();
        run.command.env("PATH", path_with_program());
        run.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = run.command.spawn().unwrap();
        let (replies, notes) = (lines(child.stdout.take()), lines(child.stderr.take()));
        Self { stdin: child.stdin.take(), child, replies, notes }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    #[track_caller]
    fn reply(&self) -> String {
        self.replies.recv_timeout(LONG).unwrap()
    }

    /// Waits for a line on stderr that contains this, and returns it.
    #[track_caller]
    fn note(&self, part: &str) -> String {
        let mut before = Vec::new();
        loop {
            match self.notes.recv_timeout(LONG) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => before.push(line),
                Err(error) => panic!("{part:?} is not said: {error}; {before:#?}"),
            }
        }
    }

    /// Ends it as Ctrl-C does. Returns the lines that were left on stderr.
    #[track_caller]
    fn end(self) -> Vec<String> {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(wait(self.child), Some(130));
        self.notes.iter().collect()
    }
}

fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (told, lines) = channel();
    let stream = BufReader::new(stream.unwrap());
    thread::spawn(move || {
        stream.lines().map_while(Result::ok).try_for_each(|line| told.send(line))
    });
    lines
}

/// Replaces a text of a file.
#[track_caller]
fn edit(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(file, text.replace(from, to)).unwrap();
}

/// A plugin in Python whose command `slow` answers when the file `go` is there. Its replies begin with
/// `hello`.
fn python(place: &Place) -> PathBuf {
    let dir = project(place, "hello", &["--lang", "python"]);
    let slow = "@plugin.command\ndef slow(request):\n    import time\n    from pathlib import Path\n    \
                while not Path(request.text).exists():\n        time.sleep(0.01)\n    \
                return b\"hello, \" + request.data\n\n\n@plugin.command\n";
    edit(&dir.join("hello.py"), "@plugin.command\n", slow);
    dir
}

#[test]
fn a_change_is_picked_up_while_calls_are_in_flight_and_none_is_lost() {
    if !has_tool("python3", "python3") {
        return;
    }
    let place = Place::new();
    let plugin = python(&place).join("hello.py");
    let mut dev = Dev::start(&place, &["hello", "--call", "hello", "again"]);
    dev.note("hello runs (started in ");
    assert_eq!(dev.reply(), "hello, again");
    let go = place.path().join("go");
    const SLOW: usize = 5;
    for _ in 0..SLOW {
        dev.type_line(&format!("slow {}", go.display()));
    }
    dev.type_line("hello sent");
    assert_eq!(dev.reply(), "hello, sent", "the slow calls do not hold it up");
    edit(&plugin, "b\"hello, \"", "b\"hi, \"");
    dev.note("changed: hello.py");
    dev.note("hello runs");
    assert_eq!(dev.reply(), "hi, again", "the call of the command line is made again");
    // Calls in a row, across a second change: each has a reply.
    dev.type_line("hello x");
    assert_eq!(dev.reply(), "hi, x");
    File::create(&go).unwrap();
    for _ in 0..SLOW {
        assert_eq!(dev.reply(), format!("hello, {}", go.display()), "the version before answers");
    }
    edit(&plugin, "b\"hi, \"", "b\"hey, \"");
    let mut sent = 0;
    let mut answered = 0;
    let mut last = String::new();
    while !last.starts_with("hey, ") || sent < 200 {
        dev.type_line(&format!("hello {sent}"));
        sent += 1;
        last = dev.reply();
        answered += usize::from(!last.ends_with("again"));
        assert!(sent < 100_000, "it is never picked up");
    }
    while answered < sent {
        answered += usize::from(!dev.reply().ends_with("again"));
    }
    let left = dev.end();
    assert!(!left.iter().any(|line| line.contains("line ")), "no call fails: {left:?}");
}

#[test]
fn a_build_that_fails_leaves_the_version_before() {
    if !has_tool("cc", "gcc") || !has_tool("make", "make") {
        return;
    }
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "c"]);
    let mut dev = Dev::start(&place, &["hello", "--call", "hello", "x"]);
    dev.note("building: make");
    dev.note("hello runs (built in ");
    assert_eq!(dev.reply(), "hello, x");
    let source = dir.join("hello.c");
    edit(&source, "\"hello, \"", "\"hello, ");
    dev.note("changed: hello.c");
    dev.note("error:");
    dev.note("the build failed: exit status: 2");
    dev.note("the version before goes on");
    dev.type_line("hello y");
    assert_eq!(dev.reply(), "hello, y");
    edit(&source, "\"hello, ;", "\"hey, \";");
    dev.note("changed: hello.c");
    dev.note("hello runs");
    assert_eq!(dev.reply(), "hey, x");
    // What the build has written is no change.
    let left = dev.end();
    assert!(!left.iter().any(|line| line.contains("changed")), "{left:?}");
}

#[test]
fn a_version_that_does_not_start_leaves_the_one_before() {
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "sh"]);
    let plugin = dir.join("hello.sh");
    edit(&plugin, "#!/bin/sh", "#!/bin/sh\necho starting >&2; exit 3");
    let mut dev = Dev::start(&place, &["hello"]);
    // The first one as well. It is told once.
    dev.note("hello: starting");
    assert!(dev.note("exit status 3").contains("ended before it answered"));
    assert!(dev.notes.recv_timeout(LONG).unwrap().contains("waiting for a change"));
    edit(&plugin, "exit 3", ":");
    dev.note("hello runs");
    edit(&plugin, "; :", "; exit 4");
    dev.note("exit status 4");
    assert!(dev.notes.recv_timeout(LONG).unwrap().contains("the version before goes on"));
    dev.type_line("hello x");
    assert_eq!(dev.reply(), "hello, x");
    dev.type_line("odd");
    dev.note("pipeplug: line 2: odd: unknown command \"odd\"");
    dev.end();
}

#[test]
fn a_plugin_that_ends_is_started_again_and_nothing_is_left() {
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "sh"]);
    let plugin = dir.join("hello.sh");
    edit(&plugin, "    hello)", "    pid) ppg_answer $$ ;;\n    hello)");
    let mut dev = Dev::start(&place, &["hello/hello.sh"]);
    dev.note("hello.sh runs");
    dev.type_line("pid");
    let first: i32 = dev.reply().parse().unwrap();
    // Its group, as a crash of all of it.
    let group = nix::unistd::getpgid(Some(Pid::from_raw(first))).unwrap();
    nix::sys::signal::killpg(group, Signal::SIGKILL).unwrap();
    dev.note("ended after");
    dev.note("starts anew");
    dev.type_line("hello x");
    assert_eq!(dev.reply(), "hello, x");
    dev.type_line("pid");
    let second: i32 = dev.reply().parse().unwrap();
    dev.end();
    assert!(is_gone(first) && is_gone(second));
}

#[test]
fn the_build_and_the_options_of_the_project_are_taken() {
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "sh"]);
    fs::rename(dir.join("hello.sh"), dir.join("hello.in")).unwrap();
    edit(&dir.join("hello.in"), "printf 'hello, '", "printf '%s %s, ' \"$WORD\" \"$own\"");
    edit(&dir.join("hello.in"), "ppg_serve answer", "own=$3\nppg_serve answer");
    let file = "[dev]\nbuild = \"sed s/world/earth/ <hello.in >made && chmod +x made\"\nrun = \"made --fast\"\n\
                [plugins.hello]\nenv = { WORD = \"hey\" }\n";
    fs::write(dir.join("pipeplug.toml"), file).unwrap();
    let dev = Dev::start(&place, &["hello", "--call", "hello", "x"]);
    assert_eq!(dev.reply(), "hey --fast, x");
    edit(&dir.join("hello.in"), "%s, '", "%s: '");
    dev.note("changed: hello.in");
    assert_eq!(dev.reply(), "hey --fast: x");
    dev.end();
    // A build of the command line comes first, and its failure is told.
    let dev = Dev::start(&place, &["hello", "--", "sh", "-c", "echo from the build; exit 9"]);
    dev.note("building: sh -c echo from the build; exit 9");
    dev.note("from the build");
    dev.note("the build failed: exit status: 9");
    dev.end();
}

#[test]
fn the_end_of_the_input_ends_it_after_the_calls() {
    let place = Place::new();
    project(&place, "hello", &["--lang", "sh"]);
    let command = || {
        let mut run = place.pipeplug(["dev", "hello"]).in_place();
        run.command.env("PATH", path_with_program());
        run
    };
    let dev = |lines: &str| command().stdin(lines).run();
    dev("hello a\nhello b\n").exits(0).prints_part("hello, a\n").prints_part("hello, b\n");
    dev("hello a\nodd\n").exits(1).prints("hello, a\n").says("line 2: odd: unknown command");
    // There is no input to end.
    let mut run = command();
    run.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = run.command.spawn().unwrap();
    let (replies, notes) = (lines(child.stdout.take()), lines(child.stderr.take()));
    let dev = Dev { child, stdin: None, replies, notes };
    dev.note("hello runs");
    dev.end();
}

#[test]
fn ctrl_c_ends_a_build() {
    let place = Place::new();
    project(&place, "hello", &["--lang", "sh"]);
    let build = "echo $$; trap '' INT; sleep 1000 & wait";
    let dev = Dev::start(&place, &["hello", "--", "sh", "-c", build]);
    dev.note("building");
    let pid: i32 = dev.notes.recv_timeout(LONG).unwrap().parse().unwrap();
    dev.end();
    assert!(is_gone(pid));
}

#[test]
fn mistakes_have_a_next_step() {
    let place = Place::new();
    fs::create_dir(place.path().join("empty")).unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["nothing"], "no project in nothing: "),
        (&["nothing"], "`pipeplug new` makes a project"),
        (&["@echo"], "@echo is built into this program, and never changes"),
        (&["empty"], "there is no Cargo.toml, package.json, go.mod or Makefile"),
        (
            &["empty", "--call", "x", "@-", "--", "true"],
            "each line of stdin is a call; write @FILE",
        ),
        (&["empty", "--docker", "image", "--", "true"], "options of `pipeplug run`"),
    ];
    for (args, told) in cases {
        place.pipeplug([&["dev"], args].concat()).in_place().run().exits(2).says(told);
    }
}

/// Lines that are typed into a terminal are calls, and Ctrl-C ends it.
#[test]
fn a_plugin_is_called_and_replaced_in_a_terminal() {
    let place = Place::new();
    let dir = project(&place, "hello", &["--lang", "sh"]);
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    let mut run = place.pipeplug(["dev", "hello", "--color", "never"]).in_place();
    run.command
        .env("TERM", "xterm")
        .env("PATH", path_with_program())
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave.try_clone().unwrap());
    let child = run.command.spawn().unwrap();
    drop((run, slave));
    let mut keys = File::from(master.try_clone().unwrap());
    let screen = lines(Some(File::from(master)));
    let shown = |part: &str| loop {
        let line = screen.recv_timeout(LONG).unwrap_or_else(|_| panic!("{part:?} is not shown"));
        if line.contains(part) {
            break line;
        }
    };
    shown("pipeplug: hello runs");
    shown("type CMD DATA to call it; Ctrl-C ends");
    keys.write_all(b"hello you\n").unwrap();
    shown("hello, you");
    edit(&dir.join("hello.sh"), "hello, '", "hi, '");
    shown("pipeplug: changed: hello.sh");
    shown("pipeplug: hello runs");
    keys.write_all(b"hello you\n").unwrap();
    shown("hi, you");
    // The process does not have this terminal as its own, so that the key does not send the signal.
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(wait(child), Some(130));
}
