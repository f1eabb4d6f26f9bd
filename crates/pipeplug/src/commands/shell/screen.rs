//! Text above the prompt while a line is edited.

use std::io::{self, IsTerminal as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustyline::ExternalPrinter;

use crate::output::stream::{self, Kind, Prompt, Stream};

/// Size of the text that may wait for the editor, in bytes. More waits with its writer.
const MOST_WAITING: usize = 1 << 20;
/// Time for the editor to show a text that it has got, when the line has ended.
const HANDOVER: Duration = Duration::from_millis(20);

/// The terminal, which the line editor and everything else write to.
pub(super) struct Screen {
    state: Mutex<State>,
    changed: Condvar,
    stdout_is_here: bool,
    stderr_is_here: bool,
}

#[derive(Default)]
struct State {
    is_reading: bool,
    /// Text that waits for the editor.
    waiting: String,
    /// True while the editor has a text to show.
    is_printing: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            stdout_is_here: io::stdout().is_terminal(),
            stderr_is_here: io::stderr().is_terminal(),
        }
    }

    /// Has the editor show what is written while it reads a line.
    ///
    /// # Blocking
    /// For ever: it is for a thread of its own. The editor takes one text at a time, and the last one
    /// of a line perhaps not before the next line; no writer may wait for that, since the next line may
    /// be read only when that writer has gone on.
    pub(super) fn print(&self, mut printer: impl ExternalPrinter) {
        loop {
            let is_idle = |state: &mut State| !state.is_reading || state.waiting.is_empty();
            let waited = self.changed.wait_while(self.state(), is_idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let text = std::mem::take(&mut state.waiting);
            state.is_printing = true;
            self.changed.notify_all();
            drop(state);
            // It fails only if the editor is gone.
            let _ = printer.print(text);
            self.state().is_printing = false;
            self.changed.notify_all();
        }
    }

    /// Reads a line with the editor.
    pub(super) fn while_reading<T>(&self, read: impl FnOnce() -> T) -> T {
        self.state().is_reading = true;
        self.changed.notify_all();
        let line = read();
        let is_printing = |state: &mut State| state.is_printing;
        let waited = self.changed.wait_timeout_while(self.state(), HANDOVER, is_printing);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let text = std::mem::take(&mut state.waiting);
        // Under the lock, before anything that is written later. A failed write to the terminal cannot
        // be reported there.
        let _ = stream::write_now(Stream::Stdout, Kind::Report, &[text.as_bytes()]);
        state.is_reading = false;
        self.changed.notify_all();
        line
    }

    /// True while a line is edited.
    pub(super) fn is_reading(&self) -> bool {
        self.state().is_reading
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Prompt for Screen {
    fn take(&self, stream: Stream, parts: &[&[u8]]) -> bool {
        let is_here = match stream {
            Stream::Stdout => self.stdout_is_here,
            Stream::Stderr => self.stderr_is_here,
        };
        if !is_here {
            return false;
        }
        let is_full = |state: &mut State| state.is_reading && state.waiting.len() > MOST_WAITING;
        let waited = self.changed.wait_while(self.state(), is_full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.is_reading {
            return false;
        }
        for part in parts {
            state.waiting.push_str(&String::from_utf8_lossy(part));
        }
        self.changed.notify_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};
    use std::thread;

    use super::*;

    struct Printer(Sender<String>);

    impl ExternalPrinter for Printer {
        fn print(&mut self, text: String) -> rustyline::Result<()> {
            self.0.send(text).unwrap();
            Ok(())
        }
    }

    #[test]
    fn text_goes_to_the_editor_while_it_reads_and_only_then() {
        let screen = Screen { stdout_is_here: true, stderr_is_here: false, ..Screen::new() };
        let screen = Arc::new(screen);
        let (sender, shown) = channel();
        let printing = Arc::clone(&screen);
        thread::spawn(move || printing.print(Printer(sender)));
        assert!(!screen.take(Stream::Stdout, &[b"before\n"]));
        screen.while_reading(|| {
            assert!(screen.is_reading());
            assert!(screen.take(Stream::Stdout, &[b"a\xff", b"\n"]));
            assert_eq!(shown.recv().unwrap(), "a\u{fffd}\n");
            assert!(!screen.take(Stream::Stderr, &[b"elsewhere\n"]));
        });
        assert!(!screen.take(Stream::Stdout, &[b"after\n"]));
    }
}
