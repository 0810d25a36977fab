//! Reads.

use anello_protocol::{
    causality::{Context, token_decode},
    consistency::Consistency,
    id::{Epoch, KeyspaceName},
    message::{
        client::{Answer, Get, LocateKey, ReplicaOutcome, RequestError, RequestOptions},
        replica::{Refusal, Want},
    },
    version::{ConflictRule, Content, Versions},
};

use super::bench::{
    BOTH, Bench, EU, at, cluster, data_key, get, key, node, options, replicated, value, version,
    view,
};
use crate::coordinator::{CallFailure, CoordinatorConfig, Effect, Input};

fn one() -> Versions {
    Versions::from(version(1, 1, 1, Context::new()))
}

fn two() -> Versions {
    Versions::from(version(2, 1, 2, Context::new()))
}

#[test]
fn a_quorum_is_one_set_of_versions_and_a_digest() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let full = bench.sent_read("eu-a", Want::Full);
    let digest = bench.sent_read("eu-b", Want::Digest);
    bench.nothing();
    bench.holds(&full, &one());
    bench.nothing();
    bench.holds(&digest, &one());
    let found = bench.found(token).result.expect("it is read");
    assert_eq!(found.versions.len(), 1);
    assert_eq!(found.versions[0].content, value("1"));
    assert_eq!(token_decode(&data_key(), &found.context.0), Ok(one().context()));
    bench.idle();
}

#[test]
fn the_context_of_what_nobody_wrote_is_empty() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&digest, &Versions::new());
    bench.holds(&full, &Versions::new());
    let found = bench.found(token).result.expect("it is read");
    assert!(found.versions.is_empty());
    assert_eq!(token_decode(&data_key(), &found.context.0), Ok(Context::new()));
}

#[test]
fn versions_that_differ_are_fetched_and_joined() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(RequestOptions { explain: true, ..options() }));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&digest, &two());
    bench.nothing();
    bench.holds(&full, &one());
    let again = bench.sent_read("eu-b", Want::Full);
    bench.nothing();
    bench.holds(&again, &two());
    let answer = bench.found(token);
    assert_eq!(answer.result.expect("it is read").versions.len(), 2);
    let receipt = answer.receipt.expect("it was asked for");
    let outcomes: Vec<_> = receipt.replicas.iter().map(|replica| replica.outcome).collect();
    assert_eq!(outcomes, [ReplicaOutcome::Stale, ReplicaOutcome::Stale], "each lacked one");
    for replica in ["eu-a", "eu-b"] {
        let (repair, store) = bench.sent_store(replica);
        assert_eq!(store.versions.len(), 2, "each is sent all");
        bench.stores(&repair);
    }
    bench.idle();
}

#[test]
fn a_replica_that_lacks_the_key_need_send_nothing() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&digest, &Versions::new());
    bench.holds(&full, &one());
    assert_eq!(bench.found(token).result.expect("it is read").versions.len(), 1);
}

#[test]
fn a_digest_does_not_count_until_its_versions_are_here() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &one());
    bench.holds(&digest, &two());
    let again = bench.sent_read("eu-b", Want::Full);
    bench.fails(&again, CallFailure::Closed);
    // eu-b can't be counted any more, so another one is asked.
    let other = bench.sent_read("eu-c", Want::Digest);
    bench.holds(&other, &one());
    assert_eq!(bench.found(token).result.expect("it is read").versions.len(), 1);
    bench.idle();
}

#[test]
fn when_the_nearest_fails_another_sends_the_versions() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&digest, &one());
    bench.fails(&full, CallFailure::Busy);
    // The digest of eu-b explains itself as soon as somebody's versions are here.
    let mut wants = [bench.sent(), bench.sent()];
    wants.sort_by(|a, b| a.to.cmp(&b.to));
    for sent in &wants {
        bench.holds(sent, &one());
    }
    assert_eq!(bench.found(token).result.expect("it is read").versions.len(), 1);
}

#[test]
fn in_place_of_a_silent_replica_another_is_asked() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &one());
    bench.wait(99);
    bench.nothing();
    bench.wait(1);
    let other = bench.sent_read("eu-c", Want::Digest);
    bench.holds(&other, &one());
    assert!(bench.found(token).result.is_ok());
    bench.idle();
    bench.holds(&digest, &two());
    bench.idle();
}

#[test]
fn a_late_answer_is_as_good_as_any() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &one());
    bench.wait(150);
    bench.sent_read("eu-c", Want::Digest);
    bench.holds(&digest, &one());
    assert!(bench.found(token).result.is_ok());
}

