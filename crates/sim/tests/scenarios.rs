//! What went wrong in other systems, played through with seeds 1000 to 1029 each. The numbers are those of the
//! table of scenarios that Anello was designed against; `stories.rs` tells the others step by step.

use anello_sim::{
    client::Mix,
    faults::FaultMix,
    run::{Settings, run, run_all},
};

fn holds(mix: Mix, faults: FaultMix) {
    let settings: Vec<Settings> =
        (1_000..1_030).map(|seed| Settings { mix, faults, ..Settings::of(seed) }).collect();
    let failed = run_all(&settings);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// T1, Riak: many writers append to one key without having read it, while partitions come and go. Every
/// acknowledged element is in what is read in the end.
#[test]
fn t1_concurrent_appends_under_partitions() {
    holds(Mix::Appends, FaultMix::Partitions);
}

/// T3, riak_kv#679: the node that issued a key's dots loses what it had not synced, and goes on issuing. A
/// write without a context survives.
#[test]
fn t3_blind_writes_at_nodes_that_forget() {
    holds(Mix::Appends, FaultMix::Crashes);
}

/// T3, riak_kv#679: a disk is put back from an old copy in the midst of it, and clients go on writing there,
/// with and without contexts, while what was deleted is forgotten.
#[test]
fn t3_disks_that_are_put_back_from_a_copy() {
    holds(Mix::Any, FaultMix::Restores);
}

/// T6 and T10, riak_kv#1813 and #311: tombstones are forgotten all over the fleet while their keys are read,
/// written and compared. None stays for ever, nothing comes back.
#[test]
fn t6_t10_forgetting_under_load() {
    holds(Mix::Any, FaultMix::Forgetting);
    let settings = |seed| Settings { faults: FaultMix::Forgetting, ..Settings::of(seed) };
    let purges: u64 = (1_000..1_006).map(|seed| run(settings(seed)).counters.purges).sum();
    assert!(purges > 10, "{purges} keys were forgotten");
}

/// T9, Cassandra: replicas are away for longer than the grace, and come back with what was deleted.
#[test]
fn t9_long_absences() {
    holds(Mix::Any, FaultMix::Absences);
    holds(Mix::Updates, FaultMix::Absences);
}

/// T11, riak_core#613: clocks that jump while hints, read repair and anti-entropy run. All converge, and repair
/// ends.
#[test]
fn t11_repair_under_scrambled_clocks() {
    holds(Mix::Any, FaultMix::Clocks);
}

/// T16, CASSANDRA-2434: a node loses its disk, and is rebuilt from whoever is there.
#[test]
fn t16_lost_disks() {
    holds(Mix::Any, FaultMix::Losses);
    holds(Mix::Appends, FaultMix::Losses);
}

/// T21, scylla#7886: somebody is away at nearly any time, so much is kept as hints, and delivered to slow disks
/// and starved processes. Requests are answered as ever, and all hints are delivered in the end.
#[test]
fn t21_hints_for_slow_receivers() {
    holds(Mix::Any, FaultMix::SlowReceivers);
    holds(Mix::Appends, FaultMix::SlowReceivers);
}

/// T14, Garage: clocks are wrong by days and jump, in a keyspace where the last write wins. Of two writes,
/// one acknowledged before the other began, the later one wins; deletes as well as puts.
#[test]
fn t14_lww_under_scrambled_clocks() {
    holds(Mix::Lww, FaultMix::Clocks);
}

/// T17, Aerospike: read, then write with the context, as a counter does, under partitions. Nothing is
/// replaced that its writer had not read.
#[test]
fn t17_counters_under_partitions() {
    holds(Mix::Updates, FaultMix::Partitions);
}

/// T18, Aerospike: all nodes are killed within a second, again and again, under writes.
#[test]
fn t18_all_replicas_are_killed_at_once() {
    holds(Mix::Any, FaultMix::CrashAll);
    holds(Mix::Appends, FaultMix::CrashAll);
}

/// T18, Aerospike: a process stands still and goes on as if no time had passed.
#[test]
fn t18_nodes_stand_still() {
    holds(Mix::Any, FaultMix::Pauses);
}

/// T19, jetcd: the write is done, the answer is lost, the client asks again elsewhere. It is one event.
#[test]
fn t19_lost_replies_and_retries() {
    holds(Mix::Updates, FaultMix::Calm);
    holds(Mix::Any, FaultMix::Calm);
}

/// T25, scylla#8488: links that work one way, processes that wait for a core, gossip that is late by up to
/// 15 s. Whoever can't answer is routed around, nothing is lost, and all find each other again. Seeds 1000
/// to 1029.
#[test]
fn t25_one_way_links_starved_nodes_and_late_gossip() {
    holds(Mix::Any, FaultMix::Undead);
    holds(Mix::Appends, FaultMix::Undead);
}

/// T25, scylla#8488: who only waits for a core is given up by nobody. Seeds 1000 to 1029.
#[test]
fn t25_starved_nodes_are_not_given_up() {
    let mut faults = 0;
    for seed in 1_000..1_030 {
        let settings = Settings { faults: FaultMix::Starved, ..Settings::of(seed) };
        let outcome = run(settings);
        assert!(outcome.violations.is_empty(), "seed {seed}: {:#?}", outcome.violations);
        assert_eq!(outcome.counters.given_up, 0, "seed {seed}");
        faults += outcome.counters.faults;
    }
    assert!(faults > 100, "{faults} times was a node starved");
}

/// Seed 5336: a retry of an `lww` write was issued by one replica with an old time, and an earlier attempt at
/// it by another with a later one, which was taken for an acknowledgement of the first. A quorum then
/// missed an acknowledged write.
#[test]
fn an_lww_write_that_two_replicas_issued() {
    let failed = run_all(&[Settings::of(5336)]);
    assert!(failed.is_empty(), "{failed:#?}");
}

/// T30, Cassandra: two writes of one millisecond to an `lww` key. One of them wins everywhere.
#[test]
fn t30_lww_writes_at_one_moment() {
    holds(Mix::Lww, FaultMix::Calm);
    holds(Mix::Lww, FaultMix::Crashes);
}

/// T13, Garage: nodes join, leave and get other weights in a loop, while others crash and links are cut. No strict
/// read misses what was acknowledged, all replicas are equal in the end, and nothing is left where it doesn't
/// belong.
#[test]
fn t13_the_ring_changes_under_load() {
    holds(Mix::Any, FaultMix::Reshaping);
    holds(Mix::Appends, FaultMix::Reshaping);
    holds(Mix::Updates, FaultMix::Reshaping);
    let settings = |seed| Settings { faults: FaultMix::Reshaping, ..Settings::of(seed) };
    let changes: u64 = (1_000..1_006).map(|seed| run(settings(seed)).counters.changes).sum();
    assert!(changes > 9, "{changes} changes of the ring came to their end");
}

/// T14 and T13 together: the last write wins, clocks are wrong, and the ring changes.
#[test]
fn t13_the_ring_changes_where_the_last_write_wins() {
    holds(Mix::Lww, FaultMix::Reshaping);
}

/// T16 and T28, CASSANDRA-2434: a node dies for good in the midst of joins and leaves, and is taken out. What it
/// acknowledged with another is still there, whoever fills the new owners.
#[test]
fn t16_t28_removals_under_load() {
    holds(Mix::Any, FaultMix::Removals);
    holds(Mix::Appends, FaultMix::Removals);
}
