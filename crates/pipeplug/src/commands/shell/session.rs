//! State of the shell: the plugin, its settings, and what each line does.

mod making;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pipeplug_host::discovery::nearest_name;
use pipeplug_host::{CancelHandle, LogLevel};

use super::data;
use super::interrupt::Interrupts;
use super::jobs::Jobs;
use super::known::Known;
use super::line::{self, Line, Setting};
use super::live::{Live, Watch};
use super::show;
use crate::args::calls::CallKind;
use crate::args::sandbox::Level;
use crate::args::start::StartArgs;
use crate::args::target::Target;
use crate::commands::run::{self, Checking};
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{self, Report};
use crate::output::style::Paint;
use crate::output::text::{self, Escaped, QuotedData};
use crate::session::Session;
use crate::session::answers::AnswerHandler;
use crate::session::describe;
use crate::session::shutdown::Shutdown;

/// All that a start of the plugin needs.
#[derive(Clone, Copy)]
pub(super) struct Start<'a> {
    pub(super) args: &'a StartArgs,
    pub(super) target: &'a Target,
    pub(super) level: Level,
    pub(super) watch: Watch,
}

/// The shell.
pub(super) struct Shell<'a> {
    start: Start<'a>,
    report: Arc<Report>,
    shutdown: Shutdown,
    answers: AnswerHandler,
    known: Arc<Mutex<Known>>,
    interrupts: Interrupts,
    /// `None` after a restart that failed.
    live: Option<Live>,
    jobs: Jobs,
    timeout: Option<Duration>,
    checking: Checking,
    log_level: Option<LogLevel>,
}

/// Continuation after a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Go,
    End,
}

