//! Lifetimes: how long each part holds the others, and what may be done from where.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::future::Future;
use std::io::Read;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake};
use std::thread;
use std::time::Duration;

use common::{
    Gate, LONG, Raw, Way, bytes, echo, eventually, negotiate, pair, pair_on, raw, raw_on, watchdog,
};
use pipeplug_net::wire::Direction;
use pipeplug_net::{
    CallError, CloseReason, Connection, EventLoop, Handler, HandlerError, Hold, Options,
    PendingCall, Refuse, Reply, Request,
};

#[test]
fn what_could_not_be_written_is_not_what_was_sent_last() {
    let _watchdog = watchdog();
    for unsent in [1, 20] {
        let (connection, mut raw) = raw(&Options::default(), Refuse);
        let first = connection.request("first", "").begin().unwrap();
        assert_eq!(raw.input.next().unwrap().command, "first");
        let Raw { input, output } = raw;
        drop(input);
        let calls: Vec<_> = (0..unsent).map(|_| connection.request("unsent", "").begin()).collect();
        let error = first.wait().unwrap_err().to_string();
        assert!(
            error.ends_with("; last received: nothing; last sent: request 1 \"first\" of 0 B"),
            "{error}"
        );
        drop((calls, output));
    }
}

#[test]
fn connections_outlive_the_handle_of_their_loop() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    let (host, guest) = pair_on((&events, &events), &Options::default(), Way::PLAIN, echo, echo);
    drop(events);
    assert_eq!(host.call("echo", "x").unwrap(), "x");
    assert_eq!(guest.request("echo", "y").begin().unwrap().wait().unwrap(), b"y");
}

