//! Cycles with a supervisor or a pool, whose processes are killed, replaced and stopped.
//!
//! A guest logs each call before it answers, so that the handled calls of dead processes are known.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};
use pipeplug_host::{
    Backoff, Breaker, CallError, EventLoop, Grace, Plugin, PluginBuilder, Pool,
    SupervisedCallError, SupervisedNotifyError, Supervisor, Unavailable, UnavailableKind,
};

use crate::answer::{Board, payload};
use crate::load::{LONG, Tally, block_on};
use crate::plan::{Fault, Plan, What, rng};
use crate::processes::is_expected;
use crate::streams;

/// Number of attempts that survives every kill of a cycle.
const ATTEMPTS: u32 = 1000;

/// Bytes of the token that each call begins with.
const TOKEN: usize = 8;

/// The commands, each of which writes its token down.
const ONCE: &str = "once";
const AGAIN: &str = "again";
const NOTE: &str = "note";
const PARTS: &str = "parts";
const GATHER: &str = "gather";

/// A plugin that takes `delay` microseconds to start, and writes down in `log` what it handles.
pub(crate) fn guest_main(delay: u64, log: &str) -> ExitCode {
    thread::sleep(Duration::from_micros(delay));
    let log = match File::options().append(true).open(log) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("chaos: {log:?} cannot be opened: {error}");
            return ExitCode::FAILURE;
        }
    };
    let request = move |_: &Main, request: &mut Request| -> Result<Reply, HandlerError> {
        let token = *request.buffer().first_chunk::<TOKEN>().ok_or("there is no token")?;
        // Whole, also where another process writes: O_APPEND, open(2).
        let write_down = || (&log).write_all(&token);
        match request.command() {
            GATHER => {
                // Only if all of them came.
                if streams::gather(request) {
                    write_down()?;
                }
                Ok(Reply::empty())
            }
            PARTS => {
                write_down()?;
                streams::send_back(request)
            }
            _ => {
                write_down()?;
                thread::sleep(Duration::from_micros(u64::from_le_bytes(token) / 256 % 300));
                Ok(request.take_buffer().into())
            }
        }
    };
    Guest::new().name("chaos").metadata("Cmd", "chaos").handler(request).register().wait()
}

/// Supervisor or pool, which have the same calls.
enum Kept {
    One(Supervisor),
    Pool(Pool),
}

macro_rules! of_either {
    ($kept:expr, $it:ident => $does:expr) => {
        match $kept {
            Kept::One($it) => $does,
            Kept::Pool($it) => $does,
        }
    };
}

/// The outcome of each call.
#[derive(Debug, Default)]
struct Sent {
    /// By token: the command, and whether it was answered, or sent.
    calls: Vec<(u64, &'static str, bool)>,
}

struct Cycle<'a> {
    plan: &'a Plan,
    kept: Kept,
    builder: PluginBuilder,
    /// Number of the next starts that are killed.
    doomed: Arc<AtomicU64>,
    board: &'a Board,
    tally: &'a Tally,
}

/// This process is the host.
pub(crate) fn run(plan: &Plan, size: usize, board: &Arc<Board>, tally: &Tally) {
    let events = match EventLoop::new() {
        Ok(events) => events,
        Err(error) => return board.violation(format!("there is no event loop: {error}")),
    };
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => return board.violation(format!("there is no directory: {error}")),
    };
    let log = dir.path().join("log");
    if let Err(error) = File::create(&log) {
        return board.violation(format!("there is no log: {error}"));
    }
    let doomed = Arc::new(AtomicU64::new(0));
    let builder = builder(plan, &log, board, &doomed).event_loop(events);
    let mut random = rng(plan.seed, plan.cycle, 1);
    let supervisor = Supervisor::builder(builder.clone())
        .backoff(Backoff::new(Duration::from_micros(500), Duration::from_millis(2)))
        .breaker(Breaker::never())
        .ready_timeout(LONG)
        .drain_timeout(LONG)
        .shutdown_wait(Duration::from_millis(random.u64(..3)))
        .retries(ATTEMPTS);
    let supervisor = match random.u32(..3) {
        0 => supervisor.idle_timeout(Duration::from_micros(random.u64(200..3000))),
        _ => supervisor,
    };
    let kept = match NonZeroUsize::new(size) {
        None => supervisor.build().map(Kept::One),
        Some(size) => Pool::new(supervisor, size).map(Kept::Pool),
    };
    match kept {
        Ok(kept) => Cycle { plan, kept, builder, doomed, board, tally }.run(&log),
        Err(error) => board.violation(format!("there is no supervisor: {error}")),
    }
}

