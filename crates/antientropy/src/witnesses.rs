//! Whose word counts of what a tree holds, and of what was forgotten.

use anello_protocol::{
    cluster::Phase,
    id::{NodeId, PartitionId},
    message::client::Place,
};
use anello_ring::view::{KeyspaceView, Placement, View};

/// The other replicas of a tree that hold, as far as each can, all that was ever written to it.
///
/// While a partition fills these are the old owners, who are read. A new one may hold nothing yet of what the
/// others have had for long: to be in step with it proves nothing, and that it holds nothing of a key doesn't
/// mean that the key was forgotten. Nor does anybody have to wait for it: a write is acknowledged by a quorum
/// of the old owners as well. Once the new ones are read they were in step with every old one, and whoever
/// had a part in a quorum may be among either: both sides count. Who was written off is asked no more.
pub(crate) fn witnesses<'a>(
    view: &'a View,
    keyspace: &'a KeyspaceView,
    partition: PartitionId,
    node: &'a NodeId,
) -> impl Iterator<Item = &'a Place> + Clone {
    let placement = view.placement_of(keyspace, partition);
    let fills = fills(view, partition, placement);
    let replicas = placement.replicas.iter().enumerate();
    let counts = move |(at, replica): &(usize, &Place)| {
        replica.id != *node
            && (!fills || placement.readers.contains(*at))
            && !view.cluster().is_written_off(&replica.id)
    };
    replicas.filter(counts).map(|(_, replica)| replica)
}

/// Whether a node holds a partition only because it is being filled: nobody reads it there.
pub(crate) fn is_only_filled(
    view: &View,
    keyspace: &KeyspaceView,
    partition: PartitionId,
    node: &NodeId,
) -> bool {
    let placement = view.placement_of(keyspace, partition);
    fills(view, partition, placement) && !placement.is_read(node)
}

fn fills(view: &View, partition: PartitionId, placement: &Placement) -> bool {
    let phase = view.cluster().change.as_ref().map(|change| change.phase(partition));
    placement.others.is_some() && phase == Some(Phase::Filling)
}
