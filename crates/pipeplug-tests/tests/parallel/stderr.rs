//! Standard error of a plugin.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use pipeplug_host::{Output, PluginBuilder};
use pipeplug_tests::{LONG, Script, eventually};

use crate::{LONELY_HOST, misbehave, plain, ready};

/// Lines, in the order in which they were handed on.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn of(&self, builder: PluginBuilder) -> PluginBuilder {
        let lines = self.clone();
        builder.on_line(move |output, line| {
            assert_eq!(output, Output::Stderr);
            lines.0.lock().unwrap().push(line.to_owned());
        })
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn a_host_that_takes_no_lines_shows_them() {
    let script = Script::answering(r"printf 'first\nred \033[31m\n' >&2; exec cat <&3 >/dev/null");
    let mut host = Command::new(LONELY_HOST)
        .arg("exits")
        .arg(script.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let shown = BufReader::new(host.stderr.take().unwrap()).lines().take(2);
    assert_eq!(
        shown.map(Result::unwrap).collect::<Vec<_>>(),
        ["plugin: first", r"plugin: red \u{1b}[31m"]
    );
    drop(host.stdin.take());
    host.wait().unwrap();
}

#[test]
fn lines_come_whole_and_in_order() {
    let lines = Lines::default();
    let plugin = lines.of(plain()).start().unwrap();
    plugin.call("err-lines", "5000").unwrap();
    eventually("all came", || lines.len() == 5000);
    let expected: Vec<_> = (0..5000).map(|i| format!("line {i}")).collect();
    assert_eq!(lines.all(), expected);
    assert_eq!(plugin.stderr_tail(), expected[4980..]);
}

#[test]
fn pieces_of_a_line_are_one_line() {
    let lines = Lines::default();
    let plugin = lines.of(plain()).start().unwrap();
    for piece in ["a ", "line ", "in ", "pieces\nand ", "another\r\n", "\n"] {
        plugin.call("err-bytes", piece).unwrap();
    }
    eventually("all came", || lines.len() == 3);
    assert_eq!(lines.all(), ["a line in pieces", "and another", ""]);
}

#[test]
fn a_last_line_without_its_end_is_one() {
    let lines = Lines::default();
    let script =
        Script::answering("printf 'one\\ntwo' >&2; cat <&3 >/dev/null; printf ', three' >&2");
    let plugin = lines.of(script.builder()).start().unwrap();
    eventually("the beginning came", || plugin.stderr_tail() == ["one", "two"]);
    eventually("a line came", || lines.len() == 1);
    assert_eq!(lines.all(), ["one"], "the other may go on");
    let mut grace = pipeplug_host::Grace::each(LONG);
    grace.stop = Duration::from_millis(20);
    plugin.stop_within(grace).unwrap();
    assert_eq!(lines.all(), ["one", "two, three"], "at its end everything was handed on");
    assert_eq!(plugin.stderr_tail(), ["one", "two, three"]);
}

#[test]
fn all_was_handed_on_when_a_stop_returns() {
    for _ in 0..10 {
        let lines = Lines::default();
        let plugin = lines.of(plain()).start().unwrap();
        plugin.notify("err-lines", "2000").unwrap();
        plugin.stop().unwrap();
        assert_eq!(lines.len(), 2000);
    }
}

#[test]
fn a_very_long_line_is_cut_and_nothing_of_it_lost() {
    const LONGEST: usize = 16 << 10;
    let lines = Lines::default();
    let plugin = lines.of(plain()).start().unwrap();
    // Characters of two bytes, and an odd one ahead, so that every cut at a round number goes
    // through one.
    let long = format!("x{}", "é".repeat(500_000));
    plugin.call("err-bytes", format!("{long}\nshort\n")).unwrap();
    eventually("all came", || lines.all().last().is_some_and(|line| line == "short"));
    let mut all = lines.all();
    all.pop();
    assert!(
        all.iter().all(|line| line.len() <= LONGEST),
        "{:?}",
        all.iter().map(String::len).max()
    );
    assert!(all.concat() == long, "something of the line is lost or another");
}

#[test]
fn what_is_no_utf_8_is_replaced() {
    let lines = Lines::default();
    let plugin = lines.of(plain()).start().unwrap();
    plugin.call("err-bytes", b"caf\xe9 \xff\xfe ok\n\xf0\x9f\nnext\n".to_vec()).unwrap();
    eventually("all came", || lines.len() == 3);
    assert_eq!(lines.all(), ["caf\u{fffd} \u{fffd}\u{fffd} ok", "\u{fffd}", "next"]);
}

#[test]
fn a_handler_that_panics_gets_the_next_line_all_the_same() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let plugin = plain()
        .on_line(move |_, line| {
            counted.fetch_add(1, Ordering::SeqCst);
            assert!(!line.ends_with('7'), "it does not like {line}");
        })
        .start()
        .unwrap();
    plugin.call("err-lines", "100").unwrap();
    eventually("all came", || seen.load(Ordering::SeqCst) == 100);
    assert_eq!(plugin.call("echo", "x").unwrap(), "x");
}

