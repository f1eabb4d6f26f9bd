//! Streams: order, credit, early ends, deadlines, cancellation, the end of the connection.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use pipeplug_net::wire::Format;
use pipeplug_net::{
    CallError, CancelHandle, Connection, Endpoint, EventLoop, Handler, HandlerError, NotifyError,
    Options, Part, Reading, Refuse, Reply, Request, Sent, StreamError,
};
use pipeplug_testkit::{Cut, LONG, Pair, Peer, cut_at_every_byte};

use common::eventually;

type Handled = Result<Reply, HandlerError>;

/// The caller, the other side, and what keeps both.
struct Sides {
    caller: Connection,
    callee: Connection,
    _pair: Pair,
}

/// A caller and a callee, with this window of each stream.
fn sides(reading: Reading, window: usize, caller: impl Handler, callee: impl Handler) -> Sides {
    let options = |reading| {
        let mut options = Options::default();
        (options.reading, options.stream_window) = (reading, window);
        options
    };
    let setup = Pair::setup()
        .host_options(options(Reading::Shared))
        .guest_options(options(Reading::Dedicated));
    let pair = match reading {
        Reading::Shared => setup.connect(callee, caller).unwrap(),
        _ => setup.connect(caller, callee).unwrap(),
    };
    let (host, guest) = (pair.host.clone(), pair.guest.clone());
    match reading {
        Reading::Shared => Sides { caller: guest, callee: host, _pair: pair },
        _ => Sides { caller: host, callee: guest, _pair: pair },
    }
}

/// Runs a test with the host's and the guest's way of reading, and with several windows.
fn each(test: impl Fn(Reading, usize)) {
    for reading in [Reading::Dedicated, Reading::Shared] {
        for window in [1, 300, 1 << 20] {
            test(reading, window);
        }
    }
}

/// Sends each part back, and the number of parts as the reply.
fn echo(request: &mut Request) -> Handled {
    let mut reply = request.reply_parts()?;
    let mut count = 0;
    for part in request.parts() {
        reply.send(part?.into_bytes())?;
        count += 1;
    }
    Ok(format!("{count}").into())
}

#[test]
fn parts_go_through_a_handler_and_back_in_order() {
    each(|reading, window| {
        let sides = sides(reading, window, Refuse, echo);
        let (mut sender, mut parts) = sides.caller.request("echo", "").stream().unwrap().split();
        let count = 2000;
        let part = |n: usize| vec![n as u8; n * 7 % 5001];
        let sending = std::thread::spawn(move || {
            for n in 0..count {
                sender.send(part(n)).unwrap();
            }
            sender.finish().unwrap();
        });
        for n in 0..count {
            assert!(*parts.next().unwrap().unwrap() == *part(n), "{n}");
        }
        assert!(parts.next().is_none());
        assert_eq!(parts.reply().unwrap(), "2000");
        sending.join().unwrap();
    });
}

#[test]
fn one_thread_sends_and_receives_in_turn() {
    each(|reading, window| {
        let sides = sides(reading, window, Refuse, echo);
        let (mut sender, mut parts) = sides.caller.request("echo", "").stream().unwrap().split();
        for n in 0..200_u32 {
            sender.send(n.to_string()).unwrap();
            assert_eq!(parts.next().unwrap().unwrap().text().unwrap(), n.to_string());
        }
        sender.finish().unwrap();
        assert_eq!(parts.reply().unwrap(), "200");
    });
}

