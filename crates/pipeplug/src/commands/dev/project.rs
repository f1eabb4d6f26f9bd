//! Project of a plugin: how it is built, and which file is the plugin.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pipeplug_host::discovery::nearest_name;

use crate::args::config_file;
use crate::exit::{CommandError, ExitReason};
use crate::output::text::{self, Escaped};

/// Advice for a project whose plugin is not found.
const ADVICE: &str = "say which file it is in pipeplug.toml of the project: [dev] run = \"./FILE\"";

/// Project in a directory.
#[derive(Debug)]
pub(super) struct Project {
    pub(super) dir: PathBuf,
    /// Name of the directory.
    pub(super) name: String,
    /// Command that builds it, which runs in the directory. Empty if there is nothing to build.
    pub(super) build: Vec<OsString>,
    program: Program,
}

/// File of the plugin.
#[derive(Debug)]
enum Program {
    /// A file, with arguments.
    File(PathBuf, Vec<OsString>),
    /// An executable that cargo tells.
    OfCargo,
    /// One of these files, the first that is there and executable, or else the only executable one of the
    /// directory with this extension.
    Among(Vec<PathBuf>, Option<&'static str>),
}

/// Table `[dev]` of `pipeplug.toml`.
#[derive(Debug, Default)]
struct DevTable {
    build: Option<Words>,
    run: Option<Words>,
}

/// A command: a line, or its words.
#[derive(Debug)]
enum Words {
    Line(String),
    Words(Vec<String>),
}

impl Project {
    /// Finds out how the project is built. `build` is the command of the command line, or empty.
    ///
    /// # Errors
    /// There is no such directory, or it is not known how to build it.
    pub(super) fn of(path: &Path, build: &[OsString]) -> Result<Self, CommandError> {
        let shown = text::short_path(path);
        let usage = |message: String| CommandError::message(ExitReason::Usage, message);
        let path = fs::canonicalize(path).map_err(|error| usage(not_found(&shown, &error)))?;
        if path.is_file() {
            // A plugin without a project.
            let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
            let name = file_name(&path);
            let program = Program::File(path, Vec::new());
            return Ok(Self { dir, name, build: build.to_owned(), program });
        }
        let name = file_name(&path);
        let table = read_table(&path)?;
        let found = detect(&path, &name);
        let (found_build, found_program) = found.unzip();
        let build = match (build, table.build) {
            ([_, ..], _) => of_cargo(build, matches!(found_program, Some(Program::OfCargo))),
            ([], Some(words)) => words.command(),
            ([], None) => found_build.unwrap_or_default(),
        };
        let program = match (table.run, found_program) {
            (Some(run), _) => {
                let mut words = run.split().map_err(usage)?.into_iter();
                let file = words.next().ok_or_else(|| {
                    usage(
                        "[dev] run is empty; write the path of the plugin, as in run = \"./plugin\""
                            .to_owned(),
                    )
                })?;
                Program::File(path.join(file), words.map(OsString::from).collect())
            }
            // What cargo builds by another command is where cargo puts it.
            (None, Some(Program::OfCargo)) if !is_cargo_build(&build) => {
                Program::Among(vec![path.join("target/debug").join(&name)], None)
            }
            (None, Some(program)) => program,
            (None, None) if !build.is_empty() => Program::Among(vec![path.join(&name)], None),
            (None, None) => {
                return Err(usage(format!(
                    "{shown} is no project that can be built: there is no Cargo.toml, package.json, \
                     go.mod or Makefile, and no executable .py or .sh; {ADVICE}"
                )));
            }
        };
        Ok(Self { dir: path, name, build, program })
    }

    /// True if cargo tells the file of the plugin, on the stdout of the build.
    pub(super) fn asks_cargo(&self) -> bool {
        matches!(self.program, Program::OfCargo)
    }

