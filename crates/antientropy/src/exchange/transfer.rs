//! The moving of one key: what the other side has is joined here, then what this side has and the other
//! lacks is joined there.
//!
//! ```text
//! other has it     Pulling ──► Joining ──► Reading ──► Pushing
//! other lacks it                           Reading ──► Pushing
//! ```
//!
//! In quarantine nothing is read nor pushed; see [`super::lone`] for what only this node has then.
//!
//! Only versions that the other side lacks are pushed. A key of which one side has nothing and the other
//! nothing but tombstones past their grace stays as it is: it has been forgotten there, and will be here.
//! Not in quarantine: who has lost what it held may be the only one that has forgotten it. Nor where this node is
//! filled for a change of the ring: it has never held it, and may be read before others have the tombstone.
//! What it alone has is not pushed then; that is left to the rounds.

use std::collections::BTreeSet;

use anello_protocol::{
    causality::Dot,
    id::NodeId,
    key::DataKey,
    message::{
        repair::Purged,
        replica::{Held, ReadVersions, StoreVersions, Want},
    },
    version::{Versions, VersionsDigest},
};

use super::{Exchange, Failure, expect, lone::Inquiry};
use crate::{
    desk::{Desk, Owner, bytes_of},
    events::{CallFailure, Incoming, Outgoing},
};

/// The most keys of a unit that are under way.
const TRANSFERS_MAX: usize = 32;
/// The most bytes of versions at hand, of all units.
const AT_HAND_MAX: usize = 16 << 20;
/// What a key is taken to weigh until it is seen.
const UNSEEN_BYTES: usize = 64 << 10;
/// How often a key is tried.
pub(super) const TRIES_MAX: u8 = 3;

/// A key that differs.
#[derive(Clone, Debug)]
pub(super) struct Move {
    pub(super) key: DataKey,
    mine: Option<VersionsDigest>,
    theirs: Option<VersionsDigest>,
    pub(super) tries: u8,
}

impl Move {
    pub(super) fn new(
        key: DataKey,
        mine: Option<VersionsDigest>,
        theirs: Option<VersionsDigest>,
    ) -> Self {
        Self { key, mine, theirs, tries: 0 }
    }
}

/// A key under way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) what: Move,
    pub(super) stage: Stage,
    bytes: usize,
    /// What the other side was found to hold.
    pub(super) theirs: BTreeSet<Dot>,
}

#[derive(Debug)]
pub(super) enum Stage {
    Pulling,
    Joining,
    Reading,
    Pushing,
    /// What is held here is looked at, because nobody else may hold it.
    Weighing,
    /// All other replicas are asked whether they hold anything.
    Asking(Inquiry),
    /// It goes.
    Dropping,
}

impl Transfer {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Exchange {
    /// Begins with the next key that waits, if there is room.
    pub(super) fn start_transfer(&mut self, desk: &mut Desk) -> bool {
        let room = desk.bytes_at_hand + UNSEEN_BYTES <= AT_HAND_MAX;
        if self.transfers.len() >= TRANSFERS_MAX || !room {
            return false;
        }
        let Some(what) = self.moves.pop_front() else { return false };
        let number = self.next_transfer;
        let (stage, theirs) = (Stage::Pulling, BTreeSet::new());
        let mut transfer = Transfer { what, stage, bytes: UNSEEN_BYTES, theirs };
        if transfer.what.theirs.is_some() {
            self.read(desk, number, &self.peer, &transfer.what.key);
        } else if !self.read_own(desk, number, &mut transfer) {
            return true;
        }
        self.next_transfer += 1;
        desk.bytes_at_hand += UNSEEN_BYTES;
        self.transfers.insert(number, transfer);
        true
    }

    /// A vnode has answered about a key, or not.
    pub(crate) fn transferred(
        &mut self,
        desk: &mut Desk,
        number: u64,
        outcome: Result<Incoming, CallFailure>,
    ) {
        let Some(mut transfer) = self.transfers.remove(&number) else { return };
        let done = match transfer.stage {
            Stage::Pulling => held(outcome).map(|it| self.pulled(desk, number, &mut transfer, it)),
            Stage::Joining => stored(outcome).map(|()| self.joined(desk, number, &mut transfer)),
            Stage::Reading => {
                held(outcome).map(|it| self.was_read(desk, number, &mut transfer, it))
            }
            Stage::Pushing => stored(outcome).map(|()| {
                desk.counts.keys_pushed += 1;
                true
            }),
            Stage::Dropping => purged(outcome).map(|()| {
                self.dropped += 1;
                true
            }),
            Stage::Weighing | Stage::Asking(_) => Err(Failure::Here),
        };
        match done {
            Ok(false) => {
                self.failures = 0;
                self.transfers.insert(number, transfer);
                return;
            }
            Ok(true) => self.failures = 0,
            Err(failure) => self.transfer_failed(desk, &mut transfer, &failure),
        }
        desk.bytes_at_hand -= transfer.bytes;
    }

