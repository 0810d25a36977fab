//! A call that came over a wire, and the promise that it is answered exactly once: with its reply, with
//! the receiver's failure, or with [`CallError::Closed`] when its reply is dropped.
//!
//! While a call is being delivered, a dropped reply means nothing yet: the receiver may be about to
//! return a failure that says more. So the drop is remembered until the delivery is over.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use bytes::BytesMut;
use serde::Serialize;

use crate::{CallError, frame};

/// Writes answers to where a call came from.
pub(crate) trait ReplySink: Send + Sync {
    /// Writes a reply, whose body `encode` appends.
    fn reply(&self, id: u64, encode: &dyn Fn(&mut BytesMut));
    /// Writes a failure.
    fn fail(&self, id: u64, error: &CallError);
    /// A call is over, whichever way.
    fn release(&self, cost: usize);
}

const DELIVERING: u8 = 0;
const DROPPED_IN_DELIVERY: u8 = 1;
const DELIVERED: u8 = 2;
const ANSWERED: u8 = 3;

/// A call that came over a wire.
pub(crate) struct InboundCall {
    sink: Arc<dyn ReplySink>,
    id: u64,
    cost: usize,
    state: AtomicU8,
}

impl InboundCall {
    /// A call that is to be delivered; its cost is given back to the sink when it is over.
    pub(crate) fn new(sink: Arc<dyn ReplySink>, id: u64, cost: usize) -> Arc<Self> {
        Arc::new(Self { sink, id, cost, state: AtomicU8::new(DELIVERING) })
    }

    /// Answers.
    pub(crate) fn reply<R: Serialize>(&self, reply: &R) {
        if self.state.swap(ANSWERED, Ordering::AcqRel) != ANSWERED {
            self.sink.reply(self.id, &|out| frame::append(out, reply));
        }
    }

    /// Answers with a failure.
    pub(crate) fn fail(&self, error: &CallError) {
        if self.state.swap(ANSWERED, Ordering::AcqRel) != ANSWERED {
            self.sink.fail(self.id, error);
        }
    }

    /// The reply was dropped.
    pub(crate) fn abandon(&self) {
        let dropped = self.state.compare_exchange(
            DELIVERING,
            DROPPED_IN_DELIVERY,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if dropped.is_err() {
            self.fail(&CallError::Closed);
        }
    }

    /// The delivery is over.
    pub(crate) fn delivered(&self, outcome: Result<(), CallError>) {
        match outcome {
            Err(error) => self.fail(&error),
            Ok(()) => {
                let kept = self.state.compare_exchange(
                    DELIVERING,
                    DELIVERED,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                if kept == Err(DROPPED_IN_DELIVERY) {
                    self.fail(&CallError::Closed);
                }
            }
        }
    }
}

impl Drop for InboundCall {
    fn drop(&mut self) {
        self.sink.release(self.cost);
    }
}
