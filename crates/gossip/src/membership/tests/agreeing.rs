//! Changes of keyspaces: voted on, known everywhere, never two at once, never by a minority.

use std::collections::BTreeMap;

use anello_protocol::{
    cluster::{KeyspaceConfig, Purpose, Replication},
    id::{Epoch, KeyspaceName},
    message::admin::{AlterError, AlterKeyspace, KeyspaceChange},
};
use proptest::prelude::*;

use super::fleet::{Fleet, ms, set};

fn answered(fleet: &mut Fleet, node: usize, token: u64) -> Result<Epoch, AlterError> {
    fleet.run_until(ms(6_000), "an answer", |fleet| fleet.nodes[node].answers.contains_key(&token));
    fleet.nodes[node].answers[&token].clone()
}

fn has(fleet: &Fleet, node: usize, name: &str) -> bool {
    let name = KeyspaceName::new(name).expect("a good name");
    fleet.nodes[node].cluster.as_ref().is_some_and(|state| state.keyspaces.contains_key(&name))
}

fn grace(seconds: u64) -> KeyspaceConfig {
    KeyspaceConfig { tombstone_grace_s: seconds, ..KeyspaceConfig::default() }
}

#[test]
fn a_new_keyspace_is_known_everywhere_once_it_is_answered() {
    let mut fleet = Fleet::formed(1, 6);
    fleet.alter(3, 1, set("k", grace(5)));
    let begin = fleet.now;
    answered(&mut fleet, 3, 1).expect("created");
    assert!(fleet.now.since(begin) < ms(500));
    assert!((0..6).all(|node| has(&fleet, node, "k")));
    let drop = AlterKeyspace { name: "k".parse().expect("good"), change: KeyspaceChange::Drop };
    fleet.alter(2, 2, drop.clone());
    answered(&mut fleet, 2, 2).expect("dropped");
    assert!((0..6).all(|node| !has(&fleet, node, "k")));
    fleet.alter(2, 3, drop);
    assert!(matches!(answered(&mut fleet, 2, 3), Err(AlterError::NoSuchKeyspace(_))));
}

#[test]
fn changes_at_all_nodes_at_once_all_come_about() {
    for seed in 0..20 {
        let mut fleet = Fleet::formed(seed, 6);
        for node in 0..6 {
            fleet.alter(node, 1, set(&format!("k{node}"), grace(node as u64)));
            fleet.alter(node, 2, set(&format!("l{node}"), grace(node as u64)));
        }
        for node in 0..6 {
            answered(&mut fleet, node, 1).expect("created");
            answered(&mut fleet, node, 2).expect("created");
        }
        for node in 0..6 {
            assert!((0..6).all(|at| has(&fleet, at, &format!("k{node}"))));
            assert!((0..6).all(|at| has(&fleet, at, &format!("l{node}"))));
        }
    }
}

#[test]
fn a_minority_changes_nothing_and_says_so_at_once() {
    let mut fleet = Fleet::formed(2, 5);
    fleet.cut(&[3, 4]);
    // Before the cut is noticed: the ballot finds too few.
    fleet.alter(3, 1, set("k", grace(5)));
    let result = answered(&mut fleet, 3, 1);
    assert!(matches!(result, Err(AlterError::Unavailable { required: 3, .. })), "{result:?}");
    fleet.run(ms(5_000));
    // And after: nothing is even tried.
    let begin = fleet.now;
    fleet.alter(4, 2, set("k", grace(5)));
    let unavailable = AlterError::Unavailable { required: 3, alive: 2 };
    assert_eq!(answered(&mut fleet, 4, 2), Err(unavailable));
    assert_eq!(fleet.now, begin);
    fleet.alter(0, 3, set("m", grace(5)));
    answered(&mut fleet, 0, 3).expect("the majority goes on");
    fleet.heal();
    fleet.run_until(ms(5_000), "whole again", Fleet::is_whole);
    assert!((0..5).all(|node| has(&fleet, node, "m") && !has(&fleet, node, "k")));
}

#[test]
fn replication_of_a_keyspace_with_data_changes_in_phases() {
    let mut fleet = Fleet::formed(3, 4);
    let one = Replication::PerDatacenter(BTreeMap::from([("eu".parse().expect("good"), 1)]));
    let config = KeyspaceConfig { replication: one, ..KeyspaceConfig::default() };
    fleet.alter(0, 1, set("other", KeyspaceConfig::default()));
    answered(&mut fleet, 0, 1).expect("created");
    assert!(fleet.write(2));
    // The node that is asked holds nothing itself: the vote finds out.
    fleet.alter(0, 2, set("default", config.clone()));
    answered(&mut fleet, 0, 2).expect("it has begun");
    let change = fleet.nodes[0].cluster.as_ref().and_then(|state| state.change.clone());
    let purpose = change.map(|change| change.purpose);
    assert_eq!(purpose, Some(Purpose::Replicate("default".parse().expect("good"))));
    fleet.run(ms(100));
    assert!((0..4).all(|node| fleet.write(node)), "all have thawed");
    fleet.run_until(ms(30_000), "it is through", |fleet| {
        fleet.everybody(|node| node.cluster.as_ref().is_some_and(|it| it.change.is_none()))
    });
    // What moves nothing goes through, and so does the replication of an empty keyspace.
    let calm = KeyspaceConfig { tombstone_grace_s: 9, ..config.clone() };
    fleet.alter(1, 3, set("default", calm));
    answered(&mut fleet, 1, 3).expect("nothing moves");
    fleet.alter(3, 4, set("other", config));
    answered(&mut fleet, 3, 4).expect("it is empty");
    fleet.run(ms(100));
    assert!((0..4).all(|node| fleet.write(node)), "all have thawed");
}

