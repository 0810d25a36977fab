//! Bounds of connections, and which thread drives them.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test may panic, and shares its support")]

mod support;

use std::{thread, time::Duration};

use anello_transport::{
    ActorRef, CallError, LinkConfig, Listener, ListenerConfig, Peers, PeersConfig, Router, Worker,
};
use futures_util::{FutureExt, future::join_all};
use support::{
    answer, answering, anywhere,
    authority::Authority,
    calm, dial, holding, id, listen,
    logs::Logs,
    node, patient, probe,
    prober::{Act, Probe, Probed},
    raw, run, until,
};
use tokio::runtime::Handle;

fn listen_with(authority: &Authority, router: Router, config: ListenerConfig) -> Listener {
    let workers = vec![Worker { runtime: Handle::current(), router }];
    Listener::bind(anywhere(), node(authority, "b"), workers, config).unwrap()
}

fn dial_with(authority: &Authority, listener: &Listener, config: PeersConfig) -> Peers {
    let peers = Peers::new(node(authority, "a"), config).unwrap();
    peers.know(&id("b"), &listener.local_address().to_string());
    peers
}

fn listener_config() -> ListenerConfig {
    ListenerConfig { link: calm(), ..ListenerConfig::default() }
}

fn peers_config() -> PeersConfig {
    PeersConfig { link: calm(), ..PeersConfig::default() }
}

fn link(calls_max: usize, bytes_max: usize) -> LinkConfig {
    LinkConfig { calls_max, bytes_max, ..calm() }
}

#[test]
fn a_caller_has_so_many_calls_in_flight_and_no_more() {
    run(async {
        let authority = Authority::new();
        let (router, held) = holding();
        let listener = listen_with(&authority, router, listener_config());
        let config = PeersConfig { link: link(8, 1 << 20), ..peers_config() };
        let peers = dial_with(&authority, &listener, config);
        let calls: Vec<_> = (0..8).map(|_| peers.call(&id("b"), probe(), patient())).collect();
        let outcome = peers.call(&id("b"), probe(), patient()).now_or_never();
        assert_eq!(outcome, Some(Err(CallError::Busy)));
        until("they are there", || held.lock().unwrap().len() == 8).await;
        let outcome = peers.call(&id("b"), probe(), patient()).now_or_never();
        assert_eq!(outcome, Some(Err(CallError::Busy)));
        held.lock().unwrap().drain(..).for_each(answer);
        assert!(join_all(calls).await.iter().all(Result::is_ok));

        // Bytes count, too.
        let large = || peers.call(&id("b"), Probe::new(Act::Answer, &[0; 600_000]), patient());
        let first = large();
        assert_eq!(large().now_or_never(), Some(Err(CallError::Busy)));
        until("it is there", || held.lock().unwrap().len() == 1).await;
        let small = peers.call(&id("b"), probe(), patient());
        until("it is there", || held.lock().unwrap().len() == 2).await;
        held.lock().unwrap().drain(..).for_each(answer);
        assert!(first.await.is_ok());
        assert!(small.await.is_ok());
    });
}

#[test]
fn a_listener_does_not_rely_on_its_callers_bounds() {
    run(async {
        let authority = Authority::new();
        let (router, held) = holding();
        let config = ListenerConfig { link: link(8, 1 << 20), ..listener_config() };
        let listener = listen_with(&authority, router, config);
        let peers = dial_with(&authority, &listener, peers_config());
        let calls: Vec<_> = (0..20).map(|_| peers.call(&id("b"), probe(), patient())).collect();
        until("as many as may are there", || held.lock().unwrap().len() == 8).await;
        let mut outcomes: Vec<_> = calls.into_iter().map(|call| (call, None)).collect();
        until("the others are turned away", || {
            for (call, outcome) in &mut outcomes {
                *outcome = outcome.take().or_else(|| call.now_or_never());
            }
            outcomes.iter().filter(|(_, outcome)| outcome.is_some()).count() == 12
        })
        .await;
        held.lock().unwrap().drain(..).for_each(answer);
        for (call, outcome) in outcomes {
            match outcome {
                Some(outcome) => assert_eq!(outcome, Err(CallError::Busy)),
                None => assert!(call.await.is_ok()),
            }
        }
        // Bytes: one large call of 600 kB is let in, a second is not, and then it is.
        let large = || peers.call(&id("b"), Probe::new(Act::Answer, &[0; 600_000]), patient());
        let first = large();
        until("it is there", || held.lock().unwrap().len() == 1).await;
        assert_eq!(large().await, Err(CallError::Busy));
        held.lock().unwrap().drain(..).for_each(answer);
        assert_eq!(first.await.map(|_| ()), Ok(()));
        let again = large();
        until("it is there", || held.lock().unwrap().len() == 1).await;
        held.lock().unwrap().drain(..).for_each(answer);
        assert!(again.await.is_ok());
    });
}

