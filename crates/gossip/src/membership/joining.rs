//! Into the cluster, from both sides of the door: a node without a cluster knocks or founds, a member lets
//! in.

use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{KeyspaceId, NodeId},
    message::gossip::{Candidate, Decree, GossipBody, KnockAnswer},
    time::Moment,
};
use std::collections::{BTreeMap, BTreeSet};

use super::{
    Membership, To,
    campaign::Purpose,
    following::{elsewhere, partitions_differ},
};
use crate::{
    agreement::proposer::Aim,
    change::{self, Change},
};

impl Membership {
    pub(super) fn seeking_due(&self) -> Option<Moment> {
        self.seeker.as_ref().map(|seeker| seeker.due())
    }

    /// Knocks, or founds.
    pub(super) fn seek(&mut self) {
        let Some(seeker) = &mut self.seeker else { return };
        let knocks = seeker.knocks(self.now, self.config.timing.knock);
        if seeker.founds(self.now, &self.config) {
            return self.found();
        }
        if knocks {
            let candidate =
                Candidate { member: self.config.member.clone(), birth: self.record.birth };
            let partitions = self.config.partitions;
            for seed in &self.config.other_seeds {
                let candidate = Box::new(candidate.clone());
                let knock = GossipBody::Knock { candidate, partitions };
                self.outbox.send(To::Address(seed.clone()), knock);
            }
        }
    }

    fn found(&mut self) {
        let founder = Member { state: MemberState::Up, ..self.config.member.clone() };
        let admitted = BTreeMap::from([(founder.id.clone(), self.record.birth)]);
        let name = self.config.cluster.clone();
        self.note(format!("founding the cluster {name}"));
        let state = ClusterState::founded(name, self.config.partitions, founder);
        let origin = self.dice.any();
        self.adopt(Decree { origin, state, admitted });
    }

    /// The answer to a knock of this node's.
    pub(super) fn knock_answered(&mut self, from: NodeId, birth: u64, answer: KnockAnswer) {
        if birth != self.record.birth {
            return;
        }
        let Some(seeker) = &mut self.seeker else { return };
        if let Err(reason) = seeker.answered(self.now, from, answer, &self.config) {
            self.refuse(reason);
        }
    }

    /// Somebody knocks here.
    pub(super) fn knock(&mut self, from: NodeId, candidate: Candidate, partitions: u32) {
        let direct = from == candidate.member.id;
        if candidate.member.id == self.config.member.id || (!direct && !self.is_member(&from)) {
            return;
        }
        let Some(decree) = &self.record.decree else {
            return self.answer(&candidate, KnockAnswer::NoCluster);
        };
        let state = &decree.state;
        let new = &candidate.member;
        if partitions != state.partitions {
            let reason = partitions_differ(partitions, state.partitions);
            return self.answer(&candidate, KnockAnswer::Never(reason));
        }
        if state.removed.contains(&new.id) {
            let reason = format!(
                "{} was removed from the cluster; a removed node can't come back under its name",
                new.id
            );
            return self.answer(&candidate, KnockAnswer::Never(reason));
        }
        if let Some(known) = state.members.get(&new.id) {
            if (&known.datacenter, &known.rack) != (&new.datacenter, &new.rack) {
                let reason = elsewhere(known, new);
                return self.answer(&candidate, KnockAnswer::Never(reason));
            }
            let decided = GossipBody::Decided(Box::new(decree.clone()));
            return self.outbox.send_durably(To::Address(new.quic.clone()), decided);
        }
        let Some(doorkeeper) =
            self.doorkeeper().filter(|doorkeeper| direct && *doorkeeper != self.config.member.id)
        else {
            let new = candidate.member.id.clone();
            let answer = KnockAnswer::Wait(self.admission.reason().into());
            self.answer(&candidate, answer);
            if self.admission.knock(self.now, candidate, self.config.timing.gather) {
                self.note(format!("{new} asks to be taken in"));
            }
            return;
        };
        let answer = KnockAnswer::Wait(format!("{doorkeeper} was asked to take this node in"));
        self.answer(&candidate, answer);
        let knock = GossipBody::Knock { candidate: Box::new(candidate), partitions };
        self.outbox.send(To::Node(doorkeeper), knock);
    }

