//! What coordinators say to replicas, and to each other.
//!
//! ```text
//! PUT, at a node that is no replica, of a key with replicas A B C here and D E F abroad
//!
//!   node --ForwardWrite--> A          (A: CoordinatorActor)
//!                          A --MintVersion---> A's own vnode      durable, then
//!                          A --StoreVersions-> B, C
//!                          A --RelayVersions-> D --StoreVersions-> E, F
//!                          A <---Stored------- D
//!                          A <--RelayedAck---- D                  (for E, for F)
//! ```

use serde::{Deserialize, Serialize};

use crate::{
    causality::Context,
    id::{Epoch, NodeId},
    key::DataKey,
    message::client::{Answer, Write, Written},
    time::HybridTime,
    version::{ConflictRule, Content, Versions, VersionsDigest, WriteId},
};

/// Why a vnode or a coordinator won't do what it was asked; nothing was changed, except where said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Refusal {
    /// The request was made under an older cluster state than this one, which gossip will bring.
    StaleEpoch(Epoch),
    /// The request was made under a newer cluster state than this node knows.
    Behind(Epoch),
    /// This node does not hold the partition.
    NotOwner,
    /// The members are voting on who owns what; ask again in a moment.
    Frozen,
    /// The store failed. A write may have been kept all the same.
    Storage(String),
    /// The context claims to have seen dots of this vnode that it has not issued.
    ForgedContext,
    /// It takes nothing more in at the moment; ask again.
    Busy,
    /// The key holds so many concurrent versions already: a writer has to read them and to replace
    /// them, by writing with the context.
    TooManySiblings(u32),
    /// The vnode was away for so long that what it holds may have been deleted since, and is comparing
    /// with the other replicas first.
    Quarantined,
    /// As much is kept for that replica already as may be.
    HintsFull,
    /// The node's disk has too little room left; nothing of a write was kept. Reads are served.
    DiskFull,
}

/// How much of a key's versions is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Want {
    /// The versions themselves.
    Full,
    /// Their digest.
    Digest,
}

/// Asks a vnode what it durably holds of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadVersions {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The key.
    pub key: DataKey,
    /// The versions or their digest.
    pub want: Want,
}
super::message!(ReadVersions => Result<Held, Refusal>, READ_VERSIONS, Data, false);

/// What a vnode durably holds of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Held {
    /// The versions.
    Full(Versions),
    /// Their digest.
    Digest(VersionsDigest),
}

/// Asks a vnode to join versions into what it holds. Doing it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreVersions {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The key.
    pub key: DataKey,
    /// What becomes of concurrent versions.
    pub rule: ConflictRule,
    /// The versions to join.
    pub versions: Versions,
}
super::message!(StoreVersions => Result<Stored, Refusal>, STORE_VERSIONS, Data, false);

/// A vnode has joined the versions and holds the result as durably as the node is told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Under last-write-wins: the later time of the version that was there and stays.
    pub lost_to: Option<HybridTime>,
    /// Whether the vnode is in quarantine: it holds the result like any other, but of a version that wins over
    /// it the vnode may not know.
    pub is_quarantined: bool,
}

/// Asks the vnode of the coordinator's own node to issue a dot for a write and to keep the version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MintVersion {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The key.
    pub key: DataKey,
    /// What becomes of concurrent versions. Under last-write-wins the version is issued under a birth
    /// of its own, with count 1 and no past.
    pub rule: ConflictRule,
    /// Since when that is the keyspace's rule: the vnode issues dots as
    /// [`crate::causality::Incarnation::under`] this.
    pub ruled_since: Epoch,
    /// What the writer had seen.
    pub context: Context,
    /// The client's name for the write.
    pub write_id: WriteId,
    /// Issue a later time than this, and issue it even if the write is known: the version that it
    /// was issued as lost, elsewhere, to a time that this vnode had not heard of.
    pub later_than: Option<HybridTime>,
    /// The trace of the request, if it is traced.
    pub trace_id: Option<[u8; 16]>,
    /// The value, or that it is deleted.
    pub content: Content,
}
super::message!(MintVersion => Result<Minted, Refusal>, MINT_VERSION, Data, false);

/// The write is a version, and durable on the vnode that issued its dot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Minted {
    /// What the other replicas are to join: the new version; of a retry, all that is there.
    pub versions: Versions,
    /// What the writer has seen with it: its context and its own dot.
    pub context: Context,
}

/// Identifies a write under way at the coordinator that waits for its acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteTicket {
    /// Which of the node's coordinators.
    pub coordinator: u16,
    /// Its number there.
    pub number: u64,
}

/// Asks a coordinator to store versions on its own vnode and on others in its datacenter, so that
/// a write crosses between datacenters once.
///
/// The answer is for its own vnode; the others' come as [`RelayedAck`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayVersions {
    /// What to store, here and there.
    pub store: StoreVersions,
    /// The other replicas in this datacenter.
    pub others: Vec<NodeId>,
    /// Who coordinates the write.
    pub origin: NodeId,
    /// The write, at the origin.
    pub ticket: WriteTicket,
    /// How long an acknowledgement is of use, in milliseconds from the receipt.
    pub timeout_ms: u32,
}
super::message!(RelayVersions => Result<Stored, Refusal>, RELAY_VERSIONS, Data, false);

/// Why a replica behind a relay has not stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RelayFailure {
    /// The relay can't reach it.
    Unreachable,
    /// It takes nothing more in at the moment.
    Busy,
    /// It did not answer in time.
    Timeout,
    /// It refused.
    Refused(Refusal),
}

/// Tells the origin of a relayed write what became of it at one replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayedAck {
    /// The write, at the origin.
    pub ticket: WriteTicket,
    /// The replica.
    pub replica: NodeId,
    /// What it answered the relay.
    pub outcome: Result<Stored, RelayFailure>,
}
super::message!(RelayedAck => (), RELAYED_ACK, Data, false);

/// Hands a client's write to the coordinator of a node that holds the key, which alone may issue dots.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForwardWrite {
    /// The cluster state that the sender acts under.
    pub epoch: Epoch,
    /// The client's write; its timeout is what is left of it.
    pub write: Write,
}
super::message!(ForwardWrite => Result<Answer<Written>, Refusal>, FORWARD_WRITE, Data, false);
