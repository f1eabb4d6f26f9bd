//! A plugin from its start to its end, with everything that it writes shown.

pub(crate) mod answers;
pub(crate) mod shutdown;
pub(crate) mod suspended;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeplug_host::Format;
use pipeplug_host::{Handler, Plugin, StopError, Stopped};

use crate::args::sandbox::{self, Level};
use crate::args::start::StartArgs;
use crate::args::target::{Choice, Target};
use crate::exit::{CommandError, ExitReason};
use crate::output::event::{Event, Started};
use crate::output::report::Report;
use crate::output::text::Escaped;
use crate::session::shutdown::Shutdown;
use crate::session::suspended::SuspensionWatch;

/// How long what a plugin that has ended told and asked may take to be shown.
const HANDLERS_PATIENCE: Duration = Duration::from_secs(1);

/// A plugin that runs.
pub(crate) struct Session {
    pub(crate) plugin: Plugin,
    format: Format,
    /// From the start of its process to its answer to the first request.
    took: Duration,
    shutdown: Shutdown,
    watch: Arc<SuspensionWatch>,
}

impl Session {
    /// Starts it, in a sandbox of that level.
    ///
    /// # Errors
    /// Where it does not start; what it wrote to stderr has been shown then.
    ///
    /// # Blocking
    /// Until it has answered the first request, for the handshake timeout at most.
    pub(crate) fn start(
        target: &Target,
        args: &StartArgs,
        level: Level,
        report: &Arc<Report>,
        shutdown: &Shutdown,
        request: impl Handler,
    ) -> Result<Self, CommandError> {
        for (path, problem) in &target.passed_over {
            let path = path.to_string_lossy();
            report.note(format_args!("{} was passed over: {problem}", Escaped(&path)));
        }
        match &target.choice {
            Some(Choice::Installed(path)) => {
                let path = path.to_string_lossy();
                let name = Escaped(target.name());
                report.note(format_args!(
                    "{name} is the installed plugin {}; the file in this directory is ./{name}",
                    Escaped(&path)
                ));
            }
            Some(Choice::FileHere) => {
                let name = Escaped(target.name());
                report.detail(format_args!(
                    "no plugin {name} is installed: the file ./{name} is taken"
                ));
            }
            None => {}
        }
        for note in sandbox::notes(&args.sandbox, level) {
            report.detail(note);
        }
        let builder =
            target.builder().map_err(|error| CommandError::new(ExitReason::NotStarted, error))?;
        let protocol = args.protocol(target);
        if let Some(options) = &protocol.remembered {
            report.detail(format_args!("it is remembered to talk as with {options}"));
        }
        let builder = args.apply(builder, level, &protocol).handler(request);
        let watch = Arc::new(SuspensionWatch::new());
        let builder = builder.on_spawn({
            let (shutdown, watch, report) =
                (shutdown.clone(), Arc::clone(&watch), Arc::clone(report));
            move |plugin| {
                watch.begin(plugin, &report);
                shutdown.starting(plugin);
            }
        });
        let builder = builder.on_line({
            let report = Arc::clone(report);
            move |output, line| report.show(&Event::Line { output, line })
        });
        let begun = Instant::now();
        match builder.start() {
            Ok(plugin) => {
                shutdown.started(plugin.pid());
                let took = begun.elapsed();
                Ok(Self {
                    plugin,
                    format: protocol.format,
                    took,
                    shutdown: shutdown.clone(),
                    watch,
                })
            }
            Err(error) => {
                shutdown.forget();
                let hint = args
                    .hint(&error, &protocol)
                    .map(|hint| format!("; {hint}"))
                    .unwrap_or_default();
                Err(shutdown
                    .failure()
                    .unwrap_or_else(|| CommandError::of_start(error, level).followed_by(&hint)))
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
    /// As for [`Plugin::stop`], and a second more.
    pub(crate) fn end(self) -> Result<Stopped, StopError> {
        drop(self.watch);
        let mut stopped = self.plugin.stop();
        // What it told and asked last is still being shown; no end of the connection is no reason
        // to wait for ever.
        let _ = self.plugin.connection().wait_closed(HANDLERS_PATIENCE);
        let elsewhere = self.shutdown.forget();
        if let Ok(stopped) = &mut stopped {
            stopped.by = stopped.by.max(elsewhere);
        }
        stopped
    }
}
