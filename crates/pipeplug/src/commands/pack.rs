//! `pipeplug pack`: make a container image of one executable.

use std::path::PathBuf;

use clap::Args;
use pipeplug_host::launcher::{self, Engine, PackError};

use crate::cli::Globals;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::report;

const EXAMPLES: &str = "\
Examples:
  pipeplug pack ./plugin -t plugin && pipeplug run --docker plugin --call echo hello
  pipeplug pack ./plugin -t plugin:2 --podman

The executable has to be linked statically, since there is nothing else in the image. For Rust:
  RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --target x86_64-unknown-linux-gnu";

/// Make a container image of one executable, without a Dockerfile
///
/// The image holds nothing but this file, which is its entry point; its id goes to stdout.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct PackArgs {
    /// The executable, statically linked
    #[arg(value_name = "FILE")]
    executable: PathBuf,

    /// The image's name, as NAME or NAME:VERSION
    #[arg(short, long, value_name = "NAME")]
    tag: String,

    /// By Docker [default: Docker where it is installed, else Podman]
    #[arg(long, conflicts_with = "podman")]
    docker: bool,

    /// By Podman
    #[arg(long)]
    podman: bool,
}

/// Runs it.
///
/// # Blocking
/// Until the engine has the image.
pub(crate) fn run(args: &PackArgs, globals: &Globals) -> ExitReason {
    match attempt(args) {
        Ok(()) => ExitReason::Success,
        Err(failure) => {
            report::print_failure(globals.color, &failure);
            failure.reason
        }
    }
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
