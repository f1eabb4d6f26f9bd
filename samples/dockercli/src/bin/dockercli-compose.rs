//! `dockercli compose`: wraps a program that does not use pipeplug.
//!
//! The program is `docker-compose`, or the one that the variable `DOCKERCLI_COMPOSE` names, which
//! the host passes on. It writes directly to the host's standard output, which a plugin inherits.
//! The standard error of a plugin is for logs, which the host reads line by line. This plugin
//! therefore sends the standard error of compose to the host in requests, byte for byte. The
//! standard input is empty.

use std::env;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};

/// Interval of the checks for the end of compose and of the host.
const POLL: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    Guest::new()
        .metadata("Cmd", "compose")
        .metadata("Description", "Runs docker-compose")
        .metadata("Help", "dockercli compose [ARGUMENTS OF COMPOSE]")
        .handler(answer)
        .register()
        .wait()
}

fn answer(main: &Main, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "Run" => Ok(compose(main, &serde_json::from_slice::<Vec<String>>(request.buffer())?)?
            .to_string()
            .into()),
        _ => request.unknown(),
    }
}

/// Returns the exit code.
fn compose(main: &Main, args: &[String]) -> Result<i32, HandlerError> {
    let program = env::var_os("DOCKERCLI_COMPOSE").unwrap_or_else(|| "docker-compose".into());
    let mut child = Command::new(&program)
        .args(args)
        .env("DOCKER_HOST", main.call("GetDockerHost", "")?)
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", program.display()))?;
    let mut errors = child.stderr.take().expect("it is piped");
    let status = thread::scope(|scope| {
        scope.spawn(move || io::copy(&mut errors, &mut HostStderr(main)));
        wait(main, child)
    })?;
    // The exit code of a signal, as in a shell.
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

/// Waits for compose. If the host ends first, as after Ctrl-C, compose gets a SIGTERM: the terminal
/// signals only the host, since a plugin is a process group of its own.
fn wait(main: &Main, mut child: Child) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(child.id().cast_signed());
    while main.connection().close_reason().is_none() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
    // The child has not been waited for, so its process id cannot have been reused.
    kill(pid, Signal::SIGTERM)?;
    child.wait()
}

/// Writer to the standard error of the host.
struct HostStderr<'a>(&'a Main);

impl Write for HostStderr<'_> {
    /// Sends a request, not a one-way, so that the pieces stay in order and are printed on return.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.call_bytes("PrintError", bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
