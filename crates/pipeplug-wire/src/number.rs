//! Decimal numbers, as both formats write them.

use crate::DecodeErrorKind;

/// How many digits a u64 has at most.
pub(crate) const MAX_DIGITS: u8 = 20;

/// A number that is read digit by digit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    value: u64,
    digits: u8,
}

impl Decimal {
    /// No digit was read.
    pub(crate) const START: Self = Self { value: 0, digits: 0 };

    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.digits == 0
    }

    /// How many digits were read, up to 255.
    pub(crate) fn digits(self) -> u8 {
        self.digits
    }

    /// Reads a byte that should be a digit.
    ///
    /// A digit is counted even where it breaks a rule, for then it may turn out not to be a
    /// number's.
    pub(crate) fn push(&mut self, byte: u8) -> Result<(), DecodeErrorKind> {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(DecodeErrorKind::NotADigit { found: byte });
        }
        let leading_zero = self.value == 0 && self.digits != 0;
        self.digits = self.digits.saturating_add(1);
        if leading_zero {
            return Err(DecodeErrorKind::LeadingZero { found: byte });
        }
        self.value = self
            .value
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit)))
            .ok_or(DecodeErrorKind::TooLarge { found: byte })?;
        Ok(())
    }

    /// The value, which is 0 if no digit was read, and begins the next number.
    pub(crate) fn take(&mut self) -> u64 {
        core::mem::replace(self, Self::START).value
    }
}

/// The number that `bytes` begin with and what is behind its NUL, if it is whole and as usual.
///
/// `None` decides nothing: [`Decimal`] says what is wrong, or that it is right. This is the short
/// way only.
#[inline(always)]
pub(crate) fn split_number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    // Only a number with all of its digits can overflow, and that one is left to the general way.
    for (index, &byte) in bytes.iter().take(usize::from(MAX_DIGITS)).enumerate() {
        let digit = u64::from(byte).wrapping_sub(u64::from(b'0'));
        if digit > 9 {
            // Not empty, and no zero before other digits.
            let usual = byte == 0 && index > 0 && (bytes[0] != b'0' || index == 1);
            return usual.then(|| (value, &bytes[index + 1..]));
        }
        value = value.wrapping_mul(10).wrapping_add(digit);
    }
    None
}

/// A number and how many digits are written of it.
#[derive(Clone, Copy)]
pub(crate) struct Digits {
    number: u64,
    len: usize,
}

impl Digits {
    /// At least one.
    #[inline]
    pub(crate) fn decimal(number: u64) -> Self {
        // Compared in turn, for small numbers are the most.
        let len = match number {
            0..10 => 1,
            10..100 => 2,
            100..1_000 => 3,
            1_000..10_000 => 4,
            10_000..100_000 => 5,
            100_000..1_000_000 => 6,
            _ => number.ilog10() as usize + 1,
        };
        Self { number, len }
    }

    /// As the classic format writes it: zero has none.
    #[inline]
    pub(crate) fn classic(number: u64) -> Self {
        if number == 0 { Self { number, len: 0 } } else { Self::decimal(number) }
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        self.len
    }
}

/// The numbers below a hundred, as two digits each.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut number = 0;
    while number < pairs.len() {
        // Both are below ten.
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Writes to the front of a slice that is long enough.
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: 0 }
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.out[self.at] = byte;
        self.at += 1;
    }

    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..][..bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    #[inline]
    pub(crate) fn digits(&mut self, digits: Digits) {
        let Digits { mut number, len } = digits;
        let mut out = &mut self.out[self.at..][..len];
        self.at += len;
        while let [rest @ .., tens, ones] = out {
            // A remainder by a hundred is an index.
            [*tens, *ones] = PAIRS[(number % 100) as usize];
            number /= 100;
            out = rest;
        }
        if let [digit] = out {
            // What is left of a number with an odd number of digits.
            *digit = b'0' + number as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(digits: &[u8]) -> Result<u64, DecodeErrorKind> {
        let mut number = Decimal::START;
        digits.iter().try_for_each(|&byte| number.push(byte))?;
        Ok(number.take())
    }

    #[test]
    fn what_is_written_is_read() {
        let powers = (0..20).map(|power| 10_u64.pow(power));
        for number in
            powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX - 1, u64::MAX])
        {
            let mut written = [b'x'; 21];
            let digits = Digits::decimal(number);
            Writer::new(&mut written).digits(digits);
            let len = digits.len();
            assert_eq!(written[len], b'x', "{number}");
            assert_eq!(read(&written[..len]), Ok(number));
            written[len] = 0;
            let short = len < usize::from(MAX_DIGITS);
            assert_eq!(split_number(&written), short.then_some((number, &written[len + 1..])));
        }
    }

    #[test]
    fn the_short_way_is_for_the_usual() {
        assert_eq!(split_number(b"0\x005"), Some((0, &b"5"[..])));
        for other in [&b""[..], b"1", b"\0", b"00\0", b"01\0", b"1x\0", b"18446744073709551616\0"] {
            assert_eq!(split_number(other), None, "{other:?}");
        }
    }

    #[test]
    fn only_u64_is_read() {
        assert_eq!(read(b""), Ok(0));
        assert_eq!(read(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(read(b"18446744073709551616"), Err(DecodeErrorKind::TooLarge { found: b'6' }));
        assert_eq!(read(b"99999999999999999999"), Err(DecodeErrorKind::TooLarge { found: b'9' }));
        assert_eq!(read(b"184467440737095516150"), Err(DecodeErrorKind::TooLarge { found: b'0' }));
        assert_eq!(read(b"00"), Err(DecodeErrorKind::LeadingZero { found: b'0' }));
        assert_eq!(read(b"1:"), Err(DecodeErrorKind::NotADigit { found: b':' }));
        assert_eq!(read(b"1/"), Err(DecodeErrorKind::NotADigit { found: b'/' }));
    }
}
