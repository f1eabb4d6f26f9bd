//! Work of one side: calls of every kind, each with an expected end.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use fastrand::Rng;
use pipeplug_host::{CallError, Connection, Reply};

use crate::answer::{Board, DROPPED, PLANNED, STEPS, payload};
use crate::plan::{Plan, Side, rng};

/// Time limit of a call, reached only by one that hangs.
pub(crate) const LONG: Duration = Duration::from_secs(20);

const MIB: usize = 1 << 20;

/// Counts of the calls of one side, by their end.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) begun: AtomicU64,
    pub(crate) ended: AtomicU64,
    /// Calls that the caller cancelled.
    pub(crate) given_up: AtomicU64,
    /// One-ways that were sent.
    pub(crate) notes: AtomicU64,
}

impl Tally {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

/// One side at work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) plan: &'a Plan,
    pub(crate) side: Side,
    /// Number of this run of the side within the cycle.
    pub(crate) round: u64,
    pub(crate) board: &'a Board,
    pub(crate) tally: &'a Tally,
}

/// Expected end of a call.
enum Expected<'a> {
    Bytes(&'a [u8]),
    /// An error reply that holds this.
    Error(&'a str),
}

impl Load<'_> {
    /// Does all the work, and returns after every call has ended.
    pub(crate) fn run(&self) {
        thread::scope(|scope| {
            for caller in 0..self.plan.party(self.side).callers {
                scope.spawn(move || self.caller(caller as u64));
            }
        });
        let [begun, ended] =
            [&self.tally.begun, &self.tally.ended].map(|count| count.load(Ordering::SeqCst));
        if begun != ended {
            self.board
                .violation(format!("{begun} calls of the {} began, {ended} ended", self.side));
        }
    }

    fn caller(&self, caller: u64) {
        let part = 1 + ((self.side as u64) << 24 | self.round << 8 | caller);
        let mut rng = rng(self.plan.seed, self.plan.cycle, part);
        // 8 bits for calls that nest, 24 for what one caller does, and then who it is.
        let mut token = part << 32;
        for _ in 0..self.plan.party(self.side).steps {
            self.step(&mut rng, &mut token);
        }
    }

    fn step(&self, rng: &mut Rng, token: &mut u64) {
        let mut next = |len: usize| {
            *token += 1 << 8;
            payload(*token, len)
        };
        match rng.u32(..39) {
            0..=7 => {
                let body = next(rng.usize(..200));
                self.ends("echo", Expected::Bytes(&body), || {
                    self.connection.call_bytes("echo", &body)
                });
            }
            8 => {
                let body = next(self.plan.size(rng.usize(64 << 10..4 * MIB)));
                self.ends("echo", Expected::Bytes(&body), || {
                    self.connection.call_bytes("echo", &body)
                });
            }
            35 | 36 => {
                let body = next(self.plan.size(rng.usize(..9000)));
                self.ends("task", Expected::Bytes(&body), || {
                    self.connection.call_bytes("task", &body)
                });
            }
            37 | 38 => {
                let body = next(rng.usize(..200));
                self.ends("steps", Expected::Bytes(&body), || {
                    let (request, reports) = self.connection.request("steps", &body).progress();
                    let call = request.begin()?;
                    // They end with the call, whatever ends it.
                    let done: Vec<_> = reports.map(|report| report.done).collect();
                    if !done.is_sorted() || done.iter().any(|done| *done >= STEPS) {
                        self.board.violation(format!("progress went {done:?}"));
                    }
                    call.wait().map(Reply::into_bytes)
                });
            }
            9 | 10 => {
                let body = next(self.plan.size(rng.usize(4000..70_000)));
                self.ends("later", Expected::Bytes(&body), || {
                    self.connection.call_bytes("later", &body)
                });
            }
            11..=13 => {
                let body = next(rng.usize(..6));
                self.ends("nest", Expected::Bytes(&body), || {
                    self.connection.call_bytes("nest", &body)
                });
            }
            14 => {
                let body = next(0);
                self.ends("slow", Expected::Bytes(&body), || {
                    self.connection.call_bytes("slow", &body)
                });
            }
            15 => self.ends("fail", Expected::Error(PLANNED), || {
                self.connection.call_bytes("fail", next(0))
            }),
            16 => self.ends("panic", Expected::Error(PLANNED), || {
                self.connection.call_bytes("panic", next(0))
            }),
            17 => self.ends("drop", Expected::Error(DROPPED), || {
                self.connection.call_bytes("drop", next(0))
            }),
            18 | 19 => self.gives_up(rng, &next(0)),
            20 | 21 => self.times_out(rng, &next(0)),
            22 | 23 => {
                let body = next(self.plan.size(rng.usize(..5000)));
                self.ends("echo", Expected::Bytes(&body), || {
                    self.connection
                        .request("echo", &body)
                        .begin()
                        .and_then(block_on)
                        .map(Reply::into_bytes)
                });
            }
            24..=27 => {
                let bodies: Vec<_> = (0..self.plan.count(rng.usize(2..100)))
                    .map(|_| next(rng.usize(..600)))
                    .collect();
                self.burst(rng, &bodies);
            }
            28 | 29 => {
                let count = self.plan.count(*rng.choice(&[10, 100, 2000]).unwrap_or(&10));
                let len = rng.usize(..300);
                self.flood((0..count).map(|_| next(len)));
            }
            30 => {
                // Too late on a busy machine, or while the other side is stopped: it ends, and that
                // counts.
                Tally::add(&self.tally.begun);
                let _ = self.connection.ping(LONG);
                Tally::add(&self.tally.ended);
            }
            31 | 32 => self.stream(rng, &next(0)),
            33 => {
                let len = self.plan.size(rng.usize(..3000));
                self.one_way_stream(rng, &next(len));
            }
            _ => thread::yield_now(),
        }
    }

    /// Makes a call that has to end as expected, or with the connection.
    fn ends(
        &self,
        what: &str,
        expected: Expected<'_>,
        call: impl FnOnce() -> Result<Vec<u8>, CallError>,
    ) {
        Tally::add(&self.tally.begun);
        let outcome = call();
        Tally::add(&self.tally.ended);
        self.judge(what, &expected, &outcome);
    }

    fn judge(&self, what: &str, expected: &Expected<'_>, outcome: &Result<Vec<u8>, CallError>) {
        let side = self.side;
        let told = match (expected, outcome) {
            (Expected::Bytes(expected), Ok(bytes)) if bytes == expected => return,
            (Expected::Bytes(expected), Ok(bytes)) => {
                let at = bytes.iter().zip(*expected).position(|(one, other)| one != other);
                format!(
                    "{} bytes in place of {}, the first wrong one at {at:?}",
                    bytes.len(),
                    expected.len()
                )
            }
            (Expected::Error(expected), Err(CallError::Remote { message, .. }))
                if message.contains(expected) =>
            {
                return;
            }
            // A handler's own call failed with the connection, before this side saw its end.
            (_, Err(CallError::Closed { .. } | CallError::Remote { .. })) if self.plan.breaks() => {
                return;
            }
            (_, Err(error)) => format!("\"{error}\""),
            (Expected::Error(expected), Ok(bytes)) => {
                format!("{} bytes in place of the error \"{expected}\"", bytes.len())
            }
        };
        self.board.violation(format!("a call \"{what}\" of the {side} brought {told}"));
    }

    /// Begins a call and drops it, sometimes after one poll.
    fn gives_up(&self, rng: &mut Rng, body: &[u8]) {
        Tally::add(&self.tally.begun);
        let begun = self.connection.request("slow", body).begin();
        match begun {
            Ok(call) => {
                Tally::add(&self.tally.given_up);
                if rng.bool() {
                    let mut call = pin!(call);
                    let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                    if let Poll::Ready(outcome) = polled {
                        self.judge("slow", &Expected::Bytes(body), &outcome.map(Reply::into_bytes));
                    }
                }
            }
            Err(error) => self.judge("slow", &Expected::Bytes(body), &Err(error)),
        }
        Tally::add(&self.tally.ended);
    }

    fn times_out(&self, rng: &mut Rng, body: &[u8]) {
        Tally::add(&self.tally.begun);
        let after = Duration::from_micros(rng.u64(..3000));
        let outcome =
            self.connection.request("slow", body).begin().and_then(|call| call.wait_timeout(after));
        Tally::add(&self.tally.ended);
        if let Err(CallError::TimedOut { .. }) = &outcome {
            return Tally::add(&self.tally.given_up);
        }
        self.judge("slow", &Expected::Bytes(body), &outcome.map(Reply::into_bytes));
    }

    /// Many calls at once, whose replies are taken in another order.
    fn burst(&self, rng: &mut Rng, bodies: &[Vec<u8>]) {
        let mut open = Vec::new();
        for body in bodies {
            Tally::add(&self.tally.begun);
            match self.connection.request("echo", body).begin() {
                Ok(call) => open.push((call, body)),
                Err(error) => {
                    Tally::add(&self.tally.ended);
                    self.judge("echo", &Expected::Bytes(body), &Err(error));
                }
            }
        }
        rng.shuffle(&mut open);
        for (call, body) in open {
            let outcome = call.wait_timeout(LONG);
            Tally::add(&self.tally.ended);
            self.judge("echo", &Expected::Bytes(body), &outcome.map(Reply::into_bytes));
        }
    }

    fn flood(&self, bodies: impl Iterator<Item = Vec<u8>>) {
        for body in bodies {
            match self.connection.notify("note", body) {
                Ok(()) => Tally::add(&self.tally.notes),
                Err(_) if self.plan.breaks() => return,
                Err(error) => {
                    return self
                        .board
                        .violation(format!("a one-way of the {} failed: {error}", self.side));
                }
            }
        }
    }
}

/// Awaits it, and sleeps meanwhile.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
