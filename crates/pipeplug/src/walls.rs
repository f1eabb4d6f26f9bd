//! The options of what a plugin may do.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pipeplug_host::process::SpawnError;
use pipeplug_host::sandbox::Support;
use pipeplug_host::{LockFile, PluginBuilder, Sandbox, Sha256, StartError, WaitStatus};
use signal_hook::consts::{SIGXCPU, SIGXFSZ};

use crate::exit::{Failure, Outcome};
use crate::units::{parse_bytes, parse_duration, parse_port};

/// What a plugin may do, and what it has to be.
#[derive(Debug, Args)]
#[command(next_help_heading = "What it may do")]
pub(crate) struct WallArgs {
    /// Let a variable of our environment through; by default go PATH, HOME, LANG, LC_*, TERM,
    /// TMPDIR, TZ, RUST_LOG, RUST_BACKTRACE
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    env_pass: Vec<OsString>,

    /// Let all of our environment through, with every secret in it
    #[arg(long, conflicts_with_all = ["docker", "podman", "ssh", "kubectl", "attach"])]
    env_inherit: bool,

    /// What the plugin may ask us for and tell us; other commands are refused unseen [default: all]
    #[arg(long, value_name = "CMD")]
    allow: Vec<String>,

    /// Start the plugin only if its file has this SHA-256 sum, and execute what was summed
    #[arg(long, value_name = "HEX")]
    sha256: Option<Sha256>,

    /// Start the plugin only if its file has the sum that this lock file has for it; see `pipeplug
    /// pin`
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = LockFile::NAME)]
    locked: Option<PathBuf>,

    /// Confine the plugin. basic: it has no privileges and no system calls that no plugin needs;
    /// strict: what is not granted is not there, neither files nor processes nor a network
    /// [default: none for run, strict for inspect]
    #[arg(long, value_name = "LEVEL")]
    sandbox: Option<Level>,

    /// Let it read and execute a file, or all below a directory
    #[arg(long, value_name = "PATH")]
    sandbox_read: Vec<PathBuf>,

    /// Let it read and write a file, or all below a directory
    #[arg(long, value_name = "PATH")]
    sandbox_write: Vec<PathBuf>,

    /// Let it connect to a TCP port, at any address
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    sandbox_connect: Vec<u16>,

    /// Let it listen on a TCP port, at any address
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    sandbox_bind: Vec<u16>,

    /// The address space of each of its processes [strict: 4G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    sandbox_memory: Option<u64>,

    /// The CPU time of each of its processes, rounded up to whole seconds
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    sandbox_cpu: Option<Duration>,

    /// How many files it may have open [strict: 256]
    #[arg(long, value_name = "N")]
    sandbox_open_files: Option<u64>,

    /// How many processes and threads it may have [strict: 1024; basic: counts all of its user's,
    /// and not for root]
    #[arg(long, value_name = "N")]
    sandbox_processes: Option<u64>,

    /// The largest file that it may write [strict: 1G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    sandbox_file_size: Option<u64>,

    /// The size of /tmp and of /dev/shm in a strict sandbox, each the plugin's own, in memory
    /// [strict: 64M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    sandbox_scratch: Option<u64>,

    /// Go without what this kernel lacks, in place of not starting the plugin
    #[arg(long)]
    sandbox_best_effort: bool,
}

/// How much a sandbox takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    None,
    Basic,
    Strict,
}

/// The sandbox of plugins that are asked what they are.
#[derive(Debug, Args)]
#[command(next_help_heading = "What it may do")]
pub(crate) struct AskWallArgs {
    /// Take away what a plugin does not need to say what it is: basic: privileges and odd system
    /// calls; strict: files and network too
    #[arg(long, value_name = "LEVEL", default_value_t = Level::OF_UNKNOWN, conflicts_with = "no_metadata")]
    sandbox: Level,

    /// Let a plugin read and execute a file, or all below a directory, while it is asked: an
    /// interpreter's modules, say
    #[arg(long, value_name = "PATH", conflicts_with = "no_metadata")]
    sandbox_read: Vec<PathBuf>,

    /// Let a variable of our environment through to a plugin that is asked, beside those that go by
    /// default: see `pipeplug run --help`
    #[arg(long, value_name = "NAME", value_parser = parse_name, conflicts_with = "no_metadata")]
    pub(crate) env_pass: Vec<OsString>,

