//! Sums of files.

use std::fmt;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use sha2::Digest as _;

use crate::files::{FileError, RegularFile};

/// The SHA-256 sum of a file (FIPS 180-4), written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// The sum of what a regular file holds.
    ///
    /// # Errors
    /// An error of reading it; a directory, a FIFO, a socket or a device.
    ///
    /// # Blocking
    /// On reading all of it.
    pub fn of_file(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::of(&mut RegularFile::open(path.as_ref())?.into_file())
    }

    /// The sum of a file of `limit` bytes at most.
    pub(crate) fn of_limited(file: &RegularFile, limit: u64) -> Result<Self, FileError> {
        let mut sum = Summing(sha2::Sha256::new());
        file.copy(limit, &mut sum)?;
        Ok(Self(sum.0.finalize().into()))
    }

    /// The sum of all that there is to read.
    pub(crate) fn of(from: &mut impl Read) -> io::Result<Self> {
        Self::copy(from, &mut io::sink())
    }

    /// Copies all that there is to read, and sums it up on the way.
    pub(crate) fn copy(from: &mut impl Read, to: &mut impl io::Write) -> io::Result<Self> {
        let mut sum = sha2::Sha256::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return Ok(Self(sum.finalize().into())),
                Ok(read) => {
                    sum.update(&buffer[..read]);
                    to.write_all(&buffer[..read])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Sums up what is written to it.
struct Summing(sha2::Sha256);

impl io::Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

/// A text that is no SHA-256 sum.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a SHA-256 sum: write 64 hexadecimal digits, as `sha256sum FILE` prints")]
pub struct ParseSha256Error {
    text: String,
}

impl FromStr for Sha256 {
    type Err = ParseSha256Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSha256Error { text: text.to_owned() };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut sum = [0; 32];
        if pairs.len() != sum.len() || !rest.is_empty() {
            return Err(wrong());
        }
        for (byte, pair) in sum.iter_mut().zip(pairs) {
            // A sign is a number's, to from_str_radix.
            let digits =
                str::from_utf8(pair).ok().filter(|_| pair.iter().all(u8::is_ascii_hexdigit));
            *byte = digits.and_then(|it| u8::from_str_radix(it, 16).ok()).ok_or_else(wrong)?;
        }
        Ok(Self(sum))
    }
}

impl serde::Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "abc": FIPS 180-4, the examples of NIST.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_sum_is_that_of_the_standard_and_copies() {
        let mut copied = Vec::new();
        let sum = Sha256::copy(&mut &b"abc"[..], &mut copied).unwrap();
        assert_eq!((sum.to_string().as_str(), copied.as_slice()), (ABC, &b"abc"[..]));
    }

    #[test]
    fn digits_are_read_and_nothing_else() {
        let sum: Sha256 = ABC.parse().unwrap();
        assert_eq!(sum.to_string(), ABC);
        assert_eq!(ABC.to_uppercase().parse(), Ok(sum));
        for wrong in [
            "",
            "abc",
            &ABC[1..],
            &format!("{ABC}0"),
            &format!("{ABC}00"),
            &format!("+{}", &ABC[1..]),
        ] {
            assert!(
                wrong.parse::<Sha256>().unwrap_err().to_string().contains("64 hexadecimal digits")
            );
        }
        assert!(ABC.replace("ba", "ü").parse::<Sha256>().is_err());
    }
}
