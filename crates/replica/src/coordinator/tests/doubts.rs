//! What the word of somebody who knows little is worth: slow replicas, stand-ins that keep nothing, keepers
//! that rest, tombstones that may just have been forgotten.

use anello_protocol::{
    causality::Context,
    cluster::KeyspaceConfig,
    consistency::Consistency,
    message::{
        client::RequestError,
        replica::{Refusal, Want},
    },
    version::{Content, Version, Versions},
};

use super::{
    bench::{Bench, EU, at, delete, get, options, replicated, version},
    stand_ins::{FIVE, issued, walk, walk_of},
};
use crate::coordinator::{CallFailure, Effect, Outgoing};

#[test]
fn a_replica_slower_than_usual_is_overtaken_but_rarely() {
    let mut bench = Bench::of(&EU);
    let quick = |bench: &mut Bench| {
        let token = bench.get(get(options()));
        let sent = [bench.sent(), bench.sent()];
        bench.now.moment.0 += 1_000;
        sent.iter().for_each(|sent| bench.holds(sent, &Versions::new()));
        assert!(bench.found(token).result.is_ok());
    };
    let mut overtaken = 0;
    for _ in 0..100 {
        (0..19).for_each(|_| quick(&mut bench));
        let token = bench.get(get(options()));
        let slow = [bench.sent(), bench.sent()];
        bench.wait(50);
        if let Some(Effect::Send { .. }) = bench.effects.front() {
            overtaken += 1;
            let third = bench.sent();
            bench.holds(&third, &Versions::new());
        }
        slow.iter().for_each(|sent| bench.holds(sent, &Versions::new()));
        assert!(bench.found(token).result.is_ok());
        bench.idle();
    }
    assert!((90..=200).contains(&overtaken), "{overtaken} of 4,000 reads of replicas");
}

#[test]
fn a_slow_replica_is_not_made_up_for_by_a_stand_in() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    // Leave for extra reads is saved up.
    for _ in 0..40 {
        let token = bench.get(get(options()));
        let sent = [bench.sent(), bench.sent()];
        bench.now.moment.0 += 1_000;
        sent.iter().for_each(|sent| bench.holds(sent, &Versions::new()));
        assert!(bench.found(token).result.is_ok());
    }
    bench.get(get(options()));
    let slow = [bench.sent(), bench.sent()];
    bench.wait(50);
    let third = bench.sent();
    assert!(matches!(third.message, Outgoing::Read(_)), "the third replica, and nobody else");
    bench.wait(40);
    bench.nothing();
    bench.wait(20);
    let stand_in = bench.sent();
    assert!(matches!(stand_in.message, Outgoing::ReadHints(_)), "once they are silent");
    let _ = slow;
}

#[test]
fn stand_ins_that_keep_nothing_say_nothing_by_themselves() {
    let walk = walk();
    let mut bench = Bench::at(&walk[3], &FIVE, KeyspaceConfig::default());
    for away in &walk[..3] {
        bench.reachable(away, false);
    }
    let token = bench.get(get(options()));
    let mut stand_ins = vec![bench.sent(), bench.sent()];
    assert!(stand_ins.iter().all(|sent| matches!(sent.message, Outgoing::ReadHints(_))));
    bench.holds(&stand_ins.remove(0), &Versions::new());
    bench.holds(&stand_ins.remove(0), &Versions::new());
    while bench.coordinator.in_flight() > 0 {
        bench.wait(1);
        while let Some(Effect::Send { call, to, message, .. }) =
            bench.effects.pop_front_if(|effect| matches!(effect, Effect::Send { .. }))
        {
            assert!(!matches!(message, Outgoing::ReadHints(_)), "who keeps nothing is asked once");
            let outcome = Err(CallFailure::Unreachable);
            bench.input(crate::coordinator::Input::Answered { call, from: to, outcome });
        }
    }
    assert!(matches!(bench.read_fails(token), RequestError::Timeout { received: 0, .. }));
}

