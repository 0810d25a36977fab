//! What goes into a membership machine and what comes out.

use std::{collections::BTreeSet, sync::Arc};

use anello_protocol::{
    cluster::{ClusterState, Phase},
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    message::{
        admin::{AlterError, AlterKeyspace, RingRequest},
        gossip::GossipPacket,
    },
    time::Moment,
};
use thiserror::Error;

/// Names an effect whose outcome comes back as an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What happens to a membership machine.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The node has started. Comes first, and once.
    Started,
    /// The moment that the last [`Effect::WakeAt`] named has come. Also harmless at any other time.
    TimeUp,
    /// A packet came from that node, which is who it says it is.
    Heard {
        /// Its sender.
        from: NodeId,
        /// What it says.
        packet: GossipPacket,
    },
    /// The record of [`Effect::Save`] is durable.
    Saved(Ticket),
    /// It could not be saved, and why. The node stops: it can't vote, nor count its starts.
    SaveFailed(String),
    /// The answer to [`Effect::Inspect`] or [`Effect::Freeze`]: the keyspaces that the node holds data
    /// of, dropped ones included.
    Holding {
        /// Whose answer.
        ticket: Ticket,
        /// The keyspaces.
        keyspaces: BTreeSet<KeyspaceId>,
    },
    /// Somebody wants the cluster changed. Answered by [`Effect::Answer`].
    Alter {
        /// Comes back with the answer.
        token: u64,
        /// The change.
        request: Alteration,
    },
    /// This node acts under a phase of a partition that is on the move, and is in step with whom it has to be.
    /// Also harmless if it was said before.
    HandedOver {
        /// Since when that is asked: see [`anello_protocol::cluster::RingChange::asked`].
        change: Epoch,
        /// The partition.
        partition: PartitionId,
        /// The phase that it can leave.
        phase: Phase,
    },
    /// How many hints this node keeps for others. A node that leaves does so once it keeps none.
    HintsLeft(u64),
    /// Why what the node holds must be shown to nobody, if it must not: then it doesn't serve. It is a
    /// member all the same.
    Unfit(Option<String>),
    /// The rest of the node acts under a cluster state that it was told of. Until it does under the first,
    /// the node doesn't serve.
    Acting,
    /// The node shuts down: its peers are told.
    Departing,
}

/// What somebody wants changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Alteration {
    /// A keyspace.
    Keyspace(AlterKeyspace),
    /// Who owns the ring.
    Ring(RingRequest),
}

/// Whom to send to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum To {
    /// A member of the last [`MembershipEvent::ClusterChanged`].
    Node(NodeId),
    /// Whoever is at that address: a seed, or a node that is not a member yet.
    Address(String),
}

/// What a membership machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a packet; it may get lost.
    Send {
        /// Whom to.
        to: To,
        /// The packet.
        packet: GossipPacket,
    },
    /// Replace the stored record; then [`Input::Saved`]. A later save includes all earlier ones.
    Save {
        /// Comes back once it is durable.
        ticket: Ticket,
        /// The record's bytes.
        record: Vec<u8>,
    },
    /// Find out of which keyspaces the node holds data; then [`Input::Holding`].
    Inspect {
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Refuse data writes from here on, wait until those under way are durable, then find out of which
    /// keyspaces the node holds data; then [`Input::Holding`]. May come again while already frozen.
    Freeze {
        /// Comes back with the answer.
        ticket: Ticket,
    },
    /// Take data writes again, under the last [`MembershipEvent::ClusterChanged`].
    Thaw,
    /// Answer an [`Input::Alter`].
    Answer {
        /// Whose.
        token: u64,
        /// The number of the cluster state that has the change, or why there is none.
        result: Result<Epoch, AlterError>,
    },
    /// Give [`Input::TimeUp`] at that moment. Replaces the last one.
    WakeAt(Moment),
    /// Tell the rest of the node.
    Event(MembershipEvent),
    /// A line for the log.
    Note(String),
}

/// What the rest of the node is told.
#[derive(Clone, Debug, PartialEq)]
pub enum MembershipEvent {
    /// This is the cluster state to act under.
    ClusterChanged(Arc<ClusterState>),
    /// Another member can or can't be reached. Every member starts out unreachable.
    Reachability {
        /// The member.
        node: NodeId,
        /// Whether it can.
        reachable: bool,
        /// Why, for people.
        reason: String,
    },
    /// The node serves.
    Ready,
    /// The node is a member that has lost its disk: it has forgotten all that it held. Comes before the
    /// state that it acts under.
    LostDisk,
    /// The node doesn't serve, and why, for people.
    NotReady(String),
    /// The node has handed over all that it held and is no member any more. It should be stopped.
    Left,
    /// The node can't ever serve as it is, and why, for people. It should be stopped.
    Refused(String),
}

/// Why a node can't start with what it has stored, in a sentence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Unserviceable(pub String);
