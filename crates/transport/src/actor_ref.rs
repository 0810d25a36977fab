//! The address of whatever answers a message: an actor's mailbox, a function that passes it on, a router
//! behind real encoding, or another node.

use std::{fmt, sync::Arc, time::Instant};

use anello_protocol::{id::NodeId, message::Message};

#[cfg(feature = "local")]
use crate::local::Mailbox;
use crate::{
    Call, CallContext, CallError, CallFuture, Caller, Peers, ReplyTo, Router, forward::Forward,
    loopback::Loopback, peers::PeerRef, slot::Slot,
};

/// Where to send a message. Cheap to clone; usable from every thread.
///
/// ```
/// use std::time::Duration;
/// use anello_protocol::message::admin::{DescribeNode, NodeStatus};
/// use anello_transport::{ActorRef, CallContext, CallError};
///
/// # async fn ask(node: ActorRef<DescribeNode>) -> Result<NodeStatus, CallError> {
/// node.call(DescribeNode {}, CallContext::within(Duration::from_secs(1))).await
/// # }
/// ```
pub struct ActorRef<M: Message> {
    route: Route<M>,
}

type Function<M> = dyn Fn(Call<M>) -> Result<(), CallError> + Send + Sync;

enum Route<M: Message> {
    #[cfg(feature = "local")]
    Mailbox(Mailbox<M>),
    Function(Arc<Function<M>>),
    Loopback(Loopback),
    Peer(PeerRef),
}

impl<M: Message> ActorRef<M> {
    /// A neighbour actor's mailbox. The message moves, nothing is encoded. A full mailbox is
    /// [`CallError::Busy`], one whose actor has stopped is [`CallError::Closed`].
    ///
    /// Clones of the reference share one place in the mailbox's queue, so its bound holds.
    #[cfg(feature = "local")]
    pub fn mailbox(recipient: actix::Recipient<Call<M>>) -> Self {
        Self { route: Route::Mailbox(Mailbox::new(recipient)) }
    }

    /// A function that takes the call, or passes it on: by its key's partition, say.
    ///
    /// It must not block. An `Err` is the caller's answer, even if the call was dropped on the way; a
    /// dropped call without one is [`CallError::Closed`].
    pub fn function(
        function: impl Fn(Call<M>) -> Result<(), CallError> + Send + Sync + 'static,
    ) -> Self {
        Self { route: Route::Function(Arc::new(function)) }
    }

    /// A router on this node, reached as over a wire: message and reply are encoded and decoded.
    pub fn loopback(router: Router) -> Self {
        Self::loopback_as(router, Caller::Local)
    }

    /// As [`ActorRef::loopback`], with calls that look as if they came from someone else.
    pub fn loopback_as(router: Router, caller: Caller) -> Self {
        Self { route: Route::Loopback(Loopback::new(router, caller)) }
    }

    /// Another node, over a connection that belongs to `peers`. The node's address may become known
    /// later ([`Peers::know`]); until then every call is [`CallError::Unreachable`].
    pub fn peer(peers: &Peers, node: NodeId) -> Self {
        Self { route: Route::Peer(peers.refer(&node)) }
    }

    /// Sends a message; the reply is the future's outcome.
    ///
    /// The message is on its way when this returns, whether the future is polled or not.
    pub fn call(&self, message: M, context: CallContext) -> CallFuture<M::Reply> {
        match &self.route {
            Route::Peer(peer) => return peer.call(&message, &context),
            Route::Loopback(loopback) => return loopback.call(&message, context),
            #[cfg(feature = "local")]
            Route::Mailbox(_) => {}
            Route::Function(_) => {}
        }
        let deadline = context.deadline;
        let slot = Arc::new(Slot::new());
        let reply = ReplyTo::slot(slot.clone());
        let (caller, since) = (Caller::Local, Instant::now());
        match self.deliver(Call { message, context, caller, since, reply }) {
            Ok(()) => CallFuture::timed(slot, deadline),
            Err(error) => CallFuture::failed(error),
        }
    }

    /// Hands a call on as it is, with its caller and its way back.
    ///
    /// After an `Err` the caller has, or is about to get, that error: return it, and nothing else need
    /// be done.
    pub fn deliver(&self, call: Call<M>) -> Result<(), CallError> {
        match &self.route {
            #[cfg(feature = "local")]
            Route::Mailbox(mailbox) => mailbox.deliver(call),
            Route::Function(function) => function(call),
            Route::Loopback(loopback) => {
                let forward = Forward::new(call.reply);
                loopback.send(&call.message, call.context, forward);
                Ok(())
            }
            Route::Peer(peer) => peer.send(&call.message, &call.context, Forward::new(call.reply)),
        }
    }
}

impl<M: Message> Clone for ActorRef<M> {
    fn clone(&self) -> Self {
        let route = match &self.route {
            #[cfg(feature = "local")]
            Route::Mailbox(mailbox) => Route::Mailbox(mailbox.clone()),
            Route::Function(function) => Route::Function(function.clone()),
            Route::Loopback(loopback) => Route::Loopback(loopback.clone()),
            Route::Peer(peer) => Route::Peer(peer.clone()),
        };
        Self { route }
    }
}

impl<M: Message> fmt::Debug for ActorRef<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = match &self.route {
            #[cfg(feature = "local")]
            Route::Mailbox(_) => "mailbox",
            Route::Function(_) => "function",
            Route::Loopback(_) => "loopback",
            Route::Peer(peer) => return write!(f, "ActorRef({})", peer.node()),
        };
        write!(f, "ActorRef({route})")
    }
}
