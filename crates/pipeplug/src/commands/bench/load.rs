//! Load of a measurement: calls in a closed loop, or at a constant rate.
//!
//! One thread drives all calls. The latency of a call ends when its reply has arrived: the waker
//! notes that time on the thread that reads, so a driver that is behind makes no call look slow.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use pipeplug_host::{AwaitedCall, CallError, Plugin, Reply};

use super::figures::{Figures, Recorder, UNANSWERED, UNSENT};
use crate::exit::CallFault;
use crate::session::shutdown::Shutdown;

/// Longest sleep, after which a shutdown is seen.
const SLEEP: Duration = Duration::from_millis(100);
/// Time before a call is due in which the thread does not sleep: a sleep ends that much late.
const SPIN: Duration = Duration::from_micros(60);
/// Time for the replies that are missing at the end, without `--timeout`.
const DRAIN: Duration = Duration::from_secs(5);
/// Replies that are taken before the next calls are sent.
const BATCH: usize = 16;
/// Largest request that is sent by a blocking caller: it fits into a pipe.
const SMALL: usize = 32 << 10;

/// Calls of a measurement.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) command: String,
    pub(super) data: Vec<u8>,
    pub(super) timeout: Option<Duration>,
    pub(super) pace: Pace,
}

/// Times at which calls are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pace {
    /// A call for each that has ended.
    Closed { concurrency: usize },
    /// A number of calls a second, whether or not the plugin answers. `most` limits those in flight; a
    /// call that has to wait for that is late, and its latency counts from the time it was due.
    Rate { per_second: f64, most: usize },
}

/// Result of a round.
pub(super) struct Round {
    pub(super) figures: Figures,
    /// Error that ended the connection.
    pub(super) died: Option<CallError>,
}

impl Load {
    /// Makes calls for `warm_up`, and measures those of the `time` after that. Ends
    /// early if a shutdown begins or the plugin ends.
    ///
    /// # Blocking
    /// For both times, and up to the time-out of a call, or [`DRAIN`], more.
    pub(super) fn measure(
        &self,
        plugin: &Plugin,
        warm_up: Duration,
        time: Duration,
        shutdown: &Shutdown,
    ) -> Round {
        let mut round = Measuring::new(self, warm_up, time);
        match self.pace {
            Pace::Closed { concurrency: 1 } if self.data.len() <= SMALL => {
                round.call_one_by_one(plugin, shutdown);
            }
            _ => round.call_many(plugin, shutdown),
        }
        round.finish()
    }

    fn drain(&self) -> Duration {
        self.timeout.unwrap_or(DRAIN)
    }
}

/// State of a round.
struct Measuring<'a> {
    load: &'a Load,
    recorder: Recorder,
    /// Begin of the load, of the measurement, and its end.
    begun: Instant,
    from: Instant,
    until: Instant,
    /// Time at which the measurement ended early.
    ended: Option<Instant>,
    died: Option<CallError>,
}

impl<'a> Measuring<'a> {
    fn new(load: &'a Load, warm_up: Duration, time: Duration) -> Self {
        let begun = Instant::now();
        let from = begun + warm_up;
        let (recorder, until) = (Recorder::new(time), from + time);
        Self { load, recorder, begun, from, until, ended: None, died: None }
    }

    /// Calls of one thread, each after the reply to the one before.
    fn call_one_by_one(&mut self, plugin: &Plugin, shutdown: &Shutdown) {
        let mut now = Instant::now();
        while now < self.until && self.goes_on(shutdown) {
            let begun = now;
            let mut request = plugin.request(&self.load.command, self.load.data.as_slice());
            if let Some(timeout) = self.load.timeout {
                request = request.timeout(timeout);
            }
            // The plugin does not learn of this limit.
            let limit = (self.until - now) + self.load.drain();
            let reply = request.begin().and_then(|call| call.wait_timeout(limit));
            now = Instant::now();
            if now - begun >= limit {
                self.unanswered(begun);
            } else {
                self.record(begun, now, reply, shutdown);
            }
        }
    }