    /// The other side's versions are here: says whether the key is done.
    fn pulled(
        &mut self,
        desk: &mut Desk,
        number: u64,
        transfer: &mut Transfer,
        versions: Versions,
    ) -> bool {
        let Move { key, mine, .. } = &transfer.what;
        let bytes = bytes_of(&versions);
        desk.bytes_at_hand = desk.bytes_at_hand - transfer.bytes + bytes;
        transfer.bytes = bytes;
        if versions.is_empty() {
            // Forgotten since.
            return mine.is_none() || !self.read_own(desk, number, transfer);
        }
        let must_have = self.is_filling || desk.quarantined.contains(&self.partition);
        let may_skip = mine.is_none() && !must_have;
        if may_skip && desk.is_forgettable(self.keyspace, &versions) {
            return true;
        }
        transfer.theirs = versions.iter().map(|version| version.dot).collect();
        transfer.stage = Stage::Joining;
        let to = desk.node.clone();
        self.store(desk, number, &to, key, versions);
        false
    }

    /// The vnode here has joined them.
    fn joined(&mut self, desk: &mut Desk, number: u64, transfer: &mut Transfer) -> bool {
        if self.is_filling {
            desk.handovers.fetched(transfer.bytes);
        }
        if transfer.what.mine.is_none() {
            desk.counts.keys_pulled += 1;
            return true;
        }
        !self.read_own(desk, number, transfer)
    }

    /// What the vnode here durably holds.
    fn was_read(
        &mut self,
        desk: &mut Desk,
        number: u64,
        transfer: &mut Transfer,
        versions: Versions,
    ) -> bool {
        let Move { key, mine, .. } = &transfer.what;
        if !transfer.theirs.is_empty() && *mine != Some(versions.digest()) {
            desk.counts.keys_pulled += 1;
        }
        if transfer.theirs.is_empty() && desk.is_forgettable(self.keyspace, &versions) {
            return true;
        }
        let mut lacking = Versions::new();
        let rule = desk.terms(self.keyspace).rule;
        for version in versions {
            if !transfer.theirs.contains(&version.dot) {
                lacking.merge(version.into(), rule);
            }
        }
        if lacking.is_empty() {
            return true;
        }
        let bytes = bytes_of(&lacking);
        desk.bytes_at_hand = desk.bytes_at_hand - transfer.bytes + bytes;
        transfer.bytes = bytes;
        transfer.stage = Stage::Pushing;
        let to = self.peer.clone();
        self.store(desk, number, &to, key, lacking);
        false
    }

    /// Reads what the vnode here holds, to see what the other side lacks of it; says whether it does.
    fn read_own(&mut self, desk: &mut Desk, number: u64, transfer: &mut Transfer) -> bool {
        if desk.quarantined.contains(&self.partition) {
            return self.weigh(desk, number, transfer);
        }
        if self.is_filling {
            self.is_one_way = true;
            return false;
        }
        transfer.stage = Stage::Reading;
        let from = desk.node.clone();
        self.read(desk, number, &from, &transfer.what.key);
        true
    }

    pub(super) fn transfer_failed(
        &mut self,
        desk: &mut Desk,
        transfer: &mut Transfer,
        failure: &Failure,
    ) {
        let what = &mut transfer.what;
        // While the ring changes, one epoch follows another: that says nothing of the key.
        what.tries += u8::from(!failure.is_of_another_epoch());
        if what.tries < TRIES_MAX {
            self.moves.push_back(what.clone());
        } else {
            self.is_unresolved = true;
        }
        // The failures of keys that were under way together are one.
        if self.pause_until.is_none() || failure.is_final() {
            self.failed(desk, failure);
        }
    }

    fn read(&self, desk: &mut Desk, number: u64, from: &NodeId, key: &DataKey) {
        let read = ReadVersions { epoch: desk.epoch(), key: key.clone(), want: Want::Full };
        desk.send(Owner::Transfer(self.id, number), from, Outgoing::Read(read));
    }

    fn store(&self, desk: &mut Desk, number: u64, to: &NodeId, key: &DataKey, versions: Versions) {
        let rule = desk.terms(self.keyspace).rule;
        let store = StoreVersions { epoch: desk.epoch(), key: key.clone(), rule, versions };
        desk.send(Owner::Transfer(self.id, number), to, Outgoing::Store(store));
    }
}

fn held(outcome: Result<Incoming, CallFailure>) -> Result<Versions, Failure> {
    let held = expect(outcome, |incoming| match incoming {
        Incoming::Read(held) => Some(held),
        _ => None,
    })?;
    match held {
        Held::Full(versions) => Ok(versions),
        Held::Digest(_) => Err(Failure::Here),
    }
}

fn purged(outcome: Result<Incoming, CallFailure>) -> Result<(), Failure> {
    let purged = expect(outcome, |incoming| match incoming {
        Incoming::Purged(purged) => Some(purged),
        _ => None,
    });
    // Anything else means that it has changed since it was looked at. That is of this node, not the other.
    match purged {
        Ok(Purged::Gone) => Ok(()),
        Ok(Purged::Kept) | Err(_) => Err(Failure::Here),
    }
}

fn stored(outcome: Result<Incoming, CallFailure>) -> Result<(), Failure> {
    expect(outcome, |incoming| match incoming {
        Incoming::Stored(stored) => Some(stored.map(drop)),
        _ => None,
    })
}
