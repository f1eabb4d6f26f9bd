//! Plays the plugin of a recording: the stand-in that a host starts, and what starts the host.
//!
//! The host gets the path of a script, which starts this program as a plugin. The stand-in leaves its
//! result in a directory, where the command that has started the host finds it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use pipeplug_guest::{Guest, Main, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::compare::parse_pointer;
use super::player::Player;
use super::script::Script;
use super::{ReplayArgs, load};
use crate::builtin;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::text::Escaped;

/// Stands for the path of the stand-in among the arguments of the host.
const PLACE: &str = "{}";
const SETTINGS: &str = "settings.json";
/// Extension of a result.
const RESULT: &str = "result";

/// Starts the host, and shows what its stand-in has found.
///
/// # Blocking
/// Until the host has ended.
pub(super) fn run(args: &ReplayArgs) -> Result<ExitReason, CommandError> {
    let host = args.start.own_args();
    let usage = |message: &str| Err(CommandError::message(ExitReason::Usage, message));
    if args.start.has_plugin() {
        return usage("with --as guest the command of the host follows --, as in -- ./host {}");
    }
    let [program, own @ ..] = host else {
        return usage("no host: write its command behind --, as in -- ./host {}");
    };
    if !own.iter().any(|arg| holds_place(arg)) {
        return usage(
            "the command of the host has no {}: write it where the path of its plugin belongs",
        );
    }
    // Before the host is started: what is wrong with the file is told here.
    load(&args.file, args.connection)?;
    let failed = |error: anyhow::Error| CommandError::new(ExitReason::Failed, error);
    let dir = stand_in(args).map_err(failed)?;
    let path = dir.path().join("plugin");
    let own = own.iter().map(|arg| with_path(arg, &path));
    #[cfg_attr(
        not(test),
        expect(clippy::disallowed_methods, reason = "a host is no plugin: nothing talks to it")
    )]
    let status = Command::new(program).args(own).status();
    let status = status.map_err(|error| {
        let program = program.to_string_lossy();
        CommandError::message(
            ExitReason::NotFound,
            format!("cannot start the host {}: {error}", Escaped(&program)),
        )
    })?;
    let results = results(dir.path()).map_err(failed)?;
    if results.is_empty() {
        return Err(CommandError::message(
            ExitReason::Failed,
            format!(
                "the host ended ({status}) and has not talked to its plugin, whose path is {{}}"
            ),
        ));
    }
    let mut reason = ExitReason::Success;
    for (text, differences) in results {
        report::print(&text)?;
        if differences > 0 {
            reason = ExitReason::Failed;
        }
    }
    if !status.success() {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => status.to_string(),
        };
        return Err(CommandError::message(ExitReason::Failed, format!("the host failed: {how}")));
    }
    Ok(reason)
}

fn holds_place(arg: &OsStr) -> bool {
    arg.to_str().is_some_and(|arg| arg.contains(PLACE))
}

fn with_path(arg: &OsStr, path: &Path) -> OsString {
    match arg.to_str() {
        Some(text) if holds_place(arg) => text.replace(PLACE, &path.to_string_lossy()).into(),
        _ => arg.to_owned(),
    }
}

/// Makes the script that the host starts, and the settings for the process that it becomes.
fn stand_in(args: &ReplayArgs) -> anyhow::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("pipeplug-replay").tempdir()?;
    let file = fs::canonicalize(&args.file)?;
    let settings = json!({
        "file": file.to_str().context("the path of the recording is not UTF-8")?,
        "connection": args.connection,
        "ignore": args.ignore.iter().map(|pointer| pointer.text()).collect::<Vec<_>>(),
        "timeout_ms": args.start.timeout.map(|timeout| timeout.as_millis() as u64),
    });
    fs::write(dir.path().join(SETTINGS), settings.to_string())?;
    let program = std::env::current_exe()?;
    let quoted = |path: &Path| -> anyhow::Result<String> {
        let text = path.to_str().with_context(|| format!("{path:?} is not UTF-8"))?;
        Ok(shlex::try_quote(text)?.into_owned())
    };
    let (program, place) = (quoted(&program)?, quoted(dir.path())?);
    let (subcommand, name) = (builtin::SUBCOMMAND, builtin::STAND_IN);
    // Descriptors, if the host names them, come first.
    let script = format!(
        "#!/bin/sh\n\
         case \"$1:$2\" in\n\
         :* | *: | *[!0-9:]*) exec {program} {subcommand} {name} {place} ;;\n\
         *) exec {program} \"$1\" \"$2\" {subcommand} {name} {place} ;;\n\
         esac\n"
    );
    let path = dir.path().join("plugin");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

/// Texts of the processes that the host has started, and the numbers of their differences.
fn results(dir: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == RESULT) {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: &PathBuf| -> anyhow::Result<_> {
        let result: Value = serde_json::from_slice(&fs::read(path)?)?;
        let text = result["text"].as_str().unwrap_or_default().to_owned();
        Ok((text, result["differences"].as_u64().unwrap_or(1)))
    };
    paths.iter().map(read).collect()
}

/// Runs as the stand-in, until the host stops it.
pub(crate) fn stand_in_main() -> ExitCode {
    match play() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> anyhow::Result<ExitCode> {
    let dir = PathBuf::from(std::env::args_os().next_back().context("no directory")?);
    let settings: Value = serde_json::from_slice(&fs::read(dir.join(SETTINGS))?)?;
    let file = settings["file"].as_str().context("no recording")?;
    let connection = settings["connection"].as_u64().and_then(|it| u32::try_from(it).ok());
    let ignored = settings["ignore"].as_array().into_iter().flatten();
    let ignored = ignored.filter_map(|text| parse_pointer(text.as_str()?).ok()).collect();
    let timeout = settings["timeout_ms"].as_u64().map(std::time::Duration::from_millis);
    let script = load(Path::new(file), connection)
        .map_err(|failure| failure.error.unwrap_or_else(|| anyhow::anyhow!("no script")))?;
    let Script { metadata, .. } = &script;
    let mut guest = Guest::new();
    let metadata = metadata.as_deref().and_then(|data| serde_json::from_slice(data).ok());
    if let Some(Value::Object(metadata)) = metadata {
        for (key, value) in metadata.iter().filter(|(key, _)| !key.starts_with("pipeplug.")) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            guest = guest.metadata(key, value);
        }
    }
    let player = Arc::new(Player::new(script.reversed(), ignored, timeout));
    let answers = Arc::clone(&player);
    let main =
        guest.handler(move |_: &Main, request: &mut Request| answers.answer(request)).register();
    let plays = {
        let (player, connection) = (Arc::clone(&player), main.connection().clone());
        thread::spawn(move || player.play(&connection))
    };
    let code = main.wait();
    player.gone();
    // What a panic leaves out is a difference of its own.
    let has_panicked = plays.join().is_err();
    let result = player.result();
    let differences = result.differences.len() + usize::from(has_panicked);
    let text = json!({ "text": result.text(), "differences": differences }).to_string();
    let name = format!("{:010}.{RESULT}", std::process::id());
    fs::write(dir.join(name), text)?;
    Ok(code)
}