#[test]
fn batches_are_parts_like_others() {
    let handler = |request: &mut Request| {
        let (mut reply, mut parts) = (request.reply_parts()?, request.parts());
        while let Some(batch) = parts.next_batch() {
            reply.send_batch(&batch?)?;
        }
        Ok(Reply::empty())
    };
    each(|reading, window| {
        let sides = sides(reading, window, Refuse, handler);
        let (mut sender, mut parts) = sides.caller.request("batches", "").stream().unwrap().split();
        // Small ones, some that are sent alone, and more than the window takes.
        let all: Vec<Vec<u8>> = (0..3000_usize).map(|n| vec![n as u8; n * 13 % 5003]).collect();
        let sent = all.clone();
        let sending = std::thread::spawn(move || {
            sender.send_batch::<&[u8]>(&[]).unwrap();
            sent.chunks(700).try_for_each(|batch| sender.send_batch(batch)).unwrap();
            sender.finish().unwrap();
        });
        let mut received: Vec<Vec<u8>> = Vec::new();
        while let Some(batch) = parts.next_batch() {
            received.extend(batch.unwrap().into_iter().map(Part::into_bytes));
        }
        assert!(received == all);
        parts.reply().unwrap();
        sending.join().unwrap();
    });
}

#[test]
fn large_parts_and_bytes_arrive_whole() {
    each(|reading, window| {
        let sides = sides(reading, window, Refuse, echo);
        let (mut sender, mut parts) = sides.caller.request("echo", "").stream().unwrap().split();
        let bytes: Vec<u8> = (0..3_000_001_u32).map(|n| (n >> 7) as u8).collect();
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || {
            sender.write_all(&sent).unwrap();
            sender.send("").unwrap();
            sender.send(sent).unwrap();
            sender.finish().unwrap();
        });
        let mut received = Vec::new();
        parts.read_to_end(&mut received).unwrap();
        assert!(received == [bytes.as_slice(), &bytes].concat());
        sending.join().unwrap();
    });
}

#[test]
fn a_one_way_stream_arrives_in_order() {
    each(|reading, window| {
        let (done, sums) = mpsc::channel();
        let sides = sides(reading, window, Refuse, move |request: &mut Request| {
            let mut bytes = Vec::new();
            request.parts().read_to_end(&mut bytes)?;
            done.send((request.is_one_way(), request.buffer().to_vec(), bytes)).unwrap();
            Ok(Reply::empty())
        });
        let mut sender = sides.caller.notify_stream("take", "first").unwrap();
        let numbers = (0..5000).map(|n| format!("{n} "));
        sender.send_all(numbers.clone()).unwrap();
        sender.finish().unwrap();
        let (is_one_way, first, bytes) = sums.recv_timeout(LONG).unwrap();
        assert!(is_one_way && first == b"first");
        assert!(bytes == numbers.collect::<String>().into_bytes());
    });
}

