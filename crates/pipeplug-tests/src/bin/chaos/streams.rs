//! Streams of both kinds: the work of a side, and the answers.

use std::sync::atomic::Ordering;
use std::thread;

use fastrand::Rng;
use pipeplug_host::{CallError, HandlerError, Reply, Request, StreamError};

use crate::answer::{Board, TOKEN, payload};
use crate::load::{LONG, Load};

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
        let mut reply = request.reply_parts()?;
        let mut count = 0_usize;
        for part in request.parts() {
            reply.send(part?)?;
            count += 1;
        }
        return Ok(count.to_string().into());
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
