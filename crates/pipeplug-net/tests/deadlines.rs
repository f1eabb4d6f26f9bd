//! Deadlines: how they reach the other side's handlers and what these call, and what ends when they
//! pass.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Gate, LONG, Raw, Way, accept, bytes, eventually, fill, negotiate, pair, pair_on, raw, watchdog,
};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, Connection, EventLoop, HandlerError, Options, PendingCall, Reading, Refuse, Reply,
    Request,
};

const SHORT: Duration = Duration::from_millis(50);

/// How many milliseconds are left, or "none".
fn left(request: &Request) -> String {
    request.deadline().map_or_else(
        || "none".to_owned(),
        |deadline| deadline.saturating_duration_since(Instant::now()).as_millis().to_string(),
    )
}

fn tell_left(request: &mut Request) -> Result<Reply, HandlerError> {
    Ok(left(request).into())
}

/// Both ways of reading.
fn ways() -> [Options; 2] {
    [Reading::Shared, Reading::Dedicated].map(|reading| {
        let mut options = Options::default();
        options.reading = reading;
        options
    })
}

fn accept_features(connection: &Connection, features: &str) {
    pipeplug_net::internal::handshake::accept(connection, |key| {
        (key == "pipeplug.features").then_some(features)
    });
}

#[track_caller]
fn assert_left(reply: &str, at_most: Duration) {
    let left: u128 = reply.parse().unwrap();
    assert!(
        left <= at_most.as_millis() && left + LONG.as_millis() / 2 >= at_most.as_millis(),
        "{left} ms"
    );
}

#[test]
fn the_handler_sees_the_deadline_where_both_sides_know_contexts() {
    let _watchdog = watchdog();
    let (host, guest) = pair(&Options::default(), Refuse, tell_left);
    assert_eq!(
        host.request("left", "").timeout(LONG).wait_text().unwrap(),
        "none",
        "not negotiated yet"
    );
    negotiate(&host, &guest);
    assert_eq!(host.call("left", "").unwrap(), "none");
    assert_left(&host.request("left", "").timeout(LONG).wait_text().unwrap(), LONG);
    let pending = host.request("left", "").timeout(LONG).begin().unwrap();
    assert_left(pending.wait().unwrap().text().unwrap(), LONG);
    assert_eq!(
        host.request("left", "").timeout(Duration::MAX).wait_text().unwrap(),
        "none",
        "too far off to be named"
    );
    assert_eq!(host.call("left", "").unwrap(), "none");
}

#[test]
fn the_bytes_are_those_that_the_protocol_shows() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    accept_features(&connection, "context");
    let call =
        connection.request("echo", "hello").timeout(Duration::from_millis(1500)).begin().unwrap();
    let context = raw.input.next().unwrap();
    assert_eq!((context.direction, context.command.as_str()), (Direction::OneWay, "cmd.context"));
    assert_eq!(context.thread_id, call.thread_id());
    let text = String::from_utf8(context.buffer).unwrap();
    let millis =
        text.strip_prefix("{\"deadline_ms\":").and_then(|rest| rest.strip_suffix('}')).unwrap();
    assert!((1..=1500).contains(&millis.parse::<u64>().unwrap()), "{text}");
    assert_eq!(raw.answer(), call.thread_id().as_u64());
    assert_eq!(call.wait().unwrap(), b"hello");
}

#[test]
fn nothing_comes_between_a_context_and_its_request() {
    let _watchdog = watchdog();
    const EACH: usize = 300;
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    accept_features(&connection, "context cancel");
    thread::scope(|scope| {
        for size in [0, 100, 5000] {
            let connection = &connection;
            scope.spawn(move || {
                for _ in 0..EACH {
                    drop(connection.request("timed", vec![0; size]).timeout(LONG).begin().unwrap());
                    connection.notify("note", vec![0; size]).unwrap();
                    drop(connection.request("untimed", "").begin().unwrap());
                }
            });
        }
        let mut seen = [0; 5];
        let kinds = ["cmd.context", "timed", "untimed", "note", "cmd.cancel"];
        while seen.iter().sum::<usize>() < 3 * 6 * EACH {
            let chunk = raw.input.next().unwrap();
            let mut count = |command: &str| {
                seen[kinds.iter().position(|kind| *kind == command).unwrap()] += 1;
            };
            count(&chunk.command);
            if chunk.command == "cmd.context" {
                let next = raw.input.next().unwrap();
                count(&next.command);
                assert_eq!((next.thread_id, next.command.as_str()), (chunk.thread_id, "timed"));
            }
        }
        assert_eq!(seen, [3 * EACH, 3 * EACH, 3 * EACH, 3 * EACH, 6 * EACH]);
    });
}

