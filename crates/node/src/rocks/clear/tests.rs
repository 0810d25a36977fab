//! Clears among other commits of their group, and such of which nobody knows whether they were kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, mpsc},
};

use anello_antientropy::store::TreeStore;
use anello_protocol::{
    id::KeyspaceId,
    key::DataKey,
    merkle::{EntryDigest, HashRange},
    version::Versions,
};
use anello_replica::store::{Commit, Store, Summary};

use super::*;
use crate::{
    config::Durability,
    rocks::{
        RocksStore,
        commit::{Flag, Sink, Submission},
        keeper::{Mend, Upkeep},
        leaves,
        shared::DatabaseSink,
        tests::{PARTITIONS, commit, key, tombstone, tree_agrees, versions, wait_until},
    },
};

/// What becomes of the next groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rocks) enum Fate {
    Sound,
    /// They are said to have failed, and are not on disk.
    Lost,
    /// They are said to have failed, and are on disk.
    Kept,
    /// They wait.
    Held,
}

struct Faulty {
    inner: DatabaseSink,
    fate: Arc<Mutex<Fate>>,
}

impl Sink for Faulty {
    fn write(&mut self, group: &mut [Submission]) -> Result<(), String> {
        loop {
            let fate = *self.fate.lock().expect("not poisoned");
            match fate {
                Fate::Sound => return self.inner.write(group),
                Fate::Lost => {}
                Fate::Kept => self.inner.write_batch(group)?,
                Fate::Held => {
                    std::thread::yield_now();
                    continue;
                }
            }
            self.inner.settle(group, false);
            return Err("the disk failed".into());
        }
    }
}

/// A store whose groups can be held back, or made to fail.
pub(in crate::rocks) struct Bench {
    dir: tempfile::TempDir,
    fate: Arc<Mutex<Fate>>,
    pub(in crate::rocks) store: Arc<RocksStore>,
}

impl Bench {
    pub(in crate::rocks) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let fate = Arc::new(Mutex::new(Fate::Sound));
        let store = Self::open(&dir, &fate);
        Self { dir, fate, store }
    }

    fn open(dir: &tempfile::TempDir, fate: &Arc<Mutex<Fate>>) -> Arc<RocksStore> {
        let wrap = |inner| Faulty { inner, fate: Arc::clone(fate) };
        let path = dir.path().join("db");
        Arc::new(RocksStore::open_with(&path, Durability::Os, PARTITIONS, wrap).expect("opens"))
    }

    pub(in crate::rocks) fn reopen(self) -> Self {
        let Self { dir, fate, store } = self;
        *fate.lock().expect("not poisoned") = Fate::Sound;
        assert!(Arc::into_inner(store).is_some(), "nobody else uses it");
        let store = Self::open(&dir, &fate);
        Self { dir, fate, store }
    }

    pub(in crate::rocks) fn fate(&self, fate: Fate) {
        *self.fate.lock().expect("not poisoned") = fate;
    }

    /// Has whatever is given in meanwhile be one group.
    fn as_one_group(&self, give_in: impl FnOnce()) {
        self.fate(Fate::Held);
        let (done, outcome) = mpsc::channel();
        let done = Box::new(move |result| done.send(result).expect("the test listens"));
        self.store.submit(Vec::new(), Flag::Unconcerned, done).expect("room");
        wait_until("taken", || self.store.look_at_queue().waiting == 0);
        give_in();
        self.fate(Fate::Sound);
        outcome.recv().expect("told").expect("durable");
    }

    fn replace(&self, key: &DataKey, believed: &Versions, versions: &Versions) {
        let replaced = Summary::of(believed);
        let commit = Commit { replaced, ..commit(key, versions.clone()) };
        self.store.commit(commit, Box::new(|_| ())).expect("room");
    }

    fn clear(&self, clear: &Clear) {
        let upkeep = Upkeep::Clear(Box::new(clear.clone()));
        let submitted =
            self.store.submit_with(Vec::new(), upkeep, Flag::Unconcerned, Box::new(|_| ()));
        submitted.expect("room");
    }

    /// Waits for all that was given in.
    fn drain(&self) {
        let (done, outcome) = mpsc::channel();
        let done = Box::new(move |result| done.send(result).expect("the test listens"));
        self.store.submit(Vec::new(), Flag::Unconcerned, done).expect("room");
        outcome.recv().expect("told").expect("durable");
    }

    /// Everything that the store says of a key's tree.
    fn agrees(&self, tree: TreeId, held: &BTreeMap<DataKey, Versions>) {
        tree_agrees(&self.store, tree);
        let range = HashRange::of_partition(tree.1, PARTITIONS);
        let entries = self.store.entries(tree.0, range, None, usize::MAX).expect("readable");
        let found: Vec<_> = entries.entries.iter().map(|entry| entry.key.clone()).collect();
        assert_eq!(found, held.keys().cloned().collect::<Vec<_>>());
        for (key, versions) in held {
            assert_eq!(Store::read(&*self.store, key), Ok(versions.clone()));
        }
        let listed = self.store.tombstones(tree.0, tree.1, None, usize::MAX).expect("readable");
        let listed: Vec<_> = listed.into_iter().map(|tombstone| tombstone.key).collect();
        let deleted = held.iter().filter(|(_, versions)| versions.is_deleted());
        assert_eq!(listed, deleted.map(|(key, _)| key.clone()).collect::<Vec<_>>());
        let scrubbed = self.store.scrub(tree.0, tree.1).expect("it scrubs");
        assert_eq!(scrubbed.mended, 0);
    }
}

