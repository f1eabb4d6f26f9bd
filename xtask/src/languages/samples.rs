//! The samples of a language, ready to run: `sdk/<language>/samples.sh FOLDER` puts them into a folder, under the
//! names that they have in every language. Those of Rust are beside `pipeplug`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use super::{Language, judge};
use crate::process::{quote, status_and_last_lines};
use crate::project::Project;
use crate::tools::Presence;

/// Samples of a language.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) language: String,
    /// Folder of the programs, or the line that says what is missing.
    dir: Result<PathBuf, String>,
}

impl Samples {
    pub(super) fn of_rust(pipeplug: &Path) -> anyhow::Result<Self> {
        let dir = pipeplug.parent().context("pipeplug is in no folder")?.to_owned();
        Ok(Self { language: "rust".to_owned(), dir: Ok(dir) })
    }

    /// Builds them, by the script of their language.
    ///
    /// # Errors
    /// The script failed, or a tool is missing and `CI=true`.
    pub(super) fn build(language: &Language, folder: &Path) -> anyhow::Result<Self> {
        let (name, script) = (language.name.clone(), language.check.with_file_name("samples.sh"));
        let dir = folder.join(&name);
        let (status, last) = status_and_last_lines(Command::new(&script).arg(&dir))?;
        let presence = judge(status, &last)
            .with_context(|| format!("cannot build the samples by {}", script.display()))?;
        Ok(Self {
            language: name,
            dir: match presence {
                Presence::Here => Ok(dir),
                Presence::Missing(line) => Err(line),
            },
        })
    }

    /// The line that says what is missing, if anything is.
    pub(super) fn missing(&self) -> Option<&str> {
        self.dir.as_ref().err().map(String::as_str)
    }

    /// Path of a program, or the line that says why there is none.
    pub(super) fn program(&self, name: &str) -> Result<PathBuf, &str> {
        self.dir.as_ref().map(|dir| dir.join(name)).map_err(String::as_str)
    }
}

/// Where the samples run.
#[derive(Debug)]
pub(super) struct Place {
    /// Folder for files of the matrix.
    pub(super) dir: PathBuf,
    path: std::ffi::OsString,
}

impl Place {
    pub(super) fn new(project: &Project, pipeplug: &Path) -> anyhow::Result<Self> {
        let dir = project.target_dir.join("languages");
        // Shells find `pipeplug` by its name, and nothing else of the folder that it is in.
        let bin = dir.join("bin");
        let cannot = || format!("cannot write into {}", bin.display());
        fs::create_dir_all(&bin).with_context(cannot)?;
        let link = bin.join("pipeplug");
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link).with_context(cannot)?;
        }
        symlink(pipeplug, &link).with_context(cannot)?;
        let before = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([bin].into_iter().chain(env::split_paths(&before)))
            .context("PATH cannot hold the folder of pipeplug")?;
        Ok(Self { dir, path })
    }

    /// A command in the environment that all have.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("PATH", &self.path);
        // What is expected must not depend on who runs it.
        for (name, _) in env::vars_os() {
            if name == "RUST_LOG" || name.to_string_lossy().starts_with("PIPEPLUG") {
                command.env_remove(name);
            }
        }
        command
    }

    /// The command as one would type it in the root of the project.
    pub(super) fn line(&self, command: &Command) -> String {
        let words = [command.get_program()].into_iter().chain(command.get_args());
        let words: Vec<String> = words.map(|word: &OsStr| quote(&word.to_string_lossy())).collect();
        format!("PATH={}:$PATH {}", quote(&self.dir.join("bin").to_string_lossy()), words.join(" "))
    }
}

/// A file that can be executed.
pub(super) fn write_script(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Builds those of Rust and of the languages, with the time that each took.
///
/// # Errors
/// One cannot be built. The others are, so that the error says all.
pub(super) fn build_all(
    place: &Place,
    pipeplug: &Path,
    languages: &[Language],
) -> anyhow::Result<Vec<Samples>> {
    let (mut all, mut failures) = (vec![Samples::of_rust(pipeplug)?], Vec::new());
    for language in languages {
        match Samples::build(language, &place.dir) {
            Ok(samples) => all.push(samples),
            Err(error) => failures.push(format!("{}: {error:#}", language.name)),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n"));
    }
    all.sort_by(|a, b| a.language.cmp(&b.language));
    Ok(all)
}
