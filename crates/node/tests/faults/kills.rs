//! Processes killed with signal 9 under load: one replica, and a whole datacenter.

use std::time::{Duration, Instant};

use super::{
    cluster::{Cluster, EU, US},
    findings::Findings,
    fleet::PATIENCE,
    isolation::isolated,
    load::Load,
};

/// Replicas are equal so long after a fault is over.
const CONVERGED: Duration = Duration::from_secs(10);

#[test]
fn a_replica_is_killed_under_load_and_comes_back_with_all_it_missed() {
    isolated(|| {
        let mut cluster = Cluster::up();
        let mut findings = Findings::new();
        let victim = EU[1];
        let others = cluster.others(victim);
        let load = Load::at_nodes(&cluster, "quorum", "sloppy");
        load.run_for(Duration::from_secs(3));
        let killed = findings.fault();
        cluster.node_mut(victim).kill();
        let dead = Instant::now();
        load.run_for(Duration::from_secs(8));

        println!("{} hints are held", cluster.hints(&others));
        cluster.node_mut(victim).start();
        cluster.node_mut(victim).wait_ready(PATIENCE);
        let ready = Instant::now();
        load.run_for(Duration::from_secs(1));
        let ledger = load.ledger();
        let account = load.stop();
        findings.account(&account, |request| {
            // A worker that finds nobody at its node's door has asked nobody.
            request.node == victim
                && (request.touches(killed, dead) || request.was_not_taken(killed, ready))
        });
        let gap = account.longest_gap(&others);
        findings.expect(gap < Duration::from_secs(1), format!("no success for {gap:?}"));
        findings
            .expect_within("the hints are handed over", CONVERGED, || cluster.hints(&others) == 0);
        findings.expect_equal(&cluster, &ledger.keys(), ready + CONVERGED);
        findings.look(&cluster, &ledger, &[victim], "quorum");
        findings.end();
    });
}

#[test]
fn a_datacenter_is_killed_and_the_other_goes_on() {
    isolated(|| {
        let mut cluster = Cluster::up();
        let mut findings = Findings::new();
        let load = Load::at_nodes(&cluster, "local_quorum", "sloppy");
        load.run_for(Duration::from_secs(3));
        let killed = findings.fault();
        for id in EU {
            cluster.node_mut(id).kill();
        }
        let dead = Instant::now();
        load.run_for(Duration::from_secs(10));
        let ledger = load.ledger();
        let account = load.stop();
        let end = Instant::now();
        findings.account(&account, |request| {
            EU.contains(&request.node)
                && (request.touches(killed, dead) || request.was_not_taken(killed, end))
        });
        let gap = account.longest_gap(&US);
        findings.expect(gap < Duration::from_secs(1), format!("no success for {gap:?}"));
        findings.look(&cluster, &ledger, &US, "local_quorum");

        // What only the dead have acknowledged is there again when they are.
        for id in EU {
            cluster.node_mut(id).start();
        }
        cluster.fleet.wait_ready();
        cluster.wait_reachable(PATIENCE);
        findings.look(&cluster, &ledger, &EU, "local_quorum");
        findings.look(&cluster, &ledger, &US, "all");
        findings.end();
    });
}
