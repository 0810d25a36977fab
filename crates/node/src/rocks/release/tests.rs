//! What is released, what is not, and that nothing is once it may be held again.

use std::time::Duration;

use anello_protocol::{
    causality::Incarnation, cluster::MemberState, key::DataKey, version::Versions,
};
use anello_replica::store::{Store, VnodeRecord};
use rand::RngExt;

use super::*;
use crate::rocks::tests::{
    PARTITIONS, commit as commit_of, entries_of, key, noise, open, partition_of, reopen,
    rings::{self, holds, node},
    tombstone, tree_agrees, versions, wait_until, write_with,
};

/// Three replicas of one, one of the other.
const KEYSPACES: &[(u64, u16)] = &[(1, 3), (4, 1)];
const FOUR: &[&str] = &["a", "b", "c", "d"];

fn all_keys() -> Vec<DataKey> {
    (0..3_000).map(|number| key(if number % 2 == 0 { 1 } else { 4 }, number)).collect()
}

/// What is written of a key.
fn content(number: usize) -> Versions {
    match number % 10 {
        0 | 1 => tombstone(number as u64),
        _ => versions(number as u64, 100),
    }
}

fn fill(store: &RocksStore) -> Vec<DataKey> {
    let keys = all_keys();
    for (number, key) in keys.iter().enumerate().skip(1) {
        write_quickly(store, key, content(number));
    }
    write_with(store, &keys[0], content(0), Some(record()));
    keys
}

/// What the vnode remembers that all commits of these tests are of.
fn record() -> VnodeRecord {
    VnodeRecord { incarnation: Incarnation(9), births_reserved: 1_024 }
}

/// Whether a tree is left that a node doesn't hold.
fn is_released(store: &RocksStore, view: &View, name: &str) -> bool {
    let trees = store.shared().trees.read();
    trees.keys().all(|(keyspace, partition)| view.holds(&node(name), *keyspace, *partition))
}

/// Exactly what a node holds is there, on disk and in memory, and the trees say so.
fn holds_exactly(store: &RocksStore, view: &View, name: &str, keys: &[DataKey]) {
    let (mut data, mut deleted) = (0, 0);
    for (number, key) in keys.iter().enumerate() {
        let is_held = holds(view, name, key.keyspace.0, partition_of(key));
        let expected = if is_held { content(number) } else { Versions::new() };
        assert_eq!(Store::read(store, key), Ok(expected.clone()), "{key:?}");
        data += usize::from(is_held);
        deleted += usize::from(is_held && expected.is_deleted());
    }
    assert_eq!(entries_of(store, Family::Data), data);
    assert_eq!(entries_of(store, Family::Tombstones), deleted);
    for keyspace in [1, 4].map(KeyspaceId) {
        for partition in (0..PARTITIONS).map(PartitionId) {
            tree_agrees(store, (keyspace, partition));
        }
    }
}

#[test]
fn what_is_not_held_goes_and_nothing_else_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let keys = fill(&store);
    let view = rings::settled(6, FOUR, KEYSPACES);
    let (mut whole, mut part) = (0, 0);
    for partition in (0..PARTITIONS).map(PartitionId) {
        match [1, 4].map(|keyspace| holds(&view, "d", keyspace, partition)) {
            [false, false] => whole += 1,
            [true, true] => {}
            _ => part += 1,
        }
    }
    assert!(whole > 20 && part > 20, "{whole} {part}: both ways are gone");
    store.release(Arc::clone(&view), &node("d"));
    wait_until("released", || is_released(&store, &view, "d"));
    holds_exactly(&store, &view, "d", &keys);
    assert_eq!(
        store.load_vnode(PartitionId(0)),
        Ok(Some(record())),
        "or it would reissue its dots"
    );
    let store = reopen(store, &dir);
    holds_exactly(&store, &view, "d", &keys);
    assert_eq!(store.load_vnode(PartitionId(0)), Ok(Some(record())));
}

#[test]
fn the_old_owners_keep_all_until_a_partition_is_done() {
    use anello_protocol::cluster::Phase::{Done, Filling, Serving};

    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let keys = fill(&store);
    let before = rings::settled(5, &FOUR[..3], KEYSPACES);
    store.release(Arc::clone(&before), &node("a"));
    wait_until("released", || is_released(&store, &before, "a"));
    holds_exactly(&store, &before, "a", &keys);
    for (epoch, phase) in [(6, Filling), (7, Serving), (8, Done)] {
        store.keep_all();
        let view = rings::joining(epoch, 6, FOUR, KEYSPACES, phase);
        store.release(Arc::clone(&view), &node("a"));
        wait_until("at rest", || !store.gate().inner().is_running);
        let expected = if phase == Done { &view } else { &before };
        holds_exactly(&store, expected, "a", &keys);
    }
}

