//! The way from one ring to another: which partitions go to which nodes, who has them, who lets go.

use std::collections::BTreeMap;

use anello_protocol::id::{Epoch, NodeId, PartitionId};

use crate::{
    error::PlanError,
    member::RingMember,
    ring::{ReplicaCounts, Ring},
};

/// A partition that a node is to hold and doesn't yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// The partition.
    pub partition: PartitionId,
    /// Its new holder.
    pub to: NodeId,
    /// Who holds it in the old ring: those of the new holder's datacenter first, then in the order
    /// of the old preference list. Empty where nobody held it.
    pub sources: Vec<NodeId>,
}

/// A partition that a node holds in the old ring and not in the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The partition.
    pub partition: PartitionId,
    /// Its former holder.
    pub from: NodeId,
}

/// What has to move for one ring to become another.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferPlan {
    from: Epoch,
    to: Epoch,
    moves: Vec<Move>,
    releases: Vec<Release>,
    least_moves: f64,
}

impl TransferPlan {
    /// Compares what two rings hold, each under the replication that goes with it.
    pub fn between(
        old: &Ring,
        old_replication: &ReplicaCounts,
        new: &Ring,
        new_replication: &ReplicaCounts,
    ) -> Result<Self, PlanError> {
        if old.partitions() != new.partitions() {
            return Err(PlanError::PartitionsDiffer {
                old: old.partitions(),
                new: new.partitions(),
            });
        }
        let (mut moves, mut releases) = (Vec::new(), Vec::new());
        for partition in old.partition_ids() {
            let before = old.preference_list(partition, old_replication);
            let after = new.preference_list(partition, new_replication);
            let (before, after) = (before.replicas(), after.replicas());
            let holds = |list: &[&RingMember], id: &NodeId| list.iter().any(|m| m.id == *id);
            for to in after.iter().filter(|member| !holds(before, &member.id)) {
                let (near, far): (Vec<&RingMember>, Vec<&RingMember>) =
                    before.iter().partition(|source| source.datacenter == to.datacenter);
                let sources = near.into_iter().chain(far).map(|source| source.id.clone()).collect();
                moves.push(Move { partition, to: to.id.clone(), sources });
            }
            for from in before.iter().filter(|member| !holds(after, &member.id)) {
                releases.push(Release { partition, from: from.id.clone() });
            }
        }
        let least_moves = least_moves(old, old_replication, new, new_replication, &releases);
        Ok(Self { from: old.epoch(), to: new.epoch(), moves, releases, least_moves })
    }

    /// The epoch of the old ring.
    pub fn from(&self) -> Epoch {
        self.from
    }

    /// The epoch of the new ring.
    pub fn to(&self) -> Epoch {
        self.to
    }

    /// What goes where, by partition.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// Who lets go of what, by partition. Only safe once the moves of that partition are done.
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// Whether the rings hold the same.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.releases.is_empty()
    }

    /// The least that any claim would have to move, as (partition, holder) pairs, to give every node
    /// its fair holdings: the greater of
    /// - what the nodes that are gone held, since somebody must get it, and
    /// - by how much the fair holdings ([`Ring::fair_holdings`]) of those grew whose did.
    ///
    /// For a join that is the new node's fair holdings, for a leave what the old node held.
    pub fn least_moves(&self) -> f64 {
        self.least_moves
    }
}

fn least_moves(
    old: &Ring,
    old_replication: &ReplicaCounts,
    new: &Ring,
    new_replication: &ReplicaCounts,
    releases: &[Release],
) -> f64 {
    let gone = releases.iter().filter(|release| new.member(&release.from).is_none()).count() as f64;
    let before = fair_holdings(old, old_replication);
    let growth: f64 = fair_holdings(new, new_replication)
        .into_iter()
        .map(|(id, fair)| (fair - before.get(id).copied().unwrap_or(0.0)).max(0.0))
        .sum();
    gone.max(growth)
}

/// The fair holdings of every member under a replication.
fn fair_holdings<'a>(ring: &'a Ring, replication: &ReplicaCounts) -> BTreeMap<&'a NodeId, f64> {
    let mut fair = BTreeMap::new();
    for (datacenter, count) in replication {
        let members = ring.members_in(datacenter);
        fair.extend(members.map(|m| &m.id).zip(ring.fair_holdings_in(datacenter, *count)));
    }
    fair
}
