//! Options for the rights of a plugin: environment, allow list, checksum, sandbox.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use pipeplug_host::SandboxSupport;
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{
    LockFile, PluginBuilder, Sandbox, Sha256, StartError, StartErrorKind, WaitStatus,
};
use signal_hook::consts::{SIGXCPU, SIGXFSZ};

use crate::args::units::{parse_bytes, parse_duration, parse_port};
use crate::exit::{CommandError, ExitReason};

/// Options that limit a plugin or check its file.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rights and sandbox")]
pub(crate) struct SandboxArgs {
    /// Pass on the whole environment, with every secret in it
    #[arg(long, conflicts_with_all = ["docker", "podman", "ssh", "kubectl", "attach"])]
    env_inherit: bool,

    /// Command that the plugin may send to the host, repeatable; others are refused [default: all
    /// are allowed]
    #[arg(long, value_name = "CMD")]
    allow: Vec<String>,

    /// Start the plugin only if its file has this SHA-256 sum, and run exactly the checked bytes
    #[arg(long, value_name = "HEX")]
    sha256: Option<Sha256>,

    /// Start the plugin only if its file has the sum in this lock file; `pipeplug pin` writes it
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = LockFile::NAME)]
    locked: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) rights: RightsArgs,
}

/// Options of a sandbox, and variables that are passed on.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rights and sandbox")]
pub(crate) struct RightsArgs {
    /// Pass on this variable of the environment; repeatable [passed on by default: PATH, HOME,
    /// LANG, LC_*, TERM, TMPDIR, TZ, RUST_LOG, RUST_BACKTRACE]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    env_pass: Vec<OsString>,

    /// Sandbox of the plugin: none, basic, strict or declared
    ///
    /// basic: no privileges, and no system calls that plugins never need; strict: also no files,
    /// other processes or network, unless granted below; declared: strict, with exactly the
    /// permissions that `pipeplug add` has asked for, or with --locked those of the lock file
    /// [default: strict for commands that only ask what a plugin is, such as inspect, else none]
    #[arg(long, value_name = "LEVEL", hide_possible_values = true)]
    sandbox: Option<Level>,

    /// Grant read and execute on a file, or on all files below a directory; repeatable
    #[arg(long, value_name = "PATH")]
    sandbox_read: Vec<PathBuf>,

    /// Grant read and write on a file, or on all files below a directory; repeatable
    #[arg(long, value_name = "PATH")]
    sandbox_write: Vec<PathBuf>,

    /// Grant TCP connections to this port, at any address; repeatable
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    sandbox_connect: Vec<u16>,

    /// Grant listening on this TCP port, at any address; repeatable
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    sandbox_bind: Vec<u16>,

    /// Limit of the address space of each process, as 512M or 4G [default in strict: 4G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    sandbox_memory: Option<u64>,

    /// Limit of the CPU time of each process, as 30s or 5m, rounded up to seconds [default: none]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    sandbox_cpu: Option<Duration>,

    /// Limit of open files of each process [default in strict: 256]
    #[arg(long, value_name = "N")]
    sandbox_open_files: Option<u64>,

    /// Limit of processes and threads; in basic it counts all of the user's, and does not apply to
    /// root [default in strict: 1024]
    #[arg(long, value_name = "N")]
    sandbox_processes: Option<u64>,

    /// Limit of the size of each file that it writes [default in strict: 1G]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    sandbox_file_size: Option<u64>,

    /// Size of /tmp and of /dev/shm in a strict sandbox; both are private and in memory [default in
    /// strict: 64M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    sandbox_scratch: Option<u64>,

    /// Leave out what this kernel does not support, instead of refusing the start
    #[arg(long)]
    sandbox_best_effort: bool,
}

/// Level of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    None,
    Basic,
    Strict,
    Declared,
}

/// Parses the level of a sandbox for plugins that are only probed, whose permissions are not known.
pub(crate) fn probe_level() -> impl TypedValueParser<Value = Level> {
    PossibleValuesParser::new(["none", "basic", "strict"]).map(|name| match name.as_str() {
        "none" => Level::None,
        "basic" => Level::Basic,
        _ => Level::Strict,
    })
}

/// Options for the sandbox of plugins that are probed.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Rights and sandbox")]
pub(crate) struct ProbeSandboxArgs {
    /// Sandbox of the probed plugin. basic: no privileges, and no system calls that plugins never
    /// need; strict: also no files, other processes or network
    #[arg(long, value_name = "LEVEL", default_value_t = Level::OF_UNKNOWN, value_parser = probe_level(), conflicts_with = "no_metadata")]
    sandbox: Level,

