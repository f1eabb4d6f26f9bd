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
    /// A digit is counted even where it breaks a rule, for then it may turn out not to be a number's.
    #[inline]
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
    #[inline]
    pub(crate) fn take(&mut self) -> u64 {
        core::mem::replace(self, Self::START).value
    }
}

/// How many digits the number has.
#[inline]
pub(crate) fn decimal_len(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// An array that is written from its end to its front, as digits come out of a division.
pub(crate) struct TailWriter<const N: usize> {
    bytes: [u8; N],
    start: usize,
}

impl<const N: usize> TailWriter<N> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self { bytes: [0; N], start: N }
    }

    #[inline]
    pub(crate) fn byte(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    /// The number with at least one digit.
    #[inline]
    pub(crate) fn decimal(&mut self, mut number: u64) {
        loop {
            // A remainder by ten fits a byte.
            self.byte(b'0' + (number % 10) as u8);
            number /= 10;
            if number == 0 {
                break;
            }
        }
    }

    /// The number as the classic format writes it: zero has no digits.
    #[inline]
    pub(crate) fn classic(&mut self, number: u64) {
        if number != 0 {
            self.decimal(number);
        }
    }

    #[inline]
    pub(crate) fn written(&self) -> &[u8] {
        &self.bytes[self.start..]
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
        for number in powers.flat_map(|power| [power - 1, power, power + 1]).chain([u64::MAX - 1, u64::MAX]) {
            let mut writer = TailWriter::<20>::new();
            writer.decimal(number);
            assert_eq!(writer.written().len(), decimal_len(number), "{number}");
            assert_eq!(read(writer.written()), Ok(number));
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
