//! What a vnode does, step by step.

use anello_protocol::{
    causality::{ActorId, Context, Dot},
    id::Epoch,
    message::{
        repair::{PurgeVersions, Purged},
        replica::{Held, MintVersion, Refusal, Stored, Want},
    },
    time::HybridTime,
    version::{ConflictRule, Content, Value, Version, Versions, WriteId},
};

use super::{bench::Bench, key, member, mint, now, read, replica, store, value, view, view_of};
use crate::replica::{
    CommitNumber, CommitOutcome, Effect, Input, Replica, ReplicaConfig, Reply, Request, Token,
};
use crate::store::NotTaken;

const SIBLINGS: ConflictRule = ConflictRule::Siblings;
const LWW: ConflictRule = ConflictRule::Lww;

fn only(versions: &Versions) -> &Version {
    assert_eq!(versions.len(), 1);
    versions.iter().next().expect("one version")
}

#[test]
fn a_dot_is_shown_to_nobody_before_it_is_durable() {
    let mut bench = Bench::new();
    let k = key("k");
    let writer = bench.ask(Request::Mint(mint(&k, 1, &Context::new(), SIBLINGS)));
    bench.load(Versions::new());
    let (number, kept) = bench.commit();
    bench.nothing();

    let reader = bench.ask(Request::Read(read(&k)));
    assert_eq!(bench.reply(reader), Reply::Read(Ok(Held::Full(Versions::new()))));

    bench.durable(number);
    let minted = bench.minted(writer);
    assert_eq!(minted.versions, *kept);
    assert!(minted.context.covers(only(&kept).dot));

    let reader = bench.ask(Request::Read(read(&k)));
    bench.load((*kept).clone());
    assert_eq!(bench.reply(reader), Reply::Read(Ok(Held::Full((*kept).clone()))));
}

#[test]
fn a_digest_is_of_what_is_durable() {
    let mut bench = Bench::new();
    let k = key("k");
    bench.ask(Request::Mint(mint(&k, 1, &Context::new(), SIBLINGS)));
    bench.load(Versions::new());
    bench.commit();
    let digest = Request::Read(anello_protocol::message::replica::ReadVersions {
        want: Want::Digest,
        ..read(&k)
    });
    let reader = bench.ask(digest);
    assert_eq!(bench.reply(reader), Reply::Read(Ok(Held::Digest(Versions::new().digest()))));
}

#[test]
fn writes_under_way_build_on_each_other() {
    let mut bench = Bench::new();
    let k = key("k");
    let first = bench.ask(Request::Mint(mint(&k, 1, &Context::new(), SIBLINGS)));
    let second = bench.ask(Request::Mint(mint(&k, 2, &Context::new(), SIBLINGS)));
    bench.load(Versions::new());
    let (one, _) = bench.commit();
    let (two, kept) = bench.commit();
    assert_eq!(kept.len(), 2, "the second keeps both");
    bench.durable(one);
    let one = bench.minted(first);
    bench.nothing();
    bench.durable(two);
    let two = bench.minted(second);
    let (one, two) = (only(&one.versions).dot, only(&two.versions).dot);
    assert_eq!(one.actor, two.actor);
    assert_eq!((one.counter, two.counter), (1, 2));
}

#[test]
fn a_context_replaces_what_it_covers() {
    let mut bench = Bench::new();
    let (_, kept) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let (minted, replaced) = bench.write(2, &kept.context(), SIBLINGS, &kept);
    assert_eq!(only(&replaced).write_id, WriteId(2));
    assert_eq!(only(&replaced).absorbed, [WriteId(1)]);
    assert_eq!(minted.context, replaced.context());
    let (minted, siblings) = bench.write(3, &kept.context(), SIBLINGS, &replaced);
    assert!(!minted.context.covers(only(&replaced).dot), "its writer has not seen that");
    assert_eq!(siblings.len(), 2, "a context that is behind covers no more than it says");
}

