//! Requests for operators.

use std::collections::BTreeMap;

use anello_protocol::{
    cluster::{KeyspaceConfig, Phase, Purpose, Replication, RingChange},
    id::{Datacenter, Epoch, KeyspaceName, NodeId},
    message::{
        admin::{AlterError, AwaitedStatus, KeyspaceChange, RingRequest, TransferStatus},
        client::RequestError,
    },
    version::ConflictRule,
};
use anello_transport::CallError;
use serde_json::json;

use crate::support::Gateway;

fn default_keyspace() -> serde_json::Value {
    json!({
        "replication": "auto", "conflict": "siblings", "read": "quorum", "write": "quorum",
        "tombstone_grace_s": 864_000,
    })
}

#[test]
fn health_and_readiness() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/healthz").status, 200);
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.ask("HEAD /readyz", &[], b"").status, 200);
    if let Ok(view) = &mut gateway.state().view {
        view.not_ready = Some("asks the seeds to take it in".into());
    }
    let answer = gateway.get("/readyz");
    assert_eq!(answer.error(), (503, "not_ready".into()));
    assert_eq!(answer.json()["message"], "asks the seeds to take it in");
    gateway.state().view = Err(CallError::Closed);
    assert_eq!(gateway.get("/readyz").status, 503);
    assert_eq!(gateway.get("/admin/cluster").error(), (503, "unavailable".into()));
    assert_eq!(gateway.get("/healthz").status, 200);
}

#[test]
fn the_cluster_as_the_node_sees_it() {
    let gateway = Gateway::start();
    let expected = json!({
        "name": "demo", "partitions": 256,
        "nodes": [{
            "id": "eu-a-1", "datacenter": "eu", "rack": "a", "address": "127.0.0.1:7400",
            "http": "127.0.0.1:7480", "state": "up", "reachable": true, "phi": 1000.0, "verdict": "heard of 0.2 s ago",
            "partitions": 256, "version": "0.1.0",
        }],
        "change": null,
    });
    assert_eq!(gateway.get("/admin/cluster").json(), expected);
}

#[test]
fn a_change_of_the_ring_is_shown() {
    let gateway = Gateway::start();
    if let Some(state) = &mut gateway.state().cluster {
        let mut phases = vec![Phase::Done; 256];
        phases[3] = Phase::Filling;
        phases[4] = Phase::Filling;
        phases[5] = Phase::Serving;
        let purpose = Purpose::Leave(NodeId::new("eu-a-2").unwrap());
        let (began, asked, old) = (Epoch(7), Epoch(7), state.layout());
        state.change = Some(Box::new(RingChange { began, asked, purpose, old, phases }));
    }
    let expected = json!({
        "what": "eu-a-2 leaving", "began": 7,
        "partitions": {"filling": 2, "serving": 1, "done": 253},
    });
    assert_eq!(gateway.get("/admin/cluster").json()["change"], expected);

    let awaited = AwaitedStatus { trees: 4, obstacle: Some("it can't be reached".into()) };
    gateway.state().status.transfers = Some(TransferStatus {
        change: Epoch(7),
        filling: 2,
        serving: 1,
        awaited: BTreeMap::from([(NodeId::new("eu-b-1").unwrap(), awaited)]),
        keys: 30,
        bytes: 9_000,
        bytes_per_s: 300,
        left_s: Some(11),
    });
    let expected = json!({
        "in_flight": 3, "filling": 2, "serving": 1,
        "awaited": {"eu-b-1": {"trees": 4, "obstacle": "it can't be reached"}},
        "keys": 30, "bytes": 9_000, "bytes_per_s": 300, "left_s": 11,
    });
    assert_eq!(gateway.get("/admin/status").json()["transfers"], expected);
}

