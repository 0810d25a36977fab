//! Who is alive: everybody's newest heartbeat, spread by digest and delta, and what the detector makes of it.
//!
//! A heartbeat is newer than another of its node by (generation, version); of each node only the newest
//! is kept, and only members have one. A node that learns of a newer heartbeat of its own than it
//! has sent has lost count of its starts, and counts on from there.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    id::{Epoch, NodeId},
    message::gossip::{Beat, GossipBody, MAX_BEATS, Pulse},
    time::Moment,
};

use crate::detector::{Detector, DetectorConfig};

/// A node's standing changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) node: NodeId,
    pub(crate) reachable: bool,
    pub(crate) reason: String,
}

/// What is known of another member.
#[derive(Clone, Debug)]
struct Peer {
    pulse: Option<Pulse>,
    /// Counts from the moment that a word of it could be expected.
    detector: Detector,
    reachable: bool,
    /// Whether anybody was told which of the two it is.
    judged: bool,
    reason: String,
}

/// Everybody's heartbeats, as one node knows them.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    own: Pulse,
    peers: BTreeMap<NodeId, Peer>,
    config: DetectorConfig,
    /// The last node that a digest too small for all spoke of.
    cursor: Option<NodeId>,
}

fn order(beat: &Beat) -> (u64, u64) {
    (beat.generation, beat.version)
}

impl Heartbeats {
    pub(crate) fn new(
        me: NodeId,
        generation: u64,
        program: String,
        config: DetectorConfig,
    ) -> Self {
        let beat = Beat { node: me, generation, version: 0 };
        let own = Pulse { beat, epoch: Epoch(0), program, leaving: false };
        Self { own, peers: BTreeMap::new(), config, cursor: None }
    }