#[test]
fn what_a_killed_proposer_froze_is_thawed_by_the_others() {
    let mut thawed_late = 0;
    for seed in 0..30 {
        let mut fleet = Fleet::formed(seed, 5);
        let one = Replication::PerDatacenter(BTreeMap::from([("eu".parse().expect("good"), 1)]));
        let config = KeyspaceConfig { replication: one, ..KeyspaceConfig::default() };
        fleet.alter(4, 1, set("default", config));
        fleet.run(ms(seed));
        fleet.kill(4);
        let frozen = (0..4).any(|node| !fleet.write(node));
        thawed_late += usize::from(frozen);
        fleet.run(ms(3_000));
        assert!((0..4).all(|node| fleet.write(node)), "{}", fleet.notes.join("\n"));
    }
    assert!(thawed_late > 5, "the kills came too early or too late to show anything");
}

/// A voter is killed around the moment of its promise, comes back cut off from the others, and is written to:
/// the move that it has promised to hold still for may be chosen without it.
#[test]
fn a_promise_to_hold_still_outlives_a_crash() {
    let mut held_still = 0;
    for seed in 0..120 {
        let mut fleet = Fleet::formed(seed, 3);
        let one = Replication::PerDatacenter(BTreeMap::from([("eu".parse().expect("good"), 1)]));
        let config = KeyspaceConfig { replication: one, ..KeyspaceConfig::default() };
        fleet.alter(0, 1, set("default", config));
        fleet.run(ms(2 + seed % 24));
        fleet.kill(2);
        fleet.cut(&[2]);
        fleet.start_in(2, ms(1));
        fleet.run_until(ms(4_000), "ready", |fleet| fleet.nodes[2].ready);
        held_still += usize::from(!fleet.write(2));
        fleet.run(ms(2_500));
        // The fleet asserts that nothing is there when owners change.
        fleet.heal();
        fleet.run_until(ms(15_000), "whole again", Fleet::is_whole);
        fleet.run(ms(4_000));
        assert!((0..3).all(|node| fleet.write(node)), "nobody stays frozen");
    }
    assert!(held_still > 10, "only {held_still} kills came at the right moment");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The fleet asserts that no data is there when its owners change.
    #[test]
    fn no_move_overtakes_a_write(
        seed in any::<u64>(),
        turns in proptest::collection::vec((0usize..10, 0usize..3, 0u64..30), 1..80),
    ) {
        let mut fleet = Fleet::formed(seed, 3);
        for (number, (what, node, wait)) in turns.into_iter().enumerate() {
            match what {
                0 => {
                    fleet.kill(node);
                    fleet.start_in(node, ms(5));
                }
                1 => fleet.cut(&[node]),
                2 => fleet.heal(),
                3 => fleet.nodes.iter_mut().for_each(|node| node.data.clear()),
                4 | 5 => {
                    let count = u16::try_from(number % 2 + 1).expect("small");
                    let counts = BTreeMap::from([("eu".parse().expect("good"), count)]);
                    let replication = Replication::PerDatacenter(counts);
                    let config = KeyspaceConfig { replication, ..KeyspaceConfig::default() };
                    fleet.alter(node, number as u64, set("default", config));
                }
                6 => fleet.run(ms(wait * 40)),
                _ => {
                    fleet.write(node);
                }
            }
            fleet.run(ms(wait));
        }
        fleet.heal();
        fleet.run_until(ms(15_000), "whole again", Fleet::is_whole);
        fleet.run(ms(4_000));
        prop_assert!((0..3).all(|node| fleet.write(node)), "nobody stays frozen");
    }

    /// The fleet asserts that there is one state a number.
    #[test]
    fn whatever_fails_there_is_one_state_a_number(
        seed in any::<u64>(),
        turns in proptest::collection::vec((0usize..6, 0usize..5, 0u64..800), 1..40),
    ) {
        let mut fleet = Fleet::formed(seed, 5);
        fleet.loss = 5;
        let mut acknowledged = vec![];
        for (number, (what, node, wait)) in turns.into_iter().enumerate() {
            match what {
                0 => {
                    fleet.kill(node);
                    fleet.start_in(node, ms(300));
                }
                1 => fleet.cut(&[node, (node + 1) % 5]),
                2 => fleet.heal(),
                _ => fleet.alter(node, number as u64, set(&format!("k{number}"), grace(1))),
            }
            // Now and then so short that votes and saves are caught under way.
            fleet.run(ms(if wait.is_multiple_of(2) { wait / 40 } else { wait }));
        }
        fleet.heal();
        fleet.loss = 0;
        fleet.run_until(ms(15_000), "whole again", Fleet::is_whole);
        for node in &fleet.nodes {
            acknowledged.extend(node.answers.iter().filter(|(_, a)| a.is_ok()).map(|(t, _)| *t));
        }
        for token in acknowledged {
            prop_assert!(has(&fleet, 0, &format!("k{token}")), "an acknowledged change is lost");
        }
    }
}
