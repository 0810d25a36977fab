//! The vocabulary of Merkle trees (Merkle, 1987): digests of entries, and the ranges of hashes that a
//! tree's nodes stand for.
//!
//! A partition's tree in a keyspace is a trie over the hashes of its keys. A node of it is a
//! [`HashRange`]; its digest is the XOR of the digests of all entries in the range, so that a write
//! changes it in place, and an empty range has zero. The partition is the root; a node has
//! [`CHILDREN`] children; the nodes [`LEAF_LEVELS`] below the root are the **leaves**, whose digests are
//! kept beside the data. What is below a leaf is worked out from the data when somebody looks.

use serde::{Deserialize, Deserializer, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::{
    id::PartitionId,
    key::{DataKey, KeyHash},
    version::VersionsDigest,
};

/// How many bits of the hash tell a node's children apart.
const CHILD_BITS: u8 = 4;
/// How many children a node has.
pub const CHILDREN: usize = 1 << CHILD_BITS;
/// How many levels below the root the leaves are.
pub const LEAF_LEVELS: u8 = 2;
/// How many leaves a partition has.
pub const LEAVES: usize = 1 << (CHILD_BITS * LEAF_LEVELS);

/// The digest of a key with what is held of it, or of several such entries together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntryDigest(#[serde(with = "postcard::fixint::le")] pub u64);

impl EntryDigest {
    /// The digest of one key; zero if nothing is held of it. Part of the wire contract: it never changes.
    pub fn of(key: &DataKey, held: VersionsDigest) -> Self {
        if held == VersionsDigest::default() {
            return Self::default();
        }
        let mut hash = Xxh3Default::new();
        hash.update(&key.hash.0.to_le_bytes());
        hash.update(&held.0.to_le_bytes());
        hash.update(key.key.as_bytes());
        Self(hash.digest())
    }

    /// Adds an entry, or takes away one that was added.
    pub fn toggle(&mut self, other: EntryDigest) {
        self.0 ^= other.0;
    }
}

/// All hashes that begin with the same bits: a node of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HashRange {
    /// The first hash.
    first: u64,
    /// How many bits are the same.
    bits: u8,
}

impl HashRange {
    /// The root of a partition's tree, when the space is cut into `partitions`, a power of two.
    pub fn of_partition(partition: PartitionId, partitions: u32) -> Self {
        debug_assert!(partitions.is_power_of_two() && partition.0 < partitions);
        let bits = partitions.trailing_zeros() as u8;
        let first = match bits {
            0 => 0,
            bits => u64::from(partition.0) << (64 - bits),
        };
        Self { first, bits }
    }

    /// The first hash of it.
    pub fn first(self) -> KeyHash {
        KeyHash(self.first)
    }

    /// The last hash of it.
    pub fn last(self) -> KeyHash {
        KeyHash(self.first | u64::MAX.checked_shr(self.bits.into()).unwrap_or(0))
    }

    /// How many bits the hashes of it have in common.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether a hash belongs to it.
    pub fn contains(self, hash: KeyHash) -> bool {
        (self.first()..=self.last()).contains(&hash)
    }

    /// Its parts, in the order of their hashes; none if it is too small to be cut.
    pub fn children(self) -> Option<[HashRange; CHILDREN]> {
        let bits = self.bits + CHILD_BITS;
        (bits <= 64).then(|| {
            std::array::from_fn(|child| HashRange {
                first: self.first | (child as u64) << (64 - bits),
                bits,
            })
        })
    }

    /// In which of its children a hash of it lies; 0 if it is too small to be cut.
    pub fn child_of(self, hash: KeyHash) -> usize {
        match 64_u8.checked_sub(self.bits + CHILD_BITS) {
            Some(shift) => (hash.0 >> shift) as usize % CHILDREN,
            None => 0,
        }
    }

    /// How many levels below the root of its partition it is; nothing if it is no node of any
    /// partition's tree.
    pub fn level(self, partitions: u32) -> Option<u8> {
        let below = self.bits.checked_sub(partitions.trailing_zeros() as u8)?;
        (below % CHILD_BITS == 0).then_some(below / CHILD_BITS)
    }
}

/// Which leaf of its partition a hash belongs to.
pub fn leaf_of(hash: KeyHash, partitions: u32) -> usize {
    let bits = partitions.trailing_zeros() as u8 + CHILD_BITS * LEAF_LEVELS;
    (hash.0 >> (64 - bits)) as usize % LEAVES
}

impl<'de> Deserialize<'de> for HashRange {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (first, bits) = <(u64, u8)>::deserialize(from)?;
        let rest = u64::MAX.checked_shr(bits.into()).unwrap_or(0);
        if bits > 64 || first & rest != 0 {
            return Err(serde::de::Error::custom("no range of hashes"));
        }
        Ok(Self { first, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_the_range_in_parts() {
        let root = HashRange::of_partition(PartitionId(3), 8);
        assert_eq!(root.first(), KeyHash(3 << 61));
        assert_eq!(root.last(), KeyHash((4 << 61) - 1));
        let children = root.children().expect("it is large");
        assert_eq!((children[0].first(), children[15].last()), (root.first(), root.last()));
        for (at, pair) in children.windows(2).enumerate() {
            assert_eq!(pair[0].last().0 + 1, pair[1].first().0);
            assert_eq!(root.child_of(pair[0].last()), at);
        }
        assert_eq!(root.level(8), Some(0));
        assert_eq!(children[5].level(8), Some(1));
        assert_eq!(children[5].level(16), None);
    }

    #[test]
    fn the_whole_space_and_a_single_hash_are_ranges_too() {
        let all = HashRange::of_partition(PartitionId(0), 1);
        assert_eq!((all.first(), all.last()), (KeyHash(0), KeyHash(u64::MAX)));
        let mut range = all;
        while let Some(children) = range.children() {
            range = children[15];
        }
        assert_eq!((range.first(), range.last()), (KeyHash(u64::MAX), KeyHash(u64::MAX)));
    }

    #[test]
    fn a_leaf_is_the_grandchild_that_has_the_hash() {
        let hash = KeyHash(0x1234_5678_9abc_def0);
        let root = HashRange::of_partition(hash.partition(256), 256);
        let child = root.children().expect("large")[root.child_of(hash)];
        let leaf = child.children().expect("large")[child.child_of(hash)];
        assert!(leaf.contains(hash));
        assert_eq!(leaf_of(hash, 256), root.child_of(hash) * CHILDREN + child.child_of(hash));
    }

    #[test]
    fn what_is_no_range_does_not_decode() {
        let good = postcard::to_stdvec(&(0x8000_0000_0000_0000_u64, 1_u8)).expect("encodes");
        assert!(postcard::from_bytes::<HashRange>(&good).is_ok());
        for bad in [(1_u64, 1_u8), (0, 65)] {
            let bytes = postcard::to_stdvec(&bad).expect("encodes");
            assert!(postcard::from_bytes::<HashRange>(&bytes).is_err());
        }
    }
}
