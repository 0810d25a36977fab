//! Where what lies in RocksDB: column families and keys.
//!
//! ```text
//! data    hash (8, big-endian) ‖ keyspace (8, big-endian) ‖ key   -> versions
//! vnodes  partition (4, big-endian)                               -> the vnode's record
//! meta    "membership"                                            -> the membership record
//!         "run"                                                   -> how the last process ended
//!         "replaces"                                              -> which damaged store this one replaces
//!         "holds-data/" ‖ keyspace (8, big-endian)                -> nothing: the key says it
//!         "layout"                                                -> how all this is laid out
//!         "tree-unsure/" ‖ keyspace (8) ‖ partition (4)           -> nothing: the key says it
//!         "hint-store"                                            -> the hint store's record
//!         "last-alive"                                            -> when the node was last alive
//!         "restored"                                              -> nothing: put back from a copy
//!         "lost"                                                  -> nothing: begun without what was held
//!         "cleared-for/" ‖ keyspace (8) ‖ partition (4)           -> the change that the tree was cleared for
//! trees   keyspace (8) ‖ partition (4) ‖ leaf (2, all big-endian) -> the leaf's digest
//! tombstones  as in data                                          -> digest and time of the tombstones
//! hints   'd' ‖ length (1) of the owner ‖ owner ‖ as in data      -> the hint
//!         'o' ‖ length (1) of the owner ‖ owner ‖ number (8)      -> whose place in the order that is
//! ```
//!
//! The hash comes first, so that a partition is one run of keys. Every value begins with a format byte, but
//! a leaf's digest, which is exactly 8 bytes, little-endian: differences are merged into it by XOR, which a
//! byte that must stay what it is would not survive.

use anello_protocol::{
    id::{KeyspaceId, NodeId, PartitionId},
    key::{DataKey, Key, KeyHash},
};

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Data,
    Vnodes,
    Meta,
    Trees,
    Tombstones,
    Hints,
}

impl Family {
    pub(super) const ALL: [Family; 6] = [
        Family::Data,
        Family::Vnodes,
        Family::Meta,
        Family::Trees,
        Family::Tombstones,
        Family::Hints,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Data => "data",
            Family::Vnodes => "vnodes",
            Family::Meta => "meta",
            Family::Trees => "trees",
            Family::Tombstones => "tombstones",
            Family::Hints => "hints",
        }
    }
}

pub(super) const MEMBERSHIP: &[u8] = b"membership";
pub(super) const RUN: &[u8] = b"run";
pub(super) const REPLACES: &[u8] = b"replaces";
const HOLDS_DATA: &[u8] = b"holds-data/";
const HASH_BYTES: usize = 8;
const KEYSPACE_BYTES: usize = 8;
pub(super) const LAYOUT: &[u8] = b"layout";
pub(super) const LAST_ALIVE: &[u8] = b"last-alive";
pub(super) const RESTORED: &[u8] = b"restored";
pub(super) const LOST: &[u8] = b"lost";
pub(super) const HINT_STORE: &[u8] = b"hint-store";
const TREE_UNSURE: &[u8] = b"tree-unsure/";
const CLEARED_FOR: &[u8] = b"cleared-for/";
/// Greater than every key in the column family of data: no keyspace has the greatest of all ids.
pub(super) const BEHIND_ALL: &[u8] = &[0xff; HASH_BYTES + KEYSPACE_BYTES];
const PARTITION_BYTES: usize = 4;
const LEAF_BYTES: usize = 2;
const TREE_BYTES: usize = KEYSPACE_BYTES + PARTITION_BYTES;

/// Where the versions of a key lie.
pub(super) fn data(key: &DataKey) -> Vec<u8> {
    let bytes = key.key.as_bytes();
    let mut at = Vec::with_capacity(HASH_BYTES + KEYSPACE_BYTES + bytes.len());
    at.extend_from_slice(&key.hash.0.to_be_bytes());
    at.extend_from_slice(&key.keyspace.0.to_be_bytes());
    at.extend_from_slice(bytes);
    at
}

/// The keyspace of a key in the column family of data.
pub(super) fn keyspace_of(at: &[u8]) -> Option<KeyspaceId> {
    let (_, rest) = at.split_at_checked(HASH_BYTES)?;
    let (keyspace, _) = rest.split_first_chunk::<KEYSPACE_BYTES>()?;
    Some(KeyspaceId(u64::from_be_bytes(*keyspace)))
}

/// What [`data`] made a key from.
pub(super) fn data_key(at: &[u8]) -> Option<DataKey> {
    let (hash, rest) = at.split_first_chunk::<HASH_BYTES>()?;
    let (keyspace, key) = rest.split_first_chunk::<KEYSPACE_BYTES>()?;
    Some(DataKey {
        hash: KeyHash(u64::from_be_bytes(*hash)),
        keyspace: KeyspaceId(u64::from_be_bytes(*keyspace)),
        key: Key::new(key.to_vec()).ok()?,
    })
}

