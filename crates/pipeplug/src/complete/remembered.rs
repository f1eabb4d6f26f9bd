//! Commands that plugins have described, for completion: it must not start a plugin to ask for them.
//!
//! The file is a help and no more. If it is missing, broken or cannot be written, nothing is offered.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use pipeplug_service::Description;
use serde::{Deserialize, Serialize};

/// Layout of the file. One of another number counts as empty.
const VERSION: u32 = 1;
/// A larger file counts as empty, in bytes.
const FILE_MAX: u64 = 4 << 20;
/// Plugins that are remembered. The oldest ones are forgotten.
const PLUGINS_MAX: usize = 200;
/// Commands of a plugin with more are not remembered.
const COMMANDS_MAX: usize = 1000;
/// Length of a command that is remembered, in bytes.
const COMMAND_MAX: usize = 200;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// By the path of the plugin.
    plugins: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    stamp: Stamp,
    /// Seconds since 1970 at which it was noted.
    noted: u64,
    commands: Vec<String>,
}

/// State of a file: another one means that the file has changed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

/// Commands of the plugin at this path, if its file has not changed since it described them.
pub(crate) fn commands_of(path: &Path) -> Option<Vec<String>> {
    let path = fs::canonicalize(path).ok()?;
    let mut kept = load(&file(|name| env::var_os(name).map(PathBuf::from))?);
    let entry = kept.plugins.remove(path.to_str()?)?;
    (entry.stamp == Stamp::of(&path)?).then_some(entry.commands)
}

/// Takes note of what the plugin at this path has described.
pub(crate) fn remember(path: &Path, described: &Description) {
    let Some(file) = file(|name| env::var_os(name).map(PathBuf::from)) else { return };
    // Without it there is less to complete.
    let _ = note(&file, path, names(described));
}

/// Commands of the services.
pub(crate) fn names(described: &Description) -> Vec<String> {
    let methods = described.services.iter().flat_map(|service| &service.methods);
    let mut names: Vec<_> = methods.map(|method| method.command.clone()).collect();
    names.retain(|name| name.len() <= COMMAND_MAX);
    names.truncate(COMMANDS_MAX);
    names
}

fn note(file: &Path, path: &Path, commands: Vec<String>) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let (Some(name), Some(stamp)) = (path.to_str(), Stamp::of(&path)) else { return Ok(()) };
    let mut kept = load(file);
    let before = kept.plugins.get(name);
    if before.is_some_and(|entry| entry.stamp == stamp && entry.commands == commands) {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    kept.plugins.insert(name.to_owned(), Entry { stamp, noted: now, commands });
    while kept.plugins.len() > PLUGINS_MAX {
        let oldest = kept.plugins.iter().min_by_key(|(_, entry)| entry.noted);
        let Some(oldest) = oldest.map(|(name, _)| name.clone()) else { break };
        kept.plugins.remove(&oldest);
    }
    let dir = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    // Replaced as a whole: a process that reads it at the same time sees the old one or the new one.
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    new.write_all(&serde_json::to_vec(&Kept { version: VERSION, ..kept })?)?;
    new.persist(file)?;
    Ok(())
}

fn load(file: &Path) -> Kept {
    let read = || -> io::Result<Kept> {
        // A FIFO would have the shell wait.
        if !fs::metadata(file)?.is_file() {
            return Ok(Kept::default());
        }
        let mut text = Vec::new();
        fs::File::open(file)?.take(FILE_MAX).read_to_end(&mut text)?;
        Ok(serde_json::from_slice(&text)?)
    };
    read().ok().filter(|kept| kept.version == VERSION).unwrap_or_default()
}

/// `commands.json` in the cache directory of the user.
fn file(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let cache = variable("XDG_CACHE_HOME").filter(absolute);
    let cache = cache.or_else(|| Some(variable("HOME").filter(absolute)?.join(".cache")))?;
    Some(cache.join("pipeplug").join("commands.json"))
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            size: file.size(),
            device: file.dev(),
            inode: file.ino(),
            modified: (file.mtime(), file.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_changed_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let (file, plugin) = (dir.path().join("cache/commands.json"), dir.path().join("plugin"));
        fs::write(&plugin, "a").unwrap();
        note(&file, &plugin, vec!["spell.suggest".into()]).unwrap();
        let known = || {
            let mut kept = load(&file);
            let entry = kept.plugins.remove(fs::canonicalize(&plugin).ok()?.to_str()?)?;
            (entry.stamp == Stamp::of(&plugin)?).then_some(entry.commands)
        };
        assert_eq!(known(), Some(vec!["spell.suggest".into()]));
        fs::write(&plugin, "ab").unwrap();
        assert_eq!(known(), None);
    }

    #[test]
    fn the_oldest_plugin_is_forgotten_and_a_broken_file_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("commands.json");
        fs::write(&file, "{").unwrap();
        for number in 0..=PLUGINS_MAX {
            let plugin = dir.path().join(number.to_string());
            fs::write(&plugin, "").unwrap();
            note(&file, &plugin, vec!["x".into()]).unwrap();
        }
        assert_eq!(load(&file).plugins.len(), PLUGINS_MAX);
        fs::write(&file, r#"{"version":0,"plugins":{}}"#).unwrap();
        assert!(load(&file).plugins.is_empty());
    }

    #[test]
    fn the_cache_directory_is_that_of_the_user() {
        let with = |name: &'static str, dir: &'static str| {
            file(|asked| (asked == name).then(|| PathBuf::from(dir)))
        };
        assert_eq!(with("XDG_CACHE_HOME", "/c"), Some("/c/pipeplug/commands.json".into()));
        assert_eq!(with("HOME", "/h"), Some("/h/.cache/pipeplug/commands.json".into()));
        assert_eq!(with("HOME", "h"), None);
    }
}
