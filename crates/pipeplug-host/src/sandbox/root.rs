//! The root file system of a plugin: what was granted, and what every program expects to be there.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::grants::{Access, Grant, is_of_programs};
use super::landlock::rights_to_list;
use crate::sys::{Attributes, Copied, Entry, Kind, Root};

/// Number of files and directories in a file system in memory. Each takes about a kilobyte of
/// kernel memory.
const SCRATCH_FILES: u64 = 16 << 10;

/// Lays out a root file system with these files, and with file systems in memory of so many bytes
/// each.
pub(super) fn lay_out(
    system: &[Grant],
    granted: &[Grant],
    program: Option<&Grant>,
    scratch: u64,
) -> Root {
    let mut layout = Layout::default();
    // All of the files of the host: it is the root then, with the plugin's own file systems on top.
    layout.entries.extend(granted.iter().filter(|it| it.path == Path::new("/")).map(Grant::copied));
    for grant in system.iter().filter(|it| it.access != Access::Device) {
        layout.add_of_system(grant);
    }
    // The devices that every program needs are on top of a /dev that was granted, where none can be
    // opened.
    granted.iter().filter(|it| it.path == Path::new("/dev")).for_each(|it| layout.add(it));
    layout.add_devices(system, scratch);
    layout.add_processes(granted);
    layout.add_memory("/tmp", scratch);
    let placed = [Path::new("/"), Path::new("/dev")];
    for grant in granted.iter().filter(|it| !placed.contains(&&*it.path)) {
        layout.add(grant);
    }
    // A directory that may be written to is not executed from, so the program is there once more.
    if let Some(program) = program.filter(|it| !is_of_programs(&it.path)) {
        layout.add(program);
    }
    Root::new(layout.entries, rights_to_list())
}

#[derive(Default)]
struct Layout {
    entries: Vec<Entry>,
    /// The directories that are made by an entry.
    made: BTreeSet<PathBuf>,
}

impl Layout {
    fn add(&mut self, grant: &Grant) {
        self.add_directories_above(&grant.path);
        self.made.insert(grant.path.clone());
        self.entries.push(grant.copied());
    }

    /// Like [`add`](Self::add), but what is a link to another one stays a link, as `/bin` to
    /// `/usr/bin`.
    fn add_of_system(&mut self, grant: &Grant) {
        match fs::read_link(&grant.path) {
            Ok(target) if grant.kind == Kind::Directory => {
                self.add_link(&grant.path, target.into_os_string().into_vec());
            }
            _ => self.add(grant),
        }
    }

    fn add_link(&mut self, path: &Path, target: impl Into<Vec<u8>>) {
        self.add_directories_above(path);
        if let Ok(target) = CString::new(target) {
            self.entries.push(Entry::Link { path: c_path(path), target });
        }
    }

    fn add_devices(&mut self, system: &[Grant], scratch: u64) {
        for grant in system.iter().filter(|it| it.access == Access::Device) {
            self.add(grant);
        }
        let links = [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")];
        for (name, number) in links {
            self.add_link(&Path::new("/dev").join(name), format!("/proc/self/fd{number}"));
        }
        self.add_memory("/dev/shm", scratch);
    }

    fn add_processes(&mut self, granted: &[Grant]) {
        // An explicit grant of the host's /proc is respected.
        if granted.iter().all(|it| it.path != Path::new("/proc")) {
            self.add_directory(Path::new("/proc"));
            let rights = Access::Read.rights_of_child();
            self.entries.push(Entry::Processes { path: c_path(Path::new("/proc")), rights });
        }
    }

    fn add_memory(&mut self, path: &str, bytes: u64) {
        let path = Path::new(path);
        self.add_directory(path);
        let number = |number: u64| CString::new(number.to_string()).expect("digits hold no NUL");
        self.entries.push(Entry::Memory {
            path: c_path(path),
            // 0 would be no limit: tmpfs(5).
            bytes: number(bytes.max(1)),
            files: number(SCRATCH_FILES),
            rights: Access::Write.rights_of_child(),
        });
    }

    fn add_directory(&mut self, path: &Path) {
        self.add_directories_above(path);
        if self.made.insert(path.to_owned()) {
            self.entries.push(Entry::Directory(c_path(path)));
        }
    }

    fn add_directories_above(&mut self, path: &Path) {
        let above: Vec<_> = path.ancestors().skip(1).filter(|it| it.parent().is_some()).collect();
        for dir in above.into_iter().rev() {
            if self.made.insert(dir.to_owned()) {
                self.entries.push(Entry::Directory(c_path(dir)));
            }
        }
    }
}

impl Grant {
    fn copied(&self) -> Entry {
        let path = c_path(&self.path);
        let copied = Copied::new(path.clone(), path, self.identity, self.kind);
        let always = Attributes::NO_SETUID;
        Entry::Copy(match self.access {
            Access::Execute => copied,
            Access::Read => {
                let attributes = always.and(Attributes::NO_DEVICES).and(Attributes::READ_ONLY);
                copied.with(attributes.and(Attributes::NO_EXECUTION))
            }
            Access::Device => copied.with(always.and(Attributes::READ_ONLY)),
            Access::Write => {
                copied.with(always.and(Attributes::NO_DEVICES).and(Attributes::NO_EXECUTION))
            }
        })
    }
}

/// Paths that were opened hold no NUL byte.
fn c_path(path: &Path) -> CString {
    CString::new(OsStr::as_bytes(path.as_os_str())).expect("the path of an open file holds no NUL")
}
