//! Waiting for a host that attaches, for a plugin that a person or a debugger starts.

use std::ffi::OsString;
use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Uid, geteuid};
use pipeplug_net::{Endpoint, Escaped};
use std::os::fd::AsRawFd;

use crate::shell_word::shell_word;

/// First argument of a plugin that waits for its host. The path of the socket follows.
const LISTEN: &str = "--pipeplug-listen";

/// Time to wait for other plugins that make a socket in the same directory, and the interval of
/// checks.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Reason why a plugin cannot wait for a host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The path is too long for a socket.
    #[error(
        "it is {len} bytes long, and that of a socket at most {limit}: take a shorter one, below /tmp or $XDG_RUNTIME_DIR"
    )]
    TooLong {
        /// The path's length, in bytes.
        len: usize,
        /// Maximum length, in bytes.
        limit: usize,
    },
    /// The path leads to another file, which is kept.
    #[error("the file there is not a socket: use another path")]
    NotASocket,
    /// Another process has a socket there, and has not ended.
    #[error("another process listens there: end that, or take another path")]
    InUse,
    /// Another process keeps the directory of the socket locked.
    #[error("another process has locked its directory (flock) for {} s: end that, or take another path", .timeout.as_secs())]
    Locked {
        /// Time waited for the lock.
        timeout: Duration,
    },
    /// The system refused.
    #[error("{attempt}: {error}")]
    System {
        /// The action that failed.
        attempt: &'static str,
        /// Error of the system.
        error: io::Error,
    },
}

/// [`LISTEN`] was given without a path.
#[derive(Debug)]
pub(crate) struct NoPath;

/// Takes the path to listen at out of a plugin's arguments, if they begin with that.
pub(crate) fn path_in(args: &mut Vec<OsString>) -> Result<Option<PathBuf>, NoPath> {
    if args.first().is_none_or(|arg| arg != LISTEN) {
        return Ok(None);
    }
    if args.len() < 2 || args[1].is_empty() {
        return Err(NoPath);
    }
    Ok(args.drain(..2).nth(1).map(PathBuf::from))
}

/// Makes the socket, says so, and waits for one host; nothing is left of the socket then.
pub(crate) fn wait_for_host(path: &Path, name: &str) -> Result<(Endpoint, Endpoint), ListenError> {
    let listener = Listener::new(path)?;
    let shown = shell_word(&path.to_string_lossy());
    let (name, shown) = (Escaped(name), Escaped(&shown));
    say(&format!("{name} waits for its host: pipeplug run --attach {shown} --call COMMAND [DATA]"));
    let stream = listener.accept(name.0)?;
    drop(listener);
    let copy = stream.try_clone().map_err(system("copying the connection"))?;
    Ok((Endpoint::exclusive(stream), Endpoint::exclusive(copy)))
}

/// A socket, whose file goes with it.
struct Listener<'a> {
    path: &'a Path,
    socket: UnixListener,
    /// Device and inode, by which another one of that name is told apart.
    file: (u64, u64),
}

impl<'a> Listener<'a> {
    fn new(path: &'a Path) -> Result<Self, ListenError> {
        let address = UnixAddr::new(path).map_err(|errno| match errno {
            Errno::ENAMETOOLONG => {
                ListenError::TooLong { len: path.as_os_str().len(), limit: longest_path() }
            }
            errno => system("taking the path")(errno.into()),
        })?;
        let (socket, mode) = unnamed()?;
        // Until it listens, a socket looks like one that a dead process left; and of two plugins
        // that both see a stale one, the second would remove the socket of the first.
        let _lock = lock_directory(path)?;
        match bind(socket.as_raw_fd(), &address) {
            Err(Errno::EADDRINUSE) => {
                remove_stale(path, &address)?;
                bind(socket.as_raw_fd(), &address)
            }
            bound => bound,
        }
        .map_err(|errno| match errno {
            // Another process was faster.
            Errno::EADDRINUSE => ListenError::InUse,
            errno => system("making the socket")(errno.into()),
        })?;
        let of_file = |error| system("looking at the socket")(error);
        if mode == EarlyMode::Missing {
            fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(of_file)?;
        }
        let meta = fs::symlink_metadata(path).map_err(of_file)?;
        let listener = Self { path, socket: socket.into(), file: (meta.dev(), meta.ino()) };
        let backlog = Backlog::new(1).map_err(|errno| system("listening")(errno.into()))?;
        listen(&listener.socket, backlog).map_err(|errno| system("listening")(errno.into()))?;
        Ok(listener)
    }

