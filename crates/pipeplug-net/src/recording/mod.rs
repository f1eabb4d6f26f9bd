//! Recordings of connections: every chunk with its time and its direction, like a flight recorder.
//!
//! A [`Recording`] says where to and how much; a [`Reader`] gives back the [`Record`]s of a file,
//! also of one whose process was killed. docs/recording.md describes the format.
//!
//! A connection without a recording looks at one `Option` for each chunk. With one, the thread that
//! sends or receives a chunk copies its header, and its bytes if they are recorded, to a queue of
//! bounded size. A thread of the recording writes the file. A disk that is too slow costs records,
//! which are counted, and never delays a call.

mod file;
mod format;
mod queue;
mod read;
mod redact;
pub(crate) mod tap;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

pub use file::RecordingError;
pub use format::{Record, RecordedChunk, RecordedEvent, Travel};
pub use read::{ReadError, Reader};

use crate::sync::Mutex;
use crate::sync::lock::lock;
use queue::Recorder;
use tap::Tap;

/// Size of a file unless the user chooses another, in bytes.
const DEFAULT_LIMIT: u64 = 64 << 20;

/// Call-back that gets each record.
pub(crate) type OnRecord = Arc<dyn Fn(&Record) + Send + Sync>;

/// A recording to make: the file, its size, and what is kept.
///
/// It may be used for any number of connections, also one after the other, as for the processes of
/// a supervisor: all of them write the same file. Clones share it.
///
/// By default headers are recorded (time, direction, command, length) and no data.
#[derive(Clone)]
#[must_use = "a recording does nothing until a connection uses it"]
pub struct Recording {
    settings: Settings,
    /// Description of the connections.
    about: Map<String, Value>,
    /// Opened by the first connection.
    recorder: Arc<Mutex<Option<Arc<Recorder>>>>,
}

/// Settings of a recording.
#[derive(Clone)]
pub(crate) struct Settings {
    path: Option<PathBuf>,
    limit: u64,
    with_data: bool,
    redacted: BTreeSet<String>,
    on_record: Option<OnRecord>,
}

impl Recording {
    /// Records to the file at `path`, which is made when the first connection starts.
    ///
    /// A recording that is there already is renamed: `.1` is appended to its name, and replaces the
    /// one that has that name. Any other file is left as it is, and opening fails.
    pub fn to(path: impl Into<PathBuf>) -> Self {
        Self::with_path(Some(path.into()))
    }

    /// Records to no file, for [`on_record`](Recording::on_record).
    pub fn live() -> Self {
        Self::with_path(None)
    }

    fn with_path(path: Option<PathBuf>) -> Self {
        let (with_data, redacted, on_record) = (false, BTreeSet::new(), None);
        let settings = Settings { path, limit: DEFAULT_LIMIT, with_data, redacted, on_record };
        Self { settings, about: Map::new(), recorder: Arc::default() }
    }

    /// Largest size of the file, in bytes, at least 64 KiB. When it is reached, the oldest eighth is
    /// dropped. Default: 64 MiB.
    pub fn limit(mut self, bytes: u64) -> Self {
        self.settings.limit = bytes;
        self.unopened()
    }

    /// Records the data of chunks too. Of a large one, the beginning: as much as a sixteenth of the
    /// limit, and 2 MiB at most.
    ///
    /// The file then holds what host and plugin tell each other, but not the configuration of the
    /// plugin. Only its owner may read it.
    pub fn with_data(mut self) -> Self {
        self.settings.with_data = true;
        self.unopened()
    }

    /// Adds commands whose data is not recorded, in requests, responses, one-ways and parts. With
    /// any, the data of contexts is not recorded either.
    pub fn redact(mut self, commands: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.redacted.extend(commands.into_iter().map(Into::into));
        self.unopened()
    }

    /// Calls a function with each record, in order, on the thread of the recording. It may block:
    /// what does not fit in the queue meanwhile is counted as lost.
    pub fn on_record(mut self, on_record: impl Fn(&Record) + Send + Sync + 'static) -> Self {
        self.settings.on_record = Some(Arc::new(on_record));
        self.unopened()
    }

    /// A setting was changed: a clone that is in use keeps its own.
    fn unopened(mut self) -> Self {
        self.recorder = Arc::default();
        self
    }

    /// Adds to the description of the connections that begin with it.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    pub fn describe(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.about.insert(key.to_owned(), value.into());
        self
    }

    /// Path of the file, unless there is none.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.settings.path.as_deref()
    }

    /// Makes the file, unless it is in use by this recording already. The first connection does so
    /// otherwise.
    ///
    /// # Errors
    /// The file cannot be made, is no recording, or another process records to it.
    pub fn open(&self) -> Result<(), RecordingError> {
        self.recorder().map(drop)
    }

    /// Writes what was recorded so far. Returns false if that takes longer than `timeout`, or the
    /// file cannot be written.
    ///
    /// # Blocking
    /// At most for `timeout`.
    pub fn flush(&self, timeout: Duration) -> bool {
        let recorder = lock(&self.recorder).clone();
        recorder.is_none_or(|recorder| recorder.flush(timeout))
    }

    /// Error that has ended the recording, as of a disk that is full.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.recorder).as_ref().and_then(|recorder| recorder.failure())
    }

    fn recorder(&self) -> Result<Arc<Recorder>, RecordingError> {
        let mut recorder = lock(&self.recorder);
        if let Some(recorder) = &*recorder {
            return Ok(Arc::clone(recorder));
        }
        let opened = Recorder::start(&self.settings)?;
        Ok(Arc::clone(recorder.insert(opened)))
    }

    /// Begins the recording of a connection with this name.
    pub(crate) fn tap(&self, name: &str) -> Result<Arc<Tap>, RecordingError> {
        let mut about = self.about.clone();
        about.insert("name".to_owned(), name.into());
        let Settings { limit, with_data, redacted, .. } = &self.settings;
        let kept = if *with_data { format::kept_max(*limit) } else { 0 };
        Ok(Tap::begin(self.recorder()?, about, kept, redacted))
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings { path, limit, with_data, redacted, on_record: _ } = &self.settings;
        f.debug_struct("Recording")
            .field("path", path)
            .field("limit", limit)
            .field("with_data", with_data)
            .field("redacted", redacted)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
