//! A call with a stream, before its halves are taken apart.

use std::any::Any;

use super::reply_parts::ReplyParts;
use super::send::PartSender;
use crate::connection::cancel_handle::CancelHandle;

/// A call whose request and reply have parts; see [`RequestBuilder::stream`](crate::RequestBuilder::stream).
#[derive(Debug)]
pub struct StreamCall {
    pub(in crate::connection) sender: PartSender,
    pub(in crate::connection) parts: ReplyParts,
}

impl StreamCall {
    pub(in crate::connection) fn new(sender: PartSender, parts: ReplyParts) -> Self {
        Self { sender, parts }
    }

    /// Keeps a value for as long as the parts of the reply are taken.
    #[doc(hidden)]
    pub fn keep(&mut self, value: impl Any + Send + Sync) {
        self.parts.keep(value);
    }

    /// Returns a handle with which another thread can give the call up; see
    /// [`ReplyParts::cancel_handle`].
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.parts.cancel_handle()
    }

    /// Returns the two halves, which different threads or tasks may use.
    #[must_use]
    pub fn split(self) -> (PartSender, ReplyParts) {
        (self.sender, self.parts)
    }
}
