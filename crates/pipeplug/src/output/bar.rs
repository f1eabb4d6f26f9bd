//! Bar that shows the progress of a call in a terminal.

use std::io;
use std::mem;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use pipeplug_host::Progress;

use crate::output::stream::{self, Kind, Stream};
use crate::output::text::{self, Escaped};

/// Returns to the beginning of the line and clears it.
pub(crate) const CLEAR_LINE: &str = "\r\x1b[2K";

/// Layout of a line: its template, and the columns that it takes without command and numbers.
type Layout = (&'static str, usize);

/// From the widest to the narrowest. A line that is wider than the terminal would be left behind each
/// time that it is drawn.
const WITH_TOTAL: [Layout; 4] = [
    ("{prefix} [{bar:24}] {percent:>3}% {pos}/{len} {wide_msg}", 35 + MESSAGE),
    ("{prefix} [{bar:10}] {percent:>3}% {wide_msg}", 19 + MESSAGE),
    ("{prefix} {percent:>3}% {wide_msg}", 6),
    ("{percent:>3}%", 0),
];
const WITHOUT_TOTAL: [Layout; 2] = [("{prefix} {pos} {wide_msg}", 2), ("{pos}", 0)];
/// Columns that a message should have.
const MESSAGE: usize = 12;
/// Time between two drawings of a count.
const REDRAW: Duration = Duration::from_millis(50);
/// Columns of a terminal that does not tell them.
const COLUMNS: usize = 80;

/// Progress bar on stderr.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    command: String,
    /// Template and columns of the last drawing.
    drawn: Option<(&'static str, usize)>,
    /// Time of the last drawing of a count.
    counted: Option<Instant>,
}

impl Bar {
    pub(crate) fn new(command: &str) -> Self {
        let target = ProgressDrawTarget::term_like(Box::new(Terminal::default()));
        let bar = ProgressBar::with_draw_target(None, target);
        Self { bar, command: Escaped(command).to_string(), drawn: None, counted: None }
    }

    pub(crate) fn show(&mut self, Progress { done, total, message, .. }: &Progress) {
        self.fit(*done, *total, columns());
        if let Some(total) = total {
            self.bar.set_length(*total);
        }
        self.bar.set_message(Escaped(message).to_string());
        self.bar.set_position(*done);
    }

    /// Shows a count, at most every [`REDRAW`].
    pub(crate) fn count(&mut self, done: u64, total: Option<u64>, failed: u64) {
        if self.counted.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return;
        }
        self.counted = Some(Instant::now());
        self.fit(done, total, columns());
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        if failed > 0 {
            self.bar.set_message(format!("{failed} failed"));
        }
        self.bar.set_position(done);
    }

    /// Chooses the layout for this width.
    fn fit(&mut self, done: u64, total: Option<u64>, columns: usize) {
        let command = text::shortened(&self.command, columns / 3);
        let template = layout(&command, done, total, columns);
        if self.drawn.replace((template, columns)) != Some((template, columns)) {
            self.bar.set_style(style(template));
            self.bar.set_prefix(command);
        }
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

/// The widest template that fits.
fn layout(command: &str, done: u64, total: Option<u64>, columns: usize) -> &'static str {
    let digits = |number: u64| number.to_string().len();
    let (layouts, numbers): (&[Layout], _) = match total {
        Some(total) => (&WITH_TOTAL, digits(done.max(total)) + digits(total)),
        None => (&WITHOUT_TOTAL, digits(done)),
    };
    let own = |(template, own): &Layout| {
        let numbers = if template.contains("{pos}") { numbers } else { 0 };
        let command = if template.contains("{prefix}") { text::width(command) } else { 0 };
        own + numbers + command
    };
    let fits = layouts.iter().find(|layout| own(layout) <= columns);
    fits.or(layouts.last()).map_or("", |(template, _)| template)
}

fn columns() -> usize {
    // The last one stays free: a terminal may wrap the line when it is written.
    text::columns(io::stderr()).unwrap_or(COLUMNS).saturating_sub(1)
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
        u16::try_from(columns()).unwrap_or(u16::MAX)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Terminal that keeps what is drawn last.
    #[derive(Debug, Clone)]
    struct Paper(Arc<Mutex<String>>, u16);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            self.1
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(&format!("{text}\n"))
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of a bar in a terminal of this width, of which one column stays free.
    fn line(columns: u16, command: &str, done: u64, total: Option<u64>, message: &str) -> String {
        let paper = Paper(Arc::default(), columns - 1);
        let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let bar = ProgressBar::with_draw_target(total, target);
        let mut bar = Bar { bar, command: command.to_owned(), drawn: None, counted: None };
        bar.fit(done, total, usize::from(columns) - 1);
        bar.bar.set_position(done);
        bar.bar.set_message(message.to_owned());
        paper.0.lock().unwrap().clear();
        bar.bar.force_draw();
        let line = paper.0.lock().unwrap().clone();
        line.trim_end_matches(' ').to_owned()
    }

    #[test]
    fn the_line_fits_into_every_width() {
        for (done, total) in
            [(3, Some(10)), (u64::MAX, Some(u64::MAX)), (3, None), (u64::MAX, None)]
        {
            for command in ["x", "a-command-of-thirty-characters", "插件插件插件插件"] {
                for columns in 22..=120 {
                    let line = line(columns, command, done, total, &"message ".repeat(9));
                    let width = text::width(&line);
                    assert!(width < columns.into() && !line.is_empty(), "{columns}: {line:?}");
                }
            }
        }
    }

    #[test]
    fn a_narrow_line_loses_the_least_important() {
        let shown = |columns| line(columns, "steps", 5, Some(10), "step 5");
        assert_eq!(shown(80), "steps [============>           ]  50% 5/10 step 5");
        assert_eq!(shown(40), "steps [=====>    ]  50% step 5");
        assert_eq!(shown(20), "steps  50% step 5");
        assert_eq!(shown(6), " 50%");
        assert_eq!(line(20, "index-everything", 5, None, ""), "index… 5");
    }
}
