//! Handlers that are futures: answers, streams, what they inherit, cancellation, panics, and ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use common::{LONG, eventually, negotiate, pair, watchdog};
use futures_core::Stream as _;
use futures_sink::Sink;
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, Connection, Handler, HandlerError, HandlerFuture, Options, Refuse, Reply, Request,
};
use tokio::runtime::{Builder, Runtime};

type Handled = Result<Reply, HandlerError>;

/// A runtime of one thread that runs in the background.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

/// A handler whose requests are all handled by tasks.
fn by_tasks<F>(
    runtime: &Runtime,
    handler: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
) -> impl Handler
where
    F: Future<Output = Handled> + Send + 'static,
{
    let tasks = runtime.handle().clone();
    move |request: &mut Request| request.spawn(|future| tasks.spawn(future), handler.clone())
}

fn connected(
    host: impl Handler,
    guest: impl Handler,
    options: &Options,
) -> (Connection, Connection) {
    let (host, guest) = pair(options, host, guest);
    negotiate(&host, &guest);
    (host, guest)
}

async fn several(mut request: Request) -> Handled {
    match request.command().to_owned().as_str() {
        "echo" => {
            tokio::task::yield_now().await;
            Ok(request.take_buffer().into())
        }
        "fail" => Err(request.text()?.to_owned().into()),
        "panic" => {
            tokio::task::yield_now().await;
            panic!("it panicked")
        }
        "user" => Ok(request.context("user").unwrap_or("none").into()),
        "left" => {
            let left = request.deadline().map(|at| at.saturating_duration_since(Instant::now()));
            Ok(format!("{}", left.is_some_and(|left| left <= LONG)).into())
        }
        "ask-back" => {
            tokio::task::yield_now().await;
            Ok(request.connection().call_async("inherited", "").await?.into())
        }
        "parts" => {
            let mut reply = request.reply_parts()?;
            let (mut parts, mut count) = (request.parts(), 0);
            while let Some(part) = poll_fn(|task| Pin::new(&mut parts).poll_next(task)).await {
                let part = part?.into_bytes();
                poll_fn(|task| Sink::<Vec<u8>>::poll_ready(Pin::new(&mut reply), task)).await?;
                Pin::new(&mut reply).start_send(part)?;
                count += 1;
            }
            Ok(format!("{count}").into())
        }
        _ => request.unknown(),
    }
}

#[test]
fn a_task_answers_fails_and_panics_as_a_handler_does() {
    let _watchdog = watchdog();
    let runtime = runtime();
    let (host, _guest) = connected(Refuse, by_tasks(&runtime, several), &Options::default());
    assert_eq!(host.call("echo", "x").unwrap(), "x");
    let large = vec![7; 1 << 20];
    assert_eq!(host.call_bytes("echo", &large).unwrap(), large);
    let fails = |command, text: &str| host.call(command, text).unwrap_err().to_string();
    assert_eq!(fails("fail", "no luck"), "fail: no luck");
    assert!(fails("panic", "").contains("the handler of \"panic\" panicked: it panicked"));
    assert!(fails("what", "").contains("what"));
    assert_eq!(host.stats().open_calls, 0);
}

#[test]
fn a_task_has_the_streams_the_context_and_the_deadline_of_its_request() {
    let _watchdog = watchdog();
    let runtime = runtime();
    // The other way: what the calls of the task inherit.
    let inherited = |request: &mut Request| {
        Ok(format!("{:?} {}", request.context("user"), request.deadline().is_some()).into())
    };
    let (host, _guest) = connected(inherited, by_tasks(&runtime, several), &Options::default());
    let ask = |command| {
        host.request(command, "").context("user", "ann").timeout(LONG).wait_text().unwrap()
    };
    assert_eq!(ask("user"), "ann");
    assert_eq!(ask("left"), "true");
    assert_eq!(ask("ask-back"), "Some(\"ann\") true");
    let (mut sender, mut parts) = host.request("parts", "").stream().unwrap().split();
    for number in 0..100 {
        let text = number.to_string();
        sender.send(&text).unwrap();
        assert_eq!(parts.next().unwrap().unwrap().as_ref() as &[u8], text.as_bytes());
    }
    sender.finish().unwrap();
    assert_eq!(parts.reply().unwrap(), "100");
}

