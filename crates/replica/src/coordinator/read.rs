//! A quorum read: the versions from the nearest replica, digests from the others, and the versions of
//! those whose digests differ.
//!
//! A replica that is slower than it usually is is overtaken: another replica is asked too
//! ([`super::hedging`]). Where replicas fail, in a sloppy quorum, stand-ins answer from the hints that they
//! keep. One that keeps nothing of the key knows nothing of it either: its word counts only beside that of
//! a replica.
//!
//! Invariants: a replica counts once its versions are in the result, that is when it has sent them, or
//! a digest that equals that of another replica's versions; a stand-in counts in the place of its
//! replica, never beside it; the result is the join of all versions that were sent; nobody who is silent
//! or failed is counted.

use anello_protocol::{
    id::{Epoch, NodeId},
    key::DataKey,
    message::{
        client::{Place, Receipt, ReplicaOutcome, ReplicaReceipt, RequestError, Role},
        hint::ReadHints,
        replica::{Held, ReadVersions, Refusal, StoreVersions, Want},
    },
    time::Moment,
    version::{Versions, VersionsDigest},
};

use super::{
    desk::{Desk, Head},
    events::{CallFailure, Incoming, Outgoing},
    receipt::{outcome_of_failure, receipt},
    site::Site,
    stand_ins::StandIns,
};
use crate::tally::{Tally, TallyResult};

/// A quorum read under way. See the head of this file.
#[derive(Debug)]
pub(super) struct QuorumRead {
    site: Site,
    tally: Tally,
    /// By the places of the replicas, then the stand-ins.
    slots: Vec<Slot>,
    stand_ins: StandIns,
    /// Those that count, in the order in which they are asked.
    order: Vec<usize>,
    /// Bytes of the values that were sent.
    bytes: usize,
}

/// One replica's part, or a stand-in's.
#[derive(Debug, Default)]
struct Slot {
    /// Of a stand-in: who it is, and the place of the replica that it stands in for.
    stand_in: Option<(Place, usize)>,
    state: State,
    asked_at: Moment,
    /// When another one is asked too, if there is leave for it; once that was tried, never.
    hedge_at: Option<Moment>,
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
        /// For so long that another one was asked in its place, whoever that is.
        silent: bool,
        /// For longer than usual, so that another replica was asked too.
        overtaken: bool,
    },
    Answered,
    Failed {
        retry_at: Moment,
        outcome: ReplicaOutcome,
    },
}

