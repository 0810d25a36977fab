//! Finding and mending what differs between replicas, by Merkle trees; and forgetting what was deleted,
//! once every replica has confirmed it.
//!
//! [`AntiEntropy`] is a pure state machine in a thin actor shell. It compares the roots of trees with
//! every node that shares some, walks down those that differ, and has vnodes join what they lack.

pub mod actor;
mod answering;
mod budget;
mod calls;
mod chase;
mod clock;
mod desk;
mod events;
mod exchange;
mod figures;
mod handover;
mod looking;
mod machine;
pub mod purge;
pub mod quarantine;
mod rounds;
mod schedule;
mod scrub;
pub mod store;
mod sweep;
mod units;
mod witnesses;

pub use actor::{MerkleActor, MerkleParts};
pub use desk::AntiEntropyConfig;
pub use events::{
    CallFailure, Effect, Incoming, Input, Outgoing, Question, Reply, Report, Ticket, Token,
};
pub use figures::{Awaited, Figures, HandoverFigures, Obstacle};
pub use looking::{Look, Looked, Seen, look};
pub use machine::AntiEntropy;
pub use rounds::Progress;
pub use schedule::Pair;
