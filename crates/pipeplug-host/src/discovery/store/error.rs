//! Errors of the store of the user's plugins.

use std::io;
use std::path::{Path, PathBuf};

use pipeplug_net::Escaped;
use thiserror::Error;

use super::super::Problem;
use super::InstallRecord;

/// Error of finding, reading or writing the user's plugins.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No data directory is known.
    #[error("there is no place for plugins: set HOME to a directory that exists, or XDG_DATA_HOME")]
    NoHome,
    /// The name is not valid for a host.
    #[error(
        "no host can be named {host:?}: a name is not empty, begins with no dot, and holds no `/` \
         and no NUL"
    )]
    BadHost {
        /// The name.
        host: String,
    },
    /// A file or directory fails.
    #[error("cannot {action} {path:?}: {error}")]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Error of the system.
        error: io::Error,
    },
    /// The records of what was added make no sense.
    #[error(
        "the records of what was added, {path:?}, cannot be understood ({}): remove the file, and \
         add the plugins again with --force",
        Escaped(reason)
    )]
    BadRecords {
        /// File of the records.
        path: PathBuf,
        /// The problem.
        reason: String,
    },
}

/// Error of adding a plugin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddError {
    /// The name is not valid for a plugin.
    #[error("no plugin can be named {name:?}: a name is not empty and holds no `/` and no NUL")]
    BadName {
        /// The name.
        name: String,
    },
    /// The file does not exist.
    #[error("no file at {path:?}")]
    NotFound {
        /// The file that was to be added.
        path: PathBuf,
    },
    /// The file is none that can be a plugin.
    #[error("{path:?} cannot be added: {problem}")]
    Unusable {
        /// The file that was to be added.
        path: PathBuf,
        /// The problem.
        problem: Problem,
    },
    /// The file is the plugin that it would become.
    #[error("{path:?} is the plugin {name:?} already: add the file that it came from")]
    Itself {
        /// Name of the plugin.
        name: String,
        /// File of the plugin.
        path: PathBuf,
    },
    /// A plugin of that name exists.
    #[error("there is a plugin {name:?} already, {}: --force replaces it", came(path, added.as_ref()))]
    AlreadyThere {
        /// Name of the plugin.
        name: String,
        /// File of the plugin.
        path: PathBuf,
        /// Record of the existing plugin, if it was added.
        added: Option<InstallRecord>,
    },
    /// The user's plugins cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Error of removing a plugin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No such plugin was added.
    #[error("{}", not_added(name, host, path.as_deref(), similar.as_deref()))]
    NotAdded {
        /// Name of the plugin.
        name: String,
        /// The host whose plugin it would be.
        host: String,
        /// The file of that name, which was not added by this store.
        path: Option<PathBuf>,
        /// The nearest name that was added.
        similar: Option<String>,
    },
    /// The file is another one than was added.
    #[error("plugin {name:?} has changed since it was added: {path:?}; --force removes it anyway")]
    Changed {
        /// Name of the plugin.
        name: String,
        /// File of the plugin.
        path: PathBuf,
    },
    /// The user's plugins cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), error }
    }
}

fn came(path: &Path, added: Option<&InstallRecord>) -> String {
    match added {
        Some(added) => format!("added from {:?}", added.from),
        None => format!("{path:?}"),
    }
}

fn not_added(name: &str, host: &str, path: Option<&Path>, similar: Option<&str>) -> String {
    match (path, similar) {
        (Some(path), _) => {
            format!(
                "plugin {name:?} was not installed by `add`: remove {path:?} in the way it was \
                     installed"
            )
        }
        (None, Some(similar)) => {
            format!("no plugin {name:?} of {host} was added, did you mean {similar:?}?")
        }
        (None, None) => format!("no plugin {name:?} of {host} was added"),
    }
}
