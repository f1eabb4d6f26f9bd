//! Clients: programs of this machine that carry a plugin's pipes to where it runs.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::{Launcher, Started};
use crate::files::may_execute;
use crate::process::{
    Channel, EnvPlan, Launch, OnHostExit, SpawnErrorKind, Stdin, check_names, spawn_with,
};

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
            reason: "what carries it to where it runs has one only, for the messages",
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

/// Starts it; that it cannot be started is told as the plugin's.
pub(super) fn start(client: &Launch, launcher: &dyn Launcher) -> Result<Started, SpawnErrorKind> {
    // None of its arguments is a plugin's, of which the first two might have to be explained.
    spawn_with(client, client.args.clone()).map(Started::from).map_err(|error| {
        let permanent = error.is_permanent();
        SpawnErrorKind::launcher(launcher.describe(), error.to_string(), permanent)
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
