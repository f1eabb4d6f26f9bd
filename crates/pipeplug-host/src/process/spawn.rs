//! Starting a guest.

use std::env;
use std::ffi::{CString, OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{self, Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::error::c_string;
use super::{Channel, Child, Launch, OnHostExit, SpawnError, SpawnErrorKind, Stdin, Stdout};
use crate::sandbox::{self, Extent, ImageKind, Prepared, Sandbox};
use crate::sys::{
    self, Executed, ForkExecError, Image, KillOnHostExit, OpenImage, WorkingDirectory,
};

/// Pauses in milliseconds before a busy file is tried again, 200 in all.
///
/// A child that another thread forks has for a moment, until its exec, a copy of every descriptor
/// of the host; one of them may be the plugin's file, which the host has just written and closed.
/// On a busy machine that moment is as long as others have the processor. A copy or a build that
/// another process is about to complete is waited for as well.
const BUSY_PAUSES: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 73];

/// A guest that runs, and the host's ends of its pipes.
///
/// All descriptors are CLOEXEC and O_NONBLOCK, and none has a number below 6.
#[derive(Debug)]
#[non_exhaustive]
pub struct Spawned {
    /// The process.
    pub child: Child,
    /// The write end of what the guest reads.
    pub to_guest: OwnedFd,
    /// The read end of what the guest writes.
    pub from_guest: OwnedFd,
    /// The read end of the guest's standard error.
    pub stderr: OwnedFd,
    /// The read end of the guest's standard output, with [`Stdout::Log`] only.
    pub stdout: Option<OwnedFd>,
}

/// Starts a guest.
///
/// Any number of threads may start guests at the same time; none gets a descriptor of another.
///
/// # Errors
/// See [`SpawnError`]; a file that cannot be executed is told here, not by an exit status.
///
/// # Blocking
/// Until the kernel has loaded the program, as long as that takes on the file system; a file that
/// is open for writing is tried again for 200 milliseconds.
pub fn spawn(launch: &Launch) -> Result<Spawned, SpawnError> {
    spawn_with(launch, launch.arguments())
}

/// Like [`spawn`], with these arguments from `argv[1]` on.
pub(crate) fn spawn_with(launch: &Launch, arguments: Vec<OsString>) -> Result<Spawned, SpawnError> {
    let program = absolute(&launch.program).map_err(|kind| kind.at(&launch.program))?;
    spawn_at(&program, launch, arguments).map_err(|kind| kind.at(&program))
}

fn spawn_at(
    program: &Path,
    launch: &Launch,
    arguments: Vec<OsString>,
) -> Result<Spawned, SpawnErrorKind> {
    let mut image = image(launch, program, arguments)?;
    image.open = checked(launch, program)?;
    let pipes = Pipes::new(launch.channel, launch.sandbox.as_ref())
        .map_err(|error| SpawnErrorKind::os("making its pipes", error))?;
    let mut confinement = Confinement::new(launch, program, &image, Extent::Whole)?;
    let mut pauses = BUSY_PAUSES.into_iter();
    let executed = loop {
        let failure = match confinement.fork_exec(&image, &pipes.guest) {
            Ok(executed) => break executed,
            Err(failure) => failure,
        };
        if let Some(reason) = confinement.refusal(&failure) {
            confinement.go_without(&reason)?;
            confinement = Confinement::new(launch, program, &image, Extent::WithoutNamespaces)?;
            continue;
        }
        let failure = confinement.diagnose(failure, launch.cwd.as_deref());
        match (failure, pauses.next()) {
            (SpawnErrorKind::Busy, Some(pause)) => thread::sleep(Duration::from_millis(pause)),
            (failure, _) => return Err(failure),
        }
    };
    // From here on the child alone has the other ends, so that its death is an end of file.
    drop(pipes.guest);
    let child = confinement
        .watch(executed, image.group)
        .map_err(|error| SpawnErrorKind::os("watching its process", error))?;
    tracing::debug!(pid = %child.pid(), program = ?program, "started a guest");
    Ok(Spawned {
        child,
        to_guest: pipes.to_guest,
        from_guest: pipes.from_guest,
        stderr: pipes.stderr,
        stdout: pipes.stdout,
    })
}

/// The confinement of a guest, and the mechanism that ends it with the host.
struct Confinement<'a> {
    plugin: sandbox::Plugin<'a>,
    sandbox: Option<&'a Sandbox>,
    prepared: Option<Prepared>,
    kill_on_host_exit: Option<KillOnHostExit>,
}

