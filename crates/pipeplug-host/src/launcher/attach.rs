//! Plugins that were started by other means, and that wait for their host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, socket, sockopt,
};
use nix::unistd::{self, Uid, geteuid};

use super::{Diagnosis, Launcher, Process, Started};
use crate::files::is_unknown_call;
use crate::process::{Delivery, Launch, Pid, Signal, SpawnError, WaitStatus, poll_readable};
use crate::sys;

/// Attaches to a plugin that was started by hand, or in a debugger, with `--pipeplug-listen PATH`.
///
/// The path, arguments and environment of the builder are not used: the plugin has those that it
/// was started with. Its standard error stays where it was started. The plugin has to run as the
/// same user and in the same pid namespace, not in a container.
///
/// The host sends no signal to such a plugin. [`Plugin::stop`](crate::Plugin::stop) asks it to end,
/// closes the connection, and lets go of a plugin that still runs
/// ([`StoppedBy::LetGo`](crate::StoppedBy)). A plugin that does not end by itself outlives a host
/// that is killed. Its exit status is not known ([`WaitStatus::Unknown`]).
///
/// ```no_run
/// use std::time::Duration;
///
/// use pipeplug_host::Plugin;
/// use pipeplug_host::launcher::Attach;
///
/// // In a debugger: gdb --args ./plugin --pipeplug-listen /tmp/plugin.sock
/// let plugin = Plugin::builder("./plugin")
///     .launcher(Attach::new("/tmp/plugin.sock"))
///     .handshake_timeout(Duration::from_secs(3600)) // breakpoints take their time
///     .start()?;
/// # Ok::<(), pipeplug_host::StartError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Attach {
    path: PathBuf,
}

impl Attach {
    /// The path that the plugin was told.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Launcher for Attach {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        attach(&self.path).map_err(|Refusal { problem, is_permanent }| {
            SpawnError::launcher(launch, self.describe(), problem, is_permanent)
        })
    }

    fn describe(&self) -> Option<String> {
        Some(format!("at the socket {:?}", self.path))
    }

    fn diagnose(&self, status: WaitStatus, _stderr: &[String]) -> Option<Diagnosis> {
        (status == WaitStatus::Unknown).then(|| {
            Diagnosis::passing(
                "the terminal that it was started in shows how it ended, \
                                         and why",
            )
        })
    }
}

/// Reason why attaching failed.
struct Refusal {
    problem: String,
    is_permanent: bool,
}

impl Refusal {
    /// A refusal that may pass in a moment.
    fn passing(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_permanent: false }
    }

    fn permanent(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), is_permanent: true }
    }

    fn system(attempt: &str, error: impl Into<io::Error>) -> Self {
        Self::passing(format!("{attempt}: {}", error.into()))
    }
}

fn attach(path: &Path) -> Result<Started, Refusal> {
    let stream = connect(path)?;
    let credentials = getsockopt(&stream, sockopt::PeerCredentials)
        .map_err(|errno| Refusal::system("asking whose it is", errno))?;
    // Any user may make a socket in /tmp.
    let (uid, own) = (Uid::from_raw(credentials.uid()), geteuid());
    if uid != own {
        return Err(Refusal::permanent(format!(
            "the process behind it belongs to user {uid}, and this host to user {own}: start the \
             plugin as user {own}"
        )));
    }
    // Its number is 0 where it cannot be seen from here.
    let Some(pid) = Pid::new(credentials.pid()) else {
        return Err(Refusal::permanent(
            "the process behind it is not visible from here, as if it were in a container, so its \
             end could not be noticed",
        ));
    };
    let make = || -> io::Result<Started> {
        let peer = Peer::watch(&stream, pid)?;
        let stream = sys::lift(stream.into())?;
        let copy = sys::lift(stream.try_clone()?)?;
        Ok(Started::new(peer, copy, stream))
    };
    make().map_err(|error| Refusal::system("watching the process behind it", error))
}