#[test]
fn nobody_left_means_a_timeout_and_tries_until_then() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let mut asked = 0;
    for _ in 0..=2000 {
        while let Some(effect) = bench.effects.pop_front() {
            match effect {
                Effect::Send { call, to, .. } => {
                    asked += 1;
                    let outcome = Err(CallFailure::Unreachable);
                    bench.input(Input::Answered { call, from: to, outcome });
                }
                Effect::Reply(answered, _) => {
                    assert_eq!(answered, token);
                    assert!((10..400).contains(&asked), "{asked} tries");
                    return bench.idle();
                }
                other => panic!("{other:?}"),
            }
        }
        bench.wait(1);
    }
    panic!("no answer within the deadline");
}

#[test]
fn too_few_alive_is_said_before_anything_is_sent() {
    let mut bench = Bench::of(&EU);
    bench.reachable("eu-b", false);
    let token = bench.get(get(options()));
    assert_eq!(bench.sent().to, "eu-a");
    assert_eq!(bench.sent().to, "eu-c");
    bench.effects.clear();
    bench.reachable("eu-c", false);
    let second = bench.get(get(RequestOptions { explain: true, ..options() }));
    let Answer { result, receipt } = bench.found(second);
    assert_eq!(result, Err(RequestError::Unavailable { required: 2, alive: 1 }));
    let outcomes: Vec<_> =
        receipt.expect("it was asked for").replicas.iter().map(|part| part.outcome).collect();
    assert_eq!(outcomes, [ReplicaOutcome::Unreachable; 2]);
    bench.nothing();
    bench.wait(2000);
    while !matches!(bench.effects.front(), Some(Effect::Reply(..))) {
        bench.next();
    }
    assert_eq!(bench.read_fails(token), RequestError::Timeout { required: 2, received: 0 });
    bench.reachable("eu-c", true);
    bench.get(get(options()));
    bench.sent();
}

#[test]
fn levels_say_who_counts() {
    let mut bench = Bench::of(&BOTH);
    bench.get(get(at(Consistency::Quorum)));
    let asked: Vec<_> = (0..4).map(|_| bench.sent().to).collect();
    assert_eq!(asked, ["eu-a", "eu-b", "eu-c", "us-a"]);
    bench.nothing();
    bench.get(get(at(Consistency::LocalQuorum)));
    bench.sent_read("eu-a", Want::Full);
    bench.effects.clear();
    for id in ["eu-b", "eu-c"] {
        bench.reachable(id, false);
    }
    let token = bench.get(get(at(Consistency::LocalQuorum)));
    assert_eq!(bench.read_fails(token), RequestError::Unavailable { required: 2, alive: 1 });
    bench.get(get(at(Consistency::Quorum)));
    let asked: Vec<_> = (0..4).map(|_| bench.sent().to).collect();
    assert_eq!(asked, ["eu-a", "us-a", "us-b", "us-c"], "those that can be reached");
    let token = bench.get(get(at(Consistency::EachQuorum)));
    assert!(matches!(bench.read_fails(token), RequestError::BadConsistency(_)));
    let token = bench.get(get(at(Consistency::Count(7))));
    assert!(matches!(bench.read_fails(token), RequestError::BadConsistency(_)));
}

/// T29: `local_quorum` in a datacenter with no replicas.
#[test]
fn a_local_level_where_nothing_is_local_is_an_error_and_no_hang() {
    let mut bench = Bench::at("us-a", &BOTH, replicated(&[("eu", 3)]));
    let token = bench.get(get(at(Consistency::LocalQuorum)));
    assert!(matches!(bench.read_fails(token), RequestError::BadConsistency(_)));
    bench.idle();
}

#[test]
fn a_newer_state_is_waited_for_and_the_read_begins_again() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(options()));
    let (full, digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &one());
    let newer = cluster(2, &["eu-b", "eu-c", "eu-d"], Default::default());
    bench.refuses(&digest, Refusal::StaleEpoch(newer.epoch));
    bench.nothing();
    bench.input(Input::ClusterChanged(view(newer)));
    let again = [bench.sent(), bench.sent()];
    for sent in &again {
        bench.holds(sent, &two());
    }
    assert_eq!(bench.found(token).result.expect("it is read").versions[0].content, value("2"));
    bench.idle();
}

#[test]
fn replicas_that_are_behind_are_asked_again() {
    let mut bench = Bench::of(&["eu-a"]);
    let token = bench.get(get(options()));
    let sent = bench.sent();
    bench.refuses(&sent, Refusal::Behind(Epoch(0)));
    bench.nothing();
    bench.wait(20);
    let sent = bench.sent_read("eu-a", Want::Full);
    bench.holds(&sent, &one());
    assert!(bench.found(token).result.is_ok());
}

