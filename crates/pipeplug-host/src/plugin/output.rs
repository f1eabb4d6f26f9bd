//! A plugin's standard error (and output, where it is logged), line by line.
//!
//! The loop's thread only reads: lines are kept, and handed to `tracing` and to the host's own
//! handler on a thread that no other handler takes, in their order. Where the host has neither a
//! subscriber nor a handler, they go to its own standard error. While too many wait for that,
//! nothing more is read, and the plugin's writes wait.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use pipeplug_net::internal::{Watch, Watcher};
use pipeplug_net::{Escaped, EventLoop};

use tracing::Level;

use crate::plugin::LogLevel;
use crate::plugin::crash::Panic;
use crate::plugin::log_line::LogLine;

/// A longer line is cut into pieces of this size, in bytes.
const LINE_MAX: usize = 16 << 10;
/// Lines that wait to be handed on,
const WAITING_MAX: usize = 1024;
/// and their bytes; the lines of one read may come on top.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// The first lines that are kept, which are those of what carries the plugin's streams.
const HEAD_MAX: usize = 8;
/// Size of one read, in bytes.
const CHUNK: usize = 8 << 10;
/// After so many bytes other descriptors of the loop have their turn: what a pipe holds.
const TURN: usize = 64 << 10;

/// Which of a plugin's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output, where it is logged.
    Stdout,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stderr => "stderr",
            Self::Stdout => "stdout",
        })
    }
}

/// Call-back for a line. The line has no line end, and bytes that are not UTF-8 are replaced.
pub(crate) type OnLine = Arc<dyn Fn(Output, &str) + Send + Sync>;

/// A stream of a plugin, read line by line.
pub(crate) struct Lines {
    output: Output,
    plugin: String,
    fd: OwnedFd,
    events: EventLoop,
    on_line: Option<OnLine>,
    watcher: OnceLock<Watcher>,
    state: Mutex<LinesState>,
    /// Everything there was has been handed on.
    all_handed_on: Condvar,
}

/// Emits the event of a line. Level and target of an event are constants, so there is one for each.
macro_rules! log_line {
    ($target:literal, $plugin:expr, $line:expr) => {
        // Most hosts read no line: where there is no subscriber for it.
        if tracing::enabled!(target: $target, Level::ERROR) {
            let read = LogLine::read($line);
            let (level, message) = match &read {
                Some(read) => (read.level(), read.message()),
                None => (LogLevel::Info, $line),
            };
            let target = read.as_ref().and_then(LogLine::target);
            let fields = read.as_ref().and_then(LogLine::fields);
            macro_rules! event {
                ($level:expr) => {
                    tracing::event!(
                        target: $target, $level, plugin = %$plugin, log.target = target,
                        log.fields = fields, "{message}"
                    )
                };
            }
            match level {
                // No line has the level Off.
                LogLevel::Error | LogLevel::Off => event!(Level::ERROR),
                LogLevel::Warn => event!(Level::WARN),
                LogLevel::Info => event!(Level::INFO),
                LogLevel::Debug => event!(Level::DEBUG),
                LogLevel::Trace => event!(Level::TRACE),
            }
        }
    };
}

thread_local! {
    /// True while this thread hands a line on.
    static HANDING_ON: Cell<bool> = const { Cell::new(false) };
}

#[derive(Default)]
struct LinesState {
    /// The line that is not whole yet.
    partial: Vec<u8>,
    /// A carriage return has just ended a line: a line feed behind it belongs to it.
    after_return: bool,
    /// The first lines.
    head: Vec<String>,
    /// The last lines.
    tail: VecDeque<String>,
    tail_max: usize,
    panic: Panic,
    waiting: VecDeque<String>,
    waiting_bytes: usize,
    handing_on: bool,
    ended: bool,
    /// The plugin has ended, and the stream did not end within the time for that.
    is_held: bool,
}

/// Deadlines for the last output of a plugin.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// The end of its streams.
    pub(crate) ended: Instant,
    /// The handlers of its lines.
    pub(crate) handed_on: Instant,
}