    /// Waits for a process of the same user; others are turned away.
    fn accept(&self, name: &str) -> Result<OwnedFd, ListenError> {
        loop {
            let (stream, _) = match self.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(system("waiting for a host")(error)),
            };
            let uid = peer_uid(&stream).map_err(system("asking who the host is"))?;
            if uid == geteuid() {
                if has_gone(&stream) {
                    continue;
                }
                return Ok(stream.into());
            }
            say(&format!(
                "{name} turned a host of user {uid} away: it has to be of user {}",
                geteuid()
            ));
        }
    }
}

/// Tells whether a host gave up before it was accepted.
fn has_gone(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    // A hang-up is told unasked.
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let is_ours = |meta: fs::Metadata| (meta.dev(), meta.ino()) == self.file;
        if fs::symlink_metadata(self.path).is_ok_and(is_ours) {
            // The next plugin that listens there removes what stays.
            let _ = fs::remove_file(self.path);
        }
    }
}

/// Result of setting a socket's mode before it has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlyMode {
    Set,
    Missing,
}

/// A socket that only its user may connect to.
fn unnamed() -> Result<(OwnedFd, EarlyMode), ListenError> {
    let making = |errno: Errno| system("making the socket")(errno.into());
    let socket =
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).map_err(making)?;
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(making)?;
    // Linux gives the file the mode that the socket has when it is named (unix_bind of
    // net/unix/af_unix.c), so that there is no moment in which others could connect. Other systems
    // refuse.
    let mode = match fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) => EarlyMode::Set,
        Err(_) => EarlyMode::Missing,
    };
    Ok((socket, mode))
}

/// Takes the lock of the directory that a path is in, flock(2), which leaves nothing behind. `None`
/// where a directory cannot be read, or its file system has no locks.
fn lock_directory(path: &Path) -> Result<Option<File>, ListenError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(dir) = File::open(dir) else { return Ok(None) };
    let end = Instant::now() + LOCK_TIMEOUT;
    loop {
        match dir.try_lock() {
            Ok(()) => return Ok(Some(dir)),
            // Any user who can read the directory can keep the lock, and nothing else tells of its
            // end.
            Err(TryLockError::WouldBlock) if Instant::now() < end => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                return Err(ListenError::Locked { timeout: LOCK_TIMEOUT });
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
}

/// Removes a socket that a process left which has ended.
fn remove_stale(path: &Path, address: &UnixAddr) -> Result<(), ListenError> {
    let meta = fs::symlink_metadata(path).map_err(system("looking at what is there"))?;
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket);
    }
    // A socket of another type, so that a listener does not take it for a host. The error tells the
    // cases apart: ECONNREFUSED without a listener, EPROTOTYPE with one.
    let probe = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::empty(), None)
        .map_err(|errno| system("making a socket")(errno.into()))?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(system("removing the socket of a process that has ended"))
        }
        Ok(()) | Err(Errno::EPROTOTYPE) => Err(ListenError::InUse),
        Err(errno) => Err(system("asking whether another process listens there")(errno.into())),
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn peer_uid(stream: &impl AsFd) -> io::Result<Uid> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    Ok(Uid::from_raw(getsockopt(stream, PeerCredentials)?.uid()))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn peer_uid(stream: &impl AsFd) -> io::Result<Uid> {
    Ok(nix::unistd::getpeereid(stream)?.0)
}

/// Maximum length of a socket's path, in bytes: 107 on Linux (unix(7)).
fn longest_path() -> usize {
    (1..).take_while(|len| UnixAddr::new(vec![b'x'; *len].as_slice()).is_ok()).last().unwrap_or(0)
}

fn system(attempt: &'static str) -> impl Fn(io::Error) -> ListenError {
    move |error| ListenError::System { attempt, error }
}

fn say(line: &str) {
    // Without standard error there is no reader.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}
