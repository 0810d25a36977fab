//! Writes that are coordinated here.

use anello_protocol::{
    causality::{Context, token_decode, token_encode},
    cluster::KeyspaceConfig,
    consistency::{Consistency, QuorumKind},
    id::Epoch,
    message::{
        client::{Answer, ContextToken, ReplicaOutcome, RequestError, RequestOptions, Write},
        replica::{ForwardWrite, Refusal, Stored, Want},
    },
    time::HybridTime,
    version::{Content, Versions, WriteId},
};

use super::bench::{
    Bench, EU, at, cluster, data_key, delete, lww, minted, options, put, replicated, version, view,
};
use crate::coordinator::{
    CallFailure, CoordinatorConfig, Effect, Incoming, Input, Outgoing, Reply,
};

#[test]
fn a_write_is_durable_here_before_anybody_hears_of_it() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, message) = bench.sent_mint();
    assert_eq!((mint.to.as_str(), message.context.is_empty()), ("eu-a", true));
    bench.nothing();
    let minted = minted(version(1, 1, 1, Context::new()));
    bench.mints(&mint, &minted);
    let (second, store) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    assert_eq!(store.versions, minted.versions);
    bench.nothing();
    bench.stores(&second);
    let written = bench.written(token).result.expect("it is written");
    assert_eq!(token_decode(&data_key(), &written.context.0), Ok(minted.context));
    assert_eq!(bench.coordinator.in_flight(), 1, "the last replica is waited for");
    bench.stores(&third);
    bench.idle();
}

#[test]
fn a_context_travels_to_whoever_issues_the_dot() {
    let mut bench = Bench::of(&EU);
    let seen = Versions::from(version(2, 4, 7, Context::new())).context();
    let context = Some(ContextToken(token_encode(&data_key(), &seen)));
    bench.write(Write { context, ..put(1, options()) });
    assert_eq!(bench.sent_mint().1.context, seen);

    let damaged = Some(ContextToken("rubbish".into()));
    let token = bench.write(Write { context: damaged, ..put(1, options()) });
    assert!(matches!(bench.write_fails(token), RequestError::BadContext(_)));
    bench.nothing();
}

#[test]
fn levels_say_how_many_must_store() {
    for (level, stores) in [(Consistency::One, 0), (Consistency::Quorum, 1), (Consistency::All, 2)]
    {
        let mut bench = Bench::of(&EU);
        let token = bench.write(put(1, at(level)));
        let (mint, _) = bench.sent_mint();
        bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
        let sent = [bench.sent_store("eu-b").0, bench.sent_store("eu-c").0];
        for sent in &sent[..stores] {
            bench.nothing();
            bench.stores(sent);
        }
        assert!(bench.written(token).result.is_ok(), "{level}: a write goes to all all the same");
    }
}

/// T2: a strict quorum while a replica flaps between being picked and being sent to.
#[test]
fn too_few_alive_is_said_before_anything_is_sent() {
    let mut bench = Bench::of(&EU);
    bench.reachable("eu-b", false);
    bench.reachable("eu-c", false);
    let token = bench.write(put(1, RequestOptions { explain: true, ..options() }));
    let Answer { result, receipt } = bench.written(token);
    assert_eq!(result, Err(RequestError::Unavailable { required: 2, alive: 1 }));
    let receipt = receipt.expect("it was asked for");
    let ids: Vec<_> = receipt.replicas.iter().map(|replica| replica.id.as_str()).collect();
    assert_eq!(ids, ["eu-b", "eu-c"], "those for whose sake it was not tried");
    bench.idle();
    bench.write(put(1, at(Consistency::One)));
    bench.sent_mint();
}

#[test]
fn busy_replicas_are_asked_again_until_enough_have_stored() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let sent = [bench.sent(), bench.sent()];
    bench.refuses(&sent[0], Refusal::Busy);
    bench.fails(&sent[1], CallFailure::Unreachable);
    let hint = bench.sent_hint("eu-c", "eu-a");
    bench.stores(&hint);
    bench.nothing();
    bench.wait(20);
    let again = [bench.sent(), bench.sent()];
    bench.stores(&again[0]);
    assert!(bench.written(token).result.is_ok());
    // Enough have: one that can't be reached is left alone, one that is busy is not.
    bench.fails(&again[1], CallFailure::Unreachable);
    bench.idle();
}

#[test]
fn a_replica_that_was_frozen_gets_the_write_also_after_the_answer() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let sent = [bench.sent(), bench.sent()];
    bench.stores(&sent[0]);
    assert!(bench.written(token).result.is_ok());
    bench.refuses(&sent[1], Refusal::Frozen);
    bench.wait(20);
    let (again, _) = bench.sent_store("eu-c");
    bench.stores(&again);
    bench.idle();
}

