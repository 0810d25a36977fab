//! The ring changes while the cluster holds data: by phases, one change at a time, whoever dies.

use anello_protocol::{
    cluster::{MemberState, Phase, Purpose},
    id::Epoch,
    message::admin::{AlterError, RingRequest},
};

use super::fleet::{Fleet, id, ms};
use crate::dice::Dice;

/// Nodes of which some are members of a cluster that holds data; the others are switched off.
fn with_data(seed: u64, members: usize, nodes: usize) -> Fleet {
    let mut fleet = Fleet::new(seed, nodes, 3.min(members));
    (0..members).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run_until(ms(10_000), "they form", |fleet| {
        (0..members).all(|node| fleet.nodes[node].ready)
            && fleet.nodes[0].cluster.as_ref().is_some_and(|it| it.members.len() == members)
    });
    fleet.run(ms(2_000));
    (0..members).for_each(|node| assert!(fleet.write(node)));
    fleet
}

fn is_settled(fleet: &Fleet, members: &[usize]) -> bool {
    members.iter().all(|node| {
        fleet.nodes[*node].cluster.as_ref().is_some_and(|state| {
            let up = |member: &usize| {
                state.members.get(&id(*member)).is_some_and(|it| it.state == MemberState::Up)
            };
            state.change.is_none() && state.members.len() == members.len() && members.iter().all(up)
        })
    })
}

fn answer(fleet: &mut Fleet, node: usize, token: u64) -> Result<Epoch, AlterError> {
    fleet.run_until(ms(8_000), "an answer", |f| f.nodes[node].answers.contains_key(&token));
    fleet.nodes[node].answers[&token].clone()
}

#[test]
fn nodes_join_a_cluster_that_holds_data_and_nobody_stops_writing() {
    for seed in 0..10 {
        let mut fleet = with_data(seed, 4, 6);
        fleet.start_in(4, ms(0));
        fleet.start_in(5, ms(300));
        fleet.run_until(ms(8_000), "they are being filled", |fleet| {
            fleet.nodes[0].cluster.as_ref().is_some_and(|state| {
                state.members.get(&id(4)).is_some_and(|it| it.state == MemberState::Joining)
            })
        });
        let mut wrote = true;
        fleet.run_until(ms(40_000), "they own their shares", |fleet| {
            wrote &= (0..4).all(|node| fleet.nodes[node].ready);
            is_settled(fleet, &[0, 1, 2, 3, 4, 5])
        });
        assert!(wrote && (0..6).all(|node| fleet.write(node)), "nobody was frozen");
    }
}

#[test]
fn a_node_leaves_and_knows_when_it_has() {
    let mut fleet = with_data(1, 5, 5);
    fleet.alter_ring(3, 1, RingRequest::Leave(id(1)));
    assert!(answer(&mut fleet, 3, 1).is_ok());
    assert!(!fleet.nodes[1].left, "only once others hold what it held");
    fleet.run_until(ms(40_000), "four are left", |fleet| is_settled(fleet, &[0, 2, 3, 4]));
    fleet.run_until(ms(5_000), "it knows", |fleet| fleet.nodes[1].left);
    // The same again changes nothing, and its name is used up.
    fleet.alter_ring(2, 2, RingRequest::Leave(id(1)));
    assert!(answer(&mut fleet, 2, 2).is_ok());
    fleet.wipe(1);
    fleet.start_in(1, ms(0));
    fleet.run_until(ms(8_000), "it is told", |fleet| fleet.nodes[1].refused.is_some());
}

