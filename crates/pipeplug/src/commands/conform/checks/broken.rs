//! Broken streams: the plugin closes the connection, and sends nothing.

use pipeplug_wire::Format;

use crate::commands::conform::catalog::{Check, Scope};
use crate::commands::conform::guest::Setup;
use crate::commands::conform::outcome::{Checked, not_applicable};

/// Bytes that break a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken {
    pub(crate) standard: Option<&'static [u8]>,
    pub(crate) classic: Option<&'static [u8]>,
}

impl Broken {
    /// The bytes in this format.
    pub(crate) fn bytes(self, format: Format) -> Checked<&'static [u8]> {
        let bytes = match format {
            Format::Standard => self.standard,
            Format::Classic => self.classic,
        };
        bytes.ok_or_else(|| not_applicable(format!("the {format} format has no such error")))
    }
}

const fn both(bytes: &'static [u8]) -> Broken {
    Broken { standard: Some(bytes), classic: Some(bytes) }
}

pub(crate) const NO_DIGITS: Broken =
    Broken { standard: Some(b"\x002\x001\0x\x000\0"), classic: None };
pub(crate) const NOT_A_DIGIT: Broken = both(b"Listening on port 8080\n");
pub(crate) const SIGN: Broken =
    Broken { standard: Some(b"-1\x002\x001\0x\x000\0"), classic: Some(b"-1\x002\0x \0") };
pub(crate) const LEADING_ZERO: Broken =
    Broken { standard: Some(b"07\x002\x001\0x\x000\0"), classic: Some(b"07\x002\0x \0") };
pub(crate) const TOO_LARGE: Broken = Broken {
    standard: Some(b"18446744073709551616\x002\x001\0x\x000\0"),
    classic: Some(b"18446744073709551616\x002\0x \0"),
};
pub(crate) const NO_NUL: Broken = Broken { standard: Some(b"7\x002\x001\0xy0\0"), classic: None };
pub(crate) const NUL_IN_CMD: Broken = Broken { standard: None, classic: Some(b"7\x002\0x\0y \0") };
pub(crate) const NOT_UTF8: Broken = Broken {
    standard: Some(b"7\x002\x002\0\xff\xfe\x000\0"),
    classic: Some(b"7\x002\0\xff\xfe \0"),
};
pub(crate) const END_IN_CHUNK: Broken =
    Broken { standard: Some(b"7\x002\x001\0x\x0010\0half"), classic: Some(b"7\x002\0x 10\0half") };

const SECTION: &str = "Broken streams";
const EXPECTS: &str = "the plugin closes the connection, and sends no response";

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "broken/no-digits",
        section: SECTION,
        sends: "a chunk whose threadID is empty (standard format)",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, NO_DIGITS),
    },
    Check {
        name: "broken/not-a-digit",
        section: SECTION,
        sends: "a line of text",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, NOT_A_DIGIT),
    },
    Check {
        name: "broken/sign",
        section: SECTION,
        sends: "a chunk with the threadID -1",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, SIGN),
    },
    Check {
        name: "broken/leading-zero",
        section: SECTION,
        sends: "a chunk with the threadID 07",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, LEADING_ZERO),
    },
    Check {
        name: "broken/too-large",
        section: SECTION,
        sends: "a chunk with the threadID 18446744073709551616",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, TOO_LARGE),
    },
    Check {
        name: "broken/no-nul",
        section: SECTION,
        sends: "a chunk without a NUL after the announced length of the cmd (standard format)",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, NO_NUL),
    },
    Check {
        name: "broken/nul-in-cmd",
        section: SECTION,
        sends: "a chunk with a NUL before the space (classic format)",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, NUL_IN_CMD),
    },
    Check {
        name: "broken/not-utf8",
        section: SECTION,
        sends: "a request whose cmd is not UTF-8",
        expects: EXPECTS,
        scope: Scope::Every,
        run: |setup| breaks(setup, NOT_UTF8),
    },
    Check {
        name: "broken/end-in-chunk",
        section: SECTION,
        sends: "half of a request, and the end of the stream",
        expects: EXPECTS,
        scope: Scope::Every,
        run: end_in_chunk,
    },
];

fn breaks(setup: &Setup, broken: Broken) -> Checked {
    let bytes = broken.bytes(setup.format)?;
    let mut guest = setup.begin()?;
    guest.is_within_chunk = true;
    guest.send_raw(bytes)?;
    guest.ends_silently()
}

fn end_in_chunk(setup: &Setup) -> Checked {
    let mut guest = setup.begin()?;
    guest.is_within_chunk = true;
    let bytes = END_IN_CHUNK.bytes(setup.format)?;
    guest.send_raw(bytes)?;
    guest.output = None;
    guest.ends_silently()
}
