//! The units that wait and those that run: which may begin, and what becomes of them.
//!
//! At most one is there for a partition, keyspace and node; at most one of a partition and keyspace runs,
//! so that a key is not fetched from two nodes at once. Those that only give what differs a moment leave
//! their place to others. While another node walks the same tree a unit waits: most often there is
//! nothing left to do then. One that is awaited for a change of the ring waits for nobody's walk: what
//! others have fetched proves nothing.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    time::Moment,
};

use crate::{
    desk::Desk,
    exchange::{Exchange, Outcome},
};

/// A tree: a partition of a keyspace.
pub(crate) type Tree = (KeyspaceId, PartitionId);

/// The most units that have begun, those included that give what differs a moment.
const BEGUN_MAX: usize = 64;
/// How many of those that wait are looked at for one that can begin.
const GLANCE: usize = 64;
/// For how long after another node's question a tree is taken to be walked by it.
const WALKED: Duration = Duration::from_secs(3);
/// How often a unit lets others go first.
const POSTPONED_MAX: u8 = 10;
/// How many trees that others walk are remembered.
const WALKED_MAX: usize = 4096;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Units {
    units: BTreeMap<u64, Unit>,
    by_tree: BTreeMap<Tree, BTreeMap<NodeId, u64>>,
    queue: VecDeque<u64>,
    running: BTreeMap<u64, Exchange>,
    busy: BTreeSet<Tree>,
    /// Which trees other nodes asked about, and when.
    walked: BTreeMap<Tree, Moment>,
    next_id: u64,
}

#[derive(Debug)]
struct Unit {
    tree: Tree,
    peer: NodeId,
    /// The rounds that wait for it, a few.
    rounds: Vec<u64>,
    not_before: Moment,
    postponed: u8,
}

/// A unit that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) tree: Tree,
    pub(crate) peer: NodeId,
    pub(crate) rounds: Vec<u64>,
    /// How; none if it was dropped.
    pub(crate) outcome: Option<Outcome>,
    /// Whether there were keys that this node keeps to itself.
    pub(crate) is_one_way: bool,
    /// Under which state it began.
    pub(crate) began: Epoch,
    /// Whether it was awaited for a change of the ring.
    pub(crate) is_filling: bool,
    /// How many keys it has dropped here.
    pub(crate) dropped: u64,
}

impl Units {
    /// Adds a unit, or a reason for one that is there. Says which of the rounds are new to it.
    pub(crate) fn add(
        &mut self,
        tree: Tree,
        peer: &NodeId,
        rounds: &[u64],
        not_before: Moment,
        is_first: bool,
    ) -> Vec<u64> {
        let of_tree = self.by_tree.entry(tree).or_default();
        let is_new = !of_tree.contains_key(peer);
        let id = *of_tree.entry(peer.clone()).or_insert(self.next_id);
        if is_new {
            self.next_id += 1;
            let (peer, rounds) = (peer.clone(), Vec::new());
            self.units.insert(id, Unit { tree, peer, rounds, not_before, postponed: 0 });
        }
        let Some(unit) = self.units.get_mut(&id) else { return Vec::new() };
        unit.not_before = unit.not_before.min(not_before);
        let new: Vec<u64> =
            rounds.iter().copied().filter(|round| !unit.rounds.contains(round)).collect();
        unit.rounds.extend(&new);
        if is_first && !self.running.contains_key(&id) {
            self.queue.retain(|queued| *queued != id);
            self.queue.push_front(id);
        } else if is_new {
            self.queue.push_back(id);
        }
        new
    }

    /// Whether a tree is walked, or is going to be, with some node other than this one.
    pub(crate) fn has_other(&self, tree: Tree, peer: &NodeId) -> bool {
        self.by_tree.get(&tree).is_some_and(|units| !units.contains_key(peer))
    }