#[test]
fn a_peer_that_negotiated_nothing_sees_nothing_of_it() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    let error = connection.request("slow", "").timeout(SHORT).wait_text().unwrap_err();
    assert!(matches!(error, CallError::TimedOut { after: SHORT, .. }), "{error}");
    connection.request("dropped", "").begin().unwrap().cancel();
    connection.request("dropped", "").timeout(LONG).begin().unwrap().cancel();
    connection.notify("last", "").unwrap();
    let commands: Vec<_> = (0..4).map(|_| raw.input.next().unwrap().command).collect();
    assert_eq!(commands, ["slow", "dropped", "dropped", "last"]);
}

/// Calls its caller back with what the buffer says, if anything, and answers what is left in each
/// place.
fn relay(request: &mut Request) -> Result<Reply, HandlerError> {
    let text = request.text()?.to_owned();
    let own = left(request);
    let rest = match text.split_once(' ') {
        None => return Ok(own.into()),
        Some(("back", rest)) => request.connection().call("relay", rest)?,
        Some((millis, rest)) => {
            let timeout = Duration::from_millis(millis.parse()?);
            request.connection().request("relay", rest).timeout(timeout).wait_text()?
        }
    };
    Ok(format!("{own} {rest}").into())
}

#[test]
fn a_deadline_is_inherited_by_calls_back_and_by_theirs() {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SHARED] {
        let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let (host, guest) = pair_on((&one, &other), &Options::default(), way, relay, relay);
        negotiate(&host, &guest);
        let parts = |reply: String| reply.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let all =
            parts(host.request("relay", "back back back end").timeout(LONG).wait_text().unwrap());
        assert_eq!(all.len(), 4);
        all.iter().for_each(|left| assert_left(left, LONG));
        // The sooner one counts, whichever side set it.
        let all = parts(host.request("relay", "600000 end").timeout(LONG).wait_text().unwrap());
        all.iter().for_each(|left| assert_left(left, LONG));
        let all = parts(
            host.request("relay", "back 30000 back end").timeout(10 * LONG).wait_text().unwrap(),
        );
        all.iter().zip([10, 10, 1, 1]).for_each(|(left, times)| assert_left(left, times * LONG));
        // Nothing of it is left behind on the threads.
        assert_eq!(host.call("relay", "back back back end").unwrap(), "none none none none");
    }
}

#[test]
fn what_a_handler_calls_fails_when_its_deadline_passes() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let (host, guest) = pair(
        &Options::default(),
        |request: &mut Request| match request.command() {
            "never" => {
                let _ = request.cancellation().wait_timeout(LONG);
                Err("too late".into())
            }
            _ => request.unknown(),
        },
        move |request: &mut Request| {
            let connection = request.connection();
            tell.send(connection.call("never", "").unwrap_err())?;
            // Over already: not even sent.
            tell.send(connection.request("never", "").timeout(LONG).wait_text().unwrap_err())?;
            tell.send(connection.request("never", "").nonblocking().begin().unwrap_err())?;
            Ok(Reply::empty())
        },
    );
    negotiate(&host, &guest);
    let begun = Instant::now();
    // What it answers then may come just in time.
    let reply = host.request("go", "").timeout(SHORT).wait_text();
    assert!(matches!(reply, Ok(_) | Err(CallError::TimedOut { .. })), "{reply:?}");
    let error = told.recv_timeout(LONG).unwrap();
    assert!(matches!(error, CallError::TimedOut { after, .. } if after <= SHORT), "{error}");
    for _ in 0..2 {
        let error = told.recv_timeout(LONG).unwrap();
        assert!(
            matches!(error, CallError::NotSent { after, .. } if after.is_zero()),
            "{error}: its own deadline is later"
        );
        assert!(error.to_string().contains("had passed already"), "{error}");
    }
    assert!(begun.elapsed() < LONG / 2);
    assert_eq!(host.stats().open_calls + guest.stats().open_calls, 0);
}

