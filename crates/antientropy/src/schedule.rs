//! When to compare with whom: the nodes that share trees with this one, and what is known of each pair.
//!
//! Of two nodes the one with the smaller name compares, once a round. Either does whatever its name: after
//! its own start, when the other comes back (after its hints had a chance, and once more a round later),
//! when it was told that hints were dropped, and when it has not been compared with for two rounds. A node
//! that can't be reached is skipped, and is due when it comes back. Whoever was away itself goes first: it
//! fetches from one node after another what else all others would bring it at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use anello_protocol::{
    id::{KeyspaceId, NodeId, PartitionId},
    time::Moment,
};
use anello_ring::view::View;

use crate::{
    desk::Desk,
    rounds::Rounds,
    sweep::{Sweep, Wanted},
    units::Tree,
};

/// How long after a start, or after a node came back, roots are compared.
pub(crate) const CALM: Duration = Duration::from_secs(3);
/// How long a node that has come back, or has found what differs, has to mend it before the other looks.
const OTHERS_TURN: Duration = Duration::from_secs(8);
/// For how long after its own comparison a node knows better than what another finds: the other only looks
/// whether that has mended everything, and is not to be looked after in its turn.
const JUST_SWEPT: Duration = Duration::from_secs(16);
/// How soon to try again with a node that was never compared with, because it did not answer.
const AGAIN: Duration = Duration::from_secs(10);
/// The most sweeps at once.
const SWEEPS_MAX: usize = 4;

/// The trees that this node holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    keyspaces: BTreeMap<KeyspaceId, BTreeSet<PartitionId>>,
    trees: usize,
}

impl Held {
    pub(crate) fn contains(&self, (keyspace, partition): Tree) -> bool {
        self.keyspaces.get(&keyspace).is_some_and(|held| held.contains(&partition))
    }

    pub(crate) fn trees(&self) -> usize {
        self.trees
    }

    /// The next tree after one, the first after none.
    pub(crate) fn after(&self, tree: Option<Tree>) -> Option<Tree> {
        if let Some((keyspace, partition)) = tree
            && let Some(held) = self.keyspaces.get(&keyspace)
            && let Some(next) = held.range((Bound::Excluded(partition), Bound::Unbounded)).next()
        {
            return Some((keyspace, *next));
        }
        let after = tree.map_or(Bound::Unbounded, |(keyspace, _)| Bound::Excluded(keyspace));
        let mut rest = self.keyspaces.range((after, Bound::Unbounded));
        rest.find_map(|(keyspace, held)| held.first().map(|first| (*keyspace, *first)))
    }

    /// The partitions that are held in some keyspace.
    pub(crate) fn partitions(&self) -> BTreeSet<PartitionId> {
        self.keyspaces.values().flatten().copied().collect()
    }
}

/// What is known of a tree that is shared with a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// When both were last known to hold the same, in milliseconds of the wall clock.
    pub in_step_ms: Option<u64>,
    /// When this node was last known to hold all that the other does.
    pub caught_up_ms: Option<u64>,
    /// Whether they have been found to differ since.
    pub differs: bool,
}

impl Pair {
    pub(crate) fn is_in_step(&self) -> bool {
        self.in_step_ms.is_some() && !self.differs
    }
}

/// A node that shares trees with this one.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) pairs: BTreeMap<Tree, Pair>,
    pub(crate) is_reachable: bool,
    /// Whether it is to be compared with in the next round in any case.
    is_due: bool,
    /// When either node last compared.
    compared: Option<Moment>,
    /// When to compare outside of rounds.
    checks: BTreeSet<Moment>,
    /// When this node last compared.
    swept: Option<Moment>,
    /// The rounds that wait for the first check.
    check_rounds: Vec<u64>,
    /// What the next sweep is for, if one is wanted.
    wanted: Option<Wanted>,
    /// Trees that differ and are walked with another node.
    behind: BTreeSet<Tree>,
    /// Those, and such that were: when none is walked any more, they are compared again.
    missed: BTreeSet<Tree>,
    /// The rounds that wait for that.
    behind_rounds: Vec<u64>,
    pub(crate) sweep: Option<Sweep>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    pub(crate) held: Held,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) rounds: Rounds,
    unreachable: BTreeSet<NodeId>,
    /// When this node could last reach less than half of the others.
    was_away: Option<Moment>,
    next_round: Option<Moment>,
}

