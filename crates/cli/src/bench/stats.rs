//! What was measured: latencies per kind of operation, and what did not go as it should.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::workload::Kind;

/// Latencies beyond count as this.
const MAX_LATENCY_US: u64 = 600_000_000;
/// Three significant digits.
const DIGITS: u8 = 3;
/// How many different errors are kept apart.
const MAX_ERRORS: usize = 16;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct Stats {
    latencies: BTreeMap<Kind, Histogram<u64>>,
    /// Reads that found nothing.
    pub(super) missing: u64,
    /// Reads that found siblings.
    pub(super) siblings: u64,
    errors: BTreeMap<String, u64>,
    /// Operations that were to begin and could not, since all clients were busy.
    pub(super) unsent: u64,
}

/// What became of an operation, beside its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Result {
    /// It went well.
    Good,
    /// It read nothing.
    Missing,
    /// It read siblings.
    Siblings,
    /// It failed.
    Failed(String),
}

impl Stats {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            latencies: BTreeMap::new(),
            missing: 0,
            siblings: 0,
            errors: BTreeMap::new(),
            unsent: 0,
        }
    }

    /// Counts an operation.
    pub(super) fn add(&mut self, kind: Kind, latency: Duration, result: Result) {
        match result {
            Result::Good => {}
            Result::Missing => self.missing += 1,
            Result::Siblings => self.siblings += 1,
            Result::Failed(error) => {
                self.add_errors(error, 1);
                return;
            }
        }
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
        self.latencies.entry(kind).or_insert_with(empty).saturating_record(us);
    }

    fn add_errors(&mut self, error: String, count: u64) {
        let room = self.errors.len() < MAX_ERRORS;
        let error = if room || self.errors.contains_key(&error) { error } else { "others".into() };
        *self.errors.entry(error).or_default() += count;
    }

    /// Adds another thread's.
    pub(super) fn merge(&mut self, other: Stats) {
        for (kind, theirs) in other.latencies {
            let own = self.latencies.entry(kind).or_insert_with(empty);
            own.add(theirs).expect("all histograms have the same bounds");
        }
        for (error, count) in other.errors {
            self.add_errors(error, count);
        }
        self.missing += other.missing;
        self.siblings += other.siblings;
        self.unsent += other.unsent;
    }

    /// The latencies of each kind that there was, in microseconds.
    pub(super) fn latencies(&self) -> impl Iterator<Item = (Kind, &Histogram<u64>)> {
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, self.latencies.get(&kind)?)))
    }

    /// The latencies of all kinds together.
    pub(super) fn all(&self) -> Histogram<u64> {
        let mut all = empty();
        for histogram in self.latencies.values() {
            all.add(histogram).expect("all histograms have the same bounds");
        }
        all
    }

    /// What failed, and how often.
    pub(super) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS).expect("the bounds are constants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_add_up() {
        let mut stats = Stats::new();
        stats.add(Kind::Read, Duration::from_micros(100), Result::Good);
        let mut other = Stats::new();
        other.add(Kind::Read, Duration::from_micros(300), Result::Missing);
        other.add(Kind::Update, Duration::from_secs(5000), Result::Good);
        other.add(Kind::Update, Duration::ZERO, Result::Failed("no".into()));
        stats.merge(other);
        let counts: Vec<_> = stats.latencies().map(|(kind, h)| (kind, h.len())).collect();
        assert_eq!(counts, [(Kind::Read, 2), (Kind::Update, 1)]);
        assert_eq!((stats.missing, stats.errors()["no"], stats.all().len()), (1, 1, 3));
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut stats = Stats::new();
        for number in 0..100 {
            let error = format!("error {number}");
            stats.add(Kind::Read, Duration::ZERO, Result::Failed(error));
        }
        assert_eq!(stats.errors().len(), MAX_ERRORS + 1);
        assert_eq!(stats.errors().values().sum::<u64>(), 100);
    }
}