    /// Go without what this kernel lacks, in place of not asking
    #[arg(long, conflicts_with = "no_metadata")]
    sandbox_best_effort: bool,
}

/// The next step after a start that failed inside a sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hint(&'static str);

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Strict => "strict",
        })
    }
}

impl Level {
    /// The level for a plugin that is not trusted yet, since it is only asked what it is; other
    /// systems have no sandbox.
    pub(crate) const OF_UNKNOWN: Self = if cfg!(all(target_os = "linux", not(pipeplug_portable))) {
        Self::Strict
    } else {
        Self::None
    };

    fn sandbox(self, best_effort: bool) -> Option<Sandbox> {
        let sandbox = match self {
            Self::None => return None,
            Self::Basic => Sandbox::basic(),
            Self::Strict => Sandbox::strict(),
        };
        Some(if best_effort { sandbox.best_effort() } else { sandbox })
    }

    /// The next step after a start that failed; `None` where no sandbox can be the cause.
    pub(crate) fn hint(self, error: &StartError) -> Option<Hint> {
        if self == Self::None {
            return None;
        }
        match error {
            // The limit, or the command that is missing, is named.
            error if names_a_limit(error) || names_a_command(error) => None,
            StartError::Spawn(SpawnError::Sandbox { .. }) => Some(Hint::UNAVAILABLE),
            StartError::Spawn(SpawnError::AccessDenied { .. })
            | StartError::Exited { .. }
            | StartError::ClosedPipe { .. }
            | StartError::HandshakeTimeout { .. }
            | StartError::Garbage { .. }
            | StartError::Handshake { .. } => Some(Hint::MAY_NEED_MORE),
            _ => None,
        }
    }
}

impl Hint {
    const UNAVAILABLE: Self = Self(
        "--sandbox-best-effort goes without what this system lacks, --sandbox none starts the plugin without a sandbox",
    );
    const MAY_NEED_MORE: Self =
        Self("it may need more than its sandbox grants: --sandbox none starts it without one");
    /// Below a list of several.
    pub(crate) const OF_LIST: &str = "\
Plugins are asked in a sandbox, and one that did not answer may need more than
that grants: --sandbox-read PATH grants a file or directory, --sandbox none asks
them without one, --sandbox-best-effort goes without what this system lacks.
";
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl AskWallArgs {
    /// The level of the sandbox that plugins are asked in.
    pub(crate) fn level(&self) -> Level {
        self.sandbox
    }

    /// Refuses what makes no sense together.
    ///
    /// # Errors
    /// With the option that needs a sandbox, where there is none.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let read = (!self.sandbox_read.is_empty()).then_some("--sandbox-read");
        check(self.sandbox, read.or(self.sandbox_best_effort.then_some("--sandbox-best-effort")))
    }

    /// A change of builders, for plugins to be asked in that sandbox.
    pub(crate) fn walls(&self) -> impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + use<> {
        let sandbox = self.sandbox.sandbox(self.sandbox_best_effort);
        let sandbox = sandbox.map(|sandbox| self.sandbox_read.iter().fold(sandbox, Sandbox::read));
        let passed = self.env_pass.clone();
        move |builder| {
            let builder = passed.iter().fold(builder, PluginBuilder::env_pass);
            match &sandbox {
                Some(sandbox) => builder.sandbox(sandbox.clone()),
                None => builder.no_sandbox(),
            }
        }
    }
}

impl WallArgs {
    /// The level that the command line names.
    pub(crate) fn named_level(&self) -> Option<Level> {
        self.sandbox
    }

    /// Refuses what makes no sense together.
    ///
    /// # Errors
    /// With an option that is for a sandbox, where there is none.
    pub(crate) fn check(&self, level: Level) -> Result<(), Failure> {
        let given = [
            ("--sandbox-read", !self.sandbox_read.is_empty()),
            ("--sandbox-write", !self.sandbox_write.is_empty()),
            ("--sandbox-connect", !self.sandbox_connect.is_empty()),
            ("--sandbox-bind", !self.sandbox_bind.is_empty()),
            ("--sandbox-memory", self.sandbox_memory.is_some()),
            ("--sandbox-cpu", self.sandbox_cpu.is_some()),
            ("--sandbox-open-files", self.sandbox_open_files.is_some()),
            ("--sandbox-processes", self.sandbox_processes.is_some()),
            ("--sandbox-file-size", self.sandbox_file_size.is_some()),
            ("--sandbox-scratch", self.sandbox_scratch.is_some()),
            ("--sandbox-best-effort", self.sandbox_best_effort),
        ];
        check(level, given.into_iter().find_map(|(option, is_given)| is_given.then_some(option)))
    }

