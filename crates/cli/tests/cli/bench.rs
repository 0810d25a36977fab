//! The benchmark against a real fleet: that it measures, not what.

use crate::support::fleet::Fleet;

const ONE_NODE: &str = r#"
name       = "one"
partitions = 16
[[datacenter]]
name  = "eu"
racks = { a = 1 }
"#;

#[test]
fn every_workload_is_measured_over_both_transports() {
    let fleet = Fleet::up(ONE_NODE, 1);
    let bench = |more: &[&str]| {
        let mut args = vec!["bench", "--json", "--keys", "200", "--value-bytes", "100"];
        args.extend(["--clients", "4", "--duration", "300ms", "--warm-up", "50ms"]);
        args.extend(more);
        let ended = fleet.run(&args);
        ended.succeeds();
        let document: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let phases = document["phases"].as_array().unwrap().clone();
        let run = phases.last().unwrap().clone();
        assert!(run["ended"].as_u64().unwrap() > 0, "{run}");
        assert_eq!(run["errors"], serde_json::json!({}), "{run}");
        assert_eq!(run["siblings"], 0, "{run}");
        assert!(run["server_cpu_us_per_operation"].is_number(), "{run}");
        (phases.len(), run)
    };
    let (phases, run) = bench(&[]);
    assert_eq!((phases, &run["missing"]), (2, &0.into()), "a new keyspace is loaded first");
    for workload in ["a", "c", "D", "f", "w"] {
        for transport in [&["--workload", workload][..], &["--workload", workload, "--http"]] {
            assert_eq!(bench(transport).0, 1);
        }
    }
    let (_, run) = bench(&["--read-ratio", "0.9", "--rate", "200", "--threads", "2"]);
    assert!(run["per_second"].as_f64().unwrap() < 400.0, "{run}");
}

#[test]
fn a_keyspace_that_keeps_siblings_is_left_alone() {
    let fleet = Fleet::up(ONE_NODE, 1);
    fleet.run(&["bench", "--keyspace", "default"]).fails(2, "keeps siblings");
}
