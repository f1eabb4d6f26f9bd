//! The system calls of a strict plugin, one by one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pipeplug_host::SandboxSupport;
use pipeplug_host::{Plugin, Sandbox};
use pipeplug_tests::{apart_system_calls, strict_system_calls};

use crate::BURGLAR;
use crate::sandbox_host::{Kind, SandboxHost};

/// A number above those of the kernels that are known.
const HIGHEST: u32 = 600;

#[cfg(target_arch = "x86_64")]
const TABLE: &str = include_str!("../../../pipeplug-host/system-calls/x86_64.txt");
#[cfg(target_arch = "aarch64")]
const TABLE: &str = include_str!("../../../pipeplug-host/system-calls/aarch64.txt");
#[cfg(target_arch = "riscv64")]
const TABLE: &str = include_str!("../../../pipeplug-host/system-calls/riscv64.txt");

/// The words of a row behind the number, the name, and the verdict of `basic`.
const STRICT: usize = 3;
const STRICT_WITH_NAMESPACES: usize = 4;

fn can_be_tested() -> bool {
    let support = SandboxSupport::of_system();
    let can = support.seccomp && support.landlock_abi >= 3;
    if !can {
        assert!(
            std::env::var_os("CI").is_none(),
            "a strict sandbox is needed, there is: {support}"
        );
        eprintln!("skipped: a strict sandbox is needed, there is: {support}");
    }
    can
}

fn free() -> Plugin {
    Plugin::start(BURGLAR).unwrap()
}

/// Name and verdict of each number, and the verdict on numbers without a name.
fn table(column: usize) -> (BTreeMap<u32, (&'static str, &'static str)>, &'static str) {
    let mut named = BTreeMap::new();
    let mut other = "";
    for row in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = row.split_whitespace().collect();
        match words[0].parse() {
            Ok(number) => _ = named.insert(number, (words[1], words[column])),
            Err(_) if words[0] == "other" => other = words[column],
            Err(_) => {}
        }
    }
    (named, other)
}

fn outcomes(host: &mut SandboxHost) -> BTreeMap<u32, String> {
    let said = host.says("probe", format!("0 {HIGHEST}"));
    let words = said.strip_prefix("done: ").unwrap_or_else(|| panic!("{said}"));
    let words: Vec<_> = words.split_whitespace().collect();
    words
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[number, outcome]| (number.parse().unwrap(), (*outcome).to_owned()))
        .collect()
}

/// Every number, with all arguments -1, inside and outside. An allowed call has the outcome that it
/// has outside, whatever that is; a kernel older than the table lacks some on both sides.
#[test]
fn every_number_has_the_answer_of_the_table() {
    if !can_be_tested() {
        return;
    }
    for (kind, column) in [(Kind::Own, STRICT_WITH_NAMESPACES), (Kind::WithoutNamespaces, STRICT)] {
        let (named, other) = table(column);
        let inside = outcomes(&mut SandboxHost::start(kind, "strict", &[]));
        let outside = outcomes(&mut SandboxHost::start(Kind::Own, "none", &[]));
        let mut differences = String::new();
        for (number, inside) in inside {
            let (name, verdict) = named.get(&number).copied().unwrap_or(("", other));
            let outside = &outside[&number];
            let as_expected = match verdict {
                "EPERM" | "ENOSYS" => inside == verdict,
                "allow" => inside == *outside,
                "arguments" => inside == *outside || inside == "EPERM",
                verdict => panic!("no call is answered with {verdict}"),
            };
            if !as_expected {
                writeln!(
                    differences,
                    "{number} {name}: {verdict}, and it is {inside}; outside {outside}"
                )
                .unwrap();
            }
        }
        assert!(differences.is_empty(), "{kind:?}\n{differences}");
    }
}

#[test]
fn calls_that_reach_others_fail() {
    if !can_be_tested() {
        return;
    }
    for kind in [Kind::Own, Kind::WithoutNamespaces] {
        let (mut strict, mut free) =
            (SandboxHost::start(kind, "strict", &[]), SandboxHost::start(Kind::Own, "none", &[]));
        // With namespaces of its own a plugin reaches no others by them.
        let apart = apart_system_calls().filter(|_| kind == Kind::WithoutNamespaces);
        for call in strict_system_calls().chain(apart) {
            assert_eq!(strict.says("system-call", call), "EPERM", "{kind:?}: {call}");
            assert_ne!(free.says("system-call", call), "EPERM", "without a sandbox: {call}");
        }
    }
}

#[test]
fn the_gate_of_32_bit_programs_is_shut() {
    if !can_be_tested() {
        return;
    }
    let outside = free().call("foreign", "").unwrap();
    match outside.as_str() {
        "done: ok" => {}
        // The kernel has no such gate.
        "done: none" | "done: SIGSEGV" => return,
        outside => panic!("{outside}"),
    }
    for sandbox in [Sandbox::basic(), Sandbox::strict()] {
        let plugin = Plugin::builder(BURGLAR).sandbox(sandbox).start().unwrap();
        assert_eq!(plugin.call("foreign", "").unwrap(), "done: SIGSYS");
    }
}
