//! The plugin that pipeplug's host is measured with: what a user would write, and what the
//! measurements ask of it.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pipeplug_guest::Options;
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request, Responder};

pub(crate) fn main() -> ExitCode {
    let state = BenchHandler {
        delay: delay_asked_for(),
        one_ways: AtomicU64::new(0),
        parked: Mutex::default(),
    };
    let mut options = Options::default();
    // Open calls are parked by the million.
    options.deferred = usize::MAX;
    options.stream_window = STREAM_WINDOW;
    let answer = move |_: &Main, request: &mut Request| state.answer(request);
    let guest = Guest::new().options(options).handler(answer);
    let guest = if std::env::var_os("BENCH_NO_SPIN").is_some() {
        guest.spin(Duration::ZERO)
    } else {
        guest
    };
    guest.register().wait()
}

/// More than the messages that are in flight on one stream.
const STREAM_WINDOW: usize = 8 << 20;

struct BenchHandler {
    /// How long an echo takes.
    delay: Duration,
    one_ways: AtomicU64,
    /// The calls that are left open.
    parked: Mutex<Vec<Responder>>,
}

impl BenchHandler {
    fn answer(&self, request: &mut Request) -> Result<Reply, HandlerError> {
        match request.command() {
            "echo" => {
                self.work();
                Ok(request.take_buffer().into())
            }
            "one-way" => {
                self.one_ways.fetch_add(1, Ordering::Relaxed);
                Ok(Reply::empty())
            }
            "stream" => {
                let mut reply = request.reply_parts()?;
                let mut parts = request.parts();
                while let Some(batch) = parts.next_batch() {
                    let mut batch = batch?;
                    // Large ones are not copied.
                    while batch.first().is_some_and(|part| part.len() > 4096) {
                        reply.send(batch.remove(0))?;
                    }
                    reply.send_batch(&batch)?;
                }
                Ok(Reply::empty())
            }
            "one-way-stream" => {
                let mut parts = request.parts();
                while let Some(batch) = parts.next_batch() {
                    self.one_ways.fetch_add(batch?.len() as u64, Ordering::Relaxed);
                }
                Ok(Reply::empty())
            }
            "count" => self.count(request.text()?.parse()?),
            "park" => {
                let responder = request.responder().ok_or("only a call can be parked")?;
                self.parked.lock().unwrap_or_else(PoisonError::into_inner).push(responder);
                Ok(Reply::empty())
            }
            "parked" => {
                let parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner).len();
                Ok(parked.to_string().into())
            }
            _ => request.unknown(),
        }
    }

    fn work(&self) {
        if !self.delay.is_zero() {
            let begun = Instant::now();
            while begun.elapsed() < self.delay {
                std::hint::spin_loop();
            }
        }
    }

    /// Answers once that many one-ways were handled: the last of them may still run beside this.
    fn count(&self, expected: u64) -> Result<Reply, HandlerError> {
        const TIMEOUT: Duration = Duration::from_secs(5);
        let begun = Instant::now();
        loop {
            let handled = self.one_ways.load(Ordering::Relaxed);
            if handled >= expected || begun.elapsed() > TIMEOUT {
                return Ok(handled.to_string().into());
            }
            std::thread::yield_now();
        }
    }
}

fn delay_asked_for() -> Duration {
    let micros = std::env::var("BENCH_HANDLER_US").ok().and_then(|micros| micros.parse().ok());
    Duration::from_micros(micros.unwrap_or(0))
}
