//! Goes through a stretch of keys in steps, and deletes of each what belongs to certain keyspaces: where keys
//! that stay lie between those that go, there is no faster way.

use std::{collections::BTreeSet, sync::mpsc};

use anello_protocol::id::KeyspaceId;
use anello_replica::store::NotTaken;

use super::{
    commit::{Change, Flag},
    keeper::Upkeep,
    keys::{self, Family},
    options,
    store::RocksStore,
};

/// Entries that are looked at, and at most deleted, in one go.
const STEP: usize = 1_000;
/// A step ends with the entry that fills these: an iterator reads values too.
const STEP_BYTES: usize = 4 << 20;

/// Why a step was not done.
pub(super) enum Failure {
    Busy,
    Disk(String),
}

impl From<rocksdb::Error> for Failure {
    fn from(error: rocksdb::Error) -> Self {
        Self::Disk(error.into_string())
    }
}

/// What of it goes.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub(super) family: Family,
    pub(super) keyspaces: &'a BTreeSet<KeyspaceId>,
    /// Its first key.
    pub(super) from: &'a [u8],
    /// The first key behind it; without one it goes on to the end.
    pub(super) until: Option<&'a [u8]>,
}

/// What a step has done.
pub(super) struct Step {
    pub(super) deleted: usize,
    /// Where to go on.
    pub(super) next: Option<Vec<u8>>,
}

/// Deletes what of the next entries goes.
pub(super) fn sift(store: &RocksStore, stretch: Stretch<'_>) -> Result<Step, Failure> {
    let Stretch { family, keyspaces, from, until } = stretch;
    let shared = store.shared();
    let mut options = options::reading();
    options.fill_cache(false);
    if let Some(until) = until {
        options.set_iterate_upper_bound(until);
    }
    let mut entries = shared.db.raw_iterator_cf_opt(shared.family(family), options);
    entries.seek(from);
    let mut changes = Vec::new();
    let (mut seen, mut bytes) = (0, 0);
    let mut next = None;
    while let Some((key, value)) = entries.item() {
        if seen == STEP || bytes >= STEP_BYTES {
            next = Some(key.to_vec());
            break;
        }
        seen += 1;
        bytes += key.len() + value.len();
        if keys::keyspace_of(key).is_some_and(|keyspace| keyspaces.contains(&keyspace)) {
            changes.push(Change { family, key: key.to_vec(), value: None });
        }
        entries.next();
    }
    entries.status().inspect_err(|error| shared.look_into(error))?;
    drop(entries);
    let deleted = changes.len();
    if deleted > 0 {
        commit(store, changes, Flag::Unconcerned)?;
    }
    Ok(Step { deleted, next })
}

/// Commits and waits for it.
pub(super) fn commit(store: &RocksStore, changes: Vec<Change>, flag: Flag) -> Result<(), Failure> {
    commit_with(store, changes, Upkeep::Nothing, flag)
}

/// The same, with what it means for the trees.
pub(super) fn commit_with(
    store: &RocksStore,
    changes: Vec<Change>,
    upkeep: Upkeep,
    flag: Flag,
) -> Result<(), Failure> {
    let (done, outcome) = mpsc::sync_channel(1);
    let done = move |result| {
        // The caller waits for exactly this.
        let _ = done.send(result);
    };
    let submitted = store.submit_with(changes, upkeep, flag, Box::new(done));
    submitted.map_err(|_: NotTaken| Failure::Busy)?;
    let outcome = outcome.recv().unwrap_or_else(|_| Err("the store was closed".into()));
    outcome.map_err(Failure::Disk)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rocks::tests::{key, open, versions, write};

    #[test]
    fn a_step_ends_by_bytes_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        for number in 0..9 {
            write(&store, &key(4, number), versions(number, 1 << 20));
        }
        let keyspaces = &BTreeSet::from([KeyspaceId(4)]);
        let mut from = Vec::new();
        for expected in [4, 4, 1] {
            let stretch = Stretch { family: Family::Data, keyspaces, from: &from, until: None };
            let Ok(Step { deleted, next }) = sift(&store, stretch) else { panic!("failed") };
            assert_eq!((deleted, next.is_some()), (expected, expected == 4));
            from = next.unwrap_or_default();
        }
    }
}
