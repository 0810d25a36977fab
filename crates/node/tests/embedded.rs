//! A node in the test's own process, as the client crate's examples use it.

mod fleet;

use std::time::Duration;

use anello_node::{
    Node,
    config::{Config, Tls},
};
use anello_protocol::id::NodeId;
use fleet::{Authority, http};

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_node_of_ones_own_serves_and_stops_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    let files = Authority::create(dir.path()).issue_node("own");
    let tls = Tls { ca: files.ca, cert: files.cert, key: files.key };
    let id = NodeId::new("own").expect("a name");
    let config = Config::alone(id, dir.path().join("data"), tls);

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