/// Sends these chunks in one write, and gives the reply to the request 7 among them.
fn reply_to_7(raw: &mut Raw, chunks: &[(u64, Direction, &str, &[u8])]) -> String {
    use std::io::Write as _;
    let all: Vec<u8> =
        chunks.iter().flat_map(|(id, to, what, buffer)| bytes(*id, *to, what, buffer)).collect();
    raw.output.write_all(&all).unwrap();
    loop {
        let chunk = raw.input.next().unwrap();
        if chunk.direction == Direction::Response && chunk.thread_id.as_u64() == 7 {
            return String::from_utf8(chunk.buffer).unwrap();
        }
    }
}

#[test]
fn a_context_counts_for_the_next_chunk_alone_and_only_if_that_is_its_request() {
    let _watchdog = watchdog();
    use Direction::{OneWay, Request, Response};
    let far: &[u8] = b"{\"deadline_ms\":30000}";
    let context = |id| (id, OneWay, "cmd.context", far);
    let request = (7, Request, "left", &b""[..]);
    for options in ways() {
        let (_connection, mut raw) = raw(&options, tell_left);
        assert_left(&reply_to_7(&mut raw, &[context(7), request]), LONG);
        let large = vec![0; 300_000];
        assert_left(&reply_to_7(&mut raw, &[context(7), (7, Request, "left", &large)]), LONG);
        assert_left(&reply_to_7(&mut raw, &[context(8), context(7), request]), LONG);
        let later: &[u8] = b"{\"deadline_ms\":0,\"deadline_ms\":30000,\"trace\":\"x\"}";
        assert_left(&reply_to_7(&mut raw, &[(7, OneWay, "cmd.context", later), request]), LONG);
        for between in [
            (8, Request, "left", &b""[..]),
            (7, OneWay, "note", b""),
            (7, OneWay, "cmd.unknown", b""),
            (7, OneWay, "cmd.cancel", b""),
            (7, Response, "left", b""),
            (7, OneWay, "cmd.context", b"{}"),
            (7, OneWay, "cmd.context", b"not json"),
            (8, OneWay, "cmd.context", far),
            (8, Request, "cmd.ping", b""),
        ] {
            assert_eq!(
                reply_to_7(&mut raw, &[context(7), between, request]),
                "none",
                "{between:?}"
            );
        }
        assert_eq!(reply_to_7(&mut raw, &[request]), "none");
    }
}

#[test]
fn a_context_that_makes_no_sense_is_counted_and_the_request_is_handled() {
    let _watchdog = watchdog();
    let large = vec![b' '; 1 << 20];
    let deep = [vec![b'['; 1 << 20], vec![b']'; 1 << 20]].concat();
    let hostile: [&[u8]; 9] = [
        b"",
        b"not json",
        b"[]",
        b"\xff\x00",
        b"{\"deadline_ms\":-1}",
        b"{\"deadline_ms\":1e400}",
        b"{\"deadline_ms\":99999999999999999999}",
        &large,
        &deep,
    ];
    for options in ways() {
        let (connection, mut raw) = raw(&options, tell_left);
        for (count, buffer) in (1..).zip(hostile) {
            let context = (7, Direction::OneWay, "cmd.context", buffer);
            let reply = reply_to_7(&mut raw, &[context, (7, Direction::Request, "left", b"")]);
            assert_eq!(reply, "none", "{}", buffer[..buffer.len().min(64)].escape_ascii());
            assert_eq!(connection.stats().unexpected, count);
        }
        let far =
            (7, Direction::OneWay, "cmd.context", &b"{\"deadline_ms\":18446744073709551615}"[..]);
        let reply = reply_to_7(&mut raw, &[far, (7, Direction::Request, "left", b"")]);
        assert!(reply == "none" || reply.len() > 12, "{reply}");
    }
}

