//! The membership machine: its state, its start, and which part an input goes to.
//!
//! The parts: `joining` the cluster, from both sides of the door; `voting` on the next cluster state, the
//! `campaign` that has one voted on, the `errands` that it is for, `following` what was chosen;
//! `gossiping` of heartbeats and news; the `view` that people have. Invariants: nothing that
//! depends on the record is said or done before the record is durable; a refused node stays silent.

mod campaign;
mod driving;
mod errands;
mod following;
mod gossiping;
mod joining;
mod messages;
#[cfg(test)]
mod tests;
mod view;
mod voting;

use std::{collections::BTreeSet, sync::Arc};

use anello_protocol::{
    cluster::ClusterState,
    id::{Epoch, KeyspaceId, NodeId},
    message::gossip::{GossipBody, GossipPacket},
    time::{Moment, Now},
};

use crate::{
    admission::Admission, config::MembershipConfig, dice::Dice, founding::Seeker,
    heartbeats::Heartbeats, outbox::Outbox, record::Record,
};
use campaign::Campaign;
use driving::Driving;
use errands::Errands;
use following::usable_record;
use gossiping::Rounds;
pub use messages::{Alteration, Effect, Input, MembershipEvent, Ticket, To, Unserviceable};
use voting::Brake;

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Created,
    /// Without a record the node must hold no data either.
    Inspecting(Ticket),
    /// The start is being counted.
    Counting,
    Running,
    Departed,
    Refused(String),
}

/// One node's part in the cluster's membership.
#[derive(Debug)]
pub struct Membership {
    config: MembershipConfig,
    now: Moment,
    dice: Dice,
    outbox: Outbox,
    record: Record,
    /// The state of the record's decree, to share.
    cluster: Option<Arc<ClusterState>>,
    phase: Phase,
    heartbeats: Heartbeats,
    rounds: Rounds,
    seeker: Option<Seeker>,
    admission: Admission,
    brake: Brake,
    campaign: Campaign,
    errands: Errands,
    driving: Driving,
    readiness: view::Readiness,
    wakes_at: Option<Moment>,
}

impl Membership {
    /// A node with the record that it has stored, if it has; `seed` makes its random choices.
    ///
    /// A record that is there and can't be used is an error: the node must not serve, least of all as if
    /// it had none.
    pub fn new(
        config: MembershipConfig,
        stored: Option<&[u8]>,
        seed: u64,
    ) -> Result<Self, Unserviceable> {
        let mut dice = Dice::new(seed);
        let record = match stored {
            Some(bytes) => usable_record(&config, bytes)?,
            None => Record::new(dice.any()),
        };
        let id = config.member.id.clone();
        let generation = record.generation + 1;
        let detector = config.timing.detector;
        Ok(Self {
            now: Moment::default(),
            dice,
            outbox: Outbox::new(id.clone(), config.cluster.clone()),
            cluster: None,
            phase: Phase::Created,
            heartbeats: Heartbeats::new(id, generation, config.program.clone(), detector),
            rounds: Rounds::default(),
            seeker: None,
            admission: Admission::default(),
            brake: Brake::default(),
            campaign: Campaign::default(),
            errands: Errands::default(),
            driving: Driving::default(),
            readiness: view::Readiness::default(),
            wakes_at: None,
            config,
            record,
        })
    }

    /// Takes one input and pushes what is to be done about it, in order.
    pub fn handle(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        self.now = self.now.max(now.moment);
        if self.phase == Phase::Running {
            self.notice_pause();
        }
        self.take(input);
        loop {
            self.settle();
            self.run_due();
            if self.outbox.is_settled() {
                break;
            }
        }
        self.tell_readiness();
        self.set_alarm();
        effects.append(&mut self.outbox.drain());
    }

    /// The cluster state that the node knows, if it is in a cluster.
    pub fn cluster(&self) -> Option<&Arc<ClusterState>> {
        self.cluster.as_ref()
    }

    /// Whether a member can be reached, as far as this node knows.
    pub fn is_reachable(&self, node: &NodeId) -> bool {
        self.heartbeats.is_reachable(node)
    }

    /// Why the node doesn't serve, if it doesn't.
    pub fn not_ready(&self) -> Option<&str> {
        self.readiness.not_ready()
    }

    fn take(&mut self, input: Input) {
        match (input, &self.phase) {
            (Input::Alter { token, request }, _) => self.alter(token, request),
            (Input::Unfit(reason), _) => self.readiness.unfit = reason,
            (Input::Acting, _) => self.readiness.acting = true,
            (_, Phase::Refused(_) | Phase::Departed) => {}
            (Input::Started, Phase::Created) => self.start(),
            (Input::Saved(ticket), phase) => {
                let counted = *phase == Phase::Counting;
                self.outbox.saved(ticket);
                if counted {
                    self.begin();
                } else if !self.outbox.is_waiting() {
                    self.rounds.news_is_out(self.now);
                }
            }
            (Input::SaveFailed(reason), _) => {
                self.refuse(format!("the membership record can't be saved: {reason}"));
            }
            (Input::Holding { ticket, keyspaces }, Phase::Inspecting(asked)) => {
                if ticket == *asked {
                    self.inspected_at_start(&keyspaces);
                }
            }
            (Input::Holding { ticket, keyspaces }, Phase::Running) => {
                self.holding(ticket, keyspaces);
            }
            (Input::Heard { from, packet }, Phase::Running) => self.heard(from, packet),
            (Input::HandedOver { change, partition, phase }, Phase::Running) => {
                self.handed_over(change, partition, phase);
            }
            (Input::HintsLeft(count), _) => self.keeps_hints(count),
            (Input::Departing, _) => self.depart(),
            (
                Input::TimeUp
                | Input::Started
                | Input::Heard { .. }
                | Input::Holding { .. }
                | Input::HandedOver { .. },
                _,
            ) => {}
        }
    }

