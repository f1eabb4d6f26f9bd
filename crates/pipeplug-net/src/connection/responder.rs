//! Answers that are given later than their handlers return.

use std::sync::Arc;

use pipeplug_wire::ThreadId;

use super::cancellation::Cancellation;
use super::handler::Reply;
use super::progress::Reporter;
use super::shared::Shared;
use crate::protocol::failure::{Failure, failure_code};
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
    /// `None` if the caller does not want to know of progress.
    reporter: Option<Arc<Reporter>>,
}

impl Responder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        id: ThreadId,
        command: Box<str>,
        deadline: Option<Instant>,
        reporter: Option<Arc<Reporter>>,
    ) -> Self {
        Self { shared: Some(shared), id, command, deadline, reporter }
    }

    /// Sends the reply. Does nothing if the connection has ended.
    ///
    /// # Blocking
    /// While more than [`Options::outgoing`](crate::Options) bytes wait to be written.
    pub fn answer(mut self, reply: impl Into<Reply>) {
        let command = std::mem::take(&mut self.command);
        self.tell_ignored();
        self.send(&command, reply.into().0);
    }

    /// Sends an error with this message.
    ///
    /// # Blocking
    /// As for [`answer`](Responder::answer).
    pub fn fail(self, message: &str) {
        self.fail_with(&Failure::plain(message.to_owned()));
    }

    /// Sends an error with a code, and data if it has some.
    ///
    /// # Blocking
    /// As for [`answer`](Responder::answer).
    pub fn fail_with(mut self, failure: &Failure) {
        if let Some(shared) = &self.shared {
            let (command, buffer) = shared.failure_chunk(failure);
            self.send(command, buffer);
        }
    }

    /// Reports progress, as [`Request::progress`](crate::Request::progress) does.
    ///
    /// # Blocking
    /// Never.
    pub fn progress(&self, done: u64, total: Option<u64>, message: &str) {
        if let Some(reporter) = &self.reporter {
            reporter.report(done, total, message);
        }
    }

    /// Returns the cancellation, as [`Request::cancellation`](crate::Request::cancellation) does.
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
        self.tell_ignored();
        self.send_async(&command, reply.into().0).await;
    }

    /// Sends an error with this message as [`fail`](Responder::fail) does, and awaits that.
    pub async fn fail_async(self, message: &str) {
        self.fail_with_async(&Failure::plain(message.to_owned())).await;
    }

    /// Sends an error as [`fail_with`](Responder::fail_with) does, and awaits that.
    pub async fn fail_with_async(mut self, failure: &Failure) {
        if let Some(shared) = &self.shared {
            let (command, buffer) = shared.failure_chunk(failure);
            self.send_async(command, buffer).await;
        }
    }

    /// Tells the caller of a stream that was ignored, before the answer.
    fn tell_ignored(&self) {
        if let Some(shared) = &self.shared {
            shared.tell_ignored(self.id);
        }
    }

    /// Sends the last report of progress, before the answer.
    fn end_progress(&self) {
        if let Some(reporter) = &self.reporter {
            reporter.close();
        }
    }

    async fn send_async(&mut self, command: &str, buffer: Vec<u8>) {
        if let Some(shared) = self.shared.clone() {
            self.end_progress();
            shared.respond_async(self.id, command, buffer).await;
            self.shared = None;
            shared.answered_later(self.id);
        }
    }

    fn send(&mut self, command: &str, buffer: Vec<u8>) {
        if let Some(shared) = self.shared.take() {
            self.end_progress();
            shared.respond(self.id, command, buffer, Flush::Now);
            shared.answered_later(self.id);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            self.end_progress();
            let message = "the request was dropped without an answer";
            let failure = Failure::new(failure_code::UNANSWERED, message);
            // Without waiting for room: the thread may be one of a runtime.
            shared.respond_dropped(self.id, &failure);
            shared.answered_later(self.id);
        }
    }
}
