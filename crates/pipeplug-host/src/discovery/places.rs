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

pub(super) fn usual(host: &str, env: impl Fn(&str) -> Option<OsString>) -> Places {
    let mut dirs = Vec::new();
    let mut rejected = Vec::new();
    // A variable that is set to nothing is one that somebody wanted to unset.
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
    dirs.extend(data_home(env).map(|root| plugins(&root)));
    dirs.push(plugins(Path::new("/usr/local/lib")));
    dirs.push(plugins(Path::new("/usr/lib")));
    Places { dirs, rejected }
}

/// The XDG Base Directory Specification, 0.8: a relative path in `XDG_DATA_HOME` is to be ignored.
fn data_home(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
}
