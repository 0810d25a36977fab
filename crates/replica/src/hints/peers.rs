//! How a hint store reaches another node.

use anello_protocol::{
    id::NodeId,
    message::{
        hint::{MarkForRepair, RequestCredit},
        replica::StoreVersions,
    },
};
use anello_transport::{ActorRef, Peers};

/// What a hint store asks of another node.
#[derive(Clone, Debug)]
pub struct HintPeers {
    /// Joining versions, of its vnodes.
    pub store: ActorRef<StoreVersions>,
    /// How much it can take, of its hint store.
    pub credit: ActorRef<RequestCredit>,
    /// Remembering what to compare.
    pub mark: ActorRef<MarkForRepair>,
}

impl HintPeers {
    /// A node at the other end of a connection.
    pub fn peer(peers: &Peers, node: &NodeId) -> Self {
        Self {
            store: ActorRef::peer(peers, node.clone()),
            credit: ActorRef::peer(peers, node.clone()),
            mark: ActorRef::peer(peers, node.clone()),
        }
    }
}
