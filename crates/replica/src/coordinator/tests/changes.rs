//! Requests while the ring changes: who is asked, who counts, and what becomes of a write under the next
//! phase.

use anello_protocol::{
    causality::Context,
    cluster::{ClusterState, KeyspaceConfig, Phase},
    consistency::{Consistency, QuorumKind},
    id::{Epoch, KeyspaceName, NodeId},
    key::{Key, KeyHash},
    message::{
        client::{RequestError, RequestOptions, Write},
        replica::{ForwardWrite, Refusal, Stored},
    },
    version::{Versions, WriteId},
};

use super::bench::{
    BOTH, Bench, EU, Sent, at, cluster, delete, get, lww, minted, moving, options, put, version,
    view,
};
use crate::coordinator::{Effect, Incoming, Input, Outgoing, Reply, Token};

/// The old owners, and the new ones of whom one was there before.
const NEW: [&str; 3] = ["eu-a", "eu-d", "eu-e"];

fn half_way(epoch: u64, phase: Phase) -> ClusterState {
    moving(epoch, &EU, &NEW, phase, KeyspaceConfig::default())
}

fn strict(level: Consistency) -> RequestOptions {
    RequestOptions { quorum: QuorumKind::Strict, ..at(level) }
}

/// All messages that are to be sent, to whom.
fn all_sent(bench: &mut Bench) -> Vec<(String, Sent)> {
    let mut sent = Vec::new();
    while let Some(Effect::Send { .. }) = bench.effects.front() {
        let one = bench.sent();
        sent.push((one.to.clone(), one));
    }
    sent.sort_by(|one, other| one.0.cmp(&other.0));
    sent
}

fn names(sent: &[(String, Sent)]) -> Vec<&str> {
    sent.iter().map(|(to, _)| to.as_str()).collect()
}

fn to<'a>(sent: &'a [(String, Sent)], id: &str) -> &'a Sent {
    let found = sent.iter().find(|(to, _)| to == id);
    &found.unwrap_or_else(|| panic!("nothing was sent to {id}")).1
}

/// A write whose dot was issued by the own vnode; what was then sent.
fn issued(bench: &mut Bench, write: Write) -> (Token, Vec<(String, Sent)>) {
    let token = bench.write(write);
    let (mint, _) = bench.sent_mint();
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    (token, all_sent(bench))
}

#[test]
fn a_write_is_acknowledged_once_both_sides_have_enough() {
    for (phase, first) in [
        (Phase::Filling, ["eu-b", "eu-c"]),
        (Phase::Filling, ["eu-d", "eu-e"]),
        (Phase::Serving, ["eu-b", "eu-c"]),
        (Phase::Serving, ["eu-d", "eu-e"]),
    ] {
        let mut bench = Bench::under("eu-a", half_way(1, phase));
        let (token, sent) = issued(&mut bench, put(1, strict(Consistency::Quorum)));
        assert_eq!(names(&sent), ["eu-b", "eu-c", "eu-d", "eu-e"], "to all of them");
        for id in first {
            bench.stores(to(&sent, id));
            bench.nothing();
        }
        let other = if first[0] == "eu-b" { "eu-d" } else { "eu-b" };
        bench.stores(to(&sent, other));
        assert!(bench.written(token).result.is_ok(), "one more of the other side is enough");
    }
}

#[test]
fn a_replica_on_both_sides_counts_on_both() {
    let state = moving(1, &EU, &["eu-a", "eu-b", "eu-d"], Phase::Filling, lww());
    let mut bench = Bench::under("eu-a", state);
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::Quorum)));
    bench.stores(to(&sent, "eu-b"));
    assert!(bench.written(token).result.is_ok());
}

#[test]
fn levels_count_on_both_sides() {
    let all = ["eu-b", "eu-c", "eu-d", "eu-e"];
    for (level, needed) in [
        (Consistency::One, &all[..0]),
        (Consistency::Two, &all[1..3]),
        (Consistency::LocalQuorum, &all[1..3]),
        (Consistency::EachQuorum, &all[1..3]),
        (Consistency::All, &all[..]),
    ] {
        let mut bench = Bench::under("eu-a", half_way(1, Phase::Serving));
        let (token, sent) = issued(&mut bench, put(1, strict(level)));
        for id in needed {
            bench.nothing();
            bench.stores(to(&sent, id));
        }
        assert!(bench.written(token).result.is_ok(), "{level}");
    }
    // Where there were fewer before, all of them are enough.
    let state = moving(1, &EU[..2], &EU, Phase::Serving, KeyspaceConfig::default());
    let mut bench = Bench::under("eu-a", state);
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::Three)));
    bench.stores(to(&sent, "eu-b"));
    bench.nothing();
    bench.stores(to(&sent, "eu-c"));
    assert!(bench.written(token).result.is_ok());
}

