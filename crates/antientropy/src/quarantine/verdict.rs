//! What becomes of a key that only this replica holds.

use std::time::Duration;

use anello_protocol::time::HybridTime;

/// A key of which this replica holds something, and some other replica nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lone {
    /// Whether this node's store was put back from a copy, and the quarantine for it is still on.
    pub was_restored: bool,
    /// The latest time of the versions that are held.
    pub latest: HybridTime,
    /// The wall clock.
    pub wall_ms: u64,
    /// The keyspace's tombstone grace.
    pub grace: Duration,
    /// What the other replicas, in all datacenters, hold.
    pub others: Others,
}

/// What the other replicas hold of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Every one of them has answered, that it serves and holds nothing.
    AllNothing,
    /// None has said that it holds anything, but not all have answered.
    SomeUnknown,
    /// At least one holds something.
    Something,
}

/// What to do with such a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The others are to join it.
    Push,
    /// It was deleted, and forgotten: it goes.
    Drop,
    /// Neither is known to be right: it stays here, the others are not told, and the partition is not in step.
    Keep,
}

/// The verdict on a key. A replica that was merely away pushes: it holds no victim of a purge that it has not
/// confirmed. A store that was put back from a copy may: what it holds has no word in any purge since
/// the copy was made. But then the tombstone is later than its victim and was older than the grace when
/// it went, so what is younger than the grace is no victim; and what somebody else holds was not purged.
pub fn verdict(lone: &Lone) -> Verdict {
    let age = Duration::from_millis(lone.wall_ms.saturating_sub(lone.latest.wall_ms()));
    match lone.others {
        _ if !lone.was_restored || age < lone.grace => Verdict::Push,
        Others::Something => Verdict::Push,
        Others::AllNothing => Verdict::Drop,
        Others::SomeUnknown => Verdict::Keep,
    }
}
