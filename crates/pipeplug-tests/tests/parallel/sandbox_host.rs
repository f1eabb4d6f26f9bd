//! Hosts that run a plugin in a sandbox, as a user of their own or without namespaces.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::{env, fs};

use nix::unistd::{Uid, geteuid};
use tempfile::TempDir;

use crate::{BURGLAR, SANDBOX_HOST};

/// The user and the group that nothing belongs to.
const NOBODY: u32 = 65534;

/// User of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The user of the tests, which is root in CI.
    Own,
    /// A user without rights; needs tests that run as root.
    Nobody,
    /// The user of the tests, whom the kernel refuses namespaces.
    WithoutNamespaces,
}

impl Kind {
    /// Those that can be tested here; without root there is no other user.
    pub(crate) fn all() -> Vec<Self> {
        if geteuid().is_root() {
            return vec![Self::Own, Self::Nobody, Self::WithoutNamespaces];
        }
        assert!(
            env::var_os("CI").is_none(),
            "the tests of sandboxes need root, to be another user"
        );
        eprintln!("skipped: a host of another user, which needs root");
        vec![Self::Own, Self::WithoutNamespaces]
    }

    /// The user that it runs as.
    pub(crate) fn user(self) -> Uid {
        match self {
            Self::Own | Self::WithoutNamespaces => geteuid(),
            Self::Nobody => Uid::from_raw(NOBODY),
        }
    }
}

/// A host that runs the burglar.
pub(crate) struct SandboxHost {
    process: Child,
    answers: BufReader<ChildStderr>,
    pid: i32,
    _programs: Programs,
}

impl SandboxHost {
    /// Starts a host with these options before the level.
    pub(crate) fn start(kind: Kind, level: &str, options: &[&str]) -> Self {
        Self::start_with(kind, level, options, Stdio::null())
    }

    /// The same, with a standard output.
    pub(crate) fn start_with(kind: Kind, level: &str, options: &[&str], stdout: Stdio) -> Self {
        let programs = Programs::for_all();
        let mut command = Command::new(&programs.host);
        match kind {
            Kind::Own => {}
            Kind::Nobody => _ = command.uid(NOBODY).gid(NOBODY),
            Kind::WithoutNamespaces => _ = command.arg("--without-namespaces"),
        }
        // Where a strict sandbox cannot be whole, what there is of it is tested.
        if kind == Kind::WithoutNamespaces {
            command.arg("--best-effort");
        }
        command.args(options).arg(level).arg(&programs.burglar);
        command.current_dir("/").stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let answers = BufReader::new(process.stderr.take().unwrap());
        let mut host = Self { process, answers, pid: 0, _programs: programs };
        host.pid = loop {
            let line = host.line();
            if let Some(pid) = line.strip_prefix("started ") {
                break pid.parse().unwrap();
            }
            assert!(!line.is_empty(), "the host did not start its plugin");
        };
        host
    }

    /// Output of a host without work, such as one that does not start its plugin.
    pub(crate) fn outcome(level: &str, options: &[&str]) -> String {
        let output = Command::new(SANDBOX_HOST)
            .args(options)
            .args([level, BURGLAR])
            .stdin(Stdio::null())
            .output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    }

    /// Has the plugin do something, and gives how far it got: "done", or what stopped it.
    pub(crate) fn tries(&mut self, command: &str, data: impl ToString) -> String {
        let answer = self.says(command, data);
        if answer.starts_with("done") { "done".to_owned() } else { answer }
    }

    /// Has the plugin do something, and gives all that it says.
    pub(crate) fn says(&mut self, command: &str, data: impl ToString) -> String {
        let input = self.process.stdin.as_mut().unwrap();
        writeln!(input, "{command}\t{}", data.to_string()).unwrap();
        self.line()
    }

    /// The number of the host.
    pub(crate) fn pid(&self) -> i32 {
        self.process.id().try_into().unwrap()
    }

    /// The number of the plugin.
    pub(crate) fn plugin(&self) -> i32 {
        self.pid
    }

    /// Ends the host's input, so that it stops its plugin, and waits for it.
    pub(crate) fn stop(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }

    /// Kills the host alone, at once.
    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for SandboxHost {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The host and the plugin, where every user can execute them.
struct Programs {
    host: PathBuf,
    burglar: PathBuf,
    _dir: Option<TempDir>,
}

impl Programs {
    fn for_all() -> Self {
        let everybody = |path: &Path| {
            path.ancestors()
                .skip(1)
                .all(|dir| fs::metadata(dir).is_ok_and(|dir| dir.permissions().mode() & 0o1 != 0))
        };
        let (host, burglar) = (Path::new(SANDBOX_HOST), Path::new(BURGLAR));
        if everybody(host) && everybody(burglar) {
            return Self { host: host.into(), burglar: burglar.into(), _dir: None };
        }
        let dir = open_dir();
        let copied = |path: &Path| {
            let copy = dir.path().join(path.file_name().unwrap());
            fs::copy(path, &copy).unwrap();
            copy
        };
        Self { host: copied(host), burglar: copied(burglar), _dir: Some(dir) }
    }
}

/// A directory that every user can list.
pub(crate) fn open_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// A pseudo terminal: the side of the user, and the side of programs.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let pair = nix::pty::openpty(None, None).unwrap();
    (pair.master, pair.slave)
}
