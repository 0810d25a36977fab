//! Where everything of a fleet on this machine is: ports, directories, certificates, config files.
//!
//! All of it is below `./.anello/<name>/`. What was laid out once is kept in `fleet.json` there: a
//! node keeps its place and its ports for the life of its data, also when the fleet file changes
//! around it, and other terminals find the fleet by it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZero,
    path::{Path, PathBuf},
    thread,
};

use anello_client::{Profile, TlsFiles};
use anello_protocol::id::{ClusterName, NodeId};
use serde::{Deserialize, Serialize};

use super::{
    file::{Durability, FleetFile, FleetNode, MAX_NODES},
    node_config::{self, NodeFiles},
};
use crate::{
    outcome::Failure,
    tls::{Authority, Holder, Host, Overwrite, Paths},
};

/// Where fleets are kept, below the working directory.
pub(crate) const HOME: &str = ".anello";
/// The client that `fleet up` issues a certificate for.
const CLIENT: &str = "local";
/// How many nodes others ask to be taken in by.
const SEEDS: usize = 3;

/// The first port of each kind: node i has that one plus i.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BasePorts {
    /// QUIC, over UDP.
    pub(crate) quic: u16,
    /// HTTP, over TCP.
    pub(crate) http: u16,
}

/// A node's place in the layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Who it is.
    #[serde(flatten)]
    pub(crate) node: FleetNode,
    /// Its number, from 0.
    pub(crate) index: u16,
    /// Where peers and clients reach it.
    pub(crate) quic: SocketAddr,
    /// Where people reach it.
    pub(crate) http: SocketAddr,
}

impl Place {
    /// The node's name.
    pub(crate) fn id(&self) -> &NodeId {
        &self.node.id
    }
}

/// A fleet's layout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    root: PathBuf,
    plan: Plan,
}

/// What `fleet.json` keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    name: ClusterName,
    partitions: u32,
    durability: Durability,
    ports: BasePorts,
    nodes: Vec<Place>,
}

impl Layout {
    /// Lays a fleet out below `home`, keeping to what is there of it.
    pub(crate) fn plan(
        home: &Path,
        fleet: &FleetFile,
        ports: Option<BasePorts>,
    ) -> Result<Self, Failure> {
        let root = home.join(fleet.name.as_str());
        let before = if root.join("fleet.json").exists() { Some(Self::load(&root)?) } else { None };
        let plan = match before {
            None => Plan {
                name: fleet.name.clone(),
                partitions: fleet.partitions,
                durability: fleet.durability,
                ports: ports.unwrap_or(BasePorts { quic: 7400, http: 7480 }),
                nodes: Vec::new(),
            },
            Some(before) => {
                let anew = format!("or delete {} to start anew", root.display());
                let mut plan = before.plan;
                if plan.partitions != fleet.partitions {
                    return Err(Failure::usage(format_args!(
                        "fleet {} was born with {} partitions, and that stays: write partitions = {0}, {anew}",
                        plan.name, plan.partitions
                    )));
                }
                if let Some(gone) = plan.nodes.iter().find(|p| !fleet.nodes.contains(&p.node)) {
                    return Err(Failure::usage(format_args!(
                        "{} is part of fleet {} and not in its file: put it back, {anew}",
                        gone.id(),
                        plan.name
                    )));
                }
                plan.durability = fleet.durability;
                plan.ports = ports.unwrap_or(plan.ports);
                plan
            }
        };
        let mut layout = Self { root, plan };
        layout.place(&fleet.nodes)?;
        Ok(layout)
    }

    /// Gives every node its place: the one it had, else the first free one.
    fn place(&mut self, nodes: &[FleetNode]) -> Result<(), Failure> {
        let had: Vec<_> = std::mem::take(&mut self.plan.nodes);
        let taken: BTreeSet<u16> = had.iter().map(|place| place.index).collect();
        let mut free = (0..MAX_NODES as u16).filter(|index| !taken.contains(index));
        for node in nodes {
            let before = had.iter().find(|place| place.node == *node).map(|place| place.index);
            let index = before.or_else(|| free.next());
            let BasePorts { quic, http } = self.plan.ports;
            let port = |base: u16| index.and_then(|index| base.checked_add(index));
            let (Some(index), Some(quic), Some(http)) = (index, port(quic), port(http)) else {
                return Err(Failure::usage(format_args!(
                    "no port is left for {}: choose lower --base-quic-port and --base-http-port",
                    node.id
                )));
            };
            let address = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
            let (quic, http) = (address(quic), address(http));
            self.plan.nodes.push(Place { node: node.clone(), index, quic, http });
        }
        Ok(())
    }

