//! The port behind which a node keeps hints: one for each owner and key, joined over all writes to the
//! key that the owner missed.
//!
//! What a change makes is kept whole or not at all, changes are kept in the order in which they were
//! given, and `done` means durable. A read never shows what a crash could still take back.

use anello_protocol::{
    causality::Dot,
    id::NodeId,
    key::DataKey,
    version::{ConflictRule, Versions},
};
use serde::{Deserialize, Serialize};

use crate::store::{CommitDone, NotTaken, StoreError, VnodeRecord};

/// What a hint weighs beside its key and versions.
const HINT_OVERHEAD_BYTES: usize = 128;
/// What a version weighs beside its value.
const VERSION_OVERHEAD_BYTES: usize = 64;

/// Versions that are kept for an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Its place in the order in which the hints for the owner began: the oldest is delivered first. A hint
    /// to which a later write of the key is joined keeps its place.
    pub number: u64,
    /// When it began, in milliseconds since the Unix epoch, by the hint store's clock.
    pub since_ms: u64,
    /// What becomes of concurrent versions.
    pub rule: ConflictRule,
    /// What the owner is to join.
    pub versions: Versions,
    /// The last dot that this node issued for it, if any: the next one counts on from here. No other hint
    /// has dots of the same actor, and none goes on with it once this one is gone.
    pub minted: Option<Dot>,
    /// When something was last joined to it, by the same clock: from here on its age is counted.
    pub joined_ms: u64,
    /// Whether a write was acknowledged because of it: it may be the only copy, so it never gets too old.
    pub counts: bool,
}

impl Hint {
    /// What it counts for in [`HintTotals::bytes`], and towards every bound: its key, its values, and
    /// something for what is beside them.
    pub fn weight(&self, key: &DataKey) -> u64 {
        let beside = HINT_OVERHEAD_BYTES + VERSION_OVERHEAD_BYTES * self.versions.len();
        (beside + key.key.as_bytes().len() + self.versions.value_bytes()) as u64
    }
}

/// What is kept for one owner, all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HintTotals {
    /// How many hints.
    pub count: u64,
    /// The sum of their [`Hint::weight`].
    pub bytes: u64,
    /// When the oldest began, in milliseconds since the Unix epoch.
    pub oldest_ms: u64,
    /// The highest number of any.
    pub last_number: u64,
}

/// What a process finds when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shelved {
    /// For whom there is something, and how much.
    pub owners: Vec<(NodeId, HintTotals)>,
    /// What the hint store asked to be remembered.
    pub record: Option<VnodeRecord>,
}

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct HintChange {
    /// For whom.
    pub owner: NodeId,
    /// The key.
    pub key: DataKey,
    /// The hint in place of what was kept of the key, whose number it has if there was one; none if it goes.
    pub hint: Option<Hint>,
    /// The number of the hint that was there and goes.
    pub removed: Option<u64>,
    /// What the hint store must remember to issue no dot twice, if that changed.
    pub record: Option<VnodeRecord>,
}

/// See the head of this file.
pub trait HintShelf: Send + Sync + 'static {
    /// What is durably kept for an owner of a key. May wait for a disk.
    fn read(&self, owner: &NodeId, key: &DataKey) -> Result<Option<Hint>, StoreError>;

    /// The hints for an owner from a number on, in their order: at most so many, and no more once they have
    /// so many bytes, but one if there is any. May wait for a disk.
    fn page(
        &self,
        owner: &NodeId,
        from: u64,
        count: usize,
        bytes: usize,
    ) -> Result<Vec<(DataKey, Hint)>, StoreError>;

    /// Takes a change in and returns at once; `done` is called once it is durable, or has failed. When the
    /// queue is full, the change is not taken and `done` is dropped.
    fn commit(&self, change: HintChange, done: CommitDone) -> Result<(), NotTaken>;

    /// All that is known at a start. Reads the disk.
    fn load(&self) -> Result<Shelved, StoreError>;
}
