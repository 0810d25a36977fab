//! `anello status`: the cluster as one node sees it, and each node's own figures.

use std::time::{Duration, Instant};

use anello_protocol::{
    cluster::{Phase, RingChange},
    message::admin::{ClusterView, HintStatus, NodeStatus, NodeView, RepairStatus, TransferStatus},
};
use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    connect::{Cluster, Level, Session},
    outcome::{Failure, Outcome},
    output::{self, Palette, Tone},
    table::{Align, Cell, Table},
};

/// How long a node has for its own figures.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a node is asked for the sake of its latency.
const ASKED: usize = 3;
/// From that suspicion on a node's silence is worth a look.
const NOTABLE_PHI: f64 = 3.0;

/// Show the cluster: a row a node, by datacenter and rack
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One JSON document on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// What one node says of itself, and how long the answer took.
struct Own {
    status: NodeStatus,
    latency: Duration,
}

/// Shows the cluster.
pub(crate) async fn run(command: Status) -> Result<Outcome, Failure> {
    let session = command.cluster.connect(&Level::default()).await?;
    let view = session.answer(session.client().cluster()).await?;
    // A node that belongs to no cluster yet has agreed on nothing, and says why elsewhere.
    let state = session.answer(session.client().cluster_state()).await.ok();
    let change = state.and_then(|state| state.change);
    let own = join_all(view.nodes.iter().map(|node| ask(&session, node))).await;
    session.close().await;
    if command.json {
        output::json(&document(&view, change.as_deref(), &own))?;
    } else {
        output::line(heading(&view))?;
        if let Some(change) = &change {
            output::line(change_text(change))?;
        }
        output::line(table(&view, &own).render(Palette::of_stdout()))?;
        for (node, own) in view.nodes.iter().zip(&own) {
            if !node.reachable {
                output::line(format_args!("{}: {}", node.id, node.verdict))?;
            }
            for remark in own.iter().flat_map(|own| remarks(&own.status)) {
                output::line(format_args!("{}: {remark}", node.id))?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// Asks a node a few times: the first answer pays for the connection, the best one tells the latency.
async fn ask(session: &Session, node: &NodeView) -> Option<Own> {
    if !node.reachable {
        return None;
    }
    let node = session.client().to_node(&node.quic);
    let asked = timeout(PATIENCE.min(session.left()), async {
        let mut status = node.status().await.ok()?;
        let mut latency = PATIENCE;
        for _ in 0..ASKED {
            let began = Instant::now();
            status = node.status().await.ok()?;
            latency = latency.min(began.elapsed());
        }
        Some(Own { status, latency })
    });
    asked.await.ok().flatten()
}

fn heading(view: &ClusterView) -> String {
    let reachable = view.nodes.iter().filter(|node| node.reachable).count();
    let mut text = format!(
        "cluster {}, epoch {}, {} partitions, {reachable} of {} nodes reachable",
        view.name,
        view.epoch,
        view.partitions,
        view.nodes.len()
    );
    if let Some(reason) = &view.not_ready {
        text.push_str(&format!("; the node that was asked is not ready: {reason}"));
    }
    text
}

/// How many partitions are filled, are read from their new owners, and are through.
fn phases(change: &RingChange) -> [usize; 3] {
    let count = |phase| change.phases.iter().filter(|it| **it == phase).count();
    [Phase::Filling, Phase::Serving, Phase::Done].map(count)
}

fn change_text(change: &RingChange) -> String {
    let [filling, serving, done] = phases(change);
    format!(
        "under way since epoch {}: {}; {filling} partitions are being filled, {serving} are read from their \
         new owners, {done} are through",
        change.began, change.purpose
    )
}

fn table(view: &ClusterView, own: &[Option<Own>]) -> Table {
    let mut table = Table::new(&[
        ("datacenter", Align::Left),
        ("rack", Align::Left),
        ("node", Align::Left),
        ("state", Align::Left),
        ("reachable", Align::Left),
        ("phi", Align::Right),
        ("partitions", Align::Right),
        ("keys", Align::Right),
        ("data", Align::Right),
        ("in flight", Align::Right),
        ("hints", Align::Right),
        ("in sync", Align::Right),
        ("latency", Align::Right),
        ("up", Align::Right),
        ("version", Align::Left),
    ]);
    let mut before: Option<(&str, &str)> = None;
    for (node, own) in view.nodes.iter().zip(own) {
        let here = (node.datacenter.as_str(), node.rack.as_str());
        // A name is written where it begins, so that the eye sees the groups.
        let datacenter = if before.is_some_and(|(dc, _)| dc == here.0) { "" } else { here.0 };
        let rack = if before == Some(here) { "" } else { here.1 };
        before = Some(here);
        let reachable = match (node.reachable, own) {
            (true, Some(_)) => Cell::toned(Tone::Good, "yes"),
            (true, None) => Cell::toned(Tone::Warning, "yes, silent"),
            (false, _) => Cell::toned(Tone::Bad, "no"),
        };
        let suspicious = if node.phi >= NOTABLE_PHI { Tone::Warning } else { Tone::Plain };
        let figure =
            |show: &dyn Fn(&Own) -> String| Cell::from(own.as_ref().map_or("-".into(), show));
        table.row([
            datacenter.into(),
            rack.into(),
            node.id.as_str().into(),
            format!("{:?}", node.state).to_lowercase().into(),
            reachable,
            Cell::toned(suspicious, format!("{:.1}", node.phi)),
            node.partitions.into(),
            figure(&|own| own.status.keys_estimate.to_string()),
            figure(&|own| output::bytes_for_people(own.status.storage_bytes)),
            figure(&|own| own.status.requests_in_flight.to_string()),
            figure(&|own| {
                own.status.hints.values().map(|hint| hint.count).sum::<u64>().to_string()
            }),
            figure(&|own| in_sync(&own.status)),
            figure(&|own| format!("{:.1} ms", own.latency.as_secs_f64() * 1000.0)),
            figure(&|own| output::time_for_people(Duration::from_secs(own.status.uptime_s))),
            node.version.as_str().into(),
        ]);
    }
    table
}

/// How much of what a node holds was found to be in step with the other replicas.
fn in_sync(status: &NodeStatus) -> String {
    let RepairStatus { partitions_held, partitions_in_sync, .. } = status.repair;
    match partitions_held {
        0 => "-".into(),
        held => format!("{partitions_in_sync}/{held}"),
    }
}

/// What of a node's figures is worth a line of its own.
fn remarks(status: &NodeStatus) -> Vec<String> {
    let mut remarks = Vec::new();
    remarks.extend(status.quarantine.clone());
    remarks.extend(status.read_only.as_ref().map(|why| format!("takes no writes: {why}")));
    for (owner, hint) in &status.hints {
        let HintStatus { count, bytes, oldest_s } = *hint;
        let (size, age) = (
            output::bytes_for_people(bytes),
            output::time_for_people(Duration::from_secs(oldest_s)),
        );
        remarks.push(format!("keeps {count} hints for {owner}, {size}, the oldest of {age} ago"));
    }
    let RepairStatus { units_running, units_waiting, .. } = status.repair;
    if units_running + units_waiting > 0 {
        remarks.push(format!(
            "compares {units_running} partitions with other replicas, {units_waiting} more wait"
        ));
    }
    remarks.extend(status.transfers.as_ref().and_then(transfers_text));
    for (why, count) in &status.tombstones.waiting {
        remarks.push(format!("{count} tombstones can't be forgotten yet: {why}"));
    }
    remarks
}

/// What a node has yet to do for the change of the ring, if anything.
fn transfers_text(transfers: &TransferStatus) -> Option<String> {
    let TransferStatus { filling, serving, awaited, bytes, bytes_per_s, left_s, .. } = transfers;
    if filling + serving == 0 {
        return None;
    }
    let mut text = format!(
        "not through with {} partitions on their way, {} fetched, {}/s",
        filling + serving,
        output::bytes_for_people(*bytes),
        output::bytes_for_people(*bytes_per_s)
    );
    if let Some(left_s) = left_s {
        let left = output::time_for_people(Duration::from_secs(*left_s));
        text.push_str(&format!(", {left} left"));
    }
    for (node, awaited) in awaited {
        if let Some(obstacle) = &awaited.obstacle {
            text.push_str(&format!("; waits for {} trees of {node}: {obstacle}", awaited.trees));
        }
    }
    Some(text)
}

/// The document of `GET /admin/cluster`, with each node's own figures beside.
fn document(view: &ClusterView, change: Option<&RingChange>, own: &[Option<Own>]) -> Value {
    let nodes: Vec<_> = view
        .nodes
        .iter()
        .zip(own)
        .map(|(node, own)| {
            let mut shown = json!({
                "id": node.id,
                "datacenter": node.datacenter,
                "rack": node.rack,
                "address": node.quic,
                "http": node.http,
                "state": node.state,
                "reachable": node.reachable,
                "phi": node.phi,
                "verdict": node.verdict,
                "partitions": node.partitions,
                "version": node.version,
            });
            if let Some(Own { status, latency }) = own {
                shown["latency_us"] = (latency.as_micros() as u64).into();
                shown["uptime_s"] = status.uptime_s.into();
                shown["vnodes"] = status.vnodes.into();
                shown["keys_estimate"] = status.keys_estimate.into();
                shown["storage_bytes"] = status.storage_bytes.into();
                shown["requests_in_flight"] = status.requests_in_flight.into();
                shown["requests_total"] = status.requests_total.into();
                shown["hints"] = json!(status.hints);
                shown["hints_delivered"] = status.hints_delivered.into();
                shown["hints_dropped"] = status.hints_dropped.into();
                shown["antientropy"] = json!(status.repair);
                shown["tombstones"] = json!(status.tombstones);
                shown["quarantine"] = json!(status.quarantine);
                shown["read_only"] = json!(status.read_only);
                shown["queues"] = json!(status.queues);
                shown["transfers"] = json!(status.transfers);
            }
            shown
        })
        .collect();
    let change = change.map(|change| {
        let [filling, serving, done] = phases(change);
        json!({
            "what": change.purpose.to_string(),
            "began": change.began,
            "partitions": { "filling": filling, "serving": serving, "done": done },
        })
    });
    json!({
        "name": view.name,
        "epoch": view.epoch,
        "partitions": view.partitions,
        "not_ready": view.not_ready,
        "nodes": nodes,
        "change": change,
    })
}

#[cfg(test)]
mod tests {
    use anello_protocol::{
        cluster::{Layout, MemberState, Purpose},
        id::Epoch,
        message::admin::AwaitedStatus,
    };

    use super::*;

    fn node(id: &str, rack: &str, reachable: bool) -> NodeView {
        NodeView {
            id: id.parse().unwrap(),
            datacenter: "eu".parse().unwrap(),
            rack: rack.parse().unwrap(),
            quic: "127.0.0.1:7400".into(),
            http: "127.0.0.1:7480".into(),
            state: MemberState::Up,
            reachable,
            phi: 0.5,
            verdict: "silent for 9 s".into(),
            partitions: 128,
            version: "0.1.0".into(),
        }
    }

    #[test]
    fn a_group_is_named_where_it_begins() {
        let view = ClusterView {
            name: "demo".parse().unwrap(),
            epoch: Epoch(3),
            partitions: 256,
            not_ready: None,
            nodes: vec![
                node("eu-a-1", "a", true),
                node("eu-a-2", "a", false),
                node("eu-b-1", "b", true),
            ],
        };
        let text = table(&view, &[None, None, None]).render(Palette::plain());
        let starts: Vec<_> = text.lines().map(|line| &line[..24]).collect();
        assert_eq!(
            starts,
            [
                "datacenter  rack  node  ",
                "eu          a     eu-a-1",
                "                  eu-a-2",
                "            b     eu-b-1"
            ]
        );
        assert!(heading(&view).ends_with("2 of 3 nodes reachable"));
        assert_eq!(document(&view, None, &[None, None, None])["nodes"][1]["state"], "up");
    }

    #[test]
    fn a_change_says_how_far_it_is() {
        let mut phases = vec![Phase::Done; 16];
        phases[..3].fill(Phase::Filling);
        phases[3] = Phase::Serving;
        let change = RingChange {
            began: Epoch(7),
            asked: Epoch(7),
            purpose: Purpose::Leave("eu-a-1".parse().unwrap()),
            old: Layout::default(),
            phases,
        };
        assert_eq!(
            change_text(&change),
            "under way since epoch 7: eu-a-1 leaving; 3 partitions are being filled, 1 are read from \
             their new owners, 12 are through"
        );
        let awaited = AwaitedStatus { trees: 2, obstacle: Some("it can't be reached".into()) };
        let mut transfers = TransferStatus {
            filling: 3,
            awaited: [("eu-b-1".parse().unwrap(), awaited)].into(),
            bytes: 2048,
            bytes_per_s: 1024,
            left_s: Some(65),
            ..TransferStatus::default()
        };
        assert_eq!(
            transfers_text(&transfers).unwrap(),
            "not through with 3 partitions on their way, 2.0 KiB fetched, 1.0 KiB/s, 1 m 05 s left; \
             waits for 2 trees of eu-b-1: it can't be reached"
        );
        transfers.filling = 0;
        assert_eq!(transfers_text(&transfers), None);
    }
}
