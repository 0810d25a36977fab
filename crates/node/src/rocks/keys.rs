//! Where what lies in RocksDB: column families and keys.
//!
//! ```text
//! data    hash (8, big-endian) ‖ keyspace (8, big-endian) ‖ key   -> versions
//! vnodes  partition (4, big-endian)                               -> the vnode's record
//! meta    "membership"                                            -> the membership record
//!         "run"                                                   -> how the last process ended
//!         "replaces"                                              -> which damaged store this one replaces
//!         "holds-data/" ‖ keyspace (8, big-endian)                -> nothing: the key says it
//! ```
//!
//! The hash comes first, so that a partition is one run of keys. Every value begins with a format byte.

use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
};

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Data,
    Vnodes,
    Meta,
}

impl Family {
    pub(super) const ALL: [Family; 3] = [Family::Data, Family::Vnodes, Family::Meta];

    pub(super) fn name(self) -> &'static str {
        match self {
            Family::Data => "data",
            Family::Vnodes => "vnodes",
            Family::Meta => "meta",
        }
    }
}

pub(super) const MEMBERSHIP: &[u8] = b"membership";
pub(super) const RUN: &[u8] = b"run";
pub(super) const REPLACES: &[u8] = b"replaces";
const HOLDS_DATA: &[u8] = b"holds-data/";
const HASH_BYTES: usize = 8;
const KEYSPACE_BYTES: usize = 8;

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
