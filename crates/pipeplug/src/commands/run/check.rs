//! Checks of the calls of a command line, before the plugin is started.

use pipeplug_host::{Direction, Format, Header, ThreadId, command};

use super::RunArgs;
use super::each::Source;
use crate::args::calls::CallArg;
use crate::args::data::{Data, Loader};
use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;
use crate::session::answers::AnswerArg;

/// Checks, before the start, that the format can encode every command, and that none is the
/// protocol's own.
pub(crate) fn check_commands(
    calls: &[CallArg],
    answers: &[AnswerArg],
    format: Format,
) -> Result<(), CommandError> {
    let commands = calls.iter().map(|arg| &arg.command);
    for command in commands.chain(answers.iter().map(|arg| &arg.command)) {
        if command::is_of_protocol(command) {
            let instead = match command.as_str() {
                command::GET_METADATA => "`pipeplug inspect` shows what the plugin answers",
                command::STOP => "`pipeplug run` stops the plugin when it has called it",
                command::LOG_LEVEL => "use --log-level",
                _ => "pipeplug sends and answers those by itself",
            };
            let message =
                format!("{}: it is a command of the protocol; {instead}", Escaped(command));
            return Err(CommandError::message(ExitReason::Usage, message).of_command(command));
        }
    }
    for arg in calls {
        let (thread_id, direction) = (ThreadId::new(1), Direction::Request);
        let header = Header { thread_id, direction, command: &arg.command, buffer_len: 0 };
        header.check(format).map_err(|error| {
            let command = Escaped(&arg.command);
            CommandError::message(ExitReason::Usage, format!("{command}: {error}"))
                .of_command(&arg.command)
        })?;
    }
    Ok(())
}

/// Checks the options for many calls, before the plugin is started.
pub(super) fn check_many(args: &RunArgs, loader: &mut Loader) -> Result<(), CommandError> {
    let usage = |message: &str| Err(CommandError::message(ExitReason::Usage, message));
    let calls = &args.calls.0;
    for (option, is_given) in
        [("--repeat", args.repeat.is_some()), ("--parallel", args.parallel.is_some())]
    {
        if is_given && calls.is_empty() {
            return usage(&format!("{option} needs a --call or --notify, as in --call CMD"));
        }
    }
    let Some(name) = &args.data_each else { return Ok(()) };
    match calls.as_slice() {
        [call] if call.data == Data::Literal(Vec::new()) => {}
        [_] => return usage("--data-each gives the call its DATA: leave that of --call out"),
        _ => {
            return usage("--data-each needs one --call or --notify, which it makes for each line");
        }
    }
    if name == "-" {
        loader.use_stdin()?;
        if args.watch {
            return usage("--watch cannot read stdin again: put the lines in a file");
        }
    }
    Source::open(name).map(drop)
}
