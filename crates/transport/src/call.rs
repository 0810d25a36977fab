//! What a call is: a message, what all calls carry with it, and how one can fail.

use std::time::{Duration, Instant};

use anello_protocol::{id::NodeId, message::Message};
use thiserror::Error;

use crate::{ReplyTo, TraceContext};

/// What every call carries beside its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallContext {
    /// When the caller stops waiting. Between nodes the time that is left travels, not the moment, so
    /// clocks need not agree.
    pub deadline: Instant,
    /// The trace that the call belongs to.
    pub trace: Option<TraceContext>,
}

impl CallContext {
    /// A call that may take this long from here on, and belongs to no trace.
    pub fn within(time: Duration) -> Self {
        Self::until(Instant::now() + time)
    }

    /// A call that may take until this moment, and belongs to no trace.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline, trace: None }
    }

    /// The same, as part of a trace.
    pub fn traced(self, trace: Option<TraceContext>) -> Self {
        Self { trace, ..self }
    }

    /// The time that is left; zero when there is none.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// A message on its way to the actor that answers it.
///
/// With the feature `local` it is the actix message: its result is `()`, because the answer goes through
/// [`Call::reply`], from wherever and whenever it is known.
#[derive(Debug)]
pub struct Call<M: Message> {
    /// What is asked.
    pub message: M,
    /// Until when, and in which trace.
    pub context: CallContext,
    /// Who asks.
    pub caller: Caller,
    /// When it came to this node, or was made on it: how long it has waited is seen from that.
    pub since: Instant,
    /// Where the answer goes.
    pub reply: ReplyTo<M::Reply>,
}

/// Who a call came from, as proved by its connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Something on this node.
    Local,
    /// Another node.
    Node(NodeId),
    /// A client, by the name that its certificate gives it.
    Client(String),
}

/// Why a call has no reply.
///
/// Each variant says whether the message may have been handled, which decides whether what it asks for
/// may be asked of another without being done twice.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallError {
    /// The deadline passed. The message may have been handled, or may yet be.
    #[error("no answer in time")]
    Timeout,
    /// A bound was reached: the mailbox, or the calls in flight to that peer, are full. The message was
    /// not handled; asking again later, or another, is safe.
    #[error("too much under way there")]
    Busy,
    /// The message was handed over, and then its handler dropped the reply, its actor stopped, or the
    /// connection was lost. It may have been handled.
    #[error("gone without an answer")]
    Closed,
    /// There is no connection to the peer. The message was not sent, so it was not handled.
    #[error("unreachable")]
    Unreachable,
    /// The receiver won't have it: it does not know the message, can't decode it, or the caller may not
    /// send it. The message was not handled, and asking again won't help.
    #[error("refused: {0}")]
    Refused(String),
}

impl CallError {
    /// Whether the message may have been handled all the same.
    pub fn may_have_been_handled(&self) -> bool {
        match self {
            CallError::Timeout | CallError::Closed => true,
            CallError::Busy | CallError::Unreachable | CallError::Refused(_) => false,
        }
    }
}
