//! The commit thread's part in keeping Merkle trees, and the list of tombstones, in step with the data.
//!
//! Whether a failed group was kept isn't known, and what a vnode says of it in its later commits may be
//! wrong. So its trees are not trusted from then on until they have been worked out anew; that this
//! must be done is on disk with the next group that touches them. And what one of its keys held before
//! its next commit is looked up, rather than believed, so that from the failure on what is added to a leaf
//! and taken from it is right: a tree that was worked out anew meanwhile stays so.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use anello_antientropy::store::Leaves;
use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    merkle::{EntryDigest, LEAVES, leaf_of},
};
use anello_replica::store::Commit;
use rocksdb::WriteBatch;

use super::{
    clear::Clear,
    commit::{Flag, Submission},
    keys::{self, Family},
    leaves::{self, Difference, TreeId},
    shared::Shared,
    tombstones,
};

/// How many keys are remembered whose commits failed; past it, all keys count as such.
const MAX_DOUBTFUL: usize = 100_000;

/// What a submission means for the trees.
pub(super) enum Upkeep {
    /// Nothing.
    Nothing,
    /// A key changes.
    Key(KeyChange),
    /// A tree is mended.
    Mend(Box<Mend>),
    /// Trees are emptied.
    Clear(Box<Clear>),
}

/// A change of what is held of a key.
#[derive(Clone, Copy)]
pub(super) struct KeyChange {
    tree: TreeId,
    leaf: u16,
    before: EntryDigest,
    after: EntryDigest,
    is_deleted: bool,
}

impl KeyChange {
    /// The one that a commit makes.
    pub(super) fn of(commit: &Commit, partitions: u32) -> Self {
        let hash = commit.key.hash;
        Self {
            tree: (commit.key.keyspace, hash.partition(partitions)),
            leaf: leaf_of(hash, partitions) as u16,
            before: EntryDigest::of(&commit.key, commit.replaced.digest),
            after: EntryDigest::of(&commit.key, commit.versions.digest()),
            is_deleted: commit.versions.is_deleted(),
        }
    }
}

/// What a scrub found.
pub(super) struct Mend {
    pub(super) tree: TreeId,
    /// What the leaves on disk differ by from what the data says, in one snapshot.
    pub(super) differences: Box<Leaves>,
    /// Keys that are in the list of tombstones and should not be, or the other way round.
    pub(super) listed_wrong: Vec<Vec<u8>>,
    /// The tree's doubt before the snapshot: it is settled unless there has been another since.
    pub(super) doubt: Option<u64>,
    /// How often its partition had been cleared before the snapshot: one that has been since makes this void.
    pub(super) clears: u64,
    /// How many leaves were mended, on disk or in memory.
    pub(super) mended: Arc<AtomicU32>,
}

/// See the head of this file.
pub(super) struct Keeper {
    /// Trees that aren't trusted, and whether that is on disk.
    unsure: BTreeMap<TreeId, bool>,
    failures: u64,
    doubtful: BTreeSet<Vec<u8>>,
    all_are_doubtful: bool,
    group: Group,
}

/// What the changes of a group that were looked at so far leave, for those behind them.
#[derive(Default)]
struct Before<'a> {
    /// What is left of keys, by where they lie.
    latest: BTreeMap<&'a [u8], (TreeId, EntryDigest)>,
    clears: Vec<&'a Clear>,
}

/// What the group in hand does.
#[derive(Default)]
struct Group {
    differences: Vec<Difference>,
    mended: Vec<Mended>,
    noted_unsure: Vec<TreeId>,
    swept: Vec<KeyspaceId>,
}

struct Mended {
    tree: TreeId,
    leaves: Box<Leaves>,
    is_sure: bool,
}

impl Keeper {
    /// It is on disk that these can't be trusted.
    pub(super) fn new(unsure: &BTreeSet<TreeId>) -> Self {
        Self {
            unsure: unsure.iter().map(|tree| (*tree, true)).collect(),
            failures: 0,
            doubtful: BTreeSet::new(),
            all_are_doubtful: false,
            group: Group::default(),
        }
    }

