//! The file of a recording: a ring of segments.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::format::{
    self, Bound, FRAME, HEADER, MAGIC, SEGMENT_MAGIC, SEGMENTS, VERSION, segment_size,
};

/// Reason that a recording does not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordingError {
    /// The file cannot be made.
    #[error("the recording {path:?} cannot be made: {error}")]
    Create {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The file is there already, and is no recording.
    #[error("{path:?} exists and is no recording: name another file, or remove it")]
    NoRecording {
        /// The file.
        path: PathBuf,
    },
    /// Another process, or another recording of this one, writes the file.
    #[error("the recording {path:?} is being written by another host: name another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no thread.
    #[error("the thread of a recording cannot be started: {error}")]
    Thread {
        /// Error of the system.
        error: io::Error,
    },
}

/// A file that is written.
#[derive(Debug)]
pub(super) struct RingFile {
    file: File,
    segment_size: u64,
    /// Number of the segment that is written, from 1.
    sequence: u64,
    /// Place in the file for the next record.
    at: u64,
    /// End of the segment.
    end: u64,
    /// Records of the begin of connections that are open.
    begins: BTreeMap<u32, Vec<u8>>,
    out: Vec<u8>,
}

impl RingFile {
    /// Makes the file at `path`. One that is there already is renamed.
    pub(super) fn create(path: &Path, limit: u64) -> Result<Self, RecordingError> {
        let failed = |error| RecordingError::Create { path: path.to_owned(), error };
        move_away(path)?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        // Held until the file is closed. Not every file system has locks.
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            return Err(RecordingError::InUse { path: path.to_owned() });
        }
        let segment_size = segment_size(limit);
        let mut header = Vec::with_capacity(HEADER as usize);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&SEGMENTS.to_le_bytes());
        header.extend_from_slice(&segment_size.to_le_bytes());
        header.resize(HEADER as usize, 0);
        file.write_all_at(&header, 0).map_err(failed)?;
        let (begins, out) = (BTreeMap::new(), Vec::new());
        Ok(Self { file, segment_size, sequence: 0, at: 0, end: 0, begins, out })
    }

    /// Adds a record. It is written by [`write`](RingFile::write) at the latest.
    pub(super) fn add(&mut self, record: &[u8], time: u64) -> io::Result<()> {
        let needed = (FRAME + record.len()) as u64;
        if self.at + self.out.len() as u64 + needed > self.end {
            self.write()?;
            self.begin_segment(time);
        }
        self.put(record);
        match format::begins_or_ends(record) {
            Some((Bound::Begin, connection)) => {
                self.begins.insert(connection, record.to_vec());
            }
            Some((Bound::End, connection)) => {
                self.begins.remove(&connection);
            }
            None => {}
        }
        Ok(())
    }

    /// Writes the records that were added.
    pub(super) fn write(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.file.write_all_at(&self.out, self.at)?;
            self.at += self.out.len() as u64;
            self.out.clear();
        }
        Ok(())
    }

    /// Goes on in the next segment, which is the oldest once all were written.
    fn begin_segment(&mut self, time: u64) {
        let index = self.sequence % u64::from(SEGMENTS);
        self.sequence += 1;
        self.at = HEADER + index * self.segment_size;
        self.end = self.at + self.segment_size;
        let mut numbers = Vec::with_capacity(HEADER as usize);
        numbers.extend_from_slice(&self.sequence.to_le_bytes());
        numbers.extend_from_slice(&time.to_le_bytes());
        numbers.extend_from_slice(&[0; 8]);
        self.out.extend_from_slice(&SEGMENT_MAGIC);
        self.out.extend_from_slice(&format::checksum(self.sequence, &numbers).to_le_bytes());
        self.out.extend_from_slice(&numbers);
        // So that the oldest segment that is left tells of its connections: of the newest ones, as
        // far as a quarter of it takes them.
        let mut room = self.segment_size as usize / 4;
        let begins = std::mem::take(&mut self.begins);
        for begin in begins.values().rev() {
            let Some(left) = room.checked_sub(FRAME + begin.len()) else { break };
            room = left;
            self.put(begin);
        }
        self.begins = begins;
    }

    fn put(&mut self, record: &[u8]) {
        self.out.extend_from_slice(&(record.len() as u32).to_le_bytes());
        self.out.extend_from_slice(&format::checksum(self.sequence, record).to_le_bytes());
        self.out.extend_from_slice(record);
    }
}

/// Renames a recording that is there already.
fn move_away(path: &Path) -> Result<(), RecordingError> {
    let failed = |error| RecordingError::Create { path: path.to_owned(), error };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.is_file() {
        return Err(RecordingError::NoRecording { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(failed)?;
    let mut magic = [0; MAGIC.len()];
    let is_recording = match file.read_exact(&mut magic) {
        Ok(()) => magic == MAGIC,
        // Empty: as a program that makes names for temporary files leaves them.
        Err(_) => metadata.len() == 0,
    };
    if !is_recording {
        return Err(RecordingError::NoRecording { path: path.to_owned() });
    }
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        return Err(RecordingError::InUse { path: path.to_owned() });
    }
    if metadata.len() == 0 {
        return fs::remove_file(path).map_err(failed);
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    fs::rename(path, old).map_err(failed)
}
