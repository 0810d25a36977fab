//! Carrying out clients' requests: who holds the key is asked, answers are counted, the client is told.
//!
//! [`Coordinator`] is the behaviour, [`CoordinatorActor`] gives it a mailbox and connections. Requests
//! in flight live in it by number; each kind is a file of its own, by the phases of the protocol:
//!
//! ```text
//! Get      get.rs     a quorum read (read.rs), then the answer
//! Write    write.rs   forwarding to a replica (forward.rs), or: a quorum read for a blind delete,
//!                     minting at the own vnode (minting.rs), storing at all (replicate.rs)
//! Relay    relay.rs   storing here and at the neighbours for a coordinator in another datacenter
//! ```

mod actor;
mod calls;
mod desk;
mod events;
mod forward;
mod get;
mod hedging;
mod machine;
mod minting;
mod peers;
mod read;
mod receipt;
mod relay;
mod replicate;
mod site;
mod stand_ins;
mod write;

#[cfg(test)]
mod tests;

pub use actor::{
    ClusterChanged, CoordinatorActor, CoordinatorParts, CountInFlight, NodeRefs, OwnHints,
    ReachabilityChanged, Stop, Vnodes,
};
pub(crate) use calls::failure;
pub use desk::CoordinatorConfig;
pub use events::{CallFailure, CallNumber, Effect, Incoming, Input, Outgoing, Reply, Token};
pub use machine::Coordinator;
