//! Agreement on the next cluster state: Paxos with one decree an epoch (Lamport, 1998).
//!
//! An [`acceptor`] votes, a [`proposer`] runs one ballot. Both are pure: they know no network, no clock
//! and no disk; what they return is sent once what they remember is durable. The invariant is that at
//! most one decree is ever chosen in an epoch.

pub(crate) mod acceptor;
pub(crate) mod proposer;
#[cfg(test)]
mod tests;
