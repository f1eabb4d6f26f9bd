//! The options of how to start a plugin, which `run` and `inspect` share.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};
use pipeplug_host::discovery::Transport;
use pipeplug_host::{CallError, Grace, PluginBuilder, StartError, Stdin, Stdout};
use pipeplug_host::{Format, Limits};

use crate::container::ContainerArgs;
use crate::halt::Halt;
use crate::kubectl::KubectlArgs;
use crate::output;
use crate::place::{self, PlaceArgs};
use crate::target::{HOST, Target, Wanted};
use crate::units::{parse_bytes, parse_duration};
use crate::walls::{self, Level, WallArgs};

#[derive(Debug, Args)]
#[command(next_help_heading = "Starting the plugin")]
pub(crate) struct StartArgs {
    /// A path (with a slash), the name of an installed plugin, or else of a file in this directory,
    /// or @echo, which is built in; where it runs elsewhere, a path there, or nothing for the entry point of an
    /// image
    #[arg(help_heading = None::<&str>, required_unless_present_any = place::WITH_PLUGIN)]
    plugin: Option<OsString>,

    /// Whose plugin PLUGIN names, where it is no path
    #[arg(long, value_name = "HOST", default_value = HOST)]
    host: String,

    /// The plugin's own arguments
    #[arg(last = true, value_name = "ARGS", help_heading = None::<&str>)]
    args: Vec<OsString>,

    /// The wire format to speak; the plugin has to speak the same [default: what is remembered of a
    /// plugin that is found by its name, else standard]
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatArg>,

    /// Talk over the plugin's stdin and stdout, not over descriptors 3 and 4 [default: as is
    /// remembered of a plugin that is found by its name]
    #[arg(long)]
    stdio: bool,

    /// What the plugin's stdin is: nothing, or ours, for one that asks the user; Ctrl-C then
    /// reaches both [default: null]
    #[arg(long, value_name = "WHAT", conflicts_with = "stdio")]
    stdin: Option<StdinArg>,

    /// Where the plugin's stdout goes: to ours, nowhere, or line by line to stderr [default: log]
    #[arg(long, value_name = "WHERE", conflicts_with = "stdio")]
    stdout: Option<StdoutArg>,

    /// Set a variable of the plugin's environment
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(parse_variable))]
    env: Vec<Variable>,

    /// The plugin's working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<PathBuf>,

    /// The longest that the start, each call, and each wait for the output to be read may take:
    /// 500ms, 2s, 1m, or a number of seconds; the plugin is told of it [default: 10s for the start, no limit else]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// How long each step of stopping the plugin may take: asking, closing its pipe, SIGTERM
    /// [default: 5s, 1s, 2s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    grace: Option<Duration>,

    /// The largest buffer to take from the plugin [default: 256M]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    limit_buffer: Option<u64>,

    // Last, since what follows would stand below their headings in the help.
    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    container: ContainerArgs,

    #[command(flatten)]
    kubectl: KubectlArgs,

    #[command(flatten)]
    pub(crate) walls: WallArgs,
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

/// A way to talk to a plugin.
#[derive(Debug, Clone)]
pub(crate) struct Talk {
    pub(crate) format: Format,
    /// Over its stdin and stdout.
    pub(crate) stdio: bool,
    /// The options that would name it, where it is another one than the usual and was not named.
    pub(crate) remembered: Option<String>,
}

/// A variable of the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    name: OsString,
    value: OsString,
}

