//! Views of small clusters, while nothing changes and while the ring does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anello_protocol::{
    cluster::{
        ClusterState, Keyspace, KeyspaceConfig, Layout, Member, MemberState, Phase, Purpose,
        Replication, RingChange,
    },
    id::{ClusterName, Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
};
use anello_ring::view::View;

use super::PARTITIONS;

pub(crate) fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}

/// A cluster of one datacenter under its `epoch`th state. Its keyspaces have that many replicas.
pub(crate) fn cluster(epoch: u64, nodes: &[&str], keyspaces: &[(u64, u16)]) -> ClusterState {
    let datacenter = Datacenter::new("dc").expect("a name");
    let member = |name: &&str| Member {
        id: node(name),
        datacenter: datacenter.clone(),
        rack: Rack::new("r").expect("a name"),
        weight: 1.0,
        quic: "127.0.0.1:1".into(),
        http: "127.0.0.1:1".into(),
        state: MemberState::Up,
    };
    let keyspace = |(id, replicas): &(u64, u16)| {
        let counts = BTreeMap::from([(datacenter.clone(), *replicas)]);
        let config = KeyspaceConfig {
            replication: Replication::PerDatacenter(counts),
            ..KeyspaceConfig::default()
        };
        let name = KeyspaceName::new(&format!("ks-{id}")).expect("a name");
        (name, Keyspace { id: KeyspaceId(*id), ruled_since: Epoch(*id), config })
    };
    let mut state =
        ClusterState::founded(ClusterName::new("c").expect("a name"), PARTITIONS, member(&"x"));
    state.epoch = Epoch(epoch);
    state.members = nodes.iter().map(|name| (node(name), member(name))).collect();
    state.keyspaces = keyspaces.iter().map(keyspace).collect();
    state
}

/// A state in which nothing is on the move.
pub(crate) fn settled(epoch: u64, nodes: &[&str], keyspaces: &[(u64, u16)]) -> Arc<View> {
    view(cluster(epoch, nodes, keyspaces))
}

/// A state in which the last of these nodes leaves, since an epoch.
pub(crate) fn leaving(
    epoch: u64,
    began: u64,
    nodes: &[&str],
    keyspaces: &[(u64, u16)],
    phase: Phase,
) -> Arc<View> {
    let mut state = cluster(epoch, nodes, keyspaces);
    let old = state.layout();
    let last = node(nodes.last().expect("some"));
    state.members.get_mut(&last).expect("a member").state = MemberState::Leaving;
    moving(state, began, old, Purpose::Leave(last), phase)
}

/// A state in which the last of these nodes joins, since an epoch.
pub(crate) fn joining(
    epoch: u64,
    began: u64,
    nodes: &[&str],
    keyspaces: &[(u64, u16)],
    phase: Phase,
) -> Arc<View> {
    let (last, others) = nodes.split_last().expect("some");
    let old = cluster(epoch, others, keyspaces).layout();
    let purpose = Purpose::Join(BTreeSet::from([node(last)]));
    moving(cluster(epoch, nodes, keyspaces), began, old, purpose, phase)
}

fn moving(
    mut state: ClusterState,
    began: u64,
    old: Layout,
    purpose: Purpose,
    phase: Phase,
) -> Arc<View> {
    let phases = vec![phase; PARTITIONS as usize];
    state.change = Some(Box::new(RingChange {
        began: Epoch(began),
        asked: Epoch(began),
        purpose,
        old,
        phases,
    }));
    view(state)
}

fn view(state: ClusterState) -> Arc<View> {
    Arc::new(View::of(Arc::new(state)).expect("a ring"))
}

/// Whether a node holds a partition in a keyspace under a view.
pub(crate) fn holds(view: &View, name: &str, keyspace: u64, partition: PartitionId) -> bool {
    view.holds(&node(name), KeyspaceId(keyspace), partition)
}
