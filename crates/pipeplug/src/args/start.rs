//! Options for the start of a plugin, shared by `run` and `inspect`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use pipeplug_host::discovery::{Store, Transport};
use pipeplug_host::{
    CallError, Grace, LogLevel, Permissions, PluginBuilder, StartError, StartErrorKind, Stdin,
    Stdout,
};
use pipeplug_host::{Format, Limits};

use crate::args::allow_hint::OfLock;
use crate::args::config::{self, Config};
use crate::args::container::ContainerArgs;
use crate::args::kubectl::KubectlArgs;
use crate::args::launcher::{self, LauncherArgs};
use crate::args::record::RecordArgs;
use crate::args::sandbox::{self, Level, SandboxArgs};
use crate::args::target::{HOST, Target, Wanted};
use crate::args::units::{parse_bytes, parse_duration};
use crate::exit::{CommandError, ExitReason};
use crate::output::stream;
use crate::output::text::Escaped;
use crate::session::shutdown::Shutdown;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Starting the plugin")]
pub(crate) struct StartArgs {
    /// Path (with a slash), name of an installed plugin, or @echo
    ///
    /// A name is also that of a file in this directory, if no plugin of this name is installed.
    /// @echo is built in. With a launcher: a path there, or nothing for the entry point of an image.
    #[arg(help_heading = None::<&str>, required_unless_present_any = launcher::WITH_PLUGIN)]
    pub(crate) plugin: Option<OsString>,

    /// Host whose plugins are searched for PLUGIN, if PLUGIN is a name
    #[arg(long, value_name = "HOST", default_value = HOST, hide_short_help = true)]
    host: String,

    /// Arguments of the plugin itself
    #[arg(last = true, value_name = "ARGS", help_heading = None::<&str>)]
    pub(crate) args: Vec<OsString>,

    /// Wire format, which has to be the plugin's [default: for an installed plugin the one it was
    /// last probed with, else standard]
    #[arg(long, value_name = "FORMAT", hide_short_help = true)]
    format: Option<FormatArg>,

    /// Talk over the plugin's stdin and stdout
    ///
    /// Instead of descriptors 3 and 4 [default: for an installed plugin as it was last probed, else
    /// descriptors]
    #[arg(long)]
    stdio: bool,

    /// Stdin of the plugin: null, or inherit for a plugin that asks the user; Ctrl-C then reaches
    /// both processes [default: null]
    #[arg(long, value_name = "WHAT", conflicts_with = "stdio", hide_short_help = true)]
    stdin: Option<StdinArg>,

    /// Stdout of the plugin: inherit, null, or log, line by line to stderr [default: log]
    #[arg(long, value_name = "WHERE", conflicts_with = "stdio", hide_short_help = true)]
    stdout: Option<StdoutArg>,

