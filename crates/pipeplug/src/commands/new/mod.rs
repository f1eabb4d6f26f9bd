//! `pipeplug new`: makes the project of a plugin.

mod name;
mod templates;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum as _};

use self::name::Name;
use self::templates::{Language, Library, Template};
use crate::cli::Globals;
use crate::exit::{self, CommandError, ExitReason};
use crate::output::report;
use crate::output::text;

const EXAMPLES: &str = "\
Examples:
  pipeplug new hello --lang python && cd hello && python3 -m unittest
  pipeplug new hello --path ~/src/pipeplug && cd hello && cargo test
  pipeplug new --list";

/// Version of the crates, which is that of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Crates that the project in Rust uses, each a placeholder in its Cargo.toml.
const CRATES: [&str; 3] = ["pipeplug-guest", "pipeplug-service", "pipeplug-testkit"];

/// Make the project of a plugin, with a test
///
/// Makes a directory NAME with a plugin that builds, passes its test, and passes `pipeplug conform`, and
/// says what to do next. Nothing that exists is changed. Except in Rust the project has a copy of all that it
/// needs: the library for its language.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
pub(crate) struct NewArgs {
    /// Name of the plugin and its directory: lowercase letters, digits, `-` and `_`
    #[arg(value_name = "NAME", required_unless_present = "list")]
    name: Option<String>,

    /// Language of the project
    #[arg(long, value_name = "LANG", value_enum, default_value = "rust")]
    lang: Language,

    /// Take the crates for Rust from DIR, a checkout of pipeplug
    ///
    /// By default the project depends on their version of this program, which is not published yet.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,

    /// List the languages, and what each needs
    #[arg(long, conflicts_with_all = ["name", "path"])]
    list: bool,
}

/// Runs `pipeplug new`.
pub(crate) fn run(args: &NewArgs, globals: &Globals) -> ExitReason {
    report::exit_reason(globals.color, attempt(args).map(|()| ExitReason::Success))
}

fn attempt(args: &NewArgs) -> Result<(), CommandError> {
    let Some(name) = args.name.as_deref() else { return report::print(&list()) };
    let name = Name::parse(name)?;
    let template = args.lang.template();
    if args.path.is_some() && args.lang != Language::Rust {
        let message = format!("--path is for Rust; {} needs no crates of pipeplug", template.title);
        return Err(CommandError::message(ExitReason::Usage, message));
    }
    let checkout = args.path.as_deref().map(checkout).transpose()?;
    let fill = |text: &str| filled(text, &name, checkout.as_deref());
    let dir = Path::new(name.as_str());
    fs::create_dir(dir).map_err(|error| not_made(dir, &error))?;
    if let Err((file, error)) = write_all(dir, template, &fill) {
        // Only what was made just now is in it. If that fails as well, the first error counts.
        let _ = fs::remove_dir_all(dir);
        let message = format!("cannot write {}: {error}", text::short_path(&file));
        return Err(CommandError::message(ExitReason::Failed, message));
    }
    report::print(&told(&name, args.lang, &fill, checkout.is_some()))
}

/// Path of a checkout of pipeplug.
fn checkout(dir: &Path) -> Result<String, CommandError> {
    let wrong = |problem: &str| {
        let message =
            format!("--path {} is no checkout of pipeplug: {problem}", text::short_path(dir));
        CommandError::message(ExitReason::Usage, message)
    };
    let dir = fs::canonicalize(dir).map_err(|error| wrong(&error.to_string()))?;
    for name in CRATES {
        let manifest = dir.join("crates").join(name).join("Cargo.toml");
        if !manifest.is_file() {
            return Err(wrong(&format!("there is no {}", text::short_path(&manifest))));
        }
    }
    dir.into_os_string().into_string().map_err(|_| wrong("its path is not UTF-8"))
}

fn not_made(dir: &Path, error: &io::Error) -> CommandError {
    let dir = text::short_path(dir);
    let message = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{dir} exists already, and is left as it is; choose another name, or remove it")
        }
        _ => format!("cannot make the directory {dir}: {error}"),
    };
    CommandError::message(ExitReason::Failed, message)
}

/// Writes the files, none of which exists.
fn write_all(
    dir: &Path,
    template: &Template,
    fill: &impl Fn(&str) -> String,
) -> Result<(), (PathBuf, io::Error)> {
    for file in template.files {
        // The umask takes away what the user does not want.
        let mode = if file.is_executable { 0o777 } else { 0o666 };
        write_one(dir.join(fill(file.name)), mode, fill(file.text).as_bytes())?;
    }
    for (name, content) in template.library.iter().flat_map(Library::files) {
        write_one(dir.join(name), 0o666, content)?;
    }
    Ok(())
}

fn write_one(path: PathBuf, mode: u32, content: &[u8]) -> Result<(), (PathBuf, io::Error)> {
    let write = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        out.write_all(content)
    };
    write().map_err(|error| (path, error))
}

/// Replaces the placeholders.
fn filled(text: &str, name: &Name, checkout: Option<&str>) -> String {
    let mut text = text.replace("{{name}}", name.as_str()).replace("{{module}}", &name.module());
    for crate_name in CRATES {
        let source = match checkout {
            // A JSON string is one of TOML.
            Some(dir) => {
                format!("path = {}", text::json_string(&format!("{dir}/crates/{crate_name}")))
            }
            None => format!("version = \"{VERSION}\""),
        };
        text = text.replace(&format!("{{{{{crate_name}}}}}"), &source);
    }
    text
}

/// Files that were made, and what to do next.
fn told(name: &Name, lang: Language, fill: &impl Fn(&str) -> String, has_checkout: bool) -> String {
    let template = lang.template();
    let mut text = format!("made {}, a plugin in {}:\n", name.as_str(), template.title);
    let files = template.files.iter().map(|file| (fill(file.name), file.purpose.unwrap_or("")));
    let library = template.library.map(|library| (library.name.to_owned(), "the library"));
    let files: Vec<_> = files.chain(library).collect();
    let width = files.iter().map(|(file, _)| file.len()).max().unwrap_or(0);
    for (file, purpose) in files {
        text.push_str(format!("  {file:width$}  {purpose}").trim_end());
        text.push('\n');
    }
    text.push_str(&format!("\nnext:\n  cd {}\n", name.as_str()));
    for line in template.next {
        text.push_str(&format!("  {}\n", fill(line)));
    }
    text.push_str("  pipeplug dev .   # builds and runs it, and replaces it after each change\n");
    if lang == Language::Rust && !has_checkout {
        text.push_str(&format!(
            "\nThe crates pipeplug-* {VERSION} are not published yet, so that cargo does not find \
             them. With\na checkout of pipeplug in DIR it does:\n  rm -r {name} && pipeplug new {name} --path \
             DIR\n",
            name = name.as_str()
        ));
    }
    text
}

/// The languages.
fn list() -> String {
    let all = Language::value_variants().iter();
    all.map(|lang| {
        let template = lang.template();
        let word = lang.to_possible_value().map(|value| value.get_name().to_owned());
        format!("{:11}{}; needs {}\n", word.unwrap_or_default(), template.title, template.needs)
    })
    .collect()
}
