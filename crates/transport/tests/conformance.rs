//! One suite for every way to an actor: its mailbox, loopback, QUIC. Whoever holds an `ActorRef` can't
//! tell which it is, and here is what that means.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test may panic, and shares its support")]

mod support;

use std::time::{Duration, Instant};

use anello_protocol::message::Message;
use anello_transport::{ActorRef, CallContext, CallError, Caller, Listener, Router, TraceContext};
use futures_util::{FutureExt, future::join_all};
use support::{
    PATIENCE, anywhere,
    authority::Authority,
    client, dial, id, listen, node, patient,
    prober::{Act, Impostor, Misheard, NodeProbe, Probe, Prober, Unheard, refusing},
    until,
};

/// How an actor is reached.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Local,
    Loopback,
    Quic,
}

/// Who reaches it.
#[derive(Clone, Copy, PartialEq)]
enum As {
    Node,
    Client,
}

/// A way that has been laid.
struct Laid {
    way: Way,
    to: Router,
    who: As,
    quic: Option<(Listener, anello_transport::Peers)>,
}

impl Laid {
    fn to(way: Way, router: Router) -> Self {
        Self::for_a(As::Node, way, router)
    }

    fn for_a(who: As, way: Way, to: Router) -> Self {
        let quic = (way == Way::Quic).then(|| {
            let authority = Authority::new();
            let listener = listen(anywhere(), node(&authority, "b"), to.clone());
            let peers = dial(match who {
                As::Node => node(&authority, "a"),
                As::Client => client(&authority, "web"),
            });
            peers.know(&id("b"), &listener.local_address().to_string());
            (listener, peers)
        });
        Self { way, to, who, quic }
    }

    /// The far end of the way, through the router; a mailbox is at the near end already.
    fn actor<M: Message>(&self, mailbox: &ActorRef<M>) -> ActorRef<M> {
        let caller = match self.who {
            As::Node => Caller::Node(id("a")),
            As::Client => Caller::Client("web".into()),
        };
        match (&self.quic, self.way) {
            (Some((_, peers)), _) => ActorRef::peer(peers, id("b")),
            (None, Way::Loopback) => ActorRef::loopback_as(self.to.clone(), caller),
            (None, _) => mailbox.clone(),
        }
    }
}

fn router(prober: &Prober) -> Router {
    Router::builder().serve(prober.probe.clone()).serve(prober.node_probe.clone()).build()
}

/// An actor with a mailbox of that capacity, and the way to it.
fn probe(way: Way, capacity: usize) -> (ActorRef<Probe>, Prober, Laid) {
    let prober = Prober::start(capacity);
    let laid = Laid::to(way, router(&prober));
    (laid.actor(&prober.probe), prober, laid)
}

async fn a_request_gets_its_reply(way: Way) {
    let (actor, _prober, laid) = probe(way, 16);
    let answer = actor.call(Probe::new(Act::Answer, b"hello"), patient()).await;
    let answer = answer.unwrap();
    assert_eq!(answer.payload, b"hello");
    let caller = if way == Way::Local { "local" } else { "node a" };
    assert_eq!(answer.caller, caller);
    // The control lane does, too.
    let control = laid.actor(&_prober.node_probe);
    let payload = control.call(NodeProbe { payload: vec![1] }, patient()).await;
    assert_eq!(payload, Ok(vec![1]));
}

async fn a_call_is_made_whether_it_is_polled_or_not(way: Way) {
    let (actor, prober, _laid) = probe(way, 16);
    drop(actor.call(Probe::new(Act::Hold, b"dropped"), patient()));
    let held = actor.call(Probe::new(Act::Hold, b"kept"), patient());
    until("both are handled", || prober.handled() == 2).await;
    actor.call(Probe::new(Act::ReleaseAll, b""), patient()).await.unwrap();
    assert_eq!(held.await.unwrap().payload, b"kept");
}

async fn a_dropped_reply_is_closed(way: Way) {
    let (actor, _prober, _laid) = probe(way, 16);
    let dropped = actor.call(Probe::new(Act::Drop, b""), patient()).await;
    assert_eq!(dropped, Err(CallError::Closed));
    assert!(actor.call(Probe::new(Act::Answer, b""), patient()).await.is_ok());
}

