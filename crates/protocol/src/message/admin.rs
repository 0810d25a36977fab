//! What operators and clients ask about the cluster, and how they change its keyspaces.

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

/// Why the cluster was not changed.
#[derive(Clone, Debug, Error, PartialEq, Eq, Serialize, Deserialize)]
pub enum AlterError {
    /// The change makes no sense, or is not possible while the cluster holds data.
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
}
