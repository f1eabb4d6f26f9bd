//! Build of a project.

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::project::Project;
use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Time between two looks at the build.
const INTERVAL: Duration = Duration::from_millis(20);

/// End of a build.
pub(super) enum Built {
    /// Executables that cargo tells, if it was asked.
    Done(Vec<PathBuf>),
    /// It has said why.
    Failed(ExitStatus),
    /// It was ended, since a shutdown has begun.
    Ended,
}

/// Command of the build, for people.
pub(super) fn shown(project: &Project) -> String {
    let words = project.build.iter().map(|word| word.to_string_lossy());
    let words = words.filter(|word| !word.starts_with("--message-format="));
    Escaped(&words.collect::<Vec<_>>().join(" ")).to_string()
}

/// Builds the project. What the build writes goes to stderr, in colours if that is a terminal.
///
/// # Errors
/// The build does not start.
///
/// # Blocking
/// Until the build has ended, or `is_over`.
pub(super) fn build(project: &Project, is_over: impl Fn() -> bool) -> Result<Built, CommandError> {
    let [program, args @ ..] = project.build.as_slice() else { return Ok(Built::Done(Vec::new())) };
    let failed = |error: std::io::Error| {
        let program = program.to_string_lossy();
        let message = format!("cannot start the build: {}: {error}", Escaped(&program));
        CommandError::message(ExitReason::Failed, message)
    };
    #[expect(clippy::disallowed_methods, reason = "a build is no plugin: nothing talks to it")]
    let mut command = Command::new(program);
    let stdout = if project.asks_cargo() {
        Stdio::piped()
    } else {
        // Only replies go to stdout.
        std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?.into()
    };
    // A group of its own, so that it can be ended with all that it has started.
    command.args(args).current_dir(&project.dir).process_group(0);
    let mut child = command.stdin(Stdio::null()).stdout(stdout).spawn().map_err(failed)?;
    let told = child.stdout.take().map(|stdout| {
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.filter_map(|line| executable(&line)).collect::<Vec<_>>()
        })
    });
    let status = loop {
        if is_over() {
            end(&mut child);
            return Ok(Built::Ended);
        }
        match child.try_wait().map_err(failed)? {
            Some(status) => break status,
            None => thread::sleep(INTERVAL),
        }
    };
    if !status.success() {
        return Ok(Built::Failed(status));
    }
    // The thread does not panic.
    let built = told.and_then(|thread| thread.join().ok()).unwrap_or_default();
    Ok(Built::Done(built))
}

/// Executable that cargo tells in a line of JSON.
fn executable(line: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let kinds = message["target"]["kind"].as_array()?;
    kinds
        .iter()
        .any(|kind| kind == "bin")
        .then(|| message["executable"].as_str())?
        .map(PathBuf::from)
}

fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    // It may have ended just now, and is reaped in any case.
    let _ = group.map(|group| killpg(group, Signal::SIGTERM));
    for _ in 0..50 {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(INTERVAL);
    }
    let _ = group.map(|group| killpg(group, Signal::SIGKILL));
    let _ = child.wait();
}
