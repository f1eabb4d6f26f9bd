//! Writing to standard output and standard error: waits for room, loses nothing, and can be given
//! up.
//!
//! A shell, Node or an editor may hand both down in non-blocking mode, where a full pipe is an
//! error (EAGAIN). A reader may also have stopped to read, and a write(2) that sleeps in the kernel
//! cannot be ended. So each write waits in poll(2) for room, together with a pipe that tells of a
//! signal, and then writes no more than there is room for: poll(2) tells of room for `PIPE_BUF`
//! bytes of a pipe.
//!
//! All state is that of the process, as the two descriptors are.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};

/// How long a write waits for room once the program is to end, at most until the grace time is
/// over.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);

/// Where to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// How much a text matters once the program is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Waits for room a while.
    Report,
    /// Is dropped where there is no room.
    Log,
}

/// Why something was not written. What comes behind a part that was is not written either.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    System(io::Error),
    /// There was no room for as long as `--timeout` allows.
    #[error("nothing was read from it for {0:?}; --timeout allows more")]
    NotRead(Duration),
    /// There was no room, and the program is to end.
    #[error("given up, since the program was told to end")]
    GivenUp,
}

/// How long a write waits for room.
#[derive(Debug, Clone, Copy)]
enum WaitLimit {
    Endless,
    /// For each piece.
    Limited(Duration),
    /// The first signal came.
    Ending {
        since: Instant,
        until: Instant,
    },
    /// The second one.
    Over,
}

/// Tells waiting writes, once, that their limit has changed: the end of file of a pipe.
struct WakePipe {
    reader: PipeReader,
    writer: Mutex<Option<PipeWriter>>,
}

struct Output {
    wait_limit: Mutex<WaitLimit>,
    /// The wake pipes of the first and of the second signal; `None` where no pipe could be had.
    wake_pipes: OnceLock<Option<[WakePipe; 2]>>,
    stdout: Mutex<StreamState>,
    stderr: Mutex<StreamState>,
    /// Held from the look for room to the write into it: both streams may be the same pipe
    /// (`2>&1`), where the room that one has seen could be taken by the other.
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

/// Writes all parts, with nothing of other threads in between.
///
/// # Errors
/// Where they cannot be written, or there was no room for too long.
///
/// # Blocking
/// Until there is room: for ever, unless [`set_timeout`] or [`begin_shutdown`] was called.
pub(crate) fn write(stream: Stream, kind: Kind, parts: &[&[u8]]) -> Result<(), WriteError> {
    match stream {
        Stream::Stdout => OUTPUT.write(&OUTPUT.stdout, &io::stdout(), kind, parts),
        Stream::Stderr => OUTPUT.write(&OUTPUT.stderr, &io::stderr(), kind, parts),
    }
}

/// Has each write wait no longer than this for room.
pub(crate) fn set_timeout(timeout: Duration) {
    let mut wait_limit = lock(&OUTPUT.wait_limit);
    if matches!(*wait_limit, WaitLimit::Endless) {
        *wait_limit = WaitLimit::Limited(timeout);
    }
}

/// The program is to end within `grace`: writes wait for room no longer than that.
pub(crate) fn begin_shutdown(grace: Duration) {
    let since = Instant::now();
    // A time so far off that it cannot be named is bounded by that of each write.
    let until = since.checked_add(grace).unwrap_or(since + Duration::from_secs(3600));
    let mut wait_limit = lock(&OUTPUT.wait_limit);
    if matches!(*wait_limit, WaitLimit::Endless | WaitLimit::Limited(_)) {
        *wait_limit = WaitLimit::Ending { since, until };
        drop(wait_limit);
        OUTPUT.wake(0);
    }
}

/// The program is to end now: nothing waits for room any more.
pub(crate) fn give_up() {
    *lock(&OUTPUT.wait_limit) = WaitLimit::Over;
    OUTPUT.wake(0);
    OUTPUT.wake(1);
}

/// Standard error for what logs line by line.
pub(crate) struct LogLines;

impl io::Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A standard error that is closed or not read is no place to tell that.
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
        // Behind a gap nothing would be what it looks like; a log line that is left out as a whole
        // makes none.
        let is_whole = kind == Kind::Log && count == 0;
        if matches!(written, Err(WriteError::NotRead(_) | WriteError::GivenUp)) && !is_whole {
            *state = StreamState::Abandoned;
        }
        written
    }

    /// Adds to `total` how much has been written.
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
                // In non-blocking mode another process that has the same pipe may have been faster.
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
                // POLLERR too: the write says what is wrong.
                Ok(1..) if fds[0].any() == Some(true) => return Ok(()),
                Ok(0) if left.is_some_and(|left| left <= LONGEST_POLL) => return Err(given_up),
                // A wake pipe, or a piece of a long wait.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(system(errno)),
            }
        }
    }

    fn wake_pipes(&self) -> Option<&[WakePipe; 2]> {
        let make = || -> io::Result<[WakePipe; 2]> { Ok([WakePipe::new()?, WakePipe::new()?]) };
        // Without a descriptor left a signal is noticed by the next write.
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

/// How much can be written at once where poll(2) tells of room.
fn piece(fd: &(impl AsFd + io::IsTerminal)) -> usize {
    let is_file = !fd.is_terminal()
        && fstat(fd).is_ok_and(|stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
        });
    // A file always has room, or fails.
    if is_file { usize::MAX } else { PIPE_BUF }
}

/// A longer wait is done in pieces.
const LONGEST_POLL: Duration = Duration::from_secs(3600);

/// In whole milliseconds, rounded up, so that nothing is given up before its time.
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
