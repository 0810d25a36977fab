//! Stories of systems in which the deleted came back, or the forgotten was never done with, each with the
//! number that the list of scenarios gives it.

use std::time::Duration;

use anello_protocol::{causality::Context, version::ConflictRule, version::Versions};

use super::{
    bench::{GRACE, config},
    fleet::{Fleet, LIFE},
};

const RULES: [ConflictRule; 2] = [ConflictRule::Siblings, ConflictRule::Lww];
const PATIENCE: Duration = Duration::from_secs(7);

/// The grace, the patience of the other replicas and a whole proof, twice.
fn long() -> Duration {
    2 * (GRACE + PATIENCE + 2 * config().settle + 4 * config().persistence)
}

fn holders(fleet: &Fleet, key: &str) -> usize {
    let key = fleet.key(key);
    fleet.replicas.iter().filter(|at| !fleet.held(**at, &key).is_empty()).count()
}

/// A write at the first replica of these, which all others of them get at once.
fn write(fleet: &mut Fleet, key: &str, at: &[usize], past: Context, delete: bool) -> Versions {
    let key = fleet.key(key);
    let versions = fleet.write(at[0], &key, past, delete);
    for to in &at[1..] {
        fleet.carry(*to, &key, &versions, 1);
    }
    fleet.run(Duration::from_millis(1));
    versions
}

/// The member that is no replica.
fn stand_in(fleet: &Fleet) -> usize {
    (0..fleet.nodes.len()).find(|at| !fleet.replicas.contains(at)).expect("there is one")
}

/// A delete reaches all replicas but one, and for that one a stand-in, which then goes away. The key is
/// not forgotten before the stand-in is back; and what is written to it meanwhile stays.
#[test]
fn t4_a_stand_in_returns_with_its_old_tombstone() {
    for rule in RULES {
        let mut fleet = Fleet::new(4, rule);
        let (order, stand_in, key) = (fleet.replicas.clone(), stand_in(&fleet), fleet.key("k"));
        let value = write(&mut fleet, "k", &order, Context::new(), false);
        let tombstone = write(&mut fleet, "k", &order[..5], value.context(), true);
        fleet.hint(stand_in, order[5], &key, &tombstone, 1);
        fleet.run(Duration::from_millis(1));
        fleet.stop(stand_in);
        fleet.exchange(order[0], order[5]);
        fleet.run(long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (0, 6));
        let seen = fleet.held(order[1], &key).context();
        let again = write(&mut fleet, "k", &order, seen, false);
        fleet.run(long());
        fleet.restart(stand_in);
        fleet.deliver(stand_in);
        fleet.run(long());
        for at in &order {
            assert_eq!(fleet.held(*at, &key), again, "{rule:?}");
        }
    }
}

/// One datacenter is through with a tombstone while exchanges with the other run: whoever forgot it first
/// gets it back, by a repair which had read it before, and all forget it all the same.
#[test]
fn t6_an_exchange_runs_while_a_tombstone_goes() {
    for rule in RULES {
        let mut fleet = Fleet::new(6, rule);
        let order = fleet.replicas.clone();
        let value = write(&mut fleet, "k", &order, Context::new(), false);
        let tombstone = write(&mut fleet, "k", &order, value.context(), true);
        let live = write(&mut fleet, "other", &order, Context::new(), false);
        let key = fleet.key("k");
        let mut rounds = 0;
        while fleet.forgotten == 0 {
            fleet.run(Duration::from_millis(1));
        }
        while rounds < 5 {
            // Read before it was forgotten, stored after it.
            fleet.carry(order[rounds], &key, &tombstone, LIFE);
            fleet.run(Duration::from_millis(100));
            rounds += 1;
        }
        fleet.run(3 * long());
        assert_eq!(holders(&fleet, "k"), 0, "{rule:?}");
        let other = fleet.key("other");
        assert!(order.iter().all(|at| fleet.held(*at, &other) == live), "no key is forgotten");
    }
}

/// A node holds a hint and dies; the key is deleted, and repaired everywhere. As long as the node is away
/// nothing is forgotten, and when it is back its hint meets the tombstones.
#[test]
fn t7_a_hint_of_the_dead_is_replayed() {
    for rule in RULES {
        let mut fleet = Fleet::new(7, rule);
        let (order, stand_in, key) = (fleet.replicas.clone(), stand_in(&fleet), fleet.key("k"));
        let value = write(&mut fleet, "k", &order[..5], Context::new(), false);
        fleet.hint(stand_in, order[5], &key, &value, 1);
        fleet.run(Duration::from_millis(1));
        fleet.stop(stand_in);
        write(&mut fleet, "k", &order, value.context(), true);
        fleet.run(long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (0, 6), "{rule:?}");
        fleet.restart(stand_in);
        fleet.run(long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (0, 6), "it keeps the hint still");
        fleet.deliver(stand_in);
        fleet.run(2 * long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (6, 0), "{rule:?}");
    }
}

/// A replica is away for much longer than the grace, and back with what was deleted meanwhile. Nobody has
/// forgotten it, so it goes there as well, and then everywhere.
#[test]
fn t9_a_replica_returns_after_the_grace_with_old_values() {
    for rule in RULES {
        let mut fleet = Fleet::new(9, rule);
        let (order, key) = (fleet.replicas.clone(), fleet.key("k"));
        let value = write(&mut fleet, "k", &order, Context::new(), false);
        fleet.stop(order[4]);
        write(&mut fleet, "k", &order, value.context(), true);
        fleet.run(10 * GRACE + long());
        assert_eq!((fleet.forgotten, fleet.held(order[4], &key)), (0, value), "{rule:?}");
        fleet.restart(order[4]);
        fleet.run(long());
        assert_eq!(fleet.forgotten, 0, "it holds something else");
        fleet.exchange(order[4], order[0]);
        fleet.run(2 * long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (6, 0), "{rule:?}");
    }
}

