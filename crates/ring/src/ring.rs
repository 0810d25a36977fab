//! The ring: the members under an epoch, and for each datacenter the walks of all partitions.

use std::collections::BTreeMap;

use anello_protocol::{
    cluster::MAX_PARTITIONS,
    id::{Datacenter, Epoch, NodeId, PartitionId, Rack},
    key::KeyHash,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    claim::{self, Node, Walks},
    draw::Draws,
    error::RingError,
    member::{self, RingMember},
    preference::{PreferenceList, Walk},
};

/// How many replicas there are in each datacenter. A datacenter that isn't named has none.
pub type ReplicaCounts = BTreeMap<Datacenter, usize>;

/// Who owns what: a pure function of the epoch, the number of partitions and the members.
///
/// Memory: 16 bytes for each partition and datacenter, and the members.
#[derive(Clone, Debug)]
pub struct Ring {
    epoch: Epoch,
    /// log2 of the number of partitions.
    bits: u32,
    /// By id.
    members: Vec<RingMember>,
    /// By name.
    datacenters: Vec<DatacenterRing>,
}

/// One datacenter's full ring.
#[derive(Clone, Debug)]
pub(crate) struct DatacenterRing {
    pub(crate) name: Datacenter,
    /// Its members, as places in the ring's list.
    members: Vec<u16>,
    /// How much of every walk is kept.
    depth: usize,
    /// The walks' beginnings: partition after partition, as places in the ring's list.
    walks: Vec<u16>,
}

impl Ring {
    /// Builds the ring. The order of the members doesn't matter.
    pub fn build(
        epoch: Epoch,
        partitions: u32,
        members: impl IntoIterator<Item = RingMember>,
    ) -> Result<Self, RingError> {
        if !partitions.is_power_of_two() || partitions > MAX_PARTITIONS {
            return Err(RingError::BadPartitions(partitions));
        }
        let bits = partitions.trailing_zeros();
        let members = member::checked(members)?;
        let mut places: BTreeMap<&Datacenter, Vec<u16>> = BTreeMap::new();
        for (place, member) in members.iter().enumerate() {
            places.entry(&member.datacenter).or_default().push(place as u16);
        }
        let datacenters = places
            .into_iter()
            .map(|(name, places)| DatacenterRing::build(name, bits, places, &members))
            .collect();
        Ok(Self { epoch, bits, members, datacenters })
    }

