//! Trace on stderr while a plugin runs.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use pipeplug_host::recording::Record;

use crate::output::report::Report;
use crate::output::text;
use crate::trace::lines::Lines;
use crate::trace::spans::{Item, Tracer};

/// Writes the lines of a trace as its calls end.
#[derive(Clone)]
pub(crate) struct LiveTrace {
    report: Arc<Report>,
    state: Arc<Mutex<(Tracer, Lines)>>,
}

impl LiveTrace {
    pub(crate) fn new(report: &Arc<Report>) -> Self {
        let lines = Lines::new(report.paint(), text::columns(io::stderr()), false);
        let state = Arc::new(Mutex::new((Tracer::default(), lines)));
        Self { report: Arc::clone(report), state }
    }

    /// Takes the next record.
    pub(crate) fn take(&self, record: &Record) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tracer, lines) = &mut *state;
        lines.see(record.time);
        for item in tracer.take(record.clone()) {
            self.report.write_stderr(&lines.format(&item));
        }
    }

    /// Writes the calls that are open at the end.
    pub(crate) fn finish(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (tracer, lines) = &mut *state;
        for span in tracer.finish() {
            self.report.write_stderr(&lines.format(&Item::Span(Box::new(span))));
        }
    }
}
