//! One direction between two sides, with faults that a test injects.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use pipeplug_net::Clock;

/// Largest number of bytes that a wire holds. Then the sender waits.
const HOLD: usize = 64 << 10;
/// Longest delay: no test waits so long, and every clock can represent it.
const FOR_GOOD: Duration = Duration::from_secs(u32::MAX as u64);

/// One direction of a [`Pair`](crate::Pair), with faults on the way.
///
/// A thread copies the bytes from one pipe to another. Clones are handles to the same wire. A fault
/// applies from its call on, also to bytes that the wire holds, but not to bytes that are in the
/// receiver's pipe already. A stall ends when the last handle is dropped.
///
/// ```
/// use std::io::{Read, Write};
/// use pipeplug_testkit::Wire;
///
/// let (mut sender, wire, mut receiver) = Wire::new()?;
/// wire.cut_after(5);
/// sender.write_all(b"hello, world")?;
/// let mut received = String::new();
/// receiver.read_to_string(&mut received)?;
/// assert_eq!(received, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Wire(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<WireState>,
    passed: Condvar,
    wake_pipe: Arc<WakePipe>,
}

#[derive(Debug)]
struct WireState {
    delay: Duration,
    piece: usize,
    is_stalled: bool,
    /// Bytes until the cut. `None` if there is none.
    left: Option<u64>,
    is_over: bool,
    passed: u64,
}

/// Pipe that wakes the thread of a wire.
#[derive(Debug)]
pub(crate) struct WakePipe(PipeWriter);

impl Wire {
    /// Makes a wire without faults: the end to write to, the wire, and the end to read from.
    ///
    /// # Errors
    /// If the system provides no pipe or no thread.
    pub fn new() -> io::Result<(PipeWriter, Self, PipeReader)> {
        Self::with(Clock::system(), None)
    }

    /// Makes a wire as [`Wire::new`] does, with a clock for delays, and pipes of `capacity` bytes
    /// ([`pipe_of`]).
    ///
    /// # Errors
    /// As for [`Wire::new`].
    pub fn with(
        clock: Clock,
        capacity: Option<NonZeroUsize>,
    ) -> io::Result<(PipeWriter, Self, PipeReader)> {
        let ((input, sender), (receiver, output)) = (pipe_of(capacity)?, pipe_of(capacity)?);
        let (woken, waker) = io::pipe()?;
        for fd in [input.as_fd(), output.as_fd(), woken.as_fd(), waker.as_fd()] {
            fcntl(fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let wake_pipe = Arc::new(WakePipe(waker));
        let woken_on_advance = Arc::downgrade(&wake_pipe);
        clock.on_advance(move || {
            woken_on_advance.upgrade().map(|wake_pipe| wake_pipe.wake()).is_some()
        });
        let state = WireState {
            delay: Duration::ZERO,
            piece: usize::MAX,
            is_stalled: false,
            left: None,
            is_over: false,
            passed: 0,
        };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), passed: Condvar::new(), wake_pipe });
        let pump = Pump {
            shared: Arc::clone(&shared),
            clock,
            input,
            output,
            woken,
            held: VecDeque::new(),
            len: 0,
            is_at_end: false,
        };
        std::thread::Builder::new().name("testkit-wire".into()).spawn(move || pump.run())?;
        Ok((sender, Self(Arc::new(Handle(shared))), receiver))
    }

    /// Closes both ends now: the sender's next write fails, and the receiver reads an end of file.
    /// Bytes that the wire holds are lost.
    pub fn cut(&self) {
        self.cut_after(0);
    }

    /// Closes both ends after `bytes` more bytes, even in the middle of a chunk.
    pub fn cut_after(&self, bytes: u64) {
        self.set(|state| state.left = Some(bytes));
    }

    /// Delays bytes that arrive from now on, with a resolution of a millisecond. The wire holds up
    /// to 64 KiB meanwhile.
    pub fn delay(&self, time: Duration) {
        // The clock cannot represent a longer delay.
        self.set(|state| state.delay = time.min(FOR_GOOD));
    }

    /// Limits writes to the receiver to `bytes`. A slow receiver may still read several of them at
    /// once; to force short reads use `Options::transfer`.
    pub fn shorten(&self, bytes: NonZeroUsize) {
        self.set(|state| state.piece = bytes.get());
    }

    /// Stops the wire until [`release`](Wire::release): it passes on nothing, not even an end of
    /// file.
    pub fn stall(&self) {
        self.set(|state| state.is_stalled = true);
    }

    /// Ends a stall.
    pub fn release(&self) {
        self.set(|state| state.is_stalled = false);
    }

    /// Number of bytes passed on so far.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.shared().lock().passed
    }

    /// Waits until this number of bytes have been passed on in all. `false` after `timeout`, or if
    /// the wire ends before.
    ///
    /// # Blocking
    /// For at most `timeout`.
    #[must_use]
    pub fn wait_passed(&self, bytes: u64, timeout: Duration) -> bool {
        let not_yet = |state: &mut WireState| state.passed < bytes && !state.is_over;
        let waited =
            self.shared().passed.wait_timeout_while(self.shared().lock(), timeout, not_yet);
        waited.unwrap_or_else(PoisonError::into_inner).0.passed >= bytes
    }

    /// True if the wire was cut, or one end was closed and all bytes before that were passed on.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.shared().lock().is_over
    }

    fn set(&self, change: impl FnOnce(&mut WireState)) {
        self.shared().set(change);
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // No handle is left to release the wire.
        self.0.set(|state| state.is_stalled = false);
    }
}

