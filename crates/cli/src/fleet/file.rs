//! Fleet files: what a person writes to have a fleet, read into what a fleet is.
//!
//! Raw TOML -> [`FleetFile`]. A mistake is one line that names the file, the line or the section, and
//! what was expected. Nodes are in the file's order of datacenters, then by rack name, then by number;
//! that order gives them their ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anello_protocol::{
    cluster::{KeyspaceConfig, MAX_PARTITIONS, MAX_REPLICAS_PER_DATACENTER, Replication},
    consistency::Consistency,
    id::{ClusterName, Datacenter, KeyspaceName, NodeId, Rack},
    version::ConflictRule,
};
use serde::{Deserialize, Serialize};

use crate::keyspace::WRITES_ONLY;

/// The most nodes of a fleet on one machine: beyond, the two ranges of ports would overlap.
pub(crate) const MAX_NODES: usize = 80;
const DEFAULT_PARTITIONS: u32 = 256;

/// A fleet, as its file describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FleetFile {
    /// Its name, and the cluster's.
    pub(crate) name: ClusterName,
    /// Into how many partitions the hash space is cut.
    pub(crate) partitions: u32,
    /// When a write counts as kept.
    pub(crate) durability: Durability,
    /// Its nodes.
    pub(crate) nodes: Vec<FleetNode>,
    /// Keyspaces that there are to be.
    pub(crate) keyspaces: Vec<(KeyspaceName, KeyspaceConfig)>,
}

/// One of a fleet's nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FleetNode {
    /// `<datacenter>-<rack>-<number>`.
    pub(crate) id: NodeId,
    /// Its datacenter.
    pub(crate) datacenter: Datacenter,
    /// Its rack there.
    pub(crate) rack: Rack,
}

/// When a write counts as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// Once it is on disk.
    #[default]
    Sync,
    /// Once it is in the page cache.
    Os,
}

impl Durability {
    /// As config files have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Durability::Sync => "sync",
            Durability::Os => "os",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    name: ClusterName,
    #[serde(default = "default_partitions")]
    partitions: u32,
    #[serde(default)]
    durability: Durability,
    datacenter: Vec<RawDatacenter>,
    #[serde(default)]
    keyspace: Vec<RawKeyspace>,
}

