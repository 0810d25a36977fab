//! What a change of the ring will do, for people and programs.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    cluster::{ClusterState, Replication},
    id::NodeId,
    message::admin::{ClusterView, NodeStatus},
};
use anello_ring::forecast::{Forecast, Known, Redundancy};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    connect::Session,
    outcome::Failure,
    output::{self, Palette, bytes_for_people, time_for_people},
    table::{Align, Table},
};

/// How fast a node is filled at most: what its anti-entropy takes in unless it gives way to clients.
const BYTES_PER_S: u64 = 8 << 20;
/// How long a node has for its own figures.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many lost partitions are named.
const NAMED: usize = 8;

/// A change, and what it will do.
pub(super) struct Plan {
    what: String,
    forecast: Forecast,
    partitions: u32,
    /// The change that has to be through first.
    under_way: Option<String>,
    /// Keyspaces that are to have replicas where no node will be.
    homeless: Vec<String>,
}

impl Plan {
    /// Works it out with what the nodes say of themselves.
    pub(super) async fn of(
        session: &Session,
        before: &ClusterState,
        after: &ClusterState,
        what: String,
    ) -> Result<Self, Failure> {
        let view = session.answer(session.client().cluster()).await?;
        let known = known(session, &view).await;
        let forecast = Forecast::of(before, after, &known);
        let no_ring = |error| Failure::failed(format_args!("there would be no ring: {error}"));
        Ok(Self {
            what,
            forecast: forecast.map_err(no_ring)?,
            partitions: before.partitions,
            under_way: before.change.as_ref().map(|change| change.purpose.to_string()),
            homeless: homeless(before, after),
        })
    }