async fn a_stopped_actor_is_closed(way: Way) {
    let (actor, _prober, _laid) = probe(way, 16);
    let held = actor.call(Probe::new(Act::Hold, b""), patient());
    actor.call(Probe::new(Act::Stop, b""), patient()).await.unwrap();
    assert_eq!(held.await, Err(CallError::Closed));
    let after = actor.call(Probe::new(Act::Answer, b""), patient()).await;
    assert_eq!(after, Err(CallError::Closed));
}

async fn a_full_mailbox_is_busy_at_once(way: Way) {
    const CAPACITY: usize = 4;
    let (actor, prober, _laid) = probe(way, CAPACITY);
    actor.call(Probe::new(Act::Stall, b""), patient()).await.unwrap();
    let calls = (0..20).map(|_| actor.call(Probe::new(Act::Answer, b""), patient()));
    let mut calls: Vec<_> = calls.collect();
    let (mut busy, began) = (0, Instant::now());
    until("the mailbox is full", || {
        calls.retain_mut(|call| match call.now_or_never() {
            None => true,
            Some(outcome) => {
                assert_eq!(outcome, Err(CallError::Busy));
                busy += 1;
                false
            }
        });
        calls.len() == CAPACITY
    })
    .await;
    assert!(began.elapsed() < PATIENCE / 2);
    assert_eq!(busy, 16);
    prober.go_on();
    for call in calls {
        assert!(call.await.is_ok());
    }
    assert!(actor.call(Probe::new(Act::Answer, b""), patient()).await.is_ok());
}

async fn a_deadline_that_passes_is_a_timeout(way: Way) {
    let (actor, prober, _laid) = probe(way, 16);
    actor.call(Probe::new(Act::Answer, b""), patient()).await.unwrap();
    let began = Instant::now();
    let short = CallContext::within(Duration::from_millis(60));
    let long = CallContext::within(Duration::from_millis(120));
    let calls = [long, short].map(|time| actor.call(Probe::new(Act::Hold, b""), time));
    let [long, short] = calls;
    assert_eq!(short.await, Err(CallError::Timeout));
    assert!(began.elapsed() >= Duration::from_millis(60));
    assert_eq!(long.await, Err(CallError::Timeout));
    assert!(began.elapsed() >= Duration::from_millis(120));
    assert!(began.elapsed() < PATIENCE / 2);
    // The replies come after all, and reach nobody.
    until("both are held", || prober.handled() == 3).await;
    let released = actor.call(Probe::new(Act::ReleaseAll, b"last"), patient()).await.unwrap();
    assert_eq!((released.payload, released.held), (b"last".to_vec(), 2));
}

async fn a_deadline_that_has_passed_is_a_timeout(way: Way) {
    let (actor, _prober, _laid) = probe(way, 16);
    let gone = CallContext::until(Instant::now());
    let late = actor.call(Probe::new(Act::Hold, b""), gone).await;
    assert_eq!(late, Err(CallError::Timeout));
}

async fn the_deadline_and_the_trace_travel(way: Way) {
    let (actor, _prober, _laid) = probe(way, 16);
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace: TraceContext = PARENT.parse().unwrap();
    let context = CallContext::within(Duration::from_secs(30));
    let context = context.traced(Some(trace.with_state("vendor=x")));
    let answer = actor.call(Probe::new(Act::Answer, b""), context).await.unwrap();
    assert_eq!(answer.traceparent.as_deref(), Some(PARENT));
    assert_eq!(answer.tracestate.as_deref(), Some("vendor=x"));
    assert!(answer.left <= Duration::from_secs(30), "{:?}", answer.left);
    assert!(answer.left > Duration::from_secs(30) - PATIENCE, "{:?}", answer.left);
    let answer = actor.call(Probe::new(Act::Answer, b""), patient()).await.unwrap();
    assert_eq!((answer.traceparent, answer.tracestate), (None, None));
}

