//! The plugin's side of a check of a host.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use pipeplug_guest::internal::copy_descriptor;
use pipeplug_wire::{Chunk, Direction, Format, command};
use serde_json::{Map, Value, json};

use crate::commands::conform::outcome::{Checked, came, not_applicable};
use crate::commands::conform::peer::{Answers, Input, Peer, shown};

/// Time for the rest of the host's conversation, after the check.
const SERVE: Duration = Duration::from_secs(30);
/// Time for a host to make a call by itself.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A plugin that checks its host.
pub(in crate::commands::conform) struct Scripted {
    pub(super) peer: Peer,
    /// Number of the descriptor to the host.
    output_number: i32,
    /// The host's `GetMetadata`, once it has come.
    asked: Option<Chunk>,
    is_answered: bool,
    before_ping: Vec<u8>,
    /// File that says that the check has passed if the host kills this process.
    passed_if_killed: PathBuf,
}

impl Scripted {
    /// Copies the descriptors that the arguments name, or stdin and stdout.
    pub(super) fn new(
        own: &[OsString],
        limit: Duration,
        passed_if_killed: PathBuf,
    ) -> io::Result<Self> {
        let number = |word: &OsStr| -> Option<i32> {
            let word = word.to_str().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?;
            word.parse().ok()
        };
        let numbers = match own {
            [input, output, ..] => number(input).zip(number(output)),
            _ => None,
        };
        let (input, output) = numbers.unwrap_or((0, 1));
        // The descriptors by these numbers belong to no value here. Opened anew, a socket is refused.
        let (from_host, to_host) = (copy_descriptor(input)?, copy_descriptor(output)?);
        let format = first_format(&from_host)?;
        let peer = Peer::new("the host", from_host, to_host, format.0, limit)?;
        let mut scripted = Self {
            peer,
            output_number: output,
            before_ping: Vec::new(),
            passed_if_killed,
            asked: None,
            is_answered: false,
        };
        scripted.peer.answers = Answers::Never;
        scripted.peer.receive_first(&format.1);
        Ok(scripted)
    }

    /// Waits for `GetMetadata`, and does not answer it.
    pub(crate) fn wait_for_host(&mut self) -> Checked<Chunk> {
        let is_it = |chunk: &Chunk| chunk.command == command::GET_METADATA;
        let asked = self.expect("request GetMetadata", is_it)?;
        self.peer.answers = Answers::Refuse;
        self.asked = Some(asked.clone());
        Ok(asked)
    }

    /// The host's own metadata.
    pub(crate) fn offer(&self) -> Map<String, Value> {
        let buffer = self.asked.as_ref().map_or(&b""[..], |asked| &asked.buffer);
        match serde_json::from_slice(buffer) {
            Ok(Value::Object(offer)) => offer,
            _ => Map::new(),
        }
    }

    /// Checks that the host names the feature.
    pub(crate) fn needs(&self, feature: &str) -> Checked {
        let offer = self.offer();
        let features = offer.get("pipeplug.features").and_then(Value::as_str).unwrap_or_default();
        if features.split(' ').any(|word| word == feature) {
            return Ok(());
        }
        Err(not_applicable(format!("the host does not name `{feature}`")))
    }

    /// Metadata that name these features, and further keys.
    pub(crate) fn metadata(&self, features: &str, keys: &[(&str, &str)]) -> Vec<u8> {
        let mut metadata = Map::new();
        metadata.insert("pipeplug.protocol".into(), json!("1"));
        metadata.insert("pipeplug.features".into(), json!(features));
        metadata.insert("Description".into(), json!("checks its host"));
        for (key, value) in keys {
            metadata.insert((*key).into(), json!(value));
        }
        Value::Object(metadata).to_string().into_bytes()
    }

    /// Answers `GetMetadata`, naming these features and further keys.
    pub(crate) fn greet(&mut self, features: &str, keys: &[(&str, &str)]) -> Checked {
        let metadata = self.metadata(features, keys);
        self.greet_raw(command::GET_METADATA, &metadata)
    }

    /// Answers `GetMetadata` with this cmd and buffer.
    pub(crate) fn greet_raw(&mut self, cmd: &str, buffer: &[u8]) -> Checked {
        let id = match &self.asked {
            Some(asked) => asked.thread_id.as_u64(),
            None => self.wait_for_host()?.thread_id.as_u64(),
        };
        self.is_answered = true;
        self.send(id, Direction::Response, cmd, buffer)
    }

    /// Adds a chunk to those that [`greet_and_ping`](Self::greet_and_ping) sends.
    pub(crate) fn send_before_ping(&mut self, chunk: &[u8]) {
        self.before_ping.extend_from_slice(chunk);
    }

