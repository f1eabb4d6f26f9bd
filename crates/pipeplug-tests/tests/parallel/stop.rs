//! Steps of stopping a plugin.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{Grace, Output, Plugin, Reply, Request, Stdout, StoppedBy, WaitStatus};
use pipeplug_tests::{LONG, SOON, Script, eventually, group_members, group_of, is_running, send};

use crate::{FUGITIVE, MISBEHAVE, misbehave, plain, ready};

/// Time for a step that will not help.
const SHORT: Duration = Duration::from_millis(60);

const KILLED: WaitStatus = WaitStatus::Signaled { signal: 9, core_dumped: false };

/// Short for the steps up to this one, and long from there on: what comes later cannot have been
/// it.
fn patient_from(step: StoppedBy) -> Grace {
    let time = |of| if of < step { SHORT } else { LONG };
    let mut grace = Grace::default();
    grace.stop = time(StoppedBy::Stop);
    grace.end_of_file = time(StoppedBy::EndOfFile);
    grace.term = time(StoppedBy::Term);
    grace
}

#[track_caller]
fn assert_gone(pid: i32) {
    assert!(
        !fs::exists(format!("/proc/{pid}")).unwrap(),
        "process {pid} is still there, if only as a zombie"
    );
}

#[track_caller]
fn assert_stops(plugin: &Plugin, by: StoppedBy, status: WaitStatus) {
    let pid = plugin.pid().as_raw();
    let stopped = plugin.stop_within(patient_from(by)).unwrap();
    assert_eq!((stopped.by, stopped.status), (by, status));
    assert_gone(pid);
    assert_eq!(plugin.status(), Some(status));
    assert!(plugin.call("echo", "x").is_err(), "nothing can be called any more");
    assert!(plugin.notify("echo", "x").is_err(), "nothing can be sent any more");
}

#[test]
fn one_that_obeys_is_asked() {
    assert_stops(&plain().start().unwrap(), StoppedBy::Stop, WaitStatus::Exited(0));
    assert_stops(&plain().stdio().start().unwrap(), StoppedBy::Stop, WaitStatus::Exited(0));
}

#[test]
fn one_whose_main_never_waits_obeys_too() {
    assert_stops(
        &misbehave(&["busy-main"]).start().unwrap(),
        StoppedBy::Stop,
        WaitStatus::Exited(0),
    );
}

#[test]
fn one_that_ignores_the_request_gets_the_end_of_file() {
    let script = Script::answering("cat <&3 >/dev/null; exit 7");
    assert_stops(&script.builder().start().unwrap(), StoppedBy::EndOfFile, WaitStatus::Exited(7));
}

#[test]
fn one_that_ignores_its_pipe_gets_a_term() {
    let script = Script::answering("exec sleep 1000");
    let status = WaitStatus::Signaled { signal: 15, core_dumped: false };
    assert_stops(&script.builder().start().unwrap(), StoppedBy::Term, status);
}

#[test]
fn one_may_still_clean_up_on_a_term() {
    let script = Script::answering_after(
        "trap 'echo clean >\"$dir/clean\"; exit 4' TERM",
        "while :; do sleep 0.01; done",
    );
    let plugin = script.builder().start().unwrap();
    assert_stops(&plugin, StoppedBy::Term, WaitStatus::Exited(4));
    assert_eq!(fs::read_to_string(script.dir().join("clean")).unwrap(), "clean\n");
}

#[test]
fn one_that_ignores_a_term_is_killed() {
    let script = Script::answering_after("trap '' TERM INT HUP", "while :; do sleep 1000; done");
    assert_stops(&script.builder().start().unwrap(), StoppedBy::Kill, KILLED);
}

#[test]
fn one_that_reads_nothing_is_stopped_with_its_pipe_full() {
    let script = Script::answering("exec sleep 1000");
    let plugin = script.builder().start().unwrap();
    let call = plugin.request("large", vec![0; 1 << 20]).begin().unwrap();
    let status = WaitStatus::Signaled { signal: 15, core_dumped: false };
    assert_stops(&plugin, StoppedBy::Term, status);
    assert!(call.wait_timeout(LONG).is_err());
}

#[test]
fn kill_asks_nobody() {
    let plugin = plain().start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    let stopped = plugin.kill().unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Kill, KILLED));
    assert!(call.wait_timeout(LONG).is_err());
    assert_eq!(plugin.kill().unwrap().by, StoppedBy::Kill);
}

