//! What is looked up in the store, as plain questions: they may wait for a disk, so whoever carries them
//! out does it where that holds nobody up.

use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::DataKey,
    merkle::{CHILDREN, EntryDigest, HashRange, LEAF_LEVELS},
    message::repair::MAX_KEYS,
    version::Versions,
};

use crate::store::{Entries, Entry, Leaves, Scrubbed, TreeError, TreeStore};

/// A range with at most so many keys is compared by its keys at once: their digests weigh about as much
/// as those of the range's parts.
pub(crate) const FEW_KEYS: usize = 24;

/// A question to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The roots of trees.
    Roots {
        /// Their keyspace.
        keyspace: KeyspaceId,
        /// Their partitions.
        partitions: Vec<PartitionId>,
    },
    /// What is in nodes of a tree.
    Ranges {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// Into how many partitions the hash space is cut.
        of: u32,
        /// The nodes.
        ranges: Vec<HashRange>,
    },
    /// The keys of a range, at most [`MAX_KEYS`].
    Keys {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The range.
        range: HashRange,
    },
    /// Whether a tree is what its data says; it is afterwards.
    Scrub {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
    },
    /// What is held of a key.
    Versions(DataKey),
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// To [`Look::Roots`]: in their order; none for those that can't be trusted.
    Roots(Vec<Option<EntryDigest>>),
    /// To [`Look::Ranges`]: in their order.
    Ranges(Vec<Seen>),
    /// To [`Look::Keys`].
    Keys(Entries),
    /// To [`Look::Scrub`].
    Scrubbed(Scrubbed),
    /// To [`Look::Versions`].
    Versions(Versions),
    /// The tree can't be trusted.
    Untrusted,
    /// The store failed, with a sentence.
    Failed(String),
}

/// What is in a node of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The digests of its children; zero if it can't be cut.
    pub children: [EntryDigest; CHILDREN],
    /// How many keys it has, if they are few enough to have been counted.
    pub keys: Option<usize>,
}

/// Carries a look out.
pub fn look(store: &dyn TreeStore, look: Look) -> Looked {
    let seen = match look {
        Look::Roots { keyspace, partitions } => {
            let root = |partition| store.leaves(keyspace, partition).map(|leaves| sum(&*leaves));
            Ok(Looked::Roots(partitions.into_iter().map(root).collect()))
        }
        Look::Ranges { keyspace, partition, of, ranges } => {
            let Some(leaves) = store.leaves(keyspace, partition) else { return Looked::Untrusted };
            let seen = ranges.into_iter().map(|range| see(store, keyspace, &leaves, of, range));
            seen.collect::<Result<_, _>>().map(Looked::Ranges)
        }
        Look::Keys { keyspace, range } => {
            store.entries(keyspace, range, None, MAX_KEYS).map(Looked::Keys)
        }
        Look::Scrub { keyspace, partition } => {
            store.scrub(keyspace, partition).map(Looked::Scrubbed)
        }
        Look::Versions(key) => store.read(&key).map(Looked::Versions),
    };
    seen.unwrap_or_else(|TreeError(sentence)| Looked::Failed(sentence))
}

fn see(
    store: &dyn TreeStore,
    keyspace: KeyspaceId,
    leaves: &Leaves,
    of: u32,
    range: HashRange,
) -> Result<Seen, TreeError> {
    let mut children = [EntryDigest::default(); CHILDREN];
    let is_inner = range.level(of).is_some_and(|level| level < LEAF_LEVELS);
    // Above the leaves the children are at hand, so it is worth no more than a glance at the keys.
    let limit = if is_inner { FEW_KEYS } else { MAX_KEYS };
    let Entries { entries, has_more } = store.entries(keyspace, range, None, limit)?;
    let keys = (!has_more).then_some(entries.len());
    if is_inner {
        let below = leaves_below(leaves, of, range);
        for (child, leaves) in children.iter_mut().zip(below.chunks(below.len() / CHILDREN)) {
            *child = sum(leaves);
        }
    } else if has_more {
        // Nothing, if it can't be cut.
        for (child, digest) in children.iter_mut().zip(store.children(keyspace, range)?) {
            *child = digest;
        }
    } else if range.children().is_some() {
        for entry in &entries {
            children[range.child_of(entry.key.hash)].toggle(digest_of(entry));
        }
    }
    Ok(Seen { children, keys })
}

/// The leaves of a node above them.
fn leaves_below(leaves: &Leaves, of: u32, range: HashRange) -> &[EntryDigest] {
    let first = anello_protocol::merkle::leaf_of(range.first(), of);
    let last = anello_protocol::merkle::leaf_of(range.last(), of);
    &leaves[first..=last]
}

pub(crate) fn digest_of(entry: &Entry) -> EntryDigest {
    EntryDigest::of(&entry.key, entry.digest)
}

fn sum(digests: &[EntryDigest]) -> EntryDigest {
    digests.iter().fold(EntryDigest::default(), |mut sum, digest| {
        sum.toggle(*digest);
        sum
    })
}
