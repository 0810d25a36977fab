//! Deletes what dropped keyspaces leave behind, in the background, a little at a time.
//!
//! The store takes no more of them by then, so one pass over all data finds everything: first what is queued
//! is waited for, then all is read and what belongs to those keyspaces deleted, then the flag "holds data
//! here" goes. A pass that is cut short leaves the flag standing; a later one begins again: in a moment if
//! the disk failed it, at the next start if the process ended. Nobody sees that data meanwhile: a
//! keyspace's id is never given out twice.

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
/// Before the next attempt, when the disk is busy or fails.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Sweeps dropped keyspaces away on a thread of its own, until none is left or the store is closed.
pub(super) fn start(store: Weak<RocksStore>) -> std::io::Result<()> {
    let sweep = move || while pass(&store) {};
    thread::Builder::new().name("sweep".into()).spawn(sweep).map(|_| ())
}

/// Whether there may be more to do.
fn pass(store: &Weak<RocksStore>) -> bool {
    let Some(dropped) = store.upgrade().and_then(|store| store.held().next_sweep()) else {
        return false;
    };
    match run(store, &dropped) {
        Ok(Some(deleted)) => tracing::info!(deleted, "swept away what dropped keyspaces left"),
        Ok(None) => return false,
        Err(reason) => {
            tracing::warn!("can't sweep away what dropped keyspaces left, trying again: {reason}");
            thread::sleep(PAUSE_AFTER_FAILURE);
        }
    }
    true
}

/// Says how many entries were deleted, or nothing if the store was closed in the meantime.
fn run(store: &Weak<RocksStore>, dropped: &BTreeSet<KeyspaceId>) -> Result<Option<u64>, String> {
    let Some(open) = store.upgrade() else { return Ok(None) };
    // Behind everything that was queued while the keyspaces were still there.
    commit(&open, Vec::new(), Flag::Unconcerned)?;
    drop(open);
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
        store.held().swept(keyspace);
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
