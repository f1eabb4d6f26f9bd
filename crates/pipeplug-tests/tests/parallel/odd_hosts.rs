//! Hosts that handle signals, or have descriptors, as few do.

use std::process::{Command, Stdio};

use pipeplug_tests::wait_exit;

use crate::{MISBEHAVE, ODD_HOST};

#[track_caller]
fn all_goes_well(oddity: &str) {
    let mut host =
        Command::new(ODD_HOST).args([oddity, MISBEHAVE]).stdin(Stdio::null()).spawn().unwrap();
    let status = wait_exit(&mut host);
    assert!(status.success(), "{oddity}: {status}");
}

/// Host on an older kernel, or below a filter of system calls that does not know new ones.
#[test]
#[cfg(target_os = "linux")]
fn one_that_lacks_a_newer_system_call() {
    use nix::errno::Errno;

    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(MISBEHAVE, dir.path().join("odd-it")).unwrap();
    let script = dir.path().join("odd-script");
    std::fs::write(&script, format!("#!/bin/sh\nexec '{MISBEHAVE}' \"$@\"\n")).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for call in pipeplug_tests::NEWER_CALLS {
        for errno in [Errno::EPERM, Errno::ENOSYS] {
            let number = (errno as i32).to_string();
            let mut command = Command::new(ODD_HOST);
            command
                .args(["lacks-a-call", MISBEHAVE, call, &number])
                .arg(dir.path())
                .stdin(Stdio::null());
            let status = wait_exit(&mut command.spawn().unwrap());
            assert!(status.success(), "{call} is {errno}: {status}");
        }
    }
}

#[test]
fn one_that_sigpipe_kills() {
    all_goes_well("dies-of-sigpipe");
}

#[test]
fn one_that_ignores_sigchld() {
    all_goes_well("ignores-sigchld");
}

#[test]
fn one_whose_handler_reaps_every_child() {
    all_goes_well("reaps-all");
}

#[test]
fn one_that_has_closed_its_standard_descriptors() {
    all_goes_well("no-stdio");
}

#[test]
fn one_that_waits_for_all_of_its_children() {
    all_goes_well("waits-for-all");
}

#[test]
fn one_that_forks_without_an_exec() {
    all_goes_well("forks");
}

/// Host as the first process of a container without an init: it becomes the parent of every orphan.
#[test]
#[cfg(linux_native)]
fn one_that_is_the_first_process_of_its_namespace() {
    let mut host = Command::new("unshare");
    host.args([
        "--user",
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        ODD_HOST,
        "is-init",
        MISBEHAVE,
    ]);
    let output = host.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("unshare: ") && std::env::var_os("CI").is_none() {
        eprintln!("skipped: this user can make no namespaces: {said}");
        return;
    }
    assert!(output.status.success(), "{}: {said}", output.status);
}
