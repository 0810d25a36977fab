//! Deletes what dropped keyspaces leave behind, in the background, a little at a time.
//!
//! The store takes no more of them by then, so one pass over all data finds everything: first what is queued
//! is waited for, then all is read and what belongs to those keyspaces deleted, then the flag "holds data
//! here" goes. Whatever of it the disk refuses or fails is done again until it succeeds. A pass that the end
//! of the process cuts short leaves the flag standing, and the next start begins again. Nobody sees that
//! data meanwhile: a keyspace's id is never given out twice.
//!
//! The store may be closed between any two steps, so that it never waits for a sweep for long.

use std::{sync::Weak, thread, time::Duration};

use super::{
    commit::Flag,
    keys::Family,
    sift::{Failure, Stretch, commit, sift},
    store::RocksStore,
};

/// Between two steps, so that requests hardly notice.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// Before the next attempt, when too much waits for the disk.
const PAUSE_WHILE_BUSY: Duration = Duration::from_millis(250);
/// Before the next attempt, when the disk fails: doubled each time, up to the most.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
const PAUSE_AFTER_FAILURE_MAX: Duration = Duration::from_secs(64);

/// Sweeps dropped keyspaces away on a thread of its own, until none is left or the store is closed.
pub(super) fn start(store: Weak<RocksStore>) -> std::io::Result<()> {
    let sweep = move || while pass(&store).is_some() {};
    thread::Builder::new().name("sweep".into()).spawn(sweep).map(|_| ())
}

const WHAT: &str = "what dropped keyspaces left";

/// Nothing if there is no more to do, or the store was closed.
fn pass(store: &Weak<RocksStore>) -> Option<()> {
    let dropped = store.upgrade()?.held().next_sweep()?;
    // Behind everything that was queued while the keyspaces were still there.
    insist(store, WHAT, |store| commit(store, Vec::new(), Flag::Unconcerned))?;
    let mut deleted = 0;
    for family in [Family::Tombstones, Family::Data] {
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            let stretch = Stretch { family, keyspaces: &dropped, from: &from, until: None };
            let found = insist(store, WHAT, |store| sift(store, stretch))?;
            deleted += if family == Family::Data { found.deleted } else { 0 };
            next = found.next;
            thread::sleep(PAUSE);
        }
    }
    for &keyspace in &dropped {
        insist(store, WHAT, |store| {
            commit(store, Vec::new(), Flag::Swept(keyspace))?;
            store.held().swept(keyspace);
            Ok(())
        })?;
    }
    tracing::info!(deleted, "swept away what dropped keyspaces left");
    Some(())
}

/// Does it again and again until it succeeds, or gives nothing because the store was closed. `what` it is
/// that must go is for the log.
pub(super) fn insist<T>(
    store: &Weak<RocksStore>,
    what: &str,
    mut act: impl FnMut(&RocksStore) -> Result<T, Failure>,
) -> Option<T> {
    let mut pause_after_failure = PAUSE_AFTER_FAILURE;
    loop {
        let outcome = act(&*store.upgrade()?);
        match outcome {
            Ok(done) => return Some(done),
            Err(Failure::Busy) => thread::sleep(PAUSE_WHILE_BUSY),
            Err(Failure::Disk(reason)) => {
                tracing::warn!("can't delete {what}, trying again: {reason}");
                thread::sleep(pause_after_failure);
                pause_after_failure = (pause_after_failure * 2).min(PAUSE_AFTER_FAILURE_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rocks::tests::open;

    #[test]
    fn what_is_refused_is_done_again_until_the_store_is_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        let weak = Arc::downgrade(&store);
        let mut attempts = 0;
        let done = insist(&weak, "all", |_| {
            attempts += 1;
            if attempts < 3 { Err(Failure::Busy) } else { Ok(attempts) }
        });
        assert_eq!(done, Some(3));
        let mut store = Some(store);
        let done = insist(&weak, "all", |_| {
            store = None;
            Err::<(), _>(Failure::Busy)
        });
        assert_eq!(done, None);
    }
}