impl Schedule {
    /// Takes in who shares what under another state. Pairs that stay are remembered.
    pub(crate) fn adopt(&mut self, desk: &mut Desk, view: &View) {
        let is_first = self.next_round.is_none();
        let now = desk.now.moment;
        let mut held = Held::default();
        let mut shared: BTreeMap<NodeId, BTreeSet<Tree>> = BTreeMap::new();
        for (_, keyspace) in view.keyspaces() {
            for partition in (0..view.cluster().partitions).map(PartitionId) {
                let placement = view.placement_of(keyspace, partition);
                if placement.index_of(&desk.node).is_none() {
                    continue;
                }
                held.keyspaces.entry(keyspace.id).or_default().insert(partition);
                held.trees += 1;
                for place in placement.replicas.iter().filter(|place| place.id != desk.node) {
                    shared.entry(place.id.clone()).or_default().insert((keyspace.id, partition));
                }
            }
        }
        self.held = held;
        self.unreachable.retain(|node| view.cluster().members.contains_key(node));
        let gone: Vec<NodeId> =
            self.peers.keys().filter(|peer| !shared.contains_key(*peer)).cloned().collect();
        for peer in gone {
            self.interrupt(&peer);
            self.peers.remove(&peer);
        }
        for (id, trees) in shared {
            let is_reachable = !self.unreachable.contains(&id);
            let peer = self.peers.entry(id).or_insert_with(|| Peer {
                pairs: BTreeMap::new(),
                is_reachable,
                is_due: true,
                compared: None,
                checks: BTreeSet::new(),
                swept: None,
                check_rounds: Vec::new(),
                wanted: None,
                behind: BTreeSet::new(),
                missed: BTreeSet::new(),
                behind_rounds: Vec::new(),
                sweep: None,
            });
            peer.pairs.retain(|tree, _| trees.contains(tree));
            if !peer.behind.is_empty() {
                peer.behind.retain(|tree| trees.contains(tree));
                peer.missed.retain(|tree| trees.contains(tree));
                peer.catch_up();
            }
            let before = peer.pairs.len();
            for tree in trees {
                peer.pairs.entry(tree).or_default();
            }
            if peer.pairs.len() > before && !is_first {
                peer.checks.insert(now + desk.jitter(CALM));
            }
        }
        if is_first {
            self.next_round = Some(now + CALM + desk.jitter(CALM / 3));
        }
    }

    /// The failure detector's verdict: says whether it is news.
    pub(crate) fn reachability_changed(
        &mut self,
        desk: &mut Desk,
        node: &NodeId,
        is_reachable: bool,
    ) {
        match is_reachable {
            true => self.unreachable.remove(node),
            false => self.unreachable.insert(node.clone()),
        };
        let now = desk.now.moment;
        if self.peers.values().filter(|peer| !peer.is_reachable).count() * 2 > self.peers.len() {
            self.was_away = Some(now);
        }
        let was_away = self.was_away.is_some_and(|at| now < at + CALM);
        let Some(peer) = self.peers.get_mut(node) else { return };
        let was_reachable = std::mem::replace(&mut peer.is_reachable, is_reachable);
        if was_reachable && !is_reachable {
            peer.is_due = true;
            peer.checks.clear();
            self.interrupt(node);
        } else if is_reachable && !was_reachable {
            let turn = if was_away { Duration::ZERO } else { OTHERS_TURN };
            let soon = now + CALM + desk.jitter(CALM / 6) + turn;
            peer.checks.extend([soon, soon + desk.config.round]);
        }
    }

