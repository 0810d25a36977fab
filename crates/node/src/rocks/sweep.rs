//! Deletes what dropped keyspaces leave behind, in the background, a little at a time.
//!
//! It reads all data once and deletes what belongs to none of the cluster's keyspaces. Nobody can see
//! that data any more: a keyspace's id is never given out twice. A sweep that is cut short leaves the
//! flag "holds data here" standing, and the next start, or the next change of the cluster, begins again.

use std::{
    collections::BTreeSet,
    sync::{Weak, mpsc},
    thread,
    time::Duration,
};

use anello_protocol::id::KeyspaceId;
use rocksdb::{Direction, IteratorMode, ReadOptions};

use super::{
    commit::{Change, Flag},
    keys::{self, Family},
    store::RocksStore,
};

/// Entries that are looked at, and at most deleted, in one go.
const STEP: usize = 1_000;
/// Between two steps, so that requests hardly notice.
const PAUSE: Duration = Duration::from_millis(20);

/// Sweeps the keyspaces away on a thread of its own, until it is done or the store is closed.
pub(super) fn start(store: Weak<RocksStore>, dropped: BTreeSet<KeyspaceId>) -> std::io::Result<()> {
    let sweep = move || {
        let outcome = run(&store, &dropped);
        if let Some(store) = store.upgrade() {
            store.sweep_ended();
        }
        match outcome {
            Ok(Some(deleted)) => tracing::info!(deleted, "swept away what dropped keyspaces left"),
            Ok(None) => {}
            Err(reason) => {
                tracing::warn!(
                    "can't sweep away what dropped keyspaces left, will try again: {reason}"
                );
            }
        }
    };
    thread::Builder::new().name("sweep".into()).spawn(sweep).map(|_| ())
}

/// Says how many entries were deleted, or nothing if the store was closed in the meantime.
fn run(store: &Weak<RocksStore>, dropped: &BTreeSet<KeyspaceId>) -> Result<Option<u64>, String> {
    let mut deleted = 0;
    let mut next = Some(Vec::new());
    while let Some(from) = next {
        let Some(store) = store.upgrade() else { return Ok(None) };
        let (found, then) = step(&store, dropped, &from)?;
        next = then;
        deleted += found.len() as u64;
        if !found.is_empty() {
            commit(&store, found, Flag::Unconcerned)?;
        }
        drop(store);
        thread::sleep(PAUSE);
    }
    let Some(store) = store.upgrade() else { return Ok(None) };
    for &keyspace in dropped {
        commit(&store, Vec::new(), Flag::Swept(keyspace))?;
        store.forget_held(keyspace);
    }
    Ok(Some(deleted))
}

/// What of the next entries goes, and where to go on.
fn step(
    store: &RocksStore,
    dropped: &BTreeSet<KeyspaceId>,
    from: &[u8],
) -> Result<(Vec<Change>, Option<Vec<u8>>), String> {
    let shared = store.shared();
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    let mode = IteratorMode::From(from, Direction::Forward);
    let entries = shared.db.iterator_cf_opt(shared.family(Family::Data), options, mode);
    let mut changes = Vec::new();
    for (seen, entry) in entries.enumerate() {
        let (key, _) = entry.map_err(|error| error.into_string())?;
        if seen == STEP {
            return Ok((changes, Some(key.into_vec())));
        }
        if keys::keyspace_of(&key).is_some_and(|keyspace| dropped.contains(&keyspace)) {
            changes.push(Change { family: Family::Data, key: key.into_vec(), value: None });
        }
    }
    Ok((changes, None))
}

/// Commits and waits for it.
fn commit(store: &RocksStore, changes: Vec<Change>, flag: Flag) -> Result<(), String> {
    let (done, outcome) = mpsc::sync_channel(1);
    let done = move |result| {
        // The sweep waits for exactly this.
        let _ = done.send(result);
    };
    store.submit(changes, flag, Box::new(done)).map_err(|_| String::from("the disk is busy"))?;
    outcome.recv().map_err(|_| String::from("the store was closed"))?
}
