//! Report of a run: replies on stdout and everything else on stderr, or all events as JSON on
//! stdout.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::ColorChoice;
use pipeplug_host::process::Pid;
use pipeplug_host::{LogLine, Output, Stopped, StoppedBy};

use crate::cli::Globals;
use crate::exit::{CommandError, ExitReason};
use crate::output::bar::{Bar, CLEAR_LINE};
use crate::output::event::{Event, RequestStatus};
use crate::output::stream::{self, Kind, Stream, WriteError};
use crate::output::style::{Paint, Role};
use crate::output::text::{self, Escaped, QuotedData, took};
use crate::session::shutdown::Shutdown;
use crate::session::suspended;

/// Form of the report: text for people, or JSON for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Text,
    Json,
}

/// Writer of events. Any thread may use it: events are not interleaved.
pub(crate) struct Report {
    mode: Mode,
    plugin: String,
    verbosity: Verbosity,
    paint: Paint,
    /// Form of replies on stdout.
    replies: ReplyFormat,
    draws_bar: bool,
    /// True for a shell, whose user gives answers while the plugin runs.
    is_shell: bool,
    /// Progress of the call that runs, once it was reported.
    bar: Mutex<Option<Bar>>,
    shutdown: Shutdown,
}

/// Level of detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verbosity {
    Normal,
    /// `-v`: also metadata and times.
    Detailed,
    /// `-vv`: also the log of the libraries.
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReplyFormat {
    /// Byte for byte, for programs.
    Exact,
    /// For a terminal: each reply ends with a newline, and control characters are escaped.
    Lines,
}

impl Report {
    /// Makes a report on the plugin with this display name.
    pub(crate) fn new(mode: Mode, plugin: &str, globals: &Globals, shutdown: &Shutdown) -> Self {
        Self {
            mode,
            plugin: Escaped(plugin).to_string(),
            verbosity: globals.verbosity(),
            paint: Paint::choose(globals.color, &io::stderr()),
            replies: if io::stdout().is_terminal() {
                ReplyFormat::Lines
            } else {
                ReplyFormat::Exact
            },
            // The log of the libraries does not know of the bar.
            draws_bar: mode == Mode::Text
                && io::stderr().is_terminal()
                && globals.verbosity() < Verbosity::Debug
                && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            is_shell: false,
            bar: Mutex::default(),
            shutdown: shutdown.clone(),
        }
    }

    /// The report of a shell.
    pub(crate) fn of_shell(self) -> Self {
        Self { is_shell: true, ..self }
    }

    /// Says how the user gives an answer to a request of the plugin.
    pub(crate) fn gives_answer(&self, command: &Escaped<'_>) -> String {
        if self.is_shell {
            format!("`answer {command} DATA` gives one")
        } else {
            format!("--answer {command}=DATA gives one")
        }
    }

