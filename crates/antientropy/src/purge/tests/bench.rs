//! Clusters, keys and versions for tests.

use std::{sync::Arc, time::Duration};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, Epoch, KeyspaceName, NodeId, Rack},
    key::{DataKey, Key},
    time::HybridTime,
    version::{ConflictRule, Content, Value, Version, WriteId},
};
use anello_ring::view::View;

use crate::purge::PurgeConfig;

/// Six that hold every key, and one that can keep hints.
pub(super) const NODES: [&str; 7] = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c", "us-d"];
pub(super) const GRACE: Duration = Duration::from_secs(2);

pub(super) fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

/// A cluster of nodes named `<datacenter>-<letter>`, with one partition.
pub(super) fn cluster(epoch: u64, nodes: &[&str], rule: ConflictRule) -> ClusterState {
    let member = |id: &str| Member {
        id: node(id),
        datacenter: Datacenter::new(id.split('-').next().expect("a first part")).expect("a name"),
        rack: Rack::new("r").expect("a good name"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    };
    let name = ClusterName::new("test").expect("a good name");
    let mut cluster = ClusterState::founded(name, 1, member(nodes[0]));
    cluster.epoch = Epoch(epoch);
    cluster.members = nodes.iter().map(|id| (node(id), member(id))).collect();
    let keyspace = cluster.keyspaces.get_mut(&KeyspaceName::default_keyspace());
    let config = &mut keyspace.expect("it always exists").config;
    config.tombstone_grace_s = GRACE.as_secs();
    config.conflict = rule;
    cluster
}

pub(super) fn view(cluster: ClusterState) -> Arc<View> {
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

pub(super) fn data_key(view: &View, key: &str) -> DataKey {
    let name = KeyspaceName::default_keyspace();
    let keyspace = view.keyspace(&name).expect("it always exists");
    view.data_key(&name, keyspace, Key::new(key.as_bytes().to_vec()).expect("a short key"))
}

/// Who holds everything, in the order of preference.
pub(super) fn replicas(view: &View) -> Vec<NodeId> {
    let keyspace = view.keyspace(&KeyspaceName::default_keyspace()).expect("it always exists");
    let placement = view.placement_of(keyspace, anello_protocol::id::PartitionId(0));
    placement.replicas.iter().map(|place| place.id.clone()).collect()
}

/// Who holds nothing, and may keep hints.
pub(super) fn stand_in(view: &View) -> NodeId {
    let replicas = replicas(view);
    NODES.map(node).into_iter().find(|node| !replicas.contains(node)).expect("there is one")
}

/// A version with a dot of its own.
pub(super) fn version(
    number: u64,
    past: Context,
    time: HybridTime,
    value: Option<&str>,
) -> Version {
    let actor = ActorId { incarnation: Incarnation(number), birth: 1 };
    Version {
        dot: Dot { actor, counter: 1 },
        past,
        write_id: WriteId(number.into()),
        time,
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: match value {
            Some(value) => Content::Value(Value::new(value.to_owned()).expect("short")),
            None => Content::Tombstone,
        },
    }
}

/// Delays for messages that live a second.
pub(super) fn config() -> PurgeConfig {
    PurgeConfig {
        settle: Duration::from_millis(1_100),
        call_timeout: Duration::from_millis(300),
        backoff: Duration::from_millis(20),
        persistence: Duration::from_secs(1),
        ..PurgeConfig::default()
    }
}
