//! A node whose disk was lost comes back under its id with an empty directory: it is the member that it
//! was, with new incarnations, and votes only once it has recalled its vote. Until it is filled again it
//! serves nothing and says why.

mod fleet;

use std::{fs, time::Duration};

use fleet::{Fleet, THREE, http, wait_until};

const BACK: Duration = Duration::from_secs(30);
const KEYS: usize = 200;

fn missing(fleet: &Fleet, node: usize) -> Vec<usize> {
    let is_missing = |number: &usize| {
        let get = http::get(fleet.nodes[node].http, &format!("/kv/key-{number}"));
        get.expect("answered").status != 200
    };
    (0..KEYS).filter(is_missing).collect()
}

fn epoch(fleet: &Fleet, node: usize) -> u64 {
    let status = http::get(fleet.nodes[node].http, "/admin/status").expect("answered").json();
    status["epoch"].as_u64().expect("a number")
}

fn make_keyspace(fleet: &Fleet, node: usize, name: &str) {
    let path = format!("/admin/keyspaces/{name}");
    let json = [("Content-Type", "application/json")];
    wait_until("a keyspace is agreed on", BACK, || {
        let put = http::request(fleet.nodes[node].http, "PUT", &path, &json, b"{}");
        put.is_ok_and(|put| put.status < 300)
    });
}

fn has_keyspace(fleet: &Fleet, node: usize, name: &str) -> bool {
    let path = format!("/admin/keyspaces/{name}");
    http::get(fleet.nodes[node].http, &path).is_ok_and(|answer| answer.status == 200)
}

fn empty(fleet: &Fleet, node: usize) {
    let dir = fleet.data_dir(THREE[node].id);
    for entry in fs::read_dir(&dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.expect("gone");
    }
}

/// It is the first seed, which founds clusters.
#[test]
fn a_node_with_an_emptied_directory_is_the_member_that_it_was() {
    let mut fleet = Fleet::up(&THREE);
    make_keyspace(&fleet, 1, "kept");
    for number in 0..KEYS {
        let (node, path) = (number % 3, format!("/kv/key-{number}"));
        assert_eq!(http::put(fleet.nodes[node].http, &path, b"v").expect("answered").status, 200);
    }
    let before = epoch(&fleet, 1);
    let lost = 0;
    fleet.nodes[lost].kill();
    empty(&fleet, lost);
    fleet.nodes[lost].start();
    fleet.nodes[lost].wait_ready(BACK);
    assert_eq!(epoch(&fleet, lost), before, "no vote was needed to take it back");
    assert!(has_keyspace(&fleet, lost, "kept"), "it founded no cluster of its own");
    let view = http::get(fleet.nodes[1].http, "/admin/cluster").expect("answered").json();
    assert_eq!(view["nodes"].as_array().expect("nodes").len(), 3, "{view}");
    // It takes its part in writes, under dots that nobody has seen.
    for number in 0..KEYS {
        let path = format!("/kv/new-{number}");
        let put = http::put(fleet.nodes[lost].http, &path, b"v").expect("answered");
        assert_eq!(put.status, 200, "{}", put.text());
    }
    wait_until("the others are read at a quorum", BACK, || {
        missing(&fleet, 1).is_empty() && missing(&fleet, 2).is_empty()
    });
    // It proposes once it has recalled what it may have promised, and then its vote counts.
    make_keyspace(&fleet, lost, "recalled");
    fleet.nodes[2].kill();
    make_keyspace(&fleet, 1, "new");
    wait_until("it has heard of it", BACK, || has_keyspace(&fleet, lost, "new"));
    let log = fleet.nodes[lost].log();
    assert!(log.contains("recalling its vote"), "{log}");
    // What it has is kept as by any other node.
    fleet.nodes[lost].kill();
    fleet.nodes[lost].start();
    fleet.nodes[lost].wait_ready(BACK);
    for number in 0..KEYS {
        let path = format!("/kv/new-{number}");
        let one = [("Anello-Consistency", "quorum")];
        let get = http::request(fleet.nodes[lost].http, "GET", &path, &one, b"");
        assert_eq!(get.expect("answered").status, 200, "new-{number}");
    }
}

