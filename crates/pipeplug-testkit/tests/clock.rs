//! A clock that a test advances: deadlines pass on both sides, for threads and for tasks.
//!
//! The times are hours, so that a test hangs, and its watchdog ends it, if one goes by another clock.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use pipeplug_net::{
    CallError, Handler, HandlerError, Options, Refuse, Reply, Request, StreamError,
};
use pipeplug_testkit::{Gate, LONG, ManualClock, Pair, Watchdog, eventually};

const HOUR: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_nanos(1);

/// Opens the gate, and waits until the request is no longer wanted.
fn waits(gate: &Gate) -> impl Handler {
    let gate = gate.clone();
    move |request: &mut Request| -> Result<Reply, HandlerError> {
        gate.open();
        let is_late = request.cancellation().wait_timeout(1000 * HOUR);
        Ok(is_late.to_string().into())
    }
}

/// Opens the first gate, and waits at the second, whatever the clock.
fn stands(asked: &Gate, go: &Gate) -> impl Handler {
    let (asked, go) = (asked.clone(), go.clone());
    move |_: &mut Request| -> Result<Reply, HandlerError> {
        asked.open();
        go.pass();
        Ok(Reply::empty())
    }
}

fn timed_out(result: Result<Reply, CallError>) -> bool {
    matches!(result, Err(CallError::TimedOut { after, .. }) if after == HOUR)
}

/// Remembers that it was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Woken {
    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn is_woken(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[test]
fn calls_end_when_their_deadline_passes_and_not_before() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked) = (ManualClock::new(), Gate::default());
    let pair = Pair::setup().clock(&clock).connect(Refuse, waits(&asked)).unwrap();
    let begin = || pair.host.request("x", "").timeout(HOUR).begin().unwrap();
    let (begun, awaited, unwaited) = (begin(), begin(), begin());
    asked.pass();
    thread::scope(|scope| {
        let waiting = [
            scope.spawn(|| begun.wait()),
            scope.spawn(|| pair.host.request("x", "").timeout(HOUR).wait()),
        ];
        let woken = Arc::<Woken>::default();
        let mut awaited = pin!(awaited);
        assert!(woken.poll(awaited.as_mut()).is_pending());
        eventually("both threads have sent", || pair.host.stats().open_calls == 4);
        clock.advance(HOUR - MOMENT);
        assert!(!woken.is_woken());
        assert!(woken.poll(awaited.as_mut()).is_pending());
        assert_eq!(pair.host.stats().open_calls, 4, "none has ended");
        clock.advance(MOMENT);
        assert!(woken.is_woken());
        let outcome = loop {
            // It looks once more at what has arrived.
            if let Poll::Ready(outcome) = woken.poll(awaited.as_mut()) {
                break outcome;
            }
            thread::yield_now();
        };
        assert!(timed_out(outcome));
        for waiting in waiting {
            assert!(timed_out(waiting.join().unwrap()));
        }
        assert!(timed_out(unwaited.wait()), "not waited for before");
    });
}

#[test]
fn a_wait_with_a_limit_of_its_own_ends_too() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked) = (ManualClock::new(), Gate::default());
    let pair = Pair::setup().clock(&clock).connect(Refuse, waits(&asked)).unwrap();
    let call = pair.host.request("x", "").begin().unwrap();
    asked.pass();
    let waiting = thread::spawn(move || call.wait_timeout(HOUR));
    // It may begin to wait later than this.
    while !waiting.is_finished() {
        clock.advance(HOUR);
        thread::yield_now();
    }
    assert!(timed_out(waiting.join().unwrap()));
}

