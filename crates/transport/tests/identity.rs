//! Who is let in, and who is not: certificates, names, clusters, protocols.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test may panic, and shares its support")]

mod support;

use anello_transport::{
    CallError, Identity, IdentityError, Listener, ListenerConfig, TlsFiles, TlsPem, Worker,
};
use support::{
    answering, anywhere, authority::Authority, client, cluster, dial, id, listen, logs::Logs, node,
    patient, probe, raw, run, until,
};
use tokio::runtime::Handle;

#[test]
fn a_bare_address_tells_who_is_there() {
    run(async {
        let authority = Authority::new();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let address = listener.local_address().to_string();
        for (peers, caller) in [
            (dial(node(&authority, "a")), r#"Node("a")"#),
            (dial(client(&authority, "web")), r#"Client("web")"#),
        ] {
            for _ in 0..2 {
                let (who, answer) = peers.call_address(&address, probe(), patient()).await.unwrap();
                assert_eq!((who, answer.caller.as_str()), (id("b"), caller));
            }
        }
        // Other names in the certificate are for others; the first one counts.
        let pem = authority.issue(&["c", "localhost", "kv.example.org"]);
        let many = Identity::node(cluster("demo"), id("c"), &pem).unwrap();
        let listener = listen(anywhere(), many, answering());
        let peers = dial(node(&authority, "a"));
        let address = listener.local_address().to_string();
        let (who, _) = peers.call_address(&address, probe(), patient()).await.unwrap();
        assert_eq!(who, id("c"));
        peers.know(&id("localhost"), &address);
        let outcome = peers.call(&id("localhost"), probe(), patient()).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
    });
}

/// Dials `listener` as `b` and by its bare address, as `identity`, and expects to be refused, with these
/// words in both logs: the dialler's, which says more than the callers learn, and the listener's.
async fn expect_refusal(identity: Identity, listener: &Listener, dialler: &str, listening: &str) {
    let (logs, _guard) = Logs::listen();
    let peers = dial(identity);
    let address = listener.local_address().to_string();
    peers.know(&id("b"), &address);
    let outcome = peers.call(&id("b"), probe(), patient()).await;
    assert_eq!(outcome, Err(CallError::Unreachable));
    until("the dialler knows why", || peers.trouble(&id("b")).is_some()).await;
    let trouble = peers.trouble(&id("b")).unwrap();
    assert!(trouble.contains(dialler), "{trouble}");
    let outcome = peers.call_address(&address, probe(), patient()).await;
    let Err(CallError::Refused(why)) = outcome else { panic!("{outcome:?}") };
    assert!(why.contains(dialler), "{why}");
    assert!(!peers.is_connected(&id("b")));
    assert!(logs.tell(&["refused", dialler, "peer=b"]), "{:?}", logs.lines());
    until("the listener logs it", || {
        logs.tell(&["refused a connection", listening, "peer=127.0.0.1"])
    })
    .await;
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let listener = listen(anywhere(), node(&ours, "b"), answering());
        expect_refusal(
            node(&theirs, "a"),
            &listener,
            "invalid peer certificate",
            "handshake failed",
        )
        .await;
    });
}

#[test]
fn another_cluster_is_refused() {
    run(async {
        let authority = Authority::new();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let pem = authority.issue(&["a"]);
        let other = Identity::node(cluster("other"), id("a"), &pem).unwrap();
        let words = "is of cluster \"other\", not of \"demo\"";
        expect_refusal(other, &listener, words, words).await;
        let pem = authority.issue(&["client.web"]);
        let other = Identity::client(Some(cluster("other")), &pem).unwrap();
        expect_refusal(other, &listener, words, words).await;
    });
}

#[test]
fn a_certificate_of_another_name_is_refused() {
    run(async {
        let authority = Authority::new();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let peers = dial(node(&authority, "a"));
        let (logs, _guard) = Logs::listen();
        peers.know(&id("c"), &listener.local_address().to_string());
        let outcome = peers.call(&id("c"), probe(), patient()).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
        until("it is logged", || logs.tell(&["refused", "peer=c", "not valid for name", "\"c\""]))
            .await;
        // The right name goes.
        peers.know(&id("b"), &listener.local_address().to_string());
        assert!(peers.call(&id("b"), probe(), patient()).await.is_ok());
    });
}