    /// These are the members; others are forgotten.
    ///
    /// A new one isn't reachable before it is heard of; that it is unreachable is only said after a
    /// silence that would be suspicious in one that had been heard of.
    pub(crate) fn set_members<'a>(
        &mut self,
        now: Moment,
        members: impl Iterator<Item = &'a NodeId>,
    ) {
        let mut before = std::mem::take(&mut self.peers);
        for id in members.filter(|id| **id != self.own.beat.node) {
            let peer = before.remove(id).unwrap_or_else(|| Peer {
                pulse: None,
                detector: Detector::new(now),
                reachable: false,
                judged: false,
                reason: "not heard of yet".into(),
            });
            self.peers.insert(id.clone(), peer);
        }
    }

    /// The own heart beats.
    pub(crate) fn beat(&mut self, epoch: Epoch) {
        self.own.beat.version += 1;
        self.own.epoch = epoch;
    }

    /// The node says that it goes.
    pub(crate) fn leave(&mut self) {
        self.own.beat.version += 1;
        self.own.leaving = true;
    }

    /// The own heartbeat.
    pub(crate) fn own(&self) -> &Pulse {
        &self.own
    }

    /// Begins a new generation.
    pub(crate) fn renew(&mut self, generation: u64) {
        self.own.beat.generation = generation;
        self.own.beat.version = 0;
    }

    /// The generation to count on from, if that is a heartbeat of this node which it hasn't sent.
    pub(crate) fn forgotten(&self, beat: &Beat) -> Option<u64> {
        let own = &self.own.beat;
        (beat.node == own.node && order(beat) > order(own))
            .then(|| beat.generation.saturating_add(1))
    }

    /// What to open an exchange with.
    pub(crate) fn digest(&mut self) -> GossipBody {
        let after = match &self.cursor {
            Some(cursor) if self.peers.len() >= MAX_BEATS => {
                let after = (std::ops::Bound::Excluded(cursor), std::ops::Bound::Unbounded);
                let rest = self.peers.range(after);
                rest.chain(self.peers.range(..=cursor)).collect::<Vec<_>>()
            }
            _ => self.peers.iter().collect(),
        };
        let heard: Vec<Beat> = after
            .into_iter()
            .take(MAX_BEATS)
            .map(|(id, peer)| match &peer.pulse {
                Some(pulse) => pulse.beat.clone(),
                None => Beat { node: id.clone(), generation: 0, version: 0 },
            })
            .collect();
        self.cursor = heard.last().map(|beat| beat.node.clone());
        GossipBody::Digest { pulse: self.own.clone(), heard }
    }

    /// What to answer a digest with.
    pub(crate) fn delta(&self, heard: &[Beat]) -> GossipBody {
        let mut pulses = vec![];
        let mut wanted = vec![];
        for beat in heard {
            let Some(pulse) = self.pulse(&beat.node) else {
                if order(beat) > (0, 0) && self.peers.contains_key(&beat.node) {
                    wanted.push(beat.node.clone());
                }
                continue;
            };
            match order(&pulse.beat).cmp(&order(beat)) {
                std::cmp::Ordering::Greater => pulses.push(pulse.clone()),
                std::cmp::Ordering::Less => wanted.push(beat.node.clone()),
                std::cmp::Ordering::Equal => {}
            }
        }
        GossipBody::Delta { epoch: self.own.epoch, pulses, wanted }
    }

    /// What to answer a delta with that wants something.
    pub(crate) fn wanted(&self, wanted: &[NodeId]) -> GossipBody {
        let pulses = wanted.iter().filter_map(|id| self.pulse(id)).cloned().collect();
        GossipBody::Delta { epoch: self.own.epoch, pulses, wanted: vec![] }
    }

    fn pulse(&self, id: &NodeId) -> Option<&Pulse> {
        if *id == self.own.beat.node {
            return Some(&self.own);
        }
        self.peers.get(id)?.pulse.as_ref()
    }

    /// A heartbeat was heard of, from the node itself or from another one.
    pub(crate) fn hear(&mut self, now: Moment, pulse: &Pulse, direct: bool) -> Option<Verdict> {
        let node = &pulse.beat.node;
        let peer = self.peers.get_mut(node)?;
        let before = peer.pulse.as_ref().map(|known| order(&known.beat));
        if before.is_some_and(|before| before >= order(&pulse.beat)) {
            return None;
        }
        peer.pulse = Some(pulse.clone());
        if pulse.leaving {
            return peer.judge(node, false, || "it said that it goes".into());
        }
        // The first word of a node may be an old one, unless it is the node's own.
        if before.is_none() && !direct {
            return None;
        }
        if peer.reachable {
            peer.detector.beat(now);
        } else {
            peer.detector.resume(now);
        }
        peer.judge(node, true, || "heard of".into())
    }

    /// The observer stood still for that long.
    pub(crate) fn forgive(&mut self, pause: Duration, now: Moment) {
        self.peers.values_mut().for_each(|peer| peer.detector.forgive(pause, now));
    }

    /// Nobody is waited for any longer who was never heard of.
    pub(crate) fn miss(&mut self) -> Vec<Verdict> {
        let unheard = self.peers.iter_mut().filter(|(_, peer)| !peer.judged);
        unheard.filter_map(|(id, peer)| peer.judge(id, false, || "not heard of".into())).collect()
    }

    /// Whose silence has become too suspicious?
    pub(crate) fn suspect(&mut self, now: Moment) -> Vec<Verdict> {
        let mut verdicts = vec![];
        let trusted = |peer: &Peer| peer.reachable || !peer.judged;
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| trusted(peer)) {
            let phi = peer.detector.phi(now, &self.config);
            if phi >= self.config.threshold {
                let silence = peer.detector.silence(now).as_secs_f64();
                let why = || format!("silent for {silence:.1} s, phi {phi:.1}");
                verdicts.extend(peer.judge(node, false, why));
            }
        }
        verdicts
    }

    /// Whether a member answers, as far as is known; the node itself always does.
    pub(crate) fn is_reachable(&self, id: &NodeId) -> bool {
        *id == self.own.beat.node || self.peers.get(id).is_some_and(|peer| peer.reachable)
    }

    /// Whether something is known of every member.
    pub(crate) fn heard_of_all(&self) -> bool {
        self.peers.values().all(|peer| peer.reachable)
    }

    /// The other members that answer, or that don't.
    pub(crate) fn peers(&self, reachable: bool) -> Vec<NodeId> {
        let peers = self.peers.iter().filter(|(_, peer)| peer.reachable == reachable);
        peers.map(|(id, _)| id.clone()).collect()
    }

    /// The epoch that a peer acts under, as of its newest heartbeat.
    pub(crate) fn epoch_of(&self, id: &NodeId) -> Option<Epoch> {
        self.pulse(id).map(|pulse| pulse.epoch)
    }

    /// For people: phi, the verdict, the program's version.
    pub(crate) fn describe(&self, id: &NodeId, now: Moment) -> (f64, String, String) {
        let program = self.pulse(id).map(|pulse| pulse.program.clone()).unwrap_or_default();
        if *id == self.own.beat.node {
            return (0.0, "this node".into(), program);
        }
        let Some(peer) = self.peers.get(id) else { return (0.0, "not a member".into(), program) };
        let verdict = if peer.reachable {
            format!("heard of {:.1} s ago", peer.detector.silence(now).as_secs_f64())
        } else {
            peer.reason.clone()
        };
        (peer.detector.phi(now, &self.config), verdict, program)
    }
}

