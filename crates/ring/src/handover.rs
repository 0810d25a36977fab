//! What has to be so before a partition that is on the move enters its next phase.
//!
//! Everybody who holds it must act under the phase that it is in: from then on no write is acknowledged that
//! the other side doesn't know of. And its new owners must be in step with its old ones, so that the write
//! of whoever acknowledged it is among as many of the new owners as it was among the old ones:
//! - a node that is new holds what every old owner holds;
//! - where there are more or fewer owners than before, or one is written off, so does one that stays.
//!
//! Let a write be acknowledged by a set H of the old owners. If H has one that goes, every new node has the
//! write from it; else all of H stays. Either way as many of the new owners hold it. A node that was
//! written off can't be asked, so everything that the others of H have goes to all (CASSANDRA-2434).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anello_protocol::{
    cluster::{ClusterState, Phase},
    id::{KeyspaceId, NodeId},
};

use crate::placement::{Electorate, Placement};

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// For each of those who must act under the phase, and have to say so: with whom it must be in step in
    /// which keyspace.
    pub awaited: BTreeMap<NodeId, BTreeSet<(KeyspaceId, NodeId)>>,
}

impl Handover {
    pub(crate) fn of<'a>(
        cluster: &ClusterState,
        phase: Phase,
        placements: impl Iterator<Item = (KeyspaceId, &'a Arc<Placement>)>,
    ) -> Self {
        let mut handover = Self::default();
        for (keyspace, placement) in placements {
            if let Some(others) = &placement.others {
                handover.add(cluster, phase, keyspace, placement, others);
            }
        }
        handover
    }

    fn add(
        &mut self,
        cluster: &ClusterState,
        phase: Phase,
        keyspace: KeyspaceId,
        placement: &Placement,
        others: &Electorate,
    ) {
        let (old, new) = match phase {
            Phase::Filling => (&placement.readers, others),
            Phase::Serving | Phase::Done => (others, &placement.readers),
        };
        let is_there = |at: usize| !cluster.is_written_off(&placement.replicas[at].id);
        let places = 0..placement.replicas.len();
        let all_must = old.replication != new.replication || !places.clone().all(is_there);
        for at in places.clone().filter(|at| is_there(*at)) {
            let awaited = self.awaited.entry(placement.replicas[at].id.clone()).or_default();
            if new.contains(at) && (all_must || !old.contains(at)) {
                let sources = places.clone().filter(|it| old.contains(*it) && is_there(*it));
                let sources = sources.filter(|it| *it != at);
                awaited.extend(sources.map(|it| (keyspace, placement.replicas[it].id.clone())));
            }
        }
    }
}