#[test]
fn connections_are_bounded_by_name_and_in_all() {
    run(async {
        let authority = Authority::new();
        let (logs, _guard) = Logs::listen();
        let config = ListenerConfig {
            connections_per_caller_max: 2,
            connections_max: 3,
            ..listener_config()
        };
        let listener = listen_with(&authority, answering(), config);
        let dialled = || dial_with(&authority, &listener, peers_config());
        let (first, second, third) = (dialled(), dialled(), dialled());
        for peers in [&first, &second] {
            assert!(peers.call(&id("b"), probe(), patient()).await.is_ok());
        }
        let outcome = third.call(&id("b"), probe(), patient()).await;
        assert!(outcome.is_err());
        until("it is logged", || logs.tell(&["refused", "too many connections of a"])).await;
        drop(third);
        // Another name is let in, and then nobody is.
        let other = dial(node(&authority, "c"));
        other.know(&id("b"), &listener.local_address().to_string());
        until("it is let in", || other.is_connected(&id("b"))).await;
        let full = dial(node(&authority, "d"));
        full.know(&id("b"), &listener.local_address().to_string());
        assert!(full.call(&id("b"), probe(), patient()).await.is_err());
        until("it is logged", || logs.tell(&["refused a connection", "too many connections "]))
            .await;
        // Room that is given back is used.
        drop((first, second));
        until("there is room", || full.is_connected(&id("b"))).await;
        assert!(full.call(&id("b"), probe(), patient()).await.is_ok());
    });
}

#[test]
fn answers_that_are_not_read_cost_the_connection() {
    run(async {
        let authority = Authority::new();
        let (logs, _guard) = Logs::listen();
        let config = ListenerConfig { link: link(100_000, 1 << 20), ..listener_config() };
        let actor = ActorRef::<Probe>::function(|call| {
            let payload = vec![0; 60_000];
            let (traceparent, tracestate) = (None, None);
            let (left, caller) = (call.context.remaining(), String::new());
            call.reply.send(Probed { payload, left, traceparent, tracestate, caller, held: 0 });
            Ok(())
        });
        let listener = listen_with(&authority, Router::builder().serve(actor).build(), config);
        let pem = authority.issue(&["x"]);
        let peer = "anello-peer/1";
        let connection = raw::connect(listener.local_address(), peer, Some(&pem)).await.unwrap();
        let hello = raw::hello(1, "demo", "x");
        let (mut out, _unread) = raw::greet(&connection, &hello).await.unwrap();
        let call = b"\x12\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x60\xea\x00\x00\x10\x00\x00\x00\x00";
        let calls = call.repeat(100_000);
        let flooding = tokio::spawn(async move { out.write_all(&calls).await.is_ok() });
        let closed = connection.closed().await.to_string();
        assert!(closed.contains("not being read"), "{closed}");
        assert!(logs.tell(&["answers are not being read"]));
        let _ = flooding.await;
    });
}

