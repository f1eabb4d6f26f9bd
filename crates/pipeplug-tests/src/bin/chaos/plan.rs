//! Plan of a cycle, derived from the seed and the number of the cycle.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use fastrand::Rng;
use pipeplug_host::Format;
use pipeplug_host::{Options, Reading};

/// A cycle's plan. The guest's process makes the same one from the same two numbers.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) cycle: u64,
    pub(crate) stage: Stage,
    pub(crate) format: Format,
    pub(crate) host: Party,
    pub(crate) guest: Party,
    /// True if each pipe holds 4 KiB at first, and not the default of the system.
    pub(crate) small_pipes: bool,
    /// Faults, one after the other.
    pub(crate) faults: Vec<Fault>,
}

/// Setting of the cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// This process is the host, the guest is started as many times as this, one after the other.
    Processes { starts: usize, grandchild: bool },
    /// The host is a process of its own, which is killed.
    HostDies,
    /// This process has a supervisor, or a pool of so many processes where that is not 0.
    Supervised { pool: usize },
    /// Both sides are in this process, with a wire in each direction.
    Wires,
}

/// One side's settings and work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Party {
    pub(crate) side: Side,
    /// The most that a read or a write moves.
    transfer: Option<NonZeroUsize>,
    window: usize,
    outgoing: usize,
    handlers: NonZeroUsize,
    spins: bool,
    is_dedicated: bool,
    /// Threads that call the other side.
    pub(crate) callers: usize,
    /// Number of steps of each caller.
    pub(crate) steps: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Host,
    Guest,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) after: Duration,
    pub(crate) what: What,
}

/// Faults of processes and of connections, and those of wires.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum What {
    /// SIGKILL from outside.
    Shoot,
    /// SIGTERM from outside.
    Terminate,
    /// SIGKILL to so many of the next processes, as they start.
    DoomStarts(u64),
    /// Another process takes the place of each.
    Replace,
    Restart,
    StopAndStart(Duration),
    /// SIGSTOP and SIGCONT.
    Pause(Duration),
    /// SIGSTOP and then SIGKILL.
    PauseAndShoot(Duration),
    Stop,
    StopAtOnce,
    Kill,
    GuestExits,
    GuestAborts,
    Close(Side),
    End(Side),
    Cut(Side),
    CutAfter(Side, u64),
    Delay(Side, Duration),
    Shorten(Side, NonZeroUsize),
    Stall(Side, Duration),
}

impl Plan {
    pub(crate) fn of(seed: u64, cycle: u64) -> Self {
        let mut rng = rng(seed, cycle, 0);
        let stage = match rng.u32(..24) {
            0 => Stage::HostDies,
            20..24 => Stage::Supervised { pool: pick(&mut rng, [0, 0, 2, 3]) },
            1..=8 => Stage::Wires,
            _ => Stage::Processes {
                starts: pick(&mut rng, [1, 1, 2, 3]),
                grandchild: rng.u32(..8) == 0,
            },
        };
        let faults = match stage {
            Stage::HostDies => vec![Fault { after: moment(&mut rng), what: What::Shoot }],
            Stage::Processes { .. } => faults(&mut rng, of_process),
            Stage::Supervised { .. } => {
                let count = rng.usize(1..8);
                (0..count)
                    .map(|_| Fault { after: moment(&mut rng), what: of_supervised(&mut rng) })
                    .collect()
            }
            Stage::Wires => faults(&mut rng, of_wires),
        };
        Self {
            seed,
            cycle,
            stage,
            format: if rng.u32(..4) == 0 { Format::Classic } else { Format::Standard },
            host: Party::random(&mut rng, Side::Host),
            guest: Party::random(&mut rng, Side::Guest),
            small_pipes: rng.u32(..4) == 0,
            faults,
        }
    }

    pub(crate) fn party(&self, side: Side) -> &Party {
        match side {
            Side::Host => &self.host,
            Side::Guest => &self.guest,
        }
    }

    /// True if the connection may end before all work is done.
    pub(crate) fn breaks(&self) -> bool {
        self.faults.iter().any(|fault| {
            !matches!(
                fault.what,
                What::Pause(_)
                    | What::Replace
                    | What::Restart
                    | What::Delay(..)
                    | What::Shorten(..)
                    | What::Stall(..)
            )
        })
    }

    /// True if a supervisor is stopped while it is called.
    pub(crate) fn stops(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.what, What::StopAndStart(_)))
    }

    /// `bytes`, or what can be moved in as many steps as there is time for.
    pub(crate) fn size(&self, bytes: usize) -> usize {
        bytes.min(self.shortest().saturating_mul(1024))
    }

    /// `count`, or fewer of something small where each takes many steps.
    pub(crate) fn count(&self, count: usize) -> usize {
        if self.shortest() < 64 { count / 20 } else { count }
    }

    fn shortest(&self) -> usize {
        let transfers = [self.host, self.guest]
            .map(|party| party.transfer.map_or(usize::MAX, NonZeroUsize::get));
        let wires = self.faults.iter().map(|fault| match fault.what {
            What::Shorten(_, bytes) => bytes.get(),
            // Each credit has to wait for it.
            What::Delay(..) => 32,
            _ => usize::MAX,
        });
        transfers.into_iter().chain(wires).min().unwrap_or(usize::MAX)
    }
}

