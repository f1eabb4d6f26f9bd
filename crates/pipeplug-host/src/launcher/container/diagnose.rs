//! The meaning of the end of an engine's client.

use nix::sys::signal::Signal;

use super::complaint::{self, Phase};
use super::run::{CLIENT_FAILED, KilledBy, Run};
use super::{Container, Engine};
use crate::launcher::Diagnosis;
use crate::process::WaitStatus;

/// Beginnings of messages of an init or a runtime that cannot start the plugin, from within the
/// container.
const FATAL: [&str; 3] = ["[FATAL tini", "ERROR (catatonit", "exec /"];

/// Beginnings of complaints of an engine's client,
const OF_CLIENT: [&str; 7] = [
    "docker: ",
    "Error: ",
    "Error response ",
    "unknown flag",
    "permission denied",
    "Failed to initialize: ",
    "unable to resolve docker endpoint",
];

/// and what is in others.
const IN_CLIENT: [&str; 3] =
    ["error waiting for container", "no subuid ranges found", "must be writable by the user"];

/// Words of EAGAIN,
const AGAIN: [&str; 4] =
    ["resource temporarily unavailable", "os error 11", "errno=11", "code: 11"];

/// which is about processes with one of these,
const OF_PROCESSES: [&str; 5] = ["fork", "thread", "process", "spawn", "clone"];

/// and those of runtimes that leave it out.
const NO_THREAD: [&str; 2] = ["can't start new thread", "unable to create native thread"];

/// The cause of an end before the plugin has answered.
pub(super) fn diagnose(
    container: &Container,
    run: &Run,
    status: WaitStatus,
    killed_by: KilledBy,
    stderr: &[String],
) -> Option<Diagnosis> {
    let code = status.code()?;
    diagnose_end(container, run, status, killed_by, stderr)
        .or_else(|| of_command(container, run, code, stderr))
        .or_else(|| of_machine(code, stderr))
        .or_else(|| {
            let (phase, complaint) = complaint(code, stderr)?;
            complaint::diagnose(container, run, phase, complaint)
        })
}

/// The cause of an end after the plugin has answered: most that engines say is not about that, and
/// the statuses are the plugin's own.
pub(super) fn diagnose_end(
    container: &Container,
    run: &Run,
    status: WaitStatus,
    killed_by: KilledBy,
    stderr: &[String],
) -> Option<Diagnosis> {
    match status.code()? {
        0 => None,
        code @ 129..=192 => of_signal(container, code, killed_by),
        CLIENT_FAILED => {
            let line =
                stderr.iter().find(|line| IN_CLIENT.iter().any(|part| line.contains(part)))?;
            complaint::diagnose(container, run, Phase::Engine, line)
        }
        _ => of_processes(container, stderr),
    }
}

/// The line that tells why there is no plugin, and who says so.
fn complaint(code: i32, stderr: &[String]) -> Option<(Phase, &str)> {
    let find = |beginnings: &[&str], parts: &[&str]| {
        let is_one = |line: &&String| {
            beginnings.iter().any(|beginning| line.starts_with(beginning))
                || parts.iter().any(|part| line.contains(part))
        };
        stderr.iter().find(is_one).map(String::as_str)
    };
    match code {
        // The engine itself; podman also says so of what it cannot execute.
        CLIENT_FAILED => Some((Phase::Engine, find(&OF_CLIENT, &IN_CLIENT)?)),
        // What cannot be executed, as the engine tells it, its runtime, or the init in the
        // container.
        126 | 127 => {
            find(&[&OF_CLIENT[..], &FATAL].concat(), &IN_CLIENT).map(|line| (Phase::Program, line))
        }
        // The same; but a plugin of its own accord says `Error: …` and exits so too.
        1 => find(&[&FATAL[..], &OF_CLIENT[5..]].concat(), &[]).map(|line| (Phase::Program, line)),
        255 => find(&FATAL, &[]).map(|line| (Phase::Program, line)),
        _ => None,
    }
}

