//! How guests and hosts of every language end: as those in Rust.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::matrix::{pairs, run_host};
use super::samples::{Place, Samples, write_script};
use super::table::{Cell, Table};
use crate::samples::indent;

/// How long an end, or a reply, may take.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// Time between two looks at a process.
const POLL: Duration = Duration::from_millis(5);

/// A request with the number 1: cmd.ping, which every guest answers.
const PING: &[u8] = b"1\x002\x008\x00cmd.ping\x000\x00";
const STOP: &[u8] = b"0\x001\x008\x00cmd.stop\x000\x00";

/// A guest that answers GetMetadata and pings, and kills itself when it is called.
const KILLED: &str = r#"#!/usr/bin/env bash
export LC_ALL=C
exec 0<&"$1" 1>&"$2"
respond() { printf '%s\0003\000%s\000%s\000%s\000%s' "$id" "${#cmd}" "$cmd" "${#1}" "$1"; }
while IFS= read -r -d '' id && IFS= read -r -d '' direction; do
    IFS= read -r -d '' length && IFS= read -r -N "$length" cmd && IFS= read -r -d '' _
    IFS= read -r -d '' length
    ((length == 0)) || IFS= read -r -N "$length" _
    case $direction/$cmd in
    2/GetMetadata) respond '{}' ;;
    2/cmd.ping) respond '' ;;
    2/*) kill -KILL $$ ;;
    1/cmd.stop) exit 0 ;;
    esac
done
exit 1
"#;

/// Something that ends a guest.
#[derive(Debug, Clone, Copy)]
enum End {
    /// `cmd.stop`, with the pipes left open.
    Stop,
    /// The host is gone, after a call.
    LostHost,
    /// The input ends before anything came.
    NoHost,
    /// A signal, after a call.
    Signal(Signal),
}

/// Guests that are stopped, lose their host, never had one, or get a signal.
pub(super) fn guests(place: &Place, all: &[Samples]) -> Table {
    use End::{LostHost, NoHost, Signal as Sent, Stop};
    let (stdio, descriptors) = (&[][..], &["3", "4"][..]);
    let rows = [
        ("cmd.stop, stdin and stdout: 0", stdio, Stop, 0),
        ("cmd.stop, descriptors 3 and 4: 0", descriptors, Stop, 0),
        ("host lost, stdin and stdout: 1", stdio, LostHost, 1),
        ("host lost, descriptors 3 and 4: 1", descriptors, LostHost, 1),
        ("started without a host: 2", stdio, NoHost, 2),
        ("descriptors that are not open: 2", &["77", "78"][..], NoHost, 2),
        ("SIGTERM: ended by it", stdio, Sent(Signal::SIGTERM), 128 + 15),
        ("SIGINT (Ctrl-C): ended by it", stdio, Sent(Signal::SIGINT), 128 + 2),
    ];
    let names: Vec<&str> = all.iter().map(|samples| samples.language.as_str()).collect();
    let mut table = Table::new("ends of guests, with the exit status", &names);
    for (row, descriptors, end, expected) in rows {
        let cell = |samples: &Samples| match samples.program("echo") {
            Err(why) => Cell::Skipped(why.to_owned()),
            Ok(guest) => end_guest(place, &guest, descriptors, end, expected),
        };
        table.push(row, all.iter().map(cell).collect());
    }
    table
}

/// Ends a guest. `expected` is the exit status as a shell has it: 128 more than the signal.
fn end_guest(place: &Place, guest: &Path, descriptors: &[&str], end: End, expected: i32) -> Cell {
    let mut command = place.command(guest);
    if descriptors == ["3", "4"] {
        command = place.command(Path::new("sh"));
        command.args(["-c", r#"exec "$0" 3 4 3<&0 4>&1 </dev/null >&2"#]).arg(guest);
    } else {
        command.args(descriptors);
    }
    match end_child(&mut command, end) {
        Ok((Some(status), stderr)) if shell_status(status) == expected && stderr.is_some() => {
            Cell::Passed
        }
        Ok((status, stderr)) => Cell::Failed(format!(
            "$ {}, and then {end:?}\nexpected exit status {expected} (of a shell)\ngot {}; on stderr:\n{}",
            place.line(&command),
            status.map_or_else(
                || format!("no end within {} s", TIME_LIMIT.as_secs()),
                |status| status.to_string()
            ),
            stderr.map_or_else(
                || "  (a process that it started lives on and holds it)".to_owned(),
                |stderr| indent(&String::from_utf8_lossy(&stderr))
            )
        )),
        Err(error) => {
            Cell::Failed(format!("$ {}, and then {end:?}\n{error}", place.line(&command)))
        }
    }
}

/// Exit status, and what came on stderr unless a process still holds that.
type EndAndStderr = (Option<ExitStatus>, Option<Vec<u8>>);

fn end_child(command: &mut Command, end: End) -> io::Result<EndAndStderr> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let result = act(&mut child, end);
    // Of the group there is nothing left, or it is not wanted any more.
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    child.wait()?;
    result
}

fn act(child: &mut Child, end: End) -> io::Result<EndAndStderr> {
    let (mut input, mut output) = (child.stdin.take(), child.stdout.take());
    let stderr = read_in_thread(child.stderr.take(), true);
    if let (Some(input), End::LostHost | End::Signal(_)) = (&mut input, end) {
        input.write_all(PING)?;
        // The first byte of the response: the guest runs, and so does its library.
        let replies = read_in_thread(output.take(), false);
        match replies.recv_timeout(TIME_LIMIT) {
            Ok(reply) if !reply.is_empty() => {}
            Ok(_) => return Err(io::Error::other("the guest ended before it answered a ping")),
            Err(_) => return Err(io::Error::other("the guest does not answer a ping")),
        }
    }
    match end {
        End::Stop => {
            if let Some(input) = &mut input {
                input.write_all(STOP)?;
            }
        }
        End::LostHost | End::NoHost => {
            input = None;
            output = None;
        }
        // A terminal sends it to the whole group.
        End::Signal(Signal::SIGINT) => {
            killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT)?;
        }
        End::Signal(signal) => kill(Pid::from_raw(child.id().cast_signed()), signal)?,
    }
    let status = wait(child)?;
    // A process that it started may notice the end by this.
    drop((input, output));
    Ok((status, stderr.recv_timeout(TIME_LIMIT).ok()))
}

/// Sends all that there is until the end of the stream, or what one read brings.
fn read_in_thread<R: io::Read + Send + 'static>(
    stream: Option<R>,
    all: bool,
) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What cannot be read any more has ended. A stream that is held open ends with this program.
            if all {
                let _ = stream.read_to_end(&mut bytes);
            } else {
                let _ = stream.take(1).read_to_end(&mut bytes);
            }
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

fn shell_status(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

/// Hosts whose guest is killed while they call it: an error, and no hang.
pub(super) fn hosts(place: &Place, all: &[Samples]) -> anyhow::Result<Table> {
    let guest = place.dir.join("killed-guest");
    write_script(&guest, KILLED)?;
    let names: Vec<&str> = all.iter().map(|samples| samples.language.as_str()).collect();
    let mut table = Table::new("ends of hosts, with the exit status", &names);
    let cell = |samples: &Samples| match samples.program("sample1-host") {
        Err(why) => Cell::Skipped(why.to_owned()),
        Ok(host) => run_host(place, place.command(&host).arg(&guest), |ended| {
            let failed = ended.status.is_some_and(|status| status.code() == Some(1));
            (!failed || !ended.stdout.is_empty() || ended.stderr.is_empty())
                .then(|| "expected exit status 1, a message on stderr and no other".to_owned())
        }),
    };
    table.push("SIGKILL of the guest in a call: 1", all.iter().map(cell).collect());
    Ok(table)
}

/// Hosts that are killed while their guest starts: the guest ends.
pub(super) fn lost_hosts(place: &Place, all: &[Samples]) -> anyhow::Result<Table> {
    // Stops itself until the host is gone.
    let wrapper = place.dir.join("guest-of-a-lost-host");
    let pid_file = place.dir.join("guest-of-a-lost-host.pid");
    write_script(
        &wrapper,
        "#!/bin/sh\necho $$ >\"$0.new\" && mv \"$0.new\" \"$0.pid\" && kill -STOP $$\nexec \"$0.guest\" \"$@\"\n",
    )?;
    let link = place.dir.join("guest-of-a-lost-host.guest");
    Ok(pairs("SIGKILL of the host: its guest ends", all, |host, guest| {
        let (host, guest) = match (host.program("greeter-host"), guest.program("greeter-plugin")) {
            (Ok(host), Ok(guest)) => (host, guest),
            (Err(why), _) | (_, Err(why)) => return Cell::Skipped(why.to_owned()),
        };
        if !Path::new("/proc/self/stat").exists() {
            return Cell::Skipped(
                "the states of processes are in /proc, which is missing".to_owned(),
            );
        }
        let mut command = place.command(&host);
        command.arg(&wrapper).arg("Ann");
        let lost = write_script(&link, &format!("#!/bin/sh\nexec '{}' \"$@\"\n", guest.display()))
            .and_then(|()| lose_host(&mut command, &pid_file));
        match lost {
            Ok(()) => Cell::Passed,
            Err(error) => Cell::Failed(format!(
                "$ {}, with the guest {}\n{error:#}",
                place.line(&command),
                guest.display()
            )),
        }
    }))
}

fn lose_host(command: &mut Command, pid_file: &PathBuf) -> anyhow::Result<()> {
    if pid_file.exists() {
        fs::remove_file(pid_file)?;
    }
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut host = quiet.process_group(0).spawn().context("cannot run the host")?;
    let guest = until(|| {
        let pid: i32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        (state(pid) == Some('T')).then_some(pid)
    });
    host.kill()?;
    host.wait()?;
    let guest = Pid::from_raw(guest.context("the host did not start its guest")?);
    kill(guest, Signal::SIGCONT)?;
    let ended = until(|| matches!(state(guest.as_raw()), None | Some('Z')).then_some(()));
    ended.with_context(|| {
        // Its number is its own until it has ended.
        let _ = kill(guest, Signal::SIGKILL);
        format!("the guest still ran {} s after the host was killed", TIME_LIMIT.as_secs())
    })
}

fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        thread::sleep(POLL);
    }
}

/// State of a process, a letter as in proc(5); nothing if there is no such process.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(script: &str, end: End) -> (Option<i32>, Option<String>) {
        let (status, stderr) = end_child(Command::new("sh").args(["-c", script]), end).unwrap();
        (status.map(shell_status), stderr.map(|stderr| String::from_utf8(stderr).unwrap()))
    }

    #[test]
    fn the_status_of_a_guest_is_that_of_a_shell() {
        let script = "printf x; cat >/dev/null; echo lost >&2; exit 3";
        assert_eq!(end_of(script, End::LostHost), (Some(3), Some("lost\n".to_owned())));
        assert_eq!(end_of(script, End::Signal(Signal::SIGTERM)).0, Some(143));
    }

    #[test]
    fn a_guest_that_answers_nothing_is_an_error() {
        let error = end_child(Command::new("sh").args(["-c", "exit 0"]), End::LostHost);
        assert!(error.is_err());
    }

    #[test]
    fn a_process_has_a_state_until_it_is_waited_for() {
        let mut child = Command::new("sleep").arg("9").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(matches!(state(pid), Some('R' | 'S' | 'D')));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(state(pid), None);
    }
}