#[test]
fn nodes_leave_and_are_removed() {
    let gateway = Gateway::start();
    let post = |path: &str| gateway.ask(&format!("POST {path}"), &[], b"");
    let (leave, remove) = ("/admin/leave", "/admin/nodes/eu-a-1/remove");
    let me = NodeId::new("eu-a-1").unwrap();
    for (path, began, change) in [
        (leave, "eu-a-1 leaving", RingRequest::Leave(me.clone())),
        (remove, "eu-a-1 being removed", RingRequest::Remove(me.clone())),
    ] {
        let answer = post(path);
        assert_eq!((answer.status, answer.json()), (202, json!({"epoch": 2, "began": began})));
        assert_eq!(gateway.state().ring_altered.pop().unwrap().change, change);
        assert_eq!(gateway.ask(&format!("POST {path}"), &[], b"{}").status, 400);
    }
    let answer = post("/admin/nodes/eu-x-9/remove");
    assert_eq!(answer.error(), (404, "not_found".into()));
    assert!(answer.json()["message"].as_str().unwrap().contains("members are: eu-a-1"));
    assert!(gateway.state().ring_altered.is_empty());
    for (error, status, code) in [
        (AlterError::Invalid("eu-a-1 is the last node of the cluster".into()), 400, "bad_request"),
        (AlterError::UnderWay("eu-a-2 joining".into()), 409, "conflict"),
        (AlterError::Unavailable { required: 2, alive: 1 }, 503, "unavailable"),
        (AlterError::Timeout, 504, "timeout"),
    ] {
        gateway.state().alter = Err(error);
        for path in [leave, remove] {
            assert_eq!(post(path).error(), (status, code.into()), "{path}");
        }
    }
    // Who was removed once stays so: to say it again is no mistake.
    if let Some(state) = &mut gateway.state().cluster {
        state.removed.insert(NodeId::new("eu-x-9").unwrap());
    }
    gateway.state().alter = Ok(Epoch(9));
    assert_eq!(post("/admin/nodes/eu-x-9/remove").status, 202);
    gateway.state().cluster = None;
    assert_eq!(post(leave).error(), (503, "unavailable".into()));
}

#[test]
fn where_a_key_lives() {
    let gateway = Gateway::start();
    let expected = json!({
        "partition": 17,
        "replicas": [{"id": "eu-a-1", "datacenter": "eu", "rack": "a"}],
        "fallbacks": ["eu-b-1"],
    });
    assert_eq!(gateway.get("/admin/ring?key=%00%ffa%2Fb&keyspace=carts").json(), expected);
    let located = gateway.state().located.pop().unwrap();
    assert_eq!(located.key.as_bytes(), b"\0\xffa/b");
    assert_eq!(located.keyspace.as_str(), "carts");
    // A key is spelled here as in its own path.
    assert_eq!(gateway.get("/admin/ring?key=a+b").status, 200);
    assert_eq!(gateway.get("/kv/a+b").status, 200);
    let located = gateway.state().located.pop().unwrap();
    assert_eq!(located.key, gateway.state().gets.pop().unwrap().0.key);
    assert_eq!(gateway.get("/admin/ring?key=a").status, 200);
    assert_eq!(gateway.state().located.pop().unwrap().keyspace.as_str(), "default");

    assert_eq!(gateway.get("/admin/ring").error(), (400, "bad_key".into()));
    assert_eq!(gateway.get("/admin/ring?key=").error(), (400, "bad_key".into()));
    let answer = gateway.get("/admin/ring?key=a&keyspace=A");
    assert_eq!(answer.error(), (404, "no_such_keyspace".into()));
    let carts = KeyspaceName::new("carts").unwrap();
    gateway.state().location = Err(RequestError::NoSuchKeyspace(carts));
    let answer = gateway.get("/admin/ring?key=a&keyspace=carts");
    assert_eq!(answer.error(), (404, "no_such_keyspace".into()));
}

#[test]
fn the_nodes_own_figures() {
    let gateway = Gateway::start();
    let expected = json!({
        "id": "eu-a-1", "version": "0.1.0", "uptime_s": 5, "epoch": 1, "vnodes": 256,
        "storage": {"bytes": 1024, "keys_estimate": 3},
        "hints": {"us-b-1": {"count": 2, "bytes": 300, "oldest_s": 4}},
        "handoff": {"delivered": 0, "dropped": 0},
        "antientropy": {
            "last_round": null, "rounds": 3, "keys_repaired": 0, "keys_sent": 0, "bytes_sent": 0,
            "hashes_compared": 0, "partitions": 0, "partitions_in_sync": 255,
            "oldest_unverified_s": null, "running": 0, "waiting": 0, "trees_scrubbed": 0,
            "leaves_mended": 0,
        },
        "transfers": {
            "in_flight": 0, "filling": 0, "serving": 0, "awaited": {}, "keys": 0, "bytes": 0,
            "bytes_per_s": 0, "left_s": null,
        },
        "tombstones": {"held": 0, "purged": 0, "waiting": {}},
        "quarantine": null,
        "read_only": null,
        "queues": {
            "vnodes": 0, "longest": 0, "commits": 0, "commit_bytes": 0, "commit_us": 0,
        },
        "requests": {"in_flight": 1, "total": 9},
    });
    assert_eq!(gateway.get("/admin/status").json(), expected);
}

#[test]
fn a_round_of_anti_entropy_is_begun() {
    let gateway = Gateway::start();
    let answer = gateway.ask("POST /admin/antientropy", &[], b"");
    assert_eq!((answer.status, answer.json()), (202, json!({"round": 4})));
    let answer = gateway.ask("POST /admin/antientropy", &[], b"{}");
    assert_eq!(answer.error(), (400, "bad_request".into()));
}

