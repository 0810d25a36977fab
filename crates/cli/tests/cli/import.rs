//! Import and check, against a real fleet.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use crate::support::fleet::{Fleet, signal};

const THREE_NODES: &str = r#"
name       = "three"
partitions = 64
[[datacenter]]
name  = "eu"
racks = { a = 1, b = 1, c = 1 }
"#;

fn records(range: std::ops::Range<u32>) -> String {
    let mut text = String::new();
    for number in range {
        let value = format!("value {number} ").repeat(20);
        let _ = writeln!(text, "{{\"key\":\"key {number}\",\"value\":\"{value}\"}}");
    }
    text
}

#[test]
fn what_is_imported_is_there_byte_for_byte_and_twice_is_once() {
    let fleet = Fleet::up(THREE_NODES, 3);
    let mut text = records(0..500);
    text.push_str("{\"key\":\"binary\",\"value\":\"AP/+\",\"encoding\":\"base64\"}\n");
    fleet.write("in.jsonl", &text);
    assert!(fleet.run(&["import", "in.jsonl"]).succeeds().contains("501 written, 0 failed"));
    assert!(fleet.run(&["import", "--restart", "in.jsonl"]).succeeds().contains("501 written"));
    assert!(fleet.run(&["import", "--check", "in.jsonl"]).succeeds().contains("501 the same"));

    fleet.write("other.jsonl", &(records(495..505).replace("value 499", "VALUE 499")));
    let differs = fleet.run(&["import", "--check", "other.jsonl"]);
    assert_eq!(differs.code, Some(1), "{differs:?}");
    assert!(differs.out.contains("4 the same, 5 missing, 1 different"), "{differs:?}");
    assert!(differs.err.contains("key 499 has another value"), "{differs:?}");
}

#[test]
fn a_killed_node_fails_no_record() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.write("in.jsonl", &records(0..3000));
    let mut import = crate::support::anello(fleet.dir())
        .args(["import", "in.jsonl", "--in-flight", "16"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    fleet.run(&["fleet", "kill", "eu-b-1"]).succeeds();
    let status = import.wait().unwrap();
    assert!(status.success(), "{status}");
    fleet.run(&["fleet", "kill", "--all"]).succeeds();
    fleet.run(&["fleet", "start", "--all"]).succeeds();
    assert!(fleet.run(&["import", "--check", "in.jsonl"]).succeeds().contains("3000 the same"));
}

/// Begins an import of `in.jsonl`, and interrupts it once it has kept how far it is.
fn interrupt_import(fleet: &Fleet) {
    let mut import = crate::support::anello(fleet.dir())
        .args(["import", "in.jsonl", "--in-flight", "1"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let kept = fleet.dir().join(".anello/imports");
    let is_kept = || std::fs::read_dir(&kept).is_ok_and(|mut entries| entries.next().is_some());
    let until = Instant::now() + Duration::from_secs(60);
    while !is_kept() {
        assert!(Instant::now() < until && import.try_wait().expect("it is ours").is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    signal("INT", import.id());
    assert_eq!(import.wait().expect("it is ours").code(), Some(1));
}

#[test]
fn a_bookmark_is_believed_if_the_cluster_is_seen_to_have_what_it_speaks_of() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.write("in.jsonl", &records(0..6000));
    interrupt_import(&fleet);
    let on = fleet.run(&["import", "in.jsonl"]);
    assert!(on.err.contains("got all records in"), "{on:?}");
    assert!(!on.succeeds().contains("6000 written"), "{on:?}");

    interrupt_import(&fleet);
    fleet.run(&["delete", "key 0"]).succeeds();
    let gone = fleet.run(&["import", "in.jsonl"]);
    assert!(gone.err.contains("beginning anew"), "{gone:?}");
    assert!(gone.succeeds().contains("6000 written, 0 failed"), "{gone:?}");

    interrupt_import(&fleet);
    fleet.run(&["fleet", "kill", "eu-b-1"]).succeeds();
    let unseen = fleet.run(&["import", "in.jsonl", "-r", "3", "--patience", "1s"]);
    unseen.fails(1, "--restart begins anew");
    fleet.run(&["put", "key 0", "of somebody else"]).succeeds();
    fleet.run(&["import", "in.jsonl"]).fails(1, "has another value in the cluster");
    let anew = fleet.run(&["import", "in.jsonl", "--restart"]);
    assert!(anew.succeeds().contains("6000 written, 0 failed"), "{anew:?}");
}

#[test]
fn bad_records_are_listed_and_tried_again() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.write("in.jsonl", &format!("{}nonsense\n{}", records(0..10), records(10..20)));
    let ended = fleet.run(&["import", "in.jsonl"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("line 11: no record"), "{ended:?}");
    assert!(ended.out.contains("20 written, 1 failed"), "{ended:?}");
    assert!(ended.err.contains("the same command again goes on at the first"), "{ended:?}");
    let again = fleet.run(&["import", "in.jsonl"]);
    assert!(again.err.contains("going on after line 10,"), "{again:?}");
    assert!(again.out.contains("10 written, 1 failed"), "{again:?}");
    let document = fleet.run(&["import", "in.jsonl", "--json"]);
    assert_eq!(document.code, Some(1), "{document:?}");
    assert_eq!(document.out.lines().count(), 1, "one document: {document:?}");
    assert!(document.out.contains("\"failed\":1"), "{document:?}");
    assert_eq!(fleet.run_unread(&["import", "in.jsonl"]), Some(1), "a failure stays a failure");
    fleet.run(&["import", "none.jsonl"]).fails(2, "cannot read none.jsonl");
}
