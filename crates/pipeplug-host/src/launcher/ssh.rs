//! Plugins on another machine, by the user's own ssh.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use shlex::bytes::Quoter;

use super::{Diagnosis, Launcher, Started, carrier};
use crate::process::{Launch, SpawnError};
use crate::wait_status::WaitStatus;

/// What ssh exits with where it failed itself (ssh(1), EXIT STATUS); a plugin may exit with it too.
const SSH_FAILED: i32 = 255;
/// What the remote shell exits with where the working directory cannot be entered, as `env` does where it fails itself.
const NO_DIRECTORY: i32 = 125;
/// Found, but not executable (POSIX, sh(1p), EXIT STATUS).
const NOT_EXECUTABLE: i32 = 126;
/// Not found (the same).
const NOT_FOUND: i32 = 127;

/// Runs a plugin on another machine, by the user's own `ssh`, with its configuration, agent and known hosts.
///
/// The plugin's path is one of that machine: from its home directory where it is relative, looked for in its `PATH` where
/// it has no slash. What [`Builder::env`](crate::Builder::env) sets, and the working directory, go with it; nothing of
/// the host's environment does. A POSIX shell, or one that knows its quotes, has to be the login shell there.
///
/// Nobody is asked anything (`BatchMode`): a key that needs a passphrase has to be in the agent, and the machine's own key
/// has to be known. A connection of the user's that is shared (`ControlPath`) is used, none is left behind. The
/// plugin can reach neither the user's agent nor ports or display of this machine. Its input ends when the connection
/// does, by which it ends.
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
    program: OsString,
    args: Vec<OsString>,
    connect_timeout: Duration,
    alive_interval: Duration,
    alive_count: u32,
}

impl Ssh {
    /// The other machine as `ssh` takes it: `host`, `user@host`, `ssh://user@host:2222`, or a name of the configuration.
    pub fn new(destination: impl Into<OsString>) -> Self {
        Self {
            destination: destination.into(),
            program: "ssh".into(),
            args: Vec::new(),
            connect_timeout: Duration::from_secs(8),
            alive_interval: Duration::from_secs(15),
            alive_count: 3,
        }
    }

    /// The program to run, which is looked for in `PATH` unless it has a slash. Default: `ssh`.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = program.into();
        self
    }

    /// One more argument of ssh: an option such as `-p` or `-oIdentityFile=…`, ahead of those that are set here, so that
    /// it wins.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments of ssh.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// How long connecting may take, in whole seconds, rounded up, at least one. Default: 8, less than the 10 that a
    /// start may take, so that it is ssh that tells.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// After how long a silence ssh asks the other machine whether it is there, in whole seconds, rounded up; zero for
    /// never. Default: 15 seconds.
    #[must_use]
    pub fn alive_interval(mut self, interval: Duration) -> Self {
        self.alive_interval = interval;
        self
    }

    /// How many of these questions may be left unanswered before the connection counts as lost. Default: 3.
    #[must_use]
    pub fn alive_count(mut self, count: u32) -> Self {
        self.alive_count = count;
        self
    }

    /// The arguments of ssh but for the remote command.
    fn options(&self) -> Vec<OsString> {
        let connect_timeout = carrier::whole_seconds(self.connect_timeout).max(1);
        let mut args = self.args.clone();
        // ssh takes the first value that it is given of each.
        args.extend([
            "-T".into(),
            "-oBatchMode=yes".into(),
            format!("-oConnectTimeout={connect_timeout}").into(),
            format!("-oServerAliveInterval={}", carrier::whole_seconds(self.alive_interval)).into(),
            format!("-oServerAliveCountMax={}", self.alive_count).into(),
            // A plugin is not to be what other connections of the user depend on.
            "-oControlMaster=no".into(),
            "-oClearAllForwardings=yes".into(),
            "-oForwardAgent=no".into(),
            "-oForwardX11=no".into(),
            // One of the configuration stands against ours.
            "-oRemoteCommand=none".into(),
            // What is looked at to tell what went wrong; that a server has fallen silent is no error to ssh.
            "-oLogLevel=INFO".into(),
            // The destination may begin with a dash, and be no option.
            "--".into(),
            self.destination.clone(),
        ]);
        args
    }
}

