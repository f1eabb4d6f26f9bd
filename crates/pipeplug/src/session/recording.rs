//! Recording and live trace of a session.

use std::sync::Arc;
use std::time::Duration;

use pipeplug_host::{PluginBuilder, Recording};

use crate::args::record::RecordArgs;
use crate::output::report::Report;
use crate::output::text::Escaped;
use crate::trace::live::LiveTrace;

/// Time for the last records to be written.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Recording and live trace of a session, if they are wanted.
pub(crate) struct SessionRecording {
    recording: Option<Recording>,
    trace: Option<LiveTrace>,
    report: Arc<Report>,
}

impl SessionRecording {
    pub(crate) fn begin(args: &RecordArgs, report: &Arc<Report>) -> Self {
        let trace = LiveTrace::new(report);
        let recording = args.recording({
            let trace = trace.clone();
            move |record| trace.take(record)
        });
        Self { recording, trace: args.trace.then_some(trace), report: Arc::clone(report) }
    }

    pub(crate) fn apply(&self, builder: PluginBuilder) -> PluginBuilder {
        match &self.recording {
            Some(recording) => builder.record(recording.clone()),
            None => builder,
        }
    }

    /// Writes what is left.
    pub(crate) fn end(&self) {
        let Some(recording) = &self.recording else { return };
        let is_written = recording.flush(TIMEOUT);
        if let Some(trace) = &self.trace {
            trace.finish();
        }
        if !is_written && let Some(path) = recording.path() {
            let why = recording.failure().unwrap_or_else(|| "it cannot be written in time".into());
            let path = path.to_string_lossy();
            let path = Escaped(&path);
            self.report.note(format_args!("warning: the recording {path} is not complete: {why}"));
        }
    }
}
