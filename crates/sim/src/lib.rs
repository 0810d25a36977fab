//! A whole fleet in one thread, on one virtual clock, from one seed.
//!
//! The machines are the real ones: every node runs its [`anello_gossip::Membership`], its
//! [`anello_replica::coordinator::Coordinator`] and a [`anello_replica::replica::Replica`] for every
//! vnode. What is simulated is what lies around them: disks, links, clocks, crashes and clients. A
//! [`model::Model`] watches from outside and says which promise was broken. See `docs/simulation.md`.

pub mod client;
pub mod disk;
pub mod faults;
pub mod fleet;
pub mod history;
pub mod model;
pub mod network;
pub mod node;
pub mod rng;
pub mod run;
pub mod scale;
pub mod schedule;
pub mod wire;
