//! Who holds one partition in one keyspace, while nothing changes and while the ring does.
//!
//! While a partition is on its way from its old owners to its new ones ([`Phase`]), both are written to and
//! one of the two sets is read. A write then needs as many of the readers as its level asks for, and as many
//! of the others: so whichever of the two a read goes to, it meets every acknowledged write.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    cluster::Phase,
    id::{Datacenter, NodeId, PartitionId},
    message::client::Place,
};

use crate::{
    member::RingMember,
    ring::{ReplicaCounts, Ring},
};

/// The most nodes of a datacenter that are kept at hand to stand in for a partition's replicas. With more
/// than so many away at once, requests fail.
const MAX_STAND_INS: usize = 8;

/// The replicas of one partition in one keyspace, by datacenter, each datacenter's in the order of its
/// preference list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The partition.
    pub partition: PartitionId,
    /// Who holds it, and is written to.
    pub replicas: Vec<Place>,
    /// Who takes the place of a replica that is away, in the order in which they are asked.
    pub stand_ins: Vec<Place>,
    /// Those of the replicas that are read, and issue dots.
    pub readers: Electorate,
    /// The other side of a change that is under way: they count as well in a write.
    pub others: Option<Electorate>,
}

/// Replicas that are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Electorate {
    /// How many of them each datacenter has.
    pub replication: Arc<BTreeMap<Datacenter, usize>>,
    /// Which of the replicas they are.
    members: Vec<bool>,
}

impl Electorate {
    /// Whether the replica at a place is one of them.
    pub fn contains(&self, at: usize) -> bool {
        self.members.get(at).copied().unwrap_or(false)
    }
}

impl Placement {
    /// Which of the replicas a node is.
    pub fn index_of(&self, node: &NodeId) -> Option<usize> {
        self.replicas.iter().position(|place| place.id == *node)
    }

    /// Whether a node is a replica that is read, and issues dots.
    pub fn is_read(&self, node: &NodeId) -> bool {
        self.index_of(node).is_some_and(|at| self.readers.contains(at))
    }
}

/// One side of a change: a ring, and how many replicas a keyspace has under it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side<'a> {
    pub(crate) ring: &'a Ring,
    pub(crate) counts: &'a Arc<ReplicaCounts>,
}

impl<'a> Side<'a> {
    pub(crate) fn replicas(self, partition: PartitionId) -> Vec<&'a RingMember> {
        self.ring.preference_list(partition, self.counts).replicas().to_vec()
    }
}

/// Who holds a partition, and who is only read.
#[derive(Clone, Debug)]
pub(crate) struct Placements {
    pub(crate) all: Arc<Placement>,
    pub(crate) readers: Arc<Placement>,
}

impl Placements {
    /// A partition that is not on the move.
    pub(crate) fn settled(partition: PartitionId, side: Side<'_>) -> Self {
        let replicas = side.replicas(partition);
        let all = Arc::new(placement(partition, side, &replicas, &[], None));
        Self { readers: Arc::clone(&all), all }
    }

    /// A partition that is that far on its way.
    pub(crate) fn moving(
        partition: PartitionId,
        old: Side<'_>,
        new: Side<'_>,
        phase: Phase,
    ) -> Self {
        let (read, other) = match phase {
            Phase::Filling => (old, new),
            Phase::Serving => (new, old),
            Phase::Done => return Self::settled(partition, new),
        };
        let (readers, others) = (read.replicas(partition), other.replicas(partition));
        if is_same(&readers, &others) && read.counts == other.counts {
            return Self::settled(partition, new);
        }
        // Stand-ins are those of the ring that will hold.
        let all = placement(partition, new, &readers, &others, Some((read, other)));
        let mut only_readers = placement(partition, new, &readers, &[], None);
        only_readers.readers.replication = Arc::clone(read.counts);
        only_readers.stand_ins.clone_from(&all.stand_ins);
        Self { all: Arc::new(all), readers: Arc::new(only_readers) }
    }
}

/// Whether two lists name the same nodes, in whatever order.
pub(crate) fn is_same(one: &[&RingMember], other: &[&RingMember]) -> bool {
    one.len() == other.len() && one.iter().all(|a| other.iter().any(|b| a.id == b.id))
}

fn placement(
    partition: PartitionId,
    stand_ins: Side<'_>,
    readers: &[&RingMember],
    others: &[&RingMember],
    sides: Option<(Side<'_>, Side<'_>)>,
) -> Placement {
    let is_in = |list: &[&RingMember], id: &NodeId| list.iter().any(|member| member.id == *id);
    let mut replicas: Vec<&RingMember> = readers.to_vec();
    replicas.extend(others.iter().filter(|member| !is_in(readers, &member.id)));
    // Grouped by datacenter, as those who relay expect it; stable, so the order within one stays.
    replicas.sort_by(|a, b| a.datacenter.cmp(&b.datacenter));
    let electorate = |list: &[&RingMember], side: Side<'_>| Electorate {
        replication: Arc::clone(side.counts),
        members: replicas.iter().map(|member| is_in(list, &member.id)).collect(),
    };
    let stand_in = |member: &&RingMember| !replicas.iter().any(|other| other.id == member.id);
    // As many more as replicas of the other side may have to be passed over.
    let enough = MAX_STAND_INS + others.len();
    let list = stand_ins.ring.preference_list(partition, stand_ins.counts);
    let stand_ins_of = list.stand_ins_up_to(enough).filter(stand_in);
    Placement {
        partition,
        readers: electorate(readers, sides.map_or(stand_ins, |(read, _)| read)),
        others: sides.map(|(_, other)| electorate(others, other)),
        stand_ins: stand_ins_of.map(place).collect(),
        replicas: replicas.iter().map(|member| place(member)).collect(),
    }
}

fn place(member: &RingMember) -> Place {
    Place {
        id: member.id.clone(),
        datacenter: member.datacenter.clone(),
        rack: member.rack.clone(),
    }
}