/// Where the keys of a hash begin.
pub(super) fn first_of(hash: u64) -> Vec<u8> {
    hash.to_be_bytes().to_vec()
}

/// The hash of a key that [`data`] made.
pub(super) fn hash_of(at: &[u8]) -> Option<u64> {
    at.first_chunk::<HASH_BYTES>().map(|hash| u64::from_be_bytes(*hash))
}

/// Where a vnode's record lies.
pub(super) fn vnode(partition: PartitionId) -> Vec<u8> {
    partition.0.to_be_bytes().to_vec()
}

/// Where it stands that a keyspace has data here.
pub(super) fn holds_data(keyspace: KeyspaceId) -> Vec<u8> {
    [HOLDS_DATA, &keyspace.0.to_be_bytes()].concat()
}

/// The keyspace of a key that [`holds_data`] made.
pub(super) fn held_keyspace(at: &[u8]) -> Option<KeyspaceId> {
    let keyspace = at.strip_prefix(HOLDS_DATA)?.try_into().ok()?;
    Some(KeyspaceId(u64::from_be_bytes(keyspace)))
}

/// Where the keys that [`holds_data`] makes begin.
pub(super) fn all_held() -> &'static [u8] {
    HOLDS_DATA
}

/// Where a leaf lies.
pub(super) fn leaf(
    keyspace: KeyspaceId,
    partition: PartitionId,
    leaf: u16,
) -> [u8; TREE_BYTES + LEAF_BYTES] {
    let mut at = [0; TREE_BYTES + LEAF_BYTES];
    at[..KEYSPACE_BYTES].copy_from_slice(&keyspace.0.to_be_bytes());
    at[KEYSPACE_BYTES..TREE_BYTES].copy_from_slice(&partition.0.to_be_bytes());
    at[TREE_BYTES..].copy_from_slice(&leaf.to_be_bytes());
    at
}

/// What [`leaf`] made a key from.
pub(super) fn leaf_at(at: &[u8]) -> Option<(KeyspaceId, PartitionId, u16)> {
    let (tree, leaf) = at.split_first_chunk::<TREE_BYTES>()?;
    let (keyspace, partition) = tree_at(tree)?;
    Some((keyspace, partition, u16::from_be_bytes(leaf.try_into().ok()?)))
}

fn tree_at(at: &[u8]) -> Option<(KeyspaceId, PartitionId)> {
    let (keyspace, partition) = at.split_first_chunk::<KEYSPACE_BYTES>()?;
    let partition = u32::from_be_bytes(partition.try_into().ok()?);
    Some((KeyspaceId(u64::from_be_bytes(*keyspace)), PartitionId(partition)))
}

/// Where it stands that a tree can't be trusted.
pub(super) fn tree_unsure(keyspace: KeyspaceId, partition: PartitionId) -> Vec<u8> {
    [TREE_UNSURE, &keyspace.0.to_be_bytes(), &partition.0.to_be_bytes()].concat()
}

/// The tree of a key that [`tree_unsure`] made.
pub(super) fn unsure_tree(at: &[u8]) -> Option<(KeyspaceId, PartitionId)> {
    tree_at(at.strip_prefix(TREE_UNSURE)?)
}

/// Where the keys that [`tree_unsure`] makes begin.
pub(super) fn all_unsure() -> &'static [u8] {
    TREE_UNSURE
}

/// Where it stands for which change a tree was cleared.
pub(super) fn cleared_for(keyspace: KeyspaceId, partition: PartitionId) -> Vec<u8> {
    [CLEARED_FOR, &keyspace.0.to_be_bytes(), &partition.0.to_be_bytes()].concat()
}

/// The tree of a key that [`cleared_for`] made.
pub(super) fn cleared_tree(at: &[u8]) -> Option<(KeyspaceId, PartitionId)> {
    tree_at(at.strip_prefix(CLEARED_FOR)?)
}

/// Where the keys that [`cleared_for`] makes begin.
pub(super) fn all_cleared() -> &'static [u8] {
    CLEARED_FOR
}

const HINT: u8 = b'd';
const ORDER: u8 = b'o';

fn hint_part(part: u8, owner: &NodeId) -> Vec<u8> {
    let owner = owner.as_str().as_bytes();
    let mut at = Vec::with_capacity(64);
    at.push(part);
    at.push(owner.len().try_into().expect("names are at most 63 bytes long"));
    at.extend_from_slice(owner);
    at
}

/// Where the hint for an owner of a key lies.
pub(super) fn hint(owner: &NodeId, key: &DataKey) -> Vec<u8> {
    let mut at = hint_part(HINT, owner);
    at.extend_from_slice(&data(key));
    at
}