/// T19: the reply is lost, and the client asks again.
#[test]
fn a_retry_is_the_same_event() {
    let mut bench = Bench::new();
    let (first, kept) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let retry = bench.ask(Request::Mint(mint(&key("k"), 1, &Context::new(), SIBLINGS)));
    bench.load(kept.clone());
    assert_eq!(bench.minted(retry), first);
    bench.nothing();

    // Also once it was replaced; its writer has not seen what replaced it.
    let (_, replaced) = bench.write(2, &kept.context(), SIBLINGS, &kept);
    let retry = bench.ask(Request::Mint(mint(&key("k"), 1, &Context::new(), SIBLINGS)));
    bench.load(replaced.clone());
    let minted = bench.minted(retry);
    assert_eq!(minted.versions, replaced);
    assert!(!minted.context.covers(only(&replaced).dot));
}

#[test]
fn a_retry_waits_for_what_it_rests_on() {
    let mut bench = Bench::new();
    let write = || Request::Mint(mint(&key("k"), 1, &Context::new(), SIBLINGS));
    let first = bench.ask(write());
    bench.load(Versions::new());
    let (number, kept) = bench.commit();
    let retry = bench.ask(write());
    let again = bench.ask(Request::Store(store(&key("k"), (*kept).clone(), SIBLINGS)));
    bench.nothing();
    bench.durable(number);
    let minted = bench.minted(first);
    assert_eq!(bench.minted(retry), minted);
    assert_eq!(
        bench.reply(again),
        Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false }))
    );
}

#[test]
fn storing_what_is_there_commits_nothing() {
    let mut bench = Bench::new();
    let (_, kept) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let mut other = Bench::with(replica(2));
    let first = other.ask(Request::Store(store(&key("k"), kept.clone(), SIBLINGS)));
    other.load(Versions::new());
    let (number, stored) = other.commit();
    assert_eq!(*stored, kept);
    other.nothing();
    other.durable(number);
    assert_eq!(
        other.reply(first),
        Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false }))
    );
    let second = other.ask(Request::Store(store(&key("k"), kept.clone(), SIBLINGS)));
    other.load(kept);
    assert_eq!(
        other.reply(second),
        Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false }))
    );
    other.nothing();
}

#[test]
fn after_a_failed_commit_the_dots_are_of_another_incarnation() {
    let mut bench = Bench::new();
    let (_, kept) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let token = bench.ask(Request::Mint(mint(&key("k"), 2, &Context::new(), SIBLINGS)));
    bench.load(kept.clone());
    let (number, lost) = bench.commit();
    bench.input(Input::Committed(number, CommitOutcome::Failed("the disk is full".into())));
    assert_eq!(bench.refused(token), Refusal::Storage("the disk is full".into()));

    let (minted, _) = bench.write(3, &Context::new(), SIBLINGS, &kept);
    let fresh = only(&minted.versions).dot;
    assert!(lost.iter().all(|version| version.dot.actor.incarnation != fresh.actor.incarnation));
}

#[test]
fn commits_that_fail_together_end_one_incarnation() {
    let mut bench = Bench::new();
    let asked = ["a", "b"].map(|name| {
        let token = bench.ask(Request::Mint(mint(&key(name), 1, &Context::new(), SIBLINGS)));
        bench.load(Versions::new());
        (token, bench.commit().0)
    });
    let fresh = asked.map(|(token, number)| {
        bench.input(Input::Committed(number, CommitOutcome::Failed("the disk is full".into())));
        assert_eq!(bench.refused(token), Refusal::Storage("the disk is full".into()));
        let (minted, _) = bench.write(2, &Context::new(), SIBLINGS, &Versions::new());
        only(&minted.versions).dot.actor.incarnation
    });
    assert_eq!(
        fresh[0], fresh[1],
        "the second failure says nothing of dots that came after the first"
    );
}

#[test]
fn what_the_store_did_not_take_never_was() {
    for (why, refusal) in [(NotTaken::Busy, Refusal::Busy), (NotTaken::DiskFull, Refusal::DiskFull)]
    {
        let mut bench = Bench::new();
        let token = bench.ask(Request::Mint(mint(&key("k"), 1, &Context::new(), SIBLINGS)));
        bench.load(Versions::new());
        let (number, refused) = bench.commit();
        bench.input(Input::Committed(number, CommitOutcome::NotTaken(why)));
        assert_eq!(bench.refused(token), refusal);
        let (minted, _) = bench.write(2, &Context::new(), SIBLINGS, &Versions::new());
        let (old, new) = (only(&refused).dot.actor, only(&minted.versions).dot.actor);
        assert_eq!(old.incarnation, new.incarnation, "a refusal makes no new actors");
    }
}

