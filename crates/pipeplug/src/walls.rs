//! The options of what a plugin may do.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use pipeplug_host::sandbox::Support;
use pipeplug_host::{Builder, LockFile, Sandbox, Sha256};

use crate::units::{parse_bytes, parse_duration};

/// What a plugin may do, and what it has to be.
#[derive(Debug, Args)]
#[command(next_help_heading = "What it may do")]
pub(crate) struct WallArgs {
    /// Let a variable of our environment through; by default go PATH, HOME, LANG, LC_*, TERM, TMPDIR, TZ, RUST_LOG, RUST_BACKTRACE
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    env_pass: Vec<OsString>,

    /// Let all of our environment through, with every secret in it
    #[arg(long, conflicts_with_all = ["docker", "podman", "ssh", "kubectl", "attach"])]
    env_inherit: bool,

    /// What the plugin may ask us for and tell us; other commands are refused unseen [default: all]
    #[arg(long, value_name = "CMD")]
    allow: Vec<String>,

    /// Start the plugin only if its file has this SHA-256 sum, and execute what was summed
    #[arg(long, value_name = "HEX")]
    sha256: Option<Sha256>,

    /// Start the plugin only if its file has the sum that this lock file has for it; see `pipeplug pin`
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = LockFile::NAME)]
    locked: Option<PathBuf>,

    /// Take away what the plugin does not need: basic: privileges and odd system calls; strict: files and network too
    #[arg(long, value_name = "LEVEL")]
    sandbox: Option<Level>,

    /// Let it read and execute a file, or all below a directory
    #[arg(long, value_name = "PATH", requires = "sandbox")]
    sandbox_read: Vec<PathBuf>,

    /// Let it read and write a file, or all below a directory
    #[arg(long, value_name = "PATH", requires = "sandbox")]
    sandbox_write: Vec<PathBuf>,

    /// Let it connect to a TCP port
    #[arg(long, value_name = "PORT", requires = "sandbox")]
    sandbox_connect: Vec<u16>,

    /// Let it listen on a TCP port
    #[arg(long, value_name = "PORT", requires = "sandbox")]
    sandbox_bind: Vec<u16>,

    /// The address space of each of its processes [strict: 4G]
    #[arg(long, value_name = "BYTES", requires = "sandbox", value_parser = parse_bytes)]
    sandbox_memory: Option<u64>,

    /// The CPU time of each of its processes
    #[arg(long, value_name = "TIME", requires = "sandbox", value_parser = parse_duration)]
    sandbox_cpu: Option<Duration>,

    /// How many files it may have open [strict: 256]
    #[arg(long, value_name = "N", requires = "sandbox")]
    sandbox_open_files: Option<u64>,

    /// How many processes and threads its user may have in all; not for root
    #[arg(long, value_name = "N", requires = "sandbox")]
    sandbox_processes: Option<u64>,

    /// The largest file that it may write [strict: 1G]
    #[arg(long, value_name = "BYTES", requires = "sandbox", value_parser = parse_bytes)]
    sandbox_file_size: Option<u64>,

    /// Go without what this kernel lacks, in place of not starting the plugin
    #[arg(long, requires = "sandbox")]
    sandbox_best_effort: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Basic,
    Strict,
}

impl WallArgs {
    /// The same builder with all of these settings.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        if self.env_inherit {
            builder = builder.env_inherit();
        }
        for name in &self.env_pass {
            builder = builder.env_pass(name);
        }
        if !self.allow.is_empty() {
            builder = builder.allow(&self.allow);
        }
        if let Some(sum) = self.sha256 {
            builder = builder.sha256(sum);
        }
        if let Some(path) = &self.locked {
            builder = builder.lock_file(path);
        }
        match self.sandbox() {
            Some(sandbox) => builder.sandbox(sandbox),
            None => builder,
        }
    }

    /// What people are told of the walls, if there are any.
    pub(crate) fn note(&self) -> Option<String> {
        let level = self.sandbox?.to_possible_value()?;
        Some(format!("its sandbox is {}; this system has {}", level.get_name(), Support::of_system()))
    }

    fn sandbox(&self) -> Option<Sandbox> {
        let mut sandbox = match self.sandbox? {
            Level::Basic => Sandbox::basic(),
            Level::Strict => Sandbox::strict(),
        };
        sandbox = self.sandbox_read.iter().fold(sandbox, Sandbox::read);
        sandbox = self.sandbox_write.iter().fold(sandbox, Sandbox::write);
        sandbox = self.sandbox_connect.iter().copied().fold(sandbox, Sandbox::connect);
        sandbox = self.sandbox_bind.iter().copied().fold(sandbox, Sandbox::bind);
        sandbox = self.sandbox_memory.into_iter().fold(sandbox, Sandbox::memory);
        sandbox = self.sandbox_cpu.into_iter().fold(sandbox, Sandbox::cpu);
        sandbox = self.sandbox_open_files.into_iter().fold(sandbox, Sandbox::open_files);
        sandbox = self.sandbox_processes.into_iter().fold(sandbox, Sandbox::processes);
        sandbox = self.sandbox_file_size.into_iter().fold(sandbox, Sandbox::file_size);
        Some(if self.sandbox_best_effort { sandbox.best_effort() } else { sandbox })
    }
}

fn parse_name(name: &str) -> Result<OsString, String> {
    if name.contains('=') {
        return Err("a name holds no `=`; --env NAME=VALUE sets a variable".to_owned());
    }
    Ok(name.into())
}
