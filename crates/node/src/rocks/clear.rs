//! Emptying trees in one commit: whole partitions by deleting their run of keys, and the leaves of trees whose
//! data is gone already.
//!
//! In the queue a clear comes behind what was given in before it, which goes, and ahead of what is given in
//! later, which stays, also within one group. So whoever clears a tree has to see to it that nobody builds on
//! what it held: its vnode acts under a state by which the node does not hold it, or has ended.

use std::collections::BTreeSet;

use anello_protocol::{id::PartitionId, key::KeyHash, merkle::HashRange};
use rocksdb::WriteBatch;

use super::{
    keys::{self, Family},
    leaves::TreeId,
    shared::Shared,
};

/// The column families in which a partition is one run of keys.
pub(super) const RUNS: [Family; 2] = [Family::Tombstones, Family::Data];

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Clear {
    /// Partitions of which everything goes, of whatever keyspace.
    pub(super) partitions: BTreeSet<PartitionId>,
    /// Trees whose leaves go.
    pub(super) trees: BTreeSet<TreeId>,
}

impl Clear {
    /// Whether a tree is empty behind it.
    pub(super) fn covers(&self, tree: TreeId) -> bool {
        self.partitions.contains(&tree.1) || self.trees.contains(&tree)
    }

    /// The partitions of which something goes.
    pub(super) fn touched(&self) -> impl Iterator<Item = PartitionId> {
        self.partitions.iter().copied().chain(self.trees.iter().map(|tree| tree.1))
    }

    /// Whether a key in one of [`RUNS`] goes with its partition.
    pub(super) fn takes(&self, at: &[u8], partitions: u32) -> bool {
        let hash = keys::hash_of(at).map(KeyHash);
        hash.is_some_and(|hash| self.partitions.contains(&hash.partition(partitions)))
    }

    /// Adds the deletion of the partitions to a batch.
    pub(super) fn add_runs(&self, shared: &Shared, batch: &mut WriteBatch) {
        for (from, until) in runs(&self.partitions, shared.trees.partitions()) {
            for family in RUNS {
                batch.delete_range_cf(shared.family(family), &from, &until);
            }
        }
    }
}

/// Where the keys of a partition begin, and the first key behind them.
pub(super) fn run(partition: PartitionId, partitions: u32) -> (Vec<u8>, Vec<u8>) {
    let range = HashRange::of_partition(partition, partitions);
    let until = range.last().0.checked_add(1).map(keys::first_of);
    (keys::first_of(range.first().0), until.unwrap_or_else(|| keys::BEHIND_ALL.to_vec()))
}

/// The same of several, with those that adjoin as one: the fewer range tombstones, the less a read has to
/// look through.
pub(super) fn runs(all: &BTreeSet<PartitionId>, partitions: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut runs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for &partition in all {
        let (from, until) = run(partition, partitions);
        match runs.last_mut() {
            Some(last) if last.1 == from => last.1 = until,
            _ => runs.push((from, until)),
        }
    }
    runs
}

#[cfg(test)]
pub(super) mod tests;
