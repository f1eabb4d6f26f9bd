//! The likely cause of a start that failed, and the next step.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::slice::from_ref;
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;

use super::missing_command;
use crate::plugin::PluginBuilder;
use crate::process::{Channel, Launch, Pid, WaitStatus, dropped, started_without};
use crate::sandbox::is_of_programs;

/// Number of variable names that a hint shows.
const NAMES_SHOWN: usize = 12;

/// How many files and directories beside a plugin are compared with what it wrote.
const NEIGHBOURS_LOOKED_AT: usize = 2000;

/// How many directories deep, as for libraries in `lib` or `node_modules`.
const NEIGHBOUR_DEPTH: usize = 2;

/// A copy of the host's end of what a plugin writes to, until the plugin has started.
#[derive(Debug)]
pub(crate) struct StartPipe {
    fd: Mutex<Option<OwnedFd>>,
    seen: OnceLock<Pipe>,
}

/// The other end of that pipe.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pipe {
    inode: Option<u64>,
    /// Set where any process has it open.
    has_writer: bool,
}

impl StartPipe {
    pub(crate) fn new(from_guest: &OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: Mutex::new(Some(from_guest.try_clone()?)), seen: OnceLock::new() })
    }

    /// Looks at the pipe, the first time: before the plugin is reaped, since what is left of its
    /// process group is killed then.
    pub(crate) fn look(&self) -> Pipe {
        *self.seen.get_or_init(|| {
            let fd = self.fd.lock().unwrap_or_else(PoisonError::into_inner);
            fd.as_ref().map(Pipe::of).unwrap_or_default()
        })
    }

    /// Closes the copy: the plugin has started.
    pub(crate) fn close(&self) {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Pipe {
    fn of(pipe: &OwnedFd) -> Self {
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
        // A hang-up is told unasked: poll(2).
        let has_writer = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|count| count == 0);
        Self { inode: fstat(pipe).ok().map(|file| file.st_ino), has_writer }
    }
}

/// The end of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Exited(WaitStatus),
    /// Runs on, and has closed its end of the pipe.
    ClosedPipe,
    /// Runs on, and has not answered in time.
    Silent,
}

/// Words of runtimes, loaders and shells for a file that is not there.
const MISSING_FILE: [&str; 15] = [
    "No such file",
    "Permission denied",
    "ENOENT",
    "EACCES",
    "No module named",
    "ImportError",
    "Cannot find module",
    "Cannot find package",
    "error while loading shared libraries",
    "Error loading shared library",
    "cannot load such file",
    "in @INC",
    "Unable to access jarfile",
    "ClassNotFoundException",
    "Could not find or load main class",
];

/// Words for a descriptor that is not open.
const BAD_DESCRIPTOR: [&str; 3] = ["ad file descriptor", "EBADF", "Errno 9]"];

/// Words of the guest of this project for the same, which name the ways to pass descriptors on.
const NOT_PASSED: &str = "its descriptors, which the program that starts it has to pass on";

/// The next step after descriptors that were not passed on.
const PASS_ON: &str = "a program in between has to pass descriptors 3 and 4 on (pass_fds=(3, 4) in \
                       Python, stdio: [0, 1, 2, 3, 4] in Node), or `--stdio` \
                       (PluginBuilder::stdio) makes do with stdin and stdout";

/// The likely cause, from what is known of the end.
pub(crate) fn find(
    end: End,
    pid: Pid,
    builder: &PluginBuilder,
    pipe: Pipe,
    stderr: &[String],
) -> Option<String> {
    let launch = &builder.launch;
    if let End::Exited(status) = end
        && status.success()
    {
        if pipe.has_writer {
            return Some(
                "it went into the background, where a process that it started still has its pipe: a \
                 plugin stays in the foreground, so leave out what makes it a daemon (`&` in a \
                 script), or give it the option for that (often --foreground, -f or --no-daemon)"
                    .to_owned(),
            );
        }
        // A script that cannot read its descriptor may take that for the end of the input.
        let is_here = builder.launcher.describe().is_none();
        return is_here.then(|| descriptors(end, pid, launch, pipe, stderr)).flatten();
    }
    // A plugin that runs elsewhere has other files, variables and descriptors.
    if builder.launcher.describe().is_some() {
        return None;
    }
    if let End::Exited(status) = end
        && let Some(limit) =
            launch.sandbox.as_ref().and_then(|sandbox| sandbox.likely_limit(status, stderr))
    {
        return Some(limit);
    }
    if let End::Exited(status) = end
        && let Some(hint) = missing_command::hint(status, launch, stderr)
    {
        return Some(hint);
    }
    descriptors(end, pid, launch, pipe, stderr).or_else(|| {
        let causes = [files(end, launch, stderr), variables(end, launch, stderr)];
        let causes: Vec<_> = causes.into_iter().flatten().collect();
        (!causes.is_empty()).then(|| causes.join("; "))
    })
}

