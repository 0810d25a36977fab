//! What [`ActorRef::call`](crate::ActorRef::call) returns: the reply to come.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::Sleep;

use crate::{CallError, slot::Slot};

/// The reply to come. The message is sent when the call is made, not when this is first polled; dropping
/// it cancels the interest in the reply, not the call.
#[must_use = "nobody else hears of the outcome"]
pub struct CallFuture<R> {
    inner: Inner<R>,
}

enum Inner<R> {
    /// Known at once.
    Known(Option<CallError>),
    /// Someone else watches the deadline.
    Watched(Arc<Slot<R>>),
    /// The future watches the deadline itself, from when it first has to wait.
    Timed { slot: Arc<Slot<R>>, deadline: Instant, timer: Option<Pin<Box<Sleep>>> },
}

impl<R> CallFuture<R> {
    pub(crate) fn failed(error: CallError) -> Self {
        Self { inner: Inner::Known(Some(error)) }
    }

    pub(crate) fn watched(slot: Arc<Slot<R>>) -> Self {
        Self { inner: Inner::Watched(slot) }
    }

    pub(crate) fn timed(slot: Arc<Slot<R>>, deadline: Instant) -> Self {
        Self { inner: Inner::Timed { slot, deadline, timer: None } }
    }
}

impl<R> Future for CallFuture<R> {
    type Output = Result<R, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.inner {
            Inner::Known(error) => Poll::Ready(Err(error.take().unwrap_or(CallError::Closed))),
            Inner::Watched(slot) => slot.poll(context),
            Inner::Timed { slot, deadline, timer } => {
                if let Poll::Ready(outcome) = slot.poll(context) {
                    return Poll::Ready(outcome);
                }
                let timer = timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until((*deadline).into())));
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                slot.leave();
                Poll::Ready(Err(CallError::Timeout))
            }
        }
    }
}

impl<R> Drop for CallFuture<R> {
    fn drop(&mut self) {
        match &self.inner {
            Inner::Known(_) => {}
            Inner::Watched(slot) | Inner::Timed { slot, .. } => slot.leave(),
        }
    }
}

impl<R> fmt::Debug for CallFuture<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallFuture")
    }
}
