//! A real fleet, as a person runs it: up, data in and out, faults by hand, down, and up again.

use std::time::{Duration, Instant};

use crate::support::{Ended, fleet::Fleet};

const THREE_NODES: &str = r#"
name       = "three"
partitions = 64
[[datacenter]]
name  = "eu"
racks = { a = 1, b = 1, c = 1 }
[[keyspace]]
name     = "last"
conflict = "lww"
"#;

const FOUR_NODES: &str = r#"
name       = "four"
partitions = 64
[[datacenter]]
name  = "eu"
racks = { a = 2, b = 1, c = 1 }
"#;

const ONE_NODE: &str = r#"
name       = "one"
partitions = 16
[[datacenter]]
name  = "eu"
racks = { a = 1 }
"#;

const TWO_DATACENTERS: &str = r#"
name       = "two"
partitions = 64
[[datacenter]]
name  = "eu"
racks = { a = 1 }
[[datacenter]]
name  = "us"
racks = { a = 1 }
"#;

fn json(ended: &Ended) -> serde_json::Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn keys_are_written_read_settled_and_deleted() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.run(&["get", "cart"]).fails(4, "there is no cart");
    fleet.run(&["put", "cart", "apples"]).succeeds();
    assert_eq!(fleet.run(&["get", "cart"]).succeeds(), "apples");

    fleet.run(&["put", "cart", "pears"]).succeeds();
    let siblings = fleet.run(&["get", "cart"]);
    assert_eq!(siblings.code, Some(3), "{siblings:?}");
    assert!(siblings.out.contains("[1] ") && siblings.out.contains("[2] "), "{siblings:?}");
    assert!(siblings.err.contains("2 concurrent versions"), "{siblings:?}");

    assert_eq!(fleet.run_unread(&["get", "cart"]), Some(3));
    assert_eq!(fleet.run_unread(&["get", "cart", "--json"]), Some(3));
    assert_eq!(fleet.run_unread(&["get", "nothing", "--json"]), Some(4));

    let siblings = fleet.run(&["get", "cart", "--json"]);
    assert_eq!(siblings.code, Some(3), "{siblings:?}");
    let document = json(&siblings);
    assert_eq!(document["versions"].as_array().map(Vec::len), Some(2));
    let context = document["context"].as_str().unwrap().to_owned();
    fleet.run(&["put", "cart", "both", "--context", &context]).succeeds();
    assert_eq!(fleet.run(&["get", "cart", "-r", "3"]).succeeds(), "both");

    fleet.run(&["put", "other", "x", "--context", &context]).fails(2, "context");
    fleet.run(&["delete", "cart"]).succeeds();
    fleet.run(&["get", "cart"]).fails(4, "was deleted");
    fleet.run(&["put", "k", "v", "--keyspace", "nowhere"]).fails(1, "no keyspace");
    fleet.run(&["put", "k", "one", "--keyspace", "last"]).succeeds();
    fleet.run(&["put", "k", "two", "--keyspace", "last"]).succeeds();
    assert_eq!(fleet.run(&["get", "k", "--keyspace", "last"]).succeeds(), "two");
    fleet.run(&["get", "k", "-r", "4"]).fails(2, "");
}

