//! Writes that are handed to a replica, and those that were handed over.

use anello_protocol::{
    causality::Context,
    consistency::{Consistency, QuorumKind},
    id::Epoch,
    message::{
        client::{Answer, ContextToken, RequestError, RequestOptions, Write, Written},
        replica::{ForwardWrite, Refusal},
    },
    time::HybridTime,
};

use super::bench::{
    BOTH, Bench, Sent, at, cluster, minted, options, put, replicated, version, view,
};
use crate::coordinator::{CallFailure, Effect, Input, Outgoing, Reply, Token};

/// A coordinator at a node that holds nothing.
fn stranger() -> Bench {
    Bench::at("us-a", &BOTH, replicated(&[("eu", 3)]))
}

fn sent_forward(bench: &mut Bench) -> (Sent, ForwardWrite) {
    let sent = bench.sent();
    match sent.message.clone() {
        Outgoing::Forward(forward) => (sent, forward),
        other => panic!("expected a write to be handed over, not {other:?}"),
    }
}

fn done() -> Answer<Written> {
    Answer::from(Ok(Written { context: ContextToken("done".into()) }))
}

fn forward(bench: &mut Bench, epoch: u64, write: Write) -> Token {
    let token = bench.token();
    let forward = ForwardWrite { epoch: Epoch(epoch), write };
    bench.input(Input::Forward { token, forward });
    token
}

fn handed_back(bench: &mut Bench, to: Token) -> Result<Answer<Written>, Refusal> {
    match bench.next() {
        Effect::Reply(token, Reply::Forward(result)) if token == to => result,
        other => panic!("expected an answer to the other coordinator, not {other:?}"),
    }
}

#[test]
fn a_node_that_is_no_replica_hands_the_write_over() {
    let mut bench = stranger();
    let token = bench.write(put(1, options()));
    bench.wait(10);
    let (sent, forward) = sent_forward(&mut bench);
    assert_eq!(sent.to, "eu-a");
    assert_eq!(forward.write.options.timeout_ms, 2_000);
    bench.forwarded(&sent, Ok(done()));
    assert_eq!(bench.written(token), done());
    bench.idle();
}

