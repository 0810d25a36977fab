//! Three real processes: one cluster without a person, served by any of them, with one of them dead.

mod fleet;

use std::time::Duration;

use fleet::{Fleet, THREE, http, wait_until};

fn reachable(from: &fleet::Node) -> usize {
    let Ok(answer) = http::get(from.http, "/admin/cluster") else { return 0 };
    let cluster = answer.json();
    let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter(|node| node["reachable"] == true && node["state"] == "up").count()
}

/// A node serves before it has heard of all others, so a test that needs all of them waits.
fn up() -> Fleet {
    let fleet = Fleet::up(&THREE);
    for node in &fleet.nodes {
        wait_until("all three see each other", fleet::PATIENCE, || reachable(node) == 3);
    }
    fleet
}

#[test]
fn nodes_that_start_at_once_become_one_cluster() {
    let fleet = up();
    let headers = [("W", "3")];
    for (number, node) in fleet.nodes.iter().enumerate() {
        let path = format!("/kv/from-{number}");
        let put = http::request(node.http, "PUT", &path, &headers, b"x").expect("answered");
        assert_eq!(put.status, 200, "{}", put.text());
    }
    for node in &fleet.nodes {
        for number in 0..3 {
            let path = format!("/kv/from-{number}");
            let get = http::request(node.http, "GET", &path, &[("R", "3")], b"");
            let get = get.expect("answered");
            assert_eq!((get.status, get.json()["value"].as_str()), (200, Some("x")), "{path}");
        }
    }
}

#[test]
fn two_writers_race_and_a_third_settles_it() {
    let fleet = up();
    let [a, b, c] = [0, 1, 2].map(|index: usize| fleet.nodes[index].http);
    assert_eq!(http::put(a, "/kv/race", b"one").expect("answered").status, 200);
    assert_eq!(http::put(b, "/kv/race", b"two").expect("answered").status, 200);
    let both = http::get(c, "/kv/race").expect("answered");
    assert_eq!(both.status, 300, "{}", both.text());
    assert_eq!(both.json()["versions"].as_array().map(Vec::len), Some(2));
    let context = both.header("Anello-Context").expect("there is one");
    let settled = http::request(c, "PUT", "/kv/race", &[("Anello-Context", context)], b"three");
    assert_eq!(settled.expect("answered").status, 200);
    for node in [a, b, c] {
        let get = http::get(node, "/kv/race").expect("answered");
        assert_eq!((get.status, get.json()["value"].as_str()), (200, Some("three")));
    }
}

#[test]
fn a_killed_node_is_known_to_be_gone_and_to_be_back() {
    let mut fleet = up();
    assert_eq!(http::put(fleet.nodes[0].http, "/kv/before", b"x").expect("answered").status, 200);
    fleet.nodes[2].kill();
    for node in &fleet.nodes[..2] {
        wait_until("gone within 5 s", Duration::from_secs(5), || reachable(node) == 2);
        for path in ["/kv/before", "/kv/after"] {
            let put = http::put(node.http, path, b"y").expect("answered");
            assert_eq!(put.status, 200, "{}", put.text());
        }
    }
    fleet.nodes[2].start();
    fleet.nodes[2].wait_ready(Duration::from_secs(5));
    for node in &fleet.nodes {
        wait_until("back within 3 s", Duration::from_secs(3), || reachable(node) == 3);
    }
    let get = http::get(fleet.nodes[2].http, "/kv/after").expect("answered");
    assert!(matches!(get.status, 200 | 300), "{}", get.text());
}

#[test]
fn a_node_that_comes_back_alone_says_so_before_it_writes_anything() {
    let mut fleet = up();
    fleet.kill();
    fleet.nodes[0].start();
    fleet.nodes[0].wait_ready(Duration::from_secs(5));
    let node = fleet.nodes[0].http;
    let refused = |number: u32| {
        let put = http::put(node, &format!("/kv/alone-{number}"), b"x").expect("answered");
        (put.status == 503).then_some(number)
    };
    let mut number = 0;
    wait_until("known within 5 s that nobody else is there", Duration::from_secs(5), || {
        number += 1;
        refused(number).is_some()
    });
    let get = http::request(node, "GET", &format!("/kv/alone-{number}"), &[("R", "1")], b"");
    assert_eq!(get.expect("answered").status, 404, "nothing was written");
}

#[test]
fn a_node_that_ends_cleanly_is_gone_at_once_and_nobody_notices() {
    let mut fleet = up();
    let (left, leaving) = fleet.nodes.split_at_mut(2);
    let status = leaving[0].terminate(Duration::from_secs(12));
    assert_eq!(status.code(), Some(0), "{}", leaving[0].log());
    for node in left {
        wait_until("gone at once", Duration::from_secs(1), || reachable(node) == 2);
        assert_eq!(http::put(node.http, "/kv/key", b"x").expect("answered").status, 200);
    }
}

#[test]
fn a_whole_fleet_that_is_asked_to_end_ends_with_connections_open() {
    let mut fleet = up();
    // Idle connections, as clients with a pool have them.
    let idle: Vec<_> = fleet
        .nodes
        .iter()
        .map(|node| std::net::TcpStream::connect(node.http).expect("it listens"))
        .collect();
    for node in &fleet.nodes {
        assert_eq!(http::put(node.http, "/kv/key", b"x").expect("answered").status, 200);
    }
    fleet.nodes.iter().for_each(|node| node.signal("TERM"));
    for node in &mut fleet.nodes {
        let status = node.wait_end(Duration::from_secs(5));
        assert_eq!(status.code(), Some(0), "{}", node.log());
    }
    drop(idle);
}
