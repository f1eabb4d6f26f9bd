//! Self-pipe that wakes a thread which sleeps in poll(2) on a connection.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::sync::{
    atomic::{AtomicBool, Ordering},
    thread_local,
};

#[derive(Debug)]
pub(crate) struct WakePipe {
    reader: PipeReader,
    writer: PipeWriter,
    woken: AtomicBool,
}

thread_local! {
    /// Wake pipe of a thread that has slept as a reader.
    static WAKE_PIPE: std::cell::OnceCell<Arc<WakePipe>> = const { std::cell::OnceCell::new() };
}

impl WakePipe {
    /// Returns the wake pipe of this thread, and creates it at the first call.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub(crate) fn of_this_thread() -> io::Result<Arc<Self>> {
        WAKE_PIPE.with(|cell| {
            if let Some(wake_pipe) = cell.get() {
                return Ok(Arc::clone(wake_pipe));
            }
            let (reader, writer) = io::pipe()?;
            Ok(Arc::clone(
                cell.get_or_init(|| {
                    Arc::new(Self { reader, writer, woken: AtomicBool::new(false) })
                }),
            ))
        })
    }

    /// Makes the pipe readable. Further calls do nothing until it is cleared.
    pub(crate) fn wake(&self) {
        // The swap lets one thread write, so that the pipe holds one byte at most and the write
        // cannot block.
        if !self.woken.swap(true, Ordering::SeqCst) && (&self.writer).write_all(&[0]).is_err() {
            // Cannot happen: the reading end is open, and an empty pipe takes a byte.
            tracing::error!("a reading thread could not be woken");
        }
    }

    /// Returns true from a wake-up until it is cleared.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    /// Takes a wake-up back, if there was one. The usual case is one load.
    #[inline]
    pub(crate) fn clear_if_woken(&self) {
        if self.is_woken() {
            self.clear();
        }
    }

    /// Takes the wake-up back. Called by the thread that sleeps.
    pub(crate) fn clear(&self) {
        // Where the flag was set, its byte is in the pipe, or the thread that set it is about to
        // write it: the read waits for that one.
        if self.woken.swap(false, Ordering::SeqCst) && (&self.reader).read_exact(&mut [0]).is_err()
        {
            tracing::error!("a wake pipe could not be read");
        }
    }
}

impl AsFd for WakePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
