//! Where a request takes place: its key's replicas under an agreed state, and how many of them must
//! answer.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    consistency::{Consistency, QuorumKind},
    id::{Datacenter, Epoch, KeyspaceName},
    key::{DataKey, Key},
    message::client::{Place, RequestError},
    time::HybridTime,
    version::ConflictRule,
};
use anello_ring::view::{Placement, View};

use super::{desk::Desk, stand_ins::StandIns};
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
    /// Whether stand-ins count.
    pub(super) quorum: QuorumKind,
}

impl Site {
    /// Looks a key up. `level` is given the keyspace's own level for this side; whether stand-ins count is
    /// for the request to say, see [`Site::counting`].
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
        let quorum = QuorumKind::Strict;
        Ok(Self { key, rule, ruled_since, placement, replication, requirement, quorum, view })
    }

    /// The same, with stand-ins counted or not.
    pub(super) fn counting(self, quorum: QuorumKind) -> Self {
        Self { quorum, ..self }
    }

    /// Whether stand-ins count.
    pub(super) fn is_sloppy(&self) -> bool {
        self.quorum == QuorumKind::Sloppy
    }

    /// For which replica this node, which is none itself, stands in: for one of its own datacenter, if
    /// there is any.
    pub(super) fn own_standing(&self, desk: &Desk) -> Option<usize> {
        let replicas = &self.placement.replicas;
        if self.is_own(desk) {
            return None;
        }
        (0..replicas.len()).min_by_key(|at| replicas[*at].datacenter != desk.datacenter)
    }

    /// Whether this node stands in for replicas of which none can be reached.
    pub(super) fn is_last_resort(&self, desk: &Desk) -> bool {
        let is_stand_in = || self.placement.stand_ins.iter().any(|place| place.id == desk.node);
        self.is_sloppy() && self.is_abandoned(desk) && is_stand_in()
    }

    /// Whether a tombstone of that time is old enough to be forgotten.
    pub(super) fn is_past_grace(&self, desk: &Desk, time: HybridTime) -> bool {
        let keyspace = self.view.keyspace_of(self.key.keyspace);
        keyspace.is_some_and(|keyspace| {
            let grace_ms = keyspace.config.tombstone_grace_s.saturating_mul(1000);
            time.wall_ms().saturating_add(grace_ms) <= desk.now.wall_ms
        })
    }

    /// Whether a stand-in counts in the place of the replica `owner`: a level that asks for replicas of
    /// one datacenter is met by nodes of that datacenter only.
    pub(super) fn counts_for(&self, owner: usize, stand_in: &Place) -> bool {
        match &self.requirement {
            Requirement::Total(_) => true,
            Requirement::PerDatacenter(_) => {
                self.placement.replicas[owner].datacenter == stand_in.datacenter
            }
        }
    }

    /// Whether none of the replicas that count can be reached, as far as is known.
    pub(super) fn is_abandoned(&self, desk: &Desk) -> bool {
        let replicas = &self.placement.replicas;
        let mut counting =
            replicas.iter().filter(|place| self.requirement.counts(&place.datacenter));
        counting.all(|place| place.id != desk.node && !desk.peers.is_reachable(&place.id))
    }

    /// Whether enough of the replicas that count can be reached, as far as is known.
    pub(super) fn enough_alive(&self, desk: &Desk) -> Result<(), RequestError> {
        if desk.peers.all_reachable() {
            return Ok(());
        }
        let mut tally = Tally::new(&self.requirement, &self.replication);
        let mut stand_ins = StandIns::default();
        for (at, place) in self.placement.replicas.iter().enumerate() {
            let is_away = place.id != desk.node && !desk.peers.is_reachable(&place.id);
            let is_stood_in_for = |stand_ins: &mut StandIns| {
                self.is_sloppy() && stand_ins.next_counting(desk, self, at).is_some()
            };
            if is_away
                && self.requirement.counts(&place.datacenter)
                && !is_stood_in_for(&mut stand_ins)
            {
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
