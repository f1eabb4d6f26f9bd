//! Plugins that do not start, and what the host is told.

use std::time::{Duration, Instant};

use pipeplug_host::Format;
use pipeplug_host::{StartError, StartErrorKind, WaitStatus};
use pipeplug_tests::{LONG, Script};

use crate::misbehave;

#[track_caller]
fn start(script: &Script) -> StartError {
    let error = script.builder().handshake_timeout(LONG).start().unwrap_err();
    let path = format!("{:?}", script.path());
    assert!(error.to_string().contains(&path), "the message names the plugin: {error}");
    error
}

#[test]
fn one_that_answers_in_the_other_format_is_told_apart() {
    // What it reads it does not look at, so that it answers at all.
    let classic = Script::new(
        r"head -c 1 <&3 >/dev/null
        printf '1\0003\000GetMetadata 2\000{}' >&4
        cat <&3 >/dev/null",
    );
    let error = start(&classic);
    let StartErrorKind::WrongFormat { spoken, found, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((*spoken, *found), (Format::Standard, Format::Classic));
    assert!(error.to_string().contains("--format classic"), "{error}");

    let standard = Script::answering("cat <&3 >/dev/null");
    let error = standard.builder().format(Format::Classic).start().unwrap_err();
    let StartErrorKind::WrongFormat { spoken, found, .. } = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!((*spoken, *found), (Format::Classic, Format::Standard));
    assert!(error.to_string().contains("--format standard"), "{error}");
}

#[test]
fn one_that_understands_only_the_other_format_ends_and_says_why() {
    let error = misbehave(&["classic"]).start().unwrap_err();
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.concat().contains("broke the protocol"), "{stderr:?}");

    misbehave(&["classic"]).format(Format::Classic).start().unwrap();
}

#[test]
fn garbage_on_stdout_is_shown() {
    let script = Script::new(r"printf 'Hello, world!\n\033[31m'; sleep 1000");
    let error = script.builder().stdio().start().unwrap_err();
    let StartErrorKind::Garbage { first, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(first, b"Hello, world!\n\x1b[31m");
    let message = error.to_string();
    assert!(message.contains(r"Hello, world!\n\x1b[31m"), "{message}");
    assert!(message.contains("must print nothing of its own"), "{message}");
}

#[test]
fn of_much_garbage_only_the_beginning_is_shown() {
    let script = Script::new("yes garbage");
    let error = script.builder().stdio().start().unwrap_err();
    let StartErrorKind::Garbage { first, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(first.len(), 64);
}

#[test]
fn a_line_printed_ahead_of_the_answer_is_shown() {
    let error = Script::new(
        r"echo listening
        printf '1\0003\00011\000GetMetadata\0002\000{}'
        cat >/dev/null",
    )
    .builder()
    .stdio()
    .start()
    .unwrap_err();
    let StartErrorKind::Garbage { first, .. } = error.kind() else { panic!("{error:?}") };
    assert!(first.starts_with(b"listening\n"), "{error}");
}

#[test]
fn one_that_exits_is_told_with_its_status_and_last_words() {
    let error = start(&Script::new("echo first >&2; echo 'no such database' >&2; exit 7"));
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert_eq!(*status, WaitStatus::Exited(7));
    assert_eq!(stderr, &["first", "no such database"]);
    let message = error.to_string();
    assert!(message.contains("exit status 7") && message.contains("no such database"), "{message}");
}

#[test]
fn one_that_exits_with_success_has_not_started_either() {
    let error = start(&Script::new("exit 0"));
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert!(status.success());
    assert_eq!(stderr, &Vec::<String>::new());
    assert!(error.to_string().contains("nothing on its stderr"), "{error}");
}

#[test]
fn one_that_a_signal_ends_is_told_with_the_signal() {
    let error = start(&Script::new("kill -SEGV $$"));
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    assert!(matches!(status, WaitStatus::Signaled { signal: 11, .. }), "{status}");
    assert!(error.to_string().contains("SIGSEGV"), "{error}");
}

#[test]
fn what_it_says_on_stderr_cannot_reach_a_terminal() {
    let error = start(&Script::new(r"printf '\033[2J\001bad\n' >&2; exit 1"));
    let message = error.to_string();
    assert!(!message.contains('\u{1b}') && message.contains("bad"), "{message:?}");
}

#[test]
fn of_many_last_words_the_last_are_shown() {
    let error = start(&Script::new("seq 1000 >&2; exit 1"));
    let StartErrorKind::Exited { .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    let expected: Vec<_> = (981..=1000).map(|i| i.to_string()).collect();
    assert_eq!(stderr, &expected);
    assert!(error.to_string().contains("996 | 997 | 998 | 999 | 1000"), "{error}");
}

#[test]
fn one_that_closes_its_pipe_and_lives_on_is_told() {
    let begun = Instant::now();
    let error = start(&Script::new("echo bye >&2; exec 4>&-; sleep 1000"));
    let StartErrorKind::ClosedPipe = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert_eq!(stderr, &["bye"]);
    assert!(begun.elapsed() < LONG);
}

#[test]
fn one_that_closes_both_pipes_and_lives_on_is_told() {
    let error = start(&Script::new("exec 3<&- 4>&-; sleep 1000"));
    assert!(matches!(error.kind(), StartErrorKind::ClosedPipe), "{error:?}");
}

#[test]
fn one_that_never_answers_is_told_after_the_timeout() {
    let timeout = Duration::from_millis(150);
    for body in ["sleep 1000", "cat <&3 >/dev/null", "printf '1\\0003\\00011' >&4; sleep 1000"] {
        let begun = Instant::now();
        let script = Script::new(&format!("echo waiting >&2; {body}"));
        let error = script.builder().handshake_timeout(timeout).start().unwrap_err();
        let took = begun.elapsed();
        // It is killed: to be asked to go, it would have to be a plugin.
        assert!(took >= timeout && took < Duration::from_secs(4), "{took:?}");
        let StartErrorKind::HandshakeTimeout { .. } = error.kind() else {
            panic!("{body}: {error:?}")
        };
        let stderr = error.stderr();
        assert_eq!(stderr, &["waiting"]);
        assert!(error.to_string().contains("150ms"), "{error}");
    }
}

#[test]
fn one_that_is_stopped_is_told_with_the_signal() {
    let timeout = Duration::from_millis(300);
    for (name, number, next) in [("TTIN", 21, "--stdin inherit"), ("STOP", 19, "kill -CONT")] {
        let script = Script::new(&format!("kill -{name} $$"));
        let error = script.builder().handshake_timeout(timeout).start().unwrap_err();
        let StartErrorKind::HandshakeTimeout { stopped_by, .. } = error.kind() else {
            panic!("{name}: {error:?}")
        };
        assert_eq!(*stopped_by, Some(number), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(&format!("it is stopped (SIG{name})")) && said.contains(next),
            "{said}"
        );
    }
}

#[test]
fn one_that_prints_and_then_hangs_is_told_by_what_it_printed() {
    let error = Script::new("echo 'usage: plugin FILE'; sleep 1000")
        .builder()
        .stdio()
        .handshake_timeout(LONG)
        .start()
        .unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Garbage { .. }), "{error:?}");
    assert!(error.to_string().contains("usage: plugin FILE"), "{error}");
}

#[test]
fn what_is_no_plugin_is_told_with_its_path() {
    let error = pipeplug_host::Plugin::start("/nonexistent/plugin").unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Spawn(_)), "{error:?}");
    assert!(error.to_string().contains("/nonexistent/plugin"), "{error}");
    // No plugin, but a program: `true` exits with success at once.
    let error = pipeplug_host::Plugin::start("/bin/true").unwrap_err();
    assert!(error.to_string().contains("is it a plugin?"), "{error}");
}

