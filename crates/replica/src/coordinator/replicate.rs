//! Storing versions at all replicas: directly in this datacenter, through one relay in each other.
//!
//! A replica that can't be reached, or is silent for too long, is stood in for: a hint is kept for it.
//!
//! Invariants: a replica counts once, itself or by its stand-in, on each side of a change that it is on, and
//! only after it has said that it holds the versions durably; in a strict quorum no stand-in counts; everybody is sent the versions, however
//! few must answer; what was answered to an earlier round (a version that has been issued anew since)
//! counts for nothing.

mod hinting;

use anello_protocol::{
    causality::Context,
    id::{Epoch, NodeId},
    message::{
        client::{Receipt, ReplicaOutcome},
        replica::{Refusal, RelayFailure, RelayVersions, StoreVersions, Stored, WriteTicket},
    },
    time::{HybridTime, Moment},
    version::{ConflictRule, Versions},
};

use self::hinting::Hinting;
use super::{
    desk::{Desk, Head, earliest},
    events::{CallFailure, Incoming, Outgoing},
    receipt::{outcome_of_failure, passes, receipt},
    site::Site,
};
use crate::{joint::JointTally, tally::TallyResult};

/// How many bits of a ticket's number say which round of a request it is of.
const ROUND_BITS: u32 = 16;

/// The storing of versions under way. See the head of this file.
#[derive(Debug)]
pub(super) struct Replication {
    pub(super) plan: Plan,
    /// Which of the request's rounds this is.
    round: u16,
    tally: JointTally,
    /// By the places of the replicas.
    slots: Vec<Slot>,
    hinting: Hinting,
}

/// What is to be stored, and where.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) site: Site,
    pub(super) versions: Versions,
    /// What the writer has seen, once all this is done.
    pub(super) context: Context,
    /// Whether the write itself is among the versions: then it must not lose to a time that its
    /// vnode had not heard of.
    pub(super) can_lose: bool,
}

#[derive(Debug, Default)]
struct Slot {
    state: State,
    /// When it was first sent the versions.
    since: Option<Moment>,
    failures: u32,
    us: u64,
    /// Whether it has been counted, itself or by its stand-in.
    counted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unsent,
    /// It was sent the versions, alone or to pass them on.
    Asked {
        attempt: u32,
        is_relay: bool,
    },
    /// A relay was asked to send them to it.
    Relayed {
        at: Moment,
        relay: usize,
    },
    Holds,
    Failed {
        retry_at: Moment,
        outcome: ReplicaOutcome,
        passes: bool,
    },
}

/// What an answer leads to.
#[derive(Debug)]
pub(super) enum Progress {
    Going,
    /// The replicas know a newer state.
    Stale(Epoch),
    /// A version of this later time was there and stays.
    Lost(HybridTime),
}

impl Replication {
    /// Sends the versions to everybody. `holders` have them already; this node keeps them as a hint for
    /// the replica at the place `kept_for`, if that says one.
    pub(super) fn start(
        desk: &mut Desk,
        head: &mut Head,
        plan: Plan,
        round: u16,
        holders: &[NodeId],
        kept_for: Option<usize>,
    ) -> Self {
        let mut tally = plan.site.tally();
        let us = head.us(desk);
        let slots = plan.site.placement.replicas.iter().enumerate().map(|(at, place)| {
            if !holders.contains(&place.id) {
                return Slot::default();
            }
            tally.add_result(at, TallyResult::Success);
            Slot { state: State::Holds, us, counted: true, ..Slot::default() }
        });
        let slots = slots.collect();
        let hinting = Hinting::default();
        let mut replication = Self { round, tally, slots, hinting, plan };
        if let Some(owner) = kept_for {
            replication.keeps_already(desk, head, owner);
        }
        replication.send_to_neighbours(desk, head);
        replication.send_to_relays(desk, head);
        replication.hint(desk, head);
        replication
    }

    /// Takes an answer of a replica that was sent the versions from here.
    pub(super) fn answered(
        &mut self,
        desk: &mut Desk,
        head: &mut Head,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) -> Progress {
        let asked =
            |slot: &Slot| matches!(slot.state, State::Asked { attempt: own, .. } if own == attempt);
        let Some(at) = self.slots.iter().position(asked) else {
            return self.hint_answered(desk, head, attempt, outcome);
        };
        let was_relay = matches!(self.slots[at].state, State::Asked { is_relay: true, .. });
        // It can't be known whether it passed the versions on; to get them twice changes nothing.
        let relay_failed =
            was_relay && matches!(outcome, Err(_) | Ok(Incoming::Stored(Err(Refusal::Busy))));
        let progress = match outcome {
            Ok(Incoming::Stored(Ok(stored))) => self.stored(desk, head, at, stored),
            Ok(Incoming::Stored(Err(refusal))) => self.refused(desk, head, at, refusal),
            Ok(_) => self.refused(desk, head, at, Refusal::NotOwner),
            Err(failure) => {
                let passes = failure == CallFailure::Busy;
                self.failed(desk, head, at, outcome_of_failure(failure), passes);
                Progress::Going
            }
        };
        if relay_failed {
            let behind = |state| matches!(state, State::Relayed { relay, .. } if relay == at);
            self.send_directly(desk, head, behind);
        }
        self.hint(desk, head);
        progress
    }

