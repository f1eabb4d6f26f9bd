//! Models of the places where one thread hands over to another: this crate's own code, over real
//! pipes, under a scheduler that tries one order of steps after the other.
//!
//! `cargo xtask models` runs them. A schedule that fails is written to a file, with which the same
//! can be had again. In each one every thread has to end, and every descriptor that is waited for
//! has to be told: what waits for ever ends as "deadlock", or where it looks at a descriptor as
//! "exceeded max_steps".
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

mod awaited;
mod calls;
mod cancel;
mod closing;
mod handlers;
mod peer;
mod pool;
mod progress;
mod streams;
pub(crate) mod sync;
mod writer;

use std::env;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use self::peer::Peer;
use crate::{Connection, Endpoint, EventLoop, Handler, Options};

/// How many schedules each model runs under, half of them by either scheduler.
const ITERATIONS: &str = "PIPEPLUG_MODEL_ITERATIONS";
const USUAL_ITERATIONS: usize = 200;
/// A file with the only schedule to run.
const SCHEDULE: &str = "PIPEPLUG_MODEL_SCHEDULE";
/// The folder where schedules that failed are left; without it they are printed.
const FAILURES: &str = "PIPEPLUG_MODEL_FAILURES";

/// Most steps of a schedule: far more than any takes that comes to its end.
const MAX_STEPS: usize = 200_000;
/// Stack size of a thread, in bytes.
const STACK: usize = 256 << 10;
/// Where one thread takes over from another against its priority, in one schedule: many a fault
/// takes two.
const PREEMPTIONS: usize = 4;

/// For ever: a time that cannot be named is no time-out.
const LONG: Duration = Duration::MAX;

/// Runs a model under many schedules.
fn check(model: impl Fn() + Copy + Send + Sync + 'static) {
    if let Some(file) = env::var_os(SCHEDULE) {
        return run(ReplayScheduler::new_from_file(file).unwrap(), model);
    }
    let iterations =
        env::var(ITERATIONS).map_or(USUAL_ITERATIONS, |number| number.parse().unwrap());
    run(RandomScheduler::new(iterations.div_ceil(2)), model);
    run(PctScheduler::new(PREEMPTIONS, iterations / 2), model);
}

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(MAX_STEPS);
    config.silence_warnings = true;
    if let Some(folder) = env::var_os(FAILURES) {
        config.failure_persistence = FailurePersistence::File(Some(folder.into()));
    }
    Runner::new(scheduler, config).run(model);
}

/// A connection, and its other side by hand.
fn connect(events: &EventLoop, options: Options, handler: impl Handler) -> (Connection, Peer) {
    let (reader, peer_writer) = std::io::pipe().unwrap();
    let (peer_reader, writer) = std::io::pipe().unwrap();
    let connection = events
        .connect(Endpoint::exclusive(reader), Endpoint::exclusive(writer), options, handler)
        .unwrap();
    (connection, Peer::new(peer_reader, peer_writer))
}

/// Options of a model. Spinning before a sleep is off, since it would only cost steps.
fn options() -> Options {
    Options { spin: Duration::ZERO, ..Options::default() }
}
