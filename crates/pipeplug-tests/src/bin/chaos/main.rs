//! `cargo xtask chaos`: cycles of work in which something goes wrong, each followed by a look at
//! what is left.
//!
//! A cycle follows from the seed and its number (`plan.rs`). Both sides work at once: calls that
//! echo, fail, panic, nest, are given up or time out, one-ways in floods, buffers of megabytes
//! (`load.rs`, `answer.rs`). Meanwhile processes are killed, stopped and paused (`processes.rs`),
//! those of supervisors and pools also replaced (`supervised.rs`), or the wires between two
//! connections cut and stalled (`wires.rs`).
#![forbid(unsafe_code)]

mod answer;
mod guest;
mod load;
mod plan;
mod processes;
mod streams;
mod supervised;
mod wires;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use pipeplug_host::process::{Launch, spawn};
use pipeplug_testkit::Watchdog;
use pipeplug_tests::{HostFootprint, memory_in_use, threads};

use crate::answer::Board;
use crate::load::Tally;
use crate::plan::{Plan, Stage};

/// A cycle that takes longer hangs.
const HUNG: Duration = Duration::from_secs(120);

/// Memory is compared with that after so many cycles: by then the allocator has what it keeps.
const SETTLED: u64 = 50;

/// Allowed growth of the memory in use, in bytes.
const GROWTH: usize = 8 << 20;

/// Settings that make the allocator return freed memory to the system, so that only memory in use
/// is compared (mallopt(3)).
const ALLOCATOR: [(&str, &str); 2] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "131072")];

/// Run host and guest while processes and connections break, and check that nothing is lost or left
/// over.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos", after_help = EXAMPLES)]
struct Cli {
    /// Number of cycles
    #[arg(long, value_name = "N", default_value_t = 300)]
    cycles: u64,
    /// Seed of all random choices [default: a new one each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Number of the first cycle
    #[arg(long, value_name = "N", default_value_t = 0)]
    first: u64,
    /// Print the plan of each cycle before the cycle
    #[arg(long)]
    plans: bool,
}

const EXAMPLES: &str = "\
After each cycle: every call ended once and with the right bytes, and no child, zombie, descriptor or thread is left.
Exits 1 at the first cycle in which that is not so, after saying what was expected and how to have it again.

Examples:
  cargo xtask chaos --cycles 10000
  cargo xtask chaos --seed 42 --first 17 --cycles 1   one cycle again";

fn main() -> ExitCode {
    // The numbers of a guest's descriptors come first.
    let args: Vec<_> = std::env::args().skip(1).collect();
    let numbers =
        |args: &[String]| args.iter().map(|arg| arg.parse().ok()).collect::<Option<Vec<u64>>>();
    if let Some(at) = args.iter().position(|arg| arg == "supervised")
        && let Some((delay, log)) =
            args.get(at + 1).and_then(|delay| delay.parse().ok()).zip(args.get(at + 2))
    {
        return supervised::guest_main(delay, log);
    }
    match args.iter().position(|arg| arg == "guest" || arg == "host") {
        Some(at) => match (args[at].as_str(), numbers(&args[at + 1..]).as_deref()) {
            ("guest", Some(&[seed, cycle, round])) => guest::main(seed, cycle, round),
            ("host", Some(&[seed, cycle])) => {
                processes::host_main(seed, cycle);
                ExitCode::FAILURE
            }
            (role, _) => {
                eprintln!("chaos: {role} is what this program starts by itself");
                ExitCode::from(2)
            }
        },
        None => {
            let cli = Cli::parse();
            if ALLOCATOR.iter().all(|(name, _)| std::env::var_os(name).is_some()) {
                return run(&cli);
            }
            // The allocator reads its settings when a program starts.
            let again = std::env::current_exe()
                .map(|program| Command::new(program).args(args).envs(ALLOCATOR).exec());
            eprintln!("chaos: this program cannot start itself: {again:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> ExitCode {
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("chaos: seed {seed}, {} cycles from {} on", cli.cycles, cli.first);
    answer::quiet_planned_panics();
    // The first start makes the process for kill-on-host-exit, which stays.
    if let Err(error) = spawn(&Launch::new("/bin/true")) {
        eprintln!("chaos: {error}");
        return ExitCode::FAILURE;
    }
    let (begun, total) = (Instant::now(), Tally::default());
    let mut settled = None;
    let mut slowest = (Duration::ZERO, 0);
    for count in 1..=cli.cycles {
        let plan = Plan::of(seed, cli.first + count - 1);
        if cli.plans {
            println!("{plan:#?}");
        }
        let started = Instant::now();
        let ended = cycle(&plan, &total);
        slowest = slowest.max((started.elapsed(), plan.cycle));
        if let Err(what) = ended {
            eprintln!("chaos: cycle {} of seed {seed} failed:\n{what}", plan.cycle);
            eprintln!("its plan: {plan:#?}");
            eprintln!("again: cargo xtask chaos --seed {seed} --first {} --cycles 1", plan.cycle);
            return ExitCode::FAILURE;
        }
        if count == SETTLED {
            settled = Some(memory());
        }
        if count % 500 == 0 && count < cli.cycles {
            println!(
                "chaos: {count} cycles in {:.1} s, {}",
                begun.elapsed().as_secs_f64(),
                mib(memory())
            );
        }
    }
    let [ended, given_up, notes] =
        [&total.ended, &total.given_up, &total.notes].map(|count| count.load(Ordering::SeqCst));
    println!(
        "chaos: {} cycles in {:.1} s (the slowest, {}, took {:.1}): {ended} calls of this process \
         ended once, {given_up} of them given up; {notes} one-ways sent",
        cli.cycles,
        begun.elapsed().as_secs_f64(),
        slowest.1,
        slowest.0.as_secs_f64()
    );
    let Some(settled) = settled else { return ExitCode::SUCCESS };
    let now = memory();
    println!("chaos: memory: {} after {SETTLED} cycles, {} at the end", mib(settled), mib(now));
    if now > settled + GROWTH {
        eprintln!("chaos: it has grown by more than {}: seed {seed}", mib(GROWTH));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs one, on a thread of its own, and looks at what is left of it.
fn cycle(plan: &Plan, total: &Tally) -> Result<(), String> {
    let before = (HostFootprint::now(), threads(""));
    let board = Arc::new(Board::default());
    let watched = plan.clone();
    let watchdog = Watchdog::with(HUNG, move || {
        eprintln!(
            "chaos: cycle {} of seed {} hangs\nits plan: {watched:#?}",
            watched.cycle, watched.seed
        );
    });
    let ran = thread::scope(|scope| {
        let cycle = || match plan.stage {
            Stage::Processes { starts, grandchild } => {
                processes::run(plan, starts, grandchild, &board, total)
            }
            Stage::HostDies => processes::host_dies(plan, &board),
            Stage::Supervised { pool } => supervised::run(plan, pool, &board, total),
            Stage::Wires => wires::run(plan, &board, total),
        };
        scope.spawn(cycle).join()
    });
    drop(watchdog);
    let mut broken = board.take_violations();
    if ran.is_err() {
        broken.push("a thread of it panicked".to_owned());
    }
    if let Err(left) = before.0.wait_restored() {
        broken.push(left);
    }
    if !processes::comes_true(|| threads("") == before.1) {
        broken.push(format!("{} threads are left, before there were {}", threads(""), before.1));
    }
    if broken.is_empty() { Ok(()) } else { Err(broken.join("\n")) }
}

fn memory() -> usize {
    memory_in_use(std::process::id())
}

fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
