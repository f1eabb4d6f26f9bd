//! The two layouts of a chunk's header.

use core::error::Error;
use core::fmt;
use core::str::FromStr;

/// How a chunk's header is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `threadID NUL direction NUL len(cmd) NUL cmd NUL len(buffer) NUL buffer`: a cmd may hold any
    /// byte.
    #[default]
    Standard,
    /// `threadID NUL direction NUL cmd SP len(buffer) NUL buffer`, where zero is written as no
    /// digits: what existing peers speak. A cmd holds neither space nor NUL.
    Classic,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Standard => "standard",
            Self::Classic => "classic",
        })
    }
}

impl FromStr for Format {
    type Err = ParseFormatError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "standard" => Ok(Self::Standard),
            "classic" => Ok(Self::Classic),
            _ => Err(ParseFormatError(())),
        }
    }
}

/// The name of a format that there is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseFormatError(());

impl fmt::Display for ParseFormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown wire format, expected \"standard\" or \"classic\"")
    }
}

impl Error for ParseFormatError {}
