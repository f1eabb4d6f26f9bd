//! Exit, signals, reaping, drop.

use std::fs;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal as NixSignal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use pipeplug_host::WaitStatus;
use pipeplug_host::process::{Channel, Delivery, EnvPlan, Launch, Leftovers, Signal, spawn};
use pipeplug_host::{Stdin, Stdout};

use crate::guest::{LONG, Script, read_all, read_line, send, wait, wait_readable};

const KILLED: WaitStatus = WaitStatus::Signaled { signal: 9, core_dumped: false };

#[test]
fn an_exit_status_is_told_again_and_again() {
    let script = Script::new("read line <&3; exit 3");
    let guest = script.spawn();
    assert_eq!(guest.child.try_wait().unwrap(), None);
    assert_eq!(guest.child.peek().unwrap(), None);
    assert_eq!(guest.child.wait_timeout(Duration::from_millis(5), Leftovers::Kill).unwrap(), None);
    assert!(!wait_readable(guest.child.exit_fd(), Duration::ZERO));

    send(&guest.to_guest, b"end\n");
    assert!(wait_readable(guest.child.exit_fd(), LONG));
    let exited = Some(WaitStatus::Exited(3));
    assert_eq!(guest.child.peek().unwrap(), exited);
    assert_eq!(guest.child.try_wait().unwrap(), exited);
    assert_eq!(guest.child.try_wait().unwrap(), exited);
    assert_eq!(guest.child.peek().unwrap(), exited);
    assert_eq!(guest.child.reap(Leftovers::Kill).unwrap(), exited);
    assert!(wait_readable(guest.child.exit_fd(), Duration::ZERO), "it stays readable");
}

#[test]
fn the_signal_that_ended_it_is_told() {
    for signal in [9, 15, 40] {
        let script = Script::new(&format!("kill -{signal} $$"));
        let guest = script.spawn();
        assert_eq!(wait(&guest), WaitStatus::Signaled { signal, core_dumped: false });
    }
}

#[test]
fn a_pidfd_is_there_where_the_build_has_one() {
    let script = Script::new("");
    let guest = script.spawn();
    let expected = cfg!(linux_native);
    assert_eq!(guest.child.pidfd().is_some(), expected);
}

#[test]
fn a_signal_reaches_the_whole_group() {
    let script = Script::new("sleep 1000 & echo $! >&4; wait");
    let guest = script.spawn();
    let grandchild: i32 = read_line(&guest.from_guest).parse().unwrap();
    assert_ne!(grandchild, guest.child.pid().as_raw());
    assert_eq!(guest.child.signal_group(Signal::Kill).unwrap(), Delivery::Sent);
    assert_eq!(wait(&guest), KILLED);
    // Both had a copy of the pipe.
    assert_eq!(read_all(&guest.from_guest), "");
}

#[test]
fn one_in_the_hosts_group_is_signalled_alone() {
    let script =
        Script::new("sleep 1000 4>&- 2>&- & echo $! >&4; ps -o pgid= -p $$ >&4; read line <&3");
    let mut launch = script.launch();
    launch.channel = Channel::Pipes { stdin: Stdin::Inherit, stdout: Stdout::Null };
    let guest = spawn(&launch).unwrap();
    let grandchild = Pid::from_raw(read_line(&guest.from_guest).parse().unwrap());
    assert_eq!(read_line(&guest.from_guest).trim(), nix::unistd::getpgrp().to_string());
    assert_eq!(guest.child.signal_group(Signal::Kill).unwrap(), Delivery::Sent);
    assert_eq!(guest.child.wait_timeout(LONG, Leftovers::Kill).unwrap(), Some(KILLED));
    kill(grandchild, NixSignal::SIGKILL).expect("it was left alone");
}

#[test]
fn a_signal_can_be_handled() {
    let script = Script::new("trap 'exit 7' TERM; echo ready >&4; read line <&3");
    let guest = script.spawn();
    assert_eq!(read_line(&guest.from_guest), "ready");
    assert_eq!(guest.child.signal_group(Signal::Terminate).unwrap(), Delivery::Sent);
    // The shell finishes its read first, which an untrapped interruption may or may not end.
    drop(guest.to_guest);
    assert_eq!(
        guest.child.wait_timeout(LONG, Leftovers::Leave).unwrap(),
        Some(WaitStatus::Exited(7))
    );
}

