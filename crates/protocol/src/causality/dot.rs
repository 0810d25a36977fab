//! Dots: the names of single writes.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::id::Epoch;

/// One unbroken life of a vnode's memory, drawn at random.
///
/// A vnode that can't prove that it remembers every dot it has issued (a first start, a lost or
/// restored disk, a failed commit) draws another, so that no dot is ever issued twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(#[serde(with = "postcard::fixint::le")] pub u64);

impl Incarnation {
    /// The incarnation under which a vnode issues dots in a keyspace whose conflict rule dates from
    /// `ruled_since`.
    ///
    /// Last-write-wins forgets the dots that it drops. When a keyspace turns from that rule to
    /// keeping siblings, counting on from what is left could issue one of them again, so a change of
    /// the rule begins a new life for all that issue dots there.
    pub fn under(self, ruled_since: Epoch) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_le_bytes());
        bytes[8..].copy_from_slice(&ruled_since.0.to_le_bytes());
        Self(xxh3_64(&bytes))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who issues dots for a key: a vnode's incarnation, and the number that the vnode gave to this
/// birth of the key.
///
/// Counters run per key. A vnode that finds no trace of its own on a key (it is new, or its
/// tombstone was purged, or the disk lost it) takes a birth number that it has never used, so that
/// counting from one again can't repeat a dot that another replica or a client still holds. Under
/// last-write-wins, which forgets what it drops, every write is a birth of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActorId {
    /// The vnode's life.
    pub incarnation: Incarnation,
    /// Which birth of a key within it.
    pub birth: u64,
}

impl fmt::Debug for ActorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.incarnation, self.birth)
    }
}

/// The name of one write: the actor that issued it, and its count there, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who issued it.
    pub actor: ActorId,
    /// Its number among that actor's writes to the key, from 1 without gaps.
    pub counter: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}#{}", self.actor, self.counter)
    }
}
