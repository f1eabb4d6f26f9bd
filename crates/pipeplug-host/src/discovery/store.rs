//! The user's own plugins of a host, and what was added to them.

mod error;
mod records;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempPath;

pub use error::{AddError, RemoveError, StoreError};

use self::records::{Lock, Records};
use super::{Problem, problem, search_path, similar};
use crate::files::{self, DIRECTORY, FileError, RegularFile};
use crate::integrity::{LockFile, Sha256};

/// A host's plugins in the user's data directory, `$XDG_DATA_HOME/<host>/plugins` or
/// `~/.local/share/<host>/plugins`, where [`Discovery`](super::Discovery) finds them.
///
/// What is added there is recorded, with its sum, in `added.json` beside that directory. Both are
/// replaced as a whole, so that a process that is killed meanwhile leaves no half of a plugin;
/// several may add and remove at the same time.
#[derive(Debug, Clone)]
pub struct Store {
    host: String,
    /// Directory that holds `plugins` and the records.
    root: PathBuf,
}

/// Record of an added plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstallRecord {
    /// SHA-256 sum of the file when it was added.
    pub sha256: Sha256,
    /// The file that it came from.
    pub from: PathBuf,
    /// Copy or link.
    #[serde(rename = "way")]
    pub mode: InstallMode,
}

/// Way to add a plugin to a [`Store`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InstallMode {
    /// Copy the file.
    #[default]
    Copy,
    /// Link to the file, so that changes of the file change the plugin.
    Link,
}

/// Action of [`Store::add`] and [`Store::remove`] on a file that would be lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Fail, and keep the file.
    #[default]
    Keep,
    /// Replace or remove the file.
    Overwrite,
}

impl Store {
    /// Store of `host`, as the environment of this process says.
    ///
    /// # Errors
    /// There is no home directory, or the host's name is not valid.
    pub fn for_host(host: &str) -> Result<Self, StoreError> {
        Self::for_host_in(host, |name| std::env::var_os(name))
    }

    /// Like [`for_host`](Self::for_host), with `env` for the environment.
    ///
    /// # Errors
    /// As [`for_host`](Self::for_host).
    pub fn for_host_in(
        host: &str,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, StoreError> {
        if host.is_empty() || host.starts_with('.') || host.contains(['/', '\0']) {
            return Err(StoreError::BadHost { host: host.to_owned() });
        }
        let root = search_path::user_dir(search_path::DATA, host, env).ok_or(StoreError::NoHome)?;
        Ok(Self { host: host.to_owned(), root })
    }

    /// The directory of the plugins; it need not be there yet.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.root.join("plugins")
    }

    /// Path of the plugin of that name, whether it exists or not. `None` if the name is not valid.
    #[must_use]
    pub fn path_of(&self, name: &str) -> Option<PathBuf> {
        problem::is_name(name).then(|| self.dir().join(format!("{}-{name}", self.host)))
    }

    /// Path of the [`LockFile`](crate::LockFile) that records what these plugins are allowed. It need
    /// not be there yet.
    #[must_use]
    pub fn lock_path(&self) -> PathBuf {
        self.root.join(LockFile::NAME)
    }

    /// Adds a plugin: an executable file of any name, which is found by `name` then.
    ///
    /// What others may write of the file's mode is left out in the copy; nor does it get the bits
    /// that change its user.
    ///
    /// # Errors
    /// See [`AddError`]; nothing has been changed then.
    ///
    /// # Blocking
    /// On reading and writing the file, and while another process adds or removes a plugin of this
    /// host.
    pub fn add(
        &self,
        source: &Path,
        name: &str,
        mode: InstallMode,
        existing: OnConflict,
    ) -> Result<(PathBuf, InstallRecord), AddError> {
        let path = self.path_of(name).ok_or_else(|| AddError::BadName { name: name.to_owned() })?;
        let file = open_source(source)?;
        if is_same_file(&file, &path) {
            return Err(AddError::Itself { name: name.to_owned(), path });
        }
        // Checked before the work, to fail early, and again under the lock.
        self.check_place(name, &path, existing)?;
        let (unfinished, sha256) = match mode {
            InstallMode::Copy => self.copy(file),
            InstallMode::Link => self.link(file, source),
        }?;
        let from = std::path::absolute(source).unwrap_or_else(|_| source.to_owned());
        // As text, for it is kept as such.
        let added =
            InstallRecord { sha256, from: from.to_string_lossy().into_owned().into(), mode };
        let _lock = Lock::take(&self.root)?;
        self.check_place(name, &path, existing)?;
        let before = self.records()?;
        let mut records = before.clone();
        records.plugins.retain(|known, _| self.is_there(known));
        records.plugins.insert(name.to_owned(), added.clone());
        // The record first: a record without a file does no harm, but a file without a record would
        // not count as added.
        records.write(&self.records_path())?;
        if let Err(error) = unfinished.persist(&path) {
            before.write(&self.records_path())?;
            return Err(StoreError::io("write", &path, error.error).into());
        }
        Ok((path, added))
    }