/// Where it stands which of an owner's hints has a number.
pub(super) fn hint_place(owner: &NodeId, number: u64) -> Vec<u8> {
    let mut at = hint_part(ORDER, owner);
    at.extend_from_slice(&number.to_be_bytes());
    at
}

/// What [`hint_place`] made a key from.
pub(super) fn hint_place_at(at: &[u8]) -> Option<(NodeId, u64)> {
    let [ORDER, length, rest @ ..] = at else { return None };
    let (owner, number) = rest.split_at_checked(usize::from(*length))?;
    let owner = NodeId::new(std::str::from_utf8(owner).ok()?).ok()?;
    Some((owner, u64::from_be_bytes(number.try_into().ok()?)))
}

/// Where the keys that [`hint_place`] makes begin.
pub(super) fn all_hint_places() -> &'static [u8] {
    &[ORDER]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(hash: u64, keyspace: u64, key: &'static [u8]) -> DataKey {
        let key = Key::new(key).expect("within the bound");
        DataKey { hash: KeyHash(hash), keyspace: KeyspaceId(keyspace), key }
    }

    #[test]
    fn the_order_is_by_hash() {
        assert!(data(&key(1, u64::MAX, b"z")) < data(&key(256, 0, b"a")));
        assert!(data(&key(1, 2, b"z")) < data(&key(1, 256, b"a")));
    }

    #[test]
    fn the_layout_on_disk_never_changes() {
        assert_eq!(data(&key(0x0102, 3, b"k")), b"\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03k");
        assert_eq!(vnode(PartitionId(258)), b"\0\0\x01\x02");
        assert_eq!(holds_data(KeyspaceId(7)), b"holds-data/\0\0\0\0\0\0\0\x07");
        let (keyspace, partition) = (KeyspaceId(7), PartitionId(258));
        assert_eq!(&leaf(keyspace, partition, 3), b"\0\0\0\0\0\0\0\x07\0\0\x01\x02\0\x03");
        let unsure = b"tree-unsure/\0\0\0\0\0\0\0\x07\0\0\x01\x02";
        assert_eq!(tree_unsure(keyspace, partition), unsure);
        let cleared = b"cleared-for/\0\0\0\0\0\0\0\x07\0\0\x01\x02";
        assert_eq!(cleared_for(keyspace, partition), cleared);
        let owner = NodeId::new("n-1").expect("a name");
        let of_key = b"d\x03n-1\0\0\0\0\0\0\x01\x02\0\0\0\0\0\0\0\x03k";
        assert_eq!(hint(&owner, &key(0x0102, 3, b"k")), of_key);
        assert_eq!(hint_place(&owner, 258), b"o\x03n-1\0\0\0\0\0\0\x01\x02");
    }

    #[test]
    fn leaves_and_places_read_back_and_nothing_panics_on_other_keys() {
        let tree = (KeyspaceId(7), PartitionId(258));
        assert_eq!(leaf_at(&leaf(tree.0, tree.1, 3)), Some((tree.0, tree.1, 3)));
        assert_eq!(unsure_tree(&tree_unsure(tree.0, tree.1)), Some(tree));
        assert_eq!(cleared_tree(&cleared_for(tree.0, tree.1)), Some(tree));
        let own = key(9, 7, b"k");
        assert_eq!(data_key(&data(&own)), Some(own));
        let owner = NodeId::new("n-1").expect("a name");
        assert_eq!(hint_place_at(&hint_place(&owner, 9)), Some((owner, 9)));
        for other in [&b""[..], b"short", b"tree-unsure/", b"o\xffn", b"o\x01n", MEMBERSHIP] {
            assert_eq!(leaf_at(other), None);
            assert_eq!(unsure_tree(other), None);
            assert_eq!(cleared_tree(other), None);
            assert_eq!(data_key(other), None);
            assert_eq!(hint_place_at(other), None);
        }
    }

    #[test]
    fn keyspaces_read_back_and_nothing_panics_on_other_keys() {
        let own = key(9, 7, b"k");
        assert_eq!(keyspace_of(&data(&own)), Some(KeyspaceId(7)));
        assert_eq!(data_key(&data(&own)), Some(own.clone()));
        assert_eq!(hash_of(&data(&own)), Some(9));
        assert!(first_of(9) < data(&own) && data(&own) < first_of(10));
        assert_eq!(held_keyspace(&holds_data(KeyspaceId(7))), Some(KeyspaceId(7)));
        for other in [&b""[..], b"short", b"holds-data/", MEMBERSHIP] {
            assert_eq!(held_keyspace(other), None);
            assert_eq!(keyspace_of(other), None);
            assert_eq!(data_key(other), None);
        }
    }
}