/// Whose turn it is to be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Those that were not asked yet and can be reached.
    Fresh,
    /// Those that stand in for the others.
    StandIns,
    /// Those that are said not to be reachable: that may be wrong.
    Away,
    /// Those that failed a while ago.
    Rested,
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
        let order = desk.peers.order(replicas, &desk.node, &desk.datacenter, |at, place| {
            site.counts_as_reader(at, place)
        });
        let replication = &site.placement.readers.replication;
        let mut read = Self {
            tally: Tally::new(&site.requirement.readers, replication),
            slots: replicas.iter().map(|_| Slot::default()).collect(),
            stand_ins: StandIns::default(),
            order,
            bytes: 0,
            site,
        };
        desk.hedging.began();
        read.ask_more(desk, head);
        for at in read.order.iter().skip(usize::from(read.tally.required())) {
            if let Some(place) = read.site.placement.replicas.get(*at) {
                desk.peers.passed_over(&place.id);
            }
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
        let (now, silence) = (desk.moment(), desk.config.read_silence);
        for at in 0..self.slots.len() {
            let can_overtake = self.can_overtake(desk);
            let node = self.node(at).clone();
            let slot = &mut self.slots[at];
            let State::Asked { silent, overtaken, .. } = &mut slot.state else { continue };
            *silent |= now >= slot.asked_at + silence;
            if slot.hedge_at.take_if(|at| *at <= now).is_some() {
                // It counts as late at once: its answer may come when nobody waits for it any more.
                desk.hedging.measured(&node, as_us(now.since(slot.asked_at)) + 1);
                *overtaken = can_overtake && !*silent && desk.hedging.spend();
            }
        }
        self.advance(desk, head)
    }

    /// When it wants to be looked after.
    pub(super) fn due(&self, desk: &Desk) -> Option<Moment> {
        let short = self.needed(Stage::Rested) > 0;
        let can_overtake = self.can_overtake(desk);
        let moments = self.slots.iter().filter_map(|slot| match slot.state {
            State::Asked { silent: false, .. } => {
                let silence = slot.asked_at + desk.config.read_silence;
                Some(slot.hedge_at.filter(|_| can_overtake).map_or(silence, |at| at.min(silence)))
            }
            State::Failed { retry_at, .. } if short => Some(retry_at),
            _ => None,
        });
        moments.min()
    }

    /// Whether there is a replica left that can be asked beside a slow one.
    fn can_overtake(&self, desk: &Desk) -> bool {
        self.order.iter().any(|at| self.is_at(desk, *at, Stage::Fresh))
    }

    /// Whether a stand-in took part.
    pub(super) fn has_stand_ins(&self) -> bool {
        self.slots.iter().any(|slot| slot.stand_in.is_some() && slot.counted)
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
        let part = |slot: &Slot| match slot.state {
            State::Unasked => None,
            State::Asked { .. } => Some((ReplicaOutcome::Timeout, head.us(desk))),
            // The result is the join of all, so whoever differs from it lacks something. Stand-ins keep
            // only what a replica missed.
            State::Answered if slot.stand_in.is_none() && slot.digest != Some(all) => {
                Some((ReplicaOutcome::Stale, slot.us))
            }
            State::Answered => Some((ReplicaOutcome::Answered, slot.us)),
            State::Failed { outcome, .. } => Some((outcome, slot.us)),
        };
        let mut receipt = receipt(desk, &self.site, self.slots.iter().map(part));
        receipt.replicas.extend(self.slots.iter().filter_map(|slot| {
            let (place, _) = slot.stand_in.clone()?;
            let (outcome, us) = part(slot)?;
            let Place { id, datacenter, rack } = place;
            Some(ReplicaReceipt { id, datacenter, rack, role: Role::StandIn, outcome, us })
        }));
        receipt
    }

    /// What the replicas are to be sent that answered and lacked something, and which these are.
    ///
    /// A tombstone that is old enough to be forgotten is brought to nobody who holds nothing at all: that may
    /// be because it has just forgotten it.
    pub(super) fn repair(&self, desk: &Desk) -> Option<(StoreVersions, Vec<NodeId>)> {
        let mut digests = self.slots.iter().filter_map(|slot| slot.digest);
        let first = digests.next()?;
        if digests.all(|other| other == first) {
            return None;
        }
        let joined = self.joined();
        let digest = joined.digest();
        let replicas = self.site.placement.replicas.iter().zip(&self.slots);
        let is_forgettable = joined.is_deleted() && self.site.is_past_grace(desk, joined.latest());
        let stale = replicas.filter(|(_, slot)| {
            let lacks =
                |own| own != digest && !(is_forgettable && own == VersionsDigest::default());
            slot.state == State::Answered && slot.digest.is_some_and(lacks)
        });
        let stale: Vec<_> = stale.map(|(place, _)| place.id.clone()).collect();
        let store = || StoreVersions {
            epoch: self.site.view.epoch(),
            key: self.site.key.clone(),
            rule: self.site.rule,
            versions: joined,
        };
        (!stale.is_empty()).then(|| (store(), stale))
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
        let took = as_us(desk.moment().since(slot.asked_at));
        let was_in_time = slot.hedge_at.is_some();
        if let Some(place) = self.site.placement.replicas.get(at) {
            desk.peers.measured(&place.id, took);
            if was_in_time {
                desk.hedging.measured(&place.id, took);
            }
        }
        let slot = &mut self.slots[at];
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
        let has_replica =
            self.slots.iter().any(|slot| slot.stand_in.is_none() && slot.state == State::Answered);
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            if slot.counted || slot.state != State::Answered {
                continue;
            }
            let nothing = VersionsDigest::default();
            if slot.stand_in.is_some() && slot.digest == Some(nothing) && !has_replica {
                continue;
            }
            let included = slot.full.is_some()
                || slot.digest == Some(nothing)
                || self.slots.iter().any(|s| s.full.is_some() && s.digest == slot.digest);
            if included {
                self.slots[at].counted = true;
                self.count_in_place_of(at);
            }
        }
    }

    /// Counts what is the first of a replica and its stand-ins to be in the result.
    fn count_in_place_of(&mut self, at: usize) {
        let owner_of = |slot: usize| self.slots[slot].stand_in.as_ref().map_or(slot, |(_, of)| *of);
        let owner = owner_of(at);
        let already = (0..self.slots.len())
            .any(|other| other != at && self.slots[other].counted && owner_of(other) == owner);
        if !already {
            let datacenter = &self.site.placement.replicas[owner].datacenter;
            self.tally.add_result(datacenter, TallyResult::Success);
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
            // A stand-in that keeps nothing has said all that it has to say.
            if slot.state == State::Answered && !slot.counted && slot.full.is_none() {
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
        let mut needed = self.needed(Stage::Fresh);
        if needed == 0 {
            return;
        }
        for stage in [Stage::Fresh, Stage::StandIns, Stage::Away, Stage::Rested] {
            if stage == Stage::StandIns {
                // Who is only slower than usual is made up for by a replica or not at all.
                needed = needed.min(self.needed(stage));
            }
            if stage == Stage::StandIns && needed > 0 {
                needed -= self.ask_stand_ins(desk, head, needed);
            }
            for place in 0..self.order.len() {
                let at = self.order[place];
                if needed > 0 && self.is_at(desk, at, stage) {
                    needed -= 1;
                    let have_one = self.slots.iter().any(|slot| slot.full.is_some());
                    let want =
                        if have_one || self.full_is_coming() { Want::Digest } else { Want::Full };
                    self.ask(desk, head, at, want);
                }
            }
        }
    }

    fn is_at(&self, desk: &Desk, at: usize, stage: Stage) -> bool {
        let is_there = |at: usize| {
            let node = self.node(at);
            *node == desk.node || desk.peers.is_reachable(node)
        };
        match (stage, self.slots[at].state) {
            (Stage::Fresh, State::Unasked) => is_there(at),
            (Stage::Away, State::Unasked) => true,
            (Stage::Rested, State::Failed { retry_at, .. }) => retry_at <= desk.moment(),
            _ => false,
        }
    }

    /// Asks the next nodes of the walk in the place of replicas that don't answer; how many.
    fn ask_stand_ins(&mut self, desk: &mut Desk, head: &mut Head, needed: usize) -> usize {
        if !self.site.is_sloppy() {
            return 0;
        }
        let mut asked = 0;
        for owner in 0..self.site.placement.replicas.len() {
            let stood_for = |slot: &Slot| {
                let is_hopeful = match slot.state {
                    State::Asked { silent, .. } => !silent,
                    State::Answered => true,
                    State::Unasked | State::Failed { .. } => false,
                };
                slot.stand_in.as_ref().is_some_and(|(_, of)| *of == owner) && is_hopeful
            };
            let is_wanted = self.order.contains(&owner)
                && match self.slots[owner].state {
                    State::Unasked => !self.is_at(desk, owner, Stage::Fresh),
                    State::Asked { silent, .. } => silent,
                    State::Failed { .. } => true,
                    State::Answered => false,
                };
            if asked == needed || !is_wanted || self.slots.iter().any(stood_for) {
                continue;
            }
            let mut next = || self.stand_ins.next_counting(desk, &self.site, owner);
            let Some(keeper) = next() else { continue };
            let stand_in = Some((keeper.place, owner));
            self.slots.push(Slot { stand_in, ..Slot::default() });
            let at = self.slots.len() - 1;
            self.order.push(at);
            self.ask(desk, head, at, Want::Full);
            asked += 1;
        }
        asked
    }

    fn node(&self, at: usize) -> &NodeId {
        match &self.slots[at].stand_in {
            Some((place, _)) => &place.id,
            None => &self.site.placement.replicas[at].id,
        }
    }

    /// How many more have to be asked at a stage, if all who were asked and aren't too slow for it answer.
    fn needed(&self, stage: Stage) -> usize {
        let missing = self.tally.required().saturating_sub(self.tally.received());
        let hopeful = self.order.iter().filter(|at| match self.slots[**at].state {
            State::Asked { silent, overtaken, .. } => {
                let is_too_slow = silent || (overtaken && stage == Stage::Fresh);
                !is_too_slow
            }
            // Its digest waits for somebody's versions; a stand-in that has none, for a replica.
            State::Answered => !self.slots[**at].counted && self.slots[**at].stand_in.is_none(),
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
        let (epoch, key) = (self.site.view.epoch(), self.site.key.clone());
        let message = match self.slots[at].stand_in {
            None => Outgoing::Read(ReadVersions { epoch, key, want }),
            Some(_) => Outgoing::ReadHints(ReadHints { epoch, key, want }),
        };
        let to = self.node(at).clone();
        let attempt = desk.send(head, &to, message);
        let slot = &mut self.slots[at];
        slot.state = State::Asked { attempt, want, silent: false, overtaken: false };
        slot.asked_at = desk.moment();
        slot.hedge_at = Some(desk.moment() + desk.hedging.patience(&to));
    }
}

fn as_us(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