    fn start(&mut self) {
        // A node that holds data and has forgotten which cluster it is of must not found or join one.
        if self.record.generation == 0 {
            let ticket = self.outbox.ticket();
            self.phase = Phase::Inspecting(ticket);
            self.outbox.push(Effect::Inspect { ticket });
        } else {
            self.count();
        }
    }

    fn inspected_at_start(&mut self, keyspaces: &BTreeSet<KeyspaceId>) {
        if keyspaces.is_empty() {
            return self.count();
        }
        self.refuse(
            "the data directory holds data and no membership record: restore the record, or start with \
             an empty directory and let the other replicas fill it"
                .into(),
        );
    }

    fn count(&mut self) {
        self.record.generation += 1;
        self.outbox.touch();
        self.phase = Phase::Counting;
    }

    fn begin(&mut self) {
        self.phase = Phase::Running;
        match self.record.decree.clone() {
            Some(decree) => {
                if self.record.acceptor.is_frozen() {
                    self.freeze(None);
                }
                self.act_under(decree.state);
            }
            None => self.seeker = Some(Seeker::new(self.now)),
        }
    }

    fn heard(&mut self, from: NodeId, packet: GossipPacket) {
        if packet.cluster != self.config.cluster || from == self.config.member.id {
            return;
        }
        match packet.check() {
            Ok(()) => self.heed(from, packet.body),
            Err(bad) => self.note(format!("{from}: {bad}")),
        }
    }

    fn heed(&mut self, from: NodeId, body: GossipBody) {
        match body {
            GossipBody::Knock { candidate, partitions } => self.knock(from, *candidate, partitions),
            GossipBody::Answer { birth, answer } => self.knock_answered(from, birth, answer),
            GossipBody::Digest { pulse, heard } => self.digest(from, pulse, heard),
            GossipBody::Delta { epoch, pulses, wanted } => self.delta(from, epoch, pulses, wanted),
            GossipBody::Vote { epoch, ballot, step } => self.vote(from, epoch, ballot, step),
            GossipBody::Decided(decree) => self.decided(from, *decree),
            GossipBody::Learned(epoch) => self.learned(&from, epoch),
            GossipBody::HandedOver { change, partitions } => {
                self.heard_of_handover(from, change, partitions);
            }
        }
    }

    /// Heeds what the node says to itself, and has the record saved where it has changed.
    fn settle(&mut self) {
        while !self.outbox.is_settled() {
            if let Some(ticket) = self.outbox.settle() {
                let record = self.record.encode();
                self.outbox.push(Effect::Save { ticket, record });
            }
            while let Some(body) = self.outbox.next_to_self() {
                let me = self.config.member.id.clone();
                self.heed(me, body);
            }
        }
    }

    fn run_due(&mut self) {
        if self.phase == Phase::Running {
            self.seek();
            self.gossip();
            self.attend();
            self.report();
            self.drive();
        }
    }

    fn set_alarm(&mut self) {
        let parts = match self.phase {
            Phase::Running => [
                self.seeking_due(),
                self.gossip_due(),
                self.errands_due(),
                self.report_due(),
                self.drive_due(),
            ],
            _ => [None; 5],
        };
        let Some(due) = parts.into_iter().flatten().min() else { return };
        // What is overdue waits for an input that is on its way; the alarm only makes sure.
        let due = if due <= self.now { self.now + self.config.timing.round } else { due };
        if self.wakes_at.is_none_or(|set| set != due) || self.wakes_at <= Some(self.now) {
            self.wakes_at = Some(due);
            self.outbox.push(Effect::WakeAt(due));
        }
    }

    fn epoch(&self) -> Epoch {
        self.cluster.as_ref().map_or(Epoch(0), |state| state.epoch)
    }

    /// How many of the voters can be reached, this node included.
    fn voters_alive(&self, state: &ClusterState) -> usize {
        let me = &self.config.member.id;
        state.voters().filter(|id| *id == me || self.heartbeats.is_reachable(id)).count()
    }

    fn is_member(&self, id: &NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|state| state.members.contains_key(id))
    }

    fn note(&mut self, line: String) {
        self.outbox.push(Effect::Note(line));
    }

    fn refuse(&mut self, reason: String) {
        self.phase = Phase::Refused(reason.clone());
        self.outbox.push(Effect::Event(MembershipEvent::Refused(reason)));
    }

    fn depart(&mut self) {
        if self.phase == Phase::Running {
            self.say_goodbye();
        }
        self.phase = Phase::Departed;
    }
}
