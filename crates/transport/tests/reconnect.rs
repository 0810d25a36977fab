//! Peers that go and come back: what their callers see meanwhile.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test may panic, and shares its support")]

mod support;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anello_transport::{
    ActorRef, CallContext, CallError, CallFuture, Listener, Peers, PeersConfig,
};
use futures_util::FutureExt;
use support::{
    Held, PATIENCE, answer, answering, anywhere, authority::Authority, dial, holding, id, listen,
    listen_again, logs::Logs, node, patient, probe, prober::Probed, relay::Relay, run, until,
};

/// A peer `b` that never answers, and what it was asked.
fn silent(authority: &Authority) -> (Listener, Held) {
    let (router, held) = holding();
    (listen(anywhere(), node(authority, "b"), router), held)
}

/// The connections of `a`, who knows where `b` is.
fn knowing(authority: &Authority, b: SocketAddr) -> Peers {
    let peers = dial(node(authority, "a"));
    peers.know(&id("b"), &b.to_string());
    peers
}

/// Asks `b`, with patience.
fn ask(peers: &Peers) -> CallFuture<Probed> {
    peers.call(&id("b"), probe(), patient())
}

async fn arrived(calls: usize, held: &Held) {
    until("the calls are there", || held.lock().unwrap().len() == calls).await;
}

#[test]
fn a_peer_that_restarts_is_connected_to_again() {
    run(async {
        let authority = Authority::new();
        let (listener, held) = silent(&authority);
        let address = listener.local_address();
        let peers = dial(node(&authority, "a"));
        let actor = ActorRef::peer(&peers, id("b"));
        assert_eq!(actor.call(probe(), patient()).await, Err(CallError::Unreachable));
        peers.know(&id("b"), &address.to_string());
        let in_flight = actor.call(probe(), patient());
        arrived(1, &held).await;
        assert!(peers.is_connected(&id("b")));
        let (logs, _guard) = Logs::listen();

        let began = Instant::now();
        drop(listener);
        // It may have been handled, and nobody will know.
        assert_eq!(in_flight.await, Err(CallError::Closed));
        until("it is noticed", || !peers.is_connected(&id("b"))).await;
        assert!(began.elapsed() < Duration::from_secs(1), "a closing peer says so");
        // No waiting while it is away, attempt or no attempt.
        until("it is logged", || {
            let outcome = actor.call(probe(), patient()).now_or_never();
            assert_eq!(outcome, Some(Err(CallError::Unreachable)));
            logs.tell(&["cannot connect", "peer=b"])
        })
        .await;
        assert_eq!(logs.lines().len(), 1, "it is logged once: {:?}", logs.lines());
        assert!(peers.trouble(&id("b")).is_some());

        let _again = listen_again(address, node(&authority, "b"), answering()).await;
        let began = Instant::now();
        until("it is back", || peers.is_connected(&id("b"))).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert!(actor.call(probe(), patient()).await.is_ok());
        assert_eq!(peers.trouble(&id("b")), None);
    });
}

#[test]
fn a_peer_that_falls_silent_is_given_up() {
    run(async {
        let authority = Authority::new();
        let listener = listen(anywhere(), node(&authority, "b"), answering());
        let relay = Relay::to(listener.local_address()).await;
        let peers = Peers::new(node(&authority, "a"), PeersConfig::default()).unwrap();
        peers.know(&id("b"), &relay.address().to_string());
        ask(&peers).await.unwrap();
        relay.lead(None);
        let began = Instant::now();
        let call = peers.call(&id("b"), probe(), CallContext::within(Duration::from_millis(100)));
        assert_eq!(call.await, Err(CallError::Timeout));
        until("it is noticed", || !peers.is_connected(&id("b"))).await;
        assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        relay.lead(Some(listener.local_address()));
        until("it is back", || peers.is_connected(&id("b"))).await;
        ask(&peers).await.unwrap();
    });
}

/// A process that is killed tells nobody. The next one at its address knows the connections of the last
/// for what they are, and resets them, long before they fall silent for too long.
#[test]
fn a_peer_that_was_killed_and_is_back_says_that_it_knows_nothing() {
    run(async {
        let authority = Authority::new();
        let identity = node(&authority, "b");
        let listener = listen(anywhere(), identity.clone(), answering());
        let relay = Relay::to(listener.local_address()).await;
        let peers = knowing(&authority, relay.address());
        ask(&peers).await.unwrap();
        let reborn = listen(anywhere(), identity, answering());
        let (logs, _guard) = Logs::listen();
        let began = Instant::now();
        relay.lead(Some(reborn.local_address()));
        let outcome = ask(&peers).await;
        assert_eq!(outcome, Err(CallError::Closed));
        until("it is back", || peers.is_connected(&id("b"))).await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        ask(&peers).await.unwrap();
        assert!(logs.lines().is_empty(), "{:?}", logs.lines());
    });
}

