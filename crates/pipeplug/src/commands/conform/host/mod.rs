//! Checks of hosts: the host starts a plugin that conform provides, and the plugin checks its host.
//!
//! The plugin is this executable in a hidden mode, behind a script of its own in a temporary
//! directory, which names the directory and the check. Its result is a file there.

mod checks;
mod scripted;

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pipeplug_host::process::{Channel, EnvPlan, Launch, Leftovers, Signal, spawn};

use self::scripted::Scripted;
use super::descriptors::quoted;
use super::outcome::{Checked, Outcome, Stop, came};
use super::with_plugin;
use crate::output::text::{Escaped, took};

/// First argument of this program in the hidden mode.
const SUBCOMMAND: &str = "__conform";
/// Name of the plugin.
const PLUGIN: &str = "conform-plugin";
const RESULT: &str = "result";
const STARTED: &str = "started";
const KILLED: &str = "passed-if-killed";
/// Time for a host to end by itself after the result is known.
const END_TIMEOUT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(10);
/// Bytes of the host's standard error that a message may show.
const STDERR_SHOWN: usize = 300;

/// A check of a host.
#[derive(Debug)]
pub(super) struct HostCheck {
    /// Name: `group/check`.
    pub(super) name: &'static str,
    /// Heading in docs/protocol.md.
    pub(super) section: &'static str,
    /// Action of the plugin, for people.
    pub(super) sends: &'static str,
    /// Expected action of the host, for people.
    pub(super) expects: &'static str,
    pub(super) run: fn(&mut Scripted) -> Checked,
}

/// All checks of hosts, in the order in which they run.
pub(super) fn all() -> impl Iterator<Item = &'static HostCheck> {
    checks::GROUPS.into_iter().flatten()
}

/// Checks that the command names the plugin.
pub(super) fn check_command(command: &[OsString]) -> Result<(), String> {
    if command.iter().any(|word| word.to_string_lossy().contains("{plugin}")) {
        return Ok(());
    }
    Err("the command of the host does not have {plugin}, which stands for the path of the plugin that \
         checks it: --as host -- ./myhost {plugin}"
        .to_owned())
}

/// Runs a check of a host.
pub(super) fn run(name: &str, command: &[OsString], limit: Duration) -> Outcome {
    attempt(name, command, limit, &mut false).unwrap_or_else(|stop| Err::<(), _>(stop).into())
}

/// Description of what came from a host that does not start the plugin. `None` if it starts it.
///
/// # Blocking
/// As for a check.
pub(super) fn starts_nothing(command: &[OsString], limit: Duration) -> Option<String> {
    let (first, mut has_started) = (all().next()?, false);
    match attempt(first.name, command, limit, &mut has_started) {
        Err(Stop::Failed(came)) if !has_started => Some(came),
        _ => None,
    }
}

/// Runs a check. Notes whether the host has started the plugin.
fn attempt(
    name: &str,
    command: &[OsString],
    limit: Duration,
    has_started: &mut bool,
) -> Result<Outcome, Stop> {
    let system = |error: io::Error| came(format!("the check could not be made: {error}"));
    let dir = tempfile::tempdir().map_err(system)?;
    let path = dir.path().join(PLUGIN);
    write_script(&path, &script(dir.path(), name, limit).map_err(system)?).map_err(system)?;

    let mut launch = Launch::new("/bin/sh");
    launch.channel = Channel::Stdio;
    launch.env = EnvPlan::inherit();
    // The shell finds the program in PATH, and says if there is none.
    launch.args = ["-c", "exec \"$@\"", "sh"].map(OsString::from).to_vec();
    launch.args.extend(with_plugin(command, &path.to_string_lossy()));
    let host =
        spawn(&launch).map_err(|error| came(format!("the host was not started: {error}")))?;
    drop(host.to_guest);
    let output = super::guest::drain(host.from_guest);
    let stderr = super::guest::drain(host.stderr);

    let result = dir.path().join(RESULT);
    // The plugin has its own limit, and begins after the host.
    let until = Instant::now() + limit + END_TIMEOUT;
    let mut ended = None;
    let read = || fs::read(&result).ok().and_then(|json| serde_json::from_slice(&json).ok());
    let outcome = loop {
        if let Some(outcome) = read() {
            break Some(outcome);
        }
        if ended.is_some() || Instant::now() >= until {
            break None;
        }
        ended = host.child.wait_timeout(STEP, Leftovers::Leave).map_err(system)?;
        if ended.is_some() {
            // The plugin may outlive its host by a moment, until it has written the result.
            let until = Instant::now() + END_TIMEOUT;
            while read().is_none() && Instant::now() < until {
                thread::sleep(STEP);
            }
        }
    };
    if ended.is_none() && outcome.is_some() {
        ended = host.child.wait_timeout(END_TIMEOUT, Leftovers::Kill).map_err(system)?;
    }
    if ended.is_none() {
        // A host that serves others does not end by itself.
        let _ = host.child.signal_group(Signal::Kill);
    }
    *has_started = dir.path().join(STARTED).exists();
    if outcome.is_none() && ended.is_some() && dir.path().join(KILLED).exists() {
        return Ok(Outcome::Pass);
    }
    outcome.ok_or_else(|| {
        let mut text = match ended {
            Some(status) if *has_started => {
                format!("the host ended with {status}, and the plugin before it had a result")
            }
            Some(status) => format!("the host ended with {status} and had not started {{plugin}}"),
            None if *has_started => format!("the plugin had no result within {}", took(limit)),
            None => format!("the host had not started {{plugin}} within {}", took(limit)),
        };
        drop(output);
        // Its last words may still be on their way.
        if ended.is_some() {
            stderr.wait_end(END_TIMEOUT);
        }
        let stderr = stderr.text();
        if let Some(line) = stderr.lines().rfind(|line| !line.trim().is_empty()) {
            let line: String = line.chars().take(STDERR_SHOWN).collect();
            text.push_str(&format!("; its stderr ends with: {}", Escaped(&line)));
        }
        came(text)
    })
}

