//! Streams of both kinds: the work of a side, and the answers.

use std::sync::atomic::Ordering;
use std::thread;

use fastrand::Rng;
use pipeplug_host::{CallError, HandlerError, PartSender, Reply, Request, StreamCall, StreamError};

use crate::answer::{Board, TOKEN, payload};
use crate::load::{LONG, Load};
use crate::plan::Plan;

/// Commands of streams.
pub(crate) const COMMANDS: [&str; 2] = ["parts", "gather"];

/// Part of a stream, by the token of its request.
fn part(token: &[u8], number: usize, len: usize) -> Vec<u8> {
    let token = token.first_chunk().copied().map_or(0, u64::from_le_bytes);
    payload(token.wrapping_add(number as u64), len)
}

/// Sends each part back, or checks that all parts of a one-way came.
pub(crate) fn answer(board: &Board, request: &mut Request) -> Result<Reply, HandlerError> {
    if request.command() == "parts" {
        return send_back(request);
    }
    let token = request.buffer()[..TOKEN].to_vec();
    let len = request.buffer().len() - TOKEN;
    let mut parts = request.parts();
    for (number, next) in parts.by_ref().enumerate() {
        match next {
            Ok(next) if next == part(&token, number, len) => {}
            Ok(next) => board.violation(format!(
                "part {number} of a one-way stream has {} bytes that are not its own",
                next.len()
            )),
            // Its sender is gone, and has not counted it.
            Err(_) => return Ok(Reply::empty()),
        }
    }
    board.note();
    Ok(Reply::empty())
}

/// Sends each part back. The reply is their number.
pub(crate) fn send_back(request: &mut Request) -> Result<Reply, HandlerError> {
    let mut reply = request.reply_parts()?;
    let mut count = 0_usize;
    for part in request.parts() {
        reply.send(part?)?;
        count += 1;
    }
    Ok(count.to_string().into())
}

/// Returns true if the parts of a [described](Shape::described) one-way came, each once, up to their
/// end. A part that is not what was sent is reported on standard error.
pub(crate) fn gather(request: &mut Request) -> bool {
    let body = request.buffer().to_vec();
    let Some(shape) = Shape::of(&body) else {
        eprintln!("a one-way of {} bytes does not describe its parts", body.len());
        return false;
    };
    let mut number = 0;
    for next in request.parts() {
        // Without an end its sender, or the connection, is gone.
        let Ok(next) = next else { return false };
        if number == shape.count || next != part(&body, number, shape.len) {
            eprintln!(
                "part {number} of {} is not what was sent: {} bytes",
                shape.count,
                next.len()
            );
            return false;
        }
        number += 1;
    }
    if number != shape.count {
        eprintln!("{number} parts of {} came before the end", shape.count);
    }
    number == shape.count
}

/// Number and size of the parts of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    count: usize,
    len: usize,
}

impl Shape {
    /// Bytes of a shape at the end of a one-way.
    const BYTES: usize = 16;

    pub(crate) fn random(plan: &Plan, rng: &mut Rng) -> Self {
        Self { count: plan.count(rng.usize(..60)), len: plan.size(rng.usize(..2000)) }
    }

    /// `body`, followed by the shape.
    pub(crate) fn described(self, body: &[u8]) -> Vec<u8> {
        let numbers = [self.count, self.len].map(|number| (number as u64).to_le_bytes());
        [body, numbers.as_flattened()].concat()
    }

    fn of(body: &[u8]) -> Option<Self> {
        let numbers = body.last_chunk::<{ Self::BYTES }>()?.as_chunks().0;
        let number = |at: usize| usize::try_from(u64::from_le_bytes(numbers[at])).ok();
        Some(Self { count: number(0)?, len: number(1)? })
    }

    pub(crate) fn send(self, mut sender: PartSender, body: &[u8]) -> Result<(), StreamError> {
        for number in 0..self.count {
            sender.send(part(body, number, self.len))?;
        }
        sender.finish()
    }

