//! Calls, one-ways, errors, and giving up.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Poll, Wake};
use std::thread;
use std::time::Duration;

use common::{LONG, echo, negotiate, never_answer, pair};
use pipeplug_net::wire::{Chunk, Format, Limits};
use pipeplug_net::{
    CallError, CloseReason, Endpoint, EventLoop, NotifyError, Options, Refuse, Reply, Request,
    Responder, Retry, Sent,
};
use pipeplug_testkit::Peer;

#[test]
fn a_call_brings_the_reply() {
    let (host, guest) = pair(&Options::default(), echo, echo);
    assert_eq!(host.call("echo", "hello").unwrap(), "hello");
    assert_eq!(guest.call("echo", "hello").unwrap(), "hello");
    assert_eq!(host.call_bytes("echo", [0xff, 0]).unwrap(), [0xff, 0]);
    let chunk = host.call_chunk(Chunk::new("echo", "x")).unwrap();
    assert_eq!((chunk.command.as_str(), chunk.buffer.as_slice()), ("echo", b"x".as_slice()));
}

#[test]
fn what_is_no_text_is_said_to_be_none() {
    let (host, _guest) = pair(&Options::default(), Refuse, echo);
    let error = host.call("echo", [b'a', 0xff]).unwrap_err();
    assert!(matches!(error, CallError::NotText { .. }));
    assert!(error.to_string().contains("call_bytes"), "{error}");
}

#[test]
fn errors_and_panics_come_back_as_errors() {
    let (host, _guest) = pair(&Options::default(), Refuse, echo);
    let message = |command: &str| match host.call(command, "").unwrap_err() {
        CallError::Remote { message, .. } => message,
        other => panic!("{other}"),
    };
    assert_eq!(message("fail"), "it failed");
    assert_eq!(message("panic"), "the handler of \"panic\" panicked: it panicked");
    assert_eq!(message("what?"), "unknown command \"what?\"");
    assert_eq!(host.call("echo", "still there").unwrap(), "still there");
}

#[test]
fn every_size_arrives_whole_in_both_formats() {
    for format in [Format::Standard, Format::Classic] {
        let mut options = Options::default();
        options.format = Some(format);
        let (host, _guest) = pair(&options, Refuse, echo);
        for len in
            [0, 1, 63, 4095, 4096, 4097, 16 << 10, (16 << 10) + 1, 65_535, 65_536, 65_537, 3 << 20]
        {
            let body: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            assert!(
                host.call_bytes("echo", body.clone()).unwrap() == body,
                "{format}, {len} bytes"
            );
        }
    }
}

#[test]
fn classic_says_what_it_cannot_send_and_goes_on() {
    let mut options = Options::default();
    options.format = Some(Format::Classic);
    let (host, _guest) = pair(&options, Refuse, echo);
    assert!(matches!(host.call("two words", ""), Err(CallError::Encode { .. })));
    assert!(matches!(host.notify("two words", ""), Err(NotifyError::Encode { .. })));
    assert_eq!(host.stats().open_calls, 0);
    assert_eq!(host.call("echo", "x").unwrap(), "x");
}

#[test]
fn the_guest_takes_the_format_from_the_first_chunk() {
    for format in [Format::Standard, Format::Classic] {
        let (host_in, guest_out) = std::io::pipe().unwrap();
        let (guest_in, host_out) = std::io::pipe().unwrap();
        let events = EventLoop::new().unwrap();
        let (mut of_host, mut of_guest) = (Options::default(), Options::default());
        of_host.format = Some(format);
        of_guest.format = None;
        let guest = events
            .connect(Endpoint::exclusive(guest_in), Endpoint::exclusive(guest_out), of_guest, echo)
            .unwrap();
        // The guest calls first, and has to wait for what the host speaks.
        let asking = guest.clone();
        let request = thread::spawn(move || asking.call("echo", "from the guest"));
        let host = events
            .connect(Endpoint::exclusive(host_in), Endpoint::exclusive(host_out), of_host, echo)
            .unwrap();
        assert_eq!(host.call("echo", "from the host").unwrap(), "from the host");
        assert_eq!(request.join().unwrap().unwrap(), "from the guest");
        drop(guest);
    }
}

