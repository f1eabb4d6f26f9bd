//! State of a connection at its end.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_wire::{Direction, Header, ThreadId};
use smol_str::SmolStr;

use crate::escape::beginning;

/// Number of chunks that are remembered in each direction.
const CHUNKS: usize = 8;
/// Bytes of a command that are remembered.
const COMMAND: usize = 128;
/// Number of open calls that are named.
pub(crate) const CALLS: usize = 32;
/// Number of open calls that `Display` shows.
const SHOWN: usize = 3;

/// State of a connection at its end. Part of the errors of the calls that the end failed, and of
/// later ones.
///
/// `Display` writes up to two lines, each after a line break: the owner's description of the other
/// side, and the calls and chunks.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Postmortem {
    /// Time that the connection was open.
    pub lasted: Duration,
    /// Open calls of this side, the oldest first, at most 32.
    pub open_calls: Vec<OpenCall>,
    /// Number of open calls.
    pub open_count: usize,
    /// Headers of the last chunks that were received, the oldest first, at most 8.
    pub received: Vec<ChunkHead>,
    /// Headers of the last chunks of which at least a part was sent, the oldest first, at most 8.
    pub sent: Vec<ChunkHead>,
    /// Description of the other side by [`Handler::explain`](crate::Handler::explain).
    pub owner: Option<Arc<dyn Error + Send + Sync>>,
}

/// A call without a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenCall {
    /// Thread id of the request.
    pub thread_id: ThreadId,
    /// The command.
    pub command: String,
    /// Age, accurate to some milliseconds.
    pub age: Duration,
}

/// Header of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkHead {
    /// The thread id.
    pub thread_id: ThreadId,
    /// The direction.
    pub direction: Direction,
    /// The command, at most 128 bytes of it.
    pub command: String,
    /// Length of the buffer, in bytes.
    pub buffer_len: u64,
}

impl fmt::Display for ChunkHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread_id, direction, command, buffer_len } = self;
        write!(f, "{direction} {thread_id} {command:?} of {buffer_len} B")
    }
}

impl fmt::Display for Postmortem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(owner) = &self.owner {
            write!(f, "\n  {owner}")?;
        }
        if self.open_count == 0 && self.received.is_empty() && self.sent.is_empty() {
            return Ok(());
        }
        write!(f, "\n  calls open: {}", self.open_count)?;
        for (i, call) in self.open_calls.iter().take(SHOWN).enumerate() {
            let separator = if i == 0 { " (" } else { ", " };
            let age = call.age.as_secs_f64();
            write!(f, "{separator}{:?} for {age:.3} s", call.command)?;
        }
        match self.open_count {
            0 => {}
            count if count > SHOWN => write!(f, ", …)")?,
            _ => write!(f, ")")?,
        }
        let last = |chunks: &[ChunkHead]| {
            chunks.last().map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        write!(f, "; last received: {}; last sent: {}", last(&self.received), last(&self.sent))
    }
}

/// Headers of the last chunks in one direction.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    chunks: Vec<Noted>,
    next: usize,
    /// The last chunk that was sent, if so many others are queued that it had to leave its place.
    last_sent: Option<Noted>,
}

#[derive(Debug, Clone)]
struct Noted {
    /// Position in the stream, in bytes. 0 where it does not matter.
    start: u64,
    thread_id: ThreadId,
    direction: Direction,
    command: SmolStr,
    buffer_len: u64,
}

impl Recent {
    /// Notes a chunk that was received.
    pub(crate) fn note(&mut self, header: &Header<'_>) {
        self.note_at(0, header);
    }

    /// Notes a chunk that is to be sent at position `start`, after `written` bytes of the stream
    /// were written.
    #[inline]
    pub(crate) fn note_to_send(&mut self, start: u64, written: u64, header: &Header<'_>) {
        if written < start
            && let Some(oldest) = self.chunks.get(self.next)
            && oldest.start < written
        {
            self.last_sent = Some(oldest.clone());
        }
        self.note_at(start, header);
    }

    fn note_at(&mut self, start: u64, header: &Header<'_>) {
        let Header { thread_id, direction, command, buffer_len } = *header;
        let command = beginning(command, COMMAND);
        let Some(noted) = self.chunks.get_mut(self.next) else {
            self.chunks.push(Noted {
                start,
                thread_id,
                direction,
                command: command.into(),
                buffer_len,
            });
            self.next = self.chunks.len() % CHUNKS;
            return;
        };
        // Most often it is the same as eight chunks before, and a comparison costs less than a new
        // string.
        if noted.command != command {
            noted.command = command.into();
        }
        (noted.start, noted.thread_id, noted.direction, noted.buffer_len) =
            (start, thread_id, direction, buffer_len);
        self.next = (self.next + 1) % CHUNKS;
    }

