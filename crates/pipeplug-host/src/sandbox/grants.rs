//! Files and directories that a plugin may use, each opened once.
//!
//! A path that is resolved a second time may lead elsewhere by then. So all that follows, the rules
//! of Landlock and the mounts of a root file system, is about the file that is open here.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{self, Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::{DeclaredFile, Files};
use crate::files::is_unknown_call;
use crate::sys::{self, Identity, Kind};

/// Programs and libraries.
const PROGRAMS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// Files that dynamic loaders, C libraries and runtimes look at when they start.
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

/// As many symbolic links on a way as the kernel follows: path_resolution(7).
const LINKS_MAX: u32 = 40;

/// Rights of a plugin to a [`Grant`].
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
    is_device: bool,
    pub(super) identity: Identity,
    pub(super) access: Access,
}

/// Tells whether a path is in a directory of programs and libraries.
pub(crate) fn is_of_programs(path: &Path) -> bool {
    PROGRAMS.iter().any(|dir| path.starts_with(dir))
}

/// The root file system that grants are about: the plugin's own, or the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnRoot {
    Yes,
    No,
}

/// A file that cannot be granted, in words.
pub(super) type Refused = String;

/// Opens the files that every program needs, as far as this system has them.
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

/// Opens the files of the host's `/proc` that programs need.
pub(super) fn of_proc() -> Vec<Grant> {
    LOOKED_AT_IN_PROC
        .iter()
        .filter_map(|path| Grant::open(Path::new(path), Access::Read).ok())
        .collect()
}

/// Opens the files that the host grants, directories before their content.
pub(super) fn of_host(files: &Files, own_root: OwnRoot) -> Result<Vec<Grant>, Refused> {
    let wanted = sorted(
        files
            .write
            .iter()
            .map(|path| (path, Access::Write))
            .chain(files.look_at.iter().map(|path| (path, Access::Read)))
            .chain(files.read.iter().map(|path| (path, Access::Execute))),
    )?;
    // All of them before the first is walked to: a way may lead through any of them, by a name that
    // says nothing of it.
    let mut writable = Vec::new();
    for (path, _) in wanted.iter().filter(|(_, access)| *access == Access::Write) {
        let grant = Grant::open(path, Access::Write).map_err(|error| refused(path, &error))?;
        writable.extend((grant.kind == Kind::Directory).then_some(grant.identity));
    }
    let mut grants: Vec<Grant> = Vec::new();
    for (path, access) in wanted {
        let grant = open_beneath(&writable, &path, access)
            .and_then(|grant| grant.checked(own_root)?.bounded(files))
            .map_err(|error| refused(&path, &error))?;
        grants.push(grant);
    }
    // By components, so that a directory comes before what is in it. Of the same path, the write
    // access is the last one, and counts, and executing comes after reading.
    let rank = |access| match access {
        Access::Read | Access::Device => 0,
        Access::Execute => 1,
        Access::Write => 2,
    };
    grants.sort_by(|a, b| a.path.cmp(&b.path).then(rank(a.access).cmp(&rank(b.access))));
    Ok(grants)
}

/// From the root, directories before what is below them.
fn sorted<'a>(
    paths: impl Iterator<Item = (&'a PathBuf, Access)>,
) -> Result<Vec<(PathBuf, Access)>, Refused> {
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
    let writable: Vec<_> = granted
        .iter()
        .filter(|it| it.access == Access::Write && it.kind == Kind::Directory)
        .map(|it| it.identity)
        .collect();
    let grant = open_beneath(&writable, program, Access::Execute)?;
    if grant.is_regular { Ok(grant) } else { Err(Errno::EACCES.into()) }
}

fn refused(path: &Path, error: &io::Error) -> Refused {
    let next = match error.kind() {
        io::ErrorKind::NotFound => "; make it first, or grant the directory that it will be in",
        _ => "",
    };
    format!("{path:?} cannot be granted: {error}{next}")
}

/// Opens a path, without a symbolic link in a directory that the plugin may write to, or below one:
/// it could have made the link, to be let in wherever that leads to.
fn open_beneath(writable: &[Identity], path: &Path, access: Access) -> io::Result<Grant> {
    if writable.is_empty() {
        Grant::open(path, access)
    } else {
        Grant::of(walk(path, writable)?, path, access)
    }
}

