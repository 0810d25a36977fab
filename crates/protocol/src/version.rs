//! Versions of a value, and the set of them that a key holds.
//!
//! Invariants of [`Versions`]: sorted by dot; under [`ConflictRule::Siblings`] none is in another's
//! past, under [`ConflictRule::Lww`] there is at most one. Merging is a join of sets: commutative,
//! associative, idempotent. A version never changes once its dot is issued.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

use crate::{
    causality::{ActorId, Context, Dot, Incarnation},
    time::HybridTime,
};

/// The largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// How many write ids of the versions it replaced a version remembers.
///
/// A retry that arrives after its write has been overwritten more often than this is taken for a
/// new write; it carries its old context, so the worst it makes is a sibling.
pub const MAX_ABSORBED: usize = 8;

/// A value past its bound.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a value is at most {MAX_VALUE_BYTES} bytes, this one has {0}")]
pub struct ValueTooLarge(pub usize);

/// Up to [`MAX_VALUE_BYTES`] opaque bytes.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Value(Bytes);

impl Value {
    /// Takes bytes within the bound.
    pub fn new(bytes: impl Into<Bytes>) -> Result<Self, ValueTooLarge> {
        let bytes = bytes.into();
        if bytes.len() > MAX_VALUE_BYTES {
            Err(ValueTooLarge(bytes.len()))
        } else {
            Ok(Self(bytes))
        }
    }

    /// The bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, taken.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=32 => write!(f, "Value({})", self.0.escape_ascii()),
            len => write!(f, "Value({len} bytes)"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::new(Bytes::deserialize(from)?).map_err(serde::de::Error::custom)
    }
}

/// Names a client's write, whichever attempt at it arrives: a retry carries the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WriteId(#[serde(with = "postcard::fixint::le")] pub u128);

impl WriteId {
    /// The id that a caller's own name for a write stands for: the same over HTTP
    /// (`Idempotency-Key`) and from the client library. Part of the wire contract: it never changes.
    pub fn of_idempotency_key(key: &str) -> Self {
        Self(xxh3_128(key.as_bytes()))
    }
}

impl fmt::Debug for WriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What a version says of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// It has this value.
    Value(Value),
    /// It was deleted.
    Tombstone,
}

/// One write to a key, as every replica keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Its name.
    pub dot: Dot,
    /// What its writer had seen: the versions that it replaces.
    pub past: Context,
    /// The client's name for the write.
    pub write_id: WriteId,
    /// When it was issued; decides in last-write-wins keyspaces, informs in others.
    pub time: HybridTime,
    /// When it ends by itself, in milliseconds since the Unix epoch, if ever.
    pub expires_ms: Option<u64>,
    /// The trace of the request that wrote it, if it was traced.
    pub trace_id: Option<[u8; 16]>,
    /// Write ids of versions that it replaced, the latest first, at most [`MAX_ABSORBED`].
    #[serde(deserialize_with = "bounded_absorbed")]
    pub absorbed: Vec<WriteId>,
    /// The value, or that there is none.
    pub content: Content,
}

fn bounded_absorbed<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<WriteId>, D::Error> {
    let ids = Vec::<WriteId>::deserialize(from)?;
    if ids.len() > MAX_ABSORBED {
        return Err(serde::de::Error::custom("too many absorbed write ids"));
    }
    Ok(ids)
}

impl Version {
    /// Whether it is a tombstone.
    pub fn is_tombstone(&self) -> bool {
        matches!(self.content, Content::Tombstone)
    }

    /// The total order of last-write-wins: by time, then by who issued it.
    fn rank(&self) -> (HybridTime, Dot) {
        (self.time, self.dot)
    }
}

/// What becomes of concurrent versions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConflictRule {
    /// All are kept, and the application merges them.
    #[default]
    Siblings,
    /// The latest by hybrid logical time stays, the others are lost.
    Lww,
}

/// A digest of the meaning of a set of versions: equal for replicas that hold the same writes,
/// whatever their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VersionsDigest(#[serde(with = "postcard::fixint::le")] pub u64);

/// The versions that a key holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Versions(Vec<Version>);

impl Versions {
    /// A key that nobody has written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nobody has written the key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether somebody has written the key, and all that is left are tombstones.
    pub fn is_deleted(&self) -> bool {
        !self.is_empty() && self.iter().all(Version::is_tombstone)
    }

