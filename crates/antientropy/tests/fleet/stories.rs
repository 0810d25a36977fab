//! Stories of single faults, most of them of how other systems failed.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anello_antientropy::{
    AntiEntropy, AntiEntropyConfig, Effect, Input, Question, Reply, Report, Token, look,
    store::{MemoryTreeStore, TreeStore},
};
use anello_protocol::{
    causality::Context,
    id::{NodeId, PartitionId},
    merkle::{EntryDigest, HashRange},
    message::{repair::CompareRanges, replica::Refusal},
    time::{Moment, Now},
    version::{ConflictRule, Content, Version, Versions},
};

use crate::{
    content::{first, key, value, version},
    world::{KEYSPACE, WALL_MS, World, node},
};

const THREE: [&str; 3] = ["eu-a", "eu-b", "eu-c"];
const GRACE_MS: u64 = 864_000_000;

fn three() -> [NodeId; 3] {
    THREE.map(node)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn tombstone(number: u64, wall_ms: u64) -> Versions {
    version(number, Context::new(), wall_ms, Content::Tombstone).into()
}

fn all_in_step(world: &World) -> bool {
    let partitions = u64::from(world.view.cluster().partitions);
    world.sites.keys().all(|id| world.figures(id).partitions_in_sync == partitions)
}

/// T6: a tombstone is purged in one place while exchanges with others run.
#[test]
fn what_was_purged_on_one_side_is_not_brought_back() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, 21);
    for number in 0..50 {
        world.put(&a, &key(number), tombstone(number, WALL_MS - GRACE_MS - 1));
        world.put(&c, &key(number), tombstone(number, WALL_MS - GRACE_MS - 1));
    }
    // A young tombstone is news, and so is a value, however old.
    world.put(&a, &key(100), tombstone(100, WALL_MS - GRACE_MS / 2));
    let old = version(101, Context::new(), WALL_MS - 2 * GRACE_MS, value(10, 1));
    world.put(&a, &key(101), Versions::from(old));
    world.start_all();
    world.run_for(seconds(300));
    for other in [&b, &c] {
        let contents = world.contents(other);
        assert!(contents.contains_key(&key(100)) && contents.contains_key(&key(101)));
    }
    assert_eq!(world.contents(&b).len(), 2, "nothing that was purged is there again");
    assert!(all_in_step(&world), "and nobody is out of step for it");
    let repaired: u64 = three().iter().map(|id| world.figures(id).keys_repaired()).sum();
    assert!(repaired <= 4, "nor is it mended again and again: {repaired}");
    for id in three() {
        (0..50).for_each(|number| world.put(&id, &key(number), Versions::new()));
    }
    world.run_for(seconds(150));
    assert!(all_in_step(&world));
    assert_eq!(world.contents(&a), world.contents(&b));
}

/// T11 and T12: what is larger than any limit for clients is mended all the same, and stays as it is.
#[test]
fn many_siblings_with_long_pasts_are_mended_and_stay() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, 22);
    let mut all = Versions::new();
    for sibling in 0..300_u64 {
        let past = (0..50)
            .map(|it| version(1_000_000 + sibling * 100 + it, Context::new(), 1, value(1, 1)).dot);
        let sibling = version(sibling, past.collect(), WALL_MS - 5, value(100, 2));
        let side = [&a, &b, &c][sibling.write_id.0 as usize % 3];
        let mut held = world.sites[side].store.read(&key(1)).expect("memory reads");
        held.merge(Versions::from(sibling.clone()), ConflictRule::Siblings);
        world.put(side, &key(1), held);
        all.merge(Versions::from(sibling), ConflictRule::Siblings);
    }
    world.start_all();
    world.run_for(seconds(130));
    for id in three() {
        let held = world.sites[&id].store.read(&key(1)).expect("memory reads");
        assert_eq!(held.len(), 300, "{id}: no sibling lost, and none made");
        assert_eq!(held, all);
    }
    let before = world.sent.keys.clone();
    world.run_for(seconds(300));
    assert_eq!(world.sent.keys, before, "and then there is peace");
    assert!(all_in_step(&world));
}

/// T22: one replica keeps more about the same versions than another, which is no difference.
#[test]
fn bytes_that_mean_the_same_are_not_mended() {
    let [a, b, _] = three();
    let two = [THREE[0], THREE[1]];
    let mut world = World::new(&two, 4, ConflictRule::Siblings, 23);
    for number in 0..100 {
        let plain: Version = first(number, 20).into_iter().next().expect("there is one");
        let traced =
            Version { trace_id: Some([7; 16]), absorbed: vec![plain.write_id], ..plain.clone() };
        world.put(&a, &key(number), Versions::from(plain));
        world.put(&b, &key(number), Versions::from(traced));
    }
    world.start_all();
    world.run_for(seconds(130));
    assert!(all_in_step(&world));
    assert_eq!(world.sent.keys.len(), 0);
}

