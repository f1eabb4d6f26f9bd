//! Permissions of a plugin that is added: found without trust, asked for once, and recorded.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use pipeplug_host::discovery::{PluginInfo, Store};
use pipeplug_host::{LockFile, Permissions, PermissionsError};

use super::AddArgs;
use crate::exit::{CommandError, ExitReason};
use crate::output::text::{Escaped, short_path};
use crate::session::consent::{Consent, Request};
use crate::session::shutdown::Shutdown;

/// Permissions of one plugin on its way into the store.
pub(super) struct Asking<'a> {
    args: &'a AddArgs,
    name: &'a str,
    /// Those that the plugin of this name was allowed before.
    pub(super) before: Option<Permissions>,
    /// Those in the file beside the plugin.
    pub(super) beside: Option<Permissions>,
}

impl<'a> Asking<'a> {
    /// Reads what was allowed before, and the file beside the plugin, and asks for the permissions of
    /// the latter: the plugin may need them to start.
    pub(super) fn begin(
        args: &'a AddArgs,
        store: &Store,
        name: &'a str,
        source: &Path,
        shutdown: &Shutdown,
    ) -> Result<Self, CommandError> {
        let beside = Permissions::beside(source).map_err(|error| unclear(name, &error))?;
        let before = match (store.path_of(name), of_store(store)?) {
            // What is left of a plugin that is gone counts for nothing.
            (Some(path), Some(lock)) if path.symlink_metadata().is_ok() => {
                lock.permissions_of(path).ok().flatten().cloned()
            }
            _ => None,
        };
        let asking = Self { args, name, before, beside };
        if let Some(beside) = &asking.beside {
            asking.ask(beside, shutdown)?;
        }
        Ok(asking)
    }

    /// Asks for what the plugin declares. Returns what it is allowed; `None` if nothing is known.
    pub(super) fn finish(
        self,
        said: Option<&PluginInfo>,
        shutdown: &Shutdown,
    ) -> Result<Option<Permissions>, CommandError> {
        let Some(said) = said else { return Ok(self.beside) };
        let declared = Permissions::declared(&said.metadata)
            .map_err(|error| unclear(self.name, &error))?
            .unwrap_or_default();
        match self.beside {
            // The probe without a sandbox does not compare them.
            Some(beside) => {
                let more = declared.beyond(&beside);
                if more.is_empty() {
                    return Ok(Some(beside));
                }
                let message = format!(
                    "{} declares more than the file {}{} beside it: {}; it was not added",
                    Escaped(self.name),
                    Escaped(self.name),
                    Permissions::FILE_SUFFIX,
                    more.in_words().join("; ")
                );
                Err(CommandError::message(ExitReason::NotStarted, message))
            }
            None => {
                self.ask(&declared, shutdown)?;
                Ok(Some(declared))
            }
        }
    }

    fn ask(&self, wanted: &Permissions, shutdown: &Shutdown) -> Result<(), CommandError> {
        if wanted.needs_own_folder() && !self.args.link {
            let message = format!(
                "{} asks for files of its own folder, which a copy of its file alone does not have: \
                 add it with --link, and keep the folder",
                Escaped(self.name)
            );
            return Err(CommandError::message(ExitReason::Failed, message));
        }
        let request =
            Request { name: self.name, wanted, before: self.before.as_ref(), action: "add it" };
        let consent = if self.args.yes { Consent::Given } else { Consent::Asked };
        request.ask(consent, shutdown)
    }
}

/// Opens the lock file of the store. `None` if there is none.
///
/// # Errors
/// It cannot be read.
pub(crate) fn of_store(store: &Store) -> Result<Option<LockFile>, CommandError> {
    let path = store.lock_path();
    Ok(path.symlink_metadata().is_ok().then(|| LockFile::open(path)).transpose()?)
}

/// State of a file: another one means that it has changed, or was replaced. The time of the last change
/// is the system's alone to set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if there is no such file, which is told when it is added.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let it = fs::metadata(file).ok()?;
        let changed = (it.ctime(), it.ctime_nsec());
        Some(Self { device: it.dev(), inode: it.ino(), size: it.size(), changed })
    }
}

/// Waits until no other process changes the plugins of the store together with their permissions. The
/// lock ends with the file. `None` if the store has no plugin yet, and no directory.
///
/// # Errors
/// The file of the lock cannot be opened or locked.
///
/// # Blocking
/// While another process adds or removes a plugin.
pub(crate) fn alone(store: &Store) -> Result<Option<File>, CommandError> {
    // Beside the lock of the store, which is held for less.
    let path = store.lock_path().with_file_name("permissions.lock");
    let lock = || -> io::Result<Option<File>> {
        if !path.parent().is_some_and(Path::is_dir) {
            return Ok(None);
        }
        // A named pipe is not waited for.
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).mode(0o600).custom_flags(flags).open(&path)?;
        file.lock()?;
        Ok(Some(file))
    };
    lock().map_err(|error| {
        let message = format!("cannot lock {}: {error}", short_path(&path));
        CommandError::message(ExitReason::Failed, message)
    })
}

/// Records what a plugin of the store is allowed. `None` forgets it.
///
/// # Errors
/// The lock file cannot be read or written.
pub(crate) fn record(
    store: &Store,
    plugin: &Path,
    allowed: Option<Permissions>,
) -> Result<(), CommandError> {
    let path = store.lock_path();
    if allowed.is_none() && path.symlink_metadata().is_err() {
        return Ok(());
    }
    Ok(LockFile::update(path, |lock| lock.allow(plugin, allowed))?)
}

fn unclear(name: &str, error: &PermissionsError) -> CommandError {
    let message = format!(
        "{} declares permissions that cannot be understood: {error}; it was not added",
        Escaped(name)
    );
    CommandError::message(ExitReason::NotStarted, message)
}
