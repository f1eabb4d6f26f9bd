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
/// Builds in a row, all of which change a file that they write.
const WRITTEN: u32 = 3;
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
    /// Files that have changed in the last builds, and in how many of them.
    suspects: BTreeMap<PathBuf, u32>,
    /// Time that the last look took.
    took: Duration,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        let mut tree = Self {
            root: root.to_owned(),
            files: BTreeMap::new(),
            outputs: BTreeSet::new(),
            suspects: BTreeMap::new(),
            took: Duration::ZERO,
        };
        tree.look();
        tree
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
    /// changes in [several](WRITTEN) builds in a row is written by them, and so is one that changes in the
    /// `first` one. Such a file counts again when it changes without a build.
    pub(crate) fn look_after_build(&mut self, is_first: bool) -> BTreeSet<PathBuf> {
        let mut changed = self.look();
        if is_first {
            self.outputs.append(&mut changed);
        }
        changed.retain(|path| !self.outputs.contains(path));
        self.suspects.retain(|path, _| changed.contains(path));
        for path in &changed {
            *self.suspects.entry(path.clone()).or_default() += 1;
        }
        let written = self.suspects.iter().filter(|(_, builds)| **builds >= WRITTEN);
        self.outputs.extend(written.map(|(path, _)| path.clone()));
        changed.retain(|path| !self.outputs.contains(path));
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
            self.outputs.retain(|path| !now.contains(path));
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
            Some((path, Version::of_metadata(&file)))
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
        // A source that is saved during a build is built again, and what each build writes is not.
        let both = ["source", "version.h"];
        for text in ["1", "22"] {
            both.iter().for_each(|name| write(name, text));
            assert_eq!(names(root, tree.look_after_build(false)), both);
        }
        write("version.h", "333");
        assert_eq!(names(root, tree.look_after_build(false)), [""; 0]);
        write("source", "333");
        write("version.h", "4444");
        assert_eq!(names(root, tree.look_after_build(false)), ["source"]);
        // Without a build it is someone else who changes it.
        write("program", "333");
        let changed = tree.wait(BTreeSet::new(), || false).unwrap();
        assert_eq!(names(root, changed), ["program"]);
        write("program", "4444");
        assert_eq!(names(root, tree.look_after_build(false)), ["program"]);
    }
}
