//! Stories of a ring that changes: who says when that it holds what it has to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anello_antientropy::{HandoverFigures, Obstacle, store::TreeStore};
use anello_protocol::{
    causality::Context,
    cluster::{ClusterState, MemberState, Phase, Purpose, RingChange},
    codec,
    id::{KeyspaceName, NodeId, PartitionId},
    version::{ConflictRule, Content, Versions},
};

use crate::{
    content::{first, key, value, version},
    world::{Network, Sent, WALL_MS, World, member, node},
};

const FOUR: [&str; 4] = ["eu-a", "eu-b", "eu-c", "eu-d"];
const FIVE: [&str; 5] = ["eu-a", "eu-b", "eu-c", "eu-d", "eu-e"];

fn four() -> [NodeId; 4] {
    FOUR.map(node)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Three members, and a fourth node that is about to become one.
fn three_and_one(partitions: u32, seed: u64) -> World {
    let mut world = World::new(&FOUR, partitions, ConflictRule::Siblings, seed);
    world.change_cluster(|cluster| {
        cluster.members.remove(&node("eu-d"));
    });
    world
}

/// Keys that all three have.
fn fill(world: &mut World, keys: u64, bytes: usize) {
    for number in 0..keys {
        let versions = Arc::new(first(number, bytes));
        for id in &FOUR[..3] {
            world.put(&node(id), &key(number), versions.clone());
        }
    }
}

fn begin(cluster: &mut ClusterState, change: impl Fn(&mut ClusterState)) {
    let old = cluster.layout();
    change(cluster);
    cluster.change = Some(Box::new(RingChange {
        asked: cluster.epoch,
        began: cluster.epoch,
        purpose: Purpose::Join(BTreeSet::from([node("eu-d")])),
        old,
        phases: vec![Phase::Filling; cluster.partitions as usize],
    }));
}

fn become_state(cluster: &mut ClusterState, id: &str, state: MemberState) {
    cluster.members.entry(node(id)).or_insert_with(|| member(id)).state = state;
}

/// The fourth node joins.
fn join(world: &mut World) {
    world.change_cluster(|cluster| {
        begin(cluster, |cluster| become_state(cluster, "eu-d", MemberState::Joining));
    });
}

/// The fourth node takes the place of the third, which hands over.
fn take_the_place(world: &mut World) {
    world.change_cluster(|cluster| {
        begin(cluster, |cluster| {
            become_state(cluster, "eu-d", MemberState::Joining);
            become_state(cluster, "eu-c", MemberState::Leaving);
        });
    });
}

fn serve(world: &mut World) {
    world.change_cluster(|cluster| {
        let change = cluster.change.as_mut().expect("one is under way");
        change.phases.fill(Phase::Serving);
    });
}

/// Whether all who are awaited have given their word.
fn all_handed(world: &World, phase: Phase) -> bool {
    (0..world.view.cluster().partitions).map(PartitionId).all(|partition| {
        let awaited = world.view.handover(partition).awaited;
        awaited.keys().all(|id| has_handed(world, id, partition, phase))
    })
}

fn has_handed(world: &World, id: &NodeId, partition: PartitionId, phase: Phase) -> bool {
    world.sites[id].handed.iter().any(|(of, under, _)| (*of, *under) == (partition, phase))
}

fn words(world: &World, id: &NodeId, phase: Phase) -> usize {
    world.sites[id].handed.iter().filter(|(_, under, _)| *under == phase).count()
}

fn handover(world: &World, id: &NodeId) -> HandoverFigures {
    world.figures(id).handover.expect("a change is under way")
}

#[test]
fn a_node_that_joins_holds_everything_when_it_says_so() {
    let [a, _, _, d] = four();
    let mut world = three_and_one(16, 71);
    // So slow that the others come round to comparing before it is over.
    world.config.bytes_per_second = 512 << 10;
    fill(&mut world, 3000, 1024);
    world.start_all();
    world.run_for(seconds(30));
    world.sent = Sent::default();
    join(&mut world);
    let took =
        world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
    let mut bytes = 0;
    for number in (0..3000).filter(|number| world.replicas(&key(*number)).contains(&d)) {
        let partition = key(number).hash.partition(16);
        let word = world.sites[&d].handed.iter().find(|(of, ..)| *of == partition);
        assert!(word.expect("given").2.contains(&key(number)), "key {number}");
        bytes += codec::encode(&first(number, 1024)).len() + key(number).key.as_bytes().len();
    }
    assert!(bytes > 1_500_000, "it holds a fair share: {bytes}");
    let figures = handover(&world, &d);
    assert!(figures.awaited.is_empty() && figures.filling == 0, "{figures:?}");
    assert_eq!(figures.keys_fetched as usize, world.contents(&d).len());
    serve(&mut world);
    world.run_until(seconds(3), "all serves", |world| all_handed(world, Phase::Serving));
    world.run_for(seconds(60));
    for id in four() {
        for phase in [Phase::Filling, Phase::Serving] {
            let words: Vec<_> = world.sites[&id].handed.iter().filter(|it| it.1 == phase).collect();
            let of: BTreeSet<_> = words.iter().map(|(of, ..)| *of).collect();
            assert_eq!(words.len(), of.len(), "{id}: once for each");
        }
    }
    let sent = world.sent.bytes;
    assert!(sent * 5 <= bytes * 6, "{sent} bytes for {bytes}, after {took:?}");
    let twice = world.sent.keys.values().filter(|times| **times > 1).count();
    assert_eq!(twice, 0, "nothing travels twice");
    world.change_cluster(|cluster| cluster.change = None);
    assert_eq!(world.figures(&a).handover, None);
}

/// The answer to a question of before the phase arrives in it.
#[test]
fn what_was_compared_before_a_phase_proves_nothing() {
    let [a, _, _, d] = four();
    for is_asked_by_d in [true, false] {
        let mut world = three_and_one(4, 72);
        fill(&mut world, 100, 20);
        world.start_all();
        take_the_place(&mut world);
        world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
        world.run_for(seconds(100));
        world.network.delay_us = (50_000, 50_001);
        world.start_round(if is_asked_by_d { &d } else { &a });
        if is_asked_by_d {
            // The other has answered, and the answer is on its way; else its own trees were looked at.
            world.run_for(Duration::from_millis(70));
        }
        world.put(&a, &key(1000), first(1000, 20));
        serve(&mut world);
        world.network = Network::GOOD;
        world.run_until(seconds(12), "all serves", |world| all_handed(world, Phase::Serving));
        let partition = key(1000).hash.partition(4);
        let word =
            world.sites[&d].handed.iter().find(|it| (it.0, it.1) == (partition, Phase::Serving));
        assert!(word.expect("given").2.contains(&key(1000)), "asked by d: {is_asked_by_d}");
    }
}

/// T16: a write that A and B have acknowledged, while the stale C leaves and D takes its place.
#[test]
fn t16_a_write_of_those_that_stay_is_handed_over_as_well() {
    let [a, b, c, d] = four();
    let mut world = three_and_one(4, 73);
    fill(&mut world, 200, 20);
    world.start_all();
    world.run_for(seconds(30));
    for number in 1000..1040 {
        let versions = Arc::new(first(number, 20));
        world.put(&a, &key(number), versions.clone());
        world.put(&b, &key(number), versions);
    }
    take_the_place(&mut world);
    assert_eq!(words(&world, &c, Phase::Filling), 4, "who awaits nothing says so at once");
    world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
    let held: BTreeSet<_> = world.sites[&d].handed.iter().flat_map(|it| it.2.clone()).collect();
    assert!((1000..1040).all(|number| held.contains(&key(number))));
}

#[test]
fn under_steady_writes_it_ends_all_the_same() {
    let [_, _, _, d] = four();
    let mut world = three_and_one(1, 74);
    fill(&mut world, 500, 50);
    world.start_all();
    world.run_for(seconds(20));
    take_the_place(&mut world);
    let mut number = 0;
    for phase in [Phase::Filling, Phase::Serving] {
        let begin = world.now;
        while !all_handed(&world, phase) {
            assert!(world.now < begin + seconds(30), "it never ends: {:?}", handover(&world, &d));
            for at in 0..20 {
                number += 1;
                let held = world.sites[&d].store.read(&key(at)).expect("memory reads");
                let version = version(number, held.context(), WALL_MS, value(50, 1));
                world.write(&key(at), &version.into(), 2_000_000);
            }
            world.run_for(Duration::from_millis(100));
        }
        serve(&mut world);
    }
}

#[test]
fn a_source_that_crashes_in_the_middle_is_waited_for_until_it_is_back() {
    let [a, _, _, d] = four();
    let mut world = three_and_one(8, 75);
    world.config.bytes_per_second = 1 << 20;
    fill(&mut world, 3000, 1024);
    world.start_all();
    world.run_for(seconds(20));
    take_the_place(&mut world);
    world.run_for(Duration::from_millis(1500));
    let fetched = handover(&world, &d).keys_fetched;
    assert!((100..2500).contains(&fetched), "it is in the middle: {fetched}");
    world.crash(&a);
    world.run_for(seconds(60));
    assert_eq!(world.contents(&d).len(), 3000, "the others have it too");
    let figures = handover(&world, &d);
    assert!(figures.awaited[&a].obstacle == Some(Obstacle::Unreachable), "{figures:?}");
    assert!(figures.filling > 0 && figures.awaited.len() == 1, "{figures:?}");
    world.start(&a);
    let view = world.view.clone();
    world.input(&a, anello_antientropy::Input::ClusterChanged(view));
    world.run_until(seconds(8), "all is filled", |world| all_handed(world, Phase::Filling));
}

/// The one that restarts is the one that is filled: what it knew is gone, what it holds is not.
#[test]
fn a_new_owner_that_restarts_goes_on_and_says_it_again() {
    let [_, _, _, d] = four();
    let mut world = three_and_one(8, 76);
    fill(&mut world, 500, 20);
    world.start_all();
    world.run_for(seconds(20));
    take_the_place(&mut world);
    world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
    world.crash(&d);
    world.sites.get_mut(&d).expect("it exists").handed.clear();
    world.start(&d);
    world.run_until(seconds(5), "it says so again", |world| words(world, &d, Phase::Filling) == 8);
}

#[test]
fn a_source_that_cant_be_reached_holds_it_up_until_it_is_written_off() {
    let [a, b, c, d] = four();
    let mut world = three_and_one(4, 77);
    fill(&mut world, 300, 20);
    // What A and B have acknowledged, and what A and C have.
    for number in [1000, 1001] {
        world.put(&a, &key(number), first(number, 20));
    }
    world.put(&b, &key(1000), first(1000, 20));
    world.start_all();
    world.cut(&a, &b, true);
    world.crash(&c);
    take_the_place(&mut world);
    world.run_for(seconds(60));
    assert_eq!(words(&world, &d, Phase::Filling), 0, "C may have what nobody else has");
    assert_eq!(words(&world, &b, Phase::Filling), 4, "B holds what it always held");
    world.change_cluster(|cluster| become_state(cluster, "eu-c", MemberState::Removed));
    world.run_until(seconds(12), "D is filled", |world| words(world, &d, Phase::Filling) == 4);
    // Those that stay must have what either of them alone has, from now on.
    assert_eq!(words(&world, &b, Phase::Filling), 4, "that it gave its word before says nothing");
    world.cut(&a, &b, false);
    world.run_until(seconds(12), "B is filled", |world| words(world, &b, Phase::Filling) == 8);
    assert!(world.contents(&b).contains_key(&key(1001)));
}

#[test]
fn a_quarantined_source_is_tried_again() {
    let [a, _, _, d] = four();
    let mut world = three_and_one(4, 78);
    fill(&mut world, 300, 20);
    world.start_all();
    world.quarantine(&a, true, false);
    take_the_place(&mut world);
    world.run_for(seconds(40));
    let figures = handover(&world, &d);
    assert_eq!(figures.awaited[&a].obstacle, Some(Obstacle::Quarantined), "{figures:?}");
    assert_eq!((figures.filling, figures.awaited.len()), (4, 1), "{figures:?}");
    assert!(world.sites[&d].reports.is_empty(), "people see it in the figures");
    world.quarantine(&a, false, false);
    world.run_until(seconds(20), "all is filled", |world| all_handed(world, Phase::Filling));
}

/// The disk of a node that leaves is full: it has missed writes, and takes nothing in.
#[test]
fn a_source_that_takes_nothing_in_hands_over_all_the_same() {
    let [a, b, c, d] = four();
    let mut world = three_and_one(4, 79);
    fill(&mut world, 300, 20);
    world.start_all();
    world.refuse_stores(&c, true);
    take_the_place(&mut world);
    for number in 1000..1100 {
        for id in [&a, &b, &d] {
            world.put(id, &key(number), first(number, 20));
        }
    }
    world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
}

/// D meets the value, which C has kept, after the tombstone, which A and B have acknowledged and could forget
/// any time.
#[test]
fn a_new_owner_takes_tombstones_in_however_old() {
    let [a, b, c, d] = four();
    let mut world = three_and_one(4, 80);
    let old = |number, past: Context, content| -> Versions {
        version(number, past, WALL_MS - 1_000_000, content).into()
    };
    world.change_cluster(|cluster| {
        let default = cluster.keyspaces.get_mut(&KeyspaceName::default_keyspace());
        default.expect("it exists").config.tombstone_grace_s = 0;
    });
    for number in 0..40 {
        let victim = old(number, Context::new(), value(20, 1));
        let tombstone = old(number + 100, victim.context(), Content::Tombstone);
        world.put(&c, &key(number), victim);
        [&a, &b].into_iter().for_each(|id| world.put(id, &key(number), tombstone.clone()));
    }
    world.start_all();
    world.cut(&a, &c, true);
    world.cut(&b, &c, true);
    world.cut(&d, &c, true);
    take_the_place(&mut world);
    world.run_for(seconds(5));
    world.cut(&a, &d, true);
    world.cut(&b, &d, true);
    world.cut(&d, &c, false);
    world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
    assert!(world.contents(&d).values().all(|versions| versions.is_deleted()));
}

/// All three were put back from copies of the same day, while the fourth is filled: that it holds nothing doesn't
/// mean that anything was forgotten.
#[test]
fn what_a_new_owner_lacks_was_not_forgotten() {
    let mut world = three_and_one(4, 81);
    let old = |number| version(number, Context::new(), WALL_MS - 2_000_000_000, value(10, 1));
    for number in 0..40 {
        for id in &FOUR[..3] {
            world.put(&node(id), &key(number), Versions::from(old(number)));
        }
    }
    world.start_all();
    take_the_place(&mut world);
    FOUR[..3].iter().for_each(|id| world.quarantine(&node(id), true, true));
    for _ in 0..30 {
        for id in &FOUR[..3] {
            world.start_round(&node(id));
        }
        world.run_for(seconds(10));
    }
    for id in &FOUR[..3] {
        assert_eq!(world.contents(&node(id)).len(), 40, "{id}");
    }
}

/// What came back with a copy was forgotten by the one that is left; the other is dead, and written off.
#[test]
fn who_is_written_off_is_not_asked_what_was_forgotten() {
    let [a, b, c, _] = four();
    let mut world = three_and_one(4, 82);
    let old = |number| version(number, Context::new(), WALL_MS - 2_000_000_000, value(10, 1));
    (0..40).for_each(|number| world.put(&c, &key(number), Versions::from(old(number))));
    world.start_all();
    world.crash(&a);
    world.quarantine(&c, true, true);
    world.change_cluster(|cluster| {
        begin(cluster, |cluster| {
            become_state(cluster, "eu-d", MemberState::Joining);
            become_state(cluster, "eu-a", MemberState::Removed);
        });
    });
    world.run_until(seconds(150), "it is in step", |world| world.is_in_step(&c, &b));
    assert!(world.contents(&c).is_empty());
}

/// A fifth node joins with the fourth: the two don't send each other what both fetch.
#[test]
fn those_that_are_filled_leave_each_other_alone() {
    let mut world = World::new(&FIVE, 8, ConflictRule::Siblings, 83);
    world.config.bytes_per_second = 64 << 10;
    world.change_cluster(|cluster| {
        cluster.members.retain(|id, _| FOUR[..3].iter().any(|it| *id == node(it)))
    });
    fill(&mut world, 1000, 200);
    world.start_all();
    world.run_for(seconds(20));
    world.sent = Sent::default();
    world.change_cluster(|cluster| {
        begin(cluster, |cluster| {
            for (id, state) in [
                ("eu-b", MemberState::Leaving),
                ("eu-c", MemberState::Leaving),
                ("eu-d", MemberState::Joining),
                ("eu-e", MemberState::Joining),
            ] {
                become_state(cluster, id, state);
            }
        });
    });
    world.run_until(seconds(12), "all is filled", |world| all_handed(world, Phase::Filling));
    world.run_for(seconds(60));
    let travelled: usize = world.sent.keys.values().sum();
    assert_eq!(travelled, 2000, "each key to both, once");
}

/// Twice a second whatever can enter its next phase does, each time under another epoch, so questions are refused all
/// the time. Returns how long it took.
fn walk_through(world: &mut World) -> Duration {
    let begin = world.now;
    while world.view.moving().next().is_some() {
        assert!(world.now < begin + seconds(400), "it never ends");
        world.run_for(Duration::from_millis(500));
        let is_through = |(partition, phase): &(PartitionId, Phase)| {
            let awaited = world.view.handover(*partition).awaited;
            awaited.keys().all(|id| has_handed(world, id, *partition, *phase))
        };
        let through: Vec<_> = world.view.moving().filter(is_through).collect();
        if through.is_empty() {
            continue;
        }
        world.change_cluster(|cluster| {
            let change = cluster.change.as_mut().expect("one is under way");
            for (partition, phase) in &through {
                change.phases[partition.0 as usize] = phase.next();
            }
        });
    }
    world.now.since(begin)
}

#[test]
fn partitions_enter_their_phases_one_by_one() {
    // A message that is lost is waited for for ten seconds.
    for (seed, network, most) in [
        (84, Network::GOOD, 30),
        (85, Network::BAD, 300),
        (86, Network::BAD, 300),
        (87, Network::BAD, 300),
    ] {
        let mut world = three_and_one(32, seed);
        world.config.bytes_per_second = 512 << 10;
        fill(&mut world, 3000, 1024);
        world.start_all();
        world.run_for(seconds(20));
        world.network = network;
        join(&mut world);
        let took = walk_through(&mut world);
        assert!(took < seconds(most), "{took:?}");
        for number in 0..3000 {
            for replica in world.replicas(&key(number)) {
                let held = world.sites[&replica].store.read(&key(number)).expect("memory reads");
                assert!(!held.is_empty(), "{replica} lacks key {number}");
            }
        }
    }
}

/// Another node walks the same trees all the time, and of two that do the one with the larger name gives way.
#[test]
fn who_is_filled_gives_way_to_nobody() {
    let [a, _, _, d] = four();
    let mut world = three_and_one(4, 88);
    fill(&mut world, 200, 20);
    world.start_all();
    take_the_place(&mut world);
    let begin = world.now;
    while !all_handed(&world, Phase::Filling) {
        assert!(world.now < begin + seconds(8), "it is put off: {:?}", handover(&world, &d));
        (0..4).for_each(|partition| world.walk(&a, &d, PartitionId(partition)));
        world.run_for(Duration::from_millis(2));
    }
}