impl Launcher for Ssh {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        let mut args = self.options();
        args.push(remote_command(launch)?);
        let carrier = carrier::launch(launch, &self.program, args)?;
        carrier::start(launch, &carrier, self)
    }

    fn describe(&self) -> Option<String> {
        Some(format!("on {} (ssh)", self.destination.to_string_lossy()))
    }

    fn diagnose(&self, status: WaitStatus, stderr: &[String]) -> Option<Diagnosis> {
        match status.code()? {
            SSH_FAILED => Some(of_ssh(&self.destination.to_string_lossy(), stderr)),
            NO_DIRECTORY => Some(Diagnosis::permanent(
                "its working directory cannot be entered there, or `env` is missing (status 125)",
            )),
            NOT_EXECUTABLE => Some(Diagnosis::permanent(
                "it is there, but cannot be executed (status 126): run `chmod +x` on it, or build it for that machine",
            )),
            NOT_FOUND => Some(Diagnosis::permanent(
                "there is no such program there (status 127): copy it there; a relative path begins at the home \
                 directory, a name without a slash is looked for in `PATH`",
            )),
            _ => None,
        }
    }
}

/// The line for the login shell.
fn remote_command(launch: &Launch) -> Result<OsString, SpawnError> {
    let mut line = Vec::new();
    if let Some(cwd) = &launch.cwd {
        line.extend(b"cd ");
        line.extend(quote(launch, cwd.as_os_str())?);
        line.extend(format!(" || exit {NO_DIRECTORY}; ").into_bytes());
    }
    line.extend(b"exec");
    let mut words = carrier::command_line(launch);
    let variables = carrier::variables(launch)?;
    if !variables.is_empty() {
        if launch.program.as_os_str().as_bytes().contains(&b'=') {
            return Err(SpawnError::BadArgument {
                path: launch.program.clone(),
                what: "variables of its environment".to_owned(),
                reason: "`env` on the other machine would take a path with a `=` for one",
            });
        }
        let assignments = variables.into_iter().map(|(name, value)| {
            let mut pair = name.to_owned();
            pair.push("=");
            pair.push(value);
            pair
        });
        words.splice(..0, ["env".into()].into_iter().chain(assignments));
    }
    for word in words {
        line.push(b' ');
        line.extend(quote(launch, &word)?);
    }
    Ok(OsString::from_vec(line))
}

fn quote(launch: &Launch, word: &OsStr) -> Result<Vec<u8>, SpawnError> {
    let quoted = Quoter::new().quote(word.as_bytes()).map_err(|_| SpawnError::BadArgument {
        path: launch.program.clone(),
        what: format!("{word:?}"),
        reason: "it holds a NUL byte",
    })?;
    Ok(quoted.into_owned())
}

/// What ssh's own failure was, by what it prints (its messages are not translated).
fn of_ssh(destination: &str, stderr: &[String]) -> Diagnosis {
    let says = |text: &str| stderr.iter().any(|line| line.contains(text));
    let log_in = format!("`ssh {destination} true` in a terminal");
    if says("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        Diagnosis::permanent(
            "its host key has changed: somebody may be in between; where the change is meant, remove the old key with \
             `ssh-keygen -R`",
        )
    } else if says("Host key verification failed") {
        Diagnosis::permanent(format!("its host key is not known: run {log_in}, and check the key"))
    } else if says("Permission denied (") || says("Too many authentication failures") {
        Diagnosis::permanent(format!(
            "it refuses the login: the key has to be in the agent or without a passphrase, since nobody is asked for \
             one; try {log_in}"
        ))
    } else if says("Could not resolve hostname") || says("hostname contains invalid characters") {
        if says("Temporary failure") {
            Diagnosis::passing("its name could not be looked up, for now")
        } else {
            Diagnosis::permanent("there is no machine of that name: check it, and `Host` in ~/.ssh/config")
        }
    } else if says("Connection timed out during banner exchange")
        || says("timed out") && says("connect to host")
    {
        Diagnosis::passing("it does not answer")
    } else if says("connect to host") {
        Diagnosis::passing("it cannot be reached: is it up, and is an ssh server at that port?")
    } else if says("Bad configuration option") || says("terminating, ") && says("configuration") {
        Diagnosis::permanent("ssh does not understand its configuration")
    } else if LOST.iter().any(|text| says(text)) {
        Diagnosis::passing("the connection was lost, which ends the plugin there")
    } else {
        Diagnosis::passing("ssh failed, or the plugin was killed there, or exited with 255 itself")
    }
}

/// What ssh prints when a connection ends that was there.
const LOST: [&str; 7] = [
    "not responding",
    "Connection reset",
    "Broken pipe",
    "Connection closed",
    "closed by remote host",
    "Connection to ",
    "disconnect",
];
