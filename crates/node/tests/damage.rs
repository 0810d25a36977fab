//! Bytes that a disk turned around, under real processes: found by their checksum, said, set aside, and the
//! node is back by itself, with new incarnations, what it knew of its cluster, and what could be read.

mod fleet;

use std::{collections::BTreeSet, fs, time::Duration};

use anello_protocol::{
    causality::{Incarnation, token_decode},
    id::{KeyspaceId, KeyspaceName},
    key::{DataKey, Key, KeyHash},
};
use fleet::{
    Fleet, ONE, Place, THREE,
    disk::{damage, largest},
    http, wait_until,
};

/// How long a node may take to find damage, and to be back.
const MENDED: Duration = Duration::from_secs(30);
const KEYS: usize = 400;
const FORMAT: [(&str, &str); 1] = [("Content-Type", "application/json")];

fn value(number: usize) -> String {
    // Long, and not to be compressed away.
    (0..40)
        .map(|part| format!("{:016x}", KeyHash(number as u64 * 97 + part).0 ^ 0x5bd1_e995))
        .collect()
}

fn put(fleet: &Fleet, node: usize, key: &str, value: &str) -> http::Answer {
    let path = format!("/kv/{key}");
    let put = http::put(fleet.nodes[node].http, &path, value.as_bytes()).expect("answered");
    assert_eq!(put.status, 200, "{}", put.text());
    put
}

fn write_all(fleet: &Fleet) {
    for number in 0..KEYS {
        let node = number % fleet.nodes.len();
        put(fleet, node, &format!("key-{number}"), &value(number));
    }
}

/// The keys that a read at a quorum doesn't find as they were written.
fn missing(fleet: &Fleet, node: usize) -> Vec<usize> {
    let is_missing = |number: &usize| {
        let path = format!("/kv/key-{number}");
        let get = http::get(fleet.nodes[node].http, &path).expect("answered");
        get.status != 200 || get.json()["value"] != value(*number)
    };
    (0..KEYS).filter(is_missing).collect()
}

/// Makes a keyspace, which every member's vote may be needed for.
fn make_keyspace(fleet: &Fleet, node: usize, name: &str) {
    let path = format!("/admin/keyspaces/{name}");
    wait_until("a keyspace is agreed on", MENDED, || {
        let put = http::request(fleet.nodes[node].http, "PUT", &path, &FORMAT, b"{}");
        put.is_ok_and(|put| put.status < 300)
    });
}

fn has_keyspace(fleet: &Fleet, node: usize, name: &str) -> bool {
    let path = format!("/admin/keyspaces/{name}");
    http::get(fleet.nodes[node].http, &path).is_ok_and(|answer| answer.status == 200)
}

