//! Description of a start.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

#[cfg(feature = "verify")]
use crate::integrity::Sha256;
use crate::sandbox::{Sandbox, Terminal};
use crate::sys::Group;

/// Description of a start: the argument of [`spawn`](super::spawn).
///
/// ```
/// use pipeplug_host::process::{Launch, spawn};
///
/// let mut launch = Launch::new("/bin/sh");
/// launch.args = vec!["-c".into(), "exit 3".into()];
/// launch.channel = pipeplug_host::process::Channel::Stdio;
/// launch.env.set("PLUGIN_COLOR", "never").remove("EDITOR");
/// let guest = spawn(&launch)?;
/// let status = guest.child.wait_timeout(
///     std::time::Duration::from_secs(10),
///     pipeplug_host::process::Leftovers::Kill,
/// )?;
/// assert_eq!(status.and_then(|status| status.code()), Some(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Launch {
    /// The file to execute.
    ///
    /// A relative path, also one without a slash, is relative to the host's working directory at
    /// the time of the start, not to [`cwd`](Self::cwd). `PATH` is not searched.
    pub program: PathBuf,
    /// True for a plugin that is installed where it runs, such as the entry point of an image:
    /// [`program`](Self::program) is then only its name. On this machine no plugin is: the name is
    /// a path.
    pub is_preinstalled: bool,
    /// The plugin's own arguments. The arguments that name the channel come before them.
    pub args: Vec<OsString>,
    /// The environment.
    pub env: EnvPlan,
    /// The working directory; the host's if there is none.
    pub cwd: Option<PathBuf>,
    /// Channel of the guest.
    pub channel: Channel,
    /// Treatment of the guest when the host ends without having stopped it.
    pub on_host_exit: OnHostExit,
    /// The `argv[0]`; the absolute path of the program if there is none.
    ///
    /// The kernel does not pass it on to the interpreter of a script.
    pub arg0: Option<OsString>,
    /// SHA-256 sum that the file has to have. A sealed copy of the file in memory is checked and
    /// executed, and no process can change it. `/proc/self/exe` does not lead to the file then. A
    /// script gets one more descriptor, behind its others, which the interpreter reads. A file of
    /// more than [`CHECKED_SIZE_MAX`](Self::CHECKED_SIZE_MAX) bytes is not started.
    #[cfg(feature = "verify")]
    pub sha256: Option<Sha256>,
    /// The [`LockFile`](crate::LockFile) that has to have the file's sum; as for
    /// [`sha256`](Self::sha256).
    #[cfg(feature = "verify")]
    pub lock_file: Option<PathBuf>,
    /// Sandbox of the guest; `None` for the rights of the host.
    #[cfg(feature = "sandbox")]
    pub sandbox: Option<Sandbox>,
    #[cfg(not(feature = "sandbox"))]
    pub(crate) sandbox: Option<Sandbox>,
}

impl Launch {
    /// The largest file whose sum is checked, in bytes: 1 GiB, since its copy is in memory as long
    /// as the guest runs.
    pub const CHECKED_SIZE_MAX: u64 = 1 << 30;

    /// Starts `program` with no arguments, what every guest gets of the host's environment, the
    /// host's directory, and [`Channel::Pipes`] with the host's standard output.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            is_preinstalled: false,
            args: Vec::new(),
            env: EnvPlan::default(),
            cwd: None,
            channel: Channel::default(),
            on_host_exit: OnHostExit::default(),
            arg0: None,
            #[cfg(feature = "verify")]
            sha256: None,
            #[cfg(feature = "verify")]
            lock_file: None,
            sandbox: None,
        }
    }

    /// Names, in words, a demand that not every launcher can enforce.
    pub(crate) fn demands(&self) -> Option<&'static str> {
        #[cfg(feature = "verify")]
        if self.sha256.is_some() || self.lock_file.is_some() {
            return Some("the check of its sum");
        }
        self.sandbox.as_ref().map(|_| "its sandbox")
    }

    /// The process group that the guest is in.
    pub(super) fn group(&self) -> Group {
        match self.channel {
            Channel::Pipes { stdin: Stdin::Inherit, .. } => Group::OfHost,
            Channel::Pipes { stdin: Stdin::Null, .. } | Channel::Stdio => Group::Own,
        }
    }

    /// The guest's share of the host's terminal, in a sandbox.
    pub(super) fn terminal(&self) -> Terminal {
        match self.channel {
            Channel::Pipes { stdin: Stdin::Inherit, .. } => Terminal::Granted,
            Channel::Pipes { stdin: Stdin::Null, .. } | Channel::Stdio => Terminal::None,
        }
    }

    /// The arguments from `argv[1]` on.
    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let ahead: &[&str] = match self.channel {
            Channel::Pipes { .. } => &["3", "4"],
            // The guest would take the plugin's own numbers for its descriptors.
            Channel::Stdio if self.args.len() >= 2 && self.args[..2].iter().all(is_decimal) => {
                &["0", "1"]
            }
            Channel::Stdio => &[],
        };
        ahead.iter().map(OsString::from).chain(self.args.iter().cloned()).collect()
    }
}

