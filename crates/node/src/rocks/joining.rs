//! Empties trees before a node takes them in as a new owner.
//!
//! A node may have held a tree in former times, and have something of it still: a release that was cut short,
//! or one that had yet to begin. Some of that may have been deleted since, and forgotten by all who held the
//! tree meanwhile, so it must not come back. It goes before the node acts for the first time under a change
//! that makes it an owner, in one commit with a note for which change that was. So what arrives from then on
//! is never cleared, whatever restarts and epochs the change goes through; and as long as there is no
//! note nothing has arrived.

use std::{collections::BTreeSet, sync::Weak};

use anello_protocol::{
    cluster::Phase,
    codec::{decode_stored, encode_stored},
    id::{Epoch, NodeId, PartitionId},
};
use anello_ring::view::View;
use rocksdb::{Direction, IteratorMode};

use super::{
    clear::{Clear, RUNS, run},
    commit::{Change, Flag},
    keeper::Upkeep,
    keys::{self, Family},
    leaves::TreeId,
    options,
    sift::{Failure, Stretch, commit, commit_with, sift},
    store::RocksStore,
};

/// How many trees are noted at once.
const AT_ONCE: usize = 10_000;

/// What has to be cleared before a node acts under a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Joining {
    /// The change that makes the node an owner.
    began: Epoch,
    /// Of these, which have not been cleared for it.
    trees: BTreeSet<TreeId>,
    /// Of which of them nothing has to stay but what is in `trees` too.
    whole: BTreeSet<PartitionId>,
    /// Notes for changes that are over, and of trees that the node doesn't hold.
    stale: Vec<Vec<u8>>,
}

impl Joining {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.trees.is_empty() && self.stale.is_empty()
    }

    /// The partitions of which something is cleared. Whatever vnode the node has of them has to end before.
    pub(crate) fn partitions(&self) -> BTreeSet<PartitionId> {
        self.trees.iter().map(|tree| tree.1).collect()
    }
}

impl RocksStore {
    /// What has to be cleared before the node acts under a state.
    pub(crate) fn joining(&self, view: &View, node: &NodeId) -> Result<Joining, String> {
        let began = view.cluster().change.as_ref().map(|change| change.began);
        let mut trees = taken_in(view, node);
        let mut stale = Vec::new();
        for (at, tree, cleared_for) in self.notes()? {
            // What is left of one that isn't held must not stay, should the node take it in again.
            match Some(cleared_for) == began && view.holds(node, tree.0, tree.1) {
                true => drop(trees.remove(&tree)),
                false => stale.push(at),
            }
        }
        let mut whole: BTreeSet<_> = trees.iter().map(|tree| tree.1).collect();
        for (_, keyspace) in view.keyspaces() {
            // What is there of keyspaces in which the node doesn't hold it may go too.
            whole.retain(|partition| {
                trees.contains(&(keyspace.id, *partition))
                    || view.placement_of(keyspace, *partition).index_of(node).is_none()
            });
        }
        Ok(Joining { began: began.unwrap_or_default(), trees, whole, stale })
    }

    /// For which change trees were cleared, and where that stands.
    fn notes(&self) -> Result<Vec<(Vec<u8>, TreeId, Epoch)>, String> {
        let shared = self.shared();
        let from = IteratorMode::From(keys::all_cleared(), Direction::Forward);
        let meta = shared.family(Family::Meta);
        let mut notes = Vec::new();
        for entry in shared.db.iterator_cf_opt(meta, options::reading(), from) {
            let (at, value) = entry.map_err(|error| shared.read_failed(error).0)?;
            let Some(tree) = keys::cleared_tree(&at) else { break };
            let cleared_for = decode_stored(&value);
            let cleared_for = cleared_for
                .map_err(|reason| format!("a note that a tree was cleared: {reason}"))?;
            notes.push((at.into_vec(), tree, cleared_for));
        }
        Ok(notes)
    }
}

