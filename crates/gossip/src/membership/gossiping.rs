//! Rounds of gossip: with whom, how often, and what becomes of what is heard.

use anello_protocol::{
    id::{Epoch, NodeId},
    message::gossip::{Beat, GossipBody, Pulse},
    time::Moment,
};

use super::{Effect, Membership, MembershipEvent, To};
use crate::heartbeats::Verdict;

/// Every so many rounds a seed is gossiped with, member or not: it heals a cluster whose parts have
/// forgotten each other's addresses.
const SEED_EVERY: u64 = 4;
/// How many peers are told directly that the node goes; the others hear it from them.
const GOODBYES_MAX: usize = 64;

/// When rounds are held.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    next: Moment,
    last: Option<Moment>,
    count: u64,
    news: bool,
    /// When the newest cluster state came.
    newest_since: Moment,
}

impl Rounds {
    /// There is news: the next round is held as soon as it is durable.
    pub(super) fn news(&mut self, now: Moment) {
        self.news = true;
        self.newest_since = now;
    }

    /// The news is durable.
    pub(super) fn news_is_out(&mut self, now: Moment) {
        if std::mem::take(&mut self.news) {
            self.next = now;
        }
    }
}

impl Membership {
    pub(super) fn gossip_due(&self) -> Option<Moment> {
        self.cluster.as_ref().map(|_| self.rounds.next)
    }

    /// Holds a round, if it is time.
    pub(super) fn gossip(&mut self) {
        if self.cluster.is_none() || self.now < self.rounds.next {
            return;
        }
        self.judge_silence();
        self.rounds.next = self.now + self.config.timing.round;
        self.rounds.count += 1;
        self.heartbeats.beat(self.epoch());
        let peers = self.heartbeats.peers(true);
        let mut partners = self.dice.pick(peers, self.config.timing.fanout);
        let absent = self.heartbeats.peers(false);
        // While few answer, the others are tried harder: that is what a start looks like.
        let tries = self.config.timing.fanout.saturating_sub(partners.len()).max(1);
        partners.extend(self.dice.pick(absent, tries));
        for partner in partners {
            let digest = self.heartbeats.digest();
            self.outbox.send(To::Node(partner.clone()), digest);
            // A partner that does not know this node as a member yet can't ask for what it lacks.
            let told = self.now.since(self.rounds.newest_since) < self.config.timing.round * 4;
            let known = self.heartbeats.epoch_of(&partner);
            if !told && known.is_some_and(|epoch| epoch < self.epoch()) {
                self.tell_decree(partner);
            }
        }
        if self.rounds.count.is_multiple_of(SEED_EVERY) {
            for seed in self.dice.pick(self.config.other_seeds.clone(), 1) {
                let digest = self.heartbeats.digest();
                self.outbox.send(To::Address(seed), digest);
            }
        }
    }

    fn judge_silence(&mut self) {
        let round = self.config.timing.round;
        let gap = self.rounds.last.map_or(round, |last| self.now.since(last));
        self.rounds.last = Some(self.now);
        // A node that was paused has heard nobody, through no fault of theirs.
        if gap > round * 3 {
            self.heartbeats.forgive(gap - round, self.now);
        }
        for verdict in self.heartbeats.suspect(self.now) {
            self.tell_verdict(verdict);
        }
    }

    pub(super) fn tell_verdict(&mut self, verdict: Verdict) {
        let Verdict { node, reachable, reason } = verdict;
        let now = if reachable { "reachable" } else { "unreachable" };
        self.note(format!("{node} is {now}: {reason}"));
        let event = MembershipEvent::Reachability { node, reachable, reason };
        // After the event that made it a member, which waits for the disk.
        self.outbox.push_durably(Effect::Event(event));
    }

    fn tell_decree(&mut self, to: NodeId) {
        if let Some(decree) = &self.record.decree {
            let decided = GossipBody::Decided(Box::new(decree.clone()));
            self.outbox.send_durably(To::Node(to), decided);
        }
    }

    /// Somebody opens an exchange.
    pub(super) fn digest(&mut self, from: NodeId, pulse: Pulse, heard: Vec<Beat>) {
        if !self.is_member(&from) || pulse.beat.node != from {
            return;
        }
        heard.iter().for_each(|beat| self.count_on(beat));
        let epoch = pulse.epoch;
        self.hear(&pulse, true);
        let delta = self.heartbeats.delta(&heard);
        self.outbox.send(To::Node(from.clone()), delta);
        if epoch < self.epoch() {
            self.tell_decree(from);
        }
    }

    /// Somebody brings news.
    pub(super) fn delta(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        pulses: Vec<Pulse>,
        wanted: Vec<NodeId>,
    ) {
        if !self.is_member(&from) {
            return;
        }
        for pulse in &pulses {
            self.count_on(&pulse.beat);
            self.hear(pulse, pulse.beat.node == from);
        }
        if !wanted.is_empty() {
            let delta = self.heartbeats.wanted(&wanted);
            self.outbox.send(To::Node(from.clone()), delta);
        }
        if epoch < self.epoch() {
            self.tell_decree(from);
        }
    }

    fn hear(&mut self, pulse: &Pulse, direct: bool) {
        if let Some(verdict) = self.heartbeats.hear(self.now, pulse, direct) {
            self.tell_verdict(verdict);
        }
        self.learned(pulse.beat.node.clone(), pulse.epoch);
    }

    /// Begins a new generation if that is a heartbeat of this node's former life, which it has lost.
    fn count_on(&mut self, beat: &Beat) {
        if let Some(generation) = self.heartbeats.forgotten(beat) {
            self.record.generation = generation;
            self.heartbeats.renew(generation);
            self.outbox.touch();
            self.rounds.news(self.now);
        }
    }

    /// Tells peers that the node goes.
    pub(super) fn say_goodbye(&mut self) {
        self.heartbeats.leave();
        let peers = self.heartbeats.peers(true);
        for peer in self.dice.pick(peers, GOODBYES_MAX) {
            let pulses = vec![self.heartbeats.own().clone()];
            let delta = GossipBody::Delta { epoch: self.epoch(), pulses, wanted: vec![] };
            self.outbox.send(To::Node(peer), delta);
        }
    }
}
