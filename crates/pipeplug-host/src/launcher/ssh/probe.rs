//! Two questions: which options ssh has, and whether a login shell prints.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::launcher::client;
use crate::process::{Leftovers, poll_readable, spawn_with};

/// Most that is read of an answer, in bytes.
const ANSWER_MAX: usize = 4096;
/// Longest time that `ssh -V` may take, which talks to no other machine.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);

/// Version of OpenSSH, major and minor.
pub(super) type Version = (u32, u32);

/// Version of the user's ssh; `None` where it is not OpenSSH, or does not say.
///
/// # Blocking
/// For 5 seconds at most.
pub(super) fn version(program: &OsStr) -> Option<Version> {
    let answer =
        output_of(client::find(program)?, vec!["-V".into()], Output::Stderr, VERSION_TIMEOUT);
    parse(&String::from_utf8_lossy(&answer.ok()?))
}

/// First line that a command prints to standard output, without its end; `None` where it prints
/// nothing.
///
/// # Blocking
/// For `timeout` at most.
pub(super) fn first_line(
    program: &OsStr,
    args: Vec<OsString>,
    timeout: Duration,
) -> Option<Vec<u8>> {
    let answer = output_of(client::find(program)?, args, Output::Stdout, timeout).ok()?;
    let text = answer.trim_ascii_start();
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
    (!line.is_empty()).then(|| line.to_vec())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Stdout,
    Stderr,
}

/// Runs a program, with nothing to read, until it closes that output, and kills what is left of it.
fn output_of(
    path: PathBuf,
    args: Vec<OsString>,
    output: Output,
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    let until = Instant::now() + timeout;
    let spawned = spawn_with(&client::tool(path), args).map_err(io::Error::other)?;
    drop(spawned.to_guest);
    let (answer, _other) = match output {
        Output::Stdout => (spawned.from_guest, spawned.stderr),
        Output::Stderr => (spawned.stderr, spawned.from_guest),
    };
    let bytes = read(answer, until)?;
    // An end of its own leaves nothing behind in a connection that is shared.
    spawned.child.wait_timeout(until.saturating_duration_since(Instant::now()), Leftovers::Kill)?;
    Ok(bytes)
}

/// Reads to the end, until that time, or until there is more than any answer has.
fn read(from: OwnedFd, until: Instant) -> io::Result<Vec<u8>> {
    let mut from = File::from(from);
    let mut bytes = vec![0; ANSWER_MAX];
    let mut len = 0;
    while len < bytes.len()
        && poll_readable(from.as_fd(), until.saturating_duration_since(Instant::now()))?
    {
        match from.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(len);
    Ok(bytes)
}

/// Reads `OpenSSH_9.2p1 …`, and `OpenSSH_for_Windows_8.1p1 …`.
fn parse(text: &str) -> Option<Version> {
    let text = text.lines().find_map(|line| line.strip_prefix("OpenSSH_"))?;
    let (major, rest) = text.trim_start_matches("for_Windows_").split_once('.')?;
    let minor = rest.split(|char: char| !char.is_ascii_digit()).next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19\n"), Some((9, 2)));
        assert_eq!(parse("warning\nOpenSSH_10.0p2, LibreSSL\n"), Some((10, 0)));
        assert_eq!(parse("OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2"), Some((8, 1)));
        for other in ["", "Dropbear v2022.83", "OpenSSH_", "OpenSSH_9", "OpenSSH_x.y"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
