//! How a sample's manifest says what to run and what to expect.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::tools::Tool;

/// One run of a program and what it has to print.
///
/// In every text `{bin:NAME}` stands for the path of the program NAME that was built, `{bin-dir}`
/// for the folder of those programs and `{dir}` for the sample's folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RunSpec {
    /// The program that is run: one that was built, or a path if it has a slash. The CLI, where
    /// nothing else is said.
    #[serde(default = "cli")]
    pub(crate) bin: String,
    pub(crate) args: Vec<String>,
    /// Input that the program reads on stdin. Empty where it is not given.
    pub(crate) stdin: Option<String>,
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// All that it may print on stdout, to the last byte.
    pub(crate) stdout: Option<String>,
    #[serde(default)]
    pub(crate) stdout_contains: Vec<String>,
    #[serde(default)]
    pub(crate) stderr_contains: Vec<String>,
    #[serde(default)]
    pub(crate) exit: i32,
    /// Tools without which this run makes no sense.
    #[serde(default)]
    pub(crate) needs: Vec<Tool>,
}

/// Values of the placeholders.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub(crate) bins: BTreeMap<String, PathBuf>,
    pub(crate) bin_dir: PathBuf,
    pub(crate) dir: PathBuf,
}

/// The runs in a package's `metadata` table.
///
/// # Errors
/// There is none, or one that has a field of the wrong name or type.
pub(crate) fn runs(metadata: &Value) -> anyhow::Result<Vec<RunSpec>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Table {
        runs: Vec<RunSpec>,
    }
    let Some(table) = metadata.get("sample") else {
        bail!("it is missing, so nothing says how to run it")
    };
    let table: Table = serde_json::from_value(table.clone()).context("cannot understand it")?;
    if table.runs.is_empty() {
        bail!("`runs` is empty, so nothing is checked");
    }
    Ok(table.runs)
}

impl RunSpec {
    /// The same run with the placeholders filled in.
    ///
    /// # Errors
    /// A program is named that was not built.
    pub(crate) fn expand(&self, places: &Places) -> anyhow::Result<Self> {
        let all = |texts: &[String]| {
            texts.iter().map(|text| places.expand(text)).collect::<anyhow::Result<Vec<_>>>()
        };
        let one =
            |text: &Option<String>| text.as_deref().map(|text| places.expand(text)).transpose();
        let mut env = BTreeMap::new();
        for (name, value) in &self.env {
            env.insert(name.clone(), places.expand(value)?);
        }
        Ok(Self {
            bin: places.expand(&self.bin)?,
            args: all(&self.args)?,
            stdin: one(&self.stdin)?,
            env,
            stdout: one(&self.stdout)?,
            stdout_contains: all(&self.stdout_contains)?,
            stderr_contains: all(&self.stderr_contains)?,
            exit: self.exit,
            needs: self.needs.clone(),
        })
    }
}

impl Places {
    pub(crate) fn of_sample(&self, dir: &Path) -> Self {
        Self { dir: dir.to_owned(), ..self.clone() }
    }

    pub(crate) fn bin<'a>(&'a self, name: &'a str) -> anyhow::Result<&'a Path> {
        if name.contains('/') {
            return Ok(Path::new(name));
        }
        let known = || self.bins.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        Ok(self
            .bins
            .get(name)
            .with_context(|| format!("cargo built no program {name}, only {}", known()))?)
    }

    /// Other braces than those of a placeholder, as in JSON, stay as they are.
    fn expand(&self, text: &str) -> anyhow::Result<String> {
        const BIN: &str = "{bin:";
        let text = text
            .replace("{bin-dir}", &self.bin_dir.to_string_lossy())
            .replace("{dir}", &self.dir.to_string_lossy());
        let mut expanded = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once(BIN) {
            let (name, after) = after
                .split_once('}')
                .with_context(|| format!("a brace is missing after {BIN} in {text:?}"))?;
            expanded.push_str(before);
            expanded.push_str(&self.bin(name)?.to_string_lossy());
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

fn cli() -> String {
    super::CLI.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn places() -> Places {
        let bins = BTreeMap::from([("echo".to_owned(), PathBuf::from("/t/debug/echo"))]);
        Places { bins, bin_dir: PathBuf::from("/t/debug"), dir: PathBuf::from("/p/samples/echo") }
    }

    #[test]
    fn a_run_says_everything_or_little() {
        let metadata = json!({ "sample": { "runs": [
            { "args": ["run", "{bin:echo}"], "bin": "other", "stdin": "in", "env": { "A": "b" }, "stdout": "x\n",
              "stdout-contains": ["x"], "stderr-contains": ["y"], "exit": 2, "needs": ["docker", "cargo-fuzz"] },
            { "args": [] },
        ] } });
        let runs = runs(&metadata).unwrap();
        assert_eq!((runs[0].bin.as_str(), runs[0].exit), ("other", 2));
        assert_eq!(runs[0].needs, [Tool::Docker, Tool::CargoFuzz]);
        assert_eq!((runs[1].bin.as_str(), runs[1].exit, &runs[1].stdout), ("pipeplug", 0, &None));
    }

    #[test]
    fn a_sample_without_runs_is_an_error() {
        assert!(runs(&Value::Null).is_err());
        assert!(runs(&json!({})).is_err());
        assert!(runs(&json!({ "sample": { "runs": [] } })).is_err());
    }

    #[test]
    fn a_field_that_is_misspelt_is_an_error() {
        let metadata = json!({ "sample": { "runs": [{ "args": [], "stdout_contains": ["x"] }] } });
        let error = format!("{:#}", runs(&metadata).unwrap_err());
        assert!(error.contains("unknown field `stdout_contains`"), "{error}");
    }

    #[test]
    fn placeholders_are_filled_in_and_other_braces_stay() {
        let expand = |text| places().expand(text).unwrap();
        assert_eq!(expand("{bin:echo},{bin:echo}"), "/t/debug/echo,/t/debug/echo");
        assert_eq!(expand("{bin-dir}/x {dir}/y"), "/t/debug/x /p/samples/echo/y");
        assert_eq!(expand(r#"{"a":{"b":1}}"#), r#"{"a":{"b":1}}"#);
    }

    #[test]
    fn a_program_that_was_not_built_is_an_error_that_lists_those_there_are() {
        let error = places().expand("{bin:x}").unwrap_err().to_string();
        assert_eq!(error, "cargo built no program x, only echo");
        assert!(places().expand("{bin:echo").is_err());
    }
}
