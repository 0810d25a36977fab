//! Whatever the replicas hold, they hold the same after a round.

use std::{sync::Arc, time::Duration};

use anello_antientropy::store::TreeStore;
use anello_protocol::{
    causality::Context,
    id::NodeId,
    version::{ConflictRule, Content, Versions},
};
use proptest::prelude::*;

use crate::{
    content::{Contents, key, value, version},
    world::{Network, WALL_MS, World, node},
};

/// A write: its key, the node that takes it in, whether it deletes, whether its writer had read, and which
/// nodes it comes to.
type Write = (u64, usize, bool, bool, u8);

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = (0..40_u64, 0..6_usize, any::<bool>(), any::<bool>(), any::<u8>());
    prop::collection::vec(write, 0..150)
}

/// Has the writes happen, and says what all nodes have to hold in the end.
fn scatter(world: &mut World, writes: &[Write]) -> Contents {
    let nodes: Vec<NodeId> = world.sites.keys().cloned().collect();
    let mut all = Contents::new();
    for (number, (at_key, by, deletes, has_read, come_to)) in writes.iter().enumerate() {
        let (key, by) = (key(*at_key), &nodes[by % nodes.len()]);
        let held = world.sites[by].store.read(&key).expect("memory reads");
        let context = if *has_read { held.context() } else { Context::new() };
        let content = if *deletes { Content::Tombstone } else { value(30, number as u8) };
        let time = WALL_MS - 1000 + number as u64;
        let written: Versions = version(number as u64, context, time, content).into();
        for (index, node) in nodes.iter().enumerate() {
            if node == by || come_to & 1 << index != 0 {
                let mut held = world.sites[node].store.read(&key).expect("memory reads");
                held.merge(written.clone(), world.rule);
                world.put(node, &key, held);
            }
        }
        let joined = all.entry(key).or_default();
        Arc::make_mut(joined).merge(written, world.rule);
    }
    all
}

fn converges(ids: &[&str], rule: ConflictRule, network: Network, seed: u64, writes: &[Write]) {
    println!("seed {seed}");
    let mut world = World::new(ids, 4, rule, seed);
    world.network = network;
    let all = scatter(&mut world, writes);
    world.start_all();
    // Lost messages are a reason to need another round, and nothing else is.
    let rounds = if network.lost_permille > 0 { 5 } else { 1 };
    let limit = Duration::from_secs(55) * rounds;
    world.run_until(limit, "all hold the same", |world| {
        world.sites.keys().all(|id| world.contents(id) == all)
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn three_replicas_converge(seed: u64, writes in writes(), is_lww: bool) {
        let rule = if is_lww { ConflictRule::Lww } else { ConflictRule::Siblings };
        converges(&["eu-a", "eu-b", "eu-c"], rule, Network::GOOD, seed, &writes);
    }

    #[test]
    fn two_datacenters_converge_over_a_bad_network(seed: u64, writes in writes(), is_lww: bool) {
        let rule = if is_lww { ConflictRule::Lww } else { ConflictRule::Siblings };
        let ids = ["eu-a", "eu-b", "us-a", "us-b"];
        converges(&ids, rule, Network::BAD, seed, &writes);
    }
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    let run = || {
        let mut world = World::new(&["eu-a", "eu-b", "eu-c"], 8, ConflictRule::Siblings, 7);
        world.network = Network::BAD;
        let writes: Vec<Write> =
            (0..200).map(|it| (it % 60, it as usize, it % 5 == 0, it % 3 == 0, it as u8)).collect();
        scatter(&mut world, &writes);
        world.start_all();
        world.run_for(Duration::from_secs(200));
        (world.sent.bytes, world.sent.keys.clone(), world.figures(&node("eu-a")))
    };
    assert_eq!(run(), run());
}
