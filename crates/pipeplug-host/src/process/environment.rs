//! Variables that plugins often need and do not get unasked.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;

use super::EnvPlan;
use super::executable::Executable;
use crate::files::RegularFile;

/// As much of a `#!` line as the kernel reads.
const LINE_MAX: u64 = 256;

/// A loader, language or tool, with the variables that it reads.
struct Reader {
    /// Words in lower case for it: of the plugin's file name, of its interpreter, and of what it
    /// wrote.
    words: &'static [&'static str],
    /// Parts of what it writes where it lacks something.
    says: &'static [&'static str],
    variables: &'static [&'static str],
    /// The beginnings of further names.
    prefixes: &'static [&'static str],
}

impl Reader {
    const fn new(
        words: &'static [&'static str],
        says: &'static [&'static str],
        variables: &'static [&'static str],
        prefixes: &'static [&'static str],
    ) -> Self {
        Self { words, says, variables, prefixes }
    }

    fn reads(&self, name: &str) -> bool {
        self.variables.contains(&name) || self.prefixes.iter().any(|it| name.starts_with(it))
    }

    /// Tells whether a plugin has to do with it.
    fn fits(&self, words: &HashSet<String>, stderr: &[String]) -> bool {
        self.words.iter().any(|word| words.contains(*word))
            || stderr.iter().any(|line| self.says.iter().any(|part| line.contains(part)))
    }
}

/// Readers, and within each the most telling variables first; those of programs that choose between
/// versions, which many users have set for good, stand last.
const READERS: [Reader; 16] = [
    Reader::new(
        &[],
        &["shared librar", "shared object", "GLIBC", "dyld", "Library not loaded"],
        &["LD_LIBRARY_PATH", "LD_PRELOAD", "NIX_LD", "NIX_LD_LIBRARY_PATH"],
        &["DYLD_"],
    ),
    Reader::new(&["locale"], &[], &["LOCALE_ARCHIVE"], &[]),
    Reader::new(
        &["python", "py", "pypy", "pyenv", "pip", "uv", "conda", "virtualenv", "venv"],
        &["No module named", "ImportError", "Traceback (most recent call last)"],
        &[
            "PYTHONHOME",
            "PYTHONPATH",
            "PYTHONUSERBASE",
            "VIRTUAL_ENV",
            "CONDA_PREFIX",
            "PYENV_VERSION",
            "PYENV_ROOT",
        ],
        &[],
    ),
    Reader::new(
        &[
            "node", "nodejs", "js", "cjs", "mjs", "ts", "npm", "npx", "nodenv", "nvm", "fnm",
            "volta",
        ],
        &["Cannot find module", "Cannot find package"],
        &[
            "NODE_OPTIONS",
            "NODE_PATH",
            "NODE_EXTRA_CA_CERTS",
            "NODENV_VERSION",
            "NODENV_ROOT",
            "NVM_BIN",
            "NVM_DIR",
            "FNM_DIR",
            "VOLTA_HOME",
        ],
        &[],
    ),
    Reader::new(
        &["java", "jar", "jvm", "jdk", "jre", "groovy", "kotlin", "scala", "sdkman"],
        &[
            "ClassNotFoundException",
            "Could not find or load main class",
            "Exception in thread",
            "JAVA_",
        ],
        &[
            "CLASSPATH",
            "JAVA_HOME",
            "JAVA_OPTS",
            "JAVA_TOOL_OPTIONS",
            "JDK_JAVA_OPTIONS",
            "_JAVA_OPTIONS",
            "SDKMAN_DIR",
        ],
        &[],
    ),
    Reader::new(
        &["ruby", "rb", "gem", "bundle", "bundler", "rbenv", "jruby"],
        &["cannot load such file", "LoadError"],
        &[
            "BUNDLE_GEMFILE",
            "GEM_HOME",
            "GEM_PATH",
            "RUBYLIB",
            "RUBYOPT",
            "RBENV_VERSION",
            "RBENV_ROOT",
        ],
        &[],
    ),
    Reader::new(
        &["perl", "pl"],
        &["in @INC"],
        &["PERL5LIB", "PERL5OPT", "PERL_LOCAL_LIB_ROOT"],
        &[],
    ),
    Reader::new(&["dotnet"], &["DOTNET_", "install .NET"], &["DOTNET_ROOT"], &[]),
    Reader::new(&["erl", "erlang", "escript", "elixir", "iex"], &[], &["ERL_LIBS"], &[]),
    Reader::new(&["julia", "jl"], &[], &["JULIA_DEPOT_PATH", "JULIA_LOAD_PATH"], &[]),
    Reader::new(&["lua", "luajit"], &[], &["LUA_CPATH", "LUA_PATH"], &[]),
    Reader::new(&["php"], &[], &["PHPRC", "PHP_INI_SCAN_DIR"], &[]),
    Reader::new(&["rscript"], &["there is no package called"], &["R_HOME", "R_LIBS"], &[]),
    Reader::new(&["tcl", "tclsh", "wish"], &["can't find package"], &["TCLLIBPATH"], &[]),
    Reader::new(&[], &["GOPATH", "GOROOT"], &["GOPATH", "GOROOT"], &[]),
    Reader::new(&["asdf", "mise"], &[], &[], &["ASDF_", "MISE_"]),
];

