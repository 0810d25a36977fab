//! Trees in memory, for tests and for nodes that live as long as a test.
//!
//! Leaves are kept as an engine on a disk keeps them, beside the data and changed with it, and not worked
//! out when somebody looks: so they can be wrong here as well, which [`MemoryTreeStore::damage`] and
//! [`MemoryTreeStore::distrust`] bring about.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    merkle::{CHILDREN, EntryDigest, HashRange, LEAVES, leaf_of},
    version::{Versions, VersionsDigest},
};

use super::{Entries, Entry, Leaves, Scrubbed, Tombstone, TreeError, TreeStore};

/// See the head of this file.
#[derive(Debug)]
pub struct MemoryTreeStore {
    partitions: u32,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keyspaces: BTreeMap<KeyspaceId, BTreeMap<(KeyHash, Key), Held>>,
    trees: BTreeMap<(KeyspaceId, PartitionId), Box<Leaves>>,
    distrusted: BTreeSet<(KeyspaceId, PartitionId)>,
    tombstones: u64,
}

#[derive(Debug)]
struct Held {
    versions: Arc<Versions>,
    digest: VersionsDigest,
}

impl MemoryTreeStore {
    /// An empty store of a cluster whose hash space is cut into so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self { partitions, kept: Mutex::default() }
    }

    /// Replaces what is held of a key; nothing is held of it if there are no versions.
    pub fn put(&self, key: &DataKey, versions: Arc<Versions>) {
        let kept = &mut *self.kept();
        let at = (key.keyspace, key.hash.partition(self.partitions));
        let leaves = kept.trees.entry(at).or_insert_with(empty);
        let leaf = &mut leaves[leaf_of(key.hash, self.partitions)];
        let data = kept.keyspaces.entry(key.keyspace).or_default();
        let digest = versions.digest();
        leaf.toggle(EntryDigest::of(key, digest));
        kept.tombstones += u64::from(versions.is_deleted());
        let place = (key.hash, key.key.clone());
        let replaced = match versions.is_empty() {
            true => data.remove(&place),
            false => data.insert(place, Held { versions, digest }),
        };
        if let Some(replaced) = replaced {
            leaf.toggle(EntryDigest::of(key, replaced.digest));
            kept.tombstones -= u64::from(replaced.versions.is_deleted());
        }
    }

    /// Replaces what is held of a key, and leaves its leaf as it is: what a torn or forgotten update does.
    pub fn put_without_leaf(&self, key: &DataKey, versions: Arc<Versions>) {
        let leaves = self.leaves(key.keyspace, key.hash.partition(self.partitions));
        self.put(key, versions);
        let at = (key.keyspace, key.hash.partition(self.partitions));
        self.kept().trees.insert(at, leaves.unwrap_or_else(empty));
    }

    /// Makes a leaf wrong.
    pub fn damage(&self, keyspace: KeyspaceId, partition: PartitionId, leaf: usize) {
        let mut kept = self.kept();
        let leaves = kept.trees.entry((keyspace, partition)).or_insert_with(empty);
        leaves[leaf].toggle(EntryDigest(0x0bad_1eaf));
    }

    /// Has a tree be taken for untrustworthy until it is scrubbed.
    pub fn distrust(&self, keyspace: KeyspaceId, partition: PartitionId) {
        self.kept().distrusted.insert((keyspace, partition));
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds the lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn range(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
        after: Option<&DataKey>,
    ) -> impl Iterator<Item = (DataKey, &Held)> {
        // No key is empty, so this place is before every key of that hash.
        let first = after.map(|after| (after.hash, after.key.clone()));
        let held = self.keyspaces.get(&keyspace).into_iter().flat_map(move |data| match &first {
            Some(after) if after.0 >= range.first() => {
                data.range((Bound::Excluded(after.clone()), Bound::Unbounded))
            }
            _ => data.range(from(range.first())..),
        });
        held.take_while(move |((hash, _), _)| *hash <= range.last()).map(
            move |((hash, key), held)| (DataKey { hash: *hash, keyspace, key: key.clone() }, held),
        )
    }
}

/// The first place that a key of this hash can have.
fn from(hash: KeyHash) -> (KeyHash, Key) {
    let least = Key::new(vec![0]).expect("one byte is a key");
    (hash, least)
}

