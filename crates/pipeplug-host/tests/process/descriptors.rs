//! Which descriptors a guest has, and whose ends they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Barrier;
use std::thread;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use pipeplug_host::process::{Channel, Spawned, spawn};
use pipeplug_host::{Stdin, Stdout};

use crate::guest::{Script, read_all, read_line, send};

/// A script that writes each of its descriptors and what is behind it to descriptor `out`.
///
/// A subshell does so, since the shell moves its own descriptors about for each redirection. The
/// shell itself keeps the script's file open, at 10 or above and CLOEXEC.
pub(crate) fn reporter(out: u32) -> Script {
    Script::new(&format!(
        "(exec >&{out}; for fd in /proc/$$/fd/*; do echo \"${{fd##*/}}\"; readlink \"$fd\"; done); \
         :"
    ))
}

pub(crate) fn read_report(script: &Script, from_guest: &OwnedFd) -> BTreeMap<u32, String> {
    let own = script.path();
    let report = read_all(from_guest);
    let lines: Vec<_> = report.lines().collect();
    lines
        .chunks(2)
        .filter(|pair| pair[1] != own.to_str().unwrap())
        .map(|pair| (pair[0].parse().unwrap(), pair[1].to_owned()))
        .collect()
}

pub(crate) fn behind(fd: &OwnedFd) -> String {
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().to_str().unwrap().to_owned()
}

pub(crate) fn assert_pipes(script: &Script, guest: &Spawned) {
    let has = read_report(script, &guest.from_guest);
    assert_eq!(has.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{has:?}");
    assert_eq!(has[&0], "/dev/null");
    assert_eq!(has[&2], behind(&guest.stderr));
    assert_eq!(has[&3], behind(&guest.to_guest));
    assert_eq!(has[&4], behind(&guest.from_guest));
}

#[test]
fn a_guest_on_pipes_has_0_to_4_and_no_more() {
    let script = reporter(4);
    let mut launch = script.launch();
    for stdout in [Stdout::Inherit, Stdout::Null, Stdout::Log] {
        launch.channel = Channel::Pipes { stdin: Stdin::Null, stdout };
        assert_pipes(&script, &spawn(&launch).unwrap());
    }
    launch.channel = Channel::Pipes { stdin: Stdin::Null, stdout: Stdout::Null };
    assert_eq!(read_report(&script, &spawn(&launch).unwrap().from_guest)[&1], "/dev/null");
}

#[test]
fn standard_input_is_inherited_when_asked_for() {
    let script = reporter(4);
    let mut launch = script.launch();
    launch.channel = Channel::Pipes { stdin: Stdin::Inherit, stdout: Stdout::Null };
    let has = read_report(&script, &spawn(&launch).unwrap().from_guest);
    assert_eq!(has.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4], "{has:?}");
    assert_eq!(has[&0], behind(&std::io::stdin().as_fd().try_clone_to_owned().unwrap()));
}

#[test]
fn a_guest_on_stdio_has_0_to_2_and_no_more() {
    let script = reporter(1);
    let mut launch = script.launch();
    launch.channel = Channel::Stdio;
    let guest = spawn(&launch).unwrap();
    let has = read_report(&script, &guest.from_guest);
    assert_eq!(has.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{has:?}");
    assert_eq!(has[&0], behind(&guest.to_guest));
    assert_eq!(has[&1], behind(&guest.from_guest));
    assert_eq!(has[&2], behind(&guest.stderr));
}

#[test]
fn a_descriptor_without_cloexec_does_not_leak_either() {
    let file = tempfile::tempfile().unwrap();
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let script = reporter(4);
    assert_pipes(&script, &script.spawn());
}

#[test]
fn hundreds_of_descriptors_of_the_host_stay_its_own() {
    const EACH: usize = 300;
    let path = tempfile::NamedTempFile::new().unwrap();
    let files: Vec<_> = (0..EACH).map(|_| fs::File::open(path.path()).unwrap()).collect();
    // Without CLOEXEC, as C libraries open theirs: below, among and far above the others.
    let leaky: Vec<_> = (0..EACH).map(|_| fs::File::open(path.path()).unwrap()).collect();
    for file in &leaky {
        fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    }
    let far = fcntl(&leaky[0], FcntlArg::F_DUPFD(1000)).unwrap();
    assert!(fs::read_link(format!("/proc/self/fd/{far}")).is_ok());
    let script = reporter(4);
    assert_pipes(&script, &script.spawn());
    let script = reporter(1);
    let mut launch = script.launch();
    launch.channel = Channel::Stdio;
    let has = read_report(&script, &spawn(&launch).unwrap().from_guest);
    assert_eq!(has.keys().copied().collect::<Vec<_>>(), [0, 1, 2], "{has:?}");
    drop(files);
    nix::unistd::close(far).unwrap();
}

#[test]
fn the_hosts_ends_are_cloexec_and_nonblocking_and_the_guests_are_not() {
    let script = Script::new(
        "while read line; do case $line in flags:*) echo $line; esac; done </proc/$$/fdinfo/3 >&4",
    );
    let mut launch = script.launch();
    launch.channel = Channel::Pipes { stdin: Stdin::Null, stdout: Stdout::Log };
    let guest = spawn(&launch).unwrap();
    for fd in [&guest.to_guest, &guest.from_guest, &guest.stderr, guest.stdout.as_ref().unwrap()] {
        assert!(
            FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap())
                .contains(FdFlag::FD_CLOEXEC)
        );
        assert!(
            OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap())
                .contains(OFlag::O_NONBLOCK)
        );
        assert!(fd.as_raw_fd() >= 6);
    }
    let flags =
        i32::from_str_radix(read_all(&guest.from_guest).trim_start_matches("flags:").trim(), 8)
            .unwrap();
    assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK), "{flags:o}");
}

#[test]
fn threads_that_start_guests_at_once_share_no_descriptor() {
    const THREADS: usize = 8;
    const GUESTS: usize = 25;
    let script = Script::new("echo up >&4; exec cat <&3 >&4");
    let all_run = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let guests: Vec<_> = (0..GUESTS).map(|_| script.spawn()).collect();
                for guest in &guests {
                    assert_eq!(read_line(&guest.from_guest), "up");
                }
                // Every guest of every thread runs now: a copy anywhere would hold an end of file
                // back.
                all_run.wait();
                for guest in guests {
                    send(&guest.to_guest, b"last words");
                    drop(guest.to_guest);
                    assert_eq!(read_all(&guest.from_guest), "last words");
                    assert_eq!(read_all(&guest.stderr), "");
                }
            });
        }
    });
}
