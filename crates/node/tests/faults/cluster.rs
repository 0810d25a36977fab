//! Six real nodes in two datacenters, each in a network of its own, and what they say of themselves.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    distance::QUIC_PORT,
    fleet::{Fleet, Node, PATIENCE, Place, Site, http, wait_until},
    network::{self, Network},
};

pub const EU: [&str; 3] = ["eu-a-1", "eu-b-1", "eu-c-1"];
pub const US: [&str; 3] = ["us-a-1", "us-b-1", "us-c-1"];

const PLACES: [Place; 6] = [
    Place { id: EU[0], datacenter: "eu", rack: "a" },
    Place { id: EU[1], datacenter: "eu", rack: "b" },
    Place { id: EU[2], datacenter: "eu", rack: "c" },
    Place { id: US[0], datacenter: "us", rack: "a" },
    Place { id: US[1], datacenter: "us", rack: "b" },
    Place { id: US[2], datacenter: "us", rack: "c" },
];

/// The fleet and its network.
pub struct Cluster {
    pub fleet: Fleet,
    pub network: Network,
}

impl Cluster {
    /// All nodes ready, each known to each.
    pub fn up() -> Self {
        Self::up_with("")
    }

    /// The same, with more sections in every node's file.
    pub fn up_with(more: &str) -> Self {
        Self::up_on(Network::new(&PLACES), more)
    }

    /// The same, in datacenters that lie so far apart. They do from the start, because connections don't
    /// follow a peer whose address changes under them, as the detour makes it seem.
    pub fn up_far_apart(one_way: Duration) -> Self {
        let mut network = Network::new(&PLACES);
        network.part_datacenters(one_way);
        Self::up_on(network, "")
    }

    fn up_on(network: Network, more: &str) -> Self {
        let sites = PLACES.map(|place| {
            let at = |port| SocketAddr::from((network::address(&place), port));
            Site { place, quic: at(QUIC_PORT), http: at(7480), enter: network::enter(&place) }
        });
        let mut fleet = Fleet::on_sites(&sites, more);
        fleet.start();
        fleet.wait_ready();
        let cluster = Self { fleet, network };
        cluster.wait_reachable(PATIENCE);
        cluster
    }

    pub fn node(&self, id: &str) -> &Node {
        self.fleet.nodes.iter().find(|node| node.id == id).expect("a node of the fleet")
    }

    pub fn node_mut(&mut self, id: &str) -> &mut Node {
        self.fleet.nodes.iter_mut().find(|node| node.id == id).expect("a node of the fleet")
    }

    /// Where the nodes answer.
    pub fn addresses(&self) -> Vec<(&'static str, SocketAddr)> {
        self.fleet.nodes.iter().map(|node| (node.id, node.http)).collect()
    }

    /// All nodes but one.
    pub fn others(&self, id: &str) -> Vec<&'static str> {
        self.fleet.nodes.iter().map(|node| node.id).filter(|other| *other != id).collect()
    }

    /// Whom a node holds to be out of reach.
    pub fn unreachable_from(&self, id: &str) -> Vec<String> {
        let cluster = self.ask(id, "/admin/cluster");
        let nodes = cluster["nodes"].as_array().expect("a list of nodes").iter();
        let away = nodes.filter(|node| node["reachable"] != true);
        away.map(|node| node["id"].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until every node reaches every other one.
    #[track_caller]
    pub fn wait_reachable(&self, within: Duration) {
        wait_until("all reach each other", within, || {
            self.fleet.nodes.iter().all(|node| self.unreachable_from(node.id).is_empty())
        });
    }

    /// A node's own figures.
    pub fn status(&self, id: &str) -> Value {
        self.ask(id, "/admin/status")
    }

    /// How many hints these nodes hold for others.
    pub fn hints(&self, holders: &[&str]) -> u64 {
        let hints = holders.iter().map(|id| {
            let status = self.status(id);
            let targets = status["hints"].as_object().expect("hints by target").clone();
            let counts = targets.values().map(|held| held["count"].as_u64().expect("a count"));
            counts.sum::<u64>()
        });
        hints.sum()
    }

    /// Starts a full round of anti-entropy at these nodes, and waits until it is done and all their
    /// partitions are in step with their other replicas.
    pub fn antientropy_round(&self, ids: &[&str], within: Duration) -> Result<(), String> {
        let mut started = Vec::new();
        for id in ids {
            let answer = http::request(self.node(id).http, "POST", "/admin/antientropy", &[], b"")
                .map_err(|error| format!("{id}: POST /admin/antientropy: {error}"))?;
            if answer.status != 202 {
                return Err(format!("{id}: POST /admin/antientropy: {}", answer.status));
            }
            started.push((id, answer.json()["round"].as_u64().expect("the round's number")));
        }
        let end = Instant::now() + within;
        for (id, round) in started {
            loop {
                let figures = self.status(id)["antientropy"].clone();
                let is_done = figures["rounds"].as_u64().expect("a count") >= round;
                if is_done && figures["partitions_in_sync"] == figures["partitions"] {
                    break;
                }
                if Instant::now() > end {
                    return Err(format!("{id} is not in step within {within:?}: {figures}"));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }

    fn ask(&self, id: &str, path: &str) -> Value {
        http::get(self.node(id).http, path).unwrap_or_else(|error| panic!("{id}: {error}")).json()
    }
}