#[test]
fn a_task_learns_of_a_cancel_a_deadline_and_the_end() {
    let _watchdog = watchdog();
    let runtime = runtime();
    let (tell, told) = mpsc::channel();
    let waits = move |request: Request| {
        let tell = tell.clone();
        async move {
            tell.send("begun".to_owned())?;
            request.cancellation().await;
            tell.send(request.command().to_owned())?;
            Ok(Reply::empty())
        }
    };
    let (host, _guest) = connected(Refuse, by_tasks(&runtime, waits), &Options::default());
    let next = || told.recv_timeout(LONG).unwrap();
    let call = host.request("cancelled", "").begin().unwrap();
    assert_eq!(next(), "begun");
    call.cancel();
    assert_eq!(next(), "cancelled");
    let late = host.request("late", "").timeout(Duration::from_millis(20)).wait();
    assert!(matches!(late, Err(CallError::TimedOut { .. })));
    assert_eq!((next(), next()), ("begun".into(), "late".into()));
    host.notify("one-way", "").unwrap();
    let open = host.request("open", "").begin().unwrap();
    assert_eq!((next(), next()), ("begun".into(), "begun".into()));
    host.end("enough");
    let mut ended = [next(), next()];
    ended.sort();
    assert_eq!(ended, ["one-way", "open"]);
    drop(open);
}

#[test]
fn a_future_that_is_dropped_answers_with_an_error() {
    let _watchdog = watchdog();
    let kept: Arc<Mutex<Vec<HandlerFuture>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let handler = move |request: &mut Request| {
        request.spawn(|future| keep.lock().unwrap().push(future), several)
    };
    let (host, guest) = connected(Refuse, handler, &Options::default());
    let call = host.request("echo", "x").begin().unwrap();
    host.notify("echo", "x").unwrap();
    eventually("both came", || kept.lock().unwrap().len() == 2);
    // They count as handlers that run.
    assert!(!guest.wait_idle(Duration::ZERO));
    let dropped = std::mem::take(&mut *kept.lock().unwrap());
    drop(dropped);
    let error = call.wait().unwrap_err().to_string();
    assert_eq!(error, "echo: the request was dropped without an answer");
    assert!(guest.wait_idle(LONG));
}

#[test]
fn a_dropped_future_answers_without_waiting_for_room() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.outgoing = 1;
    let kept: Arc<Mutex<Vec<HandlerFuture>>> = Arc::default();
    let keep = Arc::clone(&kept);
    let handler = move |request: &mut Request| {
        request.spawn(|future| keep.lock().unwrap().push(future), several)
    };
    // A peer that reads nothing: what the other side sends stays in its queue.
    let (guest, mut raw) = common::raw(&options, handler);
    for id in 1..=2 {
        raw.send(id, Direction::Request, "echo", b"x");
    }
    eventually("both came", || kept.lock().unwrap().len() == 2);
    while guest.request("fill", vec![0; 1 << 20]).nonblocking().begin().is_ok() {}
    let dropped = std::mem::take(&mut *kept.lock().unwrap());
    let begun = Instant::now();
    drop(dropped);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn an_answer_waits_for_room_without_a_thread() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.outgoing = 1;
    let runtime = runtime();
    let (guest, mut raw) = common::raw(&options, by_tasks(&runtime, several));
    for id in 1..=20 {
        let body = vec![0; 100_000];
        raw.send(id, Direction::Request, "echo", &body);
    }
    // All answers wait for the pipe, and the only thread of the runtime is free.
    eventually("an answer fills the pipe", || guest.stats().queued > 0);
    runtime.block_on(async {
        tokio::spawn(async { tokio::time::sleep(Duration::from_millis(20)).await }).await.unwrap();
    });
    for _ in 0..20 {
        assert_eq!(raw.expect(Direction::Response, "echo").buffer.len(), 100_000);
    }
}

#[test]
fn past_the_limit_of_deferred_answers_requests_are_refused() {
    let _watchdog = watchdog();
    let mut options = Options::default();
    options.deferred = 2;
    let runtime = runtime();
    let (begins, begun) = mpsc::channel();
    let waits = move |request: Request| {
        let begins = begins.clone();
        async move {
            begins.send(()).unwrap();
            request.cancellation().await;
            Ok(Reply::empty())
        }
    };
    let (host, _guest) = connected(Refuse, by_tasks(&runtime, waits), &options);
    let open = [host.request("a", "").begin().unwrap(), host.request("b", "").begin().unwrap()];
    // Requests overtake each other: the third one comes when the others are tasks.
    begun.recv_timeout(LONG).unwrap();
    begun.recv_timeout(LONG).unwrap();
    let error = host.call("c", "").unwrap_err().to_string();
    assert!(error.contains("2 requests wait for their answers, the limit is 2"), "{error}");
    drop(open);
}
