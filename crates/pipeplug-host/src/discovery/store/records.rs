//! The file that says what was added.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::InstallRecord;
use super::error::StoreError;
use crate::files;
use crate::files::{FileError, RegularFile, json};

/// The layout of the file.
const VERSION: u32 = 1;
/// The most bytes that the file may have: some 60,000 plugins.
const FILE_MAX: u64 = 16 << 20;

/// Records of added plugins, by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Records {
    version: u32,
    pub(super) plugins: BTreeMap<String, InstallRecord>,
}

/// The right to change the records, and the plugins with them.
pub(super) struct Lock {
    /// Closing it lets go of the lock, as the end of the process does.
    _file: File,
}

impl Default for Records {
    fn default() -> Self {
        Self { version: VERSION, plugins: BTreeMap::new() }
    }
}

impl Records {
    pub(super) fn read(path: &Path) -> Result<Self, StoreError> {
        let bad = |reason: String| StoreError::BadRecords { path: path.to_owned(), reason };
        let bytes = match RegularFile::open(path).and_then(|file| file.read(FILE_MAX)) {
            Ok(bytes) => bytes,
            Err(FileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(FileError::System(error)) => return Err(StoreError::io("read", path, error)),
            Err(error) => return Err(bad(error.to_string())),
        };
        let records: Self = json::parse(&bytes)
            .and_then(serde_json::from_value)
            .map_err(|error| bad(error.to_string()))?;
        if records.version != VERSION {
            return Err(bad(format!(
                "their version is {}, this program knows {VERSION}",
                records.version
            )));
        }
        Ok(records)
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        serde_json::to_vec_pretty(self)
            .map_err(io::Error::from)
            .and_then(|bytes| files::replace_private(path, &bytes))
            .map_err(|error| StoreError::io("write", path, error))
    }
}

impl Lock {
    /// Waits for the lock. The lock is a file of its own: the records are replaced, and a lock on
    /// them would be lost.
    pub(super) fn take(root: &Path) -> Result<Self, StoreError> {
        let path = root.join("added.lock");
        let open = || {
            files::make_dir(root)?;
            let file = RegularFile::open_or_create(&path)?.into_file();
            file.lock()?;
            Ok(Self { _file: file })
        };
        open().map_err(|error| StoreError::io("lock", &path, error))
    }
}
