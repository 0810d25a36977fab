//! What this node has to prove while the ring changes: of every partition that is on its way, with whom it
//! is in step under the phase that the partition is in.
//!
//! A proof is a comparison that began once this node had adopted the state in which it first saw the phase.
//! Answers of other states are refused, so the other node acted under the phase as well: what it had
//! acknowledged before was there to be compared, and all that it takes in later is written to both sides. What
//! was known before the phase began proves nothing, nor does a proof for one phase prove the next.
//!
//! Invariants: a word is given once for each (change, partition, phase), and again only if what it has to cover
//! has become another set, because a member was written off; what is held here is bounded by what is shared.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    cluster::Phase,
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
};
use anello_ring::view::View;

use crate::units::Tree;

/// A node's word that under a phase it is in step with all with whom it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) change: Epoch,
    pub(crate) partition: PartitionId,
    pub(crate) phase: Phase,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    change: Option<Change>,
}

#[derive(Debug)]
struct Change {
    began: Epoch,
    /// Since when the same is asked: the name that words go by.
    asked: Epoch,
    moving: BTreeMap<PartitionId, Moving>,
    /// What is left to be proved, by the other node.
    left: BTreeMap<NodeId, BTreeSet<Tree>>,
    /// Who else is being filled, and fetches for itself what it lacks.
    filled: BTreeSet<(Tree, NodeId)>,
    /// Who was found to be quarantined when it was asked last.
    quarantined: BTreeSet<NodeId>,
    fetched: Fetched,
}

/// A partition that is on its way.
#[derive(Debug)]
struct Moving {
    phase: Phase,
    /// The state in which the phase was first seen here.
    since: Epoch,
    needs: BTreeSet<(KeyspaceId, NodeId)>,
    left: BTreeSet<(KeyspaceId, NodeId)>,
    is_told: bool,
}

/// What was fetched for a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) keys: u64,
    pub(crate) bytes: u64,
}

/// What is left to be proved for a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left<'a> {
    pub(crate) change: Epoch,
    pub(crate) filling: u64,
    pub(crate) serving: u64,
    /// Each with the number of trees, and whether it was found to be quarantined.
    pub(crate) peers: BTreeMap<&'a NodeId, (u64, bool)>,
    pub(crate) fetched: Fetched,
}

impl Handovers {
    /// Takes in what is on its way under another state. Gives the words that take no proof.
    pub(crate) fn adopt(&mut self, node: &NodeId, view: &View) -> Vec<Word> {
        let Some(change) = &view.cluster().change else {
            self.change = None;
            return Vec::new();
        };
        let before = self.change.take().filter(|before| before.began == change.began);
        let mut own = before.unwrap_or_else(|| Change::new(change.began));
        let mut moving = BTreeMap::new();
        own.filled.clear();
        for (partition, phase) in view.moving() {
            let mut awaited = view.handover(partition).awaited;
            let needs = awaited.remove(node);
            for (peer, needs) in awaited {
                let keyspaces = needs.iter().map(|(keyspace, _)| (*keyspace, partition));
                own.filled.extend(keyspaces.map(|tree| (tree, peer.clone())));
            }
            let Some(needs) = needs else { continue };
            let same = own.moving.remove(&partition).filter(|it| it.phase == phase);
            moving.insert(partition, Moving::new(phase, view.epoch(), needs, same));
        }
        own.moving = moving;
        if own.asked != change.asked {
            // What was said before was said of something else.
            own.asked = change.asked;
            own.moving.values_mut().for_each(|moving| moving.is_told = false);
        }
        own.left.clear();
        own.moving.iter().for_each(|(partition, it)| index(&mut own.left, *partition, it));
        let left = &own.left;
        own.quarantined.retain(|peer| left.contains_key(peer));
        let words = own.words();
        self.change = Some(own);
        words
    }

    /// A comparison of a tree with a node, which began under a state, has found that this node holds all that the
    /// other does. Gives the word if that was the last one.
    pub(crate) fn proved(&mut self, began: Epoch, tree: Tree, peer: &NodeId) -> Option<Word> {
        let change = self.change.as_mut()?;
        let (keyspace, partition) = tree;
        let moving = change.moving.get_mut(&partition)?;
        if began < moving.since || !moving.left.remove(&(keyspace, peer.clone())) {
            return None;
        }
        change.quarantined.remove(peer);
        if let Some(trees) = change.left.get_mut(peer) {
            trees.remove(&tree);
            if trees.is_empty() {
                change.left.remove(peer);
            }
        }
        let word = Word { change: change.asked, partition, phase: moving.phase };
        moving.tell().then_some(word)
    }

    /// What was proved is proved no longer: what this node held may be gone.
    pub(crate) fn begin_anew(&mut self, epoch: Epoch) -> Vec<Word> {
        let Some(change) = &mut self.change else { return Vec::new() };
        change.left.clear();
        for (partition, moving) in &mut change.moving {
            let needs = std::mem::take(&mut moving.needs);
            *moving = Moving::new(moving.phase, epoch, needs, None);
            index(&mut change.left, *partition, moving);
        }
        change.words()
    }

