//! Where a request takes place: its key's replicas under an agreed state, and how many of them must
//! answer.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    consistency::Consistency,
    id::{Datacenter, Epoch, KeyspaceName},
    key::{DataKey, Key},
    message::client::RequestError,
    version::ConflictRule,
};
use anello_ring::view::{Placement, View};

use super::desk::Desk;
use crate::tally::{Requirement, Side, Tally, TallyResult};

/// See the head of this file. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) view: Arc<View>,
    pub(super) key: DataKey,
    pub(super) rule: ConflictRule,
    pub(super) ruled_since: Epoch,
    pub(super) placement: Arc<Placement>,
    pub(super) replication: Arc<BTreeMap<Datacenter, usize>>,
    pub(super) requirement: Requirement,
}

impl Site {
    /// Looks a key up. `level` is given the keyspace's own level for this side.
    pub(super) fn find(
        desk: &Desk,
        side: Side,
        name: &KeyspaceName,
        key: &Key,
        level: impl FnOnce(Consistency) -> Consistency,
    ) -> Result<Self, RequestError> {
        let Some(view) = desk.view.clone() else {
            // A node of no cluster reaches nobody.
            return Err(RequestError::Unavailable { required: 1, alive: 0 });
        };
        let Some(keyspace) = view.keyspace(name) else {
            return Err(RequestError::NoSuchKeyspace(name.clone()));
        };
        let level = level(match side {
            Side::Read => keyspace.config.read,
            Side::Write => keyspace.config.write,
        });
        let replication = keyspace.replication.clone();
        let requirement = Requirement::resolve(side, level, &replication, &desk.datacenter)?;
        let key = view.data_key(name, keyspace, key.clone());
        let placement = view.placement(keyspace, key.hash).clone();
        let (rule, ruled_since) = (keyspace.config.conflict, keyspace.ruled_since);
        Ok(Self { key, rule, ruled_since, placement, replication, requirement, view })
    }

    /// Whether enough of the replicas that count can be reached, as far as is known.
    pub(super) fn enough_alive(&self, desk: &Desk) -> Result<(), RequestError> {
        if desk.peers.all_reachable() {
            return Ok(());
        }
        let mut tally = Tally::new(&self.requirement, &self.replication);
        for place in &self.placement.replicas {
            if place.id != desk.node && !desk.peers.is_reachable(&place.id) {
                tally.add_result(&place.datacenter, TallyResult::Failure);
            }
        }
        if tally.impossible() {
            let (required, alive) = (tally.required(), tally.possible());
            return Err(RequestError::Unavailable { required, alive });
        }
        Ok(())
    }

    /// Whether this node is one of the replicas.
    pub(super) fn is_own(&self, desk: &Desk) -> bool {
        self.placement.index_of(&desk.node).is_some()
    }
}
