//! What clients ask of a coordinator, through the client library or the HTTP API.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    consistency::{Consistency, QuorumKind},
    id::{Datacenter, Epoch, KeyspaceName, NodeId, PartitionId, Rack},
    key::Key,
    time::HybridTime,
    version::{Content, WriteId},
};

/// The time that a request has when it names none, in milliseconds.
pub const DEFAULT_TIMEOUT_MS: u32 = 2_000;
/// The most time that a request can have, in milliseconds.
pub const MAX_TIMEOUT_MS: u32 = 60_000;

/// How a request is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestOptions {
    /// How many replicas must answer a read; without it, the keyspace's own level.
    pub read: Option<Consistency>,
    /// How many replicas must acknowledge a write; without it, the keyspace's own level.
    pub write: Option<Consistency>,
    /// Whether stand-ins count.
    pub quorum: QuorumKind,
    /// How long the request may take, 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u32,
    /// Whether the answer is to carry a receipt.
    pub explain: bool,
    /// The trace that the request belongs to.
    pub trace_id: Option<[u8; 16]>,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            read: None,
            write: None,
            quorum: QuorumKind::Sloppy,
            timeout_ms: DEFAULT_TIMEOUT_MS,
            explain: false,
            trace_id: None,
        }
    }
}

/// A context as clients hold it: see [`crate::causality::token_encode`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContextToken(pub String);

/// Reads a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Get {
    /// The keyspace.
    pub keyspace: KeyspaceName,
    /// The key.
    pub key: Key,
    /// How.
    pub options: RequestOptions,
}
super::message!(Get => Answer<Found>, GET, Data, true);

/// Writes a value to a key, or deletes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The keyspace.
    pub keyspace: KeyspaceName,
    /// The key.
    pub key: Key,
    /// The value; a tombstone deletes.
    pub content: Content,
    /// What the writer had seen. Without it a value is concurrent with all that is there, and a
    /// tombstone covers what the coordinator's read quorum shows.
    pub context: Option<ContextToken>,
    /// The write's name: a retry carries the same one.
    pub write_id: WriteId,
    /// Whether the writer chose the name, so that a retry may come at any time: then even a delete
    /// that finds nothing is remembered.
    pub is_named: bool,
    /// How.
    pub options: RequestOptions,
}
super::message!(Write => Answer<Written>, WRITE, Data, true);

/// What a request came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// What was asked for, or why not.
    pub result: Result<T, RequestError>,
    /// Who took part, if the request asked for that.
    pub receipt: Option<Receipt>,
}

impl<T> From<Result<T, RequestError>> for Answer<T> {
    fn from(result: Result<T, RequestError>) -> Self {
        Self { result, receipt: None }
    }
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The versions to show: none if nobody has written the key, several if they are concurrent.
    pub versions: Vec<FoundVersion>,
    /// What the reader has seen with them: nothing, if nobody has written the key.
    pub context: ContextToken,
}

/// One version, as a reader is shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundVersion {
    /// The value, or that it was deleted.
    pub content: Content,
    /// When it was written.
    pub time: HybridTime,
}

/// A write is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// What the writer has seen with it.
    pub context: ContextToken,
}

/// Why a request came to nothing. Every one but [`RequestError::Timeout`] means that nothing was
/// written.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestError {
    /// The context is damaged, forged, or of another key.
    #[error("{0}")]
    BadContext(String),
    /// The consistency level can't be met as the keyspace is, or makes no sense here.
    #[error("{0}")]
    BadConsistency(String),
    /// Anything else that can never succeed.
    #[error("{0}")]
    BadRequest(String),
    /// There is no such keyspace.
    #[error(
        "there is no keyspace {0:?}; create it with PUT /admin/keyspaces/{0} or `anello keyspace create {0}`"
    )]
    NoSuchKeyspace(KeyspaceName),
    /// The node sheds load.
    #[error("the node has too much to do; ask again in {retry_after_ms} ms")]
    Overloaded {
        /// When it may be worth asking again.
        retry_after_ms: u32,
    },
    /// Too few replicas are reachable to try.
    #[error("{required} replicas must answer and only {alive} can be reached; nothing was sent")]
    Unavailable {
        /// How many must answer.
        required: u16,
        /// How many of those that count can be reached.
        alive: u16,
    },
    /// Too few replicas answered in time. A write may or may not have been kept.
    #[error(
        "{received} of the {required} replicas that must answer did so in time; a write may or may not have been kept"
    )]
    Timeout {
        /// How many had to answer.
        required: u16,
        /// How many did.
        received: u16,
    },
    /// The disks of too many of the replicas are full to try.
    #[error(
        "{required} replicas must take the write and only {alive} have room on their disks; nothing was written"
    )]
    DiskFull {
        /// How many must take it.
        required: u16,
        /// How many of those that count can.
        alive: u16,
    },
}

/// Who took part in a request, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The cluster state that it was carried out under.
    pub epoch: Epoch,
    /// The key's partition.
    pub partition: PartitionId,
    /// The node that coordinated it.
    pub coordinator: NodeId,
    /// Every replica that was asked.
    pub replicas: Vec<ReplicaReceipt>,
}

/// One replica's part in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaReceipt {
    /// The node.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its rack.
    pub rack: Rack,
    /// Why it was asked.
    pub role: Role,
    /// What it did.
    pub outcome: ReplicaOutcome,
    /// Microseconds from the request to its answer, or to when it was given up.
    pub us: u64,
}

/// Why a node was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It is one of the key's own replicas.
    Replica,
    /// It stands in for one that can't be reached.
    StandIn,
}

/// What a replica did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReplicaOutcome {
    /// It answered.
    Answered,
    /// It answered, and lacked something that another one had.
    Stale,
    /// It did not answer in time.
    Timeout,
    /// It could not be reached.
    Unreachable,
    /// It refused.
    Refused,
}

/// Asks where a key lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocateKey {
    /// The keyspace.
    pub keyspace: KeyspaceName,
    /// The key.
    pub key: Key,
}
super::message!(LocateKey => Result<KeyLocation, RequestError>, LOCATE_KEY, Data, true);

/// Where a key lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyLocation {
    /// The key's partition.
    pub partition: PartitionId,
    /// Its replicas, in the order of the preference list.
    pub replicas: Vec<Place>,
    /// The nodes that stand in for them, in the order in which they are asked.
    pub fallbacks: Vec<NodeId>,
}

/// A node and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The node.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its rack.
    pub rack: Rack,
}
