//! Reads and writes on raw descriptors, and their registration with mio.
//!
//! The only module of this crate that holds `unsafe` and that sees a [`RawFd`](std::os::fd::RawFd).

use std::fs::OpenOptions;
use std::io::{self, IoSlice, IsTerminal};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::{Mode as FileMode, SFlag, fstat};

use crate::clock::{has_passed, time_to_wait};
use crate::sync::{self, Instant};

mod coded;
mod pipe;

pub(crate) use coded::coded;
pub(crate) use pipe::Room;

/// Most slices in one writev(2): `IOV_MAX` of Linux, macOS and FreeBSD.
const SLICES_MAX: usize = 1024;
/// Largest write that a pipe takes as a whole once it polls writable, in bytes: one page,
/// `PIPE_BUF` of pipe(7).
const POLLED_WRITE_MAX: usize = 4096;
/// Largest write that a pipe takes as a whole or not at all, in bytes: `PIPE_BUF` of pipe(7), on
/// Linux.
pub(crate) const ATOMIC_WRITE: usize = 4096;
/// Default capacity of a pipe, in bytes (pipe(7)).
const USUAL_PIPE: usize = 64 << 10;
/// Largest capacity that any user may set, in bytes: the default of `/proc/sys/fs/pipe-max-size`.
const LARGEST_PIPE: usize = 1 << 20;
/// Bytes of a large buffer that are read or written at once. A pipe is locked for the length of a
/// read or write, so that one side would wait for the other during a long one.
pub(crate) const STRIDE: usize = 128 << 10;

/// A descriptor, and the way to use it without blocking.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    mode: Mode,
    broken_pipe: BrokenPipe,
    /// Capacity of the pipe as far as it is known, in bytes.
    holds: usize,
    /// Smallest capacity that the system has refused; see [`Stream::room_for`].
    refused: usize,
    /// End address of the memory that is mapped for the large buffer that is being read.
    backed: AtomicUsize,
}

/// One of a connection's two descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    Reading,
    Writing,
}

/// The way that a read or write is kept from blocking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// `O_NONBLOCK` is set: no other process uses the open file description.
    Nonblocking,
    /// A socket that may be shared: `MSG_DONTWAIT` with each operation. No flag is changed.
    Socket,
    /// Another kind that may be shared (a pipe that cannot be reopened, `/dev/null`): poll(2)
    /// before each operation, and writes of at most a page.
    Polled,
    /// A terminal that cannot be reopened: like `Polled`, with writes of one byte. It polls
    /// writable with less room than a page, and then blocks until everything is written.
    PolledByByte,
}

/// Effect of a write to a pipe without a reader, in addition to the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokenPipe {
    /// None, or a handler of the program. The runtime of Rust programs ignores SIGPIPE.
    IsAnError,
    /// SIGPIPE ends the program. That is the default, to which some Rust programs return for their
    /// own output.
    EndsTheProcess,
}

/// Result of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    Data(usize),
    End,
    WouldBlock,
}