    /// Calls of one thread, with many in flight.
    fn call_many(&mut self, plugin: &Plugin, shutdown: &Shutdown) {
        let board = Arc::new(Board { ready: Mutex::default(), driver: thread::current() });
        let mut lanes: Vec<Lane<'_>> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut ready = Vec::new();
        let (mut sent, mut open) = (0_u64, 0_usize);
        loop {
            // Sends what is due.
            while self.goes_on(shutdown) {
                let now = Instant::now();
                let (due, most) = self.due(sent, now);
                if due > now || open >= most || now >= self.until + self.load.drain() {
                    break;
                }
                if due >= self.until {
                    break;
                }
                let lane = free.pop().unwrap_or_else(|| {
                    lanes.push(Lane::new(&board, lanes.len()));
                    lanes.len() - 1
                });
                sent += 1;
                open += 1;
                if let Some(ended) = lanes[lane].begin(plugin, self.load, due) {
                    open -= 1;
                    free.push(lane);
                    self.record(due, ended.0, ended.1, shutdown);
                }
                // Replies may be waiting.
                if sent.is_multiple_of(BATCH as u64) {
                    break;
                }
            }
            let was_idle = ready.is_empty();
            if was_idle {
                board.take(&mut ready);
            }
            for (lane, woken) in ready.drain(ready.len().saturating_sub(BATCH)..) {
                if let Some((due, ended, reply)) = lanes[lane].poll(woken) {
                    open -= 1;
                    free.push(lane);
                    self.record(due, ended, reply, shutdown);
                }
            }
            let now = Instant::now();
            let (due, most) = self.due(sent, now);
            let all_sent = due >= self.until || !self.goes_on(shutdown);
            if (all_sent && open == 0)
                || now >= self.until + self.load.drain()
                || self.died.is_some()
                || shutdown.is_begun()
            {
                break;
            }
            let may_send = !all_sent && open < most;
            if ready.is_empty() && !(may_send && due <= now) {
                sleep_until(if may_send { due } else { now + SLEEP }, now);
            }
        }
        for lane in lanes.iter().filter(|lane| lane.call.is_some()) {
            self.unanswered(lane.due);
        }
        if self.goes_on(shutdown) {
            self.unsent(sent);
        }
    }

    /// Time at which the next call is due, and the number of calls that may be in flight.
    fn due(&self, sent: u64, now: Instant) -> (Instant, usize) {
        match self.load.pace {
            Pace::Closed { concurrency } => (now, concurrency),
            Pace::Rate { per_second, most } => {
                #[expect(clippy::cast_precision_loss, reason = "nanoseconds stay exact for days")]
                let after = Duration::try_from_secs_f64(sent as f64 / per_second);
                (self.begun + after.unwrap_or(Duration::from_secs(1 << 30)), most)
            }
        }
    }

    /// Counts the calls that were due before the end and were not sent.
    fn unsent(&mut self, mut sent: u64) {
        let Pace::Rate { most, .. } = self.load.pace else { return };
        let mut count = 0;
        loop {
            let (due, _) = self.due(sent, self.until);
            if due >= self.until {
                break;
            }
            sent += 1;
            count += u64::from(due >= self.from);
        }
        self.recorder.count(UNSENT, count, || {
            format!("due and not sent: {most} calls were in flight, and --concurrency allows more")
        });
    }

    /// True for a call that counts. In a closed loop these are the ones that end after the warm-up,
    /// so that a call that takes longer than that counts too.
    fn is_measured(&self, due: Instant, ended: Instant) -> bool {
        match self.load.pace {
            Pace::Closed { .. } => ended >= self.from,
            Pace::Rate { .. } => due >= self.from,
        }
    }

    fn unanswered(&mut self, due: Instant) {
        let is_open = self.died.is_none() && self.ended.is_none();
        if is_open && self.is_measured(due, self.until) {
            let after = self.load.drain();
            self.recorder.count(UNANSWERED, 1, || {
                format!("no reply within {after:?} after the end of the measurement")
            });
        }
    }