impl Shared {
    fn set(&self, change: impl FnOnce(&mut WireState)) {
        change(&mut self.lock());
        self.wake_pipe.wake();
    }

    fn lock(&self) -> MutexGuard<'_, WireState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WakePipe {
    pub(crate) fn wake(&self) {
        // A full pipe wakes the thread anyway, and without a reader there is no thread to wake.
        let _ = (&self.0).write(&[0]);
    }
}

/// Makes a pipe that holds `capacity` bytes, rounded up by the system. With `None`, or on systems
/// that cannot set it, the pipe has the default size.
///
/// # Errors
/// If the system provides no pipe, or none of this size.
pub fn pipe_of(capacity: Option<NonZeroUsize>) -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    #[cfg(target_os = "linux")]
    if let Some(capacity) = capacity {
        let capacity = i32::try_from(capacity.get()).unwrap_or(i32::MAX);
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity))?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = capacity;
    Ok((reader, writer))
}

/// State of the thread of a wire.
struct Pump {
    shared: Arc<Shared>,
    clock: Clock,
    input: PipeReader,
    output: PipeWriter,
    woken: PipeReader,
    held: VecDeque<Piece>,
    /// Bytes in `held`.
    len: usize,
    is_at_end: bool,
}

struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    start: usize,
}

/// Next action of the thread.
enum Next {
    /// Wait for an event: nothing more can be done without blocking.
    Wait { room: bool, due: Option<Instant> },
    /// End: nothing can be passed on any more.
    Over,
}

impl Pump {
    fn run(mut self) {
        while let Next::Wait { room, due } = self.hand_on() {
            if self.wait(room, due).is_err() {
                break;
            }
        }
        let Self { shared, input, output, .. } = self;
        // Close the ends before `is_over` is visible.
        drop((input, output));
        shared.lock().is_over = true;
        shared.passed.notify_all();
    }

    /// Passes on all bytes that are due.
    fn hand_on(&mut self) -> Next {
        loop {
            let now = self.clock.now();
            let mut state = self.shared.lock();
            if state.left == Some(0) {
                return Next::Over;
            }
            if state.is_stalled {
                return Next::Wait { room: false, due: None };
            }
            let Some(piece) = self.held.front_mut() else {
                return if self.is_at_end {
                    Next::Over
                } else {
                    Next::Wait { room: false, due: None }
                };
            };
            if piece.due > now {
                return Next::Wait { room: false, due: Some(piece.due) };
            }
            let rest = &piece.bytes[piece.start..];
            let left =
                state.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
            let len = rest.len().min(state.piece).min(left);
            // Hold the lock during the write: once `stall` has returned, nothing is passed on. The
            // write does not block.
            match self.output.write(&rest[..len]) {
                Ok(written) => {
                    state.passed += written as u64;
                    state.left = state.left.map(|left| left - written as u64);
                    piece.start += written;
                    self.len -= written;
                    if piece.start == piece.bytes.len() {
                        self.held.pop_front();
                    }
                    self.shared.passed.notify_all();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Next::Wait { room: true, due: None };
                }
                Err(_) => return Next::Over,
            }
        }
    }

    fn wait(&mut self, room: bool, due: Option<Instant>) -> io::Result<()> {
        let takes = !self.is_at_end && self.len < HOLD && !self.shared.lock().is_stalled;
        let (input, output, woken) = (self.input.as_fd(), self.output.as_fd(), self.woken.as_fd());
        // Without flags, poll(2) still reports POLLERR when the reader of the output is gone.
        let room = if room { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut fds = [(woken, PollFlags::POLLIN), (output, room), (input, PollFlags::POLLIN)]
            .map(|(fd, flags)| PollFd::new(fd, flags));
        let fds = if takes { &mut fds[..] } else { &mut fds[..2] };
        // An advance of a manual clock wakes the wake pipe.
        let due = due.filter(|_| !self.clock.is_manual());
        let timeout = match due.map(|due| due.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            // Rounded up, so that the piece is due when poll(2) returns.
            Some(time) => {
                PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let told =
            |index: usize| fds.get(index).and_then(PollFd::revents).unwrap_or(PollFlags::empty());
        let (wakes, gone, comes) =
            (!told(0).is_empty(), told(1).contains(PollFlags::POLLERR), !told(2).is_empty());
        if wakes {
            // One read takes many wake-ups.
            let _ = self.woken.read(&mut [0; 64]);
        }
        if gone {
            return Err(ErrorKind::BrokenPipe.into());
        }
        if comes { self.take() } else { Ok(()) }
    }

    fn take(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; HOLD];
        match self.input.read(&mut bytes) {
            Ok(0) => self.is_at_end = true,
            Ok(count) => {
                bytes.truncate(count);
                bytes.shrink_to_fit();
                self.len += count;
                let due = self.clock.now() + self.shared.lock().delay;
                self.held.push_back(Piece { due, bytes, start: 0 });
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