/// Clears what has to be, and notes it; what fails may be tried again. To be called while nothing is released,
/// and once the node's vnodes of these partitions have ended.
pub(crate) fn clear(store: &Weak<RocksStore>, joining: &Joining) -> Result<(), String> {
    let done = clear_all(store, joining);
    done.map_err(|failure| match failure {
        Failure::Busy => "the store's queue is full".into(),
        Failure::Disk(reason) => reason,
    })
}

fn clear_all(store: &Weak<RocksStore>, joining: &Joining) -> Result<(), Failure> {
    let open = || store.upgrade().ok_or_else(|| Failure::Disk("the store was closed".into()));
    // Behind everything that vnodes gave in while they still acted under an older state.
    commit(&*open()?, Vec::new(), Flag::Unconcerned)?;
    let mut clear = Clear::default();
    {
        let store = open()?;
        let there = store.shared().trees.read();
        // Where there is no tree there is nothing: a leaf changes in the batch of its data.
        for &tree in there.keys() {
            if joining.whole.contains(&tree.1) {
                clear.partitions.insert(tree.1);
            } else if joining.trees.contains(&tree) {
                clear.trees.insert(tree);
            }
        }
    }
    for &(keyspace, partition) in &clear.trees {
        let (first, until) = run(partition, open()?.shared().trees.partitions());
        let keyspaces = &BTreeSet::from([keyspace]);
        for family in RUNS {
            let mut next = Some(first.clone());
            while let Some(from) = next {
                let stretch = Stretch { family, keyspaces, from: &from, until: Some(&until) };
                next = sift(&*open()?, stretch)?.next;
            }
        }
    }
    let had = clear.partitions.len() + clear.trees.len();
    let trees: Vec<_> = joining.trees.iter().copied().collect();
    for some in trees.chunks(AT_ONCE) {
        // All of it with the first notes. The rest of the trees is cleared once more, should they be missing.
        let (notes, upkeep) = last_step(joining.began, some, std::mem::take(&mut clear));
        commit_with(&*open()?, notes, upkeep, Flag::Unconcerned)?;
    }
    if had > 0 {
        tracing::info!(
            change = joining.began.0,
            trees = joining.trees.len(),
            "cleared what was left from former times of what the node takes in"
        );
    }
    let gone = |at: &Vec<u8>| Change { family: Family::Meta, key: at.clone(), value: None };
    // A note that was made anew is not over.
    let is_over =
        |at: &&Vec<u8>| keys::cleared_tree(at).is_none_or(|tree| !joining.trees.contains(&tree));
    let gone: Vec<_> = joining.stale.iter().filter(is_over).map(gone).collect();
    match gone.is_empty() {
        true => Ok(()),
        false => commit(&*open()?, gone, Flag::Unconcerned),
    }
}

/// What is one commit: clearing, and the notes of that.
fn last_step(began: Epoch, trees: &[TreeId], clear: Clear) -> (Vec<Change>, Upkeep) {
    let value = encode_stored(&began);
    let note = |tree: &TreeId| {
        let key = keys::cleared_for(tree.0, tree.1);
        Change { family: Family::Meta, key, value: Some(value.clone()) }
    };
    (trees.iter().map(note).collect(), Upkeep::Clear(Box::new(clear)))
}

/// The trees that a node is an owner of by the change that is under way, and was not before.
fn taken_in(view: &View, node: &NodeId) -> BTreeSet<TreeId> {
    let mut trees = BTreeSet::new();
    for (partition, phase) in view.moving() {
        for (_, keyspace) in view.keyspaces() {
            let placement = view.placement_of(keyspace, partition);
            let Some(others) = &placement.others else { continue };
            let (old, new) = match phase {
                Phase::Filling => (&placement.readers, others),
                Phase::Serving | Phase::Done => (others, &placement.readers),
            };
            let at = placement.index_of(node);
            if at.is_some_and(|at| new.contains(at) && !old.contains(at)) {
                trees.insert((keyspace.id, partition));
            }
        }
    }
    trees
}

#[cfg(test)]
mod tests;