#[test]
fn a_peer_that_moves_is_followed_and_one_that_is_forgotten_is_left() {
    run(async {
        let authority = Authority::new();
        let (first, held) = silent(&authority);
        let second = listen(anywhere(), node(&authority, "b"), answering());
        let peers = knowing(&authority, first.local_address());
        let in_flight = ask(&peers);
        arrived(1, &held).await;
        // The same address again changes nothing.
        peers.know(&id("b"), &first.local_address().to_string());
        answer(held.lock().unwrap().pop().unwrap());
        assert!(in_flight.await.is_ok());

        let in_flight = ask(&peers);
        peers.know(&id("b"), &second.local_address().to_string());
        assert_eq!(in_flight.await, Err(CallError::Closed));
        until("it is followed", || peers.is_connected(&id("b"))).await;
        assert!(ask(&peers).await.is_ok());

        peers.forget(&id("b"));
        let outcome = ask(&peers).now_or_never();
        assert_eq!(outcome, Some(Err(CallError::Unreachable)));
        until("it is left", || !peers.is_connected(&id("b"))).await;
        peers.know(&id("b"), &second.local_address().to_string());
        assert!(ask(&peers).await.is_ok());
    });
}

#[test]
fn an_address_that_leads_nowhere_is_unreachable_in_time() {
    run(async {
        let authority = Authority::new();
        let peers = dial(node(&authority, "a"));
        let nowhere = std::net::UdpSocket::bind(anywhere()).unwrap();
        let address = nowhere.local_addr().unwrap().to_string();
        peers.know(&id("b"), &address);
        // The first calls wait for the first attempt, and for no more than it.
        let began = Instant::now();
        assert_eq!(ask(&peers).await, Err(CallError::Unreachable));
        assert!(began.elapsed() < PATIENCE / 2);
        let short = CallContext::within(Duration::from_millis(50));
        let outcome = peers.call_address(&address, probe(), short).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
        for bad in ["", "nonsense", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999"] {
            let outcome = peers.call_address(bad, probe(), patient()).await;
            assert_eq!(outcome, Err(CallError::Unreachable), "{bad}");
            peers.know(&id("c"), bad);
            let outcome = peers.call(&id("c"), probe(), patient()).await;
            assert_eq!(outcome, Err(CallError::Unreachable), "{bad}");
        }
    });
}

#[test]
fn closing_peers_ends_their_calls() {
    run(async {
        let authority = Authority::new();
        let (listener, held) = silent(&authority);
        let address = listener.local_address().to_string();
        let peers = knowing(&authority, listener.local_address());
        let visit = {
            let (peers, address) = (peers.clone(), address.clone());
            tokio::spawn(async move { peers.call_address(&address, probe(), patient()).await })
        };
        let in_flight = ask(&peers);
        arrived(2, &held).await;
        peers.close().await;
        assert_eq!(in_flight.await, Err(CallError::Closed));
        assert_eq!(visit.await.unwrap(), Err(CallError::Closed));
        peers.know(&id("b"), &address);
        let outcome = ask(&peers).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
        let outcome = peers.call_address(&address, probe(), patient()).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
    });
}

#[test]
fn no_call_waits_for_peers_that_are_dropped_or_whose_runtime_has_ended() {
    run(async {
        let authority = Authority::new();
        let (listener, held) = silent(&authority);
        let address = listener.local_address().to_string();
        let peers = knowing(&authority, listener.local_address());
        let in_flight = ask(&peers);
        arrived(1, &held).await;
        drop(peers);
        assert_eq!(in_flight.await, Err(CallError::Closed));

        let (send, sent) = tokio::sync::oneshot::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let identity = node(&authority, "c");
        let elsewhere = thread::spawn(move || {
            run(async {
                let _ = send.send(dial(identity));
                let _ = ended.await;
            });
        });
        let peers = sent.await.unwrap();
        peers.know(&id("b"), &address);
        let in_flight = ask(&peers);
        arrived(2, &held).await;
        end.send(()).unwrap();
        assert_eq!(in_flight.await, Err(CallError::Closed));
        elsewhere.join().unwrap();
        let outcome = ask(&peers).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
    });
}
