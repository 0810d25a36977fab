//! Links between the datacenters: cut, cut in one direction, and long.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    cluster::{Cluster, EU, US},
    findings::Findings,
    fleet::{PATIENCE, http},
    isolation::isolated,
    load::Load,
};

/// Replicas are equal so long after a fault is over, and a round of anti-entropy.
const CONVERGED: Duration = Duration::from_secs(10);
/// How long a round may take over a few hundred keys.
const ROUND: Duration = Duration::from_secs(30);
const CONFLICTS: usize = 20;

/// How long the two datacenters don't reach each other.
const CUT: Duration = Duration::from_secs(60);

#[test]
fn two_datacenters_cut_apart_both_serve_and_converge() {
    isolated(|| {
        let cluster = Cluster::up();
        let mut findings = Findings::new();
        let load = Load::at_nodes(&cluster, "local_quorum", "sloppy");
        load.run_for(Duration::from_secs(2));
        let cut = findings.fault();
        cluster.network.cut(&EU, &US);
        findings.expect_within("the cut is noticed", PATIENCE, || {
            cluster.unreachable_from(EU[0]).len() == 3 && cluster.unreachable_from(US[0]).len() == 3
        });
        for number in 0..CONFLICTS {
            for id in [EU[number % 3], US[number % 3]] {
                let local = [("Anello-Consistency", "local_quorum")];
                let (node, path) = (cluster.node(id).http, format!("/kv/conflict-{number}"));
                let put = http::request(node, "PUT", &path, &local, id.as_bytes());
                let put = put.expect("answered");
                findings.expect(put.status == 200, format!("{path} at {id}: {}", put.text()));
            }
        }
        load.run_for(CUT.saturating_sub(cut.elapsed()));
        cluster.network.heal();
        let healed = Instant::now();
        load.run_for(Duration::from_secs(1));
        let ledger = load.ledger();
        findings.account(&load.stop(), |_| false);

        let all: Vec<_> = cluster.addresses().into_iter().map(|(id, _)| id).collect();
        findings.expect_within("all reach each other", CONVERGED, || {
            all.iter().all(|id| cluster.unreachable_from(id).is_empty())
        });
        findings.expect_within("the hints are handed over", CONVERGED, || cluster.hints(&all) == 0);
        let round = cluster.antientropy_round(&all, ROUND);
        let round_done = Instant::now();
        findings.expect(round.is_ok(), format!("the round: {round:?}"));
        let conflicts = (0..CONFLICTS).map(|number| format!("conflict-{number}"));
        let keys: Vec<_> = ledger.keys().into_iter().chain(conflicts).collect();
        findings.expect_equal(&cluster, &keys, round_done.max(healed + CONVERGED));
        for number in 0..CONFLICTS {
            // One replica's word is enough where all hold the same.
            let one = [("Anello-Consistency", "local_one")];
            let (node, path) =
                (cluster.node(all[number % 6]).http, format!("/kv/conflict-{number}"));
            let get = http::request(node, "GET", &path, &one, b"").expect("answered");
            let siblings = get.json()["versions"].as_array().map_or(0, Vec::len);
            let told = format!("{path} at {}: {} {}", all[number % 6], get.status, get.text());
            findings.expect(get.status == 300 && siblings == 2, told);
        }
        findings.look(&cluster, &ledger, &all, "quorum");
        findings.end();
    });
}

#[test]
fn nobody_is_lost_over_links_of_80_ms() {
    isolated(|| {
        const ONE_WAY: Duration = Duration::from_millis(80);
        let cluster = Cluster::up_far_apart(ONE_WAY);
        let mut findings = Findings::new();
        let load = Load::at_nodes(&cluster, "local_quorum", "sloppy");
        // The detectors' windows fill.
        load.run_for(Duration::from_secs(5));
        let start = findings.fault();
        while start.elapsed() < Duration::from_secs(30) && findings.is_empty() {
            for (id, _) in cluster.addresses() {
                let away = cluster.unreachable_from(id);
                let at = start.elapsed();
                findings.expect(away.is_empty(), format!("{id} after {at:.1?}: without {away:?}"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        findings.account(&load.stop(), |_| false);
        // That the links are long at all: a write of all replicas goes there and back.
        let (begun, all) = (Instant::now(), [("Anello-Consistency", "all")]);
        let put = http::request(cluster.node(EU[0]).http, "PUT", "/kv/far", &all, b"away");
        let (status, took) = (put.expect("answered").status, begun.elapsed());
        println!("a write of all replicas takes {took:.1?}");
        findings.expect(status == 200 && took >= 2 * ONE_WAY, format!("{status} after {took:?}"));
        findings.end();
    });
}

/// What one node sends is lost, what it is sent arrives: it must not keep the others waiting for it.
#[test]
fn a_node_that_is_heard_by_nobody_is_routed_around() {
    isolated(|| {
        let cluster = Cluster::up();
        let mut findings = Findings::new();
        let mute = EU[2];
        let others = cluster.others(mute);
        let load = Load::at_nodes(&cluster, "quorum", "sloppy");
        load.run_for(Duration::from_secs(2));
        let cut = findings.fault();
        cluster.network.cut_one_way(&[mute], &others);
        findings.expect_within("all know of it", Duration::from_secs(5), || {
            others.iter().all(|id| cluster.unreachable_from(id) == [mute])
        });
        load.run_for(Duration::from_secs(10).saturating_sub(cut.elapsed()));
        cluster.network.heal();
        cluster.wait_reachable(CONVERGED);
        let healed = Instant::now();
        load.run_for(Duration::from_secs(2));
        let ledger = load.ledger();
        let account = load.stop();
        findings.account(&account, |request| request.node == mute && request.touches(cut, healed));
        let gap = account.longest_gap(&others);
        findings.expect(gap < Duration::from_secs(1), format!("no success for {gap:?}"));
        findings.look(&cluster, &ledger, &[mute], "quorum");
        findings.end();
    });
}
