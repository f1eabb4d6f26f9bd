//! `soak GUEST`: a host whose threads call the command `echo` of a guest in any language, give calls up at random
//! times, and kill the guest now and then.
//!
//! Each call ends once: with its own bytes, or with an error that its own cancellation or time limit, or a kill,
//! explains. The choices follow from the seed; which reply comes before its cancellation depends on the machine.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use fastrand::Rng;
use nix::sys::signal::Signal;
use pipeplug_host::{CallError, PendingCall, Plugin, Reply, Stats, failure_code};
use pipeplug_testkit::Watchdog;
use pipeplug_tests::send;

/// Time limit of a call that is not given up, reached only by one that was lost.
const LOST: Duration = Duration::from_secs(60);

/// A run that takes longer hangs.
const HUNG: Duration = Duration::from_secs(240);

/// Sizes of the data of a call, up to these, with their weights.
const SIZES: [(usize, u32); 5] = [(100, 60), (5_000, 25), (70_000, 12), (300_000, 2), (1 << 20, 1)];

/// Largest number of problems that are printed.
const SHOWN: usize = 20;

/// Call a guest at random, give calls up, kill it, and check that nothing is lost.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Cli {
    /// The guest, which answers `echo` with the data of the call
    guest: PathBuf,
    /// Number of calls
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    calls: u64,
    /// Number of kills
    #[arg(long, value_name = "N", default_value_t = 10)]
    kills: u64,
    /// Number of threads that call
    #[arg(long, value_name = "N", default_value_t = 8)]
    threads: u64,
    /// Seed of all random choices [default: a new one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// Use of a call by its caller after it has begun.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Waits for the reply.
    Wait,
    /// Drops the call as soon as it has begun.
    Drop,
    /// Cancels the call by its handle, with others of its batch in between, and waits for its end.
    Cancel,
    /// Made the call with this time limit, of which the guest learns.
    Limit(Duration),
}

impl Fate {
    fn random(rng: &mut Rng) -> Self {
        match rng.u32(..100) {
            0..8 => Self::Drop,
            8..18 => Self::Cancel,
            18..26 => Self::Limit(Duration::from_micros(rng.u64(..5_000))),
            _ => Self::Wait,
        }
    }
}

/// End of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Answered,
    GivenUp,
    Cancelled,
    TimedOut,
    LostWithItsGuest,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Answered => "answered",
            Self::GivenUp => "given up",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed out",
            Self::LostWithItsGuest => "lost with a guest that was killed",
        })
    }
}

/// One process of the guest.
#[derive(Debug)]
struct Process {
    plugin: Plugin,
    was_killed: AtomicBool,
}