impl Stream {
    /// Takes a descriptor whose open file description no other process uses, and sets `O_NONBLOCK`
    /// on it.
    pub(crate) fn exclusive(fd: OwnedFd, half: Half) -> io::Result<Self> {
        let flags = half.check(OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?))?;
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Self::new(fd, Mode::Nonblocking))
    }

    /// Takes a descriptor that another process may share. None of its flags is changed.
    ///
    /// A pipe or terminal is reopened through `/proc/self/fd`, which gives an open file description
    /// of our own (proc_pid_fd(5)). If that fails, poll(2) is called before each operation.
    pub(crate) fn shared(fd: OwnedFd, half: Half) -> io::Result<Self> {
        let flags = half.check(OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?))?;
        let stat = fstat(&fd)?;
        let (mode, can_reopen) = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFSOCK => (Mode::Socket, false),
            SFlag::S_IFIFO => (Mode::Polled, true),
            // Opening /dev/ptmx, of major 5, again makes another terminal.
            SFlag::S_IFCHR if fd.is_terminal() => {
                (Mode::PolledByByte, libc::major(stat.st_rdev) != 5)
            }
            _ => (Mode::Polled, false),
        };
        if can_reopen && !cfg!(pipeplug_portable) {
            match reopen(&fd, flags) {
                Ok(own) => return Ok(Self::new(own, Mode::Nonblocking)),
                Err(error) => tracing::debug!(%error, "not opened anew"), // no /proc, or of another user
            }
        }
        Ok(Self::new(fd, mode))
    }

    fn new(fd: OwnedFd, mode: Mode) -> Self {
        Self {
            fd,
            mode,
            broken_pipe: BrokenPipe::of_process(),
            holds: USUAL_PIPE,
            refused: usize::MAX,
            backed: AtomicUsize::new(0),
        }
    }

    /// Grows a pipe to `len` bytes, or to the largest capacity that any user may set: the fewer
    /// times the two sides wait for each other, the faster large buffers go through.
    ///
    /// Does nothing for other kinds of descriptors, for a pipe that may be shared, and for one that
    /// may not grow: all pipes of a user together have an allowance (`pipe-user-pages-soft`).
    pub(crate) fn make_room(&mut self, len: usize) {
        if len.min(LARGEST_PIPE) <= self.holds {
            return;
        }
        let size = match self.mode {
            Mode::Nonblocking => grow_pipe(&self.fd, len.min(LARGEST_PIPE)),
            Mode::Socket | Mode::Polled | Mode::PolledByByte => None,
        };
        self.holds = size.unwrap_or(LARGEST_PIPE); // a refused capacity is not tried again
    }

    /// Grows a pipe so that it takes `len` bytes in one write, as far as the system allows. Returns
    /// its room.
    ///
    /// `None` if the room is not known: for other kinds of descriptors, on systems that do not
    /// tell, for a pipe that may be shared, which is written a page at a time, and for one without
    /// a reader, to which a write fails.
    pub(crate) fn room_for(&mut self, len: usize) -> Option<Room> {
        match self.mode {
            Mode::Nonblocking => {
                let room = pipe::make_room(&self.fd, len, &mut self.refused)?;
                (len <= room.now || !self.has_no_reader()).then_some(room)
            }
            Mode::Socket | Mode::Polled | Mode::PolledByByte => None,
        }
    }

    fn has_no_reader(&self) -> bool {
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::empty())];
        // POLLERR is always reported (poll(2)). If poll fails for lack of memory, the next look
        // tells.
        let told = sync::poll(&mut fds, PollTimeout::ZERO);
        told.is_ok_and(|count| count > 0)
    }

    /// Notes that a large buffer is read next, into `memory` that was used before, or into new
    /// memory.
    pub(crate) fn begin_buffer(&self, memory: Option<&Vec<u8>>) {
        let end = memory.map_or(0, |memory| memory.as_ptr().addr() + memory.capacity());
        self.backed.store(end, Ordering::Relaxed);
    }

    /// Appends at most `max` bytes to `into`, whose spare room must hold them.
    pub(crate) fn read(&self, into: &mut Vec<u8>, max: usize) -> io::Result<Read> {
        let max = max.min(into.capacity() - into.len());
        debug_assert!(max > 0, "a read of nothing cannot be told from the end of the file");
        let polled = matches!(self.mode, Mode::Polled | Mode::PolledByByte);
        if polled && !poll_now(self.fd.as_fd(), PollFlags::POLLIN)? {
            return Ok(Read::WouldBlock);
        }
        let max = if max > STRIDE { self.back(into, STRIDE) } else { max };
        let room = into.spare_capacity_mut().as_mut_ptr().cast::<libc::c_void>();
        let fd = self.fd.as_raw_fd();
        let count = retry(|| match self.mode {
            // SAFETY: `room` points to at least `max` writable bytes, the spare room of `into`.
            Mode::Socket => unsafe { libc::recv(fd, room, max, libc::MSG_DONTWAIT) },
            // SAFETY: as above.
            Mode::Nonblocking | Mode::Polled | Mode::PolledByByte => unsafe {
                libc::read(fd, room, max)
            },
        });
        match count {
            Ok(0) => Ok(Read::End),
            Ok(count) => {
                // SAFETY: the kernel has filled `count` bytes (at most `max`) behind the old
                // length.
                unsafe { into.set_len(into.len() + count) };
                Ok(Read::Data(count))
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Read::WouldBlock),
            // What a terminal gives once its other side is gone (pty(7)).
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Ok(Read::End),
            Err(e) => Err(e),
        }
    }

    /// Has the system map the memory of the next `len` bytes behind `buffer`, which must be in its
    /// spare capacity. Returns `len`.
    ///
    /// Otherwise it is mapped page by page during the read, while the pipe is locked against the
    /// writer.
    fn back(&self, buffer: &mut Vec<u8>, len: usize) -> usize {
        let spare = buffer.spare_capacity_mut();
        let range = spare.as_ptr_range();
        let start = range.start.addr();
        let backed = self.backed.load(Ordering::Relaxed);
        // An address of earlier memory does no harm: this only saves time.
        let done = if (start..=range.end.addr()).contains(&backed) { backed - start } else { 0 };
        if done < len {
            populate(&mut spare[done..len]);
            self.backed.store(start + len, Ordering::Relaxed);
        }
        len
    }

    /// Writes what the descriptor takes now, at most `max` bytes. `None` if it takes nothing.
    pub(crate) fn write(&self, slices: &[IoSlice<'_>], max: usize) -> io::Result<Option<usize>> {
        let max = match self.polled_write_max() {
            None => max,
            Some(_) if !poll_now(self.fd.as_fd(), PollFlags::POLLOUT)? => return Ok(None),
            Some(most) => max.min(most),
        };
        let fd = self.fd.as_raw_fd();
        let total: usize = slices.iter().map(|s| s.len()).sum();
        let result = if total > max {
            // One slice, cut. The rest comes with the next write.
            let Some(first) = slices.iter().find(|s| !s.is_empty()) else { return Ok(Some(0)) };
            let cut = [IoSlice::new(&first[..first.len().min(max)])];
            self.without_sigpipe(|| self.write_vectored(fd, &cut))
        } else {
            self.without_sigpipe(|| self.write_vectored(fd, slices))
        };
        match result {
            Ok(count) => Ok(Some(count)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Largest write after poll(2) has reported room. `None` if poll(2) is not needed.
    fn polled_write_max(&self) -> Option<usize> {
        match self.mode {
            Mode::Nonblocking | Mode::Socket => None,
            Mode::Polled => Some(POLLED_WRITE_MAX),
            Mode::PolledByByte => Some(1),
        }
    }

    fn write_vectored(&self, fd: libc::c_int, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let vectors = slices.as_ptr().cast::<libc::iovec>();
        let count = slices.len().min(SLICES_MAX);
        retry(|| match (self.mode, slices) {
            (Mode::Socket, _) => {
                // SAFETY: all zeroes is a valid msghdr.
                let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
                message.msg_iov = vectors.cast_mut();
                message.msg_iovlen = count as _;
                // SAFETY: `message` names `count` vectors; IoSlice has the layout of iovec, as std
                // promises.
                unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
            }
            // SAFETY: the slice is readable for its length.
            (_, [one]) => unsafe { libc::write(fd, one.as_ptr().cast(), one.len()) },
            // SAFETY: IoSlice has the layout of iovec, as std promises; `count` of them are there.
            _ => unsafe { libc::writev(fd, vectors, count as libc::c_int) },
        })
    }

    /// Keeps the SIGPIPE of this write from ending the process.
    fn without_sigpipe(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        if self.broken_pipe == BrokenPipe::IsAnError || self.mode == Mode::Socket {
            return write();
        }
        let sigpipe = SigSet::from(Signal::SIGPIPE);
        let before = sigpipe.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let result = write();
        let broken = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        // The signal of a write goes to the thread that writes. If it was blocked before, it is not
        // ours to take.
        if broken && !before.contains(Signal::SIGPIPE) && is_pending(Signal::SIGPIPE) {
            // sigwait(3) has no error for a valid signal.
            let _ = sigpipe.wait();
        }
        before.thread_set_mask().expect("a mask that was in force can be set again");
        result
    }

    /// Shuts a socket down for writing: closing the descriptor does not end it if the reading half
    /// is the same socket. A socket that may be shared is left open.
    pub(crate) fn end_writing(&self) {
        if self.mode == Mode::Nonblocking {
            // A pipe refuses (ENOTSOCK) and ends when it is closed. A socket whose peer is gone
            // (ENOTCONN) has ended.
            let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Write);
        }
    }

    /// Returns true if there is something to read now, or the end.
    pub(crate) fn is_readable(&self) -> bool {
        // If poll(2) fails for lack of memory, nothing is seen.
        poll_now(self.fd.as_fd(), PollFlags::POLLIN).unwrap_or(false)
    }

    /// Waits until the descriptor is readable or at its end, or `wake_pipe` is readable; `false`
    /// when `deadline` came first.
    pub(crate) fn wait_readable(
        &self,
        wake_pipe: &impl AsFd,
        deadline: Option<Instant>,
    ) -> io::Result<bool> {
        let readable = PollFlags::POLLIN;
        poll_until(
            &mut [PollFd::new(self.fd.as_fd(), readable), PollFd::new(wake_pipe.as_fd(), readable)],
            deadline,
        )
    }
}

impl BrokenPipe {
    /// Looks it up. A program that changes it has to do so before its first connection.
    fn of_process() -> Self {
        // SAFETY: a sigaction is integers, a mask and a nullable pointer, for which zero is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: a null new action changes nothing. `action` is valid for writes.
        let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) };
        if asked == 0 && action.sa_sigaction == libc::SIG_DFL {
            Self::EndsTheProcess
        } else {
            Self::IsAnError
        }
    }
}

