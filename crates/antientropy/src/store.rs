//! The port behind which a node keeps its trees and the data that they are over.
//!
//! A leaf changes in the same batch as the entry below it, so what [`TreeStore::leaves`] says is exact as
//! of some durable commit, also after a crash, without ever being worked out anew. Unless said otherwise,
//! a call may wait for a disk.

pub mod conformance;
mod memory;

use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::DataKey,
    merkle::{EntryDigest, HashRange, LEAVES},
    time::HybridTime,
    version::{Versions, VersionsDigest},
};
use thiserror::Error;

pub use memory::MemoryTreeStore;

/// The storage engine failed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct TreeError(pub String);

/// The digests of a tree's leaves, in the order of their hashes.
pub type Leaves = [EntryDigest; LEAVES];

/// A key that is held, and a digest of what is held of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: DataKey,
    /// Of its versions.
    pub digest: VersionsDigest,
}

/// Some of the keys of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// In the order of hash and key.
    pub entries: Vec<Entry>,
    /// Whether there are more after these.
    pub has_more: bool,
}

/// A key of which nothing but tombstones is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// The key.
    pub key: DataKey,
    /// Of the tombstones.
    pub digest: VersionsDigest,
    /// When the latest of them was issued.
    pub latest: HybridTime,
}

/// What a scrub of one tree came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// How many entries were looked at.
    pub entries: u64,
    /// How many leaves were other than the data says, and were mended.
    pub mended: u32,
}

/// See the head of this file.
pub trait TreeStore: Send + Sync + 'static {
    /// The leaves of a partition's tree in a keyspace; all zero if nothing is held there. None while they
    /// can't be trusted, because a write failed and it isn't known whether it was kept. Waits for nothing.
    fn leaves(&self, keyspace: KeyspaceId, partition: PartitionId) -> Option<Box<Leaves>>;

    /// The keys of a range in one keyspace, those after `after`, at most `limit`.
    fn entries(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Entries, TreeError>;

    /// The digests of the children of a range in one keyspace, worked out from the data: for ranges at or
    /// below a leaf. Empty if the range can't be cut.
    fn children(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
    ) -> Result<Vec<EntryDigest>, TreeError>;

    /// What is held of a key.
    fn read(&self, key: &DataKey) -> Result<Versions, TreeError>;

    /// Works a tree out anew from the data, compares, and mends what differs.
    fn scrub(&self, keyspace: KeyspaceId, partition: PartitionId) -> Result<Scrubbed, TreeError>;

    /// The deleted keys of a partition in one keyspace, those after `after`, at most `limit`, in the order
    /// of hash and key.
    fn tombstones(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, TreeError>;

    /// About how many deleted keys there are, in all keyspaces. Waits for nothing.
    fn tombstones_estimate(&self) -> u64;
}
