//! A router on this node behind real encoding and decoding: as over a wire, but without one.

use std::sync::{Arc, Mutex, PoisonError};

use anello_protocol::{codec::MAX_MESSAGE_BYTES, message::Message};
use bytes::BytesMut;

use crate::{
    CallContext, CallError, CallFuture, Caller, Router,
    frame::{self, Frame},
    inbound::{InboundCall, ReplySink},
    slot::{Complete, Slot},
};

/// The way to a router on this node.
#[derive(Clone)]
pub(crate) struct Loopback {
    router: Router,
    caller: Caller,
}

impl Loopback {
    pub(crate) fn new(router: Router, caller: Caller) -> Self {
        Self { router, caller }
    }

    pub(crate) fn call<M: Message>(
        &self,
        message: &M,
        context: CallContext,
    ) -> CallFuture<M::Reply> {
        let slot = Arc::new(Slot::new());
        let deadline = context.deadline;
        self.send(message, context, slot.clone());
        CallFuture::timed(slot, deadline)
    }

    pub(crate) fn send<M: Message>(
        &self,
        message: &M,
        context: CallContext,
        outcome: Arc<dyn Complete>,
    ) {
        let mut sent = BytesMut::new();
        frame::write_request(&mut sent, 0, message, &context);
        if sent.len() > MAX_MESSAGE_BYTES {
            return outcome.fail(too_large(sent.len()));
        }
        let Ok(Frame::Request { id, request }) = frame::read(&sent[frame::LENGTH_BYTES..]) else {
            unreachable!("a frame that was written can be read");
        };
        let sink = Arc::new(LoopbackSink { outcome: Mutex::new(Some(outcome)) });
        self.router.dispatch(&request, self.caller.clone(), InboundCall::new(sink, id, 0));
    }
}

/// A message or reply that no wire takes.
pub(crate) fn too_large(bytes: usize) -> CallError {
    CallError::Refused(format!("{bytes} bytes are more than a message may have"))
}

/// Decodes what comes back, for one call.
struct LoopbackSink {
    outcome: Mutex<Option<Arc<dyn Complete>>>,
}

impl LoopbackSink {
    fn receive(&self, frame: &BytesMut) {
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(outcome) = outcome else { return };
        match frame::read(&frame[frame::LENGTH_BYTES..]) {
            Ok(Frame::Reply { body, .. }) => outcome.reply(body),
            Ok(Frame::Failure { error, .. }) => outcome.fail(error),
            Ok(Frame::Request { .. }) | Err(_) => outcome.fail(CallError::Closed),
        }
    }
}

impl ReplySink for LoopbackSink {
    fn reply(&self, id: u64, encode: &dyn Fn(&mut BytesMut)) {
        let mut sent = BytesMut::new();
        frame::write_reply(&mut sent, id, encode);
        self.receive(&sent);
    }

    fn fail(&self, id: u64, error: &CallError) {
        let mut sent = BytesMut::new();
        frame::write_failure(&mut sent, id, error);
        self.receive(&sent);
    }

    fn release(&self, _cost: usize) {}
}
