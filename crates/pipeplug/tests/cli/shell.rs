//! `pipeplug shell`: scripts in a pipe, and a user at a terminal.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{LONG, MIRROR, Place, Ran, pipeplug};
use crate::controlling::Session;
use crate::services::{plugin, spell};

/// Runs a script with the built-in plugin.
fn script(lines: &str) -> Ran {
    pipeplug(["shell", "@echo"]).stdin(lines).run()
}

#[test]
fn a_script_calls_line_by_line() {
    script(
        "# comment\n\n  call echo  two  words \ncall echo\ncall upper 'in quotes '\nnotify log told\n\
         repeat 2 call reverse abc\ncall echo @@x\nset timeout 5s\ncall echo last",
    )
    .exits(0)
    .prints("two  words\n\nIN QUOTES \ncba\ncba\n@x\nlast\n")
    .says_only("echo: told\n");
}

#[test]
fn a_script_stops_at_the_first_error_with_its_line() {
    for (lines, code, told) in [
        ("call echo a\n\ncall fail no\ncall echo b", 1, "line 3: fail: no\n"),
        (
            "call echo a\ncall eco b",
            1,
            "line 2: eco: unknown command \"eco\" (unknown_command)\n  did you mean \"echo\"?\n",
        ),
        ("call echo a\ncal echo b", 2, "line 2: there is no verb \"cal\"; did you mean `call`?\n"),
        ("call echo a\ncall echo @/nonexistent/file", 2, "line 2: cannot read the data file"),
        ("call echo a\ncall echo @-", 2, "line 2: echo: stdin has the lines of the shell"),
        ("call echo a\ncall cmd.stop", 2, "line 2: cmd.stop: it is a command of the protocol"),
        (
            "call echo a\nset timeout 50ms\ncall sleep 60000\ncall echo b",
            124,
            "line 3: sleep: no reply within 50ms; `set timeout TIME` allows more",
        ),
        ("call echo a\ncall exit 3\ncall echo b", 5, "line 2: exit: "),
        ("call echo a\n& call fail later\nwait\ncall echo b", 1, "line 2: [1] fail: later\n"),
        ("call echo a\n& call fail last", 1, "line 2: [1] fail: last\n"),
        ("call echo a\ncancel 1", 2, "line 2: cancel 1: there is no call [1]"),
        ("call echo a\nhelp ech0", 2, "line 2: help: did you mean \"echo\"?\n"),
    ] {
        script(lines).exits(code).prints("a\n").says(told);
    }
    let ran = pipeplug(["shell", "@echo"]).stdin(&b"call echo a\ncall echo \xff\n"[..]).run();
    ran.exits(2).prints("a\n").says("line 2: the line is not UTF-8");
    pipeplug(["shell", "@echo", "--answer", "a=@-"])
        .stdin("")
        .run()
        .exits(2)
        .says("stdin is used twice");
    pipeplug(["shell", "@eco"]).stdin("").run().exits(3);
}

#[test]
fn quit_and_the_end_of_the_script_stop_the_plugin() {
    script("call echo a\nquit\ncall echo b").exits(0).prints("a\n").says_only("");
    script("").exits(0).prints("").says_only("");
    // Those that still run are given up.
    script("& call sleep 600000\nquit").exits(0).prints("");
    // At the end of a script they are waited for.
    script("& call echo late").exits(0).prints("late\n");
}

#[test]
fn a_plugin_that_ended_badly_is_an_error_of_the_script() {
    let ran = script("& call exit 3\nwait");
    ran.exits(5).says("line 1: [1] exit: ");
    let ran = script("notify crash\n& call echo x\nwait");
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
}

#[test]
fn the_plugin_is_answered_until_that_is_refused() {
    script("answer greet 'hi there'\ncall ask greet you\nanswer\nrefuse greet\ncall ask greet me")
        .exits(1)
        .prints("hi there\ngreet \"hi there\"\n")
        .says("echo asks greet \"you\", and is answered\n")
        .says("echo asks greet \"me\", which has no answer: `answer greet DATA` gives one\n")
        .says("line 5: ask: ");
    script("refuse greet").exits(2).says("line 1: refuse: \"greet\" has no answer");
    pipeplug(["shell", "@echo", "--answer", "greet=hi"])
        .stdin("call ask greet you")
        .run()
        .exits(0)
        .prints("hi\n");
}

