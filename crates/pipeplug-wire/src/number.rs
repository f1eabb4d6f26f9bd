//! Decimal numbers, as both formats write them.

/// How many digits a u64 has at most.
pub(crate) const MAX_DIGITS: u8 = 20;

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
