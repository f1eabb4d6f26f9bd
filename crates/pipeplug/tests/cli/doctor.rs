//! `pipeplug doctor`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::common::{MIRROR, Place, has_strict_sandbox, has_tool, missing, pipeplug};

/// Findings about a plugin, from a run that exits with this status. Without a sandbox, so that the
/// cause is the plugin's own.
#[track_caller]
fn findings(place: &Place, code: i32, path: &Path, options: &[&str]) -> Vec<Value> {
    let mut args = vec!["doctor", path.to_str().unwrap(), "--json"];
    if !options.contains(&"--sandbox") {
        args.extend(["--sandbox", "none"]);
    }
    args.extend(options);
    let ran = place.pipeplug(args).run().exits(code);
    let ran = ran.says_only("");
    let object = ran.json().remove(0);
    assert_eq!(object["ok"], code == 0);
    object["plugin"].as_array().unwrap().clone()
}

/// State, and the detail with the next step.
#[track_caller]
fn finding(findings: &[Value], check: &str) -> (String, String) {
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no {check} in {findings:?}"));
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (text("state"), format!("{}; {}", text("detail"), text("next")))
}

#[track_caller]
fn fails(findings: &[Value], check: &str, said: &str) {
    let (state, text) = finding(findings, check);
    assert_eq!(state, "failed", "{text}");
    assert!(text.contains(said), "{said:?} is not in: {text}");
}

#[test]
fn the_system_alone_is_checked_without_a_plugin() {
    let ran = pipeplug(["doctor", "--json"]).run().exits(0).says_only("");
    let object = &ran.json()[0];
    assert_eq!((&object["ok"], &object["plugin"]), (&true.into(), &Value::Null));
    let system = object["system"].as_array().unwrap();
    for check in [
        "pipes",
        "pidfd",
        "namespaces",
        "Landlock",
        "seccomp",
        "cgroups",
        "open files",
        "processes",
        "docker",
        "podman",
        "ssh",
        "kubectl",
    ] {
        let (state, text) = finding(system, check);
        assert!(["ok", "limited", "missing"].contains(&state.as_str()), "{check}: {state}");
        let has_next = !text.ends_with("; ");
        assert_eq!(has_next, state != "ok", "{check} is {state}: {text}");
    }
    let text = pipeplug(["doctor"]).run().exits(0);
    assert!(text.text().starts_with("system\n  "), "{}", text.text());
    assert_eq!(text.text().lines().count(), system.len() + 1);
}

#[test]
fn a_lack_of_the_system_is_found() {
    // No client is in PATH, and few descriptors are left.
    let program = env!("CARGO_BIN_EXE_pipeplug");
    let mut run = pipeplug(["doctor", "--json"]);
    run.command = std::process::Command::new("/bin/sh");
    run.command.args([
        "-c",
        "ulimit -n 100; PATH=/nonexistent; exec \"$0\" doctor --json",
        program,
    ]);
    let ran = run.run().exits(0);
    let system = ran.json()[0]["system"].as_array().unwrap().clone();
    for check in ["docker", "podman", "ssh", "kubectl"] {
        let (state, text) = finding(&system, check);
        assert_eq!(state, "missing");
        assert!(text.contains("not in PATH") && text.contains("apt-get install"), "{text}");
    }
    let (state, text) = finding(&system, "open files");
    assert_eq!(state, "limited", "{text}");
    assert!(text.contains("100 (at most"), "{text}");
}

#[test]
fn a_plugin_that_starts_is_all_right() {
    let place = Place::new();
    let path = place.standard("fine", MIRROR);
    let found = findings(&place, 0, &path, &[]);
    assert_eq!(finding(&found, "file").0, "ok");
    assert!(finding(&found, "file").1.contains("script, mode 0755, user "));
    assert!(finding(&found, "interpreter").1.contains("/bin/bash"));
    assert_eq!(finding(&found, "libraries").0, "ok");
    assert!(finding(&found, "start").1.contains("answered in "));
    assert_eq!(finding(&findings(&place, 0, Path::new("@echo"), &[]), "start").0, "ok");
    pipeplug(["doctor", "/nonexistent/x"]).run().exits(1).prints_part("no such file");
    pipeplug(["doctor", "no-such-name"]).run().exits(3);
    pipeplug(["doctor", "--no-such-option"]).run().exits(2);
}

