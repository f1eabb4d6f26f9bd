//! Command line of the program: subcommands, options for all of them, and error messages of clap.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{
    ArgAction, Args, ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand,
};
use pipeplug_host::discovery;

use crate::args::calls;
use crate::args::config_file::Taken;
use crate::commands::{
    add, bench, bindings, chunk, conform, dev, diff, doctor, generate, inspect, list, new, pack,
    pin, replay, rm, run, shell, top, trace,
};
use crate::exit::CommandError;
use crate::output::logging;
use crate::output::report::{self, Verbosity};
use crate::output::stream::{self, Kind, Stream};
use crate::output::style::Paint;
use crate::output::text::{self, Escaped};
use crate::{builtin, complete, exit};

const EXAMPLES: &str = "\
Examples:
  pipeplug run @echo --call echo hello
  pipeplug run ./plugin --call open @page.html --notify log done
  pipeplug shell ./plugin
  pipeplug list
  pipeplug inspect ./plugin
  pipeplug diff ./plugin ./plugin-new
  pipeplug bench ./plugin --call find teh --concurrency 100
  pipeplug top
  pipeplug add ./plugin
  pipeplug pin ./plugin && pipeplug run --locked --sandbox strict ./plugin

Run `pipeplug help run` for calls and their data.";

/// Beginnings of the headings of options that only `--help` shows, for commands that start a plugin.
const TOPICS: [&str; 5] = ["Launcher", "Container", "Pod", "Rights and sandbox", "Recording"];

/// Run, list, inspect and add plugins: programs that a host starts and talks to over pipes
#[derive(Debug, Parser)]
#[command(name = "pipeplug", version, max_term_width = 100, after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    globals: Globals,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Shell(shell::ShellArgs),
    List(list::ListArgs),
    Inspect(inspect::InspectArgs),
    Diff(diff::DiffArgs),
    Bindings(bindings::BindingsArgs),
    Bench(bench::BenchArgs),
    Chunk(chunk::ChunkArgs),
    Doctor(doctor::DoctorArgs),
    Add(add::AddArgs),
    Rm(rm::RmArgs),
    Pack(pack::PackArgs),
    Pin(pin::PinArgs),
    Conform(conform::ConformArgs),
    Trace(trace::TraceArgs),
    Replay(replay::ReplayArgs),
    New(new::NewArgs),
    Dev(dev::DevArgs),
    Top(top::TopArgs),
    Generate(generate::GenerateArgs),
}

/// Options of every subcommand.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Globals {
    /// Write more to stderr, -vv much more
    ///
    /// -v adds metadata and times, -vv the log of the libraries.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,

    /// Use colours: always, never or auto
    ///
    /// auto uses them in a terminal, or with CLICOLOR_FORCE=1, unless NO_COLOR is set.
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        global = true
    )]
    pub(crate) color: ColorChoice,
}

impl Globals {
    pub(crate) fn verbosity(&self) -> Verbosity {
        match self.verbose {
            0 => Verbosity::Normal,
            1 => Verbosity::Detailed,
            2.. => Verbosity::Debug,
        }
    }
}

