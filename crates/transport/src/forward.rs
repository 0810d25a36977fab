//! The outcome of a call that was passed on, on its way to whoever made the call.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    CallError, ReplyTo,
    slot::{Complete, decode_reply},
};

/// Passes the outcome of one call on as another's.
pub(crate) struct Forward<R> {
    reply: Mutex<Option<ReplyTo<R>>>,
}

impl<R> Forward<R> {
    pub(crate) fn new(reply: ReplyTo<R>) -> Arc<Self> {
        Arc::new(Self { reply: Mutex::new(Some(reply)) })
    }

    fn take(&self) -> Option<ReplyTo<R>> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<R: Serialize + DeserializeOwned + Send> Complete for Forward<R> {
    fn reply(&self, body: &[u8]) {
        let Some(reply) = self.take() else { return };
        match decode_reply(body) {
            Ok(answer) => reply.send(answer),
            Err(error) => reply.fail(error),
        }
    }

    fn fail(&self, error: CallError) {
        if let Some(reply) = self.take() {
            reply.fail(error);
        }
    }
}
