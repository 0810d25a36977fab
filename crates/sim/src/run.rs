//! One seed, one run, one outcome.

use std::{
    panic,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anello_protocol::time::Moment;

use crate::{client::Mix, faults::FaultMix, fleet::Fleet, model::Violation};

/// A run is one thread; this many run at once.
const THREADS: usize = 2;

/// What a run is drawn from. The same settings make the same run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// What clients do.
    pub mix: Mix,
    /// What goes wrong.
    pub faults: FaultMix,
    /// Whether every line of the history is printed.
    pub is_traced: bool,
}

impl Settings {
    /// Everything, of one seed.
    pub fn of(seed: u64) -> Self {
        Self { seed, mix: Mix::Any, faults: FaultMix::Any, is_traced: false }
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events of the schedule.
    pub events: u64,
    /// Packets between nodes.
    pub packets: u64,
    /// Operations that clients began.
    pub operations: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Attempts that were answered with an error.
    pub failed: u64,
    /// Answers that never arrived.
    pub lost_replies: u64,
    /// Faults.
    pub faults: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Verdicts, while clients were at work, that a node can't be reached.
    pub given_up: u64,
    /// Versions that became durable as hints.
    pub hints: u64,
    /// Versions that were moved by hints and anti-entropy.
    pub repairs: u64,
    /// Changes of the ring that came to their end.
    pub changes: u64,
    /// Keys that nodes forgot.
    pub purges: u64,
    /// Times that a node was put into quarantine.
    pub quarantines: u64,
    /// The most versions that a reader was shown.
    pub siblings_max: u64,
    /// How long it was, in virtual milliseconds.
    pub virtual_ms: u64,
}

impl Counters {
    /// Those of several runs together.
    pub fn add(&mut self, other: &Counters) {
        self.events += other.events;
        self.packets += other.packets;
        self.operations += other.operations;
        self.reads += other.reads;
        self.writes += other.writes;
        self.failed += other.failed;
        self.lost_replies += other.lost_replies;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.given_up += other.given_up;
        self.hints += other.hints;
        self.repairs += other.repairs;
        self.changes += other.changes;
        self.purges += other.purges;
        self.quarantines += other.quarantines;
        self.siblings_max = self.siblings_max.max(other.siblings_max);
        self.virtual_ms += other.virtual_ms;
    }
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub history_hash: u64,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// How much happened.
    pub counters: Counters,
}

/// Runs a seed. A machine that panics is a violation as well.
pub fn run(settings: Settings) -> Outcome {
    let ran = panic::catch_unwind(|| Fleet::new(settings).run());
    let Ok((model, history, counters)) = ran else {
        let what = "a machine panicked; see the standard error".into();
        let violation = Violation { check: "no panics", at: Moment::default(), what };
        let violations = vec![violation];
        return Outcome { history_hash: 0, violations, counters: Counters::default() };
    };
    let violations = model.violations().to_vec();
    Outcome { history_hash: history.hash(), violations, counters }
}

/// The one command that replays a run of [`Settings::of`] a seed.
pub fn replay_command(seed: u64) -> String {
    format!("cargo run -p anello-sim -- --seed {seed} --trace")
}

/// Runs seeds on two threads; those that failed, with what they broke.
pub fn run_all(settings: &[Settings]) -> Vec<(Settings, Outcome)> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(settings) = settings.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(*settings);
                    if !outcome.violations.is_empty() {
                        let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        failed.push((*settings, outcome));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}