/// A stream of a plugin that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Ended,
    /// Another process has it open.
    Held,
}

/// Result of a round of reading. The event loop does not report again what was left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Unread,
}

/// The descriptor, as the event loop takes it.
struct Fd(Arc<Lines>);

impl AsFd for Fd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Lines {
    /// Reads `fd`, which must not block, until its end; keeps the last `tail` lines.
    pub(crate) fn read(
        events: &EventLoop,
        fd: OwnedFd,
        output: Output,
        plugin: &str,
        tail: usize,
        on_line: Option<OnLine>,
    ) -> io::Result<Arc<Self>> {
        let lines = Arc::new(Self {
            output,
            plugin: plugin.to_owned(),
            fd,
            events: events.clone(),
            on_line,
            watcher: OnceLock::new(),
            state: Mutex::new(LinesState { tail_max: tail, ..LinesState::default() }),
            all_handed_on: Condvar::new(),
        });
        let reading = Arc::clone(&lines);
        // Held until the watcher is set: without it, the reader could not ask the loop to report
        // again what it left unread.
        let state = lines.lock();
        let watcher = events.watch(Fd(Arc::clone(&lines)), move |_| reading.turn())?;
        // Set once, here.
        let _ = lines.watcher.set(watcher);
        drop(state);
        Ok(lines)
    }

    /// Which stream it is.
    pub(crate) fn output(&self) -> Output {
        self.output
    }

    /// The last lines, with what there is to read right now.
    pub(crate) fn tail(self: &Arc<Self>) -> Vec<String> {
        self.ready();
        let state = self.lock();
        let partial = (!state.partial.is_empty()).then(|| text(&state.partial));
        state.tail.iter().cloned().chain(partial).collect()
    }

    /// The first lines, at most 8, with what there is to read right now.
    pub(crate) fn head(self: &Arc<Self>) -> Vec<String> {
        self.ready();
        self.lock().head.clone()
    }

    /// The last panic that they told of.
    pub(crate) fn panic(&self) -> Option<String> {
        self.lock().panic.text().map(str::to_owned)
    }

    /// Waits until all lines of a plugin that has ended are handed on, and tells whether something
    /// holds the stream open still, which that started.
    ///
    /// The end of the stream is waited for once, until `by.ended`: what the plugin itself wrote is
    /// there when it has ended. Called from the handler of a line it does not wait, since that is
    /// one of them.
    pub(crate) fn wait_handed_on(self: &Arc<Self>, by: Deadlines) -> Stream {
        if HANDING_ON.get() {
            return Stream::Ended;
        }
        self.ready();
        let mut state = self.lock();
        loop {
            let is_handed_on = state.waiting.is_empty() && !state.handing_on;
            let until = match (is_handed_on, state.ended || state.is_held) {
                (true, true) => break,
                (true, false) => by.ended,
                (false, _) => by.handed_on,
            };
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // What did not fit while too many lines waited.
                drop(state);
                self.ready();
                state = self.lock();
                if !is_handed_on || state.waiting.is_empty() && !state.handing_on {
                    break;
                }
                continue;
            }
            state = self
                .all_handed_on
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if state.ended {
            return Stream::Ended;
        }
        state.is_held = true;
        Stream::Held
    }

    /// The loop's turn.
    fn turn(self: &Arc<Self>) -> Watch {
        let (watch, left) = self.read_some(TURN);
        if left == Left::Unread
            && let Some(watcher) = self.watcher.get()
        {
            watcher.look_again();
        }
        watch
    }

    /// Reads what there is.
    fn ready(self: &Arc<Self>) {
        // What the end means for the loop's watch is told to it too.
        let _ = self.read_some(usize::MAX);
    }