#[test]
fn a_handler_may_call_the_plugin() {
    let plugin: Arc<Mutex<Option<pipeplug_host::Plugin>>> = Arc::default();
    let answered = Arc::new(AtomicBool::new(false));
    let (mine, done) = (Arc::clone(&plugin), Arc::clone(&answered));
    let started = plain()
        .on_line(move |_, line| {
            let plugin = mine.lock().unwrap().clone().unwrap();
            done.store(plugin.call("echo", line).unwrap() == line, Ordering::SeqCst);
        })
        .start()
        .unwrap();
    *plugin.lock().unwrap() = Some(started.clone());
    started.call("err-lines", "1").unwrap();
    eventually("it was answered", || answered.load(Ordering::SeqCst));
    plugin.lock().unwrap().take();
}

#[test]
fn calls_go_on_while_the_handler_of_lines_is_stuck() {
    let go_on = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&go_on);
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let plugin = ready(&plain().on_line(move |_, _| {
        while !waits.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    let writing = plugin.request("err-lines", "100000").begin().unwrap();
    for i in 0..200 {
        assert_eq!(plugin.call("echo", i.to_string()).unwrap(), i.to_string());
    }
    assert!(
        plugin.connection().stats().open_calls == 1,
        "the plugin waits to write, since more is not read"
    );
    go_on.store(true, Ordering::SeqCst);
    writing.wait_timeout(LONG).unwrap();
    eventually("all came", || seen.load(Ordering::SeqCst) == 100_000);
}

#[test]
fn a_flood_on_stderr_leaves_the_loop_to_others() {
    // Lines that are cheap to hand on, faster than they can be read.
    let script = Script::answering(r#"yes "$(printf '%04000d' 0)" >&2"#);
    let flooding: Vec<_> = (0..2)
        .map(|_| {
            script
                .builder()
                .grace(pipeplug_host::Grace::each(Duration::from_millis(20)))
                .start()
                .unwrap()
        })
        .collect();
    let plugin = ready(&plain());
    for i in 0..100 {
        // Two at once: neither caller reads by itself, the loop does.
        let one = plugin.request("echo", i.to_string()).begin().unwrap();
        let other = plugin.request("echo", "other").begin().unwrap();
        assert_eq!(one.wait_timeout(LONG).unwrap(), i.to_string().as_bytes());
        assert_eq!(other.wait_timeout(LONG).unwrap(), b"other");
    }
    drop(flooding);
}

#[test]
fn lines_and_a_stop_are_dealt_with_though_every_handler_thread_is_taken() {
    let events = pipeplug_host::EventLoop::with_handler_threads(1).unwrap();
    let (inside, entered) = std::sync::mpsc::channel();
    let go_on = Arc::new(AtomicBool::new(false));
    let waits = Arc::clone(&go_on);
    let busy = plain()
        .event_loop(events.clone())
        .handler(move |_: &pipeplug_host::Plugin, _: &mut pipeplug_host::Request| {
            inside.send(())?;
            while !waits.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok("".into())
        })
        .start()
        .unwrap();
    let request = busy.request("call-host", "anything").begin().unwrap();
    entered.recv_timeout(LONG).unwrap();
    let lines = Lines::default();
    let other = lines.of(plain().event_loop(events)).start().unwrap();
    other.call("err-lines", "3").unwrap();
    eventually("they are handed on", || lines.len() == 3);
    assert_eq!(other.stop().unwrap().by, pipeplug_host::StoppedBy::Stop);
    assert!(other.connection().wait_closed(LONG).is_some());
    go_on.store(true, Ordering::SeqCst);
    request.wait_timeout(LONG).unwrap();
}

#[test]
fn no_line_need_be_kept() {
    let plugin = plain().stderr_tail(0).start().unwrap();
    plugin.call("err-lines", "10").unwrap();
    assert_eq!(plugin.stderr_tail(), Vec::<String>::new());
}

/// A plugin that logs to its standard error has it told there once, and one that does not too.
#[test]
fn a_one_way_that_fails_is_told_of_once() {
    for builder in [plain(), misbehave(&["logs"])] {
        let lines = Lines::default();
        let plugin = lines.of(builder).start().unwrap();
        plugin.notify("exit", "no number").unwrap();
        plugin.call("echo", "").unwrap();
        plugin.stop().unwrap();
        let told: Vec<_> = lines.all().into_iter().filter(|line| line.contains("exit")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("invalid digit"), "{told:?}");
    }
}

#[test]
fn a_one_way_that_fails_is_told_of() {
    let plugin = plain().start().unwrap();
    plugin.notify("unheard\x1bof", "").unwrap();
    plugin.notify("exit", "no number").unwrap();
    plugin.stop().unwrap();
    let lines = plugin.stderr_tail();
    for said in [
        "misbehave: one-way \"unheard\\u{1b}of\" failed: unknown command",
        "misbehave: one-way \"exit\" failed: invalid digit",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(said)), "{said}: {lines:?}");
    }
}