    /// Removes a plugin that was added, and tells what it was.
    ///
    /// # Errors
    /// See [`RemoveError`]; nothing has been changed then.
    ///
    /// # Blocking
    /// On reading the file, and while another process adds or removes a plugin of this host.
    pub fn remove(
        &self,
        name: &str,
        existing: OnConflict,
    ) -> Result<(PathBuf, InstallRecord), RemoveError> {
        let not_added = |path: Option<PathBuf>, records: &Records| RemoveError::NotAdded {
            name: name.to_owned(),
            host: self.host.clone(),
            path,
            similar: similar::nearest(name, records.plugins.keys().map(String::as_str))
                .map(str::to_owned),
        };
        let Some(path) = self.path_of(name) else {
            return Err(not_added(None, &Records::default()));
        };
        if !self.root.is_dir() {
            return Err(not_added(None, &Records::default()));
        }
        let _lock = Lock::take(&self.root)?;
        let mut records = self.records()?;
        let Some(added) = records.plugins.remove(name) else {
            return Err(not_added(Some(path).filter(|_| self.is_there(name)), &records));
        };
        if existing == OnConflict::Keep {
            self.check_same(name, &path, &added)?;
        }
        // The file first: a record without one is of no account.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &path, error).into());
            }
            _ => records.write(&self.records_path())?,
        }
        Ok((path, added))
    }

    /// All that was added and is still there, by name.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn added(&self) -> Result<BTreeMap<String, InstallRecord>, StoreError> {
        let mut plugins = self.records()?.plugins;
        plugins.retain(|name, _| self.is_there(name));
        Ok(plugins)
    }

    /// The file of the records.
    pub(super) fn records_path(&self) -> PathBuf {
        self.root.join("added.json")
    }

    fn records(&self) -> Result<Records, StoreError> {
        Records::read(&self.records_path())
    }

    /// Tells whether a file has the path of that plugin. A dangling link counts.
    fn is_there(&self, name: &str) -> bool {
        self.path_of(name).is_some_and(|path| fs::symlink_metadata(path).is_ok())
    }

    fn check_place(&self, name: &str, path: &Path, existing: OnConflict) -> Result<(), AddError> {
        match fs::symlink_metadata(path) {
            Ok(_) if existing == OnConflict::Keep => {
                let added = self.added()?.remove(name);
                Err(AddError::AlreadyThere { name: name.to_owned(), path: path.to_owned(), added })
            }
            _ => Ok(()),
        }
    }

    /// Checks that the file is the added one. An added link may lead anywhere.
    fn check_same(
        &self,
        name: &str,
        path: &Path,
        added: &InstallRecord,
    ) -> Result<(), RemoveError> {
        let is_link = match fs::symlink_metadata(path) {
            Ok(file) => file.is_symlink(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(StoreError::io("read", path, error).into()),
        };
        let is_same = match added.mode {
            InstallMode::Link => is_link,
            InstallMode::Copy => {
                let sum =
                    Sha256::of_file(path).map_err(|error| StoreError::io("read", path, error))?;
                !is_link && sum == added.sha256
            }
        };
        if is_same {
            Ok(())
        } else {
            Err(RemoveError::Changed { name: name.to_owned(), path: path.to_owned() })
        }
    }

    fn copy(&self, file: RegularFile) -> Result<(TempPath, Sha256), StoreError> {
        let mode = file.metadata().permissions().mode() & 0o755;
        let mut from = file.into_file();
        let dir = self.dir();
        let mut copy = || {
            let mut to = files::temporary(&dir, |builder| builder.tempfile_in(&dir))?;
            if files::is_noexec(to.path()) {
                return Err(io::Error::other(
                    "its file system is mounted noexec, so nothing in it can be started: \
                     XDG_DATA_HOME names another place",
                ));
            }
            let sum = Sha256::copy(&mut from, &mut to)?;
            to.as_file().set_permissions(Permissions::from_mode(mode))?;
            to.as_file().sync_all()?;
            // Closed, so that it can be executed.
            Ok((to.into_temp_path(), sum))
        };
        copy().map_err(|error| StoreError::io("copy it into", &dir, error))
    }

    fn link(&self, file: RegularFile, source: &Path) -> Result<(TempPath, Sha256), StoreError> {
        let reading = |error| StoreError::io("read", source, error);
        let target = std::path::absolute(source).map_err(reading)?;
        let sum = Sha256::of(&mut file.into_file()).map_err(reading)?;
        let dir = self.dir();
        let link =
            files::temporary(&dir, |builder| builder.make_in(&dir, |path| symlink(&target, path)))
                .map_err(|error| StoreError::io("write", &dir, error))?;
        Ok((link.into_temp_path(), sum))
    }
}

/// Opens what is to be added: an executable file.
fn open_source(source: &Path) -> Result<RegularFile, AddError> {
    let path = source.to_owned();
    let not_there = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
    let problem = match RegularFile::open(source) {
        Ok(file) if file.may_execute() => return Ok(file),
        Ok(file) => Problem::of_execution(source, file.metadata()),
        Err(FileError::NotRegular { found: DIRECTORY }) => Problem::IsDirectory,
        Err(FileError::NotRegular { found: kind }) => Problem::NotAFile { kind },
        Err(FileError::System(error)) if not_there.contains(&error.kind()) => {
            match fs::read_link(source) {
                Ok(target) => Problem::DanglingSymlink { target },
                Err(_) => return Err(AddError::NotFound { path }),
            }
        }
        Err(error) => return Err(StoreError::io("read", source, error.into()).into()),
    };
    Err(AddError::Unusable { path, problem })
}

/// Compares the open file with the one at `path` itself, to which no link is followed.
fn is_same_file(file: &RegularFile, path: &Path) -> bool {
    let (file, path) = (file.metadata(), fs::symlink_metadata(path));
    path.is_ok_and(|path| (file.dev(), file.ino()) == (path.dev(), path.ino()))
}
