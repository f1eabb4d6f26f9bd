//! The committed tables of `system-calls/`, which are made from the lists.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::rules::{Rule, Verdict};
use super::tests::{policies, ports};
use super::*;

/// The name of the variable with which a test writes the tables anew in place of failing.
const UPDATE: &str = "PIPEPLUG_UPDATE_TABLES";

fn render(machine: Machine) -> String {
    let ports = ports(&[443], &[8080]);
    let policies = policies(&ports);
    let ranges = policies.map(|(_, policy)| machine.ranges(&policy));
    let mut lines = vec![
        "# The answers to each system call: allow, EPERM, ENOSYS, kill, or by its arguments. The \
         columns:"
            .to_owned(),
        "# basic; strict; strict with namespaces of its own; strict with ports to connect to and \
         to bind."
            .to_owned(),
        format!(
            "# Made from the lists in src/sandbox/seccomp: {UPDATE}=1 cargo test -p pipeplug-host \
             tables"
        ),
    ];
    let mut row = |number: &str, name: &str, words: [&str; 4]| {
        let [basic, strict, namespaces, ports] = words;
        lines.push(format!(
            "{number:<10} {name:<24} {basic:<9} {strict:<9} {namespaces:<10} {ports}"
        ));
    };
    row("# number", "name", policies.map(|(name, _)| name));
    let words = |number: u32| {
        ranges.each_ref().map(|ranges| {
            let (_, rule) = ranges.iter().rev().find(|(first, _)| *first <= number).unwrap();
            word(rule)
        })
    };
    let calls: BTreeMap<u32, &str> = machine.calls().collect();
    for (number, name) in &calls {
        row(&number.to_string(), name, words(*number));
    }
    let (last, _) = calls.last_key_value().unwrap();
    row("other", "later-kernels", words(last + 1));
    if machine == Machine::X86_64 {
        row("0x40000000", "x32", words(X32));
    }
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{}", line.trim_end()).unwrap();
        text
    })
}

fn word(rule: &Rule) -> &'static str {
    match rule {
        Rule::Always(Verdict::Allow) => "allow",
        Rule::Always(Verdict::Deny) => "EPERM",
        Rule::Always(Verdict::Missing) => "ENOSYS",
        Rule::Always(Verdict::Kill) => "kill",
        Rule::AnyOf(_) => "arguments",
    }
}

fn path(machine: Machine) -> PathBuf {
    let name = format!("{machine:?}").to_lowercase();
    Path::new(env!("CARGO_MANIFEST_DIR")).join("system-calls").join(name).with_extension("txt")
}

#[test]
fn the_committed_tables_are_those_of_the_lists() {
    for machine in Machine::ALL {
        let (path, table) = (path(machine), render(machine));
        if env::var_os(UPDATE).is_some() {
            fs::write(&path, &table).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap();
        let only_in = |text: &str, other: &str| {
            let others: Vec<_> = other.lines().collect();
            text.lines()
                .filter(|line| !others.contains(line))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (gone, new) = (only_in(&committed, &table), only_in(&table, &committed));
        assert!(
            committed == table,
            "{} differs: look at the difference, and set {UPDATE}=1 if it is intended\n- {}\n+ \
             {}",
            path.display(),
            gone.join("\n- "),
            new.join("\n+ "),
        );
    }
}