/// T28: a node that was taken out while it was away comes back with all that it had.
#[test]
fn a_removed_node_that_comes_back_is_told_and_heeded_by_nobody() {
    for seed in 0..10 {
        let mut fleet = with_data(seed, 5, 5);
        fleet.kill(2);
        fleet.run_until(ms(15_000), "it is missed", |fleet| {
            [0, 1, 3, 4].iter().all(|node| fleet.nodes[*node].reachable.get(&id(2)) == Some(&false))
        });
        fleet.alter_ring(4, 1, RingRequest::Remove(id(2)));
        assert!(answer(&mut fleet, 4, 1).is_ok());
        if seed % 2 == 0 {
            fleet.run_until(ms(40_000), "four are left", |f| is_settled(f, &[0, 1, 3, 4]));
        }
        fleet.start_in(2, ms(0));
        fleet.run_until(ms(10_000), "it is told", |fleet| fleet.nodes[2].refused.is_some());
        assert!(!fleet.nodes[2].ready);
        fleet.run_until(ms(40_000), "four are left", |f| is_settled(f, &[0, 1, 3, 4]));
    }
}

/// T15, T27: two operators at once. One wins, the other is told.
#[test]
fn of_two_changes_at_once_one_wins_and_the_other_is_told() {
    for seed in 0..30 {
        let mut fleet = with_data(seed, 8, 8);
        fleet.alter_ring(0, 1, RingRequest::Leave(id(1)));
        fleet.run(ms(seed % 7));
        fleet.alter_ring(4, 2, RingRequest::Leave(id(2)));
        let results = [answer(&mut fleet, 0, 1), answer(&mut fleet, 4, 2)];
        let won = results.iter().filter(|result| result.is_ok()).count();
        let told =
            |it: &Result<_, _>| matches!(it, Err(AlterError::UnderWay(why)) if !why.is_empty());
        assert_eq!(won, 1, "{results:?}");
        assert_eq!(results.iter().filter(|it| told(it)).count(), 1, "{results:?}");
        fleet.run_until(ms(40_000), "it is through", |fleet| {
            let state = fleet.nodes[0].cluster.as_ref().expect("a cluster");
            state.change.is_none()
        });
    }
}

/// The member that drives a change dies at some moment: the next one takes it on.
#[test]
fn a_change_outlives_its_driver() {
    for seed in 0..20 {
        let mut fleet = with_data(seed, 6, 7);
        let mut dice = Dice::new(seed);
        fleet.start_in(6, ms(0));
        fleet.run(dice.between(ms(1_000), ms(9_000)));
        fleet.kill(0);
        fleet.run(dice.between(ms(100), ms(12_000)));
        fleet.start_in(0, ms(0));
        fleet.run_until(ms(60_000), "it is through", |fleet| {
            is_settled(fleet, &[0, 1, 2, 3, 4, 5, 6])
        });
    }
}

#[test]
fn without_a_majority_nothing_changes() {
    let mut fleet = with_data(3, 5, 5);
    fleet.cut(&[3, 4]);
    fleet.run(ms(8_000));
    fleet.alter_ring(3, 1, RingRequest::Leave(id(4)));
    let told = answer(&mut fleet, 3, 1);
    assert!(matches!(told, Err(AlterError::Unavailable { required: 3, .. })), "{told:?}");
    fleet.heal();
    fleet.run(ms(8_000));
    assert!(is_settled(&fleet, &[0, 1, 2, 3, 4]), "as before");
}

/// What is under way waits for a node that has died: its operator says so, and it goes on; the dead
/// node is taken out after that.
#[test]
fn a_node_that_dies_while_the_ring_changes_can_be_removed() {
    for (seed, dead) in [(1, 2), (2, 5)] {
        let mut fleet = with_data(seed, 5, 6);
        fleet.filling = (ms(3_000), ms(9_000));
        fleet.start_in(5, ms(0));
        fleet.run_until(ms(8_000), "it is being filled", |fleet| {
            fleet.nodes[5].cluster.as_ref().is_some_and(|state| state.change.is_some())
        });
        fleet.run(ms(500));
        fleet.kill(dead);
        fleet.run(ms(30_000));
        let state = fleet.nodes[0].cluster.clone().expect("a cluster");
        assert!(state.change.is_some(), "it waits for what it needs");
        fleet.alter_ring(1, 1, RingRequest::Remove(id(dead)));
        assert!(answer(&mut fleet, 1, 1).is_ok());
        let left: Vec<usize> = (0..6).filter(|node| *node != dead).collect();
        fleet.run_until(ms(120_000), "both are through", |fleet| is_settled(fleet, &left));
    }
}