    /// Adds to a batch what the trees need. To be called before the group's own changes are added, which
    /// what is mended here must not undo.
    pub(super) fn prepare(
        &mut self,
        shared: &Shared,
        group: &[Submission],
        batch: &mut WriteBatch,
    ) -> Result<(), String> {
        let differences = std::mem::take(&mut self.group.differences);
        self.group = Group { differences, ..Group::default() };
        self.group.differences.clear();
        let mut before = Before::default();
        for submission in group {
            match &submission.upkeep {
                Upkeep::Nothing => {}
                Upkeep::Key(change) => {
                    let mut digest = self.before(shared, submission, change, &mut before, batch)?;
                    digest.toggle(change.after);
                    let KeyChange { tree, leaf, .. } = *change;
                    self.group.differences.push(Difference { tree, leaf, digest });
                }
                Upkeep::Mend(mend) => {
                    let is_void = before.clears.iter().any(|clear| clear.covers(mend.tree));
                    if !is_void && shared.trees.clears(mend.tree.1) == mend.clears {
                        self.mend(shared, mend, batch)?;
                    }
                }
                Upkeep::Clear(clear) => {
                    // What came before it in the group goes with all else.
                    self.group.differences.retain(|it| !clear.covers(it.tree));
                    self.group.mended.retain(|it| !clear.covers(it.tree));
                    before.latest.retain(|_, (tree, _)| !clear.covers(*tree));
                    before.clears.push(clear);
                }
            }
            if let Flag::Swept(keyspace) = submission.flag {
                self.group.swept.push(keyspace);
            }
        }
        leaves::combine(&mut self.group.differences);
        self.clear(shared, &before.clears, batch);
        let trees = shared.family(Family::Trees);
        for Difference { tree: (keyspace, partition), leaf, digest } in &self.group.differences {
            batch.merge_cf(trees, keys::leaf(*keyspace, *partition, *leaf), digest.0.to_le_bytes());
        }
        if !self.unsure.is_empty() {
            self.note_unsure(shared, &before.clears, batch);
        }
        self.sweep(shared, batch);
        Ok(())
    }

    /// The group was committed, or failed.
    pub(super) fn settle(&mut self, shared: &Shared, group: &[Submission], is_durable: bool) {
        if !is_durable {
            return self.doubt(shared, group);
        }
        if !self.doubtful.is_empty() {
            for submission in group {
                if let Some(at) = data_of(submission) {
                    self.doubtful.remove(at);
                }
            }
        }
        let Group { differences, mended, noted_unsure, swept } = std::mem::take(&mut self.group);
        for tree in noted_unsure {
            self.unsure.insert(tree, true);
        }
        let mut all = shared.trees.write();
        for clear in clears(group) {
            clear.touched().for_each(|partition| shared.trees.count_clear(partition));
            all.retain(|tree, _| !clear.covers(*tree));
            self.unsure.retain(|tree, _| !clear.covers(*tree));
        }
        for Mended { tree, leaves, is_sure } in mended {
            let entry = all.entry(tree).or_default();
            entry.leaves = leaves;
            if is_sure {
                entry.doubt = None;
                self.unsure.remove(&tree);
            }
        }
        leaves::apply(&mut all, &differences);
        for keyspace in swept {
            all.retain(|tree, _| tree.0 != keyspace);
            self.unsure.retain(|tree, _| tree.0 != keyspace);
        }
        drop(all);
        self.group.differences = differences;
        if self.unsure.is_empty() {
            // A vnode's belief lasts no longer than the commits that it had under way when one failed, and
            // each of these trees was worked out anew in a commit behind them.
            self.all_are_doubtful = false;
        }
    }

    /// Of which of these nothing is known for sure: their trees, and what they held.
    fn doubt(&mut self, shared: &Shared, group: &[Submission]) {
        self.failures += 1;
        let mut all = shared.trees.write();
        for submission in group {
            let tree = match &submission.upkeep {
                Upkeep::Nothing => continue,
                Upkeep::Key(change) => change.tree,
                Upkeep::Mend(mend) => mend.tree,
                Upkeep::Clear(clear) => {
                    clear.touched().for_each(|partition| shared.trees.count_clear(partition));
                    for (&id, tree) in all.iter_mut().filter(|(id, _)| clear.covers(**id)) {
                        tree.doubt = Some(self.failures);
                        self.unsure.entry(id).or_insert(false);
                    }
                    continue;
                }
            };
            all.entry(tree).or_default().doubt = Some(self.failures);
            self.unsure.entry(tree).or_insert(false);
            if let Some(at) = data_of(submission) {
                match self.doubtful.len() < MAX_DOUBTFUL {
                    true => drop(self.doubtful.insert(at.to_vec())),
                    false => self.all_are_doubtful = true,
                }
            }
        }
    }

