//! Giving calls up from elsewhere: from another thread, before or after they are sent.
//!
//! A handle holds what it can end. Of a call that is sent it is the call's slot, weakly: nothing
//! has to be undone when the call ends. A thread or task that waits before a call is sent leaves a
//! waker, and takes it back.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use pipeplug_wire::ThreadId;

use super::call::{CallOutcome, CallSlot};
use super::call_error::{CallError, Sent};
use super::shared::Shared;
use super::stream::CallStream;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::lock::{guarded, lock, renew};
use crate::writer::{SendClass, SendError, SendPermit};

/// Number of calls and streams below which a handle does not look for those that have ended.
const PRUNE_MIN: usize = 16;

/// Gives calls up from elsewhere, such as from a thread that waits for signals.
///
/// Make one before the call ([`RequestBuilder::cancel_by`](crate::RequestBuilder::cancel_by)), or
/// get that of a call or stream that is under way
/// ([`PendingCall::cancel_handle`](crate::PendingCall::cancel_handle),
/// [`ReplyParts::cancel_handle`](crate::ReplyParts::cancel_handle),
/// [`PartSender::cancel_handle`](crate::PartSender::cancel_handle)). Clones are the same handle. One
/// handle may be that of any number of calls, and stays cancelled.
///
/// ```
/// # use pipeplug_net::{CallError, CancelHandle, Connection};
/// # fn example(connection: &Connection) -> Result<(), CallError> {
/// let handle = CancelHandle::new();
/// let other = handle.clone();
/// std::thread::spawn(move || {
///     // The user wants no result any more.
///     other.cancel();
/// });
/// match connection.request("index", "all").cancel_by(&handle).wait() {
///     Err(CallError::Cancelled { .. }) => println!("given up"),
///     reply => println!("{:?}", reply?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct CancelHandle(Arc<CancelState>);

#[derive(Default)]
struct CancelState {
    is_cancelled: AtomicBool,
    attached: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    targets: Vec<CancelTarget>,
    /// Number of targets at which those that have ended are dropped.
    prune_at: usize,
    /// Threads and tasks that wait before their call is sent.
    waiters: BTreeMap<u64, Waker>,
    last_waiter: u64,
}

/// Something that is under way, and that a cancel ends.
pub(crate) enum CancelTarget {
    Call { shared: Weak<Shared>, id: ThreadId, slot: Weak<CallSlot> },
    Stream { shared: Weak<Shared>, stream: Weak<CallStream> },
}

impl CancelHandle {
    /// Makes a handle that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives up the calls and streams of this handle, those that are sent later too. A call ends
    /// with [`CallError::Cancelled`](crate::CallError::Cancelled), wherever it waits: to be sent,
    /// for the start or restart of a supervised plugin, or for its reply. An idempotent one is not
    /// made again. If both sides negotiated `cancel`, the other side's handler learns of it. Does
    /// nothing to a call that has ended.
    ///
    /// # Signals
    /// Not async-signal-safe: it takes locks and may write to the pipe. A handler installed with
    /// `sigaction` must not call it. Have a thread wait for the signal instead, as
    /// `signal_hook::iterator::Signals` or `tokio::signal` does, and call it there.
    ///
    /// # Blocking
    /// For no longer than a lock.
    pub fn cancel(&self) {
        let (targets, waiters) = {
            // Stored under the lock under which a target is attached and a waker is left: each of
            // them sees the flag, or is found here. Release is for `is_cancelled`, which looks
            // without the lock.
            let mut attached = lock(&self.0.attached);
            self.0.is_cancelled.store(true, Ordering::Release);
            (std::mem::take(&mut attached.targets), std::mem::take(&mut attached.waiters))
        };
        targets.iter().for_each(CancelTarget::cancel);
        for waker in waiters.into_values() {
            guarded("a waker", || waker.wake());
        }
    }

