//! Which key is next, what it is called, and what is written to it.

use std::sync::atomic::{AtomicU64, Ordering};

use anello_client::Bytes;
use rand::{Rng, RngExt};

use super::workload::Distribution;

/// The exponent of Zipf's law that YCSB takes.
const THETA: f64 = 0.99;
/// Values are cut from a pool of random bytes: nothing to compress, and no cost to make.
const POOL_BYTES: usize = 1 << 20;

/// The name of a key: 16 bytes.
pub(super) fn name(number: u64) -> String {
    format!("user{number:012}")
}

/// The keys there are. Shared by all clients, since inserts add to them.
#[derive(Debug)]
pub(super) struct Keys {
    next: AtomicU64,
    /// How many of the latest may still be on their way.
    unsettled: u64,
    least: u64,
}

impl Keys {
    /// So many keys, and clients that insert one at a time.
    pub(super) fn new(count: u64, clients: u64) -> Self {
        Self { next: AtomicU64::new(count), unsettled: clients, least: count }
    }

    /// A new key's number.
    pub(super) fn insert(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How many keys are there for sure, as far as clients can be trusted to be about equally fast.
    fn settled(&self) -> u64 {
        self.next.load(Ordering::Relaxed).saturating_sub(self.unsettled).max(self.least)
    }
}

/// Picks keys.
#[derive(Clone, Debug)]
pub(super) struct Chooser {
    distribution: Distribution,
    zipf: Zipf,
}

impl Chooser {
    /// A chooser among so many keys.
    pub(super) fn new(distribution: Distribution, count: u64) -> Self {
        Self { distribution, zipf: Zipf::new(count) }
    }

    /// The number of the next key.
    pub(super) fn next(&self, keys: &Keys, random: &mut impl Rng) -> u64 {
        match self.distribution {
            Distribution::Uniform => random.random_range(0..keys.settled().max(1)),
            Distribution::Zipfian => self.zipf.rank(random.random()),
            Distribution::Latest => {
                keys.settled().saturating_sub(1).saturating_sub(self.zipf.rank(random.random()))
            }
        }
    }
}

/// Ranks by Zipf's law, in constant time (Gray et al., "Quickly generating billion-record synthetic
/// databases", 1994).
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64) -> Self {
        let zeta = |count: u64| (1..=count).map(|rank| (rank as f64).powf(-THETA)).sum::<f64>();
        let (all, two) = (zeta(count), zeta(2));
        let count = count as f64;
        let eta = (1.0 - (2.0 / count).powf(1.0 - THETA)) / (1.0 - two / all);
        Self { count, zeta: all, eta }
    }

    /// The rank that a draw from 0 to 1 stands for, from 0.
    fn rank(&self, draw: f64) -> u64 {
        let at = draw * self.zeta;
        if at < 1.0 {
            return 0;
        }
        if at < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.count * (self.eta * draw - self.eta + 1.0).powf(1.0 / (1.0 - THETA));
        rank.min(self.count - 1.0).max(0.0) as u64
    }
}

/// What is written.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pool: Bytes,
    bytes: usize,
}

impl Values {
    /// Values of so many bytes.
    pub(super) fn new(bytes: usize, random: &mut impl Rng) -> Self {
        let mut pool = vec![0; bytes + POOL_BYTES];
        random.fill_bytes(&mut pool);
        Self { pool: pool.into(), bytes }
    }

    /// A value, which shares the pool's memory.
    pub(super) fn next(&self, random: &mut impl Rng) -> Bytes {
        let at = random.random_range(0..POOL_BYTES);
        self.pool.slice(at..at + self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::SmallRng};

    use super::*;

    fn counts(distribution: Distribution, count: u64, draws: usize) -> Vec<usize> {
        let mut random = SmallRng::seed_from_u64(1);
        let chooser = Chooser::new(distribution, count);
        let keys = Keys::new(count, 8);
        let mut counts = vec![0; count as usize];
        for _ in 0..draws {
            counts[chooser.next(&keys, &mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipfs_law_holds() {
        let counts = counts(Distribution::Zipfian, 1000, 200_000);
        // 1 / zeta(1000, 0.99) of the draws are for the first key, half as many for the second.
        let zeta: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-THETA)).sum();
        let expected = 200_000.0 / zeta;
        assert!((counts[0] as f64 / expected - 1.0).abs() < 0.05, "{} {expected}", counts[0]);
        assert!((counts[1] as f64 * 2.0 / expected - 1.0).abs() < 0.1, "{}", counts[1]);
        assert!(counts[999] < counts[0] / 100);
    }

    #[test]
    fn uniform_is_uniform_and_latest_is_the_other_way_round() {
        let uniform = counts(Distribution::Uniform, 100, 100_000);
        assert!(uniform.iter().all(|count| (800..1200).contains(count)), "{uniform:?}");
        let latest = counts(Distribution::Latest, 1000, 100_000);
        assert!(latest[999] > latest[500] * 50);
    }

    #[test]
    fn few_keys_are_no_trouble() {
        for count in 1..4 {
            for distribution in [Distribution::Zipfian, Distribution::Latest, Distribution::Uniform]
            {
                assert_eq!(counts(distribution, count, 100).iter().sum::<usize>(), 100);
            }
        }
    }

    #[test]
    fn inserted_keys_are_read_once_they_are_settled() {
        let keys = Keys::new(10, 4);
        for _ in 0..3 {
            keys.insert();
        }
        assert_eq!(keys.settled(), 10);
        for _ in 0..3 {
            keys.insert();
        }
        assert_eq!(keys.settled(), 12);
        assert_eq!(name(12).len(), 16);
    }
}