/// Opens a path step by step, as the kernel would: path_resolution(7).
///
/// A directory is known by its identity, by whatever name the way leads there.
fn walk(path: &Path, writable: &[Identity]) -> io::Result<OwnedFd> {
    struct Place {
        file: OwnedFd,
        /// True for a directory that the plugin may write to, and below one.
        is_writable: bool,
    }
    let place = |file: OwnedFd, above: bool| -> io::Result<Place> {
        let is_writable = above || writable.contains(&Identity::of(&file)?);
        Ok(Place { file, is_writable })
    };
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut way = vec![place(open("/", flags, Mode::empty())?, false)?];
    let mut rest: VecDeque<OsString> = names(path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            // That of the root is the root.
            if way.len() > 1 {
                way.pop();
            }
            continue;
        }
        let here = way.last().expect("the root is never left");
        let next = openat(&here.file, name.as_os_str(), flags, Mode::empty())?;
        if SFlag::from_bits_truncate(fstat(&next)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
            let next = place(next, here.is_writable)?;
            way.push(next);
            continue;
        }
        links += 1;
        if here.is_writable || links > LINKS_MAX {
            return Err(io::Error::other(format!(
                "the symbolic link {name:?} leads there, which the plugin may have made, since it \
                 may write to that directory; name the target of the link"
            )));
        }
        let target = PathBuf::from(readlinkat(&next, "")?);
        if target.is_absolute() {
            way.truncate(1);
        }
        for name in names(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(way.pop().expect("the root is never left").file)
}

/// The names in a path, and `..`.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

impl Grant {
    fn open(path: &Path, access: Access) -> io::Result<Self> {
        // The links of /proc lead to whatever this process has open.
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let file = match openat2(AT_FDCWD, path, how) {
            // openat2(2), since Linux 5.6. The way step by step follows no such link either: it
            // reads where each leads.
            Err(errno) if is_unknown_call(errno) => walk(path, &[])?,
            file => file?,
        };
        Self::of(file, path, access)
    }

    /// Refuses what would have no effect in a root file system of the plugin's own.
    fn checked(self, own_root: OwnRoot) -> io::Result<Self> {
        let own_root = own_root == OwnRoot::Yes;
        if own_root && self.path.starts_with("/proc") && self.path != Path::new("/proc") {
            return Err(io::Error::other(
                "a sandbox has a /proc of its own, with the plugin's processes",
            ));
        }
        if own_root && self.is_device {
            return Err(io::Error::other(
                "it is a device; a sandbox has /dev/null, zero, full, random and urandom, and no \
                 others",
            ));
        }
        Ok(self)
    }

    /// Refuses a file that a plugin has asked for, and that is not where it said, and a directory to
    /// write to that has a file which must not be written to.
    ///
    /// The open file is what counts: what its path leads to later is of no account.
    fn bounded(self, files: &Files) -> io::Result<Self> {
        let bounds: Vec<_> = files.declared.iter().filter(|it| it.path == self.path).collect();
        let keeps = self.access == Access::Write && !files.not_writable.is_empty();
        if bounds.is_empty() && !keeps {
            return Ok(self);
        }
        let real = fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        // A plugin with a folder to write to can make links there, and declare one of them later.
        let allowed = bounds.into_iter().filter_map(|DeclaredFile { real, .. }| real.as_ref());
        if let Some(allowed) = allowed.into_iter().find(|allowed| **allowed != real) {
            return Err(io::Error::other(format!(
                "a symbolic link leads from {allowed:?} to {real:?}; a permission names the target \
                 of a link"
            )));
        }
        match files.not_writable.iter().find(|file| keeps && file.starts_with(&real)) {
            Some(file) => Err(io::Error::other(format!(
                "the plugin could change {file:?} there, and so what it is allowed; keep that in \
                 another directory"
            ))),
            None => Ok(self),
        }
    }

    fn of(file: OwnedFd, path: &Path, access: Access) -> io::Result<Self> {
        let file = sys::lift(file)?;
        let stat = fstat(&file)?;
        let format = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        Ok(Self {
            path: path.to_owned(),
            kind: if format == SFlag::S_IFDIR { Kind::Directory } else { Kind::File },
            is_regular: format == SFlag::S_IFREG,
            is_device: [SFlag::S_IFCHR, SFlag::S_IFBLK].contains(&format),
            identity: Identity::from(&stat),
            file,
            access,
        })
    }
}
