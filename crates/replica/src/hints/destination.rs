//! Where a hint goes under the agreed state: to its owner, as long as that is a replica of the key.

use std::collections::BTreeSet;

use anello_protocol::{cluster::MemberState, id::NodeId, key::DataKey};
use anello_ring::view::View;

/// Where a hint goes.
pub(super) enum Destination {
    Owner,
    /// The owner is no replica of it: to those that are and can be reached.
    Replicas(Vec<NodeId>),
    /// Its keyspace was dropped.
    Nowhere,
}

/// Whether a node belongs to the cluster, whatever it holds.
pub(super) fn is_member(view: &View, id: &NodeId) -> bool {
    let member = view.cluster().members.get(id);
    member.is_some_and(|it| !matches!(it.state, MemberState::Left | MemberState::Removed))
}

/// Where a hint for an owner goes under the agreed state.
pub(super) fn destination(
    view: &View,
    node: &NodeId,
    unreachable: &BTreeSet<NodeId>,
    owner: &NodeId,
    key: &DataKey,
) -> Destination {
    let Some(keyspace) = view.keyspace_of(key.keyspace) else { return Destination::Nowhere };
    let placement = view.placement(keyspace, key.hash);
    if placement.index_of(owner).is_some() {
        return Destination::Owner;
    }
    let ids = placement.replicas.iter().map(|place| &place.id);
    let reachable = ids.filter(|id| *id == node || !unreachable.contains(*id));
    Destination::Replicas(reachable.cloned().collect())
}