#[test]
fn a_node_that_comes_back_is_compared_with_within_seconds() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 8, ConflictRule::Siblings, 24);
    world.start_all();
    world.run_for(seconds(30));
    for other in [&a, &b] {
        world.cut(other, &c, true);
    }
    for number in 0..200 {
        world.put(&a, &key(number), first(number, 100));
        world.put(&b, &key(number), first(number, 100));
    }
    // So long that c comes back between two rounds.
    world.run_for(seconds(60));
    assert!(world.contents(&c).is_empty() && all_in_step(&world), "only who can be reached counts");
    for other in [&a, &b] {
        world.cut(other, &c, false);
    }
    let took =
        world.run_until(seconds(10), "c has it all", |world| world.contents(&c).len() == 200);
    assert!(took >= seconds(3), "its hints had a chance: {took:?}");
    world.run_until(seconds(30), "all are in step", all_in_step);
}

#[test]
fn a_crash_in_the_middle_of_an_exchange_ends_it_and_the_next_goes_on() {
    for (crashing, seed) in [(0, 31), (1, 32)] {
        let ids = [node("eu-a"), node("eu-b")];
        let mut world = World::new(&THREE[..2], 2, ConflictRule::Siblings, seed);
        world.config.bytes_per_second = 256 << 10;
        for number in 0..1000 {
            world.put(&ids[number as usize % 2], &key(number), first(number, 2000));
        }
        world.start_all();
        let half = |world: &World| ids.iter().any(|id| world.contents(id).len() > 600);
        world.run_until(seconds(20), "it is in the middle", half);
        world.crash(&ids[crashing]);
        let left = world.figures(&ids[1 - crashing]);
        assert_eq!((left.units_running, left.units_waiting), (0, 0), "nothing hangs");
        world.run_for(seconds(20));
        world.start(&ids[crashing]);
        world.run_until(seconds(60), "both hold all", |world| {
            ids.iter().all(|id| world.contents(id).len() == 1000)
        });
        let twice = world.sent.keys.values().filter(|times| **times > 1).count();
        assert!(twice <= 64, "only what was under way travels again: {twice}");
    }
}

#[test]
fn what_hints_were_dropped_for_is_compared_at_once_and_first() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 8, ConflictRule::Siblings, 25);
    world.start_all();
    world.run_for(seconds(10));
    world.put(&a, &key(1), first(1, 10));
    let partition = key(1).hash.partition(8);
    // Unknown trees do no harm.
    let marked = vec![(KEYSPACE, partition), (KEYSPACE, PartitionId(900))];
    world.input(&c, Input::MarkForRepair(marked));
    world.run_until(seconds(2), "c has it", |world| world.contents(&c).len() == 1);
    assert!(world.contents(&b).is_empty(), "only the marked node compares");
}

#[test]
fn an_operators_round_compares_with_everybody_and_its_end_is_seen() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 8, ConflictRule::Siblings, 26);
    world.start_all();
    world.run_for(seconds(30));
    (0..100).for_each(|number| world.put(&a, &key(number), first(number, 10)));
    let before = world.figures(&c).rounds;
    let round = world.start_round(&c);
    assert!(!world.machine(&c).progress(round).expect("it was begun").is_complete);
    world.run_until(seconds(10), "the round is complete", |world| {
        world.machine(&c).progress(round).expect("it was begun").is_complete
    });
    assert_eq!(world.contents(&c), world.contents(&a));
    assert!(world.contents(&b).len() <= 100);
    let figures = world.figures(&c);
    assert_eq!((figures.rounds, figures.partitions_in_sync), (before + 1, 8));
    assert!(figures.last_round_ms.is_some_and(|at| at >= WALL_MS));
    assert_eq!(world.machine(&c).progress(round + 1), None);
}

