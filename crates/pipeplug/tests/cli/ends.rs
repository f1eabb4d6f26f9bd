//! Plugins that die, hang, or are interrupted, and readers of stdout that go away.

use std::io::{Write, pipe};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::common::{MIRROR, Place, is_gone, pipeplug, wait};

/// A signal that comes later than this after the first one is another stop.
const ONE_STOP: Duration = Duration::from_millis(200);
/// The handshake, and then nothing is read any more.
const DEAF: &str = "recv; send 3 x '{}'; exec sleep 600";

#[test]
fn a_crash_says_how_and_in_which_call() {
    pipeplug(["run", "@echo", "--call", "echo", "a", "--call", "crash", "--call", "echo", "b"])
        .run()
        .exits(5)
        .prints("a")
        .says("pipeplug: crash: no reply, echo has ended: killed by signal 6 (SIGABRT)");
    pipeplug(["run", "@echo", "--call", "exit", "3"])
        .run()
        .exits(5)
        .says("exit: no reply, echo has ended: exit status 3");
}

#[test]
fn a_crash_behind_the_last_call_is_not_missed() {
    pipeplug(["run", "@echo", "--notify", "crash"])
        .run()
        .exits(5)
        .says("killed by signal 6 (SIGABRT)");
}

#[test]
fn its_last_words_come_ahead_of_the_error() {
    let place = Place::new();
    let path =
        place.standard("dying", "recv; send 3 x '{}'; recv; echo 'out of cheese' >&2; exit 9");
    place
        .pipeplug(["run", path.to_str().unwrap(), "--call", "x"])
        .run()
        .exits(5)
        .says(
            "dying: out of cheese\npipeplug: x: no reply, dying has ended: exit status 9\n  dying \
             (process ",
        )
        .says("; last on stderr: \"out of cheese\"\n  calls open: 1 (\"x\" for ")
        .says("; last received: response 1 \"x\" of 2 B; last sent: request 2 \"x\" of 0 B\n");
}

#[test]
fn the_name_in_a_message_of_the_plugin_is_shown_once() {
    let place = Place::new();
    let path = place.standard(
        "plug's",
        "recv; send 3 x '{}'; recv; echo \"plug's: it's \\\"over\\\"\" >&2; exit 9",
    );
    place
        .pipeplug(["run", path.to_str().unwrap(), "--call", "it's"])
        .run()
        .exits(5)
        .says("plug's: it's \"over\"\npipeplug: it's: no reply, plug's has ended: exit status 9\n")
        .says("; last on stderr: \"it's \\\"over\\\"\"\n  calls open: 1 (\"it's\" for ")
        .says("; last sent: request 2 \"it's\" of 0 B\n");
}

#[test]
fn a_broken_stream_ends_the_plugin() {
    let place = Place::new();
    let path = place
        .standard("babbler", "recv; send 3 x '{}'; recv; printf 'hello world' >&4; exec sleep 600");
    place
        .pipeplug(["run", path.to_str().unwrap(), "--grace", "50ms", "--call", "x"])
        .run()
        .exits(5)
        .says("broke the protocol")
        .says("still runs, and is stopped");
}

#[test]
fn a_call_that_takes_too_long_ends_the_run() {
    let mut run = pipeplug([
        "run",
        "@echo",
        "--json",
        "--timeout",
        "200ms",
        "--grace",
        "50ms",
        "--call",
        "sleep",
        "600000",
        "--call",
        "echo",
    ])
    .watch();
    let pid = run.event("metadata")["pid"].as_i64().unwrap();
    let error = run.event("error");
    assert_eq!(error["command"], "sleep");
    assert_eq!(error["message"], "sleep: no reply within 200ms; --timeout allows more");
    run.event("exit");
    assert_eq!(run.code(), Some(124));
    assert!(is_gone(pid.try_into().unwrap()));
}

#[test]
fn the_plugin_learns_of_the_deadline_and_of_its_passing() {
    pipeplug(["run", "@echo", "--call", "deadline"]).run().exits(0).prints("none");
    let run = pipeplug(["run", "@echo", "--timeout", "1h", "--call", "deadline"]).run().exits(0);
    assert!(
        (3_000_000..=3_600_000).contains(&run.text().trim().parse::<u32>().unwrap()),
        "{}",
        run.text()
    );
    pipeplug(["run", "@echo", "--timeout", "200ms", "--call", "sleep", "600000"])
        .run()
        .exits(124)
        .says("sleep: given up by the caller after ");
}

