//! Randomness that a seed replays: SplitMix64 (Steele, Lea, Flood, 2014). For jitter, the choice of
//! peers, and numbers that must not meet by accident; not for secrets.

use std::time::Duration;

/// A seeded sequence of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub(crate) fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if there is none. The bias of a 64-bit remainder is beneath notice.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let drawn = self.any().checked_rem(bound as u64).unwrap_or(0);
        usize::try_from(drawn).expect("below a usize")
    }

    /// A time from `least` up to `most`.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let spread = most.saturating_sub(least).as_micros();
        let spread = u64::try_from(spread).unwrap_or(u64::MAX);
        least + Duration::from_micros(self.any() % spread.saturating_add(1))
    }

    /// Up to `count` of the items, each at most once.
    pub(crate) fn pick<T>(&mut self, mut items: Vec<T>, count: usize) -> Vec<T> {
        for at in 0..count.min(items.len()) {
            let other = at + self.below(items.len() - at);
            items.swap(at, other);
        }
        items.truncate(count);
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays_and_picks_are_distinct() {
        let draw = |seed| {
            let mut dice = Dice::new(seed);
            dice.pick((0..100).collect::<Vec<_>>(), 10)
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut picked = draw(3);
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked.len(), 10);
        assert_eq!(Dice::new(1).below(0), 0);
    }
}
