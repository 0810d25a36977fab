//! Calls into the mailbox of a neighbour actor: the only file here that knows actix.

use std::sync::Arc;

use actix::prelude::{Recipient, SendError};
use anello_protocol::message::Message;

use crate::{Call, CallError};

impl<M: Message> actix::Message for Call<M> {
    type Result = ();
}

/// A neighbour's mailbox.
///
/// Every clone of an actix recipient has a place of its own in the mailbox beyond its capacity, so clones
/// of this share one.
pub(crate) struct Mailbox<M: Message>(Arc<Recipient<Call<M>>>);

impl<M: Message> Mailbox<M> {
    pub(crate) fn new(recipient: Recipient<Call<M>>) -> Self {
        Self(Arc::new(recipient))
    }

    pub(crate) fn deliver(&self, call: Call<M>) -> Result<(), CallError> {
        let (call, error) = match self.0.try_send(call) {
            Ok(()) => return Ok(()),
            Err(SendError::Full(call)) => (call, CallError::Busy),
            Err(SendError::Closed(call)) => (call, CallError::Closed),
        };
        call.reply.fail(error.clone());
        Err(error)
    }
}

impl<M: Message> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
