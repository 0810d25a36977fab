//! What is not death: a link that works one way, a node that stands still or waits for a core, links that
//! are slow, gossip that is late. Each is told apart, within bounds, and makes nobody flap.

use std::time::Duration;

use super::fleet::{Fleet, id, ms};

/// How long a fault lasts where it is to make nobody flap.
const LONG: Duration = Duration::from_secs(600);

fn reaches(fleet: &Fleet, from: usize, to: usize) -> bool {
    fleet.nodes[from].reachable[&id(to)]
}

fn all_but(fleet: &Fleet, who: usize, reach: bool) -> bool {
    (0..fleet.nodes.len())
        .filter(|from| *from != who)
        .all(|from| reaches(fleet, from, who) == reach)
}

fn flips(fleet: &Fleet) -> usize {
    fleet.nodes.iter().map(|node| node.flips).sum()
}

/// What a node has said of another since a moment.
fn said(fleet: &Fleet, by: usize, of: usize, since: usize) -> Vec<String> {
    let words = format!("n{by} n{of} is ");
    fleet.notes[since..].iter().filter(|line| line.contains(&words)).cloned().collect()
}

#[test]
fn a_link_that_works_one_way_is_no_link_and_both_its_ends_say_why() {
    for seed in 1..=5 {
        let mut fleet = Fleet::formed(seed, 6);
        fleet.run(ms(5_000 + seed * 91));
        let (before, line) = (flips(&fleet), fleet.notes.len());
        fleet.cut_ways.insert((1, 4));
        fleet.run_until(ms(5_000), "both ends notice", |fleet| {
            !reaches(fleet, 1, 4) && !reaches(fleet, 4, 1)
        });
        fleet.run(LONG);
        let notes = fleet.notes[line..].join("\n");
        assert_eq!(flips(&fleet), before + 2, "seed {seed}: the two ends, once each\n{notes}");
        // 4 is heard by 1 on their own link; 1 is heard by 4 through others alone.
        let (of_4, of_1) = (said(&fleet, 1, 4, line), said(&fleet, 4, 1, line));
        assert!(of_4[0].contains("its own packets come through"), "seed {seed}: {of_4:?}");
        assert!(of_1[0].contains("others hear it"), "seed {seed}: {of_1:?}");
        fleet.cut_ways.clear();
        fleet.run_until(ms(3_000), "they find each other", Fleet::is_whole);
        let back = said(&fleet, 1, 4, line);
        assert!(back[1].contains("has not been started anew"), "seed {seed}: {back:?}");
    }
}

#[test]
fn who_hears_nobody_gives_up_all_and_is_given_up() {
    let mut fleet = Fleet::formed(6, 5);
    fleet.run(ms(5_000));
    let before = flips(&fleet);
    fleet.cut_ways.extend((0..5).filter(|from| *from != 2).map(|from| (from, 2)));
    fleet.run_until(ms(5_000), "it is noticed", |fleet| {
        all_but(fleet, 2, false) && (0..5).all(|to| to == 2 || !reaches(fleet, 2, to))
    });
    fleet.run(LONG);
    assert_eq!(flips(&fleet), before + 8, "{}", fleet.notes.join("\n"));
    fleet.cut_ways.clear();
    fleet.run_until(ms(3_000), "whole again", Fleet::is_whole);
}

#[test]
fn who_waits_for_a_core_is_not_given_up() {
    for seed in 1..=3 {
        let mut fleet = Fleet::formed(seed, 6);
        fleet.run(ms(5_000));
        let before = flips(&fleet);
        fleet.starved.insert(3, (ms(50), ms(800)));
        fleet.run(LONG);
        assert_eq!(flips(&fleet), before, "seed {seed}\n{}", fleet.notes.join("\n"));
    }
}

#[test]
fn a_starved_node_still_notices_a_death_within_five_seconds() {
    let mut fleet = Fleet::formed(4, 6);
    fleet.starved.insert(3, (ms(50), ms(800)));
    fleet.run(ms(20_000));
    fleet.kill(5);
    fleet.run_until(ms(5_000), "all notice the death", |fleet| all_but(fleet, 5, false));
}

#[test]
fn links_of_eighty_milliseconds_that_jitter_and_lose_make_nobody_nervous() {
    for seed in 1..=3 {
        let mut fleet = Fleet::formed(seed, 6);
        (fleet.delay, fleet.loss) = ((ms(40), ms(160)), 2);
        fleet.run(ms(2_000));
        let before = flips(&fleet);
        fleet.run(LONG);
        assert_eq!(flips(&fleet), before, "seed {seed}\n{}", fleet.notes.join("\n"));
        fleet.kill(5);
        fleet.run_until(ms(5_000), "a death is noticed", |fleet| all_but(fleet, 5, false));
    }
}