#[test]
fn a_receiver_that_takes_nothing_holds_up_its_sender_and_nothing_else() {
    let (release, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let handler = move |request: &mut Request| {
        if request.command() == "stuck" {
            let parts = request.parts();
            gate.lock().unwrap().recv_timeout(LONG)?;
            return Ok(parts.count().to_string().into());
        }
        echo(request)
    };
    let sides = sides(Reading::Dedicated, 10_000, Refuse, handler);
    let (mut sender, stuck) = sides.caller.request("stuck", "").stream().unwrap().split();
    let sending = std::thread::spawn(move || {
        for _ in 0..100 {
            sender.send(vec![0; 1000]).unwrap();
        }
        sender.finish().unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!sending.is_finished(), "the window is 10,000 bytes");
    // Another stream, and a call, go on.
    let (mut other, mut parts) = sides.caller.request("echo", "").stream().unwrap().split();
    for _ in 0..100 {
        other.send(vec![1; 1000]).unwrap();
        assert_eq!(parts.next().unwrap().unwrap().len(), 1000);
    }
    other.finish().unwrap();
    assert_eq!(parts.reply().unwrap(), "100");
    sides.caller.ping(LONG).unwrap();
    release.send(()).unwrap();
    assert_eq!(stuck.reply().unwrap(), "100");
    sending.join().unwrap();
}

#[test]
fn either_side_ends_a_stream_early_and_the_other_learns_the_reason() {
    each(|reading, window| {
        let handler = |request: &mut Request| {
            let mut parts = request.parts();
            match request.command() {
                "enough" => {
                    parts.next();
                    parts.enough("one is enough");
                    Ok("had one".into())
                }
                "answer" => Ok("at once".into()),
                "fail" => Err("it cannot be".into()),
                "sum" => match parts.try_fold(0, |sum, part| part.map(|part| sum + part.len())) {
                    Ok(sum) => Ok(sum.to_string().into()),
                    Err(error) => Err(error.into()),
                },
                _ => {
                    let mut reply = request.reply_parts()?;
                    loop {
                        if let Err(error) = reply.send("more") {
                            return Ok(error.to_string().into());
                        }
                    }
                }
            }
        };
        let sides = sides(reading, window, Refuse, handler);
        let open = |command| sides.caller.request(command, "").stream().unwrap().split();

        for (command, expected) in [("enough", "one is enough"), ("answer", "")] {
            let (mut sender, parts) = open(command);
            let error = loop {
                if let Err(error) = sender.send("part") {
                    break error;
                }
            };
            let StreamError::Enough { reason } = &error else { panic!("{error:?}") };
            // The answer, which follows, may come first.
            assert!(reason == expected || reason == "the call has ended", "{error}");
            parts.reply().unwrap();
        }
        let (_sender, mut parts) = open("fail");
        let error = parts.next().unwrap().unwrap_err();
        assert!(matches!(&error, CallError::Remote { message, .. } if message == "it cannot be"));
        assert!(parts.next().is_none());

        let (mut sender, parts) = open("sum");
        sender.send("12345").unwrap();
        sender.abort("the disk is full");
        let error = parts.reply().unwrap_err();
        assert!(error.to_string().contains("ended the stream early: the disk is full"), "{error}");

        let (mut sender, parts) = open("sum");
        sender.send("12345").unwrap();
        drop(sender);
        let error = parts.reply().unwrap_err();
        assert!(error.to_string().contains("dropped before"), "{error}");

        let (_sender, mut parts) = open("endless");
        assert_eq!(parts.next().unwrap().unwrap().text().unwrap(), "more");
        parts.enough("no more");
        let reply = parts.reply().unwrap();
        assert_eq!(reply, "the receiver takes no more parts: no more");

        // Dropping the parts of the reply gives the call up.
        let (sender, parts) = open("endless");
        drop(parts);
        eventually("the handler ends", || sides.callee.wait_idle(Duration::ZERO));
        assert!(sender.error().is_some());
    });
}

#[test]
fn a_deadline_and_a_crash_end_a_stream_as_they_end_a_call() {
    each(|reading, window| {
        let handler = |request: &mut Request| {
            let error = request.parts().find_map(Result::err).unwrap();
            Err(error.into())
        };
        let sides = sides(reading, window, Refuse, handler);
        let wait = Duration::from_millis(30);
        let call = sides.caller.request("wait", "").timeout(wait).stream().unwrap();
        let (mut sender, mut parts) = call.split();
        let error = parts.next().unwrap().unwrap_err();
        assert!(matches!(error, CallError::TimedOut { after, .. } if after == wait), "{error}");
        assert!(sender.send("late").is_err());
        eventually("the handler ends", || sides.callee.wait_idle(Duration::ZERO));

        let (mut sender, mut parts) = sides.caller.request("wait", "").stream().unwrap().split();
        sender.send("part").unwrap();
        sides.callee.end("the other side is gone");
        let error = parts.next().unwrap().unwrap_err();
        assert!(matches!(error, CallError::Closed { .. }), "{error:?}");
        let error = loop {
            if let Err(error) = sender.send("part") {
                break error;
            }
        };
        assert!(matches!(error, StreamError::Closed { .. }), "{error:?}");
    });
}

#[test]
fn calls_without_a_stream_have_no_parts() {
    let handler = |request: &mut Request| {
        assert_eq!(request.parts().count(), 0);
        assert!(!request.has_stream());
        request.reply_parts().map(|_| Reply::empty()).map_err(Into::into)
    };
    let sides = sides(Reading::Dedicated, 1 << 20, Refuse, handler);
    let error = sides.caller.call("plain", "").unwrap_err();
    assert!(error.to_string().contains("takes no parts of a reply"), "{error}");
}

#[test]
fn a_peer_without_the_feature_is_sent_no_stream() {
    let events = EventLoop::new().unwrap();
    let (connection, _peer) = Peer::connect(&events, Options::default(), Refuse).unwrap();
    let error = connection.request("echo", "").stream().unwrap_err();
    assert!(matches!(error, CallError::Unsupported { feature: "stream", .. }), "{error}");
    let error = connection.notify_stream("echo", "").unwrap_err();
    assert!(matches!(error, NotifyError::Unsupported { feature: "stream", .. }), "{error}");
}

#[test]
fn a_cut_at_any_byte_ends_both_directions_and_loses_nothing_before_it() {
    let handler = |request: &mut Request| {
        let mut reply = request.reply_parts()?;
        for part in request.parts() {
            reply.send(part?.into_bytes())?;
        }
        Ok("done".into())
    };
    let runs = cut_at_every_byte(
        || Pair::new(Refuse, handler),
        |pair: &Pair, cut: Option<Cut>| {
            let Ok(call) = pair.host.request("x", "").stream() else { return };
            let (mut sender, mut parts) = call.split();
            let sent = ["one", "two"].map(|part| sender.send(part).is_ok());
            let finished = sender.finish();
            let received: Vec<_> = Iterator::by_ref(&mut parts).collect();
            let texts = received.iter().flatten().map(|part| part.text().unwrap());
            assert!(["one", "two"].starts_with(&texts.collect::<Vec<_>>()), "{received:?}");
            match received.last() {
                Some(Err(error)) => {
                    let is_closed = matches!(error, CallError::Closed { .. });
                    // The handler may tell first.
                    let is_told = matches!(error, CallError::Remote { .. });
                    assert!(cut.is_some() && (is_closed || is_told), "{error}");
                }
                _ => {
                    assert_eq!((received.len(), sent), (2, [true; 2]));
                    assert_eq!(parts.reply().unwrap(), "done");
                    assert!(finished.is_ok() || cut.is_some());
                }
            }
            assert_eq!(pair.host.stats().open_streams, 0);
        },
    )
    .unwrap();
    assert!(runs > 100, "{runs}");
}

#[test]
fn a_deadline_ends_sending_though_nothing_has_to_wait() {
    each(|reading, _| {
        let (release, gate) = mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let handler = move |_: &mut Request| {
            gate.lock().unwrap().recv_timeout(LONG)?;
            Ok(Reply::empty())
        };
        let sides = sides(reading, 1 << 20, Refuse, handler);
        let timeout = Duration::from_millis(20);
        let call = sides.caller.request("take", "").timeout(timeout).stream().unwrap();
        let (mut sender, _parts) = call.split();
        let begun = std::time::Instant::now();
        let error = loop {
            if let Err(error) = sender.send("there is credit for it") {
                break error;
            }
            assert!(begun.elapsed() < LONG, "the deadline has passed long ago");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert!(matches!(error, StreamError::DeadlinePassed), "{error:?}");
        release.send(()).unwrap();
    });
}

#[test]
fn parts_of_a_reply_that_are_dropped_end_sending_as_a_call_that_is_given_up() {
    let sides = sides(Reading::Dedicated, 1 << 20, Refuse, echo);
    let (mut sender, parts) = sides.caller.request("echo", "").stream().unwrap().split();
    sender.send("part").unwrap();
    drop(parts);
    assert!(matches!(sender.send("more"), Err(StreamError::Cancelled)));
}

#[test]
fn a_handler_that_ignores_a_stream_is_told_of() {
    each(|reading, window| {
        let later = |request: &mut Request| {
            let responder = request.responder().unwrap();
            std::thread::spawn(move || responder.answer("later"));
            Ok(Reply::empty())
        };
        let sides =
            sides(reading, window, Refuse, move |request: &mut Request| match request.command() {
                "ignore" => Ok("done".into()),
                "later" => later(request),
                "task" => request.spawn(
                    |future| {
                        let mut runtime = tokio::runtime::Builder::new_current_thread();
                        std::thread::spawn(move || runtime.build().unwrap().block_on(future))
                    },
                    async |_| Ok("done".into()),
                ),
                "first" => Ok(request.parts().next().unwrap()?.into_bytes().into()),
                "all" => echo_into_nothing(request),
                _ => request.unknown(),
            });
        let ignored = "the handler takes no parts";
        for (command, is_ignored) in
            [("ignore", true), ("later", true), ("task", true), ("first", false), ("all", false)]
        {
            let (mut sender, mut parts) =
                sides.caller.request(command, "").stream().unwrap().split();
            match sender.send("part").and_then(|()| sender.finish()) {
                Ok(()) => {}
                // The answer may be faster.
                Err(StreamError::Enough { .. }) if command != "all" => {}
                Err(error) => panic!("{command}: {error}"),
            }
            assert!(parts.next().is_none());
            let refusal = parts.refusal().filter(|reason| !reason.is_empty());
            assert_eq!(refusal.as_deref(), is_ignored.then_some(ignored), "{command}");
            parts.reply().unwrap();
        }
        // An error says enough by itself.
        let (_sender, mut parts) = sides.caller.request("no", "").stream().unwrap().split();
        parts.next().unwrap().unwrap_err();
        assert_eq!(parts.refusal(), None);
        for command in ["ignore", "task"] {
            let mut sender = sides.caller.notify_stream(command, "").unwrap();
            eventually("sending ends", || sender.send("part").is_err());
            let error = sender.error().unwrap();
            assert!(
                matches!(&error, StreamError::Enough { reason } if reason == ignored),
                "{error:?}"
            );
        }
    });
}

fn echo_into_nothing(request: &mut Request) -> Handled {
    request.parts().try_for_each(|part| part.map(drop))?;
    Ok(Reply::empty())
}

/// Cancels a moment after `run` has begun to wait on another thread.
fn cancelled<T: Send>(handle: &CancelHandle, run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let running = scope.spawn(run);
        std::thread::sleep(Duration::from_millis(30));
        assert!(!running.is_finished(), "it waits");
        handle.cancel();
        running.join().unwrap()
    })
}

fn await_it<T>(task: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(task)
}

/// Waits until the call is given up, without taking or sending a part.
fn stand_still(request: &mut Request) -> Handled {
    assert!(request.cancellation().wait_timeout(LONG));
    Ok(Reply::empty())
}

#[test]
fn a_handle_ends_both_halves_of_a_stream_wherever_they_wait() {
    for (reading, window) in [(Reading::Dedicated, 300), (Reading::Shared, 1)] {
        for of_sender in [false, true] {
            let sides = sides(reading, window, Refuse, stand_still);
            let call = || sides.caller.request("stand still", "").stream().unwrap();
            let open = || {
                let (mut sender, parts) = call().split();
                // One part fits in any window; the next one waits.
                sender.send(vec![0; 400]).unwrap();
                let handle = if of_sender { sender.cancel_handle() } else { parts.cancel_handle() };
                (sender, parts, handle)
            };
            let (mut sender, mut parts, handle) = open();
            let error = cancelled(&handle, || sender.send("waits for credit").unwrap_err());
            assert!(matches!(error, StreamError::Cancelled), "{error:?}");
            let error = parts.next().unwrap().unwrap_err();
            assert!(matches!(error, CallError::Cancelled { .. }), "{error:?}");
            assert!(parts.next().is_none());
            let (_sender, mut parts, handle) = open();
            let error = cancelled(&handle, || parts.next().unwrap().unwrap_err());
            assert!(matches!(error, CallError::Cancelled { .. }), "{error:?}");
            let (mut sender, mut parts, handle) = open();
            let error = cancelled(&handle, || await_it(sender.send_async("x")).unwrap_err());
            assert!(matches!(error, StreamError::Cancelled), "{error:?}");
            let error = await_it(parts.next_async()).unwrap().unwrap_err();
            assert!(matches!(error, CallError::Cancelled { .. }), "{error:?}");
            assert!(sides.callee.wait_idle(LONG));
            assert_eq!(sides.caller.stats().open_streams, 0);
        }
    }
}

#[test]
fn a_handle_made_before_ends_a_stream_that_is_opened_with_it() {
    let sides = sides(Reading::Dedicated, 300, Refuse, stand_still);
    let handle = CancelHandle::new();
    let open = || sides.caller.request("stand still", "").cancel_by(&handle);
    let mut parts = open().receive_parts().unwrap();
    let error = cancelled(&handle, || parts.next().unwrap().unwrap_err());
    assert!(matches!(error, CallError::Cancelled { .. }), "{error:?}");
    let error = open().stream().unwrap_err();
    assert!(matches!(error, CallError::Cancelled { sent: Sent::No, .. }), "{error:?}");
}

#[test]
fn a_handle_ends_a_sender_that_waits_for_room() {
    for is_awaited in [false, true] {
        // Nothing reads the pipe, and the window is larger than what may wait.
        let (input, writer) = std::io::pipe().unwrap();
        let (reader, output) = std::io::pipe().unwrap();
        let events = EventLoop::new().unwrap();
        let mut options = Options::default();
        (options.outgoing, options.format) = (1 << 16, Some(Format::Standard));
        let (reader, writer) = (Endpoint::exclusive(reader), Endpoint::exclusive(writer));
        let connection = events.connect(reader, writer, options, Refuse).unwrap();
        pipeplug_net::internal::handshake::accept(&connection, |key| match key {
            "pipeplug.protocol" => Some("1"),
            "pipeplug.features" => Some("context cancel stream"),
            "pipeplug.stream_window" => Some("9999999"),
            _ => None,
        });
        let (mut sender, _parts) = connection.request("x", "").stream().unwrap().split();
        let handle = sender.cancel_handle();
        let error = cancelled(&handle, || {
            loop {
                let part = vec![0; 1 << 12];
                let sent = match is_awaited {
                    true => await_it(sender.send_async(part)),
                    false => sender.send(part),
                };
                if let Err(error) = sent {
                    break error;
                }
            }
        });
        assert!(matches!(error, StreamError::Cancelled), "{error:?}");
        assert!(connection.stats().queued >= 1 << 16, "it waited for room");
        drop((input, output));
    }
}

#[test]
fn a_handle_ends_a_one_way_stream_early_and_the_parts_of_a_reply_for_their_sender() {
    let (tell, told) = mpsc::channel();
    let handler = move |request: &mut Request| {
        if request.command() == "one-way" {
            let end = request.parts().find_map(Result::err);
            tell.send(end.map(|error| error.to_string()))?;
            return Ok(Reply::empty());
        }
        let mut reply = request.reply_parts()?;
        reply.send(vec![0; 400])?;
        let handle = reply.cancel_handle();
        let error = cancelled(&handle, || reply.send("waits for credit").unwrap_err());
        Err(format!("it ended: {error}").into())
    };
    let sides = sides(Reading::Dedicated, 300, Refuse, handler);
    let mut sender = sides.caller.notify_stream("one-way", "").unwrap();
    sender.send("part").unwrap();
    sender.cancel_handle().cancel();
    assert!(matches!(sender.send("more"), Err(StreamError::Cancelled)));
    let end = told.recv_timeout(LONG).unwrap().unwrap();
    assert!(end.contains("the call was given up"), "{end}");
    let parts = sides.caller.request("reply", "").receive_parts().unwrap();
    // No part is taken before that, so that no credit comes.
    eventually("the handler gives up", || sides.caller.stats().open_calls == 0);
    let error = parts.reply().unwrap_err();
    assert!(error.to_string().contains("it ended: the call was given up"), "{error}");
}
