//! What a simulated node is told, and what it wants done by the world around it.

use std::sync::Arc;

use anello_antientropy::{Look, Ticket as TreeTicket, purge::ListNumber};
use anello_gossip::{Alteration, Ticket, To};
use anello_protocol::{
    cluster::ClusterState,
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    key::DataKey,
    message::{
        admin::AlterError,
        client::{Answer, Found, Get, Write, Written},
    },
    time::Moment,
};
use anello_replica::{coordinator::CallFailure, hints::PageNumber};

use crate::{
    disk::Fresh,
    wire::{Frame, WireCall},
};

/// A machine of a node that sets alarms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// Membership.
    Gossip,
    /// The coordinator.
    Coordinator,
    /// The hint store.
    Hints,
    /// Anti-entropy.
    Trees,
    /// The purger.
    Purger,
    /// The quarantine.
    Quarantine,
}

impl Machine {
    /// All of them.
    pub const ALL: [Machine; 6] = [
        Machine::Gossip,
        Machine::Coordinator,
        Machine::Hints,
        Machine::Trees,
        Machine::Purger,
        Machine::Quarantine,
    ];
}

/// A list of tombstones that the purger wants.
#[derive(Clone, Debug)]
pub struct List {
    /// Its name.
    pub number: ListNumber,
    /// The keyspace.
    pub keyspace: KeyspaceId,
    /// The partition.
    pub partition: PartitionId,
    /// Those after this key.
    pub after: Option<DataKey>,
    /// At most so many.
    pub limit: usize,
}

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
    /// An operator changes something of the cluster.
    Alter(u64, Alteration),
    /// A machine's alarm.
    Alarm(Machine),
    /// The store has read a key.
    Loaded(PartitionId, DataKey),
    /// What is kept for an owner of a key has been read.
    HintLoaded(NodeId, DataKey),
    /// Hints have been read.
    HintsPaged {
        /// The name of what was asked for.
        page: PageNumber,
        /// For whom.
        owner: NodeId,
        /// From this one on.
        from: u64,
        /// At most so many.
        count: usize,
        /// And no more once they have so many bytes.
        bytes: usize,
    },
    /// Anti-entropy's look at the store can be carried out.
    Looked(TreeTicket, Look),
    /// Tombstones can be listed.
    Listed(List),
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
    /// A read from the disk, then [`NodeInput::HintLoaded`].
    LoadHint(NodeId, DataKey),
    /// A read from the disk, then [`NodeInput::HintsPaged`].
    PageHints {
        /// The name of what is asked for.
        page: PageNumber,
        /// For whom.
        owner: NodeId,
        /// From this one on.
        from: u64,
        /// At most so many.
        count: usize,
        /// And no more once they have so many bytes.
        bytes: usize,
    },
    /// A look at the disk, then [`NodeInput::Looked`].
    Look(TreeTicket, Look),
    /// A look at the disk, then [`NodeInput::Listed`].
    List(List),
    /// The disk has begun a sync, to end in [`NodeInput::Synced`].
    Sync,
    /// A client's read is answered.
    Got(ClientCall, Answer<Found>),
    /// A client's write is answered.
    Wrote(ClientCall, Answer<Written>),
    /// An operator is answered.
    Altered(u64, Result<Epoch, AlterError>),
    /// Something is durable.
    Durable(Fresh),
    /// Data is moved to mend what differs between replicas.
    Repair(&'static str),
    /// It is quarantined, or no longer.
    Quarantined(bool),
    /// The node has learned of an agreed state.
    Agreed(Arc<ClusterState>),
    /// Membership has another verdict on a node: whether it can be reached.
    Judged(bool),
    /// Something for the history.
    Note(String),
    /// The node broke a rule that is checked at the node itself.
    Broke(&'static str, String),
}
