//! Bounds: what is too large is refused before it is read to its end.

use std::io::Write;

use anello_gateway::Limits;

use crate::support::{Client, Gateway, eventually, request, value};

const MAX_VALUE: usize = 1_048_576;

fn assert_too_large(client: &mut Client) {
    let answer = client.receive(false);
    assert_eq!(answer.error(), (413, "value_too_large".into()));
    assert_eq!(answer.json()["limit"], 1_048_576);
    assert_eq!(answer.header("Connection"), Some("close"));
}

#[test]
fn the_largest_value_is_taken() {
    let gateway = Gateway::start();
    let body = vec![0xff; MAX_VALUE];
    assert_eq!(gateway.ask("PUT /kv/k", &[], &body).status, 200);
    assert_eq!(gateway.state().writes.pop().unwrap().0.content, value(&body));
    // As JSON in its longest spelling.
    let text = format!(r#"{{"value": "{}"}}"#, "\\u0007".repeat(MAX_VALUE));
    assert_eq!(gateway.put_json("/kv/k", &text).status, 200);
    assert_eq!(gateway.state().writes.pop().unwrap().0.content, value(&vec![7; MAX_VALUE]));
}

#[test]
fn an_announced_length_is_refused_before_the_first_byte() {
    let gateway = Gateway::start();
    for (headers, length) in [
        ("", MAX_VALUE + 1),
        ("", usize::MAX >> 1),
        ("Content-Type: application/json\r\n", 6 * MAX_VALUE + 10_000),
        ("Expect: 100-continue\r\n", MAX_VALUE + 1),
    ] {
        let mut client = gateway.connect();
        let head =
            format!("PUT /kv/k HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n");
        client.send(head.as_bytes()).unwrap();
        assert_too_large(&mut client);
        assert!(client.is_closed());
    }
    assert!(gateway.state().writes.is_empty());
}

#[test]
fn a_chunked_body_is_refused_at_the_bound() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    client.send(b"PUT /kv/k HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    for _ in 0..MAX_VALUE / 0x10000 {
        client.send(&chunk).unwrap();
    }
    // To the bound it may go on; one byte more, and the end is not waited for.
    client.send(b"1\r\nx\r\n").unwrap();
    assert_too_large(&mut client);
    assert!(client.is_closed());
}

#[test]
fn a_string_in_json_is_refused_at_the_bound() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    let head = "PUT /kv/k HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 6000000\r\n\r\n";
    client.send(head.as_bytes()).unwrap();
    client.send(b"{\"value\": \"").unwrap();
    client.send(&vec![b'x'; 1_398_105]).unwrap();
    assert_too_large(&mut client);
}

