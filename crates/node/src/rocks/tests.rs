//! The store as a whole, and what the tests of its parts write and damage.

use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anello_gossip::MembershipStore;
use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{Epoch, KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    merkle::{EntryDigest, HashRange, leaf_of},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};
use anello_replica::store::{
    CachedRead, Commit, NotTaken, Store, Summary, VnodeRecord, conformance,
};

use super::{
    RocksStore,
    commit::{Change, Flag},
    keys::{self, Family},
    leaves,
};
use crate::config::Durability;

pub(crate) mod damage;
#[path = "../../tests/fleet/disk.rs"]
#[allow(dead_code, unreachable_pub)]
pub(crate) mod disk;
pub(crate) mod rings;

/// Long enough for anything that is to happen on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const PARTITIONS: u32 = 256;

pub(crate) fn key(keyspace: u64, number: u64) -> DataKey {
    // Scattered, as hashes are.
    let hash = KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let key = Key::new(format!("key-{number}").into_bytes()).expect("within the bound");
    DataKey { hash, keyspace: KeyspaceId(keyspace), key }
}

pub(crate) fn versions(number: u64, bytes: usize) -> Versions {
    let value = Value::new(vec![number as u8; bytes]).expect("within the bound");
    version(number, Content::Value(value))
}

pub(crate) fn partition_of(key: &DataKey) -> PartitionId {
    key.hash.partition(PARTITIONS)
}

/// The same of bytes that can't be compressed.
pub(super) fn noise(number: u64, bytes: usize) -> Versions {
    let mut state = number;
    let mut next = || {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        (state >> 56) as u8
    };
    let value = (0..bytes).map(|_| next()).collect::<Vec<_>>();
    version(number, Content::Value(Value::new(value).expect("within the bound")))
}

pub(super) fn tombstone(number: u64) -> Versions {
    version(number, Content::Tombstone)
}

fn version(number: u64, content: Content) -> Versions {
    let actor = ActorId { incarnation: Incarnation(7), birth: 1 };
    Versions::from(Version {
        dot: Dot { actor, counter: number + 1 },
        past: Context::new(),
        write_id: WriteId(number.into()),
        time: HybridTime::from_wall_ms(number),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content,
    })
}

pub(super) fn commit(key: &DataKey, versions: Versions) -> Commit {
    let versions = Arc::new(versions);
    Commit {
        partition: PartitionId(0),
        key: key.clone(),
        replaced: Summary::default(),
        versions,
        vnode_record: None,
    }
}

pub(crate) fn write(store: &RocksStore, key: &DataKey, versions: Versions) {
    write_with(store, key, versions, None);
}

pub(crate) fn write_with(
    store: &RocksStore,
    key: &DataKey,
    versions: Versions,
    vnode_record: Option<VnodeRecord>,
) {
    let (done, outcome) = mpsc::channel();
    let done = Box::new(move |result| done.send(result).expect("the test listens"));
    let commit = Commit { vnode_record, ..commit(key, versions) };
    store.commit(commit, done).expect("room");
    outcome.recv().expect("told").expect("durable");
}

pub(crate) fn open(dir: &tempfile::TempDir) -> Arc<RocksStore> {
    Arc::new(RocksStore::open(&dir.path().join("db"), Durability::Sync, PARTITIONS).expect("opens"))
}

pub(super) fn wait_until_held(store: &RocksStore, keyspaces: &[u64]) {
    let expected = keyspaces.iter().copied().map(KeyspaceId).collect();
    let began = Instant::now();
    while store.held_keyspaces() != expected {
        assert!(began.elapsed() < PATIENCE, "still held: {:?}", store.held_keyspaces());
        std::thread::yield_now();
    }
}

