//! What the shell is told and asked by its own node.

use std::{collections::BTreeSet, sync::Arc};

use actix::Message;
use anello_protocol::{
    cluster::Phase,
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
};
use anello_ring::view::View;

use crate::{figures::Figures, rounds::Progress, schedule::Pair};

/// Tells anti-entropy something, and gets no answer.
#[derive(Clone, Debug)]
pub enum Tell {
    /// What the members have agreed on. To be told once all vnodes of this node act under it, and what these
    /// took in under the state before is committed: from here on others rely on seeing all of that in its trees.
    ClusterChanged(Arc<View>),
    /// The failure detector's verdict on a node.
    ReachabilityChanged {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        reachable: bool,
    },
    /// All partitions of which this node may lack so much that it shows them to nobody.
    Quarantined {
        /// The partitions; none if it is over.
        partitions: BTreeSet<PartitionId>,
        /// Whether the store was put back from a copy.
        was_restored: bool,
    },
    /// How late the commits of clients' writes are, 0 to 100.
    Pressure(u8),
    /// All trees are to be scrubbed at once.
    ScrubAll,
}

impl Message for Tell {
    type Result = ();
}

/// Tells whoever agrees on changes that this node has done its part of a partition's phase; see
/// [`crate::Effect::HandedOver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The change: the epoch that it began with.
    pub change: Epoch,
    /// The partition.
    pub partition: PartitionId,
    /// The phase that may end.
    pub phase: Phase,
    /// The state under which this is what was awaited.
    pub epoch: Epoch,
}

impl Message for HandedOver {
    type Result = ();
}

/// Starts a full round at once; the answer is its number.
#[derive(Clone, Copy, Debug)]
pub struct StartRound;

impl Message for StartRound {
    type Result = u64;
}

/// Asks how far the last round has come that somebody asked for, if anybody has.
#[derive(Clone, Copy, Debug)]
pub struct AskProgress;

impl Message for AskProgress {
    type Result = Option<Progress>;
}

/// Asks for the figures that people are shown.
#[derive(Clone, Copy, Debug)]
pub struct AskFigures;

impl Message for AskFigures {
    type Result = Figures;
}

/// Asks what is known of the trees that this node shares with others in one partition.
#[derive(Clone, Copy, Debug)]
pub struct AskPairs(pub KeyspaceId, pub PartitionId);

impl Message for AskPairs {
    type Result = Vec<(NodeId, Pair)>;
}

/// Tells anti-entropy to end. Whoever waits for an answer gets none.
#[derive(Clone, Copy, Debug)]
pub struct Stop;

impl Message for Stop {
    type Result = ();
}
