//! The store alone: a process that is killed with signal 9 while it commits has lost nothing that it
//! said was durable, and its Merkle trees are what its data says.
//!
//! The process is this test's own program, run again as [`writer`], which prints a number once the commit
//! of that number is done.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anello_antientropy::store::TreeStore;
use anello_node::{config::Durability, rocks::RocksStore};
use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};
use anello_replica::store::{Commit, Store, Summary, VnodeRecord};

const DIRECTORY: &str = "ANELLO_TEST_STORE";
const PARTITIONS: u32 = 256;
const ROUNDS: u64 = 4;
const UNTIL_KILLED: usize = 400;
const KEYSPACE: KeyspaceId = KeyspaceId(1);
/// So many keys are written, deleted and forgotten again and again.
const CHURNED: u64 = 100;

fn key(number: u64) -> DataKey {
    let key = Key::new(format!("key-{number}").into_bytes()).expect("within the bound");
    DataKey { hash: KeyHash(number << 40), keyspace: KEYSPACE, key }
}

fn churned_key(number: u64) -> DataKey {
    let key = Key::new(format!("churned-{number}").into_bytes()).expect("within the bound");
    let hash = KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    DataKey { hash, keyspace: KEYSPACE, key }
}

/// What a key holds after what it held before: a value, a tombstone, nothing, and so on.
fn next(before: &Versions, number: u64) -> Versions {
    let mut next = versions(number).into_iter().next().expect("there is one");
    match (before.is_empty(), before.is_deleted()) {
        (_, true) => return Versions::new(),
        (true, _) => {}
        (false, _) => next.content = Content::Tombstone,
    }
    Versions::from(next)
}

fn versions(number: u64) -> Versions {
    let actor = ActorId { incarnation: Incarnation(1), birth: number };
    // Some large enough for files of their own.
    let bytes = if number.is_multiple_of(50) { 50_000 } else { 300 };
    Versions::from(Version {
        dot: Dot { actor, counter: 1 },
        past: Context::new(),
        write_id: WriteId(number.into()),
        time: HybridTime::from_wall_ms(number),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(vec![number as u8; bytes]).expect("within the bound")),
    })
}

fn open(path: &Path) -> RocksStore {
    RocksStore::open(path, Durability::Sync, PARTITIONS)
        .expect("it opens after whatever has happened")
}

/// Not a test by itself: commits until it is killed, when it is told where.
#[test]
fn writer() {
    let Some(path) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let from: u64 = env::var("ANELLO_TEST_FROM").expect("given").parse().expect("a number");
    let store = open(&path);
    let churned = (0..CHURNED).map(churned_key);
    let mut churned: Vec<_> =
        churned.map(|key| (key.clone(), Store::read(&store, &key).expect("readable"))).collect();
    let (done, finished) = std::sync::mpsc::sync_channel(64);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut out = std::io::stdout();
            for number in finished {
                // Once nobody reads it is about to be killed.
                let _ = writeln!(out, "done {number}");
            }
        });
        for number in from.. {
            let done = done.clone();
            let record = VnodeRecord { incarnation: Incarnation(1), births_reserved: number };
            let commit = Commit {
                partition: PartitionId(0),
                key: key(number),
                versions: Arc::new(versions(number)),
                replaced: Summary::default(),
                vnode_record: Some(record),
            };
            let done = Box::new(move |outcome: Result<(), _>| {
                outcome.expect("the disk works");
                done.send(number).expect("the printer listens");
            });
            if store.commit(commit, done).is_err() {
                std::thread::yield_now();
            }
            let (key, before) = churned.get_mut((number % CHURNED) as usize).expect("so many");
            let after = next(before, number);
            let commit = Commit {
                partition: PartitionId(0),
                key: key.clone(),
                versions: Arc::new(after.clone()),
                replaced: Summary::of(before),
                vnode_record: None,
            };
            let done = |outcome: Result<(), _>| outcome.expect("the disk works");
            if store.commit(commit, Box::new(done)).is_ok() {
                *before = after;
            }
        }
    });
}

#[test]
fn nothing_durable_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let mut done: Vec<u64> = Vec::new();
    for round in 1..=ROUNDS {
        let mut child = Command::new(env::current_exe().expect("a test is a program"))
            .args(["--exact", "writer", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &path)
            .env("ANELLO_TEST_FROM", (round * 1_000_000).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let numbers = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("done ").and_then(|number| number.parse().ok()));
        let mut numbers = numbers.inspect(|number| done.push(*number));
        assert_eq!(numbers.by_ref().take(UNTIL_KILLED).count(), UNTIL_KILLED);
        child.kill().expect("it is ours");
        numbers.for_each(drop);
        child.wait().expect("it is ours");

        let store = open(&path);
        for &number in &done {
            assert_eq!(
                Store::read(&store, &key(number)),
                Ok(versions(number)),
                "round {round}, {number}"
            );
        }
        let record = store.load_vnode(PartitionId(0)).expect("readable").expect("there");
        let last = done.iter().max().copied().unwrap_or_default();
        assert!(record.births_reserved >= last, "the vnode's record is as new as its data");
        assert!(entries_below_sound_trees(&store, round) as usize >= done.len());
    }
}

/// Works every tree out anew: each is what was kept of it. How many entries there are.
fn entries_below_sound_trees(store: &RocksStore, round: u64) -> u64 {
    let mut entries = 0;
    let mut tombstones = 0;
    for partition in (0..PARTITIONS).map(PartitionId) {
        let scrubbed = store.scrub(KEYSPACE, partition).expect("it scrubs");
        assert_eq!(scrubbed.mended, 0, "round {round}: the tree of {partition}");
        entries += scrubbed.entries;
        let list = store.tombstones(KEYSPACE, partition, None, usize::MAX).expect("readable");
        for tombstone in &list {
            let held = Store::read(store, &tombstone.key).expect("readable");
            assert!(held.is_deleted() && held.digest() == tombstone.digest, "round {round}");
        }
        tombstones += list.len();
    }
    let deleted = (0..CHURNED).map(churned_key).filter(|key| {
        let held = Store::read(store, key).expect("readable");
        held.is_deleted()
    });
    assert_eq!(deleted.count(), tombstones, "round {round}: all that is deleted is in the list");
    entries
}
