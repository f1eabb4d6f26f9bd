//! Lanes: jobs of commands that are handled one at a time, in the order in which they came. No
//! threads, no I/O.

use std::collections::{HashMap, VecDeque};

use super::job::Job;
use crate::connection::cancellation::WorkerSlot;
use crate::options::Order;

/// Lanes of a connection that handles some commands, or all, in order.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Lane of each command that is handled in order. `None` if there is one lane for all.
    by_command: Option<HashMap<String, LaneIndex>>,
    /// Lanes whose first job may start.
    ready: VecDeque<LaneIndex>,
    /// Number of jobs in all lanes.
    len: usize,
    /// True if the last job that was taken was one of a lane. Lanes and other commands take turns.
    had_turn: bool,
}

/// Index of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LaneIndex(usize);

#[derive(Debug, Default)]
struct Lane {
    jobs: VecDeque<Job>,
    state: LaneState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum LaneState {
    /// No job is queued or runs.
    #[default]
    Empty,
    /// The first job may start: the lane is in `ready`.
    Ready,
    /// The worker in this slot runs a job.
    Runs(WorkerSlot),
    /// A handler has returned and kept its turn.
    Kept,
}

impl Lanes {
    /// `None` if no command is handled in order.
    pub(super) fn new(order: &Order) -> Option<Box<Self>> {
        let (count, by_command) = match order {
            Order::Concurrent => return None,
            Order::InOrder => (1, None),
            Order::InOrderFor(sequences) => {
                let commands = sequences.iter().enumerate().flat_map(|(index, commands)| {
                    commands.iter().map(move |command| (command.clone(), LaneIndex(index)))
                });
                (sequences.len(), Some(commands.collect()))
            }
        };
        let lanes = std::iter::repeat_with(Lane::default).take(count).collect();
        let ready = VecDeque::new();
        Some(Box::new(Self { lanes, by_command, ready, len: 0, had_turn: false }))
    }

    /// Queues a job in the lane of its command. Returns the job of a command without one.
    pub(super) fn push(&mut self, mut job: Job) -> Option<Job> {
        let index = match &self.by_command {
            None => LaneIndex(0),
            Some(by_command) => match by_command.get(job.command.as_str()) {
                Some(index) => *index,
                None => return Some(job),
            },
        };
        let lane = &mut self.lanes[index.0];
        match lane.state {
            LaneState::Empty => {
                lane.state = LaneState::Ready;
                self.ready.push_back(index);
            }
            LaneState::Ready => {}
            // It may wait for long, and must not keep the whole input meanwhile.
            LaneState::Runs(_) | LaneState::Kept => job.own(),
        }
        lane.jobs.push_back(job);
        self.len += 1;
        None
    }

    /// Takes the next job that may start, for the worker with this slot. `others` tells that jobs
    /// of other commands wait: those and the lanes take turns.
    pub(super) fn pop(&mut self, slot: WorkerSlot, others: bool) -> Option<Job> {
        if others && self.had_turn {
            self.had_turn = false;
            return None;
        }
        let index = self.ready.pop_front()?;
        let lane = &mut self.lanes[index.0];
        let job = lane.jobs.pop_front().expect("a ready lane has a job");
        lane.state = LaneState::Runs(slot);
        self.len -= 1;
        self.had_turn = true;
        Some(job)
    }

    /// Notes that the handler in this slot has returned, if it was one of a lane.
    pub(super) fn returned(&mut self, slot: WorkerSlot) {
        if let Some(index) = self.run_by(slot) {
            self.free(index);
        }
    }

    /// Keeps the turn of the handler that runs in this slot after its return, if it has one.
    pub(super) fn keep(&mut self, slot: WorkerSlot) -> Option<LaneIndex> {
        let index = self.run_by(slot)?;
        self.lanes[index.0].state = LaneState::Kept;
        Some(index)
    }

    /// Lets the next job of a lane start.
    pub(super) fn free(&mut self, index: LaneIndex) {
        let lane = &mut self.lanes[index.0];
        lane.state = if lane.jobs.is_empty() {
            LaneState::Empty
        } else {
            self.ready.push_back(index);
            LaneState::Ready
        };
    }

    /// Takes out the jobs that will not be handled.
    pub(super) fn take_out(&mut self, which: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut out = Vec::new();
        for lane in &mut self.lanes {
            let jobs = std::mem::take(&mut lane.jobs);
            let (taken, rest) = jobs.into_iter().partition::<Vec<_>, _>(&which);
            lane.jobs = rest.into();
            if lane.jobs.is_empty() && lane.state == LaneState::Ready {
                lane.state = LaneState::Empty;
            }
            self.len -= taken.len();
            out.extend(taken);
        }
        let lanes = &self.lanes;
        self.ready.retain(|index| lanes[index.0].state == LaneState::Ready);
        out
    }

    pub(super) fn jobs_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.lanes.iter_mut().flat_map(|lane| &mut lane.jobs)
    }

    /// Number of jobs.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Number of jobs that may start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    fn run_by(&self, slot: WorkerSlot) -> Option<LaneIndex> {
        let runs = LaneState::Runs(slot);
        self.lanes.iter().position(|lane| lane.state == runs).map(LaneIndex)
    }
}