#[test]
fn the_cluster_shows_itself() {
    let fleet = Fleet::up(THREE_NODES, 3);
    // A node that is ready need not have heard of every other one.
    let seen = fleet.until(&["status"], |shown| shown.out.contains("3 of 3 nodes reachable"));
    seen.succeeds();
    let status = fleet.run(&["status", "--json"]);
    let nodes = json(&status)["nodes"].as_array().unwrap().clone();
    let ids: Vec<_> = nodes.iter().map(|node| node["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["eu-a-1", "eu-b-1", "eu-c-1"]);
    assert!(nodes.iter().all(|node| node["reachable"] == true && node["state"] == "up"));

    let ring = json(&fleet.run(&["ring", "--json"]));
    assert_eq!(ring["replicas"].as_array().unwrap().len(), 64);
    let located = json(&fleet.run(&["ring", "cart", "--json"]));
    let partition = located["partition"].as_u64().unwrap() as usize;
    let mut replicas: Vec<_> =
        located["replicas"].as_array().unwrap().iter().map(|place| place["id"].clone()).collect();
    let mut owners = ring["replicas"][partition].as_array().unwrap().clone();
    replicas.sort_by_key(ToString::to_string);
    owners.sort_by_key(ToString::to_string);
    assert_eq!(replicas, owners, "the ring here is the ring there");
    assert!(fleet.run(&["ring", "cart"]).succeeds().contains("the key's hash is"));

    fleet.run(&["keyspace", "create", "sessions", "--replication", "eu=2"]).succeeds();
    fleet.run(&["keyspace", "create", "sessions"]).fails(1, "there already");
    fleet.run(&["keyspace", "alter", "sessions", "--read", "one"]).succeeds();
    let keyspaces = json(&fleet.run(&["keyspace", "list", "--json"]));
    assert_eq!(keyspaces["sessions"]["replication"]["eu"], 2);
    assert_eq!(keyspaces["sessions"]["read"], "one");
    assert_eq!(keyspaces["last"]["conflict"], "lww");
    fleet
        .run(&["keyspace", "alter", "sessions", "--read", "three"])
        .fails(1, "asks for 3 replicas");
    let plan = json(&fleet.run(&[
        "node",
        "join",
        "--plan",
        "--datacenter",
        "eu",
        "--rack",
        "a",
        "--id",
        "eu-a-2",
        "--json",
    ]));
    assert_eq!(plan["what"], "eu-a-2 joining");
    assert!(plan["gains"]["eu-a-2"]["partitions"].as_u64().unwrap() > 0, "{plan}");
    let plan = fleet.run(&["node", "leave", "eu-c-1", "--plan"]);
    assert!(plan.succeeds().contains("get another holder") || plan.out.contains("nothing moves"));
    fleet.run(&["node", "leave", "eu-c-1"]).fails(2, "--yes");
    fleet.run(&["node", "remove", "eu-x-1", "--yes"]).fails(1, "no member of the cluster");
    assert!(fleet.run(&["node", "drain", "eu-a-1"]).succeeds().contains("can be stopped"));

    fleet.run(&["keyspace", "drop", "sessions"]).fails(2, "--yes");
    let dropped = json(&fleet.run(&["keyspace", "drop", "sessions", "--yes", "--json"]));
    assert_eq!(dropped["dropped"], "sessions");
    fleet.run(&["keyspace", "alter", "sessions"]).fails(1, "no keyspace sessions");
}

#[test]
fn nodes_are_killed_and_come_back_and_data_stays() {
    let mut fleet = Fleet::up(THREE_NODES, 3);
    fleet.run(&["put", "greeting", "hello"]).succeeds();

    fleet.run(&["fleet", "kill", "eu-b-1"]).succeeds();
    fleet.wait_for("eu-b-1  is down, as somebody wanted");
    assert_eq!(fleet.run(&["get", "greeting"]).succeeds(), "hello");
    fleet.run(&["fleet", "stop", "eu-b-1"]).fails(1, "does not run");

    fleet.run(&["fleet", "pause", "eu-c-1"]).succeeds();
    let read = fleet.run(&["get", "greeting", "--timeout", "3s"]);
    assert_ne!(read.code, Some(0), "one replica of three is no quorum: {read:?}");
    fleet.run(&["fleet", "resume", "eu-c-1"]).succeeds();

    fleet.run(&["fleet", "start", "eu-b-1"]).succeeds();
    fleet.wait_for("eu-b-1  ready");
    let all_ready =
        |shown: &Ended| json(shown).as_array().unwrap().iter().all(|node| node["state"] == "ready");
    fleet.until(&["fleet", "ls", "--json"], all_ready);

    assert!(fleet.interrupt().success());
    fleet.run(&["get", "greeting", "--timeout", "1s"]).fails(1, "is the cluster up");
    let listed = json(&fleet.run(&["fleet", "ls", "--json"]));
    assert!(listed.as_array().unwrap().iter().all(|node| node["state"] == "stopped"), "{listed}");

    fleet.start();
    fleet.wait_for("3 of 3 nodes are ready");
    assert_eq!(fleet.run(&["get", "greeting"]).succeeds(), "hello");
}

#[test]
fn a_killed_node_can_be_started_at_once() {
    let fleet = Fleet::up(ONE_NODE, 1);
    for _ in 0..5 {
        fleet.run(&["fleet", "kill", "eu-a-1"]).succeeds();
        fleet.run(&["fleet", "start", "eu-a-1"]).succeeds();
    }
    for action in ["pause", "resume", "stop", "start", "kill"] {
        let done = json(&fleet.run(&["fleet", action, "eu-a-1", "--json"]));
        let expected = serde_json::json!({ "fleet": "one", "action": action, "nodes": ["eu-a-1"] });
        assert_eq!(done, expected);
    }
    let nope = ["fleet", "start", "--fleet", "nope", "eu-a-1"];
    fleet.run(&nope).fails(1, "there is no fleet nope in this directory: --fleet is one of one");
}

#[test]
fn a_program_can_follow_a_fleet() {
    let mut fleet = Fleet::up(ONE_NODE, 1);
    assert!(fleet.interrupt().success());
    fleet.start_with(&["--json"]);
    let ready = fleet.wait_for("\"state\":\"ready\"");
    let document: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert_eq!((&document["node"], &document["quic"]), (&"eu-a-1".into(), &fleet.quic(0).into()));
    let up = fleet.wait_for("\"state\":\"up\"");
    let document: serde_json::Value = serde_json::from_str(&up).unwrap();
    assert_eq!((&document["ready"], &document["nodes"]), (&1.into(), &1.into()));
    fleet.run(&["fleet", "kill", "eu-a-1"]).succeeds();
    let stopped = fleet.wait_for("\"state\":\"stopped\"");
    assert!(serde_json::from_str::<serde_json::Value>(&stopped).is_ok(), "{stopped}");
}

#[test]
fn a_change_of_the_cluster_ends_in_time_and_says_who_is_missing() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.run(&["fleet", "pause", "eu-b-1", "eu-c-1"]).succeeds();
    let began = Instant::now();
    let change = ["keyspace", "create", "new", "--node", &fleet.quic(0), "--timeout", "2s"];
    let ended = fleet.run(&change);
    assert!(began.elapsed() < Duration::from_secs(10), "{ended:?}");
    assert!(matches!(ended.code, Some(1 | 5)), "{ended:?}");
    assert!(ended.err.contains("anello status"), "{ended:?}");
    assert!(!ended.err.contains("--consistency"), "members vote at no level: {ended:?}");
}

#[test]
fn a_node_that_dies_by_itself_is_reported_and_the_fleet_goes_on() {
    let mut fleet = Fleet::up(THREE_NODES, 3);
    let pid = std::fs::read_to_string(fleet.dir().join(".anello/three/run/eu-a-1.pid")).unwrap();
    crate::support::fleet::signal("KILL", pid.parse().unwrap());
    let line = fleet.wait_for("eu-a-1  died by itself");
    assert!(line.contains("anello fleet start eu-a-1"), "{line}");
    fleet.run(&["put", "k", "v"]).succeeds();
    let second = fleet.run(&["fleet", "up", "fleet.toml"]);
    second.fails(1, "is up already");
}

#[test]
fn too_few_replicas_is_exit_code_5() {
    let fleet = Fleet::up(TWO_DATACENTERS, 2);
    fleet.run(&["put", "k", "v", "--consistency", "all"]).succeeds();
    let here = fleet.run(&["get", "k", "--node", &fleet.quic(1), "--consistency", "local_one"]);
    assert_eq!(here.succeeds(), "v");
    fleet.run(&["fleet", "kill", "us-a-1"]).succeeds();
    // Of a node that is there: only it can say that the others are not, once it knows.
    let there = fleet.quic(0);
    fleet.until(&["status", "--node", &there], |shown| shown.out.contains("1 of 2 nodes"));
    // Another key: a write that was refused here may still have been stored where it could.
    let put = fleet.run(&["put", "l", "v", "--node", &there, "--consistency", "each_quorum"]);
    put.fails(5, "anello status");
    assert_eq!(fleet.run(&["get", "k", "--consistency", "one"]).succeeds(), "v");
}

#[test]
fn a_node_leaves_and_the_others_have_all_that_it_had() {
    let fleet = Fleet::up(FOUR_NODES, 4);
    fleet.until(&["status"], |shown| shown.out.contains("4 of 4 nodes reachable")).succeeds();
    for at in 0..50 {
        fleet.run(&["put", &format!("key {at}"), "v"]).succeeds();
    }
    let done = json(&fleet.run(&[
        "node",
        "leave",
        "eu-a-2",
        "--yes",
        "--wait",
        "--json",
        "--node",
        &fleet.quic(0),
    ]));
    assert_eq!(done["began"], "eu-a-2 leaving");
    assert_eq!(done["done"], true);
    let status = json(&fleet.run(&["status", "--json", "--node", &fleet.quic(0)]));
    let nodes = status["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|node| node["id"] != "eu-a-2"), "{status}");
    assert!(status["change"].is_null(), "{status}");
    for at in 0..50 {
        let key = format!("key {at}");
        assert_eq!(fleet.run(&["get", &key, "-r", "3"]).succeeds(), "v");
    }
    let again = ["node", "leave", "eu-a-2", "--yes", "--node", &fleet.quic(0)];
    fleet.run(&again).fails(1, "any more");
}