    /// Whether a tree waits to be walked with a node, or is.
    pub(crate) fn has(&self, tree: Tree, peer: &NodeId) -> bool {
        self.by_tree.get(&tree).is_some_and(|units| units.contains_key(peer))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    pub(crate) fn exchange(&mut self, id: u64) -> Option<&mut Exchange> {
        self.running.get_mut(&id)
    }

    /// Another node walks a tree. Of two that have begun with it at the same moment, the one with the
    /// larger name gives way.
    pub(crate) fn walked_by(&mut self, desk: &mut Desk, tree: Tree, from: Option<&NodeId>) {
        let now = desk.now.moment;
        if self.walked.len() >= WALKED_MAX {
            self.walked.retain(|_, at| now < *at + WALKED);
        }
        if self.walked.len() < WALKED_MAX {
            self.walked.insert(tree, now);
        }
        if !self.busy.contains(&tree) || from.is_none_or(|peer| *peer > desk.node) {
            return;
        }
        let is_of = |exchange: &Exchange| (exchange.keyspace, exchange.partition) == tree;
        let id = self.running.iter().find(|(_, exchange)| is_of(exchange)).map(|(id, _)| *id);
        let Some((id, unit)) = id.and_then(|id| Some((id, self.units.get_mut(&id)?))) else {
            return;
        };
        let goes_on = |exchange: &Exchange| exchange.has_moved() || exchange.is_filling;
        let goes_on = self.running.get(&id).is_some_and(goes_on);
        if !goes_on && unit.postponed < POSTPONED_MAX {
            unit.postponed += 1;
            unit.not_before = now + WALKED;
            self.stop(desk, id);
            self.queue.push_back(id);
        }
    }

    /// Lets those that run go on, ends those that are through, and begins others.
    pub(crate) fn advance(&mut self, desk: &mut Desk) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.running.values_mut().for_each(|exchange| exchange.advance(desk));
        let through: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, exchange)| exchange.outcome().is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in through {
            ended.extend(self.end(desk, id));
        }
        self.begin(desk);
        ended
    }

    /// Drops those that are not wanted any more.
    pub(crate) fn retain(
        &mut self,
        desk: &mut Desk,
        is_wanted: impl Fn(&NodeId, Tree) -> bool,
    ) -> Vec<Ended> {
        let unwanted = self.units.iter().filter(|(_, unit)| !is_wanted(&unit.peer, unit.tree));
        let ids: BTreeSet<u64> = unwanted.map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        self.queue.retain(|id| !ids.contains(id));
        ids.into_iter().filter_map(|id| self.end(desk, id)).collect()
    }

    /// When something may go on, if nothing comes back before.
    pub(crate) fn due(&self, desk: &mut Desk) -> Option<Moment> {
        let running: Vec<Moment> =
            self.running.values().filter_map(|exchange| exchange.due(desk)).collect();
        let waiting = match self.has_room(desk) {
            true => self.queue.iter().take(GLANCE).filter_map(|id| self.begins_at(*id)).min(),
            false => None,
        };
        running.into_iter().chain(waiting).min()
    }

    fn begin(&mut self, desk: &mut Desk) {
        let now = desk.now.moment;
        let mut looked_at = 0;
        while looked_at < GLANCE.min(self.queue.len()) && self.has_room(desk) {
            looked_at += 1;
            let Some(id) = self.queue.pop_front() else { return };
            let Some(unit) = self.units.get_mut(&id) else { continue };
            let walked = self.walked.get(&unit.tree).map(|at| *at + WALKED);
            let may_begin = unit.not_before <= now && !self.busy.contains(&unit.tree);
            if may_begin
                && let Some(walked) = walked.filter(|until| *until > now)
                && unit.postponed < POSTPONED_MAX
                && !desk.handovers.awaits(unit.tree, &unit.peer)
            {
                unit.postponed += 1;
                unit.not_before = walked;
                self.queue.push_back(id);
            } else if may_begin {
                let Unit { tree, peer, .. } = unit;
                self.busy.insert(*tree);
                let mut exchange = Exchange::new(id, *tree, peer.clone(), desk);
                exchange.advance(desk);
                self.running.insert(id, exchange);
                looked_at = 0;
            } else {
                self.queue.push_back(id);
            }
        }
    }

    fn begins_at(&self, id: u64) -> Option<Moment> {
        let unit = self.units.get(&id)?;
        // One whose tree is busy begins when the other ends, which nobody has to be woken for.
        (!self.busy.contains(&unit.tree)).then_some(unit.not_before)
    }

    fn has_room(&self, desk: &Desk) -> bool {
        let active = self.running.values().filter(|exchange| !exchange.is_parked()).count();
        active < desk.config.units_max && self.running.len() < BEGUN_MAX
    }

    fn end(&mut self, desk: &mut Desk, id: u64) -> Option<Ended> {
        let Unit { tree, peer, rounds, .. } = self.units.remove(&id)?;
        if let Some(of_tree) = self.by_tree.get_mut(&tree) {
            of_tree.remove(&peer);
            if of_tree.is_empty() {
                self.by_tree.remove(&tree);
            }
        }
        let exchange = self.stop(desk, id);
        let outcome = exchange.as_ref().and_then(Exchange::outcome);
        let is_one_way = exchange.as_ref().is_some_and(|exchange| exchange.is_one_way);
        let is_filling = exchange.as_ref().is_some_and(|exchange| exchange.is_filling);
        let began = exchange.as_ref().map(|exchange| exchange.began).unwrap_or_default();
        let dropped = exchange.map_or(0, |exchange| exchange.dropped);
        Some(Ended { tree, peer, rounds, outcome, is_one_way, began, is_filling, dropped })
    }

    fn stop(&mut self, desk: &mut Desk, id: u64) -> Option<Exchange> {
        let mut exchange = self.running.remove(&id)?;
        self.busy.remove(&(exchange.keyspace, exchange.partition));
        exchange.release(desk);
        Some(exchange)
    }
}