#[test]
fn what_it_started_goes_with_it() {
    for end in ["cat <&3 >/dev/null", "exit 0", "kill -KILL $$", "exec sleep 1000"] {
        let script = Script::answering(&format!(
            r#"sleep 1000 &
            (trap '' TERM HUP; sleep 1000) &
            echo $! >"$dir/pid.new"; mv "$dir/pid.new" "$dir/pid"
            {end}"#
        ));
        let plugin = script.builder().start().unwrap();
        let pid_file = script.dir().join("pid");
        eventually("the grandchild started", || pid_file.exists());
        let grandchild = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        plugin.stop_within(Grace::each(SHORT)).unwrap();
        // It gets its SIGKILL before the plugin is reaped, and has another parent now.
        eventually("the grandchild is gone", || !is_running(grandchild));
    }
}

#[test]
fn requests_that_it_is_working_on_are_answered_first() {
    let plugin = ready(&plain());
    let calls: Vec<_> = (0..20).map(|_| plugin.request("sleep", "150").begin().unwrap()).collect();
    let stopped = plugin.stop().unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Stop, WaitStatus::Exited(0)));
    for call in calls {
        assert_eq!(call.wait_timeout(LONG).unwrap(), b"150");
    }
}

#[test]
fn handlers_that_never_return_get_the_guests_grace_and_no_more() {
    let plugin = ready(&misbehave(&["grace", "100"]));
    let call = plugin.request("never", "").begin().unwrap();
    // It came behind, so that the other one is at work.
    plugin.call("echo", "").unwrap();
    let begun = Instant::now();
    assert_stops(&plugin, StoppedBy::Stop, WaitStatus::Exited(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(100) && took < LONG, "{took:?}");
    assert!(call.wait_timeout(LONG).is_err());
    assert!(plugin.stderr_tail().concat().contains("still at work"), "{:?}", plugin.stderr_tail());
}

#[test]
fn stopping_twice_tells_the_same_end() {
    let plugin = plain().start().unwrap();
    assert_eq!(plugin.stop().unwrap().by, StoppedBy::Stop);
    let again = plugin.clone().stop().unwrap();
    assert_eq!((again.by, again.status), (StoppedBy::Stop, WaitStatus::Exited(0)));
    assert_eq!(plugin.kill().unwrap().by, StoppedBy::Stop);
    let killed = plain().start().unwrap();
    assert_eq!(killed.kill().unwrap().by, StoppedBy::Kill);
    assert_eq!(killed.stop().unwrap().by, StoppedBy::Kill);
    let script = Script::answering_after("trap '' TERM", "while :; do sleep 1000; done");
    let stubborn = script.builder().grace(Grace::each(SHORT)).start().unwrap();
    for _ in 0..2 {
        assert_eq!(
            (stubborn.stop().unwrap().by, stubborn.status()),
            (StoppedBy::Kill, Some(KILLED))
        );
    }
}

#[test]
fn calls_say_that_this_host_has_stopped_it() {
    let plugin = plain().start().unwrap();
    plugin.stop().unwrap();
    plugin.connection().wait_closed(LONG).unwrap();
    let error = plugin.call("echo", "x").unwrap_err().to_string();
    let expected = "echo: not sent, misbehave was stopped by this host: exit status 0";
    assert!(error.starts_with(expected), "{error}");
    let plugin = plain().start().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    plugin.kill().unwrap();
    let error = call.wait().unwrap_err().to_string();
    let expected = "never: no reply, misbehave was stopped by this host: killed by signal 9";
    assert!(error.starts_with(expected), "{error}");
    // One that ends by itself is not said to be stopped.
    let plugin = plain().start().unwrap();
    let error = plugin.call("exit", "3").unwrap_err().to_string();
    assert!(error.starts_with("exit: no reply, misbehave has ended: exit status 3"), "{error}");
    plugin.stop().unwrap();
    let error = plugin.call("echo", "x").unwrap_err().to_string();
    assert!(error.starts_with("echo: not sent, misbehave has ended: exit status 3"), "{error}");
}

#[test]
fn several_threads_may_stop_it() {
    let plugin = ready(&plain());
    let call = plugin.request("sleep", "50").begin().unwrap();
    let stopping: Vec<_> = (0..4)
        .map(|_| {
            let plugin = plugin.clone();
            thread::spawn(move || plugin.stop().unwrap())
        })
        .collect();
    for stopping in stopping {
        let stopped = stopping.join().unwrap();
        assert_eq!(stopped.status, WaitStatus::Exited(0));
        assert_eq!(stopped.by, StoppedBy::Stop);
    }
    assert_eq!(call.wait_timeout(LONG).unwrap(), b"50");
}

#[test]
fn one_that_has_ended_is_told_apart() {
    let plugin = plain().start().unwrap();
    plugin.call("exit", "3").unwrap_err();
    assert_eq!(plugin.wait(LONG).unwrap(), Some(WaitStatus::Exited(3)));
    let stopped = plugin.stop().unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Itself, WaitStatus::Exited(3)));
    assert_gone(plugin.pid().as_raw());
}

