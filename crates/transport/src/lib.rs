//! One message to a neighbour actor or to another node: the holder of an [`ActorRef`] can't tell which.
//!
//! [`Call`] is what travels, [`ActorRef`] is where to, [`Router`] is what a node answers, [`Peers`] are
//! the connections that one thread has opened to other nodes, and [`Listener`] is the port at which
//! others open theirs. Between nodes it is QUIC under mutual TLS: [`Identity`] says who one is.
//!
//! The failures are the same on both sides, [`CallError`]. A call is handled at most once: it is never
//! sent again by itself. Not promised: the order of two calls.

mod actor_ref;
mod call;
mod call_future;
mod close;
mod config;
mod decoder;
mod dial;
mod forward;
mod frame;
mod hello;
mod identity;
mod inbound;
mod incoming;
mod link;
mod listener;
#[cfg(feature = "local")]
mod local;
mod loopback;
mod outgoing;
mod peer;
mod peers;
mod pending;
mod quic;
mod refusals;
mod reply;
mod router;
mod serving;
mod slot;
mod tls;
mod trace_context;
mod visits;

pub use actor_ref::ActorRef;
pub use call::{Call, CallContext, CallError, Caller};
pub use call_future::CallFuture;
pub use config::{LinkConfig, ListenerConfig, PeersConfig};
pub use frame::{REPLY_BYTES, REQUEST_BYTES};
pub use identity::{Identity, IdentityError, TlsFiles, TlsPem};
pub use listener::{Listener, Worker};
pub use peers::Peers;
pub use reply::ReplyTo;
pub use router::{Router, RouterBuilder};
pub use trace_context::{BadTraceContext, MAX_TRACESTATE_BYTES, TraceContext};
