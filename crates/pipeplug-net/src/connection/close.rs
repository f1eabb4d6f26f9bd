//! Ends a connection: why, in which order, and who waits for it.
//!
//! The order of an end is:
//!
//! 1. A cause: the end of the file, a failed read or write, a broken chunk, or
//!    [`Shared::end_after_reading`].
//! 2. The leader reads what lies in the pipe, and nothing more is read
//!    ([`Shared::reading_stopped`]).
//! 3. Open calls fail, cancellations are set, and `Handler::ended` is called
//!    ([`Shared::reading_ended`]).
//! 4. Handlers that still run return, and their responses are written.
//! 5. `Handler::closed` is called, and those who wait for the end are woken
//!    ([`Shared::finish_if_idle`]).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::call::CallOutcome;
use super::read::leader::ReaderRole;
use super::read::{ReadOutcome, ReadUntil, Reader, ReaderKind};
use super::shared::{DeferredGuard, Shared};
use crate::clock::has_passed;
use crate::error::CloseReason;
use crate::postmortem::{self, ChunkHead, OpenCall, Postmortem};
use crate::sync::clock::coarse_now;
use crate::sync::lock::{lock, wait_until};
use crate::sync::{
    Condvar, Instant, Mutex,
    atomic::{AtomicBool, Ordering},
};