#[test]
fn a_handler_sees_the_time_pass() {
    let _watchdog = Watchdog::new(LONG);
    let clock = ManualClock::new();
    let (tell, told) = mpsc::channel();
    let (of_handler, go) = (clock.clock(), Gate::default());
    let gate = go.clone();
    let handler = move |request: &mut Request| -> Result<Reply, HandlerError> {
        let cancellation = request.cancellation();
        tell.send((request.remaining(), cancellation.is_cancelled()))?;
        assert_eq!(request.deadline().map(|at| at - of_handler.now()), request.remaining());
        gate.pass();
        tell.send((request.remaining(), cancellation.is_cancelled()))?;
        // A limit of its own.
        assert!(!cancellation.wait_timeout(HOUR / 4));
        tell.send((request.remaining(), cancellation.is_cancelled()))?;
        assert!(cancellation.wait_timeout(1000 * HOUR));
        tell.send((request.remaining(), cancellation.is_cancelled()))?;
        Ok(Reply::empty())
    };
    let pair = Pair::setup().clock(&clock).connect(Refuse, handler).unwrap();
    let call = pair.host.request("x", "").timeout(HOUR).begin().unwrap();
    let next = || told.recv_timeout(LONG).unwrap();
    assert_eq!(next(), (Some(HOUR), false));
    clock.advance(HOUR / 4);
    go.open();
    assert_eq!(next(), (Some(HOUR / 4 * 3), false));
    eventually("the handler waits", || {
        clock.advance(Duration::from_secs(1));
        told.try_recv().is_ok_and(|(_, is_cancelled)| !is_cancelled)
    });
    clock.advance(HOUR);
    assert_eq!(next(), (Some(Duration::ZERO), true));
    assert!(timed_out(call.wait()));
}

#[test]
fn what_a_handler_awaits_or_calls_ends_with_its_request() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked) = (ManualClock::new(), Gate::default());
    let (tell, told) = mpsc::channel();
    let handler = move |request: &mut Request| -> Result<Reply, HandlerError> {
        let woken = Arc::<Woken>::default();
        let mut cancellation = pin!(request.cancellation());
        assert!(woken.poll(cancellation.as_mut()).is_pending());
        // Inherits the deadline, and no more than that.
        let called_back = request.connection().call("back", "");
        assert!(matches!(called_back, Err(CallError::TimedOut { .. })), "{called_back:?}");
        assert!(woken.is_woken() && woken.poll(cancellation.as_mut()).is_ready());
        tell.send(())?;
        Ok(Reply::empty())
    };
    let pair = Pair::setup().clock(&clock).connect(waits(&asked), handler).unwrap();
    let call = pair.host.request("x", "").timeout(HOUR).begin().unwrap();
    asked.pass();
    clock.advance(HOUR);
    assert!(timed_out(call.wait()));
    told.recv_timeout(LONG).unwrap();
}

#[test]
fn a_request_that_waits_to_be_sent_or_handled_ends() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked, go) = (ManualClock::new(), Gate::default(), Gate::default());
    let mut narrow = Options::default();
    narrow.window = 1;
    narrow.handlers = std::num::NonZeroUsize::MIN;
    let setup = Pair::setup().clock(&clock).guest_options(narrow);
    let pair = setup.connect(Refuse, stands(&asked, &go)).unwrap();
    let begin = |timeout| pair.host.request("x", "").timeout(timeout).begin();
    let handled = begin(2 * HOUR).unwrap();
    asked.pass();
    // The next one fills the window, and those after that have no credit.
    let queued = begin(2 * HOUR).unwrap();
    thread::scope(|scope| {
        let unsent = scope.spawn(|| begin(HOUR).map(drop).unwrap_err());
        let woken = Arc::<Woken>::default();
        let mut awaited = pin!(pair.host.request("x", "").timeout(HOUR).begin_async());
        assert!(woken.poll(awaited.as_mut()).is_pending());
        eventually("all calls have begun", || pair.host.stats().open_calls == 4);
        clock.advance(HOUR);
        let error = unsent.join().unwrap();
        assert!(matches!(error, CallError::NotSent { .. }), "{error}");
        assert!(woken.is_woken());
        let Poll::Ready(Err(error)) = woken.poll(awaited.as_mut()) else { panic!("it waits") };
        assert!(matches!(error, CallError::NotSent { .. }), "{error}");
    });
    clock.advance(HOUR);
    for call in [handled, queued] {
        assert!(matches!(call.wait(), Err(CallError::TimedOut { .. })));
    }
    go.open();
}