#[test]
fn each_problem_of_a_file_is_found_once() {
    let place = Place::new();
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    elf.resize(18, 0);
    elf.extend([0x34, 0x12]);
    elf.resize(64, 0);
    for (name, mode, content, said) in [
        ("mode", 0o644, b"#!/bin/sh\n".as_slice(), "chmod +x"),
        ("crlf", 0o755, b"#!/bin/sh\r\n", "CR LF"),
        ("interpreter", 0o755, b"#!/nonexistent/python3\n", "/nonexistent/python3"),
        ("text", 0o755, b"echo hello\n", "neither a `#!` line nor an ELF header"),
        ("windows", 0o755, b"MZ\x90", "a Windows program"),
        ("machine", 0o755, &elf, "built for another machine (machine number 4660"),
        ("empty", 0o755, b"", "it is empty"),
    ] {
        let path = place.file(name, content);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let found = findings(&place, 1, &path, &[]);
        fails(&found, "file", said);
        assert!(finding(&found, "file").1.contains(&format!("mode {mode:04o}")));
        fails(&found, "start", "prevented by the above");
        assert_eq!(found.last().unwrap()["check"], "start", "no other way is tried: {found:?}");
    }
    fails(&findings(&place, 1, place.path(), &[]), "file", "is a directory");
}

#[test]
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn a_missing_library_is_named() {
    let place = Place::new();
    // This program with another name in its table of strings.
    let mut bytes = fs::read(env!("CARGO_BIN_EXE_pipeplug")).unwrap();
    let at = bytes.windows(10).position(|bytes| bytes == b"libc.so.6\0").unwrap();
    bytes[at..at + 9].copy_from_slice(b"libq.so.6");
    let path = place.file("library", &bytes);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let found = findings(&place, 1, &path, &[]);
    fails(&found, "libraries", "not found: libq.so.6 (for ");
    fails(&found, "start", "libq.so.6");
}

#[test]
fn another_way_to_start_is_found_with_its_command() {
    let place = Place::new();
    let path = place.classic("old", MIRROR);
    let found = findings(&place, 1, &path, &["--timeout", "2s", "--", "x y"]);
    assert_eq!(finding(&found, "start").0, "failed");
    let (state, text) = finding(&found, "--format classic");
    assert_eq!(state, "limited", "{text}");
    let shown = path.to_str().unwrap();
    let command =
        format!("use `pipeplug run {shown} --sandbox none --timeout 2s --format classic -- 'x y'`");
    assert!(text.contains(&command), "{text}");

    // Only standard input and output.
    let path = place.executable(
        "stdio",
        &fs::read_to_string(place.standard("both", MIRROR))
            .unwrap()
            .replace("${1:-0} out=${2:-1}", "0 out=1"),
    );
    let found = findings(&place, 1, &path, &[]);
    let (state, text) = finding(&found, "--stdio");
    assert_eq!(state, "limited", "{text}");
    assert!(text.contains("--sandbox none --stdio`"), "{text}");
    // The options that were asked for are replaced.
    let found = findings(&place, 1, &path, &["--stdio", "--format=classic"]);
    let (_, text) = finding(&found, "--stdio");
    assert!(text.contains("--sandbox none --stdio`"), "{text}");
}