fn builder(plan: &Plan, log: &Path, board: &Arc<Board>, doomed: &Arc<AtomicU64>) -> PluginBuilder {
    let program = std::env::current_exe().expect("a program knows where it is");
    let (lines, doomed) = (Arc::clone(board), Arc::clone(doomed));
    let delay = rng(plan.seed, plan.cycle, 2).u64(..2000);
    Plugin::builder(program)
        .args(["supervised".into(), delay.to_string().into(), log.as_os_str().to_owned()])
        .format(plan.format)
        .options(plan.host.options(plan.format))
        .grace(Grace::each(LONG))
        .handshake_timeout(LONG)
        .on_spawn(move |plugin| {
            let is_doomed =
                doomed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if is_doomed.is_ok() {
                shoot(plugin.pid().as_raw(), Signal::SIGKILL);
            }
        })
        .on_line(move |_, line| {
            if !is_expected(line) {
                lines.violation(format!("the guest printed: {line}"));
            }
        })
}

fn shoot(pid: i32, signal: Signal) {
    // It may end at this moment.
    let _ = kill(Pid::from_raw(pid), signal);
}

impl Cycle<'_> {
    fn run(&self, log: &Path) {
        let sent: Vec<Sent> = thread::scope(|scope| {
            let caller = |number| scope.spawn(move || self.calls(number));
            let callers: Vec<_> = (0..self.plan.host.callers as u64).map(caller).collect();
            for fault in &self.plan.faults {
                self.fault(*fault);
            }
            callers
                .into_iter()
                .map(|caller| caller.join().expect("a caller does not panic"))
                .collect()
        });
        // A stop that came behind the last start would leave it.
        if let Err(error) = of_either!(&self.kept, it => it.stop().map(drop)) {
            self.board.violation(format!("the last stop failed: {error}"));
        }
        let members = match &self.kept {
            Kept::One(supervisor) => std::slice::from_ref(supervisor),
            Kept::Pool(pool) => pool.members(),
        };
        if let Some(pid) = members.iter().find_map(Supervisor::pid) {
            self.board.violation(format!("behind a stop there is a process, {pid}"));
        }
        match fs::read(log) {
            Ok(bytes) => self.compare(&bytes, &sent),
            Err(error) => self.board.violation(format!("the log cannot be read: {error}")),
        }
    }

    fn calls(&self, caller: u64) -> Sent {
        let mut random = rng(self.plan.seed, self.plan.cycle, 16 + caller);
        let mut sent = Sent::default();
        for number in 1..=2 * self.plan.host.steps as u64 {
            let token = (16 + caller) << 32 | number << 8;
            let body = payload(token, random.usize(..300));
            let (command, went_well) = self.call(&mut random, &body);
            sent.calls.push((token, command, went_well));
            if random.u32(..6) == 0 {
                thread::sleep(Duration::from_micros(random.u64(..1500)));
            }
        }
        sent
    }

    fn call(&self, random: &mut Rng, body: &[u8]) -> (&'static str, bool) {
        let way = random.u32(..8);
        if way == 0 {
            let sent = of_either!(&self.kept, it => it.notify(NOTE, body));
            if sent.is_ok() {
                self.tally.notes.fetch_add(1, Ordering::SeqCst);
            }
            return (NOTE, self.judge_note(sent));
        }
        if way == 7 {
            return (GATHER, self.one_way_stream(random, body));
        }
        self.tally.begun.fetch_add(1, Ordering::SeqCst);
        let (command, reply) = match way {
            1 | 2 => (
                AGAIN,
                of_either!(&self.kept, it => it.request(AGAIN, body).idempotent().wait().map(Reply::into_bytes)),
            ),
            3 => (ONCE, of_either!(&self.kept, it => it.call_bytes(ONCE, body))),
            4 => {
                let call = of_either!(&self.kept, it => it.request(ONCE, body).begin());
                (ONCE, call.and_then(|call| Ok(block_on(call)?.into_bytes())))
            }
            6 => (PARTS, self.stream(random, body)),
            _ => {
                let call =
                    of_either!(&self.kept, it => it.request(ONCE, body).timeout(LONG).begin());
                (ONCE, call.and_then(|call| Ok(call.wait()?.into_bytes())))
            }
        };
        self.tally.ended.fetch_add(1, Ordering::SeqCst);
        (command, self.judge(command, body, reply))
    }

    /// A stream in both directions, taken to its end. The outcome of one that ended well is `body`.
    fn stream(&self, random: &mut Rng, body: &[u8]) -> Result<Vec<u8>, SupervisedCallError> {
        let shape = streams::Shape::random(self.plan, random);
        let call = of_either!(&self.kept, it => it.request(PARTS, body).timeout(LONG).stream())?;
        shape.exchange(call, body, self.board)?;
        Ok(body.to_vec())
    }

    /// A stream behind a one-way. Returns true if all of it was accepted.
    fn one_way_stream(&self, random: &mut Rng, body: &[u8]) -> bool {
        let shape = streams::Shape::random(self.plan, random);
        let body = shape.described(body);
        match of_either!(&self.kept, it => it.notify_stream(GATHER, &body)) {
            Err(error) => self.judge_note(Err(error)),
            Ok(sender) => match shape.send(sender, &body) {
                Ok(()) => {
                    self.tally.notes.fetch_add(1, Ordering::SeqCst);
                    true
                }
                Err(error) => {
                    if !self.plan.breaks() {
                        self.board.violation(format!(
                            "a supervised one-way stream ended with \"{error}\""
                        ));
                    }
                    false
                }
            },
        }
    }

    /// True if the reply is right. An error is a broken rule unless the plan allows it.
    fn judge(
        &self,
        command: &str,
        body: &[u8],
        reply: Result<Vec<u8>, SupervisedCallError>,
    ) -> bool {
        let told = match reply {
            Ok(bytes) if bytes == body => return true,
            Ok(bytes) => format!("{} bytes in place of {}", bytes.len(), body.len()),
            Err(error) => {
                let is_due = match &error {
                    SupervisedCallError::Unavailable(error) => {
                        self.may_be_missing(error, command == AGAIN)
                    }
                    // One that may be made again survives each kill.
                    SupervisedCallError::Call(CallError::Closed { .. }) => {
                        self.plan.breaks() && command != AGAIN || self.plan.stops()
                    }
                    SupervisedCallError::Call(_) => false,
                    _ => false,
                };
                if is_due {
                    return false;
                }
                format!("\"{error}\"")
            }
        };
        self.board.violation(format!("a supervised call \"{command}\" brought {told}"));
        false
    }

    fn judge_note(&self, sent: Result<(), SupervisedNotifyError>) -> bool {
        let error = match sent {
            Ok(()) => return true,
            Err(error) => error,
        };
        let is_due = match &error {
            SupervisedNotifyError::Unavailable(error) => self.may_be_missing(error, false),
            _ => self.plan.breaks(),
        };
        if !is_due {
            self.board.violation(format!("a supervised one-way brought \"{error}\""));
        }
        false
    }

    fn may_be_missing(&self, error: &Unavailable, is_idempotent: bool) -> bool {
        match error.kind() {
            UnavailableKind::Stopped => self.plan.stops(),
            UnavailableKind::Start(_) => {
                self.plan.breaks() && (!is_idempotent || self.plan.stops())
            }
            _ => false,
        }
    }

    fn fault(&self, Fault { after, what }: Fault) {
        thread::sleep(after);
        let pid = match &self.kept {
            Kept::One(supervisor) => supervisor.pid(),
            Kept::Pool(pool) => pool.members().iter().rev().find_map(Supervisor::pid),
        };
        let pid = pid.map(|pid| pid.as_raw());
        match what {
            What::Shoot => pid.into_iter().for_each(|pid| shoot(pid, Signal::SIGKILL)),
            What::Terminate => pid.into_iter().for_each(|pid| shoot(pid, Signal::SIGTERM)),
            What::Pause(time) => {
                pid.into_iter().for_each(|pid| shoot(pid, Signal::SIGSTOP));
                thread::sleep(time);
                pid.into_iter().for_each(|pid| shoot(pid, Signal::SIGCONT));
            }
            What::DoomStarts(count) => _ = self.doomed.fetch_add(count, Ordering::SeqCst),
            What::Replace => self.replaced(match &self.kept {
                Kept::One(supervisor) => supervisor.replace(self.builder.clone()),
                Kept::Pool(pool) => pool.replace(&self.builder),
            }),
            What::Restart => self.replaced(of_either!(&self.kept, it => it.restart())),
            What::StopAndStart(time) => {
                if let Err(error) = of_either!(&self.kept, it => it.stop().map(drop)) {
                    self.board.violation(format!("a stop failed: {error}"));
                }
                thread::sleep(time);
                match of_either!(&self.kept, it => it.start()) {
                    Ok(()) => {}
                    Err(error) if matches!(error.kind(), UnavailableKind::Start(_)) => {}
                    Err(error) => self.board.violation(format!("a start brought \"{error}\"")),
                }
            }
            _ => unreachable!("that is no fault of a supervised plugin"),
        }
    }

    fn replaced(&self, replaced: Result<(), Unavailable>) {
        match replaced {
            Ok(()) => {}
            Err(error)
                if matches!(error.kind(), UnavailableKind::Start(_)) && self.plan.breaks() => {}
            Err(error) => self.board.violation(format!("a replacement brought \"{error}\"")),
        }
    }

    /// Checks that no call was lost, and that only idempotent calls were handled twice.
    fn compare(&self, log: &[u8], sent: &[Sent]) {
        let mut handled: HashMap<u64, u32> = HashMap::new();
        for token in log.as_chunks::<TOKEN>().0 {
            *handled.entry(u64::from_le_bytes(*token)).or_default() += 1;
        }
        for (token, command, went_well) in sent.iter().flat_map(|sent| &sent.calls) {
            let times = handled.remove(token).unwrap_or(0);
            let fits = match *command {
                AGAIN => times > 0 || !went_well,
                // What was sent may be lost with its process.
                NOTE | GATHER => times == 1 || times == 0 && (self.plan.breaks() || !went_well),
                _ => times == 1 || times == 0 && !went_well,
            };
            if !fits {
                let ended = if *went_well { "went well" } else { "failed" };
                self.board.violation(format!(
                    "\"{command}\" {token:x} {ended}, and was handled {times} times"
                ));
            }
        }
        if !handled.is_empty() {
            self.board.violation(format!("handled, and never sent: {handled:x?}"));
        }
    }
}
