//! Finds the chunks whose data is not recorded.

use std::collections::{BTreeMap, BTreeSet};

use pipeplug_wire::{Direction, ThreadId, command};

use super::format::{ChunkToRecord, Travel};

/// Number of open requests that are kept. Past it everything is redacted that may belong to one.
const OPEN_MAX: usize = 64 << 10;

/// Requests and one-ways with a redacted command.
#[derive(Debug)]
pub(super) struct Redactions {
    commands: BTreeSet<String>,
    /// Their ids, and the way that they went.
    open: BTreeMap<(Travel, ThreadId), Direction>,
    is_overrun: bool,
}

impl Redactions {
    pub(super) fn new(commands: BTreeSet<String>) -> Self {
        Self { commands, open: BTreeMap::new(), is_overrun: false }
    }

    /// Returns true if the data of this chunk is not recorded.
    pub(super) fn redacts(&mut self, chunk: &ChunkToRecord<'_>) -> bool {
        let (id, travel) = (chunk.thread_id, chunk.travel);
        let own = (travel, id);
        let of_peer = (travel.back(), id);
        let is_known = |key| self.open.contains_key(&key) || self.is_overrun;
        match Direction::from_u64(chunk.direction) {
            // A context comes before the chunk that it belongs to.
            Some(Direction::OneWay) if chunk.command == command::CONTEXT => true,
            Some(Direction::OneWay) if command::is_reserved(chunk.command) => {
                let redacts = id.as_u64() != 0 && is_known(own);
                // A request is open until its response.
                let is_one_way = self.open.get(&own) == Some(&Direction::OneWay);
                if is_one_way && chunk.command == command::END {
                    self.open.remove(&own);
                }
                redacts
            }
            Some(direction @ (Direction::Request | Direction::OneWay)) => {
                let redacts = self.commands.contains(chunk.command);
                if redacts && id.as_u64() != 0 {
                    if self.open.len() < OPEN_MAX {
                        self.open.insert(own, direction);
                    } else {
                        self.is_overrun = true;
                    }
                }
                redacts
            }
            Some(Direction::Response) => {
                let redacts = is_known(of_peer) || self.commands.contains(chunk.command);
                let is_last = !matches!(
                    chunk.command,
                    command::PART
                        | command::END
                        | command::PART_CREDIT
                        | command::ENOUGH
                        | command::PROGRESS
                );
                if is_last {
                    self.open.remove(&of_peer);
                }
                redacts
            }
            None => true,
        }
    }
}

impl Travel {
    /// The other way.
    #[must_use]
    pub fn back(self) -> Self {
        match self {
            Self::Sent => Self::Received,
            Self::Received => Self::Sent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacts(redactions: &mut Redactions, text: &str) -> bool {
        let words: Vec<_> = text.split(' ').collect();
        let [travel, direction, id, command] = words[..] else { panic!("{text}") };
        redactions.redacts(&ChunkToRecord {
            travel: if travel == "sent" { Travel::Sent } else { Travel::Received },
            thread_id: ThreadId::new(id.parse().unwrap()),
            direction: match direction {
                "one-way" => 1,
                "request" => 2,
                _ => 3,
            },
            cause: (0, ThreadId::new(0)),
            command,
            buffer_len: 0,
            data: None,
            is_redacted: false,
            is_skipped: false,
        })
    }

    #[test]
    fn all_chunks_of_a_call_or_a_stream_are_redacted_and_no_others() {
        let mut redactions = Redactions::new(["log_in".to_owned()].into());
        for (text, expected) in [
            ("sent request 1 log_in", true),
            ("received request 1 log", false),
            ("sent response 1 log", false),
            ("sent one-way 1 cmd.part", true),
            ("sent one-way 2 cmd.part", false),
            ("received response 1 cmd.part", true),
            ("received response 1 cmd.progress", true),
            ("sent one-way 1 cmd.end", true),
            ("received response 1 cmd.end", true),
            ("received response 1 cmd.failure", true),
            ("received response 1 cmd.failure", false),
            ("sent one-way 0 log_in", true),
            ("received one-way 7 log_in", true),
            ("received one-way 7 cmd.part", true),
            ("sent response 7 cmd.enough", true),
            ("received one-way 7 cmd.end", true),
            ("received one-way 7 cmd.part", false),
            ("sent one-way 8 cmd.context", true),
            ("sent request 9 cmd.ping", false),
        ] {
            assert_eq!(redacts(&mut redactions, text), expected, "{text}");
        }
    }

    #[test]
    fn with_too_many_open_requests_all_that_may_belong_to_one_is_redacted() {
        let mut redactions = Redactions::new(["log_in".to_owned()].into());
        for id in 1..=OPEN_MAX + 1 {
            assert!(redacts(&mut redactions, &format!("sent request {id} log_in")));
        }
        let last = OPEN_MAX + 1;
        assert!(redacts(&mut redactions, &format!("received response {last} cmd.error")));
    }
}
