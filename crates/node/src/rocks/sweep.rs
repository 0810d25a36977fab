//! Deletes what dropped keyspaces leave behind, in the background, a little at a time.
//!
//! The store takes no more of them by then, so one pass over all data finds everything: first what is queued
//! is waited for, then all is read and what belongs to those keyspaces deleted, then the flag "holds data
//! here" goes. Whatever of it the disk refuses or fails is done again until it succeeds. A pass that the end
//! of the process cuts short leaves the flag standing, and the next start begins again. Nobody sees that
//! data meanwhile: a keyspace's id is never given out twice.
//!
//! The store may be closed between any two steps, so that it never waits for a sweep for long.

use std::{
    collections::BTreeSet,
    sync::{Weak, mpsc},
    thread,
    time::Duration,
};

use anello_protocol::id::KeyspaceId;
use anello_replica::store::NotTaken;

use super::{
    commit::{Change, Flag},
    keys::{self, Family},
    options,
    store::RocksStore,
};

/// Entries that are looked at, and at most deleted, in one go.
const STEP: usize = 1_000;
/// A step ends with the entry that fills these: an iterator reads values too.
const STEP_BYTES: usize = 4 << 20;
/// Between two steps, so that requests hardly notice.
const PAUSE: Duration = Duration::from_millis(20);
/// Before the next attempt, when too much waits for the disk.
const PAUSE_WHILE_BUSY: Duration = Duration::from_millis(250);
/// Before the next attempt, when the disk fails: doubled each time, up to the most.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
const PAUSE_AFTER_FAILURE_MAX: Duration = Duration::from_secs(64);

/// Why a step was not done.
enum Failure {
    Busy,
    Disk(String),
}

impl From<rocksdb::Error> for Failure {
    fn from(error: rocksdb::Error) -> Self {
        Self::Disk(error.into_string())
    }
}

/// Sweeps dropped keyspaces away on a thread of its own, until none is left or the store is closed.
pub(super) fn start(store: Weak<RocksStore>) -> std::io::Result<()> {
    let sweep = move || while pass(&store).is_some() {};
    thread::Builder::new().name("sweep".into()).spawn(sweep).map(|_| ())
}

/// Nothing if there is no more to do, or the store was closed.
fn pass(store: &Weak<RocksStore>) -> Option<()> {
    let dropped = store.upgrade()?.held().next_sweep()?;
    // Behind everything that was queued while the keyspaces were still there.
    insist(store, |store| commit(store, Vec::new(), Flag::Unconcerned))?;
    let mut deleted = 0;
    for family in [Family::Tombstones, Family::Data] {
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            let found = insist(store, |store| step(store, family, &dropped, &from))?;
            deleted += if family == Family::Data { found.deleted } else { 0 };
            next = found.next;
            thread::sleep(PAUSE);
        }
    }
    for &keyspace in &dropped {
        insist(store, |store| {
            commit(store, Vec::new(), Flag::Swept(keyspace))?;
            store.held().swept(keyspace);
            Ok(())
        })?;
    }
    tracing::info!(deleted, "swept away what dropped keyspaces left");
    Some(())
}

/// Does it again and again until it succeeds, or gives nothing because the store was closed.
fn insist<T>(
    store: &Weak<RocksStore>,
    mut act: impl FnMut(&RocksStore) -> Result<T, Failure>,
) -> Option<T> {
    let mut pause_after_failure = PAUSE_AFTER_FAILURE;
    loop {
        let outcome = act(&*store.upgrade()?);
        match outcome {
            Ok(done) => return Some(done),
            Err(Failure::Busy) => thread::sleep(PAUSE_WHILE_BUSY),
            Err(Failure::Disk(reason)) => {
                tracing::warn!(
                    "can't sweep away what dropped keyspaces left, trying again: {reason}"
                );
                thread::sleep(pause_after_failure);
                pause_after_failure = (pause_after_failure * 2).min(PAUSE_AFTER_FAILURE_MAX);
            }
        }
    }
}

/// What a step has done.
struct Step {
    deleted: usize,
    /// Where to go on.
    next: Option<Vec<u8>>,
}

/// Deletes what of the next entries goes.
fn step(
    store: &RocksStore,
    family: Family,
    dropped: &BTreeSet<KeyspaceId>,
    from: &[u8],
) -> Result<Step, Failure> {
    let shared = store.shared();
    let mut options = options::reading();
    options.fill_cache(false);
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
        if keys::keyspace_of(key).is_some_and(|keyspace| dropped.contains(&keyspace)) {
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
fn commit(store: &RocksStore, changes: Vec<Change>, flag: Flag) -> Result<(), Failure> {
    let (done, outcome) = mpsc::sync_channel(1);
    let done = move |result| {
        // The sweep waits for exactly this.
        let _ = done.send(result);
    };
    store.submit(changes, flag, Box::new(done)).map_err(|_: NotTaken| Failure::Busy)?;
    let outcome = outcome.recv().unwrap_or_else(|_| Err("the store was closed".into()));
    outcome.map_err(Failure::Disk)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rocks::tests::{key, open, versions, write};

    #[test]
    fn a_step_ends_by_bytes_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        for number in 0..9 {
            write(&store, &key(4, number), versions(number, 1 << 20));
        }
        let dropped = BTreeSet::from([KeyspaceId(4)]);
        let mut from = Vec::new();
        for expected in [4, 4, 1] {
            let Ok(Step { deleted, next }) = step(&store, Family::Data, &dropped, &from) else {
                panic!("failed")
            };
            assert_eq!((deleted, next.is_some()), (expected, expected == 4));
            from = next.unwrap_or_default();
        }
    }

    #[test]
    fn what_is_refused_is_done_again_until_the_store_is_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        let weak = Arc::downgrade(&store);
        let mut attempts = 0;
        let done = insist(&weak, |_| {
            attempts += 1;
            if attempts < 3 { Err(Failure::Busy) } else { Ok(attempts) }
        });
        assert_eq!(done, Some(3));
        let mut store = Some(store);
        let done = insist(&weak, |_| {
            store = None;
            Err::<(), _>(Failure::Busy)
        });
        assert_eq!(done, None);
    }
}
