//! Many small parts at a time: one look at each lock for all of them.

use pipeplug_wire::{Header, command};

use super::error::StreamError;
use super::part::Part;
use super::receive::Parts;
use super::reply_parts::ReplyParts;
use super::send::PartSender;
use crate::connection::call_error::CallError;

/// Size up to which parts are sent together, in bytes.
const SMALL: usize = 4096;
/// Bytes that are sent together: about what is written at a time.
const TOGETHER: usize = 32 << 10;

impl PartSender {
    /// Sends parts in this order. For many small ones this takes less time than
    /// [`send`](PartSender::send) for each.
    ///
    /// # Errors
    /// As for [`send`](PartSender::send). Some of the parts may have been sent.
    ///
    /// # Blocking
    /// As for [`send`](PartSender::send).
    pub fn send_batch<T: AsRef<[u8]>>(&mut self, parts: &[T]) -> Result<(), StreamError> {
        let key = self.stream.key;
        let header = Header {
            thread_id: key.id,
            direction: key.direction(),
            command: command::PART,
            buffer_len: 0,
        };
        let mut together: Vec<&[u8]> = Vec::with_capacity(parts.len().min(TOGETHER / 64));
        let mut parts = parts.iter().map(AsRef::as_ref).peekable();
        while let Some(part) = parts.peek() {
            if part.len() > SMALL {
                self.send(*part)?;
                parts.next();
                continue;
            }
            let mut bytes = 0;
            while let Some(part) = parts.next_if(|part| part.len() <= SMALL && bytes < TOGETHER) {
                bytes += part.len() + SMALL / 64;
                together.push(part);
            }
            let mut rest = together.as_slice();
            while !rest.is_empty() {
                let count = self.reserve_many(rest)?;
                if count == 0 {
                    self.wait_for_credit();
                    continue;
                }
                let (now, later) = rest.split_at(count);
                self.shared
                    .send_parts(&header, now, self.deadline, &|| self.stream.is_sending_over())
                    .map_err(|error| self.failed(error))?;
                rest = later;
            }
            together.clear();
        }
        Ok(())
    }
}

impl Parts {
    /// Takes all parts that have come, at least one. `None` at the end.
    ///
    /// # Errors
    /// As for `next`. The parts before the error were returned before.
    ///
    /// # Blocking
    /// As for `next`.
    pub fn next_batch(&mut self) -> Option<Result<Vec<Part>, StreamError>> {
        let first = match self.next()? {
            Ok(part) => part,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(self.with_those_here(first)))
    }
}

impl ReplyParts {
    /// Takes all parts that have come, at least one. `None` at the end.
    ///
    /// # Errors
    /// As for `next`. The parts before the error were returned before.
    ///
    /// # Blocking
    /// As for `next`.
    pub fn next_batch(&mut self) -> Option<Result<Vec<Part>, CallError>> {
        let first = match self.next()? {
            Ok(part) => part,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(self.with_those_here(first)))
    }
}
