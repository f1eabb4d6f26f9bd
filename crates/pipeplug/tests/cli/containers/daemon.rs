//! The way to Docker's daemon, and from there to an image.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use super::{built, missing, processes, works};
use crate::common::{LONG, Place};

/// A daemon of the test's own, with all that it has in a directory.
struct Daemon {
    dir: PathBuf,
    process: Option<Child>,
}

impl Daemon {
    fn start(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        let mut daemon = Self { dir, process: None };
        daemon.run();
        daemon
    }

    fn run(&mut self) {
        let path = |name: &str| self.dir.join(name);
        let log = fs::File::options().create(true).append(true).open(path("log")).unwrap();
        let process = Command::new("dockerd")
            .args([
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
                "--host",
                &self.host(),
            ])
            .arg("--pidfile")
            .arg(path("pid"))
            .arg("--data-root")
            .arg(path("data"))
            .arg("--exec-root")
            .arg(path("exec"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let begun = Instant::now();
        while !self.docker(&["info"]).output().unwrap().status.success() {
            let log = || fs::read_to_string(path("log")).unwrap();
            assert!(begun.elapsed() < LONG, "{}", log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.join("socket").display())
    }

    fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).env("DOCKER_HOST", self.host()).stdin(Stdio::null());
        command
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(Signal::SIGTERM);
        let dir = self.dir.to_str().unwrap();
        let begun = Instant::now();
        // Where it was killed, the shims are left, and what it has mounted is in use for a moment.
        while fs::remove_dir_all(dir).is_err() && begun.elapsed() < LONG {
            for (pid, _) in processes(dir) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let mounts = fs::read_to_string("/proc/mounts").unwrap();
            let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
            for point in points.filter(|point| point.starts_with(dir)) {
                let _ = Command::new("umount").args(["--lazy", point]).output();
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_daemon_killed_within_a_call_is_told_with_the_containers_name() {
    if !geteuid().is_root() || Command::new("dockerd").arg("--version").output().is_err() {
        return missing(
            "a daemon of Docker of one's own takes root, and dockerd (Debian: apt-get install \
             docker.io)",
        );
    }
    let place = Place::new();
    let plugin = built(&place, &["-C", "target-feature=+crt-static"]);
    let mut daemon = Daemon::start(place.path().join("daemon"));
    let docker = |args: &[&str]| {
        let mut run = place.pipeplug(args);
        run.command.env("DOCKER_HOST", daemon.host());
        run
    };
    docker(&["pack", plugin.to_str().unwrap(), "-t", "spell", "--docker"]).run().exits(0);
    let mut run = docker(&[
        "run",
        "--docker",
        "spell",
        "--engine-arg=--ulimit=nofile=1000:1000",
        "--json",
        "--call",
        "hang",
    ]);
    let mut host = run
        .command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let name = format!("pipeplug-{}-", host.id());
    let running = || {
        let all = daemon.docker(&["ps", "--quiet", "--no-trunc"]).output().unwrap();
        let id = String::from_utf8(all.stdout).unwrap().trim().to_owned();
        let pid = daemon.docker(&["inspect", "--format", "{{.State.Pid}}", &id]).output().unwrap();
        String::from_utf8(pid.stdout)
            .unwrap()
            .trim()
            .parse()
            .ok()
            .filter(|pid| *pid > 0)
            .map(Pid::from_raw)
    };
    let begun = Instant::now();
    let pid = loop {
        match running() {
            Some(pid) => break pid,
            None => assert!(begun.elapsed() < LONG, "there is no container"),
        }
        thread::sleep(Duration::from_millis(50));
    };
    let mut events = BufReader::new(host.stdout.take().unwrap());
    let mut event = String::new();
    while !event.contains("metadata") {
        event.clear();
        assert!(events.read_line(&mut event).unwrap() > 0, "it does not start");
    }
    daemon.end(Signal::SIGKILL);
    let mut said = String::new();
    events.read_to_string(&mut said).unwrap();
    host.wait().unwrap();
    let runs_on = kill(pid, Signal::SIGKILL).is_ok();
    let told = "the connection to Docker's daemon broke off, as when the daemon is killed or \
                restarted: the container pipeplug-";
    assert!(said.contains(told), "{said}");
    assert!(said.contains(&format!("`docker rm --force {name}")), "{said}");
    assert!(runs_on, "the container ended with its daemon, and the message is wrong");
}

/// A directory of the client's settings.
fn settings(place: &Place, content: &str) -> PathBuf {
    let dir = place.path().join("docker");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), content).unwrap();
    dir
}

fn told(place: &Place, args: &[&str], variables: &[(&str, &Path)], told: &str) {
    let mut run = place.pipeplug([&["run", "--docker"], args].concat());
    run.command.envs(variables.iter().copied());
    run.run().exits(4).prints("").says(told);
}

#[test]
fn a_missing_credential_helper_is_told() {
    if !works("docker") {
        return missing("docker is missing, or `docker info` fails");
    }
    let place = Place::new();
    let dir = settings(&place, r#"{"credsStore": "pipeplug-none"}"#);
    let message =
        "\"docker-credential-pipeplug-none\" fails, which is to give the login for the registry of";
    told(&place, &["registry.invalid/x:1", "--pull"], &[("DOCKER_CONFIG", &dir)], message);
}

#[test]
fn a_context_that_is_not_there_is_told() {
    if Command::new("docker").arg("--version").output().is_err() {
        return missing("docker is missing (Debian: apt-get install docker.io)");
    }
    let place = Place::new();
    let none = Path::new("");
    let context = [("DOCKER_HOST", none), ("DOCKER_CONTEXT", Path::new("pipeplug-none"))];
    told(
        &place,
        &["image"],
        &context,
        "there is no such context of Docker: `docker context ls` lists them",
    );
    let host = [("DOCKER_HOST", Path::new("nowhere://x"))];
    told(&place, &["image"], &host, "DOCKER_HOST, or the context, names no place to connect to");
}
