//! Reads the file of a recording.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::format::{
    self, FRAME, HEADER, MAGIC, Record, RecordedEvent, SEGMENT_MAGIC, VERSION, checksum,
};

/// Largest segment that is read, in bytes: the file may come from anywhere.
const SEGMENT_MAX: u64 = 1 << 30;
/// Largest number of segments that are read.
const SEGMENTS_MAX: u32 = 1024;

/// Reason that a file cannot be read as a recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read.
    #[error("the recording {path:?} cannot be read: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The file is no recording.
    #[error("{path:?} is no recording: it does not begin with PPRECORD")]
    NoRecording {
        /// The file.
        path: PathBuf,
    },
    /// The file has another version.
    #[error(
        "the recording {path:?} has version {found} of the format, and this program reads version {VERSION}: use a newer one"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The header makes no sense.
    #[error("the recording {path:?} has a damaged header: {segments} segments of {size} bytes")]
    Header {
        /// The file.
        path: PathBuf,
        /// Number of segments that it tells.
        segments: u32,
        /// Size of a segment that it tells.
        size: u64,
    },
}

/// Iterates over the records of a file, the oldest first.
///
/// A file whose process was killed, or that is still being written, is read as far as it goes: of a
/// record that is not complete nothing is given. Records of unknown kinds are passed over.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    size: u64,
    /// Segments that are left, the newest first: number, and place in the file.
    segments: Vec<(u64, u64)>,
    sequence: u64,
    segment: Vec<u8>,
    at: usize,
    /// Connections whose begin was given.
    begun: BTreeSet<u32>,
    dropped: u64,
}

impl Reader {
    /// Opens a file.
    ///
    /// # Errors
    /// It cannot be read, is no recording, or of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        let path = path.as_ref().to_owned();
        let failed = |error| ReadError::Read { path: path.clone(), error };
        let file = File::open(&path).map_err(failed)?;
        let mut header = [0; HEADER as usize];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(ReadError::NoRecording { path });
            }
            read => read.map_err(failed)?,
        }
        if header[..MAGIC.len()] != MAGIC {
            return Err(ReadError::NoRecording { path });
        }
        let number = |at| format::number(&header, at).unwrap_or_default();
        let (version, count) = (number(8), number(12));
        if version != VERSION {
            return Err(ReadError::Version { path, found: version });
        }
        let size = format::number_64(&header, 16).unwrap_or_default();
        if !(HEADER..=SEGMENT_MAX).contains(&size) || !(1..=SEGMENTS_MAX).contains(&count) {
            return Err(ReadError::Header { path, segments: count, size });
        }
        let mut segments = Vec::new();
        for index in 0..u64::from(count) {
            let at = HEADER + index * size;
            let mut header = [0; HEADER as usize];
            let is_there = file.read_exact_at(&mut header, at).is_ok();
            let (sequence, sum) =
                (format::number_64(&header, 8).unwrap_or_default(), format::number(&header, 4));
            let is_valid =
                header[..4] == SEGMENT_MAGIC && sum == Some(checksum(sequence, &header[8..]));
            if is_there && is_valid {
                segments.push((sequence, at));
            }
        }
        segments.sort_unstable_by(|one, other| other.cmp(one));
        let dropped = segments.last().map_or(0, |(sequence, _)| sequence.saturating_sub(1));
        let (segment, begun) = (Vec::new(), BTreeSet::new());
        Ok(Self { path, file, size, segments, sequence: 0, segment, at: 0, begun, dropped })
    }

    /// Number of segments that were dropped since the file had reached its size: its first record is
    /// not the first one of the recording if this is not 0.
    #[must_use]
    pub fn dropped_segments(&self) -> u64 {
        self.dropped
    }

    /// Reads the next segment. Returns false if there is none.
    fn next_segment(&mut self) -> io::Result<bool> {
        let Some((sequence, at)) = self.segments.pop() else { return Ok(false) };
        let len = self.file.metadata()?.len().saturating_sub(at).min(self.size);
        self.segment.resize(len as usize, 0);
        self.file.read_exact_at(&mut self.segment, at)?;
        (self.sequence, self.at) = (sequence, HEADER as usize);
        Ok(true)
    }

    /// The next record of this segment. `None` where it ends, or a record is not complete.
    fn next_in_segment(&mut self) -> Option<&[u8]> {
        let len = format::number(&self.segment, self.at)? as usize;
        let sum = format::number(&self.segment, self.at + 4)?;
        let start = self.at + FRAME;
        let record = self.segment.get(start..start.checked_add(len)?)?;
        if len == 0 || checksum(self.sequence, record) != sum {
            return None;
        }
        self.at = start + len;
        Some(record)
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(record) = self.next_in_segment() else {
                match self.next_segment() {
                    Ok(true) => continue,
                    Ok(false) => return None,
                    Err(error) => {
                        self.segments.clear();
                        return Some(Err(ReadError::Read { path: self.path.clone(), error }));
                    }
                }
            };
            let Some(record) = format::decode(record) else { continue };
            // Each segment begins with those of the open connections.
            if matches!(record.event, RecordedEvent::Begin(_))
                && !self.begun.insert(record.connection)
            {
                continue;
            }
            return Some(Ok(record));
        }
    }
}