/// Under which incarnations a key of the keyspace `default` was written.
fn incarnations(answer: &http::Answer, key: &str) -> BTreeSet<Incarnation> {
    let key = Key::new(key.as_bytes().to_vec()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    let key = DataKey { hash, keyspace: KeyspaceId(1), key };
    let context = token_decode(&key, answer.header("Anello-Context").expect("there is one"));
    context.expect("its own").actors().map(|actor| actor.incarnation).collect()
}

fn store_of(fleet: &Fleet, node: usize) -> std::path::PathBuf {
    fleet.data_dir(fleet.nodes[node].id).join("db")
}

/// A fleet that has written all keys, and ended with what the first node holds in tables.
fn stopped_with_tables(places: &[Place]) -> Fleet {
    let mut fleet = Fleet::up(places);
    make_keyspace(&fleet, 0, "kept");
    write_all(&fleet);
    fleet.nodes[0].terminate(Duration::from_secs(10));
    // Opening writes what the log holds into a table.
    fleet.nodes[0].start();
    fleet.nodes[0].wait_ready(MENDED);
    fleet.nodes[0].terminate(Duration::from_secs(10));
    fleet
}

/// It was found, said and set aside, and the node serves.
fn wait_mended(fleet: &mut Fleet, node: usize) {
    let aside = fleet.data_dir(fleet.nodes[node].id).join("db.damaged-1");
    wait_until("the damaged store is set aside", MENDED, || aside.exists());
    let node = &mut fleet.nodes[node];
    node.wait_ready(MENDED);
    wait_until("it is salvaged", MENDED, || {
        let log = node.log();
        log.contains("salvaged what could be read") || log.contains("nothing can be salvaged")
    });
    let log = node.log();
    assert!(log.contains("the store is damaged: "), "{log}");
    assert!(log.contains("every vnode begins a new incarnation"), "{log}");
}

#[test]
fn a_damaged_table_is_found_and_what_can_be_read_comes_back() {
    let mut fleet = stopped_with_tables(&ONE);
    damage(&largest(&store_of(&fleet, 0), "sst"), 1, 2);
    fleet.start();
    fleet.wait_ready();
    // Reading is how it is found; the process stays the same.
    let pid = fleet.nodes[0].pid();
    for number in 0..KEYS {
        // What lies in the damaged block can't be read, and isn't said to be absent.
        let get = http::get(fleet.nodes[0].http, &format!("/kv/key-{number}"));
        assert!(get.is_err() || get.is_ok_and(|get| get.status != 404), "key-{number}");
        if fleet.nodes[0].log().contains("the store is damaged") {
            break;
        }
    }
    wait_mended(&mut fleet, 0);
    assert_eq!(fleet.nodes[0].pid(), pid, "no other process was needed");
    let missing = missing(&fleet, 0);
    assert!(!missing.is_empty(), "the damaged block had something in it");
    assert!(missing.len() < KEYS / 4, "{} of {KEYS} are gone", missing.len());
    assert!(has_keyspace(&fleet, 0, "kept"), "it is still in its cluster");
    make_keyspace(&fleet, 0, "new");

    let there = (0..KEYS).find(|number| !missing.contains(number)).expect("most are there");
    let key = format!("key-{there}");
    let path = format!("/kv/{key}");
    let before = http::get(fleet.nodes[0].http, &path).expect("answered");
    let before = incarnations(&before, &key);
    put(&fleet, 0, &key, "again");
    let after = http::get(fleet.nodes[0].http, &path).expect("answered");
    assert_eq!(after.status, 300, "a blind write beside what was salvaged");
    let after = incarnations(&after, &key);
    assert_eq!((before.len(), after.len()), (1, 2), "{before:?} {after:?}");
    assert!(before.is_subset(&after));

    // What was done is done: a restart finds nothing to mend.
    fleet.kill();
    fleet.start();
    fleet.wait_ready();
    assert!(!fleet.data_dir(ONE[0].id).join("db.damaged-2").exists());
    assert_eq!(fleet.nodes[0].log().matches("was set aside as").count(), 1);
}

#[test]
fn a_damaged_log_is_found_at_the_start_and_passed_over() {
    let mut fleet = Fleet::up(&ONE);
    make_keyspace(&fleet, 0, "kept");
    write_all(&fleet);
    fleet.kill();
    damage(&largest(&store_of(&fleet, 0), "log"), 1, 2);
    fleet.start();
    wait_mended(&mut fleet, 0);
    let missing = missing(&fleet, 0);
    assert!(!missing.is_empty() && missing.len() < KEYS / 2, "{} are gone", missing.len());
    assert!(has_keyspace(&fleet, 0, "kept"), "it is still in its cluster");
    make_keyspace(&fleet, 0, "new");
}

#[test]
fn a_log_that_was_cut_off_is_no_damage() {
    let mut fleet = Fleet::up(&ONE);
    write_all(&fleet);
    fleet.kill();
    let log = largest(&store_of(&fleet, 0), "log");
    let length = fs::metadata(&log).expect("its size").len();
    fs::File::options().write(true).open(&log).expect("opened").set_len(length - 3).expect("cut");
    fleet.start();
    fleet.wait_ready();
    assert!(!fleet.data_dir(ONE[0].id).join("db.damaged-1").exists());
    assert!(missing(&fleet, 0).len() <= 1, "only what was written last");
}

#[test]
fn a_replica_with_damage_is_back_and_votes_and_nothing_acknowledged_is_lost() {
    for file in ["sst", "log"] {
        let mut fleet = stopped_with_tables(&THREE);
        if file == "log" {
            fleet.nodes[0].start();
            fleet.nodes[0].wait_ready(MENDED);
            for number in 0..KEYS {
                put(&fleet, 0, &format!("more-{number}"), &value(number));
            }
            fleet.nodes[0].kill();
        }
        damage(&largest(&store_of(&fleet, 0), file), 1, 2);
        fleet.nodes[0].start();
        fleet.nodes[0].wait_ready(MENDED);
        // Some of it may be found by a compaction before it is read.
        let aside = fleet.data_dir(THREE[0].id).join("db.damaged-1");
        wait_until("it is found", MENDED, || {
            (0..KEYS).any(|number| {
                let _ = http::get(fleet.nodes[0].http, &format!("/kv/key-{number}"));
                aside.exists()
            })
        });
        wait_mended(&mut fleet, 0);
        assert_eq!(missing(&fleet, 1), Vec::<usize>::new(), "at a quorum, as before ({file})");
        assert!(has_keyspace(&fleet, 0, "kept"));
        // It proposes once it knows how it voted.
        make_keyspace(&fleet, 0, "recalled");
        // One other is away: the vote of the one that was damaged is needed.
        fleet.nodes[2].kill();
        make_keyspace(&fleet, 1, "new");
        wait_until("it has heard of it", MENDED, || has_keyspace(&fleet, 0, "new"));
    }
}

/// The list of files is damaged: nothing can be read, the membership record least of all.
#[test]
fn a_node_that_can_read_nothing_comes_back_empty_and_founds_no_other_cluster() {
    let mut fleet = stopped_with_tables(&THREE);
    damage_manifest(&fleet);
    // Alone, the first seed must not found a cluster in place of the one that it has forgotten.
    fleet.nodes[1].kill();
    fleet.nodes[2].kill();
    fleet.nodes[0].start();
    let node = &fleet.nodes[0];
    wait_until("it is set aside", MENDED, || node.log().contains("was set aside as"));
    wait_until("it asks", MENDED, || {
        http::get(node.http, "/readyz").is_ok_and(|answer| answer.status == 503)
    });
    fleet.start();
    fleet.wait_ready();
    let founded = fleet.nodes[0].log().matches("founding the cluster test").count();
    assert_eq!(founded, 1, "at its first start");
    assert!(has_keyspace(&fleet, 0, "kept"), "it is the same cluster");
    put(&fleet, 0, "new", "written under a new incarnation");
    make_keyspace(&fleet, 0, "recalled");
    fleet.nodes[2].kill();
    make_keyspace(&fleet, 1, "new");
}

#[test]
fn a_sole_node_that_can_read_nothing_refuses_to_begin_anew() {
    let mut fleet = stopped_with_tables(&ONE);
    damage_manifest(&fleet);
    for _ in 0..2 {
        fleet.nodes[0].start();
        assert_eq!(fleet.nodes[0].wait_end(MENDED).code(), Some(1));
        let log = fleet.nodes[0].log();
        assert!(log.contains("the membership record was lost with a damaged store"), "{log}");
    }
}

fn damage_manifest(fleet: &Fleet) {
    let store = store_of(fleet, 0);
    let entries = fs::read_dir(&store).expect("a directory").map(|entry| entry.expect("an entry"));
    let is_manifest = |name: &str| name.starts_with("MANIFEST-");
    for entry in entries.filter(|entry| entry.file_name().to_str().is_some_and(is_manifest)) {
        damage(&entry.path(), 0, 1);
    }
}
