//! One unit of repair: a partition of a keyspace is compared with another replica, and what differs is
//! moved, in both directions.
//!
//! ```text
//! frontier ──────► by_keys ───────► suspects ────────► moves ──────► transfers
//! ranges that      ranges whose     keys that differ:  keys that     a key under way,
//! differ           keys are few     looked at again    still differ  up to 32
//!                                   after a moment     in the same way
//! ```
//!
//! The second look tells what is missing from what is only on its way: under writes two healthy replicas
//! differ all the time, and nothing is moved for that. What the other side had a moment ago and is not here
//! yet is missing, which needs no second question. The walk has one question under way at a time.
//! Everything behind it is bounded: it goes on only as fast as what it finds is dealt with. A question
//! that fails is asked again a bounded number of times; its range is put back where it came from.

mod lone;
mod transfer;
mod walk;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    key::{DataKey, KeyHash},
    merkle::{EntryDigest, HashRange},
    message::replica::Refusal,
    time::Moment,
    version::VersionsDigest,
};

use crate::{
    desk::Desk,
    events::{CallFailure, Incoming},
};
use transfer::{Move, Transfer};
use walk::Step;
pub(crate) use walk::by_hash;

/// How long what differs is given to become equal by itself.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);
/// How often in a row questions may fail before the unit is given up.
const FAILURES_MAX: u32 = 5;
/// The first pause after a failure; it doubles.
const PAUSE: Duration = Duration::from_millis(200);
/// How soon to look whether others have made room.
const NO_ROOM: Duration = Duration::from_millis(50);

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Exchange {
    id: u64,
    pub(crate) keyspace: KeyspaceId,
    pub(crate) partition: PartitionId,
    pub(crate) peer: NodeId,
    /// Under which state it began.
    pub(crate) began: Epoch,
    /// Whether it is awaited for a change of the ring that this node holds all that the other does. Then it
    /// fetches that and hands nothing out: a node that leaves because its disk is full would hold up the
    /// change that helps it.
    pub(crate) is_filling: bool,
    /// Nodes of the tree still to be compared, the next one last.
    frontier: Vec<HashRange>,
    /// Ranges whose keys are to be compared, the next one last.
    by_keys: Vec<HashRange>,
    suspects: VecDeque<Suspect>,
    moves: VecDeque<Move>,
    transfers: BTreeMap<u64, Transfer>,
    next_transfer: u64,
    step: Step,
    /// How many questions in a row have failed.
    failures: u32,
    pause_until: Option<Moment>,
    is_given_up: bool,
    /// Whether something differs still that could not be mended.
    is_unresolved: bool,
    /// Whether something differs still that is being written all the time.
    is_unsettled: bool,
    /// Whether there were keys that this node alone has and keeps to itself.
    pub(crate) is_one_way: bool,
    /// How many keys were dropped here.
    pub(crate) dropped: u64,
}

/// A range in which keys differed.
#[derive(Debug)]
struct Suspect {
    range: HashRange,
    /// When to look again.
    due: Moment,
    /// How often it has been looked at.
    looks: u8,
    /// What differed.
    seen: Differing,
}

/// What differed in a range when it was looked at.
#[derive(Debug, Default)]
struct Differing {
    /// The digests here and there.
    digests: BTreeMap<KeyHash, (EntryDigest, EntryDigest)>,
    /// Of which this node held nothing: what the other side holds.
    missing: Vec<(DataKey, VersionsDigest)>,
}

/// How a unit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Both sides hold the same, but for what was written meanwhile.
    InStep,
    /// Keys that are written all the time differ still; they are looked at in the next round.
    Unsettled,
    /// Something differs still that could not be mended.
    Unresolved,
}

impl Exchange {
    pub(crate) fn new(
        id: u64,
        (keyspace, partition): (KeyspaceId, PartitionId),
        peer: NodeId,
        desk: &Desk,
    ) -> Self {
        let is_filling = desk.handovers.awaits((keyspace, partition), &peer);
        Self {
            id,
            keyspace,
            partition,
            peer,
            began: desk.epoch(),
            is_filling,
            frontier: vec![HashRange::of_partition(partition, desk.partitions())],
            by_keys: Vec::new(),
            suspects: VecDeque::new(),
            moves: VecDeque::new(),
            transfers: BTreeMap::new(),
            next_transfer: 0,
            step: Step::Idle,
            failures: 0,
            pause_until: None,
            is_given_up: false,
            is_unresolved: false,
            is_unsettled: false,
            is_one_way: false,
            dropped: 0,
        }
    }