/// Tells of its own drop.
struct Told(mpsc::Sender<&'static str>);

impl Drop for Told {
    fn drop(&mut self) {
        // The receiver may be gone where another assertion has failed.
        let _ = self.0.send("dropped");
    }
}

#[test]
fn a_handler_is_dropped_with_its_connection() {
    let _watchdog = watchdog();
    for end_by in
        [Connection::close, |connection: &Connection| connection.end("enough"), |_: &Connection| {}]
    {
        let (tell, told) = mpsc::channel();
        let kept = Told(tell);
        let (host, guest) = pair(&Options::default(), Refuse, move |request: &mut Request| {
            let _ = &kept;
            Ok(request.take_buffer().into())
        });
        assert_eq!(host.call("x", "y").unwrap(), "y");
        end_by(&guest);
        drop((host, guest));
        assert_eq!(told.recv_timeout(LONG), Ok("dropped"));
    }
}

/// The handler holds the last handle: dropping it closes the connection, and the answer still goes
/// out.
#[test]
fn a_handler_may_drop_the_connection() {
    let _watchdog = watchdog();
    let kept = Arc::new(Mutex::new(None::<Connection>));
    let (host, guest) = pair(&Options::default(), Refuse, {
        let kept = Arc::clone(&kept);
        move |_: &mut Request| {
            drop(kept.lock().unwrap().take());
            Ok("answered".into())
        }
    });
    *kept.lock().unwrap() = Some(guest);
    assert_eq!(host.call("drop", "").unwrap(), "answered");
    assert!(matches!(*host.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
    assert!(kept.lock().unwrap().is_none());
}

#[test]
fn a_handler_may_end_its_connection() {
    let _watchdog = watchdog();
    let (host, guest) = pair(&Options::default(), Refuse, |request: &mut Request| {
        request.connection().end("the handler had enough");
        Ok("perhaps before the end".into())
    });
    // The loop may be reading just then, and the answer overtake the end.
    match host.call("end", "") {
        Ok(reply) => assert_eq!(reply, "perhaps before the end"),
        Err(error) => assert!(matches!(error, CallError::Closed { .. }), "{error}"),
    }
    assert!(matches!(*host.wait_closed(LONG).unwrap(), CloseReason::EndOfFile));
    assert_eq!(guest.wait_closed(LONG).unwrap().to_string(), "the handler had enough");
}

/// A call that was begun elsewhere is waited for in a handler of the same connection, whose reply
/// comes behind it.
#[test]
fn a_handler_waits_for_a_pending_call_of_its_connection() {
    let _watchdog = watchdog();
    let pending = Arc::new(Mutex::new(None::<PendingCall>));
    let gate = Gate::default();
    let mut options = Options::default();
    options.handlers = std::num::NonZeroUsize::MIN;
    let (host, guest) = pair(
        &options,
        {
            let pending = Arc::clone(&pending);
            move |_: &mut Request| {
                let call = pending.lock().unwrap().take().ok_or("nothing is pending")?;
                Ok(call.wait()?)
            }
        },
        {
            let gate = gate.clone();
            move |request: &mut Request| {
                gate.pass();
                Ok(request.take_buffer().into())
            }
        },
    );
    *pending.lock().unwrap() = Some(host.request("slow", "hello").begin().unwrap());
    let waiting = guest.request("wait", "").begin().unwrap();
    eventually("the handler waits", || pending.lock().unwrap().is_none());
    gate.open();
    assert_eq!(waiting.wait().unwrap(), b"hello");
}

/// Calls on, each time that it is woken.
struct Again {
    connection: Connection,
    pending: Mutex<Option<PendingCall>>,
    wakes: AtomicUsize,
    replies: AtomicUsize,
    tell: Mutex<mpsc::Sender<Result<usize, String>>>,
}

impl Again {
    fn poll(self: &Arc<Self>) {
        // Who is woken while the call is out of its place has it polled once more.
        while let Some(mut call) = take(&self.pending) {
            let seen = self.wakes.load(Ordering::SeqCst);
            let waker = Arc::clone(self).into();
            match Pin::new(&mut call).poll(&mut Context::from_waker(&waker)) {
                std::task::Poll::Pending => {
                    *self.pending.lock().unwrap() = Some(call);
                    if self.wakes.load(Ordering::SeqCst) == seen {
                        return;
                    }
                }
                std::task::Poll::Ready(result) => {
                    let count = self.replies.fetch_add(1, Ordering::SeqCst) + 1;
                    let result = result.map(|_| count).map_err(|error| error.to_string());
                    let go_on = result.is_ok() && count < 100;
                    self.tell.lock().unwrap().send(result).unwrap();
                    if !go_on {
                        return;
                    }
                    // On whichever thread this is, which may be the one that reads.
                    self.connection.notify("tick", "").unwrap();
                    drop(self.connection.request("echo", "forgotten").begin().unwrap());
                    *self.pending.lock().unwrap() =
                        Some(self.connection.request("echo", "x").begin().unwrap());
                }
            }
        }
    }
}

fn take(pending: &Mutex<Option<PendingCall>>) -> Option<PendingCall> {
    pending.lock().unwrap().take()
}

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.poll();
    }
}

#[test]
fn a_waker_may_call() {
    let _watchdog = watchdog();
    let (host, _guest) = pair(&Options::default(), Refuse, echo);
    let (tell, told) = mpsc::channel();
    let pending = Mutex::new(Some(host.request("echo", "x").begin().unwrap()));
    let again = Arc::new(Again {
        connection: host.clone(),
        pending,
        wakes: AtomicUsize::new(0),
        replies: AtomicUsize::new(0),
        tell: Mutex::new(tell),
    });
    again.poll();
    for count in 1..=100 {
        assert_eq!(told.recv_timeout(LONG).unwrap(), Ok(count));
    }
}

#[test]
fn a_waker_is_woken_by_the_end_and_may_use_the_connection() {
    struct Uses(Connection, Mutex<mpsc::Sender<bool>>);
    impl Wake for Uses {
        fn wake(self: Arc<Self>) {
            self.0.end("once more");
            let refused = matches!(self.0.call("x", ""), Err(CallError::Closed { .. }));
            self.1.lock().unwrap().send(refused).unwrap();
        }
    }
    let _watchdog = watchdog();
    let (connection, raw) = raw(&Options::default(), Refuse);
    let (tell, told) = mpsc::channel();
    let waker = Arc::new(Uses(connection.clone(), Mutex::new(tell))).into();
    let mut call = connection.request("x", "").begin().unwrap();
    assert!(Pin::new(&mut call).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(raw);
    assert_eq!(told.recv_timeout(LONG), Ok(true));
    assert!(call.wait().is_err());
}

/// Tells what it is told.
struct Events(Mutex<mpsc::Sender<String>>, Gate);

impl Handler for Events {
    fn handle(&self, _: &mut Request) -> Result<Reply, HandlerError> {
        self.1.pass();
        self.0.lock().unwrap().send("handled".into())?;
        Ok(Reply::empty())
    }

    fn ended(&self, reason: &Arc<CloseReason>) {
        self.0.lock().unwrap().send(format!("ended: {reason}")).unwrap();
    }

    fn closed(&self, reason: &Arc<CloseReason>, _: Option<&Connection>) {
        self.0.lock().unwrap().send(format!("closed: {reason}")).unwrap();
    }
}

#[test]
fn wait_closed_waits_for_the_handlers() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let gate = Gate::default();
    let (connection, mut raw) = raw(&Options::default(), Events(Mutex::new(tell), gate.clone()));
    assert!(connection.wait_closed(Duration::ZERO).is_none());
    raw.one_way("tick", b"");
    drop(raw);
    assert_eq!(told.recv_timeout(LONG).unwrap(), "ended: the other side closed the pipe");
    assert!(connection.close_reason().is_some());
    assert!(connection.wait_closed(Duration::from_millis(20)).is_none(), "a handler still runs");
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..3).map(|_| scope.spawn(|| connection.wait_closed(LONG))).collect();
        gate.open();
        for waiting in waiting {
            assert!(waiting.join().unwrap().is_some());
        }
    });
    let rest: Vec<_> = told.try_iter().collect();
    assert_eq!(rest, ["handled", "closed: the other side closed the pipe"]);
}

