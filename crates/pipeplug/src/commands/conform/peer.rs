//! One side of the protocol, written by hand over two descriptors: it sends any bytes, and reads chunk
//! by chunk.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pipeplug_wire::{
    Chunk, Direction, Format, Header, Limits, Received, Receiver, ThreadId, command,
};

use super::outcome::{Checked, Stop, came};
use crate::output::text::took;

/// Time in which nothing may come, after the other side has answered everything.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// Bytes of a buffer that a message shows.
const SHOWN: usize = 60;

/// Bytes of a check that a slow machine may not move within the limit.
const MUCH: usize = 256 << 10;

/// Weight of a chunk without its cmd and buffer (docs/protocol.md, "Flow").
const WEIGHT: u64 = 64;

/// Answer to the requests of the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// `cmd.error`, and an empty buffer to a ping.
    Refuse,
    /// The buffer of the request.
    Echo,
    /// None: the check answers.
    Never,
}

/// State of the stream that comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    Open,
    /// Ended between two chunks.
    Ended,
    /// No chunk, and why.
    Broken(String),
}

/// One side of the protocol.
#[derive(Debug)]
pub(super) struct Peer {
    /// Name of the other side in messages: `the plugin`.
    other: &'static str,
    pub(super) input: Option<File>,
    pub(super) output: Option<File>,
    receiver: Receiver,
    pub(super) format: Format,
    pub(super) state: Input,
    /// Chunks that have come and were not taken by the check.
    pub(super) seen: VecDeque<Chunk>,
    /// Number of chunks in `seen` that came before the last one that was taken.
    pub(super) last_taken: usize,
    /// Chunks that only a faulty peer sends.
    pub(super) odd: Vec<String>,
    pub(super) answers: Answers,
    /// Buffers of the answers to some requests of the other side, by command.
    pub(super) known: BTreeMap<String, Vec<u8>>,
    /// Total weight that came, if credit is given for it.
    pub(super) credit: Option<u64>,
    /// Total weight that was sent.
    pub(super) sent: u64,
    /// True while a part of a chunk was sent: answers wait.
    pub(super) is_within_chunk: bool,
    /// Reads that ended inside a chunk of at most this length.
    pub(super) cut_reads: u32,
    outbox: Vec<u8>,
    /// Bytes of the check itself that were queued.
    queued: usize,
    deferred: Vec<u8>,
    pub(super) deadline: Instant,
    limit: Duration,
    last_id: u64,
}

