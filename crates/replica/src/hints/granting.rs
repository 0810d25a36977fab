//! How much this node can take of what others keep for it: a pool of bytes, split over those that ask.
//!
//! Invariants: what is granted and not older than a second is never more than the pool, which shrinks
//! with the disk's pressure; who asks on gets something every few seconds under any pressure, so hints
//! go on draining.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{id::NodeId, message::hint::Credit, time::Moment};

use super::events::Pressure;

/// How long a grant holds, and how long somebody who asked has a share in the pool.
const GRANT_LASTS: Duration = Duration::from_secs(1);
/// When to ask again after nothing was granted.
const RETRY_MS: u32 = 250;
/// For how long nobody is left without anything.
const DROUGHT_MAX: Duration = Duration::from_secs(5);
/// What is granted after that, and how far apart such grants are.
const TRICKLE_BYTES: u64 = 64 << 10;
const TRICKLE_EVERY: Duration = Duration::from_millis(250);
/// Less is not worth the asking.
const GRANT_MIN: u64 = 4 << 10;
/// The most nodes that ask within a second.
const SENDERS_MAX: usize = 4096;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Granter {
    pool: u64,
    pressure: Pressure,
    senders: BTreeMap<NodeId, Sender>,
    last_trickle: Option<Moment>,
}

#[derive(Debug)]
struct Sender {
    asked: Moment,
    granted: u64,
    /// Since when it has asked in vain.
    dry_since: Option<Moment>,
}

impl Granter {
    pub(super) fn new(pool: u64) -> Self {
        Self { pool, pressure: Pressure::Calm, senders: BTreeMap::new(), last_trickle: None }
    }

    pub(super) fn pressure_changed(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    pub(super) fn pressure(&self) -> Pressure {
        self.pressure
    }

    /// What holds at the moment, over all.
    pub(super) fn granted(&self, now: Moment) -> u64 {
        let holding = self.senders.values().filter(|sender| sender.holds(now));
        holding.map(|sender| sender.granted).sum()
    }

    /// What a node gets that has so much. What it got before is given back by asking.
    pub(super) fn grant(&mut self, now: Moment, from: NodeId, waiting_bytes: u64) -> Credit {
        self.senders.retain(|_, sender| sender.holds(now));
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&from) {
            return Credit { bytes: 0, retry_ms: RETRY_MS };
        }
        let dry_since = self.senders.remove(&from).and_then(|sender| sender.dry_since);
        let pool = match self.pressure {
            Pressure::Calm => self.pool,
            Pressure::Raised => self.pool / 8,
            Pressure::Heavy => 0,
        };
        let share = pool / (self.senders.len() as u64 + 1);
        let free = pool.saturating_sub(self.granted(now));
        let granted = share.min(free).min(waiting_bytes.max(TRICKLE_BYTES));
        let is_dry = |since: Moment| now.since(since) >= DROUGHT_MAX;
        let is_turn = self.last_trickle.is_none_or(|last| now.since(last) >= TRICKLE_EVERY);
        let (granted, dry_since) = match dry_since {
            _ if granted >= GRANT_MIN => (granted, None),
            Some(since) if is_dry(since) && is_turn => {
                self.last_trickle = Some(now);
                (TRICKLE_BYTES, Some(now))
            }
            since => (0, since.or(Some(now))),
        };
        self.senders.insert(from, Sender { asked: now, granted, dry_since });
        let bytes = u32::try_from(granted).unwrap_or(u32::MAX);
        Credit { bytes, retry_ms: if bytes == 0 { RETRY_MS } else { 0 } }
    }
}

impl Sender {
    fn holds(&self, now: Moment) -> bool {
        now.since(self.asked) < GRANT_LASTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment(ms * 1000)
    }

    fn node(id: u64) -> NodeId {
        NodeId::new(&format!("n{id}")).expect("a good name")
    }

    #[test]
    fn the_pool_is_split_and_never_overdrawn() {
        let mut granter = Granter::new(4 << 20);
        assert_eq!(granter.grant(at(0), node(1), u64::MAX).bytes, 4 << 20, "alone, all of it");
        assert_eq!(granter.grant(at(1), node(2), u64::MAX), Credit { bytes: 0, retry_ms: 250 });
        assert_eq!(granter.grant(at(2), node(1), u64::MAX).bytes, 2 << 20, "asking gives back");
        assert_eq!(granter.grant(at(3), node(2), u64::MAX).bytes, 2 << 20);
        for ms in 4..40 {
            granter.grant(at(ms), node(ms % 7), u64::MAX);
            assert!(granter.granted(at(ms)) <= 4 << 20);
        }
        assert_eq!(granter.grant(at(1_500), node(3), u64::MAX).bytes, 4 << 20, "grants run out");
        assert_eq!(granter.grant(at(3_000), node(3), 1).bytes, 64 << 10, "no more than is wanted");
    }

    /// T21: hints arrive faster than the receiver can take them.
    #[test]
    fn pressure_shuts_the_pool_but_for_a_trickle() {
        let mut granter = Granter::new(4 << 20);
        granter.pressure_changed(Pressure::Raised);
        assert_eq!(granter.grant(at(0), node(1), u64::MAX).bytes, 512 << 10);
        granter.pressure_changed(Pressure::Heavy);
        let (mut grants, mut longest, mut last) = (0, 0, 0);
        for ms in (250..60_000).step_by(250) {
            for sender in 1..=3 {
                let Credit { bytes, retry_ms } = granter.grant(at(ms), node(sender), u64::MAX);
                assert!(bytes == 0 && retry_ms == 250 || bytes == 64 << 10, "{bytes} {retry_ms}");
                grants += u64::from(bytes > 0);
                if sender == 2 && bytes > 0 {
                    longest = longest.max(ms - last);
                    last = ms;
                }
            }
        }
        assert!((30..=36).contains(&grants), "each of three every five seconds, not {grants}");
        assert!((5_000..7_000).contains(&longest), "nobody is starved: {longest} ms");
        granter.pressure_changed(Pressure::Calm);
        assert!(granter.grant(at(60_000), node(1), u64::MAX).bytes > 1 << 20);
    }
}
