//! What each replica holds of each key, asked of its vnode as another node would ask. Nothing is repaired
//! by it, so it can be asked again and again until the replicas are equal.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anello_protocol::{
    cluster::ClusterState,
    id::{ClusterName, Epoch, KeyspaceName, NodeId},
    key::{DataKey, Key, KeyHash},
    message::{
        admin::FetchCluster,
        replica::{Held, ReadVersions, Refusal, Want},
    },
    version::{ConflictRule, Versions},
};
use anello_transport::{CallContext, Identity, Peers, PeersConfig, TlsFiles};
use tokio::runtime::Runtime;

use super::cluster::Cluster;

/// Longer than any of these calls may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at all replicas.
const PAUSE: Duration = Duration::from_millis(200);

/// Asks vnodes.
pub struct Replicas {
    runtime: Runtime,
    peers: Peers,
    nodes: Vec<(&'static str, SocketAddr)>,
    state: ClusterState,
}

impl Replicas {
    /// The replicas of a cluster's keys; every node of it holds every key, and all must run.
    pub fn of(cluster: &Cluster) -> Self {
        let nodes: Vec<_> = cluster.fleet.nodes.iter().map(|node| (node.id, node.quic)).collect();
        let files = cluster.fleet.authority.issue_node("observer");
        let files = TlsFiles { ca: files.ca, cert: files.cert, key: files.key };
        let name = ClusterName::new("test").expect("a name");
        let me = NodeId::new("observer").expect("a name");
        let identity = Identity::load_node(name, me, &files).expect("a certificate of the cluster");
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        let (peers, state) = runtime.block_on(async {
            let peers = Peers::new(identity, PeersConfig::default()).expect("a socket");
            let (first, context) = (nodes[0].1.to_string(), CallContext::within(PATIENCE));
            let state = peers.call_address(&first, FetchCluster { have: Epoch(0) }, context).await;
            let (_, state) = state.expect("the cluster is up");
            (peers, state.expect("it has a state"))
        });
        Self { runtime, peers, nodes, state }
    }

    /// How many of these keys each node holds otherwise than all nodes together do; nodes that lack
    /// nothing are left out.
    pub fn lacking(&self, keys: &[String]) -> BTreeMap<&'static str, u32> {
        let mut lacking = BTreeMap::new();
        for key in keys {
            let held = self.held(key);
            let mut all = Versions::new();
            for versions in held.iter().flatten() {
                all.merge(versions.clone(), self.rule());
            }
            for ((node, _), versions) in self.nodes.iter().zip(&held) {
                if versions.as_ref().is_none_or(|held| held.digest() != all.digest()) {
                    *lacking.entry(*node).or_default() += 1;
                }
            }
        }
        lacking
    }

    /// Looks until the replicas of all keys are equal, or until the time is over: what was found last.
    pub fn lacking_after(&self, keys: &[String], until: Instant) -> BTreeMap<&'static str, u32> {
        loop {
            let lacking = self.lacking(keys);
            if lacking.is_empty() || Instant::now() > until {
                return lacking;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// What each node holds of a key; nothing where it won't say, because it has to compare first.
    fn held(&self, key: &str) -> Vec<Option<Versions>> {
        let (name, key) = (KeyspaceName::default_keyspace(), Key::new(key.to_owned()));
        let (keyspace, key) = (self.state.keyspaces[&name].id, key.expect("a key"));
        let key = DataKey { hash: KeyHash::of(&name, &key), keyspace, key };
        let epoch = self.state.epoch;
        self.runtime.block_on(async {
            let mut calls = Vec::new();
            for (_, address) in &self.nodes {
                let read = ReadVersions { epoch, key: key.clone(), want: Want::Full };
                let (peers, address) = (self.peers.clone(), address.to_string());
                calls.push(tokio::spawn(async move {
                    peers.call_address(&address, read, CallContext::within(PATIENCE)).await
                }));
            }
            let mut held = Vec::new();
            for call in calls {
                match call.await.expect("it does not panic") {
                    Ok((_, Ok(Held::Full(versions)))) => held.push(Some(versions)),
                    Ok((_, Err(Refusal::Quarantined | Refusal::Busy))) => held.push(None),
                    other => panic!("a replica that runs does not say what it holds: {other:?}"),
                }
            }
            held
        })
    }

    fn rule(&self) -> ConflictRule {
        self.state.keyspaces[&KeyspaceName::default_keyspace()].config.conflict
    }
}
