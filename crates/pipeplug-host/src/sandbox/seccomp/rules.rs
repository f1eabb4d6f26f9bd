//! The words that a filter is written in: for each call a verdict, or tests of its arguments.

/// The answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    /// EPERM.
    Deny,
    /// ENOSYS, as on a kernel without this call: programs and C libraries then try another way.
    Missing,
    /// SIGSYS to the whole process.
    Kill,
}

/// The rule for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rule {
    /// One answer, whatever the arguments. The kernel remembers such an `Allow` in a bitmap, and
    /// then runs no filter for the call: Linux 5.11, kernel/seccomp.c.
    Always(Verdict),
    /// Allowed where all tests of one of these lists hold, and else EPERM.
    AnyOf(Vec<Vec<Test>>),
}

/// A test of one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    /// Counted from 0.
    pub(super) argument: u8,
    pub(super) half: Half,
    /// The bits that are looked at.
    pub(super) mask: u32,
    pub(super) expected: Expected,
}

/// A filter sees arguments of 64 bits, and compares 32 at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// All that the kernel looks at where it takes an int.
    Low,
    High,
}

/// The values that the bits may have, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    OneOf(Vec<u32>),
    NoneOf(Vec<u32>),
}

impl Rule {
    /// Allows the call where all of these hold.
    pub(super) fn if_all(tests: impl Into<Vec<Test>>) -> Self {
        Self::AnyOf(vec![tests.into()])
    }

    /// Allows the call where this holds.
    pub(super) fn when(test: Test) -> Self {
        Self::if_all([test])
    }
}

impl Test {
    /// The argument, an int, is one of these.
    pub(super) fn one_of(argument: u8, values: &[u32]) -> Self {
        Self {
            argument,
            half: Half::Low,
            mask: u32::MAX,
            expected: Expected::OneOf(values.to_vec()),
        }
    }

    /// The argument, an int, is none of these.
    pub(super) fn none_of(argument: u8, values: &[u32]) -> Self {
        Self {
            argument,
            half: Half::Low,
            mask: u32::MAX,
            expected: Expected::NoneOf(values.to_vec()),
        }
    }

    /// The argument, an int, has none of these bits.
    pub(super) fn without(argument: u8, bits: u32) -> Self {
        Self::one_of(argument, &[0]).under(bits)
    }

    /// The argument is a null pointer.
    pub(super) fn null(argument: u8) -> [Self; 2] {
        let low = Self::one_of(argument, &[0]);
        [Self { half: Half::High, ..low.clone() }, low]
    }

    /// The same test of these bits alone.
    pub(super) fn under(self, mask: u32) -> Self {
        Self { mask, ..self }
    }
}

/// A constant of the C library as the kernel takes it.
pub(super) const fn int(value: nix::libc::c_int) -> u32 {
    value.cast_unsigned()
}

/// A request of ioctl(2) as the kernel takes it: an unsigned int, whatever the C library makes of
/// it.
pub(super) const fn request(value: nix::libc::Ioctl) -> u32 {
    value as u32
}