impl<'a> Shell<'a> {
    /// Starts the plugin.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(
        start: Start<'a>,
        (report, shutdown): (&Arc<Report>, &Shutdown),
        answers: AnswerHandler,
        known: Arc<Mutex<Known>>,
        interrupts: Interrupts,
    ) -> Result<Self, CommandError> {
        let mut shell = Self {
            start,
            report: Arc::clone(report),
            shutdown: shutdown.clone(),
            answers,
            known,
            interrupts,
            live: None,
            jobs: Jobs::default(),
            timeout: start.args.timeout,
            checking: Checking::Checked,
            log_level: None,
        };
        shell.begin()?;
        if start.watch == Watch::Shown {
            shell.interrupts.begin();
        }
        Ok(shell)
    }

    /// Starts the plugin, and asks what it can do.
    fn begin(&mut self) -> Result<(), CommandError> {
        let Self { start: Start { args, target, level, watch }, report, shutdown, .. } = self;
        let answers = self.answers.clone();
        let session = Session::start(target, args, *level, report, shutdown, answers)?;
        report.show(&Event::Started(&session.started()));
        let live = Live::new(session, report, *watch);
        let plugin = &live.session.plugin;
        if let Some(level) = self.log_level
            && let Err(error) = plugin.set_log_level(level)
        {
            report.note(error);
        }
        let described = describe::ask(plugin, args.timeout, shutdown).unwrap_or_else(|failure| {
            let problem = failure.error.map(|error| error.to_string()).unwrap_or_default();
            report.note(format_args!("arguments are not checked: {}", Escaped(&problem)));
            None
        });
        // It describes none, and they are known here.
        let built_in = target.built_in().map(|plugin| plugin.commands).unwrap_or_default();
        let mut known = self.known();
        known.describe(described.unwrap_or_default());
        built_in.iter().for_each(|command| known.learn(command));
        drop(known);
        self.live = Some(live);
        Ok(())
    }

    /// Tells the user of a terminal where they are.
    pub(super) fn greet(&self) {
        let Some(live) = &self.live else { return };
        let plugin = &live.session.plugin;
        self.report.note(format_args!(
            "{} runs (pid {}); `help` lists what to write, Tab completes, Ctrl-D ends",
            plugin.name(),
            plugin.pid()
        ));
    }

    pub(super) fn shutdown_failure(&self) -> Option<CommandError> {
        self.shutdown.failure()
    }

    /// Does what the line says. `number` is that of a line in a script.
    ///
    /// # Errors
    /// The line is wrong, or what it says has failed; or a call in the background has.
    pub(super) fn execute(
        &mut self,
        text: &str,
        number: Option<u64>,
    ) -> Result<Next, CommandError> {
        self.jobs.reap()?;
        let usage = |message| CommandError::message(ExitReason::Usage, message);
        let Some(line) = line::parse(text).map_err(usage)? else { return Ok(Next::Go) };
        match line {
            Line::Call(call) => self.call(call, text.trim(), number)?,
            Line::Jobs => self.print(&self.jobs.list())?,
            Line::Wait(job) => self.wait(job)?,
            Line::Cancel(job) => self.jobs.cancel(job)?,
            Line::Answers => self.list_answers()?,
            Line::Answer(command, data) => {
                self.check_command(&command)?;
                self.answers.answer(&command, data::answer(&command, &data)?);
            }
            Line::Refuse(command) => {
                if !self.answers.refuse(&command) {
                    let message = format!(
                        "refuse: \"{}\" has no answer; `answer` lists those that have",
                        Escaped(&command)
                    );
                    return Err(usage(message));
                }
            }
            Line::Settings => self.list_settings()?,
            Line::Set(Setting::Timeout(timeout)) => self.timeout = timeout,
            Line::Set(Setting::Checked(is_checked)) => {
                self.checking = if is_checked { Checking::Checked } else { Checking::Unchecked };
            }
            Line::Log(level) => {
                let plugin = &self.live()?.session.plugin;
                plugin
                    .set_log_level(level)
                    .map_err(|error| CommandError::new(ExitReason::Failed, error))?;
                self.log_level = Some(level);
            }
            Line::Meta => {
                let plugin = &self.live()?.session.plugin;
                self.print(&show::meta(plugin, self.paint(), columns()))?;
            }
            Line::Stat => {
                let jobs = self.jobs.numbers().len();
                let live = self.live.as_ref().ok_or_else(not_started)?;
                self.print(&show::stat(live, &self.answers, jobs, self.paint(), columns()))?;
            }
            Line::Restart => self.restart()?,
            Line::Help(None) => {
                let help = show::help(&self.known(), self.paint(), columns());
                self.print(&help)?;
            }
            Line::Help(Some(name)) => self.help_of(&name)?,
            Line::Quit => return Ok(Next::End),
        }
        self.jobs.reap()?;
        let (jobs, answers) = (self.jobs.numbers(), self.answers.known().into_keys().collect());
        let mut known = self.known();
        (known.jobs, known.answers) = (jobs, answers);
        Ok(Next::Go)
    }

    fn wait(&mut self, job: Option<u32>) -> Result<(), CommandError> {
        self.jobs.reap()?;
        let cancel = CancelHandle::new();
        let Self { jobs, interrupts, shutdown, .. } = self;
        let is_done = interrupts.while_running(&cancel, || jobs.wait(job, &cancel, shutdown))?;
        if !is_done {
            return Err(self.shutdown.failure().unwrap_or_else(|| {
                CommandError::message(
                    ExitReason::Interrupted,
                    "wait: ended by Ctrl-C; the calls go on",
                )
            }));
        }
        self.jobs.reap()
    }

    /// Waits for all calls in the background.
    ///
    /// # Errors
    /// One has failed.
    pub(super) fn wait_for_jobs(&mut self) -> Result<(), CommandError> {
        self.wait(None)
    }

    fn restart(&mut self) -> Result<(), CommandError> {
        self.jobs.cancel_all();
        if let Some(live) = self.live.take() {
            match live.end() {
                Ok(stopped) => self.report.show(&Event::Ended(stopped)),
                Err(error) => return Err(CommandError::new(ExitReason::Died, error)),
            }
        }
        let interrupts = self.interrupts.clone();
        let (begun, is_ended) = interrupts.while_restarting(|| self.begin());
        begun.map_err(|failure| {
            if !is_ended {
                return failure;
            }
            let message = "restart: ended by Ctrl-C; `restart` starts the plugin";
            CommandError::message(ExitReason::Interrupted, message)
        })?;
        if self.start.watch == Watch::Shown {
            let pid = self.live()?.session.plugin.pid();
            self.report.note(format_args!("started again (pid {pid})"));
        }
        Ok(())
    }

    /// The plugin, if it runs.
    fn live(&self) -> Result<&Live, CommandError> {
        let live = self.live.as_ref().ok_or_else(not_started)?;
        live.ended().map_or(Ok(live), Err)
    }

    fn check_command(&self, command: &str) -> Result<(), CommandError> {
        let arg = data::call(&Known::default(), CallKind::Call, command, "")?;
        let format = self.start.args.protocol(self.start.target).format;
        run::check_commands(&[arg], &[], format)
    }

    fn list_answers(&self) -> Result<(), CommandError> {
        let line = |(command, data): (String, Arc<[u8]>)| {
            format!("{}{}\n", Escaped(&command), QuotedData(&data))
        };
        self.print(&self.answers.known().into_iter().map(line).collect::<String>())
    }

    fn list_settings(&self) -> Result<(), CommandError> {
        let timeout = self.timeout.map_or_else(|| "none".to_owned(), |time| format!("{time:?}"));
        let checked = if self.checking == Checking::Checked { "on" } else { "off" };
        self.print(&format!(
            "timeout  {timeout}  limit of each call\nchecked  {checked}  check arguments of typed \
             services before they are sent\n"
        ))
    }

    fn help_of(&self, name: &str) -> Result<(), CommandError> {
        let known = self.known();
        if let Some(help) = show::help_of(&known, name, self.paint(), columns()) {
            return self.print(&help);
        }
        let names = known.names();
        let message = if names.contains(&name) {
            format!("help: the plugin does not describe its command \"{}\"", Escaped(name))
        } else {
            let verbs = line::VERBS.iter().map(|verb| verb.name);
            match nearest_name(name, names.into_iter().chain(verbs)) {
                Some(meant) => format!("help: did you mean \"{}\"?", Escaped(meant)),
                None => {
                    format!("help: nothing is known of \"{}\"; `help` lists all", Escaped(name))
                }
            }
        };
        Err(CommandError::message(ExitReason::Usage, message))
    }

    fn print(&self, text: &str) -> Result<(), CommandError> {
        report::print_interruptible(text, &self.shutdown)
    }

    /// Paint of stdout.
    fn paint(&self) -> Paint {
        if self.start.watch == Watch::Shown { self.report.paint() } else { Paint::Plain }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the plugin. Returns the exit reason of the shell.
    ///
    /// # Errors
    /// As for [`run::final_reason`].
    pub(super) fn end(
        self,
        result: Result<ExitReason, CommandError>,
    ) -> Result<ExitReason, CommandError> {
        self.jobs.cancel_all();
        self.interrupts.end();
        let Some(live) = self.live else { return result };
        let name = live.session.plugin.name().to_owned();
        if self.start.watch == Watch::Shown && live.ended().is_some() {
            // The user knows.
            let _ = live.end();
            return self.shutdown.failure().map_or(result, Err);
        }
        let stopped = live.end();
        run::final_reason(&name, result, stopped, &self.report, &self.shutdown)
    }
}

/// Shows an error to the user of a terminal.
pub(super) fn show_failure(report: &Report, failure: &CommandError) {
    report.show(&Event::Failed(failure));
    // The report of a crash says nothing of the next step.
    if failure.crash.is_some() {
        report.note("`restart` starts it again");
    }
}

fn not_started() -> CommandError {
    let message = "the plugin does not run; `restart` starts it again";
    CommandError::message(ExitReason::NotStarted, message)
}

/// Width of texts.
fn columns() -> usize {
    text::columns(std::io::stdout()).filter(|it| *it > 0).unwrap_or(80).min(100)
}