    /// Whether it is still to be proved that a tree is in step with a node's.
    pub(crate) fn awaits(&self, (keyspace, partition): Tree, peer: &NodeId) -> bool {
        let moving = self.change.as_ref().and_then(|change| change.moving.get(&partition));
        // Most of the time there is nothing, and no name has to be copied.
        moving.is_some_and(|it| !it.left.is_empty() && it.left.contains(&(keyspace, peer.clone())))
    }

    /// Whether a node is being filled there and fetches what it lacks itself: who brought it the same would send
    /// it twice.
    pub(crate) fn is_filled(&self, tree: Tree, peer: &NodeId) -> bool {
        let change = self.change.as_ref();
        change.is_some_and(|it| !it.filled.is_empty() && it.filled.contains(&(tree, peer.clone())))
    }

    /// The trees of which it is still to be proved that they are in step with a node's.
    pub(crate) fn left_with(&self, peer: &NodeId) -> impl Iterator<Item = Tree> {
        let trees = self.change.as_ref().and_then(|change| change.left.get(peer));
        trees.into_iter().flatten().copied()
    }

    /// With whom anything is left to be proved.
    pub(crate) fn peers(&self) -> impl Iterator<Item = &NodeId> {
        self.change.iter().flat_map(|change| change.left.keys())
    }

    /// With whom it is left to be proved of a partition.
    pub(crate) fn peers_of(&self, partition: PartitionId) -> impl Iterator<Item = &NodeId> {
        let moving = self.change.as_ref().and_then(|change| change.moving.get(&partition));
        moving.into_iter().flat_map(|moving| &moving.left).map(|(_, peer)| peer)
    }

    /// A node has refused to be compared with, because it is quarantined.
    pub(crate) fn peer_quarantined(&mut self, peer: &NodeId) {
        if let Some(change) = &mut self.change
            && change.left.contains_key(peer)
        {
            change.quarantined.insert(peer.clone());
        }
    }

    /// A key was fetched.
    pub(crate) fn fetched(&mut self, bytes: usize) {
        if let Some(change) = &mut self.change {
            change.fetched.keys += 1;
            change.fetched.bytes += bytes as u64;
        }
    }

    /// What is left of the change that is under way.
    pub(crate) fn left(&self) -> Option<Left<'_>> {
        let change = self.change.as_ref()?;
        let open = |phase| {
            let open = change.moving.values().filter(|it| it.phase == phase && !it.is_told);
            open.count() as u64
        };
        let peers = change
            .left
            .iter()
            .map(|(peer, trees)| (peer, (trees.len() as u64, change.quarantined.contains(peer))));
        Some(Left {
            change: change.began,
            filling: open(Phase::Filling),
            serving: open(Phase::Serving),
            peers: peers.collect(),
            fetched: change.fetched,
        })
    }
}

impl Change {
    fn new(began: Epoch) -> Self {
        Self {
            began,
            asked: began,
            moving: BTreeMap::new(),
            left: BTreeMap::new(),
            filled: BTreeSet::new(),
            quarantined: BTreeSet::new(),
            fetched: Fetched::default(),
        }
    }

    /// The words that can be given.
    fn words(&mut self) -> Vec<Word> {
        let change = self.asked;
        let ready = self.moving.iter_mut().filter_map(|(partition, moving)| {
            let word = Word { change, partition: *partition, phase: moving.phase };
            moving.tell().then_some(word)
        });
        ready.collect()
    }
}

impl Moving {
    /// What is to be proved under a phase; `before` is the same phase under an earlier state.
    fn new(
        phase: Phase,
        epoch: Epoch,
        needs: BTreeSet<(KeyspaceId, NodeId)>,
        before: Option<Self>,
    ) -> Self {
        let Some(before) = before else {
            return Self { phase, since: epoch, left: needs.clone(), needs, is_told: false };
        };
        if before.needs == needs {
            return before;
        }
        // What was proved under this phase stays so. The word that was given covered another set.
        let is_new =
            |it: &&(KeyspaceId, NodeId)| before.left.contains(*it) || !before.needs.contains(*it);
        let left = needs.iter().filter(is_new).cloned().collect();
        Self { phase, since: before.since, left, needs, is_told: false }
    }

    /// Whether the word is to be given at this moment.
    fn tell(&mut self) -> bool {
        self.left.is_empty() && !std::mem::replace(&mut self.is_told, true)
    }
}

fn index(left: &mut BTreeMap<NodeId, BTreeSet<Tree>>, partition: PartitionId, moving: &Moving) {
    for (keyspace, peer) in &moving.left {
        left.entry(peer.clone()).or_default().insert((*keyspace, partition));
    }
}

#[cfg(test)]
mod tests;