    /// Name of the setting that limits calls.
    pub(crate) fn timeout_setting(&self) -> &'static str {
        if self.is_shell { "`set timeout TIME`" } else { "--timeout" }
    }

    /// True if bars are drawn.
    pub(crate) fn draws_bar(&self) -> bool {
        self.draws_bar
    }

    /// Returns true if progress is shown.
    pub(crate) fn shows_progress(&self) -> bool {
        self.draws_bar || self.mode == Mode::Json
    }

    /// Paint of stderr.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// Removes the bar of a call that has ended.
    pub(crate) fn end_progress(&self) {
        *self.bar() = None;
    }

    /// Shows how many of many calls are done.
    pub(crate) fn count(&self, done: u64, total: Option<u64>, failed: u64) {
        if self.draws_bar {
            self.bar().get_or_insert_with(|| Bar::new("calls")).count(done, total, failed);
        }
    }

    fn bar(&self) -> MutexGuard<'_, Option<Bar>> {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes while the bar is hidden.
    fn beside_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        if !self.draws_bar {
            return write();
        }
        match &*self.bar() {
            Some(bar) => bar.hide_for(write),
            None => write(),
        }
    }

    pub(crate) fn show(&self, event: &Event<'_>) {
        match self.mode {
            Mode::Json if event.is_silent() => {}
            // Stdout may be what failed.
            Mode::Json
                if matches!(event, Event::Failed(_)) && self.shutdown.has_failed_output() =>
            {
                self.show_text(event);
            }
            Mode::Json => {
                self.write_stdout(&[text::json_line(&event.to_json()).as_bytes()]);
            }
            Mode::Text => self.show_text(event),
        }
    }

    /// Writes a note for people, which is no event and not part of the JSON.
    pub(crate) fn note(&self, note: impl fmt::Display) {
        if self.mode == Mode::Text {
            self.say(Role::Note, &note);
        }
    }

    /// Writes a note that is dropped if the write would block during a shutdown.
    pub(crate) fn hint(&self, hint: &str) {
        if self.mode == Mode::Text {
            let text = message_lines(self.paint, Role::Note, &hint);
            // Without waiting for the thread that draws: its terminal may take nothing now.
            let clear = if self.draws_bar { CLEAR_LINE } else { "" };
            // A failed write to stderr cannot be reported on stderr.
            let _ = stream::write(Stream::Stderr, Kind::Log, &[clear.as_bytes(), text.as_bytes()]);
        }
    }

    /// Writes a note with `-v` only.
    pub(crate) fn detail(&self, detail: impl fmt::Display) {
        if self.verbosity >= Verbosity::Detailed {
            self.note(detail);
        }
    }

    fn show_text(&self, event: &Event<'_>) {
        match event {
            Event::Started(started) => {
                if self.verbosity >= Verbosity::Detailed {
                    let plugin = started.plugin;
                    let (pid, format, took) = (plugin.pid(), started.format, took(started.took));
                    self.say(
                        Role::Note,
                        &format_args!(
                            "{} started in {took} (pid {pid}, {format} format)",
                            self.plugin
                        ),
                    );
                    for (key, value) in plugin.metadata().iter() {
                        self.say(
                            Role::Note,
                            &format_args!("  {}: {}", Escaped(key), Escaped(value)),
                        );
                    }
                }
            }
            Event::Part { data, .. } => match self.replies {
                ReplyFormat::Exact => self.write_stdout(&[data]),
                ReplyFormat::Lines => self.write_stdout(&[text::reply(data).as_bytes()]),
            },
            Event::Reply { command, data, took: time, line } => {
                // Of many calls each has a line of its own, also one with an empty reply.
                let is_line = line.is_some();
                let is_ended = data.ends_with(b"\n") || data.is_empty() && !is_line;
                let newline: &[u8] = if is_ended { b"" } else { b"\n" };
                match self.replies {
                    ReplyFormat::Exact if is_line => self.write_stdout(&[data, newline]),
                    ReplyFormat::Exact => self.write_stdout(&[data]),
                    ReplyFormat::Lines => {
                        self.write_stdout(&[text::reply(data).as_bytes(), newline]);
                    }
                }
                if self.verbosity >= Verbosity::Detailed {
                    let (command, time) = (Escaped(command), took(*time));
                    self.say(
                        Role::Note,
                        &format_args!("{command}: reply of {} B after {time}", data.len()),
                    );
                }
            }
            Event::Progress { command, progress } => {
                if self.draws_bar {
                    self.bar().get_or_insert_with(|| Bar::new(command)).show(progress);
                }
            }
            Event::Failed(failure) => {
                if let Some(text) = failure_text(self.paint, failure) {
                    self.write_stderr(&text);
                }
            }
            Event::Refused { command, reason } => {
                let (command, reason) = (Escaped(command), Escaped(reason));
                self.say(
                    Role::Note,
                    &format_args!("{command}: not all of the input was taken: {reason}"),
                );
            }
            Event::Request { status, command, data } => {
                let (command, data) = (Escaped(command), QuotedData(data));
                match status {
                    RequestStatus::OneWay => self.speak(&format_args!("tells {command}{data}")),
                    RequestStatus::Refused => self.speak(&format_args!(
                        "asks {command}{data}, which has no answer: {}",
                        self.gives_answer(&command)
                    )),
                    RequestStatus::Answered
                        if self.is_shell || self.verbosity >= Verbosity::Detailed =>
                    {
                        self.speak(&format_args!("asks {command}{data}, and is answered"));
                    }
                    RequestStatus::Answered => {}
                }
            }
            Event::Line { output, line } => {
                let speaker = match output {
                    Output::Stdout => format_args!("{} (stdout):", self.plugin),
                    _ => format_args!("{}:", self.plugin),
                };
                let speaker = self.paint.paint(Role::Speaker, speaker);
                // A plugin of pipeplug-guest begins its own messages with its name.
                let own = line.strip_prefix(self.plugin.as_str());
                let line = own.and_then(|line| line.strip_prefix(": ")).unwrap_or(line);
                self.write_stderr(&format!("{speaker} {}\n", Readable(line)));
            }
            Event::Suspended { pid, signal } => self.note(suspended::note(*pid, *signal)),
            Event::Ended(stopped) => self.show_end(stopped),
        }
    }

    fn show_end(&self, stopped: &Stopped) {
        match stopped.by {
            StoppedBy::Term | StoppedBy::Kill => {
                self.note(format_args!("{} did not stop when asked: {}", self.plugin, stopped.by));
            }
            StoppedBy::LetGo => {
                self.note(format_args!(
                    "{} did not end when asked: it was {}",
                    self.plugin, stopped.by
                ));
            }
            _ if self.verbosity >= Verbosity::Detailed => {
                self.note(format_args!("{}: {}, {}", self.plugin, stopped.by, stopped.status));
            }
            _ => {}
        }
        if !stopped.left.is_empty() {
            let pids: Vec<_> = stopped.left.iter().map(Pid::to_string).collect();
            self.note(format_args!(
                "warning: {} has left processes that still run, out of reach: {}",
                self.plugin,
                pids.join(", ")
            ));
        }
        if !stopped.held.is_empty() {
            let held: Vec<_> = stopped.held.iter().map(Output::to_string).collect();
            self.note(format_args!(
                "warning: a process that {} started holds its {} open; its later output is not \
                 shown",
                self.plugin,
                held.join(" and ")
            ));
        }
    }

    fn speak(&self, what: &dyn fmt::Display) {
        self.write_stderr(&format!("{} {what}\n", self.paint.paint(Role::Speaker, &self.plugin)));
    }

    fn say(&self, role: Role, what: &dyn fmt::Display) {
        self.write_stderr(&message_lines(self.paint, role, what));
    }

    /// Writes to stdout. An error begins the shutdown of the run.
    fn write_stdout(&self, parts: &[&[u8]]) {
        let write = || stream::write(Stream::Stdout, Kind::Report, parts);
        // Elsewhere than in the terminal the bar is not in the way.
        let written = match self.replies {
            ReplyFormat::Lines => self.beside_bar(write),
            ReplyFormat::Exact => write(),
        };
        if let Err(error) = written {
            self.shutdown.output_failed(Stream::Stdout, error);
        }
    }

    /// Writes whole lines to stderr. A write that takes longer than `--timeout` begins the
    /// shutdown.
    pub(crate) fn write_stderr(&self, text: &str) {
        let write = || stream::write(Stream::Stderr, Kind::Report, &[text.as_bytes()]);
        match self.beside_bar(write) {
            Err(error @ WriteError::NotRead(_)) => {
                self.shutdown.output_failed(Stream::Stderr, error)
            }
            // A failed write to stderr cannot be reported on stderr.
            Err(WriteError::System(_) | WriteError::GivenUp) | Ok(()) => {}
        }
    }
}