#[test]
fn links_that_lose_most_of_what_they_carry_make_nobody_flap() {
    for seed in 1..=3 {
        let mut fleet = Fleet::formed(seed, 4);
        fleet.run(ms(5_000));
        fleet.loss = 70;
        let before = flips(&fleet);
        fleet.run(LONG);
        let flips = flips(&fleet) - before;
        // Twelve ends of links that are as good as broken.
        assert!(flips <= 2 * 12, "seed {seed}: {flips} flips\n{}", fleet.notes.join("\n"));
    }
}

#[test]
fn gossip_that_is_late_by_up_to_fifteen_seconds_is_noticed_once() {
    for (seed, late, within, flips_max) in [
        (1, (0, 15_000), 10_000, 10),
        (2, (0, 15_000), 10_000, 10),
        (3, (15_000, 15_000), 10_000, 10),
        // An answer in eight is in time, and at times there are several in a row: of thirty such nodes half
        // are given up by all within 18 s, the last after 57 s.
        (4, (0, 4_000), 60_000, 30),
    ] {
        let mut fleet = Fleet::formed(seed, 6);
        fleet.run(ms(5_000));
        let (before, line) = (flips(&fleet), fleet.notes.len());
        fleet.late.insert(2, (ms(late.0), ms(late.1)));
        fleet.run_until(ms(within), "it is routed around", |fleet| all_but(fleet, 2, false));
        fleet.run(LONG);
        let flips = flips(&fleet) - before;
        let notes = fleet.notes[line..].join("\n");
        // Both ends of five links: each gives up the other once.
        assert!(flips <= flips_max, "seed {seed}: {flips} flips\n{notes}");
        fleet.late.clear();
        // What is under way is late still.
        fleet.run_until(ms(22_000), "whole again", Fleet::is_whole);
    }
}

#[test]
fn who_stood_still_says_so_and_judges_nobody_by_it() {
    for seed in 1..=5 {
        let mut fleet = Fleet::formed(seed, 5);
        fleet.run(ms(3_000 + seed * 37));
        let (before, line) = (fleet.nodes[2].flips, fleet.notes.len());
        fleet.pause(2);
        fleet.run_until(ms(5_000), "the others notice", |fleet| all_but(fleet, 2, false));
        fleet.run(ms(180_000));
        fleet.resume(2);
        fleet.run_until(ms(3_000), "it is back", |fleet| all_but(fleet, 2, true));
        fleet.run(ms(10_000));
        let notes = fleet.notes[line..].join("\n");
        assert_eq!(fleet.nodes[2].flips, before, "seed {seed}\n{notes}");
        assert_eq!(
            notes.matches("n2 this node stood still for 18").count(),
            1,
            "seed {seed}\n{notes}"
        );
        let back = said(&fleet, 0, 2, line);
        assert!(back[0].contains("nobody hears its heart"), "seed {seed}: {back:?}");
        assert!(back[1].contains("stood still or was cut off"), "seed {seed}: {back:?}");
        assert_eq!(back.len(), 2, "seed {seed}: {back:?}");
    }
}

/// What waited in its sockets is from before another node died: no sign of that one's life.
#[test]
fn who_stood_still_takes_no_old_packets_for_news() {
    for seed in 1..=5 {
        let mut fleet = Fleet::formed(seed, 5);
        fleet.run(ms(3_000));
        fleet.kill(4);
        fleet.run_until(ms(5_000), "its death is noticed", |fleet| all_but(fleet, 4, false));
        let (before, line) = (fleet.nodes[2].flips, fleet.notes.len());
        // It comes back and dies again while 2 stands still, all of whose packets wait.
        fleet.pause(2);
        fleet.run(ms(10_000));
        fleet.start_in(4, ms(0));
        fleet.run(ms(10_000));
        fleet.kill(4);
        fleet.run(ms(100_000));
        fleet.resume(2);
        fleet.run(ms(20_000));
        let notes = fleet.notes[line..].join("\n");
        assert!(!reaches(&fleet, 2, 4), "seed {seed}\n{notes}");
        assert_eq!(fleet.nodes[2].flips, before, "seed {seed}\n{notes}");
    }
}
