//! `pipeplug pack`: makes a container image of one executable.

use std::path::PathBuf;

use clap::Args;
use pipeplug_host::launcher::{self, Engine, PackError};

use crate::cli::Globals;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::report;

const EXAMPLES: &str = "\
Examples:
  pipeplug pack ./plugin -t plugin && pipeplug run --docker plugin --call x
  pipeplug pack ./plugin -t plugin:2 --podman

The executable has to be linked statically, since the image contains
nothing else. For Rust:
  RUSTFLAGS='-C target-feature=+crt-static' \\
  cargo build --release --target x86_64-unknown-linux-gnu";

/// Make a container image of one executable, without a Dockerfile
///
/// The image contains only this file, which is its entry point. The id of the image goes to stdout.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct PackArgs {
    /// Executable, statically linked
    #[arg(value_name = "FILE")]
    executable: PathBuf,

    /// Name of the image: NAME or NAME:VERSION
    #[arg(short, long, value_name = "NAME")]
    tag: String,

    /// Use Docker [default: Docker if it is installed, else Podman]
    #[arg(long, conflicts_with = "podman")]
    docker: bool,

    /// Use Podman
    #[arg(long)]
    podman: bool,
}

/// Runs `pipeplug pack`.
///
/// # Blocking
/// Until the engine has the image.
pub(crate) fn run(args: &PackArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args).map(|()| ExitReason::Success))
}

fn attempt(args: &PackArgs) -> Result<(), CommandError> {
    let engine = match (args.docker, args.podman) {
        (true, _) => Some(Engine::Docker),
        (_, true) => Some(Engine::Podman),
        _ => Engine::installed(),
    };
    let engine = engine.ok_or_else(|| {
        CommandError::message(
            ExitReason::Failed,
            "neither docker nor podman is in `PATH`: install one of them",
        )
    })?;
    let id = launcher::pack(engine, &args.executable, &args.tag).map_err(|error| {
        let reason = match error {
            PackError::Unreadable { .. } => ExitReason::NotFound,
            _ => ExitReason::Failed,
        };
        CommandError::new(reason, error)
    })?;
    report::print(&format!("{id}\n"))
}