    /// Reads until nothing is left, too many lines wait, or it has been `max` bytes.
    fn read_some(self: &Arc<Self>, max: usize) -> (Watch, Left) {
        let mut state = self.lock();
        let mut buffer = [0; CHUNK];
        let mut total = 0;
        while !state.ended && !state.is_full() && total < max {
            match nix::unistd::read(&self.fd, &mut buffer) {
                Ok(0) => state.end(),
                Ok(count) => {
                    total += count;
                    state.take(&buffer[..count]);
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => break,
                Err(errno) => {
                    tracing::warn!(plugin = %self.plugin, output = %self.output, %errno, "cannot \
                                                            be read any more");
                    state.end();
                }
            }
        }
        if !state.waiting.is_empty() && !std::mem::replace(&mut state.handing_on, true) {
            let lines = Arc::clone(self);
            self.events.spawn(move || lines.hand_on());
        }
        if !state.ended {
            return (Watch::Continue, if total < max { Left::Nothing } else { Left::Unread });
        }
        self.all_handed_on.notify_all();
        (Watch::End, Left::Nothing)
    }

    /// Hands the lines on that wait, on a thread that may block.
    fn hand_on(self: Arc<Self>) {
        loop {
            let mut state = self.lock();
            let was_full = state.is_full();
            state.waiting_bytes = 0;
            let waiting = std::mem::take(&mut state.waiting);
            if waiting.is_empty() {
                state.handing_on = false;
                self.all_handed_on.notify_all();
                return;
            }
            drop(state);
            HANDING_ON.set(true);
            for line in &waiting {
                self.log(line);
                match &self.on_line {
                    Some(on_line) => {
                        let call = std::panic::AssertUnwindSafe(|| on_line(self.output, line));
                        if std::panic::catch_unwind(call).is_err() {
                            tracing::error!(plugin = %self.plugin, "the handler of its lines \
                                                            panicked");
                        }
                    }
                    None if !tracing::dispatcher::has_been_set() => self.forward(line),
                    None => {}
                }
            }
            HANDING_ON.set(false);
            if was_full && let Some(watcher) = self.watcher.get() {
                watcher.look_again();
            }
        }
    }

    /// Hands a line to `tracing`: one event, with the level, target and fields that it tells of.
    fn log(&self, line: &str) {
        match self.output {
            Output::Stderr => log_line!("pipeplug::stderr", self.plugin, line),
            Output::Stdout => log_line!("pipeplug::stdout", self.plugin, line),
        }
    }

    /// Shows a line on the host's standard error, since nothing else in the host takes it.
    fn forward(&self, line: &str) {
        let text = format!("{}: {}\n", self.plugin, Escaped(line));
        // There is no other place to tell of a standard error that is closed.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, LinesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LinesState {
    fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// Takes what was read. A line ends with LF, CR LF, or CR, with which a program shows its
    /// progress in one line of a terminal: that would else be held back until the program is done.
    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.add(&bytes[..end]);
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            if std::mem::replace(&mut self.after_return, is_return) && !is_return && end == 0 {
                continue;
            }
            // A program may begin with CR too: there is no line between it and the last one.
            if !is_return || !self.partial.is_empty() {
                self.line();
            } else {
                self.after_return = false;
            }
        }
        if !bytes.is_empty() {
            self.after_return = false;
        }
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while self.partial.len() > LINE_MAX {
            let rest = self.partial.split_off(cut(&self.partial));
            self.line();
            self.partial = rest;
        }
    }

    fn end(&mut self) {
        if !self.partial.is_empty() {
            self.line();
        }
        self.ended = true;
    }

