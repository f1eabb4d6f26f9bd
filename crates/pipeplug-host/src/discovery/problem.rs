//! Problems with a plugin's file or directory.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pipeplug_net::Escaped;
use thiserror::Error;

use crate::files::{Obstacle, kind, may_execute};

/// Reason why a file or a directory cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// This user may not execute the file.
    #[error("not executable (mode {mode:04o}), run `chmod +x` on it")]
    NotExecutable {
        /// The permission bits of the file.
        mode: u32,
    },
    /// The file is another user's, whose mode does not let this user execute it.
    #[error(
        "not executable for this user (mode {mode:04o}, it belongs to {owner}), let the owner run \
         `chmod a+rx` on it"
    )]
    NotOurs {
        /// The permission bits of the file.
        mode: u32,
        /// The owner, by number and name.
        owner: String,
    },
    /// The file is on a file system that nothing is executed from.
    #[error("on a file system that is mounted noexec, move it to another one")]
    NoExec,
    /// A directory has that name.
    #[error("a directory, not an executable file")]
    IsDirectory,
    /// A socket, a device or the like has that name.
    #[error("{kind}, where an executable file is expected")]
    NotAFile {
        /// Kind of the file, in words: `a FIFO`.
        kind: &'static str,
    },
    /// The symbolic link is dangling.
    #[error("a symbolic link to {target:?}, which does not exist")]
    DanglingSymlink {
        /// Target of the link.
        target: PathBuf,
    },
    /// The file cannot be looked at.
    #[error("cannot be looked at: {kind}")]
    Inaccessible {
        /// Error of the kernel.
        kind: io::ErrorKind,
    },
    /// The name is not valid UTF-8.
    #[error("its name is not UTF-8, rename it")]
    NameNotUtf8,
    /// The file name has nothing behind the prefix.
    #[error("its name ends with the prefix, add the plugin's own name")]
    NoName,
    /// The directory cannot be read.
    #[error("a directory that cannot be read: {kind}")]
    UnreadableDirectory {
        /// Error of the kernel.
        kind: io::ErrorKind,
    },
    /// An entry of the search path is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// `PIPEPLUG_PATH` has an empty entry.
    #[error("an empty entry of PIPEPLUG_PATH, ignored: write the directory out")]
    EmptyPlace,
    /// `PIPEPLUG_PATH` has a relative entry.
    #[error("a relative entry of PIPEPLUG_PATH, ignored: write it from the root")]
    RelativePlace,
    /// The records of the user's plugins cannot be read.
    #[error("{}", Escaped(reason))]
    Records {
        /// The reason, and what to do.
        reason: String,
    },
}

impl Problem {
    /// The problem of a regular file that this process may not execute.
    pub(super) fn of_execution(path: &Path, metadata: &fs::Metadata) -> Self {
        let mode = metadata.permissions().mode() & 0o7777;
        match Obstacle::of(path, metadata) {
            Obstacle::FileSystem => Self::NoExec,
            Obstacle::Owner(owner) => Self::NotOurs { mode, owner },
            Obstacle::Mode => Self::NotExecutable { mode },
        }
    }

    pub(super) fn of_directory(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotADirectory => Self::NotADirectory,
            kind => Self::UnreadableDirectory { kind },
        }
    }
}

/// Error of finding a plugin by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindError {
    name: String,
    kind: FindErrorKind,
}

/// Kind of a [`FindError`]. Its text continues a message that begins with the plugin's name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FindErrorKind {
    /// No directory has a file of that name.
    #[error("searched {}{}", paths(searched), but_skipped(skipped))]
    NotFound {
        /// The directories that were searched, in their order.
        searched: Vec<PathBuf>,
        /// The nearest name that there is.
        similar: Option<String>,
        /// The directories that could not be searched, and why.
        skipped: Vec<(PathBuf, Problem)>,
    },
    /// Files have that name, but none can be used.
    #[error("cannot be used: {}", problems_of(problems))]
    Unusable {
        /// The files and what is wrong with each, in the order of the search.
        problems: Vec<(PathBuf, Problem)>,
    },
    /// The name is not valid for a plugin.
    #[error("a name is not empty and holds no `/` and no NUL")]
    BadName,
    /// A host's own way to find plugins failed.
    #[error("cannot be looked up: {}", Escaped(reason))]
    Other {
        /// The reason, in words.
        reason: String,
    },
}

impl FindError {
    /// Creates the error of finding the plugin `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: FindErrorKind) -> Self {
        Self { name: name.into(), kind }
    }

    /// Name of the plugin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Kind of the error.
    #[must_use]
    pub fn kind(&self) -> &FindErrorKind {
        &self.kind
    }
}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, kind } = self;
        match kind {
            FindErrorKind::NotFound { similar, .. } => {
                write!(f, "no plugin {name:?}{}; {kind}", meant(similar.as_deref()))
            }
            FindErrorKind::BadName => write!(f, "no plugin can be named {name:?}: {kind}"),
            FindErrorKind::Unusable { .. } | FindErrorKind::Other { .. } => {
                write!(f, "plugin {name:?} {kind}")
            }
        }
    }
}

impl std::error::Error for FindError {}

/// Tells whether a plugin can have that name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '\0'])
}

/// `Err(None)` if there is nothing at the path.
pub(super) fn check_file(path: &Path) -> Result<(), Option<Problem>> {
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => {
            return Err(match (error.kind(), fs::read_link(path)) {
                (io::ErrorKind::NotFound, Ok(target)) => Some(Problem::DanglingSymlink { target }),
                (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, Err(_)) => None,
                (kind, _) => Some(Problem::Inaccessible { kind }),
            });
        }
    };
    if meta.is_dir() {
        Err(Some(Problem::IsDirectory))
    } else if !meta.is_file() {
        Err(Some(Problem::NotAFile { kind: kind(&meta) }))
    } else if !may_execute(path) {
        Err(Some(Problem::of_execution(path, &meta)))
    } else {
        Ok(())
    }
}

fn meant(similar: Option<&str>) -> String {
    similar.map_or_else(String::new, |name| format!(", did you mean {name:?}?"))
}

fn paths(paths: &[PathBuf]) -> String {
    if paths.is_empty() {
        return "nowhere, for there is no directory to search".to_owned();
    }
    paths
        .iter()
        .map(|path| Escaped(&path.to_string_lossy()).to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn but_skipped(skipped: &[(PathBuf, Problem)]) -> String {
    if skipped.is_empty() { String::new() } else { format!("; skipped {}", problems_of(skipped)) }
}

fn problems_of(problems: &[(PathBuf, Problem)]) -> String {
    problems
        .iter()
        .map(|(path, problem)| format!("{path:?}: {problem}"))
        .collect::<Vec<_>>()
        .join("; ")
}
