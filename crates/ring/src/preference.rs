//! Walks and preference lists: who holds a partition, and who comes after them.
//!
//! The beginning of a walk is precomputed and costs a table lookup. The rest of it matters only when
//! many nodes are down at once and is worked out when somebody gets there.

use anello_protocol::id::{Datacenter, PartitionId};

use crate::{
    member::RingMember,
    ring::{DatacenterRing, ReplicaCounts, Ring},
};

/// All nodes of a datacenter in the order in which they hold a partition: every rack once, before
/// any comes again.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    ring: &'a Ring,
    datacenter: Option<&'a DatacenterRing>,
    partition: PartitionId,
    /// The beginning, as places in the ring's list of members.
    begun: &'a [u16],
    at: usize,
    /// What follows, once somebody asks.
    rest: Option<Vec<u16>>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(ring: &'a Ring, of: &'a DatacenterRing, partition: PartitionId) -> Self {
        Self { ring, datacenter: Some(of), partition, begun: of.walk(partition), at: 0, rest: None }
    }

    pub(crate) fn nowhere(ring: &'a Ring) -> Self {
        Self { ring, datacenter: None, partition: PartitionId(0), begun: &[], at: 0, rest: None }
    }

    /// The nodes after the beginning: the racks that it left out come first.
    fn rest(&self) -> Vec<u16> {
        let Some(datacenter) = self.datacenter else { return Vec::new() };
        let by_draw = self.ring.by_draw(datacenter, self.partition);
        let mut racks: Vec<_> = self.begun.iter().map(|at| &self.ring.place(*at).rack).collect();
        let (mut fresh, mut again) = (Vec::new(), Vec::new());
        for place in by_draw.into_iter().filter(|place| !self.begun.contains(place)) {
            let rack = &self.ring.place(place).rack;
            if racks.contains(&rack) {
                again.push(place);
            } else {
                racks.push(rack);
                fresh.push(place);
            }
        }
        fresh.append(&mut again);
        fresh
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a RingMember;

    #[inline]
    fn next(&mut self) -> Option<&'a RingMember> {
        let place = match self.begun.get(self.at) {
            Some(place) => *place,
            None => {
                let left = self.datacenter.is_some_and(|datacenter| self.at < datacenter.len());
                if !left {
                    return None;
                }
                if self.rest.is_none() {
                    self.rest = Some(self.rest());
                }
                *self.rest.as_ref()?.get(self.at - self.begun.len())?
            }
        };
        self.at += 1;
        Some(self.ring.place(place))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.datacenter.map_or(0, DatacenterRing::len) - self.at;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Walk<'_> {}

/// A partition's replicas in all datacenters, and who stands in for them.
#[derive(Clone, Debug)]
pub struct PreferenceList<'a> {
    ring: &'a Ring,
    partition: PartitionId,
    replication: &'a ReplicaCounts,
    replicas: Vec<&'a RingMember>,
}

impl<'a> PreferenceList<'a> {
    pub(crate) fn new(
        ring: &'a Ring,
        partition: PartitionId,
        replication: &'a ReplicaCounts,
    ) -> Self {
        let mut replicas = Vec::with_capacity(replication.values().map(|n| (*n).min(16)).sum());
        for (datacenter, count) in replication {
            replicas.extend(ring.replicas(partition, datacenter, *count));
        }
        Self { ring, partition, replication, replicas }
    }

    /// The partition.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The nodes that hold the partition, by datacenter, each datacenter's in the order of its walk.
    pub fn replicas(&self) -> &[&'a RingMember] {
        &self.replicas
    }

    /// Who takes the place of a replica that is away: the walks of the replicas' own datacenters go
    /// on, one after the other; the other datacenters come last. Costs nothing until it is walked.
    pub fn stand_ins(&self) -> impl Iterator<Item = &'a RingMember> + use<'a> {
        self.stand_ins_up_to(usize::MAX)
    }

    /// The same, at most so many of each datacenter.
    pub fn stand_ins_up_to(&self, each: usize) -> impl Iterator<Item = &'a RingMember> + use<'a> {
        let (ring, partition, replication) = (self.ring, self.partition, self.replication);
        let count = |datacenter: &Datacenter| replication.get(datacenter).copied().unwrap_or(0);
        let own = ring.datacenters().filter(move |datacenter| count(datacenter) > 0);
        let others = ring.datacenters().filter(move |datacenter| count(datacenter) == 0);
        own.chain(others).flat_map(move |datacenter| {
            ring.walk(partition, datacenter).skip(count(datacenter)).take(each)
        })
    }
}