#[test]
fn a_node_takes_a_dead_ones_place() {
    let mut fleet = with_data(4, 5, 6);
    fleet.kill(3);
    fleet.run(ms(10_000));
    fleet.alter_ring(0, 1, RingRequest::Replace { old: id(3), new: id(5) });
    assert!(answer(&mut fleet, 0, 1).is_ok());
    fleet.start_in(5, ms(2_000));
    fleet.run_until(ms(15_000), "one change for both", |fleet| {
        let state = fleet.nodes[0].cluster.as_ref().expect("a cluster");
        state
            .change
            .as_ref()
            .is_some_and(|change| change.purpose == Purpose::Replace { old: id(3), new: id(5) })
    });
    fleet.run_until(ms(60_000), "it is through", |fleet| is_settled(fleet, &[0, 1, 2, 4, 5]));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_sentence() {
    let mut fleet = with_data(5, 1, 1);
    let bad = [
        (RingRequest::Leave(id(9)), "no member"),
        (RingRequest::Leave(id(0)), "last node"),
        (RingRequest::Remove(id(0)), "last node"),
        (RingRequest::Weigh { node: id(0), weight: -1.0 }, "weight"),
        (RingRequest::Weigh { node: id(0), weight: f64::NAN }, "weight"),
        (RingRequest::Replace { old: id(0), new: id(0) }, "own place"),
    ];
    for (token, (request, sentence)) in bad.into_iter().enumerate() {
        fleet.alter_ring(0, token as u64, request);
        match answer(&mut fleet, 0, token as u64) {
            Err(AlterError::Invalid(why)) => assert!(why.contains(sentence), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

/// Packets get lost, nodes are killed and paused, operators ask for this and that: the fleet checks every
/// state, and in the end every change is through.
#[test]
fn whatever_happens_phases_keep_their_order() {
    for seed in 100..130 {
        let mut fleet = with_data(seed, 5, 8);
        let mut dice = Dice::new(seed);
        fleet.loss = dice.below(20);
        let mut token = 0;
        for _ in 0..25 {
            let node = dice.below(8);
            match dice.below(8) {
                0 if fleet.is_dead(5 + node % 3) => fleet.start_in(5 + node % 3, ms(0)),
                1 => fleet.kill(node),
                2 => fleet.pause(node),
                3 | 4 => {
                    token += 1;
                    let weight = 1.0 + dice.below(3) as f64;
                    fleet.alter_ring(
                        node,
                        token,
                        RingRequest::Weigh { node: id(dice.below(6)), weight },
                    );
                }
                _ => {}
            }
            fleet.run(dice.between(ms(100), ms(4_000)));
            if dice.below(2) == 0 {
                (0..8).for_each(|node| fleet.resume(node));
                (0..5)
                    .filter(|node| fleet.is_dead(*node))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|node| {
                        fleet.start_in(node, ms(0));
                    });
            }
        }
        fleet.loss = 0;
        (0..8).for_each(|node| fleet.resume(node));
        (0..8).filter(|node| fleet.is_dead(*node)).collect::<Vec<_>>().into_iter().for_each(
            |node| {
                fleet.start_in(node, ms(0));
            },
        );
        fleet.run_until(ms(180_000), "all is through", |fleet| {
            is_settled(fleet, &[0, 1, 2, 3, 4, 5, 6, 7])
        });
        let done =
            |fleet: &Fleet| fleet.nodes[0].cluster.as_ref().is_some_and(|it| it.change.is_none());
        assert!(done(&fleet) && Phase::Done.next() == Phase::Done);
    }
}