#[test]
fn a_claim_that_the_certificate_does_not_bear_out_is_refused() {
    run(async {
        let authority = Authority::new();
        let (logs, _guard) = Logs::listen();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let to = listener.local_address();
        let (a, web) = (authority.issue(&["a"]), authority.issue(&["client.web"]));
        let (unnamed, odd) = (authority.issue(&[]), authority.issue(&["a.b.c"]));
        let (peer, user) = ("anello-peer/1", "anello-client/1");
        for (pem, alpn, hello, why) in [
            // A node that says it is another; a client that says it is a node, of its own name or any.
            (&a, peer, raw::hello(1, "demo", "c"), "does not make its holder \"c\""),
            (&web, user, raw::hello(1, "demo", "a"), "does not make its holder \"a\""),
            (&web, user, raw::hello(1, "demo", "web"), "does not make its holder \"web\""),
            (&a, peer, raw::hello(2, "demo", "a"), "does not make its holder \"client.a\""),
            // A certificate that doesn't go with the protocol.
            (&web, peer, raw::hello(1, "demo", "web"), "client.web does not go with anello-peer/1"),
            (&a, user, raw::hello(2, "demo", "a"), "for a does not go with anello-client/1"),
            // One that names nobody.
            (&unnamed, peer, raw::hello(1, "demo", "a"), "without a DNS name"),
            (&odd, peer, raw::hello(1, "demo", "a"), "neither a node nor a client"),
            // A node must name its cluster.
            (&a, peer, raw::hello(1, "", "a"), "of cluster \"\""),
        ] {
            let connection = raw::connect(to, alpn, Some(pem)).await.unwrap();
            assert!(raw::greet(&connection, &hello).await.is_none(), "{why}");
            until(why, || logs.tell(&["refused a connection", why])).await;
            let closed = connection.closed().await.to_string();
            assert!(closed.contains(why), "{closed}");
        }
        let connection = raw::connect(to, peer, Some(&a)).await.unwrap();
        assert!(raw::greet(&connection, &raw::hello(1, "demo", "a")).await.is_some());
    });
}

#[test]
fn without_a_certificate_or_our_protocol_nobody_is_let_in() {
    run(async {
        let authority = Authority::new();
        let (logs, _guard) = Logs::listen();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let to = listener.local_address();
        if let Ok(connection) = raw::connect(to, "anello-peer/1", None).await {
            let hello = raw::hello(1, "demo", "a");
            assert!(raw::greet(&connection, &hello).await.is_none());
        }
        until("it is logged", || logs.tell(&["refused a connection", "no certificates"])).await;
        let theirs = Authority::new().issue(&["a"]);
        if let Ok(connection) = raw::connect(to, "anello-peer/1", Some(&theirs)).await {
            let hello = raw::hello(1, "demo", "a");
            assert!(raw::greet(&connection, &hello).await.is_none());
        }
        until("it is logged", || logs.tell(&["refused a connection", "invalid peer certificate"]))
            .await;
        let pem = authority.issue(&["a"]);
        assert!(raw::connect(to, "anello-peer/2", Some(&pem)).await.is_err());
        assert!(raw::connect(to, "h3", Some(&pem)).await.is_err());
    });
}

#[test]
fn a_client_cannot_listen() {
    run(async {
        let authority = Authority::new();
        let workers = vec![Worker { runtime: Handle::current(), router: answering() }];
        let identity = client(&authority, "web");
        assert!(Listener::bind(anywhere(), identity, workers, ListenerConfig::default()).is_err());
        // Nor does a client's certificate answer for a node, whoever runs it.
        let pem = authority.issue(&["client.b"]);
        let outcome = Identity::node(cluster("demo"), id("b"), &pem);
        assert!(matches!(outcome, Err(IdentityError::OtherName { .. })));
    });
}

#[test]
fn what_is_wrong_with_an_identity_is_said() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (pem, other) = (ours.issue(&["a"]), theirs.issue(&["a"]));
    let node =
        |pem: &TlsPem| Identity::node(cluster("demo"), id("a"), pem).unwrap_err().to_string();
    let with = |change: fn(&mut TlsPem, &TlsPem)| {
        let mut pem = pem.clone();
        change(&mut pem, &other);
        node(&pem)
    };
    let wrong = with(|pem, other| pem.key = other.key.clone());
    assert!(wrong.contains("the private key: not the certificate's key"), "{wrong}");
    let wrong = with(|pem, other| pem.ca = other.ca.clone());
    assert!(wrong.contains("the certificate: does not hold under the CA"), "{wrong}");
    let wrong = with(|pem, _| pem.ca = b"nothing".to_vec());
    assert!(wrong.contains("the CA certificate: no certificate"), "{wrong}");
    let wrong = with(|pem, _| pem.cert = pem.key.clone());
    assert!(wrong.contains("the certificate: no certificate"), "{wrong}");
    let wrong = with(|pem, _| pem.key = pem.cert.clone());
    assert!(wrong.contains("the private key: no private key"), "{wrong}");
    let wrong = node(&ours.issue(&["b"]));
    assert!(wrong.contains(r#"name is "b", expected "a""#), "{wrong}");
    let wrong = Identity::client(None, &pem).unwrap_err().to_string();
    assert!(wrong.contains(r#"name is "a", expected "client.<name>""#), "{wrong}");

    let dir = tempfile::tempdir().unwrap();
    let [ca, cert, key] = ["ca.pem", "a.pem", "a.key"].map(|name| dir.path().join(name));
    let files = TlsFiles { ca, cert, key };
    let load = || Identity::load_node(cluster("demo"), id("a"), &files);
    assert!(load().unwrap_err().to_string().contains("ca.pem"));
    for (path, bytes) in [(&files.ca, &pem.ca), (&files.cert, &pem.cert), (&files.key, &pem.key)] {
        std::fs::write(path, bytes).unwrap();
    }
    assert!(load().is_ok());
    std::fs::write(&files.key, &other.key).unwrap();
    assert!(load().unwrap_err().to_string().contains("a.key: not the certificate's key"));
}
