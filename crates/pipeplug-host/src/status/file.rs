//! Files of hosts: written as a whole, and read with limits, since a host of another version or a
//! hostile one may have written them.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::directory::{check, prepare};
use super::{FileProblem, HostStatus, Hosts, PluginStatus, directory, process};
use crate::files::RegularFile;

/// Version of the format. Newer ones add keys.
const VERSION: u64 = 1;
/// Limit of a file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// Limit of the files that are looked at.
const FILES_AT_MOST: usize = 1000;
/// Limit of a name, in bytes.
const NAME_MAX: usize = 200;
/// Age of a file whose host is silent.
const SILENT: Duration = Duration::from_secs(5);
/// End of the name of a file that is being written.
const UNFINISHED: &str = ".new";

/// Content of the file of a host.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct HostFile {
    version: u64,
    name: String,
    plugins: Vec<PluginStatus>,
    /// Number of plugins that were left out.
    left_out: usize,
}

impl HostFile {
    pub(super) fn new(mut plugins: Vec<PluginStatus>, left_out: usize) -> Self {
        for plugin in &mut plugins {
            truncate(&mut plugin.name);
            plugin.launcher.as_mut().map(truncate);
        }
        let program = std::env::current_exe().ok();
        let name = program.as_deref().and_then(Path::file_name).map(OsStr::to_string_lossy);
        let mut name = name.map_or_else(|| "host".to_owned(), String::from);
        truncate(&mut name);
        Self { version: VERSION, name, plugins, left_out }
    }
}

/// Name of the file of a process.
pub(super) fn name(pid: i32, begun: u64) -> String {
    format!("{pid}-{begun}.json")
}

/// Replaces the file as a whole.
pub(super) fn write(path: &Path, content: &HostFile) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    prepare(dir)?;
    let unfinished = path.with_extension(format!("json{UNFINISHED}"));
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // Not fsync(2): after a power cut there is no such host.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(&unfinished)
        .map_err(named)?;
    file.write_all(&serde_json::to_vec(content)?).map_err(named)?;
    fs::rename(&unfinished, path).map_err(named)
}

/// Reads the status of all hosts of this user, and removes the files of hosts that have ended.
///
/// # Errors
/// The [`directory`] cannot be read, belongs to another user, or is open to other users.
pub fn read() -> io::Result<Hosts> {
    let dir = directory();
    match check(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Hosts::default()),
        checked => checked?,
    }
    let mut hosts = Hosts::default();
    for (path, process) in sweep(&dir) {
        let found = match process {
            Some((pid, _)) => read_host(&path, pid),
            None => Err("this is no file of a host; remove it".to_owned()),
        };
        match found {
            Ok(host) => hosts.hosts.extend(host),
            Err(problem) => hosts.problems.push(FileProblem { file: path, problem }),
        }
    }
    hosts.hosts.sort_by(|one, other| (&one.name, one.pid).cmp(&(&other.name, other.pid)));
    hosts.problems.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(hosts)
}

/// Process id, and time of the start.
type Process = (i32, u64);

/// Removes the files of processes that have ended, and returns the others, with their processes if
/// their names tell.
pub(super) fn sweep(dir: &Path) -> Vec<(std::path::PathBuf, Option<Process>)> {
    let mut left = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().take(FILES_AT_MOST) {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        let finished = name.strip_suffix(UNFINISHED);
        match process_of(finished.unwrap_or(&name)) {
            Some((pid, begun)) if !process::runs(pid, begun) => {
                // Another reader may be quicker.
                let _ = fs::remove_file(path);
            }
            _ if finished.is_some() => {}
            process => left.push((path, process)),
        }
    }
    left
}

fn process_of(name: &str) -> Option<Process> {
    let (pid, begun) = name.strip_suffix(".json")?.split_once('-')?;
    Some((pid.parse().ok()?, begun.parse().ok()?))
}

/// Reads the file of one host. `None` if it has ended meanwhile.
fn read_host(path: &Path, pid: i32) -> Result<Option<HostStatus>, String> {
    let file = match RegularFile::open(path) {
        Err(crate::files::FileError::System(error)) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        opened => opened.map_err(|error| error.to_string())?,
    };
    let metadata = file.metadata();
    if metadata.uid() != geteuid().as_raw() {
        return Err(format!("it belongs to user {}, not to you", metadata.uid()));
    }
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    let is_silent = age.is_some_and(|age| age > SILENT);
    let bytes = file.read(FILE_MAX).map_err(|error| error.to_string())?;
    let HostFile { version, mut name, mut plugins, .. } =
        serde_json::from_slice(&bytes).map_err(|error| match newer_version(&bytes) {
            Some(version) => format!(
                "it has version {version} of the format, and this program knows {VERSION}: update it"
            ),
            None => format!("it is not the status of a host: {error}"),
        })?;
    if version == 0 {
        return Err("it is not the status of a host: it has no version".to_owned());
    }
    truncate(&mut name);
    for plugin in &mut plugins {
        truncate(&mut plugin.name);
        truncate(&mut plugin.state);
        let process = plugin.pid.filter(|_| plugin.launcher.is_none());
        // The number may be another process's by now.
        let process =
            process.filter(|pid| plugin.started.is_some_and(|at| process::runs(*pid, at)));
        plugin.memory = process.and_then(process::memory_with_descendants);
    }
    Ok(Some(HostStatus { name, pid, is_silent, memory: process::memory(pid), plugins }))
}

/// Version of a file, if it is newer than this program.
fn newer_version(bytes: &[u8]) -> Option<u64> {
    let content: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    content.get("version")?.as_u64().filter(|version| *version > VERSION)
}

fn truncate(text: &mut String) {
    if text.len() > NAME_MAX {
        let end = (0..=NAME_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
}
