//! Attacks of a plugin on files, processes and the terminal of its host, beyond reading and
//! writing.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use nix::fcntl::{OFlag, open};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, utimensat};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::unistd::{AccessFlags, ForkResult, Pid, access, setpgid, setsid};

use crate::sys;

/// Makes an attack, and returns its result. `None` if there is no such attack.
pub fn attack(name: &str, data: &str) -> Option<io::Result<String>> {
    let path = Path::new(data);
    Some(match name {
        // Metadata.
        "stat" => fs::metadata(path).map(|meta| format!("{} bytes", meta.len())),
        "access" => access(path, AccessFlags::F_OK).map(|()| "there".into()).map_err(Into::into),
        "read-link" => fs::read_link(path).map(|target| target.display().to_string()),
        "open-path" => {
            open(path, OFlag::O_PATH, Mode::empty()).map(|_| "open".into()).map_err(Into::into)
        }
        "chmod" => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).map(|()| "changed".into())
        }
        "set-user-id" => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o4755)).map(|()| "changed".into())
        }
        "chown" => {
            chown(path, Some(nix::unistd::geteuid().as_raw()), None).map(|()| "changed".into())
        }
        "set-times" => {
            let time = TimeSpec::seconds(1);
            utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::FollowSymlink)
                .map(|()| "changed".into())
                .map_err(Into::into)
        }
        "set-attribute" => CString::new(data)
            .map_err(Into::into)
            .and_then(|path| sys::set_attribute(&path))
            .map(|()| "changed".into()),
        "rename" => fs::rename(path, path.with_extension("renamed")).map(|()| "renamed".into()),
        "watch" => Inotify::init(InitFlags::IN_NONBLOCK)
            .and_then(|inotify| inotify.add_watch(path, AddWatchFlags::IN_CREATE))
            .map(|_| "watching".into())
            .map_err(Into::into),

        // The host's files, by descriptor: to what it is already, so that no harm is done.
        "chmod-descriptor" => number(data).and_then(|raw| {
            let fd = sys::duplicate(raw)?;
            fchmod(&fd, Mode::from_bits_truncate(fstat(&fd)?.st_mode))?;
            Ok("changed".into())
        }),
        "truncate-output" => {
            nix::unistd::ftruncate(io::stdout(), 0).map(|()| "truncated".into()).map_err(Into::into)
        }
        "watch-much" => Ok(watch_much()),

        // Other processes, by their numbers.
        "affinity" => number(data).and_then(|pid| {
            let mut cpus = CpuSet::new();
            cpus.set(0)?;
            sched_setaffinity(Pid::from_raw(pid), &cpus)?;
            Ok("changed".into())
        }),
        "priority" => number(data).and_then(sys::lower_priority).map(|()| "changed".into()),
        "io-priority" => number(data).and_then(sys::lower_io_priority).map(|()| "changed".into()),

        // The terminal, if it is standard output.
        "echo-off" => echo_off().map_err(Into::into),

        // Ways out of the plugin's process group: the data is an argument that tells the process
        // from others.
        "leave-by-session" => leave(data, || setsid().map(drop)),
        "leave-by-group" => leave(data, || setpgid(Pid::from_raw(0), Pid::from_raw(0))),
        "leave-as-orphan" => leave_as_orphan(data),
        "memory-file" => number(data).and_then(hold_in_memory_files),
        "fork-bomb" => Ok(fork_bomb()),
        "fill" => fill(path),
        _ => return None,
    })
}

/// Makes the kernel refuse namespaces to this thread and its descendants, as the filters of
/// container engines do.
///
/// # Errors
/// What the system says to the filter.
pub fn refuse_namespaces() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    sys::refuse(nix::libc::SYS_unshare, nix::errno::Errno::EPERM)
}

/// Makes the kernel behave as one without Landlock, for this thread and its descendants.
///
/// # Errors
/// What the system says to the filter.
pub fn refuse_landlock() -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    sys::refuse(nix::libc::SYS_landlock_create_ruleset, nix::errno::Errno::ENOSYS)
}

