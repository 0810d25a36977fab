//! What is said about hints: writes that a stand-in keeps for a replica that can't be reached.
//!
//! ```text
//! PUT of a key with replicas A B C, while C is away and S is the next of the walk
//!
//!   A --StoreHint(owner C)--> S        S keeps it durably, and counts in a sloppy quorum
//!
//! PUT while A, B and C are all away: S itself coordinates
//!
//!   S --MintHint(owner A)--> S         S issues the dot under its own name, and keeps the version for A
//!
//! C is back
//!
//!   S --RequestCredit-------> C        C says how much it can take
//!   S --StoreVersions-------> C        many in flight; S deletes each once C has it on disk
//!   S --MarkForRepair-------> C        if S had to drop some
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    key::DataKey,
    message::replica::{Held, MintVersion, Minted, Refusal, StoreVersions, Stored, Want},
};

/// The most ranges in one [`MarkForRepair`].
pub const MAX_MARKED: usize = 1024;
/// The most keys in one [`CheckHints`].
pub const MAX_CHECKED: usize = 256;

/// Asks a node to keep versions for a replica that can't be reached, until it can.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreHint {
    /// The replica that they are for.
    pub owner: NodeId,
    /// What it is to join.
    pub store: StoreVersions,
    /// Whether it counts towards the write quorum: it may then be the only copy of an acknowledged write,
    /// and is kept for as long as it takes.
    pub counts: bool,
}
super::message!(StoreHint => Result<Stored, Refusal>, STORE_HINT, Data, false);

/// Asks the hint store of the coordinator's own node to issue a dot for a write of which no replica can be
/// reached, and to keep the version for one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MintHint {
    /// The replica that it is for.
    pub owner: NodeId,
    /// The write.
    pub mint: MintVersion,
}
super::message!(MintHint => Result<Minted, Refusal>, MINT_HINT, Data, false);

/// Asks a node what it durably keeps of a key for others: the join over all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadHints {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The key.
    pub key: DataKey,
    /// The versions or their digest.
    pub want: Want,
}
super::message!(ReadHints => Result<Held, Refusal>, READ_HINTS, Data, false);

/// Asks an owner how much it can take of what is kept for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCredit {
    /// About how many bytes wait for it.
    pub waiting_bytes: u64,
}
super::message!(RequestCredit => Credit, REQUEST_CREDIT, Control, false);

/// What an owner can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// That many bytes at most before the next request for credit; none at the moment if zero.
    pub bytes: u32,
    /// When to ask again, in milliseconds, if it is zero.
    pub retry_ms: u32,
}

/// Tells an owner that hints for it were dropped: what it holds there has to be compared with the other
/// replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkForRepair {
    /// Where, at most [`MAX_MARKED`].
    pub ranges: Vec<(KeyspaceId, PartitionId)>,
}
super::message!(MarkForRepair => (), MARK_FOR_REPAIR, Control, false);

/// Asks a node which of these keys it keeps anything of for others, or is just delivering.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHints {
    /// The keys, at most [`MAX_CHECKED`].
    pub keys: Vec<DataKey>,
}
super::message!(CheckHints => Result<Vec<bool>, Refusal>, CHECK_HINTS, Control, false);