impl Peer {
    fn judge(
        &mut self,
        node: &NodeId,
        reachable: bool,
        reason: impl FnOnce() -> String,
    ) -> Option<Verdict> {
        if self.judged && self.reachable == reachable {
            return None;
        }
        self.judged = true;
        self.reachable = reachable;
        self.reason = reason();
        Some(Verdict { node: node.clone(), reachable, reason: self.reason.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Timing;

    fn node(number: usize) -> NodeId {
        NodeId::new(&format!("n{number:04}")).expect("a good name")
    }

    fn heartbeats(me: usize, members: usize) -> Heartbeats {
        let mut heartbeats = Heartbeats::new(node(me), 1, "1.0".into(), Timing::lan().detector);
        let members: Vec<NodeId> = (0..members).map(node).collect();
        heartbeats.set_members(at(0), members.iter());
        heartbeats.beat(Epoch(1));
        heartbeats
    }

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000)
    }

    /// One exchange: digest, delta, delta.
    fn exchange(now: Moment, from: &mut Heartbeats, to: &mut Heartbeats) -> Vec<Verdict> {
        let mut verdicts = vec![];
        let GossipBody::Digest { pulse, heard } = from.digest() else { panic!("a digest") };
        verdicts.extend(to.hear(now, &pulse, true));
        let GossipBody::Delta { pulses, wanted, .. } = to.delta(&heard) else { panic!("a delta") };
        for pulse in pulses {
            let direct = pulse.beat.node == to.own().beat.node;
            verdicts.extend(from.hear(now, &pulse, direct));
        }
        let GossipBody::Delta { pulses, .. } = from.wanted(&wanted) else { panic!("a delta") };
        for pulse in pulses {
            verdicts.extend(to.hear(now, &pulse, false));
        }
        verdicts
    }

    #[test]
    fn news_travels_through_others() {
        let (mut a, mut b, mut c) = (heartbeats(0, 3), heartbeats(1, 3), heartbeats(2, 3));
        exchange(at(0), &mut a, &mut b);
        assert!(a.is_reachable(&node(1)) && b.is_reachable(&node(0)));
        exchange(at(100), &mut b, &mut c);
        assert!(!c.is_reachable(&node(0)), "the first word of a node may be an old one");
        a.beat(Epoch(1));
        exchange(at(250), &mut a, &mut b);
        let verdicts = exchange(at(300), &mut b, &mut c);
        assert_eq!(verdicts.len(), 1);
        assert!(c.is_reachable(&node(0)), "its heart has beaten since");
    }

    #[test]
    fn the_silent_are_suspected_once_and_the_returned_are_back_at_once() {
        let (mut a, mut b) = (heartbeats(0, 2), heartbeats(1, 2));
        for n in 0..40 {
            a.beat(Epoch(1));
            exchange(at(n * 250), &mut a, &mut b);
        }
        assert_eq!(b.suspect(at(11_000)), vec![]);
        let verdicts = b.suspect(at(14_000));
        assert!(verdicts.len() == 1 && !verdicts[0].reachable, "{verdicts:?}");
        assert_eq!(b.suspect(at(15_000)), vec![]);
        let mut again = heartbeats(0, 2);
        again.renew(2);
        again.beat(Epoch(1));
        assert!(
            exchange(at(16_000), &mut again, &mut b)
                .iter()
                .any(|v| v.node == node(0) && v.reachable)
        );
    }

    #[test]
    fn who_was_never_heard_of_is_unreachable_after_a_while() {
        let mut a = heartbeats(0, 3);
        assert_eq!(a.suspect(at(500)), vec![], "it may be about to speak");
        let mut b = heartbeats(1, 3);
        exchange(at(600), &mut b, &mut a);
        b.beat(Epoch(1));
        exchange(at(4_000), &mut b, &mut a);
        let verdicts = a.suspect(at(5_000));
        assert!(matches!(&verdicts[..], [v] if v.node == node(2) && !v.reachable), "{verdicts:?}");
        assert_eq!(a.suspect(at(5_100)), vec![]);
        let mut c = heartbeats(2, 3);
        c.beat(Epoch(1));
        assert!(exchange(at(6_000), &mut c, &mut a).iter().any(|v| v.node == node(2)));
        assert!(a.is_reachable(&node(2)));
    }

    #[test]
    fn who_is_waited_for_no_longer_is_unreachable_until_it_speaks() {
        let (mut a, mut b) = (heartbeats(0, 3), heartbeats(1, 3));
        exchange(at(100), &mut b, &mut a);
        let verdicts = a.miss();
        assert!(matches!(&verdicts[..], [v] if v.node == node(2) && !v.reachable), "{verdicts:?}");
        assert_eq!((a.miss(), a.suspect(at(500))), (vec![], vec![]), "it is said once");
        let mut c = heartbeats(2, 3);
        let verdicts = exchange(at(600), &mut c, &mut a);
        assert!(verdicts.iter().any(|v| v.node == node(2) && v.reachable), "{verdicts:?}");
    }

    #[test]
    fn who_says_that_it_goes_is_unreachable_at_once_and_old_news_change_nothing() {
        let (mut a, mut b) = (heartbeats(0, 2), heartbeats(1, 2));
        exchange(at(0), &mut a, &mut b);
        let old = a.own().clone();
        a.leave();
        let verdict = b.hear(at(10), &a.own().clone(), true).expect("a verdict");
        assert!(!verdict.reachable);
        assert_eq!(b.hear(at(20), &old, false), None);
        assert!(!b.is_reachable(&node(0)));
    }

    #[test]
    fn a_node_that_lost_count_learns_it() {
        let (mut a, mut b) = (heartbeats(0, 2), heartbeats(1, 2));
        a.renew(7);
        a.beat(Epoch(1));
        exchange(at(0), &mut a, &mut b);
        let mut again = heartbeats(0, 2);
        let GossipBody::Digest { heard, .. } = b.digest() else { panic!("a digest") };
        assert_eq!(again.forgotten(&heard[0]), Some(8));
        again.renew(8);
        assert_eq!(again.forgotten(&heard[0]), None);
    }

    #[test]
    fn strangers_have_no_heartbeat_and_a_large_cluster_is_covered_in_turns() {
        let mut a = heartbeats(0, 300);
        let mut stranger = heartbeats(999, 1);
        stranger.beat(Epoch(1));
        assert_eq!(a.hear(at(0), &stranger.own().clone(), true), None);
        let mut spoken_of = std::collections::BTreeSet::new();
        for _ in 0..5 {
            let GossipBody::Digest { heard, .. } = a.digest() else { panic!("a digest") };
            assert!(heard.len() <= MAX_BEATS);
            spoken_of.extend(heard.into_iter().map(|beat| beat.node));
        }
        assert_eq!(spoken_of.len(), 299);
    }
}
