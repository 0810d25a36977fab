//! Rounds: comparisons with many nodes that count as one, with the units that came of them.
//!
//! A round is complete when every comparison of it and every unit that it produced has ended, however.
//! Rounds can overlap: a long repair does not keep others from being compared.

use std::collections::BTreeMap;

/// So many rounds under way keep another from beginning by itself.
const ACTIVE_MAX: usize = 4;
/// So many keep another from being begun by an operator, who is referred to the latest.
const STARTED_MAX: usize = 16;

/// How far a round has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many nodes are still to be compared with.
    pub comparing: u64,
    /// How many units have ended.
    pub done: u64,
    /// How many units there are so far.
    pub total: u64,
    /// Whether it is complete.
    pub is_complete: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    active: BTreeMap<u64, Round>,
    begun: u64,
    pub(crate) completed: u64,
    /// The wall time of the last one's completion.
    pub(crate) last_ms: Option<u64>,
}

#[derive(Debug, Default)]
struct Round {
    sweeps: u64,
    done: u64,
    total: u64,
}

impl Round {
    fn is_complete(&self) -> bool {
        self.sweeps == 0 && self.done == self.total
    }
}

impl Rounds {
    /// Begins one by itself, unless too many are under way.
    pub(crate) fn begin(&mut self) -> Option<u64> {
        (self.active.len() < ACTIVE_MAX).then(|| self.add())
    }

    /// Begins one for an operator; the latest stands for it if too many are under way.
    pub(crate) fn start(&mut self) -> (u64, bool) {
        match self.active.last_key_value() {
            Some((latest, _)) if self.active.len() >= STARTED_MAX => (*latest, false),
            _ => (self.add(), true),
        }
    }

    pub(crate) fn sweep_added(&mut self, round: u64) {
        self.with(&[round], |round| round.sweeps += 1);
    }

    pub(crate) fn sweep_ended(&mut self, rounds: &[u64]) {
        self.with(rounds, |round| round.sweeps -= 1);
    }

    pub(crate) fn unit_added(&mut self, rounds: &[u64]) {
        self.with(rounds, |round| round.total += 1);
    }

    pub(crate) fn unit_ended(&mut self, rounds: &[u64]) {
        self.with(rounds, |round| round.done += 1);
    }

    /// Takes note of those that are complete.
    pub(crate) fn settle(&mut self, wall_ms: u64) {
        let before = self.active.len();
        self.active.retain(|_, round| !round.is_complete());
        if self.active.len() < before {
            self.completed += (before - self.active.len()) as u64;
            self.last_ms = Some(wall_ms);
        }
    }

    /// Of a round that was begun.
    pub(crate) fn progress(&self, round: u64) -> Option<Progress> {
        if let Some(Round { sweeps, done, total }) = self.active.get(&round) {
            let (comparing, done, total) = (*sweeps, *done, *total);
            return Some(Progress { comparing, done, total, is_complete: false });
        }
        (1..=self.begun).contains(&round).then_some(Progress {
            comparing: 0,
            done: 0,
            total: 0,
            is_complete: true,
        })
    }

    /// The last one of which it, and all before it, are complete.
    pub(crate) fn complete_up_to(&self) -> u64 {
        self.active.first_key_value().map_or(self.begun, |(first, _)| first - 1)
    }

    fn add(&mut self) -> u64 {
        self.begun += 1;
        self.active.insert(self.begun, Round::default());
        self.begun
    }

    fn with(&mut self, rounds: &[u64], act: impl Fn(&mut Round)) {
        for number in rounds {
            self.active.get_mut(number).into_iter().for_each(&act);
        }
    }
}