#[test]
fn too_few_of_either_side_is_said_before_anything_is_sent() {
    for (phase, away, required, alive) in [
        (Phase::Filling, ["eu-b", "eu-c"], 2, 1),
        (Phase::Filling, ["eu-d", "eu-e"], 2, 1),
        (Phase::Serving, ["eu-b", "eu-c"], 2, 1),
        (Phase::Serving, ["eu-d", "eu-e"], 2, 1),
    ] {
        let mut bench = Bench::under("eu-a", half_way(1, phase));
        away.iter().for_each(|id| bench.reachable(id, false));
        let token = bench.write(put(1, strict(Consistency::Quorum)));
        let error = RequestError::Unavailable { required, alive };
        assert_eq!(bench.write_fails(token), error, "{phase:?} without {away:?}");
        bench.idle();
    }
}

#[test]
fn what_people_are_told_is_of_those_who_are_read_unless_only_the_others_fall_short() {
    for (stored, received) in [(&["eu-b", "eu-c"][..], 1), (&["eu-d", "eu-e"][..], 1), (&[], 1)] {
        let mut bench = Bench::under("eu-a", half_way(1, Phase::Filling));
        let (token, sent) = issued(&mut bench, put(1, strict(Consistency::Quorum)));
        stored.iter().for_each(|id| bench.stores(to(&sent, id)));
        bench.wait(60_000);
        all_sent(&mut bench);
        let error = bench.write_fails(token);
        assert_eq!(error, RequestError::Timeout { required: 2, received }, "{stored:?}");
    }
    // At `all`, the sides are three each.
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Filling));
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::All)));
    for id in ["eu-b", "eu-c", "eu-d"] {
        bench.stores(to(&sent, id));
    }
    bench.wait(60_000);
    all_sent(&mut bench);
    assert_eq!(bench.write_fails(token), RequestError::Timeout { required: 3, received: 2 });
}

#[test]
fn a_read_goes_to_one_side_and_repairs_only_that() {
    for (phase, readers) in [(Phase::Filling, EU), (Phase::Serving, NEW)] {
        let mut bench = Bench::under("eu-a", half_way(1, phase));
        let token = bench.get(get(strict(Consistency::All)));
        let sent = all_sent(&mut bench);
        assert_eq!(names(&sent), readers);
        let there = Versions::from(version(1, 1, 1, Context::new()));
        bench.holds(to(&sent, readers[0]), &there);
        bench.holds(to(&sent, readers[1]), &there);
        bench.holds(to(&sent, readers[2]), &Versions::new());
        let full = all_sent(&mut bench);
        full.iter().for_each(|(_, sent)| bench.holds(sent, &Versions::new()));
        assert!(bench.found(token).result.is_ok());
        let repairs = all_sent(&mut bench);
        assert_eq!(names(&repairs), [readers[2]]);
    }
}

#[test]
fn a_delete_covers_what_those_show_who_are_read_and_goes_to_all() {
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Filling));
    bench.write(delete(1, strict(Consistency::All)));
    let reads = all_sent(&mut bench);
    assert_eq!(names(&reads), EU);
    let there = Versions::from(version(2, 1, 7, Context::new()));
    reads.iter().for_each(|(_, sent)| bench.holds(sent, &there));
    let (mint, message) = bench.sent_mint();
    assert_eq!(message.context, there.context());
    bench.mints(&mint, &minted(version(1, 1, 1, there.context())));
    assert_eq!(names(&all_sent(&mut bench)), ["eu-b", "eu-c", "eu-d", "eu-e"]);
}

