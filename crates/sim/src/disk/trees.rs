//! The trees of a disk: leaves that change in the batch of their data, by what the commit says that it
//! replaced, and the lists that are made from the data.
//!
//! A tree of which a sync has failed is trusted by nobody until a scrub has worked it out anew.

use std::collections::{BTreeMap, BTreeSet};

use anello_antientropy::store::{
    Entries, Entry, Leaves, Scrubbed, Tombstone, TreeError, TreeStore,
};
use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::DataKey,
    merkle::{EntryDigest, HashRange, LEAVES, leaf_of},
    version::Versions,
};
use anello_replica::store::Commit;

use super::Disk;

/// A keyspace's part of a partition.
pub type Tree = (KeyspaceId, PartitionId);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Trees {
    leaves: BTreeMap<Tree, Box<Leaves>>,
    untrusted: BTreeSet<Tree>,
    /// Keys of which a sync has failed: what their next commit replaces is looked up, because a commit that
    /// waited meanwhile may believe that it replaces what was lost.
    doubtful: BTreeSet<DataKey>,
}

impl Trees {
    pub(super) fn change(&mut self, commit: &Commit, before: &Versions, partitions: u32) {
        let replaced = match self.doubtful.remove(&commit.key) {
            true => before.digest(),
            false => commit.replaced.digest,
        };
        let tree = (commit.key.keyspace, commit.partition);
        let leaves = self.leaves.entry(tree).or_insert_with(no_leaves);
        let leaf = &mut leaves[leaf_of(commit.key.hash, partitions)];
        leaf.toggle(EntryDigest::of(&commit.key, replaced));
        leaf.toggle(EntryDigest::of(&commit.key, commit.versions.digest()));
    }
}

fn no_leaves() -> Box<Leaves> {
    Box::new([EntryDigest::default(); LEAVES])
}

/// The leaves of all trees, worked out from data; without those of trees that are empty.
pub fn exact_leaves(
    data: &BTreeMap<DataKey, Versions>,
    partitions: u32,
) -> BTreeMap<Tree, Box<Leaves>> {
    let mut trees = BTreeMap::new();
    for (key, held) in data {
        let tree = (key.keyspace, key.hash.partition(partitions));
        let leaves: &mut Box<Leaves> = trees.entry(tree).or_insert_with(no_leaves);
        leaves[leaf_of(key.hash, partitions)].toggle(EntryDigest::of(key, held.digest()));
    }
    trees
}

impl Disk {
    /// The trees that are trusted and other than the data says.
    pub fn wrong_trees(&self) -> Vec<Tree> {
        let exact = exact_leaves(&self.kept.data, self.partitions);
        let trees = self.trees();
        let all: BTreeSet<Tree> = exact.keys().chain(trees.leaves.keys()).copied().collect();
        let nothing = no_leaves();
        let is_wrong = |tree: &Tree| {
            let (kept, right) = (trees.leaves.get(tree), exact.get(tree));
            !trees.untrusted.contains(tree) && kept.unwrap_or(&nothing) != right.unwrap_or(&nothing)
        };
        all.into_iter().filter(is_wrong).collect()
    }

    /// The trees that nobody trusts.
    pub fn untrusted_trees(&self) -> Vec<Tree> {
        self.trees().untrusted.iter().copied().collect()
    }

    /// The data of some trees is gone.
    pub(super) fn forget_trees(&self, which: impl Fn(&Tree) -> bool) {
        let mut trees = self.trees();
        trees.leaves.retain(|tree, _| !which(tree));
        trees.untrusted.retain(|tree| !which(tree));
        let partitions = self.partitions;
        trees.doubtful.retain(|key| !which(&(key.keyspace, key.hash.partition(partitions))));
    }

    /// It isn't known any more what is below a commit's tree.
    pub(super) fn distrust(&self, commit: &Commit) {
        let mut trees = self.trees();
        trees.untrusted.insert((commit.key.keyspace, commit.partition));
        trees.doubtful.insert(commit.key.clone());
    }

    /// Nobody is left who believes anything of the data but what is durable.
    pub(super) fn forget_doubts(&self) {
        self.trees().doubtful.clear();
    }

    /// After the data was exchanged behind the trees' back.
    pub(super) fn rebuild_trees(&self) {
        let mut trees = self.trees();
        trees.leaves = exact_leaves(&self.kept.data, self.partitions);
        trees.untrusted.clear();
        trees.doubtful.clear();
    }

    fn held_in(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
        after: Option<&DataKey>,
    ) -> Vec<(&DataKey, &Versions)> {
        let in_range = |key: &DataKey| key.keyspace == keyspace && range.contains(key.hash);
        let mut held: Vec<_> = self.kept.data.iter().filter(|(key, _)| in_range(key)).collect();
        held.sort_by_key(|(key, _)| (key.hash, (*key).clone()));
        held.retain(|(key, _)| after.is_none_or(|after| (key.hash, *key) > (after.hash, after)));
        held
    }
}

impl TreeStore for Disk {
    fn leaves(&self, keyspace: KeyspaceId, partition: PartitionId) -> Option<Box<Leaves>> {
        let trees = self.trees();
        let tree = (keyspace, partition);
        if trees.untrusted.contains(&tree) {
            return None;
        }
        Some(trees.leaves.get(&tree).cloned().unwrap_or_else(no_leaves))
    }

    fn entries(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Entries, TreeError> {
        let held = self.held_in(keyspace, range, after);
        let entry = |(key, held): &(&DataKey, &Versions)| Entry {
            key: (*key).clone(),
            digest: held.digest(),
        };
        let entries = held.iter().take(limit).map(entry).collect();
        Ok(Entries { entries, has_more: held.len() > limit })
    }

    fn children(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
    ) -> Result<Vec<EntryDigest>, TreeError> {
        let Some(children) = range.children() else { return Ok(Vec::new()) };
        let mut digests = vec![EntryDigest::default(); children.len()];
        for (key, held) in self.held_in(keyspace, range, None) {
            digests[range.child_of(key.hash)].toggle(EntryDigest::of(key, held.digest()));
        }
        Ok(digests)
    }

    fn read(&self, key: &DataKey) -> Result<Versions, TreeError> {
        Ok(Disk::read(self, key))
    }

    fn scrub(&self, keyspace: KeyspaceId, partition: PartitionId) -> Result<Scrubbed, TreeError> {
        let tree = (keyspace, partition);
        let range = HashRange::of_partition(partition, self.partitions);
        let entries = self.held_in(keyspace, range, None).len() as u64;
        let right = exact_leaves(&self.kept.data, self.partitions).remove(&tree);
        let right = right.unwrap_or_else(no_leaves);
        let mut trees = self.trees();
        // What waits to be synced was told to the trees by nobody yet.
        trees.untrusted.remove(&tree);
        let known = trees.leaves.insert(tree, right.clone()).unwrap_or_else(no_leaves);
        let mended = known.iter().zip(right.iter()).filter(|(one, other)| one != other).count();
        Ok(Scrubbed { entries, mended: mended as u32 })
    }

    fn tombstones(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, TreeError> {
        let range = HashRange::of_partition(partition, self.partitions);
        let held = self.held_in(keyspace, range, after).into_iter();
        let deleted = held.filter(|(_, held)| held.is_deleted()).take(limit);
        let tombstone = |(key, held): (&DataKey, &Versions)| Tombstone {
            key: key.clone(),
            digest: held.digest(),
            latest: held.latest(),
        };
        Ok(deleted.map(tombstone).collect())
    }

    fn tombstones_estimate(&self) -> u64 {
        self.kept.data.values().filter(|held| held.is_deleted()).count() as u64
    }
}