impl StartArgs {
    /// The way that the plugin is to be talked to: as the command line says, or else as is
    /// remembered of it.
    pub(crate) fn way(&self, target: &Target) -> Talk {
        let named = self.format.map(|format| match format {
            FormatArg::Standard => Format::Standard,
            FormatArg::Classic => Format::Classic,
        });
        let mut talk =
            Talk { format: named.unwrap_or_default(), stdio: self.stdio, remembered: None };
        // One option of the way is the whole way, and what stdin or stdout is otherwise says that
        // it is not they.
        let is_named =
            named.is_some() || self.stdio || self.stdin.is_some() || self.stdout.is_some();
        if let Some(said) = target.remembered().filter(|_| !is_named) {
            let stdio = said.transport == Transport::Stdio;
            talk.remembered = (stdio || said.format != talk.format).then(|| {
                format!("{}--format {}", if stdio { "--stdio " } else { "" }, said.format)
            });
            (talk.format, talk.stdio) = (said.format, stdio);
        }
        talk
    }

    /// Has the output wait no longer to be read than `--timeout` and `--grace` say.
    pub(crate) fn bound_output(&self, halt: &Halt) {
        if let Some(timeout) = self.timeout {
            output::limit(timeout);
        }
        halt.set_grace(self.grace.unwrap_or(Grace::default().stop));
    }

    /// The next step after a start that failed: the option that a plugin needs which speaks another
    /// way.
    pub(crate) fn hint(&self, error: &StartError, talk: &Talk) -> Option<String> {
        let other_format = match talk.format {
            Format::Standard => "if it speaks the classic format use --format classic",
            Format::Classic => "if it speaks the standard format leave --format out",
        };
        // A daemon, and one that --stdio is named for already.
        let is_explained = error
            .hint()
            .is_some_and(|hint| hint.contains("--stdio") || hint.contains("background"));
        let may_be_on_stdio = !talk.stdio && !self.place.is_elsewhere() && !is_explained;
        let hint = match error {
            // There was nothing to run.
            error if error.is_permanent() => return None,
            // The cause is known.
            error if walls::names_a_limit(error) => return None,
            // The end of a plugin that cannot read the first request is an exit, too.
            StartError::Exited { .. }
            | StartError::ClosedPipe { .. }
            | StartError::HandshakeTimeout { .. }
                if may_be_on_stdio =>
            {
                format!("{other_format}, if it talks over stdin and stdout use --stdio")
            }
            StartError::HandshakeTimeout { .. } => other_format.to_owned(),
            StartError::Handshake { error, .. }
                if self.limit_buffer.is_some()
                    && matches!(**error, CallError::ReplyTooLarge { .. }) =>
            {
                "the limit is that of --limit-buffer, and its metadata has to fit too".to_owned()
            }
            _ => return None,
        };
        Some(hint)
    }

    /// What PLUGIN means, with the place that it is to run in.
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        match (&self.plugin, self.place.of_its_own()) {
            (Some(path), Some(_)) => Wanted::PathThere(path),
            (None, Some(name)) => Wanted::Placed(name),
            (plugin, None) => Wanted::Here(plugin.as_deref().unwrap_or_default(), &self.host),
        }
    }

    /// How much the plugin's sandbox takes away, where that is `default` unless the command line
    /// says otherwise. Elsewhere the place confines it.
    pub(crate) fn level(&self, default: Level) -> Level {
        let default = if self.place.is_elsewhere() { Level::None } else { default };
        self.walls.named_level().unwrap_or(default)
    }

    /// The same builder with all of these settings, and a sandbox of that level.
    pub(crate) fn apply(&self, builder: PluginBuilder, level: Level, talk: &Talk) -> PluginBuilder {
        let builder = self.place.apply(builder, &self.container, &self.kubectl, self.timeout);
        let mut builder = self.walls.apply(builder, level).args(&self.args).format(talk.format);
        builder = if talk.stdio {
            builder.stdio()
        } else {
            let (stdin, stdout) =
                (self.stdin.unwrap_or(StdinArg::Null), self.stdout.unwrap_or(StdoutArg::Log));
            builder.stdin(stdin.into()).stdout(stdout.into())
        };
        for Variable { name, value } in &self.env {
            builder = builder.env(name, value);
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
        Some(0) => Err("there is no name ahead of the `=`".into()),
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
