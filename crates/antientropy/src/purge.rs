//! Forgetting what was deleted, once nothing can bring it back.
//!
//! [`Purger`] is the behaviour, one per node, [`PurgeActor`] gives it a mailbox, the store and connections.
//! A page of a partition's tombstones, a batch, goes through this:
//!
//! ```text
//!   list      the tombstones that are older than the keyspace's grace
//!   t0        every replica, in every datacenter, says that it holds exactly these tombstones, or nothing
//!             … settle …
//!   t1        every member says that it keeps nothing of the key for others, and delivers nothing
//!             … settle …
//!   t2        every replica says the same as at t0, or nothing
//!   purge     every other replica forgets the key, at last this one
//! ```
//!
//! all under one epoch, else from the beginning. t0 and t1 are the moments of the **last** answer. Why no
//! victim, a version that the tombstones T cover or outrank, is left anywhere at t2:
//!
//! - *Carriers.* Who has read or issued a version passes it on for a bounded time only: a request ends a
//!   minute after it began and its writes linger for two seconds, an exchange between replicas and a
//!   delivery send what they have just read with deadlines of seconds. `settle` is longer than the longest.
//!   What fills a new owner while the ring changes is such an exchange, key by key: it reads what an old owner
//!   holds, stores that at once, both with deadlines of seconds, and reads anew before it tries again. So a new
//!   owner, which is a replica here, may confirm that it holds nothing while a victim is on its way to it.
//! - *Replicas.* From t0 on no replica holds a victim at any moment. One that held T both times held it
//!   throughout, and a vnode that holds T takes no victim in. One that held nothing both times held
//!   nothing throughout: what is stored goes only by a purge, which has a proof of its own. From T to
//!   nothing is such a purge. From nothing to T is the one that proves nothing: a victim may have come
//!   in between, and was read, before T covered it. Then the key begins again.
//! - *Hints.* Only writes make hints, so carriers that may make one began before t0 and are gone when t1
//!   begins. From then on a member that keeps nothing keeps nothing for good. What was read from a hint
//!   just before has a carrier for another `settle` at most, and at t2 that is over too.
//!
//! From t2 on the victims are extinct, so it doesn't matter when a purge arrives, or whether all do: if this
//! node dies in between, some replicas have forgotten and others hold T, which is harmless. This node's own
//! tombstone goes last, so that it finds the key again; should it be gone for ever, the other replicas run
//! as well, for tombstones of more than grace and a patience. A copy of T that comes back by a repair which
//! had read it before is found like any other. A replica that holds something newer keeps it. Age is no
//! part of the proof: a wrong clock makes a purge begin early or late, and no more.
//!
//! A client that sends a deleted write once more, after the grace, makes a new write, not a victim.

mod actor;
mod batch;
mod config;
mod events;
mod figures;
mod machine;
mod rounds;

#[cfg(test)]
mod tests;

pub use actor::{
    ClusterChanged, PurgeActor, PurgeParts, PurgeRefs, PurgeReport, Quarantine,
    ReachabilityChanged, Report, Stop,
};
pub use config::PurgeConfig;
pub use events::{CallFailure, CallNumber, Effect, Incoming, Input, ListNumber, Outgoing};
pub use figures::{PurgeFigures, WaitReason};
pub use machine::Purger;
