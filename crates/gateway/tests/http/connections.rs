//! Connections: kept, shared by requests in a row, encrypted, and closed when the gateway stops.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
};

use anello_gateway::Limits;
use anello_protocol::message::client::Written;
use proptest::{prelude::*, test_runner::TestRunner};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use crate::support::{Gateway, eventually, request, token, value};

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
fn a_pipelined_head_leaves_the_answer_before_it_alone() {
    let gateway = Gateway::start();
    for lines in [
        ["GET /kv/a", "HEAD /kv/a", "GET /kv/b"],
        ["HEAD /kv/a", "GET /kv/a", "HEAD /kv/b"],
        ["PUT /kv/a", "HEAD /kv/a", "GET /nowhere"],
    ] {
        let mut client = gateway.connect();
        let all: Vec<u8> = lines.iter().flat_map(|line| request(line, &[], b"")).collect();
        client.send(&all).unwrap();
        for line in lines {
            let alone = gateway.ask(line, &[], b"");
            let answer = client.receive(line.starts_with("HEAD"));
            assert_eq!((answer.status, answer.body), (alone.status, alone.body), "{line}");
        }
    }
}

#[test]
fn it_does_not_matter_how_a_hundred_requests_are_cut() {
    let gateway = Gateway::start();
    let chunked = [("Transfer-Encoding", "chunked")];
    let requests: Vec<_> = (0..100_usize)
        .map(|number| match number % 5 {
            0 => request("GET /kv/a", &[], b""),
            1 => request(&format!("PUT /kv/{number}"), &[], &vec![b'x'; number * number]),
            2 => request("HEAD /kv/a", &[], b""),
            3 => request(
                &format!("PUT /kv/{number}"),
                &chunked,
                b"3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n",
            ),
            _ => request("GET /kv/a#b", &[], b""),
        })
        .collect();
    let all = requests.concat();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(30));
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..60);
    let outcome = runner.run(&cuts, |cuts| {
        gateway.state().writes.clear();
        let mut client = gateway.connect();
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(all.len())).collect();
        ends.push(all.len());
        ends.sort_unstable();
        let mut sent = 0;
        for end in ends {
            client.send(&all[sent..end]).unwrap();
            sent = end;
        }
        for number in 0..requests.len() {
            let answer = client.receive(number % 5 == 2);
            let expected = if number % 5 == 4 { 400 } else { 200 };
            prop_assert_eq!(answer.status, expected, "{}: {:?}", number, answer);
        }
        for (place, (write, _)) in gateway.state().writes.iter().enumerate() {
            let number = place / 2 * 5 + 1 + place % 2 * 2;
            let key = number.to_string();
            prop_assert_eq!(write.key.as_bytes(), key.as_bytes());
            let expected =
                if place % 2 == 0 { vec![b'x'; number * number] } else { b"abc".to_vec() };
            prop_assert_eq!(&write.content, &value(&expected));
        }
        prop_assert_eq!(gateway.state().writes.len(), 40);
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_half_closed_client_gets_all_its_answers() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    client.send(&request("GET /kv/a", &[], b"").repeat(3)).unwrap();
    client.finish();
    for _ in 0..3 {
        assert_eq!(client.receive(false).status, 200);
    }
    assert!(client.is_closed());
}

#[test]
fn nothing_follows_the_last_answer() {
    let gateway = Gateway::start();
    for last in [
        request("GET /kv/a", &[("Connection", "close")], b""),
        b"GET /kv/a HTTP/1.0\r\n\r\n".to_vec(),
    ] {
        let mut client = gateway.connect();
        client.send(&[last, request("GET /kv/a", &[], b"")].concat()).unwrap();
        assert_eq!(client.receive(false).status, 200);
        assert!(client.is_closed());
    }
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
    let last = request("GET /kv/k", &[("Connection", "close")], b"");
    stream.write_all(&[request("HEAD /kv/k", &[], b""), last].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{answer}");
    assert!(answer.ends_with(r#"{"value":"v","encoding":"utf-8","context":"ctx"}"#), "{answer}");

    // Plain HTTP is not answered there.
    let mut plain = gateway.connect();
    plain.send(b"GET /kv/k HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(plain.try_receive(false).is_none());
}