async fn large_messages_arrive_whole(way: Way) {
    let (actor, _prober, _laid) = probe(way, 16);
    // Around the length from which a message travels by itself, a whole value, and well beyond.
    for len in [65_000, 65_490, 65_536, 70_000, 1 << 20, (9 << 20) + 1] {
        let payload: Vec<u8> = (0..len).map(|at: usize| ((at * 31) >> 3) as u8).collect();
        let answer = actor.call(Probe::new(Act::Answer, &payload), patient()).await.unwrap();
        assert!(answer.payload == payload, "{len} bytes");
        let reply = Probe::new(Act::AnswerWith(len), b"");
        let answer = actor.call(reply, patient()).await.unwrap();
        assert!(answer.payload == vec![7; len], "{len} bytes back");
    }
}

async fn large_and_small_messages_mix(way: Way) {
    let (actor, _prober, _laid) = probe(way, 256);
    let calls = (0..64_usize).map(|n| {
        let payload = vec![n as u8; if n % 4 == 0 { 300_000 } else { 100 }];
        let call = actor.call(Probe::new(Act::Answer, &payload), patient());
        async move { assert!(call.await.unwrap().payload == payload, "call {n}") }
    });
    join_all(calls.collect::<Vec<_>>()).await;
}

async fn many_calls_in_flight_each_get_their_own_reply(way: Way) {
    const CALLS: u32 = 5_000;
    let (actor, _prober, _laid) = probe(way, CALLS as usize);
    let calls = (0..CALLS).map(|n| {
        let call = actor.call(Probe::new(Act::Answer, &n.to_le_bytes()), patient());
        async move { assert_eq!(call.await.unwrap().payload, n.to_le_bytes()) }
    });
    join_all(calls.collect::<Vec<_>>()).await;
}

async fn replies_may_come_in_any_order(way: Way) {
    let (actor, prober, _laid) = probe(way, 256);
    let held: Vec<_> =
        (0..100u8).map(|n| actor.call(Probe::new(Act::Hold, &[n]), patient())).collect();
    until("all are held", || prober.handled() == 100).await;
    let release = actor.call(Probe::new(Act::ReleaseAll, b""), patient());
    for (n, call) in held.into_iter().enumerate().rev() {
        assert_eq!(call.await.unwrap().payload, [n as u8]);
    }
    assert_eq!(release.await.unwrap().held, 100);
}

async fn what_a_function_returns_is_the_answer(way: Way) {
    for error in [CallError::Busy, CallError::Unreachable, CallError::Refused("not here".into())] {
        let function = refusing(error.clone());
        let laid = Laid::to(way, Router::builder().serve(function.clone()).build());
        let actor = laid.actor(&function);
        let outcome = actor.call(Probe::new(Act::Answer, b""), patient()).await;
        assert_eq!(outcome, Err(error));
    }
    // One that takes the call and forgets it.
    let function = ActorRef::function(|_call| Ok(()));
    let laid = Laid::to(way, Router::builder().serve(function.clone()).build());
    let outcome = laid.actor(&function).call(Probe::new(Act::Answer, b""), patient()).await;
    assert_eq!(outcome, Err(CallError::Closed));
}

async fn a_call_can_be_passed_on(way: Way) {
    let (actor, prober, _laid) = probe(way, 2);
    let far = actor.clone();
    let near = ActorRef::function(move |call| far.deliver(call));
    let answer = near.call(Probe::new(Act::Answer, b"via"), patient()).await.unwrap();
    assert_eq!(answer.payload, b"via");
    let dropped = near.call(Probe::new(Act::Drop, b""), patient()).await;
    assert_eq!(dropped, Err(CallError::Closed));
    near.call(Probe::new(Act::Stall, b""), patient()).await.unwrap();
    let calls = (0..9).map(|_| near.call(Probe::new(Act::Answer, b""), patient()));
    let mut calls: Vec<_> = calls.collect();
    until("the mailbox is full", || {
        calls
            .retain_mut(|call| call.now_or_never().is_none_or(|busy| busy != Err(CallError::Busy)));
        calls.len() == 2
    })
    .await;
    prober.go_on();
    for call in calls {
        assert!(call.await.is_ok());
    }
}

