//! Whatever a stranger sends: an answer that is not the server's fault, or a closed connection.

use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{Gateway, eventually, request};

/// Requests that mean something, for others to be made of.
fn templates() -> Vec<Vec<u8>> {
    let json = [("Content-Type", "application/json"), ("Anello-Context", "abc")];
    let value = br#"{"value": "dmFsdWU=", "encoding": "base64", "context": "abc"}"#;
    let how = [
        ("Anello-Consistency", "quorum"),
        ("R", "2"),
        ("W", "2"),
        ("Anello-Quorum", "strict"),
        ("Anello-Timeout-Ms", "100"),
        ("Anello-Explain", "true"),
        ("Idempotency-Key", "order-42"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=1"),
        ("Accept", "application/octet-stream;q=0.5, */*"),
    ];
    let chunked = [("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
    vec![
        request("GET /kv/a%2Fb%00%ff", &how, b""),
        request("PUT /keyspaces/carts/kv/k", &how, b"value"),
        request("PUT /kv/k", &json, value),
        request("PUT /kv/k", &chunked, b"3\r\nabc\r\n0\r\n\r\n"),
        request("DELETE /kv/k", &how, b""),
        request("HEAD /kv/k", &[], b""),
        request("PUT /admin/keyspaces/carts", &json, br#"{"replication": {"eu": 3}}"#),
        request("GET /admin/ring?key=a%2Fb&keyspace=carts", &[], b""),
        request("GET /admin/keyspaces", &[], b""),
        request("POST /admin/nodes/eu-a-1/remove", &[], b""),
    ]
}

#[derive(Clone, Debug)]
enum Mutation {
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        (at(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, b)| Mutation::Insert(at, b)),
        (at(), "[%/?#&=\r\n:; 0-9a-f{}\"\\\\]{1,8}")
            .prop_map(|(at, text)| Mutation::Insert(at, text.into_bytes())),
        (at(), 1..30_usize).prop_map(|(at, len)| Mutation::Remove(at, len)),
        (at(), 1..200_usize).prop_map(|(at, len)| Mutation::Repeat(at, len)),
    ]
}

fn apply(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    match mutation {
        Mutation::Replace(at, byte) => *at.get_mut(bytes) = *byte,
        Mutation::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Remove(at, len) => {
            let at = at.index(bytes.len());
            bytes.drain(at..bytes.len().min(at + len));
        }
        Mutation::Repeat(at, len) => {
            let at = at.index(bytes.len());
            let again = bytes[at..bytes.len().min(at + len)].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

#[test]
fn mutated_requests_are_never_the_servers_fault() {
    let gateway = Gateway::start();
    let requests = (prop::sample::select(templates()), prop::collection::vec(mutation(), 1..6))
        .prop_map(|(mut bytes, mutations)| {
            mutations.iter().for_each(|mutation| apply(&mut bytes, mutation));
            bytes
        });
    let mut runner = TestRunner::new(ProptestConfig::with_cases(3_000));
    let outcome = runner.run(&requests, |bytes| {
        let mut client = gateway.connect();
        let _ = client.send(&bytes);
        client.finish();
        while let Some(answer) = client.try_receive_any() {
            prop_assert!(answer.status < 500 || answer.status == 501, "{answer:?}");
            prop_assert!(answer.status < 400 || answer.header("Content-Length") != Some("0"));
            if answer.status >= 400 && !answer.body.is_empty() {
                answer.error();
            }
        }
        Ok(())
    });
    outcome.unwrap();
    assert_eq!(gateway.get("/kv/k").status, 200);
    // The one connection that asks.
    let counted = "\nanello_http_connections 1\n";
    eventually(|| String::from_utf8_lossy(&gateway.get("/metrics").body).contains(counted));
}