#[test]
fn a_request_whose_deadline_passes_while_it_waits_is_refused_unseen() {
    let _watchdog = watchdog();
    for mut options in ways() {
        options.handlers = NonZeroUsize::MIN;
        let gate = Gate::default();
        let (handler_gate, (tell, told)) = (gate.clone(), mpsc::channel());
        let (_connection, mut raw) = raw(&options, move |request: &mut Request| {
            tell.send(request.command().to_owned())?;
            handler_gate.pass();
            Ok(Reply::empty())
        });
        raw.send(1, Direction::Request, "first", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), "first");
        raw.send(2, Direction::OneWay, "cmd.context", b"{\"deadline_ms\":1}");
        raw.send(2, Direction::Request, "second", b"");
        thread::sleep(SHORT);
        gate.open();
        let mut replies = [raw.input.next().unwrap(), raw.input.next().unwrap()];
        replies.sort_by_key(|reply| reply.thread_id);
        assert_eq!(replies[1].command, "cmd.error");
        assert!(String::from_utf8_lossy(&replies[1].buffer).contains("deadline had passed"));
        raw.send(3, Direction::Request, "third", b"");
        assert_eq!(told.recv_timeout(LONG).unwrap(), "third");
    }
}

#[test]
fn a_call_that_cannot_be_sent_in_time_says_so_and_is_not_sent_later() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.outgoing = 64 << 10;
    let (connection, mut raw) = raw(&options, Refuse);
    accept_features(&connection, "context cancel");
    let filled = fill(&connection, 1024);
    let begun = Instant::now();
    let error = connection.request("late", "").timeout(SHORT).wait_text().unwrap_err();
    assert!(matches!(error, CallError::NotSent { after: SHORT, .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "late: not sent within 50ms: the other side is behind with what was sent before"
    );
    let error = connection.request("late", "").timeout(SHORT).begin().unwrap_err();
    assert!(matches!(error, CallError::NotSent { .. }), "{error}");
    assert!(begun.elapsed() >= 2 * SHORT);
    assert_eq!(connection.stats().open_calls, filled.len());
    for _ in &filled {
        assert_eq!(raw.input.next().unwrap().command, "x");
    }
    let next = connection.request("next", "").begin().unwrap();
    assert_eq!(raw.answer(), next.thread_id().as_u64());
    next.wait().unwrap();
}

#[test]
fn a_classic_command_that_cannot_be_written_leaves_no_context_behind() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.format = Some(pipeplug_net::wire::Format::Classic);
    let (connection, mut raw) = raw(&options, Refuse);
    accept_features(&connection, "context");
    let error = connection.request("two words", "").timeout(LONG).wait_text().unwrap_err();
    assert!(matches!(error, CallError::Encode { .. }), "{error}");
    connection.notify("next", "").unwrap();
    assert_eq!(raw.input.next().unwrap().command, "next");
}

#[test]
fn a_context_of_a_peer_that_knows_none_is_ignored() {
    let _watchdog = watchdog();
    let (connection, mut raw) = raw(&Options::default(), tell_left);
    let context = br#"{"deadline_ms":30000}"#;
    let ask = [
        (7, Direction::OneWay, "cmd.context", &context[..]),
        (7, Direction::Request, "left", &b""[..]),
    ];
    accept_features(&connection, "flow cancel");
    assert_eq!(reply_to_7(&mut raw, &ask), "none");
    assert_eq!(connection.stats().unexpected, 1);
}

