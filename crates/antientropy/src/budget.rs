//! How many bytes a second may be moved: a bucket that fills at a rate, which gives way to clients.
//!
//! What has to be sent is sent whole and may leave the bucket in debt; nothing more is begun until that
//! is paid back. So the largest value gets through, however low the rate.

use std::time::Duration;

use anello_protocol::time::Moment;

/// The rate under the highest pressure, in bytes a second: repair always goes on.
const FLOOR: u64 = 64 << 10;
/// For how long what is not used is saved up, in milliseconds.
const SAVED_MS: u64 = 250;
/// A byte, in what the bucket is counted in.
const BYTE: i64 = 1_000_000;

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Budget {
    full_rate: u64,
    rate: u64,
    /// What may be sent, in millionths of a byte: whole bytes would gain or lose something each time that
    /// somebody looks, which is far more often than anything is sent.
    left: i64,
    counted: Moment,
}

impl Budget {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let rate = bytes_per_second.max(FLOOR);
        Self { full_rate: rate, rate, left: saved(rate), counted: Moment::default() }
    }

    /// How late clients' commits are, 0 to 100.
    pub(crate) fn press(&mut self, now: Moment, pressure: u8) {
        self.fill(now);
        let left = 100 - u64::from(pressure.min(100));
        self.rate = (self.full_rate / 100 * left).max(FLOOR);
        self.left = self.left.min(saved(self.rate));
    }

    /// Uses some, whether it is there or not.
    pub(crate) fn take(&mut self, now: Moment, bytes: usize) {
        self.fill(now);
        let taken = i64::try_from(bytes).unwrap_or(i64::MAX).saturating_mul(BYTE);
        self.left = self.left.saturating_sub(taken);
    }

    /// When something may be begun, if not at once.
    pub(crate) fn ready_at(&mut self, now: Moment) -> Option<Moment> {
        self.fill(now);
        let lacking = u64::try_from(BYTE - self.left).ok().filter(|lacking| *lacking > 0)?;
        Some(self.counted + Duration::from_micros(lacking.div_ceil(self.rate)))
    }

    fn fill(&mut self, now: Moment) {
        let passed = u64::try_from(now.since(self.counted).as_micros()).unwrap_or(u64::MAX);
        let gained = i64::try_from(passed.saturating_mul(self.rate)).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(gained).min(saved(self.rate));
        self.counted = self.counted.max(now);
    }
}

fn saved(rate: u64) -> i64 {
    i64::try_from(rate.saturating_mul(SAVED_MS * 1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many bytes get through within a second, in pieces.
    fn in_a_second(budget: &mut Budget, from: Moment, piece: usize) -> usize {
        let (mut now, mut sent) = (from, 0);
        while now < from + Duration::from_secs(1) {
            match budget.ready_at(now) {
                Some(at) => now = at,
                None => {
                    budget.take(now, piece);
                    sent += piece;
                }
            }
        }
        sent
    }

    #[test]
    fn it_keeps_to_the_rate_and_gives_way() {
        let mut budget = Budget::new(8 << 20);
        let start = Moment(1_000_000_000);
        let sent = in_a_second(&mut budget, start, 1000);
        assert!((8 << 20..=11 << 20).contains(&sent), "{sent}");
        for (pressure, least, most) in
            [(50, 4 << 20, 6 << 20), (100, 64 << 10, 90 << 10), (255, 64 << 10, 90 << 10)]
        {
            let at = start + Duration::from_secs(100 + pressure);
            budget.press(at, pressure as u8);
            let sent = in_a_second(&mut budget, at, 1000);
            assert!((least..=most).contains(&sent), "{pressure}: {sent}");
        }
    }

    /// Whoever asks all the time, within less than a byte takes, gets no more for it.
    #[test]
    fn to_look_costs_nothing_and_brings_nothing() {
        let mut budget = Budget::new(8 << 20);
        let start = Moment(1_000_000_000);
        budget.take(start, 8 << 20);
        let ready = budget.ready_at(start).expect("it is in debt");
        for step in 0..500_000 {
            budget.ready_at(start + Duration::from_micros(step));
            budget.ready_at(start + Duration::from_micros(step));
        }
        assert_eq!(budget.ready_at(start + Duration::from_micros(500_000)), Some(ready));
    }

    #[test]
    fn a_large_piece_gets_through_and_is_paid_for() {
        let mut budget = Budget::new(0);
        let now = Moment(5_000_000);
        assert_eq!(budget.ready_at(now), None);
        budget.take(now, 1 << 20);
        let ready = budget.ready_at(now).expect("it is in debt");
        assert!(ready > now + Duration::from_secs(15) && ready < now + Duration::from_secs(17));
        assert_eq!(budget.ready_at(ready), None);
    }
}
