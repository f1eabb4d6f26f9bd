//! `pipeplug shell`: talks to a plugin, line by line.

mod calls;
mod complete;
mod data;
mod editor;
mod interrupt;
mod jobs;
mod known;
mod line;
mod live;
mod screen;
mod script;
mod session;
mod show;

use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use nix::sys::termios::{self, SetArg};

use self::editor::{Input, LineEditor};
use self::interrupt::Interrupts;
use self::known::Known;
use self::live::Watch;
use self::script::Script;
use self::session::{Next, Shell};
use crate::args::data::Loader;
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::commands::run;
use crate::exit;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::session::answers::{self, AnswerArg, AnswerHandler};
use crate::session::shutdown::{Shutdown, Signalled};

const SHORT: &str = "\
Examples:
  pipeplug shell @echo
  pipeplug shell ./plugin < script

`help` lists what can be written in the shell. `pipeplug shell --help` has more
options: launchers, containers, Kubernetes, rights and sandbox, recording.";

const EXAMPLES: &str = "\
Lines:
  call CMD [DATA]     call CMD and show its reply; Ctrl-C ends the call
  notify CMD [DATA]   send a one-way, which has no reply
  & call …            call in the background; jobs, wait [N] and cancel N
  time call …         show how long it took
  repeat N call …     do it N times, up to the first error
  answer CMD [DATA]   answer requests CMD of the plugin; refuse CMD ends that
  set timeout 5s      limit calls; set lists the settings
  log debug           level of the plugin's log
  meta, stat          the plugin's metadata; its process, calls and memory
  restart             stop the plugin and start it again
  help [CMD]          list verbs and commands, or explain one
  quit                end; as Ctrl-D

DATA is the rest of the line as it is written, @FILE for the content of a file,
or @@TEXT for the text @TEXT. One word in quotes loses them. Arguments of a
typed service are NAME=VALUE or a JSON object, and its methods need not be
written with the name of the service. Lines that begin with # are comments.

A terminal has a history ($XDG_STATE_HOME/pipeplug/shell_history, by default
below ~/.local/state; lines that begin with a space are not kept) and completes
verbs, commands, arguments and files with Tab. What the plugin writes, tells and
asks appears above the prompt. Ctrl-C drops the line, or ends the call.

A script on stdin, or a stdout that is no terminal, has none of that. Each reply
gets a line of its own on stdout. The first error ends the script, with the
number of its line.

Examples:
  pipeplug shell @echo
  pipeplug shell ./spell --record session.ppr
  printf 'call count\\nrepeat 3 call echo hello\\n' | pipeplug shell @echo
  pipeplug shell ./plugin --timeout 2s < smoke-test";

/// Talk to a plugin, line by line
///
/// Starts the plugin and reads lines: calls, one-ways and questions about the plugin. At the end of
/// the lines the plugin is stopped.
#[derive(Debug, Args)]
#[command(
    override_usage = "pipeplug shell PLUGIN [OPTIONS] [-- ARGS]",
    after_help = SHORT,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP)
)]
pub(crate) struct ShellArgs {
    /// Answer requests CMD of the plugin with DATA
    ///
    /// Repeatable. Other requests are refused. In the shell: answer CMD DATA.
    #[arg(
        long = "answer",
        value_name = "CMD=DATA",
        help_heading = "Calls",
        value_parser = OsStringValueParser::new().try_map(answers::parse)
    )]
    answers: Vec<AnswerArg>,

    #[command(flatten)]
    start: StartArgs,
}

/// Runs `pipeplug shell`.
///
/// # Blocking
/// Until the lines have ended, and the plugin.
pub(crate) fn run(args: &ShellArgs, globals: &Globals) -> ExitReason {
    let shutdown = Shutdown::default();
    args.start.bound_output(&shutdown);
    let report = Report::new(Mode::Text, &args.start.wanted().display_name(), globals, &shutdown);
    let report = Arc::new(report.of_shell());
    attempt(args, &report, &shutdown).unwrap_or_else(|failure| {
        report.show(&Event::Failed(&failure));
        failure.reason
    })
}

