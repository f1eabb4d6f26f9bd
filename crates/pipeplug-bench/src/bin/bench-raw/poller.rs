//! The ways to wait without blocking in read(2): spinning, and epoll(7).

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bench_contract::{Driver, Figures};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::Mode;
use crate::echo::{Echo, READ};
use crate::frame::{Header, Kind, Message};
use crate::link::{Link, Plugin};

/// How long a reader spins before it blocks.
const SPIN: Duration = Duration::from_micros(50);

/// One side of a link, and how it waits for more.
#[derive(Debug)]
pub(crate) struct Waiter<'a> {
    link: &'a Link,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Block,
    Spin,
    Epoll(Epoll),
}

impl<'a> Waiter<'a> {
    pub(crate) fn new(mode: Mode, link: &'a Link) -> Result<Self> {
        let way = match mode {
            Mode::Spin => {
                set_nonblocking(&link.reader)?;
                Way::Spin
            }
            Mode::Epoll => {
                set_nonblocking(&link.reader)?;
                let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
                epoll.add(
                    &link.reader,
                    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0),
                )?;
                Way::Epoll(epoll)
            }
            Mode::Block | Mode::Stream | Mode::LargePipes | Mode::Sockets | Mode::Static => {
                Way::Block
            }
        };
        Ok(Self { link, way })
    }

    /// Some bytes, or 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut reader = &self.link.reader;
        let mut begun = None;
        let mut tries = 0_u32;
        loop {
            match reader.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return result,
            }
            match &self.way {
                Way::Block => {}
                Way::Spin => {
                    std::hint::spin_loop();
                    tries += 1;
                    // The clock costs as much as some rounds do.
                    if tries.is_multiple_of(16)
                        && begun.get_or_insert_with(Instant::now).elapsed() > SPIN
                    {
                        wait_for(&self.link.reader, PollFlags::POLLIN)?;
                        begun = None;
                    }
                }
                Way::Epoll(epoll) => {
                    retried(|| epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE))?;
                }
            }
        }
    }

    pub(crate) fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => filled += read,
            }
        }
        Ok(())
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&self.link.writer).write_all(bytes)
    }
}

/// The plugin's side, spinning.
pub(crate) fn answer_spinning(link: Link, delay: Duration) -> Result<()> {
    answer(Waiter::new(Mode::Spin, &link)?, delay)
}

/// The plugin's side, with epoll(7).
pub(crate) fn answer_polling(link: Link, delay: Duration) -> Result<()> {
    answer(Waiter::new(Mode::Epoll, &link)?, delay)
}

fn answer(mut waiter: Waiter<'_>, delay: Duration) -> Result<()> {
    let mut echo = Echo::new(delay);
    loop {
        let read = waiter.read(echo.room())?;
        if read == 0 {
            return Ok(());
        }
        echo.take(read, |bytes| waiter.write_all(bytes))?;
    }
}

/// One thread that writes and reads without blocking, with at most `window` frames in flight.
pub(crate) fn flight(
    plugin: &Plugin,
    driver: &mut Driver,
    window: u64,
    calls: u64,
    size: usize,
) -> Result<Figures> {
    let link = plugin.first()?;
    set_nonblocking(&link.reader)?;
    set_nonblocking(&link.writer)?;
    let message = Message::filling(Kind::Request, size, READ)?;
    driver.begin(plugin.pid())?;
    let begun = Instant::now();
    let mut flow = Flow { message: &message, sent: 0, got: 0, part: Vec::new() };
    let mut buffer = vec![0; READ + message.one()];
    let total = calls * message.one() as u64;
    while flow.got < total {
        let room = (flow.got + window * message.one() as u64).min(total) - flow.sent;
        let is_full = room > 0 && !flow.write(&link.writer, room)?;
        if flow.read(&link.reader, &mut buffer)? {
            continue;
        }
        let mut fds = [
            PollFd::new(link.reader.as_fd(), PollFlags::POLLIN),
            PollFd::new(link.writer.as_fd(), PollFlags::POLLOUT),
        ];
        let fds = &mut fds[..if is_full { 2 } else { 1 }];
        retried(|| poll(fds, PollTimeout::NONE))?;
    }
    Ok(Figures { seconds: begun.elapsed().as_secs_f64(), count: calls, ..Figures::default() })
}

/// How far both directions are, in bytes.
struct Flow<'a> {
    message: &'a Message,
    sent: u64,
    got: u64,
    /// The start of a frame whose rest is yet to come.
    part: Vec<u8>,
}

impl Flow<'_> {
    /// Writes once; says whether all went that was allowed.
    fn write(&mut self, mut writer: &File, room: u64) -> Result<bool> {
        let (bytes, one) = (self.message.bytes(), self.message.one() as u64);
        // The next byte's place within a frame, which is its place within the first frame.
        let at = usize::try_from(self.sent % one)?;
        let len = usize::try_from(room.min((bytes.len() - at) as u64))?;
        match writer.write(&bytes[at..at + len]) {
            Ok(written) => {
                self.sent += written as u64;
                Ok(written == len)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads once, and goes through the frames; says whether anything came.
    fn read(&mut self, mut reader: &File, buffer: &mut [u8]) -> Result<bool> {
        let held = self.part.len();
        buffer[..held].copy_from_slice(&self.part);
        let read = match reader.read(&mut buffer[held..held + READ]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        ensure!(read > 0, "the plugin closed its pipe");
        let mut rest = &buffer[..held + read];
        while let Some(header) = Header::of(rest).filter(|header| header.frame_len() <= rest.len())
        {
            ensure!(header.frame_len() == self.message.one(), "a reply has another length");
            self.got += header.frame_len() as u64;
            rest = &rest[header.frame_len()..];
        }
        self.part.clear();
        self.part.extend_from_slice(rest);
        Ok(true)
    }
}

fn set_nonblocking(file: &File) -> Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

fn wait_for(file: &File, event: PollFlags) -> io::Result<()> {
    retried(|| poll(&mut [PollFd::new(file.as_fd(), event)], PollTimeout::NONE))?;
    Ok(())
}

/// Once more where a signal came in between, as strace(1) sends one to attach.
fn retried<T>(mut wait: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match wait() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
