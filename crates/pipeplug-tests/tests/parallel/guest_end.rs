//! End of a guest, and its exit code.

use std::fs;
use std::io::Write;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use pipeplug_host::Format;
use pipeplug_tests::{one_way, read_chunk, request, wait_exit};

use crate::MISBEHAVE;

/// A guest whose host is the test.
struct Guest {
    process: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Guest {
    fn new(how: &[&str]) -> Self {
        let mut process = Command::new(MISBEHAVE)
            .args(how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().unwrap());
        let mut guest = Self { process, stdin, stdout };
        guest.send(&request(1, "echo", b"there"));
        assert_eq!(guest.read(), b"there");
        guest
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        read_chunk(Format::Standard, &mut self.stdout).unwrap().buffer
    }

    fn stop(&mut self) {
        self.send(&one_way("cmd.stop", b""));
    }

    fn lose_host(&mut self) {
        self.stdin = None;
    }

    #[track_caller]
    fn exit_code(&mut self) -> i32 {
        wait_exit(&mut self.process).code().unwrap()
    }
}

#[test]
fn is_0_after_a_stop_and_1_after_a_lost_host() {
    for how in ["plain", "busy-main"] {
        let mut guest = Guest::new(&[how]);
        guest.stop();
        assert_eq!(guest.exit_code(), 0, "{how}");
        let mut guest = Guest::new(&[how]);
        guest.lose_host();
        assert_eq!(guest.exit_code(), 1, "{how}");
    }
}

#[test]
fn a_stop_followed_by_the_end_of_the_pipe_is_a_stop() {
    for how in ["plain", "busy-main"] {
        let mut guest = Guest::new(&[how]);
        guest.send(&request(2, "sleep", b"50"));
        guest.stop();
        guest.lose_host();
        assert_eq!(guest.read(), b"50", "what was asked before the stop is answered");
        assert_eq!(guest.exit_code(), 0, "{how}");
    }
}

#[test]
fn a_stop_sent_over_and_over_is_one() {
    let mut guest = Guest::new(&["plain"]);
    guest.send(&request(2, "sleep", b"50"));
    (0..100).for_each(|_| guest.stop());
    assert_eq!(guest.read(), b"50");
    assert_eq!(guest.exit_code(), 0);
}

#[test]
fn handlers_at_work_are_waited_for() {
    let mut guest = Guest::new(&["plain"]);
    guest.send(&request(2, "sleep", b"200"));
    guest.lose_host();
    assert_eq!(guest.read(), b"200");
    assert_eq!(guest.exit_code(), 1);
}

#[test]
fn handlers_that_look_for_a_stop_end_at_once() {
    for command in ["until-stop", "until-told"] {
        for (stop, told) in [(true, "Some(Asked)"), (false, "Some(HostGone)")] {
            // With no other end than that which the handler comes to by itself.
            let mut guest = Guest::new(&["tells-stop"]);
            guest.send(&request(2, command, b""));
            if stop {
                guest.stop();
            } else {
                guest.lose_host();
            }
            assert_eq!(guest.read(), told.as_bytes(), "{command}");
            assert_eq!(guest.exit_code(), i32::from(!stop), "{command}");
        }
    }
}

#[test]
fn a_grace_without_end_ends_with_the_last_handler() {
    for stop in [true, false] {
        let mut guest = Guest::new(&["grace", "ever"]);
        guest.send(&request(2, "sleep", b"50"));
        if stop {
            guest.stop();
        } else {
            guest.lose_host();
        }
        assert_eq!(guest.exit_code(), i32::from(!stop));
        assert_eq!(guest.read(), b"50");
    }
}

#[test]
fn handlers_that_never_return_get_the_grace_and_no_more() {
    for (stop, code) in [(true, 0), (false, 1)] {
        let mut guest = Guest::new(&["grace", "150"]);
        guest.send(&request(2, "never", b""));
        // Answered in its turn, which is behind.
        guest.send(&request(3, "echo", b"x"));
        assert_eq!(guest.read(), b"x");
        let begun = Instant::now();
        if stop {
            guest.stop()
        } else {
            guest.lose_host()
        }
        assert_eq!(guest.exit_code(), code);
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(150) && took < Duration::from_secs(4), "{took:?}");
    }
}

#[test]
fn mains_destructors_run() {
    let dir = tempfile::tempdir().unwrap();
    for (stop, at_work) in [(true, false), (false, false), (true, true), (false, true)] {
        let file = dir.path().join(format!("{stop}-{at_work}"));
        let mut guest = Guest::new(&["with-guard", file.to_str().unwrap()]);
        if at_work {
            guest.send(&request(2, "never", b""));
        }
        if stop {
            guest.stop()
        } else {
            guest.lose_host()
        }
        assert_eq!(guest.exit_code(), i32::from(!stop));
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            "dropped",
            "stop: {stop}, at work: {at_work}"
        );
    }
}

#[test]
fn a_guest_may_outlive_its_host() {
    let dir = tempfile::tempdir().unwrap();
    for stop in [true, false] {
        let file = dir.path().join(stop.to_string());
        let mut guest = Guest::new(&["stays", file.to_str().unwrap()]);
        if stop {
            guest.stop();
        }
        guest.lose_host();
        assert_eq!(guest.exit_code(), 42);
        assert_eq!(fs::read_to_string(&file).unwrap(), "stayed");
    }
}