/// 128 and the signal's number, as the init and the engines tell it.
fn of_signal(container: &Container, code: i32, killed_by: KilledBy) -> Option<Diagnosis> {
    let signal = Signal::try_from(code - 128).ok()?;
    let engine = container.engine;
    let client = engine.program();
    let limit =
        container.memory.value.map(|bytes| format!("the limit of {} MiB of memory", bytes >> 20));
    let more = "allow more with `--memory` (Container::memory)";
    // It stands behind the status.
    let means = format!("which stands for {}", signal.as_str());
    if signal != Signal::SIGKILL {
        let cause = match signal {
            Signal::SIGSEGV | Signal::SIGBUS | Signal::SIGILL | Signal::SIGFPE => {
                ": the program crashed, or exited with this status; run it alone in the image to \
                 see more"
            }
            Signal::SIGABRT => {
                ": the program gave up (abort), or exited with this status; its stderr may say why"
            }
            Signal::SIGSYS => {
                ": the engine's seccomp profile forbids a system call that the program makes"
            }
            _ => "",
        };
        return Some(Diagnosis::passing(format!("{means}{cause}")));
    }
    Some(Diagnosis::passing(match (killed_by, limit) {
        (KilledBy::Memory, Some(limit)) => {
            format!("{means}: the kernel sent it as {limit} was exceeded; {more}")
        }
        (KilledBy::Memory, None) => {
            format!("{means}: the kernel sent it as the machine has no memory left")
        }
        (KilledBy::User, _) => {
            format!(
                "{means}: the container was killed by `{client} kill`, `{client} rm --force` or \
                 the like"
            )
        }
        (KilledBy::Host, _) => format!("{means}, which this host sent"),
        (KilledBy::NeitherOfThese, _) => format!(
            "{means}: {engine} knows of no lack of memory and of no `{client} kill`, so a process \
             killed the plugin, or it exited with this status by itself"
        ),
        (KilledBy::Unknown, Some(limit)) => format!(
            "{means}: the kernel sends it where {limit} is exceeded ({more}); it may also be \
             `{client} kill`, or an exit with this status"
        ),
        (KilledBy::Unknown, None) => {
            format!(
                "{means}: it may be `{client} kill`, a machine without memory, or an exit with \
                 this status"
            )
        }
    }))
}

/// The limit on processes, which shows as a failure to start one.
fn of_processes(container: &Container, stderr: &[String]) -> Option<Diagnosis> {
    let pids = container.pids.value?;
    let is_one = |line: &String| {
        let line = line.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|words| line.contains(words));
        has(&NO_THREAD)
            || (has(&AGAIN) && has(&OF_PROCESSES))
            // The init has room, and the engine does not find it.
            || (pids <= 2 && line.contains("failed to connect to container's attach socket"))
    };
    stderr.iter().any(is_one).then(|| {
        Diagnosis::passing(format!(
            "a process or thread could not be started in it: the limit of {pids}, which counts the \
             engine's init and all threads, seems to be reached; allow more with `--pids` \
             (Container::pids)"
        ))
    })
}

/// Arguments that the image takes for the program, or for the script of an interpreter.
fn of_command(container: &Container, run: &Run, code: i32, stderr: &[String]) -> Option<Diagnosis> {
    const MISSING: [&str; 6] =
        ["not found", "no such file", "can't open", "cannot open", "cannot find", "can't execute"];
    let word =
        run.replaces_command.as_deref().filter(|_| matches!(code, 1 | 2 | 126 | 127 | 255))?;
    let names_it = |line: &String| {
        let text = line.to_lowercase();
        // exec: "0": …, exec 0 failed: …, can't open file '//0': …, Cannot find module '/srv/0',
        // sh: 0: …
        let is_end = |char: char| matches!(char, ' ' | '"' | '\'' | ':' | '/');
        let is_bounded = |(at, _): (usize, &str)| {
            line[..at].chars().next_back().is_none_or(is_end)
                && line[at + word.len()..].chars().next().is_none_or(is_end)
        };
        MISSING.iter().any(|words| text.contains(words)) && line.match_indices(word).any(is_bounded)
    };
    let is_sure = stderr.iter().any(names_it);
    // This init does not say which.
    let may_be =
        stderr.iter().any(|line| line.starts_with(FATAL[1]) && line.contains("No such file"));
    if !is_sure && !may_be {
        return None;
    }
    let (program, image) = (container.engine.program(), &container.image);
    let certainly = if is_sure { "" } else { "either there is no such program in the image, or " };
    Some(Diagnosis::permanent(format!(
        "{certainly}the plugin's arguments replaced the command (CMD) of the image, which has the \
         program, or a part of it, there: name the program, as in `pipeplug run --{program} \
         {image} /path/in/it -- ARGUMENT`, or have the image name it as its ENTRYPOINT"
    )))
}