    /// The number of the agreed state that this ring is of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        1 << self.bits
    }

    /// All partitions.
    pub fn partition_ids(&self) -> impl ExactSizeIterator<Item = PartitionId> + use<> {
        (0..self.partitions()).map(PartitionId)
    }

    /// All members, by id.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// The member with an id.
    pub fn member(&self, id: &NodeId) -> Option<&RingMember> {
        let place = self.members.binary_search_by(|member| member.id.cmp(id)).ok()?;
        self.members.get(place)
    }

    /// The datacenters that have members, by name.
    pub fn datacenters(&self) -> impl ExactSizeIterator<Item = &Datacenter> {
        self.datacenters.iter().map(|datacenter| &datacenter.name)
    }

    /// The members of a datacenter, by id.
    pub fn members_in(&self, datacenter: &Datacenter) -> impl Iterator<Item = &RingMember> {
        let places = self.datacenter(datacenter).map_or(&[][..], |ring| &ring.members);
        places.iter().map(|place| &self.members[usize::from(*place)])
    }

    /// The partition that a key's hash lies in.
    pub fn partition_of(&self, hash: KeyHash) -> PartitionId {
        hash.partition(self.partitions())
    }

    /// The node that owns a partition's token in a datacenter: the first of its walk.
    pub fn owner(&self, partition: PartitionId, datacenter: &Datacenter) -> Option<&RingMember> {
        self.walk(partition, datacenter).next()
    }

    /// All nodes of a datacenter in the order in which they hold a partition. None for a partition
    /// or a datacenter that isn't there.
    pub fn walk(&self, partition: PartitionId, datacenter: &Datacenter) -> Walk<'_> {
        match self.datacenter(datacenter) {
            Some(ring) if partition.0 < self.partitions() => Walk::new(self, ring, partition),
            _ => Walk::nowhere(self),
        }
    }

    /// The first `count` nodes of a partition's walk: on distinct racks as long as there are racks,
    /// always distinct; all nodes where the datacenter has no more.
    pub fn replicas(
        &self,
        partition: PartitionId,
        datacenter: &Datacenter,
        count: usize,
    ) -> impl Iterator<Item = &RingMember> {
        self.walk(partition, datacenter).take(count)
    }

    /// The replicas of a partition in all datacenters, and who stands in for them.
    pub fn preference_list<'a>(
        &'a self,
        partition: PartitionId,
        replication: &'a ReplicaCounts,
    ) -> PreferenceList<'a> {
        PreferenceList::new(self, partition, replication)
    }

    /// The partitions that a node holds: its vnodes.
    pub fn vnodes_of(&self, id: &NodeId, replication: &ReplicaCounts) -> Vec<PartitionId> {
        let Some(member) = self.member(id) else { return Vec::new() };
        let count = replication.get(&member.datacenter).copied().unwrap_or(0);
        self.partition_ids()
            .filter(|partition| {
                self.replicas(*partition, &member.datacenter, count).any(|m| m.id == *id)
            })
            .collect()
    }

    /// How many partitions it would be fair for a node to hold when its datacenter has `replicas`
    /// of each: what balance and movement are measured by. By weight within a rack; among racks by
    /// weight as far as the rule of distinct racks leaves a choice.
    pub fn fair_holdings(&self, id: &NodeId, replicas: usize) -> f64 {
        let Some(member) = self.member(id) else { return 0.0 };
        let at = self.members_in(&member.datacenter).position(|other| other.id == *id);
        let fair = self.fair_holdings_in(&member.datacenter, replicas);
        at.and_then(|at| fair.get(at).copied()).unwrap_or(0.0)
    }

    /// [`Self::fair_holdings`] of all members of a datacenter, by id.
    pub(crate) fn fair_holdings_in(&self, datacenter: &Datacenter, replicas: usize) -> Vec<f64> {
        let Some(ring) = self.datacenter(datacenter) else { return Vec::new() };
        let shares = claim::fair_shares(&claim_nodes(&ring.members, &self.members), replicas);
        shares.into_iter().map(|share| share * f64::from(self.partitions())).collect()
    }

    pub(crate) fn datacenter(&self, name: &Datacenter) -> Option<&DatacenterRing> {
        self.datacenters.iter().find(|datacenter| datacenter.name == *name)
    }

    pub(crate) fn place(&self, place: u16) -> &RingMember {
        &self.members[usize::from(place)]
    }

    /// The places of a datacenter's nodes in the order of their draws alone: how walks go on where
    /// the claim ends.
    pub(crate) fn by_draw(&self, ring: &DatacenterRing, partition: PartitionId) -> Vec<u16> {
        let mut draws: Vec<_> = ring
            .members
            .iter()
            .map(|place| {
                let member = self.place(*place);
                let draws = Draws::new(seed(&member.id), member.effective_weight(), self.bits);
                (draws.of(partition.0), *place)
            })
            .collect();
        draws.sort_unstable();
        draws.into_iter().map(|(_, place)| place).collect()
    }
}

impl DatacenterRing {
    fn build(name: &Datacenter, bits: u32, members: Vec<u16>, all: &[RingMember]) -> Self {
        let Walks { depth, nodes } = claim::claim(bits, &claim_nodes(&members, all));
        let walks = nodes.into_iter().map(|node| members[usize::from(node)]).collect();
        Self { name: name.clone(), members, depth, walks }
    }

    /// The beginning of a partition's walk.
    pub(crate) fn walk(&self, partition: PartitionId) -> &[u16] {
        &self.walks[partition.0 as usize * self.depth..][..self.depth]
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }
}

/// The members at these places as the claim sees them.
fn claim_nodes(places: &[u16], all: &[RingMember]) -> Vec<Node> {
    let members = || places.iter().map(|place| &all[usize::from(*place)]);
    let mut racks: Vec<&Rack> = members().map(|member| &member.rack).collect();
    racks.sort_unstable();
    racks.dedup();
    members()
        .map(|member| Node {
            seed: seed(&member.id),
            rack: racks.partition_point(|rack| *rack < &member.rack),
            weight: member.effective_weight(),
        })
        .collect()
}

/// What stands for a node in the draws: part of the contract between nodes, so it never changes.
fn seed(id: &NodeId) -> u64 {
    xxh3_64(id.as_str().as_bytes())
}
