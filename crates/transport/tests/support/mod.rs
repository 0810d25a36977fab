//! What the tests share: a certificate authority, messages of their own, and an actor that answers them
//! in every way that an actor can.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod authority;
pub mod logs;
pub mod prober;
pub mod raw;
pub mod relay;

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anello_protocol::id::{ClusterName, NodeId};
use anello_transport::{
    ActorRef, Call, CallContext, Identity, LinkConfig, Listener, ListenerConfig, Peers,
    PeersConfig, Router, Worker,
};
use authority::Authority;
use prober::{Act, Probe, Probed};
use tokio::runtime::Handle;

/// Long enough for anything that is to happen on a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn patient() -> CallContext {
    CallContext::within(PATIENCE)
}

pub fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub fn cluster(name: &str) -> ClusterName {
    ClusterName::new(name).unwrap()
}

pub fn anywhere() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub fn node(authority: &Authority, name: &str) -> Identity {
    Identity::node(cluster("demo"), id(name), &authority.issue(&[name])).unwrap()
}

pub fn client(authority: &Authority, name: &str) -> Identity {
    Identity::client(None, &authority.issue(&[&format!("client.{name}")])).unwrap()
}

/// Connections that bear with a machine so busy that a test stands still for seconds.
pub fn calm() -> LinkConfig {
    LinkConfig { idle_ms: 30_000, ..LinkConfig::default() }
}

/// Listens on this runtime.
pub fn listen(address: SocketAddr, identity: Identity, router: Router) -> Listener {
    try_listen(address, identity, router).unwrap()
}

fn try_listen(address: SocketAddr, identity: Identity, router: Router) -> io::Result<Listener> {
    let workers = vec![Worker { runtime: Handle::current(), router }];
    let config = ListenerConfig { link: calm(), ..ListenerConfig::default() };
    Listener::bind(address, identity, workers, config)
}

/// Listens where another listener is about to be gone.
pub async fn listen_again(address: SocketAddr, identity: Identity, router: Router) -> Listener {
    let mut listener = None;
    until("the port is free", || {
        listener = try_listen(address, identity.clone(), router.clone()).ok();
        listener.is_some()
    })
    .await;
    listener.unwrap()
}

pub fn dial(identity: Identity) -> Peers {
    Peers::new(identity, PeersConfig { link: calm(), ..PeersConfig::default() }).unwrap()
}

/// Waits until something holds; fails the test if it never does.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain: {what}");
}

/// Runs a test on a runtime of one thread, as arbiters have it.
pub fn run<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// Answers a [`Probe`] at once, with who asks.
pub fn answering() -> Router {
    let actor = ActorRef::<Probe>::function(|call| {
        answer(call);
        Ok(())
    });
    Router::builder().serve(actor).build()
}

/// Asks for an answer.
pub fn probe() -> Probe {
    Probe::new(Act::Answer, b"")
}

/// An actor that never answers, and what it has not answered.
pub fn holding() -> (Router, Held) {
    let held = Held::default();
    let hold = held.clone();
    let actor = ActorRef::<Probe>::function(move |call| {
        hold.lock().unwrap().push(call);
        Ok(())
    });
    (Router::builder().serve(actor).build(), held)
}

/// Calls that wait for their answers.
pub type Held = Arc<Mutex<Vec<Call<Probe>>>>;

/// The answer to a call that was held.
pub fn answer(call: Call<Probe>) {
    let caller = format!("{:?}", call.caller);
    let (left, payload) = (call.context.remaining(), call.message.payload);
    let (traceparent, tracestate) = (None, None);
    call.reply.send(Probed { payload, left, traceparent, tracestate, caller, held: 0 });
}
