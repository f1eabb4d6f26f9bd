//! Command that allows a plugin what it asks for.

use std::ffi::OsStr;
use std::path::Path;

use pipeplug_host::discovery::{InstallMode, Store};
use pipeplug_host::{LockFile, StartError, StartErrorKind};

use crate::args::target::HOST;
use crate::output::text::Escaped;

/// Plugin whose permissions are those of a lock file.
pub(super) struct OfLock<'a> {
    /// PLUGIN as it was written.
    pub(super) plugin: &'a OsStr,
    pub(super) host: &'a str,
    /// Lock file of `--locked`.
    pub(super) locked: Option<&'a Path>,
}

impl OfLock<'_> {
    /// Returns the next step, if the plugin lacks permissions.
    pub(super) fn hint(&self, error: &StartError) -> Option<String> {
        if !matches!(
            error.kind(),
            StartErrorKind::NotPermitted { .. } | StartErrorKind::MorePermissions { .. }
        ) {
            return None;
        }
        let command = if self.locked.is_none() { self.add() } else { Some(self.pin()) }?;
        Some(format!("`{}` shows what it asks for, and asks you", Escaped(&command)))
    }

    /// Command that pins the permissions of a plugin.
    pub(super) fn pin(&self) -> String {
        let mut command = format!("pipeplug pin --permissions {}", word(self.plugin));
        if let Some(path) = self.locked.filter(|path| *path != Path::new(LockFile::NAME)) {
            command.push_str(&format!(" --lock-file {}", word(path.as_os_str())));
        }
        command
    }

    /// Command that adds an installed plugin again. `None` if it was not installed by `add`.
    fn add(&self) -> Option<String> {
        let name = self.plugin.to_str()?;
        let added = Store::for_host(self.host).ok()?.added().ok()?.remove(name)?;
        let mut command = "pipeplug add --force".to_owned();
        if added.mode == InstallMode::Link {
            command.push_str(" --link");
        }
        if self.host != HOST {
            command.push_str(&format!(" --host {}", word(self.host.as_ref())));
        }
        if added.from.file_name() != Some(self.plugin) {
            command.push_str(&format!(" --name {}", word(self.plugin)));
        }
        command.push_str(&format!(" {}", word(added.from.as_os_str())));
        Some(command)
    }
}

/// Quotes an argument for a shell.
fn word(arg: &OsStr) -> String {
    let arg = arg.to_string_lossy();
    // Quoting fails only for a NUL, which no argument contains.
    shlex::try_quote(&arg).map(String::from).unwrap_or_else(|_| arg.into_owned())
}
