//! Six real processes in two datacenters: ready in time, one cluster, data on both sides.

mod fleet;

use std::time::{Duration, Instant};

use fleet::{Fleet, Place, http, wait_until};

const SIX: [Place; 6] = [
    Place { id: "eu-a-1", datacenter: "eu", rack: "a" },
    Place { id: "eu-b-1", datacenter: "eu", rack: "b" },
    Place { id: "eu-c-1", datacenter: "eu", rack: "c" },
    Place { id: "us-a-1", datacenter: "us", rack: "a" },
    Place { id: "us-b-1", datacenter: "us", rack: "b" },
    Place { id: "us-c-1", datacenter: "us", rack: "c" },
];

fn reachable(from: &fleet::Node) -> usize {
    let Ok(answer) = http::get(from.http, "/admin/cluster") else { return 0 };
    let nodes = answer.json()["nodes"].as_array().cloned().unwrap_or_default();
    nodes.iter().filter(|node| node["reachable"] == true).count()
}

#[test]
fn six_empty_nodes_are_ready_within_10_s_and_keep_data_on_both_sides() {
    let start = Instant::now();
    let mut fleet = Fleet::up(&SIX);
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "ready after {took:?}");
    for node in &fleet.nodes {
        wait_until("all see each other", fleet::PATIENCE, || reachable(node) == 6);
    }
    let (eu, us) = (fleet.nodes[0].http, fleet.nodes[4].http);

    let everywhere = [("Anello-Consistency", "all"), ("Anello-Explain", "true")];
    let put = http::request(eu, "PUT", "/kv/key", &everywhere, b"from eu").expect("answered");
    assert_eq!(put.status, 200, "{}", put.text());
    let receipt: serde_json::Value =
        serde_json::from_str(put.header("Anello-Receipt").expect("asked for")).expect("JSON");
    let replicas = receipt["replicas"].as_array().expect("a list");
    assert_eq!(replicas.len(), 6, "{receipt}");
    assert!(replicas.iter().all(|replica| replica["outcome"] == "answered"), "{receipt}");
    for level in ["local_quorum", "quorum", "all", "one"] {
        let get = http::request(us, "GET", "/kv/key", &[("Anello-Consistency", level)], b"");
        let get = get.expect("answered");
        assert_eq!((get.status, get.json()["value"].as_str()), (200, Some("from eu")), "{level}");
    }

    // Each datacenter goes on by itself where its own replicas are enough.
    for node in &mut fleet.nodes[..3] {
        node.kill();
    }
    let local = [("Anello-Consistency", "local_quorum")];
    wait_until("us notices", Duration::from_secs(5), || reachable(&fleet.nodes[4]) == 3);
    let put = http::request(us, "PUT", "/kv/alone", &local, b"from us").expect("answered");
    assert_eq!(put.status, 200, "{}", put.text());
    let put = http::request(us, "PUT", "/kv/alone", &everywhere[..1], b"no").expect("answered");
    assert_eq!(put.status, 503, "{}", put.text());
    assert_eq!(put.json()["alive"], 3);
}
