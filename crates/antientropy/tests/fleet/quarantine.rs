//! Stories of quarantined replicas: what they take in, what they keep, and what they drop.

use std::time::Duration;

use anello_antientropy::{Report, store::TreeStore};
use anello_protocol::{
    causality::Context,
    id::{NodeId, PartitionId},
    version::{ConflictRule, Content, Versions},
};

use crate::{
    content::{first, key, value, version},
    world::{WALL_MS, World, node},
};

const THREE: [&str; 3] = ["eu-a", "eu-b", "us-c"];
const GRACE_MS: u64 = 864_000_000;

fn three() -> [NodeId; 3] {
    THREE.map(node)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn old(number: u64, content: Content) -> Versions {
    version(number, Context::new(), WALL_MS - 2 * GRACE_MS, content).into()
}

/// Two nodes of one datacenter and one of another, of which the last is put back from a copy: it holds
/// what was deleted and forgotten since (0 to 19), what it alone has and is young (20), and what one of the
/// others has as well (21).
fn restored(seed: u64) -> World {
    let [_, b, c] = three();
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, seed);
    (0..20).for_each(|number| world.put(&c, &key(number), old(number, value(10, 1))));
    world.put(&c, &key(20), first(20, 10));
    world.put(&c, &key(21), old(21, value(10, 1)));
    world.put(&b, &key(21), old(21, value(10, 1)));
    world.start_all();
    world.quarantine(&c, true, true);
    world
}

fn dropped(world: &World, at: &NodeId) -> u64 {
    let dropped = |report: &Report| match report {
        Report::Dropped { keys, .. } => *keys,
        _ => 0,
    };
    world.sites[at].reports.iter().map(dropped).sum()
}

/// A backup that is put back must not bring back what was deleted, and purged, since it was made.
#[test]
fn what_came_back_with_a_copy_and_all_others_have_forgotten_is_dropped() {
    let [a, b, c] = three();
    let mut world = restored(51);
    world.run_until(seconds(150), "it is in step with both", |world| {
        world.is_in_step(&c, &a) && world.is_in_step(&c, &b)
    });
    let left: Vec<_> = world.contents(&c).into_keys().collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left.contains(&key(20)) && left.contains(&key(21)));
    assert_eq!(dropped(&world, &c), 20, "people are told");
    assert!(!world.contents(&a).contains_key(&key(20)), "nothing is handed out yet");
    world.quarantine(&c, false, false);
    world.run_for(seconds(200));
    for id in three() {
        let keys: Vec<_> = world.contents(&id).into_keys().collect();
        assert_eq!(keys.len(), 2, "{id}: {keys:?}");
    }
}

/// Who asks a quarantined node about a tree is refused, and walks nothing. A node that gave way to them all
/// the same would stay quarantined for as long as others find that it differs: for as long as it is.
#[test]
fn those_that_are_refused_keep_no_one_quarantined() {
    let [a, b, c] = three();
    let mut world = restored(53);
    let begin = world.now;
    while !(world.is_in_step(&c, &a) && world.is_in_step(&c, &b)) {
        assert!(world.now < begin + seconds(40), "it is in step with both");
        for (partition, from) in
            (0..4).flat_map(|it| [(PartitionId(it), &a), (PartitionId(it), &b)])
        {
            world.walk(from, &c, partition);
        }
        world.run_for(seconds(1));
    }
}

#[test]
fn a_node_that_was_merely_away_drops_nothing() {
    let [a, b, c] = three();
    let mut world = restored(52);
    world.quarantine(&c, false, false);
    world.quarantine(&c, true, false);
    world.run_until(seconds(150), "it is in step with both", |world| {
        world.is_in_step(&c, &a) && world.is_in_step(&c, &b)
    });
    assert_eq!(world.contents(&c).len(), 22);
    assert_eq!(dropped(&world, &c), 0);
}

/// The one that can't be asked may hold what was acknowledged.
#[test]
fn while_another_replica_cant_be_asked_nothing_is_dropped_and_it_is_not_in_step() {
    let [a, b, c] = three();
    let mut world = restored(53);
    world.cut(&b, &c, true);
    world.run_for(seconds(300));
    assert_eq!(world.contents(&c).len(), 22, "all of it is there");
    assert!(!world.is_in_step(&c, &a), "and that is not in step");
    world.cut(&b, &c, false);
    world.run_until(seconds(200), "it is in step with both", |world| {
        world.is_in_step(&c, &a) && world.is_in_step(&c, &b)
    });
    assert_eq!(world.contents(&c).len(), 2);
}

/// Two nodes are put back from copies of the same day: they must not wait for each other for ever.
#[test]
fn the_word_of_those_that_serve_is_enough_in_the_end() {
    let [a, b, c] = three();
    let mut world = restored(54);
    (0..20).for_each(|number| world.put(&b, &key(number), old(number, value(10, 1))));
    world.quarantine(&b, true, true);
    world.run_for(seconds(40));
    assert_eq!(world.contents(&c).len(), 22, "the other may be back soon");
    world.run_until(seconds(300), "both are in step with the third", |world| {
        world.is_in_step(&c, &a) && world.is_in_step(&b, &a)
    });
    for id in [&b, &c] {
        let contents = world.contents(id);
        assert!((0..20).all(|number| !contents.contains_key(&key(number))), "{id}");
    }
}

#[test]
fn a_bad_network_delays_it_and_no_more() {
    let [a, b, c] = three();
    for seed in 60..64 {
        let mut world = restored(seed);
        world.network = crate::world::Network::BAD;
        world.run_until(seconds(600), &format!("seed {seed}"), |world| {
            world.is_in_step(&c, &a) && world.is_in_step(&c, &b)
        });
        assert_eq!(world.contents(&c).len(), 2, "seed {seed}");
        assert!(!world.contents(&a).contains_key(&key(0)), "seed {seed}");
    }
}

/// A node lost its disk: the tombstone that another has forgotten already is what its victim, which may
/// still come from elsewhere, must meet.
#[test]
fn in_quarantine_old_tombstones_are_taken_in() {
    let [a, b, c] = three();
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, 55);
    (0..20).for_each(|number| world.put(&a, &key(number), old(number, Content::Tombstone)));
    world.start_all();
    world.quarantine(&c, true, false);
    world.run_until(seconds(60), "it is in step", |world| world.is_in_step(&c, &a));
    assert_eq!(world.contents(&c).len(), 20);
    assert!(world.contents(&b).is_empty(), "who is not quarantined needs none");
}

/// Keys that are written all the time never look the same twice.
#[test]
fn a_quarantine_ends_under_steady_writes() {
    let [a, _, c] = three();
    let mut world = World::new(&THREE, 1, ConflictRule::Siblings, 56);
    world.start_all();
    world.quarantine(&c, true, false);
    let mut number = 0;
    for _ in 0..90 * 10 {
        for at in 0..20 {
            number += 1;
            let held = world.sites[&a].store.read(&key(at)).expect("memory reads");
            let version = version(number, held.context(), WALL_MS, value(50, 1));
            world.write(&key(at), &version.into(), 2_000_000);
        }
        world.run_for(Duration::from_millis(100));
        if world.is_in_step(&c, &a) {
            return;
        }
    }
    panic!("it never ends");
}
