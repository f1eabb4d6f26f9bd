//! Cycles with a guest in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pipeplug_host::{
    CallError, Connection, EventLoop, Grace, HandlerError, Plugin, PluginBuilder, Reply, Request,
    StoppedBy,
};
use pipeplug_tests::is_running;

use crate::answer::{self, Board};
use crate::guest::{VIOLATION, read_pids};
use crate::load::{LONG, Load, Tally};
use crate::plan::{Fault, Plan, Side, What};

/// Time limit for processes of a dead host to end.
const ORPHANED: Duration = Duration::from_secs(10);

/// This process is the host.
pub(crate) fn run(plan: &Plan, starts: usize, grandchild: bool, board: &Arc<Board>, tally: &Tally) {
    let events = match EventLoop::new() {
        Ok(events) => events,
        Err(error) => return board.violation(format!("there is no event loop: {error}")),
    };
    let builder = builder(plan, board).event_loop(events);
    for round in 0..starts {
        match builder.clone().arg(round.to_string()).start() {
            Ok(plugin) => {
                Round { plan, number: round as u64, plugin: &plugin, board, tally }.run(grandchild)
            }
            Err(error) => board.violation(format!("start {round} failed: {error}")),
        }
    }
}

fn builder(plan: &Plan, board: &Arc<Board>) -> PluginBuilder {
    let program = std::env::current_exe().expect("a program knows where it is");
    let (answers, lines) = (Arc::clone(board), Arc::clone(board));
    let request = move |_: &Plugin, request: &mut Request| answer(&answers, request);
    Plugin::builder(program)
        .args(["guest".to_owned(), plan.seed.to_string(), plan.cycle.to_string()])
        .format(plan.format)
        .options(plan.host.options(plan.format))
        .grace(Grace::each(LONG))
        .handshake_timeout(LONG)
        .handler(request)
        .on_line(move |_, line| match line.strip_prefix(VIOLATION) {
            Some(violation) => lines.violation(format!("in the guest: {violation}")),
            None if is_expected(line) => {}
            None => lines.violation(format!("the guest printed: {line}")),
        })
}

/// True for a line of a guest whose host is gone, or that works longer than its grace time.
pub(crate) fn is_expected(line: &str) -> bool {
    line.starts_with("chaos: the host is gone")
        || line.starts_with("chaos: stopped with handlers still at work")
}

fn answer(board: &Board, request: &mut Request) -> Result<Reply, HandlerError> {
    answer::answer(board, request).unwrap_or_else(|| request.unknown())
}

/// One life of the guest.
#[derive(Clone, Copy)]
struct Round<'a> {
    plan: &'a Plan,
    number: u64,
    plugin: &'a Plugin,
    board: &'a Board,
    tally: &'a Tally,
}

impl Round<'_> {
    fn run(&self, grandchild: bool) {
        let Self { plan, number: round, plugin, board, tally } = *self;
        let grandchild = if grandchild {
            self.text("grandchild").and_then(|pid| pid.parse().ok())
        } else {
            None
        };
        let notes = (tally.notes.load(Ordering::SeqCst), board.notes());
        let load =
            Load { connection: plugin.connection(), plan, side: Side::Host, round, board, tally };
        thread::scope(|scope| {
            scope.spawn(move || load.run());
            scope.spawn(|| self.text("work"));
            for fault in &plan.faults {
                self.fault(*fault);
            }
        });
        if !plan.breaks() {
            let sent = tally.notes.load(Ordering::SeqCst) - notes.0;
            self.settles("one-ways came to the guest", sent, || self.text("tally"));
            let noted = self.text("noted").and_then(|noted| noted.parse().ok()).unwrap_or(u64::MAX);
            let came = || Some((board.notes() - notes.1).to_string());
            self.settles("one-ways came to the host", noted, came);
            check_stats(plugin.connection(), tally, board);
        }
        self.end();
        if let Some(pid) = grandchild
            && !comes_true(|| !is_running(pid))
        {
            board.violation(format!("the guest's own child {pid} is still there"));
        }
    }

    /// Calls the guest. A missing answer is a broken rule unless the plan explains it.
    fn text(&self, command: &str) -> Option<String> {
        match self.plugin.request(command, "").begin().and_then(|call| call.wait_timeout(3 * LONG))
        {
            Ok(reply) => reply.into_text().ok(),
            Err(CallError::Closed { .. }) if self.plan.breaks() => None,
            Err(error) => {
                self.board.violation(format!("\"{command}\" failed: {error}"));
                None
            }
        }
    }

    fn settles(&self, what: &str, expected: u64, found: impl Fn() -> Option<String>) {
        let expected = expected.to_string();
        if !comes_true(|| found().as_ref() == Some(&expected)) {
            self.board.violation(format!("{:?} {what}, expected {expected}", found()));
        }
    }

    fn fault(&self, Fault { after, what }: Fault) {
        thread::sleep(after);
        let plugin = self.plugin;
        let stopped = match what {
            What::Shoot => return self.signal(Signal::SIGKILL),
            What::Pause(time) => {
                self.signal(Signal::SIGSTOP);
                thread::sleep(time);
                return self.signal(Signal::SIGCONT);
            }
            What::PauseAndShoot(time) => {
                self.signal(Signal::SIGSTOP);
                thread::sleep(time);
                return self.signal(Signal::SIGKILL);
            }
            What::Stop => plugin.stop(),
            What::StopAtOnce => plugin.stop_within(Grace::each(Duration::ZERO)),
            What::Kill => plugin.kill(),
            // Where the plugin is gone by then, it needs no more.
            What::GuestExits => return drop(plugin.notify("exit", "")),
            What::GuestAborts => return drop(plugin.notify("abort", "")),
            What::Close(_) => return plugin.connection().close(),
            What::End(_) => return plugin.connection().end("chaos ends it"),
            What::Terminate
            | What::DoomStarts(_)
            | What::Replace
            | What::Restart
            | What::StopAndStart(_) => {
                unreachable!("that is for a supervisor")
            }
            What::Cut(_)
            | What::CutAfter(..)
            | What::Delay(..)
            | What::Shorten(..)
            | What::Stall(..) => {
                unreachable!("a pipe between processes has no wire")
            }
        };
        if let Err(error) = stopped {
            self.board.violation(format!("{what:?} failed: {error}"));
        }
    }

    fn signal(&self, signal: Signal) {
        if self.plugin.status().is_none() {
            // It may end at this moment.
            let _ = kill(Pid::from_raw(self.plugin.pid().as_raw()), signal);
        }
    }

    fn end(&self) {
        let Self { plan, plugin, board, .. } = *self;
        match plugin.stop() {
            Err(error) => board.violation(format!("the stop failed: {error}")),
            Ok(_) if plan.breaks() => {}
            Ok(stopped) => {
                // A guest can be gone so soon that the credit written right behind `cmd.stop`
                // fails, and with it, as far as the sender is told, the stop itself: then it ended
                // by itself.
                if stopped.by > StoppedBy::Stop || !stopped.status.success() {
                    board.violation(format!(
                        "it {}, {}, expected it to stop when asked",
                        stopped.by, stopped.status
                    ));
                }
            }
        }
        if plugin.status().is_none() {
            board.violation("the guest has no status after its stop".to_owned());
        }
        match plugin.call("echo", "") {
            Err(CallError::Closed { .. }) => {}
            other => board.violation(format!("a call after the stop brought {other:?}")),
        }
        if plugin.connection().wait_closed(LONG).is_none() {
            board.violation(format!(
                "the connection is not closed: {:?}",
                plugin.connection().stats()
            ));
        }
    }
}