/// State of a connection's end.
pub(crate) struct Close {
    // The reason is stored before the flag: a leader that sees `is_ending` finds the reason. The
    // flag alone is looked at in the loops of the leaders, which take no lock for it.
    /// Reason for which the connection is to end. The leader ends it.
    ending: Mutex<Option<Arc<CloseReason>>>,
    is_ending: AtomicBool,
    /// Reason that says only that the peer is gone, while a better one is waited for; see
    /// [`Options::reason_timeout`](crate::Options::reason_timeout).
    lost: Mutex<Option<Arc<CloseReason>>>,
    /// Reason that nothing is read any more.
    ended: OnceLock<Arc<CloseReason>>,
    opened: Duration,
    /// Headers of the last chunks that came, once no more come.
    received: OnceLock<Vec<ChunkHead>>,
    postmortem: OnceLock<Arc<Postmortem>>,
    phase: Mutex<ClosePhase>,
    phase_changed: Condvar,
    /// True once a thread has waited for the connection to be idle.
    is_awaited: AtomicBool,
    /// True once the peer has sent `cmd.stop`.
    is_stopped: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClosePhase {
    Open,
    /// `Handler::closed` is being called.
    Notifying,
    Done,
}

impl Close {
    pub(crate) fn new() -> Self {
        Self {
            ending: Mutex::new(None),
            is_ending: AtomicBool::new(false),
            lost: Mutex::new(None),
            ended: OnceLock::new(),
            opened: coarse_now(),
            received: OnceLock::new(),
            postmortem: OnceLock::new(),
            phase: Mutex::new(ClosePhase::Open),
            phase_changed: Condvar::new(),
            is_awaited: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// Returns true once the connection is to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Reason that nothing is read any more, once that is so.
    pub(crate) fn ended(&self) -> Option<&Arc<CloseReason>> {
        self.ended.get()
    }

    /// Notes a `cmd.stop`. Returns true for the first one.
    pub(crate) fn stop(&self) -> bool {
        !self.is_stopped.swap(true, Ordering::SeqCst)
    }

    /// Reason that the connection has ended, or is about to end.
    pub(crate) fn reason(&self) -> Arc<CloseReason> {
        let ended = self.ended.get().cloned().or_else(|| lock(&self.ending).clone());
        ended.unwrap_or_else(|| Arc::new(CloseReason::Local))
    }

    /// Reason that the connection has ended, which says more than `reason`: that this side closed
    /// its writer afterwards.
    pub(crate) fn reason_or(&self, reason: Arc<CloseReason>) -> Arc<CloseReason> {
        self.ended.get().cloned().unwrap_or(reason)
    }

    /// Postmortem of the connection. Empty before its end.
    pub(crate) fn postmortem(&self) -> Arc<Postmortem> {
        self.postmortem.get().cloned().unwrap_or_default()
    }

    /// Waits until nothing is read any more.
    pub(crate) fn wait_ended(&self, deadline: Option<Instant>) -> Option<Arc<CloseReason>> {
        let mut phase = lock(&self.phase);
        loop {
            if let Some(reason) = self.ended.get() {
                return Some(Arc::clone(reason));
            }
            if deadline.is_some_and(has_passed) {
                return None;
            }
            phase = wait_until(&self.phase_changed, phase, deadline);
        }
    }

    /// Waits until the connection has ended and every handler has returned.
    pub(crate) fn wait_finished(&self, deadline: Option<Instant>) -> Option<Arc<CloseReason>> {
        let mut phase = lock(&self.phase);
        while *phase != ClosePhase::Done {
            if deadline.is_some_and(has_passed) {
                return None;
            }
            phase = wait_until(&self.phase_changed, phase, deadline);
        }
        self.ended.get().cloned()
    }

    /// Waits until `is_idle` returns true. It is called again after each
    /// [`Close::idle_may_have_changed`].
    pub(crate) fn wait_idle(&self, deadline: Option<Instant>, is_idle: impl Fn() -> bool) -> bool {
        let mut phase = lock(&self.phase);
        // Before the first look. A thread that makes the connection idle changes the queue first
        // and reads this flag then: either it sees the flag, or the look below sees its change. The
        // lock of `phase` is held from here to the wait, and `notify` takes it, so that no
        // notification falls in between.
        self.is_awaited.store(true, Ordering::SeqCst);
        while !is_idle() {
            if deadline.is_some_and(has_passed) {
                return false;
            }
            phase = wait_until(&self.phase_changed, phase, deadline);
        }
        true
    }

    /// Has [`Close::wait_idle`] look again.
    pub(crate) fn idle_may_have_changed(&self) {
        if self.is_awaited.load(Ordering::SeqCst) {
            self.notify();
        }
    }

    fn notify(&self) {
        // A thread that has looked before sleeps once this lock was taken, and is woken.
        drop(lock(&self.phase));
        self.phase_changed.notify_all();
    }

    /// Notes the reason to end. The owner's reason replaces one that says only that the peer is
    /// gone.
    fn ask(&self, reason: CloseReason) {
        let mut ending = lock(&self.ending);
        let is_owners = matches!(reason, CloseReason::Ended(_));
        if ending.as_deref().is_none_or(|earlier| is_owners && is_loss(earlier)) {
            *ending = Some(Arc::new(reason));
        }
    }

    fn asked(&self) -> Option<Arc<CloseReason>> {
        lock(&self.ending).clone()
    }

    /// Begins the last phase. Returns false if it has begun already.
    fn begin_notifying(&self) -> bool {
        let mut phase = lock(&self.phase);
        let begins = *phase == ClosePhase::Open;
        if begins {
            *phase = ClosePhase::Notifying;
        }
        begins
    }
}

impl Shared {
    /// Ends the connection for `reason`, after what lies in the pipe has been read.
    pub(crate) fn end_after_reading(self: &Arc<Self>, reason: CloseReason) {
        let is_owners = matches!(reason, CloseReason::Ended(_));
        self.close.ask(reason);
        // After `ask`. The end sets `ended` first and looks for a reason that was asked for then
        // (`reading_ended`), so that one of the two drops the queue.
        if let Some(ended) = self.close.ended() {
            // Nothing is read any more, so no leader comes to end it: what could not be written is
            // dropped here.
            self.writer.end(ended);
            return self.finish_if_idle();
        }
        self.close.is_ending.store(true, Ordering::SeqCst);
        self.leader.wake();
        self.end_if_asked();
        if is_owners {
            self.end_lost();
        }
    }

    /// Ends a connection that was kept open only for a better reason.
    fn end_lost(self: &Arc<Self>) {
        let Some(reason) = lock(&self.close.lost).take() else { return };
        self.reading_ended(self.close.asked().unwrap_or(reason));
    }

    /// Ends the connection if it is to end and no thread reads. A thread that reads looks here when
    /// it gives the role up.
    pub(crate) fn end_if_asked(self: &Arc<Self>) {
        const FREE: [ReaderRole; 3] =
            [ReaderRole::EventLoop, ReaderRole::Suspended, ReaderRole::Vacant];
        // The role may move from one of these to another between two attempts, so that all of them
        // fail. It is not overlooked then: the thread that moves it looks for `is_ending`
        // afterwards, in `return_role_to_loop`, `leave_between_calls` or `suspend`, or, as the
        // dedicated reader, once it has taken the role back. This thread has set the flag before.
        // Of two threads that come here at once, one takes the role.
        if !self.close.is_ending() || !FREE.into_iter().any(|from| self.leader.take(from)) {
            return;
        }
        let mut reader = lock(&self.leader.reader);
        if self.read(&mut reader, ReadUntil::Empty, ReaderKind::Other) != ReadOutcome::Ended {
            self.reading_stopped(&mut reader, CloseReason::Local);
        }
    }

    /// Stops reading for good. Called by the leader.
    pub(crate) fn reading_stopped(self: &Arc<Self>, reader: &mut Reader, reason: CloseReason) {
        // First: no thread takes the role from here on, and the dedicated reader learns of it. The
        // descriptor itself is closed with its last holder, after it has left the loop.
        self.leader.end();
        reader.stream = None;
        // Set once: nothing is read any more.
        let _ = self.close.received.set(reader.recent.heads());
        self.leader.deregister();
        let reason = match (reason, self.close.asked()) {
            // The reason that this side noted first says more than the end of the file that
            // followed.
            (CloseReason::EndOfFile | CloseReason::Local, Some(asked)) => asked,
            (reason, _) => Arc::new(reason),
        };
        let timeout = self.options.reason_timeout;
        if timeout.is_zero() || !is_loss(&reason) {
            return self.reading_ended(reason);
        }
        // Stored before the look at `asked`: an owner that gives its reason notes it first and
        // takes `lost` then. One of the two calls `end_lost`, and only the one that takes the
        // reason out goes on.
        *lock(&self.close.lost) = Some(reason);
        if self.close.asked().is_some_and(|asked| !is_loss(&asked)) {
            return self.end_lost(); // a better reason came in between
        }
        let shared = Arc::clone(self);
        self.events.after(timeout, move || shared.end_lost());
    }

    /// Fails open calls with `reason`, and tells the handler that nothing comes any more.
    fn reading_ended(self: &Arc<Self>, reason: Arc<CloseReason>) {
        // Before `ended` is set: calls fail with both from then on.
        let postmortem = Arc::new(self.examine());
        // Counted as a deferred answer, so that `closed` is called after `ended`. Before the lines
        // below: a handler that returns after them may be the last one.
        self.defer();
        let postmortem = Arc::clone(self.close.postmortem.get_or_init(|| postmortem));
        let reason = Arc::clone(self.close.ended.get_or_init(|| reason));
        // After the line above: a thread whose write fails notes its reason first, and then looks
        // whether the connection has ended.
        let flush = matches!(*reason, CloseReason::EndOfFile) && self.close.asked().is_none();
        if let Some(tap) = &self.writer.tap {
            tap.ended(&reason);
        }
        tracing::debug!(peer = %self.options.name, %reason, "the connection has ended");
        self.close.notify();
        if flush {
            self.writer.reading_ended(&reason);
        } else {
            self.writer.end(&reason);
        }
        // After `ended` was set: a call that is refused because the table is closed finds the
        // reason.
        let open = lock(&self.calls).close();
        for (_, slot) in open {
            slot.complete(CallOutcome::Closed(Arc::clone(&reason), Arc::clone(&postmortem)));
        }
        self.close_streams(&reason, &postmortem);
        self.close_progress();
        // After `ended`, too: a handler that asks for its token later looks at `ended`
        // (`Cancellation::new`).
        self.cancel_all();
        let shared = Arc::clone(self);
        self.events.spawn(move || {
            let done = DeferredGuard(shared);
            done.0.handler.ended(&reason);
        });
    }

    /// Writes the rest and calls `Handler::closed`, once nothing is read and no handler runs any
    /// more.
    pub(crate) fn finish_if_idle(self: &Arc<Self>) {
        self.close.idle_may_have_changed();
        let Some(reason) = self.close.ended() else { return };
        // Several threads may find the connection idle at once, and one begins the last phase. Idle
        // stays idle: nothing is read any more, and each handler, deferred answer and call of
        // `ended` was counted before `ended` was set.
        if !self.is_idle() || !self.close.begin_notifying() {
            return;
        }
        if let Err(error) = self.writer.close_after_flush() {
            let error = Arc::new(error);
            tracing::debug!(peer = %self.options.name, %error, "the last answers could not be written");
            self.writer.end(&error);
        }
        let shared = Arc::clone(self);
        let reason = Arc::clone(reason);
        self.events.spawn(move || {
            // A guard: a panic of the handler must not leave others waiting.
            let finished = FinishGuard(Arc::clone(&shared));
            shared.handler.closed(&reason, shared.connection().as_ref());
            drop(finished);
        });
    }

    /// Accepts no further calls. What is queued is still written, and then the peer sees the end of
    /// the file.
    pub(crate) fn close_writer(self: &Arc<Self>) {
        if let Err(reason) = self.writer.close_after_flush() {
            self.end_after_reading(reason);
        }
    }

    /// Waits until no request or one-way is queued or being handled.
    pub(crate) fn wait_idle(&self, deadline: Option<Instant>) -> bool {
        self.close.wait_idle(deadline, || self.is_idle())
    }

    fn examine(&self) -> Postmortem {
        let now = coarse_now();
        let calls = lock(&self.calls);
        let mut open: Vec<_> = calls.iter().map(|(id, slot)| (id, Arc::clone(slot))).collect();
        drop(calls);
        let open_count = open.len();
        if open_count > postmortem::CALLS {
            open.select_nth_unstable_by_key(postmortem::CALLS, |(id, _)| *id);
            open.truncate(postmortem::CALLS);
        }
        open.sort_unstable_by_key(|(id, _)| *id);
        let open_calls = open.into_iter().map(|(thread_id, slot)| OpenCall {
            thread_id,
            command: slot.command.to_string(),
            age: now.saturating_sub(slot.begun),
        });
        let explain = std::panic::AssertUnwindSafe(|| self.handler.explain());
        Postmortem {
            lasted: now.saturating_sub(self.close.opened),
            open_calls: open_calls.collect(),
            open_count,
            received: self.close.received.get().cloned().unwrap_or_default(),
            sent: self.writer.recent(),
            owner: std::panic::catch_unwind(explain).unwrap_or_default(),
        }
    }
}

/// Marks the end of a connection when it is dropped.
struct FinishGuard(Arc<Shared>);

impl Drop for FinishGuard {
    fn drop(&mut self) {
        *lock(&self.0.close.phase) = ClosePhase::Done;
        self.0.close.phase_changed.notify_all();
    }
}

/// Returns true if `reason` says only that the peer is gone.
fn is_loss(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::EndOfFile | CloseReason::WriteFailed(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_reason_replaces_one_that_says_only_that_the_peer_is_gone() {
        let close = Close::new();
        close.ask(CloseReason::EndOfFile);
        close.ask(CloseReason::Local);
        assert!(matches!(*close.reason(), CloseReason::EndOfFile), "the first reason stays");
        close.ask(CloseReason::Ended("it crashed".into()));
        close.ask(CloseReason::Ended("it was stopped".into()));
        assert_eq!(close.reason().to_string(), "it crashed");
    }

    #[test]
    fn the_last_phase_begins_once() {
        let close = Close::new();
        assert!(close.begin_notifying());
        assert!(!close.begin_notifying());
        assert!(close.wait_finished(Some(Instant::now())).is_none());
    }

    #[test]
    fn the_first_stop_counts() {
        let close = Close::new();
        assert!(close.stop());
        assert!(!close.stop());
    }
}
