//! A host for tests with one unusual property: `odd-host <oddity> <plugin>` does with the plugin,
//! `misbehave`, what hosts do, and exits with 0 if all went well.

use std::error::Error;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use pipeplug_host::process::{Channel, Launch, spawn};
use pipeplug_host::{Plugin, Stdin, Stdout, WaitStatus};
#[cfg(target_os = "linux")]
use pipeplug_host::{
    PluginBuilder, Sandbox, Sha256, StoppedBy, discovery::Discovery, launcher::CommandPrefix,
};
use pipeplug_tests::{
    LONG, children_of, eventually, fork, group_of, guards_of, handle_sigchld_by_reaping,
    ignore_sigchld, is_running, is_zombie, kill_by_sigpipe,
};

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(oddity), Some(plugin)) = (args.next(), args.next()) else {
        eprintln!("odd-host: which oddity, and which plugin?");
        return ExitCode::from(2);
    };
    let known = match oddity.as_str() {
        "dies-of-sigpipe" => {
            kill_by_sigpipe();
            true
        }
        "ignores-sigchld" => {
            ignore_sigchld();
            false
        }
        "reaps-all" => {
            handle_sigchld_by_reaping();
            false
        }
        #[cfg(target_os = "linux")]
        "lacks-a-call" => {
            return match args.next().map(|call| lacks(&plugin, &call, args)) {
                Some(Ok(())) => ExitCode::SUCCESS,
                Some(Err(error)) => {
                    eprintln!("odd-host: {error}");
                    ExitCode::FAILURE
                }
                None => ExitCode::from(2),
            };
        }
        "forks" | "is-init" => {
            let gone = if oddity == "forks" { forks() } else { is_init(&plugin) };
            return match gone {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("odd-host: {error}");
                    ExitCode::FAILURE
                }
            };
        }
        "waits-for-all" => true,
        // Closed by a shell they would not be closed here: the runtime opens /dev/null in their
        // place.
        "no-stdio" => {
            for fd in 0..=2 {
                // Where it is closed already, that is as good.
                let _ = nix::unistd::close(fd);
            }
            true
        }
        _ => return ExitCode::from(2),
    };
    let has_proc = cfg!(target_os = "linux");
    let standard =
        if oddity == "no-stdio" && has_proc { standard_is_null(&plugin) } else { Ok(()) };
    let gone_well =
        standard.and_then(|()| through(&plugin, known)).and_then(|()| match oddity.as_str() {
            "waits-for-all" => {
                check(waitpid(None::<Pid>, None) == Err(Errno::ECHILD), "no child that is left")
            }
            _ => Ok(()),
        });
    match gone_well {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("odd-host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts, calls and ends plugins in each way. `status_is_known` tells if their status can be
/// known.
fn through(path: &str, status_is_known: bool) -> Result<(), Box<dyn Error>> {
    // A handler that reaps may come too late.
    let fits = |status, expected: fn(WaitStatus) -> bool| {
        expected(status) || !status_is_known && status == WaitStatus::Unknown
    };

    let plugin = Plugin::builder(path).start()?;
    check(plugin.call("echo", "x")? == "x", "the echo")?;
    let stopped = plugin.stop()?;
    check(fits(stopped.status, WaitStatus::success), &format!("the stop: {stopped:?}"))?;

    let plugin = Plugin::builder(path).start()?;
    let call = plugin.request("never", "").begin()?;
    plugin.call("echo", "")?;
    plugin.notify("abort", "")?;
    check(call.wait_timeout(LONG).is_err(), "an open call")?;
    // A pipe without a reader.
    check(
        (0..100).any(|_| plugin.notify("echo", vec![0; 100_000]).is_err()),
        "a one-way without a reader",
    )?;
    let ended = plugin.wait(LONG)?;
    let aborted = |status| matches!(status, WaitStatus::Signaled { signal: 6, .. });
    check(ended.is_some_and(|status| fits(status, aborted)), &format!("the end: {ended:?}"))?;

    let plugin = Plugin::builder(path).start()?;
    plugin.connection().ping(Duration::from_secs(10))?;
    let pid = plugin.pid().as_raw();
    drop(plugin);
    check(!pipeplug_tests::is_running(pid), "the drop")
}

/// Runs all steps of a host without one system call: `<call> <errno> <directory>`. The directory
/// contains the plugin `odd-it`.
#[cfg(target_os = "linux")]
fn lacks(
    path: &str,
    call: &str,
    mut args: impl Iterator<Item = String>,
) -> Result<(), Box<dyn Error>> {
    let mut next = || args.next().ok_or("an error's number and a directory are missing");
    let errno = Errno::from_raw(next()?.parse()?);
    let dir = next()?;
    pipeplug_tests::refuse_newer_call(call, errno)?;
    through(path, true)?;

    let found = Discovery::for_host("odd").with_dirs([&dir]).find("it")?.path;
    echoes(Plugin::builder(&found))?;
    echoes(Plugin::builder(&found).launcher(CommandPrefix::new(["env"])))?;
    // Without memory to copy it to, there is no file that stays as it was checked.
    if call != "memfd_create" {
        let sum = Sha256::of_file(&found)?;
        echoes(Plugin::builder(&found).sha256(sum))?;
        let script = std::path::Path::new(&dir).join("odd-script");
        let sum = Sha256::of_file(&script)?;
        echoes(Plugin::builder(&script).sha256(sum))?;
    }
    let strict = Sandbox::strict().best_effort().read(&dir);
    echoes(Plugin::builder(&found).sandbox(strict))?;

    // In the host's group it is signalled alone.
    let plugin = Plugin::builder(&found).stdin(Stdin::Inherit).start()?;
    check(plugin.kill()?.by == StoppedBy::Kill, "the kill")
}

/// Starts a plugin, calls it, and stops it.
#[cfg(target_os = "linux")]
fn echoes(builder: PluginBuilder) -> Result<(), Box<dyn Error>> {
    let plugin = builder.start()?;
    check(plugin.call("echo", "x")? == "x", "the echo")?;
    check(plugin.stop()?.by == StoppedBy::Stop, "the stop")
}

/// Starts a plugin with the host's standard descriptors, which must not be other ones by now.
fn standard_is_null(path: &str) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        let builder = Plugin::builder(path).stdin(Stdin::Inherit).stdout(Stdout::Inherit);
        let plugin = builder.start()?;
        let standard = plugin.call("sh", "readlink /proc/$PPID/fd/0 /proc/$PPID/fd/1")?;
        check(
            standard == "/dev/null\n/dev/null\n",
            &format!("the plugin's standard input and output: {standard:?}"),
        )?;
        plugin.stop()?;
    }
    Ok(())
}