    /// Grant read and execute on a file, or on all files below a directory, such as the modules of
    /// an interpreter; repeatable
    #[arg(long, value_name = "PATH", conflicts_with = "no_metadata")]
    sandbox_read: Vec<PathBuf>,

    /// Pass on this variable of the environment to probed plugins; repeatable [passed on by
    /// default: see `pipeplug run --help`]
    #[arg(long, value_name = "NAME", value_parser = parse_name, conflicts_with = "no_metadata")]
    pub(crate) env_pass: Vec<OsString>,

    /// Leave out what this kernel does not support, instead of refusing to probe
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
            Self::Declared => "declared",
        })
    }
}

impl Level {
    /// Level for plugins that are not trusted yet and only probed. Systems other than Linux have no
    /// sandbox.
    pub(crate) const OF_UNKNOWN: Self = if cfg!(linux_native) { Self::Strict } else { Self::None };

    fn sandbox(self, best_effort: bool) -> Option<Sandbox> {
        let sandbox = match self {
            Self::None => return None,
            Self::Basic => Sandbox::basic(),
            // Files and ports are added at the start.
            Self::Strict | Self::Declared => Sandbox::strict(),
        };
        Some(if best_effort { sandbox.best_effort() } else { sandbox })
    }

    /// Returns the next step after a failed start. `None` if a sandbox cannot be the cause.
    pub(crate) fn hint(self, error: &StartError) -> Option<Hint> {
        if self == Self::None {
            return None;
        }
        match error.kind() {
            // The error names the limit or the missing command already.
            _ if names_a_limit(error) || names_a_command(error) => None,
            StartErrorKind::Spawn(SpawnErrorKind::Sandbox { .. }) => Some(Hint::UNAVAILABLE),
            StartErrorKind::Spawn(SpawnErrorKind::AccessDenied { .. })
            | StartErrorKind::Exited { .. }
            | StartErrorKind::ClosedPipe
            | StartErrorKind::HandshakeTimeout { .. }
            | StartErrorKind::Garbage { .. }
            | StartErrorKind::Handshake { .. } => Some(Hint::MAY_NEED_MORE),
            _ => None,
        }
    }
}

impl Hint {
    const UNAVAILABLE: Self = Self(
        "--sandbox-best-effort leaves out what this system does not support, --sandbox none starts \
         the plugin without a sandbox",
    );
    const MAY_NEED_MORE: Self =
        Self("it may need more than its sandbox grants: --sandbox none starts it without one");
    /// Text below a list of several plugins.
    pub(crate) const OF_LIST: &str = "\
Plugins are probed in a sandbox, and one that did not answer may need more than
it grants: --sandbox-read PATH grants a file or directory, --sandbox none probes
without a sandbox, --sandbox-best-effort leaves out what this system does not
support.
";
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl ProbeSandboxArgs {
    /// Level of the sandbox of probed plugins.
    pub(crate) fn level(&self) -> Level {
        self.sandbox
    }

    /// True for a strict sandbox of which nothing is left out.
    pub(crate) fn is_strict_in_full(&self) -> bool {
        self.sandbox == Level::Strict && !self.sandbox_best_effort
    }

    /// Checks that no option contradicts the level.
    ///
    /// # Errors
    /// If an option needs a sandbox and the level is `none`.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        let read = (!self.sandbox_read.is_empty()).then_some("--sandbox-read");
        check(self.sandbox, read.or(self.sandbox_best_effort.then_some("--sandbox-best-effort")))
    }

