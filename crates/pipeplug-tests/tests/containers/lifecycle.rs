//! Lifecycle of a container: it is gone when its plugin is, and signals reach the plugin.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal;
use pipeplug_host::CallError;
use pipeplug_host::launcher::{Engine, Launcher};
use pipeplug_host::process::{Delivery, Launch, Signal};
use pipeplug_host::{Crash, Grace, Plugin, PluginBuilder, StartErrorKind, StoppedBy, WaitStatus};
use pipeplug_host::{Direction, Format};
use pipeplug_tests::{Containers, LONG, chunk, send};

crate::with_each_engine! {
    it_is_gone_after_a_stop,
    it_is_gone_after_a_stop_by_force,
    it_is_gone_when_it_exits,
    it_is_gone_after_a_kill_of_the_plugin,
    it_is_gone_after_a_kill_of_the_client,
    it_is_gone_after_a_start_that_took_too_long,
    a_kill_from_outside_is_no_lack_of_memory,
    a_status_like_that_of_a_signal_is_told_as_both,
    arguments_and_directory_arrive,
    signals_arrive,
    a_pause_holds_it_until_it_goes_on,
}

/// One that heeds nothing.
fn stubborn(containers: &Containers) -> PluginBuilder {
    containers
        .builder(containers.container())
        .arg("stubborn")
        .grace(Grace::each(Duration::from_millis(100)))
}

fn it_is_gone_after_a_stop(containers: &Containers) {
    let plugin = containers.builder(containers.container()).start().unwrap();
    assert_eq!(containers.all().len(), 1);
    let stopped = plugin.stop_within(Grace::each(LONG)).unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Stop, WaitStatus::Exited(0)));
    assert_eq!(containers.all(), [""; 0]);
}

fn it_is_gone_after_a_stop_by_force(containers: &Containers) {
    let plugin = stubborn(containers).start().unwrap();
    let stopped = plugin.stop().unwrap();
    assert_eq!((stopped.by, stopped.status), (StoppedBy::Kill, WaitStatus::Exited(128 + 9)));
    containers.assert_gone();
}

fn it_is_gone_when_it_exits(containers: &Containers) {
    let plugin = containers.builder(containers.container()).start().unwrap();
    plugin.call("exit", "7").unwrap_err();
    assert_eq!(plugin.wait(LONG).unwrap(), Some(WaitStatus::Exited(7)));
    assert_eq!(containers.all(), [""; 0]);
}

fn it_is_gone_after_a_kill_of_the_plugin(containers: &Containers) {
    let plugin = stubborn(containers).start().unwrap();
    // The host may learn of the end of the container before that of the client.
    let killed =
        containers.command(&["exec", &containers.all()[0], "/captive", "kill"]).output().unwrap();
    assert_eq!(plugin.wait(LONG).unwrap(), Some(WaitStatus::Exited(128 + 9)), "{killed:?}");
    assert_eq!(containers.all(), [""; 0]);
}

fn it_is_gone_after_a_kill_of_the_client(containers: &Containers) {
    let plugin = stubborn(containers).start().unwrap();
    send(plugin.pid().as_raw(), signal::Signal::SIGKILL);
    let status = plugin.wait(LONG).unwrap().unwrap();
    assert!(matches!(status, WaitStatus::Signaled { signal: 9, .. }), "{status}");
    containers.assert_gone();
}

fn it_is_gone_after_a_start_that_took_too_long(containers: &Containers) {
    // The shorter ones are over before the container runs, or before there is one.
    for millis in [1, 30, 100, 300, 1000] {
        let builder = containers.builder(containers.container()).arg("mute");
        let error = builder.handshake_timeout(Duration::from_millis(millis)).start().unwrap_err();
        assert!(matches!(error.kind(), StartErrorKind::HandshakeTimeout { .. }), "{error}");
        containers.assert_gone();
    }
}

fn diagnosis(plugin: &Plugin, error: &CallError) -> String {
    assert_eq!(plugin.wait(LONG).unwrap(), Crash::of(error).unwrap().status);
    Crash::of(error).unwrap().diagnosis.clone().unwrap()
}

