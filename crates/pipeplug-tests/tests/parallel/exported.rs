//! Replays a.rec. Made by `pipeplug replay --export-test`.
//!
//! It needs the packages pipeplug-net, pipeplug-testkit and serde_json. `plugin` answers as the
//! recorded plugin did: have it call the handler of your plugin instead.

use std::sync::Mutex;

use pipeplug_net::{CallError, Failure, HandlerError, Reply, Request};
use pipeplug_testkit::Pair;
use serde_json::Value;

/// Parts of JSON data that are not compared.
const IGNORED: &[&str] = &["/a\"b"];

/// A call or one-way, and the end of the call: `Err` has code and message.
type Step =
    (&'static str, &'static [u8], Option<Result<&'static [u8], (&'static str, &'static str)>>);

/// Of the host, in their order.
#[rustfmt::skip]
const OF_HOST: &[Step] = &[
    ("echo", b"hello", Some(Ok(b"hello"))),
    ("fail", b"no luck", Some(Err(("", "no luck")))),
    ("ask", b"greet you", Some(Ok(b"hi"))),
    ("log", b"x", None),
];

/// Of the plugin, in any order.
#[rustfmt::skip]
const OF_PLUGIN: &[Step] = &[
    ("greet", b"you", Some(Ok(b"hi"))),
];

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
