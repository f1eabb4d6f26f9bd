//! Report on a plugin whose connection has ended.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use pipeplug_net::{CallError, Escaped, NotifyError, Postmortem};

use crate::process::{Pid, WaitStatus};

/// Report on a plugin whose connection has ended: its process died, or it broke the connection.
///
/// It is part of the errors of all calls that this ended, and of later ones: [`Crash::of`]. What
/// was going on, open calls and last chunks, is in the [`Postmortem`] beside it. `Display` gives
/// one line.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Crash {
    /// The plugin's name.
    pub plugin: String,
    /// The file that was executed.
    pub path: PathBuf,
    /// Launcher of the plugin: `in a container of …`; `None` on this machine.
    pub launcher: Option<String>,
    /// The process id that it had, or what carried its pipes to where it ran.
    pub pid: Pid,
    /// Exit status; `None` if the process still ran.
    pub status: Option<WaitStatus>,
    /// The launcher's explanation, if the failure is not the plugin's own, such as a lost
    /// connection.
    pub diagnosis: Option<String>,
    /// Running time.
    pub ran: Duration,
    /// The last lines of its standard error; how many is
    /// [`PluginBuilder::stderr_tail`](crate::PluginBuilder::stderr_tail).
    pub stderr: Vec<String>,
    /// Place and message of a panic in Rust, if standard error told of one. The panic is in these
    /// lines, or explains the status (101, or SIGABRT).
    pub panic: Option<String>,
    /// File with the chunks before the end, if they were recorded
    /// ([`PluginBuilder::record`](crate::PluginBuilder::record)).
    pub recording: Option<PathBuf>,
}

/// An error that tells of an ended connection.
pub trait Ended {
    /// State of the connection at its end; `None` for errors of another kind.
    fn postmortem(&self) -> Option<&Postmortem>;

    /// The error in one line, as for a response of a web server: without the [`Postmortem`], which
    /// is for logs, and of which `Display` makes two lines more.
    fn summary(&self) -> String
    where
        Self: fmt::Display,
    {
        let text = self.to_string();
        // What the plugin has a part in is escaped there: the first end of line is that before the
        // postmortem.
        text.lines().next().unwrap_or_default().to_owned()
    }
}

impl Ended for CallError {
    fn postmortem(&self) -> Option<&Postmortem> {
        match self {
            Self::Closed { postmortem, .. } => Some(postmortem),
            _ => None,
        }
    }
}

impl Ended for NotifyError {
    fn postmortem(&self) -> Option<&Postmortem> {
        match self {
            Self::Closed { postmortem, .. } => Some(postmortem),
            _ => None,
        }
    }
}

impl Crash {
    /// Finds the report in an error of a plugin's connection; `None` if the connection has not
    /// ended.
    #[must_use]
    pub fn of(error: &impl Ended) -> Option<&Self> {
        Self::in_postmortem(error.postmortem()?)
    }

    /// The end in a few words and one line, for a status page or a response: `spell has ended: exit
    /// status 3 after 1.2 s`. Nothing of its standard error is in there.
    #[must_use]
    pub fn summary(&self) -> String {
        let (plugin, ran) = (Escaped(&self.plugin), self.ran.as_secs_f64());
        match (&self.status, &self.diagnosis) {
            (Some(status), Some(diagnosis)) => {
                format!("{plugin} has ended: {status} after {ran:.1} s, {}", Escaped(diagnosis))
            }
            (Some(status), None) => format!("{plugin} has ended: {status} after {ran:.1} s"),
            (None, _) => format!("the connection to {plugin} has ended after {ran:.1} s"),
        }
    }

    pub(crate) fn in_postmortem(postmortem: &Postmortem) -> Option<&Self> {
        postmortem.owner.as_deref()?.downcast_ref()
    }
}

impl Error for Crash {}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (plugin, pid, ran) = (Escaped(&self.plugin), self.pid, self.ran.as_secs_f64());
        write!(f, "{plugin} (process {pid}")?;
        if let Some(launcher) = &self.launcher {
            write!(f, ", {launcher}")?;
        }
        match self.status {
            Some(_) => write!(f, ") ran for {ran:.3} s")?,
            None => write!(f, ") still ran, for {ran:.3} s")?,
        }
        let last = self.stderr.iter().rfind(|line| !line.trim().is_empty());
        match (&self.panic, last) {
            (Some(panic), _) => write!(f, "; it panicked: {}", Escaped(panic))?,
            (None, Some(line)) => {
                // A plugin of pipeplug-guest begins its own messages with its name.
                let own = line.strip_prefix(self.plugin.as_str());
                let line = own.and_then(|line| line.strip_prefix(": ")).unwrap_or(line);
                write!(f, "; last on stderr: {line:?}")?;
            }
            (None, None) => f.write_str("; nothing on stderr")?,
        }
        match &self.recording {
            Some(path) => write!(f, "; recorded in {path:?}"),
            None => Ok(()),
        }
    }
}

