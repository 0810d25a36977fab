//! The way back to a caller, wherever it is.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{CallError, inbound::InboundCall, slot::Slot};

/// Where a call's reply goes. It can be kept, and answered later from another task or thread; dropping it
/// unanswered tells the caller [`CallError::Closed`].
pub struct ReplyTo<R> {
    /// Taken when answered.
    path: Option<Path<R>>,
}

enum Path<R> {
    Slot(Arc<Slot<R>>),
    Wire(Arc<InboundCall>),
}

impl<R> ReplyTo<R> {
    pub(crate) fn slot(slot: Arc<Slot<R>>) -> Self {
        Self { path: Some(Path::Slot(slot)) }
    }

    pub(crate) fn wire(call: Arc<InboundCall>) -> Self {
        Self { path: Some(Path::Wire(call)) }
    }

    /// Answers. A caller that has gone meanwhile is none of the answerer's business.
    pub fn send(mut self, reply: R)
    where
        R: Serialize,
    {
        match self.path.take() {
            Some(Path::Slot(slot)) => slot.put(Ok(reply)),
            Some(Path::Wire(call)) => call.reply(&reply),
            None => {}
        }
    }

    /// Says that there will be no reply, and why. Mind what each [`CallError`] says about whether the
    /// message has been handled.
    pub fn fail(mut self, error: CallError) {
        match self.path.take() {
            Some(Path::Slot(slot)) => slot.put(Err(error)),
            Some(Path::Wire(call)) => call.fail(&error),
            None => {}
        }
    }
}

impl<R> Drop for ReplyTo<R> {
    fn drop(&mut self) {
        match self.path.take() {
            Some(Path::Slot(slot)) => slot.put(Err(CallError::Closed)),
            Some(Path::Wire(call)) => call.abandon(),
            None => {}
        }
    }
}

impl<R> fmt::Debug for ReplyTo<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplyTo")
    }
}
