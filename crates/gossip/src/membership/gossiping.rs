//! Rounds of gossip: with whom, how often, and what becomes of what is heard.

use std::time::Duration;

use anello_protocol::{
    id::{Epoch, NodeId},
    message::gossip::{Beat, GossipBody, Pulse},
    time::Moment,
};

use super::{Effect, Membership, MembershipEvent, To};
use crate::heartbeats::Verdict;

/// Every so many rounds a seed is gossiped with, member or not: it heals a cluster whose parts have
/// forgotten each other's addresses. In a large cluster seldom enough that few seeds bear it.
const SEED_EVERY: u64 = 4;
/// For how many members it is so often; twice as many, and it is half as often.
const SEEDED: usize = 64;
/// For so many rounds a new cluster state is news, for which nobody is left alone.
const NEWS_ROUNDS: u32 = 8;
/// A round that is late by more than this many is not held against others.
const FORGIVEN_ROUNDS: u32 = 4;
/// A round that is late by this was held up by more than a busy machine.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// How many are told of the cluster state in a round, of those that show that they have an older one: a state is
/// as large as its cluster, and who is behind shows that to many at once.
const TELLINGS: usize = 4;
/// How many peers are told directly that the node goes; the others hear it from them.
const GOODBYES_MAX: usize = 64;

/// When rounds are held.
#[derive(Clone, Debug, Default)]
pub(super) struct Rounds {
    next: Moment,
    count: u64,
    news: bool,
    /// How many were told of the cluster state since the last round.
    tellings: usize,
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
        self.rounds.tellings = 0;
        self.heartbeats.beat(self.now, self.epoch());
        let leaves_calm = !self.is_news();
        let fanout = self.heartbeats.partners(self.config.timing.fanout);
        let others = self.heartbeats.restless(self.now, leaves_calm);
        let mut partners: Vec<NodeId> =
            self.dice.pick(others, fanout).into_iter().cloned().collect();
        let absent = self.heartbeats.peers(false);
        // While few answer, the others are tried harder: that is what a start looks like.
        let tries = fanout.saturating_sub(partners.len()).max(1);
        partners.extend(self.dice.pick(absent, tries));
        for turn in self.heartbeats.turns(&partners) {
            if leaves_calm && self.heartbeats.is_calm(&turn, self.now) {
                continue;
            }
            let ping = self.heartbeats.ping(&turn);
            self.heartbeats.pinging(&turn);
            self.outbox.send(To::Node(turn), ping);
        }
        for partner in partners {
            let digest = self.heartbeats.digest();
            self.heartbeats.pinging(&partner);
            self.outbox.send(To::Node(partner.clone()), digest);
            // A partner that does not know this node as a member yet can't ask for what it lacks.
            let told = self.now.since(self.rounds.newest_since) < self.config.timing.round * 4;
            let known = self.heartbeats.epoch_of(&partner);
            if !told && known.is_some_and(|epoch| epoch < self.epoch()) {
                self.tell_decree(partner);
            }
        }
        let crowd = self.cluster.as_ref().map_or(1, |state| state.members.len().div_ceil(SEEDED));
        if self.rounds.count.is_multiple_of(SEED_EVERY * crowd.max(1) as u64) {
            for seed in self.dice.pick(self.config.other_seeds.clone(), 1) {
                let digest = self.heartbeats.digest();
                self.outbox.send(To::Address(seed), digest);
            }
        }
    }

    /// Whether the cluster state is so new that nobody is left alone who has answered only just now.
    fn is_news(&self) -> bool {
        self.now.since(self.rounds.newest_since) < self.config.timing.round * NEWS_ROUNDS
    }

    /// Notices that the node itself stood still: it has heard nobody, through no fault of theirs.
    ///
    /// Comes before anything is made of an input, which may have waited for as long.
    pub(super) fn notice_pause(&mut self) {
        let is_due = self.cluster.is_some() && self.rounds.count > 0;
        let late = self.now.since(self.rounds.next);
        if !is_due || late <= self.config.timing.round * FORGIVEN_ROUNDS {
            return;
        }
        let is_long = late >= STOOD_STILL;
        self.heartbeats.forgive(late, is_long, self.now);
        self.rounds.next = self.now;
        if is_long {
            self.note(format!(
                "this node stood still for {:.1} s: nobody is judged by that, and what comes in is \
                 taken for old until its sender has answered",
                late.as_secs_f64()
            ));
        }
    }

    fn judge_silence(&mut self) {
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
        if self.rounds.tellings >= TELLINGS {
            return;
        }
        if let Some(decree) = &self.record.decree {
            self.rounds.tellings += 1;
            let decided = GossipBody::Decided(Box::new(decree.clone()));
            self.outbox.send_durably(To::Node(to), decided);
        }
    }

    /// Somebody opens an exchange.
    pub(super) fn digest(&mut self, from: NodeId, pulse: Pulse, heard: Vec<Beat>) {
        if !self.is_member(&from) || pulse.beat.node != from {
            // Who was taken out while it was away doesn't know it, and would ask for ever.
            if self.cluster.as_ref().is_some_and(|state| state.removed.contains(&from)) {
                self.tell_decree(from);
            }
            return;
        }
        heard.iter().for_each(|beat| self.count_on(beat));
        let epoch = pulse.epoch;
        self.heartbeats.spoke(self.now, &from);
        self.hear(&pulse, &from);
        let delta = self.heartbeats.delta(&pulse, &heard);
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
        self.heartbeats.spoke(self.now, &from);
        // First what it answers: that says how new the rest is.
        for pulse in &pulses {
            if let Some(verdict) = self.heartbeats.answered(self.now, &from, &pulse.beat) {
                self.tell_verdict(verdict);
            }
        }
        for pulse in &pulses {
            self.count_on(&pulse.beat);
            self.hear(pulse, &from);
        }
        if !wanted.is_empty() {
            let delta = self.heartbeats.wanted(&wanted);
            self.outbox.send(To::Node(from.clone()), delta);
        }
        if epoch < self.epoch() {
            self.tell_decree(from);
        }
    }

    fn hear(&mut self, pulse: &Pulse, from: &NodeId) {
        if let Some(verdict) = self.heartbeats.hear(self.now, pulse, from) {
            self.tell_verdict(verdict);
        }
        self.learned(&pulse.beat.node, pulse.epoch);
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
