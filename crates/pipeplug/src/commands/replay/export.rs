//! Writes a recording as a test in Rust.

use std::fmt::Write as _;

use super::compare::Pointer;
use super::script::Script;
use crate::trace::spans::{Outcome, Span, SpanKind};

/// Begin of the file. `{recording}` is the name of the recording.
const HEAD: &str = r#"//! Replays {recording}. Made by `pipeplug replay --export-test`.
//!
//! It needs the packages pipeplug-net, pipeplug-testkit and serde_json. `plugin` answers as the
//! recorded plugin did: have it call the handler of your plugin instead.

use std::sync::Mutex;

use pipeplug_net::{CallError, Failure, HandlerError, Reply, Request};
use pipeplug_testkit::Pair;
use serde_json::Value;

/// Parts of JSON data that are not compared.
const IGNORED: &[&str] = &[{ignored}];

/// A call or one-way, and the end of the call: `Err` has code and message.
type Step =
    (&'static str, &'static [u8], Option<Result<&'static [u8], (&'static str, &'static str)>>);

"#;

/// End of the file.
const TAIL: &str = r#"
/// Answers what the plugin asks of its host, as the recorded host did.
fn host(request: &mut Request) -> Result<Reply, HandlerError> {
    answer(OF_PLUGIN, request)
}

/// Replace this by the handler of your plugin.
fn plugin(request: &mut Request) -> Result<Reply, HandlerError> {
    answer(OF_HOST, request)
}

fn answer(steps: &[Step], request: &mut Request) -> Result<Reply, HandlerError> {
    static DONE: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
    let mut done = DONE.lock().unwrap();
    let table = steps.as_ptr() as usize;
    let step = steps.iter().enumerate().find(|(index, (command, data, _))| {
        !done.contains(&(table, *index))
            && *command == request.command()
            && same(data, request.buffer())
    });
    let Some((index, (_, _, result))) = step else { return request.unknown() };
    done.push((table, index));
    match result {
        Some(Ok(reply)) => Ok((*reply).into()),
        Some(Err(("", message))) => Err((*message).into()),
        Some(Err((code, message))) => Err(Failure::new(*code, *message).into()),
        None => Ok(Reply::empty()),
    }
}

fn same(recorded: &[u8], now: &[u8]) -> bool {
    let parse = |data| {
        let mut value: Value = serde_json::from_slice(data).ok()?;
        for pointer in IGNORED {
            if let Some(ignored) = value.pointer_mut(pointer) {
                *ignored = Value::Null;
            }
        }
        Some(value)
    };
    recorded == now || parse(recorded).is_some_and(|value| Some(value) == parse(now))
}

#[test]
fn the_plugin_answers_as_it_did() {
    let pair = Pair::new(host, plugin).unwrap();
    for (number, (command, data, expected)) in OF_HOST.iter().enumerate() {
        let place = format!("call {number}, {command}");
        let Some(expected) = expected else {
            pair.host.notify(command, *data).unwrap();
            continue;
        };
        match (expected, pair.host.call_bytes(command, *data)) {
            (Ok(expected), Ok(reply)) => assert!(
                same(expected, &reply),
                "{place}: was {:?}, is {:?}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(&reply)
            ),
            (Err((_, expected)), Err(CallError::Remote { message, .. })) => {
                assert_eq!(message, *expected, "{place}");
            }
            (expected, result) => panic!("{place}: was {expected:?}, is {result:?}"),
        }
    }
}
"#;

/// Formats the test.
pub(super) fn test(script: &Script, recording: &str, ignored: &[Pointer]) -> String {
    let ignored: Vec<_> = ignored.iter().map(|pointer| format!("{:?}", pointer.text())).collect();
    // Nothing of a file's name may end the comment.
    let recording: String = recording.escape_default().collect();
    let mut text =
        HEAD.replace("{recording}", &recording).replace("{ignored}", &ignored.join(", "));
    table(&mut text, "Of the host, in their order.", "OF_HOST", &script.own);
    text.push('\n');
    table(&mut text, "Of the plugin, in any order.", "OF_PLUGIN", &script.others);
    text.push_str(TAIL);
    text
}

fn table(text: &mut String, about: &str, name: &str, spans: &[Span]) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "/// {about}\n#[rustfmt::skip]\nconst {name}: &[Step] = &[");
    for span in spans {
        let ends = match &span.outcome {
            _ if span.kind == SpanKind::OneWay => "None".to_owned(),
            Outcome::Reply => match &span.reply {
                Some(reply) if reply.is_whole() => {
                    format!("Some(Ok({}))", bytes(reply.data.as_deref().unwrap_or_default()))
                }
                _ => continue,
            },
            Outcome::Error { code, message: Some(message) } => {
                format!("Some(Err(({:?}, {message:?})))", code.as_deref().unwrap_or_default())
            }
            // Without an answer there is nothing to compare.
            _ => continue,
        };
        let data = bytes(span.request.data.as_deref().unwrap_or_default());
        let _ = writeln!(text, "    ({:?}, {data}, {ends}),", span.command);
    }
    text.push_str("];\n");
}

fn bytes(data: &[u8]) -> String {
    format!("b\"{}\"", data.escape_ascii())
}