/// The random numbers of one part of a cycle.
pub(crate) fn rng(seed: u64, cycle: u64, part: u64) -> Rng {
    let mut mixed = Rng::with_seed(seed);
    for number in [cycle, part] {
        mixed = Rng::with_seed(mixed.u64(..) ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    mixed
}

fn moment(rng: &mut Rng) -> Duration {
    // Most of what goes wrong does so early.
    let most = pick(rng, [200, 2_000, 20_000]);
    Duration::from_micros(rng.u64(..most))
}

fn faults(rng: &mut Rng, what: impl Fn(&mut Rng) -> What) -> Vec<Fault> {
    let count = pick(rng, [0, 1, 1, 1, 2, 3]);
    (0..count).map(|_| Fault { after: moment(rng), what: what(rng) }).collect()
}

fn of_process(rng: &mut Rng) -> What {
    let time = moment(rng);
    match rng.u32(..12) {
        0 | 1 => What::Shoot,
        2 | 3 => What::Pause(time),
        4 => What::PauseAndShoot(time),
        5 | 6 => What::Stop,
        7 => What::StopAtOnce,
        8 => What::Kill,
        9 => What::GuestExits,
        10 => What::GuestAborts,
        _ => pick(rng, [What::Close(Side::Host), What::End(Side::Host)]),
    }
}

fn of_supervised(rng: &mut Rng) -> What {
    let time = moment(rng);
    match rng.u32(..12) {
        0..=2 => What::Shoot,
        3 => What::Terminate,
        4 => What::Pause(time),
        5 => What::DoomStarts(rng.u64(1..4)),
        6..=8 => What::Replace,
        9 | 10 => What::Restart,
        _ => What::StopAndStart(time),
    }
}

fn of_wires(rng: &mut Rng) -> What {
    let side = pick(rng, [Side::Host, Side::Guest]);
    let most = pick(rng, [100, 10_000, 1_000_000]);
    match rng.u32(..10) {
        0 => What::Cut(side),
        1 | 2 => What::CutAfter(side, rng.u64(..most)),
        3 => What::Delay(side, Duration::from_millis(rng.u64(1..4))),
        4 | 5 => What::Shorten(side, piece(rng)),
        6 | 7 => What::Stall(side, moment(rng)),
        8 => What::Close(side),
        _ => What::End(side),
    }
}

fn pick<T: Copy, const N: usize>(rng: &mut Rng, from: [T; N]) -> T {
    from[rng.usize(..N)]
}

fn piece(rng: &mut Rng) -> NonZeroUsize {
    let bytes = pick(rng, [1, 2, 7, 100, 4095, 4096, 5000]);
    NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN)
}

impl Party {
    fn random(rng: &mut Rng, side: Side) -> Self {
        Self {
            side,
            transfer: (rng.u32(..4) == 0).then(|| piece(rng)),
            window: pick(rng, [100, 64 << 10, 4 << 20, 4 << 20]),
            outgoing: pick(rng, [1, 64 << 10, 4 << 20, 4 << 20]),
            handlers: NonZeroUsize::new(pick(rng, [1, 2, 256, 256])).unwrap_or(NonZeroUsize::MIN),
            spins: rng.bool(),
            is_dedicated: rng.bool(),
            callers: rng.usize(..4) + usize::from(side == Side::Host),
            steps: rng.usize(3..25),
        }
    }

    /// The settings of its connection.
    pub(crate) fn options(&self, format: Format) -> Options {
        let mut options = Options::default();
        options.name = format!("{} of chaos", self.side.other());
        options.format = Some(format);
        if let Some(transfer) = self.transfer {
            options.transfer = transfer;
        }
        (options.window, options.outgoing, options.handlers) =
            (self.window, self.outgoing, self.handlers);
        options.stream_window = self.window;
        if !self.spins {
            options.spin = Duration::ZERO;
        }
        if self.is_dedicated {
            options.reading = Reading::Dedicated;
        }
        options
    }
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Host => Self::Guest,
            Self::Guest => Self::Host,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Guest => "guest",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_seed_and_cycle() {
        let shown = |seed, cycle| format!("{:?}", Plan::of(seed, cycle));
        assert_eq!(shown(7, 3), shown(7, 3));
        assert_ne!(shown(7, 3), shown(7, 4).replace("cycle: 4", "cycle: 3"));
        assert_ne!(shown(7, 3), shown(8, 3).replace("seed: 8", "seed: 7"));
    }

    #[test]
    fn a_few_hundred_cycles_have_all_that_can_go_wrong() {
        let plans: Vec<_> = (0..300).map(|cycle| Plan::of(1, cycle)).collect();
        let shown: String = plans.iter().map(|plan| format!("{plan:?}")).collect();
        for what in [
            "HostDies",
            "Wires",
            "Supervised { pool: 0 }",
            "Supervised { pool: 3 }",
            "what: Terminate",
            "DoomStarts(",
            "what: Replace",
            "what: Restart",
            "StopAndStart(",
            "grandchild: true",
            "starts: 3",
            "Classic",
            "small_pipes: true",
            "what: Shoot }",
            "Pause(",
            "PauseAndShoot",
            "what: Stop }",
            "StopAtOnce",
            "what: Kill }",
            "GuestExits",
            "GuestAborts",
            "Close(Host)",
            "Close(Guest)",
            "End(Host)",
            "End(Guest)",
            "Cut(",
            "CutAfter",
            "Delay",
            "Shorten",
            "Stall",
            "transfer: Some(1)",
            "handlers: 1,",
            "faults: []",
        ] {
            assert!(shown.contains(what), "{what}");
        }
        assert!(plans.iter().any(Plan::breaks) && !plans.iter().all(Plan::breaks));
    }
}
