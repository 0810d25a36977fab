//! What a purger is told, and what it wants done.

use std::sync::Arc;

use anello_protocol::{
    id::{KeyspaceId, NodeId, PartitionId},
    key::DataKey,
    message::{
        hint::CheckHints,
        repair::{PurgeVersions, Purged},
        replica::{Held, ReadVersions, Refusal},
    },
    time::Moment,
};
use anello_ring::view::View;

use crate::store::Tombstone;

/// The name of a listing, under which it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListNumber(pub u64);

/// The name of a message that was sent, under which its answer comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNumber(pub u64);

/// A message to a node, which may be this one.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// To the key's vnode.
    Read(ReadVersions),
    /// To whoever keeps hints there.
    Check(CheckHints),
    /// To the key's vnode.
    Purge(PurgeVersions),
}

/// What answers an [`Outgoing`].
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// To [`Outgoing::Read`].
    Read(Result<Held, Refusal>),
    /// To [`Outgoing::Check`].
    Checked(Result<Vec<bool>, Refusal>),
    /// To [`Outgoing::Purge`].
    Purged(Result<Purged, Refusal>),
}

/// Why a message has no answer. Whether it was handled makes no difference here: all of them may be asked
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The deadline has passed, or the answer was lost.
    Silent,
    /// A bound was reached.
    Busy,
    /// There is no connection.
    Unreachable,
    /// The receiver won't have it.
    Refused,
}

/// What a purger wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// List the tombstones of a partition, and bring them back as [`Input::Listed`], once.
    List {
        /// Its name.
        number: ListNumber,
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// Those after this key.
        after: Option<DataKey>,
        /// At most so many.
        limit: usize,
    },
    /// Send a message; bring the answer, or the failure, back as [`Input::Answered`], once.
    Send {
        /// Its name.
        call: CallNumber,
        /// The node.
        to: NodeId,
        /// The message.
        message: Outgoing,
        /// When its answer is of no use any more.
        deadline: Moment,
    },
}

/// What happens to a purger.
#[derive(Clone, Debug)]
pub enum Input {
    /// The store has listed tombstones, or failed.
    Listed {
        /// The listing's name.
        number: ListNumber,
        /// The tombstones, in the order of hash and key.
        result: Result<Vec<Tombstone>, String>,
    },
    /// A message has its answer, or never will.
    Answered {
        /// Its name.
        call: CallNumber,
        /// The answer.
        outcome: Result<Incoming, CallFailure>,
    },
    /// The moment of [`super::Purger::next_wake`] may have come.
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
    /// Whether this node is in quarantine: then it purges nothing.
    Quarantined(bool),
}
