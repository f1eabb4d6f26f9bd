//! Clients: programs of this machine that carry a plugin's pipes to where it runs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

#[cfg(any(feature = "containers", feature = "kubectl"))]
use super::cleanup::{Cleanup, Removal};
use super::{Launcher, Started};
use crate::files::may_execute;
use crate::process::{
    Channel, EnvPlan, Launch, OnHostExit, SpawnError, SpawnErrorKind, Spawned, Stdin, check_names,
    spawn_with,
};

/// A client as the user set it: its program, and the options of every command of it.
#[cfg(any(feature = "kubectl", feature = "ssh"))]
#[derive(Debug, Clone)]
pub(super) struct ClientCommand {
    pub(super) program: OsString,
    pub(super) options: Vec<OsString>,
}

#[cfg(any(feature = "kubectl", feature = "ssh"))]
impl ClientCommand {
    pub(super) fn new(program: &str) -> Self {
        Self { program: program.into(), options: Vec::new() }
    }

    /// The options, and these arguments behind them.
    pub(super) fn command(&self, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        self.options.iter().cloned().chain(args).collect()
    }
}

/// The plugin's path, if it takes one, and arguments: it talks over its standard input and output,
/// for these are what is carried.
pub(super) fn command_line(launch: &Launch) -> Vec<OsString> {
    let mut plugin = launch.clone();
    plugin.channel = Channel::Stdio;
    let path = (!launch.is_preinstalled).then(|| launch.program.clone().into_os_string());
    path.into_iter().chain(plugin.arguments()).collect()
}

/// The variables that go with the plugin to where the host's environment does not.
pub(super) fn variables(launch: &Launch) -> Result<BTreeMap<OsString, OsString>, SpawnErrorKind> {
    check_names(launch)?;
    Ok(launch.env.added())
}

/// Start of the client: the host's environment and working directory, and only its own arguments.
pub(super) fn launch(
    plugin: &Launch,
    program: &OsStr,
    args: Vec<OsString>,
) -> Result<Launch, SpawnErrorKind> {
    if let Channel::Pipes { stdin: Stdin::Inherit, .. } = plugin.channel {
        return Err(SpawnErrorKind::BadArgument {
            what: "the host's standard input".to_owned(),
            reason: "its launcher uses it for the messages",
        });
    }
    let path = find(program).ok_or_else(|| SpawnErrorKind::NoClient {
        client: program.to_string_lossy().into_owned(),
    })?;
    let mut client = tool(path);
    client.args = args;
    client.on_host_exit = plugin.on_host_exit;
    Ok(client)
}

/// A program of the user's own, such as an engine's client: with all of the host's environment,
/// which says what it talks to, and left to itself when the host ends.
pub(super) fn tool(path: impl Into<PathBuf>) -> Launch {
    let mut tool = Launch::new(path);
    tool.channel = Channel::Stdio;
    tool.env = EnvPlan::inherit();
    tool.on_host_exit = OnHostExit::EndOfFile;
    tool
}

/// Starts the client. An error is told as the plugin's.
pub(super) fn start(client: &Launch, launcher: &dyn Launcher) -> Result<Started, SpawnErrorKind> {
    spawn(client).map(Started::from).map_err(|error| failed(launcher, &error))
}

/// Starts a client whose container or pod has to be removed at the end. An error is told as the
/// plugin's.
#[cfg(any(feature = "containers", feature = "kubectl"))]
pub(super) fn start_with_cleanup(
    plugin: &Launch,
    client: &Launch,
    launcher: &dyn Launcher,
    removal: Removal,
) -> Result<(Spawned, Cleanup), SpawnErrorKind> {
    // The cleanup comes first, so that there is no moment in which a container or pod has none.
    Cleanup::arm(removal, plugin.on_host_exit)
        .and_then(|cleanup| Ok((spawn(client)?, cleanup)))
        .map_err(|error| failed(launcher, &error))
}

fn spawn(client: &Launch) -> Result<Spawned, SpawnError> {
    // None of its arguments is a plugin's, of which the first two might have to be explained.
    spawn_with(client, client.args.clone())
}

fn failed(launcher: &dyn Launcher, error: &SpawnError) -> SpawnErrorKind {
    SpawnErrorKind::launcher(launcher.describe(), error.to_string(), error.is_permanent())
}

/// Writes to a pipe whose reader may be gone.
///
/// A SIGPIPE, which not every host ignores, goes to the thread that wrote. So `write` runs on a
/// thread of its own, which blocks the signal and takes it along when it ends.
pub(super) fn without_sigpipe(
    thread_name: &str,
    write: impl FnOnce() -> io::Result<()> + Send,
) -> io::Result<()> {
    let write = || {
        SigSet::from(Signal::SIGPIPE).thread_block()?;
        write()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(thread_name.into()).spawn_scoped(scope, write)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that writes panicked")))
    })
}

/// A program as a shell finds it.
pub(super) fn find(program: &OsStr) -> Option<PathBuf> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(program.into());
    }
    if program.is_empty() {
        return None;
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.is_file() && may_execute(path)
}

/// Rounds up to whole seconds, for programs that take no fractions.
#[cfg(any(feature = "kubectl", feature = "ssh"))]
pub(super) fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// A name that no other container or pod has.
#[cfg(any(feature = "containers", feature = "kubectl"))]
pub(super) fn unused_name() -> String {
    format!("pipeplug-{}-{:016x}", std::process::id(), fastrand::u64(..))
}
