//! Plugins that end in the middle of things.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::Direction;
use pipeplug_host::{CallError, Crash, Ended as _, NotifyError, Plugin, WaitStatus};
use pipeplug_tests::{LONG, SOON, Script, eventually, send};

use crate::{misbehave, plain, ready};

const KILLED: WaitStatus = WaitStatus::Signaled { signal: 9, core_dumped: false };

/// Waits for an end, and gives what an open call of 100 said of it.
#[track_caller]
fn errors_of_open_calls(plugin: &Plugin, end: impl FnOnce()) -> Vec<CallError> {
    let calls: Vec<_> = (0..99).map(|_| plugin.request("never", "").begin().unwrap()).collect();
    // One that waits already when the end comes: it may be the one that reads.
    let waits = plugin.clone();
    let waiting = thread::spawn(move || waits.call("never", "").unwrap_err());
    eventually("all are open", || plugin.connection().stats().open_calls == 100);
    let begun = Instant::now();
    end();
    let mut errors: Vec<_> =
        calls.into_iter().map(|call| call.wait_timeout(LONG).unwrap_err()).collect();
    errors.push(waiting.join().unwrap());
    assert!(begun.elapsed() < SOON, "the calls failed after {:?}", begun.elapsed());
    errors
}

fn first_line(error: &CallError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_closed(error: &CallError) {
    assert!(matches!(error, CallError::Closed { .. }), "{error:?}");
    assert!(error.to_string().contains("no reply, "), "{error}");
}

#[test]
fn a_kill_fails_every_open_call_and_every_later_one() {
    let plugin = ready(&plain());
    let errors = errors_of_open_calls(&plugin, || send(plugin.pid().as_raw(), Signal::SIGKILL));
    for error in errors {
        assert_eq!(
            first_line(&error),
            "never: no reply, misbehave has ended: killed by signal 9 (SIGKILL)"
        );
    }
    assert_eq!(plugin.wait(LONG).unwrap(), Some(KILLED));
    let later = plugin.call("echo", "later").unwrap_err();
    assert_eq!(
        first_line(&later),
        "echo: not sent, misbehave has ended: killed by signal 9 (SIGKILL)"
    );
    assert!(matches!(plugin.notify("echo", "later"), Err(NotifyError::Closed { .. })));
    assert_eq!(plugin.connection().stats().open_calls, 0);
}

#[test]
fn a_plugin_that_exits_or_aborts_fails_its_calls() {
    for (command, status) in [("exit", "exit status 5"), ("abort", "killed by signal 6 (SIGABRT)")]
    {
        let plugin = ready(&plain());
        for error in errors_of_open_calls(&plugin, || plugin.notify(command, "5").unwrap()) {
            let message = first_line(&error);
            assert!(
                message.contains(&format!("no reply, misbehave has ended: {status}")),
                "{message}"
            );
        }
        // Whether there is a core dump is not ours to say.
        let ended = plugin.wait(LONG).unwrap().unwrap().to_string();
        assert!(ended.starts_with(status), "{ended}");
    }
}

#[test]
fn one_whose_own_child_holds_the_pipes_fails_its_calls_all_the_same() {
    // A session of its own keeps it out of the group that is killed.
    let script = Script::answering(
        r#"setsid sh -c 'echo $$ >"$0/pid.new"; mv "$0/pid.new" "$0/pid"; exec sleep 1000' "$dir" &
        while ! [ -e "$dir/go" ]; do sleep 0.01; done
        exit 3"#,
    );
    let plugin = script.builder().start().unwrap();
    eventually("the grandchild started", || script.dir().join("pid").exists());
    let errors = errors_of_open_calls(&plugin, || fs::write(script.dir().join("go"), "").unwrap());
    for error in errors {
        let message = first_line(&error);
        assert!(message.ends_with(" has ended: exit status 3"), "{message}");
    }
    let later = first_line(&plugin.call("echo", "").unwrap_err());
    assert!(later.ends_with(" has ended: exit status 3"), "{later}");
    let pid = fs::read_to_string(script.dir().join("pid")).unwrap().trim().parse().unwrap();
    send(pid, Signal::SIGKILL);
}

#[test]
fn what_it_had_answered_ahead_of_its_end_counts() {
    for _ in 0..20 {
        let plugin = ready(&misbehave(&["one-at-a-time", "1000000"]));
        let calls: Vec<_> =
            (0..50).map(|i| plugin.request("echo", i.to_string()).begin().unwrap()).collect();
        // Answered behind those before it.
        plugin.call("sleep", "20").unwrap();
        send(plugin.pid().as_raw(), Signal::SIGKILL);
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.wait_timeout(LONG).unwrap(), i.to_string().as_bytes());
        }
    }
}

#[test]
fn one_that_ends_within_a_reply_is_told_as_broken() {
    let script = Script::answering(
        r#"while ! [ -e "$dir/go" ]; do sleep 0.01; done
        printf '2\0003\0005\000never\00010\000half' >&4"#,
    );
    let plugin = script.builder().start().unwrap();
    let errors = errors_of_open_calls(&plugin, || fs::write(script.dir().join("go"), "").unwrap());
    errors.iter().for_each(assert_closed);
    assert_eq!(plugin.wait(LONG).unwrap(), Some(WaitStatus::Exited(0)));
}

