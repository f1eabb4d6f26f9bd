//! Output that is read slowly, in non-blocking mode, or not at all.

use std::fs::File;
use std::io::{PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{LONG, MIRROR, Place, Run, is_gone, wait};

/// Has more to say on its stderr than any pipe holds, and says it until it is ended.
const CHATTY: &str =
    "recv; send 3 x '{}'; while :; do printf 'a line that is not read, of many\\n' >&2; done";

/// Which of the two streams is the pipe under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Stdout,
    Stderr,
    Both,
}

fn start(mut run: Run, which: Which, writer: PipeWriter) -> Child {
    let copy = writer.try_clone().unwrap();
    let (stdout, stderr) = match which {
        Which::Stdout => (writer.into(), Stdio::null()),
        Which::Stderr => (Stdio::null(), writer.into()),
        Which::Both => (Stdio::from(writer), copy.into()),
    };
    run.command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap()
}

/// Waits until nothing more fits into the pipe, so that what writes to it waits.
fn wait_until_full(writer: PipeWriter) {
    let begun = Instant::now();
    loop {
        let mut fds = [PollFd::new(writer.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut fds, PollTimeout::ZERO).unwrap() == 0 {
            return;
        }
        assert!(begun.elapsed() < LONG, "the pipe is never full");
        std::thread::yield_now();
    }
}

/// Fills a pipe in non-blocking mode.
#[cfg(target_os = "linux")]
fn fill(writer: &PipeWriter) {
    let mut filler = File::from(OwnedFd::from(writer.try_clone().unwrap()));
    while filler.write(&[b'x'; 4096]).is_ok() {}
}

/// Waits until the process has a handler for SIGTERM: proc_pid_status(5).
#[cfg(target_os = "linux")]
fn wait_until_handled(child: &Child) {
    let begun = Instant::now();
    loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let bit = Signal::SIGTERM as u32 - 1;
        if u64::from_str_radix(mask.trim(), 16).unwrap() >> bit & 1 == 1 {
            return;
        }
        assert!(begun.elapsed() < LONG, "there is no handler");
        std::thread::yield_now();
    }
}