#[test]
fn a_busy_vnode_of_ones_own_sheds_load() {
    for by_mailbox in [true, false] {
        let mut bench = Bench::of(&EU);
        let token = bench.write(put(1, options()));
        let (mint, _) = bench.sent_mint();
        match by_mailbox {
            true => bench.fails(&mint, CallFailure::Busy),
            false => bench.refuses(&mint, Refusal::Busy),
        }
        assert!(matches!(bench.write_fails(token), RequestError::Overloaded { .. }));
        bench.idle();
    }
}

#[test]
fn a_vote_is_waited_for() {
    let mut bench = Bench::of(&EU);
    bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::Frozen);
    bench.nothing();
    bench.wait(20);
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::Behind(Epoch(0)));
    bench.wait(40);
    bench.sent_mint();
}

#[test]
fn a_store_that_fails_leaves_the_write_to_another_replica() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::Storage("the disk is full".into()));
    let sent = bench.sent();
    assert!(matches!(&sent.message, Outgoing::Forward(_)));
    assert_eq!(sent.to, "eu-b");
    bench.refuses(&sent, Refusal::Busy);
    let sent = bench.sent();
    bench.refuses(&sent, Refusal::Busy);
    // It may have been kept here, so `overloaded` would be a lie.
    assert_eq!(bench.write_fails(token), RequestError::Timeout { required: 2, received: 0 });
    bench.idle();
}

#[test]
fn a_vnode_that_is_missing_leaves_the_write_to_another_replica() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::NotOwner);
    let sent = bench.sent();
    assert!(matches!(&sent.message, Outgoing::Forward(_)));
    assert_eq!(sent.to, "eu-b");
    bench.refuses(&sent, Refusal::Busy);
    let sent = bench.sent();
    assert_eq!(sent.to, "eu-c");
    bench.refuses(&sent, Refusal::Busy);
    let error = bench.write_fails(token);
    assert!(matches!(error, RequestError::Overloaded { .. }), "nothing was written: {error}");
    bench.idle();
}

#[test]
fn a_vnode_that_is_missing_and_the_only_one_is_said_at_once() {
    let local = replicated(&[("eu", 1), ("us", 3)]);
    for (nodes, config, level) in [
        (&EU[..1], KeyspaceConfig::default(), Consistency::Quorum),
        (&["eu-a", "us-a", "us-b", "us-c"], local, Consistency::LocalQuorum),
    ] {
        let mut bench = Bench::at("eu-a", nodes, config);
        let token = bench.write(put(1, at(level)));
        let (mint, _) = bench.sent_mint();
        bench.refuses(&mint, Refusal::NotOwner);
        assert_eq!(bench.write_fails(token), RequestError::Unavailable { required: 1, alive: 0 });
        bench.idle();
    }
}

/// The versions of a delete that is tried again were sent out, so that it may have been kept; then it
/// lost, and there is no vnode here to issue it anew.
#[test]
fn a_vnode_that_is_missing_does_not_hide_that_the_write_may_be_kept() {
    let mut bench = Bench::at("eu-a", &EU, lww());
    let token = bench.token();
    let forward = ForwardWrite { epoch: Epoch(1), write: delete(5, options()) };
    bench.input(Input::Forward { token, forward });
    let (own, digest) = (bench.sent(), bench.sent());
    bench.refuses(&own, Refusal::NotOwner);
    let full = bench.sent();
    let there = Versions::from(version(2, 1, 5, Context::new()));
    for sent in [&digest, &full] {
        bench.holds(sent, &there);
    }
    let sent = loop {
        let sent = bench.sent();
        match &sent.message {
            Outgoing::Read(_) => bench.holds(&sent, &there),
            Outgoing::Store(_) if sent.to == "eu-b" => break sent,
            other => assert!(matches!(other, Outgoing::Store(_)), "{other:?}"),
        }
    };
    bench.sent_store("eu-c");
    bench.loses(&sent, HybridTime::from_wall_ms(1 << 40));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::NotOwner);
    let doubt = Refusal::Storage("the write may have been kept".into());
    assert_eq!(bench.next(), Effect::Reply(token, Reply::Forward(Err(doubt))));
    bench.idle();
}