/// Writes a note of a command that has no [`Report`] yet.
pub(crate) fn tell(color: ColorChoice, note: &str) {
    let text = message_lines(Paint::choose(color, &io::stderr()), Role::Note, &note);
    // A failed write to stderr cannot be reported on stderr.
    let _ = stream::write(Stream::Stderr, Kind::Report, &[text.as_bytes()]);
}

/// Exit reason of a command that has no [`Report`]. Writes its error.
pub(crate) fn exit_reason(
    color: ColorChoice,
    result: Result<ExitReason, CommandError>,
) -> ExitReason {
    result.unwrap_or_else(|failure| {
        if let Some(text) = failure_text(Paint::choose(color, &io::stderr()), &failure) {
            // A failed write to stderr cannot be reported on stderr.
            let _ = stream::write(Stream::Stderr, Kind::Report, &[text.as_bytes()]);
        }
        failure.reason
    })
}

/// Writes the output of a command to stdout.
///
/// # Errors
/// If stdout cannot be written. A reader that closed the pipe gives an error without a message.
///
/// # Blocking
/// Until stdout is read.
pub(crate) fn print(text: &str) -> Result<(), CommandError> {
    stream::write(Stream::Stdout, Kind::Report, &[text.as_bytes()])
        .map_err(|error| CommandError::of_output(Stream::Stdout, &error))
}

