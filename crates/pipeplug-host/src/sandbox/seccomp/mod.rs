//! The seccomp filters: which system calls fail.
//!
//! `strict` has an [allow list](allow_list): a call that is not on it fails with EPERM, and one
//! that the kernel has got later than this table with ENOSYS, on which programs fall back to older
//! calls. `basic` has a [deny list](deny_list), since every plugin that means well has to live with
//! it.
//!
//! Each list maps the name of a call to a [rule](rules): an answer, or tests of arguments.
//! [`numbers`] has the numbers of the names for each machine, [`program`] makes instructions for
//! the kernel of both. The outcome for each call is in `system-calls/`, one table for each machine,
//! which a test compares with the lists, and another one with the kernel.

mod allow_list;
mod arguments;
mod deny_list;
mod numbers;
mod program;
mod rules;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use nix::libc;
use rules::{Rule, Verdict};

use super::{Level, Ports};

/// The settings that a filter depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy<'a> {
    pub(super) level: Level,
    /// The TCP ports that may be used; `None` for the host's network.
    pub(super) ports: Option<&'a Ports>,
    /// True if only the granted files are in reach.
    pub(super) files: bool,
    /// True if the plugin has processes, mounts and IPC objects of its own. If not, calls are
    /// denied that reach other processes and files of the same user, and that Landlock does not
    /// know.
    pub(super) namespaces: bool,
    /// True if the plugin has the host's standard input, which may be a terminal.
    pub(super) terminal: bool,
}

/// Rules by the names of calls.
type Rules = BTreeMap<&'static str, Rule>;

/// One answer for all calls of these lists of names.
fn all(lists: &[&'static str], verdict: Verdict) -> Rules {
    let names = lists.iter().flat_map(|list| list.split_ascii_whitespace());
    names.map(|name| (name, Rule::Always(verdict))).collect()
}

/// Numbers from here on mean the x32 variants of system calls: `__X32_SYSCALL_BIT` of
/// <asm/unistd.h>.
const X32: u32 = 0x4000_0000;

/// The number of a call that a tracer has cancelled: seccomp(2), `SECCOMP_RET_TRACE`.
const CANCELLED: u32 = u32::MAX;

/// A kind of machine that there is a filter for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    X86_64,
    Aarch64,
    Riscv64,
}

/// Tells whether there is a filter for this machine.
pub(super) fn is_known_machine() -> bool {
    Machine::of_system().is_some()
}

/// The program that the child hands to the kernel; an empty one on a machine that there is none
/// for.
pub(super) fn filter(policy: &Policy<'_>) -> Result<Vec<libc::sock_filter>, String> {
    let Some(machine) = Machine::of_system() else { return Ok(Vec::new()) };
    machine.filter(policy).map_err(|problem| format!("seccomp: {problem}"))
}

impl Machine {
    #[cfg(test)]
    const ALL: [Self; 3] = [Self::X86_64, Self::Aarch64, Self::Riscv64];

    fn of_system() -> Option<Self> {
        if cfg!(not(all(target_pointer_width = "64", target_endian = "little"))) {
            return None;
        }
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            "riscv64" => Some(Self::Riscv64),
            _ => None,
        }
    }

    /// `AUDIT_ARCH_…` of <linux/audit.h>. A call of the 32-bit variant of a machine comes with
    /// another one.
    fn code(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    fn filter(self, policy: &Policy<'_>) -> Result<Vec<libc::sock_filter>, String> {
        program::assemble(self.code(), &self.ranges(policy))
    }

    /// The rules by number, each up to the next one.
    fn ranges(self, policy: &Policy<'_>) -> Vec<program::Range> {
        let (rules, unlisted, unknown, x32) = match policy.level {
            Level::Basic => {
                (deny_list::rules(policy), Verdict::Allow, Verdict::Allow, Verdict::Missing)
            }
            Level::Strict => {
                (allow_list::rules(policy), Verdict::Deny, Verdict::Missing, Verdict::Kill)
            }
        };
        let mut by_number: BTreeMap<u32, Rule> = BTreeMap::new();
        let calls: BTreeMap<u32, &str> = self.calls().collect();
        for (number, name) in calls {
            by_number.insert(number, rules.get(name).cloned().unwrap_or(Rule::Always(unlisted)));
            // Up to the next name that there is.
            by_number.insert(number + 1, Rule::Always(unknown));
        }
        by_number.entry(0).or_insert(Rule::Always(unknown));
        if self == Self::X86_64 {
            by_number.insert(X32, Rule::Always(x32));
            by_number.insert(CANCELLED, Rule::Always(Verdict::Missing));
        }
        let mut ranges: Vec<program::Range> = Vec::new();
        for (number, rule) in by_number {
            let goes_on = ranges
                .last()
                .is_some_and(|(_, last)| *last == rule && matches!(rule, Rule::Always(_)));
            if !goes_on {
                ranges.push((number, rule));
            }
        }
        ranges
    }
}