impl<'a> Confinement<'a> {
    fn new(
        launch: &'a Launch,
        program: &'a Path,
        image: &Image,
        extent: Extent,
    ) -> Result<Self, SpawnErrorKind> {
        let plugin = sandbox::Plugin {
            program,
            image: if image.open.is_some() { ImageKind::Memory } else { ImageKind::File },
            on_host_exit: launch.on_host_exit,
            terminal: launch.terminal(),
        };
        let sandbox = launch.sandbox.as_ref();
        let prepared = sandbox.map(|sandbox| sandbox.prepare(plugin, extent)).transpose()?;
        // The end of a pid namespace is the end of all that is in it.
        let kill_on_host_exit = match &prepared {
            Some(Prepared { host_alive: Some(_), .. }) => None,
            _ => kill_on_host_exit(launch.on_host_exit).map_err(|error| {
                SpawnErrorKind::os("making the sockets that end it with the host", error)
            })?,
        };
        Ok(Self { plugin, sandbox, prepared, kill_on_host_exit })
    }

    fn fork_exec(&self, image: &Image, slots: &[OwnedFd]) -> Result<Executed, ForkExecError> {
        let sandbox = self.prepared.as_ref().map(|prepared| &prepared.sandbox);
        sys::fork_exec(image, slots, self.kill_on_host_exit.as_ref(), sandbox)
    }

    /// The reason for which this system makes no namespaces, if that is what failed.
    fn refusal(&self, failure: &ForkExecError) -> Option<String> {
        self.prepared.as_ref()?.host_alive.as_ref()?;
        sandbox::refusal(failure)
    }

    fn go_without(&self, reason: &str) -> Result<(), SpawnErrorKind> {
        self.sandbox.map_or(Ok(()), |sandbox| sandbox.go_without(self.plugin, reason))
    }

    fn diagnose(&self, failure: ForkExecError, cwd: Option<&Path>) -> SpawnErrorKind {
        let at = self.prepared.as_ref().and_then(|prepared| prepared.sandbox.failed_at());
        SpawnErrorKind::diagnose(
            failure,
            self.plugin.program,
            cwd,
            at.as_deref(),
            self.prepared.is_some(),
        )
    }

    fn watch(self, executed: Executed, group: sys::Group) -> io::Result<Child> {
        let mut kill_on_host_exit = self.kill_on_host_exit;
        if let Some(kill_on_host_exit) = &mut kill_on_host_exit {
            kill_on_host_exit.is_tied();
        }
        let host_alive = self.prepared.and_then(|prepared| prepared.host_alive);
        Child::watch(executed, group, kill_on_host_exit, host_alive)
    }
}

/// The host's ends, and the guest's at the index of their number there.
struct Pipes {
    guest: Vec<OwnedFd>,
    to_guest: OwnedFd,
    from_guest: OwnedFd,
    stderr: OwnedFd,
    stdout: Option<OwnedFd>,
}

impl Pipes {
    fn new(channel: Channel, sandbox: Option<&Sandbox>) -> io::Result<Self> {
        let (is_confined, is_strict) = (sandbox.is_some(), sandbox.is_some_and(Sandbox::has_root));
        let (guest_in, to_guest) = sys::pipe()?;
        let (from_guest, guest_out) = sys::pipe()?;
        let (stderr, guest_stderr) = sys::pipe()?;
        let (guest, stdout) = match channel {
            Channel::Stdio => (vec![guest_in, guest_out, guest_stderr], None),
            Channel::Pipes { stdin, stdout } => {
                let guest_stdin = match stdin {
                    Stdin::Null => dev_null()?,
                    Stdin::Inherit => own(io::stdin())?,
                };
                let (host_stdout, guest_stdout) = match stdout {
                    // A terminal is more than a place to write to: it is read from, and has
                    // settings. A file can be truncated by its descriptor, and be made executable
                    // as its owner; and whatever it is, one who has it can have the host's own
                    // writes fail (O_NONBLOCK).
                    Stdout::Inherit if is_strict || is_confined && io::stdout().is_terminal() => {
                        let (reader, writer) = sys::pipe()?;
                        (Some(reader), writer)
                    }
                    Stdout::Inherit => (None, own(io::stdout())?),
                    Stdout::Null => (None, dev_null()?),
                    Stdout::Log => {
                        let (reader, writer) = sys::pipe()?;
                        (Some(reader), writer)
                    }
                };
                (vec![guest_stdin, guest_stdout, guest_stderr, guest_in, guest_out], host_stdout)
            }
        };
        for fd in [&to_guest, &from_guest, &stderr].into_iter().chain(&stdout) {
            sys::set_nonblocking(fd)?;
        }
        Ok(Self { guest, to_guest, from_guest, stderr, stdout })
    }
}

