//! From rules to a program for the kernel: seccomp(2), and `Documentation/networking/filter.rst`
//! for the instructions.
//!
//! ```text
//!     the machine's code?   no -> kill
//!     the number: a binary search over ranges of numbers with one rule
//!         one answer      -> return it
//!         tests           -> load an argument, compare, …, return
//! ```
//!
//! Nothing loads an argument on the way to a call that is allowed whatever its arguments: then the
//! kernel need not run the program for it.

use nix::libc;

use super::rules::{Expected, Half, Rule, Test, Verdict};

/// A rule and the first number that it is for; it holds up to the next one's.
pub(super) type Range = (u32, Rule);

// The fields of `struct seccomp_data` of <linux/seccomp.h>.
const NUMBER: u32 = 0;
const CODE: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The program for a machine with this code (`AUDIT_ARCH_…`); the ranges are sorted, and the first
/// one begins with 0.
///
/// # Errors
/// A rule has more tests than a jump can pass.
pub(super) fn assemble(code: u32, ranges: &[Range]) -> Result<Vec<libc::sock_filter>, String> {
    let mut program = vec![statement(LOAD, CODE), jump(EQUAL, code, 1, 0), answer(Verdict::Kill)];
    program.push(statement(LOAD, NUMBER));
    program.extend(search(ranges)?);
    let most = usize::from(u16::MAX).min(libc::BPF_MAXINSNS.unsigned_abs() as usize);
    if program.len() > most {
        return Err(format!(
            "a filter of {} instructions, and the limit of the kernel is {most}",
            program.len()
        ));
    }
    Ok(program)
}

/// Finds the range that the loaded number is in.
fn search(ranges: &[Range]) -> Result<Vec<libc::sock_filter>, String> {
    if let [(_, rule)] = ranges {
        return decide(rule);
    }
    let (below, from) = ranges.split_at(ranges.len() / 2);
    let Some((first, _)) = from.first() else { return Err("a filter without a rule".to_owned()) };
    let below = search(below)?;
    // A conditional jump passes 255 instructions at most, JA any number.
    let past = u32::try_from(below.len()).map_err(|_| "a filter that is too long".to_owned())?;
    let mut program = vec![jump(AT_LEAST, *first, 0, 1), statement(JUMP, past)];
    program.extend(below);
    program.extend(search(from)?);
    Ok(program)
}

fn decide(rule: &Rule) -> Result<Vec<libc::sock_filter>, String> {
    match rule {
        Rule::Always(verdict) => Ok(vec![answer(*verdict)]),
        Rule::AnyOf(lists) => {
            let mut program = Vec::new();
            for list in lists {
                program.extend(all_hold(list)?);
            }
            program.push(answer(Verdict::Deny));
            Ok(program)
        }
    }
}

/// Returns that the call is allowed where all of these hold, and else goes on behind itself.
fn all_hold(tests: &[Test]) -> Result<Vec<libc::sock_filter>, String> {
    let mut program = vec![answer(Verdict::Allow)];
    // From the last test to the first one: a jump has to know how much there is behind it.
    for test in tests.iter().rev() {
        let mut block = compare(test, program.len())?;
        block.append(&mut program);
        program = block;
    }
    Ok(program)
}

/// Passes the `rest` that stands behind it, unless the test holds.
fn compare(test: &Test, rest: usize) -> Result<Vec<libc::sock_filter>, String> {
    let half = match test.half {
        Half::Low => 0,
        Half::High => 4,
    };
    let mut program = vec![statement(LOAD, ARGUMENTS + 8 * u32::from(test.argument) + half)];
    if test.mask != u32::MAX {
        program.push(statement(AND, test.mask));
    }
    let (values, holds_if_found) = match &test.expected {
        Expected::OneOf(values) => (values, true),
        Expected::NoneOf(values) => (values, false),
    };
    for (at, value) in values.iter().enumerate() {
        // Behind the last comparison stands the jump for a value that was not found.
        let found = values.len() - at;
        let found = if holds_if_found { found } else { found + rest };
        let found =
            u8::try_from(found).map_err(|_| "more tests than a jump can pass".to_owned())?;
        program.push(jump(EQUAL, *value, found, 0));
    }
    let not_found = if holds_if_found { rest } else { 0 };
    program.push(statement(
        JUMP,
        u32::try_from(not_found).map_err(|_| "a filter that is too long".to_owned())?,
    ));
    Ok(program)
}

fn answer(verdict: Verdict) -> libc::sock_filter {
    let errno = |number: libc::c_int| libc::SECCOMP_RET_ERRNO | number.unsigned_abs();
    let value = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Deny => errno(libc::EPERM),
        Verdict::Missing => errno(libc::ENOSYS),
        Verdict::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    statement(RETURN, value)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(code).expect("the codes of BPF have 16 bits");
    libc::sock_filter { code, jt, jf, k }
}
