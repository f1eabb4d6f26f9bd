//! The line editor of a terminal: prompt, history and completion.

use std::borrow::Cow;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{ColorMode, CompletionType, Config, Context, Editor, Helper};

use super::complete::complete;
use super::known::Known;
use super::screen::Screen;
use crate::output::stream;
use crate::output::style::{Paint, Role};
use crate::output::text;

/// Lines that the history keeps.
const HISTORY: usize = 1000;

/// Line editor.
pub(super) struct LineEditor {
    editor: Editor<Completing, FileHistory>,
    screen: &'static Screen,
    prompt: String,
    /// File of the history. `None` if there is no place for it.
    history: Option<PathBuf>,
}

/// Input of the user.
pub(super) enum Input {
    Line(String),
    /// Ctrl-C: the line is dropped.
    Dropped,
    End,
}

impl LineEditor {
    /// Makes the editor, and has what is written appear above its prompt.
    ///
    /// # Errors
    /// The terminal cannot be used, or a thread cannot be started.
    pub(super) fn new(
        plugin: &str,
        known: Arc<Mutex<Known>>,
        paint: Paint,
    ) -> anyhow::Result<Self> {
        let screen: &'static Screen = Box::leak(Box::new(Screen::new()));
        let config = Config::builder()
            .max_history_size(HISTORY)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .completion_prompt_limit(usize::MAX)
            // Without colours, too, the editor asks for them: see the module `screen`.
            .color_mode(ColorMode::Forced)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Completing { known, paint, screen }));
        thread::Builder::new().name("screen".into()).spawn(|| screen.draw())?;
        stream::set_prompt(screen);
        let history = history_file();
        if let Some(path) = &history {
            // There may be none yet.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, screen, prompt: format!("{}> ", text::Escaped(plugin)), history })
    }

    pub(super) fn screen(&self) -> &'static Screen {
        self.screen
    }

    /// Reads a line.
    ///
    /// # Errors
    /// The terminal cannot be read, or the history not be written; it is given up then.
    ///
    /// # Blocking
    /// Until the user has ended the line.
    pub(super) fn read(&mut self) -> Result<Input, ReadlineError> {
        let Self { editor, screen, prompt, .. } = self;
        match screen.while_reading(|| editor.readline(prompt)) {
            Ok(line) => Ok(Input::Line(line)),
            Err(ReadlineError::Interrupted) => Ok(Input::Dropped),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(error),
        }
    }

    /// Keeps a line in the history.
    ///
    /// # Errors
    /// The message says why the file is not written. It is not tried again.
    pub(super) fn remember(&mut self, line: &str) -> Result<(), String> {
        let added = self.editor.add_history_entry(line);
        if !matches!(added, Ok(true)) {
            return Ok(());
        }
        let Some(path) = self.history.take() else { return Ok(()) };
        // The editor makes the file for the user alone.
        self.editor.append_history(&path).map_err(|error| {
            format!("the history {} cannot be written: {error}", text::short_path(&path))
        })?;
        self.history = Some(path);
        Ok(())
    }
}

/// File of the history, in the state directory of the XDG Base Directory Specification, which is made
/// if it is missing.
fn history_file() -> Option<PathBuf> {
    let state =
        std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let state = state.or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    let dir = state.join("pipeplug");
    // In a home that does not exist nothing is kept.
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).ok()?;
    fs::metadata(&dir).ok().filter(fs::Metadata::is_dir)?;
    Some(dir.join("shell_history"))
}

/// Completion and the colour of the prompt.
struct Completing {
    known: Arc<Mutex<Known>>,
    paint: Paint,
    screen: &'static Screen,
}

impl Completer for Completing {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        at: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(complete(&known, &line[..at]))
    }
}

impl Highlighter for Completing {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        let painted = self.paint.paint(Role::Speaker, prompt).to_string();
        self.screen.draws_prompt(prompt, painted).into()
    }

    fn highlight<'l>(&self, line: &'l str, cursor: usize) -> Cow<'l, str> {
        self.screen.draws_line(line, cursor);
        line.into()
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        // Each key draws the line, and so tells where the cursor is.
        true
    }
}

impl Hinter for Completing {
    type Hint = String;
}

impl Validator for Completing {}
impl Helper for Completing {}