    /// The digest of what a key holds before a change.
    fn before<'a>(
        &self,
        shared: &Shared,
        submission: &'a Submission,
        change: &KeyChange,
        group: &mut Before<'a>,
        batch: &mut WriteBatch,
    ) -> Result<EntryDigest, String> {
        if self.doubtful.is_empty() && !self.all_are_doubtful {
            return Ok(change.before);
        }
        let Some(at) = data_of(submission) else { return Ok(change.before) };
        if !self.all_are_doubtful && !self.doubtful.contains(at) {
            return Ok(change.before);
        }
        let is_cleared = || group.clears.iter().any(|clear| clear.covers(change.tree));
        let before = match group.latest.get(at) {
            Some((_, before)) => *before,
            None if is_cleared() => EntryDigest::default(),
            None => match shared.held(at)? {
                Some((key, versions)) => EntryDigest::of(&key, versions.digest()),
                None => EntryDigest::default(),
            },
        };
        group.latest.insert(at, (change.tree, change.after));
        if !change.is_deleted {
            batch.delete_cf(shared.family(Family::Tombstones), at);
        }
        Ok(before)
    }

    fn mend(&mut self, shared: &Shared, mend: &Mend, batch: &mut WriteBatch) -> Result<(), String> {
        let (keyspace, partition) = mend.tree;
        let mut leaves = shared.stored_leaves(mend.tree, None)?;
        let in_memory = shared.trees.read().get(&mend.tree).map(|tree| tree.leaves.clone());
        let in_memory = in_memory.unwrap_or_else(leaves::none);
        let trees = shared.family(Family::Trees);
        let mut mended = 0;
        for leaf in 0..LEAVES {
            let difference = mend.differences[leaf];
            let differs = difference != EntryDigest::default();
            mended += u32::from(differs || in_memory[leaf] != leaves[leaf]);
            if differs {
                let at = keys::leaf(keyspace, partition, leaf as u16);
                batch.merge_cf(trees, at, difference.0.to_le_bytes());
                leaves[leaf].toggle(difference);
            }
        }
        mend.mended.store(mended, Ordering::Relaxed);
        for at in &mend.listed_wrong {
            let list = shared.family(Family::Tombstones);
            let held = shared.held(at)?;
            match held.as_ref().and_then(|(_, versions)| tombstones::encode(versions)) {
                Some(value) => batch.put_cf(list, at, value),
                None => batch.delete_cf(list, at),
            }
        }
        let is_sure = shared.trees.doubt(mend.tree) == mend.doubt;
        if is_sure && self.unsure.get(&mend.tree) == Some(&true) {
            batch.delete_cf(shared.family(Family::Meta), keys::tree_unsure(keyspace, partition));
        }
        self.group.mended.push(Mended { tree: mend.tree, leaves, is_sure });
        Ok(())
    }

    /// Notes on disk which of the trees that the group touches can't be trusted.
    fn note_unsure(&mut self, shared: &Shared, clears: &[&Clear], batch: &mut WriteBatch) {
        let meta = shared.family(Family::Meta);
        for tree in self.group.differences.chunk_by(|a, b| a.tree == b.tree).map(|all| all[0].tree)
        {
            let is_settled = clears.iter().any(|clear| clear.covers(tree))
                || self.group.mended.iter().any(|it| it.tree == tree && it.is_sure);
            if self.unsure.get(&tree) == Some(&false) && !is_settled {
                batch.put_cf(meta, keys::tree_unsure(tree.0, tree.1), []);
                self.group.noted_unsure.push(tree);
            }
        }
    }

    /// Deletes the leaves of trees that are emptied. To be called before anything is added of what the group
    /// does to them behind that.
    fn clear(&self, shared: &Shared, clears: &[&Clear], batch: &mut WriteBatch) {
        let (trees, meta) = (shared.family(Family::Trees), shared.family(Family::Meta));
        for clear in clears {
            // One that this group begins has leaves in it alone.
            let stored = shared.trees.read();
            for &(keyspace, partition) in stored.keys().filter(|tree| clear.covers(**tree)) {
                let last = keys::leaf(keyspace, partition, u16::MAX);
                batch.delete_range_cf(trees, keys::leaf(keyspace, partition, 0), last);
            }
            for tree in self.unsure.keys().filter(|tree| clear.covers(**tree)) {
                batch.delete_cf(meta, keys::tree_unsure(tree.0, tree.1));
            }
        }
    }

    /// Deletes the trees of keyspaces of which nothing is left.
    fn sweep(&self, shared: &Shared, batch: &mut WriteBatch) {
        let (trees, meta) = (shared.family(Family::Trees), shared.family(Family::Meta));
        for &keyspace in &self.group.swept {
            let last = keys::leaf(keyspace, PartitionId(u32::MAX), u16::MAX);
            batch.delete_range_cf(trees, keys::leaf(keyspace, PartitionId(0), 0), last);
            for (tree, _) in self.unsure.range(leaves::of_keyspace(keyspace)) {
                batch.delete_cf(meta, keys::tree_unsure(keyspace, tree.1));
            }
        }
    }
}

fn clears(group: &[Submission]) -> impl Iterator<Item = &Clear> {
    group.iter().filter_map(|submission| match &submission.upkeep {
        Upkeep::Clear(clear) => Some(&**clear),
        _ => None,
    })
}

/// Where the data lies that a submission is about.
fn data_of(submission: &Submission) -> Option<&[u8]> {
    let mut data = submission.changes.iter().filter(|change| change.family == Family::Data);
    data.next().map(|change| &*change.key)
}
