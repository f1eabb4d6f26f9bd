//! The `no-std` step: pipeplug-wire on a machine without an operating system or an allocator.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::{run, stdout_of};
use crate::project::Project;
use crate::steps::cargo_in;
use crate::tools::{self, Presence, StepOutcome, Tool};

/// A program that uses the codec with neither `std` nor `alloc`; excluded from the workspace
/// because cargo would unite its features with everybody else's.
const PROOF: &str = "crates/pipeplug-wire/no-std-proof/Cargo.toml";

/// Functions that every allocation of Rust goes through, whichever allocator stands behind them.
const ALLOCATION: [&str; 3] = ["__rust_alloc", "__rdl_alloc", "__rg_alloc"];

pub(crate) fn check(project: &Project) -> anyhow::Result<StepOutcome> {
    depends_on_nothing(project)?;
    let wire = ["build", "-p", "pipeplug-wire", "--no-default-features"];
    run(cargo_in(project).args(wire))?;
    run(cargo_in(project).args(wire).args(["--features", "alloc"]))?;

    let target_dir = project.target_dir.join("no-std-proof");
    let proof = |subcommand: &str| {
        let mut cargo = cargo_in(project);
        cargo.args([subcommand, "--manifest-path", PROOF, "--target-dir"]).arg(&target_dir);
        cargo
    };
    run(&mut proof("run"))?;

    match tools::require(&[Tool::Nm])? {
        Presence::Missing(line) => return Ok(StepOutcome::Done { skipped_parts: vec![line] }),
        Presence::Here => {}
    }
    let messages = stdout_of(proof("build").arg("--message-format=json-render-diagnostics"))?;
    for binary in executables(&messages)? {
        let symbols = stdout_of(Command::new("nm").arg(&binary.path))?;
        if symbols.trim().is_empty() {
            bail!(
                "{} holds no symbols, so nothing can be said of its allocations",
                binary.path.display()
            );
        }
        if let Some(symbol) = allocation_in(&symbols) {
            bail!("{} allocates: it holds the symbol {symbol}", binary.path.display());
        }
        println!("{} holds none of {}", binary.name, ALLOCATION.join(", "));
    }
    Ok(StepOutcome::done())
}

/// # Errors
/// pipeplug-wire has dependencies other than those of its tests, with any of its features.
fn depends_on_nothing(project: &Project) -> anyhow::Result<()> {
    let tree = ["tree", "-p", "pipeplug-wire", "--edges", "normal,build", "--target", "all"];
    let printed =
        stdout_of(cargo_in(project).args(tree).args(["--all-features", "--prefix", "none"]))?;
    match printed.lines().nth(1) {
        Some(dependency) => {
            bail!("pipeplug-wire depends on {dependency}, and may depend on nothing")
        }
        None => Ok(()),
    }
}

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Executable {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The programs that cargo's JSON messages say were built.
///
/// # Errors
/// A line is no JSON, or there is no program among them.
pub(crate) fn executables(messages: &str) -> anyhow::Result<Vec<Executable>> {
    let mut found = Vec::new();
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)
            .with_context(|| format!("cargo printed no JSON but {line:?}"))?;
        if let (Some(path), Some(name)) =
            (message["executable"].as_str(), message["target"]["name"].as_str())
        {
            found.push(Executable { name: name.to_owned(), path: PathBuf::from(path) });
        }
    }
    if found.is_empty() {
        bail!("cargo built no program");
    }
    Ok(found)
}

fn allocation_in(symbols: &str) -> Option<&str> {
    // Symbols may be mangled, as in `_RNvCs_7___rustc12___rust_alloc`.
    symbols
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .find(|symbol| ALLOCATION.iter().any(|name| symbol.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_found_mangled_or_not() {
        let mangled = "0000 T main\n0010 T _RNvCsa_7___rustc12___rust_alloc\n";
        assert_eq!(allocation_in(mangled), Some("_RNvCsa_7___rustc12___rust_alloc"));
        assert_eq!(allocation_in("     U __rdl_alloc"), Some("__rdl_alloc"));
        assert_eq!(allocation_in("0000 T main\n     U malloc_stats\n"), None);
    }

    #[test]
    fn built_programs_are_found_among_the_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"lib"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"proof"},"executable":"/t/debug/proof"}
{"reason":"build-finished","success":true}"#;
        let proof = Executable { name: "proof".to_owned(), path: PathBuf::from("/t/debug/proof") };
        assert_eq!(executables(messages).unwrap(), [proof]);
        assert!(executables("{}").is_err());
        assert!(executables("warning: no").is_err());
    }
}