    /// Set a variable of its environment; repeatable
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(parse_variable))]
    env: Vec<Variable>,

    /// Configuration of the plugin, as JSON
    ///
    /// The plugin has it before its start: a file of JSON, or JSON text that begins with `{`, `[` or
    /// `"`. No output shows it; other users can see a command line, so put secrets in a file.
    #[arg(long, value_name = "FILE|JSON")]
    config: Option<OsString>,

    /// Level of the plugin's log: off, error, warn, info, debug or trace; for plugins that log by
    /// pipeplug_guest::logging [default: the plugin's own]
    #[arg(long, value_name = "LEVEL", hide_short_help = true)]
    pub(crate) log_level: Option<LogLevel>,

    /// Working directory of the plugin [default: the current one]
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    cwd: Option<PathBuf>,

    /// Time limit of the start and of each call
    ///
    /// Also of each write to stdout or stderr. A time is written as 500ms, 2s, 1m, or a number of
    /// seconds; the plugin learns the deadline of a call [default: 10s for the start, else none]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Time limit of each step of stopping the plugin: stop request, closing its pipe, SIGTERM
    /// [default: 5s, 1s, 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, hide_short_help = true)]
    grace: Option<Duration>,

    /// Limit of the buffer of a chunk from the plugin, as 64K or 1G [default: 256M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, hide_short_help = true)]
    limit_buffer: Option<u64>,

    /// Take no options from a pipeplug.toml
    ///
    /// By default options of [plugins.NAME] are taken from a pipeplug.toml: of the working directory
    /// or a parent, for a plugin in or below the directory of the file, and of
    /// ~/.config/pipeplug, for all plugins. The command line wins. -v shows what was taken.
    #[arg(long, hide_short_help = true)]
    no_config_file: bool,
    #[command(flatten)]
    pub(crate) record: RecordArgs,

    // Last: clap would put any option after these below their headings in the help.
    #[command(flatten)]
    launcher: LauncherArgs,

    #[command(flatten)]
    container: ContainerArgs,

    #[command(flatten)]
    kubectl: KubectlArgs,

    #[command(flatten)]
    pub(crate) sandbox: SandboxArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatArg {
    Standard,
    Classic,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StdinArg {
    Null,
    Inherit,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StdoutArg {
    Inherit,
    Null,
    Log,
}

/// Wire format and channel of a plugin.
#[derive(Debug, Clone)]
pub(crate) struct WireProtocol {
    pub(crate) format: Format,
    /// True for stdin and stdout instead of descriptors.
    pub(crate) stdio: bool,
    /// Options that would select this protocol, if it is remembered and differs from the default.
    pub(crate) remembered: Option<String>,
}

/// Variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    name: OsString,
    value: OsString,
}

impl StartArgs {
    /// Protocol of the plugin: as on the command line, or else as remembered from its last probe.
    pub(crate) fn protocol(&self, target: &Target) -> WireProtocol {
        let named = self.format.map(|format| match format {
            FormatArg::Standard => Format::Standard,
            FormatArg::Classic => Format::Classic,
        });
        let mut protocol =
            WireProtocol { format: named.unwrap_or_default(), stdio: self.stdio, remembered: None };
        // A single option replaces everything that is remembered. --stdin and --stdout mean that
        // the plugin does not talk over them.
        let is_named =
            named.is_some() || self.stdio || self.stdin.is_some() || self.stdout.is_some();
        if let Some(said) = target.remembered().filter(|_| !is_named) {
            let stdio = said.transport == Transport::Stdio;
            protocol.remembered = (stdio || said.format != protocol.format).then(|| {
                format!("{}--format {}", if stdio { "--stdio " } else { "" }, said.format)
            });
            (protocol.format, protocol.stdio) = (said.format, stdio);
        }
        protocol
    }

    /// Limits writes to stdout and stderr by `--timeout` and `--grace`.
    pub(crate) fn bound_output(&self, shutdown: &Shutdown) {
        if let Some(timeout) = self.timeout {
            stream::set_timeout(timeout);
        }
        shutdown.set_grace(self.grace.unwrap_or(Grace::default().stop));
    }

    /// Returns the next step after a failed start: the option for a plugin with another protocol.
    pub(crate) fn hint(&self, error: &StartError, protocol: &WireProtocol) -> Option<String> {
        let other_format = match protocol.format {
            Format::Standard => "if it speaks the classic format use --format classic",
            Format::Classic => "if it speaks the standard format leave --format out",
        };
        // The error explains a daemon, or names --stdio already.
        let is_explained = error
            .hint()
            .is_some_and(|hint| hint.contains("--stdio") || hint.contains("background"));
        let may_be_on_stdio = !protocol.stdio && !self.launcher.is_given() && !is_explained;
        let hint = match error.kind() {
            StartErrorKind::NotPermitted { .. } | StartErrorKind::MorePermissions { .. } => {
                return self.of_lock().hint(error);
            }
            // There was no program to run.
            _ if error.is_permanent() => return None,
            // The cause is known.
            _ if sandbox::names_a_limit(error) => return None,
            // A plugin that cannot parse the first request may exit, too.
            StartErrorKind::Exited { .. }
            | StartErrorKind::ClosedPipe
            | StartErrorKind::HandshakeTimeout { .. }
                if may_be_on_stdio =>
            {
                format!("{other_format}, if it uses stdin and stdout use --stdio")
            }
            StartErrorKind::HandshakeTimeout { .. } => other_format.to_owned(),
            StartErrorKind::Handshake { error }
                if self.limit_buffer.is_some()
                    && matches!(error, CallError::ReplyTooLarge { .. }) =>
            {
                "the limit is that of --limit-buffer, and its metadata has to fit too".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// Reads the configuration.
    pub(crate) fn config(&self) -> Result<Option<Config>, CommandError> {
        self.config.as_deref().map(config::load).transpose()
    }

    /// PLUGIN as it was written.
    pub(crate) fn plugin(&self) -> Option<&OsStr> {
        self.plugin.as_deref()
    }

    /// Host whose plugins are searched for a name.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// True if PLUGIN is no path on this machine, because of the launcher.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.launcher.preinstalled_name().is_some()
    }

    /// True if PLUGIN is given, or a launcher that needs none.
    pub(crate) fn has_plugin(&self) -> bool {
        self.plugin.is_some() || self.launcher.preinstalled_name().is_some()
    }

    /// Arguments behind `--`.
    pub(crate) fn own_args(&self) -> &[OsString] {
        &self.args
    }

    /// Interprets PLUGIN, which depends on the launcher.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        match (&self.plugin, self.launcher.preinstalled_name()) {
            (Some(path), Some(_)) => Wanted::PathThere(path),
            (None, Some(name)) => Wanted::Preinstalled(name),
            (plugin, None) => Wanted::Here(plugin.as_deref().unwrap_or_default(), &self.host),
        }
    }

    /// The plugin as it was typed, or as it is named where a launcher starts it.
    pub(crate) fn shown(&self) -> String {
        let typed = self.plugin.as_deref().map(|it| it.to_string_lossy().into_owned());
        typed.unwrap_or_else(|| self.wanted().display_name())
    }

    /// True if the plugin is started elsewhere.
    pub(crate) fn has_launcher(&self) -> bool {
        self.launcher.is_given()
    }

    /// Level of the sandbox: that of the command line, else `default`, else none with a launcher.
    pub(crate) fn level(&self, default: Level) -> Level {
        let default = if self.launcher.is_given() { Level::None } else { default };
        self.sandbox.named_level().unwrap_or(default)
    }

    /// Checks that no option contradicts the level of the sandbox, and that a level which needs a
    /// lock file has one.
    ///
    /// # Errors
    /// An option is missing, or one too many.
    pub(crate) fn check(&self, level: Level) -> Result<(), CommandError> {
        self.sandbox.check(level)?;
        // A launcher that cannot confine the plugin is refused at the start.
        let is_here = !self.launcher.is_given();
        if level == Level::Declared && is_here && self.permissions_file().is_none() {
            let plugin = self.plugin.as_deref().unwrap_or_default().to_string_lossy();
            let message = format!(
                "--sandbox declared needs a record of what {} is allowed: `{}` asks you and makes one, \
                 then add --locked",
                Escaped(&plugin),
                Escaped(&self.of_lock().pin())
            );
            return Err(CommandError::message(ExitReason::Usage, message));
        }
        Ok(())
    }

    fn of_lock(&self) -> OfLock<'_> {
        let plugin = self.plugin.as_deref().unwrap_or_default();
        OfLock { plugin, host: &self.host, locked: self.sandbox.locked() }
    }

    /// Lock file with the permissions of the plugin: that of `--locked`, or that of the installed
    /// plugins for a name. A lock file in the working directory is not taken unasked: it may have
    /// come with the plugin.
    fn permissions_file(&self) -> Option<PathBuf> {
        if let Some(path) = self.sandbox.locked() {
            return Some(path.to_owned());
        }
        match self.wanted() {
            Wanted::Here(plugin, host) if !plugin.as_bytes().contains(&b'/') => {
                Store::for_host(host).ok().map(|store| store.lock_path())
            }
            _ => None,
        }
    }

    /// Sets all of these options on the builder, with a sandbox of this level.
    pub(crate) fn apply(
        &self,
        builder: PluginBuilder,
        level: Level,
        protocol: &WireProtocol,
    ) -> PluginBuilder {
        let builder = self.launcher.apply(builder, &self.container, &self.kubectl, self.timeout);
        let mut builder =
            self.sandbox.apply(builder, level).args(&self.args).format(protocol.format);
        if level == Level::Declared {
            builder = match self.permissions_file() {
                Some(path) => builder.permissions_from(path),
                None => builder.permissions(Permissions::default()),
            };
        }
        builder = if protocol.stdio {
            builder.stdio()
        } else {
            let (stdin, stdout) =
                (self.stdin.unwrap_or(StdinArg::Null), self.stdout.unwrap_or(StdoutArg::Log));
            builder.stdin(stdin.into()).stdout(stdout.into())
        };
        for Variable { name, value } in &self.env {
            builder = builder.env(name, value);
        }
        if let Some(level) = self.log_level {
            builder = builder.log_level(level);
        }
        if let Some(dir) = &self.cwd {
            builder = builder.current_dir(dir);
        }
        if let Some(timeout) = self.timeout {
            builder = builder.handshake_timeout(timeout);
        }
        if let Some(grace) = self.grace {
            builder = builder.grace(Grace::each(grace));
        }
        if let Some(bytes) = self.limit_buffer {
            builder = builder.limits(Limits::default().with_buffer(bytes));
        }
        builder
    }
}

