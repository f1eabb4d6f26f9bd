//! Name of a new plugin.

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Longest name, in bytes.
const LONGEST: usize = 64;

/// Names that one of the languages gives a meaning of its own: keywords, modules of Python that a plugin of
/// this name would hide, and files and targets of a template.
#[rustfmt::skip]
const TAKEN: &[&str] = &[
    "abc", "abstract", "aifc", "all", "alloc", "and", "antigravity", "argparse", "array", "as", "assert",
    "ast", "async", "asynchat", "asyncio", "asyncore", "atexit", "audioop", "await", "base64", "bdb",
    "become", "binascii", "bisect", "box", "break", "build", "builtins", "bz2", "calendar", "case", "cgi",
    "cgitb", "check", "chunk", "class", "clean", "cmath", "cmd", "code", "codecs", "codeop", "collections",
    "colorsys", "compileall", "concurrent", "configparser", "const", "contextlib", "contextvars", "continue",
    "copy", "copyreg", "core", "crate", "crypt", "csv", "ctypes", "curses", "dataclasses", "datetime", "dbm",
    "decimal", "def", "del", "deps", "difflib", "dis", "distutils", "do", "doctest", "elif", "else", "email",
    "encodings", "ensurepip", "enum", "errno", "examples", "except", "extern", "faulthandler", "fcntl",
    "filecmp", "fileinput", "final", "finally", "fn", "fnmatch", "for", "fractions", "from", "ftplib",
    "functools", "gc", "gen", "genericpath", "getopt", "getpass", "gettext", "glob", "global", "graphlib",
    "grp", "gzip", "hashlib", "heapq", "hmac", "html", "http", "idlelib", "if", "imaplib", "imghdr", "imp",
    "impl", "import", "importlib", "in", "incremental", "inspect", "install", "io", "ipaddress", "is",
    "itertools", "json", "keyword", "lambda", "let", "lib2to3", "linecache", "locale", "logging", "loop",
    "lzma", "macro", "mailbox", "mailcap", "main", "marshal", "match", "math", "mimetypes", "mmap", "mod",
    "modulefinder", "move", "msilib", "msvcrt", "multiprocessing", "mut", "netrc", "nis", "nntplib",
    "nonlocal", "not", "nt", "ntpath", "nturl2path", "numbers", "opcode", "operator", "optparse", "or", "os",
    "ossaudiodev", "override", "pass", "pathlib", "pdb", "pickle", "pickletools", "pipeplug", "pipes", "pkgutil",
    "platform", "plistlib", "poplib", "posix", "posixpath", "pprint", "priv", "proc_macro", "profile",
    "protocol", "pstats", "pty", "pub", "pwd", "py_compile", "pyclbr", "pydoc", "pydoc_data", "pyexpat",
    "queue", "quopri", "raise", "random", "re", "readline", "ref", "reprlib", "resource", "return",
    "rlcompleter", "runpy", "sched", "secrets", "select", "selectors", "self", "shelve", "shlex", "shutil",
    "signal", "site", "smtpd", "smtplib", "sndhdr", "socket", "socketserver", "spwd", "sqlite3",
    "sre_compile", "sre_constants", "sre_parse", "ssl", "stat", "static", "statistics", "std", "string",
    "stringprep", "struct", "subprocess", "sunau", "super", "symtable", "sys", "sysconfig", "syslog",
    "tabnanny", "tarfile", "telnetlib", "tempfile", "termios", "test", "textwrap", "this", "threading",
    "time", "timeit", "tkinter", "token", "tokenize", "tomllib", "trace", "traceback", "tracemalloc", "trait",
    "true", "try", "tty", "turtle", "turtledemo", "type", "typeof", "types", "typing", "unicodedata",
    "unittest", "unsafe", "unsized", "urllib", "use", "uu", "uuid", "vendor", "venv", "virtual", "warnings",
    "wave", "weakref", "webbrowser", "where", "while", "winreg", "winsound", "with", "wsgiref", "xdrlib",
    "xml", "xmlrpc", "yield", "zipapp", "zipfile", "zipimport", "zlib", "zoneinfo",
];

/// Name that can be one of a file, a Rust package, a Python module and a Go module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// # Errors
    /// The name cannot be used, with the reason and a name that can.
    pub(super) fn parse(name: &str) -> Result<Self, CommandError> {
        let problem = if name.is_empty() {
            "it is empty".to_owned()
        } else if name.len() > LONGEST {
            format!("it has {} bytes, at most {LONGEST} are allowed", name.len())
        } else if let Some(other) =
            name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-' | '_'))
        {
            let other = other.to_string();
            format!(
                "it has {:?} in it; a name has lowercase letters, digits, `-` and `_`",
                Escaped(&other).to_string()
            )
        } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
            "it does not begin with a lowercase letter".to_owned()
        } else if TAKEN.contains(&name.replace('-', "_").as_str()) {
            "it means something else in one of the languages".to_owned()
        } else {
            return Ok(Self(name.to_owned()));
        };
        let next = Self::near(name).map_or_else(
            || "; choose one such as my-plugin".to_owned(),
            |near| format!("; {} would do", near.0),
        );
        let message =
            format!("{:?} is no name for a plugin: {problem}{next}", Escaped(name).to_string());
        Err(CommandError::message(ExitReason::Usage, message))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Name as a module of Python.
    pub(super) fn module(&self) -> String {
        self.0.replace('-', "_")
    }

    /// A name that is like this one and can be used.
    fn near(name: &str) -> Option<Self> {
        let spelt: String = name
            .rsplit('/')
            .find(|part| !part.is_empty())?
            .chars()
            .flat_map(char::to_lowercase)
            .map(|c| if matches!(c, 'a'..='z' | '0'..='9' | '_') { c } else { '-' })
            .take(LONGEST)
            .collect();
        let spelt = spelt.trim_matches(|c: char| !c.is_ascii_lowercase()).to_owned();
        let is_taken = TAKEN.contains(&spelt.replace('-', "_").as_str());
        let spelt = if is_taken { format!("{spelt}-plugin") } else { spelt };
        (!spelt.is_empty()).then_some(Self(spelt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str) -> String {
        format!("{:#}", Name::parse(name).unwrap_err().error.unwrap())
    }

    #[test]
    fn a_name_fits_every_language() {
        for name in ["hello", "my-plugin", "a", "x_1"] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
        assert_eq!(Name::parse("my-plugin").unwrap().module(), "my_plugin");
        for (name, said) in [
            ("", "it is empty; choose one such as my-plugin"),
            (
                "Hello",
                "it has \"H\" in it; a name has lowercase letters, digits, `-` and `_`; hello would do",
            ),
            (
                "../up",
                "it has \".\" in it; a name has lowercase letters, digits, `-` and `_`; up would do",
            ),
            ("-x", "it does not begin with a lowercase letter; x would do"),
            ("json", "it means something else in one of the languages; json-plugin would do"),
            (
                "proc-macro",
                "it means something else in one of the languages; proc-macro-plugin would do",
            ),
            ("\u{1b}[2J", "it has \"\\\\u{1b}\" in it"),
        ] {
            assert!(problem(name).contains(said), "{name:?}: {}", problem(name));
        }
        assert!(problem(&"a".repeat(65)).contains("65 bytes, at most 64"));
    }

    #[test]
    fn what_is_proposed_can_be_used() {
        for name in ["A b", "1st", "TEST", "über", "a/b/c/", "x!"] {
            let near = Name::near(name).unwrap();
            assert_eq!(Name::parse(near.as_str()).unwrap(), near, "{name}");
        }
        assert_eq!(Name::near("123"), None);
    }
}