/// A leaf that was not changed with its data hides what differs below it; the scrub finds it.
#[test]
fn a_wrong_leaf_is_found_by_the_scrub_and_what_it_hid_is_mended() {
    let [a, b, _] = three();
    let mut world = World::new(&THREE[..2], 4, ConflictRule::Siblings, 27);
    (0..100).for_each(|number| {
        [&a, &b].into_iter().for_each(|id| world.put(id, &key(number), first(number, 10)));
    });
    let lost = key(5);
    world.sites[&b].store.put_without_leaf(&lost, Arc::new(Versions::new()));
    world.start_all();
    world.run_for(seconds(300));
    assert!(world.contents(&b).len() == 99 && all_in_step(&world), "nobody can see it");
    world.input(&b, Input::ScrubAll);
    world.run_until(seconds(5), "it is mended", |world| world.contents(&b).len() == 100);
    let partition = lost.hash.partition(4);
    let report = Report::Mended { keyspace: KEYSPACE, partition, leaves: 1 };
    assert_eq!(world.sites[&b].reports, [report]);
    let figures = world.figures(&b);
    assert_eq!((figures.trees_scrubbed, figures.leaves_mended), (4, 1));
}

#[test]
fn every_tree_is_scrubbed_within_a_day_evenly() {
    let [a, ..] = three();
    let mut world = World::new(&THREE[..1], 8, ConflictRule::Siblings, 28);
    world.config.round = seconds(3600);
    world.start_all();
    for eighth in 1..=8 {
        world.run_for(seconds(3 * 3600));
        let scrubbed = world.figures(&a).trees_scrubbed;
        assert!(scrubbed.abs_diff(eighth) <= 1, "{scrubbed} after {eighth} eighths of a day");
    }
}

/// One bad block must not keep all other trees from being mended.
#[test]
fn a_tree_that_cant_be_scrubbed_is_tried_again_behind_the_others() {
    let [a, ..] = three();
    let mut world = World::new(&THREE[..2], 4, ConflictRule::Siblings, 37);
    (0..40).for_each(|number| world.put(&a, &key(number), first(number, 10)));
    for partition in 0..4 {
        world.sites[&a].store.distrust(KEYSPACE, PartitionId(partition));
    }
    let unreadable = PartitionId(0);
    world.sites.get_mut(&a).expect("it exists").unreadable = Some(unreadable);
    world.start_all();
    world.run_until(seconds(20), "the rest is", |world| world.figures(&a).trees_scrubbed == 3);
    world.sites.get_mut(&a).expect("it exists").unreadable = None;
    world.run_until(seconds(20), "it is as well", |world| world.figures(&a).trees_scrubbed == 4);
    world.run_until(seconds(60), "all are in step", all_in_step);
}

#[test]
fn between_two_scrubs_the_disk_rests() {
    let [a, ..] = three();
    let mut world = World::new(&THREE[..1], 8, ConflictRule::Siblings, 38);
    world.start_all();
    world.sites.get_mut(&a).expect("it exists").scrub_takes = seconds(10);
    world.input(&a, Input::ScrubAll);
    world.run_for(seconds(85));
    assert_eq!(world.figures(&a).trees_scrubbed, 4);
    world.run_for(seconds(70));
    assert_eq!(world.figures(&a).trees_scrubbed, 8);
}

#[test]
fn a_tree_that_cant_be_trusted_is_scrubbed_at_once_and_then_compared() {
    let [a, b, _] = three();
    let mut world = World::new(&THREE[..2], 4, ConflictRule::Siblings, 29);
    (0..40).for_each(|number| world.put(&a, &key(number), first(number, 10)));
    for partition in 0..4 {
        world.sites[&a].store.distrust(KEYSPACE, PartitionId(partition));
    }
    world.start_all();
    world.run_until(seconds(12), "b has all", |world| world.contents(&b).len() == 40);
    assert_eq!(world.figures(&a).trees_scrubbed, 4);
}

/// T9: what a replica that was away too long alone holds may have been deleted since.
#[test]
fn a_quarantined_replica_catches_up_and_hands_nothing_out() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, 30);
    (0..40).for_each(|number| {
        [&a, &b].into_iter().for_each(|id| world.put(id, &key(number), first(number, 10)));
    });
    world.put(&c, &key(100), first(100, 10));
    world.start_all();
    world.quarantine(&c, true, false);
    world.run_until(seconds(60), "c has caught up", |world| {
        let pair = |partition| world.machine(&c).pair(KEYSPACE, PartitionId(partition), &a);
        world.contents(&c).len() == 41
            && (0..4).all(|it| pair(it).is_some_and(|pair| pair.caught_up_ms.is_some()))
    });
    world.run_for(seconds(130));
    assert!(!world.contents(&a).contains_key(&key(100)), "what c alone has stays there");
    assert!(!world.contents(&b).contains_key(&key(100)), "what c alone has stays there");
}