    /// True as long as calls may be made.
    fn goes_on(&mut self, shutdown: &Shutdown) -> bool {
        if shutdown.is_begun() {
            self.ended.get_or_insert_with(Instant::now);
        }
        self.ended.is_none()
    }

    fn record(
        &mut self,
        due: Instant,
        ended: Instant,
        reply: Result<Reply, CallError>,
        shutdown: &Shutdown,
    ) {
        let is_measured = self.is_measured(due, ended);
        let at = ended.saturating_duration_since(self.from);
        match reply {
            Ok(reply) => {
                if is_measured {
                    let took = ended.saturating_duration_since(due);
                    let bytes = (self.load.data.len() + reply.len()) as u64;
                    self.recorder.succeeded(at, took, bytes, ended <= self.until);
                }
            }
            // A call that fails during a shutdown fails because of the shutdown.
            Err(_) if !self.goes_on(shutdown) => {}
            Err(error) => {
                if is_measured {
                    self.recorder.failed(at, &error);
                }
                if CallFault::of(&error) == CallFault::Died {
                    self.ended = Some(ended);
                    self.died = Some(error);
                }
            }
        }
    }

    fn finish(self) -> Round {
        let until = self.ended.map_or(self.until, |ended| ended.min(self.until));
        let time = until.saturating_duration_since(self.from);
        Round { figures: self.recorder.finish(time), died: self.died }
    }
}

/// Sleeps, and spins for the last moment, so that the next call is sent in time. Replies end the
/// sleep.
fn sleep_until(due: Instant, now: Instant) {
    let left = due.saturating_duration_since(now);
    if left > SPIN {
        thread::park_timeout((left - SPIN).min(SLEEP));
    } else {
        std::hint::spin_loop();
    }
}

/// Lanes that were woken, with the time of it.
struct Board {
    ready: Mutex<Vec<(usize, Instant)>>,
    driver: Thread,
}

impl Board {
    fn take(&self, ready: &mut Vec<(usize, Instant)>) {
        std::mem::swap(ready, &mut self.ready.lock().unwrap_or_else(PoisonError::into_inner));
        // Taken from the end.
        ready.reverse();
    }
}

/// Waker of a lane.
struct LaneWaker {
    board: Arc<Board>,
    lane: usize,
}

impl Wake for LaneWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = (self.lane, Instant::now());
        self.board.ready.lock().unwrap_or_else(PoisonError::into_inner).push(woken);
        self.board.driver.unpark();
    }
}

/// Place of one call in flight.
struct Lane<'a> {
    waker: Waker,
    call: Option<AwaitedCall<'a>>,
    due: Instant,
    sent: Instant,
}

impl<'a> Lane<'a> {
    fn new(board: &Arc<Board>, lane: usize) -> Self {
        let waker = Waker::from(Arc::new(LaneWaker { board: Arc::clone(board), lane }));
        let now = Instant::now();
        Self { waker, call: None, due: now, sent: now }
    }

    /// Begins a call. Returns its outcome if it has one already.
    fn begin(
        &mut self,
        plugin: &'a Plugin,
        load: &'a Load,
        due: Instant,
    ) -> Option<(Instant, Result<Reply, CallError>)> {
        let mut request = plugin.request(&load.command, load.data.as_slice());
        if let Some(timeout) = load.timeout {
            request = request.timeout(timeout);
        }
        self.call = Some(request.into_future());
        self.due = due;
        self.sent = Instant::now();
        self.poll(self.sent).map(|(_, ended, reply)| (ended, reply))
    }

    /// Returns the outcome of the call, and the times at which it was due and has ended.
    fn poll(&mut self, woken: Instant) -> Option<(Instant, Instant, Result<Reply, CallError>)> {
        let call = Pin::new(self.call.as_mut()?);
        match call.poll(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(reply) => {
                self.call = None;
                // The wake-up of an earlier call says nothing of this one.
                let ended = if woken > self.sent { woken } else { Instant::now() };
                Some((self.due, ended, reply))
            }
            Poll::Pending => None,
        }
    }
}