#[test]
fn nothing_is_signalled_once_it_is_reaped() {
    let script =
        Script::new("(echo up >&4; read line <&3; echo \"still $line\" >&4) 3<&3 & exit 0");
    let guest = script.spawn();
    assert_eq!(read_line(&guest.from_guest), "up");
    assert_eq!(wait(&guest), WaitStatus::Exited(0));
    // What it left is still in its group, and would die of this.
    assert_eq!(guest.child.signal_group(Signal::Kill).unwrap(), Delivery::Gone);
    drop(guest.child);
    send(&guest.to_guest, b"here\n");
    assert_eq!(read_all(&guest.from_guest), "still here\n");
}

#[test]
fn what_a_zombie_left_can_still_be_signalled() {
    let script = Script::new("sleep 1000 & exit 0");
    let guest = script.spawn();
    assert!(wait_readable(guest.child.exit_fd(), LONG));
    assert_eq!(guest.child.peek().unwrap(), Some(WaitStatus::Exited(0)));
    assert_eq!(guest.child.signal_group(Signal::Terminate).unwrap(), Delivery::Sent);
    assert_eq!(read_all(&guest.from_guest), "");
}

#[test]
fn leftovers_are_killed_when_asked() {
    let script = Script::new("sleep 1000 & exit 5");
    let guest = script.spawn();
    let status = guest.child.wait_timeout(LONG, Leftovers::Kill).unwrap();
    assert_eq!(status, Some(WaitStatus::Exited(5)));
    assert_eq!(read_all(&guest.from_guest), "");
}

#[test]
fn a_drop_leaves_no_process_and_no_zombie() {
    let script = Script::new("trap '' TERM INT HUP; sleep 1000 & echo up >&4; wait");
    let guest = script.spawn();
    assert_eq!(read_line(&guest.from_guest), "up");
    let pid = Pid::from_raw(guest.child.pid().as_raw());
    drop(guest.child);
    assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));
    assert_eq!(read_all(&guest.from_guest), "");
}

#[test]
fn a_drop_after_the_exit_kills_what_was_left() {
    let script = Script::new("sleep 1000 & exit 0");
    let guest = script.spawn();
    assert!(wait_readable(guest.child.exit_fd(), LONG));
    let pid = Pid::from_raw(guest.child.pid().as_raw());
    drop(guest.child);
    assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));
    assert_eq!(read_all(&guest.from_guest), "");
}

#[test]
fn a_stopped_guest_is_dropped_too() {
    let script = Script::new("kill -STOP $$");
    let guest = script.spawn();
    let pid = Pid::from_raw(guest.child.pid().as_raw());
    assert_eq!(guest.child.signal_group(Signal::Stop).unwrap(), Delivery::Sent);
    drop(guest.child);
    assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));
}

#[test]
fn other_children_of_the_host_are_left_alone() {
    let mut own = std::process::Command::new("sh").args(["-c", "exit 9"]).spawn().unwrap();
    let script = Script::new("");
    let guest = script.spawn();
    wait(&guest);
    drop(guest);
    assert_eq!(own.wait().unwrap().code(), Some(9));
}

#[test]
fn one_that_somebody_else_reaped_ended_unknown() {
    let script = Script::new("exit 4");
    let guest = script.spawn();
    waitpid(Pid::from_raw(guest.child.pid().as_raw()), None).unwrap();
    assert_eq!(wait(&guest), WaitStatus::Unknown);
    assert_eq!(guest.child.try_wait().unwrap(), Some(WaitStatus::Unknown));
    assert_eq!(guest.child.signal_group(Signal::Kill).unwrap(), Delivery::Gone);
}

#[test]
fn threads_signal_and_wait_at_once() {
    let script = Script::new("echo up >&4; while :; do read line <&3; done");
    let guest = script.spawn();
    assert_eq!(read_line(&guest.from_guest), "up");
    let reaped = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !reaped.load(Ordering::Acquire) {
                    let _ = guest.child.signal_group(Signal::Continue).unwrap();
                }
            });
            scope.spawn(|| {
                assert_eq!(guest.child.wait_timeout(LONG, Leftovers::Kill).unwrap(), Some(KILLED));
                reaped.store(true, Ordering::Release);
            });
        }
        let _ = guest.child.signal_group(Signal::Kill).unwrap();
    });
    assert_eq!(guest.child.signal_group(Signal::Continue).unwrap(), Delivery::Gone);
}