    /// Sends all parts, and takes those of the reply, which have to be the same.
    pub(crate) fn exchange(
        self,
        call: StreamCall,
        body: &[u8],
        board: &Board,
    ) -> Result<(), CallError> {
        let (sender, mut parts) = call.split();
        thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(sender, body));
            let mut received = 0;
            for next in parts.by_ref() {
                if next? != part(body, received, self.len) {
                    board.violation(format!("part {received} of a reply is not what was sent"));
                }
                received += 1;
            }
            let reply = parts.reply()?;
            let sent = sending.join();
            if received != self.count
                || reply != self.count.to_string()
                || !matches!(sent, Ok(Ok(())))
            {
                board.violation(format!(
                    "{received} of {} parts came back, the reply is {reply:?}, and sending ended with {sent:?}",
                    self.count
                ));
            }
            Ok(())
        })
    }
}

impl Load<'_> {
    /// A stream in both directions, taken to its end, or dropped or ended early.
    pub(crate) fn stream(&self, rng: &mut Rng, body: &[u8]) {
        let (count, len) = (self.plan.count(rng.usize(1..200)), rng.usize(..3000));
        let len = self.plan.size(len);
        let taken = if rng.u32(..3) == 0 { rng.usize(..=count) } else { usize::MAX };
        let is_dropped = rng.bool();
        let started = self.connection.request("parts", body).timeout(LONG).stream();
        self.tally.begun.fetch_add(1, Ordering::SeqCst);
        let outcome = started.and_then(|call| {
            let (mut sender, mut parts) = call.split();
            thread::scope(|scope| {
                let sending = scope.spawn(move || {
                    for number in 0..count {
                        sender.send(part(body, number, len))?;
                    }
                    sender.finish()
                });
                let mut received = 0;
                while received < taken
                    && let Some(next) = parts.next()
                {
                    let next = next?;
                    if next != part(body, received, len) {
                        self.board.violation(format!(
                            "part {received} of a reply has {} bytes that are not its own",
                            next.len()
                        ));
                    }
                    received += 1;
                }
                if received == taken {
                    if is_dropped {
                        self.tally.given_up.fetch_add(1, Ordering::SeqCst);
                        drop(parts);
                        return Ok(());
                    }
                    parts.enough("that is enough");
                    return match parts.reply() {
                        Err(CallError::Remote { message, .. }) if message.contains("enough") => {
                            Ok(())
                        }
                        other => other.map(drop),
                    };
                }
                let reply = parts.reply()?;
                let sent = sending.join();
                if received != count || reply != count.to_string() || !matches!(sent, Ok(Ok(()))) {
                    self.board.violation(format!(
                        "{received} of {count} parts came back, the reply is {reply:?}, and sending ended with {sent:?}"
                    ));
                }
                Ok(())
            })
        });
        self.tally.ended.fetch_add(1, Ordering::SeqCst);
        match outcome {
            Ok(()) => {}
            Err(CallError::Closed { .. } | CallError::Remote { .. }) if self.plan.breaks() => {}
            Err(error) => {
                self.board
                    .violation(format!("a stream of the {} ended with \"{error}\"", self.side));
            }
        }
    }

    /// A stream behind a one-way.
    pub(crate) fn one_way_stream(&self, rng: &mut Rng, body: &[u8]) {
        let count = self.plan.count(rng.usize(..200));
        let len = body.len() - TOKEN;
        let sent = match self.connection.notify_stream("gather", body) {
            Ok(mut sender) => (0..count)
                .try_for_each(|number| sender.send(part(body, number, len)))
                .and_then(|()| sender.finish())
                .map_err(|error: StreamError| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match sent {
            Ok(()) => drop(self.tally.notes.fetch_add(1, Ordering::SeqCst)),
            Err(_) if self.plan.breaks() => {}
            Err(error) => self
                .board
                .violation(format!("a one-way stream of the {} failed: {error}", self.side)),
        }
    }
}
