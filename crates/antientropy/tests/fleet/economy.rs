//! What repair costs: only what differs travels, and finding it is cheap.

use std::{sync::Arc, time::Duration};

use anello_antientropy::Input;
use anello_protocol::{codec, version::ConflictRule};

use crate::{
    content::{first, key},
    world::{World, node},
};

const TWO: [&str; 2] = ["eu-a", "eu-b"];

#[test]
fn only_what_differs_travels_and_once() {
    let (a, b) = (node("eu-a"), node("eu-b"));
    let mut world = World::new(&TWO, 8, ConflictRule::Siblings, 1);
    let mut differing = 0;
    for number in 0..3000 {
        let versions = Arc::new(first(number, 1000));
        let sides = match number % 10 {
            0 => vec![&a],
            1 => vec![&b],
            _ => vec![&a, &b],
        };
        if sides.len() < 2 {
            differing += codec::encode(&*versions).len();
        }
        sides.into_iter().for_each(|side| world.put(side, &key(number), versions.clone()));
    }
    world.start_all();
    let is_same = |world: &World| world.contents(&a) == world.contents(&b);
    world.run_until(Duration::from_secs(30), "both are the same", is_same);
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.sent.keys.len(), 600, "only differing keys");
    assert!(world.sent.keys.values().all(|times| *times == 1), "each once");
    let most = differing * 12 / 10 + 60_000;
    assert!(world.sent.bytes < most, "{} of {differing}", world.sent.bytes);
    assert_eq!(world.figures(&a).keys_repaired() + world.figures(&b).keys_repaired(), 600);
}

#[test]
fn an_empty_replica_is_filled_by_one_of_the_others() {
    let ids = ["eu-a", "eu-b", "eu-c"];
    let mut world = World::new(&ids, 4, ConflictRule::Siblings, 2);
    for number in 0..2000 {
        let versions = Arc::new(first(number, 100));
        world.put(&node("eu-a"), &key(number), versions.clone());
        world.put(&node("eu-c"), &key(number), versions);
    }
    world.start_all();
    world.run_until(Duration::from_secs(50), "b is filled", |world| {
        world.contents(&node("eu-b")).len() == 2000
    });
    world.run_for(Duration::from_secs(60));
    // Only what comes from both at the very same moment.
    let twice = world.sent.keys.values().filter(|times| **times > 1).count();
    assert!(twice < 20, "{twice} keys travelled twice");
}

/// 100 keys of a million differ.
fn of_a_million(partitions: u32) -> usize {
    let (a, b) = (node("eu-a"), node("eu-b"));
    let mut world = World::new(&TWO, partitions, ConflictRule::Siblings, 3);
    for number in 0..1_000_000 {
        let versions = Arc::new(first(number, 8));
        if number % 10_000 != 17 {
            world.put(&b, &key(number), versions.clone());
        }
        world.put(&a, &key(number), versions);
    }
    world.start_all();
    world.run_until(Duration::from_secs(30), "they are in step", |world| {
        world.figures(&a).keys_sent + world.figures(&b).keys_pulled == 100
    });
    world.sent.bytes
}

#[test]
fn a_hundred_of_a_million_keys_are_found_cheaply() {
    let bytes = of_a_million(16);
    assert!(bytes < 200_000, "{bytes} bytes");
}

#[test]
fn a_hundred_of_a_million_keys_are_found_cheaply_in_one_large_tree() {
    let bytes = of_a_million(1);
    assert!(bytes < 200_000, "{bytes} bytes");
}

#[test]
fn in_step_a_fleet_is_quiet() {
    let ids = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c"];
    let mut world = World::new(&ids, 256, ConflictRule::Siblings, 4);
    for number in 0..2000 {
        let versions = Arc::new(first(number, 100));
        ids.iter().for_each(|id| world.put(&node(id), &key(number), versions.clone()));
    }
    world.start_all();
    world.run_for(Duration::from_secs(600));
    let each = world.sent.bytes / 600 / ids.len() / (ids.len() - 1);
    assert!(each < 2048, "{each} bytes a second from each node to each");
    assert!(world.sent.keys.is_empty(), "nothing is moved");
    for id in ids {
        let figures = world.figures(&node(id));
        assert_eq!(figures.partitions_in_sync, 256, "{id}: {figures:?}");
        assert!(figures.rounds >= 9, "{id}: {figures:?}");
        assert!(figures.oldest_verified_s.is_some_and(|age| age < 150), "{id}: {figures:?}");
    }
}

#[test]
fn clients_come_first_but_repair_goes_on() {
    let (a, b) = (node("eu-a"), node("eu-b"));
    let took = |pressure| {
        let mut world = World::new(&TWO, 4, ConflictRule::Siblings, 5);
        for number in 0..300 {
            world.put(&a, &key(number), first(number, 10_000));
        }
        world.start_all();
        for id in [&a, &b] {
            world.input(id, Input::Pressure(pressure));
        }
        world.run_until(Duration::from_secs(100), "it is repaired", |world| {
            world.contents(&b).len() == 300
        })
    };
    let (idle, busy) = (took(0), took(100));
    assert!(idle < Duration::from_secs(8), "{idle:?}");
    // 3 MB at 64 KiB/s.
    assert!(busy > Duration::from_secs(40) && busy < Duration::from_secs(60), "{busy:?}");
}
