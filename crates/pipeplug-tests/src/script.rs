//! Plugins made of shell scripts, which use their descriptors in ways that no library does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use pipeplug_host::{Plugin, PluginBuilder};
use tempfile::TempDir;

/// Answers the first request of a host that speaks the standard format with an empty object.
///
/// Reads only the first byte, since the host's first request has the id 1. An answer before the
/// request would be invalid.
const ANSWER: &str =
    r"head -c 1 <&3 >/dev/null; printf '1\0003\00011\000GetMetadata\0002\000{}' >&4";

/// Directory with one executable script, `plugin`, and the files of a test.
#[derive(Debug)]
pub struct Script {
    dir: TempDir,
}

impl Script {
    /// A script that `/bin/sh` runs, which finds its own directory in `$dir`.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[must_use]
    pub fn new(body: &str) -> Self {
        Self::with_interpreter("/bin/sh", &format!("dir=${{0%/*}}\n{body}"))
    }

    /// A script that another program runs.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[must_use]
    pub fn with_interpreter(interpreter: &str, body: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the test");
        let path = dir.path().join("plugin");
        fs::write(&path, format!("#!{interpreter}\n{body}\n")).expect("the script is written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the script is ours");
        Self { dir }
    }

    /// A script that is a plugin without metadata to begin with, on descriptors 3 and 4, and then
    /// does what `body` says.
    #[must_use]
    pub fn answering(body: &str) -> Self {
        Self::new(&format!("{ANSWER}\n{body}"))
    }

    /// The script.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("plugin")
    }

    /// Directory of the script, for the files it leaves behind.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a script like [`Script::answering`] that runs `before` before the answer.
    #[must_use]
    pub fn answering_after(before: &str, body: &str) -> Self {
        Self::new(&format!("{before}\n{ANSWER}\n{body}"))
    }

    /// Starts it as a plugin.
    pub fn builder(&self) -> PluginBuilder {
        Plugin::builder(self.path())
    }
}
