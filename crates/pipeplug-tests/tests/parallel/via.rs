//! Plugins that another command starts, which carries their pipes.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use pipeplug_host::Format;
use pipeplug_host::launcher::CommandPrefix;
use pipeplug_host::process::SpawnErrorKind;
use pipeplug_host::{
    Crash, Grace, Plugin, PluginBuilder, StartErrorKind, Stdin, StoppedBy, WaitStatus,
};
use pipeplug_tests::{LONG, Script, command_lines_with, eventually, is_running, send, tool};

use crate::on_host_exit::Host;
use crate::{MISBEHAVE, misbehave, plain};

/// Prefixes: one that executes the plugin in its own place, and one whose child the plugin is.
const EXECUTES: [&str; 4] = ["sh", "-c", "exec \"$@\"", "sh"];
const WAITS: [&str; 4] = ["sh", "-c", "\"$@\"; exit $?", "sh"];

/// Plugin on standard input and output with other processes in its group. All of them ignore the
/// end of a pipe and SIGTERM.
fn stubborn() -> Script {
    Script::new(
        r#"trap '' TERM HUP INT QUIT PIPE
        for i in 1 2 3; do
            sh -c 'trap "" TERM HUP INT QUIT PIPE; sleep 1000 & echo $! >"$0/$1"; echo $$ >>"$0/$1"; wait' \
                "$dir" "$i" <&- >&- 2>&- &
        done
        head -c 1 >/dev/null; printf '1\0003\00011\000GetMetadata\0002\000{}'
        echo $$ >"$dir/4"; exec <&- >&- 2>&-; while :; do sleep 1000; done"#,
    )
}

/// The processes of [`stubborn`], once all have started.
fn family(dir: &Path) -> Vec<i32> {
    let numbers = || {
        let files =
            (1..=4).map(|i| fs::read_to_string(dir.join(i.to_string())).unwrap_or_default());
        let text: String = files.collect();
        text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>()
    };
    eventually("all have started", || numbers().len() == 7);
    numbers()
}

#[track_caller]
fn assert_gone(family: &[i32]) {
    eventually("all are gone", || !family.iter().any(|pid| is_running(*pid)));
}

fn via(builder: PluginBuilder, command: &[&str]) -> PluginBuilder {
    builder.launcher(CommandPrefix::new(command))
}

#[test]
fn any_command_that_ends_with_a_command_starts_it() {
    for command in [&["nice", "-n", "5"][..], &["env", "VIA=env"], &EXECUTES, &WAITS] {
        let plugin = via(plain(), command).start().unwrap();
        assert_eq!(plugin.call("echo", "hello").unwrap(), "hello", "{command:?}");
        let stopped = plugin.stop().unwrap();
        assert_eq!(
            (stopped.status, stopped.by),
            (WaitStatus::Exited(0), StoppedBy::Stop),
            "{command:?}"
        );
    }
    let nice = via(plain(), &["nice", "-n", "5"]).start().unwrap();
    assert_eq!(nice.call("sh", "nice").unwrap(), "5\n");
    let env = via(plain(), &["env", "VIA=env"]).start().unwrap();
    assert_eq!(env.call("env", "VIA").unwrap(), "env");
}

#[test]
fn its_arguments_variables_and_directory_arrive_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    // The first two would be taken for descriptors, and the rest for what a shell has a meaning
    // for.
    for own in [
        &["7", "8", "plain"][..],
        &["0", "1", "2"],
        &["3", "plain"],
        &["plain", "a b", "$HOME", "'", "*"],
    ] {
        let builder = misbehave(own).env("VIA_A", "it's $HOME\n").current_dir(dir.path());
        let plugin = via(builder, &EXECUTES).start().unwrap();
        assert_eq!(plugin.call("args", "").unwrap(), own.join(" "));
        assert_eq!(plugin.call("env", "VIA_A").unwrap(), "it's $HOME\n");
        let cwd = dir.path().canonicalize().unwrap();
        assert_eq!(plugin.call("cwd", "").unwrap(), cwd.to_str().unwrap());
    }
}

