//! A cluster of one node, by the daemons of Slurm and of its authentication.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Running, eventually};

/// A cluster, which goes with this.
pub(super) struct Cluster {
    dir: TempDir,
    /// In the order in which they are ended.
    _daemons: [Running; 3],
}

impl Cluster {
    /// Starts it, and waits until its node takes jobs.
    pub(super) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (hostname, user) = (word("hostname", "-s"), word("id", "-un"));
        fs::create_dir(at("spool")).unwrap();
        fs::create_dir(at("state")).unwrap();
        // Below a directory that others may look into, which munged demands.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(at("key"), (0..1024).map(|_| fastrand::u8(..)).collect::<Vec<_>>()).unwrap();
        fs::set_permissions(at("key"), fs::Permissions::from_mode(0o400)).unwrap();
        let (controller, node) = (free_port(), free_port());
        let config = format!(
            "ClusterName=test\nSlurmctldHost={hostname}(127.0.0.1)\nSlurmUser={user}\nSlurmdUser={user}\n\
             AuthType=auth/munge\nAuthInfo=socket={dir}/munge\nCredType=cred/munge\n\
             SlurmctldPort={controller}\nSlurmdPort={node}\nStateSaveLocation={dir}/state\nSlurmdSpoolDir={dir}/spool\n\
             SlurmctldPidFile={dir}/slurmctld.pid\nSlurmdPidFile={dir}/slurmd.pid\nProctrackType=proctrack/linuxproc\n\
             TaskPlugin=task/none\nMpiDefault=none\nReturnToService=2\n\
             NodeName={hostname} NodeAddr=127.0.0.1 CPUs=1\nPartitionName=main Nodes=ALL \
             Default=YES State=UP\n",
            dir = dir.path().display()
        );
        fs::write(at("slurm.conf"), config).unwrap();
        let munge = Running::start(
            quiet("munged", dir.path())
                .args(["--foreground", "--force", "--num-threads=1"])
                .args(option("--key-file", &at("key")))
                .args(option("--socket", &at("munge")))
                .args(option("--pid-file", &at("munge.pid")))
                .args(option("--seed-file", &at("seed")))
                .args(option("--log-file", &at("munge.log"))),
        );
        eventually("munged listens", || at("munge").exists().then_some(()));
        let controller = Running::start(quiet("slurmctld", dir.path()).arg("-D"));
        let node = Running::start(quiet("slurmd", dir.path()).args(["-D", "-N", &hostname]));
        let this = Self { dir, _daemons: [node, controller, munge] };
        eventually("the node is idle", || {
            let mut sinfo = Command::new("sinfo");
            sinfo
                .args(["--noheader", "--format=%T"])
                .env("SLURM_CONF", this.config())
                .stdin(Stdio::null());
            (sinfo.output().unwrap().stdout == b"idle\n").then_some(())
        });
        this
    }

    pub(super) fn config(&self) -> PathBuf {
        self.dir.path().join("slurm.conf")
    }
}

fn quiet(daemon: &str, dir: &Path) -> Command {
    let mut command = Command::new(Path::new("/usr/sbin").join(daemon));
    command.env("SLURM_CONF", dir.join("slurm.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn option(name: &str, path: &Path) -> [String; 1] {
    [format!("{name}={}", path.display())]
}

fn word(program: &str, arg: &str) -> String {
    super::output(Command::new(program).arg(arg))
}

/// A port that nothing listens on; the daemons take none that the system would choose.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
