//! A command that a plugin, or the `#!` line of one, could not run, as shells and `env` tell of it.

use std::env;

use crate::files::may_execute;
use crate::process::{Launch, WaitStatus};

/// Exit statuses of shells and of `env`: POSIX, Shell Command Language, 2.8.2.
const NOT_EXECUTABLE: WaitStatus = WaitStatus::Exited(126);
const NOT_FOUND: WaitStatus = WaitStatus::Exited(127);

/// Words behind the name of a command.
const ENDINGS: [&str; 8] = [
    ": not found",
    ": command not found",
    ": No such file or directory",
    ": Permission denied",
    ": cannot execute: required file not found",
    ": cannot execute binary file: Exec format error",
    ": Exec format error",
    ": Is a directory",
];

/// Words before it.
const BEGINNINGS: [&str; 2] = ["command not found: ", "Unknown command: "];

/// The next step, where that is how a start ended.
pub(crate) fn hint(status: WaitStatus, launch: &Launch, stderr: &[String]) -> Option<String> {
    if status != NOT_FOUND && status != NOT_EXECUTABLE {
        return None;
    }
    // Earlier ones may have been expected.
    let name = (0..stderr.len()).rev().find_map(|at| {
        named(&stderr[at])
            .or_else(|| named(&with_end(stderr.get(at.checked_sub(1)?)?, &stderr[at])?))
    })?;
    if let Some(command) = without_carriage_return(&name) {
        return Some(format!(
            "the line that runs command {command:?}, such as the `#!` line, ends with a carriage \
             return, which is taken as a part of the name: save the file with Unix ends of lines \
             (`sed -i 's/\\r$//' FILE`)"
        ));
    }
    if status == NOT_EXECUTABLE {
        return Some(format!(
            "command {name:?} may not be executed: check that it is a program for this machine, \
             and is executable (`chmod +x`)"
        ));
    }
    if name.contains('/') {
        return Some(format!(
            "command {name:?} does not exist: install it, or correct its path, which is relative \
             to the plugin's working directory"
        ));
    }
    let is_hidden = launch.sandbox.as_ref().is_some_and(|sandbox| sandbox.granted().is_some());
    Some(if is_hidden && is_in_path(&name) {
        format!(
            "its sandbox hides command {name:?}, which is in PATH here: grant the directory that \
             it is installed in (`--sandbox-read DIR`, Sandbox::read)"
        )
    } else {
        format!(
            "command {name:?} was not found: install it, or have its directory in PATH (`--env \
             PATH=DIRS`, PluginBuilder::env)"
        )
    })
}

/// The command that a line says is missing.
fn named(line: &str) -> Option<String> {
    // Of a dynamic loader, which ends with 127 too.
    if line.contains("shared librar") || line.contains("shared object") {
        return None;
    }
    let line = line.trim_end();
    let behind =
        BEGINNINGS.iter().find_map(|words| line.split_once(words)).map(|(_, behind)| behind);
    let before = || ENDINGS.iter().find_map(|words| line.strip_suffix(words));
    let name = behind.or_else(|| before()?.rsplit(": ").next())?;
    // BusyBox.
    let name = name.strip_prefix("can't execute ").unwrap_or(name);
    let name = name.trim_matches(is_quote);
    (!name.is_empty()).then(|| name.to_owned())
}

/// A line that a carriage return in the name of the command has split in two, if `end` is its end.
fn with_end(begin: &str, end: &str) -> Option<String> {
    let words = end.trim_start_matches(is_quote).trim_end();
    ENDINGS.contains(&words).then(|| format!("{begin}\r{end}"))
}

fn is_quote(char: char) -> bool {
    matches!(char, '\'' | '"' | '`' | '‘' | '’' | ' ')
}

/// The command whose name has the `\r` of a line end of Windows behind it: as it is, or as GNU `env`
/// shows it.
fn without_carriage_return(name: &str) -> Option<&str> {
    let command = name.strip_suffix("'$'\\r").or_else(|| name.strip_suffix("\\r"));
    command.or_else(|| name.strip_suffix('\r')).filter(|command| !command.is_empty())
}

fn is_in_path(name: &str) -> bool {
    env::var_os("PATH")
        .is_some_and(|path| env::split_paths(&path).any(|dir| may_execute(&dir.join(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_and_env_name_the_command() {
        for (line, name) in [
            ("sh: 1: foo: not found", Some("foo")),
            ("./p.sh: 3: exec: foo: not found", Some("foo")),
            ("./p.sh: line 3: foo: command not found", Some("foo")),
            ("/usr/bin/env: ‘py thon’: No such file or directory", Some("py thon")),
            ("env: can't execute 'foo': No such file or directory", Some("foo")),
            ("zsh:1: command not found: foo", Some("foo")),
            ("./p.sh: 2: ./foo: Permission denied", Some("./foo")),
            (
                "foo: error while loading shared libraries: l.so: cannot open shared object file: \
                 No such file or directory",
                None,
            ),
            ("it failed", None),
        ] {
            assert_eq!(named(line).as_deref(), name, "{line}");
        }
    }

    #[test]
    fn a_line_end_of_windows_is_named() {
        let launch = Launch::new("/p");
        // The return ends a line of output.
        let split = |line: &str| line.split('\r').map(str::to_owned).collect::<Vec<_>>();
        for line in [
            "/usr/bin/env: \u{2018}python3\\r\u{2019}: No such file or directory",
            "/usr/bin/env: 'python3'$'\\r': No such file or directory",
            "env: can't execute 'python3\r': No such file or directory",
            "env: python3\r: No such file or directory",
            "./p.sh: line 2: python3\r: command not found",
            "./p.sh: 2: python3\r: not found",
        ] {
            let hint = hint(WaitStatus::Exited(127), &launch, &split(line)).unwrap();
            assert!(hint.contains("runs command \"python3\","), "{line}: {hint}");
            assert!(hint.contains("carriage return"), "{line}: {hint}");
            assert!(hint.contains("Unix ends of lines"), "{line}: {hint}");
        }
    }

    #[test]
    fn only_the_statuses_of_shells_count() {
        let launch = Launch::new("/p");
        let stderr = ["sh: 1: foo: not found".to_owned()];
        let hint = |status| hint(WaitStatus::Exited(status), &launch, &stderr);
        assert!(hint(127).unwrap().starts_with("command \"foo\" was not found: install it"));
        assert!(hint(126).unwrap().contains("may not be executed"));
        assert_eq!(hint(1), None);
    }
}
