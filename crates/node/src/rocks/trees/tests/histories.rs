//! Random writes, restarts, dropped keyspaces, and stores of older versions.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use anello_protocol::id::Epoch;
use rand::RngExt;
use rocksdb::{ColumnFamilyDescriptor, DB, Options};

use super::*;
use crate::rocks::{
    opening::OpenError,
    options,
    tests::{entries_of, wait_until_held},
};

/// Writes, deletes and forgets keys of two keyspaces, many on their way at a time.
fn live(
    store: &RocksStore,
    held: &mut BTreeMap<DataKey, Versions>,
    random: &mut StdRng,
    from: u64,
) {
    let mut outcomes = Vec::new();
    for counter in from..from + 2_000 {
        let keyspace = if random.random_bool(0.5) { ONE } else { TWO };
        let key = key(keyspace, random.random_range(0..300));
        let before = held.get(&key).cloned().unwrap_or_default();
        let after = match random.random_range(0..10) {
            0..6 => value(counter),
            6..9 => tombstone(counter),
            _ => Versions::new(),
        };
        outcomes.push(replace(store, &key, &before, &after));
        match after.is_empty() {
            true => held.remove(&key),
            false => held.insert(key, after),
        };
    }
    for outcome in outcomes {
        outcome.recv().expect("told").expect("durable");
    }
}

#[test]
fn leaves_follow_any_history_and_any_restart() {
    let mut random = random("leaves_follow_any_history_and_any_restart");
    let dir = tempfile::tempdir().expect("a directory");
    let mut held = BTreeMap::new();
    for round in 0..4 {
        let store = open(&dir);
        agrees(&store, &held, "after a restart");
        live(&store, &mut held, &mut random, 1 + round * 10_000);
        agrees(&store, &held, "after writes");
        if round % 2 == 0 {
            store.end().expect("written");
        }
    }
    agrees(&open(&dir), &held, "in the end");
}

#[test]
fn leaves_are_exact_while_scrubs_run_beside_writes() {
    let mut random = random("leaves_are_exact_while_scrubs_run_beside_writes");
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let mut held = BTreeMap::new();
    live(&store, &mut held, &mut random, 1);
    let end = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    for partition in 0..PARTITIONS {
                        let scrubbed = store.scrub(ONE, PartitionId(partition)).expect("room");
                        assert_eq!(scrubbed.mended, 0, "nothing was wrong");
                    }
                }
            });
        }
        for round in 1..5 {
            live(&store, &mut held, &mut random, round * 10_000);
        }
        end.store(true, Ordering::Relaxed);
    });
    agrees(&store, &held, "after scrubs beside writes");
}

#[test]
fn what_is_wrong_in_memory_is_mended_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let mut held = BTreeMap::new();
    live(&store, &mut held, &mut random("what_is_wrong_in_memory_is_mended_too"), 1);
    let tree = (ONE, PartitionId(1));
    store.shared().trees.write().get_mut(&tree).expect("there").leaves[3].0 ^= 1;
    assert_eq!(store.scrub(tree.0, tree.1).expect("it scrubs").mended, 1);
    agrees(&store, &held, "after a scrub");
}

#[test]
fn a_list_of_tombstones_that_is_wrong_is_mended() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let mut held = BTreeMap::new();
    live(&store, &mut held, &mut random("a_list_of_tombstones_that_is_wrong_is_mended"), 1);
    let shared = store.shared();
    let list = shared.family(Family::Tombstones);
    for (key, versions) in &held {
        let at = keys::data(key);
        match versions.is_deleted() {
            true => shared.db.delete_cf(list, at).expect("written"),
            false => shared.db.put_cf(list, at, [1; 17]).expect("written"),
        }
    }
    shared.db.put_cf(list, keys::data(&key(ONE, 1_000)), [1; 17]).expect("written");
    for keyspace in [ONE, TWO] {
        for partition in 0..PARTITIONS {
            let scrubbed = store.scrub(keyspace, PartitionId(partition)).expect("it scrubs");
            assert_eq!(scrubbed.mended, 0, "the leaves were right");
        }
    }
    agrees(&store, &held, "after a scrub");
}

#[test]
fn a_dropped_keyspace_leaves_no_tree() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(&dir));
    let mut held = BTreeMap::new();
    live(&store, &mut held, &mut random("a_dropped_keyspace_leaves_no_tree"), 1);
    store.sweep(&BTreeSet::from([TWO]), Epoch(6));
    wait_until_held(&store, &[TWO.0]);
    held.retain(|key, _| key.keyspace == TWO);
    agrees(&store, &held, "after the sweep");
    assert!(store.shared().trees.read().keys().all(|(keyspace, _)| *keyspace == TWO));
    let deleted = held.values().filter(|versions| versions.is_deleted()).count();
    assert_eq!(entries_of(&store, Family::Tombstones), deleted);
    drop(store);
    // The sweep's thread lets go of it in its own time.
    let store = loop {
        let path = dir.path().join("db");
        match RocksStore::open(&path, Durability::Os, PARTITIONS) {
            Ok(store) => break store,
            Err(_) => std::thread::yield_now(),
        }
    };
    agrees(&store, &held, "after a restart");
}

#[test]
fn a_store_of_an_older_version_gets_its_trees_when_it_is_opened() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut held = BTreeMap::new();
    let store = open(&dir);
    let name = "a_store_of_an_older_version_gets_its_trees_when_it_is_opened";
    live(&store, &mut held, &mut random(name), 1);
    drop(store);
    {
        // As the version before left it.
        let cache = options::cache();
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), options::family(family, &cache))
        });
        let path = dir.path().join("db");
        let mut db = DB::open_cf_descriptors(&Options::default(), path, families).expect("opens");
        let meta = db.cf_handle("meta").expect("there");
        db.delete_cf(meta, keys::LAYOUT).expect("written");
        for family in [Family::Trees, Family::Tombstones, Family::Hints] {
            db.drop_cf(family.name()).expect("dropped");
        }
    }
    agrees(&open(&dir), &held, "after it was brought up");
    let store = open(&dir);
    agrees(&store, &held, "after a restart");
    // An attempt that was cut short is begun again.
    let shared = store.shared();
    shared.db.delete_cf(shared.family(Family::Meta), keys::LAYOUT).expect("written");
    drop(store);
    agrees(&open(&dir), &held, "after a second attempt");
}

#[test]
fn a_store_for_another_number_of_partitions_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(&dir));
    let path = dir.path().join("db");
    let refused = RocksStore::open(&path, Durability::Os, 8).err().expect("refused");
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    assert!(refused.to_string().contains("made for 4 partitions, the settings say 8"), "{refused}");
}
