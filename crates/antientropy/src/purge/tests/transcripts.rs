//! Inputs in, effects compared.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    cluster::{MemberState, Phase, Purpose, RingChange},
    id::Epoch,
    message::{
        repair::{PurgeVersions, Purged},
        replica::{ReadVersions, Refusal, Want},
    },
    time::HybridTime,
    version::{ConflictRule, VersionsDigest},
};

use super::{
    bench::{GRACE, NODES, cluster, config, data_key, replicas, stand_in, view},
    desk::{Desk, NOTHING, OLD, Sent, TOMBSTONES, as_sent, is_send},
};
use crate::purge::{
    CallFailure, Effect, Incoming, Input, ListNumber, Outgoing, PurgeConfig, WaitReason,
};

#[test]
fn a_tombstone_goes_the_whole_way() {
    let mut desk = Desk::new(0, config());
    let key = data_key(&desk.view, "k");
    let all = replicas(&desk.view);
    desk.list(vec![desk.tombstone("k", OLD)]);
    let reads = desk.sent();
    let read = ReadVersions { epoch: Epoch(1), key: key.clone(), want: Want::Digest };
    let asked: Vec<_> =
        reads.iter().map(|(_, to, message)| (to.clone(), message.clone())).collect();
    let expected: Vec<_> =
        all.iter().map(|node| (node.clone(), Outgoing::Read(read.clone()))).collect();
    assert_eq!(asked, expected, "every replica in every datacenter");
    assert_eq!(desk.purger.figures().reasons(), BTreeMap::from([("settling".into(), 1)]));
    desk.answer_reads(reads, &[]);
    assert_eq!(desk.effects(), [], "it settles");

    desk.pass(config().settle - Duration::from_millis(1));
    assert!(desk.effects().into_iter().all(|effect| !is_send(&effect)));
    desk.pass(Duration::from_millis(1));
    let checks = desk.sent();
    assert_eq!(checks.len(), NODES.len(), "every member");
    desk.answer_checks(checks, None);

    desk.pass(config().settle);
    let reads: Vec<_> = desk.effects().into_iter().filter(is_send).map(as_sent).collect();
    assert_eq!(reads.len(), all.len());
    desk.answer_reads(reads, &[]);

    let purges = desk.sent();
    let purge = PurgeVersions { epoch: Epoch(1), key, digest: TOMBSTONES };
    let to: Vec<_> = purges.iter().map(|(_, to, _)| to.clone()).collect();
    assert_eq!(to, all[1..], "the others first");
    for (call, _, message) in purges {
        assert_eq!(message, Outgoing::Purge(purge.clone()));
        desk.answer(call, Ok(Incoming::Purged(Ok(Purged::Gone))));
    }
    let own = desk.sent();
    assert_eq!(own.len(), 1);
    assert_eq!((&own[0].1, &own[0].2), (&desk.node, &Outgoing::Purge(purge)), "then this one");
    assert_eq!(desk.purger.figures().purged, 0);
    desk.answer(own[0].0, Ok(Incoming::Purged(Ok(Purged::Gone))));
    let figures = desk.purger.figures();
    assert_eq!((figures.purged, figures.settling), (1, 0));
    assert_eq!(figures.waiting, BTreeMap::new());
}

