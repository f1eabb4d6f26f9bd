//! DATA of a line.

use std::ffi::OsStr;

use super::known::Known;
use crate::args::calls::{CallArg, CallKind};
use crate::args::data::{Data, Loader};
use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Makes a call of a command and DATA as they are written. A method gets the name of its service.
///
/// # Errors
/// The DATA cannot be told apart from something else.
pub(super) fn call(
    known: &Known,
    kind: CallKind,
    command: &str,
    data: &str,
) -> Result<CallArg, CommandError> {
    let failed = |message: String| {
        let message = format!("{}: {message}", Escaped(command));
        CommandError::message(ExitReason::Usage, message).of_command(command)
    };
    let method = known.method(command).map(|(_, method)| method.command.clone());
    let is_typed = method.is_some();
    let named = is_typed && !data.is_empty() && !data.starts_with(['{', '@', '"', '\'']);
    let data = if named {
        let words = shlex::split(data)
            .ok_or_else(|| failed("a quote is not closed, or a backslash is at the end".into()))?;
        Data::Named(words.into_iter().map(String::into_bytes).collect())
    } else {
        parse(data).map_err(failed)?
    };
    Ok(CallArg { kind, command: method.unwrap_or_else(|| command.to_owned()), data })
}

/// Reads the DATA of an answer.
///
/// # Errors
/// A file cannot be read.
pub(super) fn answer(command: &str, data: &str) -> Result<Vec<u8>, CommandError> {
    let data = parse(data).map_err(|message| {
        let message = format!("{}: {message}", Escaped(command));
        CommandError::message(ExitReason::Usage, message)
    })?;
    load(&data)
}

/// Reads the bytes of DATA.
///
/// # Errors
/// A file cannot be read.
pub(super) fn load(data: &Data) -> Result<Vec<u8>, CommandError> {
    Loader::default().load(data)
}

fn parse(data: &str) -> Result<Data, String> {
    // A single word in quotes, which may have spaces in it. Any other text has its quotes as a part.
    let quoted = data.starts_with(['"', '\'']).then(|| shlex::split(data)).flatten();
    if let Some([word]) = quoted.as_deref() {
        return Ok(Data::Literal(word.clone().into_bytes()));
    }
    match Data::parse(OsStr::new(data))? {
        Data::Stdin => Err("stdin has the lines of the shell: write @FILE".into()),
        data => Ok(data),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(data: &str) -> Data {
        Data::Literal(data.into())
    }

    #[test]
    fn data_is_the_rest_of_the_line() {
        for (text, data) in [
            ("", literal("")),
            ("a  b", literal("a  b")),
            ("it's", literal("it's")),
            ("say \"hi\"", literal("say \"hi\"")),
            ("\"two  words\"", literal("two  words")),
            ("' x '", literal(" x ")),
            ("\"a\" \"b\"", literal("\"a\" \"b\"")),
            ("\"open", literal("\"open")),
            ("{\"a\": 1}", literal("{\"a\": 1}")),
            ("-5 --x", literal("-5 --x")),
            ("x=1 y=2", literal("x=1 y=2")),
            ("@@a", literal("@a")),
            ("@a b", Data::File("a b".into())),
        ] {
            let call = call(&Known::default(), CallKind::Call, "cmd", text).unwrap();
            assert_eq!(call.data, data, "{text}");
        }
        for (text, told) in [("@-", "stdin has the lines"), ("@", "names no file")] {
            let failure = call(&Known::default(), CallKind::Call, "cmd", text).unwrap_err();
            assert!(failure.error.unwrap().to_string().contains(told), "{text}");
        }
    }

    #[test]
    fn arguments_of_a_method_are_words() {
        let mut known = Known::default();
        known.describe(
            serde_json::from_value(serde_json::json!({ "services": [
                { "name": "a", "version": 1, "oldest": 1, "methods": [
                    { "name": "m", "command": "a.m" }, { "name": "both", "command": "a.both" } ] },
                { "name": "b", "version": 1, "oldest": 1, "methods": [
                    { "name": "both", "command": "b.both" } ] },
            ] }))
            .unwrap(),
        );
        let named = Data::Named(vec![b"x=a b".to_vec(), b"y=1".to_vec()]);
        for command in ["m", "a.m"] {
            let call = call(&known, CallKind::Call, command, "x='a b' y=1").unwrap();
            assert_eq!((call.command.as_str(), &call.data), ("a.m", &named));
        }
        let json = call(&known, CallKind::Call, "m", "{\"x\": \"=\"}").unwrap();
        assert_eq!(json.data, literal("{\"x\": \"=\"}"));
        let plain = call(&known, CallKind::Call, "both", "x=1").unwrap();
        assert_eq!((plain.command.as_str(), plain.data), ("both", literal("x=1")));
        assert!(call(&known, CallKind::Call, "m", "x='").is_err());
    }
}
