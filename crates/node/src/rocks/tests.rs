use std::{
    collections::BTreeSet,
    sync::{Arc, mpsc},
};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{Epoch, KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};

use anello_gossip::MembershipStore;
use anello_replica::store::{CachedRead, Commit, Store, conformance};

use super::{
    RocksStore,
    commit::{Change, Flag},
    keys::{self, Family},
};
use crate::config::Durability;

fn key(keyspace: u64, number: u64) -> DataKey {
    // Scattered, as hashes are.
    let hash = KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let key = Key::new(format!("key-{number}").into_bytes()).expect("within the bound");
    DataKey { hash, keyspace: KeyspaceId(keyspace), key }
}

fn versions(number: u64, bytes: usize) -> Versions {
    let actor = ActorId { incarnation: Incarnation(7), birth: 1 };
    Versions::from(Version {
        dot: Dot { actor, counter: number + 1 },
        past: Context::new(),
        write_id: WriteId(number.into()),
        time: HybridTime::from_wall_ms(number),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(vec![number as u8; bytes]).expect("within the bound")),
    })
}

fn commit(key: &DataKey, versions: Versions) -> Commit {
    let versions = Arc::new(versions);
    Commit { partition: PartitionId(0), key: key.clone(), versions, vnode_record: None }
}

fn write(store: &RocksStore, key: &DataKey, versions: Versions) {
    let (done, outcome) = mpsc::channel();
    let done = Box::new(move |result| done.send(result).expect("the test listens"));
    store.commit(commit(key, versions), done).expect("room");
    outcome.recv().expect("told").expect("durable");
}

fn open(dir: &tempfile::TempDir) -> Arc<RocksStore> {
    Arc::new(RocksStore::open(&dir.path().join("db"), Durability::Sync).expect("opens"))
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
    while store.holds_data(Some(KeyspaceId(4))) == Ok(true) {
        std::thread::yield_now();
    }
    for number in 0..2_500 {
        let (kept, gone) = (store.read(&key(1, number)), store.read(&key(4, number)));
        assert_eq!(kept.expect("readable").is_empty(), number % 5 != 0);
        assert_eq!(gone, Ok(Versions::new()));
    }
    drop(store);
    let store = open(&dir);
    let held = [1, 4, 9].map(|keyspace| store.holds_data(Some(KeyspaceId(keyspace))));
    assert_eq!(held, [Ok(true), Ok(false), Ok(true)]);
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