/// Runs the program: a built-in plugin if a host started this process, else the subcommand.
pub(crate) fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(plugin) = builtin::of_command_line(&args) {
        return plugin.run();
    }
    if let Some(status) = conform::of_command_line(&args) {
        return status;
    }
    if let Some(status) = complete::of_environment(&args, command) {
        return status;
    }
    let taken = match options_of_files(&args) {
        Ok(taken) => taken,
        Err(failure) => return report::exit_reason(color_of_help(&args), Err(failure)).into(),
    };
    let parsed = match parse(&args, &taken.args) {
        // An error of the command line alone is told so.
        Err(error) if !taken.args.is_empty() && error.use_stderr() => match parse(&args, &[]) {
            Ok(_) => Err((error, Some(&taken))),
            Err(error) => Err((error, None)),
        },
        parsed => parsed.map_err(|error| (error, None)),
    };
    let Cli { command, globals } = match parsed {
        Ok(cli) => cli,
        Err((mut error, cause)) => {
            suggest(&mut error);
            forget_wrong_tips(&mut error);
            escape_context(&mut error, &args);
            print(&error, &args, cause);
            return ExitCode::from(if error.use_stderr() { exit::USAGE } else { exit::SUCCESS });
        }
    };
    logging::init(globals.verbosity(), globals.color);
    for line in &taken.passed_over {
        report::tell(globals.color, line);
    }
    if globals.verbosity() >= Verbosity::Detailed {
        taken.lines().for_each(|line| report::tell(globals.color, &line));
    }
    let reason = match &command {
        Command::Run(args) => run::run(args, &globals),
        Command::Shell(args) => shell::run(args, &globals),
        Command::List(args) => list::run(args, &globals),
        Command::Inspect(args) => inspect::run(args, &globals),
        Command::Diff(args) => diff::run(args, &globals),
        Command::Bindings(args) => bindings::run(args, &globals),
        Command::Bench(args) => bench::run(args, &globals),
        Command::Chunk(args) => chunk::run(args, &globals),
        Command::Doctor(args) => doctor::run(args, &globals),
        Command::Add(args) => add::run(args, &globals),
        Command::Rm(args) => rm::run(args, &globals),
        Command::Pack(args) => pack::run(args, &globals),
        Command::Pin(args) => pin::run(args, &globals),
        Command::Conform(args) => conform::run(args, &globals),
        Command::Trace(args) => trace::run(args, &globals),
        Command::Replay(args) => replay::run(args, &globals),
        Command::New(args) => new::run(args, &globals),
        Command::Dev(args) => dev::run(args, &globals),
        Command::Top(args) => top::run(args, &globals),
        Command::Generate(args) => generate::run(args, &globals),
    };
    reason.into()
}

/// The definition of the command line.
pub(crate) fn command() -> clap::Command {
    // Only `doctor` can do without a plugin. An argument that is changed moves to the end, so that
    // both positions are written out.
    Cli::command()
        .mut_subcommand("doctor", |doctor| {
            doctor
                .mut_arg("plugin", |it| it.required_unless_present(Resettable::Reset).index(1))
                .mut_arg("args", |it| it.index(2))
        })
        .mut_subcommand("dev", dev::own_arguments)
        .mut_subcommand("bindings", bindings::own_arguments)
}

/// Parses the command line, with options of files.
fn parse(args: &[OsString], of_files: &[OsString]) -> Result<Cli, clap::Error> {
    // Behind the subcommand. Options of the program may be in front of it.
    let names: Vec<_> =
        Cli::command().get_subcommands().map(|it| it.get_name().to_owned()).collect();
    let is_subcommand = |arg: &OsString| names.iter().any(|name| arg == name.as_str());
    let behind = args.iter().position(is_subcommand).map_or(args.len(), |at| at + 1);
    let (before, rest) = args.split_at(behind);
    let all = before.iter().chain(of_files).chain(rest).cloned();
    let command = shortened(command()).color(color_of_help(args));
    let matches = command.try_get_matches_from(calls::shield(all))?;
    Cli::from_arg_matches(&matches)
}

/// Takes options from files for the plugin of this command line.
fn options_of_files(args: &[OsString]) -> Result<Taken, CommandError> {
    // Also if an option is missing that a file has. Errors are for the parse after this one.
    let Some((command, matches)) = matches(args) else { return Ok(Taken::default()) };
    Taken::read(&command, &matches)
}

/// Parses what can be parsed of a command line, without its errors.
pub(crate) fn matches(args: &[OsString]) -> Option<(clap::Command, clap::ArgMatches)> {
    let lenient = |command: clap::Command| command.ignore_errors(true);
    let mut command = lenient(command()).mut_subcommands(lenient);
    let matches = command.try_get_matches_from_mut(calls::shield(args.iter().cloned())).ok()?;
    Some((command, matches))
}

