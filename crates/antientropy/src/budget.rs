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

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Budget {
    full_rate: u64,
    rate: u64,
    bytes: i64,
    counted: Moment,
}

impl Budget {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let rate = bytes_per_second.max(FLOOR);
        Self { full_rate: rate, rate, bytes: saved(rate), counted: Moment::default() }
    }

    /// How late clients' commits are, 0 to 100.
    pub(crate) fn press(&mut self, now: Moment, pressure: u8) {
        self.fill(now);
        let left = 100 - u64::from(pressure.min(100));
        self.rate = (self.full_rate / 100 * left).max(FLOOR);
        self.bytes = self.bytes.min(saved(self.rate));
    }

    /// Uses some, whether it is there or not.
    pub(crate) fn take(&mut self, now: Moment, bytes: usize) {
        self.fill(now);
        self.bytes = self.bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// When something may be begun, if not at once.
    pub(crate) fn ready_at(&mut self, now: Moment) -> Option<Moment> {
        self.fill(now);
        let debt = u64::try_from(1 - self.bytes).ok().filter(|debt| *debt > 0)?;
        let wait = debt.saturating_mul(1_000_000).div_ceil(self.rate);
        Some(now.max(self.counted) + Duration::from_micros(wait))
    }

    fn fill(&mut self, now: Moment) {
        let passed = now.since(self.counted).as_micros();
        let gained = passed.saturating_mul(self.rate.into()) / 1_000_000;
        let gained = i64::try_from(gained).unwrap_or(i64::MAX);
        self.bytes = self.bytes.saturating_add(gained);
        if self.bytes >= saved(self.rate) {
            self.bytes = saved(self.rate);
            self.counted = self.counted.max(now);
        } else {
            // What is too little to be counted is left for the next time.
            let counted = u64::try_from(gained).unwrap_or(0) * 1_000_000 / self.rate;
            self.counted = self.counted + Duration::from_micros(counted);
        }
    }
}

fn saved(rate: u64) -> i64 {
    i64::try_from(rate.saturating_mul(SAVED_MS) / 1000).unwrap_or(i64::MAX)
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
