//! `--call` and `--notify`: requests and one-ways to the plugin, in the order of the command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};

use crate::args::data::Data;

const CALL: &str = "call";
const NOTIFY: &str = "notify";

/// Mark before DATA that begins with a dash and is not an option. A NUL cannot occur in an argument
/// of a process.
const SHIELD: u8 = 0;

/// Mark before words `NAME=VALUE` that are joined to one argument, each after a [`SHIELD`].
const NAMED: &[u8] = &[SHIELD, b'='];

/// Letters of the short options. An argument with one dash and any other letter is not an option.
const SHORT_OPTIONS: &[u8] = b"vhV";

/// One `--call` or `--notify`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallArg {
    pub(crate) kind: CallKind,
    pub(crate) command: String,
    pub(crate) data: Data,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallKind {
    /// Send a request and wait for its reply.
    Call,
    /// Send a one-way.
    Notify,
}

/// All calls and one-ways in order. Derived `Args` would collect each option in its own list and
/// lose the order between the two.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallArgs(pub(crate) Vec<CallArg>);

impl Args for CallArgs {
    fn augment_args(command: Command) -> Command {
        let option = |name: &'static str| {
            Arg::new(name)
                .long(name)
                .num_args(1..=2)
                .value_names(["CMD", "DATA"])
                .action(ArgAction::Append)
                .value_parser(value_parser!(OsString))
                .help_heading("Calls")
        };
        command
            .arg(option(CALL).help("Call CMD with DATA, and write the reply to stdout").long_help(
                "Call CMD with DATA (default: empty), and write the reply to stdout. DATA of a \
                     typed service is a JSON object, or NAME=VALUE...",
            ))
            .arg(option(NOTIFY).help("Send CMD with DATA as a one-way, which has no reply"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for CallArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut steps = Vec::new();
        for (name, kind) in [(CALL, CallKind::Call), (NOTIFY, CallKind::Notify)] {
            let (Some(occurrences), Some(mut indices)) =
                (matches.get_occurrences::<OsString>(name), matches.indices_of(name))
            else {
                continue;
            };
            for values in occurrences {
                let values: Vec<_> = values.map(OsString::as_os_str).collect();
                // Clap has an index for each value. The first one is the position of the option.
                let index = indices.by_ref().take(values.len()).min();
                steps.push((index, parse(kind, name, &values)?));
            }
        }
        steps.sort_by_key(|(index, _)| *index);
        Ok(Self(steps.into_iter().map(|(_, step)| step).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn parse(kind: CallKind, name: &str, values: &[&OsStr]) -> Result<CallArg, Error> {
    parse_values(kind, name, values).map_err(|message| {
        Error::raw(
            ErrorKind::ValueValidation,
            format!("{message}\n\nFor more information, try '--help'.\n"),
        )
    })
}

/// Parses the values of the only `--call` of a command.
pub(crate) fn parse_call(values: &[OsString]) -> Result<CallArg, String> {
    let values: Vec<_> = values.iter().map(OsString::as_os_str).collect();
    parse_values(CallKind::Call, CALL, &values)
}

fn parse_values(kind: CallKind, name: &str, values: &[&OsStr]) -> Result<CallArg, String> {
    let invalid = |message: String| format!("--{name} CMD [DATA]: {message}");
    let (command, data) = match values {
        [command] => (command, None),
        [command, data, ..] => (command, Some(data)),
        [] => return Err(invalid("no CMD".into())),
    };
    let command =
        command.to_str().ok_or_else(|| invalid("the CMD is not UTF-8".into()))?.to_owned();
    let data = data.map_or(Ok(Data::Literal(Vec::new())), |data| {
        let bytes = data.as_bytes();
        if let Some(words) = bytes.strip_prefix(NAMED) {
            let words = words.split(|byte| *byte == SHIELD).skip(1);
            return Ok(Data::Named(words.map(<[u8]>::to_vec).collect()));
        }
        Data::parse(OsStr::from_bytes(bytes.strip_prefix(&[SHIELD]).unwrap_or(bytes)))
    });
    Ok(CallArg { kind, command, data: data.map_err(invalid)? })
}

/// Marks DATA that begins with one dash, such as `-5`, before clap parses the arguments. Clap alone
/// takes it for an unknown option; with `allow_hyphen_values` it takes real options for DATA too.
///
/// Words `NAME=VALUE` after the command of a typed service, which has a dot, become one argument.
pub(crate) fn shield(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    enum Next {
        Anything,
        Command,
        Data { of_service: bool },
        Named,
        PluginsOwn,
    }
    let mut next = Next::Anything;
    let mut shielded: Vec<OsString> = Vec::new();
    for arg in args {
        let bytes = arg.as_bytes();
        let may_be_named = matches!(next, Next::Data { of_service: true } | Next::Named);
        if may_be_named && is_named(bytes) {
            if matches!(next, Next::Data { .. }) {
                shielded.push(OsString::from_vec(NAMED.to_vec()));
            }
            if let Some(named) = shielded.last_mut() {
                named.push(OsStr::from_bytes(&[SHIELD]));
                named.push(&arg);
            }
            next = Next::Named;
            continue;
        }
        let is_data = matches!(next, Next::Data { .. }) && is_data_with_dash(bytes);
        next = match (&next, bytes) {
            (Next::PluginsOwn, _) | (_, b"--") => Next::PluginsOwn,
            (_, b"--call" | b"--notify") => Next::Command,
            (Next::Command, command) => Next::Data { of_service: command.contains(&b'.') },
            (Next::Anything | Next::Data { .. } | Next::Named, _) => Next::Anything,
        };
        shielded.push(if is_data { OsString::from_vec([&[SHIELD], bytes].concat()) } else { arg });
    }
    shielded
}

/// Returns true for `NAME=VALUE`, with a name as arguments of methods have it.
fn is_named(arg: &[u8]) -> bool {
    let Some(at) = arg.iter().position(|byte| *byte == b'=') else { return false };
    match arg.split_at(at).0 {
        [first, rest @ ..] => {
            (first.is_ascii_alphabetic() || *first == b'_')
                && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte))
        }
        [] => false,
    }
}

fn is_data_with_dash(arg: &[u8]) -> bool {
    match arg {
        [b'-', b'-', ..] => false,
        [b'-', letters @ ..] => letters.iter().any(|letter| !SHORT_OPTIONS.contains(letter)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(args: &[&str]) -> Result<Vec<(CallKind, String, Data)>, Error> {
        let command = CallArgs::augment_args(Command::new("test"))
            .arg(Arg::new("verbose").short('v').action(ArgAction::Count));
        let args = shield(std::iter::once("test").chain(args.iter().copied()).map(OsString::from));
        let steps = CallArgs::from_arg_matches(&command.try_get_matches_from(args)?)?;
        Ok(steps.0.into_iter().map(|step| (step.kind, step.command, step.data)).collect())
    }

    fn step(kind: CallKind, command: &str, data: &str) -> (CallKind, String, Data) {
        (kind, command.into(), Data::Literal(data.into()))
    }

    #[test]
    fn the_order_of_the_command_line_is_kept() {
        let args = [
            "--call", "a", "1", "--notify", "b", "--call", "c", "--notify", "d", "4", "-v",
            "--call", "e",
        ];
        let expected = [
            step(CallKind::Call, "a", "1"),
            step(CallKind::Notify, "b", ""),
            step(CallKind::Call, "c", ""),
            step(CallKind::Notify, "d", "4"),
            step(CallKind::Call, "e", ""),
        ];
        assert_eq!(steps(&args).unwrap(), expected);
    }

    #[test]
    fn data_may_begin_with_one_dash() {
        for data in ["-5", "-x+1", "-", "-help", "-vx"] {
            let found = steps(&["--call", "a", data, "--call", "b"]).unwrap();
            assert_eq!(
                found,
                [step(CallKind::Call, "a", data), step(CallKind::Call, "b", "")],
                "{data}"
            );
        }
    }

    #[test]
    fn named_arguments_of_a_typed_service_are_taken_together() {
        let named = |words: &[&str]| {
            Data::Named(words.iter().map(|word| word.as_bytes().to_vec()).collect())
        };
        let args = ["--call", "a.b", "x=1", "y=a b=c", "z=", "--notify", "a.c", "w=-5", "-v"];
        let expected = [
            (CallKind::Call, "a.b".to_owned(), named(&["x=1", "y=a b=c", "z="])),
            (CallKind::Notify, "a.c".to_owned(), named(&["w=-5"])),
        ];
        assert_eq!(steps(&args).unwrap(), expected);
        // JSON is one word, and a plugin's own command takes any text.
        let json = r#"{"x":"="}"#;
        assert_eq!(steps(&["--call", "a.b", json]).unwrap()[0].2, Data::Literal(json.into()));
        assert_eq!(steps(&["--call", "a", "x=1"]).unwrap()[0].2, Data::Literal("x=1".into()));
        for args in [&["--call", "a", "x=1", "y=2"][..], &["--call", "a.b", "x=1", "./y=2"]] {
            assert!(steps(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn options_are_no_data() {
        for options in [&["-v"][..], &["-vv"], &["--call", "b"]] {
            let args = [&["--call", "a"], options].concat();
            assert_eq!(steps(&args).unwrap()[0], step(CallKind::Call, "a", ""), "{options:?}");
        }
        assert!(steps(&["--call", "a", "--unknown"]).is_err());
        assert!(steps(&["--call", "a", "1", "-x"]).is_err(), "a third value is none");
        assert!(steps(&["--call"]).is_err());
    }

    #[test]
    fn what_the_plugin_gets_is_not_touched() {
        let args = ["--call", "a", "--", "--call", "b", "-5"].map(OsString::from);
        assert_eq!(shield(args.clone()), args);
    }
}
