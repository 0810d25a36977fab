//! Transcripts of a vnode: inputs in, effects compared; and its promises by property, with a store
//! that crashes.

mod bench;
mod changes;
mod laws;
mod transcripts;

use std::sync::Arc;

use anello_protocol::{
    causality::Context,
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
    key::{DataKey, Key, KeyHash},
    message::replica::{MintVersion, ReadVersions, StoreVersions, Want},
    time::{Moment, Now},
    version::{ConflictRule, Content, Value, Versions, WriteId},
};

use super::{Replica, ReplicaConfig};
use anello_ring::view::View;

fn node() -> NodeId {
    NodeId::new("a").expect("a good name")
}

fn member(id: &str) -> Member {
    Member {
        id: NodeId::new(id).expect("a good name"),
        datacenter: Datacenter::new("eu").expect("a good name"),
        rack: Rack::new("r").expect("a good name"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    }
}

/// A cluster of the node alone, with a single partition.
fn view(epoch: u64) -> Arc<View> {
    view_of(epoch, member("a"))
}

fn view_of(epoch: u64, member: Member) -> Arc<View> {
    let name = ClusterName::new("test").expect("a good name");
    let mut cluster = ClusterState::founded(name, 1, member);
    cluster.epoch = Epoch(epoch);
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

fn replica(seed: u64) -> Replica {
    Replica::new(node(), PartitionId(0), ReplicaConfig::default(), seed, None)
}

fn now(wall_ms: u64) -> Now {
    Now { moment: Moment(0), wall_ms }
}

fn key(name: &str) -> DataKey {
    let key = Key::new(name.as_bytes().to_vec()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace: KeyspaceId(1), key }
}

fn value(text: &str) -> Content {
    Content::Value(Value::new(text.as_bytes().to_vec()).expect("a short value"))
}

fn mint(key: &DataKey, write_id: u128, context: &Context, rule: ConflictRule) -> MintVersion {
    MintVersion {
        epoch: Epoch(1),
        key: key.clone(),
        rule,
        ruled_since: Epoch(1),
        context: context.clone(),
        write_id: WriteId(write_id),
        later_than: None,
        trace_id: None,
        content: value(&write_id.to_string()),
    }
}

fn read(key: &DataKey) -> ReadVersions {
    ReadVersions { epoch: Epoch(1), key: key.clone(), want: Want::Full }
}

fn store(key: &DataKey, versions: Versions, rule: ConflictRule) -> StoreVersions {
    StoreVersions { epoch: Epoch(1), key: key.clone(), rule, versions }
}
