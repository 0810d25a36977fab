//! Keys, their place in the hash space, and the address of a key in a store.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3Default;

use crate::id::{KeyspaceId, KeyspaceName, PartitionId};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// A key that is empty or too long.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a key is 1 to {MAX_KEY_BYTES} bytes, this one has {0}")]
pub struct BadKey(pub usize);

/// 1 to 1,024 bytes of any kind.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Key(Bytes);

impl Key {
    /// Takes bytes within the bound.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, BadKey> {
        let bytes = bytes.into();
        if bytes.is_empty() || bytes.len() > MAX_KEY_BYTES {
            return Err(BadKey(bytes.len()));
        }
        Ok(Self(bytes))
    }

    /// The bytes of the key.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Bytes::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// Where a key lies in the 64-bit hash space.
///
/// A partition is a prefix of it, so in a store that is ordered by hash the partition is one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub u64);

impl KeyHash {
    /// The hash of a key in a keyspace. Part of the wire contract: it never changes.
    pub fn of(keyspace: &KeyspaceName, key: &Key) -> Self {
        let mut hash = Xxh3Default::new();
        hash.update(keyspace.as_str().as_bytes());
        hash.update(&[0]); // no keyspace name holds a zero, so no two pairs run into each other
        hash.update(key.as_bytes());
        Self(hash.digest())
    }

    /// The partition that holds this hash when the space is cut into `partitions`, a power of two.
    pub fn partition(self, partitions: u32) -> PartitionId {
        debug_assert!(partitions.is_power_of_two());
        match partitions.trailing_zeros() {
            0 => PartitionId(0),
            bits => PartitionId((self.0 >> (64 - bits)) as u32),
        }
    }
}

/// The address of a key among everything that a node stores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataKey {
    /// The key's hash: first, so that the order is by partition.
    pub hash: KeyHash,
    /// The keyspace's life.
    pub keyspace: KeyspaceId,
    /// The key itself.
    pub key: Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_a_prefix_of_the_hash() {
        assert_eq!(KeyHash(u64::MAX).partition(1), PartitionId(0));
        assert_eq!(KeyHash(u64::MAX).partition(256), PartitionId(255));
        assert_eq!(KeyHash(1 << 56).partition(256), PartitionId(1));
        assert_eq!(KeyHash((1 << 56) - 1).partition(256), PartitionId(0));
    }

    #[test]
    fn the_hash_never_changes() {
        let key = Key::new(&b"cart:42"[..]).expect("within the bound");
        assert_eq!(
            KeyHash::of(&KeyspaceName::default_keyspace(), &key),
            KeyHash(4243868514352813066)
        );
    }

    #[test]
    fn bounds_hold_when_decoding() {
        assert_eq!(Key::new(Bytes::new()), Err(BadKey(0)));
        assert!(Key::new(vec![0; MAX_KEY_BYTES]).is_ok());
        let long = postcard::to_stdvec(&Bytes::from(vec![0; MAX_KEY_BYTES + 1])).expect("encodes");
        assert!(postcard::from_bytes::<Key>(&long).is_err());
    }
}