/// The disk of one that held the last write was exchanged, and that of a third had missed it: together they
/// know nothing of it, and the clock of the one that issues the next is behind.
#[test]
fn under_lww_a_replica_in_quarantine_counts_as_a_stand_in_does() {
    for (config, quorum, counts) in [
        (lww(), QuorumKind::Strict, false),
        (lww(), QuorumKind::Sloppy, true),
        (KeyspaceConfig::default(), QuorumKind::Strict, true),
    ] {
        let mut bench = Bench::at("eu-a", &EU, config);
        let token = bench.write(put(1, RequestOptions { quorum, ..options() }));
        let (mint, _) = bench.sent_mint();
        bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
        let (second, _) = bench.sent_store("eu-b");
        let (third, _) = bench.sent_store("eu-c");
        let stored = Stored { lost_to: None, is_quarantined: true };
        bench.answer(&second, Ok(Incoming::Stored(Ok(stored))));
        if counts {
            bench.written(token);
            bench.stores(&third);
        } else {
            bench.nothing();
            bench.stores(&third);
            bench.written(token);
        }
        bench.idle();
    }
}

/// Nor does it count once the write goes on under a newer state.
#[test]
fn a_replica_in_quarantine_is_asked_again_under_a_newer_state() {
    let mut bench = Bench::at("eu-a", &EU, lww());
    let strict = RequestOptions { quorum: QuorumKind::Strict, ..options() };
    let token = bench.write(put(1, strict));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    let stored = Stored { lost_to: None, is_quarantined: true };
    bench.answer(&second, Ok(Incoming::Stored(Ok(stored.clone()))));
    bench.refuses(&third, Refusal::StaleEpoch(Epoch(2)));
    bench.input(Input::ClusterChanged(view(cluster(2, &EU, lww()))));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    bench.answer(&second, Ok(Incoming::Stored(Ok(stored))));
    bench.nothing();
    bench.stores(&third);
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

#[test]
fn what_can_never_succeed_is_said_at_once() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::ForgedContext);
    assert!(matches!(bench.write_fails(token), RequestError::BadContext(_)));
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::TooManySiblings(1024));
    assert!(matches!(bench.write_fails(token), RequestError::BadRequest(_)));
    bench.idle();
}

/// T14: clocks scrambled by days, and a later write must win.
#[test]
fn a_write_that_lost_to_a_later_time_is_issued_anew() {
    let mut bench = Bench::at("eu-a", &EU, lww());
    let token = bench.write(put(1, options()));
    let (mint, message) = bench.sent_mint();
    assert_eq!(message.later_than, None);
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    let later = HybridTime::from_wall_ms(1 << 40);
    bench.loses(&second, later);
    let (mint, message) = bench.sent_mint();
    assert_eq!((message.later_than, message.write_id), (Some(later), WriteId(1)));
    // What the others say of the version that lost is of no interest.
    bench.stores(&third);
    bench.nothing();
    bench.mints(&mint, &minted(version(1, 2, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    bench.stores(&second);
    assert!(bench.written(token).result.is_ok());
    // A later time that is met after the answer may be of somebody who had seen this write.
    bench.loses(&third, later);
    bench.idle();
}

#[test]
fn a_retry_of_a_write_that_was_replaced_is_not_issued_anew() {
    let mut bench = Bench::at("eu-a", &EU, lww());
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    let mut winner = version(1, 9, 2, Context::new());
    winner.absorbed = vec![WriteId(1)];
    bench.mints(&mint, &minted(winner));
    let (second, _) = bench.sent_store("eu-b");
    bench.sent_store("eu-c");
    bench.loses(&second, HybridTime::from_wall_ms(1 << 40));
    assert!(bench.written(token).result.is_ok());
}

#[test]
fn a_blind_delete_covers_what_a_quorum_shows() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(delete(5, options()));
    let (full, digest) = (bench.sent_read("eu-a", Want::Full), bench.sent());
    let there = Versions::from(version(2, 1, 1, Context::new()));
    bench.holds(&full, &there);
    bench.holds(&digest, &there);
    let (mint, message) = bench.sent_mint();
    assert_eq!(message.context, there.context());
    assert_eq!(message.content, Content::Tombstone);
    bench.mints(&mint, &minted(version(1, 1, 5, there.context())));
    let (second, _) = bench.sent_store("eu-b");
    bench.sent_store("eu-c");
    bench.stores(&second);
    assert!(bench.written(token).result.is_ok());
}

#[test]
fn a_blind_delete_of_nothing_writes_nothing() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(delete(5, options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &Versions::new());
    bench.holds(&digest, &Versions::new());
    let written = bench.written(token).result.expect("there was nothing");
    assert_eq!(token_decode(&data_key(), &written.context.0), Ok(Context::new()));
    bench.idle();
}

#[test]
fn a_delete_with_the_context_of_nothing_writes_nothing() {
    let mut bench = Bench::of(&EU);
    let context = Some(ContextToken(token_encode(&data_key(), &Context::new())));
    let token = bench.write(Write { context, ..delete(5, options()) });
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

#[test]
fn a_named_delete_of_nothing_is_remembered() {
    let mut bench = Bench::of(&EU);
    bench.write(Write { is_named: true, ..delete(5, options()) });
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &Versions::new());
    bench.holds(&digest, &Versions::new());
    let (_, message) = bench.sent_mint();
    assert_eq!((message.content, message.context), (Content::Tombstone, Context::new()));
}

/// T19: the first attempt was coordinated elsewhere and its answer lost; a new value came since.
#[test]
fn a_blind_delete_that_was_done_is_not_done_again() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(delete(5, options()));
    let (full, digest) = (bench.sent(), bench.sent());
    let mut there = Versions::from(version(2, 1, 5, Context::new()));
    there.merge(version(3, 1, 6, Context::new()).into(), Default::default());
    bench.holds(&full, &there);
    bench.holds(&digest, &there);
    let sent = EU.map(|id| {
        let (sent, store) = bench.sent_store(id);
        assert_eq!(store.versions, there, "it has to get to enough replicas");
        sent
    });
    for sent in sent {
        bench.stores(&sent);
        if sent.to == "eu-b" {
            let written = bench.written(token).result.expect("it is done");
            let context = token_decode(&data_key(), &written.context.0).expect("our own");
            assert!(context.covers(version(2, 1, 0, Context::new()).dot));
            assert!(!context.covers(version(3, 1, 0, Context::new()).dot), "nobody read that");
        }
    }
    bench.idle();
}

#[test]
fn a_newer_state_is_waited_for_and_the_write_goes_on_where_it_was() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, at(Consistency::All)));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    bench.stores(&second);
    let newer = cluster(2, &EU, Default::default());
    bench.refuses(&third, Refusal::StaleEpoch(newer.epoch));
    bench.nothing();
    bench.input(Input::ClusterChanged(view(newer)));
    let (third, store) = bench.sent_store("eu-c");
    assert_eq!(store.epoch, Epoch(2));
    bench.nothing();
    bench.stores(&third);
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

