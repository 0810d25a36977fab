//! What a purger has done and what it waits for, and why, by place: a place's account is drawn up anew
//! each time that its tombstones are listed.

use std::{collections::BTreeMap, fmt};

use anello_protocol::id::{KeyspaceId, NodeId, PartitionId};

/// Why a tombstone that is old enough stays.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WaitReason {
    /// A replica can't be reached, or does not answer.
    ReplicaUnreachable(NodeId),
    /// A replica holds something else than these tombstones, or has only just got them.
    HoldsElse(NodeId),
    /// A replica answers, but not with what it holds.
    ReplicaRefuses(NodeId),
    /// A member has not said whether it keeps anything of the key for others.
    HintsUnknown(NodeId),
    /// A member keeps something of the key for others.
    HintKept(NodeId),
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::ReplicaUnreachable(node) => write!(f, "replica {node} unreachable"),
            WaitReason::HoldsElse(node) => write!(f, "replica {node} holds something else"),
            WaitReason::ReplicaRefuses(node) => write!(f, "replica {node} refuses"),
            WaitReason::HintsUnknown(node) => write!(f, "hints of {node} unknown"),
            WaitReason::HintKept(node) => write!(f, "hint kept at {node}"),
        }
    }
}

/// A purger's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PurgeFigures {
    /// Tombstones that this node has made every replica forget since it started.
    pub purged: u64,
    /// Tombstones whose proof is under way.
    pub settling: u64,
    /// Tombstones that are old enough and wait for the next pass, by what they wait for.
    pub waiting: BTreeMap<WaitReason, u64>,
}

impl PurgeFigures {
    /// The tombstones that are old enough and still there, by reasons as people read them.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        let settling = (self.settling > 0).then(|| ("settling".to_owned(), self.settling));
        let waiting = self.waiting.iter().map(|(reason, count)| (reason.to_string(), *count));
        waiting.chain(settling).collect()
    }
}

/// The account of all places. See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) purged: u64,
    waiting: BTreeMap<(KeyspaceId, PartitionId), BTreeMap<WaitReason, u64>>,
}

impl Account {
    /// A place is about to be listed from its beginning.
    pub(super) fn begin(&mut self, place: (KeyspaceId, PartitionId)) {
        self.waiting.remove(&place);
    }

    /// A key of a place waits.
    pub(super) fn waits(
        &mut self,
        place: (KeyspaceId, PartitionId),
        reason: WaitReason,
        keys: u64,
    ) {
        if keys > 0 {
            *self.waiting.entry(place).or_default().entry(reason).or_default() += keys;
        }
    }

    /// Places are other ones.
    pub(super) fn forget_places(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn figures(&self, settling: u64) -> PurgeFigures {
        let mut waiting = BTreeMap::new();
        for (reason, count) in self.waiting.values().flatten() {
            *waiting.entry(reason.clone()).or_default() += count;
        }
        PurgeFigures { purged: self.purged, settling, waiting }
    }
}