/// Passes neither its environment nor its directory on, as `sudo` and `docker exec`; one that does
/// not, and waits.
const DROPS: [&str; 6] = ["env", "-i", "-C", "/", "sh", "-c"];

#[test]
fn variables_and_directory_get_past_a_command_that_drops_them() {
    let dir = tempfile::tempdir().unwrap();
    let cwd = dir.path().canonicalize().unwrap().into_os_string().into_string().unwrap();
    for script in ["exec \"$@\"", "\"$@\"; exit $?"] {
        let command = [&DROPS[..], &[script, "sh"]].concat();
        let secret = format!("it's a secret\n{}", "x".repeat(200_000 / 2));
        let builder = plain().env("VIA_SECRET", &secret).env_remove("PWD").current_dir(dir.path());
        // A variable that nothing sets here, and one that cargo sets for every test.
        let plugin = via(builder.env_pass("VIA_UNSET").env_pass("CARGO_PKG_NAME"), &command)
            .start()
            .unwrap();
        assert_eq!(plugin.call("env", "VIA_SECRET").unwrap(), secret.as_str());
        assert_eq!(plugin.call("env", "CARGO_PKG_NAME").unwrap(), env!("CARGO_PKG_NAME"));
        assert_eq!(plugin.call("cwd", "").unwrap(), cwd.as_str());
        assert!(
            command_lines_with("it's a secret").is_empty(),
            "every user can read command lines"
        );
        assert_eq!(plugin.stop().unwrap().by, StoppedBy::Stop);
    }
}

