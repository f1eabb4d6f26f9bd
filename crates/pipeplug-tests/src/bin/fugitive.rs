//! A plugin for tests that tries to outlive its host, or its stop: `fugitive <how>`. It answers
//! `echo`, and ends by itself only where `how` is `leaves-…`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::unistd::{Pid, getpgid, getppid, setpgid, setsid};
use pipeplug_guest::{Guest, Main, OnEnd, Reply, Request};
use pipeplug_tests::{Relation, fork_forkers, fork_relative};

/// Lifetime of processes that a failed test leaves behind.
const LIFETIME: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let how = std::env::args().next_back().unwrap_or_default();
    match how.as_str() {
        // Processes that fork all the time, in its own group.
        "forks" => fork_forkers(4, LIFETIME),
        // To the group of a child of its own.
        "joins-its-child" => {
            let child = sleeper().process_group(0).spawn();
            let child = child.map(|child| Pid::from_raw(child.id().cast_signed()));
            join(child.expect("there is a sleep"));
        }
        "joins-its-host" => join(getpgid(Some(getppid())).expect("the host is there")),
        // Children of its host, some of which end before it.
        "leaves-siblings" => {
            for lifetime in [Duration::ZERO, Duration::ZERO, LIFETIME, LIFETIME] {
                fork_relative(Relation::Sibling, || thread::sleep(lifetime));
            }
        }
        // A process in a session of its own.
        "leaves-a-daemon" | "keeps-a-daemon" => fork_relative(Relation::Child, || {
            // It is no leader of a group.
            setsid().expect("a new process may have a session");
            panic!("{}", sleeper().exec());
        }),
        "leaves-a-child" => fork_relative(Relation::Child, || thread::sleep(LIFETIME)),
        "leaves-nothing" => {}
        _ => {
            eprintln!("fugitive: unknown way to flee: {how:?}");
            return ExitCode::from(3);
        }
    }
    let guest = Guest::new().name("fugitive").metadata("Cmd", "fugitive").handler(request);
    if how.starts_with("leaves-") {
        return guest.register().wait();
    }
    let _main = guest.on_end(OnEnd::Stay).register();
    thread::sleep(LIFETIME);
    ExitCode::SUCCESS
}

fn request(_main: &Main, request: &mut Request) -> Result<Reply, pipeplug_guest::HandlerError> {
    match request.command() {
        "echo" => Ok(request.take_buffer().into()),
        _ => request.unknown(),
    }
}

fn join(group: Pid) {
    setpgid(Pid::from_raw(0), group).expect("it is a group of the same session");
}

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg(LIFETIME.as_secs().to_string());
    command
}
