//! Keeping hints: for whom, when, by whom, and whether it counts.
//!
//! A replica that can't be reached, or has failed for a reason that lasts, is stood in for at once; one
//! that is only silent, after a moment that is short while the stand-in's word is needed and longer
//! otherwise. A stand-in that fails is followed by the next. A replica that acknowledges after all
//! is sent its hint once more later, which changes nothing.

use std::time::Duration;

use anello_protocol::{
    message::{
        client::{ReplicaOutcome, ReplicaReceipt, Role},
        hint::StoreHint,
        replica::Refusal,
    },
    time::Moment,
};

use super::{Progress, Replication, State};
use crate::coordinator::{
    desk::{Desk, Head, earliest},
    events::{CallFailure, Incoming, Outgoing},
    receipt::{outcome_of_failure, passes},
    stand_ins::{Keeper, StandIns},
};

/// How patient one is with a keeper that refuses for a reason that passes: as after so many failures.
const REST: u32 = 3;

/// The hints of one write.
#[derive(Debug, Default)]
pub(super) struct Hinting {
    stand_ins: StandIns,
    kept: Vec<Keeping>,
}

/// One node's part in it.
#[derive(Debug)]
struct Keeping {
    /// The place of the replica that it is for.
    owner: usize,
    keeper: Keeper,
    state: KeepingState,
    us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeepingState {
    Asked(u32),
    Keeps,
    /// It refuses for a reason that passes, and is asked again then.
    Rests(Moment),
    Failed(ReplicaOutcome),
}

impl Hinting {
    /// Whether somebody who was asked may still answer.
    pub(super) fn is_under_way(&self) -> bool {
        let is_open = |keeping: &Keeping| {
            matches!(keeping.state, KeepingState::Asked(_) | KeepingState::Rests(_))
        };
        self.kept.iter().any(is_open)
    }

    /// The same of those only who count.
    pub(super) fn has_stragglers(&self) -> bool {
        let mut counting = self.kept.iter().filter(|keeping| keeping.keeper.counts);
        counting.any(|keeping| matches!(keeping.state, KeepingState::Asked(_)))
    }

    /// Who took part.
    pub(super) fn receipts(&self, desk: &Desk, head: &Head) -> Vec<ReplicaReceipt> {
        let receipt = |keeping: &Keeping| {
            let (outcome, us) = match keeping.state {
                KeepingState::Asked(_) => (ReplicaOutcome::Timeout, head.us(desk)),
                KeepingState::Keeps => (ReplicaOutcome::Answered, keeping.us),
                KeepingState::Rests(_) => (ReplicaOutcome::Refused, keeping.us),
                KeepingState::Failed(outcome) => (outcome, keeping.us),
            };
            let place = keeping.keeper.place.clone();
            ReplicaReceipt {
                id: place.id,
                datacenter: place.datacenter,
                rack: place.rack,
                role: Role::StandIn,
                outcome,
                us,
            }
        };
        // A replica that keeps a hint for another one is no stand-in: it is there already.
        self.kept.iter().filter(|keeping| keeping.keeper.counts).map(receipt).collect()
    }

    /// Whether a hint for that replica is kept, or about to be.
    fn covers(&self, owner: usize) -> bool {
        let kept = self.kept.iter().filter(|keeping| keeping.owner == owner);
        kept.into_iter().any(|keeping| !matches!(keeping.state, KeepingState::Failed(_)))
    }
}

impl Replication {
    /// This node, which is a stand-in, keeps the versions already.
    pub(super) fn keeps_already(&mut self, desk: &Desk, head: &Head, owner: usize) {
        let site = &self.plan.site;
        let own = site.placement.stand_ins.iter().find(|place| place.id == desk.node);
        let Some(place) = own.cloned() else { return };
        self.hinting.stand_ins.take(desk, site);
        let keeper = Keeper { counts: self.plan.site.counts_for(owner, &place), place };
        let counts = keeper.counts;
        let (state, us) = (KeepingState::Keeps, head.us(desk));
        self.hinting.kept.push(Keeping { owner, keeper, state, us });
        if counts && self.plan.site.is_sloppy() {
            self.count(owner);
        }
    }

    /// Has hints kept for the replicas that need one.
    pub(super) fn hint(&mut self, desk: &mut Desk, head: &mut Head) {
        self.ask_the_rested(desk, head);
        // First those whose stand-ins count: else the others would use them up.
        for counts in [true, false] {
            for owner in 0..self.slots.len() {
                if self.plan.site.counts(owner) == counts
                    && self.needs_hint(desk, owner)
                    && !self.hinting.covers(owner)
                {
                    self.keep_hint(desk, head, owner);
                }
            }
        }
    }