#[test]
fn the_command_itself_is_the_host_s() {
    let dir = tempfile::tempdir().unwrap();
    let script = "echo \"${VIA_A-none}\" >&2; pwd >&2; exit 1";
    let builder = plain().env("VIA_A", "plugin").current_dir(dir.path());
    let error = via(builder, &["sh", "-c", script]).start().unwrap_err();
    let StartErrorKind::Exited { .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    let here = std::env::current_dir().unwrap().into_os_string().into_string().unwrap();
    assert_eq!(stderr, &["none".to_owned(), here]);
}

#[test]
fn an_interpreter_gets_the_variables_itself() {
    let dir = tempfile::tempdir().unwrap();
    // A script that nothing but its interpreter can run: it is not executable, or has no `#!` line.
    for line in ["#!/bin/sh", "# no interpreter"] {
        let path = dir.path().join("plugin");
        fs::write(&path, format!("{line}\nexec \"$MISBEHAVE\" \"$@\"\n")).unwrap();
        let builder =
            Plugin::builder(&path).args(["plain"]).env("MISBEHAVE", MISBEHAVE).current_dir("/usr");
        let plugin = via(builder, &["sh"]).start().unwrap();
        assert_eq!(plugin.call("cwd", "").unwrap(), "/usr");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_relative_path_is_the_host_s() {
    let here = std::env::current_dir().unwrap();
    let up: String = here.components().skip(1).map(|_| "../").collect();
    let relative = format!("{}{}", up, MISBEHAVE.trim_start_matches('/'));
    let plugin = via(Plugin::builder(relative).arg("plain").current_dir("/usr"), &DROPS[..4])
        .start()
        .unwrap();
    assert_eq!(plugin.call("cwd", "").unwrap(), "/usr");
}

#[test]
fn what_cannot_be_set_past_the_command_is_told() {
    let error = via(plain().env("A", "x"), &["python3"]).start().unwrap_err();
    if !error.to_string().contains("there is no program") {
        assert!(
            error.is_permanent() && error.to_string().contains("`env NAME=VALUE` at its end"),
            "{error}"
        );
    }
    let error = via(plain().current_dir("/no/such/directory"), &DROPS[..4]).start().unwrap_err();
    assert!(error.to_string().contains("/no/such/directory"), "{error}");
    let error = via(plain().env("a-b", "x"), &DROPS[..4]).start().unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("`env NAME=VALUE` at the end"),
        "{error}"
    );
    let plugin = via(plain(), &["env", "a-b=x"]).start().unwrap();
    assert_eq!(plugin.call("env", "a-b").unwrap(), "x");
    // One that takes nothing of its input, and ends: its end is the cause, not what could not be
    // written.
    let error =
        via(plain().env("A", "x".repeat(100_000)), &["sh", "-c", "exit 3"]).start().unwrap_err();
    assert!(
        matches!(error.kind(), StartErrorKind::Exited { status: WaitStatus::Exited(3), .. }),
        "{error:?}"
    );
}

#[test]
fn a_command_that_is_not_there_is_named() {
    for command in [&["no-such-carrier", "x"][..], &["/no/such/carrier"], &[""], &[]] {
        let error = via(plain(), command).start().unwrap_err();
        assert!(error.is_permanent(), "{command:?}: {error}");
        let message = error.to_string();
        let name = command.first().copied().unwrap_or_default();
        assert!(message.contains(MISBEHAVE) && message.contains(name), "{message}");
    }
    let error = via(plain(), &["no-such-carrier"]).start().unwrap_err();
    assert!(
        matches!(error.kind(), StartErrorKind::Spawn(SpawnErrorKind::NoClient { .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("install it, or add its directory to `PATH`"), "{error}");
}

#[test]
fn a_command_that_fails_is_told_with_its_status_and_last_words() {
    let error = via(plain(), &["sh", "-c", "echo 'no such user' >&2; exit 3"]).start().unwrap_err();
    let StartErrorKind::Exited { status, .. } = error.kind() else { panic!("{error:?}") };
    let stderr = error.stderr();
    assert_eq!((*status, stderr), (WaitStatus::Exited(3), &["no such user".to_owned()][..]));
    let place = format!(
        "plugin {MISBEHAVE:?} via `sh -c echo 'no such user' >&2; exit 3` ended before it answered"
    );
    assert!(error.to_string().starts_with(&place), "{error}");
    assert!(error.to_string().contains("it, or what starts it there, did so"), "{error}");
    let error = via(Plugin::builder("/no/such/plugin"), &["env"]).start().unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("/no/such/plugin"), "{error}");
    assert!(
        error.to_string().contains(
            "`env` of that command failed (exit status 127): check that the command \
                       finds the plugin"
        ),
        "{error}"
    );
    for (command, says) in [
        (
            &["nice", "-n", "1", "nosuchcommand"][..],
            "`nice` of that command failed (exit status 127)",
        ),
        (
            &["nice", "--no-such-option"],
            "`nice` of that command failed (exit status 125): correct it",
        ),
        (&["/usr/bin/env", "nice", "-n", "x"], "`nice` of that command failed (exit status 125)"),
    ] {
        let error = via(plain(), command).start().unwrap_err();
        assert!(matches!(error.kind(), StartErrorKind::Launcher { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    // A plugin's own end is not the command's.
    let script = Script::new("echo \"$0: no such option\" >&2; exit 2");
    let error = via(script.builder(), &["nice"]).start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Exited { .. }), "{error:?}");
}

#[test]
fn a_command_that_prints_something_first_is_told_by_what() {
    let error = via(plain(), &["sh", "-c", "echo 'Last login: today'; exec \"$@\"", "sh"])
        .start()
        .unwrap_err();
    let StartErrorKind::Garbage { first, .. } = error.kind() else { panic!("{error:?}") };
    assert!(first.starts_with(b"Last login: today\n"), "{error}");
    assert!(error.to_string().starts_with(&format!("plugin {MISBEHAVE:?} via `sh -c")), "{error}");
    assert!(
        error.to_string().contains(
            "the plugin, and the command that starts it on stdin and stdout, must print nothing"
        ),
        "{error}"
    );
}

/// A command that has what follows it run in a terminal of its own, as `docker exec -t` does.
fn in_a_terminal(setup: &str) -> Script {
    Script::new(&format!(r#"exec script -qec "{setup}exec $*" /dev/null"#))
}

#[test]
fn a_terminal_in_between_is_told() {
    if tool("script", "bsdutils").is_none() {
        return;
    }
    for format in [Format::Standard, Format::Classic] {
        let script = in_a_terminal("");
        let error =
            via(plain(), &[script.path().to_str().unwrap()]).format(format).start().unwrap_err();
        let StartErrorKind::Terminal { shown, .. } = error.kind() else { panic!("{error:?}") };
        assert!(shown.starts_with(b"1^@2^@"), "{error}");
        assert!(error.is_permanent());
        let message = error.to_string();
        assert!(
            message.contains("is behind a terminal") && message.contains("leaving out `-t`"),
            "{message}"
        );
    }
    // Without an echo its ends of lines give it away.
    let script = in_a_terminal("echo ready; ");
    let quiet = Script::new(&format!("sleep 1 | {} \"$@\"", script.path().display()));
    let error = via(plain(), &[quiet.path().to_str().unwrap()]).start().unwrap_err();
    let StartErrorKind::Terminal { shown, .. } = error.kind() else { panic!("{error:?}") };
    assert!(shown.starts_with(b"ready\r\n"), "{error}");
}

#[test]
fn a_command_that_misses_a_terminal_is_told() {
    // As `docker exec -it` does.
    let script = Script::new("echo 'the input device is not a TTY' >&2; exit 1");
    let error = via(plain(), &[script.path().to_str().unwrap()]).start().unwrap_err();
    assert!(matches!(error.kind(), StartErrorKind::Terminal { .. }), "{error:?}");
    assert!(error.to_string().contains("it showed \"the input device is not a TTY\""), "{error}");
}

#[test]
fn the_terminal_cannot_be_carried() {
    let error = via(plain(), &EXECUTES).stdin(Stdin::Inherit).start();
    // `plain` talks over its own descriptors, which the command prefix does not pass on.
    let error = error.map_or_else(|error| error, |_| panic!("it has one standard input only"));
    assert!(error.to_string().contains("the host's standard input"), "{error}");
}

#[test]
fn all_of_it_is_gone_after_a_stop() {
    for command in [EXECUTES, WAITS] {
        let script = stubborn();
        let plugin = via(script.builder(), &command).start().unwrap();
        let family = family(script.dir());
        let stopped =
            plugin.stop_within(Grace::each(std::time::Duration::from_millis(50))).unwrap();
        // The shell that waits does heed SIGTERM, and its family is killed then.
        assert!(stopped.by >= StoppedBy::Term, "{stopped:?}");
        assert_gone(&family);
    }
}

#[test]
fn all_of_it_is_gone_after_a_kill_of_what_carries_it() {
    for command in [EXECUTES, WAITS] {
        let script = stubborn();
        let plugin = via(script.builder(), &command).start().unwrap();
        let family = family(script.dir());
        let call = plugin.request("never", "").begin().unwrap();
        send(plugin.pid().as_raw(), Signal::SIGKILL);
        let error = call.wait_timeout(LONG).unwrap_err();
        let place = Crash::of(&error).unwrap().launcher.clone().unwrap();
        assert!(place.starts_with("via `sh -c"), "{place}");
        assert_gone(&family);
    }
}

#[test]
#[cfg(linux_native)]
fn all_of_it_is_gone_after_a_kill_of_the_host() {
    for command in ["env", "nice -n 1", "setarch -R"] {
        let script = stubborn();
        let mut host = Host::launched(&["--via", command], "parks", script.path(), &[]);
        let family = family(script.dir());
        host.end("parks");
        assert_gone(&family);
    }
}