#[test]
fn the_same_builder_starts_again_with_success() {
    let script = Script::new(&format!(
        r#"if mkdir "$dir/tried" 2>/dev/null; then echo 'not yet' >&2; exit 9; fi
        exec {} "$1" "$2" plain"#,
        crate::MISBEHAVE
    ));
    let builder = script.builder();
    let error = builder.start().unwrap_err();
    assert!(
        matches!(error.kind(), StartErrorKind::Exited { status: WaitStatus::Exited(9), .. }),
        "{error:?}"
    );
    let plugin = builder.start().unwrap();
    assert_eq!(plugin.call("echo", "now").unwrap(), "now");
    let another = builder.start().unwrap();
    assert_ne!(plugin.pid(), another.pid());
}

#[test]
fn a_plugin_that_starts_slowly_starts() {
    let script = Script::new(&format!(r#"sleep 0.3; exec {} "$1" "$2" plain"#, crate::MISBEHAVE));
    let plugin = script.builder().start().unwrap();
    assert_eq!(plugin.call("echo", "late").unwrap(), "late");
}

/// Makes such a mount in namespaces, if this user can.
#[test]
#[cfg(target_os = "linux")]
fn a_file_system_without_programs_is_named() {
    const NO_MOUNT: i32 = 77;
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o noexec none \"$2\" || exit {NO_MOUNT}; cp \"$1\" \"$2/plugin\"; \
         exec \"$0\" none \"$2/plugin\""
    );
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--user", "--mount", "sh", "-c", &script])
        .args([crate::SANDBOX_HOST, crate::MISBEHAVE])
        .arg(dir.path())
        .stdin(std::process::Stdio::null())
        .output();
    let Ok(output) = output else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_MOUNT) || said.contains("unshare: ") {
        return;
    }
    assert!(said.contains("is on a file system that is mounted noexec: move it"), "{said}");
}
