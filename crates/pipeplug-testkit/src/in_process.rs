//! A plugin on a thread of the test, in place of a process.

use std::ffi::OsString;
use std::io::{self, PipeReader, PipeWriter, Write as _, pipe};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeplug_guest::{Guest, Handler, OnEnd, RegisterError, Start};
use pipeplug_host::WaitStatus;
use pipeplug_host::launcher::{Diagnosis, Launcher, Process, Started};
use pipeplug_host::process::{Delivery, Launch, Pid, Signal, SpawnError};
use pipeplug_net::Clock;

/// Registers a plugin with these arguments and this clock, and waits for its end.
type Run = Arc<dyn Fn(Vec<OsString>, Clock) -> Result<ExitCode, RegisterError> + Send + Sync>;

/// Launcher that runs a plugin on a thread of this process, so that the call-backs of a host can be
/// tested with a real [`Plugin`](pipeplug_host::Plugin) and without a process.
///
/// The path, environment and working directory of the builder are not used; its arguments are the
/// plugin's. The plugin cannot be killed: it ends after `cmd.stop`, or when its host closes the
/// connection, and a host that would send it a signal lets go of it. Its process id is that of the
/// test.
///
/// ```
/// use pipeplug_guest::{Guest, Main, Request};
/// use pipeplug_host::{HandlerError, Plugin, Reply};
/// use pipeplug_testkit::InProcess;
///
/// // The call-back of a host, which the test is about.
/// fn answer(plugin: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
///     match request.command() {
///         "name" => Ok(plugin.name().into()),
///         _ => request.unknown(),
///     }
/// }
///
/// // Each request of the test has the plugin call the host.
/// let asks_back = || {
///     Guest::new().metadata("Cmd", "asks back").handler(|host: &Main, request: &mut Request| {
///         Ok(host.call_bytes(request.command(), request.buffer())?.into())
///     })
/// };
/// let plugin = Plugin::builder("tested").launcher(InProcess::new(asks_back)).handler(answer).start()?;
/// assert_eq!(plugin.call("name", "")?, "tested");
/// plugin.stop()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct InProcess {
    run: Run,
    clock: Clock,
}

impl InProcess {
    /// Makes the launcher. `plugin` makes the plugin, once for each start.
    pub fn new<S: Start, H: Handler>(
        plugin: impl Fn() -> Guest<S, H> + Send + Sync + 'static,
    ) -> Self {
        let run = move |args, clock| {
            let guest = plugin().args(args).clock(clock).on_end(OnEnd::Stay);
            Ok(guest.try_register()?.wait())
        };
        Self { run: Arc::new(run), clock: Clock::system() }
    }

    /// Sets the clock of the plugin: see [`ManualClock`](crate::ManualClock). Its host's is set with
    /// [`PluginBuilder::clock`](pipeplug_host::PluginBuilder::clock). Default: the system's.
    #[must_use]
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    fn launch(&self, launch: &Launch) -> io::Result<Started> {
        let ((guest_in, host_out), (host_in, guest_out)) = (pipe()?, pipe()?);
        let (ended, tells_end) = pipe()?;
        let end = Mutex::new(End { status: WaitStatus::Unknown, error: None });
        let process = Arc::new(Shared { tells_end, end });
        let (run, shared, own) = (Arc::clone(&self.run), Arc::clone(&process), launch.args.clone());
        let clock = self.clock.clone();
        thread::Builder::new().name("plugin".into()).spawn(move || {
            let numbers = [guest_in.into_raw_fd(), guest_out.into_raw_fd()];
            let args = numbers.map(|number| number.to_string().into()).into_iter().chain(own);
            let (status, error) = match run(args.collect(), clock) {
                Ok(code) => (i32::from(code != ExitCode::SUCCESS), None),
                Err(error) => (1, Some(error.to_string())),
            };
            shared.end(End { status: WaitStatus::Exited(status), error });
        })?;
        let pid = i32::try_from(std::process::id()).ok().and_then(Pid::new);
        let pid = pid.ok_or_else(|| io::Error::other("this process has no number"))?;
        Ok(Started::new(Thread { pid, ended, shared: process }, host_out.into(), host_in.into()))
    }
}

impl Launcher for InProcess {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        self.launch(launch).map_err(|error| {
            SpawnError::launcher(launch, self.describe(), error.to_string(), false)
        })
    }

    fn describe(&self) -> Option<String> {
        Some("on a thread of this process".into())
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}

/// A plugin's thread, as the host sees it.
#[derive(Debug)]
struct Thread {
    pid: Pid,
    /// Readable once the plugin has ended, or was let go of.
    ended: PipeReader,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tells_end: PipeWriter,
    end: Mutex<End>,
}

/// End of a plugin.
#[derive(Debug)]
struct End {
    status: WaitStatus,
    /// The reason why it did not register. A process writes it to its standard error.
    error: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        *self.lock() = end;
        // It fails once the host has forgotten the plugin.
        let _ = (&self.tells_end).write(&[0]);
    }
}

impl Process for Thread {
    fn pid(&self) -> Pid {
        self.pid
    }

    fn exit_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    fn peek(&self) -> io::Result<Option<WaitStatus>> {
        let mut fds = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        let is_over = poll(&mut fds, PollTimeout::ZERO)? > 0;
        Ok(is_over.then(|| self.shared.lock().status))
    }

    fn reap(&self) -> io::Result<Option<WaitStatus>> {
        self.peek()
    }

    fn signal(&self, _signal: Signal) -> io::Result<Delivery> {
        if self.peek()?.is_some() {
            return Ok(Delivery::Gone);
        }
        self.shared.end(End { status: WaitStatus::Unknown, error: None });
        Ok(Delivery::NotOurs)
    }

    fn diagnose(&self, _status: WaitStatus, _stderr: &[String]) -> Option<Diagnosis> {
        let problem = self.shared.lock().error.clone()?;
        Some(Diagnosis::passing(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeplug_guest::Main;
    use pipeplug_host::Plugin;

    #[test]
    fn a_start_call_back_that_fails_fails_the_start_with_its_error() {
        for has_metadata in [true, false] {
            let plugin = InProcess::new(move || {
                let guest = Guest::new().start(|_: &Main| Err("the database is locked".into()));
                if has_metadata { guest.metadata("Cmd", "x") } else { guest }
            });
            let error = Plugin::builder("tested").launcher(plugin).start().unwrap_err();
            assert!(error.to_string().contains("the database is locked"), "{error}");
            assert!(!error.is_permanent());
        }
    }
}