fn a_kill_from_outside_is_no_lack_of_memory(containers: &Containers) {
    let plugin = containers.builder(containers.container()).start().unwrap();
    let call = plugin.request("burn", "60000").begin().unwrap();
    let killed = containers.command(&["kill", &containers.all()[0]]).output().unwrap();
    assert!(killed.status.success(), "{killed:?}");
    let told = diagnosis(&plugin, &call.wait().unwrap_err());
    let cause = match containers.engine {
        Engine::Docker => "the container was killed by `docker kill`",
        // It does not tell.
        _ => "it may also be `podman kill`",
    };
    assert!(told.contains(cause), "{told}");
}

fn a_status_like_that_of_a_signal_is_told_as_both(containers: &Containers) {
    for (status, told) in [
        (137, "with this status"),
        (139, "which stands for SIGSEGV: the program crashed, or exited"),
    ] {
        let plugin = containers.builder(containers.container()).start().unwrap();
        let error = plugin.call("exit", status.to_string()).unwrap_err();
        let diagnosis = diagnosis(&plugin, &error);
        assert!(diagnosis.contains(told), "{diagnosis}");
        let summary = Crash::of(&error).unwrap().summary();
        assert!(summary.contains(&format!("exit status {status} after")), "{summary}");
    }
}

fn arguments_and_directory_arrive(containers: &Containers) {
    let told = |builder: PluginBuilder| {
        let plugin = builder
            .handshake_timeout(LONG)
            .args(["a b", "--c"])
            .current_dir("/proc")
            .start()
            .unwrap();
        format!("{} in {}", plugin.call("args", "").unwrap(), plugin.call("cwd", "").unwrap())
    };
    let placed = || containers.builder(containers.container());
    assert_eq!(told(placed()), "/captive a b --c in /proc");
    let path = Plugin::builder("/captive").launcher(containers.container());
    assert_eq!(told(path), "/captive a b --c in /proc");
    let entry = containers.container().entry_point("/captive");
    assert_eq!(
        told(Plugin::builder("/own").launcher(entry.clone())),
        "/captive /own a b --c in /proc"
    );
    assert_eq!(told(placed().launcher(entry)), "/captive a b --c in /proc");
}

fn signals_arrive(containers: &Containers) {
    for (signal, number) in [(Signal::Terminate, 15), (Signal::User1, 10), (Signal::Hangup, 1)] {
        let started = containers.container().start(&placed()).unwrap();
        let process = started.process;
        // A client forwards signals only some time after the start of the container. Before that it
        // dies of them.
        fcntl(&started.from_guest, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        let (mut to_guest, mut from_guest) =
            (File::from(started.to_guest), File::from(started.from_guest));
        to_guest
            .write_all(&chunk(Format::Standard, 1, Direction::Request, "GetMetadata", b""))
            .unwrap();
        from_guest.read_exact(&mut [0]).unwrap();
        // That moment cannot be observed.
        let mut ended = process.wait_timeout(Duration::from_millis(500)).unwrap();
        for _ in 0..6 {
            if ended.is_none() {
                assert_eq!(process.signal(signal).unwrap(), Delivery::Sent);
                ended = process.wait_timeout(Duration::from_secs(5)).unwrap();
            }
        }
        assert_eq!(ended, Some(WaitStatus::Exited(128 + number)), "{signal}");
        assert_eq!(process.signal(signal).unwrap(), Delivery::Gone);
    }
}

fn a_pause_holds_it_until_it_goes_on(containers: &Containers) {
    let started = containers.container().start(&placed()).unwrap();
    let process = started.process;
    containers.wait_state("running");
    assert_eq!(process.signal(Signal::Stop).unwrap(), Delivery::Sent);
    containers.wait_state("paused");
    assert!(process.signal(Signal::Stop).unwrap_err().to_string().contains("pause"));
    assert_eq!(process.signal(Signal::Continue).unwrap(), Delivery::Sent);
    containers.wait_state("running");
    assert_eq!(process.signal(Signal::Stop).unwrap(), Delivery::Sent);
    assert_eq!(
        process.signal(Signal::Kill).unwrap(),
        Delivery::Sent,
        "one that is held can be killed too"
    );
    assert!(process.wait_timeout(LONG).unwrap().is_some());
}

fn placed() -> Launch {
    let mut launch = Launch::new("captive");
    launch.is_preinstalled = true;
    launch
}
