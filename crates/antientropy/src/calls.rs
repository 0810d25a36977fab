//! What the shell waits for, calls and looks at the store, as one stream of inputs.
//!
//! They are polled where the actor is. Shared between the actor, which adds them, and its stream, which
//! takes their outcomes out.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use anello_transport::{CallError, CallFuture};
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};

use crate::{
    events::{CallFailure, Incoming, Input, Ticket},
    looking::{Look, Looked, look},
    store::TreeStore,
};

/// See the head of this file. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Calls(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    pending: FuturesUnordered<Pin<Box<dyn Future<Output = Input>>>>,
    waker: Option<Waker>,
}

impl Calls {
    /// Waits for one more call.
    pub(crate) fn call<R: 'static>(
        &self,
        ticket: Ticket,
        future: CallFuture<R>,
        wrap: fn(R) -> Incoming,
    ) {
        self.add(async move {
            let outcome = future.await.map(wrap).map_err(failure);
            Input::Answered { ticket, outcome }
        });
    }

    /// Looks at the store where waiting for a disk holds nobody up.
    pub(crate) fn look(&self, ticket: Ticket, store: Arc<dyn TreeStore>, what: Look) {
        let looking = tokio::task::spawn_blocking(move || look(&*store, what));
        self.add(async move {
            // It fails only if the look panicked, or the runtime ends.
            let looked = looking.await.unwrap_or_else(|error| Looked::Failed(error.to_string()));
            Input::Looked(ticket, looked)
        });
    }

    fn add(&self, future: impl Future<Output = Input> + 'static) {
        let mut inner = self.0.borrow_mut();
        inner.pending.push(Box::pin(future));
        // The stream may have been polled before this one was there.
        if let Some(waker) = inner.waker.take() {
            waker.wake();
        }
    }
}

impl Stream for Calls {
    type Item = Input;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Input>> {
        let mut inner = self.0.borrow_mut();
        match inner.pending.poll_next_unpin(context) {
            Poll::Ready(Some(input)) => Poll::Ready(Some(input)),
            // None at the moment; there will be more as long as the actor lives.
            Poll::Ready(None) | Poll::Pending => {
                inner.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

fn failure(error: CallError) -> CallFailure {
    match error {
        CallError::Timeout | CallError::Busy | CallError::Closed => CallFailure::Passing,
        CallError::Unreachable => CallFailure::Unreachable,
        CallError::Refused(reason) => {
            tracing::warn!(%reason, "a node refused a message");
            CallFailure::Refused
        }
    }
}
