//! Writes to stdout and stderr that handle full pipes and can be interrupted.
//!
//! A shell, Node or an editor may pass on both descriptors in non-blocking mode, where a write to a
//! full pipe fails (EAGAIN). A reader may also stop reading, and a write(2) that blocks in the
//! kernel cannot be cancelled. Each write therefore waits in poll(2), for room and for a wake pipe
//! that signals use, and then writes at most `PIPE_BUF` bytes: poll(2) promises room for that many
//! in a pipe.
//!
//! The state is global, as the two descriptors are.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

/// Longest wait for room during a shutdown. The grace time may end the wait earlier.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

/// Destination of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Importance of a text during a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Waits for room, up to a limit.
    Report,
    /// Is dropped if there is no room.
    Log,
}

/// Error of a write. After a partial write, the rest and all later writes are dropped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    System(io::Error),
    /// There was no room within `--timeout`.
    #[error("nothing was read from it for {0:?}; --timeout allows more")]
    NotRead(Duration),
    /// There was no room, and the program is shutting down.
    #[error("given up, since the program was told to end")]
    GivenUp,
}

/// Limit of the wait for room.
#[derive(Debug, Clone, Copy)]
enum WaitLimit {
    Endless,
    /// Limit for each piece.
    Limited(Duration),
    /// A first signal came: a shutdown runs.
    Ending {
        since: Instant,
        until: Instant,
    },
    /// A second signal came: nothing waits any more.
    Over,
}

/// Wakes waiting writes once, when their limit has changed: by the end of file of a pipe.
struct WakePipe {
    reader: PipeReader,
    writer: Mutex<Option<PipeWriter>>,
}