#[test]
fn tombstones_are_shown_once() {
    let dead = |vnode, write_id| {
        let mut version = version(vnode, 1, write_id, Context::new());
        version.content = Content::Tombstone;
        version
    };
    let mut versions = Versions::from(dead(1, 1));
    versions.merge(dead(2, 2).into(), ConflictRule::Siblings);
    let mut bench = Bench::of(&["eu-a"]);
    let token = bench.get(get(options()));
    let sent = bench.sent();
    bench.holds(&sent, &versions);
    let found = bench.found(token).result.expect("it is read");
    assert_eq!(found.versions.len(), 1);
    assert_eq!(token_decode(&data_key(), &found.context.0), Ok(versions.context()));
    versions.merge(version(3, 1, 3, Context::new()).into(), ConflictRule::Siblings);
    let token = bench.get(get(options()));
    let sent = bench.sent();
    bench.holds(&sent, &versions);
    assert_eq!(bench.found(token).result.expect("it is read").versions.len(), 2);
}

#[test]
fn a_receipt_waits_for_stragglers_for_a_while() {
    let mut bench = Bench::of(&EU);
    let token = bench.get(get(RequestOptions { explain: true, ..options() }));
    let (full, _digest) = (bench.sent(), bench.sent());
    bench.holds(&full, &one());
    bench.wait(100);
    let other = bench.sent();
    bench.holds(&other, &one());
    bench.nothing();
    bench.wait(50);
    let receipt = bench.found(token).receipt.expect("it was asked for");
    let outcomes: Vec<_> = receipt.replicas.iter().map(|r| (r.id.to_string(), r.outcome)).collect();
    assert_eq!(
        outcomes,
        [
            ("eu-a".into(), ReplicaOutcome::Answered),
            ("eu-b".into(), ReplicaOutcome::Timeout),
            ("eu-c".into(), ReplicaOutcome::Answered),
        ]
    );
    assert_eq!((receipt.coordinator, receipt.epoch), (node("eu-a"), Epoch(1)));
    bench.idle();
}

#[test]
fn a_node_of_no_cluster_says_so() {
    let mut bench = Bench::alone("eu-a", CoordinatorConfig::default());
    let token = bench.get(get(options()));
    assert_eq!(bench.read_fails(token), RequestError::Unavailable { required: 1, alive: 0 });
    let question = LocateKey { keyspace: KeyspaceName::default_keyspace(), key: key() };
    assert!(bench.coordinator.locate(&question).is_err());
    bench.input(Input::ClusterChanged(view(cluster(1, &EU, Default::default()))));
    let location = bench.coordinator.locate(&question).expect("it is known");
    assert_eq!(location.replicas.len(), 3);
    let nowhere = Get { keyspace: KeyspaceName::new("nowhere").expect("good"), ..get(options()) };
    let token = bench.get(nowhere);
    assert!(matches!(bench.read_fails(token), RequestError::NoSuchKeyspace(_)));
}

#[test]
fn past_its_bounds_a_coordinator_sheds_load() {
    let config = CoordinatorConfig { requests_max: 2, ..CoordinatorConfig::default() };
    let mut bench = Bench::alone("eu-a", config);
    bench.input(Input::ClusterChanged(view(cluster(1, &["eu-a"], Default::default()))));
    let first = bench.get(get(options()));
    let first_sent = bench.sent();
    bench.get(get(options()));
    bench.sent();
    let third = bench.get(get(options()));
    assert!(matches!(bench.read_fails(third), RequestError::Overloaded { .. }));
    bench.nothing();
    bench.holds(&first_sent, &one());
    assert!(bench.found(first).result.is_ok());
    bench.get(get(options()));
    bench.sent();
    for timeout_ms in [0, 60_001] {
        let token = bench.get(get(RequestOptions { timeout_ms, ..options() }));
        assert!(matches!(bench.read_fails(token), RequestError::BadRequest(_)));
    }
}

#[test]
fn more_versions_than_there_is_room_for_are_not_kept() {
    let config = CoordinatorConfig { bytes_max: 4096, ..CoordinatorConfig::default() };
    let mut bench = Bench::alone("eu-a", config);
    bench.input(Input::ClusterChanged(view(cluster(1, &EU, Default::default()))));
    let token = bench.get(get(options()));
    let (full, _) = (bench.sent(), bench.sent());
    let mut big = version(1, 1, 1, Context::new());
    big.content = value(&"x".repeat(8192));
    bench.holds(&full, &big.into());
    assert!(matches!(bench.read_fails(token), RequestError::Overloaded { .. }));
    bench.idle();
}
