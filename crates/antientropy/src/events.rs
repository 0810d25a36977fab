//! What anti-entropy is told and asked, what it answers, and what it wants done.

use std::{collections::BTreeSet, sync::Arc};

use anello_protocol::{
    cluster::Phase,
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    message::{
        repair::{CompareKeys, CompareRanges, CompareRoots, KeysDiffer, PurgeVersions, Purged},
        replica::{Held, ReadVersions, Refusal, StoreVersions, Stored},
    },
    time::Moment,
};
use anello_ring::view::View;

use crate::looking::{Look, Looked};

/// The shell's name for a question that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The name of a message that was sent, or of a look at the store, under which its outcome comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What another node asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which partitions differ.
    Roots(CompareRoots),
    /// Which parts of ranges differ.
    Ranges(CompareRanges),
    /// Which keys differ.
    Keys(CompareKeys),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Question::Roots`].
    Roots(Result<Vec<PartitionId>, Refusal>),
    /// To [`Question::Ranges`].
    Ranges(Result<Vec<u16>, Refusal>),
    /// To [`Question::Keys`].
    Keys(Result<KeysDiffer, Refusal>),
    /// To any question that no node of this kind would ask, with a sentence: it is not to be repeated.
    Malformed(&'static str),
    /// To [`Input::Start`]: the round's number.
    Started(u64),
}

/// A message to another node, or to a vnode of this one.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// To the anti-entropy of that node.
    Roots(CompareRoots),
    /// To the anti-entropy of that node.
    Ranges(CompareRanges),
    /// To the anti-entropy of that node.
    Keys(CompareKeys),
    /// To the key's vnode on that node, which may be this one.
    Read(ReadVersions),
    /// To the key's vnode on that node, which may be this one.
    Store(StoreVersions),
    /// To the key's vnode on this node, which is quarantined: it forgets what came back with a copy.
    Purge(PurgeVersions),
}

/// What answers an [`Outgoing`].
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// To [`Outgoing::Roots`].
    Roots(Result<Vec<PartitionId>, Refusal>),
    /// To [`Outgoing::Ranges`].
    Ranges(Result<Vec<u16>, Refusal>),
    /// To [`Outgoing::Keys`].
    Keys(Result<KeysDiffer, Refusal>),
    /// To [`Outgoing::Read`].
    Read(Result<Held, Refusal>),
    /// To [`Outgoing::Store`].
    Stored(Result<Stored, Refusal>),
    /// To [`Outgoing::Purge`].
    Purged(Result<Purged, Refusal>),
}

/// Why a message has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// None came in time, there was too much under way, or it was lost: asking again may help.
    Passing,
    /// There is no connection.
    Unreachable,
    /// The receiver won't have it.
    Refused,
}

/// What people should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A tree was other than its data, and was mended.
    Mended {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// How many of its leaves.
        leaves: u32,
    },
    /// The store can't be read, with a sentence.
    StoreFailed(String),
    /// What differs between this node and another could not be mended this time.
    Unresolved {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// The other node.
        peer: NodeId,
    },
    /// What came back with a copy of the store had been deleted, and forgotten by all others: it is gone.
    Dropped {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// Of how many keys.
        keys: u64,
    },
}

/// What anti-entropy wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message; bring the answer, or the failure, back as [`Input::Answered`], once.
    Send {
        /// Its name.
        ticket: Ticket,
        /// The node; it may be this one.
        to: NodeId,
        /// The message.
        message: Outgoing,
        /// When its answer is of no use any more.
        deadline: Moment,
    },
    /// Look at the store, where waiting for a disk holds nobody up; bring what is seen back as
    /// [`Input::Looked`], once.
    Look(Ticket, Look),
    /// Answer a question.
    Reply(Token, Reply),
    /// Tell people.
    Report(Report),
    /// Tell the node's quarantine, which is on, that a partition is in step with a node that serves.
    InStep {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// The other node.
        peer: NodeId,
    },
    /// Tell the node's quarantine, which is on, that another node is quarantined too.
    PeerQuarantined(NodeId),
    /// Tell those who agree on the change that is under way: this node acts under a partition's phase, and
    /// has seen since it does that it holds all that those hold with whom it has to be in step
    /// ([`View::handover`]). Once for each change, partition and phase, but again after a start, and after
    /// what it has to be in step with has become another set: the word before says nothing of that.
    HandedOver {
        /// The change: the epoch that it began with.
        change: Epoch,
        /// The partition.
        partition: PartitionId,
        /// The phase that may end.
        phase: Phase,
        /// The state under which this is what was awaited.
        epoch: Epoch,
    },
}

/// What happens to anti-entropy.
#[derive(Clone, Debug)]
pub enum Input {
    /// A node asks.
    Asked {
        /// Who gets the answer.
        token: Token,
        /// The node.
        from: Option<NodeId>,
        /// What.
        question: Question,
    },
    /// An operator wants a full round at once, with all nodes; the answer is its number.
    Start(Token),
    /// An operator wants all trees scrubbed at once.
    ScrubAll,
    /// What this node holds there has to be compared with all others, before anything else.
    MarkForRepair(Vec<(KeyspaceId, PartitionId)>),
    /// A message has its answer, or never will.
    Answered {
        /// Its name.
        ticket: Ticket,
        /// The answer.
        outcome: Result<Incoming, CallFailure>,
    },
    /// What was seen in the store.
    Looked(Ticket, Looked),
    /// The moment of [`crate::AntiEntropy::next_wake`] may have come.
    TimeUp,
    /// The members have agreed on another state.
    ClusterChanged(Arc<View>),
    /// The failure detector has another verdict on a node.
    ReachabilityChanged {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        reachable: bool,
    },
    /// Of which partitions this node may lack so much that it shows them to nobody: what others hold is
    /// taken in there, and nothing is handed out.
    Quarantined {
        /// The partitions; none if it is over.
        partitions: BTreeSet<PartitionId>,
        /// Whether the store was put back from a copy: then what only this node holds may have been
        /// deleted, and forgotten, since the copy was made.
        was_restored: bool,
    },
    /// How late the commits of clients' writes are: 0 is not at all, 100 is as late as may be. Repair
    /// gives way accordingly.
    Pressure(u8),
}
