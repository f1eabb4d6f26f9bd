//! Calls of the plugin while it is developed: lines of stdin, and those of the command line.

use std::ffi::OsString;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::os::unix::ffi::OsStringExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::stat::{SFlag, fstat};
use pipeplug_host::{Plugin, SupervisedCallError, SupervisedNotifyError, Supervisor};

use super::stage::Stage;
use crate::args::calls::{self, CallArg, CallKind};
use crate::args::data::{Data, Loader};
use crate::commands::run;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::Report;
use crate::session::shutdown::Shutdown;

/// Calls of stdin in flight. Further lines wait.
const MOST_IN_FLIGHT: usize = 64;

/// Maker of calls, for several threads.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) stage: Stage,
    pub(super) timeout: Option<Duration>,
    pub(super) report: Arc<Report>,
    pub(super) shutdown: Shutdown,
    in_flight: Arc<InFlight>,
    input: Arc<Input>,
}

/// State of stdin.
#[derive(Default)]
struct Input {
    /// True once it has ended, and its calls are done.
    is_over: AtomicBool,
    /// True once a call of one of its lines has failed.
    has_failed: AtomicBool,
}

/// Number of calls in flight.
#[derive(Default)]
struct InFlight {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Caller {
    pub(super) fn new(
        stage: &Stage,
        timeout: Option<Duration>,
        report: &Arc<Report>,
        shutdown: &Shutdown,
    ) -> Self {
        let (report, shutdown) = (Arc::clone(report), shutdown.clone());
        let (in_flight, input) = Default::default();
        Self { stage: stage.clone(), timeout, report, shutdown, in_flight, input }
    }

    /// Makes the calls of the command line, one after the other, on a thread of their own.
    pub(super) fn repeat(&self, calls: &Arc<Vec<CallArg>>) {
        if calls.is_empty() {
            return;
        }
        let (caller, calls) = (self.clone(), Arc::clone(calls));
        self.in_flight.begin();
        let run = move || {
            for call in calls.iter() {
                caller.make(call, None);
            }
            caller.in_flight.end();
        };
        self.spawn(run);
    }

    /// True once stdin has ended, a pipe or a file, and all calls are done.
    pub(super) fn is_over(&self) -> bool {
        self.input.is_over.load(Ordering::SeqCst)
    }

    /// True once the call of a line of stdin has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.input.has_failed.load(Ordering::SeqCst)
    }

    /// Makes a call for each line of stdin, until it ends.
    pub(super) fn read_lines(&self) {
        let caller = self.clone();
        self.spawn(move || {
            for (line, number) in io::stdin().lock().lines().zip(1..) {
                let Ok(line) = line else { break };
                if line.trim().is_empty() {
                    continue;
                }
                caller.in_flight.begin();
                let one = caller.clone();
                caller.spawn(move || {
                    match parse(&line) {
                        Ok(call) => one.make(&call, Some(number)),
                        Err(message) => {
                            one.fail(CommandError::message(ExitReason::Usage, message), number)
                        }
                    }
                    one.in_flight.end();
                });
            }
            if ends_with_its_input() {
                caller.in_flight.wait_for_all();
                caller.input.is_over.store(true, Ordering::SeqCst);
            } else if io::stdin().is_terminal() {
                caller.report.note("the input has ended: no more calls; Ctrl-C ends");
            }
        });
    }

    /// Waits until all calls are done, at most for this time.
    pub(super) fn wait(&self, timeout: Duration) {
        let count = self.in_flight.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.in_flight.changed.wait_timeout_while(count, timeout, |count| *count > 0);
        // What is still in flight ends with this process.
        drop(waited);
    }

    fn spawn(&self, run: impl FnOnce() + Send + 'static) {
        if let Err(error) = thread::Builder::new().name("call".into()).spawn(run) {
            self.report.note(format_args!("cannot start a thread: {error}"));
            self.in_flight.end();
        }
    }

    fn fail(&self, failure: CommandError, line: u64) {
        self.input.has_failed.store(true, Ordering::SeqCst);
        self.report.show(&Event::Failed(&failure.at(Some(line))));
    }

    /// Makes a call, and shows its reply.
    fn make(&self, call: &CallArg, line: Option<u64>) {
        let begun = Instant::now();
        let command = call.command.as_str();
        match self.reply(call) {
            // With a line each reply ends with a newline.
            Ok(Some(data)) => self.report.show(&Event::Reply {
                command,
                data: &data,
                took: begun.elapsed(),
                line: Some(line.unwrap_or(0)),
            }),
            Ok(None) => {}
            Err(_) if self.shutdown.is_begun() => {}
            Err(failure) => {
                self.input.has_failed.fetch_or(line.is_some(), Ordering::SeqCst);
                self.report.show(&Event::Failed(&failure.of_command(command).at(line)));
            }
        }
    }

