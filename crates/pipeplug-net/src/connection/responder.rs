//! Answers that are given later than their handlers return.

use std::sync::Arc;

use pipeplug_wire::{ThreadId, command};

use super::cancellation::Cancellation;
use super::handler::Reply;
use super::shared::Shared;
use crate::sync::Instant;
use crate::sync::lock::lock;
use crate::writer::Flush;

/// The right to answer one request, once, from any thread.
///
/// Dropping it unanswered sends an error.
#[derive(Debug)]
#[must_use = "dropping a responder answers with an error"]
pub struct Responder {
    /// `None` once the answer is given.
    shared: Option<Arc<Shared>>,
    id: ThreadId,
    command: Box<str>,
    deadline: Option<Instant>,
}

impl Responder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ThreadId,
        command: Box<str>,
        deadline: Option<Instant>,
    ) -> Self {
        Self { shared: Some(shared), id, command, deadline }
    }

    /// Sends the reply. Does nothing if the connection has ended.
    ///
    /// # Blocking
    /// While more than [`Options::outgoing`](crate::Options) bytes wait to be written.
    pub fn answer(mut self, reply: impl Into<Reply>) {
        let command = std::mem::take(&mut self.command);
        self.send(&command, reply.into().0);
    }

    /// Sends an error with this message.
    ///
    /// # Blocking
    /// As for [`answer`](Responder::answer).
    pub fn fail(mut self, message: &str) {
        self.send(command::ERROR, message.as_bytes().to_vec());
    }

    /// Returns the cancellation, as [`Request::cancellation`] does.
    pub fn cancellation(&self) -> Cancellation {
        let shared = self.shared.as_ref().expect("giving the answer consumes the responder");
        let token = lock(&shared.serve_queue).active.token_of_later(self.id);
        Cancellation::new(shared, token, self.deadline)
    }

    /// Sends the reply as [`answer`](Responder::answer) does, and awaits that.
    ///
    /// # Cancellation
    /// If the future is dropped before it is ready, an error is sent in place of the reply.
    pub async fn answer_async(mut self, reply: impl Into<Reply> + Send) {
        let command = std::mem::take(&mut self.command);
        self.send_async(&command, reply.into().0).await;
    }

    /// Sends an error with this message as [`fail`](Responder::fail) does, and awaits that.
    pub async fn fail_async(mut self, message: &str) {
        self.send_async(command::ERROR, message.as_bytes().to_vec()).await;
    }

    async fn send_async(&mut self, command: &str, buffer: Vec<u8>) {
        if let Some(shared) = self.shared.clone() {
            shared.respond_async(self.id, command, buffer).await;
            self.shared = None;
            shared.answered_later(self.id);
        }
    }

    fn send(&mut self, command: &str, buffer: Vec<u8>) {
        if let Some(shared) = self.shared.take() {
            shared.respond(self.id, command, buffer, Flush::Now);
            shared.answered_later(self.id);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            // Without waiting for room: the thread may be one of a runtime.
            shared.respond_dropped(self.id, "the request was dropped without an answer");
            shared.answered_later(self.id);
        }
    }
}