#[test]
fn many_at_once_in_both_directions() {
    let (host, guest) = pair(&Options::default(), echo, echo);
    negotiate(&host, &guest);
    thread::scope(|scope| {
        for side in [&host, &guest] {
            for caller in 0..16 {
                scope.spawn(move || {
                    for i in 0..200 {
                        let text = format!("{caller} {i}");
                        assert_eq!(side.call("echo", text.as_str()).unwrap(), text);
                    }
                });
            }
        }
    });
    assert_eq!(host.stats().open_calls, 0);
}

#[test]
fn a_thousand_in_flight_from_one_thread() {
    let (host, guest) = pair(&Options::default(), Refuse, echo);
    negotiate(&host, &guest);
    let pending: Vec<_> =
        (0..1000).map(|i| (i, host.request("echo", i.to_string()).begin().unwrap())).collect();
    for (i, call) in pending {
        assert_eq!(call.wait().unwrap(), i.to_string().into_bytes());
    }
}

#[test]
fn one_ways_arrive_all_and_in_order_of_start() {
    let (tell, told) = mpsc::channel();
    let mut options = Options::default();
    options.handlers = std::num::NonZeroUsize::MIN;
    let (host, guest) = pair(&options, Refuse, move |request: &mut Request| {
        assert!(request.is_one_way());
        assert!(request.responder().is_none());
        tell.send(request.text()?.to_owned())?;
        Ok(Reply::empty())
    });
    negotiate(&host, &guest);
    for i in 0..5000 {
        host.notify("log", i.to_string()).unwrap();
    }
    for i in 0..5000 {
        assert_eq!(told.recv_timeout(LONG).unwrap(), i.to_string());
    }
}

#[test]
fn a_handler_may_answer_later_from_any_thread() {
    let (send, taken) = mpsc::channel::<Responder>();
    let (host, _guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
        send.send(request.responder().ok_or("a request has one")?)?;
        assert!(request.responder().is_none());
        Ok("this is not sent".into())
    });
    let calls: Vec<_> = (0..3).map(|_| host.request("later", "").begin().unwrap()).collect();
    let mut responders: Vec<_> = (0..3).map(|_| taken.recv_timeout(LONG).unwrap()).collect();
    responders.pop().unwrap().answer("answered");
    responders.pop().unwrap().fail("failed");
    drop(responders);
    let results: Vec<_> = calls.into_iter().map(|call| call.wait()).collect();
    let texts: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Err(error) => error.to_string(),
        })
        .collect();
    for expected in
        ["answered", "later: failed", "later: the request was dropped without an answer"]
    {
        assert_eq!(texts.iter().filter(|text| *text == expected).count(), 1, "{texts:?}");
    }
}

#[test]
fn a_call_given_up_is_forgotten_and_its_late_reply_counted() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (host, _guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
        if request.command() == "slow" {
            wait.lock().unwrap().recv()?;
        }
        Ok("done".into())
    });
    let call = host.request("slow", "").begin().unwrap();
    let error = call.wait_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    drop(host.request("slow", "").begin().unwrap());
    assert_eq!(host.stats().open_calls, 0);
    go.send(()).unwrap();
    go.send(()).unwrap();
    while host.stats().late_replies < 2 {
        assert_eq!(host.call("quick", "").unwrap(), "done");
    }
    assert_eq!(host.stats().unknown_replies, 0);
}

#[test]
fn too_many_calls_say_the_limit() {
    let mut options = Options::default();
    options.calls = 2;
    let (host, _guest) = pair(&options, Refuse, |request: &mut Request| {
        never_answer(request);
        Ok(Reply::empty())
    });
    let _open = [host.request("a", "").begin().unwrap(), host.request("b", "").begin().unwrap()];
    let error = host.call("c", "").unwrap_err();
    assert!(matches!(error, CallError::TooManyCalls { limit: 2, .. }), "{error}");
}

