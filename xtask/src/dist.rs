//! `cargo xtask dist`: the completion scripts and manual pages in `dist/`, which the program itself writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::process::run;
use crate::project::Project;
use crate::steps::cargo_in;

/// Write the completion scripts and manual pages in dist/
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DistArgs {
    /// Change nothing, and fail if a file of dist/ is not current
    #[arg(long)]
    check: bool,
}

const EXAMPLES: &str = "\
dist/completions has a script for bash, zsh and fish, dist/man a page for each command.

Examples:
  cargo xtask dist           after a change of the command line
  cargo xtask dist --check   what cargo xtask ci does
  man -l dist/man/pipeplug-run.1";

/// Folders below `dist/`, which belong to this command.
const FOLDERS: [&str; 2] = ["completions", "man"];

/// Writes the files, or checks them.
///
/// # Errors
/// The program cannot be built, or a file is not current.
pub(crate) fn run_command(project: &Project, args: &DistArgs) -> anyhow::Result<()> {
    if args.check { check(project) } else { write(project, &project.root.join("dist")) }
}

/// Fails if a file of `dist/` is missing, left over, or not what the program writes.
pub(crate) fn check(project: &Project) -> anyhow::Result<()> {
    let new = project.target_dir.join("dist-check");
    write(project, &new)?;
    let stale = differences(&read(&project.root.join("dist"))?, &read(&new)?);
    for path in &stale {
        println!("error: dist/{} is not current", path.display());
    }
    if !stale.is_empty() {
        bail!("{} files of dist/ are not current: run `cargo xtask dist`", stale.len());
    }
    Ok(())
}

fn write(project: &Project, dir: &Path) -> anyhow::Result<()> {
    for folder in FOLDERS {
        let folder = dir.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    let mut command = cargo_in(project);
    run(command.args(["run", "--quiet", "--package", "pipeplug", "--", "generate"]).arg(dir))
}

/// Contents of the files, by their path in the directory.
fn read(dir: &Path) -> anyhow::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for folder in FOLDERS {
        let entries = match fs::read_dir(dir.join(folder)) {
            Ok(entries) => entries,
            // Then all of its files are missing.
            Err(_) => continue,
        };
        for entry in entries {
            let path = entry.context("cannot list a folder of dist/")?.path();
            let content =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            files.insert(path.strip_prefix(dir).unwrap_or(&path).to_owned(), content);
        }
    }
    Ok(files)
}

/// Paths that only one of the two has, or with other contents.
fn differences(old: &BTreeMap<PathBuf, Vec<u8>>, new: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<PathBuf> {
    let mut paths: Vec<_> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter().filter(|path| old.get(*path) != new.get(*path)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_missing_left_over_or_changed_are_told() {
        let files = |files: &[(&str, &str)]| {
            files.iter().map(|(path, text)| ((*path).into(), text.as_bytes().to_vec())).collect()
        };
        let old = files(&[("man/a.1", "a"), ("man/b.1", "b"), ("man/c.1", "c")]);
        let new = files(&[("man/a.1", "a"), ("man/b.1", "B"), ("man/d.1", "d")]);
        let expected = ["man/b.1", "man/c.1", "man/d.1"].map(PathBuf::from);
        assert_eq!(differences(&old, &new), expected);
        assert!(differences(&old, &old).is_empty());
    }
}
