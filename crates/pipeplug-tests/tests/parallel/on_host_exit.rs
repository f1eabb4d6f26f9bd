//! Plugins whose host ends without stopping them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use pipeplug_tests::{
    LONG, SOON, Script, command_lines_with, eventually, group_members, group_of, guards_of,
    is_running, missing, send, wait_exit,
};

use crate::{FUGITIVE, LONELY_HOST, MISBEHAVE};

/// A host that runs a plugin.
pub(crate) struct Host {
    pub(crate) process: Child,
    pub(crate) plugin: i32,
}

impl Host {
    fn start(end: &str, plugin: impl AsRef<Path>, args: &[&str]) -> Self {
        Self::launched(&[], end, plugin, args)
    }

    /// One that is told how to launch it.
    pub(crate) fn launched(
        how: &[&str],
        end: &str,
        plugin: impl AsRef<Path>,
        args: &[&str],
    ) -> Self {
        let mut process = Command::new(LONELY_HOST)
            .args(how)
            .arg(end)
            .arg(plugin.as_ref())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let plugin = line.trim().parse().unwrap();
        assert!(is_running(plugin));
        Self { process, plugin }
    }

    /// Has it end as it was told; with "parks", that takes a signal as well.
    pub(crate) fn end(&mut self, end: &str) {
        drop(self.process.stdin.take());
        if end == "parks" {
            self.process.kill().unwrap();
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A plugin that stops at nothing, with a family in its group that does neither.
fn stubborn() -> Script {
    Script::answering_after(
        r#"trap '' TERM HUP INT QUIT PIPE
        for i in 1 2 3; do
            sh -c 'trap "" TERM HUP INT QUIT PIPE; sleep 1000 & echo $! >"$0/$1"; echo $$ >>"$0/$1"; wait' \
                "$dir" "$i" <&- >&- 2>&- 3<&- 4>&- &
        done"#,
        r#"echo $$ >"$dir/4"; exec 3<&- 4>&- 2>&-; while :; do sleep 1000; done"#,
    )
}

/// The processes of [`stubborn`].
fn family(script: &Script) -> Vec<i32> {
    let numbers = || {
        let files = (1..=4)
            .map(|i| fs::read_to_string(script.dir().join(i.to_string())).unwrap_or_default());
        let text: String = files.collect();
        text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>()
    };
    eventually("all have started", || numbers().len() == 7);
    numbers()
}

#[test]
#[cfg(linux_native)]
fn all_of_its_group_is_gone_however_the_host_ends() {
    for end in ["parks", "exits", "aborts", "becomes-another"] {
        let script = stubborn();
        let mut host = Host::start(end, script.path(), &[]);
        let family = family(&script);
        assert!(family.iter().all(|pid| is_running(*pid)), "{end}");
        host.end(end);
        if end != "becomes-another" {
            host.process.wait().unwrap();
        }
        let begun = Instant::now();
        eventually("all are gone", || !family.iter().any(|pid| is_running(*pid)));
        assert!(begun.elapsed() < SOON, "{end}: {:?}", begun.elapsed());
    }
}

#[test]
#[cfg(linux_native)]
fn a_stopped_plugin_is_gone_too() {
    let mut host = Host::start("parks", MISBEHAVE, &["plain"]);
    send(host.plugin, Signal::SIGSTOP);
    host.end("parks");
    host.process.wait().unwrap();
    let begun = Instant::now();
    eventually("it is gone", || !is_running(host.plugin));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[test]
#[cfg(linux_native)]
fn no_moment_of_a_start_is_too_early() {
    // It never answers, so that the host is still starting it when it is killed.
    let script = Script::new("exec 3<&- 4>&-; while :; do sleep 1000; done");
    let path = script.path();
    for micros in (0..4000).step_by(80) {
        let mut host =
            Command::new(LONELY_HOST).arg("parks").arg(&path).stdin(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_micros(micros));
        host.kill().unwrap();
        host.wait().unwrap();
    }
    let begun = Instant::now();
    eventually("all are gone", || command_lines_with(path.to_str().unwrap()).is_empty());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

/// Number of hosts that [`one_that_forks_leaves_none`] kills. The environment can raise it.
fn kills() -> usize {
    std::env::var("PIPEPLUG_TEST_KILLS").map_or(20, |kills| kills.parse().unwrap())
}

fn leaves_none_of_its_group(how: &[&str]) {
    for kill in 0..kills() {
        let mut host = Host::launched(how, "parks", FUGITIVE, &["forks"]);
        host.end("parks");
        host.process.wait().unwrap();
        let begun = Instant::now();
        while let left = group_members(host.plugin)
            && !left.is_empty()
        {
            assert!(begun.elapsed() < SOON, "kill {kill}: {left:?} are left");
            thread::yield_now();
        }
    }
}

#[test]
#[cfg(linux_native)]
fn one_that_forks_leaves_none() {
    leaves_none_of_its_group(&[]);
}

#[test]
#[cfg(linux_native)]
fn one_that_forks_in_a_sandbox_leaves_none() {
    leaves_none_of_its_group(&["--sandbox", "basic"]);
}

/// The kernel ends a whole pid namespace at once; in it, the storm is in the plugin's process group
/// as well.
#[test]
#[cfg(linux_native)]
fn one_that_forks_in_namespaces_leaves_none() {
    if !pipeplug_host::SandboxSupport::of_system().namespaces {
        missing("namespaces, which this process may not make");
        return;
    }
    leaves_none_of_its_group(&["--sandbox", "strict"]);
}

#[test]
#[cfg(linux_native)]
fn one_that_left_its_group_is_gone_too() {
    for how in ["joins-its-child", "joins-its-host"] {
        let mut host = Host::start("parks", FUGITIVE, &[how]);
        assert_ne!(group_of(host.plugin), Some(host.plugin), "{how}");
        host.end("parks");
        host.process.wait().unwrap();
        let begun = Instant::now();
        eventually("it is gone", || !is_running(host.plugin));
        assert!(begun.elapsed() < SOON, "{how}: {:?}", begun.elapsed());
    }
}

#[test]
#[cfg(linux_native)]
fn the_guard_goes_with_its_host() {
    for end in ["exits", "aborts", "becomes-another", "parks"] {
        let mut host = Host::start(end, MISBEHAVE, &["plain"]);
        let guards = guards_of(host.process.id());
        assert_eq!(guards.len(), 1, "{end}");
        host.end(end);
        // It tries again for as long as the plugin is a zombie, five seconds at most.
        eventually("it is gone", || !guards.iter().any(|guard| is_running(*guard)));
    }
}

#[test]
fn what_left_the_group_stays() {
    let script = Script::answering(
        r#"setsid sh -c 'echo $$ >"$0/pid.new"; mv "$0/pid.new" "$0/pid"; exec sleep 1000' "$dir" &
        cat <&3 >/dev/null"#,
    );
    let mut host = Host::start("parks", script.path(), &[]);
    let pid_file = script.dir().join("pid");
    eventually("it has left", || pid_file.exists());
    let elsewhere = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    host.end("parks");
    eventually("the plugin is gone", || !is_running(host.plugin));
    assert!(is_running(elsewhere));
    send(elsewhere, Signal::SIGKILL);
}

#[test]
fn one_that_is_left_alone_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("guard");
    let mut host = Host::start("leaves", MISBEHAVE, &["with-guard", file.to_str().unwrap()]);
    send(host.process.id().try_into().unwrap(), Signal::SIGKILL);
    assert_eq!(wait_exit(&mut host.process).code(), None);
    let begun = Instant::now();
    eventually("the plugin ended", || !is_running(host.plugin));
    assert!(begun.elapsed() < LONG);
    assert_eq!(fs::read_to_string(file).unwrap(), "dropped", "it ended by itself, through main");
}