    /// Returns a function that sets this sandbox on a builder.
    pub(crate) fn confining(
        &self,
    ) -> impl Fn(PluginBuilder) -> PluginBuilder + Send + Sync + use<> {
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

impl SandboxArgs {
    /// Level of the command line, if it names one.
    pub(crate) fn named_level(&self) -> Option<Level> {
        self.rights.sandbox
    }

    /// Checks that no option contradicts the level.
    ///
    /// # Errors
    /// If an option needs a sandbox and the level is `none`.
    pub(crate) fn check(&self, level: Level) -> Result<(), CommandError> {
        let given = [
            ("--sandbox-read", !self.rights.sandbox_read.is_empty()),
            ("--sandbox-write", !self.rights.sandbox_write.is_empty()),
            ("--sandbox-connect", !self.rights.sandbox_connect.is_empty()),
            ("--sandbox-bind", !self.rights.sandbox_bind.is_empty()),
            ("--sandbox-memory", self.rights.sandbox_memory.is_some()),
            ("--sandbox-cpu", self.rights.sandbox_cpu.is_some()),
            ("--sandbox-open-files", self.rights.sandbox_open_files.is_some()),
            ("--sandbox-processes", self.rights.sandbox_processes.is_some()),
            ("--sandbox-file-size", self.rights.sandbox_file_size.is_some()),
            ("--sandbox-scratch", self.rights.sandbox_scratch.is_some()),
            ("--sandbox-best-effort", self.rights.sandbox_best_effort),
        ];
        check(level, given.into_iter().find_map(|(option, is_given)| is_given.then_some(option)))?;
        let grants = ["--sandbox-read", "--sandbox-write", "--sandbox-connect", "--sandbox-bind"];
        let grants = given
            .into_iter()
            .filter(|(option, _)| grants.contains(option) || *option == "--sandbox-best-effort");
        let of_environment =
            [("--env-pass", !self.rights.env_pass.is_empty()), ("--env-inherit", self.env_inherit)];
        match grants.chain(of_environment).find(|(_, is_given)| *is_given) {
            Some((option, _)) if level == Level::Declared => {
                let message = format!(
                    "{option} does not go with --sandbox declared, which grants what the plugin was \
                     allowed and nothing else: use --sandbox strict"
                );
                Err(CommandError::message(ExitReason::Usage, message))
            }
            _ => Ok(()),
        }
    }

    /// Lock file of `--locked`.
    pub(crate) fn locked(&self) -> Option<&Path> {
        self.locked.as_deref()
    }

    /// Sets all of these options on the builder, with a sandbox of this level.
    pub(crate) fn apply(&self, mut builder: PluginBuilder, level: Level) -> PluginBuilder {
        if self.env_inherit {
            builder = builder.env_inherit();
        }
        for name in &self.rights.env_pass {
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
        match self.rights.sandbox(level) {
            Some(sandbox) => builder.sandbox(sandbox),
            None => builder,
        }
    }

    /// The limit that ended it, where its end tells.
    pub(crate) fn limit_of_end(&self, status: WaitStatus) -> Option<String> {
        let WaitStatus::Signaled { signal, .. } = status else { return None };
        match (signal, self.rights.sandbox_cpu, self.rights.sandbox_file_size) {
            (SIGXCPU, Some(time), _) => Some(format!(
                "its sandbox allows each of its processes {time:?} of CPU time, rounded up to \
                 whole seconds: --sandbox-cpu allows more"
            )),
            (SIGXFSZ, _, Some(bytes)) => Some(format!(
                "its sandbox allows it files of {bytes} bytes: --sandbox-file-size allows more"
            )),
            _ => None,
        }
    }
}

impl RightsArgs {
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

/// True if the error names a limit of the sandbox as its cause.
pub(crate) fn names_a_limit(error: &StartError) -> bool {
    error.hint().is_some_and(|hint| hint.starts_with("its sandbox allows it "))
}

/// True if the error names a command that could not be run.
fn names_a_command(error: &StartError) -> bool {
    error.hint().is_some_and(|hint| hint.starts_with("command "))
}

/// Describes the sandbox for people: its grants, and the kernel features that it uses.
pub(crate) fn notes(args: &SandboxArgs, level: Level) -> Vec<String> {
    let Some(sandbox) = args.rights.sandbox(level) else { return Vec::new() };
    let mut notes =
        vec![format!("its sandbox is {level}; this system has {}", SandboxSupport::of_system())];
    if level == Level::Declared {
        notes.push("  files, network, commands and variables: as allowed in the lock file".into());
        return notes;
    }
    notes.extend(sandbox.in_words().into_iter().map(|line| format!("  {line}")));
    notes
}

fn check(level: Level, option: Option<&str>) -> Result<(), CommandError> {
    match option {
        Some(option) if level == Level::None => {
            let message =
                format!("{option} needs a sandbox: add --sandbox basic or --sandbox strict");
            Err(CommandError::message(ExitReason::Usage, message))
        }
        _ => Ok(()),
    }
}

fn parse_name(name: &str) -> Result<OsString, String> {
    if name.contains('=') {
        return Err(
            "the name of a variable has no `=`; to set a variable use --env NAME=VALUE".to_owned()
        );
    }
    Ok(name.into())
}
