//! What a simulated node is told, and what it wants done by the world around it.

use std::sync::Arc;

use anello_gossip::{Ticket, To};
use anello_protocol::{
    cluster::ClusterState,
    id::{Epoch, NodeId, PartitionId},
    key::DataKey,
    message::{
        admin::{AlterError, AlterKeyspace},
        client::{Answer, Found, Get, Write, Written},
    },
    time::Moment,
};
use anello_replica::coordinator::CallFailure;

use crate::{
    disk::Fresh,
    wire::{Frame, WireCall},
};

/// Which client's attempt a request is.
pub type ClientCall = u64;

/// What happens to a node.
#[derive(Debug)]
pub enum NodeInput {
    /// A packet of another node.
    Packet(NodeId, Frame),
    /// A client reads.
    Get(ClientCall, Get),
    /// A client writes.
    Write(ClientCall, Write),
    /// An operator changes a keyspace.
    Alter(u64, AlterKeyspace),
    /// Membership's alarm.
    GossipAlarm,
    /// The coordinator's alarm.
    CoordinatorAlarm,
    /// The store has read a key.
    Loaded(PartitionId, DataKey),
    /// The disk has synced, or failed to.
    Synced(SyncOutcome),
    /// A call to another node has failed.
    CallFailed(WireCall, CallFailure),
    /// It can be told of which keyspaces the node holds data.
    Inspected(Ticket),
}

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// All is durable.
    Durable,
    /// It failed, and what was written was kept all the same.
    FailedKept,
    /// It failed, and what was written is lost.
    FailedLost,
}

/// What a node wants done by the world around it.
#[derive(Debug)]
pub enum Out {
    /// A packet to a node.
    Send(To, Frame),
    /// An input of its own, at a moment.
    At(Moment, NodeInput),
    /// A read from the disk, then [`NodeInput::Loaded`].
    Load(PartitionId, DataKey),
    /// The disk has begun a sync, to end in [`NodeInput::Synced`].
    Sync,
    /// A client's read is answered.
    Got(ClientCall, Answer<Found>),
    /// A client's write is answered.
    Wrote(ClientCall, Answer<Written>),
    /// An operator is answered.
    Altered(u64, Result<Epoch, AlterError>),
    /// A version is durable.
    Durable(Fresh),
    /// The node has learned of an agreed state.
    Agreed(Arc<ClusterState>),
    /// Membership has another verdict on a node: whether it can be reached.
    Judged(bool),
    /// Something for the history.
    Note(String),
    /// The node broke a rule that is checked at the node itself.
    Broke(&'static str, String),
}
