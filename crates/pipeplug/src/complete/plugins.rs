//! Candidates for PLUGIN and for DATA.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter as _};
use pipeplug_host::discovery::{Discovery, EntryState, Store};

use super::line::{Line, is_plain};
use crate::builtin;

/// Plugins that begin with `current`: installed ones, built-in ones, and executable files.
pub(super) fn candidates(line: &Line, current: &OsStr) -> Vec<CompletionCandidate> {
    let text = current.to_string_lossy();
    if text.contains('/') {
        return executables(current);
    }
    let host = line.host();
    let subcommand = line.subcommand();
    let subcommand = subcommand.as_deref().unwrap_or_default();
    let mut found: Vec<_> = if subcommand == "rm" {
        added(&host)
    } else {
        Discovery::for_host(&host)
            .list()
            .into_iter()
            .filter(|entry| is_usable(&entry.state))
            .map(|entry| entry.name)
            .collect()
    };
    found.retain(|name| name.starts_with(&*text) && is_plain(name));
    found.sort();
    found.dedup();
    let mut all: Vec<_> = found.into_iter().map(CompletionCandidate::new).collect();
    if !["rm", "add", "pack", "pin"].contains(&subcommand) {
        let built_in =
            builtin::ALL.iter().filter(|plugin| format!("@{}", plugin.name).starts_with(&*text));
        all.extend(built_in.map(|plugin| {
            CompletionCandidate::new(format!("@{}", plugin.name))
                .help(Some(plugin.description.into()))
        }));
    }
    if subcommand != "rm" && !text.starts_with('@') {
        all.extend(here(current));
    }
    all
}

/// Files that DATA names, as `@FILE`.
pub(super) fn data_files(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(file) = current.to_str().and_then(|text| text.strip_prefix('@')) else {
        return Vec::new();
    };
    let files = PathCompleter::file().complete(OsStr::new(file));
    files.into_iter().map(|file| file.add_prefix("@")).collect()
}

/// Plugins that were added.
fn added(host: &str) -> Vec<String> {
    let added = Store::for_host(host).ok().and_then(|store| store.added().ok());
    added.unwrap_or_default().into_keys().collect()
}

fn is_usable(state: &EntryState) -> bool {
    matches!(state, EntryState::Usable)
}

fn executables(current: &OsStr) -> Vec<CompletionCandidate> {
    PathCompleter::any().filter(is_executable).complete(current)
}

/// Executables of the working directory, with the slash that makes a path of a name.
fn here(current: &OsStr) -> Vec<CompletionCandidate> {
    let path: OsString = [OsStr::new("./"), current].into_iter().collect();
    executables(&path)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