/// A forked child starts plugins of its own, and is killed. Only its own plugins end with it.
fn forks() -> Result<(), Box<dyn Error>> {
    let sleeper = || {
        let mut launch = Launch::new("/bin/sleep");
        launch.channel = Channel::Stdio;
        launch.args = vec!["1000".into()];
        spawn(&launch)
    };
    let of_parent = sleeper()?;
    let (mut reader, mut writer) = io::pipe()?;
    let code = fork(|| {
        let Ok(of_child) = sleeper() else { return 1 };
        if writer.write_all(&of_child.child.pid().as_raw().to_ne_bytes()).is_err() {
            return 2;
        }
        // With the one of its parent, which it keeps from taking its end for the parent's. It has
        // its name a moment later.
        let guards = if cfg!(linux_native) { 2 } else { 0 };
        eventually("it has a guard of its own", || guards_of(std::process::id()).len() == guards);
        // As one that is killed, it drops nothing.
        std::process::abort()
    })?;
    check(code == -1, &format!("the child: {code}"))?;
    let mut pid = [0; 4];
    reader.read_exact(&mut pid)?;
    let pid = i32::from_ne_bytes(pid);
    eventually("the child's plugin has ended", || !is_running(pid));
    check(of_parent.child.peek()?.is_none(), "the parent's plugin")
}

/// This process reaps orphans of a plugin: those that ended before the plugin, and those that end
/// with its stop or its death.
fn is_init(path: &str) -> Result<(), Box<dyn Error>> {
    check(std::process::id() == 1, "the number of the first process")?;
    // The process for kill-on-host-exit is a child of this process too, and stays.
    let before = Plugin::builder(path).start()?;
    let others = children_of(1).len() - 1;
    before.stop()?;
    let orphans = "(sleep 0.01 & sleep 1000 & sleep 1000 &) >/dev/null 2>&1";
    for death in ["stop", "kill"] {
        let plugin = Plugin::builder(path).start()?;
        plugin.call("sh", orphans)?;
        let pid = plugin.pid().as_raw();
        let ours = || {
            children_of(1)
                .into_iter()
                .filter(|child| *child != pid && group_of(*child) == Some(pid))
        };
        eventually("they are this process's children", || ours().count() == 3);
        eventually("one has ended", || ours().any(is_zombie));
        match death {
            "stop" => drop(plugin.stop()?),
            _ => {
                nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
                plugin.wait(LONG)?;
            }
        }
        let left = children_of(1);
        check(left.len() == others, &format!("behind a {death}, what is left of {pid}: {left:?}"))?;
    }
    Ok(())
}

fn check(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("{what} is not as it should be").into()) }
}