fn empty() -> Box<Leaves> {
    Box::new([EntryDigest::default(); LEAVES])
}

impl TreeStore for MemoryTreeStore {
    fn leaves(&self, keyspace: KeyspaceId, partition: PartitionId) -> Option<Box<Leaves>> {
        let kept = self.kept();
        let at = (keyspace, partition);
        (!kept.distrusted.contains(&at)).then(|| kept.trees.get(&at).cloned().unwrap_or_else(empty))
    }

    fn entries(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Entries, TreeError> {
        let kept = self.kept();
        let mut held = kept.range(keyspace, range, after);
        let entries =
            held.by_ref().take(limit).map(|(key, held)| Entry { key, digest: held.digest });
        Ok(Entries { entries: entries.collect(), has_more: held.next().is_some() })
    }

    fn children(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
    ) -> Result<Vec<EntryDigest>, TreeError> {
        if range.children().is_none() {
            return Ok(Vec::new());
        }
        let mut children = vec![EntryDigest::default(); CHILDREN];
        for (key, held) in self.kept().range(keyspace, range, None) {
            children[range.child_of(key.hash)].toggle(EntryDigest::of(&key, held.digest));
        }
        Ok(children)
    }

    fn read(&self, key: &DataKey) -> Result<Versions, TreeError> {
        let kept = self.kept();
        let data = kept.keyspaces.get(&key.keyspace);
        let held = data.and_then(|data| data.get(&(key.hash, key.key.clone())));
        Ok(held.map(|held| (*held.versions).clone()).unwrap_or_default())
    }

    fn scrub(&self, keyspace: KeyspaceId, partition: PartitionId) -> Result<Scrubbed, TreeError> {
        let kept = &mut *self.kept();
        let mut leaves = empty();
        let mut scrubbed = Scrubbed::default();
        let root = HashRange::of_partition(partition, self.partitions);
        for (key, held) in kept.range(keyspace, root, None) {
            leaves[leaf_of(key.hash, self.partitions)].toggle(EntryDigest::of(&key, held.digest));
            scrubbed.entries += 1;
        }
        let found = kept.trees.entry((keyspace, partition)).or_insert_with(empty);
        scrubbed.mended =
            leaves.iter().zip(found.iter()).filter(|(is, was)| is != was).count() as u32;
        *found = leaves;
        kept.distrusted.remove(&(keyspace, partition));
        Ok(scrubbed)
    }

    fn tombstones(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, TreeError> {
        let root = HashRange::of_partition(partition, self.partitions);
        let kept = self.kept();
        let held = kept.range(keyspace, root, after);
        let deleted = held.filter(|(_, held)| held.versions.is_deleted()).take(limit);
        let tombstones = deleted.map(|(key, held)| Tombstone {
            key,
            digest: held.digest,
            latest: held.versions.latest(),
        });
        Ok(tombstones.collect())
    }

    fn tombstones_estimate(&self) -> u64 {
        self.kept().tombstones
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{self, Subject};

    struct InMemory(MemoryTreeStore);

    impl Subject for InMemory {
        fn store(&self) -> &dyn TreeStore {
            &self.0
        }

        fn partitions(&self) -> u32 {
            self.0.partitions
        }

        fn write(&self, key: &DataKey, versions: &Versions) {
            self.0.put(key, Arc::new(versions.clone()));
        }

        fn damage(&self, keyspace: KeyspaceId, partition: PartitionId, leaf: usize) {
            self.0.damage(keyspace, partition, leaf);
        }
    }

    #[test]
    fn is_a_tree_store() {
        for partitions in [1, 2, 256] {
            conformance::check(|| Box::new(InMemory(MemoryTreeStore::new(partitions))));
        }
    }

    #[test]
    fn a_distrusted_tree_shows_nothing_until_it_is_scrubbed() {
        let store = MemoryTreeStore::new(4);
        store.distrust(KeyspaceId(1), PartitionId(2));
        assert_eq!(store.leaves(KeyspaceId(1), PartitionId(2)), None);
        assert!(store.leaves(KeyspaceId(1), PartitionId(3)).is_some());
        store.scrub(KeyspaceId(1), PartitionId(2)).expect("memory reads");
        assert_eq!(store.leaves(KeyspaceId(1), PartitionId(2)), Some(empty()));
    }
}