/// The two descriptors that a guest talks over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Channel {
    /// Descriptors 3 (in) and 4 (out). The arguments `3` and `4` before the plugin's own ones name
    /// them.
    Pipes {
        /// Standard input of the guest.
        stdin: Stdin,
        /// Standard output of the guest.
        stdout: Stdout,
    },
    /// Standard input and output. No argument names them.
    ///
    /// But where the plugin's own first two arguments are both decimal numbers, `0` and `1` come
    /// before them.
    Stdio,
}

impl Default for Channel {
    fn default() -> Self {
        Self::Pipes { stdin: Stdin::default(), stdout: Stdout::default() }
    }
}

/// Standard input of a guest that talks over [`Channel::Pipes`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// The host's standard input, for guests that ask the user something; `/dev/null` if the host
    /// has closed it.
    ///
    /// A terminal lets only its foreground processes read (a read by any other one stops it,
    /// `SIGTTIN`). So such a guest stays in the host's process group, in place of one of its own:
    /// Ctrl-C and Ctrl-Z reach it together with the host, and what is said elsewhere of the guest's
    /// process group holds for its process alone, not for what that started.
    Inherit,
}

/// Treatment of a guest whose host ends without having stopped it: the host is killed, crashes or
/// exits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnHostExit {
    /// The kernel kills the guest at once, with all of its process group. A small process of the
    /// host, the watcher (`pipeplug-watch`), kills again until nothing of the group is left.
    ///
    /// The guest itself dies in whatever group it is by then. What it started goes on where that
    /// has left the group (`setsid`) or changed its user. On Linux; elsewhere, and in sandboxes
    /// that refuse it, this is [`OnHostExit::EndOfFile`]. Where there can be no guard (a host that
    /// adopts orphans, `PR_SET_CHILD_SUBREAPER`; a limit that keeps it from being started), that is
    /// logged once, and the kernel's one signal has to do: a guest that forks at that moment, or
    /// that left its group, may survive it.
    ///
    /// The host has ended once every process has that holds its descriptors: a child that it forked
    /// and that executed no other program counts as the host.
    #[default]
    Kill,
    /// The guest sees the end of its input, and should finish its work and end.
    EndOfFile,
}

/// Standard output of a guest that talks over [`Channel::Pipes`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdout {
    /// The host's standard output, or `/dev/null` if the host has closed that.
    ///
    /// In a strict sandbox, and where it is a terminal in a basic one, this is [`Stdout::Log`]: who
    /// has the descriptor could truncate what the host has written before, read the terminal, and
    /// have the host's own writes fail.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// Into a pipe that the host reads: [`Spawned::stdout`](super::Spawned::stdout).
    Log,
}

/// The environment of a guest: what goes through of the host's, as it is at the time of the start,
/// with changes.
///
/// By default that is a short list ([`EnvPlan::PASSED`], and every `LC_*`): a host's environment
/// holds what is no plugin's business, from access tokens to the addresses of its agents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvPlan {
    source: EnvSource,
    /// Names that go through beside the list.
    passed: BTreeSet<OsString>,
    changes: BTreeMap<OsString, Option<OsString>>,
}

/// The part of the host's environment that a guest gets by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum EnvSource {
    #[default]
    Listed,
    All,
}

impl EnvPlan {
    /// The variables of the host that every guest gets, where they are set; beside them those that
    /// begin with `LC_`.
    pub const PASSED: [&'static str; 8] =
        ["HOME", "LANG", "PATH", "RUST_BACKTRACE", "RUST_LOG", "TERM", "TMPDIR", "TZ"];

    /// Takes over the host's environment as it is.
    #[must_use]
    pub fn inherit() -> Self {
        Self::default().with_all()
    }

    /// The same plan with all of the host's environment, where it had the list.
    #[must_use]
    pub(crate) fn with_all(mut self) -> Self {
        self.source = EnvSource::All;
        self
    }

    /// The same plan with the list, where it had all of the host's environment.
    #[must_use]
    pub(crate) fn without_all(mut self) -> Self {
        self.source = EnvSource::Listed;
        self
    }

    /// Passes a variable of the host on, if it is set.
    pub fn pass(&mut self, name: impl Into<OsString>) -> &mut Self {
        self.passed.insert(name.into());
        self
    }

    /// Sets a variable. The last word on a name counts.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> &mut Self {
        self.changes.insert(name.into(), Some(value.into()));
        self
    }

    /// Leaves a variable of the host out.
    pub fn remove(&mut self, name: impl Into<OsString>) -> &mut Self {
        self.changes.insert(name.into(), None);
        self
    }

