//! `dockercli compose`: wraps a program that knows nothing of pipeplug.
//!
//! That is `docker-compose`, or what the variable `DOCKERCLI_COMPOSE` names, which the host lets
//! through. It writes straight to the host's standard output, which a plugin inherits. A plugin's
//! own standard error is for logs, which the host takes line by line; so that of compose goes byte
//! for byte through the host. There is nothing on its standard input.

use std::env;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pipeplug_guest::{Guest, HandlerError, Main, Reply, Request};

/// How long the end of compose, or of the host, may go unnoticed.
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

/// Gives the exit code.
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
    // As a shell counts them.
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1))
}

/// Waits for compose. Where the host goes first, as after Ctrl-C, compose is asked to end too: the
/// terminal tells the host alone, since a plugin is a process group of its own.
fn wait(main: &Main, mut child: Child) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(child.id().cast_signed());
    while main.connection().close_reason().is_none() {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
    // It has not been waited for, so the id is still its own.
    kill(pid, Signal::SIGTERM)?;
    child.wait()
}

/// The host's standard error.
struct HostStderr<'a>(&'a Main);

impl Write for HostStderr<'_> {
    /// A request and no one-way, so that the pieces stay in order and are printed when this
    /// returns.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.call_bytes("PrintError", bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
