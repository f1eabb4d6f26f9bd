//! Errors with a code: what handlers return, what is sent, and what the caller learns.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroUsize;
use std::sync::mpsc;
use std::time::Duration;

use common::{LONG, Raw, Way, negotiate, never_answer, pair_on, raw};
use pipeplug_net::wire::{Direction, Limits};
use pipeplug_net::{
    CallError, Connection, EventLoop, Failure, Handler, Options, OutgoingRequest, Payload, Refuse,
    Reply, Request, Retry, Sent, failure_code,
};
use serde_json::{Value, json};

/// An error around a failure.
#[derive(Debug, thiserror::Error)]
#[error("cannot open")]
struct Around(#[source] Failure);

fn not_found() -> Failure {
    Failure::new("not_found", "there is no \"x\"").data(json!({ "name": "x", "near": ["y"] }))
}

/// Fails in the way that the command names.
fn fail(request: &mut Request) -> Result<Reply, pipeplug_net::HandlerError> {
    match request.command() {
        "failure" => Err(not_found().into()),
        "around" => Err(Around(not_found()).into()),
        "plain" => Err("it failed".into()),
        "panic" => panic!("it panicked"),
        "drop" => {
            drop(request.responder());
            Ok(Reply::empty())
        }
        "later" => {
            if let Some(responder) = request.responder() {
                std::thread::spawn(move || responder.fail_with(&not_found()));
            }
            Ok(Reply::empty())
        }
        "late" => {
            request.responder().unwrap().fail("it failed");
            Ok(Reply::empty())
        }
        "never" => {
            never_answer(request);
            Ok(Reply::empty())
        }
        _ => request.unknown(),
    }
}

/// A caller, for each way that the other side reads.
fn each(options: &Options, test: impl Fn(&Connection)) {
    for way in [Way::PLAIN, Way::SHARED] {
        let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let (host, guest) = pair_on((&one, &other), options, way, Refuse, fail);
        negotiate(&host, &guest);
        test(&host);
    }
}

/// Code, message and data of an answer that is an error.
fn remote(error: CallError) -> (Option<String>, String, Option<Value>) {
    assert!(error.is_answer() && error.sent() == Sent::Yes, "{error:?}");
    match error {
        CallError::Remote { code, message, data, .. } => (code, message, data.map(|data| *data)),
        other => panic!("{other:?}"),
    }
}

/// A peer by hand that has named these features.
fn peer(features: &str, options: &Options, handler: impl Handler) -> (Connection, Raw) {
    let (connection, peer) = raw(options, handler);
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some(features)
    });
    (connection, peer)
}

#[test]
fn a_handlers_code_and_data_reach_the_caller() {
    each(&Options::default(), |host| {
        let data = not_found().data;
        let coded = |message: &str| (Some("not_found".into()), message.into(), data.clone());
        let plain = (None, "it failed".into(), None);
        for (command, expected) in [
            ("failure", coded("there is no \"x\"")),
            ("around", coded("cannot open: there is no \"x\"")),
            ("later", coded("there is no \"x\"")),
            ("plain", plain.clone()),
            ("late", plain),
        ] {
            let error = host.call(command, "").unwrap_err();
            assert_eq!((error.retry(), error.command()), (Retry::No, command));
            assert_eq!(remote(error), expected, "{command}");
        }
    });
}

#[test]
fn failures_of_the_library_have_codes() {
    let mut options = Options::default();
    options.limits = Limits::default().with_buffer(1000);
    options.deferred = 1;
    each(&options, |host| {
        let code = |command, data: &[u8]| {
            let error = host.call(command, data).unwrap_err();
            (error.retry(), remote(error).0)
        };
        let of = |retry, code: &str| (retry, Some(code.to_owned()));
        assert_eq!(code("panic", b""), of(Retry::No, failure_code::PANICKED));
        assert_eq!(code("none", b""), of(Retry::No, failure_code::UNKNOWN_COMMAND));
        let request = OutgoingRequest::new("cmd.none", Payload::from(""));
        let error = host.begin_by_protocol(request).unwrap().wait().unwrap_err();
        assert_eq!(error.code(), Some(failure_code::UNKNOWN_COMMAND));
        assert_eq!(code("drop", b""), of(Retry::No, failure_code::UNANSWERED));
        assert_eq!(code("plain", &[0; 2000]), of(Retry::No, failure_code::TOO_LARGE));
        let _kept = host.request("never", "").begin().unwrap();
        common::eventually("the answer is deferred", || {
            code("plain", b"") == of(Retry::Yes, failure_code::OVERLOADED)
        });
    });
}