    /// File of the plugin, and its arguments. `built` are the executables that cargo tells.
    ///
    /// # Errors
    /// There is none, or it is not clear which one it is.
    pub(super) fn program(
        &self,
        built: &[PathBuf],
    ) -> Result<(PathBuf, Vec<OsString>), CommandError> {
        let failed = |message: String| CommandError::message(ExitReason::NotFound, message);
        match &self.program {
            Program::File(file, args) if file.is_file() => Ok((file.clone(), args.clone())),
            Program::File(file, _) => {
                Err(failed(format!("there is no {}; [dev] run names it", text::short_path(file))))
            }
            Program::OfCargo => {
                let named = |path: &&PathBuf| file_name(path) == self.name;
                match (built, built.iter().find(named)) {
                    (_, Some(path)) | ([path], None) => Ok((path.clone(), Vec::new())),
                    ([], None) => Err(failed(format!("cargo has built no executable; {ADVICE}"))),
                    (several, None) => Err(failed(format!(
                        "cargo has built several executables ({}); {ADVICE}",
                        list(several)
                    ))),
                }
            }
            Program::Among(files, extension) => {
                if let Some(file) = files.iter().find(|file| is_executable(file)) {
                    return Ok((file.clone(), Vec::new()));
                }
                if let Some(file) = files.iter().find(|file| file.is_file()) {
                    let file = text::short_path(file);
                    return Err(failed(format!(
                        "{file} is not executable: `chmod +x {file}` makes it so"
                    )));
                }
                let others = extension.map(|it| executables(&self.dir, it)).unwrap_or_default();
                match others.as_slice() {
                    [file] => Ok((file.clone(), Vec::new())),
                    [] => Err(failed(format!("there is no {}; {ADVICE}", list(files)))),
                    several => Err(failed(format!(
                        "there are several executable files ({}); {ADVICE}",
                        list(several)
                    ))),
                }
            }
        }
    }
}

/// Command and program of a project of a usual kind.
fn detect(dir: &Path, name: &str) -> Option<(Vec<OsString>, Program)> {
    let has = |file: &str| dir.join(file).is_file();
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    if has("Cargo.toml") {
        return Some((of_cargo(&words(&["cargo", "build"]), true), Program::OfCargo));
    }
    if has("package.json") {
        let (file, has_build) = package_json(dir).unwrap_or_default();
        let build =
            if has_build { words(&["npm", "run", "--silent", "build"]) } else { Vec::new() };
        let files = file.into_iter().map(|file| dir.join(file)).collect::<Vec<_>>();
        let files = if files.is_empty() { vec![dir.join(format!("{name}.js"))] } else { files };
        return Some((build, Program::Among(files, Some("js"))));
    }
    if has("go.mod") {
        // Without a version behind it, as `go build` does.
        let module = go_module(dir).unwrap_or_else(|| name.to_owned());
        let build = words(&["go", "build", "-o", &module, "."]);
        return Some((build, Program::Among(vec![dir.join(module)], None)));
    }
    if has("Makefile") || has("makefile") || has("GNUmakefile") {
        return Some((words(&["make"]), Program::Among(vec![dir.join(name)], None)));
    }
    let module = name.replace('-', "_");
    let python = [format!("{module}.py"), "plugin.py".into(), "main.py".into()];
    if has("pyproject.toml") || has(&python[0]) || !executables(dir, "py").is_empty() {
        let files = python.iter().map(|file| dir.join(file)).collect();
        return Some((Vec::new(), Program::Among(files, Some("py"))));
    }
    let sh = format!("{name}.sh");
    if has(&sh) || !executables(dir, "sh").is_empty() {
        return Some((Vec::new(), Program::Among(vec![dir.join(sh)], Some("sh"))));
    }
    None
}

/// File of the plugin in a package.json, and whether it has a script for the build.
fn package_json(dir: &Path) -> Option<(Option<String>, bool)> {
    let text = fs::read(dir.join("package.json")).ok()?;
    let package: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let bin = match &package["bin"] {
        serde_json::Value::Object(bins) => bins.values().next().and_then(|it| it.as_str()),
        bin => bin.as_str(),
    };
    let file = bin.or_else(|| package["main"].as_str()).map(str::to_owned);
    Some((file, package["scripts"]["build"].is_string()))
}

/// Last part of the path of a Go module.
fn go_module(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join("go.mod")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("module "))?.trim().trim_matches('"');
    let is_version = |part: &&str| {
        part.strip_prefix('v').is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_digit()))
    };
    path.rsplit('/').find(|part| !is_version(part)).map(str::to_owned)
}

