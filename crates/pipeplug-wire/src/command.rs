//! The commands that are the protocol's own.
//!
//! A cmd is the peers' business, but for those that begin with [`RESERVED_PREFIX`] and for
//! [`GET_METADATA`]; see `docs/protocol.md` for who sends which, and when.

/// As the cmd of a response: the request failed, and the buffer is the message.
pub const ERROR: &str = "cmd.error";
/// A request that is answered at once with an empty buffer: is the peer alive?
pub const PING: &str = "cmd.ping";
/// A one-way from host to guest: finish and exit.
pub const STOP: &str = "cmd.stop";
/// A one-way with the thread id of a request of the sender's whose answer is no longer wanted.
pub const CANCEL: &str = "cmd.cancel";
/// A one-way just before a request with the same thread id. Carries, as JSON, what a chunk has no
/// room for.
pub const CONTEXT: &str = "cmd.context";
/// A one-way that carries the total weight of the chunks taken so far, in decimal.
pub const CREDIT: &str = "cmd.credit";
/// One part of a stream. A one-way if the thread id is one of the sender's requests, a response if
/// it is one of the receiver's. So are the other chunks of a stream, and [`PROGRESS`].
pub const PART: &str = "cmd.part";
/// The sender has no more parts. The buffer is empty, or says why they are not complete.
pub const END: &str = "cmd.end";
/// Total weight of the parts of one stream that were taken so far, in decimal.
pub const PART_CREDIT: &str = "cmd.part.credit";
/// The receiver wants no more parts. The buffer says why, or is empty.
pub const ENOUGH: &str = "cmd.enough";
/// Progress of a request, as JSON.
pub const PROGRESS: &str = "cmd.progress";
/// As the cmd of a response: the request failed, and the buffer is a JSON object with a code, a
/// message, and data. Needs the feature `failure`; without it the response is [`ERROR`].
pub const FAILURE: &str = "cmd.failure";
/// A one-way from host to guest: the level of the guest's log, as `debug`.
pub const LOG_LEVEL: &str = "cmd.log_level";
/// The host's first request: who is the guest?
pub const GET_METADATA: &str = "GetMetadata";
/// Prefix of the protocol's own commands.
pub const RESERVED_PREFIX: &str = "cmd.";

/// Returns true for a command that users do not send: one of the protocol's own, known today or
/// not, or [`GET_METADATA`].
#[inline]
#[must_use]
pub fn is_of_protocol(command: &str) -> bool {
    match command.as_bytes().first() {
        Some(b'c') => is_reserved(command),
        Some(b'G') => command == GET_METADATA,
        _ => false,
    }
}

/// Returns true for a command of the protocol's own, known today or not.
#[must_use]
pub fn is_reserved(command: &str) -> bool {
    command.starts_with(RESERVED_PREFIX)
}