    /// The headers, the oldest first.
    pub(crate) fn heads(&self) -> Vec<ChunkHead> {
        self.in_order().map(Noted::head).collect()
    }

    /// Headers of the chunks of which a part is among the first `written` bytes of the stream, the
    /// oldest first.
    pub(crate) fn heads_sent(&self, written: u64) -> Vec<ChunkHead> {
        let sent: Vec<_> =
            self.in_order().filter(|noted| noted.start < written).map(Noted::head).collect();
        if sent.is_empty() { self.last_sent.iter().map(Noted::head).collect() } else { sent }
    }

    fn in_order(&self) -> impl Iterator<Item = &Noted> {
        let (newer, older) = self.chunks.split_at(self.next.min(self.chunks.len()));
        older.iter().chain(newer)
    }
}

impl Noted {
    fn head(&self) -> ChunkHead {
        ChunkHead {
            thread_id: self.thread_id,
            direction: self.direction,
            command: self.command.to_string(),
            buffer_len: self.buffer_len,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(recent: &mut Recent, id: u64, command: &str) {
        recent.note(&Header {
            thread_id: ThreadId::new(id),
            direction: Direction::Request,
            command,
            buffer_len: 2 * id,
        });
    }

    #[test]
    fn the_last_chunks_are_kept_in_their_order() {
        let mut recent = Recent::default();
        assert_eq!(recent.heads(), []);
        for id in 1..=3 {
            note(&mut recent, id, "a");
        }
        let ids = |recent: &Recent| {
            recent.heads().iter().map(|head| head.thread_id.as_u64()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&recent), [1, 2, 3]);
        for id in 4..=20 {
            note(&mut recent, id, if id % 2 == 0 { "even" } else { "odd" });
        }
        assert_eq!(ids(&recent), (13..=20).collect::<Vec<_>>());
        let heads = recent.heads();
        assert_eq!(heads[7].to_string(), "request 20 \"even\" of 40 B");
        assert_eq!(heads[6].command, "odd");
    }

    #[test]
    fn what_only_waited_was_not_sent() {
        let mut recent = Recent::default();
        let heads = |recent: &Recent, written| {
            recent
                .heads_sent(written)
                .iter()
                .map(|head| head.thread_id.as_u64())
                .collect::<Vec<_>>()
        };
        let header = |id| Header {
            thread_id: ThreadId::new(id),
            direction: Direction::Request,
            command: "a",
            buffer_len: 0,
        };
        // Ten bytes each, of which two were written whole and one in part.
        for id in 0..20 {
            recent.note_to_send(10 * id, (10 * id).min(25), &header(id));
            let sent: Vec<_> = (0..=id.min(2)).filter(|sent| sent + 8 > id).collect();
            assert_eq!(heads(&recent, 25), if sent.is_empty() { vec![2] } else { sent }, "{id}");
        }
    }

    #[test]
    fn of_a_long_command_the_beginning_is_kept() {
        let mut recent = Recent::default();
        note(&mut recent, 1, &"é".repeat(30_000));
        note(&mut recent, 2, &format!("x{}", "é".repeat(30_000)));
        let commands: Vec<_> = recent.heads().into_iter().map(|head| head.command).collect();
        assert_eq!(commands, ["é".repeat(64), format!("x{}", "é".repeat(63))]);
    }

    #[test]
    fn it_reads_as_lines_to_append() {
        assert_eq!(Postmortem::default().to_string(), "");
        let call = |id, command: &str| OpenCall {
            thread_id: ThreadId::new(id),
            command: command.into(),
            age: Duration::from_millis(1234),
        };
        let head = ChunkHead {
            thread_id: ThreadId::new(3),
            direction: Direction::Response,
            command: "e\u{1b}".into(),
            buffer_len: 0,
        };
        let mut postmortem = Postmortem {
            open_calls: vec![call(1, "a"), call(2, "b\n")],
            open_count: 2,
            received: vec![head],
            owner: Some(Arc::from(Box::<dyn Error + Send + Sync>::from("it said: no"))),
            ..Postmortem::default()
        };
        assert_eq!(
            postmortem.to_string(),
            "\n  it said: no\n  calls open: 2 (\"a\" for 1.234 s, \"b\\n\" for 1.234 s); last received: response 3 \
             \"e\\u{1b}\" of 0 B; last sent: nothing"
        );
        postmortem.open_calls = (1..=4).map(|id| call(id, "c")).collect();
        postmortem.open_count = 1000;
        assert!(postmortem.to_string().contains(
            "calls open: 1000 (\"c\" for 1.234 s, \"c\" for 1.234 s, \"c\" for 1.234 s, …);"
        ));
    }
}
