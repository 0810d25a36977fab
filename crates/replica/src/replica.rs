//! One vnode: a partition that this node holds.
//!
//! [`Replica`] is the behaviour; [`ReplicaActor`] gives it a mailbox and a store.

mod actor;
mod events;
mod issuer;
mod key;
mod machine;
mod mint;
mod standing;
#[cfg(test)]
mod tests;

pub use actor::{
    ClusterChanged, CountWaiting, Freeze, Frozen, Quarantine, ReplicaActor, ReplicaParts, Stop,
    Thaw,
};
pub use events::{CommitNumber, CommitOutcome, Effect, Input, Reply, Request, Token};
pub(crate) use issuer::Issuer;
pub(crate) use key::join;
pub(crate) use machine::refusal_of;
pub use machine::{Replica, ReplicaConfig};
pub(crate) use mint::{Follows, Mint, context_of_known, mint};
