//! Groups that fail, and of which nobody knows whether they were kept.

use std::sync::Mutex;

use super::*;
use crate::rocks::{
    commit::{Flag, Sink, Submission},
    keeper::{Mend, Upkeep},
    shared::DatabaseSink,
};

/// What becomes of the next groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Sound,
    /// They are said to have failed, and are not on disk.
    Lost,
    /// They are said to have failed, and are on disk.
    Kept,
}

struct Faulty {
    inner: DatabaseSink,
    fate: Arc<Mutex<Fate>>,
}

impl Sink for Faulty {
    fn write(&mut self, group: &mut [Submission]) -> Result<(), String> {
        match *self.fate.lock().expect("not poisoned") {
            Fate::Sound => return self.inner.write(group),
            Fate::Lost => {}
            Fate::Kept => self.inner.write_batch(group)?,
        }
        self.inner.settle(group, false);
        Err("the disk failed".into())
    }
}

struct Bench {
    dir: tempfile::TempDir,
    fate: Arc<Mutex<Fate>>,
    store: Option<RocksStore>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut bench = Self { dir, fate: Arc::new(Mutex::new(Fate::Sound)), store: None };
        bench.reopen();
        bench
    }

    fn reopen(&mut self) {
        self.store = None;
        self.fate(Fate::Sound);
        let fate = Arc::clone(&self.fate);
        let path = self.dir.path().join("db");
        let wrap = |inner| Faulty { inner, fate };
        let store = RocksStore::open_with(&path, Durability::Os, PARTITIONS, wrap);
        self.store = Some(store.expect("opens"));
    }

    fn fate(&self, fate: Fate) {
        *self.fate.lock().expect("not poisoned") = fate;
    }

    fn store(&self) -> &RocksStore {
        self.store.as_ref().expect("open")
    }

    fn replace(
        &self,
        key: &DataKey,
        believed: &Versions,
        versions: &Versions,
    ) -> Result<(), StoreError> {
        replace(self.store(), key, believed, versions).recv().expect("told")
    }

    fn is_trusted(&self, key: &DataKey) -> bool {
        self.store().leaves(key.keyspace, key.hash.partition(PARTITIONS)).is_some()
    }

    fn scrub(&self, key: &DataKey) -> u32 {
        let partition = key.hash.partition(PARTITIONS);
        self.store().scrub(key.keyspace, partition).expect("it scrubs").mended
    }

    fn agrees(&self, held: &[(&DataKey, &Versions)], when: &str) {
        let held = held.iter().map(|(key, versions)| ((*key).clone(), (*versions).clone()));
        agrees(self.store(), &held.collect(), when);
    }
}

#[test]
fn a_tree_is_not_trusted_after_a_failure_until_it_was_scrubbed() {
    for fate in [Fate::Lost, Fate::Kept] {
        let bench = Bench::new();
        let (key, other) = (key(ONE, 1), key(TWO, 1));
        let (first, second) = (value(1), value(2));
        bench.replace(&key, &Versions::new(), &first).expect("sound");
        bench.replace(&other, &Versions::new(), &first).expect("sound");
        bench.fate(fate);
        assert!(bench.replace(&key, &first, &second).is_err());
        bench.fate(Fate::Sound);
        assert!(!bench.is_trusted(&key));
        assert!(bench.is_trusted(&other), "that was not touched");
        bench.scrub(&key);
        assert!(bench.is_trusted(&key));
        let held = if fate == Fate::Kept { &second } else { &first };
        bench.agrees(&[(&key, held), (&other, &first)], &format!("{fate:?}"));
    }
}