fn descriptors(
    end: End,
    pid: Pid,
    launch: &Launch,
    pipe: Pipe,
    stderr: &[String],
) -> Option<String> {
    if launch.channel == Channel::Stdio {
        return None;
    }
    match end {
        End::Exited(_) if says_any(stderr, &[NOT_PASSED]) => {
            Some("pass descriptors 3 and 4 on, or use `--stdio` (PluginBuilder::stdio)".to_owned())
        }
        End::Exited(_) => says_any(stderr, &BAD_DESCRIPTOR).then(|| {
            format!(
                "it may not have got its \
                                                            descriptors: {PASS_ON}"
            )
        }),
        End::ClosedPipe => (!pipe.has_writer).then(|| {
            format!(
                "neither it nor what it started has descriptor 4 open: {PASS_ON}; if none of \
                     that holds, is it a plugin?"
            )
        }),
        End::Silent => {
            let started = started_without(pid, pipe.inode?)?;
            Some(format!(
                "it has started process {} ({:?}), which does not have descriptor 4; if that is \
                 the plugin: {PASS_ON}",
                started.pid, started.name
            ))
        }
    }
}

/// The directory of the plugin, where a sandbox hides all of it but the plugin's own file, and the
/// plugin lacks a file.
///
/// No path of its standard error is named: it would choose what it is granted.
fn files(end: End, launch: &Launch, stderr: &[String]) -> Option<String> {
    let mut granted = launch.sandbox.as_ref()?.granted()?;
    if end == End::Silent || !says_any(stderr, &MISSING_FILE) {
        return None;
    }
    let program = fs::canonicalize(&launch.program).ok()?;
    let dir = program.parent()?;
    let is_granted =
        |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| dir.starts_with(path));
    if is_of_programs(dir) || granted.any(is_granted) || !names_a_neighbour(&program, dir, stderr) {
        return None;
    }
    Some(if is_shared(dir) {
        format!(
            "its sandbox hides what is in {dir:?} beside it: move it into a directory of its own, \
             with what it needs, and let it read that (`--sandbox-read DIR`, Sandbox::read)"
        )
    } else {
        format!(
            "its sandbox hides what is in {dir:?} beside it: let it read that (`--sandbox-read \
             {dir:?}`, Sandbox::read)"
        )
    })
}

/// Looks in what it wrote for a file or directory that is beside it, whose name may have lost its
/// ending, as those of modules do.
fn names_a_neighbour(program: &Path, dir: &Path, stderr: &[String]) -> bool {
    let missing: HashSet<_> = stderr
        .iter()
        .filter(|line| says_any(from_ref(line), &MISSING_FILE))
        .flat_map(|line| words(line))
        .collect();
    let mut left = NEIGHBOURS_LOOKED_AT;
    let mut dirs = vec![(dir.to_owned(), 0)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            left -= 1;
            if left == 0 {
                return false;
            }
            let is_named = path.file_name().and_then(OsStr::to_str).is_some_and(|name| {
                let name = name.trim_start_matches('.');
                missing.contains(name.split('.').next().unwrap_or(name))
            });
            if is_named && path != program {
                return true;
            }
            if depth < NEIGHBOUR_DEPTH && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push((path, depth + 1));
            }
        }
    }
    false
}

/// The names in a line, each up to its first dot.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|char: char| !char.is_alphanumeric() && !matches!(char, '_' | '-' | '.'))
        .filter_map(|word| word.trim_start_matches('.').split('.').next())
        .filter(|word| !word.is_empty())
}

/// Tells whether a directory holds much that is no plugin's business.
fn is_shared(dir: &Path) -> bool {
    let home = env::var_os("HOME").and_then(|home| fs::canonicalize(home).ok());
    dir.parent().is_none()
        || home.is_some_and(|home| home.starts_with(dir))
        || dir == env::temp_dir()
}

fn variables(end: End, launch: &Launch, stderr: &[String]) -> Option<String> {
    let End::Exited(WaitStatus::Exited(_)) = end else { return None };
    // What lacks one says so. What ends without a word has most often looked for its host on other
    // descriptors.
    if stderr.is_empty() {
        return None;
    }
    let names = dropped(&launch.env, &launch.program, stderr);
    let shown = names.iter().take(NAMES_SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let more = names.len().saturating_sub(NAMES_SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    (!names.is_empty()).then(|| {
        format!(
            "of the variables that are set here it did not get {shown}{more}: `--env-pass \
                 NAME` (PluginBuilder::env_pass) passes one on"
        )
    })
}

fn says_any(stderr: &[String], words: &[&str]) -> bool {
    stderr.iter().any(|line| words.iter().any(|words| line.contains(words)))
}
