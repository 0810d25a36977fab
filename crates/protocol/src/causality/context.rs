//! Contexts: exact sets of dots, gaps and all.

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    dot::{ActorId, Dot},
    version_vector::VersionVector,
};

/// An exact set of dots: a version vector, and the dots beyond it.
///
/// Always in its one normal form: a dot that continues the vector is part of the vector, so equal
/// sets are equal values. It is what a reader has seen, or a writer had seen: a write replaces the
/// versions in it, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Context {
    vector: VersionVector,
    /// Sorted; none is covered by the vector, none continues it.
    beyond: Vec<Dot>,
}

impl Context {
    /// The empty set: of one who has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was seen.
    pub fn is_empty(&self) -> bool {
        self.vector.is_empty() && self.beyond.is_empty()
    }

    /// Whether the dot is in the set.
    pub fn covers(&self, dot: Dot) -> bool {
        self.vector.covers(dot) || self.beyond.binary_search(&dot).is_ok()
    }

    /// Adds one dot, and nothing more.
    pub fn insert(&mut self, dot: Dot) {
        if dot.counter == 0 || self.vector.covers(dot) {
            return;
        }
        if let Err(at) = self.beyond.binary_search(&dot) {
            self.beyond.insert(at, dot);
            self.compact();
        }
    }

    /// Adds everything in the other set.
    pub fn merge(&mut self, other: &Context) {
        self.vector.merge(&other.vector);
        for &dot in &other.beyond {
            if let Err(at) = self.beyond.binary_search(&dot) {
                self.beyond.insert(at, dot);
            }
        }
        self.compact();
    }

    /// The highest count of an actor in the set, 0 if there is none.
    pub fn highest(&self, actor: ActorId) -> u64 {
        let beyond = self.beyond.iter().filter(|dot| dot.actor == actor).map(|dot| dot.counter);
        beyond.max().unwrap_or(0).max(self.vector.count(actor))
    }

    /// Every actor with a dot in the set.
    pub fn actors(&self) -> impl Iterator<Item = ActorId> + '_ {
        let vector = self.vector.iter().map(|(actor, _)| actor);
        vector.chain(self.beyond.iter().map(|dot| dot.actor))
    }

    /// The part without gaps.
    pub fn vector(&self) -> &VersionVector {
        &self.vector
    }

    /// The dots beyond the vector, sorted.
    pub fn beyond(&self) -> &[Dot] {
        &self.beyond
    }

    /// Moves into the vector what continues it, and drops what it covers.
    fn compact(&mut self) {
        let vector = &mut self.vector;
        self.beyond.retain(|dot| {
            let count = vector.count(dot.actor);
            // Sorted by actor and counter, so one pass sees each run from its beginning.
            if count.checked_add(1) == Some(dot.counter) {
                vector.raise(dot.actor, dot.counter);
            }
            dot.counter > vector.count(dot.actor)
        });
    }
}

impl FromIterator<Dot> for Context {
    fn from_iter<T: IntoIterator<Item = Dot>>(dots: T) -> Self {
        let mut context = Context::new();
        for dot in dots {
            context.insert(dot);
        }
        context
    }
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            vector: VersionVector,
            beyond: Vec<Dot>,
        }
        let raw = Raw::deserialize(from)?;
        let sorted = raw.beyond.windows(2).all(|pair| pair[0] < pair[1]);
        // `count + 1` would continue the vector and belong in it.
        let apart = raw.beyond.iter().all(|dot| {
            dot.counter.checked_sub(1).is_some_and(|before| before > raw.vector.count(dot.actor))
        });
        if !sorted || !apart {
            return Err(serde::de::Error::custom("a context out of its normal form"));
        }
        Ok(Self { vector: raw.vector, beyond: raw.beyond })
    }
}
