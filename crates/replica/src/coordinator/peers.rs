//! How the other nodes are doing, as far as this coordinator knows, and in which order to ask them.
//!
//! Reachability is told by the failure detector; latency and load are this coordinator's own
//! experience. A node that is passed over for being slow is slowly forgiven, so that it is tried again.
//! One that has answered that it is busy comes after all others that are as near, for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anello_protocol::{
    id::{Datacenter, NodeId},
    message::client::Place,
    time::Moment,
};

/// For how long a node that was busy is asked after others: about as long as a full queue takes to drain.
const BUSY_FOR: Duration = Duration::from_millis(250);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Peers {
    unreachable: BTreeSet<NodeId>,
    seen: BTreeMap<NodeId, Peer>,
    /// When this coordinator last heard anything.
    now: Moment,
}

#[derive(Debug, Default)]
struct Peer {
    in_flight: u32,
    /// A moving average over its answers to reads.
    latency_us: u64,
    /// Until when it is taken for busy.
    busy_until: Moment,
}

impl Peers {
    /// The time goes on.
    pub(super) fn at(&mut self, now: Moment) {
        self.now = now;
    }

    /// A node had no room for a message.
    pub(super) fn was_busy(&mut self, node: &NodeId) {
        let until = self.now + BUSY_FOR;
        self.seen.entry(node.clone()).or_default().busy_until = until;
    }

    /// The failure detector has another verdict.
    pub(super) fn reachability_changed(&mut self, node: NodeId, reachable: bool) {
        if reachable {
            self.unreachable.remove(&node);
        } else {
            self.unreachable.insert(node);
        }
    }

    /// Forgets nodes that are no members any more.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.unreachable.retain(|node| is_member(node));
        self.seen.retain(|node, _| is_member(node));
    }

    pub(super) fn is_reachable(&self, node: &NodeId) -> bool {
        self.unreachable.is_empty() || !self.unreachable.contains(node)
    }

    pub(super) fn all_reachable(&self) -> bool {
        self.unreachable.is_empty()
    }

    /// A message is on its way.
    pub(super) fn sent(&mut self, node: &NodeId) {
        match self.seen.get_mut(node) {
            Some(peer) => peer.in_flight += 1,
            None => {
                self.seen.insert(node.clone(), Peer { in_flight: 1, ..Peer::default() });
            }
        }
    }

    /// A message has its answer, or never will.
    pub(super) fn answered(&mut self, node: &NodeId) {
        if let Some(peer) = self.seen.get_mut(node) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
        }
    }

    /// A read was answered in that time.
    pub(super) fn measured(&mut self, node: &NodeId, us: u64) {
        if let Some(peer) = self.seen.get_mut(node) {
            peer.latency_us = match peer.latency_us {
                0 => us,
                average => average - average / 8 + us / 8,
            };
        }
    }

    /// Others were asked in its place.
    pub(super) fn passed_over(&mut self, node: &NodeId) {
        if let Some(peer) = self.seen.get_mut(node) {
            peer.latency_us -= peer.latency_us / 128;
        }
    }

    /// The order in which to ask the nodes at these places: this one, then those that can be reached,
    /// those of this datacenter first, and among equals those that are not busy, and the one that is
    /// likely to answer first.
    pub(super) fn order(
        &self,
        places: &[Place],
        own: &NodeId,
        datacenter: &Datacenter,
        wanted: impl Fn(usize, &Place) -> bool,
    ) -> Vec<usize> {
        let mut order: Vec<_> = places
            .iter()
            .enumerate()
            .filter(|(at, place)| wanted(*at, place))
            .map(|(at, place)| {
                let rank = if place.id == *own {
                    0
                } else {
                    let near = place.datacenter == *datacenter;
                    1 + 2 * u8::from(!self.is_reachable(&place.id)) + u8::from(!near)
                };
                let (busy, load) = self.seen.get(&place.id).map_or((false, 0), |peer| {
                    let load = peer.latency_us.saturating_mul(u64::from(peer.in_flight) + 1);
                    (peer.busy_until > self.now, load)
                });
                (rank, busy, load, at)
            })
            .collect();
        order.sort_unstable();
        order.into_iter().map(|(_, _, _, at)| at).collect()
    }
}

#[cfg(test)]
mod tests {
    use anello_protocol::id::Rack;

    use super::*;

    fn node(id: &str) -> NodeId {
        NodeId::new(id).expect("a good name")
    }

    fn place(id: &str, datacenter: &str) -> Place {
        Place {
            id: node(id),
            datacenter: Datacenter::new(datacenter).expect("a good name"),
            rack: Rack::new("r").expect("a good name"),
        }
    }

    fn order(peers: &Peers, own: &str) -> Vec<String> {
        let places = [place("a", "eu"), place("b", "eu"), place("c", "us"), place("d", "eu")];
        let eu = Datacenter::new("eu").expect("a good name");
        let order = peers.order(&places, &node(own), &eu, |_, _| true);
        order.into_iter().map(|at| places[at].id.to_string()).collect()
    }

    #[test]
    fn near_before_far_before_away() {
        let mut peers = Peers::default();
        assert_eq!(order(&peers, "d"), ["d", "a", "b", "c"]);
        peers.reachability_changed(node("a"), false);
        assert_eq!(order(&peers, "d"), ["d", "b", "c", "a"]);
        peers.reachability_changed(node("a"), true);
        assert_eq!(order(&peers, "x"), ["a", "b", "d", "c"]);
    }

    #[test]
    fn quick_before_slow_until_it_is_forgiven() {
        let mut peers = Peers::default();
        for id in ["a", "b", "d"] {
            peers.sent(&node(id));
            peers.answered(&node(id));
            peers.measured(&node(id), 500);
        }
        peers.measured(&node("a"), 100_000);
        assert_eq!(order(&peers, "x"), ["b", "d", "a", "c"]);
        peers.sent(&node("b"));
        assert_eq!(order(&peers, "x"), ["d", "b", "a", "c"], "the one with less to do");
        for _ in 0..1000 {
            peers.passed_over(&node("a"));
        }
        assert_eq!(order(&peers, "x")[0], "a");
    }
    #[test]
    fn the_busy_come_after_those_as_near_for_a_moment() {
        let mut peers = Peers::default();
        peers.at(Moment(1_000_000));
        peers.was_busy(&node("a"));
        assert_eq!(order(&peers, "x"), ["b", "d", "a", "c"], "near and busy before far");
        assert_eq!(order(&peers, "a"), ["a", "b", "d", "c"], "the own vnode is asked all the same");
        peers.at(Moment(1_000_000 + 249_000));
        assert_eq!(order(&peers, "x")[0], "b");
        peers.at(Moment(1_000_000 + 251_000));
        assert_eq!(order(&peers, "x")[0], "a");
    }
}