#[test]
fn a_start_that_takes_too_long_ends_the_run() {
    let place = Place::new();
    let path = place.executable("slow", "#!/bin/sh\nexec sleep 600\n");
    place
        .pipeplug(["run", path.to_str().unwrap(), "--timeout", "200ms"])
        .run()
        .exits(124)
        .says("did not answer GetMetadata within 200ms");
}

#[test]
fn sending_to_a_plugin_that_does_not_read_has_an_end_too() {
    let place = Place::new();
    let path = place.standard("deaf", DEAF);
    let data = format!("@{}", place.file("data", &vec![b'x'; 8 << 20]).display());
    let options = ["--timeout", "500ms", "--grace", "50ms"];
    for (verb, last) in
        [("--notify", "b: not sent within 500ms"), ("--call", "b: not sent within 500ms")]
    {
        let steps = ["--notify", "a", &data, verb, "b", &data];
        let args = [&["run", path.to_str().unwrap()], &options[..], &steps[..]].concat();
        place.pipeplug(args).run().exits(124).prints("").says(last);
    }
}

#[test]
fn a_reply_over_the_limit_is_an_error_of_that_call() {
    pipeplug([
        "run",
        "@echo",
        "--limit-buffer",
        "1K",
        "--call",
        "echo",
        &"x".repeat(2000),
        "--call",
        "echo",
        "a",
    ])
    .run()
    .exits(1)
    .prints("a")
    .says_only(
        "pipeplug: echo: the reply was skipped: the buffer is 2000 bytes long, the limit is 1024\n",
    );
}

#[test]
fn a_plugin_that_does_not_stop_is_killed_and_told_of() {
    let place = Place::new();
    let path = place.standard(
        "stubborn",
        "trap '' TERM; recv; send 3 x '{}'; recv; send 3 x y; exec sleep 600",
    );
    place
        .pipeplug(["run", path.to_str().unwrap(), "--grace", "50ms", "--call", "x"])
        .run()
        .exits(0)
        .prints("y")
        .says("stubborn did not stop when asked: stopped by SIGKILL");
}

#[test]
fn a_reader_that_has_read_enough_is_no_error() {
    let place = Place::new();
    let pid_file = place.path().join("pid");
    let path = place.standard("mirror", &format!("echo $$ >'{}'\n{MIRROR}", pid_file.display()));
    for json in [&[][..], &["--json"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let mut run = place.pipeplug(
            [&["run", path.to_str().unwrap(), "--call", "x", "--call", "y"], json].concat(),
        );
        let child =
            run.command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!(output.status.code(), Some(0));
        let pid = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert!(is_gone(pid), "the plugin was not stopped");
    }
}

#[test]
fn a_pipe_into_head_is_quiet() {
    let script = "\"$0\" run @echo --call echo 'a\n' --call echo 'b\n' --call echo 'c\n' | head -1";
    let output = Command::new("/bin/sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_pipeplug")])
        .output()
        .unwrap();
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"a\n"[..], &b""[..]));
}

#[test]
fn a_full_disk_is_an_error_that_is_told_once() {
    for options in [&[][..], &["--stream"], &["--json"], &["--call", "echo", "b"]] {
        let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else { return };
        let mut run = pipeplug([&["run", "@echo", "--call", "echo", "a"][..], options].concat());
        run.command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
        let output = run.command.spawn().unwrap().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap(),
            "pipeplug: stdout cannot be written: No space left on device (os error 28)\n",
            "{options:?}"
        );
    }
}

#[track_caller]
fn ends_of(signal: Signal, code: i32) {
    let mut run = pipeplug([
        "run", "@echo", "--json", "--grace", "50ms", "--call", "count", "--call", "sleep", "600000",
    ])
    .watch();
    let pid = run.event("metadata")["pid"].as_i64().unwrap();
    run.event("reply");
    run.signal(signal);
    run.event("exit");
    assert_eq!(run.code(), Some(code));
    assert!(is_gone(pid.try_into().unwrap()));
}

#[test]
fn an_interrupt_stops_the_plugin() {
    ends_of(Signal::SIGINT, 130);
}

#[test]
fn a_request_to_terminate_stops_the_plugin() {
    ends_of(Signal::SIGTERM, 143);
}

#[test]
fn a_hang_up_stops_the_plugin() {
    ends_of(Signal::SIGHUP, 129);
}