/// Two writers in one load, and the store has room for the first or for neither.
#[test]
fn what_would_contain_a_commit_that_was_not_taken_is_withdrawn() {
    for taken in [0, 1] {
        let mut bench = Bench::new();
        let asked = [1, 2, 3].map(|write_id| {
            bench.ask(Request::Mint(mint(&key("k"), write_id, &Context::new(), SIBLINGS)))
        });
        let Effect::Load(k) = bench.next() else { panic!("expected a load") };
        // As a shell does it: one effect after the other, and a refusal is told on the spot.
        bench.replica.handle(now(1000), Input::Loaded(k, Ok(Versions::new())));
        let mut numbers = Vec::new();
        for _ in 0..=taken {
            match bench.replica.next_effect() {
                Some(Effect::Commit(number, _)) => numbers.push(number),
                other => panic!("expected a commit, not {other:?}"),
            }
        }
        let refused = Input::Committed(numbers[taken], CommitOutcome::NotTaken(NotTaken::Busy));
        bench.replica.handle(now(1000), refused);
        bench.look();
        for token in &asked[taken..] {
            assert_eq!(bench.refused(*token), Refusal::Busy);
        }
        bench.nothing();
        let incarnation = (taken > 0).then(|| {
            bench.durable(numbers[0]);
            let minted = bench.minted(asked[0]);
            only(&minted.versions).dot.actor.incarnation
        });
        assert_eq!(bench.replica.waiting(), 0);
        let (minted, _) = bench.write(4, &Context::new(), SIBLINGS, &Versions::new());
        let fresh = only(&minted.versions).dot;
        assert_eq!(fresh.counter, 1);
        assert!(incarnation.is_none_or(|life| life == fresh.actor.incarnation), "it lives on");
    }
}

/// T3: the coordinator's copy of a key is lost, and a client writes without a context.
#[test]
fn a_key_that_was_lost_is_born_again() {
    let mut bench = Bench::new();
    let (first, kept) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let (second, _) = bench.write(2, &Context::new(), SIBLINGS, &Versions::new());
    let (first, second) = (only(&first.versions).dot, only(&second.versions).dot);
    assert_ne!(first, second);
    let mut joined = kept;
    joined.merge(
        Versions::from(
            only(&bench.write(3, &Context::new(), SIBLINGS, &Versions::new()).1).clone(),
        ),
        SIBLINGS,
    );
    assert_eq!(joined.len(), 2, "the new write survives the repair");
}

#[test]
fn a_context_of_dots_yet_to_come_is_forged() {
    let mut bench = Bench::new();
    let (first, kept) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let dot = only(&first.versions).dot;
    let next = Dot { counter: dot.counter + 1, ..dot };
    let unborn = Dot { actor: ActorId { birth: 999_999, ..dot.actor }, counter: 1 };
    for forged in [next, unborn] {
        let context: Context = [dot, forged].into_iter().collect();
        let token = bench.ask(Request::Mint(mint(&key("k"), 2, &context, SIBLINGS)));
        bench.load(kept.clone());
        assert_eq!(bench.refused(token), Refusal::ForgedContext);
        bench.nothing();
    }
    let strangers = Dot {
        actor: ActorId { incarnation: anello_protocol::causality::Incarnation(4), birth: 0 },
        counter: 9,
    };
    let context: Context = [dot, strangers].into_iter().collect();
    bench.write(2, &context, SIBLINGS, &kept);
}

#[test]
fn lww_keeps_the_latest_and_is_told_what_it_lost_to() {
    let mut slow = Bench::new();
    slow.wall_ms = 10;
    let mut fast = Bench::with(replica(2));
    fast.wall_ms = 1_000_000;
    let (_, ahead) = fast.write(1, &Context::new(), LWW, &Versions::new());
    let (lost, behind) = slow.write(2, &Context::new(), LWW, &Versions::new());
    let (next, _) = slow.write(3, &lost.context, LWW, &behind);
    assert_eq!(next.context, next.versions.context(), "contexts do not grow");

    let push = fast.ask(Request::Store(store(&key("k"), behind, LWW)));
    fast.load(ahead.clone());
    let later = only(&ahead).time;
    assert_eq!(
        fast.reply(push),
        Reply::Store(Ok(Stored { lost_to: Some(later), is_quarantined: false }))
    );

    // T14: issued again, it is later, and wins.
    let mut again = mint(&key("k"), 2, &Context::new(), LWW);
    again.later_than = Some(later);
    let token = slow.ask(Request::Mint(again));
    slow.load(lost.versions.clone());
    let (number, _) = slow.commit();
    slow.durable(number);
    let minted = slow.minted(token);
    assert!(only(&minted.versions).time > later);
    assert!(!only(&minted.versions).absorbed.contains(&WriteId(2)));
    let push = fast.ask(Request::Store(store(&key("k"), minted.versions.clone(), LWW)));
    fast.load(ahead);
    let (number, kept) = fast.commit();
    assert_eq!(*kept, minted.versions);
    fast.durable(number);
    assert_eq!(fast.reply(push), Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false })));
}

