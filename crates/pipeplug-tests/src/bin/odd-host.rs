//! A host for tests that is not as others are: `odd-host <oddity> <plugin>` does with the plugin, `misbehave`, what hosts
//! do, and exits with 0 if all went well.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use pipeplug_host::{Plugin, Stdin, Stdout, WaitStatus};
use pipeplug_tests::{LONG, handle_sigchld_by_reaping, ignore_sigchld, kill_by_sigpipe};

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
        // Closed by a shell they would not be closed here: the runtime opens /dev/null in their place.
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
    let standard = if oddity == "no-stdio" && has_proc { standard_is_null(&plugin) } else { Ok(()) };
    match standard.and_then(|()| through(&plugin, known)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("odd-host: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All of a plugin's life, with both ways to end; whether how it ended can be known depends.
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
    let call = plugin.begin_call("never", "")?;
    plugin.call("echo", "")?;
    plugin.notify("abort", "")?;
    check(call.wait_timeout(LONG).is_err(), "an open call")?;
    // To a pipe that nobody reads any more.
    check((0..100).any(|_| plugin.notify("echo", vec![0; 100_000]).is_err()), "a one-way to nobody")?;
    let ended = plugin.wait(LONG)?;
    let aborted = |status| matches!(status, WaitStatus::Signaled { signal: 6, .. });
    check(ended.is_some_and(|status| fits(status, aborted)), &format!("the end: {ended:?}"))?;

    let plugin = Plugin::builder(path).start()?;
    plugin.ping(Duration::from_secs(10))?;
    let pid = plugin.pid().as_raw();
    drop(plugin);
    check(!pipeplug_tests::is_running(pid), "the drop")
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

fn check(holds: bool, what: &str) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(format!("{what} is not as it should be").into()) }
}
