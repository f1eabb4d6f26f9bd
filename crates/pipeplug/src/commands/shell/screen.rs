//! Text above the prompt while a line is edited.
//!
//! The line editor has a printer of its own, and with it shows only the first of several keys that it
//! reads at once, until the next one (rustyline issue 976, up to version 19). Text is therefore shown
//! without it. The editor asks for the colours of prompt and line each time before it draws them: that
//! tells where the cursor is, and waiting text is drawn with the prompt. Between these times the editor
//! waits for a key, and waiting text is drawn here, together with prompt and line as they were.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use unicode_width::UnicodeWidthChar as _;

use crate::output::stream::{self, Kind, Prompt, Stream};
use crate::output::text;

/// Size of the text that may wait to be drawn, in bytes. More waits with its writer.
const MOST_WAITING: usize = 1 << 20;
/// Time in which the editor has drawn what it has asked colours for.
const DRAWING: Duration = Duration::from_millis(20);
/// Columns of a tab in the editor.
const TAB: usize = 8;

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
    /// Text that waits to be drawn.
    waiting: String,
    /// Prompt and line in the terminal. `None` before the editor has drawn them.
    drawn: Option<Drawn>,
}

/// Prompt and line as the editor draws them.
#[derive(Debug, Clone)]
struct Drawn {
    prompt: String,
    /// The prompt with its colour.
    painted: String,
    line: String,
    /// Position of the cursor in the line, in bytes.
    cursor: usize,
    since: Instant,
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

