//! What the gateway stands in front of: the actors that answer its requests.

use anello_protocol::{
    id::NodeId,
    message::{
        admin::{
            AlterKeyspace, AlterRing, DescribeCluster, DescribeNode, FetchCluster, StartRepair,
        },
        client::{Get, LocateKey, Write},
    },
};
use anello_transport::ActorRef;

/// The node, and the actors that a worker asks.
#[derive(Clone, Debug)]
pub struct Backend {
    /// This node.
    pub node: NodeId,
    /// The coordinator of a key, for reads.
    pub get: ActorRef<Get>,
    /// The coordinator of a key, for writes.
    pub write: ActorRef<Write>,
    /// The coordinator, for where a key lives.
    pub locate: ActorRef<LocateKey>,
    /// Membership, for how this node sees the cluster and whether it serves.
    pub cluster: ActorRef<DescribeCluster>,
    /// Membership, for what the members agree on.
    pub fetch: ActorRef<FetchCluster>,
    /// Membership, for changes of keyspaces.
    pub alter: ActorRef<AlterKeyspace>,
    /// Membership, for changes of the ring.
    pub alter_ring: ActorRef<AlterRing>,
    /// The node's own figures.
    pub status: ActorRef<DescribeNode>,
    /// Anti-entropy, to begin a round.
    pub repair: ActorRef<StartRepair>,
}
