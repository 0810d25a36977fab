//! A node that was away for longer than hints are kept: anti-entropy alone brings it back.

use std::time::{Duration, Instant};

use super::{
    cluster::{Cluster, US},
    findings::Findings,
    fleet::{PATIENCE, http, wait_until},
    isolation::isolated,
    ledger::{Ledger, chain_value},
};

/// Lets nodes keep hints for a moment only.
const SHORT_HINTS: &str = "\n[hints]\nage_max_s = 1\n";
const KEYS: usize = 400;
/// What is sent for each tree and key, to find out which differ, is under a fifth of that.
const VALUE_BYTES: usize = 1024;
/// How long a round over a few hundred keys may take.
const ROUND: Duration = Duration::from_secs(30);

#[test]
fn a_node_that_was_away_for_long_is_brought_back_by_antientropy_alone() {
    isolated(|| {
        let mut cluster = Cluster::up_with(SHORT_HINTS);
        let mut findings = Findings::new();
        let (victim, ledger) = (US[2], Ledger::default());
        let others = cluster.others(victim);
        // What all hold already must not be sent again.
        write(&cluster, &others, "before", "all", &ledger);
        cluster.node_mut(victim).kill();
        let differing = write(&cluster, &others, "while-away", "quorum", &ledger);
        wait_until("the hints are too old", PATIENCE, || cluster.hints(&others) == 0);

        let sent_before = sent(&cluster, &others);
        cluster.node_mut(victim).start();
        cluster.node_mut(victim).wait_ready(PATIENCE);
        cluster.wait_reachable(PATIENCE);
        let all: Vec<_> = cluster.addresses().into_iter().map(|(id, _)| id).collect();
        // Its own round mends it; those of the others find nothing left, and cost what they cost.
        for ids in [&[victim][..], &others] {
            let round = cluster.antientropy_round(ids, ROUND);
            findings.expect(round.is_ok(), format!("the round of {ids:?}: {round:?}"));
        }
        // Its own life began with the restart, so its figure did as well.
        let sent = sent(&cluster, &all) - sent_before;
        println!("{differing} bytes differed, {sent} were sent");
        let bound = differing + differing / 5;
        findings.expect(sent >= differing, format!("{sent} bytes sent can't be all {differing}"));
        findings.expect(sent <= bound, format!("{sent} bytes sent for {differing} that differ"));
        findings.expect_equal(&cluster, &ledger.keys(), Instant::now());
        findings.look(&cluster, &ledger, &[victim], "quorum");
        findings.end();
    });
}

/// Writes keys of a kilobyte each through some nodes in turn; says how many bytes.
fn write(cluster: &Cluster, via: &[&str], name: &str, level: &str, ledger: &Ledger) -> u64 {
    let mut bytes = 0;
    for number in 0..KEYS {
        let key = format!("{name}-{number}");
        let value = format!("{:x<VALUE_BYTES$}", "") + &chain_value(&key, 1);
        let node = cluster.node(via[number % via.len()]).http;
        let level = [("Anello-Consistency", level)];
        let put = http::request(node, "PUT", &format!("/kv/{key}"), &level, value.as_bytes());
        let put = put.expect("answered");
        assert_eq!(put.status, 200, "{key}: {}", put.text());
        ledger.written(&key, "eu", 1);
        bytes += (key.len() + value.len()) as u64;
    }
    bytes
}

/// The bytes that anti-entropy has sent from these nodes.
fn sent(cluster: &Cluster, ids: &[&str]) -> u64 {
    let sent = ids.iter().map(|id| {
        let status = cluster.status(id);
        let bytes = status["antientropy"]["bytes_sent"].as_u64();
        bytes.unwrap_or_else(|| panic!("{id} does not say what anti-entropy sent: {status}"))
    });
    sent.sum()
}
