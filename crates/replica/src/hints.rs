//! Hints: what this node keeps for replicas that can't be reached, until they can (hinted handoff,
//! DeCandia et al., 2007).
//!
//! [`HintStore`] is the behaviour; [`HintStoreActor`] gives it a mailbox, a shelf and the other nodes.

mod actor;
mod answering;
pub mod conformance;
mod delivering;
mod destination;
mod events;
mod expiring;
mod gathering;
mod granting;
mod keeping;
mod machine;
mod memory;
mod minting;
mod open;
mod owner;
mod peers;
pub mod store;
#[cfg(test)]
mod tests;

pub use crate::coordinator::CallFailure;
pub use actor::{
    ClusterChanged, DescribeHints, Freeze, Frozen, HintStoreActor, HintStoreParts, PressureChanged,
    ReachabilityChanged, Stop, Thaw,
};
pub use events::{
    CallNumber, CommitNumber, CommitOutcome, Effect, HintFigures, Incoming, Input, Outgoing,
    OwnerFigures, PageNumber, Pressure, Reply, Request, Token,
};
pub use machine::{HintStore, HintStoreConfig};
pub use memory::MemoryShelf;
pub use peers::HintPeers;