/// Script that starts this program as the plugin of a check.
fn script(dir: &Path, name: &str, limit: Duration) -> io::Result<String> {
    let program = std::env::current_exe()?;
    Ok(format!(
        "#!/bin/sh\nexec {} {SUBCOMMAND} {} {name} {} \"$@\"\n",
        quoted(program.as_os_str())?,
        quoted(dir.as_os_str())?,
        limit.as_millis()
    ))
}

/// Writes an executable script, unless it is there.
///
/// A process of its own writes it: a descriptor of this process that is open for writing could be
/// inherited by a host or plugin that another thread starts just then, and until that one executes its
/// program nothing can execute the script (`ETXTBSY`, execve(2)). The script has its name when it is
/// complete, since several checks may need the same.
pub(super) fn write_script(path: &Path, text: &str) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    #[cfg_attr(
        not(test),
        expect(
            clippy::disallowed_methods,
            reason = "no plugin: it ends as soon as it has written"
        )
    )]
    let mut writer = Command::new("/bin/sh")
        .args(["-c", r#"cat >"$0.$$" && chmod 700 "$0.$$" && mv -f "$0.$$" "$0""#])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()?;
    // The end of the input ends `cat`.
    let written = writer.stdin.take().map_or(Ok(()), |mut input| input.write_all(text.as_bytes()));
    let status = writer.wait()?;
    written?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} was not written: sh ended with {status}", path.display())))
}

/// Runs this program as the plugin of a check, if a host has started it as such.
pub(crate) fn of_command_line(args: &[OsString]) -> Option<ExitCode> {
    let [_, subcommand, dir, name, limit, own @ ..] = args else { return None };
    if subcommand != SUBCOMMAND {
        return None;
    }
    let limit = Duration::from_millis(limit.to_str()?.parse().ok()?);
    let check = all().find(|check| name.to_str() == Some(check.name))?;
    let result = Path::new(dir).join(RESULT);
    // A host that restarts plugins does so after the check.
    let is_first =
        OpenOptions::new().write(true).create_new(true).open(Path::new(dir).join(STARTED)).is_ok();
    let killed = Path::new(dir).join(KILLED);
    let mut scripted = match Scripted::new(own, limit, killed) {
        Ok(scripted) => scripted,
        Err(error) => {
            let text = format!("descriptors that cannot be used: {error}");
            let _ = write_result(&result, &Outcome::Fail { came: text });
            return Some(ExitCode::FAILURE);
        }
    };
    if is_first {
        let outcome = (check.run)(&mut scripted).into();
        if let Err(error) = write_result(&result, &outcome) {
            eprintln!("conform: cannot write {}: {error}", result.display());
        }
    }
    // From here on a plugin like others.
    scripted.serve();
    Some(ExitCode::SUCCESS)
}

/// Writes the result, complete at once.
fn write_result(path: &Path, outcome: &Outcome) -> io::Result<()> {
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(outcome)?)?;
    fs::rename(part, path)
}
