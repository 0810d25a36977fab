//! A node in the test's own process, as the client crate's examples use it.

mod fleet;

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anello_node::{
    Node,
    config::{Config, Tls},
};
use anello_protocol::id::NodeId;
use fleet::{Authority, http};

const PATIENCE: Duration = Duration::from_secs(10);

/// How long a stop may take.
const STOP_MAX: Duration = Duration::from_secs(10);

fn alone(dir: &Path) -> Config {
    let files = Authority::create(dir).issue_node("own");
    let tls = Tls { ca: files.ca, cert: files.cert, key: files.key };
    Config::alone(NodeId::new("own").expect("a name"), dir.join("data"), tls)
}

#[test]
fn a_node_of_ones_own_serves_and_stops_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = alone(dir.path());
    let node = Node::start(config.clone()).expect("it starts");
    assert_ne!(node.http_address().port(), 0);
    assert_ne!(node.quic_address().port(), 0);
    assert!(node.wait_ready(PATIENCE));
    assert_eq!(http::put(node.http_address(), "/kv/k", b"v").expect("answered").status, 200);
    let view = http::get(node.http_address(), "/admin/cluster").expect("answered").json();
    assert_eq!(
        view["nodes"][0]["address"],
        node.quic_address().to_string(),
        "what was bound is what others are told"
    );
    node.stop();

    // In the same process again: nothing of the first life holds the directory or the store.
    let node = Node::start(config).expect("it starts again");
    assert!(node.wait_ready(PATIENCE));
    let get = http::get(node.http_address(), "/kv/k").expect("answered");
    assert_eq!((get.status, get.json()["value"].as_str()), (200, Some("v")));
}

#[test]
fn a_stop_cuts_off_what_takes_too_long() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = Node::start(alone(dir.path())).expect("it starts");
    assert!(node.wait_ready(PATIENCE));
    let mut upload = TcpStream::connect(node.http_address()).expect("connected");
    write!(upload, "PUT /kv/k HTTP/1.1\r\nHost: own\r\nContent-Length: 1048576\r\n\r\n")
        .expect("sent");
    upload.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
    let uploading = thread::spawn(move || {
        // Fast enough to be borne with, for longer than a stop may take.
        while upload.write_all(&[0; 4096]).is_ok() {
            match upload.read(&mut [0; 64]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
    });
    assert_eq!(http::get(node.http_address(), "/readyz").expect("answered").status, 200);
    let began = Instant::now();
    node.stop();
    let took = began.elapsed();
    assert!(took > STOP_MAX / 2, "the upload was waited for: {took:?}");
    assert!(took <= STOP_MAX, "{took:?}");
    uploading.join().expect("no panic");
}

#[test]
fn a_start_that_fails_leaves_nothing_in_the_way_of_the_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
    let mut config = alone(dir.path());
    config.listen.quic = taken.local_addr().expect("bound");
    for _ in 0..3 {
        let error = Node::start(config.clone()).expect_err("the port is taken");
        assert!(error.to_string().contains("can't listen at"), "{error}");
    }
    drop(taken);
    let node = Node::start(config).expect("nothing is left of the attempts");
    assert!(node.wait_ready(PATIENCE));
}
