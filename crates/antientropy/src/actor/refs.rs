//! Whom the shell sends messages to.

use anello_protocol::{
    id::NodeId,
    message::{
        repair::{CompareKeys, CompareRanges, CompareRoots},
        replica::{ReadVersions, StoreVersions},
    },
};
use anello_transport::{ActorRef, Peers};

/// What anti-entropy asks of a node's vnodes.
#[derive(Clone, Debug)]
pub struct VnodeRefs {
    /// Reading.
    pub read: ActorRef<ReadVersions>,
    /// Joining versions.
    pub store: ActorRef<StoreVersions>,
}

/// What anti-entropy asks of another node.
#[derive(Clone, Debug)]
pub struct NodeRefs {
    /// Its vnodes.
    pub vnodes: VnodeRefs,
    /// Comparing roots, by its anti-entropy.
    pub roots: ActorRef<CompareRoots>,
    /// Comparing ranges, by its anti-entropy.
    pub ranges: ActorRef<CompareRanges>,
    /// Comparing keys, by its anti-entropy.
    pub keys: ActorRef<CompareKeys>,
}

impl NodeRefs {
    /// A node at the other end of a connection.
    pub fn peer(peers: &Peers, node: &NodeId) -> Self {
        Self {
            vnodes: VnodeRefs {
                read: ActorRef::peer(peers, node.clone()),
                store: ActorRef::peer(peers, node.clone()),
            },
            roots: ActorRef::peer(peers, node.clone()),
            ranges: ActorRef::peer(peers, node.clone()),
            keys: ActorRef::peer(peers, node.clone()),
        }
    }
}
