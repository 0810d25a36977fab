//! Requests for keys, and the headers that say how.

use anello_protocol::{
    consistency::{Consistency, QuorumKind},
    id::{Datacenter, Epoch, NodeId, PartitionId, Rack},
    message::client::{Receipt, ReplicaOutcome, ReplicaReceipt, Role},
    version::{Content, WriteId},
};
use serde_json::{Value as Json, json};

use crate::support::{Gateway, found, request, token, value};

const BYTES: (&str, &str) = ("Accept", "application/octet-stream");

#[test]
fn a_value_is_put_as_json() {
    let gateway = Gateway::start();
    let body = r#"{"value": "Grüße", "encoding": "utf-8", "context": "seen"}"#;
    let answer = gateway.put_json("/kv/greeting", body);
    assert_eq!((answer.status, answer.json()), (200, json!({"context": "ctx"})));
    assert_eq!(answer.header("Anello-Context"), Some("ctx"));
    let (write, _) = gateway.state().writes.pop().unwrap();
    assert_eq!(write.keyspace.as_str(), "default");
    assert_eq!(write.key.as_bytes(), b"greeting");
    assert_eq!(write.content, value("Grüße".as_bytes()));
    assert_eq!(write.context, Some(token("seen")));

    let utf8 = ("Content-Type", "application/json; charset=utf-8");
    let body = br#"{"value": "/wA=", "encoding": "base64"}"#;
    assert_eq!(gateway.ask("PUT /kv/k", &[utf8, ("Anello-Context", "head")], body).status, 200);
    let (write, _) = gateway.state().writes.pop().unwrap();
    assert_eq!((write.content, write.context), (value(b"\xff\0"), Some(token("head"))));
}

