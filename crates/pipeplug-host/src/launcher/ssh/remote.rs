//! The command line that the login shell of the other machine is given.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::launcher::client;
use crate::process::{Launch, SpawnErrorKind};

/// Longest command line, in bytes. It is one argument of ssh here, and of the login shell there,
/// and Linux takes none that is longer (`MAX_ARG_STRLEN`, execve(2)), with the zero byte at its
/// end.
const LINE_MAX: usize = 128 * 1024 - 1;

/// Exit status where the working directory cannot be entered, as `env` has where it fails itself.
pub(super) const NO_DIRECTORY: i32 = 125;
/// Found, but not executable (POSIX, sh(1p), EXIT STATUS).
pub(super) const NOT_EXECUTABLE: i32 = 126;
/// Not found (the same).
pub(super) const NOT_FOUND: i32 = 127;

/// Lines that the script writes to standard error where it does not start the plugin.
pub(super) const CANNOT_ENTER: &str = "pipeplug: cannot enter the working directory";
pub(super) const NO_FILE: &str = "pipeplug: no such file";
pub(super) const A_DIRECTORY: &str = "pipeplug: it is a directory";
pub(super) const NO_PERMISSION: &str = "pipeplug: no permission to execute it";

/// The script for `/bin/sh`: decodes its arguments, and executes them but for the first ones.
///
/// It goes through the login shell within single quotes. There, sh, bash, dash, ksh, zsh, fish,
/// csh, tcsh, rc and elvish agree on everything but `'`, `!`, newlines, and a backslash before a
/// quote or another backslash. It has none of these.
///
/// An argument begins with a letter for its kind: `d` the working directory, `p` the plugin, `w`
/// any other word. What [`encode`] has made of it becomes bytes by `printf %b`: the fields between
/// `_` are joined by the first character of `IFS`, a backslash. The full stop at the end keeps
/// newlines before it, which `$(…)` removes.
const SCRIPT: &str = concat!(
    r#"set -f; IFS="\_"; "#,
    r#"pipeplug_fail() { echo "pipeplug: $1" >&2; exit "$2"; }; "#,
    r#"pipeplug_decode() { set -- $1; printf %b. "$*"; }; "#,
    r#"pipeplug_dir=; "#,
    r#"for pipeplug_word do shift; "#,
    r#"case $pipeplug_word in *_*) "#,
    r#"pipeplug_word=$(pipeplug_decode "$pipeplug_word"); pipeplug_word=${pipeplug_word%.};; esac; "#,
    r#"case $pipeplug_word in "#,
    r#"d*) pipeplug_dir=${pipeplug_word#d}; continue;; "#,
    r#"p*) pipeplug_word=${pipeplug_word#p}; "#,
    // A relative path begins at the home directory, also with another working directory.
    r#"case $pipeplug_word in /*) ;; */*) "#,
    r#"[ -z "$pipeplug_dir" ] || pipeplug_word=$PWD/$pipeplug_word;; esac; "#,
    r#"case $pipeplug_word in */*) "#,
    r#"[ -e "$pipeplug_word" ] || pipeplug_fail "no such file" 127; "#,
    r#"[ -d "$pipeplug_word" ] && pipeplug_fail "it is a directory" 126; "#,
    r#"[ -x "$pipeplug_word" ] || pipeplug_fail "no permission to execute it" 126;; esac; "#,
    // Where it knows the directory by `CDPATH`, it would print it.
    r#"[ -z "$pipeplug_dir" ] || cd "$pipeplug_dir" >/dev/null || "#,
    r#"pipeplug_fail "cannot enter the working directory" 125;; "#,
    r#"*) pipeplug_word=${pipeplug_word#w};; esac; "#,
    r#"set -- "$@" "$pipeplug_word"; done; "#,
);

/// The command line that starts the plugin by any login shell.
pub(super) fn command_line(launch: &Launch) -> Result<OsString, SpawnErrorKind> {
    let refused =
        |what: &str, reason| SpawnErrorKind::BadArgument { what: what.to_owned(), reason };
    let program = launch.program.as_os_str().as_bytes();
    if launch.is_preinstalled {
        return Err(refused(
            "a start as a preinstalled plugin",
            "another machine has none: name a path there",
        ));
    }
    if program.starts_with(b"-") && !program.contains(&b'/') {
        return Err(refused(
            "a name that begins with a dash",
            "the shell there would read it as an option",
        ));
    }
    let variables = client::variables(launch)?;
    if !variables.is_empty() && program.contains(&b'=') {
        let reason = "`env` on the other machine would read a path with a `=` as a variable";
        return Err(refused("variables of its environment", reason));
    }
    let mut words = Vec::new();
    if let Some(cwd) = &launch.cwd {
        if cwd.as_os_str().is_empty() {
            return Err(refused("an empty working directory", "a directory has a name"));
        }
        // `-` is the last directory to `cd`, and `CDPATH` leads elsewhere.
        let ahead = if cwd.is_absolute() { "" } else { "./" };
        words.push((b'd', [ahead.as_bytes(), cwd.as_os_str().as_bytes()].concat()));
    }
    words.extend(variables.iter().map(|(name, value)| {
        let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
        (b'w', pair)
    }));
    let mut own = client::command_line(launch).into_iter().map(OsString::into_vec);
    if let Some(program) = own.next() {
        // `exec` takes it for an option otherwise.
        let ahead: &[u8] = if program.starts_with(b"-") { b"./" } else { b"" };
        words.push((b'p', [ahead, &program].concat()));
    }
    words.extend(own.map(|arg| (b'w', arg)));

    let execute = if variables.is_empty() { r#"exec "$@""# } else { r#"exec env -- "$@""# };
    let mut line = format!("exec /bin/sh -c '{SCRIPT}{execute}' pipeplug").into_bytes();
    for (kind, word) in words {
        if word.contains(&0) {
            return Err(refused(&format!("{:?}", OsStr::from_bytes(&word)), "it holds a NUL byte"));
        }
        line.extend([b' ', kind]);
        encode(&word, &mut line);
    }
    if line.len() > LINE_MAX {
        let what = format!("a command line of {} bytes", line.len());
        return Err(refused(&what, TOO_LONG));
    }
    Ok(OsString::from_vec(line))
}

const TOO_LONG: &str = "a login shell takes 131071, of which arguments and variables have one for \
                        each letter or digit and five for most other characters: send what is \
                        large in a call, or as a file";

/// Appends the word in characters that no shell interprets: a byte other than a letter, a digit and
/// `-`, `.`, `/` is `_`, `0` and its three octal digits.
fn encode(word: &[u8], line: &mut Vec<u8>) {
    for byte in word {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'/' => line.push(*byte),
            _ => line.extend(format!("_0{byte:03o}").into_bytes()),
        }
    }
}
