//! Time until a host notices that its plugin was killed, at any point.

use std::fs;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_host::{Plugin, StartErrorKind};
use pipeplug_tests::{LONG, SOON, Script, eventually, is_running, send};

use crate::{plain, ready};

fn kill(plugin: &Plugin) -> Instant {
    let begun = Instant::now();
    send(plugin.pid().as_raw(), Signal::SIGKILL);
    begun
}

#[track_caller]
fn assert_noticed(what: &str, begun: Instant) {
    let took = begun.elapsed();
    println!("{what}: noticed after {took:?}");
    assert!(took < SOON, "{what}: {took:?}");
}

#[test]
fn in_the_handshake() {
    let script = Script::new(r#"echo up >"$dir/up"; exec sleep 1000"#);
    let up = script.dir().join("up");
    let (tell, killed) = mpsc::channel();
    let builder = script.builder().handshake_timeout(LONG).on_spawn(move |plugin| {
        let (up, tell, plugin) = (up.clone(), tell.clone(), plugin.clone());
        thread::spawn(move || {
            eventually("it runs", || up.exists());
            tell.send(kill(&plugin)).unwrap();
        });
    });
    let error = builder.start().unwrap_err();
    assert_noticed("in the handshake", killed.recv().unwrap());
    assert!(matches!(error.kind(), StartErrorKind::Exited { .. }), "{error:?}");
}

#[test]
fn idle() {
    let plugin = ready(&plain());
    let begun = kill(&plugin);
    plugin.connection().wait_closed(LONG).unwrap();
    assert_noticed("idle", begun);
    assert!(plugin.wait(LONG).unwrap().is_some());
}

#[test]
fn in_a_call() {
    let plugin = ready(&plain());
    let call = plugin.request("never", "").begin().unwrap();
    plugin.call("echo", "").unwrap();
    let begun = kill(&plugin);
    call.wait_timeout(LONG).unwrap_err();
    assert_noticed("in a call", begun);
}

#[test]
fn while_it_writes_a_large_chunk() {
    // It has announced more than it will ever write, and waits for room in the pipe or goes on to
    // wait.
    let script = Script::answering(
        r#"printf '2\0003\0005\000large\000100000000\000' >&4
        head -c 1000000 /dev/zero >&4; echo up >"$dir/up"; exec sleep 1000"#,
    );
    let plugin = script.builder().start().unwrap();
    let call = plugin.request("large", "").begin().unwrap();
    eventually("it is within the chunk", || script.dir().join("up").exists());
    let begun = kill(&plugin);
    call.wait_timeout(LONG).unwrap_err();
    assert_noticed("while it writes a large chunk", begun);
}

#[test]
fn while_it_is_written_to() {
    let script = Script::answering("exec sleep 1000");
    let plugin = script.builder().start().unwrap();
    let writing = plugin.clone();
    let writing = thread::spawn(move || writing.call("large", vec![0; 64 << 20]).unwrap_err());
    eventually("the call is open", || plugin.connection().stats().open_calls == 1);
    let begun = kill(&plugin);
    writing.join().unwrap();
    assert_noticed("while it is written to", begun);
}

#[test]
fn with_its_descriptors_held_by_another() {
    // A session of its own keeps it out of the group that is killed.
    let script = Script::answering(
        r#"setsid sh -c 'echo $$ >"$0/pid.new"; mv "$0/pid.new" "$0/pid"; exec sleep 1000' "$dir" &
        exec sleep 1000"#,
    );
    let plugin = script.builder().start().unwrap();
    let pid_file = script.dir().join("pid");
    eventually("the other one runs", || pid_file.exists());
    let holder = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    let call = plugin.request("never", "").begin().unwrap();
    let begun = kill(&plugin);
    call.wait_timeout(LONG).unwrap_err();
    plugin.connection().wait_closed(LONG).unwrap();
    assert_noticed("with its descriptors held by another", begun);
    assert!(is_running(holder), "that is what makes the case");
    send(holder, Signal::SIGKILL);
    // The grandchild's end closes the last copies.
    assert!(plugin.wait(Duration::from_secs(10)).unwrap().is_some());
}
