//! What every implementation of [`Store`] must do, as checks that its own tests call.
//!
//! [`check`] takes a function that opens an empty store, and [`check_reopening`] one that opens the
//! same place again and again, for stores that outlive a process. Both panic, with a sentence, at the
//! first thing that is not so.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{KeyspaceId, KeyspaceName, PartitionId},
    key::{DataKey, Key, KeyHash},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};

use super::{CachedRead, Commit, Store, StoreError, Summary, VnodeRecord};

/// How long a commit may take in a test.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks everything that shows within one life of a store.
pub fn check(open: impl Fn() -> Arc<dyn Store>) {
    an_empty_store_holds_nothing(&*open());
    a_commit_replaces_what_was_kept(&*open());
    commits_of_a_vnode_are_kept_in_order(&*open());
    keyspaces_are_apart(&*open());
    vnodes_are_remembered_with_the_data(&*open());
    all_sizes_of_values_come_back(&*open());
}

/// Checks what must outlive the store's object: `open` opens the same place every time.
pub fn check_reopening(open: impl Fn() -> Arc<dyn Store>) {
    let store = open();
    let record = VnodeRecord { incarnation: Incarnation(77), births_reserved: 2048 };
    let key = key(KeyspaceId(1), "kept");
    let kept = Arc::new(versions(3, b"value"));
    let partition = PartitionId(5);
    let commit = Commit {
        partition,
        key: key.clone(),
        versions: kept.clone(),
        replaced: Summary::default(),
        vnode_record: Some(record),
    };
    commit_and_wait(&*store, commit).expect("a healthy store commits");
    drop(store);

    let store = open();
    assert_eq!(store.read(&key), Ok((*kept).clone()), "what was committed is there again");
    assert_eq!(store.load_vnode(partition), Ok(Some(record)), "and the vnode's record with it");
}

fn an_empty_store_holds_nothing(store: &dyn Store) {
    assert_eq!(store.read(&key(KeyspaceId(1), "a")), Ok(Versions::new()));
    assert_eq!(store.load_vnode(PartitionId(0)), Ok(None));
}

fn a_commit_replaces_what_was_kept(store: &dyn Store) {
    let key = key(KeyspaceId(1), "a");
    for counter in 1..4 {
        let kept = versions(counter, b"v");
        keep(store, &key, &kept);
        assert_eq!(store.read(&key), Ok(kept.clone()), "a read shows the last commit, whole");
        match store.read_cached(&key) {
            Ok(CachedRead::Hit(found)) => assert_eq!(found, kept, "the cache shows nothing older"),
            Ok(CachedRead::WouldBlock) => {}
            Err(error) => panic!("a healthy store reads: {error}"),
        }
    }
}

fn commits_of_a_vnode_are_kept_in_order(store: &dyn Store) {
    let key = key(KeyspaceId(1), "a");
    let (sender, done) = mpsc::channel();
    let mut taken = 0;
    for counter in 1..=200 {
        let commit = Commit {
            partition: PartitionId(0),
            key: key.clone(),
            versions: Arc::new(versions(counter, b"v")),
            replaced: Summary::default(),
            vnode_record: Some(VnodeRecord {
                incarnation: Incarnation(1),
                births_reserved: counter,
            }),
        };
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send((counter, result)).unwrap_or_default());
        // A full queue is an answer too; what was taken before must still come out in order.
        if store.commit(commit, done).is_ok() {
            taken = counter;
        }
    }
    drop(sender);
    let mut last = 0;
    while let Ok((counter, result)) = done.recv_timeout(PATIENCE) {
        assert_eq!(result, Ok(()), "a healthy store commits");
        assert!(counter > last, "commit {counter} was done after {last}");
        last = counter;
    }
    assert_eq!(last, taken, "every commit that was taken is done");
    assert_eq!(store.read(&key), Ok(versions(taken, b"v")));
    let record = store.load_vnode(PartitionId(0)).expect("a healthy store reads");
    assert_eq!(record.map(|record| record.births_reserved), Some(taken));
}

fn keyspaces_are_apart(store: &dyn Store) {
    let (one, two) = (KeyspaceId(1), KeyspaceId(2));
    keep(store, &key(one, "a"), &versions(1, b"one"));
    assert_eq!(store.read(&key(two, "a")), Ok(Versions::new()));
    keep(store, &key(two, "a"), &versions(2, b"two"));
    assert_eq!(store.read(&key(one, "a")), Ok(versions(1, b"one")));
    assert_eq!(store.read(&key(two, "a")), Ok(versions(2, b"two")));
}

fn vnodes_are_remembered_with_the_data(store: &dyn Store) {
    let commit = |partition, vnode_record| Commit {
        partition: PartitionId(partition),
        key: key(KeyspaceId(1), "a"),
        versions: Arc::new(versions(1, b"v")),
        replaced: Summary::default(),
        vnode_record,
    };
    let record = VnodeRecord { incarnation: Incarnation(9), births_reserved: 1024 };
    commit_and_wait(store, commit(3, Some(record))).expect("a healthy store commits");
    commit_and_wait(store, commit(3, None)).expect("a healthy store commits");
    assert_eq!(store.load_vnode(PartitionId(3)), Ok(Some(record)), "no record changes nothing");
    assert_eq!(store.load_vnode(PartitionId(4)), Ok(None), "every vnode has its own");
}

fn all_sizes_of_values_come_back(store: &dyn Store) {
    for size in [0, 1, 1024, 64 << 10, 1 << 20] {
        let key = key(KeyspaceId(1), &format!("size-{size}"));
        let kept = versions(1, &vec![b'x'; size]);
        keep(store, &key, &kept);
        assert_eq!(store.read(&key), Ok(kept), "a value of {size} bytes");
    }
}

fn keep(store: &dyn Store, key: &DataKey, versions: &Versions) {
    let commit = Commit {
        partition: PartitionId(0),
        key: key.clone(),
        versions: Arc::new(versions.clone()),
        replaced: Summary::default(),
        vnode_record: None,
    };
    commit_and_wait(store, commit).expect("a healthy store commits");
}

fn commit_and_wait(store: &dyn Store, commit: Commit) -> Result<(), StoreError> {
    let (sender, done) = mpsc::channel();
    let done_sender = Box::new(move |result| sender.send(result).unwrap_or_default());
    store.commit(commit, done_sender).expect("an idle store has room");
    done.recv_timeout(PATIENCE).expect("a commit ends")
}

fn key(keyspace: KeyspaceId, key: &str) -> DataKey {
    let key = Key::new(key.as_bytes().to_vec()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace, key }
}

fn versions(counter: u64, value: &[u8]) -> Versions {
    let actor = ActorId { incarnation: Incarnation(1), birth: 1 };
    let past: Context = (1..counter).map(|counter| Dot { actor, counter }).collect();
    Versions::from(Version {
        dot: Dot { actor, counter },
        past,
        write_id: WriteId(counter.into()),
        time: HybridTime::from_wall_ms(counter),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(value.to_vec()).expect("within the bound")),
    })
}