/// A thread with a runtime of its own, whose calls are answered with the thread's name.
fn worker(name: &'static str) -> (Worker, tokio::sync::oneshot::Sender<()>) {
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let (send, sent) = std::sync::mpsc::channel();
    let body = move || {
        run(async {
            let actor = ActorRef::<Probe>::function(|call| {
                let caller = thread::current().name().unwrap_or_default().to_string();
                let (left, payload) = (call.context.remaining(), vec![]);
                let (traceparent, tracestate) = (None, None);
                call.reply.send(Probed { payload, left, traceparent, tracestate, caller, held: 0 });
                Ok(())
            });
            let router = Router::builder().serve(actor).build();
            let _ = send.send(Worker { runtime: Handle::current(), router });
            let _ = ended.await;
        });
    };
    thread::Builder::new().name(name.into()).spawn(body).unwrap();
    (sent.recv().unwrap(), end)
}

#[test]
fn each_connection_is_driven_by_one_worker_of_the_diallers_choice_or_the_least_busy() {
    run(async {
        let authority = Authority::new();
        let names = ["worker-0", "worker-1", "worker-2"];
        let (workers, _ends): (Vec<_>, Vec<_>) = names.into_iter().map(worker).unzip();
        let identity = node(&authority, "b");
        let listener = Listener::bind(anywhere(), identity, workers, listener_config()).unwrap();
        let mut kept = Vec::new();
        let mut answered_by = async |worker| {
            let config = PeersConfig { worker, ..peers_config() };
            let peers = dial_with(&authority, &listener, config);
            let answer = peers.call(&id("b"), probe(), patient()).await.unwrap();
            kept.push(peers);
            answer.caller
        };
        for (asked, got) in [(1, "worker-1"), (2, "worker-2"), (4, "worker-1"), (0, "worker-0")] {
            assert_eq!(answered_by(Some(asked)).await, got);
        }
        // One has 1, two has 2, three has 1: the next two go where there are least.
        let mut others = [answered_by(None).await, answered_by(None).await];
        others.sort_unstable();
        assert_eq!(others, ["worker-0", "worker-2"]);
    });
}

#[test]
fn closing_lets_those_under_way_end_and_takes_no_more() {
    run(async {
        let authority = Authority::new();
        let (router, held) = holding();
        let listener = listen(anywhere(), node(&authority, "b"), router);
        let peers = dial_with(&authority, &listener, peers_config());
        let under_way = peers.call(&id("b"), probe(), patient());
        let for_ever = peers.call(&id("b"), probe(), patient());
        until("they are there", || held.lock().unwrap().len() == 2).await;
        let closing = tokio::spawn(listener.close(Duration::from_millis(400)));
        loop {
            // What comes before the news of the closing is held like the others.
            match peers.call(&id("b"), probe(), patient()).now_or_never() {
                None if held.lock().unwrap().len() < 1_000 => {}
                outcome => panic!("{outcome:?}"),
            }
            let late = peers.call(&id("b"), probe(), patient());
            let soon = tokio::time::timeout(Duration::from_millis(5), late).await;
            if soon == Ok(Err(CallError::Busy)) {
                break;
            }
        }
        answer(held.lock().unwrap().remove(0));
        assert!(under_way.await.is_ok());
        // One that is never answered is not waited for beyond the grace.
        assert_eq!(for_ever.await, Err(CallError::Closed));
        closing.await.unwrap();
        until("it is noticed", || !peers.is_connected(&id("b"))).await;
        let outcome = peers.call(&id("b"), probe(), patient()).await;
        assert_eq!(outcome, Err(CallError::Unreachable));
    });
}

#[test]
fn a_last_answer_arrives_however_large() {
    run(async {
        let authority = Authority::new();
        let (router, held) = holding();
        let listener = listen(anywhere(), node(&authority, "b"), router);
        let peers = dial_with(&authority, &listener, peers_config());
        let payload = vec![7; 1 << 20];
        let call = peers.call(&id("b"), Probe::new(Act::Answer, &payload), patient());
        until("it is there", || held.lock().unwrap().len() == 1).await;
        let closing = tokio::spawn(listener.close(support::PATIENCE));
        answer(held.lock().unwrap().pop().unwrap());
        assert!(call.await.unwrap().payload == payload);
        closing.await.unwrap();
    });
}
