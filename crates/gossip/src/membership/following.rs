//! From one cluster state to the next: which decrees are followed, and which stored records are trusted.

use std::sync::Arc;

use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{Epoch, NodeId},
    message::gossip::{Decree, GossipBody},
};

use super::{Effect, Membership, MembershipEvent, Phase, To, Unserviceable};
use crate::{
    agreement::acceptor::{Acceptor, Memory},
    config::MembershipConfig,
    record::Record,
};

impl Membership {
    /// Somebody says that this was chosen.
    pub(super) fn decided(&mut self, from: NodeId, decree: Decree) {
        let epoch = decree.state.epoch;
        self.adopt(decree);
        let known = self.epoch();
        if known >= epoch && known > Epoch(0) {
            self.outbox.send_durably(To::Node(from), GossipBody::Learned(known));
        }
    }

    /// Acts under a decree from here on, if it is newer than what is known.
    pub(super) fn adopt(&mut self, decree: Decree) {
        let (state, me) = (&decree.state, &self.config.member);
        if state.name != self.config.cluster {
            return;
        }
        if let Some(known) = &self.record.decree {
            if known.origin != decree.origin {
                return self.note(format!(
                    "there is another cluster named {}, founded apart from this one; its packets are not heeded",
                    state.name
                ));
            }
            if known.state.epoch == state.epoch && *known != decree {
                return self.note(format!("two cluster states claim to be number {}", state.epoch));
            }
            if known.state.epoch >= state.epoch {
                return;
            }
        }
        if state.partitions != self.config.partitions {
            return self.refuse(partitions_differ(self.config.partitions, state.partitions));
        }
        if state.written_off.contains(&me.id) {
            return self.refuse(format!(
                "{} was declared dead and is being taken out of the cluster; it can't come back under its name",
                me.id
            ));
        }
        let Some(member) = state.members.get(&me.id) else {
            if self.is_leaving() {
                return self.leave();
            }
            if self.record.decree.is_some() || state.removed.contains(&me.id) {
                self.refuse(format!(
                    "{} was removed from the cluster; a removed node can't come back under its name",
                    me.id
                ));
            }
            return;
        };
        if (&member.datacenter, &member.rack) != (&me.datacenter, &me.rack) {
            return self.refuse(elsewhere(member, me));
        }
        self.record.acceptor = match &self.record.decree {
            Some(_) => self.record.acceptor.follow(state.epoch),
            None => {
                let lost = decree.admitted.get(&me.id) != Some(&self.record.birth);
                if lost {
                    // Not once the record is durable, but before: else a crash in between would hide it.
                    self.outbox.push(Effect::Event(MembershipEvent::LostDisk));
                }
                let memory = if lost { Memory::Lost } else { Memory::Whole };
                Acceptor::new(state.epoch.next(), memory)
            }
        };
        if self.record.acceptor.must_recall() && self.record.decree.is_none() {
            self.note("back in the cluster without its former disk; recalling its vote".into());
        }
        let state = decree.state.clone();
        self.record.decree = Some(decree);
        self.outbox.touch();
        self.act_under(state);
    }

    /// Whether the last state that this node knew of says that it leaves.
    pub(super) fn is_leaving(&self) -> bool {
        let own = self.cluster.as_ref().and_then(|state| state.members.get(&self.config.member.id));
        own.is_some_and(|member| member.state == MemberState::Leaving)
    }

    /// All that the node held is with others.
    fn leave(&mut self) {
        self.say_goodbye();
        self.note("this node has handed over all that it held, and has left the cluster".into());
        self.phase = Phase::Refused("this node has left the cluster".into());
        self.outbox.push(Effect::Event(MembershipEvent::Left));
    }

    /// Takes the record's state as the one to act under, and tells everybody in the node.
    pub(super) fn act_under(&mut self, state: ClusterState) {
        let state = Arc::new(state);
        self.heartbeats.set_members(self.now, state.members.keys());
        self.admission.took_in(state.members.keys());
        self.driving.entered(self.now, &state);
        self.readiness.entered(self.now);
        self.seeker = None;
        self.rounds.news(self.now);
        self.outbox.push_durably(Effect::Event(MembershipEvent::ClusterChanged(state.clone())));
        self.cluster = Some(state);
        self.epoch_began();
    }
}

/// The stored record, if the node can go on from it.
pub(super) fn usable_record(
    config: &MembershipConfig,
    bytes: &[u8],
) -> Result<Record, Unserviceable> {
    let bad = |reason: String| {
        Unserviceable(format!("the stored membership record can't be used: {reason}"))
    };
    let record = Record::decode(bytes).map_err(|error| bad(error.to_string()))?;
    if record.generation == 0 {
        return Err(bad("it counts no start".into()));
    }
    let Some(decree) = &record.decree else { return Ok(record) };
    decree.check().map_err(|error| bad(error.to_string()))?;
    let (state, me) = (&decree.state, &config.member);
    if state.name != config.cluster {
        return Err(bad(format!("it is of cluster {}, not {}", state.name, config.cluster)));
    }
    if state.partitions != config.partitions {
        return Err(Unserviceable(partitions_differ(config.partitions, state.partitions)));
    }
    let Some(member) = state.members.get(&me.id) else {
        return Err(bad(format!("{} is no member of the cluster that it speaks of", me.id)));
    };
    if (&member.datacenter, &member.rack) != (&me.datacenter, &me.rack) {
        return Err(Unserviceable(elsewhere(member, me)));
    }
    if record.acceptor.epoch() != state.epoch.next() {
        return Err(bad("its vote is on another epoch than the next".into()));
    }
    Ok(record)
}

pub(super) fn partitions_differ(own: u32, theirs: u32) -> String {
    format!(
        "this node is configured for {own} partitions and the cluster has {theirs}; the number is fixed at \
         the cluster's birth: set `partitions = {theirs}`"
    )
}

pub(super) fn elsewhere(member: &Member, me: &Member) -> String {
    format!(
        "the cluster knows {} in datacenter {}, rack {}, and this node is configured for datacenter {}, rack {}",
        me.id, member.datacenter, member.rack, me.datacenter, me.rack
    )
}