    fn reply(&self, call: &CallArg) -> Result<Option<Vec<u8>>, CommandError> {
        let supervisor = self.stage.supervisor().ok_or_else(|| {
            CommandError::message(ExitReason::NotStarted, "no version of the plugin has run yet")
        })?;
        let data = self.data(call, &supervisor)?;
        if call.kind == CallKind::Notify {
            let told = supervisor.notify(&call.command, data);
            return told.map(|()| None).map_err(|error| match error {
                SupervisedNotifyError::Unavailable(error) => unavailable(&error),
                error => CommandError::new(ExitReason::Failed, error),
            });
        }
        let mut request = supervisor.request(&call.command, data);
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        match request.wait() {
            Ok(reply) => Ok(Some(reply.into_bytes())),
            Err(SupervisedCallError::Unavailable(error)) => Err(unavailable(&error)),
            Err(SupervisedCallError::Call(error)) => {
                Err(CommandError::new(ExitReason::Failed, error.clone()).of_call(&error))
            }
            Err(error) => Err(CommandError::new(ExitReason::Failed, error)),
        }
    }

    /// Data of the call. Arguments of a typed service are checked, and made JSON.
    fn data(&self, call: &CallArg, supervisor: &Supervisor) -> Result<Vec<u8>, CommandError> {
        if call.data == Data::Stdin {
            let message = "stdin is read for calls, one on each line; write @FILE";
            return Err(CommandError::message(ExitReason::Usage, message));
        }
        let data = Loader::default().load(&call.data)?;
        if !call.command.contains('.') {
            return Ok(data);
        }
        let plugin: Plugin = supervisor.plugin().map_err(|error| unavailable(&error))?;
        run::prepare_data(call, data, &plugin, self.timeout, &self.report, &self.shutdown)
    }
}

fn unavailable(error: &pipeplug_host::Unavailable) -> CommandError {
    CommandError::message(ExitReason::NotStarted, error)
}

impl InFlight {
    /// Waits while there are too many.
    fn begin(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.changed.wait_while(count, |count| *count >= MOST_IN_FLIGHT);
        *count.unwrap_or_else(PoisonError::into_inner) += 1;
    }

    /// Waits until there are none.
    fn wait_for_all(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(count, |count| *count > 0));
    }

    fn end(&self) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.changed.notify_all();
    }
}

/// True if the end of stdin ends the command: it is a pipe or a file, and neither a terminal nor
/// `/dev/null`, which a program has that was started without any input.
fn ends_with_its_input() -> bool {
    let kind = fstat(io::stdin()).map(|it| SFlag::from_bits_truncate(it.st_mode) & SFlag::S_IFMT);
    kind.is_ok_and(|kind| kind != SFlag::S_IFCHR)
}

/// Parses `CMD DATA`: all behind the space is the data. With a typed service it may be words NAME=VALUE.
fn parse(line: &str) -> Result<CallArg, String> {
    let line = line.trim_start().trim_end_matches('\r');
    let (command, data) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = vec!["--call".to_owned(), command.to_owned()];
    match shlex::split(data) {
        Some(named) if command.contains('.') && named.iter().all(|word| is_named(word)) => {
            words.extend(named);
        }
        _ if data.is_empty() => {}
        _ => {
            let data = OsString::from_vec(data.as_bytes().to_vec());
            return calls::parse_call(&[command.into(), data]);
        }
    }
    let words = calls::shield(words.into_iter().map(OsString::from));
    calls::parse_call(&words[1..])
}

fn is_named(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_command_and_its_data() {
        let data = |line: &str| {
            let call = parse(line).unwrap();
            (call.command, call.data)
        };
        let literal = |text: &str| Data::Literal(text.into());
        assert_eq!(data("hello"), ("hello".into(), literal("")));
        assert_eq!(data("hello big  world\r"), ("hello".into(), literal("big  world")));
        assert_eq!(data("hello -v \"x\""), ("hello".into(), literal("-v \"x\"")));
        assert_eq!(data("open @page"), ("open".into(), Data::File("page".into())));
        assert_eq!(data("a=b c=d"), ("a=b".into(), literal("c=d")));
        let named = Data::Named(vec![b"word=te h".to_vec(), b"most=3".to_vec()]);
        assert_eq!(data("spell.suggest word='te h' most=3"), ("spell.suggest".into(), named));
        let json = "{\"word\":\"teh\"}";
        assert_eq!(data(&format!("spell.suggest {json}")), ("spell.suggest".into(), literal(json)));
        assert!(parse("open @").is_err());
    }
}
