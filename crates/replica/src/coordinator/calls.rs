//! The calls that a coordinator waits for, as one stream of their outcomes.
//!
//! They are polled where the actor is, so an outcome costs neither a task nor a place in the mailbox.
//! Shared between the actor, which adds calls, and its stream, which takes outcomes out.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use anello_protocol::id::NodeId;
use anello_transport::{CallError, CallFuture};
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};

use super::{CallFailure, CallNumber, Incoming};

/// A message's answer, or that it has none.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) call: CallNumber,
    pub(super) from: NodeId,
    pub(super) outcome: Result<Incoming, CallFailure>,
}

/// See the head of this file. Clones are the same.
#[derive(Clone, Default)]
pub(super) struct Calls(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Outcome>>>>,
    waker: Option<Waker>,
}

impl Calls {
    /// Waits for one more call.
    pub(super) fn add<R: 'static>(
        &self,
        call: CallNumber,
        from: NodeId,
        future: CallFuture<R>,
        wrap: fn(R) -> Incoming,
    ) {
        let mut inner = self.0.borrow_mut();
        inner.pending.push(Box::pin(async move {
            let outcome = future.await.map(wrap).map_err(failure);
            Outcome { call, from, outcome }
        }));
        // The stream may have been polled before this one was there.
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}

impl Stream for Calls {
    type Item = Outcome;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let mut inner = self.0.borrow_mut();
        match inner.pending.poll_next_unpin(context) {
            Poll::Ready(Some(outcome)) => Poll::Ready(Some(outcome)),
            // None at the moment; there will be more as long as the actor lives.
            Poll::Ready(None) | Poll::Pending => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// What a machine is told of a call that failed.
pub(crate) fn failure(error: CallError) -> CallFailure {
    match error {
        CallError::Timeout => CallFailure::Timeout,
        CallError::Busy => CallFailure::Busy,
        CallError::Closed => CallFailure::Closed,
        CallError::Unreachable => CallFailure::Unreachable,
        CallError::Refused(reason) => {
            tracing::warn!(%reason, "a node refused a message");
            CallFailure::Refused
        }
    }
}