#[test]
fn a_delete_of_what_only_stand_ins_were_asked_for_is_remembered() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    bench.reachable(&walk[1], false);
    bench.reachable(&walk[2], false);
    bench.write(delete(1, options()));
    let own = bench.sent_read(&walk[0], Want::Full);
    let stand_in = bench.sent();
    bench.holds(&own, &Versions::new());
    bench.holds(&stand_in, &Versions::new());
    let (_, mint) = bench.sent_mint();
    assert_eq!(mint.content, Content::Tombstone, "those who are away may hold something");
}

#[test]
fn stand_ins_are_left_to_those_for_whom_they_count() {
    let nodes = ["eu-a", "eu-b", "us-a", "us-b", "us-c"];
    let config = replicated(&[("eu", 2), ("us", 2)]);
    let walk = walk_of(&nodes, config.clone());
    let own = walk.iter().find(|id| id.starts_with("us")).expect("there are two").clone();
    let other = walk[..4].iter().rfind(|id| id.starts_with("us")).expect("the other").clone();
    let mut bench = Bench::at(&own, &nodes, config);
    for away in ["eu-a", "eu-b", &other] {
        bench.reachable(away, false);
    }
    let (token, _) = issued(&mut bench, at(Consistency::LocalQuorum));
    while let Some(effect) = bench.effects.pop_front() {
        if let Effect::Send { call, to, message: Outgoing::Hint(hint), .. } = effect {
            assert_eq!(to.as_str() == walk[4], hint.owner.as_str() == other, "{hint:?} at {to}");
            if hint.owner.as_str() == other {
                let sent =
                    super::bench::Sent { call, to: to.to_string(), message: Outgoing::Hint(hint) };
                bench.effects.clear();
                bench.stores(&sent);
                assert!(bench.written(token).result.is_ok());
                return;
            }
        }
    }
    panic!("nobody stands in for {other}");
}

#[test]
fn a_keeper_that_waits_for_a_vote_is_asked_again() {
    let walk = walk();
    let mut bench = Bench::at(&walk[0], &FIVE, KeyspaceConfig::default());
    let (token, stores) = issued(&mut bench, at(Consistency::All));
    bench.stores(&stores[0]);
    bench.fails(&stores[1], CallFailure::Unreachable);
    let hint = bench.sent_hint(&walk[2], &walk[3]);
    bench.refuses(&hint, Refusal::Frozen);
    bench.nothing();
    while bench.effects.is_empty() {
        bench.wait(1);
    }
    // The replica itself is tried again as well.
    bench
        .effects
        .retain(|effect| matches!(effect, Effect::Send { message: Outgoing::Hint(_), .. }));
    if bench.effects.is_empty() {
        bench.wait(250);
        bench
            .effects
            .retain(|effect| matches!(effect, Effect::Send { message: Outgoing::Hint(_), .. }));
    }
    let again = bench.sent_hint(&walk[2], &walk[3]);
    bench.stores(&again);
    assert!(bench.written(token).result.is_ok());
}

/// T10, riak_kv#311: reads while a tombstone is being forgotten, one replica after the other.
#[test]
fn t10_an_old_tombstone_is_not_brought_back_by_a_read() {
    let mut bench = Bench::of(&EU);
    let grace_ms = KeyspaceConfig::default().tombstone_grace_s * 1000;
    let tombstone = || Version { content: Content::Tombstone, ..version(1, 1, 1, Context::new()) };
    for (age_ms, repairs) in [(grace_ms - 1_000, true), (grace_ms + 1_000, false)] {
        // The tombstone was issued in the first millisecond of all.
        bench.now.wall_ms = 1 + age_ms;
        let token = bench.get(get(options()));
        let (full, digest) = (bench.sent(), bench.sent());
        bench.holds(&full, &tombstone().into());
        bench.holds(&digest, &Versions::new());
        assert!(bench.found(token).result.is_ok());
        if repairs {
            let (repair, _) = bench.sent_store("eu-b");
            bench.stores(&repair);
        }
        bench.idle();
    }
}