#[test]
fn what_is_held_back_does_not_keep_a_given_up_connection() {
    let _watchdog = watchdog();
    let (tell, told) = mpsc::channel();
    let gate = Gate::default();
    gate.open();
    let mut options = Options::default();
    options.hold = Hold::AllBut(vec![]);
    let (connection, mut raw) = raw(&options, Events(Mutex::new(tell), gate));
    raw.one_way("tick", b"");
    raw.send(1, Direction::Request, "x", b"");
    eventually("both are held", || connection.stats().held > 100);
    drop(raw);
    assert_eq!(told.recv_timeout(LONG).unwrap(), "ended: the other side closed the pipe");
    drop(connection);
    assert_eq!(told.recv_timeout(LONG).unwrap(), "closed: the other side closed the pipe");
}

#[test]
fn an_answer_that_is_given_after_the_end_of_file_is_still_written() {
    let _watchdog = watchdog();
    let gate = Gate::default();
    let handler_gate = gate.clone();
    let (_connection, mut raw) = raw(&Options::default(), move |request: &mut Request| {
        handler_gate.pass();
        Ok(request.take_buffer().into())
    });
    raw.send(7, Direction::Request, "x", &[1; 100_000]);
    drop(raw.output);
    gate.open();
    let reply = raw.input.next().unwrap();
    assert_eq!((reply.thread_id.as_u64(), reply.buffer.len()), (7, 100_000));
    assert!(raw.input.next().is_none());
}

/// Threads begin and give up calls, and drop what they wait for, while the connection comes to its
/// end.
#[test]
fn dropping_and_ending_from_everywhere() {
    let _watchdog = watchdog();
    let events = EventLoop::new().unwrap();
    for round in 0..100_usize {
        let (host, guest) =
            pair_on((&events, &events), &Options::default(), Way::SMALL_PIPES, echo, echo);
        negotiate(&host, &guest);
        thread::scope(|scope| {
            for side in [&host, &guest] {
                for caller in 0..3 {
                    scope.spawn(move || {
                        for turn in 0.. {
                            let Ok(call) = side.request("echo", vec![caller; 3000]).begin() else {
                                break;
                            };
                            match (turn + round) % 4 {
                                0 => drop(call),
                                1 => drop(call.wait_timeout(Duration::from_micros(50))),
                                _ => drop(call.wait()),
                            }
                        }
                    });
                }
            }
            (0..round).for_each(|_| thread::yield_now());
            match round % 3 {
                0 => host.end("enough"),
                1 => guest.close(),
                _ => {
                    host.close();
                    guest.close();
                }
            }
            // One that only closed its own side leaves the other one to do the same.
            host.close();
        });
        for side in [&host, &guest] {
            assert!(side.wait_closed(LONG).is_some(), "round {round}: {side:?}");
            assert_eq!(side.stats().open_calls, 0);
        }
    }
}

/// A failed write fails the calls that wait for an answer, not the sender of what was written. A
/// plugin that was told to stop closes its pipe like this.
#[test]
fn what_was_written_counts_as_sent_though_what_came_behind_it_could_not_be() {
    let _watchdog = watchdog();
    let (connection, raw) =
        raw_on(&EventLoop::new().unwrap(), &Options::default(), Way::short(1), Refuse);
    let mut read = raw.input.into_pipe();
    let first = bytes(0, Direction::OneWay, "first", &[1; 40_000]);
    thread::scope(|scope| {
        let writing = scope.spawn(|| connection.notify("first", vec![1; 40_000]));
        let mut came = vec![0; first.len()];
        read.read_exact(&mut came[..1]).unwrap();
        // The one that writes takes it along.
        connection.notify("second", vec![2; 200_000]).unwrap();
        read.read_exact(&mut came[1..]).unwrap();
        assert!(came == first);
        drop(read);
        writing.join().unwrap().unwrap();
    });
    let reason = connection.wait_ended(LONG).unwrap();
    assert!(matches!(*reason, CloseReason::WriteFailed(_)), "{reason}");
}
