//! Nothing is left of a plugin that is gone, or never came.

#[cfg(linux_native)]
use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
#[cfg(linux_native)]
use pipeplug_host::process::{Channel, Launch, spawn};
use pipeplug_host::{EventLoop, Grace, Plugin, Stdout, StoppedBy};
#[cfg(linux_native)]
use pipeplug_tests::guards_of;
use pipeplug_tests::{
    HostFootprint, LONG, Script, children_of, descriptors, eventually, send, threads,
};

use crate::{FUGITIVE, MISBEHAVE, alone, misbehave};

#[test]
fn a_failed_start_leaves_nothing() {
    let _alone = alone();
    let before = HostFootprint::now();
    {
        // On one loop, which is there all the time: it is the last to go.
        let events = EventLoop::new().unwrap();
        let scripts = [
            ("exits", "exit 3"),
            ("is killed", "kill -KILL $$"),
            ("hangs", "sleep 1000"),
            (
                "hangs with children that ignore a TERM",
                "trap '' TERM; sleep 1000 & sleep 1000 & wait",
            ),
            ("closes its pipe", "exec 4>&-; sleep 1000"),
            ("prints what is no chunk", "echo hello >&4; sleep 1000"),
            ("prints without an end", "yes >&4"),
            ("complains without an end", "yes >&2"),
            (
                "answers in the other format",
                r"printf '1\0003\000GetMetadata 2\000{}' >&4; sleep 1000",
            ),
        ];
        for (what, body) in scripts {
            let script = Script::new(body);
            let builder = script
                .builder()
                .handshake_timeout(Duration::from_millis(100))
                .event_loop(events.clone());
            builder.start().expect_err(what);
            builder.stdout(Stdout::Log).start().expect_err(what);
        }
        for how in [&["asked", "[]"][..], &["start-fails"], &["classic"], &["no such way"]] {
            misbehave(how).event_loop(events.clone()).start().unwrap_err();
        }
        let missing = pipeplug_host::Plugin::builder("/nonexistent").event_loop(events.clone());
        missing.start().unwrap_err();
        let no_directory = misbehave(&["plain"]).current_dir("/nonexistent").event_loop(events);
        no_directory.start().unwrap_err();
    }
    before.assert_restored();
}

#[test]
fn the_next_start_of_the_same_builder_succeeds() {
    let _alone = alone();
    let before = HostFootprint::now();
    let script = Script::new(&format!(
        r#"[ -e "$dir/3" ] && exec {MISBEHAVE} "$1" "$2" plain
        [ -e "$dir/2" ] && {{ touch "$dir/3"; echo no chunk >&4; sleep 1000; }}
        [ -e "$dir/1" ] && {{ touch "$dir/2"; exit 2; }}
        touch "$dir/1"; sleep 1000"#
    ));
    {
        let builder = script
            .builder()
            .handshake_timeout(Duration::from_millis(500))
            .event_loop(EventLoop::new().unwrap());
        for _ in 0..3 {
            builder.start().unwrap_err();
        }
        let plugin = builder.start().unwrap();
        assert_eq!(plugin.call("echo", "there").unwrap(), "there");
    }
    before.assert_restored();
}

#[test]
fn two_hundred_plugins_one_after_the_other_leave_nothing() {
    let _alone = alone();
    let before = HostFootprint::now();
    let events = EventLoop::new().unwrap();
    let builder = misbehave(&["plain"]).event_loop(events);
    for i in 0..200 {
        let plugin = builder.start().unwrap();
        let _open = plugin.request("never", "").begin().unwrap();
        match i % 4 {
            0 => assert_eq!(plugin.kill().unwrap().by, StoppedBy::Kill),
            1 => {
                send(plugin.pid().as_raw(), Signal::SIGKILL);
                plugin.wait(LONG).unwrap().unwrap();
            }
            2 => {
                let stopped = plugin.stop_within(Grace::each(Duration::from_millis(1))).unwrap();
                assert!(stopped.by > StoppedBy::Itself);
            }
            _ => {
                let stdio = builder.clone().stdio().start().unwrap();
                assert_eq!(stdio.stop().unwrap().by, StoppedBy::Stop);
                plugin.kill().unwrap();
            }
        }
    }
    drop(builder);
    before.assert_restored();
}

#[test]
fn plugins_that_end_by_themselves_are_reaped_with_nobody_waiting() {
    let _alone = alone();
    let events = EventLoop::new().unwrap();
    let before = descriptors();
    let plugins: Vec<_> = (0..10)
        .map(|_| misbehave(&["plain"]).event_loop(events.clone()).start().unwrap())
        .collect();
    for plugin in &plugins {
        plugin.notify("exit", "0").unwrap();
    }
    eventually("all were reaped", || children_of(std::process::id()).is_empty());
    for plugin in &plugins {
        assert_eq!(plugin.status().and_then(|status| status.code()), Some(0));
        assert_eq!(plugin.stderr_tail(), Vec::<String>::new());
    }
    drop(plugins);
    eventually("their descriptors are closed", || descriptors() == before);
}

#[test]
#[cfg(target_os = "linux")]
fn children_of_its_hosts_are_reaped_too() {
    let _alone = alone();
    let before = HostFootprint::now();
    let events = EventLoop::new().unwrap();
    for stop in [Plugin::stop, Plugin::kill] {
        let plugin = Plugin::builder(FUGITIVE)
            .arg("leaves-siblings")
            .event_loop(events.clone())
            .start()
            .unwrap();
        assert!(children_of(std::process::id()).len() >= 3, "two of them live on");
        stop(&plugin).unwrap();
        assert_eq!(children_of(std::process::id()), [].into());
    }
    drop(events);
    before.assert_restored();
}

#[test]
#[cfg(linux_native)]
fn a_host_has_one_guard_and_another_where_that_was_killed() {
    let _alone = alone();
    let mut launch = Launch::new("/bin/true");
    launch.channel = Channel::Stdio;
    for _ in 0..1000 {
        spawn(&launch).unwrap();
    }
    let first = guards_of(std::process::id());
    assert_eq!(first.len(), 1, "{first:?}");
    first.iter().for_each(|guard| send(*guard, Signal::SIGKILL));
    eventually("it is gone", || guards_of(std::process::id()).is_empty());
    spawn(&launch).unwrap();
    // It has its name a moment later.
    eventually("there is another", || guards_of(std::process::id()).len() == 1);
    let second = guards_of(std::process::id());
    assert!(second.is_disjoint(&first), "{first:?}, {second:?}");
    // Signals that end services, and Ctrl-C, do nothing to it.
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        second.iter().for_each(|guard| send(*guard, signal));
    }
    spawn(&launch).unwrap();
    assert_eq!(guards_of(std::process::id()), second);
    let of_guard =
        second.iter().flat_map(|guard| fs::read_dir(format!("/proc/{guard}/fd")).unwrap());
    assert_eq!(of_guard.count(), 2, "its pipe and its table");
}

#[test]
fn a_loop_goes_with_its_last_plugin() {
    let _alone = alone();
    let before = HostFootprint::now();
    let plugin = misbehave(&["plain"]).event_loop(EventLoop::new().unwrap()).start().unwrap();
    eventually("its thread runs", || threads("pipeplug-loop") == 1);
    let call = plugin.request("sleep", "50").begin().unwrap();
    plugin.stop().unwrap();
    assert_eq!(call.wait().unwrap(), b"50");
    drop(plugin);
    before.assert_restored();
}
