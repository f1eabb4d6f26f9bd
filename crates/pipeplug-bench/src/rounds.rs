//! The run: rounds, in which all subjects take turns.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use crate::driver::{self, CaseOutcome, Figure, Measured};
use crate::figures::{Absent, Document, Row};
use crate::machine::{self, Machine};
use crate::plan::{self, Case, Often, Size};
use crate::stats::Random;
use crate::subjects::{self, Field, Subject, is_wanted};

/// Selection of cases and subjects, and the number of rounds.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) size: Size,
    pub(crate) rounds: Option<u32>,
    pub(crate) subjects: Vec<String>,
    pub(crate) metrics: Vec<String>,
    pub(crate) seed: Option<u64>,
    /// How it was asked for.
    pub(crate) command: String,
}

/// After so many failures in a row a subject is not asked for the same thing again.
const GIVE_UP: u32 = 2;

/// Measures everything.
///
/// # Errors
/// There is nothing to measure, or no place for temporary files. What goes wrong with a subject is
/// a row.
pub(crate) fn run(request: &Request) -> Result<Document> {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started = Instant::now();
    let seed = request.seed.unwrap_or(began.as_nanos() as u64 & 0xffff_ffff);
    let rounds = request.rounds.unwrap_or(if request.size == Size::Quick { 2 } else { 5 });
    let Field { mut subjects, mut absent, peers } = subjects::wanted(&request.subjects)?;
    subjects.retain(|subject| request.size == Size::Full || plan::is_in_quick(subject));
    let mut cases = plan::cases(request.size);
    cases.retain(|case| is_wanted(case.work.name(), &request.metrics));
    ensure!(!subjects.is_empty(), "no subject of that name");
    ensure!(!cases.is_empty(), "no metric of that name");
    driver::adopt_orphans()?;
    let dir = tempfile::tempdir().context("a folder for what subjects leave behind")?;
    let mut run = Run {
        target: Duration::from_millis(if request.size == Size::Quick { 150 } else { 500 }),
        random: Random::seeded(seed),
        state: BTreeMap::new(),
        rows: Vec::new(),
        dir: dir.path().to_owned(),
    };
    println!("{} subjects, {} cases, {rounds} rounds, seed {seed}", subjects.len(), cases.len());
    let (ticks, stolen) = machine::ticks();
    for round in 0..=rounds {
        let begun = Instant::now();
        run.round(round, &subjects, &cases);
        let name =
            if round == 0 { "pace found".to_owned() } else { format!("round {round} of {rounds}") };
        println!("\r{name} in {:.0} s{:40}", begun.elapsed().as_secs_f64(), "");
    }
    let (ticks_after, stolen_after) = machine::ticks();
    let mut machine = Machine::this();
    machine.stolen = 100.0 * (stolen_after - stolen) as f64 / (ticks_after - ticks).max(1) as f64;
    absent.extend(run.absent(&subjects));
    let mut rows = run.rows;
    rows.sort_by_key(|row| subjects.iter().position(|subject| subject.name == row.subject));
    Ok(Document {
        command: request.command.clone(),
        began: began.as_secs(),
        took: started.elapsed().as_secs(),
        rounds,
        seed,
        machine,
        versions: machine::tools(),
        peers,
        absent,
        rows,
    })
}

struct Run {
    /// How long one measurement is to take.
    target: Duration,
    random: Random,
    /// By the subject's name and the place of the case.
    state: BTreeMap<(String, usize), CaseState>,
    rows: Vec<Row>,
    dir: std::path::PathBuf,
}

/// CaseState of a subject in a case.
#[derive(Debug, Default)]
struct CaseState {
    /// Calls a second.
    pace: Option<f64>,
    failures: u32,
    absent: Option<String>,
}

impl Run {
    /// All cases of all subjects. The first round finds out how fast each is and does not count.
    fn round(&mut self, round: u32, subjects: &[Subject], cases: &[Case]) {
        for (place, case) in cases.iter().enumerate() {
            if case.often == Often::Once && round != 1 {
                continue;
            }
            let mut turn: Vec<&Subject> =
                subjects.iter().filter(|subject| case.fits(subject)).collect();
            self.random.shuffle(&mut turn);
            for subject in turn {
                print!(
                    "\r{:<16}{:<6}{:<18}",
                    case.work.name(),
                    case.situation.name(),
                    subject.name
                );
                // The line only says that this is alive.
                let _ = std::io::stdout().flush();
                self.measure(round, place, case, subject);
            }
        }
    }

    fn measure(&mut self, round: u32, place: usize, case: &Case, subject: &Subject) {
        let state = self.state.entry((subject.name.clone(), place)).or_default();
        if state.absent.is_some() || state.failures >= GIVE_UP {
            return;
        }
        let (fewest, most) = case.work.counts();
        let wanted = state.pace.map_or(0.0, |pace| pace * self.target.as_secs_f64());
        let count = (wanted as u64).clamp(fewest, most);
        match driver::measure(subject, case, count, &self.dir) {
            CaseOutcome::Measured(Measured { pace, figures }) => {
                state.failures = 0;
                state.pace = pace;
                if round > 0 {
                    figures
                        .into_iter()
                        .for_each(|figure| add(&mut self.rows, subject, case, figure));
                }
            }
            CaseOutcome::Absent(why) => state.absent = Some(why),
            CaseOutcome::Failed(error) => {
                state.failures += 1;
                let main = case.work.main_figure();
                row(&mut self.rows, subject, case, main, "").error = Some(error);
            }
        }
    }

    /// Those that brought nothing at all, and the first reason that each gave.
    fn absent(&self, subjects: &[Subject]) -> Vec<Absent> {
        let measured: BTreeSet<&str> = self.rows.iter().map(|row| row.subject.as_str()).collect();
        let why = |subject: &Subject| {
            let mut states = self.state.iter().filter(|((name, _), _)| *name == subject.name);
            states.find_map(|(_, state)| state.absent.clone())
        };
        let absent = subjects.iter().filter(|subject| !measured.contains(subject.name.as_str()));
        let absent = absent.filter_map(|subject| {
            Some(Absent { subject: subject.name.clone(), why: why(subject)? })
        });
        absent.collect()
    }
}

fn add(rows: &mut Vec<Row>, subject: &Subject, case: &Case, figure: Figure) {
    row(rows, subject, case, &figure.name, figure.unit).add(figure.value);
}

/// The row of that figure, made where there is none.
fn row<'a>(
    rows: &'a mut Vec<Row>,
    subject: &Subject,
    case: &Case,
    figure: &str,
    unit: &str,
) -> &'a mut Row {
    let metric = format!("{}.{figure}", case.work.name());
    let (situation, parameter) = (case.situation.name(), case.work.parameter());
    let is_it = |row: &Row| {
        row.subject == subject.name
            && row.metric == metric
            && row.situation == situation
            && row.parameter == parameter
    };
    let at = rows.iter().position(is_it).unwrap_or_else(|| {
        rows.push(Row {
            subject: subject.name.clone(),
            metric,
            situation: situation.into(),
            parameter,
            unit: unit.into(),
            values: Vec::new(),
            median: None,
            min: None,
            max: None,
            error: None,
        });
        rows.len() - 1
    });
    &mut rows[at]
}
