//! Question to the user: the permissions that a plugin asks for.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeplug_host::Permissions;

use crate::exit::{CommandError, ExitReason};
use crate::output::stream::{self, Kind, Stream};
use crate::output::text::Escaped;
use crate::session::shutdown::Shutdown;

/// Time between two looks at the signals while the user thinks, in milliseconds.
const LOOK: u16 = 50;
/// Length of an answer that is read, in bytes. More is no answer.
const ANSWER_MAX: usize = 1024;

/// Way to allow what a plugin asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// The user is asked.
    Asked,
    /// The command line has `--yes`.
    Given,
}

/// Permissions that a plugin asks for, and those that it was allowed before.
pub(crate) struct Request<'a> {
    /// Name of the plugin.
    pub(crate) name: &'a str,
    pub(crate) wanted: &'a Permissions,
    pub(crate) before: Option<&'a Permissions>,
    /// Words for the action, as `add it`.
    pub(crate) action: &'static str,
}

impl Request<'_> {
    /// Asks the user, if the plugin wants more than before.
    ///
    /// # Errors
    /// The user says no, or there is no terminal.
    ///
    /// # Blocking
    /// Until the user has answered, or a signal arrives.
    pub(crate) fn ask(&self, consent: Consent, shutdown: &Shutdown) -> Result<(), CommandError> {
        let none = Permissions::default();
        let more = self.wanted.beyond(self.before.unwrap_or(&none));
        if more.is_empty() || consent == Consent::Given {
            return Ok(());
        }
        let (name, Self { action, .. }) = (Escaped(self.name), self);
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            let also = if self.is_update() { "also " } else { "" };
            let message = format!(
                "{name} {also}asks to {}; there is no terminal to ask in: --yes allows that",
                more.in_words().join("; ")
            );
            return Err(CommandError::message(ExitReason::Failed, message));
        }
        let mut text = self.heading();
        for line in more.in_words() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  - {line}");
        }
        let _ = write!(text, "Allow this, and {action}? [y/N] ");
        // An error of the terminal is found by the read.
        let _ = stream::write(Stream::Stderr, Kind::Report, &[text.as_bytes()]);
        let answer = read_line(shutdown)?;
        if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
            return Ok(());
        }
        let message = format!("{name} was not allowed what it asks for: nothing was changed");
        Err(CommandError::message(ExitReason::Failed, message))
    }

    fn is_update(&self) -> bool {
        self.before.is_some_and(|before| !before.is_empty())
    }

    fn heading(&self) -> String {
        let name = Escaped(self.name);
        if self.is_update() {
            format!("{name} asks for more than it was allowed before. It also wants to\n")
        } else {
            format!("{name} asks for permissions. It wants to\n")
        }
    }
}

/// Reads a line from the terminal.
fn read_line(shutdown: &Shutdown) -> Result<String, CommandError> {
    let failed = |error: Errno| {
        let message = format!("cannot read the answer from the terminal: {error}");
        CommandError::message(ExitReason::Failed, message)
    };
    let stdin = io::stdin();
    let mut line = Vec::new();
    while !line.contains(&b'\n') && line.len() < ANSWER_MAX {
        if let Some(failure) = shutdown.failure() {
            return Err(failure);
        }
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::from(LOOK)) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let mut buffer = [0; 256];
        match nix::unistd::read(stdin.as_fd(), &mut buffer) {
            // Ctrl-D: no answer.
            Ok(0) => break,
            Ok(count) => line.extend_from_slice(&buffer[..count]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