#[test]
fn what_a_replica_holds_else_is_waited_for() {
    let other = VersionsDigest(8);
    for (first, second, goes) in [
        (TOMBSTONES, TOMBSTONES, true),
        (NOTHING, NOTHING, true),
        (TOMBSTONES, NOTHING, true),
        (NOTHING, TOMBSTONES, false),
        (TOMBSTONES, other, false),
        (other, TOMBSTONES, false),
    ] {
        let mut desk = Desk::new(0, config());
        let far = replicas(&desk.view)[4].clone();
        desk.list(vec![desk.tombstone("k", OLD), desk.tombstone("l", OLD)]);
        let (key, reads) = (data_key(&desk.view, "k"), desk.sent());
        let about = |(_, _, message): &Sent| match message {
            Outgoing::Read(read) => read.key == key,
            _ => false,
        };
        let (of_k, of_l): (Vec<_>, Vec<_>) = reads.into_iter().partition(about);
        desk.answer_reads(of_k, &[(&far, first)]);
        desk.answer_reads(of_l, &[]);
        desk.pass(config().settle);
        let checks = desk.sent();
        desk.answer_checks(checks, None);
        desk.pass(config().settle);
        let reads = desk.effects().into_iter().filter(is_send).map(as_sent);
        let (of_k, of_l): (Vec<_>, Vec<_>) = reads.partition(about);
        desk.answer_reads(of_k, &[(&far, second)]);
        desk.answer_reads(of_l, &[]);
        let purged = desk.sent();
        let is_purged = |purged: &Sent| match &purged.2 {
            Outgoing::Purge(purge) => purge.key == key,
            other => panic!("{other:?}"),
        };
        assert_eq!(purged.iter().any(is_purged), goes, "{first:?}, then {second:?}");
        assert!(purged.iter().any(|sent| !is_purged(sent)), "the other key goes in any case");
        let waiting = match goes {
            true => BTreeMap::new(),
            false => BTreeMap::from([(WaitReason::HoldsElse(far), 1)]),
        };
        assert_eq!(desk.waiting(), waiting);
    }
}

#[test]
fn a_hint_anywhere_is_waited_for() {
    let mut desk = Desk::new(0, config());
    desk.list(vec![desk.tombstone("k", OLD)]);
    let reads = desk.sent();
    desk.answer_reads(reads, &[]);
    desk.pass(config().settle);
    let (checks, stand_in) = (desk.sent(), stand_in(&desk.view));
    desk.answer_checks(checks, Some(&stand_in));
    let said = format!("hint kept at {stand_in}");
    assert_eq!(desk.waiting(), BTreeMap::from([(WaitReason::HintKept(stand_in), 1)]));
    assert_eq!(desk.purger.figures().reasons(), BTreeMap::from([(said, 1)]));
    desk.pass(config().settle);
    assert!(desk.effects().iter().all(|effect| !is_send(effect)), "it is over");
}

#[test]
fn who_does_not_answer_is_asked_again_and_then_waited_for() {
    let away: [fn(Purged) -> Result<Incoming, CallFailure>; 3] = [
        |_| Err(CallFailure::Silent),
        |_| Err(CallFailure::Unreachable),
        |_| Ok(Incoming::Read(Err(Refusal::Quarantined))),
    ];
    for outcome in away {
        let mut desk = Desk::new(0, config());
        let far = replicas(&desk.view)[5].clone();
        desk.list(vec![desk.tombstone("k", OLD)]);
        let reads = desk.sent();
        let (silent, rest): (Vec<_>, Vec<_>) = reads.into_iter().partition(|sent| sent.1 == far);
        desk.answer_reads(rest, &[]);
        let (mut call, mut asked) = (silent[0].0, 1);
        while desk.purger.figures().settling > 0 {
            desk.answer(call, outcome(Purged::Gone));
            desk.pass(Duration::from_millis(640));
            if let Some((again, to, _)) =
                desk.effects().into_iter().filter(is_send).map(as_sent).next()
            {
                assert_eq!(to, far, "nobody else");
                (call, asked) = (again, asked + 1);
            }
        }
        assert!((2..10).contains(&asked), "{asked}");
        let reason = match outcome(Purged::Gone) {
            Err(_) => WaitReason::ReplicaUnreachable(far),
            Ok(_) => WaitReason::ReplicaRefuses(far),
        };
        assert_eq!(desk.waiting(), BTreeMap::from([(reason, 1)]));
    }
}

#[test]
fn nothing_is_asked_while_somebody_is_known_to_be_away() {
    let mut desk = Desk::new(0, config());
    let (replica, stand_in) = (replicas(&desk.view)[3].clone(), stand_in(&desk.view));
    for (away, reason) in [
        (replica.clone(), format!("replica {replica} unreachable")),
        (stand_in.clone(), format!("hints of {stand_in} unknown")),
    ] {
        desk.handle(Input::ReachabilityChanged { node: away.clone(), reachable: false });
        desk.list(vec![desk.tombstone("k", OLD), desk.tombstone("l", OLD)]);
        assert_eq!(desk.effects(), []);
        assert_eq!(desk.purger.figures().reasons(), BTreeMap::from([(reason, 2)]));
        desk.handle(Input::ReachabilityChanged { node: away, reachable: true });
        desk.pass(Duration::from_secs(1));
    }
    desk.list(vec![desk.tombstone("k", OLD)]);
    assert_eq!(desk.waiting(), BTreeMap::new(), "the account is drawn up anew");
    assert_eq!(desk.sent().len(), 6);
}