/// T29, while the datacenter is on its way to have some.
#[test]
fn a_datacenter_that_is_being_filled_has_no_quorum_of_its_own_yet() {
    let state = |phase| moving(1, &EU, &BOTH, phase, KeyspaceConfig::default());
    for level in [Consistency::LocalOne, Consistency::LocalQuorum] {
        let mut bench = Bench::under("us-a", state(Phase::Filling));
        let token = bench.get(get(strict(level)));
        assert!(matches!(bench.read_fails(token), RequestError::BadConsistency(_)));
        let token = bench.write(put(1, strict(level)));
        assert!(matches!(bench.write_fails(token), RequestError::BadConsistency(_)));
        bench.idle();
    }
    let mut bench = Bench::under("us-a", state(Phase::Serving));
    let token = bench.get(get(strict(Consistency::LocalQuorum)));
    let reads = all_sent(&mut bench);
    assert_eq!(names(&reads)[0], "us-a");
    reads.iter().for_each(|(_, sent)| bench.holds(sent, &Versions::new()));
    assert!(bench.found(token).result.is_ok());
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::LocalQuorum)));
    let near = sent.iter().find(|(to, _)| to.starts_with("us"));
    bench.stores(&near.expect("a neighbour").1);
    assert!(bench.written(token).result.is_ok(), "the others have none there");

    // Those who are here all along go on, and nothing of the new datacenter counts for them.
    let mut bench = Bench::under("eu-a", state(Phase::Filling));
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::LocalQuorum)));
    let near = sent.iter().find(|(to, _)| to.starts_with("eu"));
    bench.stores(&near.expect("a neighbour").1);
    assert!(bench.written(token).result.is_ok());
    // A quorum of all is one of both layouts.
    let (token, sent) = issued(&mut bench, put(2, strict(Consistency::EachQuorum)));
    for (id, one) in &sent {
        if id.starts_with("eu") {
            bench.stores(one);
        }
    }
    bench.nothing();
    assert_eq!(bench.coordinator.in_flight(), 2, "{token:?} waits for those who are filled");
}

#[test]
fn who_is_not_read_leaves_a_write_to_those_who_are() {
    for (own, phase, readers) in [("eu-d", Phase::Filling, EU), ("eu-b", Phase::Serving, NEW)] {
        let mut bench = Bench::under(own, half_way(1, phase));
        bench.write(put(1, options()));
        let sent = bench.sent();
        assert!(matches!(sent.message, Outgoing::Forward(_)));
        assert!(readers.contains(&sent.to.as_str()), "{}", sent.to);
        bench.nothing();

        let token = bench.token();
        let forward = ForwardWrite { epoch: Epoch(1), write: put(2, options()) };
        bench.input(Input::Forward { token, forward });
        assert_eq!(bench.next(), Effect::Reply(token, Reply::Forward(Err(Refusal::NotOwner))));
    }
}

/// Keys whose partition goes from the first ones to the second ones.
fn key_between(state: &ClusterState, old: &[&str], new: &[&str]) -> Key {
    let view = view(state.clone());
    let name = KeyspaceName::default_keyspace();
    let keyspace = view.keyspace(&name).expect("it always exists");
    let sorted = |ids: Vec<&NodeId>| {
        let mut ids: Vec<_> = ids.into_iter().map(|id| id.as_str().to_string()).collect();
        ids.sort_unstable();
        ids
    };
    let mut keys = (0..100_000).map(|n| Key::new(format!("k{n}")).expect("a short key"));
    let key = keys.find(|key| {
        let placement = view.placement(keyspace, KeyHash::of(&name, key));
        let side = |is_in: &dyn Fn(usize) -> bool| {
            let places = placement.replicas.iter().enumerate();
            sorted(places.filter(|(at, _)| is_in(*at)).map(|(_, place)| &place.id).collect())
        };
        let others = placement.others.as_ref();
        side(&|at| placement.readers.contains(at)) == old
            && others.is_some_and(|others| side(&|at| others.contains(at)) == new)
    });
    key.expect("some key goes this way")
}

#[test]
fn a_stand_in_counts_where_its_replica_does() {
    let old = ["eu-a", "eu-b", "eu-c"];
    for (new, away, also) in [
        // `eu-b` is on both sides.
        (["eu-a", "eu-b", "eu-d"], "eu-b", None),
        // `eu-c` is on one only, which leaves the other one short.
        (["eu-a", "eu-d", "eu-e"], "eu-c", Some("eu-d")),
    ] {
        let all = ["eu-a", "eu-b", "eu-d", "eu-e", "eu-f"];
        let state = moving(1, &EU, &all, Phase::Filling, KeyspaceConfig::default());
        let key = key_between(&state, &old, &new);
        let mut bench = Bench::under("eu-a", state);
        bench.reachable(away, false);
        let (token, sent) = issued(&mut bench, Write { key, ..put(1, options()) });
        let is_hint = |(_, sent): &&(String, Sent)| matches!(sent.message, Outgoing::Hint(_));
        let hints: Vec<_> = sent.iter().filter(is_hint).collect();
        assert_eq!(hints.len(), 1);
        assert!(!old.contains(&hints[0].0.as_str()) && !new.contains(&hints[0].0.as_str()));
        bench.stores(&hints[0].1);
        if let Some(also) = also {
            bench.nothing();
            let stores = sent.iter().filter(|it| !is_hint(it)).cloned().collect::<Vec<_>>();
            bench.stores(to(&stores, also));
        }
        assert!(bench.written(token).result.is_ok(), "{away}");
    }
}

