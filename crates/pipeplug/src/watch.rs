//! Changes of files: of one, and of a directory.
//!
//! Files are looked at again and again. That needs no limit of the system, works on every file system, and
//! sees a file that was replaced as a whole, as compilers and editors do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use ignore::{DirEntry, WalkBuilder};

/// Time between two looks at a directory, and at least so many times as long as a look takes.
const INTERVAL: Duration = Duration::from_millis(150);
const REST: u32 = 10;
/// Directories that hold what tools write, also without a `.gitignore` that says so.
const OF_TOOLS: [&str; 4] = ["target", "node_modules", "__pycache__", ".git"];

/// Version of a file: a change of any of these is a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Of the content, mode or name: a file may be given back an old time of modification.
    changed: (i64, i64),
}

impl Version {
    /// `None` if there is no file, or an empty one, which may still be written.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok().filter(|file| file.is_file() && file.len() > 0)?;
        Some(Self::of_metadata(&file))
    }

    fn of_metadata(file: &Metadata) -> Self {
        Self {
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Files of a directory and below. Left out are hidden files, those that a `.gitignore` names, backups of
/// editors, and [directories of tools](OF_TOOLS).
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    files: BTreeMap<PathBuf, Version>,
    /// Files that a build writes.
    outputs: BTreeSet<PathBuf>,
    /// Files that have changed in the last build.
    suspects: BTreeSet<PathBuf>,
    /// Time that the last look took.
    took: Duration,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        let mut tree = Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            outputs: BTreeSet::new(),
            suspects: BTreeSet::new(),
            took: Duration::ZERO,
        };
        tree.look();
        tree
    }

    /// Never reports this file, which a build writes.
    pub(crate) fn leave_out(&mut self, path: &Path) {
        self.files.remove(path);
        self.outputs.insert(path.to_owned());
    }

    /// Files that have changed, come or gone since the last look.
    pub(crate) fn look(&mut self) -> BTreeSet<PathBuf> {
        let begun = Instant::now();
        let now = self.read();
        self.took = begun.elapsed();
        let before = std::mem::replace(&mut self.files, now);
        let is_other = |(path, version): &(&PathBuf, &Version), others: &BTreeMap<_, _>| {
            others.get(*path) != Some(*version)
        };
        let come = self.files.iter().filter(|file| is_other(file, &before));
        let gone = before.iter().filter(|file| is_other(file, &self.files));
        come.chain(gone).map(|(path, _)| path.clone()).collect()
    }

    /// Looks after a build. Returns the files that have changed meanwhile, and not by the build: one that
    /// changes in two builds in a row is written by them, and so is one that changes in the `first` one.
    pub(crate) fn look_after_build(&mut self, is_first: bool) -> BTreeSet<PathBuf> {
        let changed = self.look();
        let is_written = |path: &PathBuf| is_first || self.suspects.contains(path);
        let (written, changed): (BTreeSet<_>, BTreeSet<_>) =
            changed.into_iter().partition(is_written);
        for path in written {
            self.leave_out(&path);
        }
        self.suspects.clone_from(&changed);
        changed
    }

    /// Waits until files have changed, and change no more. `changed` is what is known already. `None` if
    /// `is_over` says so first.
    pub(crate) fn wait(
        &mut self,
        mut changed: BTreeSet<PathBuf>,
        is_over: impl Fn() -> bool,
    ) -> Option<BTreeSet<PathBuf>> {
        while !is_over() {
            thread::sleep(INTERVAL.max(self.took * REST));
            let now = self.look();
            if now.is_empty() && !changed.is_empty() {
                return Some(changed);
            }
            changed.extend(now);
        }
        None
    }

    fn read(&self) -> BTreeMap<PathBuf, Version> {
        let mut walk = WalkBuilder::new(&self.root);
        // A project that is in no repository may have a .gitignore.
        walk.require_git(false).filter_entry(|entry| !is_of_tools(entry));
        let files = walk.build().filter_map(|entry| {
            // What cannot be read, or has gone since it was listed, is no file.
            let entry = entry.ok()?;
            let file = entry.metadata().ok().filter(Metadata::is_file)?;
            let path = entry.into_path();
            (!self.outputs.contains(&path)).then(|| (path, Version::of_metadata(&file)))
        });
        files.collect()
    }
}

fn is_of_tools(entry: &DirEntry) -> bool {
    let Some(name) = entry.file_name().to_str() else { return false };
    let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
    // The root may have any name.
    entry.depth() > 0 && (is_dir && OF_TOOLS.contains(&name) || !is_dir && name.ends_with('~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path, changed: BTreeSet<PathBuf>) -> Vec<String> {
        let relative =
            |path: PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        changed.into_iter().map(relative).collect()
    }

    #[test]
    fn changes_of_sources_are_seen_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".gitignore", "*.o\n/out/\n");
        write("a.c", "1");
        let mut tree = Tree::new(root);
        assert_eq!(names(root, tree.look()), [""; 0]);
        write("a.c", "22");
        write("sub/b.c", "");
        assert_eq!(names(root, tree.look()), ["a.c", "sub/b.c"]);
        fs::remove_file(root.join("a.c")).unwrap();
        assert_eq!(names(root, tree.look()), ["a.c"]);
        for name in [
            "a.o",
            "out/x",
            "target/x",
            "node_modules/x",
            "sub/__pycache__/x",
            ".git/x",
            ".a.swp",
            "a.c~",
        ] {
            write(name, "x");
        }
        assert_eq!(names(root, tree.look()), [""; 0]);
        // Replaced as a whole by one of the same size.
        write("new~", "");
        fs::rename(root.join("new~"), root.join("sub/b.c")).unwrap();
        assert_eq!(names(root, tree.look()), ["sub/b.c"]);
    }

    #[test]
    fn what_a_build_writes_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        let mut tree = Tree::new(root);
        write("program", "1");
        assert_eq!(names(root, tree.look_after_build(true)), [""; 0]);
        write("program", "22");
        assert_eq!(names(root, tree.look_after_build(false)), [""; 0]);
        // A source that is saved during a build is built again, and one that each build writes is not.
        write("source", "1");
        write("version.h", "1");
        assert_eq!(names(root, tree.look_after_build(false)), ["source", "version.h"]);
        write("version.h", "22");
        assert_eq!(names(root, tree.look_after_build(false)), [""; 0]);
        write("source", "22");
        assert_eq!(names(root, tree.look_after_build(false)), ["source"]);
    }
}
