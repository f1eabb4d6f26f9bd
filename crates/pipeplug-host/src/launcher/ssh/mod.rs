//! Plugins on another machine, by the user's own ssh.

mod diagnose;
mod probe;
mod remote;

use std::ffi::OsString;
use std::time::Duration;

use self::probe::Version;
use super::client::{self, ClientCommand};
use super::{Diagnosis, Launcher, Started};
use crate::process::{Launch, SpawnError, SpawnErrorKind, WaitStatus};

/// Time that asking the login shell may take beyond that of connecting.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs a plugin on another machine, by the user's own `ssh`, with its configuration, agent and
/// known hosts.
///
/// The plugin's path is one of that machine: from its home directory where it is relative, looked
/// for in its `PATH` where it has no slash. What [`PluginBuilder::env`](crate::PluginBuilder::env)
/// sets, and the working directory, go with it; nothing of the host's environment does. The login
/// shell there may be any that runs `exec /bin/sh -c '…'`: of that, and of arguments, variables and
/// paths, it has nothing to interpret. All of these together take a command line of 128 KiB at
/// most, in which a letter or a digit is one byte, and most other characters five.
///
/// ssh asks no questions (`BatchMode`): a key that needs a passphrase has to be in the agent, and
/// the machine's own key has to be known. Options of the configuration that would break a plugin
/// are overridden (`RequestTTY`, `RemoteCommand`, `StdinNull`, `SessionType`, `LocalCommand` and
/// their like). A connection of the user's that is shared (`ControlPath`) is used, none is left
/// behind. The plugin can reach neither the user's agent nor ports or display of this machine. Its
/// input ends when the connection does, by which it ends.
///
/// ```no_run
/// use pipeplug_host::Plugin;
/// use pipeplug_host::launcher::Ssh;
///
/// let plugin = Plugin::builder("/opt/plugins/echo").launcher(Ssh::new("user@build.example")).start()?;
/// # Ok::<(), pipeplug_host::StartError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Ssh {
    destination: OsString,
    client: ClientCommand,
    connect_timeout: Duration,
    alive_interval: Duration,
    alive_count: u32,
}

impl Ssh {
    /// The other machine as `ssh` takes it: `host`, `user@host`, `ssh://user@host:2222`, or a name
    /// of the configuration.
    pub fn new(destination: impl Into<OsString>) -> Self {
        Self {
            destination: destination.into(),
            client: ClientCommand::new("ssh"),
            connect_timeout: Duration::from_secs(8),
            alive_interval: Duration::from_secs(15),
            alive_count: 2,
        }
    }

    /// The program to run, which is looked for in `PATH` unless it has a slash. Default: `ssh`. It
    /// is asked for its version before each start, by `-V`.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.client.program = program.into();
        self
    }

    /// Adds an argument of ssh: an option such as `-p` or `-oIdentityFile=…`, before those that are
    /// set here, so that it wins.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.client.options.push(arg.into());
        self
    }

    /// More arguments of ssh.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.client.options.extend(args.into_iter().map(Into::into));
        self
    }

    /// Time to connect, in whole seconds, rounded up, at least one. Default: 8 seconds, less than
    /// the 10 of a start, so that the error is that of ssh.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// After how long a silence ssh asks the other machine whether it is there, in whole seconds,
    /// rounded up; zero for never. Default: 15 seconds.
    #[must_use]
    pub fn alive_interval(mut self, interval: Duration) -> Self {
        self.alive_interval = interval;
        self
    }

    /// Number of these questions that may stay unanswered. ssh gives the connection up when it
    /// would ask once more: after a silence of the interval times one more than this number.
    /// Default: 2, so that a connection is lost after 45 seconds.
    #[must_use]
    pub fn alive_count(mut self, count: u32) -> Self {
        self.alive_count = count;
        self
    }

    /// Longest time of connecting, in whole seconds, for ssh has no others.
    fn connect_seconds(&self) -> u64 {
        client::whole_seconds(self.connect_timeout).max(1)
    }

    /// The arguments of ssh but for the remote command. They stand against what the configuration
    /// says, for ssh takes the first value that it is given of each option, and those of the
    /// command line before those of its files.
    ///
    /// Options that are younger than the oldest ssh that is in use are given to those that have
    /// them only; elsewhere the configuration cannot have them either. (`IgnoreUnknown` is no way
    /// out: it would take the place of the user's own.)
    fn options(&self, version: Option<Version>) -> Vec<OsString> {
        let mut args = self.client.command([
            "-T".into(),
            "-oBatchMode=yes".into(),
            format!("-oConnectTimeout={}", self.connect_seconds()).into(),
            // Each would have the whole time.
            "-oConnectionAttempts=1".into(),
            format!("-oServerAliveInterval={}", client::whole_seconds(self.alive_interval)).into(),
            format!("-oServerAliveCountMax={}", self.alive_count).into(),
            // A plugin is not to be what other connections of the user depend on.
            "-oControlMaster=no".into(),
            "-oClearAllForwardings=yes".into(),
            "-oForwardAgent=no".into(),
            "-oForwardX11=no".into(),
            "-oTunnel=no".into(),
            // A command that is run here for each login: its output would be the plugin's.
            "-oPermitLocalCommand=no".into(),
            "-oEscapeChar=none".into(),
            // Its lines tell what went wrong; that a server has fallen silent is no error to ssh.
            "-oLogLevel=INFO".into(),
            "-oVisualHostKey=no".into(),
        ]);
        let newer: [(Version, &str); 5] = [
            // One of the configuration stands against ours.
            ((7, 6), "-oRemoteCommand=none"),
            ((8, 7), "-oSessionType=default"),
            ((8, 7), "-oStdinNull=no"),
            ((8, 7), "-oForkAfterAuthentication=no"),
            // A plugin that is idle is to stay.
            ((9, 6), "-oChannelTimeout=none"),
        ];
        let has = |since| version.is_some_and(|version| version >= since);
        args.extend(
            newer.into_iter().filter(|(since, _)| has(*since)).map(|(_, option)| option.into()),
        );
        // The destination may begin with a dash, and be no option.
        args.extend(["--".into(), self.destination.clone()]);
        args
    }

    fn run(&self, launch: &Launch) -> Result<Started, SpawnErrorKind> {
        let line = remote::command_line(launch)?;
        let mut args = self.options(probe::version(&self.client.program));
        args.push(line);
        let client = client::launch(launch, &self.client.program, args)?;
        client::start(&client, self)
    }
}

impl Launcher for Ssh {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        self.run(launch).map_err(|kind| kind.at(&launch.program))
    }

    fn describe(&self) -> Option<String> {
        Some(format!("on {} (ssh)", self.destination.to_string_lossy()))
    }

    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        diagnose::of_start(self, status, stderr)
    }

    fn diagnose_end(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        diagnose::of_end(status, stderr)
    }

    /// Logs in once more, to run nothing: what is printed then is not the plugin's.
    fn diagnose_output(&self) -> Option<Diagnosis> {
        let mut args = self.options(probe::version(&self.client.program));
        args.push("exec /bin/sh -c :".into());
        let timeout = Duration::from_secs(self.connect_seconds()) + LOGIN_TIMEOUT;
        let line = probe::first_line(&self.client.program, args, timeout)?;
        Some(Diagnosis::permanent(format!(
            "its login shell there prints to standard output, which is for messages: \"{}\"; let \
             its startup files (.bashrc, .zshenv, .cshrc, config.fish) print only to a terminal, \
             so that `ssh {} true` prints nothing",
            line.escape_ascii(),
            self.destination.to_string_lossy(),
        )))
    }
}