#[test]
fn a_handler_may_stop_the_plugin_that_tells_it_something() {
    let (tell, told) = mpsc::channel();
    let plugin = plain()
        .handler(move |plugin: &Plugin, _: &mut Request| {
            tell.send(plugin.stop()?)?;
            Ok(Reply::empty())
        })
        .start()
        .unwrap();
    let begun = Instant::now();
    plugin.call("notify-host", "done").unwrap();
    let stopped = told.recv_timeout(LONG).unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Stop, WaitStatus::Exited(0)));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
fn a_handler_may_stop_the_plugin_that_waits_for_its_answer() {
    // The plugin cannot end before the answer that it waits for, which comes after the stop: the
    // end of file helps.
    let (tell, told) = mpsc::channel();
    let plugin = plain()
        .handler(move |plugin: &Plugin, _: &mut Request| {
            tell.send(plugin.stop_within(patient_from(StoppedBy::EndOfFile))?)?;
            Ok(Reply::empty())
        })
        .start()
        .unwrap();
    let call = plugin.request("call-host", "may I go").begin().unwrap();
    let stopped = told.recv_timeout(LONG).unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::EndOfFile, WaitStatus::Exited(0)));
    assert!(call.wait_timeout(LONG).is_err());
}

#[test]
fn dropping_the_last_handle_stops_it() {
    let plugin = plain().start().unwrap();
    let pid = plugin.pid().as_raw();
    let another = plugin.clone();
    drop(plugin);
    assert_eq!(another.call("echo", "x").unwrap(), "x");
    let call = another.request("sleep", "100").begin().unwrap();
    drop(another);
    assert_gone(pid);
    assert_eq!(call.wait_timeout(LONG).unwrap(), b"100", "it was asked, not killed");
}

#[test]
fn dropping_goes_through_all_the_steps() {
    let script = Script::answering_after("trap '' TERM", "while :; do sleep 1000; done");
    let plugin = script.builder().grace(Grace::each(SHORT)).start().unwrap();
    let pid = plugin.pid().as_raw();
    let begun = Instant::now();
    drop(plugin);
    assert_gone(pid);
    assert!(begun.elapsed() >= 3 * SHORT, "{:?}", begun.elapsed());
}