fn default_partitions() -> u32 {
    DEFAULT_PARTITIONS
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatacenter {
    name: Datacenter,
    racks: BTreeMap<Rack, usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawKeyspace {
    name: KeyspaceName,
    replication: Option<RawReplication>,
    conflict: Option<ConflictRule>,
    read: Option<Consistency>,
    write: Option<Consistency>,
    tombstone_grace_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or replicas per datacenter, such as { eu = 3 }")]
enum RawReplication {
    Auto(Auto),
    PerDatacenter(BTreeMap<Datacenter, u16>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Auto {
    Auto,
}

impl FleetFile {
    /// Reads a fleet file.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let place = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!("cannot read {place}: {error}; fleet files to start from are in deploy/fleets/")
        })?;
        Self::parse(&text).map_err(|problem| format!("{place}: {problem}"))
    }

    /// Reads the text of a fleet file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: RawFleet = toml::from_str(text).map_err(|error| one_line(text, &error))?;
        if !raw.partitions.is_power_of_two() || raw.partitions > MAX_PARTITIONS {
            return Err(format!(
                "partitions = {}: expected a power of two up to {MAX_PARTITIONS}",
                raw.partitions
            ));
        }
        let nodes = nodes(&raw.datacenter)?;
        let keyspaces = keyspaces(raw.keyspace, &nodes)?;
        let RawFleet { name, partitions, durability, .. } = raw;
        Ok(Self { name, partitions, durability, nodes, keyspaces })
    }
}

fn nodes(datacenters: &[RawDatacenter]) -> Result<Vec<FleetNode>, String> {
    let mut nodes = Vec::new();
    let mut ids = BTreeSet::new();
    let mut names = BTreeSet::new();
    for RawDatacenter { name: datacenter, racks } in datacenters {
        if !names.insert(datacenter) {
            return Err(format!("datacenter {datacenter} is there twice: give it one section"));
        }
        for (rack, count) in racks {
            for number in 1..=*count {
                if nodes.len() == MAX_NODES {
                    return Err(format!("a fleet on one machine has at most {MAX_NODES} nodes"));
                }
                let id = NodeId::new(&format!("{datacenter}-{rack}-{number}"))
                    .map_err(|error| error.to_string())?;
                if !ids.insert(id.clone()) {
                    return Err(format!(
                        "two nodes would be called {id}: rename datacenter {datacenter} or rack {rack}"
                    ));
                }
                nodes.push(FleetNode { id, datacenter: datacenter.clone(), rack: rack.clone() });
            }
        }
    }
    if nodes.is_empty() {
        return Err("a fleet has at least one node: racks = { a = 1 }".into());
    }
    Ok(nodes)
}

fn keyspaces(
    raw: Vec<RawKeyspace>,
    nodes: &[FleetNode],
) -> Result<Vec<(KeyspaceName, KeyspaceConfig)>, String> {
    let mut keyspaces: Vec<(KeyspaceName, KeyspaceConfig)> = Vec::new();
    for raw in raw {
        let name = raw.name;
        if keyspaces.iter().any(|(known, _)| *known == name) {
            return Err(format!("keyspace {name} is there twice: give it one section"));
        }
        let replication = match raw.replication {
            None | Some(RawReplication::Auto(Auto::Auto)) => Replication::Auto,
            Some(RawReplication::PerDatacenter(counts)) => {
                check_replication(&counts, nodes)
                    .map_err(|problem| format!("keyspace {name}: {problem}"))?;
                Replication::PerDatacenter(counts)
            }
        };
        if raw.read == Some(Consistency::EachQuorum) {
            return Err(format!("keyspace {name}: read: {WRITES_ONLY}"));
        }
        let usual = KeyspaceConfig::default();
        let config = KeyspaceConfig {
            replication,
            conflict: raw.conflict.unwrap_or(usual.conflict),
            read: raw.read.unwrap_or(usual.read),
            write: raw.write.unwrap_or(usual.write),
            tombstone_grace_s: raw.tombstone_grace_s.unwrap_or(usual.tombstone_grace_s),
        };
        keyspaces.push((name, config));
    }
    Ok(keyspaces)
}

fn check_replication(
    counts: &BTreeMap<Datacenter, u16>,
    nodes: &[FleetNode],
) -> Result<(), String> {
    if counts.values().all(|count| *count == 0) {
        return Err("replication has no replica: expected such as { eu = 3 }".into());
    }
    for (datacenter, replicas) in counts {
        let there = nodes.iter().filter(|node| node.datacenter == *datacenter).count();
        if there == 0 {
            return Err(format!("replication names {datacenter}, and there is no such datacenter"));
        }
        if usize::from(*replicas) > there || *replicas > MAX_REPLICAS_PER_DATACENTER {
            return Err(format!(
                "replication asks for {replicas} replicas in {datacenter}, which has {there} nodes"
            ));
        }
    }
    Ok(())
}

/// A TOML error without its drawing: the line, and what is wrong there.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', " ");
    match error.span() {
        Some(span) => {
            let before = text.as_bytes().get(..span.start).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_DC: &str = r#"
        name       = "two-dc"
        partitions = 256
        [[datacenter]]
        name  = "us"
        racks = { b = 1, a = 2 }
        [[datacenter]]
        name  = "eu"
        racks = { a = 1 }
        [[keyspace]]
        name        = "default"
        replication = { us = 3, eu = 1 }
        conflict    = "lww"
        read        = "local_quorum"
    "#;

    #[test]
    fn nodes_are_numbered_by_datacenter_rack_and_number() {
        let fleet = FleetFile::parse(TWO_DC).unwrap();
        let ids: Vec<_> = fleet.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["us-a-1", "us-a-2", "us-b-1", "eu-a-1"]);
    }

    #[test]
    fn what_a_keyspace_leaves_out_is_as_usual() {
        let fleet = FleetFile::parse(TWO_DC).unwrap();
        let (name, config) = &fleet.keyspaces[0];
        assert_eq!(name.as_str(), "default");
        assert_eq!(config.conflict, ConflictRule::Lww);
        assert_eq!((config.read, config.write), (Consistency::LocalQuorum, Consistency::Quorum));
        assert_eq!(config.tombstone_grace_s, 864_000);
    }

    #[test]
    fn a_mistake_is_one_line_that_says_where() {
        let eu = "[[datacenter]]\nname = 'eu'\nracks = { a = 1 }\n";
        let cases = [
            (format!("name = 'x'\nnodes = 3\n{eu}"), "line 2: unknown field `nodes`"),
            (format!("name = 'X'\n{eu}"), "line 1: bad cluster name \"X\""),
            (format!("name = 'x'\npartitions = 3\n{eu}"), "expected a power of two"),
            (format!("name = 'x'\n{eu}{eu}"), "datacenter eu is there twice"),
            ("name = 'x'\ndatacenter = []".into(), "at least one node"),
            (
                format!("name = 'x'\n{eu}[[keyspace]]\nname = 'k'\nreplication = {{ us = 1 }}"),
                "keyspace k: replication names us",
            ),
            (
                format!("name = 'x'\n{eu}[[keyspace]]\nname = 'k'\nreplication = {{ eu = 2 }}"),
                "asks for 2 replicas in eu, which has 1 nodes",
            ),
            (
                format!("name = 'x'\n{eu}[[keyspace]]\nname = 'k'\nreplication = 'many'"),
                "expected \"auto\" or replicas per datacenter",
            ),
            (
                "name = 'x'\n[[datacenter]]\nname = 'eu'\nracks = { a = 81 }".into(),
                "at most 80 nodes",
            ),
        ];
        for (text, expected) in cases {
            let problem = FleetFile::parse(&text).unwrap_err();
            assert!(problem.contains(expected), "{problem:?} lacks {expected:?}");
            assert!(!problem.contains('\n'), "{problem:?}");
        }
    }

    #[test]
    fn ids_that_would_be_the_same_are_refused() {
        let text = "name = 'x'\n[[datacenter]]\nname = 'eu-a'\nracks = { b = 1 }\n\
                    [[datacenter]]\nname = 'eu'\nracks = { a-b = 1 }";
        assert!(FleetFile::parse(text).unwrap_err().contains("two nodes would be called eu-a-b-1"));
    }
}