#[test]
fn keyspaces_are_listed_and_shown() {
    let gateway = Gateway::start();
    assert_eq!(gateway.get("/admin/keyspaces").json(), json!({"default": default_keyspace()}));
    assert_eq!(gateway.get("/admin/keyspaces/default").json(), default_keyspace());
    for name in ["carts", "Carts", ""] {
        let answer = gateway.get(&format!("/admin/keyspaces/{name}"));
        assert_eq!(answer.error(), (404, "no_such_keyspace".into()), "{name}");
    }
    gateway.state().cluster = None;
    assert_eq!(gateway.get("/admin/keyspaces").error(), (503, "unavailable".into()));
}

#[test]
fn keyspaces_are_set_field_by_field() {
    let gateway = Gateway::start();
    let body = r#"{"replication": {"eu": 3, "us": 2}, "conflict": "lww", "read": "ONE"}"#;
    let answer = gateway.put_json("/admin/keyspaces/carts", body);
    assert_eq!(answer.status, 200);
    let expected = json!({
        "replication": {"eu": 3, "us": 2}, "conflict": "lww", "read": "one", "write": "quorum",
        "tombstone_grace_s": 864_000,
    });
    assert_eq!(answer.json(), expected);
    let place = |name| Datacenter::new(name).unwrap();
    let replication = BTreeMap::from([(place("eu"), 3), (place("us"), 2)]);
    let asked = gateway.state().altered.pop().unwrap();
    assert_eq!(asked.name.as_str(), "carts");
    let KeyspaceChange::Set(config) = asked.change else { panic!("not set: {asked:?}") };
    assert_eq!(config.replication, Replication::PerDatacenter(replication));
    assert_eq!(config.conflict, ConflictRule::Lww);

    // Of one that exists, the rest stays.
    if let Some(state) = &mut gateway.state().cluster {
        let default = state.keyspaces.values_mut().next().unwrap();
        default.config = KeyspaceConfig { tombstone_grace_s: 7, ..config };
    }
    let answer = gateway.ask("PUT /admin/keyspaces/default", &[], br#"{"replication": "auto"}"#);
    let expected = json!({
        "replication": "auto", "conflict": "lww", "read": "one", "write": "quorum",
        "tombstone_grace_s": 7,
    });
    assert_eq!(answer.json(), expected);
}

#[test]
fn bad_changes_of_keyspaces_are_refused() {
    let gateway = Gateway::start();
    for body in [
        "x",
        r#"{"colour": "red"}"#,
        r#"{"replication": 3}"#,
        r#"{"read": "most"}"#,
        r#"["auto", "lww"]"#,
    ] {
        let answer = gateway.put_json("/admin/keyspaces/carts", body);
        assert_eq!(answer.error(), (400, "bad_request".into()), "{body}");
    }
    let answer = gateway.put_json("/admin/keyspaces/Carts", "{}");
    assert_eq!(answer.error(), (404, "no_such_keyspace".into()));
    assert!(gateway.state().altered.is_empty());

    let carts = KeyspaceName::new("carts").unwrap();
    for (error, status, code) in [
        (AlterError::Invalid("there is no datacenter us".into()), 400, "bad_request"),
        (AlterError::NoSuchKeyspace(carts), 404, "no_such_keyspace"),
        (AlterError::Unavailable { required: 2, alive: 1 }, 503, "unavailable"),
        (AlterError::UnderWay("eu-a-2 joining".into()), 409, "conflict"),
        (AlterError::Timeout, 504, "timeout"),
    ] {
        gateway.state().alter = Err(error);
        let answer = gateway.put_json("/admin/keyspaces/carts", "{}");
        assert_eq!(answer.error(), (status, code.into()));
        assert_eq!(answer.json()["required"].is_u64(), status > 500);
    }
}

#[test]
fn keyspaces_are_dropped() {
    let gateway = Gateway::start();
    let answer = gateway.ask("DELETE /admin/keyspaces/carts", &[], b"");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    assert_eq!(gateway.state().altered.pop().unwrap().change, KeyspaceChange::Drop);
}

#[test]
fn the_description_and_the_counters() {
    let gateway = Gateway::start();
    let described = gateway.get("/openapi.json").json();
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(described["paths"]["/kv/{key}"]["put"].is_object());
    gateway.get("/kv/k");
    let answer = gateway.get("/metrics");
    assert!(answer.header("Content-Type").unwrap().starts_with("text/plain"));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.contains("anello_http_requests_total{operation=\"get\",status=\"200\"} 1\n"));
}
