//! The promise by property: whatever is lost, delayed and repeated, and whoever dies in between, no victim
//! of what is forgotten is left anywhere, and in the end nothing deleted is left either.

use std::{panic, time::Duration};

use anello_protocol::version::ConflictRule;

use super::fleet::Fleet;

/// One history. A number of tombstones that went while the fleet was in disorder.
fn run(seed: u64, rule: ConflictRule) -> u64 {
    let mut fleet = Fleet::new(seed, rule);
    fleet.begin_chaos();
    fleet.run(Duration::from_secs(60));
    let forgotten = fleet.forgotten;
    fleet.calm();
    fleet.run(Duration::from_secs(60));
    fleet.assert_settled();
    forgotten
}

#[test]
fn the_deleted_stay_deleted_and_tombstones_go() {
    for rule in [ConflictRule::Siblings, ConflictRule::Lww] {
        let mut forgotten = 0;
        for seed in 0..300 {
            match panic::catch_unwind(|| run(seed, rule)) {
                Ok(count) => forgotten += count,
                Err(cause) => {
                    eprintln!("seed {seed} under {rule:?} replays this");
                    panic::resume_unwind(cause);
                }
            }
        }
        assert!(forgotten > 1_000, "only {forgotten} were forgotten in the disorder");
    }
}

#[test]
fn a_seed_replays() {
    let replay = |seed| {
        let mut fleet = Fleet::new(seed, ConflictRule::Siblings);
        fleet.begin_chaos();
        fleet.run(Duration::from_secs(30));
        let data: Vec<_> = fleet.nodes.iter().map(|node| node.data.clone()).collect();
        (fleet.forgotten, data)
    };
    assert_eq!(replay(7), replay(7));
}