#[test]
fn an_lww_write_that_was_replaced_is_not_lost() {
    let mut bench = Bench::new();
    let (_, first) = bench.write(1, &Context::new(), LWW, &Versions::new());
    let (_, second) = bench.write(2, &Context::new(), LWW, &first);
    let push = bench.ask(Request::Store(store(&key("k"), first, LWW)));
    bench.load(second);
    assert_eq!(
        bench.reply(push),
        Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false }))
    );
}

/// T30: two writes in the same microsecond.
#[test]
fn lww_writes_of_one_time_have_one_winner_everywhere() {
    let (_, left) = Bench::new().write(1, &Context::new(), LWW, &Versions::new());
    let (_, right) = Bench::with(replica(2)).write(2, &Context::new(), LWW, &Versions::new());
    assert_eq!(only(&left).time, only(&right).time);
    let mut one = left.clone();
    one.merge(right.clone(), LWW);
    let mut other = right;
    other.merge(left, LWW);
    assert_eq!(one, other);
}

/// T31: what a write with a context does to a tombstone, a missing key, and siblings.
#[test]
fn writes_with_contexts_of_every_kind() {
    let mut bench = Bench::new();
    let delete = |bench: &mut Bench, write_id, context: &Context, found: &Versions| {
        let mut write = mint(&key("k"), write_id, context, SIBLINGS);
        write.content = Content::Tombstone;
        let token = bench.ask(Request::Mint(write));
        bench.load(found.clone());
        let (number, kept) = bench.commit();
        bench.durable(number);
        bench.minted(token);
        (*kept).clone()
    };
    let (_, one) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let dead = delete(&mut bench, 2, &one.context(), &one);
    assert!(only(&dead).is_tombstone());
    let (_, over_tombstone) = bench.write(3, &dead.context(), SIBLINGS, &dead);
    assert_eq!(only(&over_tombstone).content, value("3"));
    let (_, beside_tombstone) = bench.write(4, &one.context(), SIBLINGS, &dead);
    assert_eq!(beside_tombstone.len(), 2, "a tombstone that was not seen is a sibling");
    let (_, settled) = bench.write(5, &beside_tombstone.context(), SIBLINGS, &beside_tombstone);
    assert_eq!(only(&settled).write_id, WriteId(5));
    let (_, nothing_left) = bench.write(6, &one.context(), SIBLINGS, &Versions::new());
    assert_eq!(
        only(&nothing_left).write_id,
        WriteId(6),
        "a context of what is gone covers nothing"
    );
}

#[test]
fn other_epochs_are_refused() {
    let mut bench = Bench::with(replica(1));
    bench.input(Input::ClusterChanged(view(3)));
    let old = bench.ask(Request::Read(read(&key("k"))));
    match bench.refused(old) {
        Refusal::StaleEpoch(newer) => assert_eq!(newer, Epoch(3)),
        other => panic!("{other:?}"),
    }
    let mut early = read(&key("k"));
    early.epoch = Epoch(4);
    let early = bench.ask(Request::Read(early));
    assert_eq!(bench.refused(early), Refusal::Behind(Epoch(3)));
    bench.input(Input::ClusterChanged(view(2)));
    assert_eq!(bench.replica.epoch(), Epoch(3), "states never go back");

    let mut unborn = Bench::of(replica(1));
    let token = unborn.ask(Request::Read(read(&key("k"))));
    assert_eq!(unborn.refused(token), Refusal::Behind(Epoch(0)));
}