    /// An operator wants a round with all nodes that can be reached.
    pub(crate) fn start_round(&mut self) -> u64 {
        let (round, is_new) = self.rounds.start();
        if is_new {
            for peer in self.peers.values_mut().filter(|peer| peer.is_reachable) {
                peer.want(&[round]);
                self.rounds.sweep_added(round);
            }
        }
        round
    }

    /// Begins what is due, and lets sweeps go on.
    pub(crate) fn advance(&mut self, desk: &mut Desk) {
        let now = desk.now.moment;
        if self.next_round.is_some_and(|next| next <= now) {
            self.next_round =
                Some(now + desk.jitter(desk.config.round / 5) + desk.config.round * 9 / 10);
            self.begin_round(desk);
        }
        let mut sweeping = self.peers.values().filter(|peer| peer.sweep.is_some()).count();
        for (id, peer) in &mut self.peers {
            while peer.checks.first().is_some_and(|check| *check <= now) {
                peer.checks.pop_first();
                let rounds = std::mem::take(&mut peer.check_rounds);
                peer.want(&rounds);
            }
            if peer.sweep.is_none() && peer.is_reachable && sweeping < SWEEPS_MAX {
                peer.sweep = peer.wanted.take().map(|wanted| Sweep::new(id.clone(), wanted));
                sweeping += usize::from(peer.sweep.is_some());
            }
            let Some(sweep) = &mut peer.sweep else { continue };
            sweep.advance(desk, &peer.pairs);
            if let Some(is_well) = sweep.ended {
                self.rounds.sweep_ended(&sweep.wanted.rounds);
                let is_whole = sweep.wanted.only.is_none();
                peer.sweep = None;
                match is_well {
                    true if is_whole => {
                        peer.is_due = false;
                        (peer.compared, peer.swept) = (Some(now), Some(now));
                    }
                    true => peer.swept = Some(now),
                    false => peer.is_due = true,
                }
                if peer.compared.is_none() {
                    peer.checks.insert(now + desk.jitter(AGAIN));
                }
                sweeping -= 1;
            }
        }
    }

    /// The other node has compared with this one. What differs it mends, and whether it has is seen after
    /// that. Says whether that it differs is news.
    pub(crate) fn compared_by(&mut self, desk: &mut Desk, peer: &NodeId, differs: bool) -> bool {
        let Some(peer) = self.peers.get_mut(peer) else { return false };
        let now = desk.now.moment;
        peer.compared = Some(now);
        let has_swept = peer.swept.is_some_and(|swept| now < swept + JUST_SWEPT);
        if !differs || has_swept || peer.sweep.is_some() || !peer.is_reachable {
            return false;
        }
        let turn = now + OTHERS_TURN * 3 / 2;
        if peer.checks.first().is_none_or(|check| *check > turn) {
            peer.checks.insert(now + desk.jitter(OTHERS_TURN));
        }
        true
    }

    /// The rounds that a sweep is for that goes on.
    pub(crate) fn swept_for(&self, peer: &NodeId) -> Vec<u64> {
        let Some(peer) = self.peers.get(peer) else { return Vec::new() };
        let swept = peer.sweep.iter().flat_map(|sweep| &sweep.wanted.rounds);
        swept.chain(&peer.behind_rounds).copied().collect()
    }

    /// The sweep that goes on has met a tree that is walked with another node.
    pub(crate) fn put_behind(&mut self, peer: &NodeId, tree: Tree) {
        let Some(peer) = self.peers.get_mut(peer) else { return };
        peer.behind.insert(tree);
        peer.missed.insert(tree);
        let swept = peer.sweep.as_mut().map(|sweep| std::mem::take(&mut sweep.wanted.rounds));
        peer.behind_rounds.extend(swept.into_iter().flatten());
    }

    /// A tree is not walked any more.
    pub(crate) fn walked(&mut self, tree: Tree) {
        for peer in self.peers.values_mut().filter(|peer| peer.behind.contains(&tree)) {
            peer.behind.remove(&tree);
            peer.catch_up();
        }
    }