/// Two keys of one partition.
fn neighbours() -> (TreeId, DataKey, DataKey) {
    let first = key(1, 1);
    let partition = first.hash.partition(PARTITIONS);
    let mut numbers = 2..;
    let second = numbers.find(|number| key(1, *number).hash.partition(PARTITIONS) == partition);
    ((KeyspaceId(1), partition), first, key(1, second.expect("there is one")))
}

#[test]
fn in_a_group_what_was_given_in_before_goes_and_what_was_given_in_later_stays() {
    for is_failed_before in [false, true] {
        let bench = Bench::new();
        let (tree, first, second) = neighbours();
        let other = key(4, 1);
        let none = Versions::new();
        let (one, two, deleted) = (versions(1, 10), versions(2, 10), tombstone(3));
        bench.replace(&first, &none, &one);
        bench.replace(&other, &none, &one);
        bench.drain();
        if is_failed_before {
            // From here on the keeper looks up what a key holds, instead of believing its vnode.
            bench.fate(Fate::Kept);
            bench.replace(&first, &one, &one);
            bench.replace(&second, &none, &none);
            wait_until("failed", || bench.store.leaves(tree.0, tree.1).is_none());
            wait_until("taken", || bench.store.look_at_queue().waiting == 0);
            bench.fate(Fate::Sound);
        }
        let clear = Clear { partitions: BTreeSet::from([tree.1]), ..Clear::default() };
        bench.as_one_group(|| {
            bench.replace(&first, &one, &two);
            bench.replace(&second, &none, &deleted);
            bench.clear(&clear);
            bench.replace(&first, &none, &one);
        });
        bench.drain();
        let largest = bench.store.figures().largest_group;
        assert!(largest >= 4, "they were one group: {largest}");
        let held = BTreeMap::from([(first.clone(), one.clone())]);
        bench.agrees(tree, &held);
        bench.agrees((KeyspaceId(4), tree.1), &BTreeMap::new());
        let bench = bench.reopen();
        bench.agrees(tree, &held);
    }
}

#[test]
fn a_clear_of_which_nobody_knows_whether_it_was_kept_is_made_good_by_the_next() {
    for fate in [Fate::Lost, Fate::Kept] {
        let bench = Bench::new();
        let (tree, first, second) = neighbours();
        bench.replace(&first, &Versions::new(), &versions(1, 10));
        bench.replace(&second, &Versions::new(), &tombstone(2));
        bench.drain();
        let clear = Clear { partitions: BTreeSet::from([tree.1]), ..Clear::default() };
        bench.fate(fate);
        bench.clear(&clear);
        wait_until("failed", || bench.store.leaves(tree.0, tree.1).is_none());
        let expected = if fate == Fate::Lost { versions(1, 10) } else { Versions::new() };
        assert_eq!(Store::read(&*bench.store, &first), Ok(expected), "only the disk knows");
        bench.fate(Fate::Sound);
        bench.clear(&clear);
        bench.drain();
        bench.agrees(tree, &BTreeMap::new());
        let bench = bench.reopen();
        bench.agrees(tree, &BTreeMap::new());
    }
}

/// What a scrub found out before the clear, it would put into the leaves behind it.
#[test]
fn a_scrub_from_before_mends_nothing() {
    let bench = Bench::new();
    let (tree, first, _) = neighbours();
    bench.replace(&first, &Versions::new(), &versions(1, 10));
    bench.drain();
    let clear = Clear { trees: BTreeSet::from([tree]), ..Clear::default() };
    let mend = |clears| {
        let mut differences = leaves::none();
        differences[7] = EntryDigest(7);
        let mend = Mend {
            tree,
            differences,
            listed_wrong: Vec::new(),
            doubt: None,
            clears,
            mended: Arc::default(),
        };
        let upkeep = Upkeep::Mend(Box::new(mend));
        let submitted =
            bench.store.submit_with(Vec::new(), upkeep, Flag::Unconcerned, Box::new(|_| ()));
        submitted.expect("room");
    };
    let clears = bench.store.shared().trees.clears(tree.1);
    bench.as_one_group(|| {
        mend(clears);
        bench.clear(&clear);
        mend(clears);
    });
    mend(clears);
    bench.drain();
    assert!(bench.store.leaves(tree.0, tree.1) == Some(leaves::none()));
    let on_disk = bench.store.shared().stored_leaves(tree, None).expect("readable");
    assert!(on_disk == leaves::none());
    assert_eq!(Store::read(&*bench.store, &first), Ok(versions(1, 10)), "its leaves alone went");
    mend(bench.store.shared().trees.clears(tree.1));
    bench.drain();
    assert!(bench.store.leaves(tree.0, tree.1) != Some(leaves::none()), "a fresh one mends");
}

#[test]
fn a_run_is_exactly_a_partition_and_runs_that_adjoin_are_one() {
    for partitions in [1, 4, 256] {
        for number in 0..partitions {
            let (from, until) = run(PartitionId(number), partitions);
            let range = HashRange::of_partition(PartitionId(number), partitions);
            let within = |hash: u64| {
                let at = [&hash.to_be_bytes()[..], &[0; 8], b"k"].concat();
                from <= at && at < until
            };
            assert!(within(range.first().0) && within(range.last().0));
            assert!(range.first().0.checked_sub(1).is_none_or(|before| !within(before)));
            assert!(range.last().0.checked_add(1).is_none_or(|behind| !within(behind)));
        }
    }
    let some = BTreeSet::from([1, 2, 4, 255].map(PartitionId));
    let joined = runs(&some, 256);
    let bounds = |first, last| (run(PartitionId(first), 256).0, run(PartitionId(last), 256).1);
    assert_eq!(joined, [bounds(1, 2), bounds(4, 4), bounds(255, 255)]);
}
