//! A host whose commands are plugins: `dockercli ping` runs the executable `dockercli-ping`.
//!
//! [`Discovery::for_host`] finds the plugins, first in the directories of `PIPEPLUG_PATH`.
//!
//! A command receives its arguments with the request `Run`, as a JSON array, and answers with its
//! exit code. Meanwhile it may send the requests `GetDockerHost` and `CallDaemon`, and the one-ways
//! `Print` and `PrintError`.

use std::env;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use pipeplug_host::discovery::{Discovery, EntryState};
use pipeplug_host::{HandlerError, Plugin, Reply, Request, StartError};

const HOST: &str = "dockercli";
/// Time limit for printing after a command is done.
const PRINT_LIMIT: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("{HOST}: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> anyhow::Result<ExitCode> {
    let args = env::args_os().skip(1).map(|arg| {
        // JSON strings hold text only.
        arg.into_string().map_err(|arg| anyhow!("the argument {arg:?} is not UTF-8"))
    });
    let args = args.collect::<anyhow::Result<Vec<String>>>()?;
    let plugins = Discovery::for_host(HOST);
    match args.split_first() {
        None => list(&plugins),
        Some((help, _)) if help == "--help" || help == "-h" => list(&plugins),
        Some((name, args)) => run_command(&plugins, name, args),
    }
}

/// Prints the commands, with the description of each plugin.
fn list(plugins: &Discovery) -> anyhow::Result<ExitCode> {
    println!("Usage: {HOST} COMMAND [ARGUMENTS]\n\nCommands:");
    for (name, path) in usable(plugins) {
        // A broken plugin must not hide the others.
        match start(&path) {
            Ok(plugin) => {
                let told = |key| plugin.metadata().value(key);
                println!(
                    "  {:<9} {}",
                    told("Cmd").unwrap_or(&name),
                    told("Description").unwrap_or_default()
                );
                println!("  {:<9} {}", "", told("Help").unwrap_or_default());
                plugin.stop()?;
            }
            Err(error) => eprintln!("{HOST}: {name}: {error}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_command(plugins: &Discovery, name: &str, args: &[String]) -> anyhow::Result<ExitCode> {
    let found = plugins.find(name).map_err(|error| {
        let names: Vec<_> = usable(plugins).map(|(name, _)| name).collect();
        anyhow!("{error}\n{HOST}: commands: {}", names.join(", "))
    })?;
    let plugin = start(&found.path)?;
    // No time limit: `compose up` runs as long as its services do. If the plugin dies, the call
    // fails.
    let code = plugin.call("Run", serde_json::to_string(args)?)?;
    // The output of the command arrived before its reply, but another thread may still print it.
    ensure!(
        plugin.connection().wait_idle(PRINT_LIMIT),
        "{name} is done, but what it printed cannot be written"
    );
    plugin.stop()?;
    let code: u8 = code
        .parse()
        .with_context(|| format!("{name} answered {code:?}, which is not an exit code"))?;
    Ok(code.into())
}

/// Names and files of usable plugins. Other files, such as a README beside the plugins, are
/// skipped; running one by its name reports the problem.
fn usable(plugins: &Discovery) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = plugins.list().into_iter();
    entries.filter(|entry| entry.state == EntryState::Usable).map(|entry| (entry.name, entry.path))
}

fn start(path: &Path) -> Result<Plugin, StartError> {
    Plugin::builder(path)
        .env_pass("DOCKERCLI_COMPOSE")
        .on_line(|_, line| eprintln!("{line}"))
        .handler(answer)
        .start()
}

fn answer(_plugin: &Plugin, request: &mut Request) -> Result<Reply, HandlerError> {
    match request.command() {
        "GetDockerHost" => Ok(env::var("DOCKER_HOST")
            .unwrap_or_else(|_| "unix:///var/run/docker.sock".into())
            .into()),
        "CallDaemon" => fake_daemon(request.text()?),
        "Print" => Ok(io::stdout().write_all(request.buffer())?.into()),
        "PrintError" => Ok(io::stderr().write_all(request.buffer())?.into()),
        _ => request.unknown(),
    }
}

/// Stands in for the HTTP request to the daemon, so that the sample runs without one.
fn fake_daemon(request: &str) -> Result<Reply, HandlerError> {
    match request {
        "GET /version" => Ok(r#"{"ApiVersion":"1.47","OSType":"linux"}"#.into()),
        _ => Err(format!("the made-up daemon answers GET /version only, not {request}").into()),
    }
}