#[test]
fn a_handler_whose_handle_is_the_last_one_still_answers() {
    let (tell, told) = mpsc::channel();
    let (let_go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let plugin = plain()
        .handler(move |plugin: &Plugin, _: &mut Request| {
            tell.send(plugin.pid().as_raw())?;
            gone.lock().unwrap().recv()?;
            Ok(Reply::from("the answer"))
        })
        .start()
        .unwrap();
    let call = plugin.request("call-host", "question").begin().unwrap();
    let pid = told.recv_timeout(LONG).unwrap();
    // It keeps the connection, not the plugin.
    drop(plugin);
    let begun = Instant::now();
    let_go.send(()).unwrap();
    assert_eq!(call.wait_timeout(LONG).unwrap(), b"the answer");
    eventually("the plugin was stopped", || !fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(begun.elapsed() < SOON, "the answer went out before the stop: {:?}", begun.elapsed());
}

#[test]
fn one_that_left_its_group_is_reached() {
    for how in ["joins-its-child", "joins-its-host"] {
        for by in [StoppedBy::Term, StoppedBy::Kill] {
            let plugin = Plugin::builder(FUGITIVE).arg(how).start().unwrap();
            let pid = plugin.pid().as_raw();
            let group = group_of(pid).unwrap();
            assert_ne!(group, pid, "{how}");
            let stopped = match by {
                StoppedBy::Kill => plugin.kill(),
                _ => plugin.stop_within(patient_from(by)),
            };
            let stopped = stopped.unwrap();
            assert_eq!(stopped.by, by, "{how}");
            assert_gone(pid);
            // The leader of the group that it joined, if it is its child, is out of reach.
            let left = if how == "joins-its-child" { vec![group] } else { Vec::new() };
            assert_eq!(
                stopped.left.iter().map(|pid| pid.as_raw()).collect::<Vec<_>>(),
                left,
                "{how}"
            );
            left.into_iter().for_each(|pid| send(pid, Signal::SIGKILL));
        }
    }
}

#[test]
fn one_that_forks_all_the_time_leaves_none_of_its_group() {
    for _ in 0..5 {
        let plugin = Plugin::builder(FUGITIVE).arg("forks").start().unwrap();
        let group = plugin.pid().as_raw();
        assert_eq!(plugin.kill().unwrap().left, [], "what is in its group is within reach");
        eventually("all are gone", || group_members(group).is_empty());
    }
}

#[test]
#[cfg(linux_native)]
fn what_runs_on_is_named() {
    let start = |how| Plugin::builder(FUGITIVE).arg(how).start().unwrap();
    for (how, by) in [("leaves-a-daemon", StoppedBy::Stop), ("keeps-a-daemon", StoppedBy::Term)] {
        let stopped = start(how).stop_within(patient_from(by)).unwrap();
        assert_eq!(stopped.by, by);
        let [daemon] = stopped.left[..] else { panic!("{how}: {stopped:?}") };
        assert!(is_running(daemon.as_raw()));
        send(daemon.as_raw(), Signal::SIGKILL);
    }
    for how in ["leaves-nothing", "leaves-a-child", "leaves-siblings"] {
        let stopped = start(how).stop_within(patient_from(StoppedBy::Stop)).unwrap();
        assert_eq!((stopped.by, &stopped.left[..]), (StoppedBy::Stop, &[][..]), "{how}");
    }
}

#[test]
fn one_that_is_stopped_goes_on_to_end_by_sigterm() {
    let plugin = plain().start().unwrap();
    assert_eq!(plugin.stopped_by(), None);
    send(plugin.pid().as_raw(), Signal::SIGSTOP);
    eventually("it is stopped", || plugin.stopped_by() == Some(Signal::SIGSTOP as i32));
    let stopped = plugin.stop_within(patient_from(StoppedBy::Term)).unwrap();
    assert_eq!(stopped.by, StoppedBy::Term);
    assert_eq!(plugin.stopped_by(), None);
}

#[test]
fn what_holds_its_standard_error_is_named_and_not_waited_for() {
    // The daemon keeps standard error, and not what the plugin talks over.
    let script = format!("sleep 1000 3>&- 4>&- & exec '{MISBEHAVE}' \"$@\"");
    let script = Script::new(&script.replacen("sleep", "setsid sleep", 1));
    let plugin = script.builder().stdout(Stdout::Log).start().unwrap();
    let begun = Instant::now();
    let stopped = plugin.stop().unwrap();
    drop(plugin);
    let took = begun.elapsed();
    assert!(took < SOON, "one wait for all streams, and none at the drop: {took:?}");
    assert_eq!(
        (stopped.by, &stopped.held[..]),
        (StoppedBy::Stop, &[Output::Stderr, Output::Stdout][..])
    );
    if cfg!(target_os = "linux") {
        let [daemon] = stopped.left[..] else { panic!("{stopped:?}") };
        send(daemon.as_raw(), Signal::SIGKILL);
    }
}

#[test]
fn a_stopped_plugin_is_no_longer_published_while_a_handle_of_it_is_left() {
    let is_published = || {
        let hosts = pipeplug_host::status::read().unwrap().hosts;
        hosts.iter().any(|host| host.pid == std::process::id().cast_signed())
    };
    let plugin = plain().publish_status().start().unwrap();
    eventually("the status is published", is_published);
    let other = plugin.clone();
    plugin.stop().unwrap();
    assert!(!is_published());
    drop(other);
}
