//! What operators and clients ask about the cluster, and how they change its keyspaces.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    cluster::{ClusterState, KeyspaceConfig, MemberState},
    id::{ClusterName, Datacenter, Epoch, KeyspaceName, NodeId, Rack},
};

/// Asks for the agreed cluster state, if it is newer than the one that the asker has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchCluster {
    /// The newest state that the asker has.
    pub have: Epoch,
}
super::message!(FetchCluster => Option<ClusterState>, FETCH_CLUSTER, Control, true);

/// Asks how a node sees the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeCluster {}
super::message!(DescribeCluster => ClusterView, DESCRIBE_CLUSTER, Control, true);

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// The cluster's name.
    pub name: ClusterName,
    /// The agreed state's number; 0 while the node belongs to no cluster.
    pub epoch: Epoch,
    /// How many partitions there are.
    pub partitions: u32,
    /// Why the node does not serve requests, if it doesn't.
    pub not_ready: Option<String>,
    /// The nodes, by datacenter, rack and name.
    pub nodes: Vec<NodeView>,
}

/// A node as another one sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its rack.
    pub rack: Rack,
    /// Its advertised QUIC address.
    pub quic: String,
    /// Its advertised HTTP address.
    pub http: String,
    /// Where it is in its life.
    pub state: MemberState,
    /// Whether it answers, as far as the seer knows.
    pub reachable: bool,
    /// How suspicious its silence is (Hayashibara et al., 2004); 0 for the seer itself.
    pub phi: f64,
    /// Why it is held reachable or not, for people.
    pub verdict: String,
    /// How many of the datacenter's tokens it owns.
    pub partitions: u32,
    /// The version of its program; empty while not heard of.
    pub version: String,
}

/// Creates, alters or drops a keyspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlterKeyspace {
    /// Its name.
    pub name: KeyspaceName,
    /// What it is to be.
    pub change: KeyspaceChange,
}
super::message!(AlterKeyspace => Result<Epoch, AlterError>, ALTER_KEYSPACE, Control, true);

/// What a keyspace is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyspaceChange {
    /// There, with this configuration.
    Set(KeyspaceConfig),
    /// Gone, with all its data.
    Drop,
}

/// Changes who owns the ring. Answered once the change has begun; how far it is says the cluster state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlterRing {
    /// What is to change.
    pub change: RingRequest,
}
super::message!(AlterRing => Result<Epoch, AlterError>, ALTER_RING, Control, true);

/// What is to change of the ring.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RingRequest {
    /// A node hands over what it holds and leaves for good.
    Leave(NodeId),
    /// A dead node is taken out for good; the others copy what it held from each other.
    Remove(NodeId),
    /// A dead node is taken out for good, and another one takes its place as soon as it asks to be
    /// taken in, or at once if it is a member.
    Replace {
        /// The dead one.
        old: NodeId,
        /// The new one.
        new: NodeId,
    },
    /// A node gets another share of the ring relative to its datacenter's other nodes.
    Weigh {
        /// The node.
        node: NodeId,
        /// Its weight.
        weight: f64,
    },
}

/// Why the cluster was not changed.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlterError {
    /// The change makes no sense, or is not possible as the cluster is.
    #[error("{0}")]
    Invalid(String),
    /// There is no such keyspace to drop.
    #[error("there is no keyspace {0:?}")]
    NoSuchKeyspace(KeyspaceName),
    /// Too few members can be reached for a majority.
    #[error("{required} members must agree and only {alive} can be reached; nothing was changed")]
    Unavailable {
        /// How many must agree.
        required: u16,
        /// How many can be reached.
        alive: u16,
    },
    /// The vote did not end in time; the change may or may not come about.
    #[error("the members did not agree in time; the change may or may not come about")]
    Timeout,
    /// Another change of the ring is under way: this one has to wait until that is through.
    #[error("a change of the ring is under way: {0}; try again once it is through")]
    UnderWay(String),
}

/// Asks a node for its own figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribeNode {}
super::message!(DescribeNode => NodeStatus, DESCRIBE_NODE, Control, true);