#[test]
fn what_a_vnode_believes_after_a_failure_does_no_harm() {
    for fate in [Fate::Lost, Fate::Kept] {
        // Scrubbed before or after the vnode commits what follows from its belief.
        for scrubs_first in [false, true] {
            let mut bench = Bench::new();
            let key = key(ONE, 1);
            let (first, deleted, third, fourth) = (value(1), tombstone(2), value(3), value(4));
            bench.replace(&key, &Versions::new(), &first).expect("sound");
            bench.fate(fate);
            assert!(bench.replace(&key, &first, &deleted).is_err());
            bench.fate(Fate::Sound);
            if scrubs_first {
                bench.scrub(&key);
            }
            // Of one commit it was wrong, of the next it is right again.
            let believed = if fate == Fate::Kept { &first } else { &deleted };
            let one = replace(bench.store(), &key, believed, &third);
            let two = replace(bench.store(), &key, &third, &fourth);
            for outcome in [one, two] {
                outcome.recv().expect("told").expect("sound");
            }
            assert_eq!(bench.is_trusted(&key), scrubs_first);
            let when = format!("{fate:?}, scrubbed first: {scrubs_first}");
            if !scrubs_first {
                bench.reopen();
                assert!(!bench.is_trusted(&key), "a restart forgets no doubt, {when}");
                assert_eq!(bench.scrub(&key), 0, "what is on disk was right all along, {when}");
            }
            bench.agrees(&[(&key, &fourth)], &when);
            bench.reopen();
            bench.agrees(&[(&key, &fourth)], &format!("{when}, after a restart"));
        }
    }
}

#[test]
fn after_a_failure_and_a_restart_with_nothing_between_all_is_well() {
    for fate in [Fate::Lost, Fate::Kept] {
        let mut bench = Bench::new();
        let key = key(ONE, 1);
        let (first, second) = (value(1), value(2));
        bench.replace(&key, &Versions::new(), &first).expect("sound");
        bench.fate(fate);
        assert!(bench.replace(&key, &first, &second).is_err());
        bench.reopen();
        let held = if fate == Fate::Kept { &second } else { &first };
        bench.agrees(&[(&key, held)], &format!("{fate:?}"));
    }
}

#[test]
fn a_scrub_that_fails_leaves_the_tree_in_doubt() {
    for fate in [Fate::Lost, Fate::Kept] {
        let mut bench = Bench::new();
        let key = key(ONE, 1);
        let first = value(1);
        bench.replace(&key, &Versions::new(), &first).expect("sound");
        let shared = bench.store().shared();
        let at = keys::leaf(ONE, key.hash.partition(PARTITIONS), 9);
        let trees = shared.family(Family::Trees);
        shared.db.merge_cf(trees, at, 5_u64.to_le_bytes()).expect("written");
        bench.fate(fate);
        let partition = key.hash.partition(PARTITIONS);
        assert!(bench.store().scrub(ONE, partition).is_err());
        assert!(!bench.is_trusted(&key));
        bench.fate(Fate::Sound);
        bench.scrub(&key);
        bench.agrees(&[(&key, &first)], &format!("{fate:?}"));
        bench.reopen();
        bench.agrees(&[(&key, &first)], &format!("{fate:?}, after a restart"));
    }
}

#[test]
fn a_failure_while_a_tree_is_scrubbed_is_not_forgotten() {
    let bench = Bench::new();
    let key = key(ONE, 1);
    let (first, second) = (value(1), value(2));
    bench.replace(&key, &Versions::new(), &first).expect("sound");
    // What a scrub found before the failure.
    let mend = Mend {
        tree: (ONE, key.hash.partition(PARTITIONS)),
        differences: leaves::none(),
        listed_wrong: Vec::new(),
        doubt: None,
        clears: 0,
        mended: Arc::default(),
    };
    bench.fate(Fate::Kept);
    assert!(bench.replace(&key, &first, &second).is_err());
    bench.fate(Fate::Sound);
    let (sender, outcome) = mpsc::channel();
    let done = Box::new(move |result| sender.send(result).expect("the test listens"));
    let upkeep = Upkeep::Mend(Box::new(mend));
    let queued = bench.store().submit_with(Vec::new(), upkeep, Flag::Holds(ONE), done);
    queued.expect("room");
    outcome.recv().expect("told").expect("sound");
    assert!(!bench.is_trusted(&key));
    bench.scrub(&key);
    bench.agrees(&[(&key, &second)], "after another scrub");
}