    /// Takes what a relay says of a replica behind it.
    pub(super) fn acked(
        &mut self,
        desk: &mut Desk,
        head: &mut Head,
        ticket: WriteTicket,
        replica: &NodeId,
        outcome: Result<Stored, RelayFailure>,
    ) -> Progress {
        let round = ticket.number & ((1 << ROUND_BITS) - 1);
        let place = self.plan.site.placement.index_of(replica);
        let Some(at) = place.filter(|_| round == u64::from(self.round)) else {
            return Progress::Going;
        };
        let is_relayed = matches!(self.slots[at].state, State::Relayed { .. });
        match outcome {
            // It may have been written to directly meanwhile; an acknowledgement is good either way.
            Ok(stored) => return self.stored(desk, head, at, stored),
            Err(_) if !is_relayed => {}
            Err(RelayFailure::Refused(refusal)) => {
                let progress = self.refused(desk, head, at, refusal);
                self.hint(desk, head);
                return progress;
            }
            Err(RelayFailure::Busy) => self.failed(desk, head, at, ReplicaOutcome::Refused, true),
            // This node may reach it, or be luckier.
            Err(RelayFailure::Unreachable) => {
                self.failed(desk, head, at, ReplicaOutcome::Unreachable, false);
            }
            Err(RelayFailure::Timeout) => {
                self.failed(desk, head, at, ReplicaOutcome::Timeout, false);
            }
        }
        self.hint(desk, head);
        Progress::Going
    }

    /// Looks after silent relays, and replicas that failed and may be asked again. Those whose failure
    /// won't pass by itself are left alone once enough have answered.
    pub(super) fn time_up(&mut self, desk: &mut Desk, head: &mut Head) {
        let (now, silence, enough) = (desk.moment(), desk.config.relay_silence, self.enough());
        self.send_directly(desk, head, |state| match state {
            State::Relayed { at, .. } => at + silence <= now,
            State::Failed { retry_at, passes, .. } => retry_at <= now && (passes || !enough),
            State::Unsent | State::Asked { .. } | State::Holds => false,
        });
        self.hint(desk, head);
    }

    /// When it wants to be looked after.
    pub(super) fn due(&self, desk: &Desk) -> Option<Moment> {
        let enough = self.enough();
        let moments = self.slots.iter().filter_map(|slot| match slot.state {
            State::Relayed { at, .. } => Some(at + desk.config.relay_silence),
            State::Failed { retry_at, passes, .. } if passes || !enough => Some(retry_at),
            _ => None,
        });
        earliest(moments.min(), self.hint_due(desk))
    }

    pub(super) fn enough(&self) -> bool {
        self.tally.enough()
    }

    /// How many must answer, and how many have.
    pub(super) fn counts(&self) -> (u16, u16) {
        self.tally.counts()
    }