    fn line(&mut self) {
        let line = text(&self.partial);
        self.partial.clear();
        self.panic.see(&line);
        if self.head.len() < HEAD_MAX {
            self.head.push(line.clone());
        }
        if self.tail.len() >= self.tail_max {
            self.tail.pop_front();
        }
        if self.tail_max > 0 {
            self.tail.push_back(line.clone());
        }
        self.waiting_bytes += line.len();
        self.waiting.push_back(line);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Finds the place to cut a long line: not within a character, which has at most four bytes.
fn cut(bytes: &[u8]) -> usize {
    let begins_character = |at: &usize| bytes[*at] & 0b1100_0000 != 0b1000_0000;
    (LINE_MAX - 3..=LINE_MAX).rev().find(begins_character).unwrap_or(LINE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(tail_max: usize) -> LinesState {
        LinesState { tail_max, ..LinesState::default() }
    }

    #[test]
    fn lines_in_any_cut_are_the_same_lines() {
        let bytes = b"one\ntwo\r\n\nlast";
        for cut in 0..bytes.len() {
            let mut state = state(10);
            state.take(&bytes[..cut]);
            state.take(&bytes[cut..]);
            state.end();
            assert_eq!(state.waiting, ["one", "two", "", "last"], "cut at {cut}");
        }
    }

    #[test]
    fn progress_is_told_as_it_comes() {
        for bytes in [&b"10 %\r20 %\rdone\r\n\r\nend"[..], b"\r10 %\r20 %\rdone\r\n\nend\r"] {
            for cut in 0..bytes.len() {
                let mut state = state(10);
                state.take(&bytes[..cut]);
                state.take(&bytes[cut..]);
                state.end();
                assert_eq!(state.waiting, ["10 %", "20 %", "done", "", "end"], "cut at {cut}");
            }
        }
        let mut state = state(10);
        state.take(b"10 %\r");
        assert_eq!(state.waiting, ["10 %"], "it is not held back");
    }

    #[test]
    fn the_first_lines_are_kept_whatever_follows() {
        let mut state = state(0);
        (0..100).for_each(|i| state.take(format!("{i}\n").as_bytes()));
        assert_eq!(state.head, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut state = state(2);
        state.take(b"a\nb\nc\n");
        assert_eq!(state.tail, ["b", "c"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut state = state(2);
        for _ in 0..3 {
            state.take(&vec![b'x'; LINE_MAX]);
        }
        assert_eq!(state.waiting.len(), 2);
        assert_eq!(state.partial.len(), LINE_MAX);
    }

    #[test]
    fn a_line_is_cut_the_same_however_it_comes_and_not_within_a_character() {
        for (ahead, character) in [(0, "x"), (0, "é"), (1, "é"), (1, "€"), (2, "😀"), (3, "😀")]
        {
            let line = "x".repeat(ahead) + &character.repeat(2 * LINE_MAX);
            let mut whole = state(0);
            whole.take(format!("{line}\nnext\n").as_bytes());
            let mut pieces = state(0);
            format!("{line}\nnext\n").as_bytes().chunks(1000).for_each(|bytes| pieces.take(bytes));
            assert_eq!(whole.waiting, pieces.waiting, "{ahead} {character}");
            assert_eq!(whole.waiting.pop_back().as_deref(), Some("next"));
            assert!(whole.waiting.make_contiguous().concat() == line, "{ahead} {character}");
            whole.waiting.pop_back();
            assert!(
                whole
                    .waiting
                    .iter()
                    .all(|piece| piece.len() <= LINE_MAX && piece.len() > LINE_MAX - 4)
            );
        }
    }

    #[test]
    fn a_line_as_long_as_a_piece_is_one_line() {
        let mut state = state(0);
        state.take(&vec![b'x'; LINE_MAX]);
        state.take(b"\n");
        assert_eq!(state.waiting.len(), 1);
    }

    #[test]
    fn few_long_lines_are_as_full_as_many_short_ones() {
        let mut short = state(0);
        short.take(&b"\n".repeat(WAITING_MAX - 1));
        assert!(!short.is_full());
        short.take(b"\n");
        assert!(short.is_full());
        let mut long = state(0);
        let line = [&vec![b'x'; LINE_MAX][..], b"\n"].concat();
        (1..WAITING_BYTES_MAX / LINE_MAX).for_each(|_| long.take(&line));
        assert!(!long.is_full());
        long.take(&line);
        assert!(long.is_full());
    }

    #[test]
    fn bytes_that_are_no_characters_are_cut_too() {
        let mut state = state(0);
        state.take(&vec![0x80; 3 * LINE_MAX]);
        assert_eq!(state.waiting.len(), 2);
    }
}