#[test]
fn streams_end_on_both_sides() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked) = (ManualClock::new(), Gate::default());
    let (tell, told) = mpsc::channel();
    let gate = asked.clone();
    let handler = move |request: &mut Request| -> Result<Reply, HandlerError> {
        let mut parts = request.parts();
        parts.next().ok_or("a part comes first")??;
        gate.open();
        tell.send(parts.next())?;
        Ok(Reply::empty())
    };
    let pair = Pair::setup().clock(&clock).connect(Refuse, handler).unwrap();
    let stream = pair.host.request("x", "").timeout(HOUR).stream().unwrap();
    let (mut sender, parts) = stream.split();
    sender.send("first").unwrap();
    asked.pass();
    clock.advance(HOUR);
    let ended = told.recv_timeout(LONG).unwrap();
    assert!(matches!(ended, Some(Err(StreamError::DeadlinePassed))), "{ended:?}");
    assert!(timed_out(parts.reply()));
    assert!(sender.send("late").is_err());
}

#[test]
fn a_sender_without_credit_ends() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked, go) = (ManualClock::new(), Gate::default(), Gate::default());
    let pair = Pair::setup().clock(&clock).connect(Refuse, stands(&asked, &go)).unwrap();
    let stream = pair.host.request("x", "").timeout(HOUR).stream().unwrap();
    let (mut sender, parts) = stream.split();
    asked.pass();
    let full = thread::spawn(move || {
        loop {
            if let Err(error) = sender.send([0; 64 << 10].as_slice()) {
                return error;
            }
        }
    });
    thread::park_timeout(Duration::from_millis(50)); // it may have no credit by now, or later
    clock.advance(HOUR);
    let error = full.join().unwrap();
    assert!(matches!(error, StreamError::DeadlinePassed), "{error}");
    assert!(timed_out(parts.reply()));
    go.open();
}

#[test]
fn reports_of_progress_end_with_the_call() {
    let _watchdog = Watchdog::new(LONG);
    let (clock, asked) = (ManualClock::new(), Gate::default());
    let pair = Pair::setup().clock(&clock).connect(Refuse, waits(&asked)).unwrap();
    let (request, reports) = pair.host.request("x", "").timeout(HOUR).progress();
    let call = request.begin().unwrap();
    asked.pass();
    let reports = thread::spawn(move || reports.count());
    thread::park_timeout(Duration::from_millis(20));
    clock.advance(HOUR);
    assert_eq!(reports.join().unwrap(), 0);
    assert!(timed_out(call.wait()));
}

#[test]
fn each_clock_has_its_own_time() {
    let _watchdog = Watchdog::new(LONG);
    let (one, other) = (ManualClock::new(), ManualClock::new());
    let (asked, asked_other) = (Gate::default(), Gate::default());
    let pair = Pair::setup().clock(&one).connect(Refuse, waits(&asked)).unwrap();
    let other_pair = Pair::setup().clock(&other).connect(Refuse, waits(&asked_other)).unwrap();
    let call = pair.host.request("x", "").timeout(HOUR).begin().unwrap();
    let mut standing = other_pair.host.request("x", "").timeout(HOUR).begin().unwrap();
    asked.pass();
    asked_other.pass();
    one.advance(HOUR);
    assert!(timed_out(call.wait()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut standing).poll(&mut context).is_pending());
    drop((one, pair));
    other.advance(HOUR);
    assert!(timed_out(standing.wait()));
}

#[cfg(feature = "host")]
#[test]
fn a_plugin_and_its_host_go_by_it() {
    use pipeplug_guest::{Guest, Main};
    use pipeplug_host::Plugin;
    use pipeplug_testkit::InProcess;

    let _watchdog = Watchdog::new(LONG);
    let (clock, asked) = (ManualClock::new(), Gate::default());
    let (tell, told) = mpsc::channel();
    let gate = asked.clone();
    let waits = InProcess::new(move || {
        let (gate, tell) = (gate.clone(), tell.clone());
        Guest::new().metadata("Cmd", "waits").handler(move |_: &Main, request: &mut Request| {
            gate.open();
            tell.send(request.cancellation().wait_timeout(1000 * HOUR))?;
            Ok(Reply::empty())
        })
    });
    let plugin =
        Plugin::builder("waits").launcher(waits.clock(&clock)).clock(&clock).start().unwrap();
    let call = plugin.request("x", "").timeout(HOUR).begin().unwrap();
    asked.pass();
    clock.advance(HOUR);
    assert!(timed_out(call.wait()));
    assert!(told.recv_timeout(LONG).unwrap());
    plugin.stop().unwrap();
}