#[test]
fn a_release_that_a_restart_cuts_short_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut store = open(&dir);
    let keys = fill(&store);
    let view = rings::settled(6, FOUR, KEYSPACES);
    for pause in [0, 5, 40] {
        store.release(Arc::clone(&view), &node("d"));
        thread::sleep(Duration::from_millis(pause));
        store = reopen(store, &dir);
    }
    assert!(!is_released(&store, &view, "d"), "or nothing was cut short");
    store.release(Arc::clone(&view), &node("d"));
    wait_until("released", || is_released(&store, &view, "d"));
    holds_exactly(&store, &view, "d", &keys);
}

/// A step that is under way is waited for, and none begins, whatever the moment.
#[test]
fn what_may_be_held_again_stays_from_the_moment_on_that_it_may() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let keys = all_keys();
    let without = rings::settled(6, FOUR, KEYSPACES);
    let with = rings::settled(7, &["d"], KEYSPACES);
    let mut was_cut_short = 0;
    for round in 0..40 {
        for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 3 == 0) {
            write_quickly(&store, key, content(number));
        }
        drain(&store);
        store.release(Arc::clone(&without), &node("d"));
        thread::sleep(Duration::from_micros(rand::rng().random_range(0..60_000)));
        store.keep_all();
        let there = entries_of(&store, Family::Data);
        was_cut_short += usize::from(!is_released(&store, &without, "d"));
        // Half of the time it is held again, else the node goes over to yet another state.
        if round % 2 == 0 {
            store.release(Arc::clone(&with), &node("d"));
        }
        thread::sleep(Duration::from_millis(25));
        assert_eq!(entries_of(&store, Family::Data), there, "round {round}");
        store.keep_all();
    }
    assert!(was_cut_short > 0, "the test is of no use here");
}

/// Nobody waits for its word, so it may have what nobody else has.
#[test]
fn one_that_was_taken_out_keeps_what_it_has() {
    let mut state = rings::cluster(6, FOUR, KEYSPACES);
    state.members.get_mut(&node("d")).expect("a member").state = MemberState::Removed;
    let view = Arc::new(View::of(Arc::new(state)).expect("a ring"));
    let tree = (KeyspaceId(1), PartitionId(3));
    let plan = |name: &str| {
        let standing = Standing { view: Arc::clone(&view), node: node(name) };
        Plan::under(&standing, [tree].into_iter())
    };
    assert!(plan("d").is_empty());
    // One of a keyspace that isn't there any more is none of its business either.
    let standing = Standing { view: rings::settled(7, &["a"], &[(4, 1)]), node: node("d") };
    assert!(Plan::under(&standing, [tree].into_iter()).is_empty());
}

#[test]
fn the_space_comes_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for number in 0..4_000 {
        write_quickly(&store, &key(1, number), noise(number, 10_000));
    }
    drain(&store);
    let shared = store.shared();
    let data = shared.family(Family::Data);
    shared.db.flush_cf(data).expect("flushed");
    let bytes = || shared.db.get_approximate_sizes_cf(data, &[Range::new(b"", keys_end())])[0];
    let before = bytes();
    assert!(before > 30_000_000, "{before}");
    let view = rings::settled(6, FOUR, &[(1, 1)]);
    store.release(Arc::clone(&view), &node("d"));
    wait_until("at rest", || !store.gate().inner().is_running);
    let held = view.held_partitions(&node("d")).len() as u64;
    let after = bytes();
    let expected = before * held / u64::from(PARTITIONS);
    assert!(after < expected * 3 / 2, "{before} -> {after}, expected about {expected}");
}

/// Waits for all that was given in.
fn drain(store: &RocksStore) {
    assert!(commit(store, Vec::new(), Flag::Unconcerned).is_ok());
}

fn keys_end() -> &'static [u8] {
    crate::rocks::keys::BEHIND_ALL
}

fn write_quickly(store: &RocksStore, key: &DataKey, versions: Versions) {
    store.commit(commit_of(key, versions), Box::new(|_| ())).expect("room");
}
