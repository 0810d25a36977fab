//! Who keeps a write, or answers a read, in the place of a replica that doesn't: the next node of the
//! walk that is not taken yet, those of the replica's own datacenter first ([`StandIns`]).
//!
//! Where the walk has no more nodes, the coordinator's own node keeps the hint. It counts for nothing
//! then, because that node counts as a replica already, or isn't to be counted.

use anello_protocol::message::client::Place;

use super::{desk::Desk, site::Site};

/// Which stand-ins of a key's placement a request has asked so far.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    taken: Vec<usize>,
    own_taken: Vec<usize>,
}

/// Somebody who keeps a hint for a replica.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) place: Place,
    /// Whether it counts in a sloppy quorum, in the replica's place.
    pub(super) counts: bool,
}

impl StandIns {
    /// The next stand-in for the replica at a place, if there is one that can be reached.
    pub(super) fn next(&mut self, desk: &Desk, site: &Site, owner: usize) -> Option<Keeper> {
        self.next_of(desk, site, owner, |_| true)
    }

    fn next_of(
        &mut self,
        desk: &Desk,
        site: &Site,
        owner: usize,
        is_wanted: impl Fn(&usize) -> bool,
    ) -> Option<Keeper> {
        let placement = &site.placement;
        let home = &placement.replicas[owner].datacenter;
        let is_free = |at: &usize| {
            let place = &placement.stand_ins[*at];
            let is_there = place.id == desk.node || desk.peers.is_reachable(&place.id);
            is_there && !self.taken.contains(at)
        };
        let free = (0..placement.stand_ins.len()).filter(is_free).filter(is_wanted);
        let at = free.min_by_key(|at| (placement.stand_ins[*at].datacenter != *home, *at))?;
        self.taken.push(at);
        let place = placement.stand_ins[at].clone();
        Some(Keeper { counts: site.counts_for(owner, &place), place })
    }

    /// The next stand-in that counts in the place of that replica.
    pub(super) fn next_counting(
        &mut self,
        desk: &Desk,
        site: &Site,
        owner: usize,
    ) -> Option<Keeper> {
        let counts = |at: &usize| site.counts_for(owner, &site.placement.stand_ins[*at]);
        self.next_of(desk, site, owner, counts)
    }

    /// A stand-in that is taken already.
    pub(super) fn take(&mut self, desk: &Desk, site: &Site) {
        let own = site.placement.stand_ins.iter().position(|place| place.id == desk.node);
        self.taken.extend(own);
    }

    /// The next one to keep a hint: a stand-in, or else this node itself, once.
    pub(super) fn next_keeper(&mut self, desk: &Desk, site: &Site, owner: usize) -> Option<Keeper> {
        if let Some(keeper) = self.next(desk, site, owner) {
            return Some(keeper);
        }
        if self.own_taken.contains(&owner) {
            return None;
        }
        self.own_taken.push(owner);
        let mut all = site.placement.replicas.iter().chain(&site.placement.stand_ins);
        let own = all.find(|place| place.id == desk.node)?;
        Some(Keeper { place: own.clone(), counts: false })
    }
}
