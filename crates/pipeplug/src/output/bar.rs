//! Bar that shows the progress of a call in a terminal.

use std::io;
use std::mem;
use std::sync::{Mutex, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use pipeplug_host::Progress;

use crate::output::stream::{self, Kind, Stream};
use crate::output::text::{self, Escaped};

/// Returns to the beginning of the line and clears it.
pub(crate) const CLEAR_LINE: &str = "\r\x1b[2K";

const WITH_TOTAL: &str = "{prefix} [{bar:24}] {percent:>3}% {pos}/{len} {wide_msg}";
const WITHOUT_TOTAL: &str = "{prefix} {pos} {wide_msg}";
/// Columns of a terminal that does not tell them.
const COLUMNS: usize = 80;

/// Progress bar on stderr.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    has_total: bool,
}

impl Bar {
    pub(crate) fn new(command: &str) -> Self {
        let target = ProgressDrawTarget::term_like(Box::new(Terminal::default()));
        let bar = ProgressBar::with_draw_target(None, target)
            .with_style(style(WITHOUT_TOTAL))
            .with_prefix(Escaped(command).to_string());
        Self { bar, has_total: false }
    }

    pub(crate) fn show(&mut self, Progress { done, total, message, .. }: &Progress) {
        if self.has_total != total.is_some() {
            self.has_total = total.is_some();
            self.bar.set_style(style(if self.has_total { WITH_TOTAL } else { WITHOUT_TOTAL }));
        }
        if let Some(total) = total {
            self.bar.set_length(*total);
        }
        self.bar.set_message(Escaped(message).to_string());
        self.bar.set_position(*done);
    }

    /// Writes something else while the bar is hidden.
    pub(crate) fn hide_for<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("the templates above are valid");
    style.progress_chars("=> ")
}

/// Stderr, which is a terminal. A drawing is one write.
#[derive(Debug, Default)]
struct Terminal(Mutex<String>);

impl Terminal {
    fn push(&self, text: &str) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn move_cursor(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.push(&format!("\x1b[{count}{direction}")) }
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        let columns = text::columns(io::stderr()).unwrap_or(COLUMNS);
        u16::try_from(columns).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.push(text)?;
        self.push("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.push(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.push(CLEAR_LINE)
    }

    fn flush(&self) -> io::Result<()> {
        let text = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        // A failed write to stderr cannot be reported on stderr.
        let _ = stream::write(Stream::Stderr, Kind::Log, &[text.as_bytes()]);
        Ok(())
    }
}
