//! Where a request takes place: its key's replicas under an agreed state, and how many of them must
//! answer.
//!
//! A read's replicas are those who are read. A write's are all who are written to, and while the ring changes
//! these have two sides ([`crate::joint`]); those who are read issue the dots.

use std::sync::Arc;

use anello_protocol::{
    consistency::{Consistency, QuorumKind},
    id::{Epoch, KeyspaceName},
    key::{DataKey, Key},
    message::client::{Place, RequestError},
    time::HybridTime,
    version::ConflictRule,
};
use anello_ring::view::{Placement, View};

use super::{desk::Desk, stand_ins::StandIns};
use crate::{
    joint::{JointRequirement, JointTally},
    tally::{Requirement, Side, TallyResult},
};

/// See the head of this file. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) view: Arc<View>,
    pub(super) key: DataKey,
    pub(super) rule: ConflictRule,
    pub(super) ruled_since: Epoch,
    pub(super) placement: Arc<Placement>,
    pub(super) requirement: JointRequirement,
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
        let key = view.data_key(name, keyspace, key.clone());
        let placement = match side {
            Side::Read => view.readers(keyspace, key.hash),
            Side::Write => view.placement(keyspace, key.hash),
        };
        let placement = placement.clone();
        let requirement = JointRequirement::resolve(side, level, &placement, &desk.datacenter)?;
        let (rule, ruled_since) = (keyspace.config.conflict, keyspace.ruled_since);
        let quorum = QuorumKind::Strict;
        Ok(Self { key, rule, ruled_since, placement, requirement, quorum, view })
    }

    /// The same, with stand-ins counted or not.
    pub(super) fn counting(self, quorum: QuorumKind) -> Self {
        Self { quorum, ..self }
    }

    /// Whether stand-ins count.
    pub(super) fn is_sloppy(&self) -> bool {
        self.quorum == QuorumKind::Sloppy
    }

    /// How many of those who are read must answer.
    pub(super) fn required(&self) -> u16 {
        self.requirement.readers.required()
    }

    /// Whether the replica at a place counts at all.
    pub(super) fn counts(&self, at: usize) -> bool {
        self.requirement.counts(&self.placement, at)
    }

    /// Whether it counts as one of those who are read.
    pub(super) fn counts_as_reader(&self, at: usize, place: &Place) -> bool {
        self.placement.readers.contains(at) && self.requirement.readers.counts(&place.datacenter)
    }

    /// Nothing counted yet.
    pub(super) fn tally(&self) -> JointTally {
        JointTally::new(&self.requirement, &self.placement)
    }

    /// For which of those who are read this node, which is none of them, stands in: for one of its own
    /// datacenter, if there is any.
    pub(super) fn own_standing(&self, desk: &Desk) -> Option<usize> {
        let replicas = &self.placement.replicas;
        if self.is_own(desk) {
            return None;
        }
        let readers = (0..replicas.len()).filter(|at| self.placement.readers.contains(*at));
        readers.min_by_key(|at| replicas[*at].datacenter != desk.datacenter)
    }

    /// Whether this node stands in for those who are read, of whom none can be reached.
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
        // Both sides are of the same kind.
        match &self.requirement.readers {
            Requirement::Total(_) => true,
            Requirement::PerDatacenter(_) => {
                self.placement.replicas[owner].datacenter == stand_in.datacenter
            }
        }
    }

    /// Whether none of those who are read, and count, can be reached, as far as is known.
    pub(super) fn is_abandoned(&self, desk: &Desk) -> bool {
        let replicas = self.placement.replicas.iter().enumerate();
        let mut counting = replicas.filter(|(at, place)| self.counts_as_reader(*at, place));
        counting.all(|(_, place)| place.id != desk.node && !desk.peers.is_reachable(&place.id))
    }

    /// Whether enough of the replicas that count can be reached on each side, as far as is known.
    pub(super) fn enough_alive(&self, desk: &Desk) -> Result<(), RequestError> {
        if desk.peers.all_reachable() {
            return Ok(());
        }
        let mut tally = self.tally();
        let mut stand_ins = StandIns::default();
        for (at, place) in self.placement.replicas.iter().enumerate() {
            let is_away = place.id != desk.node && !desk.peers.is_reachable(&place.id);
            let is_stood_in_for = |stand_ins: &mut StandIns| {
                self.is_sloppy() && stand_ins.next_counting(desk, self, at).is_some()
            };
            if is_away && self.counts(at) && !is_stood_in_for(&mut stand_ins) {
                tally.add_result(at, TallyResult::Failure);
            }
        }
        if tally.impossible() {
            let (required, alive) = tally.chances();
            return Err(RequestError::Unavailable { required, alive });
        }
        Ok(())
    }

    /// Whether this node is one of those who are read, and issue dots.
    pub(super) fn is_own(&self, desk: &Desk) -> bool {
        self.placement.is_read(&desk.node)
    }

    /// Whether this node may have a dot issued.
    pub(super) fn can_issue(&self, desk: &Desk) -> bool {
        self.is_own(desk) || self.is_last_resort(desk)
    }
}
