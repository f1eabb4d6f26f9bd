//! Plugins in containers.

mod command_line;
mod complaint;
mod diagnose;
mod engine;
mod engine_args;
mod limits;
#[cfg(feature = "pack")]
mod pack;
mod process;
mod run;

use std::path::PathBuf;

pub use engine::Engine;
#[cfg(feature = "pack")]
pub use pack::{PackError, pack};

use super::cleanup::Removal;
use super::{Launcher, Started, client};
use crate::process::{Launch, OnHostExit, SpawnError, SpawnErrorKind};
use limits::Limit;
use process::Contained;
use run::Run;

/// Runs a plugin in a container of its own, which Docker or Podman starts and removes; its standard
/// input and output are the pipes.
///
/// ```no_run
/// use pipeplug_host::Plugin;
/// use pipeplug_host::launcher::Container;
///
/// // The entry point of the image; `Plugin::builder("/bin/plugin")` starts another program in it.
/// let plugin = Plugin::preinstalled("spell").launcher(Container::docker("spell:2").memory(64 << 20)).start()?;
/// # Ok::<(), pipeplug_host::StartError>(())
/// ```
///
/// What it may do is as little as can be, unless a setting says otherwise: no network, a root file
/// system that it cannot write to, no capability and no way to get new privileges, the user
/// `nobody`, 512 MiB of memory, one CPU, 256 threads. Of the host's environment it gets nothing,
/// only the variables of [`PluginBuilder::env`](crate::PluginBuilder::env);
/// [`PluginBuilder::current_dir`](crate::PluginBuilder::current_dir) is a directory in the
/// container. What it says to the host does not go into the engine's logs.
///
/// The container is gone after the plugin has ended or was stopped, and so it is after a kill of
/// the plugin, of the engine's client, or of the host: a shell waits for that, which the host's end
/// tells by the end of a pipe (not with [`OnHostExit::EndOfFile`](crate::OnHostExit), where the
/// plugin sees the end of its input). Its process here, with the process id, is the engine's
/// client; signals reach the plugin.
#[derive(Debug, Clone)]
pub struct Container {
    engine: Engine,
    image: String,
    pull: Pull,
    network: String,
    root: Access,
    capabilities: Vec<String>,
    privileges: Privileges,
    user: String,
    memory: Limit<u64>,
    cpus: Limit<f64>,
    pids: Limit<u32>,
    init: Init,
    mounts: Vec<Mount>,
    entry_point: Option<PathBuf>,
    engine_args: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Privileges {
    Final,
    MayGrow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pull {
    Never,
    Missing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Init {
    OfEngine,
    None,
}

/// A file or directory of the host that is visible in the container.
#[derive(Debug, Clone)]
struct Mount {
    source: PathBuf,
    target: PathBuf,
    access: Access,
}

impl Container {
    /// The user and group `nobody`, by number, since the image need not have names.
    const NOBODY: &str = "65534:65534";

    /// By Docker, with the client `docker` in `PATH`.
    pub fn docker(image: impl Into<String>) -> Self {
        Self::new(Engine::Docker, image)
    }

    /// By Podman, with the client `podman` in `PATH`.
    pub fn podman(image: impl Into<String>) -> Self {
        Self::new(Engine::Podman, image)
    }

    /// By that engine.
    pub fn new(engine: Engine, image: impl Into<String>) -> Self {
        Self {
            engine,
            image: image.into(),
            pull: Pull::Never,
            network: "none".to_owned(),
            root: Access::ReadOnly,
            capabilities: Vec::new(),
            privileges: Privileges::Final,
            user: Self::NOBODY.to_owned(),
            memory: Limit::by_default(512 << 20),
            cpus: Limit::by_default(1.0),
            pids: Limit::by_default(256),
            init: Init::OfEngine,
            mounts: Vec::new(),
            entry_point: None,
            engine_args: Vec::new(),
        }
    }

    /// Downloads the image where it is not on this machine; the handshake timeout counts meanwhile.
    /// Default: a missing image is an error.
    #[must_use]
    pub fn pull_missing(mut self) -> Self {
        self.pull = Pull::Missing;
        self
    }

    /// The engine's network that it is in. Default: `none`, which has no other side.
    #[must_use]
    pub fn network(mut self, network: impl Into<String>) -> Self {
        self.network = network.into();
        self
    }

    /// Lets it write to its root file system, which goes with the container. Default: it cannot.
    #[must_use]
    pub fn writable_root(mut self) -> Self {
        self.root = Access::ReadWrite;
        self
    }

    /// Leaves it one more capability, such as `NET_BIND_SERVICE`. Default: all are dropped.
    #[must_use]
    pub fn capability(mut self, capability: impl Into<String>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// Lets programs that it starts have more privileges than itself: set-user-id files. Default:
    /// none gets any.
    #[must_use]
    pub fn new_privileges(mut self) -> Self {
        self.privileges = Privileges::MayGrow;
        self
    }

    /// Sets the user, as `NAME`, `UID` or `UID:GID` of the image. Default: `65534:65534`, `nobody`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The most memory it may have, in bytes, with no swap beside it; past it the kernel kills it.
    /// `None` is no limit. Default: 512 MiB.
    ///
    /// A start fails where the engine says that it ignores this limit, or one of
    /// [`cpus`](Self::cpus) or [`pids`](Self::pids) (rootless Podman with cgroups v1); where it
    /// ignores those by default, that is a warning in the log.
    #[must_use]
    pub fn memory(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.memory = Limit::by_host(bytes.into());
        self
    }

    /// Limits the CPU time, in CPUs: 0.01 up to the number of CPUs. `None` is no limit. Default: 1.
    #[must_use]
    pub fn cpus(mut self, cpus: impl Into<Option<f64>>) -> Self {
        self.cpus = Limit::by_host(cpus.into());
        self
    }

    /// Limits the number of processes and threads together. `None` is no limit. Default: 256.
    #[must_use]
    pub fn pids(mut self, pids: impl Into<Option<u32>>) -> Self {
        self.pids = Limit::by_host(pids.into());
        self
    }

    /// Makes the plugin the container's first process, which the kernel protects from signals that
    /// it does not handle. Default: a small init of the engine is the first process, which passes
    /// signals on and reaps orphans.
    #[must_use]
    pub fn without_init(mut self) -> Self {
        self.init = Init::None;
        self
    }

    /// Shows it a file or directory of the machine that the engine runs on, to read. Default: it
    /// sees nothing of it.
    #[must_use]
    pub fn mount(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mounted(source.into(), target.into(), Access::ReadOnly)
    }

    /// As [`mount`](Self::mount), to read and to write.
    #[must_use]
    pub fn mount_writable(self, source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        self.mounted(source.into(), target.into(), Access::ReadWrite)
    }

    fn mounted(mut self, source: PathBuf, target: PathBuf, access: Access) -> Self {
        self.mounts.push(Mount { source, target, access });
        self
    }

    /// A program of the image that is run with the plugin's path and arguments as its own, such as
    /// an interpreter. Default: the plugin's path itself, and where there is none the entry point
    /// that the image names.
    #[must_use]
    pub fn entry_point(mut self, path: impl Into<PathBuf>) -> Self {
        self.entry_point = Some(path.into());
        self
    }

    /// Adds an option of `docker run` or `podman run`, after all others:
    /// `--ulimit=nofile=1024:1024`, `--tmpfs=/tmp`. A word of its own is one more call. What would
    /// cut the plugin off (`--tty`, `--detach`, `--attach`), or the container from what removes it
    /// (`--name`, `--rm=false`), fails the start.
    #[must_use]
    pub fn engine_arg(mut self, arg: impl Into<String>) -> Self {
        self.engine_args.push(arg.into());
        self
    }

    fn run(&self, launch: &Launch) -> Result<Started, SpawnErrorKind> {
        engine_args::check(&self.engine_args)?;
        let name = client::unused_name();
        let mut client = client::launch(launch, self.engine.program().as_ref(), Vec::new())?;
        client.args = self.arguments(&name, launch, &mut client.env)?;
        if self.engine == Engine::Podman {
            // A kill within the start would leave processes that no removal knows of. The cleanup
            // ends this process too.
            client.on_host_exit = OnHostExit::EndOfFile;
        }
        let engine = client.program.clone();
        let removal = Removal {
            what: format!("the container {name}"),
            script: self.engine.removal(),
            program: engine.clone(),
            args: vec![name.clone().into()],
        };
        let (spawned, cleanup) = client::start_with_cleanup(launch, &client, self, removal)?;
        tracing::debug!(container = %name, image = ?self.image, "started a container's client");
        let run = Run {
            name,
            replaces_command: (self.entry_point.is_none() && launch.is_preinstalled)
                .then(|| client::command_line(launch).into_iter().next())
                .flatten()
                .map(|word| word.to_string_lossy().into_owned()),
            directory: launch.cwd.clone(),
        };
        Contained::started(spawned, engine, self.clone(), run, cleanup).map_err(|error| {
            let attempt = "starting a thread that waits for the engine's client";
            SpawnErrorKind::Os { attempt, error }
        })
    }
}

impl Launcher for Container {
    fn start(&self, launch: &Launch) -> Result<Started, SpawnError> {
        self.run(launch).map_err(|kind| kind.at(&launch.program))
    }

    fn describe(&self) -> Option<String> {
        Some(format!("in a container of {:?} ({})", self.image, self.engine.program()))
    }
}