/// A program for another machine that a shell was to execute, and took for a script where it did
/// not know better.
fn of_machine(code: i32, stderr: &[String]) -> Option<Diagnosis> {
    let is_one = |line: &String| {
        let line = line.to_lowercase();
        match code {
            // The shell says so itself.
            126 | 127 | 255 | 1 => {
                line.contains("exec format error") || line.contains("cannot execute binary file")
            }
            // The init of Docker and Podman has it tried by `/bin/sh`, and some shells do so
            // themselves.
            2 => line.contains("line 1:") && line.contains("elf") && line.contains("not found"),
            _ => false,
        }
    };
    stderr.iter().any(is_one).then(|| {
        Diagnosis::permanent(format!(
            "a program in the image is built for another machine than this {arch}, or is a script \
             without a `#!` line: use an image for {arch}, as `--platform` chooses one where it is \
             pulled or built",
            arch = std::env::consts::ARCH
        ))
    })
}

impl Engine {
    /// The engine's own words, without what its client puts before them.
    pub(super) fn words(complaint: &str) -> &str {
        ["docker: ", "Error response from daemon: ", "Error: "]
            .iter()
            .fold(complaint, |text, beginning| text.strip_prefix(beginning).unwrap_or(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(replaces_command: Option<&str>) -> Run {
        Run {
            name: "pipeplug-7".to_owned(),
            replaces_command: replaces_command.map(str::to_owned),
            directory: None,
        }
    }

    fn told(
        container: &Container,
        run: &Run,
        code: i32,
        killed_by: KilledBy,
        stderr: &str,
    ) -> Option<Diagnosis> {
        let stderr: Vec<_> = stderr.lines().map(str::to_owned).collect();
        diagnose(container, run, WaitStatus::Exited(code), killed_by, &stderr)
    }

    fn problem(code: i32, stderr: &str) -> Option<Diagnosis> {
        told(&Container::docker("image"), &run(None), code, KilledBy::Unknown, stderr)
    }

    #[track_caller]
    fn assert_told(code: i32, stderr: &str, text: &str) {
        let told = problem(code, stderr).unwrap().problem;
        assert!(told.contains(text), "{told}");
    }

    #[test]
    fn what_the_plugin_itself_says_is_no_word_of_the_engine() {
        assert_eq!(problem(1, "Error: no such file or directory: settings.toml"), None);
        assert_eq!(problem(2, "docker: Error response from daemon"), None);
        assert_eq!(problem(127, "sh: 1: settings: not found"), None);
        assert_eq!(problem(3, "exec format error"), None);
        assert_eq!(problem(0, ""), None);
        // Once it has answered, all of that is its own.
        let end = |code, line: &str| {
            let docker = Container::docker("image");
            let status = WaitStatus::Exited(code);
            diagnose_end(&docker, &run(Some("7")), status, KilledBy::Unknown, &[line.to_owned()])
        };
        for code in [1, 2, 125, 126, 127, 255] {
            for line in [
                "docker: Error response from daemon: x",
                "exec /7: exec format error",
                "'7': not found",
            ] {
                assert_eq!(end(code, line), None, "{code} {line}");
            }
        }
        assert!(end(125, "error waiting for container: unexpected EOF").is_some());
        assert!(end(139, "").is_some());
    }

    #[test]
    fn an_end_by_signal_is_told() {
        assert_told(128 + 11, "", "which stands for SIGSEGV: the program crashed");
        assert_told(128 + 6, "", "which stands for SIGABRT: ");
        assert_told(128 + 15, "", "which stands for SIGTERM");
    }

    #[test]
    fn a_sigkill_has_the_cause_that_is_known() {
        let told =
            |container: &Container, by| told(container, &run(None), 137, by, "").unwrap().problem;
        let docker = Container::docker("image");
        let memory = "which stands for SIGKILL: the kernel sent it as the limit of 512 MiB of \
                      memory was exceeded; allow";
        assert!(told(&docker, KilledBy::Memory).starts_with(memory));
        assert!(!told(&docker, KilledBy::User).contains("memory"));
        assert!(told(&docker, KilledBy::User).contains("killed by `docker kill`"));
        assert!(
            told(&docker, KilledBy::NeitherOfThese)
                .contains("or it exited with this status by itself")
        );
        assert!(told(&docker, KilledBy::Host).ends_with("SIGKILL, which this host sent"));
        let podman = Container::podman("image");
        let unknown = told(&podman, KilledBy::Unknown);
        assert!(
            unknown
                .contains("the kernel sends it where the limit of 512 MiB of memory is exceeded"),
            "{unknown}"
        );
        assert!(
            unknown.contains("it may also be `podman kill`, or an exit with this status"),
            "{unknown}"
        );
        assert!(!told(&podman.memory(None), KilledBy::Unknown).contains("limit"));
    }

    #[test]
    fn arguments_that_replaced_the_command_are_told() {
        let told = |container: &Container, word, code, stderr: &str| {
            told(container, &run(word), code, KilledBy::Unknown, stderr).map(|told| told.problem)
        };
        // Docker 20.10 and 28 with runc 1.1, with tini, and images whose entry point is an
        // interpreter.
        let said = [
            (
                127,
                "docker: Error response from daemon: failed to create shim task: OCI runtime \
                 create failed: runc create failed: unable to start container process: \
                 exec: \"7\": executable file not found in $PATH: unknown\n",
            ),
            (127, "[FATAL tini (8)] exec 7 failed: No such file or directory"),
            (2, "python3: can't open file '//7': [Errno 2] No such file or directory"),
            (1, "Error: Cannot find module '/srv/7'"),
            (127, "sh: 0: cannot open 7: No such file"),
            (2, "/bin/sh: can't open '7': No such file or directory"),
        ];
        let docker = Container::docker("spell");
        for (code, stderr) in said {
            for word in ["7", "--fast"] {
                let stderr = stderr.replace('7', word);
                let text = told(&docker, Some(word), code, &stderr).unwrap();
                assert!(
                    text.starts_with("the plugin's arguments replaced the command (CMD)"),
                    "{stderr}: {text}"
                );
                assert!(
                    text.contains("`pipeplug run --docker spell /path/in/it -- ARGUMENT`"),
                    "{text}"
                );
                let without = told(&docker, None, code, &stderr).unwrap_or_default();
                assert!(!without.contains("CMD"), "{without}");
            }
        }
        let init = "ERROR (catatonit:6): failed to exec pid1: No such file or directory";
        let text = told(&Container::podman("spell"), Some("7"), 1, init).unwrap();
        assert!(
            text.starts_with("either there is no such program in the image, or the plugin's"),
            "{text}"
        );
        assert!(told(&docker, Some("7"), 2, "usage: spell [FILE]: 17 files not found").is_none());
    }

    #[test]
    fn a_program_for_another_machine_is_told_behind_a_shell_too() {
        // busybox, tini's fallback with it, runc, dash, bash.
        let said = [
            (
                2,
                "/bin/foreign: line 1: \u{7f}ELF\u{2}\u{1}\u{1}\u{3}@@: not found\n/bin/foreign: \
                 line 2: syntax error",
            ),
            (1, "exec /bin/foreign: exec format error"),
            (126, "/plugin: 2: /bin/foreign: Exec format error"),
            (126, "/plugin: line 2: /bin/foreign: cannot execute binary file: Exec format error"),
        ];
        for (code, stderr) in said {
            assert_told(code, stderr, "built for another machine than this");
        }
    }

    #[test]
    fn a_limit_on_processes_is_told() {
        assert_eq!(
            problem(1, "reading stdin: Resource temporarily unavailable (os error 11)"),
            None
        );
        let limit = "the limit of 256, which counts";
        // busybox, tini, catatonit, Rust, Python, Go.
        assert_told(2, "/bin/sh: can't fork: Resource temporarily unavailable", limit);
        assert_told(1, "[FATAL tini (1)] fork failed: Resource temporarily unavailable", limit);
        assert_told(
            1,
            "ERROR (catatonit:1): failed to fork child: Resource temporarily unavailable",
            limit,
        );
        assert_told(
            101,
            "failed to spawn thread: Os { code: 11, kind: WouldBlock, message: \"Resource \
             temporarily unavailable\" }",
            limit,
        );
        assert_told(1, "RuntimeError: can't start new thread", limit);
        assert_told(2, "runtime: failed to create new OS thread (have 2 already; errno=11)", limit);
        let attach = "Error: failed to connect to container's attach socket: /run/attach: no such \
                      file or directory";
        let podman = Container::podman("image").pids(2);
        let told = told(&podman, &run(None), 127, KilledBy::Unknown, attach).unwrap();
        assert!(told.problem.contains("the limit of 2, "), "{}", told.problem);
    }
}
