//! A disk that fills up under a real process: writes are refused with nothing kept, reads are served, and
//! it all passes by itself once there is room.
//!
//! These tests mount a small file system, and say that they are skipped where they may not.

mod fleet;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use fleet::{Fleet, ONE, Place, THREE, disk::SmallDisk, http, wait_until};

const DISK_MIB: u64 = 200;
/// How long the node may take to notice; it looks once a second.
const NOTICED: Duration = Duration::from_secs(5);
/// How long it may take to take writes again.
const RECOVERED: Duration = Duration::from_secs(5);

/// What became of writes: the value by key of those that were acknowledged, and the keys of those of which
/// it was said that nothing was written.
#[derive(Default)]
struct Writes {
    number: usize,
    kept: BTreeMap<String, String>,
    refused: Vec<String>,
}

impl Writes {
    /// Writes another key, and says how that was answered.
    fn put(&mut self, fleet: &Fleet, node: usize) -> http::Answer {
        let key = format!("key-{}", self.number);
        let value = key.repeat(100);
        self.number += 1;
        let path = format!("/kv/{key}");
        let put = http::put(fleet.nodes[node].http, &path, value.as_bytes()).expect("answered");
        match put.status {
            200 => drop(self.kept.insert(key, value)),
            503 => self.refused.push(key),
            504 => {}
            other => panic!("{other}: {}", put.text()),
        }
        put
    }

    /// Everything that was acknowledged is there, and nothing that was refused.
    fn check(&self, fleet: &Fleet, node: usize) {
        let node = fleet.nodes[node].http;
        for (key, value) in &self.kept {
            let get = http::get(node, &format!("/kv/{key}")).expect("answered");
            assert_eq!((get.status, get.json()["value"].as_str()), (200, Some(&**value)), "{key}");
        }
        for key in &self.refused {
            let get = http::get(node, &format!("/kv/{key}")).expect("answered");
            assert_eq!(get.status, 404, "{key} was refused");
        }
    }
}

/// A fleet that has yet to be started, whose data is on a small disk.
fn on_a_small_disk(places: &[Place]) -> Option<(Fleet, SmallDisk)> {
    let fleet = Fleet::new(places);
    let disk = SmallDisk::mount(&fleet.dir().join("data"), DISK_MIB * places.len() as u64)?;
    Some((fleet, disk))
}

#[test]
fn a_full_disk_refuses_writes_serves_reads_and_recovers() {
    let Some((mut fleet, disk)) = on_a_small_disk(&ONE) else { return };
    fleet.start();
    fleet.wait_ready();
    let mut writes = Writes::default();
    for _ in 0..100 {
        assert_eq!(writes.put(&fleet, 0).status, 200);
    }
    disk.fill(0);
    let mut refusal = None;
    wait_until("writes are refused", NOTICED, || {
        let put = writes.put(&fleet, 0);
        let is_refused = put.status == 503;
        refusal = Some(put);
        is_refused
    });
    let refusal = refusal.expect("one was refused").json();
    assert_eq!(refusal["error"], "unavailable", "{refusal}");
    assert_eq!((&refusal["required"], &refusal["alive"]), (&1.into(), &0.into()));
    let sentence = refusal["message"].as_str().expect("a sentence");
    assert!(sentence.contains("disk") && sentence.contains("nothing was written"), "{sentence}");
    for _ in 0..50 {
        assert_eq!(writes.put(&fleet, 0).status, 503, "it stays so");
    }
    writes.check(&fleet, 0);
    assert_eq!(http::delete(fleet.nodes[0].http, "/kv/key-0").expect("answered").status, 503);
    assert_eq!(http::get(fleet.nodes[0].http, "/readyz").expect("answered").status, 200);

    disk.make_room();
    let begun = Instant::now();
    wait_until("writes are taken again", RECOVERED, || writes.put(&fleet, 0).status == 200);
    eprintln!("recovered after {:?}", begun.elapsed());
    let log = fleet.nodes[0].log();
    for line in ["is full: writes are refused", "there is room: writes are taken again"] {
        assert!(log.contains(line), "{line}");
    }
    fleet.kill();
    fleet.start();
    fleet.wait_ready();
    writes.check(&fleet, 0);
}

#[test]
fn a_node_starts_on_a_full_disk_and_waits_for_room_on_one_that_has_none_at_all() {
    let Some((mut fleet, disk)) = on_a_small_disk(&ONE) else { return };
    fleet.start();
    fleet.wait_ready();
    let mut writes = Writes::default();
    for _ in 0..100 {
        assert_eq!(writes.put(&fleet, 0).status, 200);
    }
    fleet.kill();
    disk.fill(10 << 10);
    fleet.start();
    fleet.wait_ready();
    assert_eq!(writes.put(&fleet, 0).status, 503);
    writes.check(&fleet, 0);
    fleet.kill();
    disk.make_room();
    disk.fill(0);
    fleet.start();
    let node = &mut fleet.nodes[0];
    wait_until("it says that it waits", NOTICED, || node.log().contains("waiting for room"));
    disk.make_room();
    fleet.wait_ready();
    wait_until("writes are taken", RECOVERED, || writes.put(&fleet, 0).status == 200);
    writes.check(&fleet, 0);
}

#[test]
fn a_node_that_waits_for_room_ends_when_asked() {
    let Some((mut fleet, disk)) = on_a_small_disk(&ONE) else { return };
    disk.fill(0);
    fleet.start();
    let node = &mut fleet.nodes[0];
    wait_until("it says that it waits", NOTICED, || node.log().contains("waiting for room"));
    assert_eq!(node.terminate(Duration::from_secs(5)).code(), Some(0));
}

/// One replica of three has no room: the other two take the writes, whoever is asked.
#[test]
fn the_others_take_what_a_full_disk_refuses() {
    let mut fleet = Fleet::new(&THREE);
    let full = fleet.data_dir(THREE[0].id);
    let Some(disk) = SmallDisk::mount(&full, DISK_MIB) else { return };
    fleet.start();
    fleet.wait_ready();
    disk.fill(0);
    let node = &fleet.nodes[0];
    wait_until("it is noticed", NOTICED, || node.log().contains("is full: writes are refused"));
    let mut writes = Writes::default();
    for number in 0..60 {
        let put = writes.put(&fleet, number % 3);
        assert_eq!(put.status, 200, "{}", put.text());
    }
    for node in 0..3 {
        writes.check(&fleet, node);
    }
    // A change of the cluster needs a majority, and this node's vote is still one of them.
    fleet.nodes[2].kill();
    let replication = br#"{"replication": {"eu": 1}}"#;
    let json = [("Content-Type", "application/json")];
    wait_until("a keyspace is agreed on", Duration::from_secs(20), || {
        let path = "/admin/keyspaces/agreed";
        let put = http::request(fleet.nodes[1].http, "PUT", path, &json, replication);
        put.is_ok_and(|put| put.status < 300)
    });
}
