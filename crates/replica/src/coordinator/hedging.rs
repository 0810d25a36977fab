//! When to ask another replica while a first one has not answered a read yet (hedged requests, Dean and
//! Barroso, 2013): after the 95th percentile of its own answers, and for at most one read in twenty.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::id::NodeId;

/// Extra reads of replicas for each read of a client, in thousandths.
const EXTRA_PER_MILLE: u32 = 50;
/// The most extra reads that are saved up, in thousandths: a moment of trouble may use a few at once.
const SAVED_MAX: u32 = 10_000;
/// Nobody is overtaken sooner, however quick it is as a rule: less would be noise.
const SHORTEST_US: u64 = 2_000;
/// What is assumed of a replica that has not answered yet.
const UNKNOWN_US: u64 = 20_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Hedging {
    p95_us: BTreeMap<NodeId, u64>,
    saved: u32,
}

impl Hedging {
    /// A replica has answered a read in that time.
    ///
    /// The estimate goes up by 19 parts on each answer that is later, and down by one on each that is
    /// not, so it stands where one in twenty is later.
    pub(super) fn measured(&mut self, node: &NodeId, us: u64) {
        let Some(p95) = self.p95_us.get_mut(node) else {
            self.p95_us.insert(node.clone(), us.max(1) * 2);
            return;
        };
        let part = (*p95 / 512).max(1);
        *p95 = if us > *p95 { *p95 + 19 * part } else { (*p95 - part).max(1) };
    }

    /// Forgets nodes that are no members any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.p95_us.retain(|node, _| is_member(node));
    }

    /// How long to wait for a replica before another one is asked too.
    pub(super) fn patience(&self, node: &NodeId) -> Duration {
        let us = self.p95_us.get(node).copied().unwrap_or(UNKNOWN_US);
        Duration::from_micros(us.max(SHORTEST_US))
    }

    /// A read begins.
    pub(super) fn began(&mut self) {
        self.saved = (self.saved + EXTRA_PER_MILLE).min(SAVED_MAX);
    }

    /// Takes leave for one extra read, if there is any.
    pub(super) fn spend(&mut self) -> bool {
        let may = self.saved >= 1000;
        if may {
            self.saved -= 1000;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId::new("a").expect("a good name")
    }

    #[test]
    fn the_estimate_stands_where_one_in_twenty_is_later() {
        let mut hedging = Hedging::default();
        let mut later = 0;
        for number in 0..40_000_u64 {
            // Evenly spread over 0 to 10 ms, in an order without a pattern.
            let us = number.wrapping_mul(2_654_435_761) % 10_000;
            if number >= 20_000 && us > hedging.patience(&node()).as_micros() as u64 {
                later += 1;
            }
            hedging.measured(&node(), us);
        }
        assert!((600..1_400).contains(&later), "{later} of 20,000 were later");
    }

    #[test]
    fn extra_reads_are_one_in_twenty() {
        let mut hedging = Hedging::default();
        let mut extra = 0;
        for _ in 0..100_000 {
            hedging.began();
            extra += u32::from(hedging.spend());
        }
        assert_eq!(extra, 5_000);
    }

    #[test]
    fn nobody_is_overtaken_at_once() {
        let mut hedging = Hedging::default();
        assert_eq!(hedging.patience(&node()), Duration::from_micros(UNKNOWN_US));
        (0..1_000).for_each(|_| hedging.measured(&node(), 100));
        assert_eq!(hedging.patience(&node()), Duration::from_micros(SHORTEST_US));
    }
}