/// Checks the counters of a connection after all its calls have ended.
pub(crate) fn check_stats(connection: &Connection, tally: &Tally, board: &Board) {
    if !comes_true(|| connection.stats().open_streams == 0) {
        board.violation(format!("streams stay open: {:?}", connection.stats()));
    }
    let stats = connection.stats();
    let given_up = tally.given_up.load(Ordering::SeqCst);
    if stats.open_calls != 0
        || stats.unknown_replies != 0
        || stats.skipped != 0
        || stats.late_replies > given_up
    {
        board
            .violation(format!("with {given_up} calls given up and none open, there is {stats:?}"));
    }
}

/// Polls a condition. True if it is met within [`LONG`].
pub(crate) fn comes_true(is_so: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_micros(300));
    }
    true
}

/// A process that is the host of this cycle, until it is killed.
pub(crate) fn host_main(seed: u64, cycle: u64) {
    answer::quiet_planned_panics();
    let plan = Plan::of(seed, cycle);
    let (board, tally) = (Arc::new(Board::default()), Tally::default());
    let plugin = match builder(&plan, &board).arg("0").start() {
        Ok(plugin) => plugin,
        Err(error) => return eprintln!("{VIOLATION}the guest did not start: {error}"),
    };
    println!("{}\n", plugin.pid());
    let guest = plugin.request("work", "").begin();
    for round in 0.. {
        Load {
            connection: plugin.connection(),
            plan: &plan,
            side: Side::Host,
            round,
            board: &board,
            tally: &tally,
        }
        .run();
        for violation in board.take_violations() {
            eprintln!("{VIOLATION}{violation}");
        }
    }
    drop(guest);
}

/// The host is another process, which is killed at work.
pub(crate) fn host_dies(plan: &Plan, board: &Board) {
    let program = std::env::current_exe().expect("a program knows where it is");
    let host = Command::new(program)
        .args(["host".to_owned(), plan.seed.to_string(), plan.cycle.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut host = match host {
        Ok(host) => host,
        Err(error) => return board.violation(format!("the host did not start: {error}")),
    };
    let pids = host.stdout.take().map(read_pids);
    for Fault { after, .. } in &plan.faults {
        thread::sleep(*after);
    }
    if let Err(error) = host.kill().and_then(|()| host.wait().map(drop)) {
        board.violation(format!("the host could not be killed: {error}"));
    }
    for line in host
        .stderr
        .take()
        .into_iter()
        .flat_map(|stderr| BufReader::new(stderr).lines().map_while(Result::ok))
    {
        board.violation(format!("the host printed: {line}"));
    }
    match pids {
        Some(Ok(pids)) if !pids.is_empty() => {
            let killed = Instant::now();
            for pid in pids {
                if !comes_true(|| !is_running(pid)) || killed.elapsed() > ORPHANED {
                    board.violation(format!(
                        "the guest {pid} of a dead host is there after {:?}",
                        killed.elapsed()
                    ));
                }
            }
        }
        other => board.violation(format!("the host told no guest: {other:?}")),
    }
}