/// What a read of a key says, if it says anything.
fn read(fleet: &Fleet, node: usize, number: usize, headers: &[(&str, &str)]) -> Option<String> {
    let get =
        http::request(fleet.nodes[node].http, "GET", &format!("/kv/key-{number}"), headers, b"");
    let get = get.ok().filter(|get| get.status < 500)?;
    // What is not one value is no less an answer.
    Some(get.json()["value"].as_str().map_or_else(|| get.text(), str::to_owned))
}

/// One replica was down while a write was acknowledged, and one of the two that have it loses its disk: a
/// quorum of these two would know nothing of it.
#[test]
fn a_node_without_its_data_serves_nothing_until_it_is_filled() {
    const STRICT: [(&str, &str); 2] = [("R", "2"), ("Anello-Quorum", "strict")];
    // Hints would bring the one that was down what it missed too soon for anything to be seen.
    let mut fleet = Fleet::with_settings(&THREE, "\n[hints]\nage_max_s = 1\n");
    fleet.start();
    fleet.wait_ready();
    let (lost, kept, late) = (0, 1, 2);
    let put = |fleet: &Fleet, number: usize, value: &[u8], context: Option<&str>| {
        let mut headers = vec![("Content-Type", "text/plain"), ("Anello-Quorum", "strict")];
        headers.extend(context.map(|context| ("Anello-Context", context)));
        let path = format!("/kv/key-{number}");
        let put = http::request(fleet.nodes[kept].http, "PUT", &path, &headers, value);
        let put = put.expect("answered");
        assert_eq!(put.status, 200, "{}", put.text());
        put.header("Anello-Context").expect("there is one").to_owned()
    };
    let contexts: Vec<_> = (0..KEYS).map(|number| put(&fleet, number, b"old", None)).collect();
    fleet.nodes[late].kill();
    for (number, context) in contexts.iter().enumerate() {
        put(&fleet, number, b"new", Some(context));
    }
    wait_until("the hints are too old", BACK, || {
        let status = http::get(fleet.nodes[kept].http, "/admin/status").expect("answered").json();
        let targets = status["hints"].as_object().expect("hints by target");
        targets.values().all(|held| held["count"] == 0)
    });
    fleet.nodes[lost].kill();
    empty(&fleet, lost);
    fleet.nodes[late].start();
    fleet.nodes[lost].start();

    let (mut reasons, mut answers) = (Vec::new(), 0);
    wait_until("it is ready", BACK, || {
        for node in [lost, kept, late] {
            let number = (answers * 7 + node) % KEYS;
            if let Some(value) = read(&fleet, node, number, &STRICT) {
                assert_eq!(
                    value, "new",
                    "key-{number} at {}, with {answers} before",
                    THREE[node].id
                );
                answers += 1;
            }
        }
        let ready = http::get(fleet.nodes[lost].http, "/readyz");
        ready.is_ok_and(|ready| {
            if ready.status == 503 {
                reasons.push(ready.text());
            }
            ready.status == 200
        })
    });
    reasons.dedup();
    let quarantined = reasons.iter().any(|reason| reason.contains("quarantined"));
    assert!(quarantined, "it says why it isn't ready: {reasons:#?}");
    assert!(answers > 0, "the others serve meanwhile");
    // It has everything, without the others.
    fleet.nodes[kept].kill();
    fleet.nodes[late].kill();
    for number in 0..KEYS {
        let mut value = None;
        wait_until("it answers alone", BACK, || {
            value = read(&fleet, lost, number, &[("R", "1"), ("Anello-Quorum", "strict")]);
            value.is_some()
        });
        assert_eq!(value.as_deref(), Some("new"), "key-{number}");
    }
}