fn connect(path: &Path) -> Result<UnixStream, Refusal> {
    if UnixAddr::new(path).is_err_and(|errno| errno == nix::errno::Errno::ENAMETOOLONG) {
        let len = path.as_os_str().len();
        return Err(Refusal::permanent(format!(
            "its path is {len} bytes long, which is too long for a socket: use a shorter one"
        )));
    }
    let error = match connect_at_once(path) {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    let start = "start the plugin with `--pipeplug-listen` and this path";
    Err(match error.kind() {
        io::ErrorKind::NotFound => Refusal::passing(format!(
            "there is no such file: {start}; a plugin accepts one host, and then removes its socket"
        )),
        // The system says so of a file that is no socket, too.
        io::ErrorKind::ConnectionRefused => match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() && !meta.file_type().is_symlink() => {
                Refusal::permanent("the file there is not a socket: check the path")
            }
            _ => Refusal::passing(format!("no process listens there any more: {start}")),
        },
        io::ErrorKind::WouldBlock => Refusal::passing(
            "other hosts wait there already: the plugin is paused, as at a breakpoint, or is \
             accepting another host",
        ),
        io::ErrorKind::PermissionDenied => Refusal::permanent(
            "it belongs to another user, or is in another user's directory: a plugin accepts only \
             hosts of its own user",
        ),
        _ if error.raw_os_error() == Some(nix::libc::EPROTOTYPE) => Refusal::permanent(
            "it is a socket of another kind, not that of a plugin: check the \
                                path",
        ),
        _ => Refusal::system("connecting to it", error),
    })
}

/// Connects without waiting. Fails if the backlog of the socket is full: there is no limit to how
/// long that lasts.
fn connect_at_once(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

/// A process that is not ours, until it has ended or is let go of.
#[derive(Debug)]
struct Peer {
    pid: Pid,
    /// Readable once it has ended, or its end of the connection is closed where the system tells no
    /// more.
    ended: Epoll,
    /// Descriptor that `ended` watches.
    _of_process: OwnedFd,
    /// Readable once it has been let go of.
    let_go: EventFd,
    /// Readable once either of them is.
    either: Epoll,
}

impl Peer {
    fn watch(stream: &UnixStream, pid: Pid) -> io::Result<Self> {
        // SO_PEERPIDFD, since Linux 6.5, names the process itself. A pid could belong to another
        // process by now; but then the connection has ended, and its user is told.
        let pidfd = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => Ok(pidfd),
            Err(_) => sys::pidfd_open(unistd::Pid::from_raw(pid.as_raw())),
        };
        let (of_process, event) = match pidfd {
            Ok(pidfd) => (pidfd, EpollFlags::EPOLLIN),
            // pidfd_open(2), since Linux 5.3, and not with every filter of system calls.
            Err(error)
                if error.raw_os_error().map(Errno::from_raw).is_some_and(is_unknown_call) =>
            {
                (stream.try_clone()?.into(), EpollFlags::EPOLLRDHUP)
            }
            Err(error) => return Err(error),
        };
        let ended = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        ended.add(&of_process, EpollEvent::new(event, 0))?;
        let let_go = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let either = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        either.add(&ended.0, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        either.add(&let_go, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { pid, ended, _of_process: of_process, let_go, either })
    }
}

impl Process for Peer {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.either.0.as_fd()
    }

    fn peek(&self) -> io::Result<Option<WaitStatus>> {
        let is_over = poll_readable(self.exit_fd(), Duration::ZERO)?;
        Ok(is_over.then_some(WaitStatus::Unknown))
    }

    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        // The parent of the process reaps it.
        self.peek()
    }

    fn signal(&self, _signal: Signal) -> io::Result<Delivery> {
        if poll_readable(self.ended.0.as_fd(), Duration::ZERO)? {
            return Ok(Delivery::Gone);
        }
        self.let_go.write(1)?;
        Ok(Delivery::NotOurs)
    }
}
