//! Import and check, against a real fleet.

use std::fmt::Write;

use crate::support::fleet::Fleet;

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

#[test]
fn a_bookmark_that_cant_be_checked_is_not_believed() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.write("in.jsonl", &format!("{}nonsense\n{}", records(0..10), records(10..20)));
    let import = |more: &[&str]| fleet.run(&[&["import", "in.jsonl"], more].concat());
    assert_eq!(import(&[]).code, Some(1));
    fleet.run(&["put", "key 0", "of somebody else"]).succeeds();
    let other = import(&[]);
    assert!(other.err.contains("beginning anew"), "{other:?}");
    assert!(other.out.contains("20 written, 1 failed"), "{other:?}");

    fleet.run(&["fleet", "kill", "eu-b-1"]).succeeds();
    let unseen = import(&["-r", "3", "--patience", "5s"]);
    assert!(unseen.err.contains("beginning anew"), "{unseen:?}");
    assert!(unseen.out.contains("20 written, 1 failed"), "{unseen:?}");
}

#[test]
fn bad_records_are_listed_and_tried_again() {
    let fleet = Fleet::up(THREE_NODES, 3);
    fleet.write("in.jsonl", &format!("{}nonsense\n{}", records(0..10), records(10..20)));
    let ended = fleet.run(&["import", "in.jsonl"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err.contains("line 11: no record"), "{ended:?}");
    assert!(ended.out.contains("20 written, 1 failed"), "{ended:?}");
    let again = fleet.run(&["import", "in.jsonl"]);
    assert!(again.err.contains("going on after line 10"), "{again:?}");
    assert!(again.out.contains("10 written, 1 failed"), "{again:?}");
    assert_eq!(fleet.run_unread(&["import", "in.jsonl"]), Some(1), "a failure stays a failure");
    fleet.run(&["import", "none.jsonl"]).fails(2, "cannot read none.jsonl");
}