/// A stand-in that coordinates has the dot issued in the place of one who is read.
#[test]
fn a_last_resort_stands_in_for_one_who_is_read() {
    let all = ["eu-a", "eu-b", "eu-d", "eu-e", "eu-f"];
    let new = ["eu-a", "eu-d", "eu-e"];
    let state = moving(1, &EU, &all, Phase::Serving, KeyspaceConfig::default());
    // Those who are read are the new ones now.
    let key = key_between(&state, &new, &EU);
    let mut bench = Bench::under("eu-f", state);
    new.iter().for_each(|id| bench.reachable(id, false));
    bench.write(Write { key, ..put(1, at(Consistency::One)) });
    let sent = bench.sent();
    match sent.message {
        Outgoing::MintHint(hint) => assert!(new.contains(&hint.owner.as_str()), "{}", hint.owner),
        other => panic!("expected minting in the place of another, not {other:?}"),
    }
}

/// E: the vnode says so too of what it has kept.
#[test]
fn a_dot_that_was_overtaken_may_have_been_kept() {
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Filling));
    let token = bench.write(put(1, strict(Consistency::Quorum)));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::StaleEpoch(Epoch(2)));
    bench.nothing();
    bench.reachable("eu-d", false);
    bench.reachable("eu-e", false);
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Serving))));
    let error = bench.write_fails(token);
    assert!(matches!(error, RequestError::Timeout { .. }), "`unavailable` would be a lie: {error}");
    bench.idle();
}

/// F: whoever coordinates it next knows it by its write id.
#[test]
fn a_write_that_was_overtaken_goes_on_as_the_same() {
    // Here, where it is known.
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Filling));
    let token = bench.write(put(1, strict(Consistency::Quorum)));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::StaleEpoch(Epoch(2)));
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Serving))));
    let (mint, message) = bench.sent_mint();
    assert_eq!((message.write_id, message.epoch), (WriteId(1), Epoch(2)));
    bench.mints(&mint, &minted(version(1, 1, 1, Context::new())));
    let sent = all_sent(&mut bench);
    ["eu-b", "eu-d"].iter().for_each(|id| bench.stores(to(&sent, id)));
    assert!(bench.written(token).result.is_ok());

    // Or elsewhere, once this node isn't read any more.
    let mut bench = Bench::under("eu-b", half_way(1, Phase::Filling));
    bench.write(put(1, strict(Consistency::Quorum)));
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::StaleEpoch(Epoch(2)));
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Serving))));
    let sent = bench.sent();
    assert!(NEW.contains(&sent.to.as_str()), "{}", sent.to);
    match sent.message {
        Outgoing::Forward(forward) => assert_eq!(forward.write.write_id, WriteId(1)),
        other => panic!("expected forwarding, not {other:?}"),
    }

    // Whoever handed it over is told that it may have been kept.
    let mut bench = Bench::under("eu-b", half_way(1, Phase::Filling));
    let token = bench.token();
    let forward = ForwardWrite { epoch: Epoch(1), write: put(2, options()) };
    bench.input(Input::Forward { token, forward });
    let (mint, _) = bench.sent_mint();
    bench.refuses(&mint, Refusal::StaleEpoch(Epoch(2)));
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Serving))));
    match bench.next() {
        Effect::Reply(to, Reply::Forward(Err(Refusal::Storage(_)))) => assert_eq!(to, token),
        other => panic!("{other:?}"),
    }
}

/// A delete that was read under one phase, and whose dot has to be issued under another.
#[test]
fn a_delete_leaves_its_dot_to_who_is_read_by_then() {
    let mut bench = Bench::under("eu-b", half_way(1, Phase::Filling));
    bench.write(delete(1, strict(Consistency::Quorum)));
    let reads = all_sent(&mut bench);
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Serving))));
    let there = Versions::from(version(2, 1, 7, Context::new()));
    for (_, sent) in &reads {
        bench.holds(sent, &there);
    }
    let sent = bench.sent();
    assert!(matches!(sent.message, Outgoing::Forward(_)), "{:?}", sent.message);
    assert!(NEW.contains(&sent.to.as_str()), "{}", sent.to);
}