    /// How many versions there are, tombstones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All versions, in the order of their dots.
    pub fn iter(&self) -> std::slice::Iter<'_, Version> {
        self.0.iter()
    }

    /// Joins another replica's versions into these; says whether that changed anything.
    pub fn merge(&mut self, other: Versions, rule: ConflictRule) -> bool {
        let mut changed = false;
        for version in other.0 {
            changed |= self.add(version, rule);
        }
        changed
    }

    fn add(&mut self, version: Version, rule: ConflictRule) -> bool {
        let Err(at) = self.0.binary_search_by_key(&version.dot, |held| held.dot) else {
            return false;
        };
        match rule {
            ConflictRule::Siblings => {
                if self.0.iter().any(|held| held.past.covers(version.dot)) {
                    return false;
                }
                self.0.insert(at, version);
                let past = self.0[at].past.clone();
                self.0.retain(|held| !past.covers(held.dot));
            }
            ConflictRule::Lww => {
                if self.0.iter().any(|held| held.rank() > version.rank()) {
                    return false;
                }
                self.0.clear();
                self.0.push(version);
            }
        }
        true
    }

    /// Everything these versions stand for: their dots and their pasts.
    pub fn context(&self) -> Context {
        let mut context = Context::new();
        for version in &self.0 {
            context.merge(&version.past);
        }
        for version in &self.0 {
            context.insert(version.dot);
        }
        context
    }

    /// The digest of what is here; zero for a key that nobody has written.
    pub fn digest(&self) -> VersionsDigest {
        if self.0.is_empty() {
            return VersionsDigest::default();
        }
        let mut hash = Xxh3Default::new();
        for Version { dot, .. } in &self.0 {
            hash.update(&dot.actor.incarnation.0.to_le_bytes());
            hash.update(&dot.actor.birth.to_le_bytes());
            hash.update(&dot.counter.to_le_bytes());
        }
        VersionsDigest(hash.digest())
    }

    /// The latest time of any version, zero if there is none.
    pub fn latest(&self) -> HybridTime {
        self.0.iter().map(|version| version.time).max().unwrap_or_default()
    }

    /// Whether the write is here already: as a version, or among those that a version replaced.
    pub fn knows(&self, write_id: WriteId) -> bool {
        self.0.iter().any(|held| held.write_id == write_id || held.absorbed.contains(&write_id))
    }

    /// The actor under which an incarnation has issued dots for this key, with the highest count
    /// known, if it has.
    pub fn issued_by(&self, incarnation: Incarnation) -> Option<(ActorId, u64)> {
        let dots = self.0.iter().map(|version| version.dot.actor);
        let pasts = self.0.iter().flat_map(|version| version.past.actors());
        let own = dots.chain(pasts).filter(|actor| actor.incarnation == incarnation).max()?;
        let in_dots = self.0.iter().filter(|v| v.dot.actor == own).map(|v| v.dot.counter).max();
        let in_pasts = self.0.iter().map(|v| v.past.highest(own)).max();
        Some((own, in_dots.max(in_pasts).unwrap_or(0)))
    }

    /// The write ids that a write with this context would absorb, the latest first.
    pub fn absorbed_by(&self, context: &Context) -> Vec<WriteId> {
        let mut covered: Vec<_> = self.0.iter().filter(|v| context.covers(v.dot)).collect();
        covered.sort_by_key(|version| std::cmp::Reverse(version.rank()));
        let own = covered.iter().map(|version| version.write_id);
        let inherited = covered.iter().flat_map(|version| version.absorbed.iter().copied());
        let mut ids = Vec::new();
        for id in own.chain(inherited) {
            if ids.len() < MAX_ABSORBED && !ids.contains(&id) {
                ids.push(id);
            }
        }
        ids
    }

    /// The versions that a reader is shown: each write once.
    ///
    /// A retry that another replica coordinated may have issued a second dot for the same write, or
    /// a dot for a write that has since been replaced. Merging keeps such a version (so that it
    /// stays a join), the view leaves it out, and the context that goes with the view covers it, so
    /// that the next write with that context removes it.
    pub fn visible(&self) -> Vec<&Version> {
        let hidden = |version: &Version| {
            self.0.iter().any(|other| {
                other.dot != version.dot
                    && (other.absorbed.contains(&version.write_id)
                        || (other.write_id == version.write_id && other.rank() > version.rank()))
            })
        };
        let visible: Vec<_> = self.0.iter().filter(|version| !hidden(version)).collect();
        // Only a client that gives one id to different writes can make versions hide each other.
        if visible.is_empty() { self.0.iter().collect() } else { visible }
    }

    /// The bytes of all values together.
    pub fn value_bytes(&self) -> usize {
        self.0
            .iter()
            .map(|version| match &version.content {
                Content::Value(value) => value.bytes().len(),
                Content::Tombstone => 0,
            })
            .sum()
    }
}

impl From<Version> for Versions {
    fn from(version: Version) -> Self {
        Self(vec![version])
    }
}

impl IntoIterator for Versions {
    type Item = Version;
    type IntoIter = std::vec::IntoIter<Version>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Versions {
    type Item = &'a Version;
    type IntoIter = std::slice::Iter<'a, Version>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let versions = Vec::<Version>::deserialize(from)?;
        let sorted = versions.windows(2).all(|pair| pair[0].dot < pair[1].dot);
        let apart = versions.iter().all(|v| versions.iter().all(|w| !w.past.covers(v.dot)));
        let counted = versions.iter().all(|version| version.dot.counter > 0);
        if !sorted || !apart || !counted {
            return Err(serde::de::Error::custom("versions out of their normal form"));
        }
        Ok(Self(versions))
    }
}