#[test]
fn a_hang_up_that_nohup_has_ignored_stays_so() {
    let mut run = pipeplug(["run", "@echo", "--json"]);
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command.arg(run.command.get_program()).args(run.command.get_args());
    run.command = command;
    let mut run = run.watch();
    run.event("metadata");
    run.signal(Signal::SIGHUP);
    run.signal(Signal::SIGTERM);
    run.event("exit");
    assert_eq!(run.code(), Some(143), "it is the second one that ended it");
}

#[test]
fn an_interrupt_ends_a_run_without_calls() {
    let mut run = pipeplug(["run", "@echo", "--json"]).watch();
    run.event("metadata");
    run.signal(Signal::SIGINT);
    assert_eq!(run.event("exit")["by"], "stopped when asked");
    assert_eq!(run.code(), Some(130));
}

#[test]
fn a_second_interrupt_kills() {
    let place = Place::new();
    let body = "recv; send 3 x '{}'; recv; echo \"$cmd\" >&2; exec sleep 600";
    let path = place.standard("stubborn", body);
    let mut run =
        place.pipeplug(["run", path.to_str().unwrap(), "--json", "--grace", "1h"]).watch();
    run.event("metadata");
    run.signal(Signal::SIGINT);
    assert_eq!(run.event("stderr")["line"], "cmd.stop");
    thread::sleep(ONE_STOP);
    run.signal(Signal::SIGINT);
    assert_eq!(run.event("exit")["signal"], 9);
    assert_eq!(run.code(), Some(130));
}

#[test]
fn signals_that_come_together_are_one_stop() {
    let place = Place::new();
    let body = "recv; send 3 x '{}'; recv; echo \"$cmd\" >&2; sleep 0.3; exit 0";
    let path = place.standard("slow-to-stop", body);
    let mut run =
        place.pipeplug(["run", path.to_str().unwrap(), "--json", "--grace", "1h"]).watch();
    run.event("metadata");
    // As of timeout(1), which signals its child and then the process group.
    run.signal(Signal::SIGTERM);
    run.signal(Signal::SIGHUP);
    let exit = run.event("exit");
    assert_eq!((&exit["code"], &exit["by"]), (&0.into(), &"stopped when asked".into()), "{exit}");
    run.code();
}

#[test]
fn a_plugin_that_a_signal_has_stopped_is_told_of_in_json_too() {
    let place = Place::new();
    let body = "recv; send 3 x '{}'; recv; kill -STOP $$; exec sleep 600";
    let path = place.standard("paused", body);
    let args = ["run", path.to_str().unwrap(), "--json", "--timeout", "2500ms", "--call", "x"];
    let mut run = place.pipeplug(args).watch();
    let pid = run.event("metadata")["pid"].clone();
    let stopped = run.event("stopped");
    assert_eq!((&stopped["pid"], &stopped["name"]), (&pid, &"SIGSTOP".into()), "{stopped}");
    let error = run.event("error");
    assert!(
        error["message"].as_str().unwrap().contains("is stopped (SIGSTOP): kill -CONT"),
        "{error}"
    );
    run.code();
}

/// As the guest of this project does where `pids.max` of its cgroup is reached.
#[test]
fn a_plugin_that_gets_no_thread_does_not_start() {
    let place = Place::new();
    let refusal = "not taken: the system gives no thread to handle it";
    let body = format!("recv; send 3 cmd.error '{refusal}'; exec sleep 600");
    let path = place.standard("threadless", &body);
    place.pipeplug(["run", path.to_str().unwrap(), "--call", "x"]).run().exits(4).says(refusal);
}

#[test]
fn an_interrupt_ends_a_start() {
    let place = Place::new();
    let path = place.executable("slow", "#!/bin/sh\necho $$ >&2\nexec sleep 600\n");
    let mut run =
        place.pipeplug(["run", path.to_str().unwrap(), "--json", "--timeout", "1h"]).watch();
    let pid = run.event("stderr")["line"].as_str().unwrap().parse().unwrap();
    run.signal(Signal::SIGINT);
    assert_eq!(run.code(), Some(130));
    assert!(is_gone(pid));
}

#[test]
fn an_interrupt_while_stdin_is_read_ends_it() {
    let mut run = pipeplug(["run", "@echo", "--call", "echo", "@-"]);
    let mut child = run.command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: once it is written, the program is reading.
    stdin.write_all(&vec![b'x'; 1 << 20]).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    assert_eq!(wait(child), None, "it is the signal itself that ends it");
    drop(stdin);
}