/// Newer system calls that a host uses, each of which an older kernel or a filter of system calls
/// may not know.
pub const NEWER_CALLS: [&str; 9] = [
    "faccessat2",
    "pidfd_open",
    "pidfd_send_signal",
    "close_range",
    "openat2",
    "execveat",
    "memfd_create",
    "statx",
    "landlock_create_ruleset",
];

/// Makes the kernel refuse one of [`NEWER_CALLS`] to this thread and its descendants.
///
/// # Errors
/// What the system says to the filter; EINVAL for a call that is not known.
pub fn refuse_newer_call(name: &str, with: nix::errno::Errno) -> io::Result<()> {
    use nix::libc;
    let call = match name {
        "faccessat2" => libc::SYS_faccessat2,
        "pidfd_open" => libc::SYS_pidfd_open,
        "pidfd_send_signal" => libc::SYS_pidfd_send_signal,
        "close_range" => libc::SYS_close_range,
        "openat2" => libc::SYS_openat2,
        "execveat" => libc::SYS_execveat,
        "memfd_create" => libc::SYS_memfd_create,
        "statx" => libc::SYS_statx,
        "landlock_create_ruleset" => libc::SYS_landlock_create_ruleset,
        _ => return Err(nix::errno::Errno::EINVAL.into()),
    };
    nix::sys::prctl::set_no_new_privs()?;
    sys::refuse(call, with)
}

/// Starts processes until no more can be started, some thousands at most, and ends them again.
fn fork_bomb() -> String {
    let start = || Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn();
    let mut all: Vec<_> = std::iter::from_fn(|| start().ok()).take(2000).collect();
    for child in &mut all {
        // It has not been waited for.
        let _ = child.kill();
        let _ = child.wait();
    }
    format!("{} processes", all.len())
}

/// Number of inotify instances that can be made.
fn watch_much() -> String {
    let all: Vec<_> =
        std::iter::from_fn(|| Inotify::init(InitFlags::empty()).ok()).take(200).collect();
    format!("{} instances", all.len())
}

fn number(data: &str) -> io::Result<i32> {
    data.parse().map_err(io::Error::other)
}

fn echo_off() -> nix::Result<String> {
    let stdout = io::stdout();
    let mut settings = tcgetattr(&stdout)?;
    settings.local_flags.remove(LocalFlags::ECHO);
    tcsetattr(&stdout, SetArg::TCSANOW, &settings)?;
    Ok("no echo any more".into())
}

/// Starts a process that is found by its command line, after `by` in it.
fn leave(mark: &str, by: fn() -> nix::Result<()>) -> io::Result<String> {
    let mut sleeper = sleeper(mark);
    sys::in_child(&mut sleeper, by);
    let child = sleeper.spawn()?;
    Ok(format!("process {}", child.id()))
}

/// The same, by way of a process that ends at once, and in a session of its own.
fn leave_as_orphan(mark: &str) -> io::Result<String> {
    match sys::fork_with_threads()? {
        ForkResult::Child => {
            let mut sleeper = sleeper(mark);
            sys::in_child(&mut sleeper, || setsid().map(drop));
            let started = sleeper.spawn();
            sys::exit_at_once(i32::from(started.is_err()));
        }
        ForkResult::Parent { child } => {
            nix::sys::wait::waitpid(child, None)?;
            Ok("orphan".into())
        }
    }
}

fn sleeper(mark: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = "trap '' TERM HUP INT; while :; do sleep 1; done";
    command
        .args(["-c", script, mark])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Fills files in memory with this number of MiB, none of which is mapped.
fn hold_in_memory_files(mebibytes: i32) -> io::Result<String> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let file = memfd_create(c"held", MFdFlags::empty())?;
    let block = vec![1; 1 << 20];
    for _ in 0..mebibytes {
        nix::unistd::write(&file, &block)?;
    }
    Ok(format!("{mebibytes} MiB"))
}

/// Writes to a new file until that fails, at most one gibibyte. Returns the written size.
fn fill(path: &Path) -> io::Result<String> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    let block = vec![1; 1 << 20];
    for written in 0..1024 {
        if let Err(error) = file.write_all(&block) {
            return Ok(format!("{written} MiB, then {:?}", error.kind()));
        }
    }
    Ok("1024 MiB".into())
}

/// The time that `set-times` sets.
#[must_use]
pub fn time_that_is_set() -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(1)
}