    /// Begins whatever can be begun.
    pub(crate) fn advance(&mut self, desk: &mut Desk) {
        if self.is_given_up || self.pause_until.is_some_and(|until| until > desk.now.moment) {
            return;
        }
        self.pause_until = None;
        while desk.budget_at().is_none() && self.start_transfer(desk) {}
        if desk.budget_at().is_none() {
            self.step(desk);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        if self.is_given_up {
            return Some(Outcome::Unresolved);
        }
        let is_over = self.is_waiting()
            && self.frontier.is_empty()
            && self.by_keys.is_empty()
            && self.suspects.is_empty();
        is_over.then_some(match (self.is_unresolved, self.is_unsettled) {
            (true, _) => Outcome::Unresolved,
            (false, true) => Outcome::Unsettled,
            (false, false) => Outcome::InStep,
        })
    }

    /// When it wants to be advanced, if nothing comes back before.
    pub(crate) fn due(&self, desk: &mut Desk) -> Option<Moment> {
        if let Some(until) = self.pause_until {
            return Some(until);
        }
        let may_walk = self.may_walk();
        let has_walk = may_walk && !(self.frontier.is_empty() && self.by_keys.is_empty());
        let suspect = self.suspects.front().map(|suspect| suspect.due).filter(|_| may_walk);
        if let Some(ready) = desk.budget_at()
            && (has_walk || suspect.is_some() || !self.moves.is_empty())
        {
            return Some(ready);
        }
        let room = (!self.moves.is_empty() && self.transfers.is_empty())
            .then(|| desk.now.moment + NO_ROOM);
        suspect.into_iter().chain(room).min()
    }

    /// Whether all it does is to give what differs a moment.
    pub(crate) fn is_parked(&self) -> bool {
        self.is_waiting() && !self.suspects.is_empty()
    }

    /// Whether it has begun to move keys.
    pub(crate) fn has_moved(&self) -> bool {
        self.next_transfer > 0
    }

    /// Gives the memory that it holds back, at its end.
    pub(crate) fn release(&mut self, desk: &mut Desk) {
        for transfer in self.transfers.values() {
            desk.bytes_at_hand -= transfer.bytes();
        }
        self.transfers.clear();
    }

    fn is_waiting(&self) -> bool {
        matches!(self.step, Step::Idle) && self.transfers.is_empty() && self.moves.is_empty()
    }

    /// A question has no good answer: whether it may be asked again.
    fn failed(&mut self, desk: &mut Desk, failure: &Failure) {
        if let Failure::Refused(Refusal::Quarantined) = failure {
            desk.peer_quarantined(&self.peer);
        }
        self.failures += 1;
        if failure.is_final() || self.failures > FAILURES_MAX {
            self.is_given_up = true;
            return;
        }
        let pause = desk.jitter(PAUSE * (1 << self.failures));
        self.pause_until = Some(desk.now.moment + pause);
    }
}

/// Why a question has no good answer.
#[derive(Debug)]
pub(crate) enum Failure {
    Call(CallFailure),
    Refused(Refusal),
    /// The store here, or an answer that doesn't fit.
    Here,
}

impl Failure {
    /// Whether the two nodes have not been told of the same state yet.
    pub(crate) fn is_of_another_epoch(&self) -> bool {
        matches!(self, Failure::Refused(Refusal::StaleEpoch(_) | Refusal::Behind(_)))
    }

    /// Whether asking again within seconds is of no use.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Failure::Call(CallFailure::Unreachable | CallFailure::Refused) => true,
            Failure::Refused(Refusal::NotOwner | Refusal::Quarantined) => true,
            Failure::Call(CallFailure::Passing) | Failure::Refused(_) | Failure::Here => false,
        }
    }
}

/// An answer of the kind that was asked for, or why there is none.
pub(crate) fn expect<T>(
    outcome: Result<Incoming, CallFailure>,
    kind: impl FnOnce(Incoming) -> Option<Result<T, Refusal>>,
) -> Result<T, Failure> {
    let incoming = outcome.map_err(Failure::Call)?;
    kind(incoming).unwrap_or(Err(Refusal::Busy)).map_err(Failure::Refused)
}