    /// What it is.
    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Prints it.
    pub(super) fn show(&self, is_json: bool) -> Result<(), Failure> {
        if is_json {
            return output::json(&self.document());
        }
        output::line(format_args!("plan: {}", self.what))?;
        if !self.forecast.gains.is_empty() {
            output::line(self.table().render(Palette::of_stdout()))?;
        }
        for line in self.lines() {
            output::line(line)?;
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("to", Align::Left),
            ("partitions", Align::Right),
            ("data", Align::Right),
            ("takes", Align::Right),
            ("from", Align::Left),
        ]);
        for (node, gain) in &self.forecast.gains {
            let from: Vec<_> =
                gain.from.iter().map(|(node, count)| format!("{node} {count}")).collect();
            let takes = Duration::from_secs(gain.bytes.div_ceil(BYTES_PER_S));
            table.row([
                node.as_str().into(),
                gain.partitions.into(),
                format!("~{}", bytes_for_people(gain.bytes)).into(),
                time_for_people(takes).into(),
                from.join(", ").into(),
            ]);
        }
        table
    }

    fn lines(&self) -> Vec<String> {
        let forecast = &self.forecast;
        let mut lines = Vec::new();
        if forecast.is_empty() {
            lines.push("nothing moves".into());
        } else {
            lines.push(format!(
                "{} of {} partitions get another holder, about {}; at 8 MiB a second for each node that gets \
                 some, that takes {}",
                forecast.moves(),
                self.partitions,
                bytes_for_people(forecast.bytes()),
                time_for_people(forecast.takes(BYTES_PER_S))
            ));
        }
        if !forecast.releases.is_empty() {
            let released = forecast.releases.iter();
            let released: Vec<_> =
                released.map(|(node, count)| format!("{node} {count}")).collect();
            lines.push(format!("let go of partitions: {}", released.join(", ")));
        }
        let [now, filling, after] = forecast.redundancy.map(replicas);
        lines.push(format!(
            "replicas that answer: {now}; while partitions are filled: {filling}; after: {after}"
        ));
        lines.push(match (forecast.shared_racks, forecast.short_of_racks.len()) {
            (0, 0) => {
                "after that all replicas of a partition in a datacenter are on racks of their own"
                    .into()
            }
            (0, _) => String::new(),
            (shared, _) => {
                format!(
                    "WARNING: replicas of {shared} partitions share a rack though another is left"
                )
            }
        });
        for (datacenter, (racks, replicas)) in &forecast.short_of_racks {
            lines.push(format!(
                "WARNING: datacenter {datacenter} has {racks} rack{} for {replicas} replicas: some share one",
                if *racks == 1 { "" } else { "s" }
            ));
        }
        for keyspace in &self.homeless {
            lines.push(format!("WARNING: {keyspace}"));
        }
        for node in &forecast.waits_for {
            lines.push(format!(
                "WARNING: {node} can't be reached and takes part: the change waits for it, unless it is removed"
            ));
        }
        if !forecast.lost.is_empty() {
            let lost = forecast.lost.iter().take(NAMED);
            let lost: Vec<_> = lost.map(|(name, at)| format!("{name}/{at}")).collect();
            let more = if forecast.lost.len() > NAMED { ", …" } else { "" };
            lines.push(format!(
                "WARNING: nobody who answers has {} partitions ({}{more}): if their owners are dead, WHAT THEY \
                 HOLD IS LOST",
                forecast.lost.len(),
                lost.join(", ")
            ));
        }
        if let Some(under_way) = &self.under_way {
            lines.push(format!(
                "WARNING: a change is under way ({under_way}): this one has to wait until that is through, \
                 except that a node is dead"
            ));
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    fn document(&self) -> Value {
        let forecast = &self.forecast;
        let gains: BTreeMap<&NodeId, Value> = forecast
            .gains
            .iter()
            .map(|(node, gain)| {
                let shown = json!({
                    "partitions": gain.partitions,
                    "bytes": gain.bytes,
                    "takes_s": gain.bytes.div_ceil(BYTES_PER_S),
                    "from": gain.from,
                });
                (node, shown)
            })
            .collect();
        let [now, filling, after] = forecast
            .redundancy
            .map(|Redundancy { least, typical }| json!({ "least": least, "typical": typical }));
        let short: BTreeMap<_, _> = forecast
            .short_of_racks
            .iter()
            .map(|(datacenter, (racks, replicas))| {
                (datacenter, json!({ "racks": racks, "replicas": replicas }))
            })
            .collect();
        let lost = forecast.lost.iter();
        let lost = lost.map(|(name, at)| json!({ "keyspace": name, "partition": at }));
        json!({
            "what": self.what,
            "moves": forecast.moves(),
            "bytes": forecast.bytes(),
            "takes_s": forecast.takes(BYTES_PER_S).as_secs(),
            "gains": gains,
            "releases": forecast.releases,
            "replicas_that_answer": { "now": now, "filling": filling, "after": after },
            "short_of_racks": short,
            "shared_racks": forecast.shared_racks,
            "short_of_nodes": self.homeless,
            "waits_for": forecast.waits_for,
            "lost": lost.collect::<Vec<_>>(),
            "under_way": self.under_way,
        })
    }
}

fn replicas(Redundancy { least, typical }: Redundancy) -> String {
    if least == typical { format!("{least}") } else { format!("{typical}, at the least {least}") }
}

/// What nodes say of themselves, as far as they answer.
async fn known(session: &Session, view: &ClusterView) -> Known {
    let reachable = view.nodes.iter().filter(|node| node.reachable);
    let asked = reachable.clone().map(async |node| {
        let client = session.client().to_node(&node.quic);
        let status = timeout(PATIENCE.min(session.left()), client.status()).await.ok()?.ok()?;
        Some((node.id.clone(), partition_bytes(&status)?))
    });
    Known {
        partition_bytes: join_all(asked).await.into_iter().flatten().collect(),
        reachable: reachable.map(|node| node.id.clone()).collect(),
    }
}

fn partition_bytes(status: &NodeStatus) -> Option<u64> {
    status.storage_bytes.checked_div(status.vnodes.into())
}

/// Keyspaces that want more replicas in a datacenter than it will have nodes.
fn homeless(before: &ClusterState, after: &ClusterState) -> Vec<String> {
    let (had, has) = (before.datacenters(), after.datacenters());
    let mut lines = Vec::new();
    for (name, keyspace) in &after.keyspaces {
        let Replication::PerDatacenter(wanted) = &keyspace.config.replication else { continue };
        for (datacenter, wanted) in wanted {
            let nodes = |of: &BTreeMap<_, usize>| of.get(datacenter).copied().unwrap_or(0);
            if nodes(&has) < usize::from(*wanted) && nodes(&has) < nodes(&had) {
                lines.push(format!(
                    "keyspace {name} wants {wanted} replicas in {datacenter}, which will have {} nodes",
                    nodes(&has)
                ));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use anello_ring::forecast::Gain;

    use super::*;

    fn plan(forecast: Forecast) -> Plan {
        let what = "eu-a-2 joining".into();
        Plan { what, forecast, partitions: 64, under_way: None, homeless: Vec::new() }
    }

    #[test]
    fn what_moves_is_said() {
        let from = [("eu-a-1".parse().unwrap(), 20), ("eu-b-1".parse().unwrap(), 12)].into();
        let gain = Gain { partitions: 32, bytes: 64 << 20, from };
        let plan = plan(Forecast {
            gains: [("eu-a-2".parse().unwrap(), gain)].into(),
            releases: [("eu-a-1".parse().unwrap(), 32)].into(),
            redundancy: [Redundancy { least: 2, typical: 3 }; 3],
            ..Forecast::default()
        });
        assert_eq!(
            plan.table().render(Palette::plain()),
            "to      partitions       data  takes  from\n\
             eu-a-2          32  ~64.0 MiB    8 s  eu-a-1 20, eu-b-1 12"
        );
        let lines = plan.lines();
        assert!(lines[0].starts_with("32 of 64 partitions get another holder, about 64.0 MiB"));
        assert_eq!(lines[1], "let go of partitions: eu-a-1 32");
        assert!(lines[2].starts_with("replicas that answer: 3, at the least 2;"));
        assert!(lines.iter().all(|line| !line.contains("WARNING")), "{lines:?}");
        let document = plan.document();
        assert_eq!(document["gains"]["eu-a-2"]["takes_s"], 8);
        assert_eq!(document["replicas_that_answer"]["after"]["least"], 2);
    }

    #[test]
    fn what_is_wrong_is_a_warning() {
        let mut plan = plan(Forecast {
            short_of_racks: [("eu".parse().unwrap(), (1, 3))].into(),
            lost: (0..20)
                .map(|at| ("default".parse().unwrap(), anello_protocol::id::PartitionId(at)))
                .collect(),
            waits_for: ["eu-b-1".parse().unwrap()].into(),
            ..Forecast::default()
        });
        plan.under_way = Some("eu-c-1 leaving".into());
        let lines = plan.lines();
        assert_eq!(lines[0], "nothing moves");
        let warnings: Vec<_> = lines.iter().filter(|line| line.starts_with("WARNING")).collect();
        assert_eq!(warnings.len(), 4, "{warnings:?}");
        assert!(warnings[0].contains("1 rack for 3 replicas"));
        assert!(warnings[2].contains("20 partitions (default/0, default/1,"));
    }
}
