//! What a vnode is under the agreed state: whether it holds a keyspace's keys, and whether it is read.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::id::{Epoch, KeyspaceId, NodeId, PartitionId};
use anello_ring::{placement::Electorate, view::Placement, view::View};

/// The agreed state, and what the vnode is in each keyspace under it. See the head of this file.
#[derive(Debug)]
pub(super) struct Standing {
    view: Arc<View>,
    roles: BTreeMap<KeyspaceId, Role>,
}

/// What a vnode is in a keyspace, from the least on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// None of its replicas.
    Stranger,
    /// It is written to.
    Holder,
    /// It is written to and read, and issues dots.
    Reader,
}

impl Standing {
    pub(super) fn new(view: Arc<View>) -> Self {
        Self { view, roles: BTreeMap::new() }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.view.epoch()
    }

    /// How many partitions there are.
    pub(super) fn partitions(&self) -> u32 {
        self.view.cluster().partitions
    }

    /// What the vnode of a node is in a keyspace.
    pub(super) fn role(
        &mut self,
        node: &NodeId,
        keyspace: KeyspaceId,
        partition: PartitionId,
    ) -> Role {
        let view = &self.view;
        *self.roles.entry(keyspace).or_insert_with(|| {
            let placement = placement(view, keyspace, partition);
            match placement.and_then(|it| Some((it, it.index_of(node)?))) {
                None => Role::Stranger,
                Some((it, at)) if it.readers.contains(at) => Role::Reader,
                Some(_) => Role::Holder,
            }
        })
    }

    /// Whether other nodes hold a partition under a newer state, or the same ones count for something else.
    /// A keyspace that comes or goes moves nothing.
    pub(super) fn moves(&self, newer: &View, keyspace: KeyspaceId, partition: PartitionId) -> bool {
        let before = placement(&self.view, keyspace, partition);
        let after = placement(newer, keyspace, partition);
        before.zip(after).is_some_and(|(before, after)| !counts_alike(before, after))
    }
}

fn placement(view: &View, keyspace: KeyspaceId, partition: PartitionId) -> Option<&Placement> {
    let keyspace = view.keyspace_of(keyspace)?;
    let is_there = partition.0 < view.cluster().partitions;
    is_there.then(|| &**view.placement_of(keyspace, partition))
}

/// Whether what is acknowledged under one counts under the other as well. The order of the replicas and who
/// stands in for them are of no account.
fn counts_alike(one: &Placement, other: &Placement) -> bool {
    let members = |placement: &Placement, electorate: &Electorate| {
        let replicas = placement.replicas.iter().enumerate();
        let own = replicas.filter(|(at, _)| electorate.contains(*at));
        let mut ids: Vec<_> = own.map(|(_, place)| place.id.clone()).collect();
        ids.sort_unstable();
        (ids, electorate.replication.clone())
    };
    let sides = |it: &Placement| {
        (members(it, &it.readers), it.others.as_ref().map(|others| members(it, others)))
    };
    sides(one) == sides(other)
}