/// Ties the guest to this process, if `on_host_exit` asks for it and the system can do it.
fn kill_on_host_exit(on_host_exit: OnHostExit) -> io::Result<Option<KillOnHostExit>> {
    match on_host_exit {
        OnHostExit::Kill => KillOnHostExit::new(),
        OnHostExit::EndOfFile => Ok(None),
    }
}

/// A copy of a standard descriptor of the host; a guest without one would open its next file there.
fn own(standard: impl AsFd) -> io::Result<OwnedFd> {
    match standard.as_fd().try_clone_to_owned() {
        Ok(copy) => sys::lift(copy),
        Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => dev_null(),
        Err(error) => Err(error),
    }
}

fn dev_null() -> io::Result<OwnedFd> {
    sys::lift(OpenOptions::new().read(true).write(true).open("/dev/null")?.into())
}

/// The path from the root, while the host's working directory is still what the caller meant.
fn absolute(program: &Path) -> Result<PathBuf, SpawnErrorKind> {
    if program.as_os_str().is_empty() {
        return Err(SpawnErrorKind::NotFound { link_target: None });
    }
    path::absolute(program)
        .map_err(|error| SpawnErrorKind::os("finding the working directory", error))
}

/// A copy of the program that was checked, if a check was demanded.
#[cfg(feature = "verify")]
fn checked(launch: &Launch, program: &Path) -> Result<Option<OpenImage>, SpawnErrorKind> {
    super::sealed_copy::copy(launch, program)
}

#[cfg(not(feature = "verify"))]
fn checked(_: &Launch, _: &Path) -> Result<Option<OpenImage>, SpawnErrorKind> {
    Ok(None)
}

fn image(
    launch: &Launch,
    program: &Path,
    arguments: Vec<OsString>,
) -> Result<Image, SpawnErrorKind> {
    let string = |what: &str, value: OsString| c_string(|| what.to_owned(), value.into_vec());
    let cwd = |dir: PathBuf| string("its working directory", dir.into_os_string());
    let arg0 = launch.arg0.clone().unwrap_or_else(|| program.as_os_str().to_owned());
    let mut argv = vec![string("its argument 0", arg0)?];
    for (index, arg) in arguments.into_iter().enumerate() {
        argv.push(c_string(|| format!("its argument {}", index + 1), arg.into_vec())?);
    }
    let cwd = match &launch.cwd {
        Some(dir) => Some(WorkingDirectory::Demanded(cwd(dir.clone())?)),
        // A root of its own need not have the host's.
        None if launch.sandbox.is_some() => {
            env::current_dir().ok().map(cwd).transpose()?.map(WorkingDirectory::IfThere)
        }
        None => None,
    };
    Ok(Image {
        program: string("its path", program.as_os_str().to_owned())?,
        open: None,
        argv,
        env: environment(launch)?,
        cwd,
        group: launch.group(),
    })
}

/// Checks the names of the environment variables.
pub(crate) fn check_names(launch: &Launch) -> Result<(), SpawnErrorKind> {
    for name in launch.env.names() {
        let bytes = name.as_encoded_bytes();
        if bytes.is_empty() || bytes.contains(&b'=') {
            return Err(SpawnErrorKind::BadArgument {
                what: format!("the environment variable {name:?}"),
                reason: "a name is not empty and holds no `=`",
            });
        }
    }
    Ok(())
}

fn environment(launch: &Launch) -> Result<Vec<CString>, SpawnErrorKind> {
    check_names(launch)?;
    let mut variables = launch.env.resolve();
    // The host's directory for temporary files is not in a root of the plugin's own, which has
    // /tmp.
    let own = |name: &OsStr| launch.env.names().any(|known| known == name);
    if launch.sandbox.as_ref().is_some_and(Sandbox::has_root) && !own(OsStr::new("TMPDIR")) {
        variables.remove(OsStr::new("TMPDIR"));
    }
    variables
        .into_iter()
        .map(|(name, value)| {
            // With room for the NUL byte.
            let mut pair = Vec::with_capacity(name.len() + value.len() + 2);
            pair.extend_from_slice(name.as_bytes());
            pair.push(b'=');
            pair.extend_from_slice(value.as_bytes());
            c_string(|| format!("the environment variable {name:?}"), pair)
        })
        .collect()
}
