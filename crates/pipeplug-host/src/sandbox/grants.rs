//! Files and directories that a plugin may use, each opened once.
//!
//! A path that is resolved a second time may lead elsewhere by then. So all that follows, the rules of Landlock and the
//! mounts of a root file system, is about the file that is open here.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{self, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::Files;
use crate::sys::{self, Identity, Kind};

/// Programs and libraries.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// What dynamic loaders, C libraries and runtimes look at when they start.
const LOOKED_AT: [&str; 14] = [
    "/etc/alternatives",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/timezone",
    "/sys/devices/system/cpu",
    "/sys/kernel/mm/transparent_hugepage",
];

/// The same of `/proc`, for a plugin that sees the host's.
const LOOKED_AT_IN_PROC: [&str; 7] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/random",
    "/proc/sys/vm/overcommit_memory",
];

/// Devices that hold nothing.
const DEVICES: [&str; 5] = ["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// What a plugin may do with a [`Grant`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading, listing and executing.
    Execute,
    /// Reading and listing.
    Read,
    /// Reading and writing what keeps nothing.
    Device,
    /// Reading, listing, writing, making and removing.
    Write,
}

/// A file or directory that a plugin may use.
#[derive(Debug)]
pub(super) struct Grant {
    /// From the root, as it was named.
    pub(super) path: PathBuf,
    /// Opened with `O_PATH`.
    pub(super) file: OwnedFd,
    pub(super) kind: Kind,
    is_regular: bool,
    pub(super) identity: Identity,
    pub(super) access: Access,
}

/// Whether a path is in a directory of programs and libraries.
pub(crate) fn is_of_programs(path: &Path) -> bool {
    PROGRAMS.iter().any(|dir| path.starts_with(dir))
}

/// A file that cannot be granted, in words.
pub(super) type Refused = String;

/// What every program needs, as far as this system has it.
pub(super) fn of_system() -> Vec<Grant> {
    let programs = PROGRAMS.iter().map(|path| (path, Access::Execute));
    let looked_at = LOOKED_AT.iter().map(|path| (path, Access::Read));
    let devices = DEVICES.iter().map(|path| (path, Access::Device));
    programs
        .chain(looked_at)
        .chain(devices)
        .filter_map(|(path, access)| Grant::open(Path::new(path), access).ok())
        .collect()
}

/// What programs need of the host's `/proc`.
pub(super) fn of_proc() -> Vec<Grant> {
    LOOKED_AT_IN_PROC.iter().filter_map(|path| Grant::open(Path::new(path), Access::Read).ok()).collect()
}

/// What the host grants, directories before what is below them.
pub(super) fn of_host(files: &Files) -> Result<Vec<Grant>, Refused> {
    let read = files.read.iter().map(|path| (path, Access::Execute));
    let write = files.write.iter().map(|path| (path, Access::Write));
    // What may be written to comes first: a name of it may sort behind a path that leads through it by another name.
    let mut grants: Vec<Grant> = Vec::new();
    for wanted in [sorted(write)?, sorted(read)?] {
        for (path, access) in wanted {
            let grant = open_beneath(&grants, &path, access).map_err(|error| refused(&path, &error))?;
            grants.push(grant);
        }
    }
    // By components, so that a directory comes before what is in it. Of the same path, the write access is the last one,
    // and counts.
    grants.sort_by(|a, b| {
        a.path.cmp(&b.path).then((a.access == Access::Write).cmp(&(b.access == Access::Write)))
    });
    Ok(grants)
}

/// From the root, directories before what is below them.
fn sorted<'a>(paths: impl Iterator<Item = (&'a PathBuf, Access)>) -> Result<Vec<(PathBuf, Access)>, Refused> {
    let absolute = |(path, access): (&PathBuf, _)| {
        Ok((path::absolute(path).map_err(|error| refused(path, &error))?, access))
    };
    let mut all = paths.map(absolute).collect::<Result<Vec<_>, Refused>>()?;
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

/// The program itself.
///
/// # Errors
/// As an exec fails: EACCES for what is no regular file.
pub(super) fn of_program(program: &Path, granted: &[Grant]) -> io::Result<Grant> {
    let grant = open_beneath(granted, program, Access::Execute)?;
    if grant.is_regular { Ok(grant) } else { Err(Errno::EACCES.into()) }
}

fn refused(path: &Path, error: &io::Error) -> Refused {
    format!("{path:?} cannot be let in: {error}")
}

/// Opens a path, without a symbolic link below a directory that the plugin may write to: it could have made it, to be
/// let in wherever that leads to.
fn open_beneath(granted: &[Grant], path: &Path, access: Access) -> io::Result<Grant> {
    let Some((writable, rest)) = writable_above(granted, path) else { return Grant::open(path, access) };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = openat2(&writable.file, rest, how).map_err(|errno| match errno {
        Errno::ELOOP => io::Error::other(format!(
            "a symbolic link leads there, which the plugin may have made, as it may write to {:?}; \
             name where it leads to",
            writable.path
        )),
        errno => errno.into(),
    })?;
    Grant::of(file, path, access)
}

/// The first directory on the way to a path that the plugin may write to, whatever its name is there, and the rest of the
/// way.
fn writable_above<'a, 'b>(granted: &'a [Grant], path: &'b Path) -> Option<(&'a Grant, &'b Path)> {
    let writable: Vec<_> =
        granted.iter().filter(|it| it.access == Access::Write && it.kind == Kind::Directory).collect();
    if writable.is_empty() {
        return None;
    }
    let above: Vec<_> = path.ancestors().skip(1).collect();
    above.into_iter().rev().find_map(|dir| {
        let identity =
            open(dir, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).and_then(Identity::of).ok()?;
        let found = writable.iter().find(|it| it.identity == identity)?;
        Some((*found, path.strip_prefix(dir).ok()?))
    })
}

impl Grant {
    fn open(path: &Path, access: Access) -> io::Result<Self> {
        // The links of /proc lead to whatever this process has open.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Self::of(openat2(AT_FDCWD, path, how)?, path, access)
    }

    fn of(file: OwnedFd, path: &Path, access: Access) -> io::Result<Self> {
        let file = sys::lift(file)?;
        let stat = fstat(&file)?;
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Ok(Self {
            path: path.to_owned(),
            kind: if format == SFlag::S_IFDIR { Kind::Directory } else { Kind::File },
            is_regular: format == SFlag::S_IFREG,
            identity: Identity::from(&stat),
            file,
            access,
        })
    }
}