/// Processes one after the other, and what became of the calls.
struct Soak {
    guest: PathBuf,
    current: Mutex<Arc<Process>>,
    ends: Mutex<BTreeMap<End, u64>>,
    problems: Mutex<Vec<String>>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("soak: seed {seed}, {} calls of {}", cli.calls, cli.guest.display());
    let watchdog = Watchdog::with(HUNG, move || eprintln!("soak: seed {seed} hangs"));
    let begun = Instant::now();
    let ran = run(&cli, seed);
    drop(watchdog);
    match ran {
        Ok(ends) => {
            let ends: Vec<String> =
                ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
            let took = begun.elapsed().as_secs_f64();
            println!("soak: {}; {} kills; {took:.1} s", ends.join(", "), cli.kills);
            ExitCode::SUCCESS
        }
        Err(problems) => {
            for problem in problems.iter().take(SHOWN) {
                eprintln!("soak: {problem}");
            }
            eprintln!("soak: {} problems with the seed {seed}", problems.len());
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli, seed: u64) -> Result<BTreeMap<End, u64>, Vec<String>> {
    let first = start(&cli.guest).map_err(|error| vec![error])?;
    let soak = Soak {
        guest: cli.guest.clone(),
        current: Mutex::new(first),
        ends: Mutex::default(),
        problems: Mutex::default(),
    };
    let threads = cli.threads.max(1);
    // The parts of a number that threads share.
    let part = |all: u64, thread: u64| all / threads + u64::from(thread < all % threads);
    thread::scope(|scope| {
        for number in 0..threads {
            let (calls, kills) = (part(cli.calls, number), part(cli.kills, number));
            let rng = Rng::with_seed(seed ^ (number << 32));
            let soak = &soak;
            scope.spawn(move || soak.caller(rng, number, calls, kills));
        }
    });
    soak.finish();
    let ends = soak.ends.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut problems = soak.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    let ended: u64 = ends.values().sum();
    if ended != cli.calls {
        problems.push(format!("{ended} of {} calls have ended", cli.calls));
    }
    if problems.is_empty() { Ok(ends) } else { Err(problems) }
}

fn start(guest: &PathBuf) -> Result<Arc<Process>, String> {
    let plugin = Plugin::builder(guest).start().map_err(|error| error.to_string())?;
    Ok(Arc::new(Process { plugin, was_killed: AtomicBool::new(false) }))
}

impl Soak {
    /// Makes calls in batches, each of which is waited for before the next.
    fn caller(&self, mut rng: Rng, number: u64, calls: u64, kills: u64) {
        let (mut made, mut killed) = (0, 0);
        while made < calls {
            let Some(process) = self.process() else {
                return;
            };
            let batch = rng.u64(1..=32).min(calls - made);
            let mut open = Vec::new();
            for call in made..made + batch {
                let (data, fate) = (data(&mut rng, number << 32 | call), Fate::random(&mut rng));
                match (begin(&process.plugin, &data, fate), fate) {
                    (Ok(pending), Fate::Drop) => {
                        pending.cancel();
                        self.count(End::GivenUp);
                    }
                    (Ok(pending), _) => open.push((pending, data, fate)),
                    (Err(error), _) => self.failed(&process, fate, &error),
                }
            }
            made += batch;
            thread::sleep(Duration::from_micros(rng.u64(..500)));
            for (pending, ..) in open.iter().filter(|(.., fate)| matches!(fate, Fate::Cancel)) {
                pending.cancel_handle().cancel();
            }
            // A kill comes while the batch is under way.
            if killed < kills && made >= (killed + 1) * calls / (kills + 1) {
                killed += 1;
                self.kill(&process);
            }
            rng.shuffle(&mut open);
            for (pending, data, fate) in open {
                self.end(&process, pending, &data, fate);
            }
        }
    }

    /// The process that is to be called: a new one if the last one was killed.
    fn process(&self) -> Option<Arc<Process>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.was_killed.load(Ordering::SeqCst) {
            // Reaps it.
            if let Err(error) = current.plugin.kill() {
                self.problem(format!("it cannot be killed: {error}"));
            }
            match start(&self.guest) {
                Ok(next) => *current = next,
                Err(error) => {
                    self.problem(format!("it cannot be started again: {error}"));
                    return None;
                }
            }
        }
        Some(Arc::clone(&current))
    }

    /// Kills it from outside, so that the host learns of the end as of any other.
    fn kill(&self, process: &Process) {
        // One that has a successor was killed, and its number may be that of another process.
        let _current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let had_ended = process.plugin.status().is_some();
        if !process.was_killed.swap(true, Ordering::SeqCst) && !had_ended {
            send(process.plugin.pid().as_raw(), Signal::SIGKILL);
        }
    }

    fn end(&self, process: &Process, pending: PendingCall, data: &[u8], fate: Fate) {
        let outcome = pending.wait_timeout(LOST);
        match outcome.map(Reply::into_bytes) {
            Ok(bytes) if bytes == data => self.count(End::Answered),
            Ok(bytes) => {
                let at = bytes.iter().zip(data).position(|(one, other)| one != other);
                self.count(End::Answered);
                self.problem(format!(
                    "a call with {} bytes brought {}, the first wrong one at {at:?}",
                    data.len(),
                    bytes.len()
                ));
            }
            Err(error) => self.failed(process, fate, &error),
        }
    }

    /// Counts a call that failed, and looks for the reason.
    fn failed(&self, process: &Process, fate: Fate, error: &CallError) {
        let end = match error {
            CallError::Closed { .. } => End::LostWithItsGuest,
            CallError::Cancelled { .. } => End::Cancelled,
            _ => End::TimedOut,
        };
        self.count(end);
        let is_explained = match (fate, error) {
            (_, CallError::Closed { .. }) => process.was_killed.load(Ordering::SeqCst),
            (Fate::Cancel, CallError::Cancelled { .. }) => true,
            // The guest knows the limit too, and its answer may come first.
            (Fate::Limit(_), error) => error.code() == Some(failure_code::DEADLINE),
            _ => false,
        };
        if !is_explained {
            self.problem(format!("a call with the fate {fate:?} failed: {error}"));
        }
    }

    /// Looks at what is left, and stops the last process.
    fn finish(&self) {
        let Some(process) = self.process() else {
            return;
        };
        match process.plugin.request("echo", "end").begin().and_then(|call| call.wait_timeout(LOST))
        {
            Ok(reply) if reply.as_bytes() == b"end" => {}
            other => self.problem(format!("the last call brought {other:?}")),
        }
        let stats = process.plugin.connection().stats();
        let Stats { open_calls, unknown_replies, skipped, unexpected, .. } = stats;
        if (open_calls, unknown_replies, skipped, unexpected) != (0, 0, 0, 0) {
            self.problem(format!("left over: {stats:?}"));
        }
        match process.plugin.stop() {
            Ok(stopped) if stopped.status.success() && stopped.left.is_empty() => {}
            other => self.problem(format!("its stop brought {other:?}")),
        }
    }

    fn count(&self, end: End) {
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner).entry(end).or_default() += 1;
    }

    fn problem(&self, problem: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(problem);
    }
}

fn begin(plugin: &Plugin, data: &[u8], fate: Fate) -> Result<PendingCall, CallError> {
    let request = plugin.request("echo", data);
    match fate {
        Fate::Limit(limit) => request.timeout(limit).begin(),
        _ => request.begin(),
    }
}

/// Data of a call that no other call has, of a random size.
fn data(rng: &mut Rng, call: u64) -> Vec<u8> {
    let weights: u32 = SIZES.iter().map(|(_, weight)| weight).sum();
    let mut at = rng.u32(..weights);
    let size = SIZES.iter().find(|(_, weight)| {
        let is_here = at < *weight;
        at = at.saturating_sub(*weight);
        is_here
    });
    let mut data = vec![0; rng.usize(..size.map_or(1, |(size, _)| *size))];
    rng.fill(&mut data);
    for (byte, own) in data.iter_mut().zip(call.to_le_bytes()) {
        *byte = own;
    }
    data
}
