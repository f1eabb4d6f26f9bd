//! The places where plugins are by custom.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Problem;

/// Directories to search, and those that the environment names but that must not be searched.
pub(super) struct Places {
    pub(super) dirs: Vec<PathBuf>,
    pub(super) rejected: Vec<(PathBuf, Problem)>,
}

/// A base directory of the user: its variable, and where it is below the home directory without
/// that.
///
/// The XDG Base Directory Specification, 0.8: a relative path in the variable is to be ignored.
#[derive(Clone, Copy)]
pub(super) struct Base {
    variable: &'static str,
    below_home: &'static str,
}

pub(super) const DATA: Base = Base { variable: "XDG_DATA_HOME", below_home: ".local/share" };
pub(super) const CACHE: Base = Base { variable: "XDG_CACHE_HOME", below_home: ".cache" };

pub(super) fn usual(host: &str, env: impl Fn(&str) -> Option<OsString>) -> Places {
    let mut dirs = Vec::new();
    let mut rejected = Vec::new();
    // An empty variable counts as unset.
    let path = env("PIPEPLUG_PATH").filter(|path| !path.is_empty());
    for dir in path.iter().flat_map(env::split_paths) {
        if dir.is_absolute() {
            dirs.push(dir);
        } else if dir.as_os_str().is_empty() {
            rejected.push((dir, Problem::EmptyPlace));
        } else {
            rejected.push((dir, Problem::RelativePlace));
        }
    }
    let plugins = |root: &Path| root.join(host).join("plugins");
    dirs.extend(DATA.dir(env).map(|(root, _)| plugins(&root)));
    dirs.push(plugins(Path::new("/usr/local/lib")));
    dirs.push(plugins(Path::new("/usr/lib")));
    Places { dirs, rejected }
}

/// A host's directory below a base directory, to be written to. A home directory that does not
/// exist is not made: it is the name of none.
pub(super) fn user_dir(
    base: Base,
    host: &str,
    env: impl Fn(&str) -> Option<OsString>,
) -> Option<PathBuf> {
    let (dir, home) = base.dir(env)?;
    home.is_none_or(|home| home.is_dir()).then(|| dir.join(host))
}

impl Base {
    /// The directory, and the home directory where that follows from it.
    fn dir(self, env: impl Fn(&str) -> Option<OsString>) -> Option<(PathBuf, Option<PathBuf>)> {
        let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        match absolute(self.variable) {
            Some(dir) => Some((dir, None)),
            None => absolute("HOME").map(|home| (home.join(self.below_home), Some(home))),
        }
    }
}