#[test]
fn requests_over_the_limits_of_threads_queue_and_streams_are_overloads() {
    let overloaded = Some(failure_code::OVERLOADED.to_owned());
    // Each thread that there is waits for a call of its own.
    let events = EventLoop::with_handler_threads(1).unwrap();
    let calls_back = |request: &mut Request| Ok(request.connection().call("back", "")?.into());
    let (connection, mut peer) =
        common::raw_on(&events, &Options::default(), Way::PLAIN, calls_back);
    name_features(&connection, "failure");
    peer.send(1, Direction::Request, "a", b"");
    peer.expect(Direction::Request, "back");
    peer.send(2, Direction::Request, "b", b"");
    assert_eq!(code_of(&peer.expect(Direction::Response, "cmd.failure").buffer), overloaded);
    // The queue is over its limit.
    let mut options = Options::default();
    (options.overrun, options.window) = (1, 1);
    options.handlers = NonZeroUsize::MIN;
    let (entered, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (connection, mut peer) = self::peer("failure", &options, move |_: &mut Request| {
        entered.send(())?;
        let _ = released.lock().unwrap().recv_timeout(LONG);
        Ok(Reply::empty())
    });
    // While a call is open, reading goes on.
    let _open = connection.request("open", "").begin().unwrap();
    peer.expect(Direction::Request, "open");
    peer.send(1, Direction::Request, "a", b"");
    begun.recv_timeout(LONG).unwrap();
    peer.send(2, Direction::Request, "a", b"");
    peer.send(3, Direction::Request, "a", b"");
    let refused = peer.expect(Direction::Response, "cmd.failure");
    assert_eq!((refused.thread_id.as_u64(), code_of(&refused.buffer)), (3, overloaded.clone()));
    drop(release);
    // No more streams are taken.
    let mut options = Options::default();
    options.streams = 0;
    let (_connection, mut peer) = self::peer("failure context cancel stream", &options, Refuse);
    peer.send(1, Direction::OneWay, "cmd.context", b"{\"stream\":\"send\"}");
    peer.send(1, Direction::Request, "a", b"");
    assert_eq!(code_of(&peer.expect(Direction::Response, "cmd.failure").buffer), overloaded);
}

fn name_features(connection: &Connection, features: &str) {
    pipeplug_net::internal::handshake::accept(connection, |key| {
        (key == "pipeplug.features").then_some(features)
    });
}

fn code_of(failure: &[u8]) -> Option<String> {
    let failure: Value = serde_json::from_slice(failure).unwrap();
    Some(failure["code"].as_str()?.to_owned())
}

#[test]
fn requests_that_are_not_handled_tell_why() {
    let mut options = Options::default();
    options.hold = pipeplug_net::Hold::AllBut(Vec::new());
    let (connection, mut peer) = peer("failure context cancel", &options, Refuse);
    peer.send(1, Direction::Request, "a", b"");
    peer.send(1, Direction::OneWay, "cmd.cancel", b"");
    let cancelled = peer.expect(Direction::Response, "cmd.failure").buffer;
    assert_eq!(code_of(&cancelled).unwrap(), failure_code::CANCELLED);
    peer.send(2, Direction::OneWay, "cmd.context", b"{\"deadline_ms\":0}");
    peer.send(2, Direction::Request, "a", b"");
    connection.release();
    let late = peer.expect(Direction::Response, "cmd.failure").buffer;
    assert_eq!(code_of(&late).unwrap(), failure_code::DEADLINE);
}

#[test]
fn a_base_peer_is_sent_the_message_alone() {
    for features in ["", "flow context cancel stream", "failures"] {
        let (_connection, mut peer) = peer(features, &Options::default(), fail);
        for (id, command, message) in [
            (1, "failure", "there is no \"x\""),
            (2, "around", "cannot open: there is no \"x\""),
            (3, "plain", "it failed"),
            (4, "none", "unknown command \"none\""),
            (5, "cmd.none", "unknown command \"cmd.none\""),
        ] {
            peer.send(id, Direction::Request, command, b"");
            let answer = peer.expect(Direction::Response, "cmd.error");
            assert_eq!(String::from_utf8(answer.buffer).unwrap(), message);
        }
    }
}

#[test]
fn what_is_sent_is_that_of_the_specification() {
    let (_connection, mut peer) = peer("failure", &Options::default(), fail);
    peer.send(1, Direction::Request, "failure", b"");
    let sent: Value =
        serde_json::from_slice(&peer.expect(Direction::Response, "cmd.failure").buffer).unwrap();
    let message = "there is no \"x\"";
    let data = json!({ "name": "x", "near": ["y"] });
    assert_eq!(sent, json!({ "code": "not_found", "message": message, "data": data }));
    // An error without a code needs no JSON.
    peer.send(2, Direction::Request, "plain", b"");
    assert_eq!(peer.expect(Direction::Response, "cmd.error").buffer, b"it failed");
}

#[test]
fn a_failure_is_taken_from_a_peer_that_has_not_named_it() {
    let (connection, mut peer) = raw(&Options::default(), Refuse);
    let mut answer = |command: &str, buffer: &[u8]| {
        let call = connection.request("x", "").begin().unwrap();
        let id = peer.expect(Direction::Request, "x").thread_id.as_u64();
        peer.send(id, Direction::Response, command, buffer);
        remote(call.wait().unwrap_err())
    };
    assert_eq!(
        answer("cmd.failure", br#"{"code":"c","message":"m","data":[1]}"#),
        (Some("c".into()), "m".into(), Some(json!([1])))
    );
    assert_eq!(answer("cmd.failure", b"no JSON"), (None, "no JSON".into(), None));
    assert_eq!(answer("cmd.failure", b""), (None, String::new(), None));
    assert_eq!(answer("cmd.failure", br#"{"code":"","message":"m"}"#), (None, "m".into(), None));
    let long = vec![b'x'; 1 << 20];
    for command in ["cmd.error", "cmd.failure"] {
        let message = answer(command, &long).1;
        assert!(message.len() < 65 << 10 && message.ends_with("(1048576 bytes in all)"));
    }
}

#[test]
fn an_error_says_whether_the_request_was_sent() {
    let (connection, mut peer) = raw(&Options::default(), Refuse);
    let facts = |error: &CallError| {
        (error.code().map(str::to_owned), error.sent(), error.retry(), error.is_answer())
    };
    let of = |code: &str, sent, retry| (Some(code.to_owned()), sent, retry, false);
    let late = connection.request("x", "").timeout(Duration::ZERO).wait().unwrap_err();
    assert_eq!(facts(&late), of(failure_code::DEADLINE, Sent::No, Retry::Yes));
    let call = connection.request("x", "").timeout(Duration::from_millis(20)).begin().unwrap();
    let late = call.wait().unwrap_err();
    assert_eq!(facts(&late), of(failure_code::DEADLINE, Sent::Maybe, Retry::IfIdempotent));
    let none = connection.request("x", "").stream().unwrap_err();
    assert_eq!(facts(&none), of(failure_code::UNSUPPORTED, Sent::No, Retry::No));
    let call = connection.request("y", "").begin().unwrap();
    peer.expect(Direction::Request, "x");
    peer.expect(Direction::Request, "y");
    drop(peer);
    let ended = call.wait().unwrap_err();
    assert_eq!(facts(&ended), of(failure_code::CLOSED, Sent::Maybe, Retry::IfIdempotent));
    let closed = connection.call("x", "").unwrap_err();
    assert_eq!(facts(&closed), of(failure_code::CLOSED, Sent::No, Retry::Yes));
}