#[test]
fn a_keyspace_that_is_dropped_under_a_write_leaves_doubt() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    let mut newer = cluster(2, &EU, Default::default());
    newer.keyspaces.clear();
    bench.input(Input::ClusterChanged(view(newer.clone())));
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    bench.refuses(&second, Refusal::StaleEpoch(newer.epoch));
    bench.sent_store("eu-c");
    assert!(matches!(bench.write_fails(token), RequestError::Timeout { .. }));
    bench.idle();
}

#[test]
fn a_deadline_is_kept() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, RequestOptions { timeout_ms: 50, ..options() }));
    bench.sent_mint();
    bench.wait(49);
    bench.nothing();
    bench.wait(1);
    assert_eq!(bench.write_fails(token), RequestError::Timeout { required: 2, received: 0 });
    bench.idle();
}

#[test]
fn a_receipt_names_everybody() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, RequestOptions { explain: true, ..options() }));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    bench.stores(&second);
    bench.nothing();
    bench.fails(&third, CallFailure::Unreachable);
    let hint = bench.sent_hint("eu-c", "eu-a");
    let receipt = bench.written(token).receipt.expect("it was asked for");
    let outcomes: Vec<_> = receipt.replicas.iter().map(|replica| replica.outcome).collect();
    let (answered, unreachable) = (ReplicaOutcome::Answered, ReplicaOutcome::Unreachable);
    assert_eq!(outcomes, [answered, answered, unreachable]);
    bench.stores(&hint);
    bench.idle();
}

#[test]
fn writes_that_only_linger_make_room() {
    let config = CoordinatorConfig { requests_max: 1, ..CoordinatorConfig::default() };
    let mut bench = Bench::alone("eu-a", config);
    bench.input(Input::ClusterChanged(view(cluster(1, &EU, Default::default()))));
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    let (third, _) = bench.sent_store("eu-c");
    bench.stores(&second);
    assert!(bench.written(token).result.is_ok());
    bench.write(put(2, options()));
    bench.sent_mint();
    bench.stores(&third);
    let token = bench.write(put(3, options()));
    assert!(matches!(bench.write_fails(token), RequestError::Overloaded { .. }));
    bench.nothing();
}

#[test]
fn nothing_lingers_for_ever() {
    let mut bench = Bench::of(&EU);
    let token = bench.write(put(1, RequestOptions { timeout_ms: 60_000, ..options() }));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    bench.sent_store("eu-c");
    bench.stores(&second);
    assert!(bench.written(token).result.is_ok());
    bench.wait(1_000);
    bench.sent_hint("eu-c", "eu-a");
    bench.wait(1_000);
    bench.idle();
}
