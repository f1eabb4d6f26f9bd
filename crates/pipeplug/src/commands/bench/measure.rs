//! Rounds of a measurement: each starts a plugin, loads it, and stops it.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use pipeplug_host::Plugin;

use super::BenchArgs;
use super::figures::Figures;
use super::load::{Load, Round};
use super::versus::Versus;
use crate::args::calls::CallArg;
use crate::args::sandbox::Level;
use crate::args::target::Target;
use crate::cli::Globals;
use crate::commands::run;
use crate::exit::{CommandError, ExitReason};
use crate::output::event::Event;
use crate::output::report::{Mode, Report};
use crate::session::Session;
use crate::session::answers::AnswerHandler;
use crate::session::shutdown::Shutdown;

/// Warm-up, unless `--warmup` says otherwise.
const WARM_UP: Duration = Duration::from_secs(1);

/// Figures of a run, and the error that has ended it early.
pub(super) struct Measured {
    pub(super) plugins: Vec<(String, Figures)>,
    pub(super) versus: Option<Versus>,
    /// Size of a request.
    pub(super) size: usize,
    pub(super) died: Option<CommandError>,
}

/// Measurement of one or two plugins.
pub(super) struct Bench<'a> {
    pub(super) args: &'a BenchArgs,
    pub(super) globals: &'a Globals,
    pub(super) call: &'a CallArg,
    pub(super) load: &'a Load,
    pub(super) level: Level,
    pub(super) answers: AnswerHandler,
    pub(super) shutdown: &'a Shutdown,
    /// Size of a request, which the arguments of a typed service have only once they are JSON.
    pub(super) size: Cell<usize>,
}

impl Bench<'_> {
    pub(super) fn measure(&self, targets: &[Target]) -> Result<Measured, CommandError> {
        let args = self.args;
        let [first, second] = targets else {
            let mut plugins = Vec::new();
            let mut died = None;
            for target in targets {
                let (figures, failure) = self.round(target, args.duration)?;
                plugins.push((target.name().to_owned(), figures));
                died = died.or(failure);
            }
            return Ok(Measured { plugins, versus: None, size: self.size.get(), died });
        };
        let time = args.duration / args.rounds;
        let mut died = None;
        let mut rounds = Vec::new();
        for round in 0..args.rounds {
            // Each plugin is the first one in every second round.
            let both = if round.is_multiple_of(2) { [first, second] } else { [second, first] };
            let mut figures = Vec::new();
            for target in both {
                match self.round(target, time) {
                    Ok((measured, failure)) => {
                        figures.push(measured);
                        died = died.or(failure);
                    }
                    // What was measured before it is shown.
                    Err(failure) if !rounds.is_empty() => died = died.or(Some(failure)),
                    Err(failure) => return Err(failure),
                }
            }
            if !round.is_multiple_of(2) {
                figures.reverse();
            }
            let is_cut = self.shutdown.is_begun() || died.is_some();
            // A round that was cut short compares nothing.
            if let (Ok(figures), true) =
                (<[Figures; 2]>::try_from(figures), !is_cut || rounds.is_empty())
            {
                rounds.push(figures);
            }
            if is_cut {
                break;
            }
        }
        let versus = Versus::new(rounds);
        let figures = versus.as_ref().map(|it| it.figures.to_vec()).unwrap_or_default();
        let names = names(args, [first.name(), second.name()]);
        Ok(Measured {
            plugins: names.into_iter().zip(figures).collect(),
            versus,
            size: self.size.get(),
            died,
        })
    }

    /// Starts a plugin, measures it, and stops it. Each round has a process of its own: one may be
    /// lucky with its processor or its memory, and the spread of the rounds should tell.
    fn round(
        &self,
        target: &Target,
        time: Duration,
    ) -> Result<(Figures, Option<CommandError>), CommandError> {
        let shutdown = self.shutdown;
        let report = Arc::new(Report::new(Mode::Text, target.name(), self.globals, shutdown));
        let answers = self.answers.reporting_to(&report);
        let session =
            Session::start(target, &self.args.start, self.level, &report, shutdown, answers)?;
        report.show(&Event::Started(&session.started()));
        let warm_up = self.args.warmup.unwrap_or_else(|| WARM_UP.min(time / 10));
        let measured = self.load_for(&session.plugin, &report).map(|load| {
            let Round { figures, died } = load.measure(&session.plugin, warm_up, time, shutdown);
            let died = died.map(|error| {
                let failure = run::died(&session.plugin, error.clone());
                failure.of_call(&error).of_command(&load.command)
            });
            (figures, died)
        });
        let ended = session.end();
        let (figures, died) = measured?;
        match ended {
            Ok(stopped) => {
                report.show(&Event::Ended(stopped));
                Ok((figures, died))
            }
            Err(error) => {
                let failure = CommandError::new(ExitReason::Died, error);
                Ok((figures, died.or(Some(failure))))
            }
        }
    }

    /// The load, with the data as this plugin takes it.
    fn load_for(&self, plugin: &Plugin, report: &Report) -> Result<Load, CommandError> {
        let load = self.load;
        let (data, timeout) = (load.data.clone(), load.timeout);
        let data = run::prepare_data(self.call, data, plugin, timeout, report, self.shutdown)?;
        self.size.set(data.len());
        Ok(Load { data, ..load.clone() })
    }
}

/// Names of two plugins: as on the command line, if their own are the same.
fn names(args: &BenchArgs, names: [&str; 2]) -> [String; 2] {
    match &args.vs {
        Some(second) if names[0] == names[1] => {
            let first = args.start.plugin().unwrap_or_default();
            let [first, second] =
                [first, second.as_os_str()].map(|name| name.to_string_lossy().into_owned());
            if first == second {
                return [format!("{first} (1)"), format!("{second} (2)")];
            }
            [first, second]
        }
        _ => names.map(str::to_owned),
    }
}
