//! Session with a plugin from its start to its end. Shows everything that the plugin writes.

pub(crate) mod answers;
pub(crate) mod consent;
pub(crate) mod describe;
pub(crate) mod description_file;
pub(crate) mod recording;
pub(crate) mod shutdown;
pub(crate) mod streaming;
pub(crate) mod suspended;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::Format;
use pipeplug_host::{Handler, Plugin, PluginBuilder, StopError, Stopped};

use crate::args::sandbox::{self, Level};
use crate::args::start::{StartArgs, WireProtocol};
use crate::args::target::{Choice, Target};
use crate::commands::top;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::{Event, Started};
use crate::output::report::Report;
use crate::output::text::Escaped;
use crate::session::recording::SessionRecording;
use crate::session::shutdown::Shutdown;
use crate::session::suspended::SuspensionWatch;

/// Time for the handlers of the last requests and one-ways after the plugin has ended.
const HANDLERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time of a start after which a terminal shows what is waited for.
const SLOW_START: Duration = Duration::from_secs(3);

/// Running plugin.
pub(crate) struct Session {
    pub(crate) plugin: Plugin,
    format: Format,
    /// Time from the start of the process to its answer to the first request.
    took: Duration,
    shutdown: Shutdown,
    watch: Arc<SuspensionWatch>,
    recording: SessionRecording,
}

impl Session {
    /// Starts the plugin in a sandbox of this level.
    ///
    /// # Errors
    /// If it does not start. Its stderr has been shown by then.
    ///
    /// # Blocking
    /// Until the plugin has answered the first request, at most for the handshake timeout.
    pub(crate) fn start(
        target: &Target,
        args: &StartArgs,
        level: Level,
        report: &Arc<Report>,
        shutdown: &Shutdown,
        request: impl Handler,
    ) -> Result<Self, CommandError> {
        let watch = Arc::new(SuspensionWatch::new());
        let (builder, protocol) = builder(target, args, level, report, request)?;
        let recording = SessionRecording::begin(&args.record, report);
        let builder = recording.apply(builder).on_spawn({
            let (shutdown, watch, report) =
                (shutdown.clone(), Arc::clone(&watch), Arc::clone(report));
            move |plugin| {
                watch.begin(plugin, &report);
                shutdown.starting(plugin);
            }
        });
        let begun = Instant::now();
        let started = {
            let _note = SlowStart::watch(target.name(), report);
            builder.start()
        };
        match started {
            Ok(plugin) => {
                shutdown.started(plugin.pid());
                let took = begun.elapsed();
                if args.log_level.is_some() && !plugin.takes_log_level() {
                    report.note(format_args!(
                        "{} does not take the level of its log from its host: --log-level has no effect",
                        plugin.name()
                    ));
                }
                Ok(Self {
                    plugin,
                    format: protocol.format,
                    took,
                    shutdown: shutdown.clone(),
                    watch,
                    recording,
                })
            }
            Err(error) => {
                shutdown.forget();
                recording.end();
                let error = target.named_in(error);
                let hint = args.hint(&error, &protocol);
                Err(shutdown.failure().unwrap_or_else(|| {
                    CommandError::of_start(error, level).followed_by(hint.as_deref())
                }))
            }
        }
    }

    /// Wire format of the connection.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn started(&self) -> Started<'_> {
        Started { plugin: &self.plugin, format: self.format, took: self.took }
    }

    /// Stops the plugin, and waits until its output has been shown.
    ///
    /// # Errors
    /// As for [`Plugin::stop`].
    ///
    /// # Blocking
    /// As for [`Plugin::stop`], and up to a second more.
    pub(crate) fn end(self) -> Result<Stopped, StopError> {
        drop(self.watch);
        let mut stopped = self.plugin.stop();
        // Handlers of its last requests may still run. If the connection does not end in time, the
        // result does not matter.
        let _ = self.plugin.connection().wait_closed(HANDLERS_TIMEOUT);
        self.recording.end();
        let elsewhere = self.shutdown.forget();
        if let Ok(stopped) = &mut stopped {
            stopped.by = stopped.by.max(elsewhere);
        }
        stopped
    }
}

/// Builder of a plugin with all options, in a sandbox of this level, that shows what the plugin writes. Tells
/// how the plugin was found.
///
/// # Errors
/// The configuration cannot be read, or the path of this program is unknown.
pub(crate) fn builder(
    target: &Target,
    args: &StartArgs,
    level: Level,
    report: &Arc<Report>,
    request: impl Handler,
) -> Result<(PluginBuilder, WireProtocol), CommandError> {
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
            report.detail(format_args!("no plugin {name} is installed: using the file ./{name}"));
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
        report.detail(format_args!("using {options}, as remembered from its last probe"));
    }
    let builder = args.apply(builder, level, &protocol).handler(request);
    let mut builder = top::publish_if_asked(builder);
    if let Some(config) = args.config()? {
        report.detail(format_args!("the configuration has {} bytes", config.get().len()));
        builder =
            builder.config(&config).map_err(|error| CommandError::new(ExitReason::Usage, error))?;
    }
    let builder = builder.on_line({
        let report = Arc::clone(report);
        move |output, line| report.show(&Event::Line { output, line })
    });
    Ok((builder, protocol))
}

/// Note on a terminal if the start takes long. The end of this ends the wait for that.
struct SlowStart {
    _end: Sender<()>,
}

impl SlowStart {
    fn watch(name: &str, report: &Arc<Report>) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let (sender, receiver) = channel();
        let (name, report) = (name.to_owned(), Arc::clone(report));
        let wait = move || {
            if receiver.recv_timeout(SLOW_START) == Err(RecvTimeoutError::Timeout) {
                report.note(format_args!(
                    "{name} has not answered yet; --timeout limits the wait for it, Ctrl-C ends it"
                ));
            }
        };
        // Without the thread there is no note.
        thread::Builder::new().name("slow-start".into()).spawn(wait).ok()?;
        Some(Self { _end: sender })
    }
}