    /// Reads the layout that a fleet's directory holds.
    pub(crate) fn load(root: &Path) -> Result<Self, Failure> {
        let path = root.join("fleet.json");
        let bad = |error: &dyn std::fmt::Display| {
            Failure::failed(format_args!("cannot read {}: {error}", path.display()))
        };
        let text = fs::read(&path).map_err(|error| bad(&error))?;
        let plan = serde_json::from_slice(&text).map_err(|error| bad(&error))?;
        Ok(Self { root: root.into(), plan })
    }

    /// All fleets below a directory, by their names.
    pub(crate) fn all(home: &Path) -> Result<Vec<Self>, Failure> {
        let Ok(entries) = fs::read_dir(home) else { return Ok(Vec::new()) };
        let roots = entries.flatten().map(|entry| entry.path());
        let mut roots: Vec<_> = roots.filter(|root| root.join("fleet.json").exists()).collect();
        roots.sort();
        roots.iter().map(|root| Self::load(root)).collect()
    }

    /// Writes directories, certificates, config files, the profile and the layout itself.
    pub(crate) fn write(&self) -> Result<(), Failure> {
        for dir in ["tls", "config", "data", "logs", "run"] {
            let dir = self.root.join(dir);
            fs::create_dir_all(&dir).map_err(|error| cannot_write(&dir, &error))?;
        }
        self.write_certificates()?;
        for place in &self.plan.nodes {
            write(&self.config(place.id()), &self.node_config(place))?;
        }
        let plan = serde_json::to_string_pretty(&self.plan)
            .map_err(|error| Failure::failed(format_args!("cannot write the layout: {error}")))?;
        write(&self.root.join("fleet.json"), &plan)?;
        let profile = self.root.with_file_name("profile.toml");
        self.profile().save(profile).map_err(Failure::failed)
    }

    fn write_certificates(&self) -> Result<(), Failure> {
        let dir = self.root.join("tls");
        let authority = if Paths::authority(&dir).exist() {
            Authority::open(&dir)?
        } else {
            Authority::create(&dir)?
        };
        let hosts = [
            Host::Name("localhost".try_into().map_err(crate::tls::TlsError::from)?),
            Host::Address(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        let nodes = self.plan.nodes.iter().map(|place| Holder::Node(place.id().clone()));
        for holder in nodes.chain([self.client()]) {
            if !Paths::of(&dir, &holder).exist() {
                let hosts = if matches!(holder, Holder::Node(_)) { &hosts[..] } else { &[] };
                authority.issue_into(&dir, &holder, hosts, Overwrite::Replace)?;
            }
        }
        Ok(())
    }

    fn client(&self) -> Holder {
        Holder::Client(NodeId::new(CLIENT).expect("the constant is a name"))
    }

    /// Addresses by which a node without data asks to be taken in: the first node, which founds the
    /// cluster, then the first one of each other datacenter, then others up to [`SEEDS`].
    fn seeds(&self) -> Vec<SocketAddr> {
        let mut datacenters = BTreeSet::new();
        let (firsts, others): (Vec<_>, Vec<_>) =
            self.plan.nodes.iter().partition(|place| datacenters.insert(&place.node.datacenter));
        let count = SEEDS.max(firsts.len());
        firsts.into_iter().chain(others).take(count).map(|place| place.quic).collect()
    }

    fn node_config(&self, place: &Place) -> String {
        let tls = self.root.join("tls");
        let own = Paths::of(&tls, &Holder::Node(place.id().clone()));
        let files = NodeFiles {
            data_dir: &self.root.join("data").join(place.id().as_str()),
            ca: &Paths::authority(&tls).certificate,
            certificate: &own.certificate,
            key: &own.key,
        };
        let Plan { name, partitions, durability, nodes, .. } = &self.plan;
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = (cores / nodes.len().max(1)).max(1);
        node_config::node(place, name, &self.seeds(), *partitions, *durability, threads, &files)
    }

    /// The fleet's name.
    pub(crate) fn name(&self) -> &ClusterName {
        &self.plan.name
    }

    /// Its nodes.
    pub(crate) fn nodes(&self) -> &[Place] {
        &self.plan.nodes
    }

    /// The place of a node, if it is one of the fleet's.
    pub(crate) fn node(&self, id: &NodeId) -> Option<&Place> {
        self.plan.nodes.iter().find(|place| place.id() == id)
    }

    /// The fleet's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A node's config file.
    pub(crate) fn config(&self, id: &NodeId) -> PathBuf {
        self.root.join("config").join(format!("{id}.toml"))
    }

    /// Where a node's output goes.
    pub(crate) fn log(&self, id: &NodeId) -> PathBuf {
        self.root.join("logs").join(format!("{id}.log"))
    }

    /// Where it is kept what runs, and what a person wants to.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.root.join("run")
    }

    /// As whom commands beside the fleet talk to it: a client in the first node's datacenter.
    pub(crate) fn profile(&self) -> Profile {
        let tls = self.root.join("tls");
        let own = Paths::of(&tls, &self.client());
        Profile {
            cluster: Some(self.plan.name.clone()),
            seeds: self.plan.nodes.iter().map(|place| place.quic.to_string()).collect(),
            datacenter: self.plan.nodes.first().map(|place| place.node.datacenter.clone()),
            tls: TlsFiles {
                ca: Paths::authority(&tls).certificate,
                cert: own.certificate,
                key: own.key,
            },
        }
    }
}

/// Writes a file by way of another one, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let draft = path.with_extension("draft");
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(racks: &str) -> FleetFile {
        FleetFile::parse(&format!(
            "name = 'x'\n[[datacenter]]\nname = 'eu'\nracks = {racks}\n\
             [[datacenter]]\nname = 'us'\nracks = {{ a = 1 }}"
        ))
        .unwrap()
    }

