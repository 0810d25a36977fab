//! Version vectors: for each actor, that all its dots up to a count are in the set.

use serde::{Deserialize, Deserializer, Serialize};

use super::dot::{ActorId, Dot};

/// A set of dots without gaps: for each actor, every dot from 1 to its count.
///
/// Kept sorted by actor, without zero counts, so that equal sets are equal values and equal bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct VersionVector(Vec<(ActorId, u64)>);

impl VersionVector {
    /// The count of an actor, 0 if it isn't there.
    pub fn count(&self, actor: ActorId) -> u64 {
        match self.find(actor) {
            Ok(at) => self.0[at].1,
            Err(_) => 0,
        }
    }

    /// Whether the dot is in the set.
    pub fn covers(&self, dot: Dot) -> bool {
        dot.counter <= self.count(dot.actor)
    }

    /// Adds all dots of the actor up to `count`.
    pub fn raise(&mut self, actor: ActorId, count: u64) {
        if count == 0 {
            return;
        }
        match self.find(actor) {
            Ok(at) => self.0[at].1 = self.0[at].1.max(count),
            Err(at) => self.0.insert(at, (actor, count)),
        }
    }

    /// Adds everything in the other set.
    pub fn merge(&mut self, other: &VersionVector) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for &(actor, count) in &other.0 {
            self.raise(actor, count);
        }
    }

    /// Actors and their counts, in the order of actors.
    pub fn iter(&self) -> impl Iterator<Item = (ActorId, u64)> + '_ {
        self.0.iter().copied()
    }

    /// How many actors there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, actor: ActorId) -> Result<usize, usize> {
        self.0.binary_search_by_key(&actor, |entry| entry.0)
    }
}

impl<'de> Deserialize<'de> for VersionVector {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let entries = Vec::<(ActorId, u64)>::deserialize(from)?;
        let sorted = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !sorted || entries.iter().any(|entry| entry.1 == 0) {
            return Err(serde::de::Error::custom("a version vector out of order"));
        }
        Ok(Self(entries))
    }
}