#[test]
fn what_is_not_its_own_is_refused() {
    let mut bench = Bench::with(replica(1));
    bench.input(Input::ClusterChanged(view_of(1, member("b"))));
    let token = bench.ask(Request::Read(read(&key("k"))));
    assert_eq!(bench.refused(token), Refusal::NotOwner);
}

#[test]
fn frozen_is_quiet_once_all_writes_have_ended() {
    let mut bench = Bench::new();
    let k = key("k");
    let before = bench.ask(Request::Mint(mint(&k, 1, &Context::new(), SIBLINGS)));
    bench.load(Versions::new());
    let (number, kept) = bench.commit();
    let loading = bench.ask(Request::Mint(mint(&key("l"), 2, &Context::new(), SIBLINGS)));
    bench.input(Input::Freeze);
    let during = bench.ask(Request::Mint(mint(&k, 3, &Context::new(), SIBLINGS)));
    bench.load(Versions::new());
    assert_eq!(bench.refused(during), Refusal::Frozen);
    assert_eq!(bench.refused(loading), Refusal::Frozen, "also those that were admitted before");
    let reader = bench.ask(Request::Read(read(&k)));
    assert_eq!(bench.reply(reader), Reply::Read(Ok(Held::Full(Versions::new()))));
    bench.nothing();
    bench.durable(number);
    bench.minted(before);
    assert_eq!(bench.next(), Effect::Quiet);
    bench.input(Input::Thaw);
    bench.write(3, &Context::new(), SIBLINGS, &kept);
}

#[test]
fn past_its_bounds_it_is_busy() {
    let config = ReplicaConfig { requests_max: 2, bytes_max: 4096 };
    let seed = 1;
    let machine =
        Replica::new(super::node(), anello_protocol::id::PartitionId(0), config, seed, None);
    let mut bench = Bench::with(machine);
    bench.ask(Request::Read(read(&key("k"))));
    bench.ask(Request::Read(read(&key("l"))));
    let third = bench.ask(Request::Read(read(&key("m"))));
    bench.load(Versions::new());
    bench.load(Versions::new());
    assert_eq!(bench.refused(third), Refusal::Busy);
    assert_eq!(bench.replica.waiting(), 0);

    let mut big = mint(&key("k"), 1, &Context::new(), SIBLINGS);
    big.content = Content::Value(Value::new(vec![0; 8192]).expect("within the bound"));
    bench.effects.clear();
    let alone = bench.ask(Request::Mint(big.clone()));
    let second = bench.ask(Request::Mint(MintVersion { write_id: WriteId(2), ..big }));
    bench.load(Versions::new());
    assert_eq!(bench.refused(second), Refusal::Busy, "more than the bound, and not alone");
    let (number, _) = bench.commit();
    bench.durable(number);
    bench.minted(alone);
}

#[test]
fn a_key_takes_only_so_many_siblings_from_clients() {
    let mut bench = Bench::new();
    let mut kept = Versions::new();
    let k = key("k");
    for number in 0.. {
        assert!(number < 10_000, "there is a bound");
        let token = bench.ask(Request::Mint(mint(&k, number, &Context::new(), SIBLINGS)));
        bench.load(kept.clone());
        match bench.next() {
            Effect::Commit(number, commit) => {
                kept = (*commit.versions).clone();
                bench.durable(number);
                bench.minted(token);
            }
            Effect::Reply(_, Reply::Mint(Err(Refusal::TooManySiblings(siblings)))) => {
                assert_eq!(siblings as usize, kept.len());
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // T12: what other replicas took in is joined all the same, and a context settles it.
    let more =
        Bench::with(replica(2)).write(1 << 64, &Context::new(), SIBLINGS, &Versions::new()).1;
    let push = bench.ask(Request::Store(store(&k, more, SIBLINGS)));
    bench.load(kept.clone());
    let (number, joined) = bench.commit();
    bench.durable(number);
    assert_eq!(
        bench.reply(push),
        Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false }))
    );
    assert_eq!(joined.len(), kept.len() + 1);
    assert_eq!(bench.write(1 << 65, &joined.context(), SIBLINGS, &joined).1.len(), 1);
}