/// A node's own figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub id: NodeId,
    /// The version of its program.
    pub version: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// The number of the cluster state that it acts under.
    pub epoch: Epoch,
    /// How many vnodes it holds.
    pub vnodes: u32,
    /// Bytes of its data on disk.
    pub storage_bytes: u64,
    /// About how many keys it holds, tombstones included.
    pub keys_estimate: u64,
    /// Requests that its coordinators are at work on.
    pub requests_in_flight: u64,
    /// Reads, writes and deletes that it has coordinated since its start.
    pub requests_total: u64,
    /// What waits inside of it.
    pub queues: QueueStatus,
    /// What it keeps for others, by whom it is for.
    pub hints: BTreeMap<NodeId, HintStatus>,
    /// Hints that their owners have taken since its start.
    pub hints_delivered: u64,
    /// Hints that were not kept, or not for long enough, since its start: a bound was reached.
    pub hints_dropped: u64,
    /// Its comparing with other replicas.
    pub repair: RepairStatus,
    /// What it holds of deleted keys.
    pub tombstones: TombstoneStatus,
    /// Why what it holds is shown to nobody, if that is so.
    pub quarantine: Option<String>,
    /// Why it takes no writes, if it doesn't.
    pub read_only: Option<String>,
    /// What it has to do for the change of the ring that is under way, if one is.
    pub transfers: Option<TransferStatus>,
}

/// What a node has to do for a change of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferStatus {
    /// The change: the epoch that it began with.
    pub change: Epoch,
    /// Partitions that it is being filled with, or others are, and that are not in step here yet.
    pub filling: u64,
    /// Partitions whose new owners are read, and that are not in step here yet.
    pub serving: u64,
    /// Who has what is missing here.
    pub awaited: BTreeMap<NodeId, AwaitedStatus>,
    /// Keys that were fetched for the change, since the node took part in it or was started.
    pub keys: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many bytes were fetched a second of late.
    pub bytes_per_s: u64,
    /// About how many seconds it takes until the node is filled; none if that can't be told.
    pub left_s: Option<u64>,
}

/// What a node awaits from another one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwaitedStatus {
    /// How many trees, each a partition of a keyspace.
    pub trees: u64,
    /// What stands in the way, if anything does.
    pub obstacle: Option<String>,
}

/// What waits inside a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStatus {
    /// Requests that wait at its vnodes, for the store.
    pub vnodes: u64,
    /// The most at one of them.
    pub longest: u64,
    /// Commits that wait for the disk.
    pub commits: u64,
    /// Their bytes.
    pub commit_bytes: u64,
    /// How long the last commit waited for the disk and was written, in microseconds.
    pub commit_us: u64,
}

/// What a node keeps for another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintStatus {
    /// How many hints.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The age of the oldest, in seconds.
    pub oldest_s: u64,
}

/// How far a node is with comparing what it holds with what the other replicas hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStatus {
    /// When the last full round ended, in milliseconds since the Unix epoch.
    pub last_round_ms: Option<u64>,
    /// Full rounds that have ended since its start.
    pub rounds: u64,
    /// Partitions that it holds, counted once in every keyspace.
    pub partitions_held: u32,
    /// Those of them that were in step with every replica that could be reached when they were last
    /// compared.
    pub partitions_in_sync: u32,
    /// For how long the pair that was not found in step for longest hasn't been, in seconds.
    pub oldest_unverified_s: Option<u64>,
    /// Partitions that are being compared.
    pub units_running: u32,
    /// Partitions that wait to be compared.
    pub units_waiting: u32,
    /// Keys that were brought here or sent since its start.
    pub keys_repaired: u64,
    /// Those of them that were sent.
    pub keys_sent: u64,
    /// Bytes that were sent for it, by this node or to it at its request.
    pub bytes_sent: u64,
    /// Digests that were compared.
    pub hashes_compared: u64,
    /// Trees that were worked out anew from the data.
    pub trees_scrubbed: u64,
    /// Leaves that turned out to be wrong then, and were mended.
    pub leaves_mended: u64,
    /// What a round that was asked for has to do, and has done, in partitions.
    pub round_parts: (u32, u32),
}

/// What a node holds of deleted keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneStatus {
    /// About how many.
    pub held: u64,
    /// How many it has had forgotten everywhere, since its start.
    pub purged: u64,
    /// Those that are old enough to be forgotten and are not, by the reason.
    pub waiting: BTreeMap<String, u64>,
}

/// Asks a node to compare all that it holds with the other replicas, from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartRepair {}
super::message!(StartRepair => RepairStarted, START_REPAIR, Control, true);

/// A round of comparing has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairStarted {
    /// It has ended once [`RepairStatus::rounds`] is this.
    pub round: u64,
}
