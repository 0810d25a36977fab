//! Stand-ins: who takes the place of a replica, when, and for whom that counts; repairs behind a read.

use anello_protocol::{
    causality::Context,
    cluster::KeyspaceConfig,
    consistency::{Consistency, QuorumKind},
    id::KeyspaceName,
    message::{
        client::{LocateKey, ReplicaOutcome, RequestError, RequestOptions, Role},
        hint::MintHint,
        replica::{ForwardWrite, Refusal, Want},
    },
    version::{Content, Version, Versions},
};

use super::bench::{
    BOTH, Bench, EU, Sent, at, get, key, minted, node, options, put, replicated, version,
};
use crate::coordinator::{CallFailure, Effect, Input, Outgoing};

pub(super) const FIVE: [&str; 5] = ["eu-a", "eu-b", "eu-c", "eu-d", "eu-e"];

/// The key's replicas among five nodes, and then its stand-ins, in the order of its walk.
pub(super) fn walk() -> Vec<String> {
    walk_of(&FIVE, KeyspaceConfig::default())
}

pub(super) fn walk_of(nodes: &[&str], config: KeyspaceConfig) -> Vec<String> {
    let bench = Bench::at(nodes[0], nodes, config);
    let question = LocateKey { keyspace: KeyspaceName::default_keyspace(), key: key() };
    let location = bench.coordinator.locate(&question).expect("it is known");
    let replicas = location.replicas.iter().map(|place| place.id.to_string());
    replicas.chain(location.fallbacks.iter().map(ToString::to_string)).collect()
}

fn strict() -> RequestOptions {
    RequestOptions { quorum: QuorumKind::Strict, ..options() }
}

/// A write at the first replica, which has issued its dot; and what was sent of it.
pub(super) fn issued(
    bench: &mut Bench,
    options: RequestOptions,
) -> (crate::coordinator::Token, Vec<Sent>) {
    let token = bench.write(put(1, options));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let stores = std::iter::from_fn(|| match bench.effects.front() {
        Some(Effect::Send { message: Outgoing::Store(_), .. }) => Some(bench.sent()),
        _ => None,
    });
    let stores = stores.collect();
    (token, stores)
}

#[test]
fn a_stand_in_counts_in_the_place_of_who_cant_be_reached() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    bench.reachable(&walk[1], false);
    bench.reachable(&walk[2], false);
    let (token, stores) = issued(&mut bench, RequestOptions { explain: true, ..options() });
    assert_eq!(stores.len(), 2, "the verdict may be wrong, so they are sent it all the same");
    let first = bench.sent_hint(&walk[1], &walk[3]);
    let second = bench.sent_hint(&walk[2], &walk[4]);
    bench.stores(&first);
    for sent in &stores {
        bench.fails(sent, CallFailure::Unreachable);
    }
    bench.stores(&second);
    let answer = bench.written(token);
    assert!(answer.result.is_ok());
    let receipt = answer.receipt.expect("it was asked for");
    let of = |role| receipt.replicas.iter().filter(move |replica| replica.role == role).count();
    assert_eq!((of(Role::Replica), of(Role::StandIn)), (3, 2));
    bench.idle();
}

/// T2, Riak: a strict quorum while replicas flap between being picked and being sent to.
#[test]
fn t2_a_strict_quorum_fails_rather_than_count_a_stand_in() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    let (token, stores) = issued(&mut bench, strict());
    for sent in &stores {
        bench.fails(sent, CallFailure::Unreachable);
    }
    // The hints are kept all the same, and count for nothing.
    for owner in [1, 2] {
        let hint = bench.sent_hint(&walk[owner], &walk[owner + 2]);
        bench.stores(&hint);
    }
    while bench.coordinator.in_flight() > 0 {
        bench.wait(1);
        while let Some(Effect::Send { call, to, .. }) =
            bench.effects.pop_front_if(|effect| matches!(effect, Effect::Send { .. }))
        {
            let outcome = Err(CallFailure::Unreachable);
            bench.input(Input::Answered { call, from: to, outcome });
        }
    }
    assert_eq!(bench.write_fails(token), RequestError::Timeout { required: 2, received: 1 });
    bench.idle();
}