/// Has cargo tell its executables on stdout, and errors on stderr as it does without.
fn of_cargo(build: &[OsString], asks: bool) -> Vec<OsString> {
    let mut build = build.to_owned();
    let names_format =
        build.iter().any(|word| word.to_string_lossy().starts_with("--message-format"));
    if asks && is_cargo_build(&build) && !names_format {
        build.insert(2, "--message-format=json-render-diagnostics".into());
    }
    build
}

fn is_cargo_build(build: &[OsString]) -> bool {
    matches!(build, [cargo, build, ..] if cargo == "cargo" && (build == "build" || build == "b"))
}

/// Executable files of the directory itself with this extension, but tests.
fn executables(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == extension) && is_executable(path))
        .filter(|path| !file_name(path).starts_with("test"))
        .collect();
    files.sort();
    files
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
}

fn read_table(dir: &Path) -> Result<DevTable, CommandError> {
    let path = dir.join(config_file::NAME);
    let Some(text) = config_file::read_trusted(&path)? else { return Ok(DevTable::default()) };
    let usage = |error: &dyn std::fmt::Display| {
        let message = format!("{}: [dev]: {error}", text::short_path(&path));
        CommandError::message(ExitReason::Usage, message)
    };
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| usage(&error.message()))?;
    let mut read = DevTable::default();
    let dev = match table.remove(config_file::DEV) {
        None => return Ok(read),
        Some(toml::Value::Table(dev)) => dev,
        Some(_) => return Err(usage(&"it is no table; write [dev] in a line of its own")),
    };
    for (key, value) in dev {
        let place = match key.as_str() {
            "build" => &mut read.build,
            "run" => &mut read.run,
            other => {
                let hint = match nearest_name(other, ["build", "run"].into_iter()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => "there are `build` and `run`".to_owned(),
                };
                return Err(usage(&format!("unknown key `{}`; {hint}", Escaped(other))));
            }
        };
        *place = Some(Words::of(value).ok_or_else(|| {
            usage(&format!(
                "{key} is no command; write a line, {key} = \"./x a\", or a list of words, {key} = \
                 [\"./x\", \"a\"]"
            ))
        })?);
    }
    Ok(read)
}

impl Words {
    fn of(value: toml::Value) -> Option<Self> {
        match value {
            toml::Value::String(line) => Some(Self::Line(line)),
            toml::Value::Array(words) => {
                let words = words.into_iter().map(|word| word.as_str().map(str::to_owned));
                words.collect::<Option<_>>().map(Self::Words)
            }
            _ => None,
        }
    }

    /// Command for a line, which a shell reads, or for its words.
    fn command(self) -> Vec<OsString> {
        match self {
            Self::Line(line) if line.trim().is_empty() => Vec::new(),
            Self::Line(line) => vec!["sh".into(), "-c".into(), line.into()],
            Self::Words(words) => words.into_iter().map(OsString::from).collect(),
        }
    }

    /// Words of a line, in which quotes group.
    fn split(self) -> Result<Vec<String>, String> {
        match self {
            Self::Line(line) => shlex::split(&line).ok_or_else(|| {
                format!("[dev] run has a quote without its end: {}", Escaped(&line))
            }),
            Self::Words(words) => Ok(words),
        }
    }
}