#[test]
fn an_interrupt_cancels_the_open_call() {
    let place = Place::new();
    // It works until it is told that its work is not wanted any more.
    let body = r#"
        recv; send 3 "$cmd" '{"pipeplug.features":"cancel"}'
        recv; echo "begins $cmd" >&2
        while recv; do [ "$cmd" = cmd.cancel ] && exit 7; done"#;
    let path = place.standard("worker", body);
    let args = [
        "run",
        path.to_str().unwrap(),
        "--json",
        "--grace",
        "1h",
        "--call",
        "work",
        "--call",
        "more",
    ];
    let mut run = place.pipeplug(args).watch();
    assert_eq!(run.event("stderr")["line"], "begins work");
    run.signal(Signal::SIGINT);
    let error = run.event("error");
    assert_eq!((&error["command"], &error["exit_code"]), (&"work".into(), &130.into()));
    assert_eq!(error["message"], "work: cancelled by SIGINT");
    assert_eq!(run.event("exit")["code"], 7, "it was told");
    assert_eq!(run.code(), Some(130));
}

#[test]
fn a_handler_of_a_one_way_learns_of_the_stop() {
    let args = ["run", "@echo", "--grace", "1h", "--notify", "sleep", "600000", "--call", "count"];
    pipeplug(args).run().exits(0).says("echo: sleep: the plugin ends (Asked) after ");
}

/// A host that is stopped past the deadline finds the answer of a plugin that was told of the
/// deadline.
#[test]
fn a_call_that_takes_too_long_ends_the_run_of_a_host_that_stood_still() {
    let args = [
        "run",
        "@echo",
        "--json",
        "--timeout",
        "1s",
        "--call",
        "echo",
        "x",
        "--call",
        "sleep",
        "600000",
    ];
    let mut run = pipeplug([&args[..], &["--call", "echo"]].concat()).watch();
    run.event("reply");
    // Time is the input here: the call is sent, the deadline passes, and the plugin answers.
    std::thread::sleep(Duration::from_millis(300));
    run.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1200));
    run.signal(Signal::SIGCONT);
    assert_eq!(run.event("error")["message"], "sleep: no reply within 1s; --timeout allows more");
    assert_eq!(run.code(), Some(124));
}

#[test]
fn what_a_daemon_holds_is_in_the_json() {
    let place = Place::new();
    let ready = place.path().join("ready");
    let daemon = format!(
        "setsid sh -c ': >{0}; exec sleep 5' >/dev/null & until [ -e {0} ]; do :; done",
        ready.display()
    );
    let leaves = place.standard("leaves", &format!("{daemon}\n{MIRROR}"));
    let mut run =
        place.pipeplug(["run", leaves.to_str().unwrap(), "--json", "--call", "x"]).watch();
    let exit = run.event("exit");
    assert_eq!(exit["held"], serde_json::json!(["stderr"]), "{exit}");
    let pid = exit["left"][0].as_i64().unwrap();
    let _ = nix::sys::signal::kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
}

#[test]
fn a_one_way_that_fails_is_told_of() {
    pipeplug(["run", "@echo", "--notify", "fail", "no \x1b way", "--notify", "unheard-of"])
        .run()
        .says("a handler of a one-way failed {\"command\":\"fail\",\"error\":\"no \\u001b way\"")
        .says(
            "a handler of a one-way failed {\"command\":\"unheard-of\",\"error\":\"unknown command",
        );
}

#[test]
fn an_interrupt_that_is_ignored_stays_so() {
    let mut run = pipeplug(["run", "@echo", "--json"]);
    let mut command = Command::new("/bin/sh");
    // As a shell without job control starts what stands before a `&`.
    command.args(["-c", "trap '' INT; exec \"$@\"", "sh"]);
    command.arg(run.command.get_program()).args(run.command.get_args());
    run.command = command;
    let mut run = run.watch();
    run.event("metadata");
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGTERM);
    run.event("exit");
    assert_eq!(run.code(), Some(143), "it is the second one that ended it");
}

#[test]
fn a_line_that_ends_in_a_carriage_return_is_shown_as_it_comes() {
    let place = Place::new();
    let path = place.standard("loader", "recv; send 3 x '{}'; printf '10 %%\\r' >&2; recv; exit 0");
    let mut run = place.pipeplug(["run", path.to_str().unwrap(), "--json"]).watch();
    assert_eq!(run.event("stderr")["line"], "10 %", "it is not held back until the end");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.code(), Some(143));
}