/// Leaves all options of a topic out of `-h`, which fits on a screen. Clap could only hide them one by
/// one.
fn shortened(command: clap::Command) -> clap::Command {
    let is_topic = |arg: &clap::Arg| {
        let heading = arg.get_help_heading().unwrap_or_default();
        TOPICS.iter().any(|topic| heading.starts_with(topic))
    };
    command.mut_subcommands(|subcommand| {
        if !subcommand.get_arguments().any(|arg| arg.get_id() == "sandbox_scratch") {
            return subcommand;
        }
        subcommand.mut_args(|arg| if is_topic(&arg) { arg.hide_short_help(true) } else { arg })
    })
}

/// Writes messages of clap: errors to stderr, help to stdout.
fn print(error: &clap::Error, args: &[OsString], of_files: Option<&Taken>) {
    let color = color_of_help(args);
    let (stream, paint) = if error.use_stderr() {
        (Stream::Stderr, Paint::choose(color, &io::stderr()))
    } else {
        (Stream::Stdout, Paint::choose(color, &io::stdout()))
    };
    let text = error.render();
    let mut text = if paint == Paint::Colored { text.ansi().to_string() } else { text.to_string() };
    if let Some(tip) = tip(error, args) {
        text.push_str(&format!("\ntip: {tip}\n"));
    }
    if let Some(taken) = of_files {
        text.push_str(&format!("\nnote: the options are also {taken}\n"));
    }
    // What the parser of a value says.
    let text = text::without_long_words(&text);
    // If the write fails, the exit status still reports the error.
    let _ = stream::write(stream, Kind::Report, &[text.as_bytes()]);
}

/// Suggests a subcommand for a misspelt one if clap does not. Clap compares whole words and finds
/// no similarity between `rnu` and `run`.
fn suggest(error: &mut clap::Error) {
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else {
        return;
    };
    let typed = typed.clone();
    // Clap also suggests hidden commands, and some for a path.
    error.remove(ContextKind::SuggestedSubcommand);
    if is_plugin(&typed) {
        error.remove(ContextKind::Suggested);
        return;
    }
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.map(clap::Command::get_name);
    if let Some(meant) = discovery::nearest_name(&typed, names) {
        let meant = ContextValue::Strings(vec![meant.to_owned()]);
        error.insert(ContextKind::SuggestedSubcommand, meant);
    }
}

/// Removes the tip of clap to put an unknown option after `--`: the plugin would get it then.
fn forget_wrong_tips(error: &mut clap::Error) {
    if error.kind() == ErrorKind::UnknownArgument && takes_plugin(error) {
        error.remove(ContextKind::Suggested);
    }
}

/// Escapes the parts of the command line that an error quotes, and cuts them: a shell may have inserted
/// file names with control characters, or a whole file.
fn escape_context(error: &mut clap::Error, args: &[OsString]) {
    let escaped = |text: &String| text::cut(&Escaped(text).to_string()).into_owned();
    let is_harmless = args.iter().all(|arg| {
        let arg = arg.to_string_lossy();
        arg.chars().all(Escaped::is_harmless) && text::cut(&arg) == arg
    });
    let context: Vec<_> = error
        .context()
        .filter_map(|(kind, value)| match value {
            ContextValue::String(text) => Some((kind, ContextValue::String(escaped(text)))),
            ContextValue::Strings(texts) => {
                Some((kind, ContextValue::Strings(texts.iter().map(escaped).collect())))
            }
            // Tips keep their styles only if no argument has a character to escape.
            ContextValue::StyledStrs(tips) => {
                let plain: Vec<_> = tips.iter().map(ToString::to_string).collect();
                let tips = plain.iter().map(|tip| escaped(tip).into()).collect();
                (!is_harmless).then_some((kind, ContextValue::StyledStrs(tips)))
            }
            _ => None,
        })
        .collect();
    for (kind, value) in context {
        error.insert(kind, value);
    }
}

