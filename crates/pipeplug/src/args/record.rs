//! Options that record what a plugin and its host tell each other.

use std::path::PathBuf;

use clap::Args;
use pipeplug_host::Recording;
use pipeplug_host::recording::Record;

use crate::args::units::parse_bytes;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recording")]
pub(crate) struct RecordArgs {
    /// Record every chunk with its time and data in FILE, for `pipeplug trace` and `pipeplug replay`
    ///
    /// An older recording of that name is kept as FILE.1. Only you may read the file. The
    /// configuration of the plugin (--config) is not in it.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,

    /// Limit of the recording, at least 64K; the oldest part is dropped [default: 64M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, requires = "record")]
    record_limit: Option<u64>,

    /// Do not record the data of calls and one-ways CMD; repeatable
    #[arg(long, value_name = "CMD", requires = "record")]
    redact: Vec<String>,

    /// Write a line to stderr for each call and one-way when it is done, as `pipeplug trace` does
    #[arg(long)]
    pub(crate) trace: bool,
}

impl RecordArgs {
    /// The recording, if one is wanted. `on_record` gets each record, for `--trace`.
    pub(crate) fn recording(
        &self,
        on_record: impl Fn(&Record) + Send + Sync + 'static,
    ) -> Option<Recording> {
        let recording = match &self.record {
            Some(path) => Recording::to(path).with_data(),
            None if self.trace => Recording::live().with_data(),
            None => return None,
        };
        let recording = match self.record_limit {
            Some(limit) => recording.limit(limit),
            None => recording,
        };
        let recording = recording.redact(&self.redact);
        Some(if self.trace { recording.on_record(on_record) } else { recording })
    }
}