    /// Returns true once [`cancel`](CancelHandle::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Acquire)
    }

    /// Waits for the cancel, in addition to something else.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    #[must_use]
    pub fn watch(&self) -> CancelWatch<'_> {
        CancelWatch { handle: self, key: None }
    }

    /// Has a cancel end this. Ends it at once if the handle is cancelled.
    pub(crate) fn attach(&self, target: CancelTarget) {
        let mut attached = lock(&self.0.attached);
        // Relaxed: the lock orders it.
        if self.0.is_cancelled.load(Ordering::Relaxed) {
            drop(attached);
            return target.cancel();
        }
        if attached.targets.len() >= attached.prune_at {
            // Amortized: at least as many calls came since the last time as are looked at.
            attached.targets.retain(CancelTarget::is_alive);
            attached.prune_at = (attached.targets.len() * 2).max(PRUNE_MIN);
        }
        attached.targets.push(target);
    }

    /// Fails if the handle of a call is cancelled before the call is sent.
    pub(crate) fn check(handle: Option<&Self>, command: &str) -> Result<(), CallError> {
        match handle {
            Some(handle) if handle.is_cancelled() => {
                Err(CallError::Cancelled { command: command.to_owned(), sent: Sent::No })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns a new handle of this.
    pub(crate) fn of(target: CancelTarget) -> Self {
        let handle = Self::new();
        handle.attach(target);
        handle
    }
}

impl Shared {
    /// Waits until a request may be sent, or is given up.
    #[cold]
    pub(super) fn wait_to_send_request(
        self: &Arc<Self>,
        class: SendClass,
        cancel: Option<&CancelHandle>,
    ) -> Result<SendPermit<'_>, SendError> {
        let Some(cancel) = cancel else { return self.writer.wait_for_permit(class, &|| false) };
        let waker = Waker::from(Arc::new(WakeSenders(Arc::clone(self))));
        let mut watch = cancel.watch();
        if watch.poll(&waker) {
            return Err(SendError::GivenUp);
        }
        self.writer.wait_for_permit(class, &|| cancel.is_cancelled())
    }

    /// Gives a call up while a thread or task waits for it.
    pub(crate) fn cancel_call(self: &Arc<Self>, id: ThreadId, slot: &Arc<CallSlot>) {
        let is_open = {
            let mut calls = lock(&self.calls);
            calls.get(id).is_some_and(|open| Arc::ptr_eq(open, slot)) && calls.cancel(id).is_some()
        };
        if is_open {
            slot.complete(CallOutcome::Cancelled);
            self.give_up_own_stream(id);
            self.send_cancel(id);
            // The thread that waits for it may be the one that reads.
            self.leader.wake();
        }
    }
}

/// Has senders that wait look again when it is woken.
struct WakeSenders(Arc<Shared>);

impl Wake for WakeSenders {
    fn wake(self: Arc<Self>) {
        self.0.writer.wake_senders();
    }
}

impl std::fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelHandle").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

impl CancelTarget {
    fn is_alive(&self) -> bool {
        match self {
            Self::Call { slot, .. } => slot.strong_count() > 0,
            Self::Stream { stream, .. } => stream.strong_count() > 0,
        }
    }

    fn cancel(&self) {
        match self {
            Self::Call { shared, id, slot } => {
                if let (Some(shared), Some(slot)) = (shared.upgrade(), slot.upgrade()) {
                    shared.cancel_call(*id, &slot);
                }
            }
            Self::Stream { shared, stream } => {
                if let (Some(shared), Some(stream)) = (shared.upgrade(), stream.upgrade()) {
                    shared.cancel_stream(&stream);
                }
            }
        }
    }
}

/// Place of a thread or task among those that a cancel wakes.
#[doc(hidden)] // for pipeplug-host: see internal.rs
#[derive(Debug)]
pub struct CancelWatch<'a> {
    handle: &'a CancelHandle,
    key: Option<u64>,
}

impl CancelWatch<'_> {
    /// The handle that is watched.
    #[must_use]
    pub fn handle(&self) -> &CancelHandle {
        self.handle
    }

    /// Returns true if the handle is cancelled. Else a cancel wakes `waker`, which must not be
    /// polled under a lock that it takes.
    pub fn poll(&mut self, waker: &Waker) -> bool {
        let state = &self.handle.0;
        let mut attached = lock(&state.attached);
        if state.is_cancelled.load(Ordering::Relaxed) {
            return true;
        }
        let key = *self.key.get_or_insert_with(|| {
            attached.last_waiter += 1;
            attached.last_waiter
        });
        let earlier = match attached.waiters.get_mut(&key) {
            Some(kept) => renew(kept, waker),
            None => attached.waiters.insert(key, waker.clone()),
        };
        drop(attached);
        drop(earlier); // not under the lock: a waker's drop is code of the user
        false
    }
}

impl Drop for CancelWatch<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = lock(&self.handle.0.attached).waiters.remove(&key);
            drop(waker); // not under the lock: a waker's drop is code of the user
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(slot: &Arc<CallSlot>) -> CancelTarget {
        let (shared, slot) = (Weak::new(), Arc::downgrade(slot));
        CancelTarget::Call { shared, id: ThreadId::new(1), slot }
    }

    #[test]
    fn a_handle_of_many_calls_keeps_only_those_that_are_open() {
        let handle = CancelHandle::new();
        let open: Vec<_> = (0..10).map(|_| CallSlot::new("x", None, None)).collect();
        open.iter().for_each(|slot| handle.attach(call(slot)));
        for _ in 0..1000 {
            handle.attach(call(&CallSlot::new("x", None, None)));
            assert!(lock(&handle.0.attached).targets.len() <= 2 * PRUNE_MIN);
        }
        let attached = lock(&handle.0.attached);
        assert!(attached.targets.iter().filter(|target| target.is_alive()).count() >= 10);
    }

    #[test]
    fn a_watch_that_ends_leaves_nothing() {
        let handle = CancelHandle::new();
        let mut watch = handle.watch();
        assert!(!watch.poll(Waker::noop()) && !watch.poll(Waker::noop()));
        assert_eq!(lock(&handle.0.attached).waiters.len(), 1);
        drop(watch);
        assert!(lock(&handle.0.attached).waiters.is_empty());
        handle.clone().cancel();
        assert!(handle.watch().poll(Waker::noop()) && handle.is_cancelled());
    }
}
