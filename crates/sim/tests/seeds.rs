//! Four hundred and fifty seeds that are always the same, fifty that never were before, and the proof that a
//! seed is all that a run is drawn from.

use std::time::{SystemTime, UNIX_EPOCH};

use anello_sim::run::{Outcome, Settings, replay_command, run, run_all};

fn all_hold(seeds: impl Iterator<Item = u64>) {
    let settings: Vec<Settings> = seeds.map(Settings::of).collect();
    let failed = run_all(&settings);
    let said: Vec<String> =
        failed.iter().map(|(settings, outcome)| say(settings, outcome)).collect();
    assert!(failed.is_empty(), "{} seeds failed:\n{}", failed.len(), said.join("\n"));
}

fn say(settings: &Settings, outcome: &Outcome) -> String {
    let first = &outcome.violations[0];
    let replay = replay_command(settings.seed);
    format!("seed {}: {}: {}\n  replay: {replay}", settings.seed, first.check, first.what)
}

#[test]
fn fixed_seeds() {
    all_hold(1..=450);
}

#[test]
fn fresh_seeds() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let first = clock.as_micros() as u64;
    println!("fresh seeds {first}..{}", first + 50);
    all_hold(first..first + 50);
}

#[test]
fn one_seed_has_one_history() {
    for seed in 1..=12 {
        let (one, other) = (run(Settings::of(seed)), run(Settings::of(seed)));
        assert_eq!(one, other, "seed {seed}");
        assert!(one.counters.operations >= 90, "seed {seed}: {:?}", one.counters);
    }
}

/// A simulation in which nothing happens would find nothing.
#[test]
fn runs_are_eventful() {
    let outcomes: Vec<Outcome> = (1..=60).map(|seed| run(Settings::of(seed))).collect();
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    assert!(sum(|o| o.counters.crashes) > 200);
    assert!(sum(|o| o.counters.failed) > 500);
    assert!(sum(|o| o.counters.lost_replies) > 50);
    assert!(sum(|o| o.counters.writes) > 3_000);
    assert!(sum(|o| o.counters.hints) > 300, "hints are kept");
    assert!(sum(|o| o.counters.repairs) > 500, "data is moved to where it is missing");
    assert!(sum(|o| o.counters.purges) > 10, "tombstones are forgotten");
    assert!(sum(|o| o.counters.quarantines) > 10, "nodes are quarantined");
    assert!(outcomes.iter().any(|o| o.counters.siblings_max > 4));
}
