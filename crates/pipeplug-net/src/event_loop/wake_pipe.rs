//! What wakes a thread that sleeps in poll(2) on a connection.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::sync::{
    atomic::{AtomicBool, Ordering},
    thread_local,
};

#[derive(Debug)]
pub(crate) struct Bell {
    reader: PipeReader,
    writer: PipeWriter,
    rung: AtomicBool,
}

thread_local! {
    /// One for each thread that ever slept as a reader.
    static BELL: std::cell::OnceCell<Arc<Bell>> = const { std::cell::OnceCell::new() };
}

impl Bell {
    pub(crate) fn of_this_thread() -> io::Result<Arc<Self>> {
        BELL.with(|cell| {
            if let Some(bell) = cell.get() {
                return Ok(Arc::clone(bell));
            }
            let (reader, writer) = io::pipe()?;
            Ok(Arc::clone(
                cell.get_or_init(|| Arc::new(Self { reader, writer, rung: AtomicBool::new(false) })),
            ))
        })
    }

    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) && (&self.writer).write_all(&[0]).is_err() {
            // The reader stands beside it and an empty pipe takes a byte.
            tracing::error!("a reading thread could not be woken");
        }
    }

    pub(crate) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::SeqCst)
    }

    pub(crate) fn silence(&self) {
        if self.rung.swap(false, Ordering::SeqCst) && (&self.reader).read_exact(&mut [0]).is_err() {
            tracing::error!("a bell could not be read");
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}
