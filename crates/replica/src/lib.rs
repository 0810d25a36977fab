//! Storing and coordinating: what a node does with keys.
//!
//! A [`Replica`](replica::Replica) is one vnode: it merges, issues dots, and keeps versions in a
//! [`Store`](store::Store). A [`Coordinator`](coordinator::Coordinator) carries out clients' requests:
//! it knows who holds a key, asks them, counts ([`tally`], [`joint`]) and answers. Both are pure state machines in
//! thin actor shells. So is a [`HintStore`](hints::HintStore): it keeps what replicas that can't be reached
//! are to join, until they can.

mod clock;
pub mod coordinator;
pub mod hints;
pub mod joint;
pub mod replica;
pub mod store;
pub mod tally;
