//! Where a hint goes under the agreed state: to its owner, as long as that is a replica of the key and stays
//! one.
//!
//! An owner that is not read any more is about to drop what it holds: nothing that was only kept as a hint
//! may end there.

use std::collections::BTreeSet;

use anello_protocol::{
    cluster::{MemberState, Phase},
    id::NodeId,
    key::DataKey,
};
use anello_ring::view::{Placement, View};

/// Where a hint goes.
pub(super) enum Destination {
    Owner,
    /// The owner is none to keep it: to those who are read and can be reached.
    Replicas(Vec<NodeId>),
    /// Its keyspace was dropped.
    Nowhere,
}

/// Whether a node belongs to the cluster, whatever it holds, and may ever answer again.
pub(super) fn is_member(view: &View, id: &NodeId) -> bool {
    let member = view.cluster().members.get(id);
    member.is_some_and(|it| !matches!(it.state, MemberState::Left | MemberState::Removed))
        && !view.cluster().is_written_off(id)
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
    let is_kept = is_kept_by(view, view.placement(keyspace, key.hash), owner);
    // Who leaves can't wait for somebody who is away, and takes what it keeps with it.
    let can_wait = !is_leaving(view, node) || !unreachable.contains(owner);
    if is_kept && can_wait {
        return Destination::Owner;
    }
    let readers = &view.readers(keyspace, key.hash).replicas;
    let reachable = readers.iter().map(|place| &place.id).filter(|id| {
        *id == node || !unreachable.contains(*id) && !view.cluster().is_written_off(id)
    });
    Destination::Replicas(reachable.cloned().collect())
}

fn is_leaving(view: &View, node: &NodeId) -> bool {
    let member = view.cluster().members.get(node);
    member.is_some_and(|it| it.state == MemberState::Leaving)
}

/// Whether an owner is a replica that stays one, and may ever answer again.
fn is_kept_by(view: &View, placement: &Placement, owner: &NodeId) -> bool {
    let change = view.cluster().change.as_ref();
    // Those who are not read yet are being filled.
    let is_filling = change.is_some_and(|it| it.phase(placement.partition) == Phase::Filling);
    let is_replica = placement.index_of(owner).is_some();
    is_member(view, owner) && is_replica && (is_filling || placement.is_read(owner))
}
