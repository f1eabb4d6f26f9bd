//! `pipeplug generate`: completion scripts and manual pages, for packages of this program.

mod page;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::builder::{Resettable, StyledStr};
use clap::{Args, Command};
use clap_mangen::Man;

use crate::cli::{self, Globals};
use crate::complete;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;

/// Footer of each page.
const SOURCE: &str = concat!("pipeplug ", env!("CARGO_PKG_VERSION"));

const EXAMPLES: &str = "\
Examples:
  pipeplug generate ~/.local/share/pipeplug-dist
  pipeplug generate dist && man -l dist/man/pipeplug-run.1";

/// Write completion scripts and manual pages, for packages
///
/// Writes DIR/completions, with a script each for bash, zsh and fish, and DIR/man, with a page for
/// each command. The directories are made if they are not there, and files of these names are
/// replaced.
#[derive(Debug, Args)]
#[command(hide = true, after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// Directory to write to
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
}

/// Runs `pipeplug generate`.
pub(crate) fn run(args: &GenerateArgs, globals: &Globals) -> ExitReason {
    let failed = |error| CommandError::new(ExitReason::Failed, error);
    let done = completions(&args.dir.join("completions")).and_then(|()| man(&args.dir.join("man")));
    report::exit_reason(globals.color, done.map(|()| ExitReason::Success).map_err(failed))
}

fn completions(dir: &Path) -> anyhow::Result<()> {
    for (name, script) in complete::scripts()? {
        write(dir, name, &script)?;
    }
    Ok(())
}

fn man(dir: &Path) -> anyhow::Result<()> {
    // A page has room for the options that the short help leaves out.
    let shown = |arg: clap::Arg| arg.hide_short_help(false);
    let mut command = cli::command().disable_help_subcommand(true);
    command = command.mut_args(shown).mut_subcommands(|it| it.mut_args(shown));
    command.build();
    pages(&command, dir)
}

/// Writes the page of a command, and those of its subcommands.
fn pages(command: &Command, dir: &Path) -> anyhow::Result<()> {
    let help = command.get_after_long_help().or(command.get_after_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let no_help = Resettable::<StyledStr>::Reset;
    let bare = command.clone().after_help(no_help.clone()).after_long_help(no_help);
    let man = Man::new(bare).source(SOURCE).manual("pipeplug");
    let mut page = Vec::new();
    man.render(&mut page).context("cannot render a manual page")?;
    page::sections(&help).to_writer(&mut page).context("cannot render a manual page")?;
    write(dir, &man.get_filename(), &page)?;
    let shown = |it: &&Command| !it.is_hide_set();
    command.get_subcommands().filter(shown).try_for_each(|command| pages(command, dir))
}

fn write(dir: &Path, name: &str, content: &[u8]) -> anyhow::Result<()> {
    let path = dir.join(name);
    let written: io::Result<()> = fs::create_dir_all(dir).and_then(|()| fs::write(&path, content));
    written.with_context(|| format!("cannot write {}", path.display()))
}
