//! Connections: kept, shared by requests in a row, encrypted, and closed when the gateway stops.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use anello_gateway::Limits;
use anello_protocol::message::client::Written;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::support::{Gateway, eventually, request, token};

#[test]
fn requests_in_a_row_are_answered_in_their_order() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let lines = ["GET /kv/a", "PUT /kv/b", "GET /nowhere", "DELETE /kv/c", "GET /healthz"];
    let all: Vec<u8> = lines.iter().flat_map(|line| request(line, &[], b"")).collect();
    client.send(&all).unwrap();
    let statuses: Vec<u16> = lines.iter().map(|_| client.receive(false).status).collect();
    assert_eq!(statuses, [200, 200, 404, 204, 200]);
}

#[test]
fn what_is_no_http_gets_an_error_in_json() {
    let gateway = Gateway::start();
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200));
    for bytes in [
        "hello\r\n\r\n",
        "GET /kv/a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /kv/<a> HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        "PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        &long,
        &many,
    ] {
        let mut client = gateway.connect();
        let _ = client.send(bytes.as_bytes());
        let answer = client.receive(false);
        assert!(
            matches!(answer.error(), (400 | 431, code) if code == "bad_request"),
            "{bytes:.40}"
        );
        assert!(client.is_closed());
    }
    let mut client = gateway.connect();
    client
        .send(b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
        .unwrap();
    assert_eq!(client.receive(false).error(), (400, "bad_request".into()));
}

#[test]
fn a_head_that_does_not_come_is_not_waited_for() {
    let gateway = Gateway::start();
    let mut clients = [(); 3].map(|()| gateway.connect());
    let [silent, first, second] = &mut clients;
    first.send(b"GET /kv/a HT").unwrap();
    assert_eq!(second.ask("GET /kv/a", &[], b"").status, 200);
    // Without an end to the head, lines that come in time don't help.
    second.send(b"GET /kv/b HTTP/1.1\r\n").unwrap();
    for client in [silent, first, second] {
        assert_eq!(client.receive(false).error(), (408, "bad_request".into()));
        assert!(client.is_closed());
    }
    assert_eq!(gateway.state().gets.len(), 1);
}

#[test]
fn a_head_after_a_long_answer_has_its_own_time() {
    let gateway = Gateway::start();
    gateway.state().hold_writes = true;
    let mut client = gateway.connect();
    let put = request("PUT /kv/k", &[("Anello-Timeout-Ms", "60000")], b"v");
    client.send(&[&put, &b"GET /kv/k HT"[..]].concat()).unwrap();
    eventually(|| !gateway.state().held.is_empty());
    let mut slow = gateway.connect();
    slow.send(b"GET /kv/a HT").unwrap();
    assert_eq!(slow.receive(false).status, 408);
    let reply = gateway.state().held.pop().unwrap();
    reply.send(Ok(Written { context: token("late") }).into());
    assert_eq!(client.receive(false).status, 200);
    client.send(b"TP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(client.receive(false).status, 200);
}

#[test]
fn stopping_lets_requests_under_way_end() {
    let mut gateway = Gateway::start();
    gateway.state().hold_writes = true;
    let mut idle = gateway.connect();
    assert_eq!(idle.ask("GET /healthz", &[], b"").status, 200);
    let mut busy = gateway.connect();
    busy.send(b"PUT /kv/k HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nv").unwrap();
    eventually(|| !gateway.state().held.is_empty());
    gateway.stop();
    assert!(idle.is_closed());
    eventually(|| TcpStream::connect(gateway.address).is_err());
    let reply = gateway.state().held.pop().unwrap();
    reply.send(Ok(Written { context: token("late") }).into());
    let answer = busy.receive(false);
    assert_eq!((answer.status, answer.header("Anello-Context")), (200, Some("late")));
    assert_eq!(answer.header("Connection"), Some("close"));
    assert!(busy.is_closed());
    gateway.join();
}

#[test]
fn https_where_a_certificate_is_given() {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&ring))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let gateway = Gateway::start_with(Limits::default(), Some(Arc::new(server)));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut session = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
    let mut socket = TcpStream::connect(gateway.address).unwrap();
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let headers = [("Connection", "close")];
    stream.write_all(&request("GET /kv/k", &headers, b"")).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with(r#"{"value":"v","encoding":"utf-8","context":"ctx"}"#), "{answer}");

    // Plain HTTP is not answered there.
    let mut plain = gateway.connect();
    plain.send(b"GET /kv/k HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(plain.try_receive(false).is_none());
}