fn not_found(shown: &str, error: &std::io::Error) -> String {
    if shown.starts_with('@') {
        return format!(
            "{shown} is built into this program, and never changes: dev builds a project and replaces \
             its plugin; `pipeplug shell {shown}` talks to it"
        );
    }
    format!(
        "no project in {shown}: {error}; name its directory, or the file of a plugin, and not the name \
         of an installed one; `pipeplug new` makes a project"
    )
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn list(files: &[PathBuf]) -> String {
    let names: Vec<_> = files.iter().map(|file| text::short_path(file)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A project with these files, the executable ones with a `*` before their name.
    fn project(
        name: &str,
        files: &[(&str, &str)],
        build: &[&str],
    ) -> (tempfile::TempDir, Result<Project, String>) {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join(name);
        fs::create_dir(&dir).unwrap();
        for (file, text) in files {
            let path = dir.join(file.trim_start_matches('*'));
            fs::write(&path, text).unwrap();
            let mode = if file.starts_with('*') { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let build: Vec<_> = build.iter().map(OsString::from).collect();
        let project =
            Project::of(&dir, &build).map_err(|failure| format!("{:#}", failure.error.unwrap()));
        (parent, project)
    }

    #[track_caller]
    fn check(name: &str, files: &[(&str, &str)], build: &[&str], command: &str, program: &str) {
        let (_dir, project) = project(name, files, build);
        let project = project.unwrap();
        let words: Vec<_> = project.build.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join(" "), command);
        let built = [project.dir.join("target/debug").join(name)];
        let (file, args) = project.program(&built).unwrap();
        let args: Vec<_> = args.iter().map(|word| word.to_str().unwrap()).collect();
        let file = file.strip_prefix(&project.dir).unwrap().to_str().unwrap().to_owned();
        assert_eq!([&[file.as_str()][..], &args].concat().join(" "), program);
    }

    #[test]
    fn usual_kinds_are_known() {
        let cargo = "cargo build --message-format=json-render-diagnostics";
        check("a", &[("Cargo.toml", ""), ("Makefile", "")], &[], cargo, "target/debug/a");
        check(
            "a",
            &[("Cargo.toml", "")],
            &["cargo", "b", "-r"],
            "cargo b --message-format=json-render-diagnostics -r",
            "target/debug/a",
        );
        check(
            "a",
            &[("go.mod", "module example.org/x/spell/v2\n"), ("*spell", "")],
            &[],
            "go build -o spell .",
            "spell",
        );
        check("a", &[("package.json", r#"{"bin":"./x.js"}"#), ("*x.js", "")], &[], "", "x.js");
        let scripts = r#"{"bin":{"x":"dist/x.js"},"scripts":{"build":"tsc"}}"#;
        let (_dir, built) = project("a", &[("package.json", scripts)], &[]);
        assert_eq!(built.unwrap().build.join(std::ffi::OsStr::new(" ")), "npm run --silent build");
        check("a", &[("Makefile", ""), ("*a", "")], &[], "make", "a");
        check("a", &[("Makefile", ""), ("*a", "")], &["make", "-j"], "make -j", "a");
        check(
            "a-b",
            &[("*a_b.py", ""), ("pipeplug.py", ""), ("*test_a_b.py", "")],
            &[],
            "",
            "a_b.py",
        );
        check("a", &[("*b.sh", ""), ("*test.sh", ""), ("pipeplug.sh", "")], &[], "", "b.sh");
    }

    #[test]
    fn the_file_of_the_project_comes_first() {
        let file = "[plugins.a]\nstdio = true\n[dev]\nbuild = \"make x && y\"\nrun = \"./a --fast 'b c'\"\n";
        let files = [("pipeplug.toml", file), ("Makefile", ""), ("*a", "")];
        check("a", &files, &[], "sh -c make x && y", "a --fast b c");
        check("a", &files, &["make", "z"], "make z", "a --fast b c");
        let lists = "[dev]\nbuild = [\"make\", \"x y\"]\nrun = [\"a\", \"-q\"]\n";
        check("a", &[("pipeplug.toml", lists), ("*a", "")], &[], "make x y", "a -q");
    }

    #[test]
    fn mistakes_have_a_next_step() {
        let error = |files: &[(&str, &str)]| {
            let (_dir, project) = project("a", files, &[]);
            let result = project.and_then(|project| {
                project.program(&[]).map_err(|failure| format!("{:#}", failure.error.unwrap()))
            });
            result.unwrap_err()
        };
        assert!(
            error(&[("x", "")])
                .contains("there is no Cargo.toml, package.json, go.mod or Makefile")
        );
        assert!(error(&[("a.sh", "")]).contains("is not executable: `chmod +x "));
        assert!(error(&[("*b.sh", ""), ("*c.sh", "")]).contains("several executable files"));
        assert!(error(&[("Cargo.toml", "")]).contains("cargo has built no executable; say which"));
        assert!(error(&[("Makefile", "")]).contains("[dev] run = "));
        for (text, told) in [
            ("[dev]\nbiuld = \"x\"", "unknown key `biuld`; did you mean `build`?"),
            ("[dev]\nbuild = 3", "build is no command; write a line, build = \"./x a\", or a list"),
            ("[dev]\nrun = [\"a\", 1]", "run is no command; write a line"),
            ("dev = 3", "it is no table; write [dev]"),
        ] {
            let error = error(&[("pipeplug.toml", text)]);
            assert!(error.contains(told), "{error}");
        }
    }
}
