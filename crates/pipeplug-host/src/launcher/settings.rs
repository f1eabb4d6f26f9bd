//! The plugin's variables and working directory, by a way that every command takes that carries
//! standard input.
//!
//! A command such as `sudo` or `docker exec` starts the plugin with an environment and a directory
//! of its own. So a shell starts behind it, reads one line of its standard input, which sets all
//! that, and executes the plugin in its place. Nothing of it is on a command line, where every user
//! of the machine could read it: ps(1).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{self, Path};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::client;
use crate::process::{Launch, SpawnErrorKind};

/// The words that start the shell; the plugin's path and arguments follow.
///
/// `read` takes no byte more than its line from a pipe: sh(1p), read.
const SHELL: [&str; 4] =
    ["/bin/sh", "-c", r#"IFS= read -r _pipeplug && eval "$_pipeplug" && exec "$@""#, "sh"];

/// Time for the client to read so much of the line that the rest fits into the pipe.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The line that sets a plugin's variables and working directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    line: Vec<u8>,
}

impl Settings {
    /// # Errors
    /// With a variable that no shell can set.
    pub(super) fn of(launch: &Launch) -> Result<Option<Self>, SpawnErrorKind> {
        let mut commands = Vec::new();
        for (name, value) in client::variables(launch)? {
            let name = shell_name(&name)?;
            commands.push(assignment(name, value.as_bytes()));
        }
        for name in launch.env.removed() {
            commands.push(format!("unset {}", shell_name(name)?));
        }
        if let Some(dir) = &launch.cwd {
            commands.push(change(dir)?);
        }
        if commands.is_empty() {
            return Ok(None);
        }
        commands.push("unset _pipeplug".to_owned());
        let mut line = commands.join(" && ").into_bytes();
        line.push(b'\n');
        Ok(Some(Self { line }))
    }

    /// The words between the command and the plugin.
    pub(super) fn shell() -> impl Iterator<Item = OsString> {
        SHELL.iter().map(OsString::from)
    }

    /// Writes the line, before any message. One that reads none of it and ends tells why by its
    /// end.
    ///
    /// # Blocking
    /// Not with a line that fits into the pipe; otherwise for [`TIMEOUT`] at most.
    pub(super) fn send(&self, pipe: BorrowedFd<'_>) -> io::Result<()> {
        let file = File::from(pipe.try_clone_to_owned()?);
        client::without_sigpipe("pipeplug-settings", || write_all(&file, &self.line))
    }
}

/// Writes all of a line to a pipe that does not block, or as much as its reader lives to read.
fn write_all(mut file: &File, line: &[u8]) -> io::Result<()> {
    let (mut rest, end) = (line, Instant::now() + TIMEOUT);
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(len) => rest = &rest[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for_room(file, end, rest.len())?
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait_for_room(file: &File, end: Instant, rest: usize) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLOUT)], left) {
        Ok(0) => Err(io::Error::other(format!(
            "{rest} bytes of its variables and working directory were not read within {} s",
            TIMEOUT.as_secs()
        ))),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// A name that a shell can set: sh(1p), Name.
fn shell_name(name: &OsStr) -> Result<&str, SpawnErrorKind> {
    let is_part = |(i, byte): (usize, u8)| {
        byte == b'_' || byte.is_ascii_alphabetic() || i > 0 && byte.is_ascii_digit()
    };
    name.to_str()
        .filter(|name| !name.is_empty() && name.bytes().enumerate().all(is_part))
        .ok_or_else(|| SpawnErrorKind::BadArgument {
            what: format!("the environment variable {name:?}"),
            reason: "a shell sets it there, which knows names of letters, digits and `_` only; \
                     `env NAME=VALUE` at the end of the command sets any",
        })
}

fn assignment(name: &str, value: &[u8]) -> String {
    format!("{} && export {name}", set(name, value))
}

fn change(dir: &Path) -> Result<String, SpawnErrorKind> {
    // From the root, as this process means it: where the command starts its shell is its own
    // choice.
    let dir = path::absolute(dir)
        .map_err(|error| SpawnErrorKind::BadWorkingDirectory { cwd: dir.to_owned(), error })?;
    // With CDPATH, some shells print where they are.
    Ok(format!("{} && cd \"$_pipeplug\" >/dev/null", set("_pipeplug", dir.as_os_str().as_bytes())))
}

/// The commands that give a variable of the shell a value.
fn set(name: &str, value: &[u8]) -> String {
    if value.iter().all(|byte| (b' '..=b'~').contains(byte)) {
        return format!("{name}={}", quoted(value));
    }
    // The mark keeps the ends of line at its end, which a substitution would take off.
    format!("{name}=$(printf '%b_' {}) && {name}=\"${{{name}%_}}\"", quoted(&escaped(value)))
}

/// Bytes as `printf %b` reads them: printable ASCII as it is, since shells differ in what else they
/// let through.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => escaped.extend_from_slice(br"\\"),
            b' '..=b'~' => escaped.push(*byte),
            other => escaped.extend_from_slice(format!("\\0{other:03o}").as_bytes()),
        }
    }
    escaped
}

/// Printable ASCII as one word of a shell.
fn quoted(text: &[u8]) -> String {
    format!("'{}'", String::from_utf8_lossy(text).replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Every byte that a variable can hold, and what shells have a meaning for.
    fn values() -> Vec<Vec<u8>> {
        vec![
            (1..=255).collect(),
            b"".to_vec(),
            b"it's $HOME `id` \\n \"x\" !! *".to_vec(),
            b"\n\n ends of line \n\n".to_vec(),
            b"-n".to_vec(),
            b"ends in half a letter \xc3".to_vec(),
            b"\\0101 %s %d".to_vec(),
        ]
    }

    #[test]
    fn every_value_arrives_through_every_shell() {
        let shells = [
            &["sh"][..],
            &["dash"],
            &["bash"],
            &["bash", "--posix"],
            &["busybox", "sh"],
            &["zsh"],
            &["ksh"],
        ];
        for value in values() {
            let mut launch = Launch::new("/plugin");
            launch.env.set("PLUGIN_VALUE", OsString::from_vec(value.clone()));
            let settings = Settings::of(&launch).unwrap().unwrap();
            for shell in shells {
                let mut command = Command::new(shell[0]);
                command.args(&shell[1..]).args(&SHELL[1..]).args([
                    "sh",
                    "-c",
                    r#"printf %s "$PLUGIN_VALUE"; cat"#,
                ]);
                let Ok(mut child) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
                else {
                    continue;
                };
                settings.send(child.stdin.as_ref().unwrap().as_fd()).unwrap();
                child.stdin.take().unwrap().write_all(b"\0rest\n").unwrap();
                let output = child.wait_with_output().unwrap();
                let expected = [&value[..], b"\0rest\n"].concat();
                assert_eq!(
                    output.stdout.escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "{shell:?}"
                );
            }
        }
    }

    #[test]
    fn there_is_no_shell_where_nothing_is_set() {
        assert_eq!(Settings::of(&Launch::new("/plugin")).unwrap(), None);
    }

    #[test]
    fn a_name_that_no_shell_can_set_is_refused() {
        for name in ["a-b", "a.b", "1a", "\u{e4}"] {
            let mut launch = Launch::new("/plugin");
            launch.env.set(name, "x");
            let error = Settings::of(&launch).unwrap_err();
            assert!(
                error.is_permanent() && error.to_string().contains("at the end of the command"),
                "{error}"
            );
        }
    }
}