    /// The names that are set, left out or let through, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.changes.keys().chain(&self.passed).map(OsString::as_os_str)
    }

    /// The names that are left out.
    pub(crate) fn removed(&self) -> impl Iterator<Item = &OsStr> {
        self.changes.iter().filter(|(_, change)| change.is_none()).map(|(name, _)| name.as_os_str())
    }

    /// The variables that are set or let through by name, in order of their names: what goes along
    /// where the host's environment does not.
    pub(crate) fn added(&self) -> BTreeMap<OsString, OsString> {
        let passed = self.passed.iter().filter_map(|name| Some((name.clone(), env::var_os(name)?)));
        let mut added: BTreeMap<_, _> = passed.collect();
        for (name, change) in &self.changes {
            match change {
                Some(value) => added.insert(name.clone(), value.clone()),
                None => added.remove(name),
            };
        }
        added
    }

    /// All variables, in order of their names.
    pub(super) fn resolve(&self) -> BTreeMap<OsString, OsString> {
        self.resolve_from(env::vars_os())
    }

    fn resolve_from(
        &self,
        host: impl Iterator<Item = (OsString, OsString)>,
    ) -> BTreeMap<OsString, OsString> {
        let mut all: BTreeMap<_, _> = host.filter(|(name, _)| self.passes(name)).collect();
        for (name, change) in &self.changes {
            match change {
                Some(value) => all.insert(name.clone(), value.clone()),
                None => all.remove(name),
            };
        }
        all
    }

    pub(super) fn passes(&self, name: &OsStr) -> bool {
        match self.source {
            EnvSource::All => true,
            EnvSource::Listed => {
                Self::PASSED.iter().any(|listed| name == *listed)
                    || name.as_encoded_bytes().starts_with(b"LC_")
                    || self.passed.contains(name)
            }
        }
    }
}

fn is_decimal(arg: &OsString) -> bool {
    let bytes = arg.as_encoded_bytes();
    !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::{Channel, EnvPlan, Launch};

    fn arguments(channel: Channel, own: &[&str]) -> Vec<String> {
        let mut launch = Launch::new("plugin");
        launch.channel = channel;
        launch.args = own.iter().map(Into::into).collect();
        launch.arguments().into_iter().map(|arg| arg.into_string().unwrap()).collect()
    }

    #[test]
    fn pipes_go_ahead_of_the_plugins_own_arguments() {
        assert_eq!(arguments(Channel::default(), &[]), ["3", "4"]);
        assert_eq!(arguments(Channel::default(), &["7", "8", "x"]), ["3", "4", "7", "8", "x"]);
    }

    #[test]
    fn stdio_is_named_only_where_numbers_would_mislead() {
        assert!(arguments(Channel::Stdio, &[]).is_empty());
        assert_eq!(arguments(Channel::Stdio, &["7"]), ["7"]);
        assert_eq!(arguments(Channel::Stdio, &["7", "x"]), ["7", "x"]);
        assert_eq!(arguments(Channel::Stdio, &["7", ""]), ["7", ""]);
        assert_eq!(arguments(Channel::Stdio, &["7", "-8"]), ["7", "-8"]);
        assert_eq!(arguments(Channel::Stdio, &["7", "8"]), ["0", "1", "7", "8"]);
    }

    fn resolved(env: &EnvPlan, host: &[(&str, &str)]) -> Vec<String> {
        let host = host.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let text = |text: OsString| text.into_string().unwrap();
        env.resolve_from(host)
            .into_iter()
            .map(|(name, value)| format!("{}={}", text(name), text(value)))
            .collect()
    }

    #[test]
    fn the_last_word_on_a_variable_counts() {
        let mut env = EnvPlan::inherit();
        env.set("A", "1").remove("A").remove("B").set("B", "2");
        assert_eq!(resolved(&env, &[("A", "0"), ("C", "3")]), ["B=2", "C=3"]);
    }

    #[test]
    fn by_default_only_what_is_listed_goes_through() {
        let host = [
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("HOME", "/h"),
            ("LC_ALL", "C"),
            ("LCD", "s"),
            ("LD_PRELOAD", "s"),
            ("PATH", "/bin"),
            ("path", "s"),
            ("SSH_AUTH_SOCK", "s"),
            ("TZ", "UTC"),
        ];
        let mut env = EnvPlan::default();
        assert_eq!(resolved(&env, &host), ["HOME=/h", "LC_ALL=C", "PATH=/bin", "TZ=UTC"]);
        env.pass("LCD").pass("UNSET").remove("HOME");
        assert_eq!(resolved(&env, &host), ["LCD=s", "LC_ALL=C", "PATH=/bin", "TZ=UTC"]);
        assert_eq!(resolved(&env.with_all(), &host).len(), host.len() - 1);
    }
}