#[test]
fn a_guest_starts_with_clean_signals() {
    const PIPE_AND_CHLD: u64 = 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGCHLD - 1);
    let mask = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let script = Script::new("exec cat /proc/self/status >&4");
    let mut term = SigSet::empty();
    term.add(NixSignal::SIGTERM);
    term.thread_block().unwrap();
    let guest = script.spawn();
    let host = fs::read_to_string("/proc/thread-self/status").unwrap();
    term.thread_unblock().unwrap();
    let guest = read_all(&guest.from_guest);

    assert_ne!(mask(&host, "SigBlk:"), 0);
    assert_eq!(mask(&guest, "SigBlk:"), 0);
    assert_eq!(mask(&guest, "SigCgt:"), 0);
    // The Rust runtime ignores SIGPIPE for all of the host; what else it was started with is passed
    // on.
    assert_ne!(mask(&host, "SigIgn:") & PIPE_AND_CHLD, 0);
    assert_eq!(mask(&guest, "SigIgn:"), mask(&host, "SigIgn:") & !PIPE_AND_CHLD);
}

#[test]
fn the_hosts_own_mask_is_as_before() {
    let before = SigSet::thread_get_mask().unwrap();
    let script = Script::new("");
    let _guest = script.spawn();
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
}

#[test]
fn arguments_name_the_descriptors() {
    let script = Script::new("printf '<%s>' \"$@\" >&4");
    let mut launch = script.launch();
    launch.args = vec!["a b".into(), "".into()];
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), "<3><4><a b><>");
}

#[test]
fn standard_input_and_output_can_be_the_channel() {
    let script =
        Script::new("read line; printf '%s' \"$line\"; printf '<%s>' \"$@\"; echo oops >&2");
    let mut launch = script.launch();
    launch.channel = Channel::Stdio;
    launch.args = vec!["7".into(), "8".into()];
    let guest = spawn(&launch).unwrap();
    send(&guest.to_guest, b"hello\n");
    assert_eq!(read_all(&guest.from_guest), "hello<0><1><7><8>");
    assert_eq!(read_all(&guest.stderr), "oops\n");
    assert!(guest.stdout.is_none());
}

#[test]
fn standard_output_can_be_read_by_the_host() {
    let script = Script::new("echo out; echo err >&2; echo chunk >&4");
    let mut launch = script.launch();
    launch.channel = Channel::Pipes { stdin: Stdin::Null, stdout: Stdout::Log };
    let guest = spawn(&launch).unwrap();
    assert_eq!(read_all(guest.stdout.as_ref().unwrap()), "out\n");
    assert_eq!(read_all(&guest.stderr), "err\n");
    assert_eq!(read_all(&guest.from_guest), "chunk\n");
}

#[test]
fn argument_zero_is_the_absolute_path_or_what_is_asked_for() {
    let mut launch = Launch::new("/bin/sh");
    launch.channel = Channel::Stdio;
    launch.args = vec!["-c".into(), "echo $0".into()];
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), "/bin/sh\n");
    launch.arg0 = Some("/elsewhere/sh".into());
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), "/elsewhere/sh\n");
}

#[test]
fn of_the_hosts_environment_goes_what_is_let_through() {
    let script = Script::new(
        "printf '%s' \"$PIPEPLUG_TEST_NEW|${CARGO_MANIFEST_DIR-gone}|${PATH:+path}\" >&4",
    );
    let mut launch = script.launch();
    launch.env.set("PIPEPLUG_TEST_NEW", "a=b c");
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), "a=b c|gone|path");
    launch.env.pass("CARGO_MANIFEST_DIR");
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), format!("a=b c|{here}|path"));
    launch.env = EnvPlan::inherit();
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), format!("|{here}|path"));
    launch.env.remove("CARGO_MANIFEST_DIR");
    assert_eq!(read_all(&spawn(&launch).unwrap().from_guest), "|gone|path");
}

#[test]
fn a_relative_program_is_the_hosts_whatever_the_guests_directory() {
    let script = Script::new("pwd >&4");
    let depth = std::env::current_dir().unwrap().components().count() - 1;
    let relative = "../".repeat(depth) + script.path().to_str().unwrap().trim_start_matches('/');
    let elsewhere = tempfile::tempdir().unwrap();
    let mut launch = Launch::new(relative);
    launch.cwd = Some(elsewhere.path().to_owned());
    let directory = read_all(&spawn(&launch).unwrap().from_guest);
    assert_eq!(
        std::path::Path::new(directory.trim_end()),
        elsewhere.path().canonicalize().unwrap()
    );
}

#[test]
fn the_exit_descriptor_is_the_pidfd_where_there_is_one() {
    let script = Script::new("");
    let guest = script.spawn();
    if let Some(pidfd) = guest.child.pidfd() {
        assert_eq!(pidfd.as_raw_fd(), guest.child.exit_fd().as_raw_fd());
    }
}