/// Closes a store and opens it again, once its sweep has let go of it.
pub(super) fn reopen(store: Arc<RocksStore>, dir: &tempfile::TempDir) -> Arc<RocksStore> {
    drop(store);
    let began = Instant::now();
    loop {
        match RocksStore::open(&dir.path().join("db"), Durability::Sync, PARTITIONS) {
            Ok(store) => return Arc::new(store),
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::yield_now();
    }
}

pub(super) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "not {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A tree in memory is what is on disk, and what its data says.
pub(super) fn tree_agrees(store: &RocksStore, tree: (KeyspaceId, PartitionId)) {
    // Not for the whole file: both ports have a `read`.
    use anello_antientropy::store::TreeStore;

    let (keyspace, partition) = tree;
    let mut expected = leaves::none();
    let range = HashRange::of_partition(partition, PARTITIONS);
    let data = store.entries(keyspace, range, None, usize::MAX).expect("readable");
    for entry in data.entries {
        let digest = EntryDigest::of(&entry.key, entry.digest);
        expected[leaf_of(entry.key.hash, PARTITIONS)].toggle(digest);
    }
    let in_memory = store.leaves(keyspace, partition).expect("it is trusted");
    assert!(in_memory == expected, "the leaves of {tree:?} in memory");
    let on_disk = store.shared().stored_leaves(tree, None).expect("readable");
    assert!(on_disk == expected, "the leaves of {tree:?} on disk");
}

/// How many keys there are on disk, of all keyspaces.
fn entries(store: &RocksStore) -> usize {
    entries_of(store, Family::Data)
}

pub(super) fn entries_of(store: &RocksStore, family: Family) -> usize {
    let shared = store.shared();
    shared.db.iterator_cf(shared.family(family), rocksdb::IteratorMode::Start).count()
}

#[test]
fn is_a_store() {
    let dirs = std::sync::Mutex::new(Vec::new());
    conformance::check(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let store = open(&dir);
        dirs.lock().expect("not poisoned").push(dir);
        store
    });
    let dir = tempfile::tempdir().expect("a directory");
    conformance::check_reopening(|| open(&dir));
}

#[test]
fn it_is_empty_until_something_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    assert_eq!(store.is_empty(), Ok(true));
    write(&store, &key(1, 1), versions(1, 1));
    assert_eq!(store.is_empty(), Ok(false));
}

#[test]
fn the_membership_record_is_replaced_as_a_whole_and_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    assert_eq!(store.load(), Ok(None));
    for record in [b"one".to_vec(), b"two".to_vec()] {
        let (done, outcome) = mpsc::channel();
        store.save(record, Box::new(move |result| done.send(result).expect("the test listens")));
        assert_eq!(outcome.recv(), Ok(Ok(())));
    }
    drop(store);
    let store = open(&dir);
    assert_eq!(store.load(), Ok(Some(b"two".to_vec())));
    assert_eq!(store.is_empty(), Ok(false), "a node that is a member is not new");
}

#[test]
fn a_cached_read_says_when_the_disk_must_be_asked() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let hit = CachedRead::Hit(versions(1, 1_000));
    write(&store, &key(1, 1), versions(1, 1_000));
    assert_eq!(store.read_cached(&key(1, 1)), Ok(hit.clone()));
    assert_eq!(store.read_cached(&key(1, 2)), Ok(CachedRead::Hit(Versions::new())));
    drop(store);
    // Opening writes what the log held into a file, and leaves its blocks out of the cache.
    let store = open(&dir);
    assert_eq!(store.read_cached(&key(1, 1)), Ok(CachedRead::WouldBlock));
    assert_eq!(store.read(&key(1, 1)), Ok(versions(1, 1_000)));
    assert_eq!(store.read_cached(&key(1, 1)), Ok(hit));
}

#[test]
fn what_a_dropped_keyspace_leaves_is_swept_away_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for number in 0..2_500 {
        let keyspace = if number % 5 == 0 { 1 } else { 4 };
        let commit = commit(&key(keyspace, number), versions(number, 10));
        store.commit(commit, Box::new(|_| ())).expect("room");
    }
    write(&store, &key(9, 0), versions(0, 10));
    // Keyspace 4 was dropped before epoch 6; what keyspace 9 is, this state can't know.
    store.sweep(&BTreeSet::from([KeyspaceId(1)]), Epoch(6));
    wait_until_held(&store, &[1, 9]);
    for number in 0..2_500 {
        let (kept, gone) = (store.read(&key(1, number)), store.read(&key(4, number)));
        assert_eq!(kept.expect("readable").is_empty(), number % 5 != 0);
        assert_eq!(gone, Ok(Versions::new()));
    }
    let store = reopen(store, &dir);
    assert_eq!(store.held_keyspaces(), BTreeSet::from([1, 9].map(KeyspaceId)));
}

