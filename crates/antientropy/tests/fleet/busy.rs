//! Under clients' writes healthy replicas differ all the time, and nothing is moved for that.

use std::time::Duration;

use anello_antientropy::store::TreeStore;
use anello_protocol::version::ConflictRule;

use crate::{
    content::{first, key, value, version},
    world::{WALL_MS, World, node},
};

const THREE: [&str; 3] = ["eu-a", "eu-b", "eu-c"];

/// Writes keys that come to every replica within 100 ms, 200 a second.
fn write_for(world: &mut World, seconds: u64, keys: u64, number: &mut u64) {
    for _ in 0..seconds * 200 {
        *number += 1;
        let key = key(world.chance.below(keys));
        let held = world.sites[&node("eu-a")].store.read(&key).expect("memory reads");
        let version = version(1_000_000 + *number, held.context(), WALL_MS, value(50, 1));
        world.write(&key, &version.into(), 100_000);
        world.run_for(Duration::from_millis(5));
    }
}

#[test]
fn a_busy_healthy_fleet_moves_nothing() {
    let mut world = World::new(&THREE, 16, ConflictRule::Siblings, 11);
    for number in 0..500 {
        THREE.iter().for_each(|id| world.put(&node(id), &key(number), first(number, 50)));
    }
    world.start_all();
    let mut number = 0;
    write_for(&mut world, 150, 5000, &mut number);
    let units: u64 = THREE.iter().map(|id| world.figures(&node(id)).hashes_compared).sum();
    assert!(units > 1000, "trees were walked: {units}");
    assert_eq!(world.sent.keys.len(), 0, "but nothing was moved");
    world.run_for(Duration::from_secs(130));
    for id in THREE {
        let figures = world.figures(&node(id));
        assert_eq!(figures.partitions_in_sync, 16, "{id}: {figures:?}");
    }
}

#[test]
fn what_is_really_missing_is_mended_under_writes() {
    let mut world = World::new(&THREE, 4, ConflictRule::Siblings, 12);
    for number in 0..500 {
        let sides = if number % 50 == 7 { &THREE[..2] } else { &THREE[..] };
        sides.iter().for_each(|id| world.put(&node(id), &key(number), first(number, 50)));
    }
    world.start_all();
    let mut number = 0;
    // Other keys than those that are missing are written.
    for _ in 0..30 * 200 {
        number += 1;
        let key = key(10_000 + world.chance.below(2000));
        let held = world.sites[&node("eu-a")].store.read(&key).expect("memory reads");
        let version = version(1_000_000 + number, held.context(), WALL_MS, value(50, 1));
        world.write(&key, &version.into(), 100_000);
        world.run_for(Duration::from_millis(5));
    }
    let contents = world.contents(&node("eu-c"));
    assert!((0..500).all(|number| contents.contains_key(&key(number))), "all are there");
    assert_eq!(world.sent.keys.len(), 10, "{:?}", world.sent.keys);
}

#[test]
fn a_key_that_never_rests_is_left_alone_until_it_does() {
    let mut world = World::new(&THREE, 2, ConflictRule::Siblings, 13);
    world.start_all();
    let mut number = 0;
    // Each write replaces the one before, and takes up to two seconds to some of the replicas.
    for _ in 0..120 * 10 {
        number += 1;
        let held = world.sites[&node("eu-a")].store.read(&key(1)).expect("memory reads");
        let version = version(number, held.context(), WALL_MS, value(50, 1));
        world.write(&key(1), &version.into(), 2_000_000);
        world.run_for(Duration::from_millis(100));
    }
    let moved: usize = world.sent.keys.values().sum();
    assert!(moved <= 4, "by chance it looks at rest at times: {moved}");
    for id in THREE {
        let site = &world.sites[&node(id)];
        assert!(site.reports.is_empty(), "nothing that people had to hear of: {:?}", site.reports);
    }
    world.run_for(Duration::from_secs(150));
    for id in THREE {
        assert_eq!(world.figures(&node(id)).partitions_in_sync, 2, "{id}");
    }
}

/// Trees differ all the time, most of them by what is only on its way, and each is walked with one node while
/// the others wait. All nodes are compared with all the same, round after round.
#[test]
fn rounds_end_under_writes_that_never_do() {
    const NODES: [&str; 6] = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c"];
    const WRITES: u64 = 1_500;
    let mut world = World::new(&NODES, 128, ConflictRule::Siblings, 7);
    world.start_all();
    for second in 0..40 {
        for number in second * WRITES..(second + 1) * WRITES {
            world.write(&key(number), &first(number, 10), 100_000);
            world.run_for(Duration::from_secs(1) / WRITES as u32);
        }
    }
    let rounds = NODES.map(|id| world.figures(&node(id)).rounds);
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
}
