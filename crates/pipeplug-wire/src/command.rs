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
/// The host's first request: who is the guest?
pub const GET_METADATA: &str = "GetMetadata";
/// Prefix of the protocol's own commands.
pub const RESERVED_PREFIX: &str = "cmd.";

/// Returns true for a command of the protocol's own, known today or not.
#[must_use]
pub fn is_reserved(command: &str) -> bool {
    command.starts_with(RESERVED_PREFIX)
}