#[test]
fn chunks_over_the_limit_are_refused_and_the_connection_goes_on() {
    let mut options = Options::default();
    options.limits = Limits::default().with_buffer(1000).with_command(20);
    let (host, _guest) = pair(&options, Refuse, |request: &mut Request| match request.command() {
        "big" => Ok(vec![0; 1001].into()),
        _ => Ok(request.take_buffer().into()),
    });
    let error = host.call_bytes("echo", vec![0; 1001]).unwrap_err();
    assert!(error.to_string().contains("1001") && error.to_string().contains("1000"), "{error}");
    let error = host.call_bytes("a command of over twenty bytes", "").unwrap_err();
    assert!(
        matches!(&error, CallError::Remote { .. }) && error.to_string().contains("20"),
        "{error}"
    );
    let error = host.call_bytes("big", "").unwrap_err();
    assert!(matches!(error, CallError::ReplyTooLarge { .. }), "{error}");
    assert!(error.to_string().contains("1001") && error.to_string().contains("1000"), "{error}");
    assert_eq!(host.call_bytes("echo", vec![7; 1000]).unwrap(), vec![7; 1000]);
}

#[test]
fn a_ping_is_answered_while_every_handler_is_busy() {
    let barrier = Arc::new(Barrier::new(2));
    let mut options = Options::default();
    options.handlers = std::num::NonZeroUsize::MIN;
    let handler_barrier = Arc::clone(&barrier);
    let (host, _guest) = pair(&options, Refuse, move |_: &mut Request| {
        handler_barrier.wait();
        handler_barrier.wait();
        Ok(Reply::empty())
    });
    let call = host.request("busy", "").begin().unwrap();
    barrier.wait();
    host.ping(LONG).unwrap();
    barrier.wait();
    call.wait().unwrap();
}

#[test]
fn the_end_fails_open_calls_and_later_ones_with_its_reason() {
    let (host, guest) = pair(&Options::default(), Refuse, |request: &mut Request| {
        never_answer(request);
        Ok(Reply::empty())
    });
    let call = host.request("never", "").begin().unwrap();
    guest.end("the guest had enough");
    let error = call.wait().unwrap_err();
    assert!(
        matches!(&error, CallError::Closed { reason, .. } if matches!(**reason, CloseReason::EndOfFile))
    );
    let error = host.call("later", "").unwrap_err();
    assert!(matches!(error, CallError::Closed { .. }), "{error}");
    assert!(matches!(host.notify("later", ""), Err(NotifyError::Closed { .. })));
    assert!(host.wait_closed(LONG).is_some());
    assert_eq!(guest.close_reason().unwrap().to_string(), "the guest had enough");
}

#[test]
fn a_caller_that_reads_is_woken_when_the_connection_is_ended() {
    let (entered, inside) = mpsc::channel();
    let (host, _guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
        never_answer(request);
        entered.send(())?;
        Ok(Reply::empty())
    });
    let caller = thread::spawn({
        let host = host.clone();
        move || host.call("never", "")
    });
    inside.recv_timeout(LONG).unwrap();
    host.end("enough");
    let error = caller.join().unwrap().unwrap_err();
    assert!(error.to_string().contains("enough"), "{error}");
}

