//! What must be so of everything that a fleet's client did.

use super::{reshaping::moved_fleet_after, *};

fn fleet_after(seed: u64, rule: ConflictRule) -> Fleet {
    lived(Fleet::new(seed, rule, &NODES))
}

pub(super) fn lived(mut fleet: Fleet) -> Fleet {
    for _ in 0..40 {
        let in_us = fleet.draw(4_000_000);
        fleet.at(in_us, Event::Operation);
    }
    for _ in 0..6 {
        let (in_us, at) = (fleet.draw(4_000_000), fleet.draw(NODES.len() as u64) as usize);
        fleet.at(in_us, Event::Crash { at });
    }
    fleet.run(4_000_000);
    fleet.read_everywhere();
    fleet
}

fn check_acknowledged(fleet: &Fleet) -> Result<(), TestCaseError> {
    let joined = fleet.joined();
    for operation in &fleet.operations {
        // E: everybody whose node lived has an answer in time.
        let lived = fleet.nodes[operation.at].life == operation.life;
        prop_assert!(!lived || operation.answered.is_some());
        let Some((answered, result)) = &operation.answered else { continue };
        prop_assert!(
            answered - operation.began <= 2_001_000,
            "in time: {} {:?}",
            answered - operation.began,
            operation.answered
        );
        let Some(write_id) = operation.write else { continue };
        match result {
            // A: every quorum read shows it, or something that follows it.
            Ok(context) => {
                for seen in &fleet.read {
                    for actor in context.actors() {
                        let dot = Dot { actor, counter: context.highest(actor) };
                        prop_assert!(seen.covers(dot), "{dot:?} of {write_id:?} is lost");
                    }
                }
                // F: it is there, or somebody replaced it who had seen it.
                let there = joined.iter().any(|version| version.write_id == write_id);
                let before = operation.seen.clone().unwrap_or_default();
                let dots =
                    context.actors().map(|actor| Dot { actor, counter: context.highest(actor) });
                let own: Vec<_> = dots.filter(|dot| !before.covers(*dot)).collect();
                let replaced = fleet.operations.iter().any(|other| {
                    other.write.is_some_and(|other| other != write_id)
                        && other
                            .seen
                            .as_ref()
                            .is_none_or(|seen| own.iter().any(|dot| seen.covers(*dot)))
                });
                // Of a retry that comes when it has been replaced, its dot isn't told.
                let is_told = !own.is_empty();
                prop_assert!(!is_told || there || replaced, "{write_id:?} was dropped");
            }
            Err(RequestError::Timeout { .. }) => {}
            Err(_) => prop_assert!(!joined.knows(write_id), "{write_id:?} was kept all the same"),
        }
    }
    Ok(())
}

/// G: a read that begins after a write was acknowledged shows it, or something that follows it.
fn check_reads(fleet: &Fleet) -> Result<(), TestCaseError> {
    let ended = |operation: &Operation| match &operation.answered {
        Some((at, Ok(context))) => Some((*at, context.clone())),
        _ => None,
    };
    let (writes, reads): (Vec<_>, Vec<_>) =
        fleet.operations.iter().partition(|operation| operation.write.is_some());
    for (write, (written, context)) in writes.iter().filter_map(|it| Some((it, ended(it)?))) {
        for read in reads.iter().filter(|read| read.began >= written) {
            let Some((_, seen)) = ended(read) else { continue };
            for actor in context.actors() {
                let dot = Dot { actor, counter: context.highest(actor) };
                let is_seen = seen.covers(dot);
                prop_assert!(is_seen, "{:?} was not read at {}", write.write, read.began);
            }
        }
    }
    Ok(())
}

fn check_the_later_wins(fleet: &Fleet) -> Result<(), TestCaseError> {
    let joined = fleet.joined();
    let acknowledged = |operation: &&Operation| {
        operation.write.is_some() && matches!(operation.answered, Some((_, Ok(_))))
    };
    let Some(winner) = joined.iter().next().map(|version| version.write_id) else {
        return Ok(());
    };
    let won = fleet.operations.iter().find(|operation| operation.write == Some(winner));
    let Some(Operation { answered: Some((ended, Ok(_))), .. }) = won else { return Ok(()) };
    for other in fleet.operations.iter().filter(acknowledged) {
        // A delete of what a quorum shows to be nothing writes nothing.
        let wrote = matches!(&other.answered, Some((_, Ok(context))) if !context.is_empty());
        prop_assert!(!wrote || other.began <= *ended, "{:?} came after {winner:?}", other.write);
    }
    for seen in &fleet.read {
        prop_assert_eq!(seen, &joined.context(), "every quorum shows the winner");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn acknowledged_writes_are_read_and_errors_are_honest(seed in any::<u64>()) {
        let fleet = fleet_after(seed, ConflictRule::Siblings);
        check_acknowledged(&fleet)?;
        check_reads(&fleet)?;
    }

    /// G: so they are while the ring changes.
    #[test]
    fn so_they_are_while_the_ring_changes(seed in any::<u64>()) {
        let fleet = moved_fleet_after(seed, ConflictRule::Siblings);
        check_acknowledged(&fleet)?;
        check_reads(&fleet)?;
    }

    /// T14: the clocks are days apart; what was acknowledged before another write began does not win
    /// over it.
    #[test]
    fn the_later_acknowledged_lww_write_wins(seed in any::<u64>()) {
        check_the_later_wins(&fleet_after(seed, ConflictRule::Lww))?;
    }

    #[test]
    fn so_it_does_while_the_ring_changes(seed in any::<u64>()) {
        check_the_later_wins(&moved_fleet_after(seed, ConflictRule::Lww))?;
    }

    #[test]
    fn a_seed_is_a_history(seed in any::<u64>()) {
        let answers = |fleet: Fleet| format!("{:?}", fleet.operations);
        let (one, other) = (
            fleet_after(seed, ConflictRule::Siblings),
            fleet_after(seed, ConflictRule::Siblings),
        );
        prop_assert_eq!(answers(one), answers(other));
    }
}