#[test]
fn a_value_is_put_as_it_is() {
    let gateway = Gateway::start();
    let body = b"{\"value\": \xff\0 not json";
    for headers in [&[][..], &[("Content-Type", "text/plain")], &[("Content-Type", "??")]] {
        let answer = gateway.ask("PUT /keyspaces/carts/kv/k", headers, body);
        assert_eq!((answer.status, answer.json()), (200, json!({"context": "ctx"})));
        let (write, _) = gateway.state().writes.pop().unwrap();
        assert_eq!(write.keyspace.as_str(), "carts");
        assert_eq!((write.content, write.context), (value(body), None));
    }
    assert_eq!(gateway.ask("PUT /kv/empty", &[("Content-Length", "0")], b"").status, 200);
    assert_eq!(gateway.state().writes.pop().unwrap().0.content, value(b""));
    let chunked = [("Transfer-Encoding", "chunked")];
    assert_eq!(gateway.ask("PUT /kv/k", &chunked, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n").status, 200);
    assert_eq!(gateway.state().writes.pop().unwrap().0.content, value(b"abcde"));
}

#[test]
fn keys_are_bytes_whatever_they_are() {
    let gateway = Gateway::start();
    for (path, key) in [
        ("/kv/a%2Fb", &b"a/b"[..]),
        ("/kv/%00%ff%FE", b"\0\xff\xfe"),
        ("/kv/..", b".."),
        ("/kv/%2e", b"."),
        ("/kv/%25", b"%"),
        ("/kv/a+b~!$&'()*,;=:@", b"a+b~!$&'()*,;=:@"),
        ("/keyspaces/default/kv/kv", b"kv"),
        ("http://elsewhere/kv/absolute", b"absolute"),
    ] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
        assert_eq!(gateway.state().gets.pop().unwrap().0.key.as_bytes(), key, "{path}");
    }
    let longest = "%41".repeat(1024);
    assert_eq!(gateway.get(&format!("/kv/{longest}")).status, 200);
}

#[test]
fn one_version_is_json_or_bytes() {
    let gateway = Gateway::start();
    gateway.state().found = Ok(found(&[value(b"hi")]));
    let answer = gateway.get("/kv/k");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), json!({"value": "hi", "encoding": "utf-8", "context": "ctx"}));
    assert_eq!(answer.header("Anello-Context"), Some("ctx"));

    gateway.state().found = Ok(found(&[value(b"\xff\0")]));
    let expected = json!({"value": "/wA=", "encoding": "base64", "context": "ctx"});
    assert_eq!(gateway.get("/kv/k").json(), expected);
    let answer = gateway.ask("GET /kv/k", &[BYTES], b"");
    assert_eq!((answer.status, &answer.body[..]), (200, &b"\xff\0"[..]));
    assert_eq!(answer.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(answer.header("Anello-Context"), Some("ctx"));
    gateway.state().found = Ok(found(&[value(b"")]));
    let answer = gateway.ask("GET /kv/k", &[BYTES], b"");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[test]
fn headers_that_come_twice_are_one_list_or_one_value() {
    let gateway = Gateway::start();
    let json = ("Accept", "application/json;q=0.5");
    let answer = gateway.ask("GET /kv/k", &[json, BYTES], b"");
    assert_eq!(answer.header("Content-Type"), Some("application/octet-stream"));

    let text = ("Content-Type", "text/plain");
    let json = ("Content-Type", "application/json");
    for headers in [[text, json], [json, text]] {
        let answer = gateway.ask("PUT /kv/k", &headers, br#"{"value": "v"}"#);
        assert_eq!(answer.error(), (400, "bad_request".into()));
    }
    assert!(gateway.state().writes.is_empty());
    assert_eq!(gateway.ask("PUT /kv/k", &[text, text], b"v").status, 200);
}

#[test]
fn siblings_are_listed_with_the_deleted() {
    let gateway = Gateway::start();
    let siblings = [value(b"a"), Content::Tombstone, value(b"\xff")];
    gateway.state().found = Ok(found(&siblings));
    for headers in [&[][..], &[BYTES]] {
        let answer = gateway.ask("GET /kv/k", headers, b"");
        assert_eq!((answer.status, answer.header("Anello-Context")), (300, Some("ctx")));
        let expected = json!({
            "versions": [
                {"value": "a", "encoding": "utf-8"},
                {"deleted": true},
                {"value": "/w==", "encoding": "base64"},
            ],
            "context": "ctx",
        });
        assert_eq!(answer.json(), expected);
    }
}

#[test]
fn the_deleted_and_the_never_written_are_not_found() {
    let gateway = Gateway::start();
    gateway.state().found = Ok(found(&[]));
    let answer = gateway.get("/kv/k");
    assert_eq!(answer.error(), (404, "not_found".into()));
    assert_eq!(answer.json().get("context"), None);
    assert_eq!(answer.header("Anello-Context"), Some("ctx"));
    gateway.state().found = Ok(found(&[Content::Tombstone]));
    let answer = gateway.ask("GET /kv/k", &[BYTES], b"");
    assert_eq!(answer.error(), (404, "not_found".into()));
    assert_eq!(answer.json()["context"], json!("ctx"));
    assert_eq!(answer.header("Anello-Context"), Some("ctx"));
}

#[test]
fn head_is_get_without_the_body() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    for (contents, status) in [
        (&[value(b"v")][..], 200),
        (&[value(b"v"), Content::Tombstone], 300),
        (&[Content::Tombstone], 404),
    ] {
        gateway.state().found = Ok(found(contents));
        // On one connection: a body that came all the same would be taken for the next answer.
        for line in ["HEAD /kv/k", "GET /kv/k"] {
            let answer = client.ask(line, &[], b"");
            assert_eq!((answer.status, answer.header("Anello-Context")), (status, Some("ctx")));
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
        }
    }
    let answer = client.ask("HEAD /kv/%", &[], b"");
    assert_eq!(answer.status, 400);
}

#[test]
fn delete_writes_a_tombstone() {
    let gateway = Gateway::start();
    let answer = gateway.ask("DELETE /kv/k", &[("Anello-Context", "seen")], b"");
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    let (write, _) = gateway.state().writes.pop().unwrap();
    assert_eq!((write.content, write.context), (Content::Tombstone, Some(token("seen"))));
    let json = [("Content-Type", "application/json"), ("Content-Length", "0")];
    assert_eq!(gateway.ask("DELETE /kv/k", &json, b"").status, 204);
    assert_eq!(gateway.state().writes.pop().unwrap().0.context, None);
    let chunked = [("Transfer-Encoding", "chunked")];
    assert_eq!(gateway.ask("DELETE /kv/k", &chunked, b"0\r\n\r\n").status, 204);
}

#[test]
fn headers_become_options() {
    let gateway = Gateway::start();
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [
        ("ANELLO-consistency", "Local_Quorum"),
        ("R", "2"),
        ("Anello-Quorum", "strict"),
        ("Anello-Timeout-Ms", "1500"),
        ("Anello-Explain", "true"),
        ("traceparent", trace),
        ("tracestate", "vendor=1"),
    ];
    assert_eq!(gateway.ask("GET /kv/k", &headers, b"").status, 200);
    let (get, context) = gateway.state().gets.pop().unwrap();
    assert_eq!(get.options.read, Some(Consistency::Count(2)));
    assert_eq!(get.options.write, Some(Consistency::LocalQuorum));
    assert_eq!(get.options.quorum, QuorumKind::Strict);
    assert_eq!((get.options.timeout_ms, get.options.explain), (1500, true));
    let joined = context.trace.unwrap();
    assert_eq!(get.options.trace_id, Some(joined.trace_id));
    assert_eq!((joined.to_string(), joined.state()), (trace.to_owned(), Some("vendor=1")));

    assert_eq!(gateway.ask("GET /kv/k", &[("traceparent", "00-0-0-0")], b"").status, 200);
    let (get, context) = gateway.state().gets.pop().unwrap();
    assert_eq!((get.options, context.trace), (Default::default(), None));

    let each = [("Anello-Consistency", "each_quorum")];
    assert_eq!(gateway.ask("PUT /kv/k", &each, b"v").status, 200);
    let (write, _) = gateway.state().writes.pop().unwrap();
    assert_eq!(write.options.write, Some(Consistency::EachQuorum));
}

#[test]
fn a_retry_is_the_same_write() {
    let gateway = Gateway::start();
    let key = [("Idempotency-Key", "order 42")];
    for _ in 0..2 {
        assert_eq!(gateway.ask("PUT /kv/k", &key, b"v").status, 200);
        assert_eq!(gateway.ask("PUT /kv/k", &[], b"v").status, 200);
    }
    let ids: Vec<WriteId> = gateway.state().writes.iter().map(|(w, _)| w.write_id).collect();
    assert_eq!(ids[0], ids[2]);
    assert_ne!(ids[1], ids[3]);
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_receipt_comes_with_the_answer() {
    let gateway = Gateway::start();
    let replica = |role, outcome| ReplicaReceipt {
        id: NodeId::new("eu-a-1").unwrap(),
        datacenter: Datacenter::new("eu").unwrap(),
        rack: Rack::new("a").unwrap(),
        role,
        outcome,
        us: 321,
    };
    let receipt = Receipt {
        epoch: Epoch(4),
        partition: PartitionId(9),
        coordinator: NodeId::new("eu-b-1").unwrap(),
        replicas: vec![
            replica(Role::Replica, ReplicaOutcome::Stale),
            replica(Role::StandIn, ReplicaOutcome::Refused),
        ],
    };
    let mut answer = found(&[value(b"v")]);
    answer.receipt = Some(receipt);
    gateway.state().found = Ok(answer);
    let answer = gateway.ask("GET /kv/k", &[("Anello-Explain", "true")], b"");
    let line: Json = serde_json::from_str(answer.header("Anello-Receipt").unwrap()).unwrap();
    let place = |role, outcome| {
        json!({
            "id": "eu-a-1", "datacenter": "eu", "rack": "a", "role": role, "outcome": outcome,
            "us": 321,
        })
    };
    let expected = json!({
        "epoch": 4, "partition": 9, "coordinator": "eu-b-1",
        "replicas": [place("replica", "stale"), place("stand-in", "refused")],
    });
    assert_eq!(line, expected);
}

#[test]
fn a_number_sign_cuts_no_target_short() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let put = [("Content-Type", "text/plain")];
    // Within a body and a header it means nothing, also where it looks like a request.
    let body = b"GET /kv/a#b HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = [("Transfer-Encoding", "chunked"), ("X-Note", "a#b")];
    let requests = [
        (200, request("PUT /kv/a", &put, body)),
        (400, request("PUT /keyspaces/carts/kv/a#b", &put, body)),
        (400, request("PUT /kv/a#b", &put, body)),
        (200, request("PUT /kv/b", &chunked, b"3\r\na#b\r\n0\r\n\r\n")),
        (400, request("GET /kv/a?x#b", &[], b"")),
        (400, request("DELETE /admin/keyspaces/a#b", &[], b"")),
        (200, request("GET /kv/a%23b", &[("X-Note", "#")], b"")),
    ];
    for (status, request) in &requests {
        client.send(request).unwrap();
        let answer = client.receive(false);
        assert_eq!(answer.status, *status, "{}", request.escape_ascii());
        if answer.header("Connection") == Some("close") {
            client = gateway.connect();
        }
    }
    assert_eq!(gateway.state().writes.len(), 2);
    assert!(gateway.state().altered.is_empty());
    assert_eq!(gateway.state().gets.pop().unwrap().0.key.as_bytes(), b"a#b");

    // All at once, and cut anywhere.
    let chunks = b"3;#\r\na#b\r\n00\r\nA: #\nGET /#a HTTP/1.1\r\nB: #\r\n\r\n";
    let requests = [
        (200, request("PUT /kv/a", &put, body)),
        (400, request("GET /kv/a#", &[], b"")),
        (200, request("PUT /kv/b", &chunked, chunks)),
        (400, request("GET /admin/ring?key=a#b", &[], b"")),
        (200, request("GET /kv/b", &[], b"")),
    ];
    let bytes: Vec<_> = requests.iter().flat_map(|(_, bytes)| bytes).copied().collect();
    for cut in 0..bytes.len() {
        let mut client = gateway.connect();
        client.send(&bytes[..cut]).unwrap();
        client.send(&bytes[cut..]).unwrap();
        for (status, request) in &requests {
            assert_eq!(client.receive(false).status, *status, "{}", request.escape_ascii());
        }
    }
}