#[test]
fn an_awaited_call_ends_with_its_deadline_and_tells() {
    let _watchdog = watchdog();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (connection, mut raw) = raw(&Options::default(), Refuse);
    accept_features(&connection, "cancel");
    runtime.block_on(async {
        let times = [4, 1, 3, 2];
        let calls = times.map(|times| {
            tokio::spawn(connection.request("slow", "").timeout(times * SHORT).begin().unwrap())
        });
        for (call, times) in calls.into_iter().zip(times) {
            let error = call.await.unwrap().unwrap_err();
            assert!(
                matches!(error, CallError::TimedOut { after, .. } if after == times * SHORT),
                "{error}"
            );
        }
    });
    let commands: Vec<_> = (0..8).map(|_| raw.input.next().unwrap().command).collect();
    assert_eq!(
        commands.iter().filter(|command| *command == "cmd.cancel").count(),
        4,
        "{commands:?}"
    );
    // One that is answered in time is just a call.
    let pending = connection.request("quick", "x").timeout(LONG).begin().unwrap();
    let answering = thread::spawn(move || raw.answer());
    assert_eq!(runtime.block_on(pending).unwrap(), b"x");
    answering.join().unwrap();
}

#[test]
fn whichever_deadline_comes_first_is_named() {
    let (connection, _raw) = raw(&Options::default(), Refuse);
    let after = |error| match error {
        CallError::TimedOut { after, .. } => after,
        error => panic!("{error}"),
    };
    let begin = |timeout| connection.request("x", "").timeout(timeout).begin().unwrap();
    assert_eq!(after(begin(SHORT).wait_timeout(LONG).unwrap_err()), SHORT);
    assert_eq!(after(begin(LONG).wait_timeout(SHORT).unwrap_err()), SHORT);
    assert_eq!(after(begin(SHORT).wait_timeout(Duration::MAX).unwrap_err()), SHORT);
    assert_eq!(after(begin(SHORT).wait_chunk().unwrap_err()), SHORT);
}

#[test]
fn a_late_reply_reaches_no_other_call_however_many_are_given_up() {
    let _watchdog = watchdog();
    const EACH: usize = 1500;
    let (host, guest) = pair(&Options::default(), Refuse, |request: &mut Request| {
        let text = request.text()?.to_owned();
        if text.ends_with('7') {
            thread::yield_now();
        }
        Ok(text.into())
    });
    accept(&host, &guest);
    let answered: usize = thread::scope(|scope| {
        let threads = (0..3).map(|thread| {
            let host = &host;
            scope.spawn(move || {
                (0..EACH)
                    .filter(|i| {
                        let text = format!("{thread} {i}");
                        let timeout = Duration::from_micros(*i as u64 % 40);
                        match host.request("say", &text).timeout(timeout).wait_text() {
                            Ok(reply) => assert_eq!(reply, text),
                            Err(CallError::TimedOut { .. } | CallError::NotSent { .. }) => {
                                return false;
                            }
                            Err(error) => panic!("{error}"),
                        }
                        true
                    })
                    .count()
            })
        });
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(answered < 3 * EACH, "some were given up");
    assert!(guest.wait_idle(LONG));
    assert_eq!(host.call("say", "last").unwrap(), "last");
    eventually("every request has had one answer", || host.stats().open_calls == 0);
    assert_eq!(host.stats().unknown_replies, 0);
}

/// A task and the call that it awaits are dropped with the last waker, where nothing else holds the
/// task.
#[test]
fn a_waker_that_holds_another_call_may_be_the_last_that_does() {
    struct Task(
        #[expect(dead_code, reason = "it is there to be dropped")] Mutex<Pin<Box<PendingCall>>>,
    );
    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }
    let _watchdog = watchdog();
    let (connection, _raw) = raw(&Options::default(), Refuse);
    let begin = || Box::pin(connection.request("never", "").timeout(LONG).begin().unwrap());
    let mut context = Context::from_waker(Waker::noop());
    let (mut first, mut second) = (begin(), begin());
    assert!(first.as_mut().poll(&mut context).is_pending());
    let task = Waker::from(Arc::new(Task(Mutex::new(first))));
    assert!(second.as_mut().poll(&mut Context::from_waker(&task)).is_pending());
    drop(task);
    // Another task awaits it from here on.
    assert!(second.as_mut().poll(&mut context).is_pending());
    assert_eq!(connection.stats().open_calls, 1);
}