    /// Answers `GetMetadata`, and pings in the same write: a host may have enough after the answer.
    pub(crate) fn greet_and_ping(&mut self, cmd: &str, buffer: &[u8]) -> Checked {
        let asked = self.asked.as_ref().map_or(1, |asked| asked.thread_id.as_u64());
        let own = self.id();
        let mut bytes = self.chunk(asked, Direction::Response, cmd, buffer);
        bytes.append(&mut self.before_ping);
        bytes.extend(self.chunk(own, Direction::Request, command::PING, b""));
        self.is_answered = true;
        self.send_raw(&bytes)?;
        self.response(own).map(drop)
    }

    /// Notes that from here on the host may kill this process, which is what the check expects.
    pub(crate) fn passes_if_killed(&self) -> Checked {
        std::fs::write(&self.passed_if_killed, "")
            .map_err(|error| came(format!("no file can be written: {error}")))
    }

    /// Notes that the check has answered `GetMetadata` itself.
    pub(crate) fn has_greeted(&mut self) {
        self.is_answered = true;
    }

    /// Waits for a request of the host's own. Not applicable if it makes none.
    pub(crate) fn users_request(&mut self) -> Checked<Chunk> {
        self.peer.answers = Answers::Never;
        let is_call = |chunk: &Chunk| {
            chunk.direction == Direction::Request && !command::is_of_protocol(&chunk.command)
        };
        let is_next = |chunk: &Chunk| is_call(chunk) || is_stop(chunk);
        match self.find(CALL_TIMEOUT, is_next)? {
            Some(chunk) if is_call(&chunk) => Ok(chunk),
            _ => Err(not_applicable("the host makes no call")),
        }
    }

    /// Sends a request, and waits for its response; other requests of the host wait.
    pub(crate) fn refused_by_host(&mut self, cmd: &str) -> Checked {
        self.refused(cmd, b"data").map(drop)
    }

    /// Goes on as a plugin that echoes, until the host has enough.
    pub(super) fn serve(&mut self) {
        self.peer.deadline = Instant::now() + SERVE;
        self.peer.is_within_chunk = false;
        // A host that is gone, or does not listen any more, is no concern here.
        let _ = self.try_to_serve();
    }

    fn try_to_serve(&mut self) -> Checked {
        if self.asked.is_none() && self.peer.state == Input::Open {
            self.wait_for_host()?;
        }
        if !self.is_answered {
            self.greet("", &[])?;
        }
        self.peer.answers = Answers::Echo;
        let open: Vec<_> = self.peer.seen.drain(..).collect();
        let mut is_over = open.iter().any(is_stop);
        for chunk in open {
            let is_user = !command::is_of_protocol(&chunk.command);
            if chunk.direction == Direction::Request && is_user {
                // A second answer is ignored.
                let id = chunk.thread_id.as_u64();
                self.send(id, Direction::Response, &chunk.command, &chunk.buffer)?;
            }
        }
        while !is_over && self.peer.state == Input::Open && Instant::now() < self.peer.deadline {
            is_over = self.find(SERVE, is_stop)?.is_some();
        }
        Ok(())
    }

    /// Closes the stream to the host.
    pub(crate) fn close_output(&mut self) {
        let output = self.peer.output.take();
        // It is open: it was copied.
        let _ = nix::unistd::close(self.output_number);
        if let Some(output) = output {
            // A socket is open for both directions, and may be that of the input. A pipe refuses this.
            let _ = UnixStream::from(OwnedFd::from(output)).shutdown(Shutdown::Write);
        }
    }
}

/// True for `cmd.stop`.
pub(crate) fn is_stop(chunk: &Chunk) -> bool {
    chunk.direction == Direction::OneWay && chunk.command == command::STOP
}

impl Deref for Scripted {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Scripted {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

/// Reads until the format of the first chunk is known. Returns what was read.
fn first_format(input: &OwnedFd) -> io::Result<(Format, Vec<u8>)> {
    use std::io::Read as _;

    let mut input = File::from(input.try_clone()?);
    let mut bytes = Vec::new();
    let mut receiver = pipeplug_wire::Receiver::new(None, pipeplug_wire::Limits::default());
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok((Format::Standard, bytes));
        }
        bytes.push(byte[0]);
        receiver.push(&byte);
        let failed = receiver.next().is_err();
        if let Some(format) = receiver.format() {
            return Ok((format, bytes));
        }
        if failed {
            return Ok((Format::Standard, bytes));
        }
    }
}

/// Failure for a chunk that should not have come.
pub(crate) fn unexpected(chunk: &Chunk) -> Checked {
    Err(came(shown(chunk)))
}