#[test]
fn a_restarted_plugin_begins_anew_and_keeps_its_log_level() {
    script("call count\ncall count\nlog debug\nrestart\ncall count\ncall event debug seen")
        .exits(0)
        .prints("1\n2\n1\n\n")
        .says("DEBUG pipeplug::builtin::echo: seen");
    script("call event debug hidden").exits(0).says_only("");
    script("call exit 3").exits(5);
}

#[test]
fn the_time_is_shown() {
    script("time call echo x").exits(0).prints("x\n").says("pipeplug: took ");
    let ran = script("time repeat 3 call echo x").exits(0);
    assert!(ran.stderr.starts_with("pipeplug: 3 done in ") && ran.stderr.ends_with(" each\n"));
}

#[test]
fn stat_meta_and_set_tell_of_the_plugin() {
    let ran = script("call echo x\nset\nstat\nmeta\njobs\nhelp\nhelp set").exits(0);
    for part in [
        "timeout  none",
        "\nprocess              ",
        "\nfeatures             flow context",
        "\ncalls in flight      0, in the background 0\n",
        "\ncalls                1 answered, 0 failed\n",
        "\nDescription          answers what",
        "\nrepeat N call …      do it",
        "\nother commands       args",
        "\nset [NAME VALUE]     change",
    ] {
        assert!(ran.text().contains(part), "{part:?} is not in: {}", ran.text());
    }
    if cfg!(target_os = "linux") {
        ran.prints_part("\nmemory               ");
    }
}

#[test]
fn arguments_of_typed_services_are_named_and_checked() {
    let place = Place::new();
    let path = plugin(&place, "spell", &[spell()]);
    let shell = |lines: &str| place.pipeplug(["shell", path.to_str().unwrap()]).stdin(lines).run();
    shell("call suggest word='a b' most=3\ncall spell.suggest {\"word\":\"teh\"}\nnotify learn word=x")
        .exits(0)
        .prints("<spell.suggest {\"word\":\"a b\",\"most\":3}>\n<spell.suggest {\"word\":\"teh\"}>\n");
    shell("call suggest word=teh\ncall suggest wrod=teh")
        .exits(2)
        .says("line 2: spell.suggest: there is no argument \"wrod\"; did you mean \"word\"?")
        .says("spell.suggest(word: string, most: integer = 3");
    shell("set checked off\ncall suggest wrod=teh")
        .exits(0)
        .prints("<spell.suggest {\"wrod\":\"teh\"}>\n");
    shell("set checked off\ncall sugest").exits(0).prints("<sugest >\n");
    shell("call spell.sugest word=teh").exits(2).says("did you mean \"suggest\"?");
    shell("help suggest")
        .exits(0)
        .prints_part("spell.suggest(word: string")
        .prints_part("Suggestions for a word")
        .prints_part("The word as it was written.");
    shell("help")
        .exits(0)
        .prints_part("spell.suggest        Suggestions for a word, best first.\n");
}

#[test]
fn a_shell_records() {
    let place = Place::new();
    let file = place.path().join("session");
    let args = ["shell", "@echo", "--record", file.to_str().unwrap()];
    place.pipeplug(args).stdin("call echo kept\n").run().exits(0);
    place.pipeplug(["trace", file.to_str().unwrap()]).run().exits(0).prints_part("echo");
}

/// A shell of the built-in plugin at a terminal.
fn at_terminal(place: &Place) -> Session {
    let mut session = Session::start(place, &["shell", "@echo", "--color", "never"]);
    session.until("echo> ");
    session
}