#[test]
fn a_sweep_that_a_restart_cuts_short_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for number in 0..2_500 {
        Store::commit(&*store, commit(&key(4, number), versions(number, 10)), Box::new(|_| ()))
            .expect("room");
    }
    write(&store, &key(1, 0), versions(0, 10));
    store.sweep(&BTreeSet::from([KeyspaceId(1)]), Epoch(6));
    let store = reopen(store, &dir);
    store.sweep(&BTreeSet::from([KeyspaceId(1)]), Epoch(6));
    wait_until_held(&store, &[1]);
    assert_eq!(entries(&store), 1, "nothing of the other is left");
}

#[test]
fn what_is_queued_as_a_keyspace_is_dropped_is_swept_too_and_no_more_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for number in 0..1_000 {
        Store::commit(&*store, commit(&key(4, number), versions(number, 10)), Box::new(|_| ()))
            .expect("room");
    }
    store.sweep(&BTreeSet::from([KeyspaceId(1)]), Epoch(6));
    let late = store.commit(commit(&key(4, 0), versions(0, 10)), Box::new(|_| ()));
    assert!(late.is_err(), "its vnode has yet to hear of it");
    // A keyspace of the same name has another id, and begins empty.
    write(&store, &key(7, 1), versions(1, 10));
    assert_eq!(store.read(&key(7, 2)), Ok(Versions::new()));
    wait_until_held(&store, &[7]);
    assert_eq!(entries(&store), 1);
}

#[test]
fn keyspaces_that_are_dropped_one_after_the_other_are_all_swept() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    for keyspace in 1..=3 {
        write(&store, &key(keyspace, keyspace), versions(keyspace, 10));
    }
    for epoch in 4..=6 {
        let left = (epoch - 2..=3).map(KeyspaceId).collect();
        store.sweep(&left, Epoch(epoch));
    }
    wait_until_held(&store, &[]);
    assert_eq!(entries(&store), 0);
}

#[test]
fn a_damaged_record_is_an_error_and_never_an_empty_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(&dir);
    let changes =
        vec![Change { family: Family::Data, key: keys::data(&key(1, 1)), value: Some(vec![9, 9]) }];
    let (done, outcome) = mpsc::channel();
    let done = Box::new(move |result| done.send(result).expect("the test listens"));
    assert!(store.submit(changes, Flag::Holds(KeyspaceId(1)), done).is_ok());
    outcome.recv().expect("told").expect("durable");
    let error = store.read(&key(1, 1)).expect_err("damaged");
    assert!(error.to_string().contains("format 9"), "{error}");
}

/// Votes are taken as long as the log has room, and wait for more when it has none; the store writes again by
/// itself.
#[test]
fn votes_outlast_a_disk_without_any_room_and_the_store_recovers() {
    const VOTES: usize = 100;
    let dir = tempfile::tempdir().expect("a directory");
    let Some(disk) = disk::SmallDisk::mount(dir.path(), 200) else { return };
    let store = open(&dir);
    write(&store, &key(1, 1), versions(1, 1_000));
    disk.fill(0);
    let (told, outcomes) = mpsc::channel();
    // More than RocksDB has set aside for its log.
    for number in 0..VOTES {
        let told = told.clone();
        let record = vec![number as u8; 1 << 20];
        store.save(record, Box::new(move |saved| drop(told.send(saved))));
    }
    let began = Instant::now();
    while !store.shared().room.has_failed() {
        assert!(began.elapsed() < PATIENCE, "the log had room for all");
        std::thread::yield_now();
    }
    let refused = store.commit(commit(&key(1, 2), versions(2, 10)), Box::new(|_| ()));
    assert_eq!(refused, Err(NotTaken::DiskFull));
    assert_eq!(store.read(&key(1, 1)), Ok(versions(1, 1_000)), "reads are served");
    disk.make_room();
    for _ in 0..VOTES {
        assert_eq!(outcomes.recv_timeout(PATIENCE), Ok(Ok(())), "no vote fails");
    }
    eprintln!("votes were taken after {:?}", began.elapsed());
    assert_eq!(store.load(), Ok(Some(vec![VOTES as u8 - 1; 1 << 20])), "the last one stays");
    let began = Instant::now();
    while store.commit(commit(&key(1, 2), versions(2, 10)), Box::new(|_| ())).is_err() {
        assert!(began.elapsed() < PATIENCE, "no data is taken");
        std::thread::yield_now();
    }
    write(&store, &key(1, 3), versions(3, 10));
    drop(store);
    let store = open(&dir);
    assert_eq!(store.read(&key(1, 3)), Ok(versions(3, 10)));
    assert_eq!(*store.trouble().borrow(), None);
}