/// Below here: what only those ways do on which a message is encoded.
async fn what_nobody_answers_is_refused(way: Way) {
    let (actor, _prober, laid) = probe(way, 16);
    let unheard: ActorRef<Unheard> = ActorRef::function(|_| Ok(()));
    let outcome = laid.actor(&unheard).call(Unheard {}, patient()).await;
    assert!(matches!(outcome, Err(CallError::Refused(why)) if why.contains("60002")));
    assert!(actor.call(Probe::new(Act::Answer, b""), patient()).await.is_ok());
}

async fn what_cannot_be_decoded_is_refused(way: Way) {
    let (actor, prober, laid) = probe(way, 16);
    let impostor: ActorRef<Impostor> = ActorRef::function(|_| Ok(()));
    let nonsense = Impostor { nonsense: vec![0xff; 30] };
    let outcome = laid.actor(&impostor).call(nonsense, patient()).await;
    assert!(matches!(outcome, Err(CallError::Refused(why)) if why.contains("malformed")));
    assert_eq!(prober.handled(), 0);
    assert!(actor.call(Probe::new(Act::Answer, b""), patient()).await.is_ok());
}

async fn a_reply_that_cannot_be_decoded_is_closed(way: Way) {
    let (actor, _prober, laid) = probe(way, 16);
    let misheard: ActorRef<Misheard> = ActorRef::function(|_| Ok(()));
    let message = Misheard { act: Act::Answer, payload: vec![1, 2, 3] };
    assert_eq!(laid.actor(&misheard).call(message, patient()).await, Err(CallError::Closed));
    assert!(actor.call(Probe::new(Act::Answer, b""), patient()).await.is_ok());
}

async fn what_is_too_large_is_refused(way: Way) {
    let (actor, _prober, _laid) = probe(way, 16);
    let payload = vec![0; anello_protocol::codec::MAX_MESSAGE_BYTES + 1_000];
    let outcome = actor.call(Probe::new(Act::Answer, &payload), patient()).await;
    assert!(matches!(outcome, Err(CallError::Refused(_))), "{outcome:?}");
    assert!(actor.call(Probe::new(Act::Answer, b""), patient()).await.is_ok());
}

async fn clients_may_send_only_what_is_for_them(way: Way) {
    let prober = Prober::start(16);
    let laid = Laid::for_a(As::Client, way, router(&prober));
    let for_clients = laid.actor(&prober.probe);
    let answer = for_clients.call(Probe::new(Act::Answer, b""), patient()).await.unwrap();
    assert_eq!(answer.caller, "client web");
    let for_nodes = laid.actor(&prober.node_probe);
    let outcome = for_nodes.call(NodeProbe { payload: vec![] }, patient()).await;
    assert!(matches!(outcome, Err(CallError::Refused(why)) if why.contains("not for clients")));
}

macro_rules! suite {
    ($($module:ident: $way:ident => $tests:ident;)*) => {
        $(mod $module {
            use super::*;
            $tests!($way);
        })*
    };
}

macro_rules! tests {
    ($way:ident: $($name:ident)*) => {
        $(#[test]
        fn $name() {
            actix::System::new().block_on(super::$name(Way::$way));
        })*
    };
}

macro_rules! all {
    ($way:ident) => {
        tests! { $way:
            a_request_gets_its_reply
            a_call_is_made_whether_it_is_polled_or_not
            a_dropped_reply_is_closed
            a_stopped_actor_is_closed
            a_full_mailbox_is_busy_at_once
            a_deadline_that_passes_is_a_timeout
            a_deadline_that_has_passed_is_a_timeout
            the_deadline_and_the_trace_travel
            large_messages_arrive_whole
            large_and_small_messages_mix
            many_calls_in_flight_each_get_their_own_reply
            replies_may_come_in_any_order
            what_a_function_returns_is_the_answer
            a_call_can_be_passed_on
        }
    };
}

macro_rules! all_and_encoded {
    ($way:ident) => {
        all!($way);
        tests! { $way:
            what_nobody_answers_is_refused
            what_cannot_be_decoded_is_refused
            a_reply_that_cannot_be_decoded_is_closed
            what_is_too_large_is_refused
            clients_may_send_only_what_is_for_them
        }
    };
}

suite! {
    local: Local => all;
    loopback: Loopback => all_and_encoded;
    quic: Quic => all_and_encoded;
}