/// A reader has seen the value before the tombstone came, and repairs with it while the tombstone is about
/// to go, at the last moment at which it may. The purge begins again, and no tombstone stays.
#[test]
fn t10_a_repair_races_with_a_purge() {
    for rule in RULES {
        for at in 0..60 {
            let mut fleet = Fleet::new(at, rule);
            let (order, key) = (fleet.replicas.clone(), fleet.key("k"));
            let value = write(&mut fleet, "k", &order[..5], Context::new(), false);
            write(&mut fleet, "k", &order[..5], value.context(), true);
            // Up to here the last replica has neither; it gets the value at some moment of the proof
            // from one that read it just before the tombstone came, and the tombstone after that.
            fleet.carry(order[5], &key, &value, LIFE * (at + 1) / 60);
            fleet.run(GRACE + Duration::from_millis(at * 50));
            fleet.exchange(order[5], order[1]);
            fleet.run(3 * long());
            assert_eq!(holders(&fleet, "k"), 0, "{rule:?} {at}");
        }
    }
}

/// The runner dies between the purges, at any moment, and comes back, or never.
#[test]
fn a_runner_that_dies_between_purges_leaves_nothing_behind() {
    for comes_back in [true, false] {
        for after in 0..7 {
            let mut fleet = Fleet::new(after, ConflictRule::Siblings);
            let order = fleet.replicas.clone();
            let value = write(&mut fleet, "k", &order, Context::new(), false);
            write(&mut fleet, "k", &order, value.context(), true);
            while fleet.forgotten < after {
                fleet.run(Duration::from_millis(1));
            }
            fleet.stop(order[0]);
            fleet.run(long());
            if comes_back {
                fleet.restart(order[0]);
            } else {
                // Its disk is lost, and it takes part again as a fresh one.
                fleet.nodes[order[0]].data.clear();
                fleet.restart(order[0]);
            }
            fleet.run(2 * long());
            assert_eq!(holders(&fleet, "k"), 0, "after {after}");
        }
    }
}

/// Up to a moment at which all replicas are being asked for the first time.
fn until_a_proof_begins(fleet: &mut Fleet) {
    let runner = fleet.replicas[0];
    while fleet.nodes[runner].purger.figures().settling == 0 {
        fleet.run(Duration::from_millis(1));
    }
}

/// A replica has neither value nor tombstone when it is asked. Then it gets the value, which was on its
/// way, is read, and only then gets the tombstone, just before it is asked again. It holds the tombstone
/// then, but the reader may still pass the value on.
#[test]
fn a_replica_that_had_nothing_has_the_tombstone_the_second_time() {
    for rule in RULES {
        let mut fleet = Fleet::new(1, rule);
        let (order, key) = (fleet.replicas.clone(), fleet.key("k"));
        let value = write(&mut fleet, "k", &order[..5], Context::new(), false);
        let tombstone = write(&mut fleet, "k", &order[..5], value.context(), true);
        until_a_proof_begins(&mut fleet);
        fleet.carry(order[5], &key, &value, 300_000);
        fleet.run(2 * config().settle - Duration::from_millis(50));
        assert_eq!((fleet.forgotten, fleet.held(order[5], &key)), (0, value.clone()));
        fleet.carry(order[3], &key, &value, LIFE);
        fleet.carry(order[5], &key, &tombstone, 1);
        fleet.run(long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (6, 0), "{rule:?}");
    }
}

/// A write of before the proof is still on its way to a stand-in while the replicas are asked.
#[test]
fn a_hint_is_made_while_the_replicas_are_asked() {
    for rule in RULES {
        let mut fleet = Fleet::new(2, rule);
        let (order, stand_in, key) = (fleet.replicas.clone(), stand_in(&fleet), fleet.key("k"));
        let value = write(&mut fleet, "k", &order, Context::new(), false);
        write(&mut fleet, "k", &order, value.context(), true);
        until_a_proof_begins(&mut fleet);
        fleet.hint(stand_in, order[5], &key, &value, LIFE * 9 / 10);
        fleet.run(long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (0, 6), "{rule:?}");
        fleet.deliver(stand_in);
        fleet.run(2 * long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (6, 0), "{rule:?}");
    }
}

/// The hint is read for an answer, which repairs, just before it is delivered and gone.
#[test]
fn a_hint_is_read_just_before_it_goes() {
    for rule in RULES {
        let mut fleet = Fleet::new(3, rule);
        let (order, stand_in, key) = (fleet.replicas.clone(), stand_in(&fleet), fleet.key("k"));
        let value = write(&mut fleet, "k", &order, Context::new(), false);
        write(&mut fleet, "k", &order, value.context(), true);
        fleet.hint(stand_in, order[5], &key, &value, LIFE);
        until_a_proof_begins(&mut fleet);
        fleet.run(config().settle - Duration::from_millis(10));
        assert!(fleet.nodes[stand_in].hints.contains_key(&(order[5], key.clone())));
        fleet.carry(order[2], &key, &value, LIFE);
        fleet.nodes[stand_in].hints.clear();
        fleet.run(long());
        assert_eq!((fleet.forgotten, holders(&fleet, "k")), (6, 0), "{rule:?}");
    }
}
