//! What a coordinator is told and asked, what it answers, and what it wants done.

use std::sync::Arc;

use anello_protocol::{
    id::NodeId,
    message::{
        client::{Answer, Found, Get, Write, Written},
        hint::{MintHint, ReadHints, StoreHint},
        replica::{
            ForwardWrite, Held, MintVersion, Minted, ReadVersions, Refusal, RelayVersions,
            RelayedAck, StoreVersions, Stored,
        },
    },
    time::Moment,
};

use anello_ring::view::View;

/// The shell's name for a request that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// The name of a message that was sent, under which its answer comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNumber {
    /// The request in flight.
    pub request: u64,
    /// Which of its messages.
    pub attempt: u32,
}

/// A message to a vnode or to another coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Outgoing {
    /// To the key's vnode on that node.
    Read(ReadVersions),
    /// To the key's vnode on that node.
    Store(StoreVersions),
    /// To the key's vnode on this node.
    Mint(MintVersion),
    /// To the hint store of that node; it may be this one.
    Hint(StoreHint),
    /// To the hint store of that node; it may be this one.
    ReadHints(ReadHints),
    /// To the hint store of this node.
    MintHint(MintHint),
    /// To a coordinator of that node.
    Relay(RelayVersions),
    /// To a coordinator of that node.
    Forward(ForwardWrite),
}

/// What answers an [`Outgoing`].
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    /// To [`Outgoing::Read`] and [`Outgoing::ReadHints`].
    Read(Result<Held, Refusal>),
    /// To [`Outgoing::Store`], [`Outgoing::Relay`] and [`Outgoing::Hint`].
    Stored(Result<Stored, Refusal>),
    /// To [`Outgoing::Mint`] and [`Outgoing::MintHint`].
    Minted(Result<Minted, Refusal>),
    /// To [`Outgoing::Forward`].
    Forwarded(Result<Answer<Written>, Refusal>),
}

/// Why a message has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The deadline has passed; it may have been handled.
    Timeout,
    /// A bound was reached; it was not handled.
    Busy,
    /// The answer was lost, or never given; it may have been handled.
    Closed,
    /// There is no connection; it was not handled.
    Unreachable,
    /// The receiver won't have it; it was not handled.
    Refused,
}

impl CallFailure {
    /// Whether the message may have been handled all the same.
    pub fn may_have_been_handled(self) -> bool {
        matches!(self, CallFailure::Timeout | CallFailure::Closed)
    }
}

/// What a coordinator answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To a client's read.
    Get(Answer<Found>),
    /// To a client's write.
    Write(Answer<Written>),
    /// To a write that another coordinator handed over.
    Forward(Result<Answer<Written>, Refusal>),
    /// To a relayed write: what became of it at this node.
    Relay(Result<Stored, Refusal>),
}

/// What a coordinator wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a message; bring the answer, or the failure, back as [`Input::Answered`], once.
    Send {
        /// Its name.
        call: CallNumber,
        /// The node; it may be this one.
        to: NodeId,
        /// The message.
        message: Outgoing,
        /// When its answer is of no use any more.
        deadline: Moment,
        /// The request on whose behalf it is sent.
        cause: Token,
    },
    /// Send an acknowledgement whose own answer nobody waits for.
    Ack {
        /// The coordinator's node.
        to: NodeId,
        /// The acknowledgement.
        ack: RelayedAck,
    },
    /// Answer a request.
    Reply(Token, Reply),
}

/// What happens to a coordinator.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client reads.
    Get {
        /// Who gets the answer.
        token: Token,
        /// What.
        get: Get,
    },
    /// A client writes.
    Write {
        /// Who gets the answer.
        token: Token,
        /// What.
        write: Write,
    },
    /// Another coordinator hands a client's write over.
    Forward {
        /// Who gets the answer.
        token: Token,
        /// What.
        forward: ForwardWrite,
    },
    /// A coordinator of another datacenter asks to store here and to pass on.
    Relay {
        /// Who gets the answer.
        token: Token,
        /// What.
        relay: RelayVersions,
    },
    /// A relay tells of a replica behind it.
    Acked(RelayedAck),
    /// A message has its answer, or never will.
    Answered {
        /// Its name.
        call: CallNumber,
        /// The node that it was sent to.
        from: NodeId,
        /// The answer.
        outcome: Result<Incoming, CallFailure>,
    },
    /// The moment of [`super::Coordinator::next_wake`] may have come.
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
}
