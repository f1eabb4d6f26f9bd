//! Expected requests and replies of a stream, by the codec alone.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use pipeplug_net::wire::{Chunk, Direction, Format, Limits, Received, Receiver, command};
use pipeplug_net::{CallError, Reply};
use serde_json::Value;

/// Settings of a run, from the first bytes of an input.
pub struct Plan<'a> {
    pub format: Option<Format>,
    /// The most that the connection reads or writes at once.
    pub transfer: NonZeroUsize,
    pub is_dedicated: bool,
    /// One handler at a time, and hardly anything may wait.
    pub is_narrow: bool,
    is_limited: bool,
    /// True if the peer reads nothing and closes that side, too.
    pub closes_input: bool,
    /// The window that the peer offers, where it negotiates flow control.
    pub peer_window: Option<String>,
    /// True if the peer negotiates streams.
    pub has_streams: bool,
    /// True if the peer negotiates progress.
    pub has_progress: bool,
    /// Calls that are begun before the first byte.
    pub calls: u8,
    cuts: &'a [u8],
}

impl<'a> Plan<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let [transfer, flags, more, calls] =
            [0, 1, 2, 3].map(|at| bytes.get(at).copied().unwrap_or_default());
        let transfer = if transfer == 0 { usize::MAX } else { usize::from(transfer) };
        Self {
            format: [Some(Format::Standard), Some(Format::Classic), None]
                [usize::from(flags & 3) % 3],
            transfer: NonZeroUsize::new(transfer).unwrap_or(NonZeroUsize::MIN),
            is_dedicated: flags & 4 != 0,
            is_narrow: flags & 8 != 0,
            is_limited: flags & 16 != 0,
            closes_input: flags & 32 != 0,
            peer_window: (more & 1 != 0).then(|| (usize::from(more) * 10).to_string()),
            has_streams: more & 2 != 0,
            has_progress: more & 4 != 0,
            calls: calls % 32,
            cuts: bytes.get(4..).unwrap_or_default(),
        }
    }

    /// Returns true if a request of `stream` may ask for progress. One that does is taken at its
    /// word: a guest may ask before its host has looked at what the guest has named.
    fn may_ask_for_progress(&self, stream: &[u8]) -> bool {
        let has = |text: &[u8]| stream.windows(text.len()).any(|window| window == text);
        self.has_progress || has(b"progress") || has(b"\\u")
    }

    pub fn limits(&self) -> Limits {
        if self.is_limited {
            Limits::default().with_command(16).with_buffer(100)
        } else {
            Limits::default()
        }
    }

    /// The stream in pieces whose lengths the plan says, over and over.
    pub fn cut<'s>(&self, mut stream: &'s [u8]) -> impl Iterator<Item = &'s [u8]> + use<'a, 's> {
        let mut lengths = self.cuts.iter().cycle();
        std::iter::from_fn(move || {
            let len = lengths.next().map_or(usize::MAX, |&len| 4 * usize::from(len) + 1);
            let (piece, rest) = stream.split_at(len.min(stream.len()));
            stream = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Returns true for a chunk that belongs to a stream, and ends no call.
pub fn is_of_stream(chunk: &Chunk) -> bool {
    let commands = [command::PART, command::END, command::ENOUGH, command::PART_CREDIT];
    commands.contains(&chunk.command.as_str())
}

/// How a call ends.
#[derive(Debug)]
enum End {
    Reply(Vec<u8>),
    Refused(String),
    TooLarge,
}

/// Content of a stream, up to its end or to the first bytes that are no chunk.
#[derive(Debug, Default)]
pub struct Model {
    pub format: Option<Format>,
    /// How many requests there are of each id.
    requests: BTreeMap<u64, usize>,
    /// The first response of each id.
    ends: BTreeMap<u64, End>,
    /// True if the stream ends where a chunk ends.
    is_whole: bool,
    /// True if a request in the stream closes the connection or cancels a request.
    pub may_close: bool,
}

impl Model {
    pub fn of(plan: &Plan<'_>, stream: &[u8]) -> Self {
        let mut model = Self::default();
        let mut receiver = Receiver::new(plan.format, plan.limits());
        receiver.push(stream);
        loop {
            let chunk = match receiver.next() {
                Ok(Some(Received::Chunk(chunk))) => chunk.to_chunk(),
                Ok(Some(Received::Large(chunk))) => chunk,
                Ok(Some(Received::Skipped(skipped))) => {
                    let id = skipped.thread_id.as_u64();
                    match Direction::from_u64(skipped.direction) {
                        Some(Direction::Request) => *model.requests.entry(id).or_default() += 1,
                        Some(Direction::Response) => {
                            drop(model.ends.entry(id).or_insert(End::TooLarge))
                        }
                        Some(Direction::OneWay) | None => {}
                    }
                    continue;
                }
                Ok(None) => {
                    model.is_whole = receiver.finish().is_ok();
                    break;
                }
                Err(_) => break,
            };
            model.take(chunk);
        }
        model.format = receiver.format();
        model
    }

    fn take(&mut self, chunk: Chunk) {
        let id = chunk.thread_id.as_u64();
        self.may_close |= ["k", command::CANCEL].contains(&chunk.command.as_str());
        match chunk.direction {
            Direction::Request => *self.requests.entry(id).or_default() += 1,
            // Of a call that has not asked for it, and of a stream that is not open.
            Direction::Response if chunk.command == command::PROGRESS || is_of_stream(&chunk) => {}
            Direction::Response => {
                let end = if chunk.command == command::ERROR {
                    End::Refused(String::from_utf8_lossy(&chunk.buffer).into_owned())
                } else if chunk.command == command::FAILURE {
                    End::Refused(message_of(&chunk.buffer))
                } else {
                    End::Reply(chunk.buffer)
                };
                self.ends.entry(id).or_insert(end);
            }
            Direction::OneWay => {}
        }
    }

    /// A call that was begun before the stream ends with what the stream has for it.
    pub fn check_call(&self, id: u64, outcome: &Result<Reply, CallError>) {
        let is_so = match (self.ends.get(&id), outcome) {
            (Some(End::Reply(expected)), Ok(reply)) => reply == expected,
            (Some(End::Refused(expected)), Err(CallError::Remote { message, .. })) => {
                expected == message
            }
            (Some(End::TooLarge), Err(CallError::ReplyTooLarge { .. })) => true,
            (None, Err(CallError::Closed { .. })) => true,
            _ => false,
        };
        assert!(is_so, "call {id} ended with {outcome:?}, expected {:?}", self.ends.get(&id));
    }

    /// Reports of progress are those of requests, and stop before the answer.
    ///
    /// `behind` has how many responses of each id came before its last report.
    pub fn check_progress(&self, plan: &Plan<'_>, stream: &[u8], behind: &BTreeMap<u64, usize>) {
        assert!(
            plan.may_ask_for_progress(stream) || behind.is_empty(),
            "reports that were not asked for: {behind:?}"
        );
        for (id, answered) in behind {
            let asked = self.requests.get(id).copied().unwrap_or_default();
            assert!(*answered < asked, "a report for {id} behind its last answer");
        }
    }

    /// Each request is answered once; where the peer breaks the protocol, at most.
    pub fn check_answers(&self, answers: &BTreeMap<u64, Vec<Chunk>>) {
        for (id, answers) in answers {
            let asked = self.requests.get(id).copied().unwrap_or_default();
            assert!(
                answers.len() <= asked,
                "{asked} requests with id {id} were answered with {answers:?}"
            );
        }
        if self.is_whole && !self.may_close {
            for (id, asked) in &self.requests {
                let answered = answers.get(id).map_or(0, Vec::len);
                assert_eq!(answered, *asked, "answers to requests with id {id}");
            }
        }
    }
}

/// Message of a failure; all of it if it is none.
fn message_of(failure: &[u8]) -> String {
    let text = String::from_utf8_lossy(failure).into_owned();
    let Ok(object) = serde_json::from_slice::<serde_json::Map<String, Value>>(failure) else {
        return text;
    };
    match (object.get("code"), object.get("message")) {
        (Some(Value::String(_)), Some(Value::String(message))) => message.clone(),
        _ => text,
    }
}