    /// Draws text while the editor waits for a key.
    ///
    /// # Blocking
    /// For ever: it is for a thread of its own.
    pub(super) fn draw(&self) {
        loop {
            let is_idle = |state: &mut State| state.drawn.is_none() || state.waiting.is_empty();
            let waited = self.changed.wait_while(self.state(), is_idle);
            let mut state = waited.unwrap_or_else(PoisonError::into_inner);
            let State { waiting, drawn: Some(drawn), .. } = &mut *state else { continue };
            let left = DRAWING.saturating_sub(drawn.since.elapsed());
            if !left.is_zero() {
                // The editor may draw again meanwhile.
                let waited = self.changed.wait_timeout(state, left);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                continue;
            }
            let columns = text::columns(io::stdout()).filter(|it| *it > 0).unwrap_or(80);
            let text = drawn.below(&whole_lines(waiting), columns);
            // Under the lock: the editor asks for it before it draws again. The terminal takes the
            // text, or is gone.
            let _ = stream::write_now(Stream::Stdout, Kind::Report, &[text.as_bytes()]);
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Reads a line with the editor.
    pub(super) fn while_reading<T>(&self, read: impl FnOnce() -> T) -> T {
        self.state().is_reading = true;
        let line = read();
        let mut state = self.state();
        (state.is_reading, state.drawn) = (false, None);
        let text = whole_lines(&mut state.waiting);
        // Under the lock, before anything that is written later. The terminal takes it, or is gone.
        let _ = stream::write_now(Stream::Stdout, Kind::Report, &[text.as_bytes()]);
        self.changed.notify_all();
        line
    }

    /// Notes that the editor draws the prompt now. Returns what it has to draw: the prompt with its
    /// colour, after the text that waits.
    pub(super) fn draws_prompt(&self, prompt: &str, painted: String) -> String {
        let mut state = self.state();
        let above = whole_lines(&mut state.waiting);
        let (line, cursor) = (String::new(), 0);
        let shown = format!("{above}{painted}");
        let prompt = prompt.to_owned();
        state.drawn = Some(Drawn { prompt, painted, line, cursor, since: Instant::now() });
        self.changed.notify_all();
        shown
    }

    /// Notes that the editor draws the line now, after the prompt.
    pub(super) fn draws_line(&self, line: &str, cursor: usize) {
        if let Some(drawn) = &mut self.state().drawn {
            line.clone_into(&mut drawn.line);
            (drawn.cursor, drawn.since) = (cursor, Instant::now());
        }
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
        let is_full =
            |state: &mut State| state.drawn.is_some() && state.waiting.len() > MOST_WAITING;
        let waited = self.changed.wait_while(self.state(), is_full);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.is_reading {
            return false;
        }
        for part in parts {
            state.waiting.push_str(&String::from_utf8_lossy(part));
        }
        if state.drawn.is_none() {
            // The editor has not begun to draw, or cannot move the cursor (TERM=dumb).
            let text = whole_lines(&mut state.waiting);
            // The terminal takes it, or is gone.
            let _ = stream::write_now(stream, Kind::Report, &[text.as_bytes()]);
        }
        self.changed.notify_all();
        true
    }
}

impl Drawn {
    /// Text that replaces prompt and line with `above`, and draws them again below it, with the cursor
    /// at the same place.
    fn below(&self, above: &str, columns: usize) -> String {
        let Self { prompt, painted, line, cursor, .. } = self;
        let at = |end: usize| position(prompt.chars().chain(line[..end].chars()), columns);
        let (cursor, end) = (at(*cursor), at(line.len()));
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = match cursor.row {
            0 => write!(out, "\r\x1b[J"),
            rows => write!(out, "\x1b[{rows}A\r\x1b[J"),
        };
        let _ = write!(out, "{above}{painted}{line}");
        // A terminal leaves the cursor behind the last column.
        if end.column == 0 && end.row > 0 && !line.ends_with('\n') {
            out.push('\n');
        }
        if end.row > cursor.row {
            let _ = write!(out, "\x1b[{}A", end.row - cursor.row);
        }
        out.push('\r');
        if cursor.column > 0 {
            let _ = write!(out, "\x1b[{}C", cursor.column);
        }
        out
    }
}

/// Place in the terminal, from the beginning of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    row: usize,
    column: usize,
}

/// Place behind the characters, as the editor counts.
fn position(chars: impl Iterator<Item = char>, columns: usize) -> Position {
    let mut at = Position { row: 0, column: 0 };
    for c in chars {
        let width = match c {
            '\n' => {
                at = Position { row: at.row + 1, column: 0 };
                continue;
            }
            '\t' => TAB - at.column % TAB,
            c => c.width().unwrap_or(0),
        };
        at.column += width;
        if at.column > columns {
            at = Position { row: at.row + 1, column: width };
        }
    }
    if at.column == columns {
        at = Position { row: at.row + 1, column: 0 };
    }
    at
}

/// Takes the text, with a newline at its end.
fn whole_lines(waiting: &mut String) -> String {
    let mut text = std::mem::take(waiting);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen() -> Screen {
        Screen { stdout_is_here: true, stderr_is_here: false, ..Screen::new() }
    }

    #[test]
    fn text_waits_for_the_editor_while_it_reads_and_only_then() {
        let screen = screen();
        assert!(!screen.take(Stream::Stdout, &[b"before\n"]));
        screen.while_reading(|| {
            assert!(screen.is_reading());
            assert_eq!(screen.draws_prompt("> ", "<> >".into()), "<> >");
            assert!(screen.take(Stream::Stdout, &[b"a\xff"]));
            assert!(screen.take(Stream::Stdout, &[b"b"]));
            assert_eq!(screen.draws_prompt("> ", "<> >".into()), "a\u{fffd}b\n<> >");
            assert_eq!(screen.draws_prompt("> ", "<> >".into()), "<> >");
            assert!(!screen.take(Stream::Stderr, &[b"elsewhere\n"]));
        });
        assert!(!screen.take(Stream::Stdout, &[b"after\n"]));
    }

    #[test]
    fn the_cursor_stays_in_the_line() {
        let drawn = |line: &str, cursor: usize| Drawn {
            prompt: "> ".into(),
            painted: "<> >".into(),
            line: line.into(),
            cursor,
            since: Instant::now(),
        };
        // (row, column) of the cursor, and the line below the text.
        assert_eq!(drawn("", 0).below("x\n", 10), "\r\x1b[Jx\n<> >\r\x1b[2C");
        assert_eq!(drawn("abc", 1).below("x\n", 10), "\r\x1b[Jx\n<> >abc\r\x1b[3C");
        // Two rows, with the cursor in the first, and in the second.
        let long = "0123456789ab";
        assert_eq!(
            drawn(long, 2).below("x\n", 10),
            format!("\r\x1b[Jx\n<> >{long}\x1b[1A\r\x1b[4C")
        );
        assert_eq!(
            drawn(long, 12).below("x\n", 10),
            format!("\x1b[1A\r\x1b[Jx\n<> >{long}\r\x1b[4C")
        );
        // A row that is full: the cursor is in the next one.
        assert_eq!(drawn("01234567", 8).below("x\n", 10), "\x1b[1A\r\x1b[Jx\n<> >01234567\n\r");
        assert_eq!(drawn("插件", 6).below("x\n", 10), "\r\x1b[Jx\n<> >插件\r\x1b[6C");
        assert_eq!(drawn("a\nb", 3).below("", 10), "\x1b[1A\r\x1b[J<> >a\nb\r\x1b[1C");
    }
}
