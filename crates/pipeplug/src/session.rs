//! A plugin from its start to its end, and everything that it wrote shown in between.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pipeplug_host::net::wire::Format;
use pipeplug_host::{Plugin, Request, StopError, Stopped};

use crate::event::{Event, Started};
use crate::exit::{Failure, Outcome};
use crate::halt::Halt;
use crate::report::Report;
use crate::start::StartArgs;
use crate::target::Target;
use crate::text::Escaped;

/// How long what the plugin wrote to stderr may take to be shown once it has ended; only a process that it left behind
/// with the descriptor makes this wait.
const LINES_PATIENCE: Duration = Duration::from_secs(1);

/// A plugin that runs.
pub(crate) struct Session {
    pub(crate) plugin: Plugin,
    format: Format,
    /// From the start of its process to its answer to the first request.
    took: Duration,
    lines: Lines,
    halt: Halt,
}

/// Tells when the last line of the plugin has been shown: what shows them holds the other end, and is dropped then.
struct Lines(Receiver<Infallible>);

impl Session {
    /// Starts it.
    ///
    /// # Errors
    /// Where it does not start; what it wrote to stderr has been shown then.
    ///
    /// # Blocking
    /// Until it has answered the first request, for the handshake timeout at most.
    pub(crate) fn start(
        target: &Target,
        args: &StartArgs,
        report: &Arc<Report>,
        halt: &Halt,
        request: impl Request,
    ) -> Result<Self, Failure> {
        for (path, problem) in &target.passed_over {
            let path = path.display().to_string();
            report.note(format_args!("{} was passed over: {problem}", Escaped(&path)));
        }
        let builder = target.builder().map_err(|error| Failure::new(Outcome::NotStarted, error))?;
        let (shows, lines) = channel();
        let lines = Lines(lines);
        let builder = args.apply(builder).handler(request);
        let builder = builder.on_spawn({
            let halt = halt.clone();
            move |plugin| halt.starting(plugin)
        });
        let builder = builder.on_line({
            let report = Arc::clone(report);
            move |output, line| {
                let _held: &std::sync::mpsc::Sender<Infallible> = &shows;
                report.show(&Event::Line { output, line });
            }
        });
        let begun = Instant::now();
        match builder.start() {
            Ok(plugin) => {
                halt.started(plugin.pid());
                let took = begun.elapsed();
                Ok(Self { plugin, format: args.format(), took, lines, halt: halt.clone() })
            }
            Err(error) => {
                drop(builder);
                halt.forget();
                lines.wait();
                Err(halt.failure().unwrap_or_else(|| error.into()))
            }
        }
    }

    pub(crate) fn started(&self) -> Started<'_> {
        Started { plugin: &self.plugin, format: self.format, took: self.took }
    }

    /// Stops it, and waits until all that it wrote has been shown.
    ///
    /// # Errors
    /// As for [`Plugin::stop`].
    ///
    /// # Blocking
    /// For all grace times together at most, and a second more.
    pub(crate) fn end(self) -> Result<Stopped, StopError> {
        let Self { plugin, lines, halt, .. } = self;
        let mut stopped = plugin.stop();
        let elsewhere = halt.forget();
        if let Ok(stopped) = &mut stopped {
            stopped.by = stopped.by.max(elsewhere);
        }
        drop(plugin);
        lines.wait();
        stopped
    }
}

impl Lines {
    fn wait(&self) {
        // Nothing is ever sent: it ends with the sender, or when the time is over, and then so do we.
        let _ = self.0.recv_timeout(LINES_PATIENCE);
    }
}
