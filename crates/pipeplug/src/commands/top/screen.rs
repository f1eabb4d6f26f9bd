//! The table on a terminal, drawn again and again until the user ends it.

use std::io::{self, IsTerminal as _, Stdin};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH};
use terminal_size::{Height, Width, terminal_size_of};

use super::look;
use super::table::Table;
use crate::exit::{CommandError, ExitReason};
use crate::output::report;
use crate::output::style::Paint;

/// Another screen, which leaves the lines of the first one alone, without a cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
const END: &str = "\x1b[?25h\x1b[?1049l";

/// Longest wait for keys: a signal may come just before the wait.
const STEP: Duration = Duration::from_millis(250);

/// Ctrl-C, which the terminal gives as a key here.
const CTRL_C: u8 = 3;

/// Draws the table until q, Ctrl-C or a signal.
pub(super) fn run(interval: Duration, paint: Paint) -> Result<ExitReason, CommandError> {
    let signals = Signals::register().map_err(|error| {
        CommandError::message(ExitReason::Failed, format!("no signal can be handled: {error}"))
    })?;
    // An error of the first look is shown on the screen that stays.
    look()?;
    let _screen = Screen::begin()?;
    loop {
        draw(paint)?;
        let until = Instant::now() + interval;
        loop {
            if let Some(reason) = signals.received() {
                return Ok(reason);
            }
            if signals.resized() {
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            if ends(left.min(STEP)) {
                return Ok(ExitReason::Success);
            }
        }
    }
}

fn draw(paint: Paint) -> Result<(), CommandError> {
    let hosts = look()?;
    let size = terminal_size_of(io::stdout());
    let (Width(columns), Height(rows)) = size.unwrap_or((Width(80), Height(24)));
    let columns = usize::from(columns);
    let mut lines = Table { hosts: &hosts, paint, columns: Some(columns) }.lines();
    // The last line is for the keys.
    let room = usize::from(rows).saturating_sub(1).max(1);
    if lines.len() > room {
        let more = lines.len() - (room - 1);
        lines.truncate(room - 1);
        lines.push(format!("… {more} lines more; a larger terminal shows them"));
    }
    let mut text = String::from("\x1b[H");
    for line in &lines {
        // Erased first: a line that fills the terminal leaves the cursor on its last character.
        text.push_str("\x1b[2K");
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\x1b[J");
    text.push_str(&format!("\x1b[{rows};1Hq ends"));
    report::print(&text)
}

/// Waits for a key. Returns true if it ends the command.
fn ends(most: Duration) -> bool {
    let stdin = io::stdin();
    let millis = PollTimeout::try_from(most).unwrap_or(PollTimeout::MAX);
    if !stdin.is_terminal() {
        // The error is a signal, which is looked at next.
        let _ = poll(&mut [], millis);
        return false;
    }
    let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    if !matches!(poll(&mut fds, millis), Ok(1..)) {
        return false;
    }
    let mut keys = [0; 64];
    match nix::unistd::read(&stdin, &mut keys) {
        // The terminal is gone.
        Ok(0) => true,
        Ok(count) => keys[..count].iter().any(|key| matches!(key, b'q' | b'Q' | &CTRL_C)),
        Err(error) => error != nix::errno::Errno::EINTR && error != nix::errno::Errno::EAGAIN,
    }
}

/// The other screen, until it is dropped.
struct Screen {
    stdin: Stdin,
    /// Settings of the terminal before.
    before: Option<Termios>,
}

impl Screen {
    fn begin() -> Result<Self, CommandError> {
        let stdin = io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten();
        if let Some(before) = &before {
            let mut settings = before.clone();
            // ISIG off: Ctrl-C is a key, and Ctrl-Z does not leave the other screen behind.
            settings.local_flags &= !(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
            settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
            settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
            // Without it Ctrl-C is the signal, and keys are shown.
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &settings);
        }
        let screen = Self { stdin, before };
        report::print(BEGIN)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone: nothing is left to restore then.
        let _ = report::print(END);
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.stdin, SetArg::TCSANOW, before);
        }
    }
}

/// Signals that came.
struct Signals {
    ends: [(Arc<AtomicBool>, ExitReason); 3],
    resized: Arc<AtomicBool>,
}

impl Signals {
    fn register() -> io::Result<Self> {
        let flag = |signal| {
            let flag = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register(signal, Arc::clone(&flag)).map(|_| flag)
        };
        Ok(Self {
            ends: [
                (flag(SIGTERM)?, ExitReason::Terminated),
                (flag(SIGINT)?, ExitReason::Interrupted),
                (flag(SIGHUP)?, ExitReason::HungUp),
            ],
            resized: flag(SIGWINCH)?,
        })
    }

    fn received(&self) -> Option<ExitReason> {
        self.ends.iter().find(|(flag, _)| flag.load(Ordering::SeqCst)).map(|(_, reason)| *reason)
    }

    fn resized(&self) -> bool {
        self.resized.swap(false, Ordering::SeqCst)
    }
}
