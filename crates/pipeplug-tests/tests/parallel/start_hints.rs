//! Starts that fail for a cause that the host can tell of.

use std::time::Duration;

use nix::sys::signal::Signal;
use pipeplug_host::{StartError, StartErrorKind, WaitStatus};
use pipeplug_tests::{LONG, Script, tool};

use crate::MISBEHAVE;

#[track_caller]
fn start(script: &Script) -> StartError {
    script.builder().handshake_timeout(LONG).start().unwrap_err()
}

#[test]
fn one_that_went_into_the_background_is_told() {
    // In its process group, which is killed once its end is noticed, and out of it.
    for body in ["sleep 1000 & exit 0", "setsid head -c 1000 <&3 >/dev/null 2>&1 & exit 0"] {
        for _ in 0..20 {
            let error = start(&Script::new(body));
            let StartErrorKind::Exited { .. } = error.kind() else { panic!("{error:?}") };
            let hint = error.hint();
            assert!(
                hint.as_ref().is_some_and(|hint| hint.contains("went into the background")),
                "{error}"
            );
            assert!(error.to_string().contains("a plugin stays in the foreground"), "{error}");
        }
    }
    let script = Script::new("sleep 1000 & exit 0");
    let error = script.builder().stdio().start().unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("went into the background")), "{error}");
}

#[test]
fn one_that_left_something_without_the_pipe_did_not_go_into_the_background() {
    // It ends once the one in the background has closed its copies.
    let error = start(&Script::new(
        "(exec 3<&- 4>&-; : >\"$dir/closed\"; exec sleep 1000) &\nuntil [ -e \"$dir/closed\" ]; do \
         :; done; exit 0",
    ));
    assert!(error.hint().is_none() && error.to_string().contains("is it a plugin?"), "{error}");
}

#[test]
fn descriptors_that_were_not_passed_on_are_told_by_the_plugin() {
    let error = start(&Script::new(&format!("{MISBEHAVE} \"$@\" plain 3<&- 4>&-; exit $?")));
    let StartErrorKind::Exited { .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert!(
        stderr.concat().contains("descriptor 3, which is to bring messages in, is not open"),
        "{stderr:?}"
    );
    assert!(stderr.concat().contains("pass_fds=(3, 4) in Python"), "{stderr:?}");
    assert!(
        error.hint().unwrap().starts_with("pass descriptors 3 and 4 on, or use `--stdio`"),
        "{error}"
    );
    assert!(!error.to_string().contains("--env-pass"), "the cause is known: {error}");
}

#[test]
fn descriptors_that_were_not_passed_on_are_told_by_what_it_says_of_them() {
    for body in [
        "sh -c 'read x <&3' 3<&- 4>&-; exit 1",
        "echo 'OSError: [Errno 9] Bad file descriptor' >&2; exit 1",
        "echo 'Error: EBADF: bad file descriptor, read' >&2; exit 1",
        "echo 'read |3: bad file descriptor' >&2; exit 1",
    ] {
        let error = start(&Script::new(body));
        let hint = error.hint().unwrap_or_else(|| panic!("{error}"));
        assert!(
            hint.contains("stdio: [0, 1, 2, 3, 4] in Node") && hint.contains("--stdio"),
            "{error}"
        );
    }
    // It has no such descriptors, and may mean others.
    let script = Script::new("echo 'Bad file descriptor' >&2; exit 1");
    let error = script.builder().stdio().start().unwrap_err();
    assert!(!error.to_string().contains("3 and 4"), "{error}");
}

#[test]
fn descriptors_that_were_not_passed_on_are_told_of_one_that_waits() {
    let script = Script::new("sleep 1000 3<&- 4>&-; exit 1");
    let error = script.builder().handshake_timeout(Duration::from_millis(500)).start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::HandshakeTimeout { .. }), "{error:?}");
    let said = error.to_string();
    assert!(
        said.contains("(\"sleep\"), which does not have descriptor 4") && said.contains("pass_fds"),
        "{said}"
    );
    // Neither is one that has them, nor one that has started nothing.
    for body in ["sleep 1000; exit 1", "exec sleep 1000"] {
        let script = Script::new(body);
        let error =
            script.builder().handshake_timeout(Duration::from_millis(300)).start().unwrap_err();
        assert!(error.hint().is_none(), "{error}");
    }
}

