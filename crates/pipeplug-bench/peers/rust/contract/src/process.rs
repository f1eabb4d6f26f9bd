//! The plugin's process: this executable again.

use std::any::Any;
use std::env;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::Mode;

/// A running plugin, which ends when this is dropped.
pub struct Plugin {
    pid: u32,
    process: Process,
}

enum Process {
    /// Killed and reaped.
    Ours(Child),
    /// Ended by what the peer has of it.
    Theirs(Option<Box<dyn Any>>),
}

impl Plugin {
    /// Takes a plugin that the peer has started in its own way, with what keeps it running.
    pub fn owned(pid: u32, kept: impl Any) -> Self {
        Self { pid, process: Process::Theirs(Some(Box::new(kept))) }
    }

    /// Starts it to be talked to over its stdin and stdout.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn over_pipes(mode: &Mode) -> Result<(Self, ChildStdin, ChildStdout)> {
        let mut child = start(&["plugin", &mode.0])?;
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        Ok((Self::ours(child), stdin, stdout))
    }

    /// Starts it to listen on a socket, and waits for it to [say that it does](ready).
    ///
    /// # Errors
    /// It cannot be started, or ends before it listens.
    ///
    /// # Blocking
    /// Until it listens.
    pub fn over_socket(mode: &Mode) -> Result<(Self, Socket)> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("pipeplug-peer-{}-{number}.sock", std::process::id());
        let socket = Socket(env::temp_dir().join(name));
        let mut child = start(&["plugin", &mode.0, &socket.to_string()])?;
        let stdout = child.stdout.take().expect("stdout is piped");
        let plugin = Self::ours(child);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("cannot read from the plugin")?;
        if line.is_empty() {
            bail!("the plugin ended before it listened");
        }
        Ok((plugin, socket))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    fn ours(child: Child) -> Self {
        Self { pid: child.id(), process: Process::Ours(child) }
    }
}

/// The time in which a peer ends its plugin.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Returns true unless the process has ended, reaped or not.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

fn start(args: &[&str]) -> Result<Child> {
    let exe = env::current_exe().context("cannot tell which executable this is")?;
    let mut command = Command::new(exe);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().context("cannot start the plugin")
}

impl Drop for Plugin {
    fn drop(&mut self) {
        match &mut self.process {
            Process::Ours(child) => {
                // Both fail only for a plugin that is gone and reaped.
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Theirs(kept) => {
                drop(kept.take());
                let from = Instant::now();
                while is_running(self.pid) && from.elapsed() < TIMEOUT {
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }
}

/// Where a plugin listens; its name is gone once this is dropped, which what is connected does not
/// mind.
pub struct Socket(PathBuf);

impl Socket {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl std::fmt::Display for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It is not there where the plugin did not come so far.
        let _ = fs::remove_file(&self.0);
    }
}

/// Tells the host that this plugin listens.
pub fn ready() {
    println!("ready");
}

/// Waits until the host has closed this plugin's stdin, which it does at the latest by ending.
///
/// # Errors
/// Stdin cannot be read.
///
/// # Blocking
/// All the while.
pub fn until_host_is_gone() -> Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink()).context("cannot read stdin")?;
    Ok(())
}