#[test]
fn the_next_is_asked_when_one_cannot_be_reached() {
    let mut bench = stranger();
    bench.reachable("eu-a", false);
    let token = bench.write(put(1, options()));
    let (sent, _) = sent_forward(&mut bench);
    assert_eq!(sent.to, "eu-b", "one that can be reached comes first");
    bench.fails(&sent, CallFailure::Unreachable);
    let (sent, _) = sent_forward(&mut bench);
    assert_eq!(sent.to, "eu-c");
    bench.refuses(&sent, Refusal::NotOwner);
    let (sent, _) = sent_forward(&mut bench);
    assert_eq!(sent.to, "eu-a", "the verdict may be wrong");
    bench.fails(&sent, CallFailure::Unreachable);
    bench.nothing();
    bench.wait(20);
    let (sent, forward) = sent_forward(&mut bench);
    assert!(forward.write.options.timeout_ms < 2_000, "what is left of the time");
    bench.forwarded(&sent, Ok(done()));
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

#[test]
fn in_place_of_a_silent_one_another_is_asked() {
    let mut bench = stranger();
    let token = bench.write(put(1, options()));
    let (first, _) = sent_forward(&mut bench);
    bench.wait(500);
    let (second, forward) = sent_forward(&mut bench);
    assert_eq!(forward.write.write_id, put(1, options()).write_id, "it is the same write");
    bench.forwarded(&second, Ok(done()));
    assert!(bench.written(token).result.is_ok());
    bench.idle();
    bench.forwarded(&first, Ok(done()));
    bench.idle();
}

#[test]
fn all_too_busy_is_overload_unless_one_may_have_written() {
    let mut bench = stranger();
    let token = bench.write(put(1, options()));
    for _ in 0..3 {
        let (sent, _) = sent_forward(&mut bench);
        bench.refuses(&sent, Refusal::Busy);
    }
    assert!(matches!(bench.write_fails(token), RequestError::Overloaded { .. }));
    bench.idle();

    let token = bench.write(put(1, options()));
    let (sent, _) = sent_forward(&mut bench);
    bench.fails(&sent, CallFailure::Closed);
    for _ in 0..2 {
        let (sent, _) = sent_forward(&mut bench);
        bench.refuses(&sent, Refusal::Busy);
    }
    assert_eq!(bench.write_fails(token), RequestError::Timeout { required: 2, received: 0 });
    bench.idle();
}

#[test]
fn a_refusal_does_not_end_what_another_was_just_asked_for() {
    let mut bench = stranger();
    let token = bench.write(put(1, options()));
    for _ in 0..3 {
        let (sent, _) = sent_forward(&mut bench);
        bench.fails(&sent, CallFailure::Unreachable);
    }
    bench.wait(20);
    let (sent, _) = sent_forward(&mut bench);
    bench.refuses(&sent, Refusal::Busy);
    let (second, _) = sent_forward(&mut bench);
    bench.forwarded(&second, Ok(done()));
    assert!(bench.written(token).result.is_ok(), "it is the second round, and not at its end");
    bench.idle();
}

#[test]
fn doubt_is_not_hidden_by_a_clear_refusal() {
    let mut bench = stranger();
    let token = bench.write(put(1, options()));
    sent_forward(&mut bench);
    bench.wait(500);
    let (second, _) = sent_forward(&mut bench);
    let refused = RequestError::BadContext("forged".into());
    bench.forwarded(&second, Ok(Err(refused).into()));
    assert!(
        matches!(bench.write_fails(token), RequestError::Timeout { .. }),
        "the first may write"
    );
    bench.idle();
}

#[test]
fn a_local_level_stays_in_its_datacenter() {
    let config = replicated(&[("eu", 3), ("us", 1)]);
    let holder = {
        let bench = Bench::at("us-a", &BOTH, config.clone());
        let question = anello_protocol::message::client::LocateKey {
            keyspace: anello_protocol::id::KeyspaceName::default_keyspace(),
            key: super::bench::key(),
        };
        let replicas = bench.coordinator.locate(&question).expect("it is known").replicas;
        replicas.last().expect("there are four").id.to_string()
    };
    let own = BOTH.iter().rev().find(|id| **id != holder).expect("there are others");
    let mut bench = Bench::at(own, &BOTH, config);
    bench.write(put(1, at(Consistency::LocalOne)));
    let (sent, _) = sent_forward(&mut bench);
    assert_eq!(sent.to, holder);
    bench.fails(&sent, CallFailure::Unreachable);
    bench.nothing();
    bench.reachable(&holder, false);
    let quorum = QuorumKind::Strict;
    let token = bench.write(put(1, RequestOptions { quorum, ..at(Consistency::LocalOne) }));
    assert_eq!(bench.write_fails(token), RequestError::Unavailable { required: 1, alive: 0 });
    bench.write(put(2, at(Consistency::LocalOne)));
    assert!(matches!(bench.sent().message, Outgoing::MintHint(_)), "it stands in itself");
}

#[test]
fn what_was_handed_over_is_not_handed_on() {
    let mut bench = stranger();
    let token = forward(&mut bench, 1, put(1, options()));
    assert_eq!(handed_back(&mut bench, token), Err(Refusal::NotOwner));
    bench.idle();
}

#[test]
fn epochs_must_agree() {
    let mut bench = Bench::of(&BOTH);
    let newer = cluster(2, &BOTH, Default::default());
    bench.input(Input::ClusterChanged(view(newer.clone())));
    let token = forward(&mut bench, 1, put(1, options()));
    assert_eq!(handed_back(&mut bench, token), Err(Refusal::StaleEpoch(newer.epoch)));
    let token = forward(&mut bench, 3, put(1, options()));
    assert_eq!(handed_back(&mut bench, token), Err(Refusal::Behind(Epoch(2))));

    let mut bench = stranger();
    let token = bench.write(put(1, options()));
    let (sent, _) = sent_forward(&mut bench);
    bench.refuses(&sent, Refusal::StaleEpoch(newer.epoch));
    bench.nothing();
    bench.input(Input::ClusterChanged(view(newer)));
    let (mint, _) = bench.sent_mint();
    assert_eq!(mint.to, "us-a", "under the newer state it is a replica itself");
    bench.refuses(&mint, Refusal::ForgedContext);
    assert!(matches!(bench.write_fails(token), RequestError::BadContext(_)));
}

/// It was stored, lost to a later time, and before it is issued anew the replica has ceased to be one.
#[test]
fn what_may_have_been_kept_is_not_handed_back_as_if_it_were_not() {
    let config = super::bench::lww();
    let mut bench = Bench::at("eu-a", &["eu-a", "eu-b", "eu-c"], config.clone());
    let token = forward(&mut bench, 1, put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    bench.sent_store("eu-c");
    bench.loses(&second, HybridTime::from_wall_ms(77));
    let (again, _) = bench.sent_mint();
    bench.input(Input::ClusterChanged(view(cluster(2, &["eu-b", "eu-c", "eu-d"], config))));
    bench.refuses(&again, Refusal::StaleEpoch(Epoch(2)));
    assert!(matches!(handed_back(&mut bench, token), Err(Refusal::Storage(_))));
    bench.idle();
}

#[test]
fn a_write_that_was_handed_over_is_carried_out() {
    let mut bench = Bench::of(&["eu-a", "eu-b", "eu-c"]);
    let token = forward(&mut bench, 1, put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let (second, _) = bench.sent_store("eu-b");
    bench.sent_store("eu-c");
    bench.stores(&second);
    let answer = handed_back(&mut bench, token).expect("it is carried out");
    assert!(answer.result.is_ok());

    let token = forward(&mut bench, 1, put(2, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::Storage("full".into()));
    assert_eq!(handed_back(&mut bench, token), Err(Refusal::Storage("full".into())));
    for (write_id, refusal) in [(3, Refusal::Busy), (4, Refusal::NotOwner)] {
        let token = forward(&mut bench, 1, put(write_id, options()));
        let (mint, _) = bench.sent_mint();
        bench.refuses(&mint, refusal.clone());
        assert_eq!(handed_back(&mut bench, token), Err(refusal));
    }
}

#[test]
fn a_full_disk_leaves_the_write_to_another_replica() {
    let full = RequestError::DiskFull { required: 2, alive: 0 };
    for others_have_room in [true, false] {
        let mut bench = Bench::of(&["eu-a", "eu-b", "eu-c"]);
        let token = bench.write(put(1, options()));
        let (mint, _) = bench.sent_mint();
        bench.refuses(&mint, Refusal::DiskFull);
        let (sent, _) = sent_forward(&mut bench);
        bench.forwarded(&sent, Ok(Err(full.clone()).into()));
        let (sent, _) = sent_forward(&mut bench);
        if others_have_room {
            bench.forwarded(&sent, Ok(done()));
            assert!(bench.written(token).result.is_ok());
        } else {
            bench.forwarded(&sent, Ok(Err(full.clone()).into()));
            assert_eq!(bench.write_fails(token), full, "nothing was written anywhere");
        }
        bench.idle();
    }
    let mut bench = Bench::of(&["eu-a"]);
    let token = bench.write(put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::DiskFull);
    assert_eq!(bench.write_fails(token), RequestError::DiskFull { required: 1, alive: 0 });
}

#[test]
fn a_full_disk_says_so_to_whoever_handed_the_write_over() {
    let mut bench = Bench::of(&["eu-a", "eu-b", "eu-c"]);
    let token = forward(&mut bench, 1, put(1, options()));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::DiskFull);
    let answer = handed_back(&mut bench, token).expect("an answer");
    assert_eq!(answer.result, Err(RequestError::DiskFull { required: 2, alive: 0 }));
    bench.idle();
}