impl From<StdinArg> for Stdin {
    fn from(stdin: StdinArg) -> Self {
        match stdin {
            StdinArg::Null => Self::Null,
            StdinArg::Inherit => Self::Inherit,
        }
    }
}

impl From<StdoutArg> for Stdout {
    fn from(stdout: StdoutArg) -> Self {
        match stdout {
            StdoutArg::Inherit => Self::Inherit,
            StdoutArg::Null => Self::Null,
            StdoutArg::Log => Self::Log,
        }
    }
}

fn parse_variable(arg: OsString) -> Result<Variable, String> {
    let mut name = arg.into_vec();
    match name.iter().position(|byte| *byte == b'=') {
        None => Err("there is no `=`; write NAME=VALUE, as in --env LANG=C".into()),
        Some(0) => {
            Err("there is no name before the `=`; write NAME=VALUE, as in --env LANG=C".into())
        }
        Some(at) => {
            let value = OsString::from_vec(name.split_off(at + 1));
            name.pop();
            Ok(Variable { name: OsString::from_vec(name), value })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_equals_sign_divides() {
        let variable =
            |name: &str, value: &str| Ok(Variable { name: name.into(), value: value.into() });
        assert_eq!(parse_variable("A=b=c".into()), variable("A", "b=c"));
        assert_eq!(parse_variable("A=".into()), variable("A", ""));
        assert!(parse_variable("A".into()).unwrap_err().contains("there is no `=`"));
        assert!(parse_variable("=b".into()).unwrap_err().contains("no name"));
    }
}
