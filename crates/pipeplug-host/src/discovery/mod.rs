//! Finding plugins by name.
//!
//! [`Discovery`] looks for executables in a list of directories, as a shell does with `PATH`. A
//! host with other ways implements [`Discover`]. A [`Catalog`] has what the plugins say of
//! themselves too, and a [`Store`] is where the user's own ones are added.

mod cache;
mod catalog;
mod probe;
mod problem;
mod search_path;
mod similar;
mod starts;
mod store;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub use catalog::{Catalog, CatalogEntry, Freshness, ProbeResult, Progress};
pub use probe::{PluginInfo, Transport};
pub use problem::{FindError, FindErrorKind, Problem};
pub use similar::nearest as nearest_name;
pub use store::{AddError, InstallMode, InstallRecord, OnConflict, RemoveError, Store, StoreError};

use self::cache::Cache;

/// A way to find plugins.
pub trait Discover {
    /// Finds the plugin of that name.
    ///
    /// # Errors
    /// See [`FindError`].
    fn find(&self, name: &str) -> Result<Found, FindError>;

    /// Lists all there is, usable or not.
    fn list(&self) -> Vec<Entry>;
}

/// Finds the executables `<host>-<name>` in a list of directories, of which earlier ones win.
///
/// [`Discovery::for_host`] searches, in this order:
///
/// 1. each directory of `PIPEPLUG_PATH`, which are separated by colons,
/// 2. `$XDG_DATA_HOME/<host>/plugins`, or `~/.local/share/<host>/plugins`,
/// 3. `/usr/local/lib/<host>/plugins`,
/// 4. `/usr/lib/<host>/plugins`.
///
/// A directory that does not exist is passed over in silence. An entry of `PIPEPLUG_PATH` that is
/// empty or relative is never searched, since it would mean whatever directory the host happens to
/// be in; [`list`](Self::list) shows it as a problem.
///
/// ```
/// use pipeplug_host::discovery::{Discovery, FindErrorKind};
///
/// let empty = tempfile::tempdir()?;
/// let plugins = Discovery::for_host("editor").with_dirs([empty.path()]);
/// let error = plugins.find("spell").unwrap_err();
/// assert!(matches!(error.kind(), FindErrorKind::NotFound { .. }));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Discovery {
    prefix: String,
    dirs: Vec<PathBuf>,
    rejected: Vec<(PathBuf, Problem)>,
    /// The user's own plugins of this host; `None` without a data directory.
    store: Option<Store>,
    /// Cached answers of plugins; `None` without a cache directory.
    cache: Option<Cache>,
}

/// A plugin that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The executable.
    pub path: PathBuf,
    /// Files of that name in earlier directories that cannot be used, with the reason.
    pub passed_over: Vec<(PathBuf, Problem)>,
}

impl Found {
    /// A plugin at `path`, with nothing passed over.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), passed_over: Vec::new() }
    }
}

/// Entry of a search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of the plugin; empty where the problem is a whole directory or a nameless file.
    pub name: String,
    /// The file, or the directory with a problem.
    pub path: PathBuf,
    /// Tells whether the name leads to this file.
    pub state: EntryState,
}

/// Relation between a plugin's name and a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryState {
    /// The name leads to this file.
    Usable,
    /// The name leads to another file, in an earlier directory.
    Shadowed {
        /// Path of the other file.
        by: PathBuf,
    },
    /// The file or directory cannot be used.
    Unusable(Problem),
}

impl Discovery {
    /// Searches the usual places for the plugins of `host`, as the environment of this process
    /// says.
    #[must_use]
    pub fn for_host(host: &str) -> Self {
        Self::for_host_in(host, |name| std::env::var_os(name))
    }

    /// Like [`for_host`](Self::for_host), with `env` for the environment.
    #[must_use]
    pub fn for_host_in(host: &str, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let places = search_path::usual(host, &env);
        // A host of a name that has none does without them.
        let store = Store::for_host_in(host, &env).ok();
        let cache = store.as_ref().and(search_path::user_dir(search_path::CACHE, host, &env));
        let empty = Self {
            prefix: format!("{host}-"),
            dirs: Vec::new(),
            rejected: places.rejected,
            store,
            cache: cache.map(|dir| Cache::at(dir.join("pipeplug.json"))),
        };
        places.dirs.into_iter().fold(empty, Self::append)
    }

    /// Searches these directories and no other.
    #[must_use]
    pub fn with_dirs<D: Into<PathBuf>>(mut self, dirs: impl IntoIterator<Item = D>) -> Self {
        self.dirs.clear();
        self.rejected.clear();
        dirs.into_iter().fold(self, Self::append)
    }

    /// Searches `dir` before all others.
    #[must_use]
    pub fn prepend(mut self, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        self.dirs.retain(|known| *known != dir);
        self.dirs.insert(0, dir);
        self
    }

    /// Searches `dir` after all others, unless it is one of them.
    #[must_use]
    pub fn append(mut self, dir: impl Into<PathBuf>) -> Self {
        let dir = dir.into();
        if !self.dirs.contains(&dir) {
            self.dirs.push(dir);
        }
        self
    }

    /// The directories that are searched, in their order.
    #[must_use]
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Finds the plugin of that name: the first usable file, whatever unusable ones come before it.
    ///
    /// # Errors
    /// See [`FindError`].
    pub fn find(&self, name: &str) -> Result<Found, FindError> {
        self.look_up(name).map_err(|kind| FindError::new(name, kind))
    }