#[test]
fn one_that_closes_its_pipe_and_lives_on_fails_its_calls() {
    let script = Script::answering(
        r#"while ! [ -e "$dir/go" ]; do sleep 0.01; done
        exec 4>&-; exec sleep 1000"#,
    );
    let plugin = script.builder().start().unwrap();
    let errors = errors_of_open_calls(&plugin, || fs::write(script.dir().join("go"), "").unwrap());
    for error in errors {
        assert!(first_line(&error).ends_with("the other side closed the pipe"), "{error}");
        assert_eq!(Crash::of(&error).unwrap().status, None);
    }
    assert_eq!(plugin.status(), None);
    plugin.kill().unwrap();
}

#[test]
fn a_stopped_process_is_no_ended_one() {
    let plugin = ready(&plain());
    send(plugin.pid().as_raw(), Signal::SIGSTOP);
    // Its threads stop one by one.
    eventually("it has stopped", || {
        matches!(
            plugin.connection().ping(Duration::from_millis(50)),
            Err(CallError::TimedOut { .. })
        )
    });
    assert_eq!(plugin.status(), None);
    send(plugin.pid().as_raw(), Signal::SIGCONT);
    assert_eq!(plugin.call("echo", "back").unwrap(), "back");
}

#[test]
fn writing_to_one_that_is_gone_is_an_error_and_no_signal() {
    let plugin = ready(&plain());
    plugin.kill().unwrap();
    for _ in 0..10 {
        plugin.notify("echo", vec![0; 100_000]).unwrap_err();
    }
}

#[test]
fn calls_made_while_it_dies_say_how_it_ended_too() {
    for _ in 0..20 {
        let plugin = ready(&plain());
        send(plugin.pid().as_raw(), Signal::SIGKILL);
        let error = loop {
            if let Err(error) = plugin.call("echo", "x") {
                break error;
            }
        };
        let line = first_line(&error);
        let why = line.strip_prefix("echo: no reply, ").or(line.strip_prefix("echo: not sent, "));
        assert_eq!(why, Some("misbehave has ended: killed by signal 9 (SIGKILL)"), "{line}");
    }
}

#[test]
fn a_crash_is_a_value() {
    let plugin = ready(&plain().stderr_tail(3));
    assert!(plugin.crash().is_none());
    plugin.call("echo", "four").unwrap();
    plugin.call("err-lines", "10").unwrap();
    let open = plugin.request("never", "").begin().unwrap();
    thread::sleep(Duration::from_millis(30));
    let error = plugin.call("exit", "7").unwrap_err();
    let crash = Crash::of(&error).unwrap();
    assert_eq!((crash.plugin.as_str(), crash.pid), ("misbehave", plugin.pid()));
    assert_eq!(crash.path, plugin.path());
    assert_eq!(crash.status, Some(WaitStatus::Exited(7)));
    assert_eq!(crash.stderr, ["line 7", "line 8", "line 9"]);
    assert_eq!(crash.panic, None);
    assert!(crash.ran > Duration::from_millis(20) && crash.ran < LONG, "{crash:?}");

    let postmortem = error.postmortem().unwrap();
    assert!(postmortem.lasted > Duration::from_millis(10), "{postmortem:?}");
    let open_calls: Vec<_> =
        postmortem.open_calls.iter().map(|call| call.command.as_str()).collect();
    assert_eq!((open_calls, postmortem.open_count), (vec!["never", "exit"], 2));
    let age = postmortem.open_calls[0].age;
    // The clock of ages is some milliseconds behind.
    assert!(
        age >= Duration::from_millis(10) && age <= crash.ran + Duration::from_millis(20),
        "{age:?}"
    );
    assert_eq!(postmortem.open_calls[0].thread_id, open.thread_id());
    let (sent, received) = (postmortem.sent.last().unwrap(), &postmortem.received);
    assert_eq!(
        (sent.command.as_str(), sent.direction, sent.buffer_len),
        ("exit", Direction::Request, 1)
    );
    assert!(
        received.iter().any(|head| head.command == "echo" && head.buffer_len == 4),
        "{received:?}"
    );

    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], "exit: no reply, misbehave has ended: exit status 7");
    assert!(lines[1].ends_with("; last on stderr: \"line 9\""), "{text}");
    assert!(lines[2].starts_with("  calls open: 2 (\"never\" for 0."), "{text}");

    let of_open = open.wait().unwrap_err();
    assert_eq!(Crash::of(&of_open).unwrap().pid, plugin.pid());
    let later = plugin.notify("echo", "").unwrap_err();
    assert_eq!(Crash::of(&later).unwrap().status, Some(WaitStatus::Exited(7)));
    assert_eq!(plugin.crash().unwrap().stderr, crash.stderr);
    assert!(Crash::of(&CallError::WouldBlock { command: "x".into() }).is_none());
}

#[test]
fn a_panic_is_put_first() {
    let plugin = ready(&plain());
    let error = plugin.call("panic-and-exit", "out of cheese\nand wine").unwrap_err();
    let crash = Crash::of(&error).unwrap();
    let panic = crash.panic.as_deref().unwrap();
    assert!(panic.contains("misbehave.rs:") && panic.ends_with(": out of cheese"), "{panic}");
    let text = error.to_string();
    assert!(text.lines().nth(1).unwrap().contains("; it panicked: thread "), "{text}");
}

#[test]
fn the_last_line_that_is_not_blank_is_told() {
    let script = Script::answering("printf 'out of cheese\\n\\n  \\n' >&2; exit 3");
    let plugin = script.builder().start().unwrap();
    let error = plugin.call("x", "").unwrap_err();
    let text = Crash::of(&error).unwrap().to_string();
    assert!(text.ends_with("; last on stderr: \"out of cheese\""), "{text}");
}
