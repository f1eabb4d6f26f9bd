//! Descriptors that the loop watches for other code than connections.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use mio::{Interest, Token};

use crate::event_loop::{EventLoop, Ready, Registration, Source};
use crate::sync::Mutex;
use crate::sync::lock::{guarded, lock};

impl EventLoop {
    /// Calls `ready` on the loop's thread each time that `fd` becomes readable, until it returns
    /// [`Watch::End`].
    ///
    /// `ready` must not block. It reads until nothing is left, or leaves the rest for
    /// [`Watcher::look_again`].
    ///
    /// # Errors
    /// The descriptor cannot be watched.
    #[doc(hidden)] // for pipeplug-host: see internal.rs
    pub fn watch(
        &self,
        fd: impl AsFd + Send + 'static,
        ready: impl FnMut(BorrowedFd<'_>) -> Watch + Send + 'static,
    ) -> io::Result<Watcher> {
        let watched = Arc::new(Watched { inner: Mutex::new(None) });
        // Held until the value is complete: an event that comes at once waits for it.
        let mut inner = lock(&watched.inner);
        let registration = self.register(fd.as_fd(), Interest::READABLE, watched.clone())?;
        let watcher = Watcher { events: self.clone(), token: registration.token };
        *inner = Some(WatchedInner { fd: Box::new(fd), registration, ready: Box::new(ready) });
        drop(inner);
        Ok(watcher)
    }
}

/// Result of a call-back: continue to watch the descriptor, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Call again when it is readable next.
    Continue,
    /// Close it.
    End,
}

/// Handle of a watched descriptor.
#[derive(Debug, Clone)]
pub struct Watcher {
    events: EventLoop,
    token: Token,
}

impl Watcher {
    /// Has the loop call the call-back again, for what it left unread. Does nothing after
    /// [`Watch::End`].
    pub fn look_again(&self) {
        self.events.mark_ready(self.token, Ready::Readable);
    }
}

struct Watched {
    inner: Mutex<Option<WatchedInner>>,
}

struct WatchedInner {
    fd: Box<dyn AsFd + Send>,
    registration: Registration,
    ready: Box<dyn FnMut(BorrowedFd<'_>) -> Watch + Send>,
}

impl Source for Watched {
    fn ready(self: Arc<Self>, _what: Ready) {
        // Held during the call-back, which runs on one thread, that of the loop. `look_again` does
        // not take it, so the call-back may call that.
        let mut inner = lock(&self.inner);
        let Some(watched) = inner.as_mut() else { return };
        // A call-back that panics is not called again.
        let mut watch = Watch::End;
        guarded("the call-back of a watched descriptor", || {
            watch = (watched.ready)(watched.fd.as_fd())
        });
        if watch == Watch::End
            && let Some(watched) = inner.take()
        {
            watched.registration.remove(watched.fd.as_fd());
        }
    }
}
