//! Hosts in odd states. Each test executes this test program once more, as that host.

use std::env;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::panic;
use std::process::Command;
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, close};
use pipeplug_host::WaitStatus;
use pipeplug_host::process::{Channel, Delivery, Leftovers, Signal, SpawnErrorKind, spawn};
use pipeplug_host::{Stdin, Stdout};

use crate::descriptors::{assert_pipes, read_report, reporter};
use crate::guest::{LONG, Script, read_all, send, wait};

/// Names the file that the odd host writes to once it is through.
const REPORT: &str = "PIPEPLUG_TEST_REPORT";

/// Runs `body` in a process of its own, which a shell starts after `setup`; gives its standard
/// output.
fn in_host(test: &str, setup: &str, body: impl FnOnce()) -> String {
    if let Some(report) = env::var_os(REPORT) {
        // The odd host may have no standard error to complain to.
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(body));
        let text = match &outcome {
            Ok(()) => "through",
            Err(panic) => panic.downcast_ref::<String>().map_or("a panic", String::as_str),
        };
        fs::write(report, text).unwrap();
        return String::new();
    }
    let dir = tempfile::tempdir().unwrap();
    let report = dir.path().join("report");
    let output = Command::new("sh")
        .args(["-c", &format!("{setup}; exec \"$@\""), "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("odd_hosts::{test}"), "--nocapture", "--test-threads=1"])
        .env(REPORT, &report)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        fs::read_to_string(&report).unwrap_or_default(),
        "through",
        "{}: {stderr}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Talks once through a guest that shows its descriptors, and once through one that answers.
fn starts_guests() {
    let script = reporter(4);
    assert_pipes(&script, &script.spawn());
    let script = Script::new("read line <&3; echo \"got $line\" >&4");
    let guest = script.spawn();
    send(&guest.to_guest, b"it\n");
    assert_eq!(read_all(&guest.from_guest), "got it\n");
    assert_eq!(wait(&guest), WaitStatus::Exited(0));
    // The pipe for the errno of exec must be clear of 3 and 4 too.
    let error = spawn(&pipeplug_host::process::Launch::new("/nowhere")).unwrap_err();
    assert!(matches!(error.kind(), SpawnErrorKind::NotFound { .. }), "{error:?}");
}

#[test]
fn low_numbers_free() {
    in_host("low_numbers_free", "exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-", starts_guests);
}

#[test]
fn low_numbers_taken() {
    let setup =
        "exec 3</dev/null 4</dev/zero 5</dev/null 6</dev/null 7</dev/null 8</dev/null 9</dev/null";
    in_host("low_numbers_taken", setup, starts_guests);
}

#[test]
fn three_taken() {
    in_host("three_taken", "exec 3</dev/null 4<&-", starts_guests);
}

#[test]
fn four_taken() {
    in_host("four_taken", "exec 3<&- 4</dev/null", starts_guests);
}

#[test]
fn no_standard_descriptors() {
    in_host("no_standard_descriptors", ":", || {
        for fd in 0..=2 {
            close(fd).unwrap();
        }
        starts_guests();
        let script = reporter(4);
        let guest = script.spawn();
        let has = read_report(&script, &guest.from_guest);
        assert_eq!(has[&1], "/dev/null", "a guest does not go without a standard output");
        let mut launch = script.launch();
        launch.channel = Channel::Pipes { stdin: Stdin::Inherit, stdout: Stdout::Inherit };
        assert_pipes(&script, &spawn(&launch).unwrap());
        let first = File::open("/dev/null").unwrap();
        assert_eq!(first.as_raw_fd(), 0, "no pipe has taken a standard number");
    });
}

#[test]
fn standard_output_is_inherited() {
    let shown = in_host("standard_output_is_inherited", ":", || {
        let script = Script::new("echo from the guest");
        let guest = script.spawn();
        assert_eq!(wait(&guest), WaitStatus::Exited(0));
    });
    // The odd host itself, which is this test too, has nothing to see.
    assert!(env::var_os(REPORT).is_some() || shown.contains("from the guest\n"), "{shown}");
}

#[test]
fn children_ignored() {
    in_host("children_ignored", "set -- env --ignore-signal=CHLD \"$@\"", || {
        let script = Script::new("exit 3");
        let guest = script.spawn();
        assert_eq!(wait(&guest), WaitStatus::Unknown);
        assert_eq!(guest.child.signal_group(Signal::Kill).unwrap(), Delivery::Gone);

        let script = Script::new("read line <&3");
        let guest = script.spawn();
        assert_eq!(guest.child.try_wait().unwrap(), None);
        assert_eq!(guest.child.signal_group(Signal::Terminate).unwrap(), Delivery::Sent);
        assert_eq!(
            guest.child.wait_timeout(LONG, Leftovers::Kill).unwrap(),
            Some(WaitStatus::Unknown)
        );

        let script = Script::new("read line <&3");
        let guest = script.spawn();
        let pid = Pid::from_raw(guest.child.pid().as_raw());
        drop(guest.child);
        assert_eq!(waitpid(pid, Some(WaitPidFlag::WNOHANG)), Err(Errno::ECHILD));

        // The guest itself can wait for its own.
        let script = Script::new("sh -c 'exit 6' & wait $!; echo $? >&4");
        let guest = script.spawn();
        assert_eq!(read_all(&guest.from_guest), "6\n");

        let error = spawn(&pipeplug_host::process::Launch::new("/nowhere")).unwrap_err();
        assert!(matches!(error.kind(), SpawnErrorKind::NotFound { .. }), "{error:?}");
    });
}

#[test]
fn no_descriptors_left() {
    in_host("no_descriptors_left", "ulimit -n 40", || {
        let count = || fs::read_dir("/proc/self/fd").unwrap().count();
        let script = Script::new("");
        let before = count();
        let mut open = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            open.push(file);
        }
        loop {
            match spawn(&script.launch()) {
                Ok(guest) => {
                    assert_eq!(wait(&guest), WaitStatus::Exited(0));
                    break;
                }
                Err(error) => {
                    let SpawnErrorKind::TooManyDescriptors { limit, .. } = error.kind() else {
                        panic!("{error:?}")
                    };
                    assert_eq!(*limit, 40);
                    open.pop().expect("a start needs fewer than there are");
                }
            }
        }
        // At whatever descriptor it failed, it gave all of them back.
        drop(open);
        let deadline = Instant::now() + LONG;
        while count() != before {
            // In portable builds a watcher may be about to close its end.
            assert!(Instant::now() < deadline, "{} descriptors, {before} before", count());
            thread::yield_now();
        }
    });
}