#[test]
fn repair_under_a_new_epoch_goes_on_and_what_is_not_held_any_more_is_dropped() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, 33);
    world.config.bytes_per_second = 256 << 10;
    (0..500).for_each(|number| world.put(&a, &key(number), first(number, 2000)));
    world.start_all();
    world.run_until(seconds(10), "it is in the middle", |world| world.contents(&b).len() > 50);
    world.change_cluster(|cluster| {
        cluster.members.get_mut(&node("eu-c")).expect("it exists").state =
            anello_protocol::cluster::MemberState::Left;
    });
    let moved = world.contents(&c).len();
    world.run_until(seconds(50), "b has all", |world| world.contents(&b).len() == 500);
    assert!(world.contents(&c).len() <= moved + 32, "c gets no more");
    assert_eq!(world.figures(&c).partitions_held, 0);
    assert!(world.machine(&a).pair(KEYSPACE, PartitionId(0), &c).is_none());
}

/// Promise D: repair ends, also if it never succeeds.
#[test]
fn a_peer_that_never_stores_is_given_up_each_time() {
    let [a, b, _] = three();
    let mut world = World::new(&THREE[..2], 2, ConflictRule::Siblings, 34);
    (0..20).for_each(|number| world.put(&a, &key(number), first(number, 10)));
    world.refuse_stores(&b, true);
    world.start_all();
    world.run_for(seconds(40));
    let round = world.start_round(&a);
    world.run_until(seconds(60), "the round ends", |world| {
        world.machine(&a).progress(round).expect("it was begun").is_complete
    });
    assert!(!all_in_step(&world));
    let before = world.sent.keys.values().sum::<usize>();
    world.run_for(seconds(600));
    let tried = world.sent.keys.values().sum::<usize>() - before;
    assert!(tried < 20 * 3 * 4 * 12, "a few tries each round: {tried}");
    assert!(world.sites[&a].reports.iter().any(|it| matches!(it, Report::Unresolved { .. })));
    world.refuse_stores(&b, false);
    world.run_until(seconds(130), "it is mended", all_in_step);
}

/// Promise D: nor does it hang on a node that is there and does not answer.
#[test]
fn questions_without_answers_end_with_the_round() {
    let [a, b, _] = three();
    let mut world = World::new(&THREE[..2], 8, ConflictRule::Siblings, 35);
    (0..100).for_each(|number| world.put(&a, &key(number), first(number, 10)));
    world.start_all();
    let walks = |world: &World| [&a, &b].iter().any(|id| world.figures(id).units_running > 0);
    world.run_until(seconds(10), "trees are walked", walks);
    let round = world.start_round(&a);
    world.network.lost_permille = 1000;
    world.run_until(seconds(300), "the round ends", |world| {
        world.machine(&a).progress(round).expect("it was begun").is_complete
    });
    world.run_until(seconds(300), "no unit hangs", |world| !walks(world));
    assert!(!all_in_step(&world));
    world.network.lost_permille = 0;
    world.run_until(seconds(200), "it is mended", all_in_step);
    assert_eq!(world.contents(&b).len(), 100);
}

#[test]
fn past_a_bound_questions_are_refused_and_each_is_answered_once() {
    let [a, b, _] = three();
    let mut world = World::new(&THREE[..2], 4, ConflictRule::Siblings, 36);
    world.start_all();
    let mut machine = AntiEntropy::new(a, AntiEntropyConfig::default(), 1);
    let now = Now { moment: Moment(1), wall_ms: WALL_MS };
    machine.handle(now, Input::ClusterChanged(world.view.clone()));
    for number in 0..100 {
        let partition = PartitionId(number % 4);
        let root = HashRange::of_partition(partition, 4);
        let ranges = vec![(root, [EntryDigest::default(); 16])];
        let epoch = world.view.epoch();
        let question = CompareRanges { epoch, keyspace: KEYSPACE, partition, ranges };
        let (token, question) = (Token(number.into()), Question::Ranges(question));
        machine.handle(now, Input::Asked { token, from: Some(b.clone()), question });
    }
    let mut answered = BTreeSet::new();
    let mut refused = 0;
    while let Some(effect) = machine.next_effect() {
        match effect {
            Effect::Look(ticket, what) => {
                let looked = look(&MemoryTreeStore::new(4), what);
                machine.handle(now, Input::Looked(ticket, looked.clone()));
                machine.handle(now, Input::Looked(ticket, looked));
            }
            Effect::Reply(token, reply) => {
                assert!(answered.insert(token), "once");
                refused += usize::from(reply == Reply::Ranges(Err(Refusal::Busy)));
            }
            _ => {}
        }
    }
    assert_eq!((answered.len(), refused), (100, 36));
}