/// Its word is wanted as long as it has a part in the partition: what it holds could come back from it.
#[test]
fn one_that_is_written_off_is_waited_for_until_the_change_ends() {
    let mut desk = Desk::new(0, config());
    let gone = replicas(&desk.view)[3].clone();
    desk.handle(Input::ReachabilityChanged { node: gone.clone(), reachable: false });
    desk.list(vec![desk.tombstone("k", OLD)]);
    let mut next = cluster(2, &NODES, ConflictRule::Siblings);
    let (old, purpose) =
        (next.layout(), Purpose::Remove(std::collections::BTreeSet::from([gone.clone()])));
    let phases = vec![Phase::Filling; 1];
    next.change =
        Some(Box::new(RingChange { began: Epoch(2), asked: Epoch(2), purpose, old, phases }));
    next.members.get_mut(&gone).expect("a member").state = MemberState::Removed;
    desk.handle(Input::ClusterChanged(view(next.clone())));
    desk.pass(Duration::from_secs(1));
    desk.list(vec![desk.tombstone("k", OLD)]);
    assert_eq!(desk.effects(), []);
    let reason = WaitReason::ReplicaUnreachable(gone.clone());
    assert_eq!(desk.waiting(), BTreeMap::from([(reason, 1)]));
    let wake = desk.purger.next_wake().expect("there is another pass");
    assert!(wake >= desk.now.moment + Duration::from_millis(500), "it does not spin");
    (next.epoch, next.change) = (Epoch(3), None);
    next.members.remove(&gone);
    desk.handle(Input::ClusterChanged(view(next)));
    desk.pass(Duration::from_secs(1));
    desk.list(vec![desk.tombstone("k", OLD)]);
    assert_eq!(desk.waiting(), BTreeMap::new());
    assert!(!desk.sent().is_empty(), "its proof is under way");
}

#[test]
fn a_purge_goes_on_until_each_has_answered() {
    let mut desk = Desk::new(0, config());
    let purges = desk.prove();
    assert_eq!(purges.len(), 5);
    let (stubborn, rest) = purges.split_first().expect("five");
    for (call, ..) in rest {
        desk.answer(*call, Ok(Incoming::Purged(Ok(Purged::Gone))));
    }
    let mut call = stubborn.0;
    for outcome in [
        Ok(Incoming::Purged(Err(Refusal::Frozen))),
        Ok(Incoming::Purged(Err(Refusal::Busy))),
        Err(CallFailure::Silent),
    ] {
        desk.answer(call, outcome);
        desk.pass(Duration::from_millis(100));
        let again: Vec<_> = desk.effects().into_iter().filter(is_send).map(as_sent).collect();
        assert_eq!(again.len(), 1, "{again:?}");
        assert_eq!((&again[0].1, &again[0].2), (&stubborn.1, &stubborn.2));
        call = again[0].0;
    }
    desk.answer(call, Ok(Incoming::Purged(Ok(Purged::Gone))));
    let own = desk.sent();
    assert_eq!(own[0].1, desk.node);
}

#[test]
fn something_newer_stops_the_purge() {
    let mut desk = Desk::new(0, config());
    let purges = desk.prove();
    let far = purges[2].1.clone();
    for (call, to, _) in purges {
        let purged = if to == far { Purged::Kept } else { Purged::Gone };
        desk.answer(call, Ok(Incoming::Purged(Ok(purged))));
    }
    assert_eq!(desk.effects(), [], "this one's own tombstone stays");
    assert_eq!(desk.waiting(), BTreeMap::from([(WaitReason::HoldsElse(far), 1)]));
}

