//! Hosts that handle signals, or have descriptors, as few do.

use std::process::{Command, Stdio};

use pipeplug_tests::wait_exit;

use crate::{MISBEHAVE, ODD_HOST};

#[track_caller]
fn all_goes_well(oddity: &str) {
    let mut host = Command::new(ODD_HOST).args([oddity, MISBEHAVE]).stdin(Stdio::null()).spawn().unwrap();
    let status = wait_exit(&mut host);
    assert!(status.success(), "{oddity}: {status}");
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