#[test]
fn a_silent_replica_is_stood_in_for_and_never_counts_twice() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    let (token, stores) = issued(&mut bench, at(Consistency::All));
    bench.wait(99);
    bench.nothing();
    bench.wait(1);
    let first = bench.sent_hint(&walk[1], &walk[3]);
    let second = bench.sent_hint(&walk[2], &walk[4]);
    bench.stores(&first);
    bench.stores(&stores[0]);
    bench.nothing();
    bench.stores(&second);
    assert!(bench.written(token).result.is_ok(), "one of each pair is enough");
    bench.stores(&stores[1]);
    bench.idle();
}

#[test]
fn a_stand_in_that_fails_is_followed_by_the_next_and_in_the_end_by_oneself() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    let (token, stores) = issued(&mut bench, at(Consistency::All));
    bench.stores(&stores[0]);
    bench.fails(&stores[1], CallFailure::Unreachable);
    let hint = bench.sent_hint(&walk[2], &walk[3]);
    bench.refuses(&hint, Refusal::HintsFull);
    let hint = bench.sent_hint(&walk[2], &walk[4]);
    bench.fails(&hint, CallFailure::Closed);
    let hint = bench.sent_hint(&walk[2], &walk[0]);
    bench.stores(&hint);
    bench.nothing();
    let _ = token;
}

#[test]
fn where_nobody_can_stand_in_the_hint_is_kept_here_and_counts_for_nothing() {
    let mut bench = Bench::of(&EU);
    let (token, stores) = issued(&mut bench, at(Consistency::All));
    bench.stores(&stores[0]);
    bench.fails(&stores[1], CallFailure::Unreachable);
    let hint = bench.sent_hint("eu-c", "eu-a");
    bench.stores(&hint);
    bench.nothing();
    bench.wait(20);
    let (again, _) = bench.sent_store("eu-c");
    bench.stores(&again);
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

#[test]
fn a_local_level_is_met_in_its_datacenter_only() {
    let nodes = ["eu-a", "eu-b", "us-a", "us-b"];
    let config = replicated(&[("eu", 2)]);
    let walk = walk_of(&nodes, config.clone());
    let mut bench = Bench::at(&walk[0], &nodes, config.clone());
    bench.reachable(&walk[1], false);
    let token = bench.write(put(1, at(Consistency::LocalQuorum)));
    let error = bench.write_fails(token);
    assert_eq!(error, RequestError::Unavailable { required: 2, alive: 1 }, "us can't stand in");
    let token = bench.write(put(2, at(Consistency::All)));
    bench.sent_mint();
    let _ = token;
}

#[test]
fn stand_ins_are_what_is_left_of_a_quorum() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    for away in &walk[1..] {
        bench.reachable(away, false);
    }
    let token = bench.write(put(1, options()));
    assert_eq!(bench.write_fails(token), RequestError::Unavailable { required: 2, alive: 1 });
    bench.reachable(&walk[4], true);
    let token = bench.get(get(strict()));
    assert_eq!(bench.read_fails(token), RequestError::Unavailable { required: 2, alive: 1 });
    bench.write(put(2, options()));
    bench.sent_mint();
}

