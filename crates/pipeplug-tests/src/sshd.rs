//! A real ssh server for one test.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::unistd::{Uid, User};
use tempfile::TempDir;

use crate::{children_of, eventually, missing, tool};

/// A real ssh server on a loopback port, with keys of its own, and what a client needs to log in as
/// this user. It ends with this value.
#[derive(Debug)]
pub struct Sshd {
    dir: TempDir,
    server: Child,
    port: u16,
}

impl Sshd {
    /// The name that the client's configuration has for it.
    pub const NAME: &str = "there";

    /// Starts a server. `None`, with a message, if sshd is missing.
    ///
    /// # Panics
    /// If it does not start, or is missing and `CI=true`.
    #[must_use]
    pub fn start() -> Option<Self> {
        Self::start_for(None)
    }

    /// Starts one to which this user has that login shell, and an empty [home
    /// directory](Self::home): it has an `/etc/passwd` of its own, in its mount namespace. `None`
    /// where that cannot be, which is told.
    ///
    /// # Panics
    /// As for [`start`](Self::start).
    #[must_use]
    pub fn start_with_shell(shell: &Path) -> Option<Self> {
        tool("unshare", "util-linux")?;
        Self::start_for(Some(shell))
    }

    fn start_for(shell: Option<&Path>) -> Option<Self> {
        let sshd = tool("sshd", "openssh-server")?;
        tool("ssh", "openssh-client")?;
        let dir = tempfile::tempdir().expect("a directory for the server");
        // Root's servers want it; others do without.
        let _ = fs::create_dir("/run/sshd");
        for key in ["host", "id", "other"] {
            make_key(&dir.path().join(key), "");
        }
        let file = |name: &str| dir.path().join(name).to_str().expect("a name in UTF-8").to_owned();
        fs::copy(file("id.pub"), file("authorized_keys")).expect("the key is there");
        let settings = format!(
            "ListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes \
             no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            file("host"),
            file("authorized_keys"),
        );
        fs::write(file("sshd_config"), settings).expect("the directory is ours");
        if let Some(shell) = shell {
            fs::create_dir(file("home")).expect("the directory is ours");
            fs::write(file("passwd"), passwd(shell, &file("home"))).expect("the directory is ours");
            let tried =
                with_passwd(&file("passwd"), Path::new("true")).status().expect("unshare is there");
            if !tried.success() {
                missing("a mount namespace cannot be had, for an /etc/passwd of the server's own");
                return None;
            }
        }
        // Another process may be given the free port first.
        for _ in 0..10 {
            let port = free_port();
            let log = fs::File::create(file("log")).expect("the directory is ours");
            let mut command = match shell {
                None => Command::new(&sshd),
                Some(_) => with_passwd(&file("passwd"), &sshd),
            };
            let mut server = command
                .args(["-D", "-e", "-f", &file("sshd_config"), "-p", &port.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("it is there");
            let mut ended = false;
            eventually("it listens, or has ended", || {
                ended = server.try_wait().expect("it is our child").is_some();
                ended || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
            });
            if !ended {
                let this = Self { dir, server, port };
                this.configure("id", "host");
                return Some(this);
            }
        }
        panic!("it does not start: {}", fs::read_to_string(file("log")).unwrap_or_default());
    }

    /// The user's home directory to a server [with a shell](Self::start_with_shell).
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// The options of an `ssh` that logs in to [`NAME`](Self::NAME).
    #[must_use]
    pub fn options(&self) -> [String; 2] {
        ["-F".to_owned(), self.file("config")]
    }

    /// Has the client use that one of the keys `id`, `other` and of [`make_key`](Self::make_key),
    /// and take that one of `host` and `other`, or none, for the server's own.
    ///
    /// # Panics
    /// If there is no such key.
    pub fn configure(&self, key: &str, host_key: &str) {
        let known = match host_key {
            "" => String::new(),
            name => {
                let key = fs::read_to_string(self.file(&format!("{name}.pub")))
                    .expect("there is that key");
                format!("[127.0.0.1]:{} {key}", self.port)
            }
        };
        fs::write(self.file("known_hosts"), known).expect("the directory is ours");
        let config = format!(
            "Host {}\n  HostName 127.0.0.1\n  Port {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  \
             IdentityAgent none\n  UserKnownHostsFile {}\n  GlobalKnownHostsFile none\n  \
             StrictHostKeyChecking ask\n",
            Self::NAME,
            self.port,
            self.file(key),
            self.file("known_hosts"),
        );
        fs::write(self.file("config"), config).expect("the directory is ours");
    }

    /// Has the client's configuration say more: settings of ssh_config(5), a line each, which win
    /// over those that there are.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn add_settings(&self, lines: &str) {
        let rest = fs::read_to_string(self.file("config")).expect("it was written");
        let config = format!("Host {}\n  {lines}\n{rest}", Self::NAME);
        fs::write(self.file("config"), config).expect("the directory is ours");
    }

    /// Makes a key that the server accepts, with a passphrase.
    pub fn make_key(&self, name: &str, passphrase: &str) {
        make_key(&self.dir.path().join(name), passphrase);
        fs::copy(self.file(&format!("{name}.pub")), self.file("authorized_keys"))
            .expect("the key is there");
    }

    /// The processes that serve connections.
    #[must_use]
    pub fn sessions(&self) -> Vec<i32> {
        children_of(self.server.id()).into_iter().collect()
    }

    fn file(&self, name: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        path.to_str().expect("a name in UTF-8").to_owned()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for session in self.sessions() {
            // It may have ended.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(session),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// The system's users, of which this one has that shell and home directory.
fn passwd(shell: &Path, home: &str) -> String {
    let user = User::from_uid(Uid::current())
        .expect("users can be looked up")
        .expect("this user has a name");
    let own = format!("{}:x:{}:{}::{home}:{}\n", user.name, user.uid, user.gid, shell.display());
    let all = fs::read_to_string("/etc/passwd").expect("every system has one");
    let others = all.lines().filter(|line| line.split(':').next() != Some(&user.name));
    others.fold(own, |all, line| all + line + "\n")
}

/// A program that has that `/etc/passwd`, in the same process.
fn with_passwd(passwd: &str, program: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !Uid::current().is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    let script = "mount --bind \"$1\" /etc/passwd && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh", passwd]).arg(program);
    command
}

fn make_key(path: &Path, passphrase: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", passphrase, "-f"])
        .arg(path)
        .status();
    assert!(made.expect("it comes with ssh").success());
}

/// Finds a TCP port that was free a moment ago.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