/// Returns a tip that clap cannot give: it does not know how many words belong to a call.
fn tip(error: &clap::Error, args: &[OsString]) -> Option<String> {
    if let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) {
        // A word that `escape_context` has changed is not taken for a plugin.
        return is_plugin(typed)
            .then(|| format!("a plugin is started by `run`: pipeplug run {}", Escaped(typed)));
    }
    match (error.kind(), error.get(ContextKind::InvalidArg)?) {
        (ErrorKind::MissingRequiredArgument, ContextValue::Strings(names))
            if names.iter().any(|name| name == "<PLUGIN>") && takes_calls(error) =>
        {
            Some("write PLUGIN first; a word after --call CMD is its DATA".to_owned())
        }
        (ErrorKind::UnknownArgument, ContextValue::String(word)) if takes_plugin(error) => {
            Some(tip_of_unknown(word, args))
        }
        _ => None,
    }
}

/// True if a word in place of a subcommand is meant for a plugin.
fn is_plugin(typed: &str) -> bool {
    typed.starts_with('@') || typed.contains('/') || Path::new(typed).is_file()
}

/// Tip for an unknown word or option.
fn tip_of_unknown(word: &str, args: &[OsString]) -> String {
    let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
    if !word.starts_with('-') {
        let locked = args.iter().position(|arg| arg == "--locked");
        let file = locked.and_then(|at| args.get(at + 1)).filter(|file| !file.starts_with('-'));
        if let Some(file) = file.filter(|file| file.as_ref() != word) {
            return format!("the name of a lock file follows a `=`: --locked={}", Escaped(file));
        }
        return "put DATA of several words in quotes, and the plugin's own ARGS after --"
            .to_owned();
    }
    // Clap names `-5` for `-5s`, and `--foo` for `--foo=x`.
    let at = args.iter().position(|arg| arg.starts_with(word)).unwrap_or(0);
    let (before, value) = args.split_at(at);
    match before {
        [.., verb, command] if verb == "--call" || verb == "--notify" => format!(
            "DATA that begins with two dashes comes from a file or stdin: {verb} {} @FILE, or @-",
            Escaped(command)
        ),
        [.., option] if takes_value(option) => {
            let value = value.first().map_or(word, |value| value.as_ref());
            format!("a value that begins with a dash follows a `=`: {option}={}", Escaped(value))
        }
        _ => "the plugin's own ARGS follow --".to_owned(),
    }
}

/// True if the option, of any subcommand, takes a value.
fn takes_value(option: &str) -> bool {
    let Some(name) = option.strip_prefix("--") else { return false };
    let command = Cli::command();
    let mut options = command.get_subcommands().flat_map(clap::Command::get_arguments);
    options.any(|it| it.get_long() == Some(name) && it.get_action().takes_values())
}

/// True if the error is about a subcommand with calls in its usage.
fn takes_calls(error: &clap::Error) -> bool {
    let usage = error.get(ContextKind::Usage);
    matches!(usage, Some(ContextValue::StyledStr(usage)) if usage.to_string().contains("--call"))
}

/// True if the error is about a subcommand that starts a plugin.
fn takes_plugin(error: &clap::Error) -> bool {
    let usage = error.get(ContextKind::Usage);
    matches!(usage, Some(ContextValue::StyledStr(usage)) if usage.to_string().contains("PLUGIN"))
}

/// Value of `--color`, for messages that clap writes before it has parsed the option.
fn color_of_help(args: &[OsString]) -> ColorChoice {
    let own = args.iter().take_while(|arg| *arg != "--").filter_map(|arg| arg.to_str());
    let mut choice = ColorChoice::Auto;
    let mut before = "";
    for arg in own {
        let value = if before == "--color" { Some(arg) } else { arg.strip_prefix("--color=") };
        // Clap reports an invalid value.
        choice = value.and_then(|value| value.parse().ok()).unwrap_or(choice);
        before = arg;
    }
    choice
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn color_is_known_before_the_rest() {
        let choice =
            |args: &[&str]| color_of_help(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(choice(&["p", "run"]), ColorChoice::Auto);
        assert_eq!(choice(&["p", "--color", "never", "run"]), ColorChoice::Never);
        assert_eq!(choice(&["p", "run", "--color=always"]), ColorChoice::Always);
        assert_eq!(choice(&["p", "run", "--", "--color=always"]), ColorChoice::Auto);
    }
}