/// Returns true if the signal is pending for this thread or for the process.
fn is_pending(signal: Signal) -> bool {
    // SAFETY: a sigset_t is integers, for which zero is valid.
    let mut pending: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `pending` is valid for writes.
    let asked = unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: `pending` is a set that sigpending has filled, or an empty one.
    asked == 0 && unsafe { libc::sigismember(&raw const pending, signal as libc::c_int) } == 1
}

impl Half {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Writing => "writing",
        }
    }

    /// Refuses a descriptor that is open for the other direction only.
    fn check(self, flags: OFlag) -> io::Result<OFlag> {
        let (wrong, message) = match self {
            Self::Reading => (OFlag::O_WRONLY, "it is open for writing only"),
            Self::Writing => (OFlag::O_RDONLY, "it is open for reading only"),
        };
        if flags & OFlag::O_ACCMODE == wrong {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(flags)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens `/dev/null` as each of descriptors 0, 1 and 2 that is closed.
///
/// Otherwise the next descriptor of this process would become one of them, and code that writes to
/// standard output, or passes it to a child, would use that. The standard library does the same
/// when a program starts. Children inherit `/dev/null`.
pub(crate) fn open_standard_descriptors() -> io::Result<()> {
    let is_closed = |fd: RawFd| {
        // SAFETY: F_GETFD takes any number, and only looks.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        flags == -1 && Errno::last() == Errno::EBADF
    };
    // open(2) takes the lowest free number. If another thread takes it first, there is one less to
    // fill.
    while (0..=2).any(is_closed) {
        let null = nix::fcntl::open("/dev/null", OFlag::O_RDWR, FileMode::empty())?;
        if null.as_raw_fd() <= 2 {
            // It stays open: the rest of the process uses it as a standard descriptor.
            let _ = null.into_raw_fd();
        }
    }
    Ok(())
}

/// Adds a descriptor to epoll, edge-triggered. Returns false if epoll refuses its kind (regular
/// files, /dev/null), which never blocks.
pub(crate) fn register(
    registry: &Registry,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: Interest,
) -> io::Result<bool> {
    match registry.register(&mut SourceFd(&fd.as_raw_fd()), token, interest) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Changes the interest. Readiness that was reported before is reported again.
pub(crate) fn reregister(
    registry: &Registry,
    fd: BorrowedFd<'_>,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    sync::step();
    registry.reregister(&mut SourceFd(&fd.as_raw_fd()), token, interest)
}

/// Removes a descriptor from epoll.
pub(crate) fn deregister(registry: &Registry, fd: BorrowedFd<'_>) -> io::Result<()> {
    sync::step();
    registry.deregister(&mut SourceFd(&fd.as_raw_fd()))
}

/// An interest that a pipe or socket does not report in normal use: mio has no empty interest.
///
/// kqueue has none at all: there the event loop watches for input while another thread reads, and
/// does nothing.
pub(crate) fn no_interest() -> Interest {
    #[cfg(target_os = "linux")]
    return Interest::PRIORITY;
    #[cfg(not(target_os = "linux"))]
    return Interest::READABLE;
}

fn reopen(fd: &OwnedFd, flags: OFlag) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    match flags & OFlag::O_ACCMODE {
        OFlag::O_RDONLY => options.read(true),
        OFlag::O_WRONLY => options.write(true),
        _ => options.read(true).write(true),
    };
    // std opens with O_CLOEXEC. O_NOCTTY: a terminal must not become the controlling one.
    let file = options
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(file.into())
}

/// Has the system map the whole pages of these bytes, which otherwise happens at the first write to
/// each.
#[cfg(target_os = "linux")]
fn populate(bytes: &mut [MaybeUninit<u8>]) {
    const PAGE: usize = 4096;
    let skip = bytes.as_ptr().align_offset(PAGE);
    let Some(pages) = bytes.get_mut(skip..) else { return };
    // madvise(2) refuses if pages are larger or the kernel is older than 5.14. Nothing is lost
    // then.
    // SAFETY: the pages are borrowed for writing, and their contents do not change.
    unsafe {
        libc::madvise(
            pages.as_mut_ptr().cast(),
            pages.len() & !(PAGE - 1),
            libc::MADV_POPULATE_WRITE,
        )
    };
}

/// Other systems have no such call.
#[cfg(not(target_os = "linux"))]
fn populate(_bytes: &mut [MaybeUninit<u8>]) {}

/// Grows a pipe and returns its capacity. `None` if it is no pipe, or may not have that much.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn grow_pipe(fd: &OwnedFd, len: usize) -> Option<usize> {
    let size = fcntl(fd, FcntlArg::F_GETPIPE_SZ).ok()?;
    let wanted = libc::c_int::try_from(len.checked_next_power_of_two()?).ok()?;
    // A larger pipe is not shrunk.
    let size = if size < wanted { fcntl(fd, FcntlArg::F_SETPIPE_SZ(wanted)).ok()? } else { size };
    usize::try_from(size).ok()
}

/// Other systems have no such call.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn grow_pipe(_fd: &OwnedFd, _len: usize) -> Option<usize> {
    None
}

fn retry(mut operation: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        sync::step();
        let count = operation();
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn poll_now(fd: BorrowedFd<'_>, flags: PollFlags) -> io::Result<bool> {
    poll_until(&mut [PollFd::new(fd, flags)], Some(Instant::now()))
}

fn poll_until(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            // Rounded up: the last millisecond is slept, not spun. Far deadlines are waited for in
            // parts.
            let left = time_to_wait(deadline);
            PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        match sync::poll(fds, timeout) {
            // Hang-ups and errors count as ready. The operation itself reports which it is.
            Ok(count) if count > 0 => return Ok(true),
            Ok(_) | Err(Errno::EINTR) => {
                if deadline.is_some_and(has_passed) {
                    return Ok(false);
                }
            }
            Err(e) => return Err(e.into()),
        }
    }
}
