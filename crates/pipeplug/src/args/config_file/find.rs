//! Files named `pipeplug.toml`, and the right to read them.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::NAME;

/// Largest file.
const LARGEST: u64 = 1 << 20;

/// A file that is there.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) reach: Reach,
    /// Its text, or the reason that it is not read.
    pub(super) text: Result<String, String>,
}

/// Plugins that a file is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Plugins whose file is in the directory of the file, or below.
    Below,
    /// All plugins: the file of the user.
    All,
}

/// Files for this plugin, the nearest first.
pub(super) fn files(plugin: &OsStr) -> Vec<Found> {
    let mut found = Vec::new();
    // Only a plugin that is named by its path: a directory that one happens to be in must not
    // change how an installed plugin is started.
    let file = plugin.as_bytes().contains(&b'/').then(|| fs::canonicalize(plugin).ok()).flatten();
    let dir = env::current_dir().and_then(fs::canonicalize);
    if let (Some(file), Ok(dir)) = (file, dir) {
        // That of a project, which `pipeplug dev` builds as its files say.
        let own = (file.is_dir() && !dir.starts_with(&file)).then_some(file.as_path());
        let dirs = dir.ancestors().filter(|dir| file.starts_with(dir));
        found.extend(
            own.into_iter().chain(dirs).filter_map(|dir| look(&dir.join(NAME), Reach::Below)),
        );
    }
    let of_user = user_dir().and_then(|dir| look(&dir.join(NAME), Reach::All));
    found.extend(of_user);
    found
}

/// Directory of this program for the user: the XDG Base Directory Specification, 0.8.
fn user_dir() -> Option<PathBuf> {
    let absolute =
        |name| env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("pipeplug"))
}

/// Reads a file. `None` if there is none.
pub(super) fn look(path: &Path, reach: Reach) -> Option<Found> {
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        // A parent that is no directory, or may not be searched, has no file for this user.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return None,
        Err(error) => Err(error.to_string()),
    };
    Some(Found { path: path.to_owned(), reach, text })
}

fn read(path: &Path) -> io::Result<Result<String, String>> {
    // The link itself as well: it may lead to a file of this user that says something else.
    if let Some(reason) = distrust(&fs::symlink_metadata(path)?) {
        return Ok(Err(reason));
    }
    // Only a regular file is opened: a FIFO would block.
    if !fs::metadata(path)?.is_file() {
        return Ok(Err("it is no regular file".to_owned()));
    }
    let file = File::open(path)?;
    // Of what was opened, which may not be what was looked at.
    if let Some(reason) = distrust(&file.metadata()?) {
        return Ok(Err(reason));
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Ok(Err(format!("it has more than {LARGEST} bytes")));
    }
    Ok(Ok(text))
}

/// Reason not to trust a file: another user may have written it.
fn distrust(metadata: &Metadata) -> Option<String> {
    let user = nix::unistd::geteuid().as_raw();
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if owner != user && owner != 0 {
        return Some(format!("it belongs to user {owner}, who could have it start anything"));
    }
    // The mode of a link means nothing.
    if !metadata.is_symlink() && mode & 0o022 != 0 {
        return Some(format!(
            "others may write it (mode {:o}); `chmod go-w` takes that right away",
            mode & 0o777
        ));
    }
    None
}
