//! Processes that pause, and processes that are stopped in order and started again.

use std::time::{Duration, Instant};

use super::{
    cluster::{Cluster, EU},
    findings::Findings,
    fleet::PATIENCE,
    isolation::isolated,
    load::Load,
};

/// How soon a node that hangs is routed around.
const ROUTED_AROUND: Duration = Duration::from_secs(5);

#[test]
fn a_rolling_restart_fails_no_request() {
    isolated(|| {
        let mut cluster = Cluster::up();
        let mut findings = Findings::new();
        let load = Load::by_clients(&cluster, "quorum");
        let at_nodes = Load::at_nodes(&cluster, "quorum", "sloppy");
        load.run_for(Duration::from_secs(2));
        findings.fault();
        let ids: Vec<_> = cluster.addresses().into_iter().map(|(id, _)| id).collect();
        let mut away = Vec::new();
        for &id in &ids {
            let node = cluster.node_mut(id);
            let start = Instant::now();
            let status = node.terminate(Duration::from_secs(12));
            let stopped = start.elapsed();
            findings.expect(status.success(), format!("{id} ended with {status}"));
            node.start();
            node.wait_ready(PATIENCE);
            println!("{id}: stopped in {stopped:.1?}, ready after {:.1?}", start.elapsed());
            away.push((id, start, Instant::now()));
        }
        load.run_for(Duration::from_secs(1));
        let ledgers = [load.ledger(), at_nodes.ledger()];
        findings.account(&load.stop(), |_| false);
        // Who asks one node only, and that one is away, is told so; nobody else notices anything.
        findings.account(&at_nodes.stop(), |request| {
            away.iter().any(|&(id, from, to)| request.node == id && request.touches(from, to))
        });
        cluster.wait_reachable(PATIENCE);
        for ledger in ledgers {
            findings.look(&cluster, &ledger, &ids, "quorum");
        }
        findings.end();
    });
}

#[test]
fn a_paused_node_is_routed_around_and_serves_nothing_stale_afterwards() {
    isolated(|| {
        let cluster = Cluster::up();
        let mut findings = Findings::new();
        let victim = EU[1];
        let others = cluster.others(victim);
        let load = Load::at_nodes(&cluster, "quorum", "strict");
        load.run_for(Duration::from_secs(3));
        let paused = findings.fault();
        cluster.node(victim).signal("STOP");
        findings.expect_within("all know of the pause", ROUTED_AROUND, || {
            others.iter().all(|id| cluster.unreachable_from(id) == [victim])
        });
        load.run_for(Duration::from_secs(20).saturating_sub(paused.elapsed()));
        cluster.node(victim).signal("CONT");
        let resumed = Instant::now();
        // Under load at the node that was away: each of its reads is held against what was
        // acknowledged meanwhile.
        load.run_for(Duration::from_secs(5));
        let ledger = load.ledger();
        let account = load.stop();
        findings.account(&account, |request| {
            request.node == victim && request.touches(paused, resumed)
        });
        let routed_around = paused + ROUTED_AROUND;
        let slowest = account.slowest(|request| {
            request.node != victim && request.start > routed_around && request.end < resumed
        });
        println!("slowest once it was routed around: {slowest:.1?}");
        findings.expect(slowest < Duration::from_secs(1), format!("routed around, {slowest:?}"));
        let gap = account.longest_gap(&others);
        findings.expect(gap < Duration::from_secs(1), format!("no success for {gap:?}"));
        let served = account
            .requests
            .iter()
            .any(|request| request.node == victim && request.start > resumed && request.is_done());
        findings.expect(served, "it serves again");
        findings.look(&cluster, &ledger, &[victim], "quorum");
        findings.end();
    });
}