    fn look_up(&self, name: &str) -> Result<Found, FindErrorKind> {
        if !problem::is_name(name) {
            return Err(FindErrorKind::BadName);
        }
        let mut passed_over = Vec::new();
        for dir in &self.dirs {
            let path = dir.join(format!("{}{name}", self.prefix));
            match problem::check_file(&path) {
                Ok(()) => return Ok(Found { path, passed_over }),
                Err(Some(problem)) => passed_over.push((path, problem)),
                Err(None) => {}
            }
        }
        // A file that cannot be looked at, because of the directories above it, may not even be
        // there.
        if passed_over.iter().any(|(_, problem)| !matches!(problem, Problem::Inaccessible { .. })) {
            return Err(FindErrorKind::Unusable { problems: passed_over });
        }
        Err(self.not_found(name, passed_over))
    }

    /// Lists all plugins, usable or not, by name and then by place, with the problems of places
    /// first.
    #[must_use]
    pub fn list(&self) -> Vec<Entry> {
        let mut entries: Vec<_> = self
            .rejected
            .iter()
            .map(|(path, problem)| Entry::unusable("", path, problem.clone()))
            .collect();
        for dir in &self.dirs {
            match self.list_dir(dir) {
                Ok(found) => entries.extend(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => entries.push(Entry::unusable("", dir, Problem::of_directory(&error))),
            }
        }
        // Stable, so that what has the same name stays in the order of its places.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        shadow(&mut entries);
        entries
    }

    /// The same plugins, with what each says of itself.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        Catalog::new(self.clone())
    }

    fn not_found(&self, name: &str, mut skipped: Vec<(PathBuf, Problem)>) -> FindErrorKind {
        let mut usable = Vec::new();
        for entry in self.list() {
            match entry.state {
                EntryState::Usable => usable.push(entry.name),
                EntryState::Unusable(problem) if entry.name.is_empty() => {
                    skipped.push((entry.path, problem))
                }
                EntryState::Unusable(_) | EntryState::Shadowed { .. } => {}
            }
        }
        let similar = similar::nearest(name, usable.iter().map(String::as_str)).map(str::to_owned);
        FindErrorKind::NotFound { searched: self.dirs.clone(), similar, skipped }
    }

    /// The plugins of one directory, by file name; none is shadowed yet.
    fn list_dir(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut files =
            fs::read_dir(dir)?.map(|file| Ok(file?.file_name())).collect::<io::Result<Vec<_>>>()?;
        files.sort();
        Ok(files.iter().filter_map(|file| self.entry(dir, file)).collect())
    }

    /// `None` for a file that is no plugin of this host by its name, or that is gone.
    fn entry(&self, dir: &Path, file: &OsStr) -> Option<Entry> {
        let name = file.as_bytes().strip_prefix(self.prefix.as_bytes())?;
        let path = dir.join(file);
        if is_dependency_file(dir, file) {
            return None;
        }
        let Ok(text) = str::from_utf8(name) else {
            return Some(Entry::unusable(
                &String::from_utf8_lossy(name),
                &path,
                Problem::NameNotUtf8,
            ));
        };
        if text.is_empty() {
            return Some(Entry::unusable("", &path, Problem::NoName));
        }
        match problem::check_file(&path) {
            Ok(()) => Some(Entry { name: text.to_owned(), path, state: EntryState::Usable }),
            Err(Some(problem)) => Some(Entry::unusable(text, &path, problem)),
            Err(None) => None,
        }
    }
}

impl Discover for Discovery {
    fn find(&self, name: &str) -> Result<Found, FindError> {
        Self::find(self, name)
    }

    fn list(&self) -> Vec<Entry> {
        Self::list(self)
    }
}

impl Entry {
    fn unusable(name: &str, path: &Path, problem: Problem) -> Self {
        Self { name: name.to_owned(), path: path.to_owned(), state: EntryState::Unusable(problem) }
    }
}

/// The executable files in a directory, by name, and not those in directories below it.
///
/// # Errors
/// The directory cannot be read.
pub fn executables(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files =
        fs::read_dir(dir)?.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| problem::check_file(file).is_ok());
    files.sort();
    Ok(files)
}

/// Looks for what cargo writes beside an executable in a target directory: `editor-spell.d` names
/// the sources of `editor-spell`. A plugin of such a name, which may be executed, is one.
fn is_dependency_file(dir: &Path, file: &OsStr) -> bool {
    let Some(executable) = file.as_bytes().strip_suffix(b".d") else { return false };
    dir.join(OsStr::from_bytes(executable)).is_file()
        && matches!(problem::check_file(&dir.join(file)), Err(Some(Problem::NotExecutable { .. })))
}

/// Marks all usable files of one name but the first as shadowed.
fn shadow(entries: &mut [Entry]) {
    let mut first: HashMap<String, PathBuf> = HashMap::new();
    for entry in entries.iter_mut().filter(|entry| entry.state == EntryState::Usable) {
        match first.get(&entry.name) {
            Some(by) => entry.state = EntryState::Shadowed { by: by.clone() },
            None => {
                first.insert(entry.name.clone(), entry.path.clone());
            }
        }
    }
}