    /// The member that takes nodes in and drives changes of the ring: the first by name that answers, so
    /// that proposers seldom meet.
    pub(super) fn doorkeeper(&self) -> Option<NodeId> {
        let state = self.cluster.as_ref()?;
        let is_leaving = |member: &Member| member.state == MemberState::Leaving;
        let stays = |id: &&NodeId| !state.members.get(*id).is_some_and(is_leaving);
        let reachable = || state.voters().filter(|id| self.heartbeats.is_reachable(id));
        // Who leaves would be gone before it has told anybody that its end was chosen.
        reachable().find(stays).or_else(|| reachable().next()).cloned()
    }

    fn answer(&mut self, candidate: &Candidate, answer: KnockAnswer) {
        let body = GossipBody::Answer { birth: candidate.birth, answer };
        self.outbox.send(To::Address(candidate.member.quic.clone()), body);
    }

    fn answer_all(&mut self, answer: &KnockAnswer) {
        let candidates: Vec<Candidate> = self.admission.all().cloned().collect();
        candidates.iter().for_each(|candidate| self.answer(candidate, answer.clone()));
    }

    /// Takes those in who have gathered at the door. Returns whether something was set going.
    pub(super) fn open_door(&mut self) -> bool {
        let candidates = self.admission.gathered(self.now);
        let Some(decree) = self.record.decree.as_ref().filter(|_| !candidates.is_empty()) else {
            return false;
        };
        if let Some(change) = &decree.state.change {
            let reason = format!("a change of the ring is under way: {}", change.purpose);
            self.wait_at_door(reason);
            return false;
        }
        let expects = |it: &Candidate| decree.state.expected.contains_key(&it.member.id);
        if self.admission.fills || candidates.iter().any(expects) {
            return self.let_in_to_be_filled(candidates);
        }
        let Ok(Some(next)) = Change::Admit(candidates).apply(decree) else {
            self.admission.clear();
            return false;
        };
        let moves = change::moved(&decree.state, &next.state);
        let Some(held) = self.inspected(&moves) else { return true };
        if held {
            self.admission.fills = true;
            return self.open_door();
        }
        let absent = self.heartbeats.peers(false);
        if let Some(first) = absent.first() {
            let more = match absent.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            self.wait_at_door(format!(
                "waiting for {first}{more}: every member must be there to say that it holds no data"
            ));
            return false;
        }
        self.run(Aim::Propose { decree: Box::new(next), moves }, Purpose::Admit);
        true
    }

    /// Takes nodes into a cluster that holds data: they own their shares once they have been filled.
    fn let_in_to_be_filled(&mut self, candidates: Vec<Candidate>) -> bool {
        let Some(decree) = &self.record.decree else { return false };
        match Change::Join(candidates).apply(decree) {
            Ok(Some(next)) => {
                let aim = Aim::Propose { decree: Box::new(next), moves: BTreeSet::new() };
                self.run(aim, Purpose::Admit);
                true
            }
            Ok(None) => {
                self.admission.clear();
                false
            }
            Err(error) => {
                self.wait_at_door(error.to_string());
                false
            }
        }
    }

    /// Those at the door have to wait a little longer.
    pub(super) fn wait_at_door(&mut self, reason: String) {
        self.answer_all(&KnockAnswer::Wait(reason.clone()));
        if self.admission.put_off(self.now + self.config.timing.gather, reason.clone()) {
            self.note(format!("nodes want to be taken in; {reason}"));
        }
    }

    /// Tells the members that a decree took in; they are not known by name yet.
    pub(super) fn welcome(&mut self, decree: &Decree, before: &BTreeSet<NodeId>) {
        let new = decree.state.members.values().filter(|member| !before.contains(&member.id));
        let addresses: Vec<String> = new.map(|member| member.quic.clone()).collect();
        for address in addresses {
            let decided = GossipBody::Decided(Box::new(decree.clone()));
            self.outbox.send_durably(To::Address(address), decided);
        }
    }

    /// The keyspaces that exist, of those that the store still has something of.
    pub(super) fn existing(&self, held: BTreeSet<KeyspaceId>) -> BTreeSet<KeyspaceId> {
        let Some(state) = &self.cluster else { return held };
        state.keyspaces.values().map(|k| k.id).filter(|id| held.contains(id)).collect()
    }
}
