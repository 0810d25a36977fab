//! Failure detection: who is killed, stopped, paused or cut off is noticed, and nobody else.

use super::fleet::{Fleet, id, ms};

fn knows(fleet: &Fleet, who: usize, reachable: bool) -> bool {
    let others = fleet.nodes.iter().enumerate().filter(|(number, _)| *number != who);
    others.into_iter().all(|(_, node)| node.reachable.get(&id(who)) == Some(&reachable))
}

#[test]
fn the_killed_are_known_unreachable_within_four_seconds_and_back_within_one() {
    for (seed, size) in [(1, 2), (2, 3), (3, 6), (4, 6), (5, 12), (6, 40)] {
        let mut fleet = Fleet::formed(seed, size);
        fleet.run(ms(10_000 + seed * 77));
        fleet.kill(size - 1);
        let took = fleet
            .run_until(ms(5_000), "the kill is noticed", |fleet| knows(fleet, size - 1, false));
        assert!(took < ms(4_000) || size > 12, "{size} nodes noticed after {took:?}");
        fleet.run(ms(10_000));
        fleet.start_in(size - 1, ms(0));
        let took = fleet.run_until(ms(3_000), "the return is noticed", |fleet| {
            knows(fleet, size - 1, true) && fleet.nodes[size - 1].ready
        });
        assert!(took < ms(2_500), "{size} nodes noticed the return after {took:?}");
    }
}

#[test]
fn who_says_goodbye_is_unreachable_at_once() {
    let mut fleet = Fleet::formed(1, 6);
    fleet.stop(3);
    let took = fleet.run_until(ms(1_000), "the stop is noticed", |fleet| knows(fleet, 3, false));
    assert!(took < ms(600), "{took:?}");
}

#[test]
fn slow_links_and_pauses_of_a_second_make_nobody_nervous() {
    let mut fleet = Fleet::new(2, 6, 3);
    fleet.delay = (ms(60), ms(100));
    fleet.loss = 5;
    (0..6).for_each(|node| fleet.start_in(node, ms(0)));
    fleet.run_until(ms(10_000), "the fleet forms", Fleet::is_whole);
    let before: usize = fleet.nodes.iter().map(|node| node.flips).sum();
    for turn in 0..60 {
        fleet.pause(turn % 6);
        fleet.run(ms(1_000));
        fleet.resume(turn % 6);
        fleet.run(ms(700));
    }
    let after: usize = fleet.nodes.iter().map(|node| node.flips).sum();
    assert_eq!(after, before, "{}", fleet.notes.join("\n"));
}

#[test]
fn who_was_paused_for_long_does_not_give_up_the_others() {
    let mut fleet = Fleet::formed(3, 5);
    fleet.run(ms(3_000));
    let before = fleet.nodes[2].flips;
    fleet.pause(2);
    fleet.run(ms(30_000));
    assert!(knows(&fleet, 2, false));
    fleet.resume(2);
    fleet.run_until(ms(3_000), "it is back", |fleet| knows(fleet, 2, true));
    fleet.run(ms(3_000));
    assert_eq!(fleet.nodes[2].flips, before, "{}", fleet.notes.join("\n"));
}

#[test]
fn both_sides_of_a_cut_notice_and_find_each_other_again() {
    let mut fleet = Fleet::formed(4, 6);
    fleet.cut(&[1, 4]);
    fleet.run_until(ms(5_000), "the cut is noticed", |fleet| {
        let reaches = |from: usize, to: usize| fleet.nodes[from].reachable[&id(to)];
        let side = |node: usize| node == 1 || node == 4;
        (0..6).all(|from| {
            (0..6).all(|to| from == to || reaches(from, to) == (side(from) == side(to)))
        })
    });
    fleet.heal();
    fleet.run_until(ms(4_000), "whole again", Fleet::is_whole);
}

#[test]
fn all_killed_at_once_are_ready_again_within_five_seconds() {
    let mut fleet = Fleet::formed(5, 6);
    (0..6).for_each(|node| fleet.kill(node));
    (0..5).for_each(|node| fleet.start_in(node, ms(node as u64 * 50)));
    fleet.run_until(ms(4_000), "the five are ready", |fleet| {
        (0..5).all(|node| fleet.nodes[node].ready)
    });
    assert!((0..5).all(|node| fleet.nodes[node].reachable.get(&id(5)) != Some(&true)));
    fleet.start_in(5, ms(0));
    fleet.run_until(ms(4_000), "whole again", Fleet::is_whole);
}
