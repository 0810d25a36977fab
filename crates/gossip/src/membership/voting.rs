//! The member as a voter: promises, acceptances, and the data that stays frozen for them.
//!
//! Nothing is said before it is durable. From a promise that froze the data until its outcome is known, data
//! writes are refused; if whoever asked for it goes silent, each member in turn brings an end to it. Why
//! nothing else ends it, a later ballot least of all: `docs/adr/0007-ends-of-a-freeze.md`.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId},
    message::gossip::{Ballot, Decree, GossipBody, VoteStep},
    time::Moment,
};

use super::{Effect, Membership, Ticket, To};
use crate::agreement::acceptor::Vote;

/// How much later than its neighbour by name each member ends a ballot that somebody else left behind.
const TAKEOVER_STAGGER: Duration = Duration::from_millis(200);

/// The data's writes, as far as votes hold them up.
#[derive(Clone, Debug, Default)]
pub(super) struct Brake {
    frozen_since: Option<Moment>,
    /// Since when there is something that this node accepted and of which it doesn't know what came of it.
    accepted_since: Option<Moment>,
    /// The promise that is given once the data is frozen.
    promise: Option<(Ticket, NodeId, Ballot)>,
}

impl Membership {
    /// A step of a vote was heard.
    pub(super) fn vote(&mut self, from: NodeId, epoch: Epoch, ballot: Ballot, step: VoteStep) {
        let Some(decree) = &self.record.decree else { return };
        if !decree.state.members.contains_key(&from) {
            return;
        }
        if epoch <= decree.state.epoch {
            if matches!(step, VoteStep::Prepare { .. } | VoteStep::Accept { .. }) {
                let decided = GossipBody::Decided(Box::new(decree.clone()));
                self.outbox.send_durably(To::Node(from), decided);
            }
            return;
        }
        if epoch > self.record.acceptor.epoch() {
            // A digest tells the other how far behind this node is, and it sends what was chosen.
            let digest = self.heartbeats.digest();
            return self.outbox.send(To::Node(from), digest);
        }
        match step {
            VoteStep::Prepare { .. } | VoteStep::Accept { .. } | VoteStep::Release
                if ballot.proposer != from => {}
            VoteStep::Prepare { freeze } => self.prepare(from, ballot, freeze),
            VoteStep::Accept { decree } => self.accept(from, ballot, &decree),
            VoteStep::Release => self.release(&ballot),
            VoteStep::Promise { accepted, holding } => {
                let accepted = accepted.map(|accepted| *accepted);
                self.tally(&ballot, |proposer| proposer.promised(from, accepted, holding));
            }
            VoteStep::Accepted => self.tally(&ballot, |proposer| proposer.accepted(from)),
            VoteStep::Rejected { promised } => self.rejected(&ballot, &promised),
        }
    }

    fn prepare(&mut self, from: NodeId, ballot: Ballot, freeze: bool) {
        match self.record.acceptor.prepare(&ballot, freeze) {
            Vote::Abstained => {}
            Vote::Rejected(promised) => self.reject(from, ballot, promised),
            Vote::Agreed => {
                self.outbox.touch();
                // Somebody is at it: taking over from there would only disturb.
                if let Some(since) = &mut self.brake.frozen_since
                    && from != self.config.member.id
                {
                    *since = self.now;
                }
                if freeze {
                    // Asked again while the store is still being asked: one answer is enough.
                    let asked = self.brake.promise.as_ref();
                    if asked.is_none_or(|(_, _, before)| *before != ballot) {
                        self.freeze(Some((from, ballot)));
                    }
                } else {
                    self.promise(from, ballot, BTreeSet::new());
                }
            }
        }
    }

    fn accept(&mut self, from: NodeId, ballot: Ballot, decree: &Decree) {
        match self.record.acceptor.accept(&ballot, decree) {
            Vote::Abstained => {}
            Vote::Rejected(promised) => self.reject(from, ballot, promised),
            Vote::Agreed => {
                self.outbox.touch();
                self.brake.accepted_since = Some(self.now);
                self.say_vote(from, ballot, VoteStep::Accepted);
            }
        }
    }

    fn promise(&mut self, to: NodeId, ballot: Ballot, holding: BTreeSet<KeyspaceId>) {
        let accepted = self.record.acceptor.accepted().cloned().map(Box::new);
        self.say_vote(to, ballot, VoteStep::Promise { accepted, holding });
    }

    fn reject(&mut self, to: NodeId, ballot: Ballot, promised: Ballot) {
        self.say_vote(to, ballot, VoteStep::Rejected { promised });
    }

    fn say_vote(&mut self, to: NodeId, ballot: Ballot, step: VoteStep) {
        let epoch = self.record.acceptor.epoch();
        self.outbox.send_durably(To::Node(to), GossipBody::Vote { epoch, ballot, step });
    }

    /// Refuses data writes from here on; then the promise is given that waits for it, if one does.
    pub(super) fn freeze(&mut self, promise: Option<(NodeId, Ballot)>) {
        let ticket = self.outbox.ticket();
        self.brake.frozen_since = Some(self.now);
        self.brake.promise = promise.map(|(to, ballot)| (ticket, to, ballot));
        self.outbox.push_durably(Effect::Freeze { ticket });
    }

    fn release(&mut self, ballot: &Ballot) {
        if self.record.acceptor.release(ballot) {
            self.outbox.touch();
            self.thaw();
        }
    }

    pub(super) fn thaw(&mut self) {
        self.brake.promise = None;
        if self.brake.frozen_since.take().is_some() {
            self.outbox.push_durably(Effect::Thaw);
        }
    }

    /// A new state is acted under: what came of votes is known.
    pub(super) fn votes_are_over(&mut self) {
        self.brake.accepted_since = None;
    }

    /// When this member brings an end to what keeps its data frozen, or to what may have been chosen by those who
    /// have gone since, before they told anybody: members do so one after another.
    pub(super) fn takeover_due(&self) -> Option<Moment> {
        let since = self.brake.frozen_since.or(self.brake.accepted_since)?;
        let members = &self.cluster.as_ref()?.members;
        let frozen_max = self.config.timing.frozen_max_among(members.len());
        let before = members.keys().take_while(|id| **id != self.config.member.id).count();
        let stagger = TAKEOVER_STAGGER * u32::try_from(before % 10).unwrap_or(0);
        Some(since + frozen_max + stagger)
    }

    /// The node's store was asked what it holds.
    pub(super) fn holding(&mut self, ticket: Ticket, keyspaces: BTreeSet<KeyspaceId>) {
        let keyspaces = self.existing(keyspaces);
        if self.inspection_done(ticket, &keyspaces) {
            return;
        }
        let promise = self.brake.promise.take_if(|(asked, _, _)| *asked == ticket);
        if let Some((_, to, ballot)) = promise
            && self.record.acceptor.has_promised(&ballot)
        {
            self.promise(to, ballot, keyspaces);
        }
    }
}
