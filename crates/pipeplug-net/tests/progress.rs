//! Progress of calls: reports, their order and number, and their end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::pin::{Pin, pin};
use std::sync::{Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::{Gate, LONG, Raw, Way, accept, negotiate, pair_on, raw, watchdog};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, Connection, EventLoop, Failure, Handler, HandlerError, Options, Progress,
    ProgressReports, Refuse, Reply, Request,
};

type Handled = Result<Reply, HandlerError>;

/// A caller, for each way that the other side reads.
fn each<H: Handler>(handler: impl Fn() -> H, test: impl Fn(&Connection)) {
    let _watchdog = watchdog();
    for way in [Way::PLAIN, Way::SHARED, Way::short(3)] {
        let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
        let (host, guest) = pair_on((&one, &other), &Options::default(), way, Refuse, handler());
        negotiate(&host, &guest);
        test(&host);
        drop(guest);
    }
}

/// A peer by hand that has named these features.
fn peer(features: &str, handler: impl Handler) -> (Connection, Raw) {
    let (connection, peer) = raw(&Options::default(), handler);
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some(features)
    });
    (connection, peer)
}

async fn next(reports: &mut ProgressReports) -> Option<Progress> {
    use futures_core::Stream as _;
    std::future::poll_fn(|context| Pin::new(&mut *reports).poll_next(context)).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Reports 1 to 1,000 in quick succession, and waits before the answer where it is told to.
fn count(request: &mut Request) -> Handled {
    for done in 1..=1000 {
        request.progress(done, Some(1000), &format!("step {done}"));
    }
    match request.command() {
        "fail" => Err(Failure::new("c", "it failed").into()),
        "panic" => panic!("it panicked"),
        _ => Ok("done".into()),
    }
}

fn check_steps(reports: &[Progress]) {
    for report in reports {
        assert_eq!(report.message, format!("step {}", report.done));
        assert_eq!(report.total, Some(1000));
    }
    assert!(reports.is_sorted_by(|one, other| one.done < other.done), "{reports:?}");
    assert_eq!(reports.last().map(|report| report.done), Some(1000), "the last is always sent");
}

#[test]
fn reports_reach_the_caller_in_order_and_the_last_before_the_answer() {
    each(
        || count,
        |host| {
            for command in ["count", "fail", "panic"] {
                let (request, progress) = host.request(command, "").progress();
                let call = request.begin().unwrap();
                check_steps(&progress.collect::<Vec<_>>());
                assert_eq!(call.wait().is_ok(), command == "count");
            }
        },
    );
}

#[test]
fn tasks_await_reports_beside_the_reply_or_before_it() {
    each(
        || count,
        |host| {
            let (request, mut progress) = host.request("count", "").progress();
            block_on(async {
                let call = request.begin().unwrap();
                let mut all = Vec::new();
                while let Some(report) = next(&mut progress).await {
                    all.push(report);
                }
                check_steps(&all);
                assert_eq!(call.await.unwrap(), "done");
                assert_eq!(next(&mut progress).await, None);
            });
            let (request, mut progress) = host.request("count", "").progress();
            block_on(async {
                let mut call = pin!(std::future::IntoFuture::into_future(request));
                let mut all = Vec::new();
                let reply = std::future::poll_fn(|context| {
                    while let Poll::Ready(Some(report)) = pin!(next(&mut progress)).poll(context) {
                        all.push(report);
                    }
                    call.as_mut().poll(context)
                })
                .await;
                assert_eq!(reply.unwrap(), "done");
                all.extend(progress.by_ref());
                check_steps(&all);
            });
        },
    );
}

#[test]
fn another_thread_takes_reports_before_the_call_is_sent_and_while_it_is_waited_for() {
    each(
        || count,
        |host| {
            let (request, progress) = host.request("count", "").progress();
            thread::scope(|scope| {
                let taken = scope.spawn(|| progress.collect::<Vec<_>>());
                assert_eq!(request.wait().unwrap(), "done");
                check_steps(&taken.join().unwrap());
            });
        },
    );
}

#[test]
fn calls_with_streams_have_progress() {
    let handler = |request: &mut Request| -> Handled {
        let mut reply = request.reply_parts()?;
        for (done, part) in (1..).zip(request.parts()) {
            reply.send(part?.into_bytes())?;
            request.progress(done, None, "");
        }
        Ok(Reply::empty())
    };
    each(
        || handler,
        |host| {
            let (request, progress) = host.request("echo", "").progress();
            let (mut sender, parts) = request.stream().unwrap().split();
            (0..10).for_each(|part| sender.send(vec![part]).unwrap());
            sender.finish().unwrap();
            assert_eq!(parts.map(Result::unwrap).count(), 10);
            assert_eq!(progress.last().map(|report| report.done), Some(10));
        },
    );
}

#[test]
fn an_answer_that_is_given_later_has_progress() {
    let handler = |request: &mut Request| -> Handled {
        request.progress(1, None, "before");
        let responder = request.responder().unwrap();
        request.progress(2, None, "between");
        thread::spawn(move || {
            responder.progress(3, None, "after");
            responder.answer("done");
        });
        Ok(Reply::empty())
    };
    each(
        || handler,
        |host| {
            let (request, progress) = host.request("x", "").progress();
            let call = request.begin().unwrap();
            let all: Vec<_> = progress.collect();
            assert_eq!(all.last().unwrap().message, "after", "{all:?}");
            assert_eq!(call.wait().unwrap(), "done");
        },
    );
}

/// Reads chunks up to the answer; gives the reports before it.
fn reports_to(peer: &mut Raw) -> Vec<u64> {
    let mut all = Vec::new();
    loop {
        let chunk = peer.input.next().unwrap();
        assert_eq!(chunk.direction, Direction::Response);
        match chunk.command.as_str() {
            "cmd.progress" => {
                let report: serde_json::Value = serde_json::from_slice(&chunk.buffer).unwrap();
                all.push(report["done"].as_u64().unwrap());
            }
            _ => return all,
        }
    }
}

#[test]
fn frequent_reports_are_few_chunks_and_the_latest_comes_without_an_answer() {
    let _watchdog = watchdog();
    let gate = Gate::default();
    let handler = {
        let gate = gate.clone();
        move |request: &mut Request| -> Handled {
            let begun = Instant::now();
            let mut done = 0;
            while begun.elapsed() < Duration::from_millis(220) {
                done += 1;
                request.progress(done, None, "");
            }
            assert!(done > 1000, "{done}");
            request.progress(u64::MAX, None, "");
            gate.pass();
            Ok(Reply::empty())
        }
    };
    let (_connection, mut peer) = peer("context progress", handler);
    peer.send(1, Direction::OneWay, "cmd.context", b"{\"progress\":true}");
    peer.send(1, Direction::Request, "x", b"");
    let mut chunks = 0;
    // The handler stands: the event loop sends what it has reported last.
    loop {
        let chunk = peer.expect(Direction::Response, "cmd.progress");
        chunks += 1;
        if chunk.buffer == b"{\"done\":18446744073709551615}" {
            break;
        }
    }
    assert!((2..=8).contains(&chunks), "{chunks}");
    gate.open();
    assert!(reports_to(&mut peer).is_empty());
}

#[test]
fn nothing_is_sent_to_a_caller_that_does_not_ask() {
    let (_connection, mut peer) = peer("context progress", count);
    for (id, context) in [(1, "{}"), (2, "{\"progress\":false}"), (3, "{\"progress\":1}")] {
        peer.send(id, Direction::OneWay, "cmd.context", context.as_bytes());
        peer.send(id, Direction::Request, "count", b"");
        assert!(reports_to(&mut peer).is_empty(), "{context}");
    }
    peer.send(4, Direction::OneWay, "cmd.context", b"{\"progress\":true}");
    peer.send(4, Direction::Request, "count", b"");
    let reports = reports_to(&mut peer);
    assert_eq!((reports.first(), reports.last()), (Some(&1), Some(&1000)));
    // A one-way has no response to send it before.
    peer.send(5, Direction::OneWay, "cmd.context", b"{\"progress\":true}");
    peer.send(5, Direction::OneWay, "count", b"");
    peer.send(6, Direction::Request, "count", b"");
    assert!(reports_to(&mut peer).is_empty());
}

#[test]
fn a_peer_without_the_feature_is_not_asked() {
    for features in ["", "context", "progress"] {
        let (connection, mut peer) = peer(features, Refuse);
        let (request, progress) = connection.request("x", "").progress();
        let call = request.begin().unwrap();
        peer.answer();
        assert_eq!(progress.count(), 0);
        call.wait().unwrap();
    }
    let (connection, mut peer) = peer("context progress", Refuse);
    let (request, _progress) = connection.request("x", "").progress();
    let _call = request.begin().unwrap();
    assert_eq!(peer.expect(Direction::OneWay, "cmd.context").buffer, b"{\"progress\":true}");
}

#[test]
fn reports_that_make_no_sense_are_ignored() {
    let (connection, mut peer) = peer("context progress", Refuse);
    let (request, mut progress) = connection.request("x", "").progress();
    let call = request.begin().unwrap();
    let plain = connection.request("y", "").begin().unwrap();
    peer.expect(Direction::OneWay, "cmd.context");
    let id = peer.expect(Direction::Request, "x").thread_id.as_u64();
    let other = peer.expect(Direction::Request, "y").thread_id.as_u64();
    let good: &[u8] = b"{\"done\":7,\"total\":9,\"message\":\"m\"}";
    // Of a call that has not asked, of none, and of none of this side.
    for id in [other, 999] {
        peer.send(id, Direction::Response, "cmd.progress", good);
    }
    peer.send(id, Direction::OneWay, "cmd.progress", good);
    peer.send(id, Direction::Response, "cmd.progress", b"{\"done\":-1}");
    peer.send(id, Direction::Response, "cmd.progress", &vec![b' '; 10_000]);
    peer.send(id, Direction::Response, "cmd.progress", good);
    let report = progress.next().unwrap();
    assert_eq!((report.done, report.total, report.message.as_str()), (7, Some(9), "m"));
    peer.send(id, Direction::Response, "x", b"");
    assert_eq!(progress.next(), None);
    call.wait().unwrap();
    // Behind the reply.
    peer.send(id, Direction::Response, "cmd.progress", good);
    peer.send(other, Direction::Response, "y", b"still here");
    assert_eq!(plain.wait().unwrap(), "still here");
    assert_eq!((connection.stats().late_replies, connection.stats().unknown_replies), (0, 0));
}

#[test]
fn the_latest_report_is_kept_for_a_slow_caller() {
    let (connection, mut peer) = peer("context progress", Refuse);
    let (request, progress) = connection.request("x", "").progress();
    let call = request.begin().unwrap();
    peer.expect(Direction::OneWay, "cmd.context");
    let id = peer.expect(Direction::Request, "x").thread_id.as_u64();
    for done in 0..1000 {
        let report = format!("{{\"done\":{done}}}");
        peer.send(id, Direction::Response, "cmd.progress", report.as_bytes());
    }
    peer.send(id, Direction::Response, "x", b"");
    call.wait().unwrap();
    assert_eq!(progress.map(|report| report.done).collect::<Vec<_>>(), [999]);
}

#[test]
fn reports_end_when_the_call_is_given_up_or_never_sent() {
    let _watchdog = watchdog();
    let ends: [fn(&Connection) -> ProgressReports; 5] = [
        |connection| {
            let (request, progress) = connection.request("x", "").progress();
            drop(request);
            progress
        },
        |connection| {
            let (request, progress) = connection.request("x", "").progress();
            request.timeout(Duration::ZERO).wait().unwrap_err();
            progress
        },
        |connection| {
            let (request, progress) = connection.request("x", "").progress();
            request.begin().unwrap().cancel();
            progress
        },
        |connection| {
            let (request, progress) = connection.request("x", "").progress();
            let error = request.timeout(Duration::from_millis(20)).wait().unwrap_err();
            assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
            progress
        },
        |connection| {
            let (request, progress) = connection.request("x", "").progress();
            drop(request.stream().unwrap());
            progress
        },
    ];
    let (connection, _peer) = peer("context cancel stream progress", Refuse);
    for end in ends {
        assert_eq!(end(&connection).count(), 0);
        assert_eq!(block_on(next(&mut end(&connection))), None);
    }
}

#[test]
fn reports_end_at_the_deadline_of_a_call_that_is_not_waited_for() {
    let _watchdog = watchdog();
    let (connection, _peer) = peer("context progress", Refuse);
    let begin = || {
        let (request, progress) = connection.request("x", "").progress();
        (request.timeout(Duration::from_millis(30)).begin().unwrap(), progress)
    };
    let (call, progress) = begin();
    assert_eq!(progress.count(), 0);
    assert!(matches!(call.wait().unwrap_err(), CallError::TimedOut { .. }));
    let (_call, mut progress) = begin();
    assert_eq!(block_on(next(&mut progress)), None);
}

#[test]
fn a_crash_ends_reports_after_the_last_that_came() {
    let _watchdog = watchdog();
    for is_task in [false, true] {
        let (connection, mut peer) = peer("context progress", Refuse);
        let (request, mut progress) = connection.request("x", "").progress();
        let call = request.begin().unwrap();
        peer.expect(Direction::OneWay, "cmd.context");
        let id = peer.expect(Direction::Request, "x").thread_id.as_u64();
        peer.send(id, Direction::Response, "cmd.progress", b"{\"done\":1}");
        // In the middle of the next one.
        peer.send_raw(
            &pipeplug_testkit::chunk(
                pipeplug_net::wire::Format::Standard,
                id,
                Direction::Response,
                "cmd.progress",
                b"{\"done\":2}",
            )[..20],
        );
        drop(peer);
        let mut next = || if is_task { block_on(next(&mut progress)) } else { progress.next() };
        assert_eq!(next().map(|report| report.done), Some(1));
        assert_eq!(next(), None);
        assert!(matches!(call.wait().unwrap_err(), CallError::Closed { .. }));
        let (request, mut progress) = connection.request("x", "").progress();
        request.wait().unwrap_err();
        assert_eq!(progress.next(), None);
    }
}

#[test]
fn a_handler_whose_caller_is_gone_may_report_on() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let tell = Mutex::new(tell);
    let handler = move |request: &mut Request| -> Handled {
        request.progress(1, None, "");
        assert!(request.cancellation().wait_timeout(LONG));
        for done in 0..1000 {
            request.progress(done, None, "");
        }
        tell.lock().unwrap().send(())?;
        Err("given up".into())
    };
    let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
    let (host, guest) = pair_on((&one, &other), &Options::default(), Way::PLAIN, Refuse, handler);
    negotiate(&host, &guest);
    let (request, mut progress) = host.request("x", "").progress();
    let call = request.begin().unwrap();
    assert_eq!(progress.next().map(|report| report.done), Some(1));
    call.cancel();
    told.recv_timeout(LONG).unwrap();
    assert_eq!(progress.next(), None);
    // And one whose connection is.
    let (request, mut progress) = host.request("x", "").progress();
    let call = request.begin().unwrap();
    assert_eq!(progress.next().map(|report| report.done), Some(1));
    host.end("enough");
    assert!(call.wait().is_err());
    drop(host);
    told.recv_timeout(LONG).unwrap();
}