/// Types a line, and waits until the editor has ended it and left the terminal as it was.
#[track_caller]
fn enter(session: &mut Session, line: &str) {
    // Bracketed paste is off again.
    const LEFT: &str = "\x1b[?2004l\r\n";
    let before = count(session, LEFT);
    session.type_in(&format!("{line}\r"));
    let deadline = Instant::now() + LONG;
    while count(session, LEFT) == before {
        assert!(Instant::now() < deadline, "{line:?}: {:?}", session.text());
        thread::sleep(Duration::from_millis(2));
    }
}

/// Waits for an empty line to edit. Before it, the terminal uses Ctrl-C and Ctrl-D itself.
#[track_caller]
fn prompted(session: &mut Session) {
    let deadline = Instant::now() + LONG;
    while !session.text().rsplit('\n').next().is_some_and(|last| last.contains("> \r\x1b[")) {
        assert!(Instant::now() < deadline, "{:?}", session.text());
        thread::sleep(Duration::from_millis(2));
    }
}

/// Ends the shell with Ctrl-D.
#[track_caller]
fn finish(mut session: Session) {
    prompted(&mut session);
    session.type_in("\x04");
    assert_eq!(session.code(), Some(0));
}

/// Presses Ctrl-C until the text is shown: earlier, nothing may run yet.
#[track_caller]
fn interrupt(session: &mut Session, text: &str) {
    let deadline = Instant::now() + LONG;
    while !session.text().contains(text) {
        assert!(Instant::now() < deadline, "{text:?} is not in {:?}", session.text());
        session.type_in("\x03");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Number of times that the text was shown.
fn count(session: &mut Session, text: &str) -> usize {
    session.text().matches(text).count()
}

#[test]
fn keys_are_completed_and_kept_in_the_history() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    session.type_in("not\tlog first\r");
    session.until("echo: first\r\n");
    // Those of a built-in plugin are known from the start.
    session.type_in("call upp\tfirst\rcall upper second\r");
    session.until("SECOND\r\n");
    session.type_in(" call upper hidden\r");
    session.until("HIDDEN\r\n");
    session.type_in("\x1b[A\x1b[D\x1b[DX\r");
    session.until("SECOXND\r\n");
    finish(session);
    let history = place.path().join(".local/state/pipeplug/shell_history");
    let kept = fs::read_to_string(&history).unwrap();
    let kept: Vec<_> = kept.lines().skip(1).collect();
    let expected =
        ["notify log first", "call upper first", "call upper second", "call upper secoXnd"];
    assert_eq!(kept, expected);
    assert_eq!(fs::metadata(&history).unwrap().permissions().mode() & 0o777, 0o600);
    let mut session = at_terminal(&place);
    session.type_in("\x1b[A\r");
    session.until("SECOXND\r\n");
    session.type_in("quit\r");
    assert_eq!(session.code(), Some(0));
}

#[test]
fn arguments_are_completed() {
    let place = Place::new();
    let path = plugin(&place, "spell", &[spell()]);
    let mut session =
        Session::start(&place, &["shell", path.to_str().unwrap(), "--color", "never"]);
    session.until("spell> ");
    session.type_in("call sug\tw\tteh m\t3\r");
    session.until("<spell.suggest {\"word\":\"teh\",\"most\":3}>\r\n");
    finish(session);
}

#[test]
fn ctrl_c_ends_the_call_and_not_the_shell() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    enter(&mut session, "call sleep 60000");
    interrupt(&mut session, "sleep: cancelled by Ctrl-C");
    // Once a line is edited, Ctrl-C is one of its keys, and drops those after it.
    prompted(&mut session);
    session.type_in("call echo dropped\x03");
    session.until("dropped\r\x1b[23C\x1b[?2026l\x1b[?2004l\r\n");
    prompted(&mut session);
    session.type_in("call echo kept\r");
    session.until("kept\r\n");
    assert!(!session.text().contains("\ndropped\r\n"));
    finish(session);
}