/// Writes to stdout as [`print()`] does, for a command that a signal can end.
///
/// # Errors
/// As for [`print()`], and if a signal came during the write.
///
/// # Blocking
/// Until stdout is read, or for a limited time after a signal.
pub(crate) fn print_interruptible(text: &str, shutdown: &Shutdown) -> Result<(), CommandError> {
    print(text).map_err(|failure| shutdown.failure().unwrap_or(failure))
}

/// Formats the error. `None` if it has no message.
fn failure_text(paint: Paint, failure: &CommandError) -> Option<String> {
    let error = failure.error.as_ref()?;
    // The alternate form puts the causes in the same line.
    let line = failure.line.map_or_else(String::new, |line| format!("line {line}: "));
    let mut text = format!("{line}{error:#}");
    if let Some(coded) = failure.coded.as_ref().filter(|coded| coded.is_plugins) {
        text.push_str(&format!(" ({})", coded.code));
    }
    if failure.crash.is_none() {
        let mut text = message_lines(paint, Role::Error, &Escaped(&text));
        text.extend(
            failure.notes.iter().map(|line| format!("  {}\n", text::without_long_words(line))),
        );
        return Some(text);
    }
    // The text of a crash has lines of its own; escape only within them.
    let lines: Vec<_> = text.lines().map(|line| Escaped(line).to_string()).collect();
    Some(message_lines(paint, Role::Error, &lines.join("\n")))
}

/// Formats a message of this program for stderr, wrapped to the width of the terminal.
fn message_lines(paint: Paint, role: Role, what: &dyn fmt::Display) -> String {
    const HEAD: &str = "pipeplug:";
    let what = what.to_string();
    let what = text::without_long_words(&what);
    let what = match text::columns(io::stderr()) {
        Some(columns) => {
            let width = columns.saturating_sub(HEAD.len() + 1).max(20);
            what.lines()
                .map(|line| text::wrap(line, width).join("\n  "))
                .collect::<Vec<_>>()
                .join("\n")
        }
        None => what.into_owned(),
    };
    format!("{} {what}\n", paint.paint(role, HEAD))
}
/// Shows a line of a plugin: the JSON of a usual logging library as level, target, message and
/// fields, any other text as it is.
struct Readable<'a>(&'a str);

impl fmt::Display for Readable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_json = self.0.starts_with('{');
        let Some(event) = is_json.then(|| LogLine::read(self.0)).flatten() else {
            return Escaped(self.0).fmt(f);
        };
        write!(f, "{}", event.level().to_string().to_uppercase())?;
        if let Some(target) = event.target() {
            write!(f, " {}:", Escaped(target))?;
        }
        write!(f, " {}", Escaped(event.message()))?;
        match event.fields() {
            Some(fields) => write!(f, " {}", Escaped(fields)),
            None => Ok(()),
        }
    }
}
