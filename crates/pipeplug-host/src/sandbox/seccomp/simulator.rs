//! Runs a filter as the kernel would, for tests: the instructions that filters here are made of,
//! and no others.

use nix::libc;

use super::Machine;
use super::rules::Verdict;

/// A call as the kernel tells a filter of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) code: u32,
    pub(super) number: u32,
    pub(super) arguments: [u64; 6],
}

/// The end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Simulated {
    pub(super) verdict: Verdict,
    /// True if an argument was loaded on the way.
    pub(super) arguments_seen: bool,
}

impl Call {
    /// `None` for a call that the machine does not have.
    pub(super) fn new<const N: usize>(
        machine: Machine,
        name: &str,
        arguments: [u64; N],
    ) -> Option<Self> {
        let (number, _) = machine.calls().find(|(_, known)| *known == name)?;
        let mut all = [0; 6];
        all[..N].copy_from_slice(&arguments);
        Some(Self { code: machine.code(), number, arguments: all })
    }

    /// The word of `struct seccomp_data` at an offset.
    fn word(&self, offset: u32) -> u32 {
        let mut data = Vec::new();
        data.extend(self.number.to_le_bytes());
        data.extend(self.code.to_le_bytes());
        data.extend(u64::MAX.to_le_bytes());
        data.extend(self.arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let word = &data[offset as usize..][..4];
        u32::from_le_bytes(word.try_into().unwrap())
    }
}

pub(super) fn run(program: &[libc::sock_filter], call: Call) -> Simulated {
    let (mut accumulator, mut at, mut arguments_seen) = (0, 0, false);
    loop {
        let libc::sock_filter { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |holds| at += usize::from(if holds { jt } else { jf });
        match u32::from(code) {
            code if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                accumulator = call.word(k);
                arguments_seen |= k >= 16;
            }
            code if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => accumulator &= k,
            code if code == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
            code if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => branch(accumulator == k),
            code if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => branch(accumulator >= k),
            code if code == libc::BPF_RET | libc::BPF_K => {
                return Simulated { verdict: verdict(k), arguments_seen };
            }
            code => panic!("an instruction that filters have no use for: {code:#x}"),
        }
    }
}

fn verdict(value: u32) -> Verdict {
    let errno = |number: libc::c_int| libc::SECCOMP_RET_ERRNO | number.unsigned_abs();
    match value {
        libc::SECCOMP_RET_ALLOW => Verdict::Allow,
        libc::SECCOMP_RET_KILL_PROCESS => Verdict::Kill,
        value if value == errno(libc::EPERM) => Verdict::Deny,
        value if value == errno(libc::ENOSYS) => Verdict::Missing,
        value => panic!("an answer that filters do not give: {value:#x}"),
    }
}