/// The last panic in Rust that lines of standard error tell of: its place and message in one line.
///
/// Noticed while the lines are read, since the backtrace behind it may be longer than what is
/// kept of them.
#[derive(Debug, Default)]
pub(crate) struct Panic {
    text: Option<String>,
    /// True if the next line is the message.
    lacks_message: bool,
}

impl Panic {
    /// Looks at the next line.
    pub(crate) fn see(&mut self, line: &str) {
        // `thread 'main' (4711) panicked at src/main.rs:2:5:` and the message on the next line;
        // before Rust 1.73 `thread 'main' panicked at 'message', src/main.rs:2:5`.
        if is_panic(line) {
            self.text = Some(line.to_owned());
            self.lacks_message = line.ends_with(':');
        } else if std::mem::take(&mut self.lacks_message)
            && let Some(text) = &mut self.text
        {
            text.push(' ');
            text.push_str(line);
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Tells whether `text` explains this exit status and these last lines.
    pub(crate) fn explains(text: &str, status: Option<WaitStatus>, lines: &[String]) -> bool {
        // A handler's panic is caught, and may be long ago.
        if status.is_some_and(WaitStatus::success) {
            return false; // it went on, and ended as it meant to
        }
        let of_panic = match status {
            Some(WaitStatus::Exited(code)) => code == 101,
            Some(WaitStatus::Signaled { signal, .. }) => {
                signal == nix::sys::signal::Signal::SIGABRT as i32
            }
            Some(WaitStatus::Unknown) | None => false,
        };
        of_panic || lines.iter().any(|line| is_panic(line) && text.starts_with(line.as_str()))
    }
}

fn is_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panic_in(text: &str) -> Option<String> {
        let mut panic = Panic::default();
        text.lines().for_each(|line| panic.see(line));
        panic.text().map(str::to_owned)
    }

    #[test]
    fn a_summary_is_one_line() {
        let crash = |status| Crash {
            plugin: "sp\nell".into(),
            path: "/a/spell".into(),
            launcher: None,
            pid: Pid::new(7).unwrap(),
            status,
            diagnosis: None,
            ran: Duration::from_millis(1234),
            stderr: vec!["secret".into()],
            panic: None,
            recording: None,
        };
        assert_eq!(
            crash(Some(WaitStatus::Exited(3))).summary(),
            "sp\\nell has ended: exit status 3 after 1.2 s"
        );
        assert_eq!(crash(None).summary(), "the connection to sp\\nell has ended after 1.2 s");
        let mut postmortem = Postmortem::default();
        postmortem.owner = Some(std::sync::Arc::new(crash(None)));
        let reason = std::sync::Arc::new(pipeplug_net::CloseReason::EndOfFile);
        let error = CallError::Closed {
            command: "x".into(),
            sent: pipeplug_net::Sent::Maybe,
            reason,
            postmortem: postmortem.into(),
        };
        assert!(error.to_string().lines().count() > 1, "{error}");
        assert_eq!(error.summary().lines().count(), 1);
        assert!(error.summary().starts_with("x: no reply, "), "{}", error.summary());
    }

    #[test]
    fn panics_are_recognised() {
        let now =
            "a line\n\nthread 'main' (7) panicked at src/main.rs:2:5:\nno way\nnote: run with …";
        assert_eq!(
            panic_in(now).as_deref(),
            Some("thread 'main' (7) panicked at src/main.rs:2:5: no way")
        );
        let old = "thread 'io' panicked at 'no way', src/main.rs:2:5\nnote: run with …";
        assert_eq!(
            panic_in(old).as_deref(),
            Some("thread 'io' panicked at 'no way', src/main.rs:2:5")
        );
        let cut = "thread 'main' (7) panicked at src/main.rs:2:5:";
        assert_eq!(panic_in(cut).as_deref(), Some(cut));
        let two = format!("{now}\n{old}");
        assert_eq!(panic_in(&two), panic_in(old), "the last one counts");
        let lines: Vec<_> = now.lines().map(str::to_owned).collect();
        let text = panic_in(now).unwrap();
        let killed = WaitStatus::Signaled { signal: 9, core_dumped: false };
        assert!(Panic::explains(&text, Some(killed), &lines), "it is among the last lines");
        assert!(!Panic::explains(&text, Some(killed), &lines[3..]), "it was long ago");
        assert!(Panic::explains(&text, Some(WaitStatus::Exited(101)), &lines[3..]));
        assert!(!Panic::explains(&text, Some(WaitStatus::Exited(0)), &lines), "it was caught");
        assert_eq!(panic_in("the word panicked at night\nthread 'x' is fine"), None);
    }
}
