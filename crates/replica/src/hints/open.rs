//! What is kept for one owner of one key, in a hint store's hands: what is durable of it, and what is on
//! its way to be.
//!
//! Invariants: every uncommitted state is a join of the one before; merging starts from the last of
//! them; readers see the durable one. A removal has nothing beside it: who comes meanwhile waits for its
//! end, so no state ever rests on one that may not have come about.

use std::{collections::VecDeque, sync::Arc};

use anello_protocol::{
    message::{hint::MintHint, hint::StoreHint},
    version::VersionsDigest,
};

use super::{
    events::{CommitNumber, Token},
    store::Hint,
};

/// The state of one owner and key of which something is under way.
#[derive(Debug)]
pub(super) enum KeyState {
    /// The shelf is being asked.
    Loading {
        /// Who waits for its answer, in order.
        queue: Vec<Waiting>,
        /// After a commit of unknown outcome: what the owner's totals count for the key, which may be
        /// more than there is.
        counted: Option<Option<u64>>,
    },
    /// There are commits under way.
    Open(OpenHint),
    /// It is being removed.
    Removing {
        /// What is durable until then.
        hint: Arc<Hint>,
        /// Who waits for the end, in order.
        queue: Vec<Waiting>,
    },
}

/// Something that is to be done with what is kept.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) task: Task,
    /// What it counts for towards the bounds.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Task {
    Store(Token, StoreHint),
    Mint(Token, MintHint),
    /// A part of a request that looks at several places.
    Look(Look),
    Remove(Removal),
}

/// Which request looks, and which of its keys it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) gathering: u64,
    pub(super) at: usize,
}

/// A hint that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) number: u64,
    pub(super) why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Somebody whose it is has exactly this durably. If there is more by now, it stays.
    Delivered(VersionsDigest),
    /// It is too old, as long as this is all that there is and no write counts it.
    Expired(VersionsDigest),
    /// Its keyspace was dropped.
    Pointless,
}

/// What became of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    Gone,
    /// It is not what was meant, or nothing may change at the moment.
    Stays,
    /// The shelf did not take it, or failed.
    Failed,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct OpenHint {
    committed: Option<Arc<Hint>>,
    uncommitted: VecDeque<(CommitNumber, Arc<Hint>)>,
}

impl OpenHint {
    /// As the shelf has it.
    pub(super) fn new(committed: Option<Hint>) -> Self {
        Self { committed: committed.map(Arc::new), uncommitted: VecDeque::new() }
    }

    /// What readers may see.
    pub(super) fn committed(&self) -> Option<&Arc<Hint>> {
        self.committed.as_ref()
    }

    /// What merging starts from.
    pub(super) fn latest(&self) -> Option<&Arc<Hint>> {
        self.uncommitted.back().map(|(_, hint)| hint).or(self.committed.as_ref())
    }

    /// The commit that has to end before everything in [`OpenHint::latest`] is durable.
    pub(super) fn last_commit(&self) -> Option<CommitNumber> {
        self.uncommitted.back().map(|(number, _)| *number)
    }

    /// A commit is under way.
    pub(super) fn push(&mut self, number: CommitNumber, hint: Arc<Hint>) {
        self.uncommitted.push_back((number, hint));
    }

    /// A commit is durable, and with it all before it.
    pub(super) fn committed_up_to(&mut self, number: CommitNumber) {
        while self.uncommitted.front().is_some_and(|(first, _)| *first <= number) {
            if let Some((_, hint)) = self.uncommitted.pop_front() {
                self.committed = Some(hint);
            }
        }
    }

    /// A commit has come to nothing, as far as is known. Later ones, which contain it, go on.
    pub(super) fn failed(&mut self, number: CommitNumber) {
        self.uncommitted.retain(|(own, _)| *own != number);
    }

    /// A commit was never kept and never will be, and those that contain it are not to be made: the
    /// numbers of these.
    pub(super) fn withdraw_from(&mut self, number: CommitNumber) -> Vec<CommitNumber> {
        let first = self.uncommitted.partition_point(|(own, _)| *own < number);
        self.uncommitted.drain(first..).map(|(own, _)| own).filter(|own| *own != number).collect()
    }

    /// Whether everything is durable, so that the shelf can tell it as well.
    pub(super) fn is_settled(&self) -> bool {
        self.uncommitted.is_empty()
    }
}