#[test]
fn a_store_that_cannot_read_is_said_to_fail() {
    let mut bench = Bench::new();
    let token = bench.ask(Request::Read(read(&key("k"))));
    match bench.next() {
        Effect::Load(key) => bench.input(Input::Loaded(key, Err("a checksum differs".into()))),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.refused(token), Refusal::Storage("a checksum differs".into()));
    bench.input(Input::Loaded(key("k"), Ok(Versions::new())));
    bench.input(Input::Committed(CommitNumber(77), CommitOutcome::Durable));
    bench.nothing();
}

#[test]
fn times_go_on_from_what_is_held() {
    let mut bench = Bench::new();
    bench.wall_ms = 5_000_000;
    let (_, ahead) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    bench.wall_ms = 5;
    let (minted, _) = bench.write(2, &ahead.context(), SIBLINGS, &ahead);
    assert!(only(&minted.versions).time > only(&ahead).time);
    assert!(only(&ahead).time >= HybridTime::from_wall_ms(5_000_000));
}

/// A node learns that it was away too long, or of another state, while a read waits for its disk.
#[test]
fn what_waits_for_the_disk_is_admitted_anew() {
    for readers in [1, 2] {
        for (input, refusal) in [
            (Input::Quarantined(true), Refusal::Quarantined),
            (Input::ClusterChanged(view(2)), Refusal::StaleEpoch(Epoch(2))),
        ] {
            let mut bench = Bench::new();
            let ask = |bench: &mut Bench| bench.ask(Request::Read(read(&key("k"))));
            let tokens: Vec<Token> = (0..readers).map(|_| ask(&mut bench)).collect();
            bench.replica.handle(now(1000), input);
            bench.load(Versions::new());
            for token in tokens {
                assert_eq!(bench.refused(token), refusal, "{readers} readers");
            }
            assert_eq!(bench.replica.waiting(), 0);
        }
    }
}

/// It holds what it was sent, and says that it may not know what wins over it.
#[test]
fn in_quarantine_versions_are_taken_in_with_a_warning() {
    let mut bench = Bench::new();
    let (_, held) = Bench::with(replica(2)).write(1, &Context::new(), LWW, &Versions::new());
    for is_quarantined in [true, false] {
        bench.input(Input::Quarantined(is_quarantined));
        let push = bench.ask(Request::Store(store(&key("k"), held.clone(), LWW)));
        if is_quarantined {
            bench.load(Versions::new());
            let (number, kept) = bench.commit();
            assert_eq!(*kept, held);
            bench.durable(number);
        } else {
            bench.load(held.clone());
        }
        let stored = Stored { lost_to: None, is_quarantined };
        assert_eq!(bench.reply(push), Reply::Store(Ok(stored)));
    }
}

/// What came back with a copy goes in quarantine, and only there; tombstones go only outside of it.
#[test]
fn in_quarantine_a_value_may_be_dropped_and_nothing_else() {
    let mut bench = Bench::new();
    let (_, held) = bench.write(1, &Context::new(), SIBLINGS, &Versions::new());
    let mut write = mint(&key("k"), 2, &held.context(), SIBLINGS);
    write.content = Content::Tombstone;
    bench.ask(Request::Mint(write));
    bench.load(held.clone());
    let (number, tombstone) = bench.commit();
    bench.durable(number);
    bench.next();
    assert!(tombstone.is_deleted());
    let ask = |bench: &mut Bench, digest, found: &Versions| {
        let purge = PurgeVersions { epoch: Epoch(1), key: key("k"), digest };
        let token = bench.ask(Request::Purge(purge));
        bench.load(found.clone());
        token
    };

    let token = ask(&mut bench, held.digest(), &held);
    assert_eq!(bench.reply(token), Reply::Purge(Ok(Purged::Kept)), "it is no tombstone");
    bench.input(Input::Quarantined(true));
    for (digest, found) in [
        (tombstone.digest(), &held),
        (tombstone.digest(), &*tombstone),
        (Versions::new().digest(), &Versions::new()),
    ] {
        let token = ask(&mut bench, digest, found);
        assert_eq!(bench.refused(token), Refusal::Quarantined);
    }
    let token = ask(&mut bench, held.digest(), &held);
    let (number, kept) = bench.commit();
    assert!(kept.is_empty());
    bench.durable(number);
    assert_eq!(bench.reply(token), Reply::Purge(Ok(Purged::Gone)));
    assert_eq!(bench.replica.waiting(), 0);
}
