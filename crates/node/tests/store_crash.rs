//! The store alone: a process that is killed with signal 9 while it commits has lost nothing that it
//! said was durable.
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

fn key(number: u64) -> DataKey {
    let key = Key::new(format!("key-{number}").into_bytes()).expect("within the bound");
    DataKey { hash: KeyHash(number << 40), keyspace: KeyspaceId(1), key }
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
            assert_eq!(store.read(&key(number)), Ok(versions(number)), "round {round}, {number}");
        }
        let record = store.load_vnode(PartitionId(0)).expect("readable").expect("there");
        let last = done.iter().max().copied().unwrap_or_default();
        assert!(record.births_reserved >= last, "the vnode's record is as new as its data");
    }
}