    pub(crate) fn pair(&mut self, peer: &NodeId, tree: Tree) -> Option<&mut Pair> {
        self.peers.get_mut(peer)?.pairs.get_mut(&tree)
    }

    /// The nodes that share a tree.
    pub(crate) fn sharers(&self, tree: Tree) -> Vec<NodeId> {
        let sharing = self.peers.iter().filter(|(_, peer)| peer.pairs.contains_key(&tree));
        sharing.map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn is_reachable(&self, peer: &NodeId) -> bool {
        self.peers.get(peer).is_some_and(|peer| peer.is_reachable)
    }

    /// Whether trees are being compared with a node, or about to be.
    pub(crate) fn is_sweeping(&self, peer: &NodeId) -> bool {
        let peer = self.peers.get(peer);
        peer.is_some_and(|peer| peer.sweep.is_some() || peer.wanted.is_some())
    }

    /// A tree is compared with a node as soon as can be, unless that waits for another node's anyway.
    pub(crate) fn sweep_soon(&mut self, peer: &NodeId, tree: Tree) {
        if let Some(peer) = self.peers.get_mut(peer)
            && !peer.behind.contains(&tree)
        {
            peer.want_only(BTreeSet::from([tree]), &[]);
        }
    }

    /// A tree is to be compared with a node in the next round in any case.
    pub(crate) fn mark_due(&mut self, peer: &NodeId) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.is_due = true;
        }
    }

    /// When something is due, if nothing comes back before.
    pub(crate) fn due(&self) -> Option<Moment> {
        let peers = self.peers.values().filter_map(|peer| {
            let sweep = peer.sweep.as_ref().and_then(Sweep::due);
            peer.checks.first().copied().into_iter().chain(sweep).min()
        });
        peers.chain(self.next_round).min()
    }

    fn begin_round(&mut self, desk: &Desk) {
        let Some(round) = self.rounds.begin() else { return };
        let soon = desk.now.moment + CALM + OTHERS_TURN * 2;
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.is_reachable) {
            let overdue = peer
                .compared
                .is_none_or(|compared| desk.now.moment.since(compared) > desk.config.round * 5 / 2);
            if desk.node < *id || peer.is_due || overdue {
                // Who has just come back mends what it has missed first, and is looked after then. But one that
                // comes and goes all the time would never be compared with.
                match !overdue && peer.checks.first().is_some_and(|check| *check < soon) {
                    true => peer.check_rounds.push(round),
                    false => peer.want(&[round]),
                }
                self.rounds.sweep_added(round);
            }
        }
    }

    /// What was under way with a node is over.
    fn interrupt(&mut self, node: &NodeId) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.behind.clear();
        peer.missed.clear();
        let waiting = [&mut peer.check_rounds, &mut peer.behind_rounds].map(std::mem::take);
        let swept = peer.sweep.take().map(|sweep| sweep.wanted);
        let swept = swept.into_iter().chain(peer.wanted.take()).map(|wanted| wanted.rounds);
        for rounds in swept.chain(waiting) {
            self.rounds.sweep_ended(&rounds);
        }
    }
}

impl Peer {
    /// All trees are to be compared.
    fn want(&mut self, rounds: &[u64]) {
        let wanted = self.wanted.get_or_insert_default();
        wanted.only = None;
        wanted.rounds.extend(rounds);
    }

    /// Some trees are to be compared.
    fn want_only(&mut self, trees: BTreeSet<Tree>, rounds: &[u64]) {
        let none = || Wanted { only: Some(BTreeSet::new()), ..Wanted::default() };
        let wanted = self.wanted.get_or_insert_with(none);
        wanted.rounds.extend(rounds);
        if let Some(only) = &mut wanted.only {
            only.extend(trees);
        }
    }

    /// Compares again what differed, once nothing is behind others any more.
    fn catch_up(&mut self) {
        if self.behind.is_empty() {
            let rounds = std::mem::take(&mut self.behind_rounds);
            let missed = std::mem::take(&mut self.missed);
            self.want_only(missed, &rounds);
        }
    }
}