#[test]
fn closing_writes_what_was_accepted_first() {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let (host, guest) = pair(&Options::default(), Refuse, move |_: &mut Request| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Reply::empty())
    });
    negotiate(&host, &guest);
    for _ in 0..2000 {
        host.notify("tick", vec![0; 200]).unwrap();
    }
    host.close();
    assert!(matches!(*guest.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
    assert_eq!(count.load(Ordering::SeqCst), 2000);
    assert!(matches!(host.call("x", ""), Err(CallError::Closed { .. })));
}

#[test]
fn dropping_the_last_handle_closes() {
    let (host, guest) = pair(&Options::default(), Refuse, echo);
    drop(host);
    assert!(matches!(*guest.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
}

#[test]
fn garbage_ends_the_connection_with_the_bytes_shown() {
    use std::io::Write;
    let (reader, mut writer) = std::io::pipe().unwrap();
    let (_keep, out) = std::io::pipe().unwrap();
    let connection = EventLoop::new()
        .unwrap()
        .connect(Endpoint::exclusive(reader), Endpoint::exclusive(out), Options::default(), Refuse)
        .unwrap();
    let call = connection.request("x", "").begin().unwrap();
    writer.write_all(b"Hello, world\n").unwrap();
    let error = call.wait().unwrap_err().to_string();
    assert!(error.contains("threadID") && error.contains("Hello, world\\n"), "{error}");
}

struct Unpark(thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// The smallest executor there is.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = Arc::clone(&unpark).into();
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        while !unpark.1.swap(false, Ordering::SeqCst) {
            thread::park_timeout(LONG);
        }
    }
}

#[test]
fn awaited_from_an_executor_written_by_hand() {
    let (host, _guest) = pair(&Options::default(), Refuse, echo);
    let reply = block_on(async { host.request("echo", "hello").begin().unwrap().await }).unwrap();
    assert_eq!(reply, b"hello");
}

#[test]
fn awaited_from_tokio() {
    let (host, _guest) = pair(&Options::default(), Refuse, echo);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..500)
            .map(|i| {
                let call = host.request("echo", i.to_string()).begin().unwrap();
                tokio::spawn(async move { (i, call.await.unwrap()) })
            })
            .collect();
        for task in tasks {
            let (i, buffer) = task.await.unwrap();
            assert_eq!(buffer, i.to_string().into_bytes());
        }
    });
}

#[test]
fn waited_for_after_it_was_polled() {
    let barrier = Arc::new(Barrier::new(2));
    let handler_barrier = Arc::clone(&barrier);
    let (host, _guest) = pair(&Options::default(), Refuse, move |_: &mut Request| {
        handler_barrier.wait();
        Ok("late".into())
    });
    let mut call = host.request("x", "").begin().unwrap();
    let unpark: Arc<Unpark> = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    let waker = unpark.into();
    assert!(pin!(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
    barrier.wait();
    assert_eq!(call.wait_timeout(LONG).unwrap(), b"late");
}

#[test]
fn a_handler_can_wait_for_the_end() {
    let (tell, told) = mpsc::channel();
    let (host, _guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
        tell.send(request.connection().wait_ended(LONG).map(|reason| reason.to_string()))?;
        Ok(Reply::empty())
    });
    assert!(host.wait_ended(Duration::ZERO).is_none());
    let call = host.request("wait", "").begin().unwrap();
    host.close();
    assert_eq!(told.recv_timeout(LONG).unwrap().as_deref(), Some("the other side closed the pipe"));
    drop(call);
}

/// A waker, a timer and a watch that panic.
#[test]
fn a_panic_in_somebody_elses_code_ends_nothing_else() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("the waker panics");
        }
    }
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (host, _guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
        if request.command() == "slow" {
            wait.lock().unwrap().recv()?;
        }
        Ok("done".into())
    });
    let mut call = host.request("slow", "").begin().unwrap();
    let waker = Arc::new(Panics).into();
    assert!(pin!(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
    go.send(()).unwrap();
    assert_eq!(host.call("quick", "").unwrap(), "done");
    let (reader, _writer) = std::io::pipe().unwrap();
    // It is called once at the beginning.
    host.events().watch(reader, |_| panic!("the watch panics")).unwrap();
    host.events().after(Duration::ZERO, || panic!("the timer panics"));
    let (tell, told) = mpsc::channel();
    host.events().after(Duration::from_millis(1), move || tell.send(()).unwrap());
    told.recv_timeout(LONG).unwrap();
    assert_eq!(host.call("quick", "").unwrap(), "done");
    assert_eq!(call.wait().unwrap(), b"done");
}

#[test]
fn large_requests_on_their_way_do_not_stand_for_answers_that_are_not_read() {
    let mut options = Options::default();
    options.unread = 1000;
    options.outgoing = 100;
    let (host, guest) = pair(&options, echo, echo);
    // With 10 MB in the host's queue, what it sends of its own accord is no sign of a guest that
    // does not read.
    let large = host.request("echo", vec![7; 10_000_000]).begin().unwrap();
    guest.ping(LONG).unwrap();
    host.notify_by_protocol("cmd.nothing", "".into()).unwrap();
    assert_eq!(guest.call("echo", "x").unwrap(), "x");
    assert!(large.wait().unwrap() == vec![7; 10_000_000]);
}

#[test]
fn waiting_for_what_waits_ends_when_it_is_written() {
    let (host, guest) = pair(&Options::default(), Refuse, |_: &mut Request| Ok(Reply::empty()));
    negotiate(&host, &guest);
    for round in 0..200 {
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| host.notify("tick", vec![0; 100_000]).unwrap());
            }
            assert!(host.wait_written(LONG), "round {round}");
        });
        assert!(host.wait_written(LONG), "round {round}");
        assert_eq!(host.stats().queued, 0);
    }
}

