//! The guest's process.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::{FcntlArg, fcntl};
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};

use crate::answer::{self, Board};
use crate::load::{Load, Tally};
use crate::plan::{Plan, Side};

/// Prefix of a line on standard error that reports a broken rule.
pub(crate) const VIOLATION: &str = "chaos: violation: ";

/// Work of the guest in this cycle.
struct Work {
    plan: Plan,
    /// Which of the cycle's starts this is.
    round: u64,
    board: Board,
    tally: Tally,
    /// Killed by the host, together with this process.
    grandchild: Mutex<Option<Child>>,
}

/// A plugin that works by the plan of this cycle.
pub(crate) fn main(seed: u64, cycle: u64, round: u64) -> ExitCode {
    answer::quiet_planned_panics();
    let plan = Plan::of(seed, cycle);
    if plan.small_pipes
        && let Err(error) = shrink_pipes()
    {
        eprintln!("{VIOLATION}the pipes could not be made small: {error}");
    }
    let options = plan.guest.options(plan.format);
    let (board, tally) = (Board::default(), Tally::default());
    let work = Arc::new(Work { plan, round, board, tally, grandchild: Mutex::default() });
    let handler = move |main: &Main, request: &mut Request| answer(&work, main, request);
    Guest::new()
        .name("chaos")
        .metadata("Cmd", "chaos")
        .options(options)
        .handler(handler)
        .register()
        .wait()
}

fn answer(work: &Arc<Work>, main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    let answered = answer::answer(&work.board, request);
    let result = match answered {
        Some(result) => result,
        None => match request.command() {
            "work" => {
                let (work, main, responder) = (Arc::clone(work), main.clone(), request.responder());
                // Not on this thread, which may be the only one that is to run handlers.
                thread::spawn(move || {
                    let Work { plan, round, board, tally, .. } = &*work;
                    Load {
                        connection: main.connection(),
                        plan,
                        side: Side::Guest,
                        round: *round,
                        board,
                        tally,
                    }
                    .run();
                    work.tell();
                    if let Some(responder) = responder {
                        responder.answer(());
                    }
                });
                Ok(Reply::empty())
            }
            "noted" => Ok(work.tally.notes.load(Ordering::SeqCst).to_string().into()),
            "grandchild" => grandchild(work),
            "exit" => std::process::exit(3),
            "abort" => std::process::abort(),
            _ => request.unknown(),
        },
    };
    work.tell();
    result
}

impl Work {
    fn tell(&self) {
        for violation in self.board.take_violations() {
            eprintln!("{VIOLATION}{violation}");
        }
    }
}

fn grandchild(work: &Work) -> Result<Reply, HandlerError> {
    // It holds none of the pipes: they are close-on-exec.
    let child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn()?;
    let pid = child.id().to_string();
    *work.grandchild.lock().map_err(|_| "the grandchild's lock is poisoned")? = Some(child);
    Ok(pid.into())
}

/// Makes the pipes to and from the host as small as they can be.
fn shrink_pipes() -> io::Result<()> {
    for (fd, writes) in [(3, false), (4, true)] {
        let pipe =
            File::options().read(!writes).write(writes).open(format!("/proc/self/fd/{fd}"))?;
        fcntl(pipe.as_fd(), FcntlArg::F_SETPIPE_SZ(4096))?;
    }
    Ok(())
}

/// The process ids that a host of a process of its own prints, one a line.
pub(crate) fn read_pids(mut from: impl Read) -> io::Result<Vec<i32>> {
    let mut text = String::new();
    let mut byte = [0];
    // Up to an empty line: the host does not end by itself.
    while !text.ends_with("\n\n") && from.read(&mut byte)? == 1 {
        text.push(char::from(byte[0]));
    }
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.parse().map_err(io::Error::other))
        .collect()
}
