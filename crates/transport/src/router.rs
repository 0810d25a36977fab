//! What a node answers: which actor is behind each message's tag.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Instant};

use anello_protocol::{codec, message::Message};

use crate::{
    ActorRef, Call, CallContext, CallError, Caller, ReplyTo, frame::Request, inbound::InboundCall,
};

/// The actors of one thread, by the messages that they answer. Cheap to clone.
///
/// A message that no actor answers is refused, one that clients may not send
/// ([`Message::FOR_CLIENTS`]) is refused for clients, and so is what can't be decoded.
#[derive(Clone)]
pub struct Router {
    doors: Arc<BTreeMap<u16, Box<dyn Door>>>,
}

/// Collects what a [`Router`] is to answer.
#[derive(Default)]
pub struct RouterBuilder {
    doors: BTreeMap<u16, Box<dyn Door>>,
}

impl Router {
    /// Begins with a router that refuses everything.
    pub fn builder() -> RouterBuilder {
        RouterBuilder::default()
    }

    /// Decodes a request and hands it to its actor; whatever happens, the call gets its answer.
    pub(crate) fn dispatch(&self, request: &Request<'_>, caller: Caller, call: Arc<InboundCall>) {
        let outcome = match self.doors.get(&request.tag) {
            None => Err(CallError::Refused(format!("unknown message {}", request.tag))),
            Some(door) if matches!(caller, Caller::Client(_)) && !door.for_clients() => {
                Err(CallError::Refused(format!("message {} is not for clients", request.tag)))
            }
            Some(door) => door.pass(request, caller, &call),
        };
        call.delivered(outcome);
    }
}

impl RouterBuilder {
    /// Has an actor answer a message.
    ///
    /// # Panics
    ///
    /// If the message has an actor already: a mistake in the wiring.
    pub fn serve<M: Message>(mut self, actor: ActorRef<M>) -> Self {
        let before = self.doors.insert(M::TAG, Box::new(actor));
        assert!(before.is_none(), "two actors for message {}", M::TAG);
        self
    }

    /// The router.
    pub fn build(self) -> Router {
        Router { doors: Arc::new(self.doors) }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.doors.keys()).finish()
    }
}

impl fmt::Debug for RouterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.doors.keys()).finish()
    }
}

/// An actor behind a tag.
trait Door: Send + Sync {
    fn for_clients(&self) -> bool;
    fn pass(
        &self,
        request: &Request<'_>,
        caller: Caller,
        call: &Arc<InboundCall>,
    ) -> Result<(), CallError>;
}

impl<M: Message> Door for ActorRef<M> {
    fn for_clients(&self) -> bool {
        M::FOR_CLIENTS
    }

    fn pass(
        &self,
        request: &Request<'_>,
        caller: Caller,
        call: &Arc<InboundCall>,
    ) -> Result<(), CallError> {
        let message: M = codec::decode(request.body)
            .map_err(|error| CallError::Refused(format!("message {}: {error}", M::TAG)))?;
        // The caller's deadline on this node's clock: the time that was left, from its arrival.
        let context =
            CallContext { deadline: Instant::now() + request.time, trace: request.trace.clone() };
        self.deliver(Call {
            message,
            context,
            caller,
            since: Instant::now(),
            reply: ReplyTo::wire(call.clone()),
        })
    }
}