#[test]
fn another_epoch_or_quarantine_is_another_beginning() {
    for quarantine in [false, true] {
        let mut desk = Desk::new(0, config());
        let purges = desk.prove();
        if quarantine {
            desk.handle(Input::Quarantined(true));
            desk.pass(Duration::from_secs(60));
            assert_eq!(desk.effects(), [], "nothing at all");
            desk.handle(Input::Quarantined(false));
        } else {
            let next = view(cluster(2, &NODES, ConflictRule::Siblings));
            desk.handle(Input::ClusterChanged(next));
        }
        assert_eq!(desk.purger.figures().settling, 0);
        for (call, ..) in purges {
            desk.answer(call, Ok(Incoming::Purged(Ok(Purged::Gone))));
        }
        desk.pass(Duration::from_secs(2));
        desk.list(vec![desk.tombstone("k", OLD)]);
        let reads = desk.sent();
        assert_eq!(reads.len(), 6, "the proof begins again");
        let epoch = Epoch(if quarantine { 1 } else { 2 });
        for (_, _, message) in reads {
            assert!(matches!(message, Outgoing::Read(read) if read.epoch == epoch));
        }
    }
}

#[test]
fn the_young_stay_and_other_replicas_are_patient() {
    let patience = config().patience(GRACE);
    let wall = |age: Duration| {
        let now = 1_000 + u64::try_from(GRACE.as_millis()).expect("it is short");
        let born =
            (Duration::from_secs(1_000_000) + Duration::from_millis(now)).saturating_sub(age);
        HybridTime::from_wall_ms(u64::try_from(born.as_millis()).expect("it is short"))
    };
    for (at, age, goes) in [
        (0, GRACE, false),
        (0, GRACE + Duration::from_millis(1), true),
        (1, GRACE + Duration::from_millis(1), false),
        (1, GRACE + patience, false),
        (1, GRACE + patience + Duration::from_millis(1), true),
        (5, GRACE + patience + Duration::from_millis(1), true),
    ] {
        let mut desk = Desk::new(at, config());
        desk.now.wall_ms += 1_000_000_000;
        desk.list(vec![desk.tombstone("k", wall(age))]);
        assert_eq!(!desk.sent().is_empty(), goes, "{at} {age:?}");
    }
    let mut desk = Desk::new(0, config());
    desk.list(vec![desk.tombstone("k", HybridTime::from_wall_ms(u64::MAX >> 16))]);
    assert_eq!(desk.effects(), [], "a clock that was ahead");
}

#[test]
fn a_store_that_fails_is_asked_again_with_the_next_pass() {
    let mut desk = Desk::new(0, config());
    let listed = desk.effects();
    let [Effect::List { number: ListNumber(0), .. }] = listed[..] else { panic!("{listed:?}") };
    let number = ListNumber(0);
    desk.handle(Input::Listed { number, result: Err("no disk".into()) });
    desk.handle(Input::Listed { number, result: Ok(vec![desk.tombstone("k", OLD)]) });
    assert_eq!(desk.effects(), [], "that listing is over");
    desk.pass(Duration::from_secs(1));
    desk.list(vec![desk.tombstone("k", OLD)]);
    assert_eq!(desk.sent().len(), 6);
}

#[test]
fn pages_follow_each_other_and_work_is_bounded() {
    let config = PurgeConfig { calls_max: 10, batches_max: 2, ..config() };
    let mut desk = Desk::new(0, config);
    let page = |desk: &Desk, from: usize, count: usize| -> Vec<_> {
        (from..from + count).map(|n| desk.tombstone(&format!("k{n:03}"), OLD)).collect()
    };
    let first = page(&desk, 0, 64);
    desk.list(first.clone());
    let sent = desk.sent();
    assert_eq!(sent.len(), 10, "no more messages at once");
    desk.answer_reads(sent, &[]);
    assert_eq!(desk.sent().len(), 10, "but as many again");
    desk.pass(Duration::from_secs(1));
    let listed: Vec<_> = desk.effects().into_iter().filter(|effect| !is_send(effect)).collect();
    let [Effect::List { number, after, limit: 64, .. }] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(after.as_ref(), Some(&first[63].key), "the next page");
    let next = page(&desk, 64, 64);
    desk.handle(Input::Listed { number: *number, result: Ok(next) });
    desk.pass(Duration::from_secs(1));
    assert!(desk.effects().iter().all(is_send), "no more batches at once");
    assert_eq!(desk.purger.figures().settling, 128);
}