#[test]
fn descriptors_that_a_wrapper_lost_are_named() {
    if !has_tool("python3", "python3") {
        return;
    }
    let place = Place::new();
    let plugin = place.standard("plugin", MIRROR);
    let path = place.executable(
        "wrapper",
        &format!(
            "#!/usr/bin/env python3\nimport subprocess, sys\n\
             sys.exit(subprocess.call([{:?}] + sys.argv[1:]))\n",
            plugin.to_str().unwrap()
        ),
    );
    let found = findings(&place, 1, &path, &["--timeout", "2s"]);
    fails(&found, "start", "pass_fds=(3, 4)");
    assert_eq!(finding(&found, "--stdio").0, "limited", "{found:?}");
}

#[test]
fn variables_that_are_not_passed_on_are_named() {
    let place = Place::new();
    let path =
        place.executable("needy.py", "#!/bin/sh\necho \"No module named 'x'\" >&2\nexit 1\n");
    let mut run = place.pipeplug([
        "doctor".as_ref(),
        path.as_os_str(),
        "--json".as_ref(),
        "--sandbox".as_ref(),
        "none".as_ref(),
    ]);
    run.command.env("PYTHONPATH", "/x");
    let found = run.run().exits(1).json()[0]["plugin"].as_array().unwrap().clone();
    let (state, text) = finding(&found, "variables");
    assert_eq!(state, "limited");
    assert!(text.contains("PYTHONPATH") && text.contains("--env-pass NAME"), "{text}");
    fails(&found, "start", "PYTHONPATH");
}

#[test]
fn the_sandbox_is_that_of_inspect() {
    if !has_strict_sandbox() {
        return;
    }
    let place = Place::new();
    let path = place.standard(
        "curious",
        &format!("[ -e {:?} ] || exit 7\n{MIRROR}", place.path().join("file")),
    );
    place.file("file", b"");
    let found = findings(&place, 1, &path, &["--sandbox", "strict"]);
    fails(&found, "start", "exit status 7");
    findings(
        &place,
        0,
        &path,
        &["--sandbox", "strict", "--sandbox-read", place.path().to_str().unwrap()],
    );
    findings(&place, 0, &path, &[]);
    // Strict is the default.
    place.pipeplug([Path::new("doctor"), &path]).run().exits(1);
}

#[test]
#[cfg(target_os = "linux")]
fn a_noexec_mount_and_another_user_s_file_are_named() {
    const NO_NAMESPACE: i32 = 99;
    let place = Place::new();
    let path = place.executable("fine", "#!/bin/sh\n");
    let within = |script: &str| {
        let mut run = place.pipeplug(["doctor"]);
        let program = run.command.get_program().to_owned();
        run.command = std::process::Command::new("unshare");
        run.command.args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", script, "sh"]);
        run.command.arg(program).arg(&path).env("HOME", place.path());
        run.run()
    };
    if !has_tool("unshare", "util-linux") {
        return;
    }
    let ran = within(
        "mkdir \"$HOME/mount\" && mount -t tmpfs -o noexec none \"$HOME/mount\" || exit 99
        cp \"$2\" \"$HOME/mount/fine\" && exec \"$1\" doctor \"$HOME/mount/fine\" --sandbox none",
    );
    if ran.code == Some(NO_NAMESPACE) || ran.stderr.contains("unshare: ") {
        missing("a user namespace with a mount");
        return;
    }
    ran.exits(1).prints_part("mounted noexec");

    // Root may execute nothing that has no x bit either, so that another user has to look.
    if !nix::unistd::geteuid().is_root() || !has_tool("setpriv", "util-linux") {
        return;
    }
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o744)).unwrap();
    // A program below the home directory of root is out of the other user's reach.
    let program = place.path().join("pipeplug");
    // Copied by another process, as `Place::executable` does.
    let copied = std::process::Command::new("cp")
        .args([env!("CARGO_BIN_EXE_pipeplug").as_ref(), program.as_os_str()])
        .status();
    assert!(copied.unwrap().success());
    let mut run = place.pipeplug(["doctor"]);
    run.command = std::process::Command::new("setpriv");
    run.command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    run.command.arg(&program).arg("doctor").arg(&path).args(["--sandbox", "none"]);
    run.run().exits(1).prints_part("let the owner run `chmod a+rx` on it");
}