fn attempt(
    args: &ShellArgs,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<ExitReason, CommandError> {
    let level = args.start.level(Level::None);
    args.start.sandbox.check(level)?;
    let target = Target::find(args.start.wanted())?;
    run::check_commands(&[], &args.answers, args.start.protocol(&target).format)?;
    let mut loader = Loader::default();
    // Stdin has the lines.
    loader.use_stdin()?;
    let answers = AnswerHandler::load(&args.answers, &mut loader, report)?;
    let is_interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let watch = if is_interactive { Watch::Shown } else { Watch::Silent };
    let known = Arc::new(Mutex::new(Known::default()));
    let interrupts = Interrupts::new();
    let editor = if is_interactive {
        let editor = LineEditor::new(target.name(), Arc::clone(&known), report.paint());
        let editor = editor.map_err(|error| CommandError::new(ExitReason::Failed, error))?;
        handle_signals(&editor, &interrupts, report, shutdown)?;
        Some(editor)
    } else {
        run::handle_signals(shutdown, report)?;
        None
    };
    let mut shell = Shell::start(
        session::Start { args: &args.start, target: &target, level, watch },
        (report, shutdown),
        answers,
        known,
        interrupts,
    )?;
    let result = match editor {
        Some(editor) => talk(&mut shell, editor, report),
        None => follow(&mut shell, shutdown),
    };
    shell.end(result)
}

/// Reads lines from the terminal.
fn talk(
    shell: &mut Shell<'_>,
    mut editor: LineEditor,
    report: &Report,
) -> Result<ExitReason, CommandError> {
    shell.greet();
    while shell.shutdown_failure().is_none() {
        let line = match editor.read() {
            Ok(Input::Line(line)) => line,
            Ok(Input::Dropped) => continue,
            Ok(Input::End) => break,
            Err(error) => {
                let message = format!("cannot read the terminal: {error}");
                return Err(CommandError::message(ExitReason::Failed, message));
            }
        };
        if let Err(note) = editor.remember(&line) {
            report.note(note);
        }
        // Several lines can be pasted at once.
        for line in line.lines() {
            match shell.execute(line, None) {
                Ok(Next::Go) => {}
                Ok(Next::End) => return Ok(ExitReason::Success),
                Err(failure) => {
                    session::show_failure(report, &failure);
                    break;
                }
            }
        }
    }
    Ok(ExitReason::Success)
}

/// Reads lines from a script.
fn follow(shell: &mut Shell<'_>, shutdown: &Shutdown) -> Result<ExitReason, CommandError> {
    let mut script = Script::begin()?;
    loop {
        let line = script.next(shutdown);
        let number = Some(script.number);
        let Some(line) = line.map_err(|failure| failure.at(number))? else { break };
        match shell.execute(&line, number).map_err(|failure| {
            // A call in the background failed in an earlier line.
            let number = failure.line.or(number);
            failure.at(number)
        })? {
            Next::Go => {}
            Next::End => return Ok(ExitReason::Success),
        }
    }
    shell.wait_for_jobs()?;
    Ok(ExitReason::Success)
}

/// Has Ctrl-C end what runs, and not the shell. SIGTERM and SIGHUP end the shell, also while a line is
/// edited.
fn handle_signals(
    editor: &LineEditor,
    interrupts: &Interrupts,
    report: &Arc<Report>,
    shutdown: &Shutdown,
) -> Result<(), CommandError> {
    // The editor changes the terminal while it reads a line, and is not told of a signal.
    let usual = termios::tcgetattr(io::stdin()).ok();
    let (screen, report) = (editor.screen(), Arc::clone(report));
    let (used, by_interrupt) = (interrupts.clone(), shutdown.clone());
    let ending = shutdown.clone();
    let told = move |step| {
        if step == Signalled::Kill {
            report.hint("a second signal came: killing the plugin");
        }
        if step != Signalled::Stop || !screen.is_reading() {
            return;
        }
        let (usual, ending) = (usual.clone(), ending.clone());
        // Beside this thread, which waits for a second signal. Without a thread that one ends it.
        let _ = thread::Builder::new().name("end of the shell".into()).spawn(move || {
            ending.forget();
            if let Some(usual) = usual {
                // The terminal may be gone.
                let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &usual);
            }
            let reason = ending.failure().map_or(ExitReason::Terminated, |failure| failure.reason);
            std::process::exit(reason.code().into());
        });
    };
    shutdown
        .on_signals_but(move || used.interrupt(&by_interrupt), told)
        .map_err(|error| CommandError::new(ExitReason::Failed, error))
}
