//! Plugins that no host started, or a host that gave them what cannot be used.

use std::fs::File;
use std::io::{Read, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use nix::pty::{OpenptyResult, openpty};
use pipeplug_tests::wait_exit;

use crate::MISBEHAVE;

fn terminal() -> OpenptyResult {
    openpty(None, None).unwrap()
}

fn copy(fd: &OwnedFd) -> Stdio {
    fd.try_clone().unwrap().into()
}

#[test]
fn in_a_terminal_it_says_what_to_type() {
    let OpenptyResult { master, slave } = terminal();
    let mut plugin = Command::new(MISBEHAVE)
        .stdin(copy(&slave))
        .stdout(copy(&slave))
        .stderr(copy(&slave))
        .spawn()
        .unwrap();
    assert_eq!(wait_exit(&mut plugin).code(), Some(2));
    drop(slave);
    let mut shown = Vec::new();
    match File::from(master).read_to_end(&mut shown) {
        Ok(_) => {}
        // What a terminal gives at its end: pty(7).
        Err(error) => assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::EIO as i32)),
    }
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("misbehave is a plugin"), "{shown}");
    assert!(
        shown.contains(&format!("    pipeplug run {MISBEHAVE} --call COMMAND [DATA]")),
        "{shown}"
    );
}

#[test]
fn the_command_to_type_leads_there_from_any_place() {
    // As a shell starts what it finds through PATH.
    let OpenptyResult { master: _master, slave } = terminal();
    let mut plugin = Command::new(MISBEHAVE);
    let plugin =
        plugin.arg0("misbehave").stdin(copy(&slave)).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = plugin.spawn().unwrap().wait_with_output().unwrap();
    let shown = String::from_utf8(output.stderr).unwrap();
    assert!(
        shown.contains(&format!("    pipeplug run {MISBEHAVE} --call COMMAND [DATA]")),
        "{shown}"
    );
}

#[test]
fn half_a_terminal_is_one() {
    let OpenptyResult { master: _master, slave } = terminal();
    let ends: [(Stdio, Stdio); 2] = [(copy(&slave), Stdio::piped()), (Stdio::null(), copy(&slave))];
    for (stdin, stdout) in ends {
        let mut plugin = Command::new(MISBEHAVE)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(wait_exit(&mut plugin).code(), Some(2));
        let output = plugin.wait_with_output().unwrap();
        assert_eq!(output.stdout, b"");
        assert!(String::from_utf8_lossy(&output.stderr).contains("pipeplug run"));
    }
}

/// Runs the plugin with descriptors that a shell arranged.
fn with_descriptors(arranged: &str) -> Output {
    Command::new("/bin/sh")
        .args(["-c", &format!("exec \"$0\" {arranged}"), MISBEHAVE])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn assert_refuses(arranged: &str, why: &str) {
    let output = with_descriptors(arranged);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arranged}: {stderr}");
    assert_eq!(output.stdout, b"", "{arranged}");
    assert!(stderr.starts_with("misbehave: descriptor "), "{arranged}: {stderr}");
    assert!(stderr.contains(why), "{arranged}: {stderr}");
}

#[test]
fn descriptors_that_are_not_open_are_told() {
    assert_refuses(
        "77 78",
        "descriptor 77, which is to bring messages in, is not open: the first two arguments of a \
         plugin",
    );
    assert_refuses("7 78 7</dev/null", "descriptor 78, which is to bring messages out");
    assert_refuses("77 8 8>/dev/null", "descriptor 77");
    assert_refuses("2147483647 8 8>/dev/null", "descriptor 2147483647");
}

#[test]
fn descriptors_of_the_wrong_direction_are_told() {
    assert_refuses(
        "7 8 7>/dev/null 8</dev/null",
        "descriptor 7, which is to bring messages in, cannot be read from",
    );
    assert_refuses(
        "7 8 7</dev/null 8</dev/null",
        "descriptor 8, which is to bring messages out, cannot be written to",
    );
    assert_refuses("1 0", "cannot be read from");
    assert_refuses("7 2 7</dev/null", "cannot be written to");
}

#[test]
fn one_descriptor_for_both_directions_is_told() {
    assert_refuses("7 7 7<>/dev/null", "descriptor 7 was given for both directions");
    assert_refuses("0 0", "descriptor 0 was given for both directions");
}

#[test]
fn a_standard_input_that_has_nothing_is_no_host() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let empty = format!("<'{}'", empty.path().to_str().unwrap());
    // The runtime of Rust puts /dev/null where a standard descriptor is closed.
    for arranged in ["<&-", "</dev/null", &empty, "</dev/zero"] {
        let output = with_descriptors(arranged);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arranged}: {stderr}");
        assert_eq!(output.stdout, b"", "{arranged}");
        let command = format!("    pipeplug run {MISBEHAVE} --call COMMAND [DATA]");
        assert!(stderr.starts_with("misbehave is a plugin: "), "{arranged}: {stderr}");
        assert!(stderr.contains(&command), "{arranged}: {stderr}");
    }
}

#[test]
fn a_pipe_that_ends_before_a_host_has_sent_anything_is_no_host() {
    let run = |input: &[u8]| {
        let mut plugin = Command::new(MISBEHAVE);
        let plugin =
            plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut plugin = plugin.unwrap();
        plugin.stdin.take().unwrap().write_all(input).unwrap();
        let output = plugin.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for input in [&b""[..], b"hello", b"a line\nand more\n"] {
        let (code, stderr) = run(input);
        // Input that is no chunk may be that of a host with a fault, which has to know it.
        let expected = if input.is_empty() { 2 } else { 1 };
        assert_eq!(code, Some(expected), "{stderr}");
        assert_eq!(stderr.contains("the host is gone: "), expected == 1, "{stderr}");
        assert!(stderr.contains("misbehave is a plugin: "), "{stderr}");
    }
    // One that has called it was there.
    let (code, stderr) = run(&pipeplug_tests::request(1, "echo", b"x"));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the host is gone"), "{stderr}");
}

#[test]
fn stdout_that_nobody_reads_ends_it_without_a_signal() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in");
    std::fs::write(&file, pipeplug_tests::request(1, "echo", b"x")).unwrap();
    let mut plugin = Command::new(MISBEHAVE)
        .stdin(File::open(file).unwrap())
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(wait_exit(&mut plugin).code(), Some(1));
}

#[test]
fn descriptors_without_a_host_at_the_other_end_are_told_and_left_alone() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(file.path(), "kept").unwrap();
    let to_file = format!("3 4 3<&0 4<>'{path}'");
    let with_pipe = |arranged: &str| {
        let mut plugin = Command::new("/bin/sh")
            .args(["-c", &format!("exec \"$0\" {arranged}"), MISBEHAVE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(wait_exit(&mut plugin).code(), Some(2), "{arranged}");
        String::from_utf8(plugin.wait_with_output().unwrap().stderr).unwrap()
    };
    for (arranged, why) in [
        (
            to_file.as_str(),
            "descriptor 4, which is to bring messages out, is a regular file, neither a pipe",
        ),
        (
            "3 4 3</ 4>&1",
            "descriptor 3, which is to bring messages in, is a directory, neither a pipe",
        ),
        (
            "3 4 3<&0 4>/dev/null",
            "descriptor 4, which is to bring messages out, is a terminal or another device",
        ),
    ] {
        let stderr = with_pipe(arranged);
        assert!(stderr.contains(why) && stderr.contains("pipeplug run"), "{arranged}: {stderr}");
    }
    assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "kept");
}