/// The names of those that are set in the host's environment, that a plugin does not get, and that
/// what it is written in, or runs on, reads; the most telling ones first.
pub(crate) fn dropped(plan: &EnvPlan, program: &Path, stderr: &[String]) -> Vec<String> {
    let words = words_about(program, stderr);
    let names = env::vars_os().map(|(name, _)| name);
    let names: Vec<_> = names.filter_map(|name| dropped_name(plan, &name)).collect();
    let mut dropped = Vec::new();
    for reader in READERS.iter().filter(|reader| reader.fits(&words, stderr)) {
        let mut read: Vec<_> = names.iter().filter(|name| reader.reads(name)).cloned().collect();
        read.sort_by_key(|name| {
            let rank = reader.variables.iter().position(|known| known == name);
            (rank.unwrap_or(usize::MAX), name.clone())
        });
        dropped.extend(read);
    }
    dropped
}

fn dropped_name(plan: &EnvPlan, name: &OsStr) -> Option<String> {
    let text = name.to_str()?;
    let is_often_needed = READERS.iter().any(|reader| reader.reads(text));
    // One that the host has set, or left out, is no oversight.
    let is_decided = plan.passes(name) || plan.names().any(|known| known == name);
    (is_often_needed && !is_decided).then(|| text.to_owned())
}

/// Words of the plugin's file name, of its `#!` line, and of what it wrote, in lower case and
/// without the number of a version at their end.
fn words_about(program: &Path, stderr: &[String]) -> HashSet<String> {
    let mut texts = stderr.to_vec();
    texts.extend(program.file_name().map(|name| name.to_string_lossy().into_owned()));
    if let Ok(executable) = Executable::inspect(program) {
        texts.extend(executable.interpreter().map(|path| path.to_string_lossy().into_owned()));
        if let Executable::Script { .. } = executable {
            texts.extend(first_line(program));
        }
    }
    let words = texts.iter().flat_map(|text| text.split(|char: char| !char.is_alphanumeric()));
    words
        .map(|word| word.trim_end_matches(|char: char| char.is_ascii_digit()).to_lowercase())
        .collect()
}

/// The `#!` line, which names what `env` runs.
fn first_line(script: &Path) -> Option<String> {
    let mut head = Vec::new();
    let file = RegularFile::open(script).ok()?.into_file();
    file.take(LINE_MAX).read_to_end(&mut head).ok()?;
    let line = head.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_decided_is_not_named() {
        let name = |plan: &EnvPlan| dropped_name(plan, OsStr::new("PYTHONPATH"));
        let mut plan = EnvPlan::default();
        assert_eq!(name(&plan).as_deref(), Some("PYTHONPATH"));
        assert_eq!(
            dropped_name(&plan, OsStr::new("ASDF_PYTHON_VERSION")).as_deref(),
            Some("ASDF_PYTHON_VERSION")
        );
        assert_eq!(dropped_name(&plan, OsStr::new("AWS_SECRET_ACCESS_KEY")), None);
        assert_eq!(dropped_name(&plan, OsStr::new("LC_ALL")), None);
        assert_eq!(name(&EnvPlan::inherit()), None);
        plan.pass("PYTHONPATH");
        assert_eq!(name(&plan), None);
        assert_eq!(name(EnvPlan::default().remove("PYTHONPATH")), None);
        assert_eq!(name(EnvPlan::default().set("PYTHONPATH", "/x")), None);
    }

    #[test]
    fn only_what_the_program_reads_fits() {
        let fits = |program: &str, line: &str| {
            let stderr = [line.to_owned()];
            let words = words_about(Path::new(program), &stderr);
            let fitting = READERS.iter().filter(|reader| reader.fits(&words, &stderr));
            fitting.filter_map(|reader| reader.variables.first()).copied().collect::<Vec<_>>()
        };
        assert!(fits("/bin/cat", "cat: x: No such file or directory").is_empty());
        assert_eq!(fits("/p/spell.py", ""), ["PYTHONHOME"]);
        assert_eq!(fits("/p/spell", "/usr/bin/python3.12: can't open file"), ["PYTHONHOME"]);
        assert_eq!(fits("/p/spell", "No module named 'x'"), ["PYTHONHOME"]);
        assert_eq!(fits("/p/spell.cjs", "Error"), ["NODE_OPTIONS"]);
        assert_eq!(
            fits("/p/spell", "error while loading shared libraries: x"),
            ["LD_LIBRARY_PATH"]
        );
        let script = std::env::temp_dir().join(format!("words-{}", std::process::id()));
        std::fs::write(&script, "#!/usr/bin/env -S ruby -w\nputs 1\n").unwrap();
        assert_eq!(fits(script.to_str().unwrap(), "it failed"), ["BUNDLE_GEMFILE"]);
        std::fs::remove_file(script).unwrap();
    }
}
