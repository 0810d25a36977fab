//! Who is in the cluster, who answers, and how the members agree on it.
//!
//! [`Membership`] is the machine: founding and joining, heartbeats by digest and delta, phi-accrual failure
//! detection, and agreement on numbered cluster states. It is told the time and what was heard, and
//! says what to send, to save and to tell the rest of the node. [`GossipActor`] runs it in a node.
//!
//! Ownership is agreed, liveness is gossiped: the detector's verdicts never change who owns what.

mod actor;
mod admission;
mod agreement;
mod change;
mod config;
mod detector;
mod dice;
mod direct;
mod founding;
mod heartbeats;
pub mod membership;
mod outbox;
mod record;
mod ring_change;

pub use actor::{Condition, Depart, GossipActor, HandedOver, HintsLeft, HoldingDone, Holdings};
pub use config::{MembershipConfig, Timing};
pub use detector::DetectorConfig;
pub use membership::{
    Alteration, Effect, Input, Membership, MembershipEvent, Ticket, To, Unserviceable,
};
pub use record::{MembershipStore, MemoryMembershipStore, forget_votes};