    /// Whether somebody who was sent the versions may still answer.
    pub(super) fn has_stragglers(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot.state, State::Asked { .. } | State::Relayed { .. }))
            || self.hinting.has_stragglers()
    }

    /// Whether nothing is left to be done once enough have answered.
    pub(super) fn is_settled(&self) -> bool {
        !self.has_stragglers()
            && !self.hinting.is_under_way()
            && !self
                .slots
                .iter()
                .any(|slot| matches!(slot.state, State::Failed { passes: true, .. }))
    }

    /// Who holds the versions, and counts under the state of this site as well, if it is a replica there.
    ///
    /// Under the next state it is. Beyond that it may have handed its data over and dropped it, and be
    /// about to get it back. Who wasn't read could not say whether the write loses.
    pub(super) fn holders(&self, next: &Site) -> Vec<NodeId> {
        let Plan { site, can_lose, .. } = &self.plan;
        if next.view.epoch().0 > site.view.epoch().0 + 1 {
            return Vec::new();
        }
        let may_lose = *can_lose && site.rule == ConflictRule::Lww;
        let places = site.placement.replicas.iter().zip(&self.slots).enumerate();
        let holders = places.filter(|(at, (_, slot))| {
            let could_say = !may_lose || site.placement.readers.contains(*at);
            slot.state == State::Holds && slot.counted && could_say
        });
        holders.map(|(_, (place, _))| place.id.clone()).collect()
    }

    /// Who took part.
    pub(super) fn receipt(&self, desk: &Desk, head: &Head) -> Receipt {
        let parts = self.slots.iter().map(|slot| match slot.state {
            State::Unsent => None,
            State::Asked { .. } | State::Relayed { .. } => {
                Some((ReplicaOutcome::Timeout, head.us(desk)))
            }
            State::Holds => Some((ReplicaOutcome::Answered, slot.us)),
            State::Failed { outcome, .. } => Some((outcome, slot.us)),
        });
        let mut receipt = receipt(desk, &self.plan.site, parts);
        receipt.replicas.extend(self.hinting.receipts(desk, head));
        receipt
    }

    fn stored(&mut self, desk: &Desk, head: &Head, at: usize, stored: Stored) -> Progress {
        if self.slots[at].state == State::Holds {
            return Progress::Going;
        }
        if let Some(later) = stored.lost_to.filter(|_| self.plan.can_lose) {
            return Progress::Lost(later);
        }
        self.slots[at].state = State::Holds;
        self.slots[at].us = head.us(desk);
        // It can't say whether the write loses to one that was acknowledged before: it stands for no more
        // than a stand-in does.
        let may_lose = self.plan.can_lose && self.plan.site.rule == ConflictRule::Lww;
        if !(may_lose && stored.is_quarantined) || self.plan.site.is_sloppy() {
            self.count(at);
        } else {
            // What it may have to say is for those to say who are read; of the others one only wants to know
            // that they hold it.
            self.tally.add_to_others(at, TallyResult::Success);
        }
        Progress::Going
    }

    fn count(&mut self, at: usize) {
        if !self.slots[at].counted {
            self.slots[at].counted = true;
            self.tally.add_result(at, TallyResult::Success);
        }
    }

    fn refused(&mut self, desk: &Desk, head: &Head, at: usize, refusal: Refusal) -> Progress {
        let passes = passes(&refusal);
        self.failed(desk, head, at, ReplicaOutcome::Refused, passes);
        match refusal {
            Refusal::StaleEpoch(newer) => Progress::Stale(newer),
            _ => Progress::Going,
        }
    }

    fn failed(
        &mut self,
        desk: &Desk,
        head: &Head,
        at: usize,
        outcome: ReplicaOutcome,
        passes: bool,
    ) {
        let slot = &mut self.slots[at];
        let retry_at = desk.retry_at(head, slot.failures);
        slot.failures += 1;
        slot.us = head.us(desk);
        slot.state = State::Failed { retry_at, outcome, passes };
    }

    fn send_to_neighbours(&mut self, desk: &mut Desk, head: &mut Head) {
        for at in 0..self.slots.len() {
            let near = self.plan.site.placement.replicas[at].datacenter == desk.datacenter;
            if near && self.slots[at].state == State::Unsent {
                self.send(desk, head, at);
            }
        }
    }

    /// In each other datacenter one replica gets the versions with the request to pass them on.
    fn send_to_relays(&mut self, desk: &mut Desk, head: &mut Head) {
        // The replicas are grouped by datacenter.
        let mut first = 0;
        while first < self.slots.len() {
            let datacenter = self.plan.site.placement.replicas[first].datacenter.clone();
            let order = desk.peers.order(
                &self.plan.site.placement.replicas,
                &desk.node,
                &desk.datacenter,
                |at, place| place.datacenter == datacenter && self.slots[at].state == State::Unsent,
            );
            match order[..] {
                [] => {}
                [alone] => self.send(desk, head, alone),
                [relay, ref others @ ..] => self.send_to_relay(desk, head, relay, others),
            }
            let replicas = &self.plan.site.placement.replicas[first..];
            first += replicas.iter().take_while(|place| place.datacenter == datacenter).count();
        }
    }

    fn send_to_relay(&mut self, desk: &mut Desk, head: &mut Head, relay: usize, others: &[usize]) {
        let replicas = &self.plan.site.placement.replicas;
        let number = head.number << ROUND_BITS | u64::from(self.round);
        let message = RelayVersions {
            store: self.plan.message(),
            others: others.iter().map(|at| replicas[*at].id.clone()).collect(),
            origin: desk.node.clone(),
            ticket: WriteTicket { coordinator: desk.number, number },
            timeout_ms: head.left_ms(desk),
        };
        let attempt = desk.send(head, &replicas[relay].id, Outgoing::Relay(message));
        self.slots[relay].state = State::Asked { attempt, is_relay: true };
        self.slots[relay].since = Some(desk.moment());
        for at in others {
            self.slots[*at].state = State::Relayed { at: desk.moment(), relay };
            self.slots[*at].since = Some(desk.moment());
        }
    }

    fn send_directly(&mut self, desk: &mut Desk, head: &mut Head, to: impl Fn(State) -> bool) {
        for at in 0..self.slots.len() {
            if to(self.slots[at].state) {
                self.send(desk, head, at);
            }
        }
    }

    fn send(&mut self, desk: &mut Desk, head: &mut Head, at: usize) {
        let to = &self.plan.site.placement.replicas[at].id;
        let attempt = desk.send(head, to, Outgoing::Store(self.plan.message()));
        self.slots[at].state = State::Asked { attempt, is_relay: false };
        self.slots[at].since.get_or_insert(desk.moment());
    }
}

impl Plan {
    fn message(&self) -> StoreVersions {
        StoreVersions {
            epoch: self.site.view.epoch(),
            key: self.site.key.clone(),
            rule: self.site.rule,
            versions: self.versions.clone(),
        }
    }
}

/// The request that a ticket is of.
pub(super) fn request_of(ticket: WriteTicket) -> u64 {
    ticket.number >> ROUND_BITS
}
