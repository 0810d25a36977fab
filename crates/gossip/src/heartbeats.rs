//! Who is alive and who answers: everybody's newest heartbeat, spread by digest and delta, the answers to
//! direct pings, and what the detector makes of both. A node is reachable while both keep coming.
//!
//! A heartbeat is newer than another of its node by (generation, version); of each node only the newest
//! is kept, and only members have one. A node that learns of a newer heartbeat of its own than it
//! has sent has lost count of its starts, and counts on from there.

mod peer;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    id::{Epoch, NodeId},
    message::gossip::{Beat, GossipBody, MAX_BEATS, Pulse},
    time::Moment,
};

use crate::{
    detector::{Detector, DetectorConfig},
    direct::{Direct, Made},
};
use peer::Peer;

/// How many nodes are pinged in a round beside its partners, at least.
const PINGS_MIN: usize = 16;
/// Of how many members one is pinged a round, where that is more.
const PINGS_ONE_OF: usize = 64;
/// How long what waited in sockets and mailboxes may take to come in.
const DRAINING: Duration = Duration::from_secs(1);

/// A node's standing changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) node: NodeId,
    pub(crate) reachable: bool,
    pub(crate) reason: String,
}

/// Everybody's heartbeats, as one node knows them.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeats {
    own: Pulse,
    peers: BTreeMap<NodeId, Peer>,
    config: DetectorConfig,
    /// The last node that a digest too small for all spoke of.
    cursor: Option<NodeId>,
    /// The last node that was pinged in its turn.
    pinged: Option<NodeId>,
    made: Made,
    /// The first heartbeat since this node last stood still.
    since_pause: u64,
    /// When all that was under way while it stood still has come in.
    drained: Moment,
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
        Self {
            own,
            peers: BTreeMap::new(),
            config,
            cursor: None,
            pinged: None,
            made: Made::default(),
            since_pause: 0,
            drained: Moment::default(),
        }
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
        let members: Vec<&NodeId> = members.collect();
        let expected = now + self.config.first_word(members.len());
        for id in members.into_iter().filter(|id| **id != self.own.beat.node) {
            let peer = before.remove(id).unwrap_or_else(|| Peer {
                pulse: None,
                detector: Detector::new(expected),
                direct: Direct::new(now),
                spoke: None,
                in_step: true,
                life: None,
                reachable: false,
                judged: false,
                reason: "not heard of yet".into(),
            });
            self.peers.insert(id.clone(), peer);
        }
    }

    /// The own heart beats.
    pub(crate) fn beat(&mut self, now: Moment, epoch: Epoch) {
        self.own.beat.version += 1;
        self.own.epoch = epoch;
        self.made.push(self.own.beat.version, now);
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
        self.made.clear();
        self.since_pause = 0;
    }

    /// The generation to count on from, if that is a heartbeat of this node which it hasn't sent.
    pub(crate) fn forgotten(&self, beat: &Beat) -> Option<u64> {
        let own = &self.own.beat;
        (beat.node == own.node && order(beat) > order(own))
            .then(|| beat.generation.saturating_add(1))
    }

    /// What to open an exchange with. Whom it is sent to is pinged by it.
    pub(crate) fn digest(&mut self) -> GossipBody {
        let mut heard = vec![self.asked_back()];
        let spoken_of = self.after(self.cursor.as_ref()).take(MAX_BEATS - 1);
        heard.extend(spoken_of.map(|(id, peer)| peer.newest(id)));
        self.cursor = heard.last().map(|beat| beat.node.clone());
        GossipBody::Digest { pulse: self.own.clone(), heard }
    }

    /// A digest about nothing but the two nodes.
    pub(crate) fn ping(&self, to: &NodeId) -> GossipBody {
        let mut heard = vec![self.asked_back()];
        heard.extend(self.peers.get(to).map(|peer| peer.newest(to)));
        GossipBody::Digest { pulse: self.own.clone(), heard }
    }

    /// The own heartbeat, as old as can be, so that it comes back with the answer.
    fn asked_back(&self) -> Beat {
        Beat { version: 0, ..self.own.beat.clone() }
    }

    /// Whose turn it is to be pinged, beside those who are sent a digest in this round.
    pub(crate) fn turns(&mut self, partners: &[NodeId]) -> Vec<NodeId> {
        let count = self.pings();
        let turn = self.after(self.pinged.as_ref()).take(count);
        let turn: Vec<NodeId> = turn.map(|(id, _)| id.clone()).collect();
        self.pinged = turn.last().cloned();
        turn.into_iter().filter(|id| !partners.contains(id)).collect()
    }

    /// All others, each once, beginning behind that one.
    fn after(&self, last: Option<&NodeId>) -> impl Iterator<Item = (&NodeId, &Peer)> {
        let from = last.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let rest = self.peers.range((from, std::ops::Bound::Unbounded));
        rest.chain(&self.peers).take(self.peers.len())
    }

    /// With how many others digests have to be exchanged in a round, so that every member is spoken of often
    /// enough. A digest speaks of so many only; half of the members a round are spoken of in what this node
    /// sends, and as many in what is sent to it. So the news of a node comes after some two rounds however many
    /// members there are, and the silence that makes a node suspect stays many times as long as that.
    pub(crate) fn partners(&self, fanout: usize) -> usize {
        fanout.max(self.peers.len().div_ceil(2 * (MAX_BEATS - 1)))
    }

    fn pings(&self) -> usize {
        let count = PINGS_MIN.max(self.peers.len().div_ceil(PINGS_ONE_OF));
        count.min(self.peers.len())
    }

    /// Whether a node is reachable and has answered the last ping, at once and a moment ago: to ask again in
    /// this round would tell little. So a fleet at rest pings every other round, and whoever is late with an
    /// answer, or misses one, is asked in each.
    pub(crate) fn is_calm(&self, id: &NodeId, now: Moment) -> bool {
        self.peers.get(id).is_some_and(|peer| self.calms(peer, now))
    }

    fn calms(&self, peer: &Peer, now: Moment) -> bool {
        let (prompt, recent) = (self.config.interval, self.config.interval * 3 / 2);
        let direct = &peer.direct;
        let is_prompt = direct.trip().is_some_and(|trip| trip < prompt);
        peer.reachable && is_prompt && direct.unanswered() == 0 && direct.silence(now) < recent
    }

    /// The others that can be reached, but for those that are calm, if those are to be left alone.
    pub(crate) fn restless(&self, now: Moment, leaves_calm: bool) -> Vec<&NodeId> {
        let is_asked = |peer: &Peer| peer.reachable && !(leaves_calm && self.calms(peer, now));
        self.peers.iter().filter(|(_, peer)| is_asked(peer)).map(|(id, _)| id).collect()
    }

    /// From one ping of a node in its turn to the next.
    fn ping_every(&self) -> Duration {
        let rounds = self.peers.len().div_ceil(self.pings().max(1)).max(1);
        self.config.interval * u32::try_from(rounds).unwrap_or(u32::MAX)
    }

    /// A digest is on its way to that node.
    pub(crate) fn pinging(&mut self, to: &NodeId) {
        if let Some(peer) = self.peers.get_mut(to) {
            peer.direct.pinged();
        }
    }

    /// What to answer a digest with that came with that heartbeat: it goes back as it came, so that its
    /// sender knows what was answered.
    pub(crate) fn delta(&self, sender: &Pulse, heard: &[Beat]) -> GossipBody {
        let mut pulses = vec![];
        let mut wanted = vec![];
        for beat in heard {
            if beat.node == sender.beat.node {
                pulses.push(sender.clone());
                continue;
            }
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

    /// A packet came from that node.
    pub(crate) fn spoke(&mut self, now: Moment, from: &NodeId) {
        if let Some(peer) = self.peers.get_mut(from) {
            peer.spoke = Some(now);
        }
    }

    /// A heartbeat was heard of, from the node itself or from another one.
    pub(crate) fn hear(&mut self, now: Moment, pulse: &Pulse, from: &NodeId) -> Option<Verdict> {
        let node = &pulse.beat.node;
        let in_step = self.peers.get(from).is_none_or(|from| from.in_step);
        let peer = self.peers.get_mut(node)?;
        let before = peer.pulse.as_ref().map(|known| order(&known.beat));
        if before.is_some_and(|before| before >= order(&pulse.beat)) {
            return None;
        }
        peer.pulse = Some(pulse.clone());
        if pulse.leaving {
            return peer.judge(node, false, || "it said that it goes".into());
        }
        // What was under way while this node stood still is worth remembering, and no sign of life.
        // The first word of a node may be an old one, unless it is the node's own.
        if !in_step || (before.is_none() && node != from) {
            return None;
        }
        if peer.reachable {
            peer.detector.beat(now);
        } else {
            peer.detector.resume(now);
        }
        if peer.life == Some(pulse.beat.generation) {
            // Given up in this very life, it has to answer again.
            return None;
        }
        let again = peer.life.replace(pulse.beat.generation).is_some();
        peer.direct = Direct::new(now);
        let why = || if again { "it has started again" } else { "heard of" }.into();
        peer.judge(node, true, why)
    }

    /// A node has answered the ping that went out with that heartbeat of this node.
    pub(crate) fn answered(&mut self, now: Moment, from: &NodeId, beat: &Beat) -> Option<Verdict> {
        if (&beat.node, beat.generation) != (&self.own.beat.node, self.own.beat.generation) {
            return None;
        }
        let made = self.made.at(beat.version)?;
        let every = self.ping_every();
        let peer = self.peers.get_mut(from)?;
        if beat.version < self.since_pause {
            return None;
        }
        peer.in_step |= now >= self.drained;
        let leaving = peer.pulse.as_ref().is_some_and(|pulse| pulse.leaving);
        if !peer.direct.answered(now, made, &self.config) || leaving {
            return None;
        }
        if peer.reachable {
            peer.direct.beat(now);
            return None;
        }
        let away = peer.direct.given_up(now).as_secs_f64();
        if !peer.direct.tried(now, every, &self.config) || peer.life.is_none() {
            return None;
        }
        let why = || {
            format!(
                "it answers again, {away:.1} s after it was given up, and has not been started anew: it \
                 stood still or was cut off"
            )
        };
        peer.detector.resume(now);
        peer.judge(from, true, why)
    }

    /// The observer stood still for that long. If that was long, what comes in next may be as old.
    pub(crate) fn forgive(&mut self, pause: Duration, is_long: bool, now: Moment) {
        for peer in self.peers.values_mut() {
            peer.detector.forgive(pause, now);
            peer.direct.forgive(pause, now);
            peer.in_step &= !is_long;
        }
        if is_long {
            self.since_pause = self.own.beat.version + 1;
            self.drained = now + DRAINING;
        }
    }

    /// Nobody is waited for any longer who was never heard of.
    pub(crate) fn miss(&mut self) -> Vec<Verdict> {
        let unheard = self.peers.iter_mut().filter(|(_, peer)| !peer.judged);
        unheard.filter_map(|(id, peer)| peer.judge(id, false, || "not heard of".into())).collect()
    }

    /// Whose silence has become too suspicious?
    pub(crate) fn suspect(&mut self, now: Moment) -> Vec<Verdict> {
        let mut verdicts = vec![];
        let every = self.ping_every();
        let trusted = |peer: &Peer| peer.reachable || !peer.judged;
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| trusted(peer)) {
            if peer.phi(now, every, &self.config) >= self.config.threshold {
                let why = peer.why(now, every, &self.config);
                peer.direct.lapsed(now);
                verdicts.extend(peer.judge(node, false, || why));
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
        let verdict = match (peer.reachable, peer.direct.trip()) {
            (false, _) => peer.reason.clone(),
            (true, None) => {
                format!("heard of {:.1} s ago", peer.detector.silence(now).as_secs_f64())
            }
            (true, Some(trip)) => format!(
                "heard of {:.1} s ago, answered {:.1} s ago within {} ms",
                peer.detector.silence(now).as_secs_f64(),
                peer.direct.silence(now).as_secs_f64(),
                trip.as_millis().max(1),
            ),
        };
        (peer.phi(now, self.ping_every(), &self.config), verdict, program)
    }
}