#[test]
fn commands_of_the_protocol_are_not_sent() {
    let events = EventLoop::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for command in [
        "GetMetadata",
        "cmd.error",
        "cmd.failure",
        "cmd.ping",
        "cmd.stop",
        "cmd.cancel",
        "cmd.context",
        "cmd.credit",
        "cmd.log_level",
        "cmd.part",
        "cmd.end",
        "cmd.enough",
        "cmd.part.credit",
        "cmd.progress",
        "cmd.of a later version\n",
    ] {
        let (host, mut peer) = Peer::connect(&events, Options::default(), Refuse).unwrap();
        pipeplug_net::internal::handshake::accept(&host, |key| {
            (key == "pipeplug.features").then_some("context cancel stream")
        });
        let payload = || "x";
        let shown = command.escape_debug().to_string();
        let calls = [
            host.call(command, payload()).map(drop),
            host.call_bytes(command, payload()).map(drop),
            host.call_chunk(Chunk::new(command, payload())).map(drop),
            host.request(command, payload()).begin().map(drop),
            host.request(command, payload()).nonblocking().begin().map(drop),
            host.request(command, payload()).stream().map(drop),
            host.request(command, payload()).receive_parts().map(drop),
            runtime.block_on(async { host.request(command, payload()).await }).map(drop),
            runtime.block_on(host.request(command, payload()).begin_async()).map(drop),
            runtime.block_on(host.request(command, payload()).stream_async()).map(drop),
        ];
        for call in calls {
            let error = call.unwrap_err();
            assert!(matches!(error, CallError::Reserved { .. }), "{error:?}");
            assert_eq!((error.sent(), error.retry()), (Sent::No, Retry::No));
            let message = error.to_string();
            assert!(
                message
                    .starts_with(&format!("{shown}: not sent: it is a command of the protocol; ")),
                "{message}"
            );
        }
        let one_ways = [
            host.notify(command, payload()),
            host.notify_chunk(Chunk::new(command, payload())),
            host.notify_stream(command, payload()).map(drop),
            runtime.block_on(host.notify_async(command, payload())),
            runtime.block_on(host.notify_stream_async(command, payload())).map(drop),
        ];
        for one_way in one_ways {
            let error = one_way.unwrap_err();
            assert!(matches!(error, NotifyError::Reserved { .. }), "{error:?}");
        }
        // Nothing of it was sent, and nothing is open.
        let stats = host.stats();
        assert_eq!((stats.open_calls, stats.open_streams), (0, 0));
        host.notify("cmd", "a command of its own").unwrap();
        assert_eq!(peer.input.next().unwrap().command, "cmd");
    }
}

#[test]
fn errors_show_a_command_escaped() {
    let (host, _guest) = pair(&Options::default(), Refuse, echo);
    let error = host.call("red \x1b[31m\n", "").unwrap_err().to_string();
    assert!(error.starts_with("red \\u{1b}[31m\\n: unknown command"), "{error}");
    host.close();
    let command = "red \x1b[31m";
    for error in [
        host.call(command, "").unwrap_err().to_string(),
        host.notify(command, "").unwrap_err().to_string(),
    ] {
        assert!(error.starts_with("red \\u{1b}[31m: n"), "{error}");
    }
}
