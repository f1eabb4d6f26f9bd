//! Limits on the chunks that a receiver takes from its peer.

/// How large a chunk a receiver takes; larger ones are [skipped](crate::Skipped).
///
/// Nothing is allocated for these in advance: memory follows what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest cmd, in bytes (default 64 KiB).
    pub command: usize,
    /// The longest buffer, in bytes (default 256 MiB).
    pub buffer: u64,
}

impl Limits {
    /// The same limits with another longest cmd, in bytes.
    #[must_use]
    pub const fn with_command(self, command: usize) -> Self {
        Self { command, ..self }
    }

    /// The same limits with another longest buffer, in bytes.
    #[must_use]
    pub const fn with_buffer(self, buffer: u64) -> Self {
        Self { buffer, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { command: 64 << 10, buffer: 256 << 20 }
    }
}