    fn ask_the_rested(&mut self, desk: &mut Desk, head: &mut Head) {
        for at in 0..self.hinting.kept.len() {
            let Keeping { owner, keeper, state, .. } = &self.hinting.kept[at];
            if matches!(state, KeepingState::Rests(until) if *until <= desk.moment()) {
                let (owner, to) = (*owner, keeper.place.id.clone());
                let hint = self.hint_for(owner, keeper);
                let attempt = desk.send(head, &to, Outgoing::Hint(hint));
                self.hinting.kept[at].state = KeepingState::Asked(attempt);
            }
        }
    }

    /// When the next replica has been silent for too long.
    pub(super) fn hint_due(&self, desk: &Desk) -> Option<Moment> {
        let owners = (0..self.slots.len()).filter(|owner| !self.hinting.covers(*owner));
        let due = owners.filter_map(|owner| {
            let slot = &self.slots[owner];
            let waits = !matches!(slot.state, State::Unsent | State::Holds);
            let at = slot.since.filter(|_| waits)? + self.hint_patience(desk, owner);
            // One that has passed was heeded as far as it could be.
            (at > desk.moment()).then_some(at)
        });
        let rests = self.hinting.kept.iter().filter_map(|keeping| match keeping.state {
            KeepingState::Rests(until) => Some(until),
            _ => None,
        });
        earliest(due.min(), rests.min())
    }

    /// Takes the answer of somebody who was asked to keep a hint.
    pub(super) fn hint_answered(
        &mut self,
        desk: &mut Desk,
        head: &mut Head,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) -> Progress {
        let asked = |keeping: &Keeping| keeping.state == KeepingState::Asked(attempt);
        let Some(at) = self.hinting.kept.iter().position(asked) else { return Progress::Going };
        let (state, lost_to) = match outcome {
            Ok(Incoming::Stored(Ok(stored))) => (KeepingState::Keeps, stored.lost_to),
            Ok(Incoming::Stored(Err(Refusal::StaleEpoch(newer)))) => {
                self.hinting.kept[at].state = KeepingState::Failed(ReplicaOutcome::Refused);
                return Progress::Stale(newer);
            }
            Ok(Incoming::Stored(Err(refusal)))
                if passes(&refusal) && refusal != Refusal::NotOwner =>
            {
                (KeepingState::Rests(desk.retry_at(head, REST)), None)
            }
            Ok(_) => (KeepingState::Failed(ReplicaOutcome::Refused), None),
            Err(failure) => (KeepingState::Failed(outcome_of_failure(failure)), None),
        };
        let keeping = &mut self.hinting.kept[at];
        let (owner, counts) = (keeping.owner, keeping.keeper.counts);
        keeping.state = state;
        keeping.us = head.us(desk);
        if let Some(later) = lost_to.filter(|_| counts && self.plan.can_lose) {
            return Progress::Lost(later);
        }
        if state == KeepingState::Keeps && counts && self.plan.site.is_sloppy() {
            self.count(owner);
        }
        self.hint(desk, head);
        Progress::Going
    }

    fn needs_hint(&self, desk: &Desk, owner: usize) -> bool {
        let slot = &self.slots[owner];
        let place = &self.plan.site.placement.replicas[owner];
        let is_away = place.id != desk.node && !desk.peers.is_reachable(&place.id);
        let is_late =
            slot.since.is_some_and(|at| at + self.hint_patience(desk, owner) <= desk.moment());
        match slot.state {
            State::Unsent | State::Holds => false,
            State::Asked { .. } | State::Relayed { .. } => is_away || is_late,
            State::Failed { passes, .. } => !passes || is_away || is_late,
        }
    }

    fn hint_patience(&self, desk: &Desk, owner: usize) -> Duration {
        let near = self.plan.site.placement.replicas[owner].datacenter == desk.datacenter;
        let helps = self.plan.site.is_sloppy() && !self.plan.site.placement.stand_ins.is_empty();
        let silence = match helps && !self.enough() {
            true => desk.config.stand_in_silence,
            false => desk.config.hint_silence,
        };
        if near { silence } else { silence + desk.config.relay_silence }
    }

    fn keep_hint(&mut self, desk: &mut Desk, head: &mut Head, owner: usize) {
        let stand_ins = &mut self.hinting.stand_ins;
        let Some(keeper) = stand_ins.next_keeper(desk, &self.plan.site, owner) else { return };
        let message = self.hint_for(owner, &keeper);
        let Hinting { kept, .. } = &mut self.hinting;
        let attempt = desk.send(head, &keeper.place.id, Outgoing::Hint(message));
        kept.push(Keeping { owner, keeper, state: KeepingState::Asked(attempt), us: 0 });
    }

    fn hint_for(&self, owner: usize, keeper: &Keeper) -> StoreHint {
        StoreHint {
            owner: self.plan.site.placement.replicas[owner].id.clone(),
            store: self.plan.message(),
            counts: keeper.counts && self.plan.site.is_sloppy(),
        }
    }
}