#[test]
fn a_client_that_sends_on_still_reads_its_answer() {
    let gateway = Gateway::start();
    let body = vec![b'x'; 3 << 20];
    for headers in [&[][..], &[("Content-Type", "text/plain")]] {
        let answer = gateway.ask("PUT /kv/k", headers, &body);
        assert_eq!(answer.error(), (413, "value_too_large".into()));
    }
    // A value past its bound within a text that is not.
    let text = format!(r#"{{"value": "{}"}}"#, "x".repeat(MAX_VALUE + 1));
    assert_eq!(gateway.put_json("/kv/k", &text).error(), (413, "value_too_large".into()));
}

#[test]
fn a_stream_without_end_is_cut_off() {
    let gateway = Gateway::start();
    for line in ["PUT /kv/k", "PUT /kv/", "GET /kv/k", "DELETE /kv/k"] {
        let stream = std::net::TcpStream::connect(gateway.address).unwrap();
        let mut stream = std::io::BufWriter::new(stream);
        write!(stream, "{line} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        let cut_off = std::iter::repeat_n((), 1 << 20).any(|()| stream.write_all(&chunk).is_err());
        assert!(cut_off, "{line}");
    }
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let gateway = Gateway::start();
    let mut client = gateway.connect();
    client
        .send(b"PUT /kv/k HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        .unwrap();
    assert_eq!(client.receive(false).status, 100);
    client.send(b"v").unwrap();
    assert_eq!(client.receive(false).status, 200);
    client
        .send(
            b"PUT /kv/%zz HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        )
        .unwrap();
    assert_eq!(client.receive(false).error(), (400, "bad_key".into()));
}

#[test]
fn a_head_past_its_bounds_is_refused() {
    let gateway = Gateway::start();
    let head = "GET /kv/k HTTP/1.1\r\nHost: a\r\n";
    let (name, line) = ("a".repeat(65_536), "x".repeat(30_000));
    for text in [
        format!("{head}{name}: x\r\n\r\n"),
        format!("{head}x: {name}\r\n\r\n"),
        format!("{head}{}\r\n", format!("x: {line}\r\n").repeat(5)),
        format!("GET /{name} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("{name} / HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("{head}\r\n{head}{name}: x\r\n\r\n"),
    ] {
        let mut client = gateway.connect();
        client.send(text.as_bytes()).unwrap();
        let mut answer = client.receive(false);
        if text.matches("GET /kv/k").count() > 1 {
            assert_eq!(answer.status, 200);
            answer = client.receive(false);
        }
        assert_eq!(answer.error(), (431, "bad_request".into()), "{text:.60}");
        client.finish();
        assert!(client.is_closed());
    }
    // Within the bounds, it is served.
    let answer = gateway.ask("GET /kv/k", &[("x", &line), ("y", &line)], b"");
    assert_eq!(answer.status, 200);
}

#[test]
fn what_frames_a_body_is_bounded() {
    let gateway = Gateway::start();
    let (name, line) = ("a".repeat(200_000), "x".repeat(30_000));
    let send = |framed: &str| {
        let mut client = gateway.connect();
        let chunked = [("Transfer-Encoding", "chunked")];
        client.send(&request("PUT /kv/k", &chunked, framed.as_bytes())).unwrap();
        let answer = client.receive(false);
        (answer.status, client)
    };
    for framed in [format!("1;{name}\r\na\r\n0\r\n\r\n"), format!("0\r\nA: {name}\r\n\r\n")] {
        let (status, client) = send(&framed);
        assert_eq!(status, 400);
        client.finish();
    }
    assert!(gateway.state().writes.is_empty());
    // Whatever of it passes, a `#` after it is seen.
    let framed = format!("{}0\r\n\r\n", format!("1;{line}\r\na\r\n").repeat(8));
    let (status, mut client) = send(&framed);
    assert_eq!(status, 200);
    assert_eq!(client.ask("GET /kv/a#b", &[], b"").error(), (400, "bad_key".into()));
}

#[test]
fn bodies_for_operators_are_small() {
    let gateway = Gateway::start();
    let answer = gateway.put_json("/admin/keyspaces/carts", &" ".repeat(70_000));
    assert_eq!(answer.error(), (413, "bad_request".into()));
}

#[test]
fn slow_uploads_leave_room_for_small_values() {
    let limits = Limits { bodies_bytes: 256 << 10, ..Limits::default() };
    let gateway = Gateway::start_with(limits, None);
    let head = b"PUT /kv/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let uploads = [(); 20].map(|()| {
        let mut client = gateway.connect();
        let _ = client.send(&[head, &[b'x'; 60_000][..]].concat());
        client
    });
    let large = || gateway.ask("PUT /kv/large", &[], &[b'x'; 100_000]);
    eventually(|| large().status == 429);
    assert_eq!(gateway.ask("PUT /kv/small", &[], &[b'x'; 16 << 10]).status, 200);
    // Nor do they hold for long what they have.
    let errors = uploads.map(|mut client| client.receive(false).error());
    let slow = errors.iter().filter(|error| **error == (408, "bad_request".into())).count();
    let late = errors.iter().filter(|error| **error == (429, "overloaded".into())).count();
    assert!(slow >= 5 && slow + late == errors.len(), "{errors:?}");
    eventually(|| large().status == 200);
    assert!(gateway.state().writes.iter().all(|(write, _)| write.key.as_bytes() != b"slow"));
}

#[test]
fn a_small_value_may_come_slowly() {
    let gateway = Gateway::start();
    let mut small = gateway.connect();
    small.send(b"PUT /kv/small HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na").unwrap();
    // Larger ones, which began no earlier, are cut off for their slowness in the meantime.
    let mut large = gateway.connect();
    let head = b"PUT /kv/large HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    large.send(&[head, &[b'x'; 20_000][..]].concat()).unwrap();
    assert_eq!(large.receive(false).error(), (408, "bad_request".into()));
    small.send(b"bc").unwrap();
    assert_eq!(small.receive(false).status, 200);
    assert_eq!(gateway.state().writes.pop().unwrap().0.content, value(b"abc"));
}
