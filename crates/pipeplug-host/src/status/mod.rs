//! Status of running plugins: what the hosts of a user publish, for `pipeplug top` and other programs.
//!
//! A host opts in with [`PluginBuilder::publish_status`](crate::PluginBuilder::publish_status). Once
//! a second it then writes a small file into [`directory`], which only the user may read, and
//! removes it at the end. The file of a host that was killed is removed by the next reader.
//!
//! ```no_run
//! for host in pipeplug_host::status::read()?.hosts {
//!     for plugin in host.plugins {
//!         println!("{} of {}: {} calls in flight", plugin.name, host.name, plugin.in_flight);
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```

mod directory;
mod file;
mod process;
mod publish;
mod row;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use directory::directory;
pub use file::read;
pub(crate) use publish::{Published, publish};
pub(crate) use row::Row;

/// Opting in of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Publish {
    #[default]
    No,
    Yes,
    /// The supervisor publishes the process as its own.
    BySupervisor,
}

/// The hosts of this user that publish their plugins.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Hosts {
    /// The hosts, by name and process id.
    pub hosts: Vec<HostStatus>,
    /// Files that cannot be read as the status of a host.
    pub problems: Vec<FileProblem>,
}

/// A file that cannot be read as the status of a host.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct FileProblem {
    /// Path of the file.
    pub file: PathBuf,
    /// The reason, in words.
    pub problem: String,
}

/// A host that runs.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct HostStatus {
    /// Name of its program. Any host of the user may write any text here.
    pub name: String,
    /// Its process id.
    pub pid: i32,
    /// True if it has written nothing for some seconds: it is stopped or hangs, or its machine
    /// slept.
    pub is_silent: bool,
    /// Resident memory of the host, without its plugins, in bytes. `None` where the system does not
    /// tell.
    pub memory: Option<u64>,
    /// Its plugins, in the order in which they were started.
    pub plugins: Vec<PluginStatus>,
}

/// A plugin of a host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct PluginStatus {
    /// Name of the plugin. Any host of the user may write any text here.
    pub name: String,
    /// Id of its process, of the client for a plugin that runs elsewhere. `None` while there is
    /// none.
    pub pid: Option<i32>,
    /// Time of the start of that process, in clock ticks since boot: proc_pid_stat(5).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// `starting`, `running`, or `ended`. Of a supervisor also `down` (the next call starts it),
    /// `stopping`, `restarting` (it failed, and waits for its restart), `gave up`, and `stopped`.
    /// Newer versions may have more.
    pub state: String,
    /// Open calls of the host.
    pub in_flight: u64,
    /// Calls that had a reply since the start of the process.
    pub calls: u64,
    /// Replies in a second, over the last second.
    pub calls_per_s: f64,
    /// Time in microseconds within which half of the calls had their replies, of the last second
    /// with replies; exact to an eighth.
    pub p50_us: Option<f64>,
    /// The same for 99 of 100 calls.
    pub p99_us: Option<f64>,
    /// Starts by a supervisor after the first one.
    pub restarts: u64,
    /// Seconds since the start of the process.
    pub uptime_s: f64,
    /// Launcher, for a plugin that runs elsewhere.
    pub launcher: Option<String>,
    /// Resident memory of the process and its descendants, in bytes. `None` where the system does
    /// not tell, and for a plugin that runs elsewhere.
    pub memory: Option<u64>,
}