impl Peer {
    /// Makes a peer of the two ends, for at most `limit`.
    pub(super) fn new(
        other: &'static str,
        input: OwnedFd,
        output: OwnedFd,
        format: Format,
        limit: Duration,
    ) -> io::Result<Self> {
        for fd in [&input, &output] {
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(Self {
            other,
            input: Some(input.into()),
            output: Some(output.into()),
            receiver: Receiver::new(Some(format), Limits::default()),
            format,
            state: Input::Open,
            seen: VecDeque::new(),
            last_taken: 0,
            odd: Vec::new(),
            answers: Answers::Refuse,
            known: BTreeMap::new(),
            credit: None,
            sent: 0,
            is_within_chunk: false,
            cut_reads: 0,
            outbox: Vec::new(),
            queued: 0,
            deferred: Vec::new(),
            deadline: Instant::now() + limit,
            limit,
            last_id: 0,
        })
    }

    /// Encodes a chunk in the format of this connection.
    pub(super) fn chunk(&self, id: u64, direction: Direction, cmd: &str, buffer: &[u8]) -> Vec<u8> {
        let header = Header {
            thread_id: ThreadId::new(id),
            direction,
            command: cmd,
            buffer_len: buffer.len() as u64,
        };
        let mut bytes = Vec::new();
        header
            .encode_to(self.format, &mut bytes)
            .expect("checks send commands that both formats have");
        bytes.extend_from_slice(buffer);
        bytes
    }

    /// Returns the next thread id.
    pub(super) fn id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a chunk.
    pub(super) fn send(
        &mut self,
        id: u64,
        direction: Direction,
        cmd: &str,
        buffer: &[u8],
    ) -> Checked {
        let chunk = self.chunk(id, direction, cmd, buffer);
        if direction != Direction::Response && !command::is_reserved(cmd) {
            self.sent += weight(cmd, buffer.len());
        }
        self.send_raw(&chunk)
    }

    /// Sends a request with the next thread id, and returns the id.
    pub(super) fn request(&mut self, cmd: &str, buffer: &[u8]) -> Checked<u64> {
        let id = self.id();
        self.send(id, Direction::Request, cmd, buffer)?;
        Ok(id)
    }

    /// Sends a one-way.
    pub(super) fn one_way(&mut self, cmd: &str, buffer: &[u8]) -> Checked {
        self.send(0, Direction::OneWay, cmd, buffer)
    }

    /// Sends whole chunks in pieces of this length, with a pause after each. Answers wait until all
    /// are sent.
    pub(super) fn send_divided(&mut self, bytes: &[u8], len: usize, pause: Duration) -> Checked {
        self.is_within_chunk = true;
        for piece in bytes.chunks(len) {
            self.send_raw(piece)?;
            thread::sleep(pause);
        }
        self.is_within_chunk = false;
        let deferred = std::mem::take(&mut self.deferred);
        self.send_raw(&deferred)
    }

    /// Sends any bytes, and reads meanwhile.
    pub(super) fn send_raw(&mut self, bytes: &[u8]) -> Checked {
        self.outbox.extend_from_slice(bytes);
        self.queued += bytes.len();
        self.flush()
    }

    fn flush(&mut self) -> Checked {
        while !self.outbox.is_empty() {
            if self.output.is_none() {
                self.outbox.clear();
                return Ok(());
            }
            if !self.step(self.deadline, true)? {
                return Err(came(format!(
                    "{} did not read {} bytes within {}{}",
                    self.other,
                    self.outbox.len(),
                    took(self.limit),
                    self.next_step()
                )));
            }
        }
        Ok(())
    }

    /// Writes and reads once. `false` if nothing could be done before `until`.
    fn step(&mut self, until: Instant, reads: bool) -> Checked<bool> {
        let left = until.saturating_duration_since(Instant::now());
        let millis = left.as_millis().saturating_add(u128::from(!left.is_zero()));
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        let reads = reads && self.state == Input::Open;
        let (mut can_read, mut can_write) = (false, false);
        {
            let input = self.input.as_ref().filter(|_| reads).map(AsFd::as_fd);
            let output = self.output.as_ref().filter(|_| !self.outbox.is_empty()).map(AsFd::as_fd);
            let mut fds: Vec<_> =
                input.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
            fds.extend(output.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLOUT)));
            match poll(&mut fds, timeout) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
                    if input.is_some() {
                        can_read = ready.next().unwrap_or(false);
                    }
                    if output.is_some() {
                        can_write = ready.next().unwrap_or(false);
                    }
                }
                Err(nix::Error::EINTR) => return Ok(true),
                Err(error) => return Err(came(format!("poll(2) failed here: {error}"))),
            }
        }
        if can_read {
            self.read()?;
        }
        if can_write {
            self.write()?;
        }
        Ok(true)
    }

    /// Takes bytes that were read before this peer was made.
    pub(super) fn receive_first(&mut self, bytes: &[u8]) {
        self.receiver.push(bytes);
        self.absorb();
    }

    fn write(&mut self) -> Checked {
        let Some(output) = &mut self.output else { return Ok(()) };
        match output.write(&self.outbox) {
            Ok(count) => {
                self.outbox.drain(..count);
                Ok(())
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => {
                self.outbox.clear();
                Err(came(format!("{} reads no more: {error}", self.other)))
            }
        }
    }

    fn read(&mut self) -> Checked {
        let mut some = vec![0; 64 << 10];
        let Some(input) = &mut self.input else { return Ok(()) };
        match input.read(&mut some) {
            Ok(0) => {
                self.state = match self.receiver.finish() {
                    Ok(()) => Input::Ended,
                    Err(error) => Input::Broken(error.to_string()),
                };
            }
            Ok(count) => {
                self.receiver.push(&some[..count]);
                self.absorb();
                if !self.receiver.unread().is_empty() {
                    self.cut_reads += 1;
                }
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => self.state = Input::Broken(error.to_string()),
        }
        Ok(())
    }

    /// Takes the complete chunks out of what was read.
    fn absorb(&mut self) {
        loop {
            let chunk = match self.receiver.next() {
                Ok(Some(Received::Chunk(chunk))) => chunk.to_chunk(),
                Ok(Some(Received::Large(chunk))) => chunk,
                Ok(Some(Received::Skipped(skipped))) => {
                    self.odd.push(skipped.to_string());
                    continue;
                }
                Ok(None) => return,
                Err(error) => {
                    let first = self.receiver.first_bytes(SHOWN);
                    let shown = first.escape_ascii();
                    self.state =
                        Input::Broken(format!("{error}; its first bytes are b\"{shown}\""));
                    return;
                }
            };
            let counts =
                chunk.direction != Direction::Response && !command::is_reserved(&chunk.command);
            let mut answer = Vec::new();
            if let Some(total) = self.credit.as_mut().filter(|_| counts) {
                *total += weight(&chunk.command, chunk.buffer.len());
                let total = total.to_string();
                answer = self.chunk(0, Direction::OneWay, command::CREDIT, total.as_bytes());
            }
            if chunk.direction == Direction::Request {
                answer.extend(self.answer(&chunk));
            }
            if self.is_within_chunk {
                self.deferred.extend(answer);
            } else {
                self.outbox.append(&mut self.deferred);
                self.outbox.extend(answer);
            }
            self.seen.push_back(chunk);
        }
    }

    fn answer(&self, request: &Chunk) -> Vec<u8> {
        let id = request.thread_id.as_u64();
        let (cmd, buffer) = match (self.answers, request.command.as_str()) {
            (Answers::Never, _) => return Vec::new(),
            (_, command::PING) => (command::PING, &b""[..]),
            (_, cmd) if self.known.contains_key(cmd) => (cmd, &self.known[cmd][..]),
            (Answers::Echo, cmd) if !command::is_reserved(cmd) => (cmd, &request.buffer[..]),
            _ => (command::ERROR, &b"unknown command"[..]),
        };
        self.chunk(id, Direction::Response, cmd, buffer)
    }

    /// Waits for a chunk, which need not be the first one. `None` after `timeout`, or if the stream
    /// ends before.
    pub(super) fn find(
        &mut self,
        timeout: Duration,
        is_it: impl Fn(&Chunk) -> bool,
    ) -> Checked<Option<Chunk>> {
        let until = self.deadline.min(Instant::now() + timeout);
        let mut looked_at = 0;
        loop {
            while looked_at < self.seen.len() {
                if is_it(&self.seen[looked_at]) {
                    self.last_taken = looked_at;
                    return Ok(self.seen.remove(looked_at));
                }
                looked_at += 1;
            }
            if self.state != Input::Open || !self.step(until, true)? {
                return Ok(None);
            }
        }
    }

    /// Waits for a chunk that has to come.
    pub(super) fn expect(&mut self, what: &str, is_it: impl Fn(&Chunk) -> bool) -> Checked<Chunk> {
        match self.find(self.limit, is_it)? {
            Some(chunk) => Ok(chunk),
            None => Err(self.missing(what)),
        }
    }

    /// Failure for something that has not come.
    pub(super) fn missing(&self, what: &str) -> Stop {
        let mut text = match &self.state {
            Input::Open => format!("no {what} within {}{}", took(self.limit), self.next_step()),
            Input::Ended => format!("the end of the stream before the {what}"),
            Input::Broken(error) => format!("no {what}, but a broken stream: {error}"),
        };
        if let Some(chunk) = self.seen.back() {
            text.push_str(&format!("; the last chunk was {}", shown(chunk)));
        } else if let Some(odd) = self.odd.last() {
            text.push_str(&format!("; there was a {odd}"));
        }
        came(text)
    }

    /// Help if the time was too short: a check that sends much takes as long as the machine and
    /// the other checks let it.
    fn next_step(&self) -> String {
        if self.queued < MUCH {
            return String::new();
        }
        format!(
            "; it was sent {} KiB: a slow machine needs a longer --timeout, or --jobs 1",
            self.queued >> 10
        )
    }

    /// Waits for the response to a request.
    pub(super) fn response(&mut self, id: u64) -> Checked<Chunk> {
        self.expect(&format!("response with the threadID {id}"), |chunk| is_response(chunk, id))
    }

    /// Sends a request, and waits for its response.
    pub(super) fn call(&mut self, cmd: &str, buffer: &[u8]) -> Checked<Chunk> {
        let id = self.request(cmd, buffer)?;
        self.response(id)
    }

    /// Checks that the other side answers a ping.
    pub(super) fn ping(&mut self) -> Checked {
        self.call(command::PING, b"").map(drop)
    }

    /// Reads until nothing has come for [`QUIET`].
    pub(super) fn settle(&mut self) -> Checked {
        while self.state == Input::Open && self.step(Instant::now() + QUIET, true)? {
            if Instant::now() >= self.deadline {
                return Err(came(format!("it sent without a pause for {}", took(self.limit))));
            }
        }
        Ok(())
    }

    /// Pings, waits until all is quiet, and returns everything that is no answer to the ping, nor a
    /// request or one-way of the other side.
    pub(super) fn rest(&mut self) -> Checked<Vec<Chunk>> {
        self.ping()?;
        self.settle()?;
        Ok(self
            .seen
            .iter()
            .filter(|chunk| chunk.direction == Direction::Response)
            .cloned()
            .collect())
    }

    /// Checks that no response has come, and that the other side goes on.
    pub(super) fn no_answer(&mut self, to: &str) -> Checked {
        match self.rest()?.first() {
            None => Ok(()),
            Some(chunk) => Err(came(format!("an answer to {to}: {}", shown(chunk)))),
        }
    }

    /// Checks that a request was answered with an error, and returns it.
    pub(super) fn refused(&mut self, cmd: &str, buffer: &[u8]) -> Checked<Chunk> {
        let response = self.call(cmd, buffer)?;
        if is_error(&response) {
            return Ok(response);
        }
        Err(came(format!("{} answered {cmd:?} with {}", self.other, shown(&response))))
    }

    /// Waits for the end of what the other side sends; no response may come before it.
    pub(super) fn ends_silently(&mut self) -> Checked {
        let answer = self.find(self.limit, |chunk| chunk.direction == Direction::Response)?;
        match (answer, &self.state) {
            (Some(chunk), _) => Err(came(format!("an answer: {}", shown(&chunk)))),
            (None, Input::Ended) => Ok(()),
            (None, _) => Err(self.missing("end of the stream")),
        }
    }

    /// Waits for the end of what the other side sends.
    pub(super) fn ends(&mut self) -> Checked {
        self.find(self.limit, |_| false)?;
        match &self.state {
            Input::Ended => Ok(()),
            _ => Err(self.missing("end of the stream")),
        }
    }

    /// Writes without reading until the other side takes no more, or `bytes` are written. Returns how
    /// many were not.
    pub(super) fn stuff(&mut self, bytes: Vec<u8>, pause: Duration) -> Checked<usize> {
        self.outbox.extend(bytes);
        while !self.outbox.is_empty()
            && self.step(self.deadline.min(Instant::now() + pause), false)?
        {}
        Ok(self.outbox.len())
    }
}

/// True for the response proper to a request, and false for chunks of its stream and its progress.
pub(super) fn is_response(chunk: &Chunk, id: u64) -> bool {
    chunk.direction == Direction::Response
        && chunk.thread_id.as_u64() == id
        && !is_beside(&chunk.command)
}

/// Commands of chunks that come before the response, with its direction and threadID.
pub(super) fn is_beside(cmd: &str) -> bool {
    [command::PART, command::PART_CREDIT, command::ENOUGH, command::END, command::PROGRESS]
        .contains(&cmd)
}

/// True for the response to a request that failed.
pub(super) fn is_error(response: &Chunk) -> bool {
    [command::ERROR, command::FAILURE].contains(&response.command.as_str())
}

/// Weight of a chunk (docs/protocol.md, "Flow").
pub(super) fn weight(cmd: &str, buffer: usize) -> u64 {
    WEIGHT + cmd.len() as u64 + buffer as u64
}

/// Description of a chunk, in one line.
pub(super) fn shown(chunk: &Chunk) -> String {
    let buffer = &chunk.buffer[..chunk.buffer.len().min(SHOWN)];
    let more = if buffer.len() < chunk.buffer.len() {
        format!("… ({} bytes)", chunk.buffer.len())
    } else {
        String::new()
    };
    format!(
        "{} {} {:?} b\"{}\"{more}",
        chunk.direction,
        chunk.thread_id,
        chunk.command.chars().take(SHOWN).collect::<String>(),
        buffer.escape_ascii()
    )
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
