//! One real process: it founds a cluster of its own, serves, ends cleanly, and comes back.

mod fleet;

use std::time::{Duration, Instant};

use fleet::{Fleet, ONE, http};

#[test]
fn a_node_stores_reads_and_deletes() {
    let fleet = Fleet::up(&ONE);
    let node = fleet.nodes[0].http;

    let put = http::put(node, "/kv/cart%2F42", b"three apples").expect("answered");
    assert_eq!(put.status, 200, "{}", put.text());
    let get = http::get(node, "/kv/cart%2F42").expect("answered");
    assert_eq!((get.status, get.json()["value"].as_str()), (200, Some("three apples")));
    let context = get.header("Anello-Context").expect("there is one");
    let headers = [("Content-Type", "application/octet-stream"), ("Anello-Context", context)];
    let put = http::request(node, "PUT", "/kv/cart%2F42", &headers, b"four").expect("answered");
    assert_eq!(put.status, 200);
    assert_eq!(http::get(node, "/kv/cart%2F42").expect("answered").json()["value"], "four");

    assert_eq!(http::delete(node, "/kv/cart%2F42").expect("answered").status, 204);
    let gone = http::get(node, "/kv/cart%2F42").expect("answered");
    assert_eq!(gone.status, 404);
    assert!(gone.header("Anello-Context").is_some(), "there is a tombstone");
    assert_eq!(http::get(node, "/kv/never").expect("answered").status, 404);

    let status = http::get(node, "/admin/status").expect("answered").json();
    assert_eq!(status["id"], "eu-a-1", "{status}");
    let cluster = http::get(node, "/admin/cluster").expect("answered").json();
    assert_eq!(cluster["nodes"][0]["state"], "up", "{cluster}");
}

#[test]
fn the_largest_value_and_the_longest_key_come_back() {
    let fleet = Fleet::up(&ONE);
    let node = fleet.nodes[0].http;
    let path = format!("/kv/{}", "k".repeat(1024));
    let value: Vec<u8> = (0..1 << 20).map(|i: u32| (i ^ (i >> 8)) as u8).collect();
    assert_eq!(http::put(node, &path, &value).expect("answered").status, 200);
    let accept = [("Accept", "application/octet-stream")];
    let get = http::request(node, "GET", &path, &accept, b"").expect("answered");
    assert_eq!(get.status, 200);
    assert!(get.body == value, "byte for byte");
}

#[test]
fn sigterm_ends_it_with_0_and_it_serves_again_within_5_seconds() {
    let mut fleet = Fleet::up(&ONE);
    for number in 0..200 {
        let path = format!("/kv/key-{number}");
        assert_eq!(http::put(fleet.nodes[0].http, &path, b"kept").expect("answered").status, 200);
    }
    let status = fleet.nodes[0].terminate(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", fleet.nodes[0].log());

    let start = Instant::now();
    fleet.start();
    fleet.wait_ready();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "ready after {took:?}");
    for number in 0..200 {
        let get = http::get(fleet.nodes[0].http, &format!("/kv/key-{number}")).expect("answered");
        assert_eq!(get.status, 200, "key-{number}");
    }
}

#[test]
fn an_acknowledged_write_survives_kill_9() {
    let mut fleet = Fleet::up(&ONE);
    for number in 0..100 {
        let path = format!("/kv/key-{number}");
        assert_eq!(http::put(fleet.nodes[0].http, &path, b"kept").expect("answered").status, 200);
    }
    fleet.kill();
    fleet.start();
    fleet.wait_ready();
    for number in 0..100 {
        let get = http::get(fleet.nodes[0].http, &format!("/kv/key-{number}")).expect("answered");
        assert_eq!(get.status, 200, "key-{number}");
    }
}
