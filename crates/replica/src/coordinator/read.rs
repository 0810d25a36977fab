//! A quorum read: the versions from the nearest replica, digests from the others, and the versions of
//! those whose digests differ.
//!
//! Invariants: a replica counts once its versions are in the result, that is when it has sent them, or
//! a digest that equals that of another replica's versions; the result is the join of all versions that
//! were sent; nobody who is silent or failed is counted.

use anello_protocol::{
    id::Epoch,
    key::DataKey,
    message::{
        client::{Receipt, ReplicaOutcome, RequestError},
        replica::{Held, ReadVersions, Refusal, Want},
    },
    time::Moment,
    version::{Versions, VersionsDigest},
};

use super::{
    desk::{Desk, Head},
    events::{CallFailure, Incoming, Outgoing},
    receipt::{outcome_of_failure, receipt},
    site::Site,
};
use crate::tally::{Tally, TallyResult};

/// A quorum read under way. See the head of this file.
#[derive(Debug)]
pub(super) struct QuorumRead {
    site: Site,
    tally: Tally,
    /// By the places of the replicas.
    slots: Vec<Slot>,
    /// Those that count, in the order in which they are asked.
    order: Vec<usize>,
    /// Bytes of the values that were sent.
    bytes: usize,
}

/// One replica's part.
#[derive(Debug, Default)]
struct Slot {
    state: State,
    asked_at: Moment,
    failures: u32,
    /// Of what it holds.
    digest: Option<VersionsDigest>,
    full: Option<Versions>,
    counted: bool,
    us: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Unasked,
    Asked {
        attempt: u32,
        want: Want,
        /// For so long that another one was asked in its place.
        silent: bool,
    },
    Answered,
    Failed {
        retry_at: Moment,
        outcome: ReplicaOutcome,
    },
}

/// What an answer leads to.
#[derive(Debug)]
pub(super) enum Progress {
    /// More answers are needed.
    Waiting,
    /// Enough have answered.
    Enough,
    /// The read has to begin again under this newer state.
    Stale(Epoch),
}

impl QuorumRead {
    /// Asks the first replicas, or says that too few can be reached.
    pub(super) fn start(
        desk: &mut Desk,
        head: &mut Head,
        site: Site,
    ) -> Result<Self, RequestError> {
        site.enough_alive(desk)?;
        let replicas = &site.placement.replicas;
        let order = desk.peers.order(replicas, &desk.node, &desk.datacenter, |_, place| {
            site.requirement.counts(&place.datacenter)
        });
        let mut read = Self {
            tally: Tally::new(&site.requirement, &site.replication),
            slots: replicas.iter().map(|_| Slot::default()).collect(),
            order,
            bytes: 0,
            site,
        };
        read.ask_more(desk, head);
        for at in read.order.iter().skip(usize::from(read.tally.required())) {
            desk.peers.passed_over(&read.site.placement.replicas[*at].id);
        }
        Ok(read)
    }

    /// Takes an answer in.
    pub(super) fn answered(
        &mut self,
        desk: &mut Desk,
        head: &mut Head,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) -> Progress {
        let asked =
            |slot: &Slot| matches!(slot.state, State::Asked { attempt: own, .. } if own == attempt);
        let Some(at) = self.slots.iter().position(asked) else { return Progress::Waiting };
        let failed = match outcome {
            Ok(Incoming::Read(Ok(held))) => {
                self.hold(desk, head, at, held);
                None
            }
            Ok(Incoming::Read(Err(Refusal::StaleEpoch(newer)))) => {
                return Progress::Stale(newer);
            }
            Ok(_) => Some(ReplicaOutcome::Refused),
            Err(failure) => Some(outcome_of_failure(failure)),
        };
        if let Some(outcome) = failed {
            let slot = &mut self.slots[at];
            let retry_at = desk.retry_at(head, slot.failures);
            slot.failures += 1;
            slot.state = State::Failed { retry_at, outcome };
            slot.us = head.us(desk);
        }
        self.advance(desk, head)
    }

    /// Looks after replicas that are silent, and those that failed and may be asked again.
    pub(super) fn time_up(&mut self, desk: &mut Desk, head: &mut Head) -> Progress {
        let silence = desk.config.read_silence;
        for slot in &mut self.slots {
            if let State::Asked { silent, .. } = &mut slot.state {
                *silent |= desk.moment() >= slot.asked_at + silence;
            }
        }
        self.advance(desk, head)
    }

    /// When it wants to be looked after.
    pub(super) fn due(&self, desk: &Desk) -> Option<Moment> {
        let short = self.needed() > 0;
        let moments = self.slots.iter().filter_map(|slot| match slot.state {
            State::Asked { silent: false, .. } => Some(slot.asked_at + desk.config.read_silence),
            State::Failed { retry_at, .. } if short => Some(retry_at),
            _ => None,
        });
        moments.min()
    }

