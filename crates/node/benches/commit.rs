//! What keeping Merkle trees costs a write: CPU time and time of a commit with and without a change of a leaf,
//! alone and in groups, side by side; and how long a store with full trees takes to open. Run with
//! `cargo bench -p anello-node`.
//!
//! A commit that puts in place what is there already changes no leaf, so the two differ by what is
//! merged, logged, kept in memory and later written to tables. Working out the two digests comes on top for
//! both, and is measured by itself.

use std::{
    fs,
    hint::black_box,
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use anello_antientropy::store::TreeStore;
use anello_node::{config::Durability, rocks::RocksStore};
use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    id::{KeyspaceId, PartitionId},
    key::{DataKey, Key, KeyHash},
    merkle::{EntryDigest, LEAVES},
    time::HybridTime,
    version::{Content, Value, Version, Versions, VersionsDigest, WriteId},
};
use anello_replica::store::{Commit, Store, StoreError, Summary};

const PARTITIONS: u32 = 256;
const KEYS: u64 = 100_000;
const COMMITS: u64 = 100_000;
const ROUNDS: usize = 3;

fn key(keyspace: u64, number: u64) -> DataKey {
    let key = Key::new(format!("user:{number:012}").into_bytes()).expect("within the bound");
    // Scattered, as hashes are.
    let hash = KeyHash(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    DataKey { hash, keyspace: KeyspaceId(keyspace), key }
}

fn versions(counter: u64) -> Arc<Versions> {
    let actor = ActorId { incarnation: Incarnation(7), birth: 1 };
    Arc::new(Versions::from(Version {
        dot: Dot { actor, counter },
        past: Context::new(),
        write_id: WriteId(counter.into()),
        time: HybridTime::from_wall_ms(counter),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(vec![counter as u8; 1_000]).expect("within the bound")),
    }))
}

fn commit(number: u64, changes_leaf: bool) -> Commit {
    let versions = versions(number + 1);
    let digest = if changes_leaf { VersionsDigest(number) } else { versions.digest() };
    Commit {
        partition: PartitionId(0),
        key: key(1, number.wrapping_mul(7_919) % KEYS),
        replaced: Summary { digest, is_deleted: false },
        versions,
        vnode_record: None,
    }
}

/// The CPU time that the process has taken.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("Linux");
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next().and_then(|field| field.parse::<u64>().ok()).expect("ticks");
    Duration::from_millis((ticks() + ticks()) * 10)
}

#[derive(Default)]
struct Cost {
    cpu: Duration,
    time: Duration,
    groups: u64,
    commits: u64,
}

/// Commits with so many on their way at a time.
fn run(dir: &Path, on_their_way: u64, changes_leaf: bool, cost: &mut Cost) {
    let commits = if on_their_way == 1 { COMMITS / 2 } else { COMMITS };
    let store = RocksStore::open(dir, Durability::Os, PARTITIONS).expect("opens");
    let all: Vec<_> = (0..commits).map(|number| commit(number, changes_leaf)).collect();
    let (sender, done) = mpsc::channel::<Result<(), StoreError>>();
    let (cpu_before, began) = (cpu(), Instant::now());
    let mut waiting = 0;
    for commit in all {
        if waiting == on_their_way {
            // Half of them, so that the next group gathers while one is written.
            for _ in 0..on_their_way.div_ceil(2) {
                done.recv().expect("told").expect("durable");
                waiting -= 1;
            }
        }
        let sender = sender.clone();
        let done = Box::new(move |result| sender.send(result).expect("it listens"));
        store.commit(commit, done).expect("room");
        waiting += 1;
    }
    (0..waiting).for_each(|_| done.recv().expect("told").expect("durable"));
    cost.time += began.elapsed();
    cost.groups += store.figures().groups;
    // Closing it waits for what is written in the background.
    drop(store);
    cost.cpu += cpu() - cpu_before;
    cost.commits += commits;
}

fn side_by_side(on_their_way: u64) {
    let (mut with, mut without) = (Cost::default(), Cost::default());
    for _ in 0..ROUNDS {
        for (changes_leaf, cost) in [(false, &mut without), (true, &mut with)] {
            let dir = tempfile::tempdir().expect("a directory");
            run(&dir.path().join("db"), on_their_way, changes_leaf, cost);
        }
    }
    let each = |time: Duration, cost: &Cost| time.as_nanos() as f64 / 1e3 / cost.commits as f64;
    for (name, cost) in [("without", &without), ("with", &with)] {
        println!(
            "{:>3} on their way, {name:>7} leaves: {:6.2} us CPU, {:6.2} us a commit, groups of {:.1}",
            on_their_way,
            each(cost.cpu, cost),
            each(cost.time, cost),
            cost.commits as f64 / cost.groups as f64,
        );
    }
    let more = each(with.cpu, &with) - each(without.cpu, &without);
    let ratio = more / each(without.cpu, &without);
    println!(
        "{on_their_way:>3} on their way: leaves take {more:.2} us CPU, {:.1} %",
        ratio * 100.0
    );
}

fn digests() {
    let (key, held) = (key(1, 1), versions(1));
    let rounds = 1_000_000_u64;
    let began = Instant::now();
    for number in 0..rounds {
        let after = black_box(&held).digest();
        black_box(EntryDigest::of(black_box(&key), VersionsDigest(number)));
        black_box(EntryDigest::of(black_box(&key), after));
    }
    let each = began.elapsed().as_nanos() as f64 / 1e3 / rounds as f64;
    println!("the digests of a commit: {each:.2} us");
}

/// Opens a store in which every leaf of two keyspaces has something.
fn opening() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("db");
    let store = RocksStore::open(&path, Durability::Os, PARTITIONS).expect("opens");
    let (sender, done) = mpsc::sync_channel::<Result<(), StoreError>>(4_096);
    let leaves = u64::from(PARTITIONS) * LEAVES as u64;
    let bits = leaves.trailing_zeros();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            (0..2 * leaves).for_each(|_| done.recv().expect("told").expect("durable"));
        });
        for number in 0..2 * leaves {
            let mut key = key(1 + number / leaves, number);
            key.hash = KeyHash((number % leaves) << (64 - bits) | number);
            let commit = || Commit {
                partition: PartitionId(0),
                key: key.clone(),
                replaced: Summary::default(),
                versions: versions(number + 1),
                vnode_record: None,
            };
            let told = || {
                let sender = sender.clone();
                Box::new(move |result| sender.send(result).expect("it listens"))
            };
            while store.commit(commit(), told()).is_err() {
                std::thread::yield_now();
            }
        }
    });
    drop(store);
    // The first one writes what the log holds into tables.
    for name in ["with a full log", "with an empty log"] {
        let began = Instant::now();
        let store = RocksStore::open(&path, Durability::Os, PARTITIONS).expect("opens");
        let took = began.elapsed();
        let tree = store.leaves(KeyspaceId(2), PartitionId(255)).expect("trusted");
        assert!(tree.iter().all(|leaf| *leaf != EntryDigest::default()));
        println!("opening {} leaves {name}: {:.0} ms", 2 * leaves, took.as_secs_f64() * 1e3);
        drop(store);
    }
}

fn main() {
    digests();
    side_by_side(128);
    side_by_side(1);
    opening();
}
