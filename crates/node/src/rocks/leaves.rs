//! The leaves of all Merkle trees: on disk beside the data, and in memory, where others read them without
//! waiting for a commit.
//!
//! On disk a leaf changes by merging the XOR of what was and what is into it, in the batch that changes the
//! data. So the two agree after any crash, and a repair computed from a snapshot commutes with the
//! writes that come between. Only the commit thread changes the leaves in memory, once a batch is durable.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use anello_antientropy::store::Leaves;
use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    merkle::{EntryDigest, LEAVES},
};
use rocksdb::{ColumnFamily, DB, IteratorMode, MergeOperands, ReadOptions};

use super::{keys, opening::OpenError};

/// A keyspace's part of a partition.
pub(super) type TreeId = (KeyspaceId, PartitionId);

/// The merge operator of the column family: XOR of little-endian numbers. It fails if one has not
/// exactly 8 bytes, which RocksDB reports as damage.
pub(super) fn merge(
    _at: &[u8],
    stored: Option<&[u8]>,
    differences: &MergeOperands,
) -> Option<Vec<u8>> {
    let mut sum = 0;
    for bytes in stored.into_iter().chain(differences) {
        sum ^= u64::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(sum.to_le_bytes().to_vec())
}

/// A tree in memory.
pub(super) struct Tree {
    pub(super) leaves: Box<Leaves>,
    /// The number of the last failure after which it isn't known whether this is what is on disk; none if
    /// it is. Zero is a failure of an earlier process.
    pub(super) doubt: Option<u64>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { leaves: none(), doubt: None }
    }
}

/// The leaves of an empty tree.
pub(super) fn none() -> Box<Leaves> {
    Box::new([EntryDigest::default(); LEAVES])
}

/// All trees in which there is, or was, something.
pub(super) struct Trees {
    partitions: u32,
    all: RwLock<BTreeMap<TreeId, Tree>>,
    scrubbing: Mutex<()>,
    /// How often something of each partition was cleared: what was found out before that is worth nothing.
    clears: Box<[AtomicU64]>,
}

impl Trees {
    /// Reads all trees that are stored.
    pub(super) fn load(
        db: &DB,
        trees: &ColumnFamily,
        path: &Path,
        unsure: &BTreeSet<TreeId>,
        partitions: u32,
    ) -> Result<Self, OpenError> {
        let mut all = BTreeMap::new();
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        for entry in db.iterator_cf_opt(trees, options, IteratorMode::Start) {
            let (at, digest) = entry.map_err(|error| OpenError::of(path, error))?;
            let (id, leaf, digest) = stored(&at, &digest)
                .map_err(|reason| OpenError::Corrupt { path: path.into(), reason })?;
            all.entry(id).or_insert_with(Tree::default).leaves[leaf] = digest;
        }
        for id in unsure {
            all.entry(*id).or_insert_with(Tree::default).doubt = Some(0);
        }
        let clears = (0..partitions).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { partitions, all: RwLock::new(all), scrubbing: Mutex::new(()), clears })
    }

    /// Into how many partitions the hash space is cut.
    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    /// For looking at them.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, BTreeMap<TreeId, Tree>> {
        // No change below the lock can be left half done.
        self.all.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the commit thread.
    pub(super) fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<TreeId, Tree>> {
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`Tree::doubt`] says of a tree.
    pub(super) fn doubt(&self, id: TreeId) -> Option<u64> {
        self.read().get(&id)?.doubt
    }

    /// How often something of a partition was cleared.
    pub(super) fn clears(&self, partition: PartitionId) -> u64 {
        let clears = self.clears.get(partition.0 as usize);
        clears.map_or(0, |clears| clears.load(Ordering::Acquire))
    }

    /// Something of a partition is being cleared.
    pub(super) fn count_clear(&self, partition: PartitionId) {
        if let Some(clears) = self.clears.get(partition.0 as usize) {
            clears.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Held while a tree is scrubbed: two repairs of one difference would undo each other.
    pub(super) fn scrub_alone(&self) -> MutexGuard<'_, ()> {
        self.scrubbing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The trees of a keyspace.
pub(super) fn of_keyspace(keyspace: KeyspaceId) -> impl std::ops::RangeBounds<TreeId> {
    (keyspace, PartitionId(0))..=(keyspace, PartitionId(u32::MAX))
}

/// What an entry of the column family says.
pub(super) fn stored(at: &[u8], digest: &[u8]) -> Result<(TreeId, usize, EntryDigest), String> {
    let damaged = || format!("the leaf {} of a Merkle tree is damaged", at.escape_ascii());
    let (keyspace, partition, leaf) = keys::leaf_at(at).ok_or_else(damaged)?;
    let digest = EntryDigest(u64::from_le_bytes(digest.try_into().map_err(|_| damaged())?));
    let leaf = usize::from(leaf);
    if leaf >= LEAVES {
        return Err(damaged());
    }
    Ok(((keyspace, partition), leaf, digest))
}

/// A change of one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) tree: TreeId,
    pub(super) leaf: u16,
    pub(super) digest: EntryDigest,
}

/// Adds up the changes of each leaf, and leaves out those that come to nothing.
pub(super) fn combine(differences: &mut Vec<Difference>) {
    differences.sort_unstable_by_key(|difference| (difference.tree, difference.leaf));
    differences.dedup_by(|next, sum| {
        let is_same = (next.tree, next.leaf) == (sum.tree, sum.leaf);
        if is_same {
            sum.digest.toggle(next.digest);
        }
        is_same
    });
    differences.retain(|difference| difference.digest != EntryDigest::default());
}

/// Applies changes that [`combine`] has put in order.
pub(super) fn apply(all: &mut BTreeMap<TreeId, Tree>, differences: &[Difference]) {
    for of_tree in differences.chunk_by(|a, b| a.tree == b.tree) {
        let tree = match all.entry(of_tree[0].tree) {
            Entry::Occupied(tree) => tree.into_mut(),
            Entry::Vacant(place) => place.insert(Tree::default()),
        };
        for difference in of_tree {
            tree.leaves[usize::from(difference.leaf)].toggle(difference.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn difference(partition: u32, leaf: u16, digest: u64) -> Difference {
        let tree = (KeyspaceId(1), PartitionId(partition));
        Difference { tree, leaf, digest: EntryDigest(digest) }
    }

    #[test]
    fn changes_of_one_leaf_are_one_and_those_that_cancel_are_none() {
        let mut all = vec![
            difference(2, 5, 1),
            difference(1, 9, 7),
            difference(2, 5, 2),
            difference(2, 4, 8),
            difference(1, 9, 7),
        ];
        combine(&mut all);
        assert_eq!(all, [difference(2, 4, 8), difference(2, 5, 3)]);
        let mut trees = BTreeMap::new();
        apply(&mut trees, &all);
        apply(&mut trees, &all[1..]);
        let leaves = &trees[&(KeyspaceId(1), PartitionId(2))].leaves;
        assert_eq!((leaves[4], leaves[5]), (EntryDigest(8), EntryDigest(0)));
        assert_eq!(trees.len(), 1);
    }

    #[test]
    fn what_is_no_leaf_is_said_to_be_damaged() {
        let at = keys::leaf(KeyspaceId(1), PartitionId(2), 255);
        assert!(stored(&at, &[0; 8]).is_ok());
        assert!(stored(&at, &[0; 7]).is_err());
        assert!(stored(&keys::leaf(KeyspaceId(1), PartitionId(2), 256), &[0; 8]).is_err());
        assert!(stored(b"short", &[0; 8]).is_err());
    }
}