#[test]
fn messages_appear_above_the_line_that_is_edited() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    session.type_in("answer greet hi\r& call sleep 300\r& call ask greet me\r");
    session.until("[1] begun");
    session.type_in("call echo half");
    session.until("call echo half");
    session.until("[1] call sleep 300: 0 B after");
    // The line is drawn again below it, and goes on.
    session.until("ms\r\necho> call echo half");
    assert!(session.text().contains("echo asks greet \"me\", and is answered\r\n"));
    session.type_in(" done\r");
    session.until("half done\r\n");
    finish(session);
}

#[test]
fn a_job_is_listed_and_cancelled() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    session.type_in("& call sleep 60000\rjobs\rcancel 1\rwait\r");
    session.until("s  call sleep 60000\r\n");
    session.until("[1] sleep: cancelled by `cancel`");
    session.type_in("cancel 1\r");
    session.until("cancel 1: it has ended [1]");
    // Ctrl-C ends what waits, and not the call.
    enter(&mut session, "& call sleep 60000");
    enter(&mut session, "wait 2");
    interrupt(&mut session, "wait: ended by Ctrl-C; the calls go on");
    session.type_in("jobs\r");
    session.until("[2] ");
    finish(session);
}

#[test]
fn a_plugin_that_is_killed_is_told_and_can_be_restarted() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    let text = session.text();
    let pid = text.split("(pid ").nth(1).unwrap().split(')').next().unwrap();
    session.type_in("call echo ha");
    session.until("call echo ha");
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    session.until("echo has ended: killed by signal 9 (SIGKILL); `restart` starts it");
    enter(&mut session, "lf");
    session.type_in("stat\r");
    session.until("has ended: killed by signal 9 (SIGKILL)");
    session.type_in("restart\r");
    session.until("started again (pid ");
    session.type_in("call echo again\r");
    session.until("\r\nagain\r\n");
    // A call tells of the end by itself, once.
    session.type_in("call crash\r");
    session.until("killed by signal 6 (SIGABRT)");
    session.until("pipeplug: `restart` starts it again");
    session.type_in("call echo x\r");
    session.until("`restart` starts it again\r\necho> ");
    assert_eq!(count(&mut session, "SIGKILL"), 3);
    finish(session);
}

#[test]
fn ctrl_c_ends_a_restart_that_hangs() {
    let place = Place::new();
    let mark = place.path().join("hang");
    let body = format!("[ -e {mark:?} ] && {{ echo hangs >&2; exec sleep 600; }}\n{MIRROR}");
    let path = place.standard("mirror", &body);
    let args = ["shell", path.to_str().unwrap(), "--stdio", "--color", "never"];
    let mut session = Session::start(&place, &args);
    session.until("mirror> ");
    fs::write(&mark, "").unwrap();
    session.type_in("restart\r");
    session.until("hangs\r\n");
    interrupt(&mut session, "restart: ended by Ctrl-C; `restart` starts the plugin");
    session.type_in("call x\r");
    session.until("the plugin does not run; `restart` starts it again");
    fs::remove_file(&mark).unwrap();
    session.type_in("restart\rcall x y\r");
    session.until("<x y>\r\n");
    finish(session);
}

#[test]
fn a_terminal_without_a_cursor_has_a_prompt_too() {
    let place = Place::new();
    let mut session = Session::start_with(&place, &["shell", "@echo"], &[("TERM", "dumb")]);
    session.until("echo> ");
    session.type_in("notify log x\rcall upper y\r");
    session.until("echo: x\r\n");
    session.until("Y\r\n");
    session.type_in("quit\r");
    assert!(!session.text().contains('\x1b'), "{:?}", session.text());
    assert_eq!(session.code(), Some(0));
}

#[test]
fn a_signal_ends_the_shell_also_while_a_line_is_edited() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    session.type_in("call echo ha");
    session.until("call echo ha");
    // The session is that of setsid(1), which has become the program.
    kill(Pid::from_raw(session.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(session.code(), Some(143));
}

#[test]
fn nothing_of_a_plugin_steers_the_terminal_of_a_shell() {
    let place = Place::new();
    let mut session = at_terminal(&place);
    session.type_in("call echo \"\x16\x1b[2Jx\"\r");
    session.until("\\u{1b}[2Jx\r\n");
    finish(session);
}
