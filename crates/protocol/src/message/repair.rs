//! What replicas say to each other to find and mend what differs between them.
//!
//! ```text
//! A compares with B, both replicas of partition p
//!
//!   A --CompareRoots(o…z, …)---> B      of these some differ: o…z
//!   A --CompareRoots(p, q, …)--> B      these differ: p
//!   A --CompareRanges(p)-------> B      these children of it differ: 3, 11
//!   A --CompareRanges(p/3 …)---> B      and so on, below the leaves from the data
//!   A --CompareKeys------------> B      these keys differ, and B holds these of them
//!   A --ReadVersions-----------> B      A joins what B has
//!   A --StoreVersions----------> B      B joins what A has, if it lacks it
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    id::{Epoch, KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    merkle::{CHILDREN, EntryDigest, HashRange},
    message::replica::Refusal,
    version::VersionsDigest,
};

/// The most roots that one [`CompareRoots`] is about.
pub const MAX_ROOTS: usize = 1024;
/// The most ranges in one [`CompareRanges`].
pub const MAX_RANGES: usize = 64;
/// The most keys in one [`CompareKeys`]. A range that has more is compared by its children.
pub const MAX_KEYS: usize = 256;

/// Asks which partitions' trees differ from the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareRoots {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The sender's roots, at most [`MAX_ROOTS`], singly or together.
    pub sums: Vec<RootSum>,
}
// Those that differ, by their first partitions.
super::message!(CompareRoots => Result<Vec<PartitionId>, Refusal>, COMPARE_ROOTS, Data, false);

/// The roots of some partitions in a row, as one digest: most trees are the same on both sides, and many of
/// them take no more than one to be seen so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootSum {
    /// The first of the partitions.
    pub first: PartitionId,
    /// Which of those that follow it belong to it as well: a bit each, the lowest for the next one.
    pub others: u16,
    /// The XOR of their roots.
    pub digest: EntryDigest,
}

impl RootSum {
    /// The partitions that it is about.
    pub fn partitions(self) -> impl Iterator<Item = PartitionId> {
        let others = (0..u16::BITS).filter(move |bit| self.others & 1 << bit != 0);
        let others = others.map(move |bit| PartitionId(self.first.0.saturating_add(bit + 1)));
        [self.first].into_iter().chain(others)
    }

    /// Takes in a partition behind the first, if it is near enough.
    pub fn add(&mut self, partition: PartitionId, root: EntryDigest) -> bool {
        let bit = partition.0.checked_sub(self.first.0 + 1).filter(|bit| *bit < u16::BITS);
        if let Some(bit) = bit {
            self.others |= 1 << bit;
            self.digest.toggle(root);
        }
        bit.is_some()
    }
}

/// Asks which children of nodes of a tree differ from the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareRanges {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition that all ranges are of.
    pub partition: PartitionId,
    /// The nodes, at most [`MAX_RANGES`], with the digests of the sender's children.
    pub ranges: Vec<(HashRange, [EntryDigest; CHILDREN])>,
}
super::message!(CompareRanges => Result<Vec<u16>, Refusal>, COMPARE_RANGES, Data, false);

/// Asks which keys of a range differ from the sender's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompareKeys {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition that the range is of.
    pub partition: PartitionId,
    /// The range.
    pub range: HashRange,
    /// What the sender holds in it, at most [`MAX_KEYS`], by hash. Keys of one hash are one entry.
    pub entries: Vec<(KeyHash, EntryDigest)>,
    /// Whether that is all that the sender holds in the range. If not, only these hashes are asked about,
    /// and zero stands for one of which the sender holds nothing.
    pub is_whole: bool,
}
super::message!(CompareKeys => Result<KeysDiffer, Refusal>, COMPARE_KEYS, Data, false);

/// What differs in a range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysDiffer {
    /// The hashes of the sender's entries of which the receiver holds nothing.
    pub lacking: Vec<KeyHash>,
    /// What the receiver holds under all other hashes whose entries differ, the sender's or its own.
    pub held: Vec<(Key, KeyHash, VersionsDigest)>,
    /// Whether the receiver holds more there than fits into one answer: the range has to be compared by
    /// its children.
    pub is_too_large: bool,
}

/// Asks a vnode to forget a key of which it holds exactly these tombstones and nothing else, now that
/// nothing can bring back what they deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeVersions {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The key.
    pub key: DataKey,
    /// The digest of the tombstones.
    pub digest: VersionsDigest,
}
super::message!(PurgeVersions => Result<Purged, Refusal>, PURGE_VERSIONS, Data, false);

/// What became of a key that was to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purged {
    /// Nothing of it is held.
    Gone,
    /// Something else is held, and stays.
    Kept,
}
