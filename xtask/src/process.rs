//! Child processes whose output goes straight to the terminal.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail};

use crate::tools;

/// The cargo that started this program, or the one on the path.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
}

/// How many lines of what a failed command printed are shown again at the end of a run in CI, where
/// often nothing but the end of the output is kept.
pub(crate) const LAST_LINES: usize = 120;

/// Shows the command, runs it with this program's stdin, stdout and stderr, and waits for it. With
/// CI=true the last lines of what it printed are in the error.
///
/// # Errors
/// It could not be started, or did not succeed.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let line = display(command);
    println!("$ {line}");
    let (status, last) = if tools::in_ci() {
        status_and_last_lines(command)?
    } else {
        let status = command.status().with_context(|| format!("cannot start `{line}`"))?;
        (status, Vec::new())
    };
    if !status.success() {
        let printed: String = last.iter().map(|line| format!("\n{line}")).collect();
        bail!("`{line}` ended with {status}{printed}");
    }
    Ok(())
}

/// Runs the command with its stdout and stderr passed on as they come, and gives the last
/// [`LAST_LINES`] of both, in the order in which they came.
///
/// # Errors
/// It could not be started, or its output could not be passed on.
pub(crate) fn status_and_last_lines(
    command: &mut Command,
) -> anyhow::Result<(ExitStatus, Vec<String>)> {
    let line = display(command);
    let mut attempt = || -> io::Result<_> {
        let (output, input) = io::pipe()?;
        command.stdout(input.try_clone()?).stderr(input);
        let child = command.spawn();
        // What the command holds of the pipe would keep it open for ever.
        command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
        let mut child = child?;

        let mut last = VecDeque::new();
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line)? > 0 {
            io::stdout().write_all(&line)?;
            if last.len() == LAST_LINES {
                last.pop_front();
            }
            last.push_back(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            line.clear();
        }
        Ok((child.wait()?, Vec::from(last)))
    };
    attempt().with_context(|| format!("cannot run `{line}`"))
}

/// Returns what the command prints on stdout. Its stderr goes to the terminal.
///
/// # Errors
/// It could not be started, did not succeed, or printed something that is not UTF-8.
pub(crate) fn stdout_of(command: &mut Command) -> anyhow::Result<String> {
    let line = display(command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{line}` printed something that is not UTF-8"))
}

/// Returns true if the command starts and succeeds. Nothing of it is seen.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as one would type it: variables first, the program without its folder.
pub(crate) fn display(command: &Command) -> String {
    let mut words = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            words.push(format!("{}={}", name.to_string_lossy(), quote(&value.to_string_lossy())));
        }
    }
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    words.push(quote(&name.to_string_lossy()));
    words.extend(command.get_args().map(|arg| quote(&arg.to_string_lossy())));
    words.join(" ")
}

/// The word as one would type it in a shell.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTFLAGS", "-D warnings").env_remove("CARGO_ENCODED_RUSTFLAGS");
        command.args(["test", "it's", ""]);
        assert_eq!(display(&command), r"RUSTFLAGS='-D warnings' cargo test 'it'\''s' ''");
    }

    #[test]
    fn a_command_that_fails_is_an_error_that_names_it() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert!(error.contains("sh -c 'exit 3'") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn the_last_lines_of_a_command_are_those_of_stdout_and_stderr() {
        let script = "for i in $(seq 200); do echo out $i; done; echo err >&2; exit 3";
        let (status, last) =
            status_and_last_lines(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(last.len(), LAST_LINES);
        assert!(last.ends_with(&["out 200".into(), "err".into()]), "{last:?}");
    }
}