#[test]
fn who_holds_it_counts_under_the_next_phase_where_it_still_belongs() {
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Serving));
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::All)));
    bench.stores(to(&sent, "eu-b"));
    bench.stores(to(&sent, "eu-d"));
    bench.refuses(to(&sent, "eu-c"), Refusal::StaleEpoch(Epoch(2)));
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Done))));
    let sent = all_sent(&mut bench);
    assert_eq!(names(&sent), ["eu-e"], "the old ones are left alone, the others hold it");
    bench.nothing();
    bench.stores(to(&sent, "eu-e"));
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

/// They may have handed over what they held, dropped it, and be about to get it back.
#[test]
fn who_held_it_several_states_ago_is_asked_again() {
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Serving));
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::All)));
    bench.stores(to(&sent, "eu-b"));
    bench.stores(to(&sent, "eu-d"));
    bench.refuses(to(&sent, "eu-c"), Refusal::StaleEpoch(Epoch(3)));
    let config = KeyspaceConfig::default();
    bench.input(Input::ClusterChanged(view(moving(3, &NEW, &EU, Phase::Filling, config))));
    let sent = all_sent(&mut bench);
    assert_eq!(names(&sent), ["eu-a", "eu-b", "eu-c", "eu-d", "eu-e"]);
    sent.iter().for_each(|(_, sent)| bench.stores(sent));
    assert!(bench.written(token).result.is_ok());
    bench.idle();
}

/// T14: who was being filled had not heard of the time that the write must win over.
#[test]
fn under_lww_who_was_filled_is_asked_again_once_it_is_read() {
    let state = |epoch, phase| moving(epoch, &EU, &NEW, phase, lww());
    let mut bench = Bench::under("eu-a", state(1, Phase::Filling));
    let (token, sent) = issued(&mut bench, put(1, strict(Consistency::Quorum)));
    bench.stores(to(&sent, "eu-d"));
    bench.stores(to(&sent, "eu-e"));
    bench.refuses(to(&sent, "eu-b"), Refusal::StaleEpoch(Epoch(2)));
    bench.input(Input::ClusterChanged(view(state(2, Phase::Serving))));
    let sent = all_sent(&mut bench);
    assert_eq!(names(&sent), ["eu-b", "eu-c", "eu-d", "eu-e"]);
    bench.stores(to(&sent, "eu-b"));
    bench.nothing();
    bench.stores(to(&sent, "eu-d"));
    assert!(bench.written(token).result.is_ok());
}

/// Those who are being filled may be in quarantine for as long as that takes.
#[test]
fn under_lww_quarantine_matters_among_those_who_are_read() {
    for (phase, counts) in [(Phase::Filling, true), (Phase::Serving, false)] {
        let mut bench = Bench::under("eu-a", moving(1, &EU, &NEW, phase, lww()));
        let (token, sent) = issued(&mut bench, put(1, strict(Consistency::Quorum)));
        bench.stores(to(&sent, "eu-b"));
        let stored = Stored { lost_to: None, is_quarantined: true };
        bench.answer(to(&sent, "eu-d"), Ok(Incoming::Stored(Ok(stored))));
        if !counts {
            bench.nothing();
            bench.stores(to(&sent, "eu-e"));
        }
        assert!(bench.written(token).result.is_ok(), "{phase:?}");
    }
}

/// Requests that began under a phase that is over are refused by those who are two further on, and begin
/// again.
#[test]
fn a_read_that_is_phases_behind_begins_again() {
    let mut bench = Bench::under("eu-a", half_way(1, Phase::Filling));
    let token = bench.get(get(strict(Consistency::Quorum)));
    let sent = all_sent(&mut bench);
    bench.refuses(&sent[1].1, Refusal::StaleEpoch(Epoch(3)));
    bench.input(Input::ClusterChanged(view(half_way(2, Phase::Serving))));
    bench.nothing();
    bench.input(Input::ClusterChanged(view(cluster(3, &NEW, KeyspaceConfig::default()))));
    let sent = all_sent(&mut bench);
    assert!(sent.iter().all(|(id, _)| NEW.contains(&id.as_str())));
    for (_, one) in &sent {
        assert!(matches!(&one.message, Outgoing::Read(read) if read.epoch == Epoch(3)));
        bench.holds(one, &Versions::new());
    }
    assert!(bench.found(token).result.is_ok());
}
