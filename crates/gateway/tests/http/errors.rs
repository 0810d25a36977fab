//! The contract's table of errors, row by row.

use anello_protocol::{
    id::KeyspaceName,
    message::client::{Answer, RequestError},
};
use anello_transport::CallError;
use serde_json::json;

use crate::support::{Gateway, eventually};

fn code(gateway: &Gateway, line: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    gateway.ask(line, headers, body).error()
}

#[test]
fn bad_keys() {
    let gateway = Gateway::start();
    let long = format!("/kv/{}", "k".repeat(1025));
    let longer = format!("/kv/{}", "%41".repeat(5000));
    let paths =
        ["/kv/", "/kv/a/b", "/kv/%", "/kv/%4", "/kv/%zz", "/kv/a?b", "/kv/a#b", &long, &longer];
    for path in paths.into_iter().chain(["/keyspaces/default/kv/"]) {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = code(&gateway, &format!("{method} {path}"), &[], b"");
            assert_eq!(answer, (400, "bad_key".into()), "{method} {path}");
        }
    }
    assert!(gateway.state().gets.is_empty() && gateway.state().writes.is_empty());
}

#[test]
fn bad_contexts() {
    let gateway = Gateway::start();
    let long = "x".repeat(4097);
    for method in ["PUT", "DELETE"] {
        let line = format!("{method} /kv/k");
        let answer = code(&gateway, &line, &[("Anello-Context", &long)], b"");
        assert_eq!(answer, (400, "bad_context".into()));
        gateway.state().written =
            Ok(Answer::from(Err(RequestError::BadContext("of another key".into()))));
        let answer = code(&gateway, &line, &[("Anello-Context", "forged")], b"");
        assert_eq!(answer, (400, "bad_context".into()));
    }
    let answer = gateway.put_json("/kv/k", &format!(r#"{{"value":"v","context":"{long}"}}"#));
    assert_eq!(answer.error(), (400, "bad_context".into()));
}

#[test]
fn bad_consistency() {
    let gateway = Gateway::start();
    for header in [
        ("Anello-Consistency", "some"),
        ("Anello-Consistency", "each_quorum"),
        ("R", "0"),
        ("R", "x"),
        ("W", "-1"),
        ("W", "70000"),
    ] {
        let answer = code(&gateway, "GET /kv/k", &[header], b"");
        assert_eq!(answer, (400, "bad_consistency".into()), "{header:?}");
    }
    gateway.state().found =
        Ok(Answer::from(Err(RequestError::BadConsistency("R is 4, N is 3".into()))));
    let answer = code(&gateway, "GET /kv/k", &[("R", "4")], b"");
    assert_eq!(answer, (400, "bad_consistency".into()));
}

#[test]
fn bad_requests() {
    let gateway = Gateway::start();
    let long = "k".repeat(65);
    for header in [
        ("Anello-Quorum", "loose"),
        ("Anello-Timeout-Ms", "0"),
        ("Anello-Timeout-Ms", "60001"),
        ("Anello-Timeout-Ms", "soon"),
        ("Anello-Explain", "perhaps"),
        ("Idempotency-Key", &long),
        ("Idempotency-Key", ""),
    ] {
        let answer = code(&gateway, "PUT /kv/k", &[header], b"v");
        assert_eq!(answer, (400, "bad_request".into()), "{header:?}");
    }
    for body in [
        "",
        "{}",
        r#"{"value": 1}"#,
        r#"{"value": "v", "ttl": 1}"#,
        r#"["v", "utf-8", null]"#,
        r#"{"value": "v", "encoding": "hex"}"#,
        r#"{"value": "***", "encoding": "base64"}"#,
        "{\"value\"",
    ] {
        let answer = gateway.put_json("/kv/k", body);
        assert_eq!(answer.error(), (400, "bad_request".into()), "{body}");
    }
    let headers = [("Content-Type", "application/json"), ("Anello-Context", "one")];
    let body = br#"{"value": "v", "context": "two"}"#;
    assert_eq!(code(&gateway, "PUT /kv/k", &headers, body), (400, "bad_request".into()));
    let body = br#"{"context": "seen"}"#;
    assert_eq!(code(&gateway, "DELETE /kv/k", &[], body), (400, "bad_request".into()));
    assert!(gateway.state().writes.is_empty());
}

#[test]
fn not_found_and_no_such_keyspace() {
    let gateway = Gateway::start();
    for path in ["/", "/kv", "/metrics/x", "/keyspaces/default", "/admin", "/KV/k"] {
        assert_eq!(gateway.get(path).error(), (404, "not_found".into()), "{path}");
    }
    for name in ["Carts", "9", "a.b", "%ff", &"x".repeat(64)] {
        let answer = gateway.get(&format!("/keyspaces/{name}/kv/k"));
        assert_eq!(answer.error(), (404, "no_such_keyspace".into()), "{name}");
    }
    let carts = KeyspaceName::new("carts").unwrap();
    gateway.state().found = Ok(Answer::from(Err(RequestError::NoSuchKeyspace(carts))));
    let answer = gateway.get("/keyspaces/carts/kv/k");
    assert_eq!(answer.error(), (404, "no_such_keyspace".into()));
}

#[test]
fn methods_that_a_path_does_not_take() {
    let gateway = Gateway::start();
    for (line, allow) in [
        ("POST /kv/k", "GET, HEAD, PUT, DELETE"),
        ("PATCH /keyspaces/default/kv/k", "GET, HEAD, PUT, DELETE"),
        ("OPTIONS /admin/keyspaces/default", "GET, HEAD, PUT, DELETE"),
        ("PUT /healthz", "GET, HEAD"),
        ("DELETE /admin/cluster", "GET, HEAD"),
        ("GET /admin/leave", "POST"),
        ("BREW /kv/k", "GET, HEAD, PUT, DELETE"),
    ] {
        let answer = gateway.ask(line, &[], b"");
        assert_eq!(answer.error(), (405, "method_not_allowed".into()), "{line}");
        assert_eq!(answer.header("Allow"), Some(allow), "{line}");
    }
}

#[test]
fn a_part_that_is_not_there_yet() {
    let gateway = Gateway::start();
    let console = code(&gateway, "GET /console", &[], b"");
    assert_eq!(console, (501, "not_implemented".into()));
}

#[test]
fn overloaded() {
    let gateway = Gateway::start();
    let error = RequestError::Overloaded { retry_after_ms: 2_500 };
    gateway.state().found = Ok(Answer::from(Err(error)));
    let answer = gateway.get("/kv/k");
    assert_eq!(answer.error(), (429, "overloaded".into()));
    assert_eq!(answer.header("Retry-After"), Some("3"));
    gateway.state().written = Err(CallError::Busy);
    let answer = gateway.ask("PUT /kv/k", &[], b"v");
    assert_eq!(answer.error(), (429, "overloaded".into()));
    assert_eq!(answer.header("Retry-After"), Some("1"));
}

#[test]
fn unavailable() {
    let gateway = Gateway::start();
    let error = RequestError::Unavailable { required: 2, alive: 1 };
    gateway.state().written = Ok(Answer::from(Err(error)));
    let answer = gateway.ask("DELETE /kv/k", &[], b"");
    assert_eq!(answer.error(), (503, "unavailable".into()));
    assert_eq!((&answer.json()["required"], &answer.json()["alive"]), (&json!(2), &json!(1)));
    gateway.state().written = Err(CallError::Unreachable);
    let answer = gateway.ask("DELETE /kv/k", &[], b"");
    assert_eq!(answer.error(), (503, "unavailable".into()));
    assert!(answer.json()["required"].is_u64() && answer.json()["alive"].is_u64());
}

#[test]
fn a_node_of_no_cluster_says_so() {
    let gateway = Gateway::start();
    let error = RequestError::Unavailable { required: 1, alive: 0 };
    {
        let mut state = gateway.state();
        state.found = Ok(Answer::from(Err(error.clone())));
        state.written = Ok(Answer::from(Err(error.clone())));
        state.location = Err(error);
        state.view.as_mut().unwrap().not_ready = Some("asks the seeds to take it in".into());
    }
    let lines = ["GET /kv/k", "PUT /kv/k", "DELETE /kv/k", "GET /admin/ring?key=k"];
    let said = |line| {
        let answer = gateway.ask(line, &[], b"");
        assert_eq!(answer.error(), (503, "unavailable".into()));
        assert_eq!((&answer.json()["required"], &answer.json()["alive"]), (&json!(1), &json!(0)));
        answer.json()["message"].as_str().unwrap().to_owned()
    };
    for line in lines {
        assert!(said(line).contains("asks the seeds to take it in"), "{line}");
    }
    gateway.state().view.as_mut().unwrap().not_ready = None;
    for line in lines {
        assert!(said(line).contains("1 replica must answer and none can be reached"), "{line}");
    }
}

#[test]
fn timeout() {
    let gateway = Gateway::start();
    let error = RequestError::Timeout { required: 3, received: 2 };
    gateway.state().found = Ok(Answer::from(Err(error)));
    let answer = gateway.get("/kv/k");
    assert_eq!(answer.error(), (504, "timeout".into()));
    assert_eq!((&answer.json()["required"], &answer.json()["received"]), (&json!(3), &json!(2)));
    assert!(!answer.json()["message"].as_str().unwrap().contains("write"));

    // A coordinator that says nothing at all is given up soon after the request's own deadline.
    gateway.state().hold_writes = true;
    let answer = gateway.ask("PUT /kv/k", &[("Anello-Timeout-Ms", "1")], b"v");
    assert_eq!(answer.error(), (504, "timeout".into()));
    assert!(answer.json()["required"].is_u64() && answer.json()["received"].is_u64());
    // A write whose answer was lost may have been kept.
    let mut client = gateway.connect();
    client.send(b"PUT /kv/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nv").unwrap();
    eventually(|| gateway.state().writes.len() == 2);
    gateway.state().held.clear();
    assert_eq!(client.receive(false).error(), (504, "timeout".into()));
}
