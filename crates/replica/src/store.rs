//! The port behind which a node keeps its data.
//!
//! A [`Store`] holds, for every key, the set of versions that the vnode wrote last, and for every
//! vnode its [`VnodeRecord`]. It knows nothing of merging. What it answers for: a batch is kept whole
//! or not at all, batches are kept in the order in which they were given, `done` means durable, and a
//! read never shows what a crash could still take back. [`conformance`] checks what can be checked.

pub mod conformance;
mod memory;

use std::sync::Arc;

use anello_protocol::{
    causality::Incarnation,
    id::PartitionId,
    key::DataKey,
    version::{Versions, VersionsDigest},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use memory::MemoryStore;

/// What a vnode must remember to issue no dot twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VnodeRecord {
    /// The life under which it issues dots.
    pub incarnation: Incarnation,
    /// It may have used any birth number below this one.
    pub births_reserved: u64,
}

/// What is kept together, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The vnode.
    pub partition: PartitionId,
    /// The key.
    pub key: DataKey,
    /// What was kept of the key: of that which the commit before left, or what was read from the store.
    pub replaced: Summary,
    /// All that is to be kept of the key, in place of that; nothing is kept if it is empty.
    pub versions: Arc<Versions>,
    /// What the vnode must remember from here on, if that changed.
    pub vnode_record: Option<VnodeRecord>,
}

/// What a store must know of a key's versions to keep its trees and lists in step with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Their digest.
    pub digest: VersionsDigest,
    /// Whether they are tombstones and nothing else.
    pub is_deleted: bool,
}

impl Summary {
    /// Of these.
    pub fn of(versions: &Versions) -> Self {
        Self { digest: versions.digest(), is_deleted: versions.is_deleted() }
    }
}

/// Called once, on any thread, when the fate of a commit is known.
pub type CommitDone = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// Why a commit was not taken: nothing of it is kept, and never will be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum NotTaken {
    /// The store's queue is full.
    #[error("the store's queue is full")]
    Busy,
    /// The disk has too little room left.
    #[error("the disk is full")]
    DiskFull,
}

/// The storage engine failed. A commit that failed may have been kept all the same.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct StoreError(pub String);

/// What a read that must not block came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachedRead {
    /// What is kept of the key; empty if nobody has written it.
    Hit(Versions),
    /// Only [`Store::read`], which may block, can tell.
    WouldBlock,
}

/// About how much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreEstimate {
    /// Keys, tombstones included.
    pub keys: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Where a node keeps its data. All vnodes share one.
pub trait Store: Send + Sync + 'static {
    /// What is durably kept of a key; empty if nobody has written it. May wait for a disk.
    fn read(&self, key: &DataKey) -> Result<Versions, StoreError>;

    /// The same from memory alone, without waiting for anything.
    fn read_cached(&self, key: &DataKey) -> Result<CachedRead, StoreError>;

    /// Takes a batch in and returns at once; `done` is called once it is durable, or has failed.
    ///
    /// Batches of one vnode are kept in the order in which they were given. The queue is bounded, and so
    /// is the disk: when either is full, the batch is not taken and `done` is dropped.
    fn commit(&self, commit: Commit, done: CommitDone) -> Result<(), NotTaken>;

    /// What a vnode last asked to be remembered. Reads the disk: for starting up.
    fn load_vnode(&self, partition: PartitionId) -> Result<Option<VnodeRecord>, StoreError>;

    /// About how much there is.
    fn estimate(&self) -> StoreEstimate;
}