/// Waits until the main thread of the process sleeps, as for room in a pipe, or has ended:
/// proc_pid_stat(5).
#[cfg(target_os = "linux")]
fn wait_until_asleep(child: &Child) {
    let begun = Instant::now();
    loop {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        // Behind the name, which may hold anything.
        let state = stat.rsplit_once(") ").unwrap().1.chars().next();
        if matches!(state, Some('S' | 'Z')) {
            return;
        }
        assert!(begun.elapsed() < LONG, "it neither sleeps nor ends");
        std::thread::yield_now();
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

fn cases(place: &Place) -> Vec<(Which, Vec<String>)> {
    let data = place.file("data", &vec![b'x'; 1 << 20]);
    let data = format!("@{}", data.display());
    let (mirror, chatty) = (place.standard("mirror", MIRROR), place.standard("chatty", CHATTY));
    let (mirror, chatty) = (mirror.to_str().unwrap(), chatty.to_str().unwrap());
    let owned = |args: &[&str]| args.iter().map(ToString::to_string).collect::<Vec<_>>();
    vec![
        (Which::Stdout, owned(&["run", "@echo", "--call", "echo", &data])),
        (Which::Stdout, owned(&["run", "@echo", "--json", "--call", "echo", &data])),
        (Which::Stdout, owned(&["run", chatty, "--json"])),
        (Which::Stderr, owned(&["run", chatty])),
        (Which::Stderr, owned(&["run", chatty, "--call", "x"])),
        (Which::Both, owned(&["run", chatty])),
        (
            Which::Stderr,
            owned(&[&["run", "-vv", mirror][..], &["--call", "x"].repeat(2000)].concat()),
        ),
    ]
}

#[test]
fn the_first_signal_ends_what_is_not_read_within_the_grace_time() {
    let place = Place::new();
    for (which, args) in cases(&place) {
        let (reader, writer) = pipe().unwrap();
        let watched = writer.try_clone().unwrap();
        let child = start(
            place.pipeplug([&args[..], &["--grace".into(), "2s".into()]].concat()),
            which,
            writer,
        );
        wait_until_full(watched);
        let begun = Instant::now();
        signal(&child, Signal::SIGTERM);
        assert_eq!(wait(child), Some(143), "{which:?} {:?}", &args[..2]);
        // The three steps of a stop, and something for a machine that is busy.
        assert!(begun.elapsed() < Duration::from_secs(6 + 9), "{which:?} {:?}", &args[..2]);
        drop(reader);
    }
}

#[test]
fn the_second_signal_ends_what_is_not_read_at_once() {
    let place = Place::new();
    for (which, args) in cases(&place) {
        let (reader, writer) = pipe().unwrap();
        let watched = writer.try_clone().unwrap();
        let args = [&args[..], &["--grace".into(), "1h".into()]].concat();
        let child = start(place.pipeplug(&args), which, writer);
        wait_until_full(watched);
        let begun = Instant::now();
        signal(&child, Signal::SIGTERM);
        // Signals that come together are one stop.
        thread::sleep(Duration::from_millis(200));
        signal(&child, Signal::SIGINT);
        let code = wait(child);
        assert!(matches!(code, Some(143 | 130)), "{which:?} {:?}: {code:?}", &args[..2]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{which:?} {:?}", &args[..2]);
        drop(reader);
    }
}

#[test]
fn the_timeout_ends_what_is_not_read() {
    let place = Place::new();
    for (which, args) in cases(&place) {
        let (reader, writer) = pipe().unwrap();
        let options = ["--timeout", "500ms", "--grace", "500ms"].map(String::from);
        let child = start(place.pipeplug([&args[..], &options].concat()), which, writer);
        assert_eq!(wait(child), Some(124), "{which:?} {:?}", &args[..2]);
        drop(reader);
    }
}

#[test]
fn nothing_is_lost_in_non_blocking_mode() {
    let place = Place::new();
    let data: String = (0..20_000).map(|i| format!("line {i}\n")).collect();
    let file = format!("@{}", place.file("data", data.as_bytes()).display());
    for (which, command) in [(Which::Stdout, "echo"), (Which::Stderr, "log")] {
        let (mut reader, writer) = pipe().unwrap();
        let watched = writer.try_clone().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK)).unwrap();
        let child =
            start(place.pipeplug(["run", "@echo", "--call", command, &file]), which, writer);
        wait_until_full(watched);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap().replace("echo: ", "");
        assert_eq!(
            text.lines().filter(|line| line.starts_with("line ")).count(),
            20_000,
            "{which:?}"
        );
        assert_eq!(wait(child), Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_help_text_waits_for_room_too() {
    let place = Place::new();
    let (mut reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK)).unwrap();
    fill(&writer);
    let child = start(place.pipeplug(["help", "run"]), Which::Stdout, writer);
    wait_until_asleep(&child);
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    assert!(String::from_utf8(bytes).unwrap().contains("Exit status:\n"));
    assert_eq!(wait(child), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_ends_a_listing_that_is_not_read() {
    let place = Place::new();
    place.standard("pipeplug-mirror", MIRROR);
    for args in [&["list", "--no-metadata"][..], &["list", "--json"], &["inspect", "@echo"]] {
        let (reader, writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_WRONLY | OFlag::O_NONBLOCK)).unwrap();
        fill(&writer);
        let child = start(place.pipeplug(args), Which::Stdout, writer);
        wait_until_handled(&child);
        wait_until_asleep(&child);
        signal(&child, Signal::SIGTERM);
        assert_eq!(wait(child), Some(143), "{args:?}");
        drop(reader);
    }
}

#[test]
fn the_plugin_does_not_outlive_a_run_that_is_not_read() {
    let place = Place::new();
    let pid_file = place.path().join("pid");
    let path = place.standard("chatty", &format!("echo $$ >'{}'\n{CHATTY}", pid_file.display()));
    let (reader, writer) = pipe().unwrap();
    let watched = writer.try_clone().unwrap();
    let run = place.pipeplug(["run", path.to_str().unwrap(), "--grace", "100ms"]);
    let child = start(run, Which::Stderr, writer);
    wait_until_full(watched);
    signal(&child, Signal::SIGTERM);
    assert_eq!(wait(child), Some(143));
    drop(reader);
    assert!(is_gone(std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap()));
}
