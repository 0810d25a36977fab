//! The trees of a real store, against what was written to it: through random histories, restarts, groups of
//! which nobody knows whether they were kept, and stores of older versions.

mod faults;
mod histories;

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
};

use anello_antientropy::store::{Leaves, TreeStore, conformance};
use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    merkle::{EntryDigest, HashRange, leaf_of},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};
use anello_replica::store::{Commit, Store, StoreError, Summary};
use rand::{SeedableRng, rngs::StdRng};

use super::super::{
    RocksStore,
    keys::{self, Family},
    leaves,
};
use crate::config::Durability;

const PARTITIONS: u32 = 4;
const ONE: KeyspaceId = KeyspaceId(1);
const TWO: KeyspaceId = KeyspaceId(2);

fn open(dir: &tempfile::TempDir) -> RocksStore {
    RocksStore::open(&dir.path().join("db"), Durability::Os, PARTITIONS).expect("opens")
}

/// A seed that the test prints, so that a failure can be replayed.
fn random(name: &str) -> StdRng {
    let seed = std::env::var("ANELLO_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("{name}: ANELLO_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

fn key(keyspace: KeyspaceId, number: u64) -> DataKey {
    let hash = KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let key = Key::new(format!("key-{number}").into_bytes()).expect("within the bound");
    DataKey { hash, keyspace, key }
}

fn versions(counter: u64, content: Content) -> Versions {
    let actor = ActorId { incarnation: Incarnation(7), birth: 1 };
    Versions::from(Version {
        dot: Dot { actor, counter },
        past: Context::new(),
        write_id: WriteId(counter.into()),
        time: HybridTime::from_wall_ms(counter),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content,
    })
}

fn value(counter: u64) -> Versions {
    versions(counter, Content::Value(Value::new(vec![b'v'; 20]).expect("short")))
}

fn tombstone(counter: u64) -> Versions {
    versions(counter, Content::Tombstone)
}

/// Replaces what a key holds; `believed` is what it held as far as its vnode knows.
fn replace(
    store: &RocksStore,
    key: &DataKey,
    believed: &Versions,
    versions: &Versions,
) -> mpsc::Receiver<Result<(), StoreError>> {
    let (sender, outcome) = mpsc::channel();
    let commit = Commit {
        partition: key.hash.partition(PARTITIONS),
        key: key.clone(),
        replaced: Summary::of(believed),
        versions: Arc::new(versions.clone()),
        vnode_record: None,
    };
    let done = Box::new(move |result| sender.send(result).unwrap_or_default());
    store.commit(commit, done).expect("room");
    outcome
}

/// What is on disk, and what the trees should say of it.
struct Truth {
    trees: BTreeMap<(KeyspaceId, PartitionId), Box<Leaves>>,
    deleted: Vec<DataKey>,
}

fn truth(held: &BTreeMap<DataKey, Versions>) -> Truth {
    let mut truth = Truth { trees: BTreeMap::new(), deleted: Vec::new() };
    for (key, versions) in held {
        let tree = (key.keyspace, key.hash.partition(PARTITIONS));
        let tree = truth.trees.entry(tree).or_insert_with(leaves::none);
        let digest = EntryDigest::of(key, versions.digest());
        tree[leaf_of(key.hash, PARTITIONS)].toggle(digest);
        if versions.is_deleted() {
            truth.deleted.push(key.clone());
        }
    }
    truth
}

/// Everything that the store says agrees with what is held: the leaves in memory, the leaves on disk, the
/// list of tombstones, and the data itself.
fn agrees(store: &RocksStore, held: &BTreeMap<DataKey, Versions>, when: &str) {
    let truth = truth(held);
    let mut deleted = Vec::new();
    for tree in [ONE, TWO].into_iter().flat_map(|keyspace| {
        (0..PARTITIONS).map(move |partition| (keyspace, PartitionId(partition)))
    }) {
        let expected = truth.trees.get(&tree).cloned().unwrap_or_else(leaves::none);
        let in_memory = store.leaves(tree.0, tree.1).expect("it is trusted");
        assert!(in_memory == expected, "the leaves of {tree:?} in memory, {when}");
        let on_disk = store.shared().stored_leaves(tree, None).expect("readable");
        assert!(on_disk == expected, "the leaves of {tree:?} on disk, {when}");
        // Before the scrub, which would mend the list.
        let tombstones = store.tombstones(tree.0, tree.1, None, usize::MAX).expect("readable");
        deleted.extend(tombstones.into_iter().map(|tombstone| tombstone.key));
        let scrubbed = store.scrub(tree.0, tree.1).expect("it scrubs");
        assert_eq!(scrubbed.mended, 0, "{tree:?} {when}");
        let root = HashRange::of_partition(tree.1, PARTITIONS);
        let entries = store.entries(tree.0, root, None, usize::MAX).expect("readable").entries;
        assert_eq!(entries.len() as u64, scrubbed.entries, "{tree:?} {when}");
        for entry in entries {
            assert_eq!(entry.digest, held[&entry.key].digest(), "{when}");
        }
    }
    deleted.sort();
    assert_eq!(deleted, truth.deleted, "the list of tombstones, {when}");
}

/// For the checks that every store of trees must pass.
struct Subject {
    store: RocksStore,
    _dir: tempfile::TempDir,
}

impl conformance::Subject for Subject {
    fn store(&self) -> &dyn TreeStore {
        &self.store
    }

    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    fn write(&self, key: &DataKey, versions: &Versions) {
        let believed = Store::read(&self.store, key).expect("readable");
        let outcome = replace(&self.store, key, &believed, versions);
        outcome.recv().expect("told").expect("durable");
    }

    fn damage(&self, keyspace: KeyspaceId, partition: PartitionId, leaf: usize) {
        let shared = self.store.shared();
        let at = keys::leaf(keyspace, partition, leaf as u16);
        let difference = 0x0123_4567_89ab_cdef_u64.to_le_bytes();
        shared.db.merge_cf(shared.family(Family::Trees), at, difference).expect("written");
    }
}

#[test]
fn is_a_store_of_trees() {
    conformance::check(|| {
        let dir = tempfile::tempdir().expect("a directory");
        Box::new(Subject { store: open(&dir), _dir: dir })
    });
}
