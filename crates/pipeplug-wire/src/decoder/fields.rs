//! How the fields of a header are found.

use core::str;

use super::{DecodeError, DecodeErrorKind, Decoder, Field, Stage};
use crate::Format;
use crate::number::{Decimal, MAX_DIGITS};

/// How far the classic format's cmd was found.
pub(super) enum ClassicCommand {
    Whole,
    TooLong,
    Incomplete,
}

impl Decoder {
    /// Reads the number at `at` up to its NUL and goes behind it; `None` if that was not there yet.
    pub(super) fn number(
        &mut self,
        field: Field,
        input: &[u8],
    ) -> Result<Option<u64>, DecodeError> {
        for &byte in input.get(self.at..).unwrap_or_default() {
            if byte == 0 {
                if self.number.is_empty() && self.format != Some(Format::Classic) {
                    // Only the classic format writes no digits.
                    if self.format.is_some() {
                        return Err(self.error(field, self.at, DecodeErrorKind::NoDigits));
                    }
                    self.format = Some(Format::Classic);
                }
                self.at += 1;
                return Ok(Some(self.number.take()));
            }
            self.number.push(byte).map_err(|kind| self.error(field, self.at, kind))?;
            self.at += 1;
        }
        Ok(None)
    }

    /// Reads the third field until it tells the format and sets the stage accordingly; false if it
    /// did not yet.
    pub(super) fn tell_format(&mut self, input: &[u8]) -> bool {
        for &byte in input.get(self.at..).unwrap_or_default() {
            if byte == 0 {
                // The NUL is left for that stage, which finds the number read up to it.
                self.format = Some(Format::Standard);
                self.stage = Stage::CommandLen;
                return true;
            }
            if !byte.is_ascii_digit() || self.number.digits() == MAX_DIGITS {
                self.format = Some(Format::Classic);
                if self.skip.is_some() {
                    // They may be consumed by now. Which digits they were makes no difference.
                    (0..self.number.digits()).for_each(|_| self.skipped.command(b"0"));
                }
                self.number = Decimal::START;
                self.fault = None;
                self.stage = Stage::ClassicCommand;
                return true;
            }
            if let Err(kind) = self.number.push(byte) {
                self.fault = self.fault.or(Some(self.error(Field::CommandLen, self.at, kind)));
            }
            self.at += 1;
        }
        false
    }

    /// Looks for the end of the classic format's cmd and goes behind it.
    pub(super) fn classic_command(&mut self, input: &[u8]) -> Result<ClassicCommand, DecodeError> {
        let rest = input.get(self.at..).unwrap_or_default();
        // A cmd that is skipped has neither a start nor a limit.
        let (read, room) = if self.skip.is_some() {
            (0, usize::MAX)
        } else {
            let read = self.at - self.command_start;
            (read, self.limits.command.saturating_add(1).saturating_sub(read))
        };
        let rest = rest.get(..room).unwrap_or(rest);
        let end = rest.iter().position(|&byte| byte == b' ' || byte == 0);
        if self.skip.is_some() {
            self.skipped.command(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
        }
        match end {
            None => {
                self.at += rest.len();
                let over = rest.len() == room && self.skip.is_none();
                Ok(if over { ClassicCommand::TooLong } else { ClassicCommand::Incomplete })
            }
            Some(end) if rest[end] == 0 => {
                Err(self.error(Field::Command, self.at + end, DecodeErrorKind::NulInCommand))
            }
            Some(end) => {
                self.command_len = read + end;
                self.at += end + 1;
                Ok(ClassicCommand::Whole)
            }
        }
    }

    pub(super) fn command_end(&self) -> usize {
        self.command_start.saturating_add(self.command_len)
    }

    /// The cmd, which is whole in `input`.
    #[inline]
    pub(super) fn command<'a>(&self, input: &'a [u8]) -> Result<&'a str, DecodeError> {
        let bytes = input.get(self.command_start..self.command_end()).unwrap_or_default();
        str::from_utf8(bytes).map_err(|error| {
            let at = error.valid_up_to();
            self.error(
                Field::Command,
                self.command_start + at,
                DecodeErrorKind::NotUtf8 { found: bytes[at] },
            )
        })
    }
}