#[test]
fn children_that_do_not_last_are_not_named() {
    // They end, without a table of descriptors, at any moment of a look; or they have closed
    // descriptor 4, and are gone by the next look.
    for body in ["while :; do /bin/true; done", "while :; do /bin/true 3<&- 4>&-; done"] {
        let script = Script::new(body);
        for _ in 0..40 {
            let builder = script.builder().handshake_timeout(Duration::from_millis(60));
            let error = builder.start().unwrap_err();
            assert!(error.hint().is_none(), "{error}");
        }
    }
}

#[test]
fn descriptors_that_all_have_closed_are_told() {
    let error = start(&Script::new("exec 3<&- 4>&-; sleep 1000"));
    let StartErrorKind::ClosedPipe = error.kind() else { panic!("{error:?}") };
    let hint = error.hint();
    assert!(
        hint.as_ref().unwrap().contains("has descriptor 4 open: a program in between"),
        "{error}"
    );
}

#[test]
fn launchers_that_drop_descriptors_are_told_and_work_with_stdio() {
    let python = "import os, subprocess, sys\nsys.exit(subprocess.run([os.environ['PLUGIN'], \
                  *sys.argv[1:]]).returncode)\n";
    let node =
        "require('child_process').spawn(process.env.PLUGIN, process.argv.slice(2), { stdio: 'inherit' })
        .on('exit', (code) => process.exit(code));\n";
    for (program, package, code) in [("python3", "python3", python), ("node", "nodejs", node)] {
        let Some(program) = tool(program, package) else { continue };
        let launcher =
            Script::new(&format!("exec {} \"$dir/launcher.cjs\" \"$@\"", program.display()));
        std::fs::write(launcher.dir().join("launcher.cjs"), code).unwrap();
        let builder =
            launcher.builder().env("PLUGIN", MISBEHAVE).arg("plain").handshake_timeout(LONG);
        let error = builder.start().unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("--stdio")), "{error}");
        let plugin = builder.stdio().start().unwrap();
        assert_eq!(plugin.call("echo", "hello").unwrap(), "hello");
    }
}

#[test]
fn launchers_that_pass_descriptors_on_start_a_plugin() {
    let docs = include_str!("../../../../docs/placement.md");
    let code = |language: &str| {
        let row = docs.lines().find(|line| line.starts_with(&format!("| {language} | `"))).unwrap();
        row.split('`').nth(1).unwrap().replace("./real-plugin", MISBEHAVE)
    };
    let end = |language: &str| {
        let row = docs.lines().find(|line| line.starts_with(&format!("| {language} | `"))).unwrap();
        row.split('`').nth(3).unwrap().to_owned()
    };
    let python = format!("import subprocess, sys\n{}\n{}\n", code("Python"), end("Python"));
    let node =
        format!("const {{ spawn }} = require('child_process');\n{}{}\n", code("Node"), end("Node"));
    let killed = WaitStatus::Signaled { signal: Signal::SIGKILL as i32, core_dumped: false };
    let told = WaitStatus::Exited(128 + Signal::SIGKILL as i32);
    for (program, package, code, of_kill) in [
        ("sh", "dash", code("sh"), told),
        ("python3", "python3", python, told),
        ("node", "nodejs", node, killed),
    ] {
        let Some(program) = tool(program, package) else { continue };
        let launcher =
            Script::new(&format!("exec {} \"$dir/launcher.cjs\" \"$@\"", program.display()));
        std::fs::write(launcher.dir().join("launcher.cjs"), &code).unwrap();
        let plugin = launcher.builder().arg("plain").handshake_timeout(LONG).start().unwrap();
        assert_eq!(plugin.call("echo", "hello").unwrap(), "hello");
        for (body, expected) in [("exit 7", WaitStatus::Exited(7)), ("kill -KILL $$", of_kill)] {
            let ends = Script::new(body);
            let code = code.replace(MISBEHAVE, ends.path().to_str().unwrap());
            std::fs::write(launcher.dir().join("launcher.cjs"), code).unwrap();
            let error = launcher.builder().start().unwrap_err();
            let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
            assert_eq!(*status, expected, "{}: {error}", program.display());
        }
    }
}
