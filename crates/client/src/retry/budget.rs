//! The retry budget: a bucket of tokens that operations fill a little and retries empty.
//!
//! When a cluster is in trouble, every client that tries three times triples its load, and the trouble
//! stays when its cause has gone. With a budget, retries add a fifth at most.

use std::time::{Duration, Instant};

/// A bucket of tokens: each operation puts a fifth of one in, and so does time; a retry takes one out.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// In thousandths of a token, so that sums are exact.
    millitokens: u64,
    filled: Instant,
}

impl RetryBudget {
    const RETRY: u64 = 1000;
    /// A fifth of a retry for each operation.
    const PER_OPERATION: u64 = Self::RETRY / 5;
    /// What a client with few operations may do all the same.
    const PER_SECOND: u64 = 5 * Self::RETRY;
    /// A burst at most: a node that dies takes some requests of each client with it at once.
    const FULL: u64 = 100 * Self::RETRY;

    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { millitokens: Self::FULL, filled: now }
    }

    /// An operation begins.
    pub(crate) fn operation(&mut self) {
        self.millitokens = (self.millitokens + Self::PER_OPERATION).min(Self::FULL);
    }

    /// Takes what a retry costs, if it is there.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.trickle(now);
        let left = self.millitokens.checked_sub(Self::RETRY);
        self.millitokens = left.unwrap_or(self.millitokens);
        left.is_some()
    }

    fn trickle(&mut self, now: Instant) {
        // Whole milliseconds only, the rest stays to be counted: many short spans lose nothing.
        let elapsed = now.saturating_duration_since(self.filled).as_millis();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.filled += Duration::from_millis(elapsed);
        let gain = elapsed.saturating_mul(Self::PER_SECOND / 1000);
        self.millitokens = self.millitokens.saturating_add(gain).min(Self::FULL);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Operation,
        Retry,
        Pass(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => Just(Event::Operation),
            3 => Just(Event::Retry),
            1 => (0..50_000u64).prop_map(Event::Pass),
        ]
    }

    proptest! {
        #[test]
        fn retries_stay_within_their_share(events in prop::collection::vec(event(), 0..2000)) {
            let start = Instant::now();
            let mut now = start;
            let mut budget = RetryBudget::new(now);
            let (mut operations, mut retries) = (0u64, 0u64);
            for event in events {
                match event {
                    Event::Operation => {
                        budget.operation();
                        operations += 1;
                    }
                    Event::Retry => retries += u64::from(budget.take(now)),
                    Event::Pass(us) => now += Duration::from_micros(us),
                }
                let trickle = (now - start).as_millis() as u64 * 5 / 1000;
                prop_assert!(retries <= 100 + operations / 5 + trickle + 1);
            }
        }

        #[test]
        fn short_spans_add_up(spans in prop::collection::vec(1..5_000u64, 1..500)) {
            let start = Instant::now();
            let (mut often, mut once) = (RetryBudget::new(start), RetryBudget::new(start));
            let mut now = start;
            (often.millitokens, once.millitokens) = (0, 0);
            for us in spans {
                now += Duration::from_micros(us);
                often.trickle(now);
            }
            once.trickle(now);
            prop_assert_eq!(often.millitokens, once.millitokens);
        }
    }

    #[test]
    fn an_empty_bucket_fills_again() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        assert_eq!((0..1000).filter(|_| budget.take(now)).count(), 100);
        assert!(budget.take(now + Duration::from_millis(200)));
        assert!(!budget.take(now + Duration::from_millis(399)));
        for _ in 0..5 {
            budget.operation();
        }
        assert!(budget.take(now + Duration::from_millis(399)));
    }
}