#[test]
fn reads_are_answered_from_hints() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    bench.reachable(&walk[1], false);
    bench.reachable(&walk[2], false);
    let token = bench.get(get(RequestOptions { explain: true, ..options() }));
    let own = bench.sent_read(&walk[0], Want::Full);
    let stand_in = bench.sent();
    assert_eq!(stand_in.to, walk[3]);
    assert!(matches!(stand_in.message, Outgoing::ReadHints(_)));
    bench.holds(&own, &Versions::new());
    bench.nothing();
    bench.holds(&stand_in, &Versions::from(version(1, 1, 1, Context::new())));
    let answer = bench.found(token);
    assert_eq!(answer.result.expect("it is read").versions.len(), 1);
    let receipt = answer.receipt.expect("it was asked for");
    let parts: Vec<_> = receipt.replicas.iter().map(|part| (part.role, part.outcome)).collect();
    let (stale, answered) = (ReplicaOutcome::Stale, ReplicaOutcome::Answered);
    assert_eq!(parts, [(Role::Replica, stale), (Role::StandIn, answered)]);
    let (repair, store) = bench.sent_store(&walk[0]);
    assert_eq!(store.versions.len(), 1, "what a stand-in had is brought to the replica");
    bench.stores(&repair);
    bench.idle();
}

#[test]
fn a_strict_read_asks_no_stand_in() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    let token = bench.get(get(strict()));
    bench.sent_read(&walk[0], Want::Full);
    let other = bench.sent();
    bench.fails(&other, CallFailure::Unreachable);
    let third = bench.sent();
    bench.fails(&third, CallFailure::Unreachable);
    bench.nothing();
    let _ = token;
}

#[test]
fn a_write_that_no_replica_can_take_is_issued_by_a_stand_in() {
    let walk = walk();
    let mut bench = Bench::at(&walk[3], &FIVE, KeyspaceConfig::default());
    for away in &walk[..3] {
        bench.reachable(away, false);
    }
    let token = bench.write(put(1, options()));
    let mint = bench.sent();
    assert_eq!(mint.to, walk[3]);
    let Outgoing::MintHint(MintHint { owner, .. }) = &mint.message else { panic!("{mint:?}") };
    assert_eq!(*owner, node(&walk[0]));
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    for _ in 0..3 {
        let sent = bench.sent();
        assert!(matches!(sent.message, Outgoing::Store(_)), "{sent:?}");
    }
    let hint = bench.sent_hint(&walk[1], &walk[4]);
    bench.sent_hint(&walk[2], &walk[3]);
    bench.stores(&hint);
    assert!(bench.written(token).result.is_ok());

    let token = bench.token();
    let forward = ForwardWrite {
        epoch: anello_protocol::id::Epoch(1),
        write: put(2, RequestOptions { quorum: QuorumKind::Strict, ..at(Consistency::One) }),
    };
    bench.input(Input::Forward { token, forward });
    assert!(matches!(bench.next(), Effect::Reply(..)), "nobody stands in for a strict write");
}

/// T12, riak_kv#1156: what is repaired is never cut to a bound that holds for clients; and a delete is
/// repaired like any write.
#[test]
fn t12_repairs_carry_all_that_there_is() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    let mut many = Versions::new();
    for writer in 10..1_210 {
        let tombstone = Version {
            content: Content::Tombstone,
            ..version(writer, 1, writer.into(), Context::new())
        };
        many.merge(tombstone.into(), Default::default());
    }
    bench.holds(&full, &many);
    bench.holds(&digest, &Versions::new());
    assert!(bench.found(token).result.is_ok());
    let (repair, store) = bench.sent_store("eu-b");
    assert_eq!(store.versions, many);
    bench.fails(&repair, CallFailure::Timeout);
    bench.idle();
}

#[test]
fn nobody_is_left_to_be_asked_over_there() {
    // Every node of both datacenters is a replica: the neighbours' hints are kept here.
    let mut bench = Bench::of(&BOTH);
    for away in ["us-a", "us-b", "us-c"] {
        bench.reachable(away, false);
    }
    let token = bench.write(put(1, at(Consistency::LocalQuorum)));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    bench.sent_store("eu-c");
    assert!(matches!(bench.sent().message, Outgoing::Relay(_)));
    for owner in ["us-a", "us-b", "us-c"] {
        bench.sent_hint(owner, "eu-a");
    }
    bench.stores(&second);
    assert!(bench.written(token).result.is_ok());
}
