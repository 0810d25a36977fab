//! What repair costs: only what differs travels, and finding it is cheap.

use std::{sync::Arc, time::Duration};

use anello_antientropy::Input;
use anello_protocol::{
    codec,
    id::{NodeId, PartitionId},
    version::ConflictRule,
};

use crate::{
    content::{first, key},
    world::{KEYSPACE, Sent, World, node},
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
    // 3 MB at 64 KiB/s, but for what is under way at the end.
    assert!(busy > Duration::from_secs(35) && busy < Duration::from_secs(60), "{busy:?}");
}

/// Six nodes, of which one has missed 400 keys of 1 KiB: what is sent until all have compared again.
fn sent_to_bring_one_back(seed: u64, mend: impl Fn(&mut World, &NodeId)) {
    let ids = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c"];
    let away = node("us-c");
    let mut world = World::new(&ids, 64, ConflictRule::Siblings, seed);
    for number in 0..400 {
        let versions = Arc::new(first(number, 1024));
        ids.iter().for_each(|id| world.put(&node(id), &key(number), versions.clone()));
    }
    world.start_all();
    world.run_for(Duration::from_secs(30));
    world.crash(&away);
    let mut differing = 0;
    for number in 400..800 {
        let versions = Arc::new(first(number, 1024));
        differing += key(number).key.as_bytes().len() + 1024;
        ids[..5].iter().for_each(|id| world.put(&node(id), &key(number), versions.clone()));
    }
    world.run_for(Duration::from_secs(3));
    world.sent = Sent::default();
    let counted = |world: &World, ids: &[&str]| -> u64 {
        ids.iter().map(|id| world.figures(&node(id)).bytes_sent).sum()
    };
    let before = counted(&world, &ids[..5]);
    world.start(&away);
    mend(&mut world, &away);
    world.run_until(Duration::from_secs(30), "it has caught up", |world| {
        world.contents(&away).len() == 800 && world.figures(&away).partitions_in_sync == 64
    });
    let rounds = ids.map(|id| (node(id), world.start_round(&node(id))));
    world.run_until(Duration::from_secs(30), "all have compared", |world| {
        let figures = rounds.iter().map(|(id, round)| (world.figures(id), round));
        let mut done =
            figures.map(|(it, round)| it.complete_up_to >= *round && it.partitions_in_sync == 64);
        done.all(|done| done)
    });
    world.run_for(Duration::from_secs(20));
    let sent = world.sent.bytes;
    assert!(sent * 5 < differing * 6, "{sent} bytes for {differing} that differ");
    assert_eq!(counted(&world, &ids) - before, sent as u64, "all is counted, once");
}

#[test]
fn one_that_was_away_fetches_what_it_missed_once_and_cheaply() {
    for seed in 0..8 {
        sent_to_bring_one_back(seed, |_, _| {});
    }
}

#[test]
fn an_operators_round_costs_no_more() {
    for seed in 0..8 {
        sent_to_bring_one_back(seed, |world, away| {
            world.run_for(Duration::from_millis(400 * seed));
            world.start_round(away);
        });
    }
}

#[test]
fn nor_do_the_marks_of_all_who_dropped_hints_for_it() {
    for seed in 0..8 {
        sent_to_bring_one_back(seed, |world, away| {
            for _ in 0..5 {
                let marked = (0..64).map(|partition| (KEYSPACE, PartitionId(partition)));
                world.input(away, Input::MarkForRepair(marked.collect()));
                world.run_for(Duration::from_millis(300));
            }
            world.start_round(away);
        });
    }
}
