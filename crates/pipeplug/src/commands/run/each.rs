//! `--data-each`: the lines of a file, or of stdin as they come, each for a call of its own.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Lines that are read before their calls are made.
const AHEAD: usize = 64;
/// Longest line, in bytes. A chunk cannot be much longer.
const LONGEST: u64 = 1 << 30;

/// Source of lines.
#[derive(Debug)]
pub(super) enum Source {
    File(PathBuf, File),
    Stdin,
}

/// A line without its end, and its number.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) data: Vec<u8>,
}

/// Lines that a thread reads.
#[derive(Debug, Default)]
pub(super) struct Lines {
    state: Mutex<State>,
    has_room: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Line>,
    /// `Err` with a message if the source could not be read to its end.
    ended: Option<Result<(), String>>,
    waker: Option<Waker>,
}

impl Source {
    /// Opens a file, or stdin for `-`.
    pub(super) fn open(name: &OsStr) -> Result<Self, CommandError> {
        if name == "-" {
            return Ok(Self::Stdin);
        }
        let path = PathBuf::from(name);
        let opened = File::open(&path).and_then(|file| match file.metadata()?.is_dir() {
            true => Err(nix::errno::Errno::EISDIR.into()),
            false => Ok(file),
        });
        match opened {
            Ok(file) => Ok(Self::File(path, file)),
            Err(error) => {
                let path = path.to_string_lossy();
                let message =
                    format!("cannot read the file {} of --data-each: {error}", Escaped(&path));
                Err(CommandError::message(ExitReason::Usage, message))
            }
        }
    }

    /// Name for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path, _) => Escaped(&path.to_string_lossy()).to_string(),
            Self::Stdin => "stdin".to_owned(),
        }
    }

    /// Number of lines of a regular file, for a bar. `None` if it is unknown.
    pub(super) fn count(&self) -> Option<u64> {
        let Self::File(path, file) = self else { return None };
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut reader = BufReader::with_capacity(1 << 16, File::open(path).ok()?);
        let (mut count, mut last) = (0, b'\n');
        loop {
            let read = reader.fill_buf().ok()?;
            let Some(end) = read.last() else { break };
            last = *end;
            count += read.iter().filter(|byte| **byte == b'\n').count() as u64;
            let len = read.len();
            reader.consume(len);
        }
        Some(count + u64::from(last != b'\n'))
    }
}

impl Lines {
    /// Starts the thread that reads. It is not waited for: a read of stdin may never end.
    pub(super) fn read(source: Source) -> Result<Arc<Self>, CommandError> {
        let lines = Arc::new(Self::default());
        let reader = Arc::clone(&lines);
        let read = move || {
            let name = source.name();
            let ended = match source {
                Source::File(_, file) => reader.read_all(BufReader::new(file)),
                Source::Stdin => reader.read_all(io::stdin().lock()),
            };
            reader.end(ended.map_err(|error| format!("cannot read {name}: {error}")));
        };
        thread::Builder::new().name("lines".into()).spawn(read).map_err(|error| {
            let message = format!("cannot start a thread: {error}");
            CommandError::message(ExitReason::Failed, message)
        })?;
        Ok(lines)
    }

    /// Next line. `None` at the end.
    pub(super) fn poll_next(
        &self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Line, CommandError>>> {
        let mut state = self.state();
        if let Some(line) = state.lines.pop_front() {
            self.has_room.notify_one();
            return Poll::Ready(Some(Ok(line)));
        }
        match &state.ended {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(message)) => {
                Poll::Ready(Some(Err(CommandError::message(ExitReason::Usage, message))))
            }
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn read_all(&self, mut source: impl BufRead) -> io::Result<()> {
        for number in 1.. {
            let mut data = Vec::new();
            (&mut source).take(LONGEST).read_until(b'\n', &mut data)?;
            match data.last() {
                None => break,
                Some(b'\n') => _ = data.pop(),
                Some(_) if data.len() as u64 == LONGEST => {
                    let message = format!("line {number} has more than {LONGEST} bytes");
                    return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
                }
                Some(_) => {}
            }
            let is_full = |state: &mut State| state.lines.len() >= AHEAD;
            let waited = self.has_room.wait_while(self.state(), is_full);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            state.lines.push_back(Line { number, data });
            wake(state);
        }
        Ok(())
    }

    fn end(&self, ended: Result<(), String>) {
        let mut state = self.state();
        state.ended = Some(ended);
        wake(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_its_newline() {
        for (text, expected) in [
            ("", vec![]),
            ("a", vec!["a"]),
            ("a\n", vec!["a"]),
            ("a\n\nb", vec!["a", "", "b"]),
            ("\n", vec![""]),
        ] {
            let lines = Lines::default();
            lines.read_all(text.as_bytes()).unwrap();
            let lines: Vec<_> = std::mem::take(&mut lines.state().lines).into();
            let expected: Vec<_> = expected
                .iter()
                .zip(1..)
                .map(|(line, number)| Line { number, data: line.as_bytes().to_vec() })
                .collect();
            assert_eq!(lines, expected, "{text:?}");
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let source = Source::open(file.path().as_os_str()).unwrap();
            assert_eq!(source.count(), Some(expected.len() as u64), "{text:?}");
        }
    }
}