    /// The same builder with all of these settings, and a sandbox of that level.
    pub(crate) fn apply(&self, mut builder: PluginBuilder, level: Level) -> PluginBuilder {
        if self.env_inherit {
            builder = builder.env_inherit();
        }
        for name in &self.env_pass {
            builder = builder.env_pass(name);
        }
        if !self.allow.is_empty() {
            builder = builder.allow(&self.allow);
        }
        if let Some(sum) = self.sha256 {
            builder = builder.sha256(sum);
        }
        if let Some(path) = &self.locked {
            builder = builder.lock_file(path);
        }
        match self.sandbox(level) {
            Some(sandbox) => builder.sandbox(sandbox),
            None => builder,
        }
    }

    /// The limit that ended it, where its end tells.
    pub(crate) fn limit_of_end(&self, status: WaitStatus) -> Option<String> {
        let WaitStatus::Signaled { signal, .. } = status else { return None };
        match (signal, self.sandbox_cpu, self.sandbox_file_size) {
            (SIGXCPU, Some(time), _) => Some(format!(
                "its sandbox allows each of its processes {time:?} of CPU time, rounded up to whole seconds: --sandbox-cpu \
                 allows more"
            )),
            (SIGXFSZ, _, Some(bytes)) => Some(format!(
                "its sandbox allows it files of {bytes} bytes: --sandbox-file-size allows more"
            )),
            _ => None,
        }
    }

    fn sandbox(&self, level: Level) -> Option<Sandbox> {
        let mut sandbox = level.sandbox(self.sandbox_best_effort)?;
        sandbox = self.sandbox_read.iter().fold(sandbox, Sandbox::read);
        sandbox = self.sandbox_write.iter().fold(sandbox, Sandbox::write);
        sandbox = self.sandbox_connect.iter().copied().fold(sandbox, Sandbox::connect);
        sandbox = self.sandbox_bind.iter().copied().fold(sandbox, Sandbox::bind);
        sandbox = self.sandbox_memory.into_iter().fold(sandbox, Sandbox::memory);
        sandbox = self.sandbox_cpu.into_iter().fold(sandbox, Sandbox::cpu);
        sandbox = self.sandbox_open_files.into_iter().fold(sandbox, Sandbox::open_files);
        sandbox = self.sandbox_processes.into_iter().fold(sandbox, Sandbox::processes);
        sandbox = self.sandbox_file_size.into_iter().fold(sandbox, Sandbox::file_size);
        Some(self.sandbox_scratch.into_iter().fold(sandbox, Sandbox::scratch))
    }
}

/// Whether the error names a limit of the sandbox as its cause.
pub(crate) fn names_a_limit(error: &StartError) -> bool {
    error.hint().is_some_and(|hint| hint.starts_with("its sandbox allows it "))
}

/// Looks for an error that names a command that could not be run.
fn names_a_command(error: &StartError) -> bool {
    error.hint().is_some_and(|hint| hint.starts_with("command "))
}

/// Notes for people on the sandbox, if there is one: what it grants, and what it is made of.
pub(crate) fn notes(args: &WallArgs, level: Level) -> Vec<String> {
    let Some(sandbox) = args.sandbox(level) else { return Vec::new() };
    let mut notes =
        vec![format!("its sandbox is {level}; this system has {}", Support::of_system())];
    notes.extend(sandbox.in_words().into_iter().map(|line| format!("  {line}")));
    notes
}

fn check(level: Level, option: Option<&str>) -> Result<(), Failure> {
    match option {
        Some(option) if level == Level::None => {
            let message = format!(
                "{option} is for a sandbox, and there is none: --sandbox <LEVEL> makes one, basic or strict"
            );
            Err(Failure::message(Outcome::Usage, message))
        }
        _ => Ok(()),
    }
}

fn parse_name(name: &str) -> Result<OsString, String> {
    if name.contains('=') {
        return Err("a name holds no `=`; --env NAME=VALUE sets a variable".to_owned());
    }
    Ok(name.into())
}