    fn quic_ports(layout: &Layout) -> Vec<(&str, u16)> {
        layout.nodes().iter().map(|place| (place.id().as_str(), place.quic.port())).collect()
    }

    #[test]
    fn node_i_has_the_ith_ports() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::plan(home.path(), &fleet("{ a = 1, b = 1 }"), None).unwrap();
        assert_eq!(quic_ports(&layout), [("eu-a-1", 7400), ("eu-b-1", 7401), ("us-a-1", 7402)]);
        assert_eq!(layout.nodes()[2].http.port(), 7482);
    }

    #[test]
    fn a_node_keeps_its_ports_when_others_come() {
        let home = tempfile::tempdir().unwrap();
        let ports = Some(BasePorts { quic: 9400, http: 9480 });
        Layout::plan(home.path(), &fleet("{ a = 1 }"), ports).unwrap().write().unwrap();
        let layout = Layout::plan(home.path(), &fleet("{ a = 2 }"), None).unwrap();
        assert_eq!(quic_ports(&layout), [("eu-a-1", 9400), ("eu-a-2", 9402), ("us-a-1", 9401)]);
    }

    #[test]
    fn a_node_that_the_file_lacks_is_refused() {
        let home = tempfile::tempdir().unwrap();
        Layout::plan(home.path(), &fleet("{ a = 2 }"), None).unwrap().write().unwrap();
        let refused = Layout::plan(home.path(), &fleet("{ a = 1 }"), None).unwrap_err();
        assert!(refused.to_string().contains("eu-a-2 is part of fleet x"), "{refused}");
    }

    #[test]
    fn every_datacenter_has_a_seed() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::plan(home.path(), &fleet("{ a = 3 }"), None).unwrap();
        let ports: Vec<_> = layout.seeds().iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [7400, 7403, 7401]);
    }

    #[test]
    fn certificates_stay_and_layouts_are_found() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::plan(home.path(), &fleet("{ a = 1 }"), None).unwrap();
        layout.write().unwrap();
        let key = layout.root().join("tls/eu-a-1.key");
        let before = fs::read(&key).unwrap();
        layout.write().unwrap();
        assert_eq!(fs::read(&key).unwrap(), before);
        assert_eq!(Layout::all(home.path()).unwrap(), [layout]);
    }
}