#[test]
fn a_handler_that_reports_waits_for_no_reader() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.outgoing = 1;
    let (tell, told) = mpsc::channel();
    let handler = move |request: &mut Request| -> Handled {
        let connection = request.connection();
        // More than the pipe holds.
        while connection.request("fill", vec![0; 4096]).nonblocking().begin().is_ok() {}
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            request.progress(1, None, "");
        }
        request.progress(2, None, "last");
        tell.send(begun.elapsed())?;
        Ok(Reply::empty())
    };
    let (connection, mut peer) = raw(&options, handler);
    pipeplug_net::internal::handshake::accept(&connection, |key| {
        (key == "pipeplug.features").then_some("context progress")
    });
    peer.send(1, Direction::OneWay, "cmd.context", b"{\"progress\":true}");
    peer.send(1, Direction::Request, "x", b"");
    assert!(told.recv_timeout(LONG).unwrap() < Duration::from_secs(10));
    let mut last = None;
    loop {
        let chunk = peer.input.next().unwrap();
        match (chunk.direction, chunk.command.as_str()) {
            (Direction::Response, "cmd.progress") => last = Some(chunk.buffer),
            (Direction::Response, _) => break,
            _ => {}
        }
    }
    assert_eq!(last.as_deref(), Some(&b"{\"done\":2,\"message\":\"last\"}"[..]));
}

#[test]
fn a_guest_does_not_ask_before_it_knows_the_host() {
    let (one, other) = (EventLoop::new().unwrap(), EventLoop::new().unwrap());
    let (host, guest) = pair_on((&one, &other), &Options::default(), Way::PLAIN, count, Refuse);
    let count = || {
        let (request, progress) = guest.request("count", "").progress();
        let call = request.begin().unwrap();
        let count = progress.count();
        call.wait().unwrap();
        count
    };
    assert_eq!(count(), 0);
    accept(&guest, &host);
    assert!(count() > 0);
}