    /// Whether somebody who was asked may still answer.
    pub(super) fn has_stragglers(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, State::Asked { .. }))
    }

    /// How many must answer, and how many have.
    pub(super) fn counts(&self) -> (u16, u16) {
        (self.tally.required(), self.tally.received())
    }

    /// Bytes of the values that it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Who took part.
    pub(super) fn receipt(&self, desk: &Desk, head: &Head) -> Receipt {
        let all = self.joined().digest();
        let parts = self.slots.iter().map(|slot| match slot.state {
            State::Unasked => None,
            State::Asked { .. } => Some((ReplicaOutcome::Timeout, head.us(desk))),
            // The result is the join of all, so whoever differs from it lacks something.
            State::Answered if slot.digest != Some(all) => Some((ReplicaOutcome::Stale, slot.us)),
            State::Answered => Some((ReplicaOutcome::Answered, slot.us)),
            State::Failed { outcome, .. } => Some((outcome, slot.us)),
        });
        receipt(desk, &self.site, parts)
    }

    /// The key that is read.
    pub(super) fn key(&self) -> &DataKey {
        &self.site.key
    }

    /// The join of all that was sent.
    pub(super) fn into_result(self) -> Versions {
        let mut fulls = self.slots.into_iter().filter_map(|slot| slot.full);
        let mut joined = fulls.next().unwrap_or_default();
        for versions in fulls {
            joined.merge(versions, self.site.rule);
        }
        joined
    }

    fn joined(&self) -> Versions {
        let mut joined = Versions::new();
        for versions in self.slots.iter().filter_map(|slot| slot.full.as_ref()) {
            joined.merge(versions.clone(), self.site.rule);
        }
        joined
    }

    fn hold(&mut self, desk: &mut Desk, head: &Head, at: usize, held: Held) {
        let slot = &mut self.slots[at];
        slot.us = head.us(desk);
        slot.state = State::Answered;
        slot.failures = 0;
        let took = desk.moment().since(slot.asked_at).as_micros();
        desk.peers.measured(
            &self.site.placement.replicas[at].id,
            u64::try_from(took).unwrap_or(u64::MAX),
        );
        match held {
            Held::Full(versions) => {
                self.bytes += versions.value_bytes();
                slot.digest = Some(versions.digest());
                slot.full = Some(versions);
            }
            Held::Digest(digest) => slot.digest = Some(digest),
        }
    }

    fn advance(&mut self, desk: &mut Desk, head: &mut Head) -> Progress {
        self.count();
        if self.tally.enough() {
            return Progress::Enough;
        }
        self.ask_for_what_differs(desk, head);
        self.ask_more(desk, head);
        Progress::Waiting
    }

    /// Counts those whose versions are in the result.
    fn count(&mut self) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.counted || slot.state != State::Answered {
                continue;
            }
            let nothing = VersionsDigest::default();
            let included = slot.full.is_some()
                || slot.digest == Some(nothing)
                || self.slots.iter().any(|s| s.full.is_some() && s.digest == slot.digest);
            if included {
                self.slots[at].counted = true;
                let datacenter = &self.site.placement.replicas[at].datacenter;
                self.tally.add_result(datacenter, TallyResult::Success);
            }
        }
    }

    /// Asks those for their versions whose digests nobody's versions explain.
    fn ask_for_what_differs(&mut self, desk: &mut Desk, head: &mut Head) {
        let have_one = self.slots.iter().any(|slot| slot.full.is_some());
        if !have_one && self.full_is_coming() {
            return;
        }
        for place in 0..self.order.len() {
            let at = self.order[place];
            let slot = &self.slots[at];
            if slot.state == State::Answered && !slot.counted {
                self.ask(desk, head, at, Want::Full);
                if !have_one {
                    return;
                }
            }
        }
    }

    /// Asks as many replicas as are still needed: first those that were not asked, then those that
    /// failed a while ago.
    fn ask_more(&mut self, desk: &mut Desk, head: &mut Head) {
        let mut needed = self.needed();
        if needed == 0 {
            return;
        }
        let now = desk.moment();
        let is_fresh: fn(State, Moment) -> bool = |state, _| state == State::Unasked;
        let is_rested: fn(State, Moment) -> bool =
            |state, now| matches!(state, State::Failed { retry_at, .. } if retry_at <= now);
        for wanted in [is_fresh, is_rested] {
            for place in 0..self.order.len() {
                let at = self.order[place];
                if needed > 0 && wanted(self.slots[at].state, now) {
                    needed -= 1;
                    let have_one = self.slots.iter().any(|slot| slot.full.is_some());
                    let want =
                        if have_one || self.full_is_coming() { Want::Digest } else { Want::Full };
                    self.ask(desk, head, at, want);
                }
            }
        }
    }

    /// How many more have to be asked, if all who were asked and aren't silent answer.
    fn needed(&self) -> usize {
        let missing = self.tally.required().saturating_sub(self.tally.received());
        let hopeful = self.order.iter().filter(|at| match self.slots[**at].state {
            State::Asked { silent, .. } => !silent,
            // Its digest waits for somebody's versions.
            State::Answered => !self.slots[**at].counted,
            State::Unasked | State::Failed { .. } => false,
        });
        usize::from(missing).saturating_sub(hopeful.count())
    }

    fn full_is_coming(&self) -> bool {
        self.slots
            .iter()
            .any(|slot| matches!(slot.state, State::Asked { want: Want::Full, silent: false, .. }))
    }

    fn ask(&mut self, desk: &mut Desk, head: &mut Head, at: usize, want: Want) {
        let message =
            ReadVersions { epoch: self.site.view.epoch(), key: self.site.key.clone(), want };
        let to = &self.site.placement.replicas[at].id;
        let attempt = desk.send(head, to, Outgoing::Read(message));
        let slot = &mut self.slots[at];
        slot.state = State::Asked { attempt, want, silent: false };
        slot.asked_at = desk.moment();
    }
}
