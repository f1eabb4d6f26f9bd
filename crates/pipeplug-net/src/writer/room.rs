//! Waits for room without a thread: tasks, and waking them.

use std::task::Waker;

use super::queue::WriteQueue;
use super::{SendClass, SendError, SendPermit, WaitPolicy, Writer};
use crate::clock::{first_to_look_at, has_passed_at};
use crate::sync::Instant;
use crate::sync::lock::{guarded, lock, renew};

/// Place of a task among those that wait until they may send.
///
/// Its owner gives it back with [`Writer::end_wait`].
#[derive(Debug, Default)]
pub(crate) struct RoomWait {
    /// Number of the task, once it has waited. It keeps its place if it has to wait again.
    number: Option<u64>,
    begun: Option<Instant>,
    /// Waker that is not needed any more. Kept to be dropped outside the lock: its drop is code of
    /// the user.
    unneeded: Option<Waker>,
}

/// Result of asking for the permit to send.
pub(crate) enum PermitPoll<'a> {
    Granted(SendPermit<'a>),
    /// The task is woken when it may send. It looks again at this time in any case.
    Pending(Option<Instant>),
}

impl Writer {
    /// Returns the permit to send a chunk of this class, or has the task woken when it may ask
    /// again.
    pub(crate) fn poll_permit(
        &self,
        class: SendClass,
        wait: &mut RoomWait,
        waker: &Waker,
    ) -> Result<PermitPoll<'_>, SendError> {
        wait.unneeded = None;
        let mut queue = lock(&self.queue);
        if !self.must_wait(&queue, class)? {
            wait.unneeded = queue.take_waker(wait);
            return Ok(PermitPoll::Granted(SendPermit { writer: self, queue, class }));
        }
        let deadline = match class {
            SendClass::FlowControlled(policy) | SendClass::Uncounted(policy) => policy.deadline,
            SendClass::Part { deadline } => deadline,
            SendClass::Reply | SendClass::Admitted | SendClass::Control => {
                WaitPolicy::WAIT.deadline
            }
        };
        let now = Instant::now();
        if deadline.is_some_and(|deadline| has_passed_at(deadline, now)) {
            return Err(SendError::Late(queue.awaited_credit(class)));
        }
        let begun = *wait.begun.get_or_insert(now);
        let notice = self.log_missing_credit(&mut queue, class, begun);
        wait.unneeded = queue.keep_waker(wait, class, waker);
        Ok(PermitPoll::Pending(first_to_look_at(deadline, notice)))
    }

    /// Returns true if a part may be sent. Else `waker` is woken when it may.
    pub(crate) fn poll_room(&self, wait: &mut RoomWait, waker: &Waker) -> bool {
        // An error is that of the next attempt to send.
        !matches!(self.poll_permit(SendClass::Reply, wait, waker), Ok(PermitPoll::Pending(_)))
    }

    /// Ends a wait: its task is not woken any more.
    pub(crate) fn end_wait(&self, wait: &mut RoomWait) {
        if wait.number.is_some() {
            let waker = lock(&self.queue).take_waker(wait);
            drop(waker); // not under the lock: a waker's drop is code of the user
        }
    }

    /// Has senders that wait look again.
    pub(super) fn notify_room(&self, queue: &mut WriteQueue) {
        // All threads: some wait for the format, others for room or credit, and the one that a
        // single notification woke might be of another kind.
        self.room.notify_all();
        if queue.wakers.is_empty() {
            return;
        }
        // Only the tasks that may send now: there may be thousands that wait for credit, and each
        // write makes room.
        let wakers = std::mem::take(&mut queue.wakers);
        let (may_send, must_wait) = wakers
            .into_iter()
            .partition(|(_, (class, _))| !self.must_wait(queue, *class).unwrap_or(false));
        queue.wakers = must_wait;
        if !may_send.is_empty() {
            // Not here, under the lock: a waker is code of the user.
            self.events.spawn(move || {
                for (_, waker) in may_send.into_values() {
                    guarded("a waker", || waker.wake());
                }
            });
        }
    }
}

impl WriteQueue {
    /// Keeps the waker of a task that waits. Returns one that it replaces.
    fn keep_waker(
        &mut self,
        wait: &mut RoomWait,
        class: SendClass,
        waker: &Waker,
    ) -> Option<Waker> {
        let number = *wait.number.get_or_insert_with(|| {
            self.last_waker += 1;
            self.last_waker
        });
        match self.wakers.get_mut(&number) {
            Some((_, kept)) => renew(kept, waker),
            None => {
                self.wakers.insert(number, (class, waker.clone()));
                None
            }
        }
    }

    fn take_waker(&mut self, wait: &RoomWait) -> Option<Waker> {
        self.wakers.remove(&wait.number?).map(|(_, waker)| waker)
    }
}
