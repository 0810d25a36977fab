//! Founding and joining.

use proptest::prelude::*;

use super::fleet::{Fleet, id, member, ms};
use crate::Timing;

#[test]
fn a_sole_seed_founds_alone_and_at_once() {
    let mut fleet = Fleet::new(1, 1, 1);
    fleet.start_in(0, ms(0));
    let took = fleet.run_until(ms(500), "ready", |fleet| fleet.nodes[0].ready);
    assert!(took < ms(100), "{took:?}");
}

#[test]
fn an_empty_fleet_of_six_is_one_cluster_within_seconds() {
    for seed in 0..20 {
        let fleet = Fleet::formed(seed, 6);
        let epoch = fleet.nodes[0].cluster.as_ref().expect("a cluster").epoch.0;
        assert!(epoch <= 3, "nodes that ask within a second are taken in together: {epoch}");
        assert!(fleet.now.since(anello_protocol::time::Moment(1_000_000)) < ms(5_000));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn nodes_that_start_in_any_order_become_one_cluster(
        seed in any::<u64>(),
        starts in proptest::collection::vec(0u64..4_000, 1..9),
        seeds in 1usize..5,
        loss in 0usize..20,
    ) {
        let mut fleet = Fleet::new(seed, starts.len(), seeds.min(starts.len()));
        fleet.loss = loss;
        for (node, start) in starts.iter().enumerate() {
            fleet.start_in(node, ms(*start));
        }
        fleet.run_until(ms(20_000), "one cluster", Fleet::is_whole);
    }

    #[test]
    fn killing_nodes_while_they_form_does_no_harm(
        seed in any::<u64>(),
        kills in proptest::collection::vec((0usize..5, 0u64..3_000, any::<bool>()), 0..8),
    ) {
        let mut fleet = Fleet::new(seed, 5, 3);
        (0..5).for_each(|node| fleet.start_in(node, ms(0)));
        let mut kills = kills;
        kills.sort_by_key(|(_, at, _)| *at);
        let begin = fleet.now;
        for (node, at, _) in kills {
            let wait = ms(at).saturating_sub(fleet.now.since(begin));
            fleet.run(wait);
            fleet.kill(node);
            fleet.start_in(node, ms(200));
        }
        fleet.run_until(ms(30_000), "one cluster", Fleet::is_whole);
    }

    #[test]
    fn no_join_overtakes_a_write(
        seed in any::<u64>(),
        starts in proptest::collection::vec(0u64..2_000, 4),
        writes in proptest::collection::vec((0usize..4, 0u64..3_000), 1..4),
    ) {
        let mut fleet = Fleet::new(seed, 4, 1);
        for (node, start) in starts.iter().enumerate() {
            fleet.start_in(node, ms(*start));
        }
        let mut writes = writes;
        writes.sort_by_key(|(_, at)| *at);
        let begin = fleet.now;
        for (node, at) in writes {
            let wait = ms(at).saturating_sub(fleet.now.since(begin));
            fleet.run(wait);
            fleet.write(node);
        }
        // The fleet asserts that no data is there when its owners change.
        fleet.run(ms(8_000));
        for node in 0..4 {
            let taken = fleet.write(node);
            prop_assert!(taken || fleet.nodes[node].cluster.is_none(), "nobody stays frozen");
        }
    }
}

#[test]
fn only_a_majority_of_the_other_seeds_lets_the_first_found() {
    let mut fleet = Fleet::new(3, 5, 5);
    for node in [0, 1, 2] {
        fleet.start_in(node, ms(0));
    }
    fleet.run(ms(5_000));
    assert!(fleet.nodes.iter().all(|node| node.cluster.is_none()), "two of four is no majority");
    assert!(
        fleet.nodes[0].not_ready.contains("2 of 4 other seeds"),
        "{}",
        fleet.nodes[0].not_ready
    );
    fleet.start_in(3, ms(0));
    fleet.start_in(4, ms(2_000));
    fleet.run_until(ms(10_000), "one cluster", Fleet::is_whole);
}

#[test]
fn a_first_seed_that_lost_its_disk_joins_the_cluster_that_there_is() {
    for seed in 0..20 {
        let mut fleet = Fleet::formed(seed, 4);
        let before = fleet.nodes[1].cluster.clone();
        fleet.wipe(0);
        fleet.run(ms(seed * 300));
        fleet.start_in(0, ms(0));
        fleet.run_until(ms(8_000), "whole again", Fleet::is_whole);
        assert_eq!(fleet.nodes[0].cluster, before, "the same members as before");
    }
}

/// A new machine at the head of the seed list is no reason for a second cluster, even if most of the
/// seeds are new as well.
#[test]
fn one_word_of_a_cluster_and_nobody_founds_another() {
    let mut fleet = Fleet::new(13, 5, 1);
    (0..2).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run_until(ms(8_000), "two", |fleet| fleet.nodes[0].ready && fleet.nodes[1].ready);
    assert!(fleet.write(1));
    let address = |node: usize| member(node).quic;
    fleet.nodes[4].config.first_seed = true;
    fleet.nodes[4].config.other_seeds = vec![address(1), address(2), address(3)];
    for node in [2, 3] {
        fleet.nodes[node].config.other_seeds = vec![address(4)];
    }
    (2..5).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run_until(ms(60_000), "one cluster of all", Fleet::is_whole);
}

#[test]
fn a_lost_disk_costs_no_vote_for_ever() {
    // In a cluster of two every vote needs both; in one of three, the other two may lose theirs later.
    for (seed, size) in [(1, 2), (2, 3), (3, 6)] {
        let mut fleet = Fleet::formed(seed, size);
        fleet.wipe(size - 1);
        fleet.start_in(size - 1, ms(500));
        fleet.run_until(ms(8_000), "whole again", Fleet::is_whole);
        // Only its own node is told, which then serves nothing until it is filled.
        let told: Vec<_> = fleet.nodes.iter().map(|node| node.lost_disk).collect();
        assert!((0..size).all(|at| told[at] == (at == size - 1)), "{told:?}");
        fleet.run(ms(3_000));
        if size == 3 {
            fleet.kill(1);
            fleet.run(ms(5_000));
        }
        fleet.alter(0, 7, super::fleet::set("k", Default::default()));
        fleet.run_until(ms(5_000), "an answer", |fleet| fleet.nodes[0].answers.contains_key(&7));
        assert!(fleet.nodes[0].answers[&7].is_ok(), "{:?}", fleet.nodes[0].answers[&7]);
    }
}

#[test]
fn a_join_waits_for_a_member_that_can_not_be_reached() {
    let mut fleet = Fleet::new(6, 4, 1);
    (0..3).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run_until(ms(8_000), "three", |fleet| (0..3).all(|node| fleet.nodes[node].ready));
    fleet.kill(2);
    fleet.run(ms(6_000));
    fleet.start_in(3, ms(0));
    fleet.run(ms(4_000));
    assert!(fleet.nodes[3].not_ready.contains("waiting for n2"), "{}", fleet.nodes[3].not_ready);
    fleet.start_in(2, ms(0));
    fleet.run_until(ms(8_000), "four", Fleet::is_whole);
}

#[test]
fn other_partitions_or_another_rack_are_refused_for_good() {
    let mut fleet = Fleet::new(7, 3, 1);
    fleet.nodes[1].config.partitions = 32;
    (0..2).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run(ms(2_000));
    let refused = fleet.nodes[1].refused.clone().expect("refused");
    assert!(refused.contains("32 partitions") && refused.contains("64"), "{refused}");

    fleet.start_in(2, ms(0));
    fleet.run_until(ms(5_000), "two", |fleet| fleet.nodes[2].ready);
    fleet.kill(2);
    fleet.nodes[2].config.member.rack = "z".parse().expect("a good name");
    fleet.start_in(2, ms(0));
    fleet.run(ms(500));
    assert!(fleet.nodes[2].refused.as_ref().is_some_and(|reason| reason.contains("rack a")));
}

#[test]
fn nodes_of_another_cluster_are_not_heeded() {
    let mut fleet = Fleet::new(8, 2, 1);
    fleet.nodes[1].config.cluster = "other".parse().expect("a good name");
    (0..2).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run(ms(3_000));
    assert!(fleet.nodes[0].ready && fleet.nodes[1].cluster.is_none());
    assert_eq!(fleet.nodes[0].cluster.as_ref().map(|state| state.members.len()), Some(1));
}

#[test]
fn a_record_that_can_not_be_read_is_never_taken_for_none() {
    let mut fleet = Fleet::formed(9, 3);
    for record in [vec![], vec![0; 64], vec![1; 64], vec![1, 0, 0]] {
        fleet.kill(0);
        fleet.corrupt(0, record.clone());
        fleet.start_in(0, ms(0));
        fleet.run(ms(500));
        let refused = fleet.nodes[0].refused.take();
        assert!(refused.is_some_and(|reason| reason.contains("record")), "{record:?}");
    }
}

#[test]
fn data_without_a_record_is_no_empty_directory() {
    let mut fleet = Fleet::formed(10, 2);
    fleet.wipe(1);
    fleet.nodes[1].data.insert(anello_protocol::id::KeyspaceId(1), anello_protocol::id::Epoch(1));
    fleet.start_in(1, ms(0));
    fleet.run(ms(2_000));
    let refused = fleet.nodes[1].refused.clone().expect("refused");
    assert!(refused.contains("no membership record"), "{refused}");
}

#[test]
fn a_node_that_moved_tells_its_new_address() {
    let mut fleet = Fleet::formed(11, 3);
    fleet.kill(2);
    fleet.nodes[2].config.member.http = "10.0.0.99:80".into();
    fleet.start_in(2, ms(0));
    fleet.run_until(ms(5_000), "the new address is known", |fleet| {
        fleet.everybody(|node| {
            let state = node.cluster.as_ref();
            state.is_some_and(|state| state.members[&id(2)].http == "10.0.0.99:80")
        })
    });
    assert_eq!(
        member(2).quic,
        fleet.nodes[0].cluster.as_ref().expect("a cluster").members[&id(2)].quic
    );
}

#[test]
fn a_hundred_nodes_gossip_within_bounds() {
    let mut fleet = Fleet::new(12, 100, 3);
    (0..100).for_each(|node| fleet.start_in(node, ms(node as u64 * 10)));
    fleet.run_until(ms(20_000), "one cluster", Fleet::is_whole);
    let before = fleet.bytes;
    fleet.run(ms(4_000));
    let rounds = 4_000 / Timing::lan().round.as_millis() as u64;
    let per_round = (fleet.bytes - before) / rounds / 100;
    assert!(per_round < 24_000, "{per_round} bytes a node and round");
}
