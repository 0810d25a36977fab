//! Counting over both sides of a change of the ring: a write needs as many of those who are read as its level
//! asks for, and as many of the others.
//!
//! So whichever of the two sides is read, by whoever acts under the phase before or the one after, a read
//! meets every acknowledged write. A replica that is on both sides counts on both, as does whoever stands
//! in for it. Where nothing is on the move there is one side.

use std::sync::Arc;

use anello_protocol::{consistency::Consistency, id::Datacenter, message::client::RequestError};
use anello_ring::{placement::Electorate, view::Placement};

use crate::tally::{Requirement, Side, Tally, TallyResult};

/// How many must answer on each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JointRequirement {
    /// Of those who are read.
    pub readers: Requirement,
    /// Of the others; nothing where there are none, or where the level asks nothing of them.
    pub others: Option<Requirement>,
}

impl JointRequirement {
    /// What a level comes to for the replicas of a partition, at a coordinator in the datacenter `local`.
    pub fn resolve(
        side: Side,
        level: Consistency,
        placement: &Placement,
        local: &Datacenter,
    ) -> Result<Self, RequestError> {
        let readers = Requirement::resolve(side, level, &placement.readers.replication, local)?;
        let others = placement.others.as_ref();
        let others = others.and_then(|it| Requirement::beside(level, &it.replication, local));
        Ok(Self { readers, others })
    }

    /// Whether the replica at a place counts on any side.
    pub fn counts(&self, placement: &Placement, at: usize) -> bool {
        let datacenter = &placement.replicas[at].datacenter;
        let is_in = |electorate: &Electorate, requirement: &Requirement| {
            electorate.contains(at) && requirement.counts(datacenter)
        };
        let others = placement.others.as_ref().zip(self.others.as_ref());
        is_in(&placement.readers, &self.readers) || others.is_some_and(|(it, own)| is_in(it, own))
    }
}

/// A count of results towards what both sides require.
#[derive(Clone, Debug)]
pub struct JointTally {
    placement: Arc<Placement>,
    readers: Tally,
    others: Option<Tally>,
}

impl JointTally {
    /// Nothing counted yet.
    pub fn new(requirement: &JointRequirement, placement: &Arc<Placement>) -> Self {
        let others = placement.others.as_ref().zip(requirement.others.as_ref());
        Self {
            readers: Tally::new(&requirement.readers, &placement.readers.replication),
            others: others.map(|(others, own)| Tally::new(own, &others.replication)),
            placement: Arc::clone(placement),
        }
    }

    /// Counts the result of the replica at a place, once, on each side that it is on.
    pub fn add_result(&mut self, at: usize, result: TallyResult) {
        if self.placement.readers.contains(at) {
            self.readers.add_result(&self.placement.replicas[at].datacenter, result);
        }
        self.add_to_others(at, result);
    }

    /// The same, but not among those who are read.
    pub fn add_to_others(&mut self, at: usize, result: TallyResult) {
        if let (Some(tally), Some(others)) = (&mut self.others, &self.placement.others)
            && others.contains(at)
        {
            tally.add_result(&self.placement.replicas[at].datacenter, result);
        }
    }

    /// Whether enough have succeeded on both sides.
    pub fn enough(&self) -> bool {
        self.readers.enough() && self.others.as_ref().is_none_or(Tally::enough)
    }

    /// Whether enough can't succeed any more on one of them.
    pub fn impossible(&self) -> bool {
        self.readers.impossible() || self.others.as_ref().is_some_and(Tally::impossible)
    }

    /// How many must succeed, and how many have: of those who are read, unless only the others are short.
    pub fn counts(&self) -> (u16, u16) {
        let short = self.short_side(Tally::enough);
        (short.required(), short.received())
    }

    /// How many must succeed, and how many may yet or have: of the same side.
    pub fn chances(&self) -> (u16, u16) {
        let short = self.short_side(|tally| !tally.impossible());
        (short.required(), short.possible())
    }

    fn short_side(&self, is_well: impl Fn(&Tally) -> bool) -> &Tally {
        let short = self.others.as_ref().filter(|it| is_well(&self.readers) && !is_well(it));
        short.unwrap_or(&self.readers)
    }
}