struct Output {
    wait_limit: Mutex<WaitLimit>,
    /// Wake pipes of the first and of the second signal. `None` if no pipe could be made.
    wake_pipes: OnceLock<Option<[WakePipe; 2]>>,
    stdout: Mutex<StreamState>,
    stderr: Mutex<StreamState>,
    /// Held from the check for room to the write: both streams may be the same pipe (`2>&1`), and
    /// one could use the room that the other has seen.
    room: Mutex<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamState {
    Open,
    Abandoned,
}

static OUTPUT: Output = Output {
    wait_limit: Mutex::new(WaitLimit::Endless),
    wake_pipes: OnceLock::new(),
    stdout: Mutex::new(StreamState::Open),
    stderr: Mutex::new(StreamState::Open),
    room: Mutex::new(()),
};

/// Prompt in the terminal, while a line is edited there.
pub(crate) trait Prompt: Send + Sync {
    /// Takes text to show it above the prompt. False if no line is edited now, or the stream is
    /// elsewhere.
    ///
    /// # Blocking
    /// Until the terminal has taken earlier text, if there is much.
    fn take(&self, stream: Stream, parts: &[&[u8]]) -> bool;
}

static PROMPT: OnceLock<&'static dyn Prompt> = OnceLock::new();

/// Has the prompt take what is written from now on.
pub(crate) fn set_prompt(prompt: &'static dyn Prompt) {
    // A process has at most one prompt.
    let _ = PROMPT.set(prompt);
}

/// Writes all parts, without interleaving of other threads.
///
/// # Errors
/// If a write fails, or there is no room within the limit.
///
/// # Blocking
/// Until there is room. Without [`set_timeout`] or [`begin_shutdown`] there is no limit.
pub(crate) fn write(stream: Stream, kind: Kind, parts: &[&[u8]]) -> Result<(), WriteError> {
    if PROMPT.get().is_some_and(|prompt| prompt.take(stream, parts)) {
        return Ok(());
    }
    write_now(stream, kind, parts)
}

/// Writes as [`write()`] does, also while a line is edited.
///
/// # Errors
/// As for [`write()`].
///
/// # Blocking
/// As for [`write()`].
pub(crate) fn write_now(stream: Stream, kind: Kind, parts: &[&[u8]]) -> Result<(), WriteError> {
    match stream {
        Stream::Stdout => OUTPUT.write(&OUTPUT.stdout, &io::stdout(), kind, parts),
        Stream::Stderr => OUTPUT.write(&OUTPUT.stderr, &io::stderr(), kind, parts),
    }
}

/// Limits the wait for room of each write.
pub(crate) fn set_timeout(timeout: Duration) {
    let mut wait_limit = lock(&OUTPUT.wait_limit);
    if matches!(*wait_limit, WaitLimit::Endless) {
        *wait_limit = WaitLimit::Limited(timeout);
    }
}

/// Begins a shutdown: from now on, writes wait for room at most until `grace` is over.
pub(crate) fn begin_shutdown(grace: Duration) {
    let since = Instant::now();
    // The clock cannot represent a very long grace time; SHUTDOWN_WAIT limits each write anyway.
    let until = since.checked_add(grace).unwrap_or(since + Duration::from_secs(3600));
    let mut wait_limit = lock(&OUTPUT.wait_limit);
    if matches!(*wait_limit, WaitLimit::Endless | WaitLimit::Limited(_)) {
        *wait_limit = WaitLimit::Ending { since, until };
        drop(wait_limit);
        OUTPUT.wake(0);
    }
}

/// Ends all waits for room, now and later.
pub(crate) fn give_up() {
    *lock(&OUTPUT.wait_limit) = WaitLimit::Over;
    OUTPUT.wake(0);
    OUTPUT.wake(1);
}

/// Writer to stderr for the log, line by line.
pub(crate) struct LogLines;

impl io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A failed write to stderr cannot be reported on stderr.
        let _ = write(Stream::Stderr, Kind::Log, &[bytes]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn write(
        &self,
        state: &Mutex<StreamState>,
        fd: &(impl AsFd + io::IsTerminal),
        kind: Kind,
        parts: &[&[u8]],
    ) -> Result<(), WriteError> {
        let mut state = lock(state);
        if *state == StreamState::Abandoned {
            return Err(WriteError::GivenUp);
        }
        let most = piece(fd);
        let mut count = 0;
        let written = parts
            .iter()
            .flat_map(|part| part.chunks(most))
            .try_for_each(|piece| self.write_piece(fd.as_fd(), kind, piece, &mut count));
        // Output with a gap would be misleading, so nothing follows a partial write. A log line
        // that is dropped as a whole leaves no gap.
        let is_whole = kind == Kind::Log && count == 0;
        if matches!(written, Err(WriteError::NotRead(_) | WriteError::GivenUp)) && !is_whole {
            *state = StreamState::Abandoned;
        }
        written
    }

    /// Writes one piece. Adds the number of written bytes to `total`.
    fn write_piece(
        &self,
        fd: BorrowedFd<'_>,
        kind: Kind,
        mut piece: &[u8],
        total: &mut usize,
    ) -> Result<(), WriteError> {
        while !piece.is_empty() {
            self.wait_for_room(fd, kind)?;
            let room = lock(&self.room);
            if !has_room(fd)? {
                continue;
            }
            match nix::unistd::write(fd, piece) {
                Ok(count) => {
                    piece = &piece[count..];
                    *total += count;
                }
                // Non-blocking mode: another process with the same pipe may have used the room.
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => return Err(system(errno)),
            }
            drop(room);
        }
        Ok(())
    }

    fn wait_for_room(&self, fd: BorrowedFd<'_>, kind: Kind) -> Result<(), WriteError> {
        let begun = Instant::now();
        loop {
            let wait_limit = *lock(&self.wait_limit);
            let (until, given_up, wake_pipe) = match wait_limit {
                WaitLimit::Endless => (None, WriteError::GivenUp, Some(0)),
                WaitLimit::Limited(time) => {
                    (begun.checked_add(time), WriteError::NotRead(time), Some(0))
                }
                WaitLimit::Ending { since, until } => {
                    let until = match kind {
                        Kind::Report => until.min(begun.max(since) + SHUTDOWN_WAIT),
                        Kind::Log => begun,
                    };
                    (Some(until), WriteError::GivenUp, Some(1))
                }
                WaitLimit::Over => (Some(begun), WriteError::GivenUp, None),
            };
            let wake_pipe =
                wake_pipe.and_then(|wake_pipe| Some(&self.wake_pipes()?[wake_pipe].reader));
            let fds = [Some(fd), wake_pipe.map(AsFd::as_fd)];
            let events = [PollFlags::POLLOUT, PollFlags::POLLIN];
            let mut fds: Vec<_> = fds
                .into_iter()
                .zip(events)
                .filter_map(|(fd, events)| Some(PollFd::new(fd?, events)))
                .collect();
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            match poll(&mut fds, left.map_or(PollTimeout::NONE, timeout)) {
                // Also for POLLERR: the write returns the error.
                Ok(1..) if fds[0].any() == Some(true) => return Ok(()),
                Ok(0) if left.is_some_and(|left| left <= LONGEST_POLL) => return Err(given_up),
                // The wake pipe, or the end of one part of a long wait: look at the limit again.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(system(errno)),
            }
        }
    }

    fn wake_pipes(&self) -> Option<&[WakePipe; 2]> {
        let make = || -> io::Result<[WakePipe; 2]> { Ok([WakePipe::new()?, WakePipe::new()?]) };
        // If no descriptor is left, the next write notices the signal.
        self.wake_pipes.get_or_init(|| make().ok()).as_ref()
    }

    fn wake(&self, wake_pipe: usize) {
        if let Some(wake_pipes) = self.wake_pipes() {
            *lock(&wake_pipes[wake_pipe].writer) = None;
        }
    }
}

impl WakePipe {
    fn new() -> io::Result<Self> {
        // Both ends are CLOEXEC.
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer: Mutex::new(Some(writer)) })
    }
}

/// Number of bytes that can be written at once when poll(2) reports room.
fn piece(fd: &(impl AsFd + io::IsTerminal)) -> usize {
    let is_file = !fd.is_terminal()
        && fstat(fd).is_ok_and(|stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
        });
    // A regular file always has room, or fails.
    if is_file { usize::MAX } else { PIPE_BUF }
}

/// Longest single poll(2). Longer waits are done in parts.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// Converts to whole milliseconds, rounded up, so that no wait ends too early.
fn timeout(left: Duration) -> PollTimeout {
    let millis = left.min(LONGEST_POLL).as_nanos().div_ceil(1_000_000);
    i32::try_from(millis).ok().and_then(|millis| millis.try_into().ok()).unwrap_or(PollTimeout::MAX)
}

fn has_room(fd: BorrowedFd<'_>) -> Result<bool, WriteError> {
    let mut fds = [PollFd::new(fd, PollFlags::POLLOUT)];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(system(errno)),
    }
}

fn system(errno: Errno) -> WriteError {
    WriteError::System(errno.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
