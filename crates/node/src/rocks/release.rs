//! Deletes what the node does not hold any more, in the background: data, tombstones and leaves. What a vnode must
//! remember to issue no dot twice stays.
//!
//! A partition that is held in no keyspace is one run of keys, and goes at once; of one that is held in
//! another keyspace the keys are deleted a few at a time. The leaves go last: as long as there are any the
//! tree is known to be there, so a pass that the end of the process cuts short is begun again under the
//! next state that the node acts under.
//!
//! Invariant: nothing is deleted but under the state that the node acts under. Every step holds [`Gate`] until
//! what it deletes is gone, and looks first whether the state is the one that it was planned under; the gate is
//! shut before the node acts under another. So what the node comes to hold again is never touched: what
//! is left of it then is cleared by whoever takes it in, see [`super::joining`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Instant,
};

use anello_protocol::id::{KeyspaceId, NodeId, PartitionId};
use anello_ring::view::View;
use rocksdb::{CompactOptions, Range};

use super::{
    clear::{Clear, RUNS, run, runs},
    commit::Flag,
    keeper::Upkeep,
    keys::Family,
    leaves::TreeId,
    sift::{Failure, Stretch, commit, commit_with, sift},
    store::RocksStore,
    sweep::{PAUSE, insist},
};

/// How many partitions go at once: what was written lately is looked through once for all of them.
const AT_ONCE: usize = 32;
/// For the log.
const WHAT: &str = "what the node does not hold any more";

/// Who may delete, see the head of this file.
#[derive(Default)]
pub(super) struct Gate(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Under which state the node acts; none while it goes over to another.
    standing: Option<Standing>,
    /// How often it was told.
    number: u64,
    is_running: bool,
}

/// What the node holds.
#[derive(Clone)]
struct Standing {
    view: Arc<View>,
    node: NodeId,
}

impl Gate {
    /// Nothing is deleted from here on. Waits for the step that is under way.
    pub(super) fn shut(&self) {
        let mut inner = self.inner();
        inner.standing = None;
        inner.number += 1;
    }

    /// What isn't held under this state may be deleted from here on. Whether somebody has to begin with that:
    /// one who is at it already goes on.
    fn open(&self, view: Arc<View>, node: NodeId) -> bool {
        let mut inner = self.inner();
        inner.standing = Some(Standing { view, node });
        inner.number += 1;
        !std::mem::replace(&mut inner.is_running, true)
    }

    /// The state to plan under, and its number; none ends the one who is at it.
    fn standing(&self) -> Option<(u64, Standing)> {
        let mut inner = self.inner();
        let standing = inner.standing.clone();
        inner.is_running = standing.is_some();
        Some((inner.number, standing?))
    }

    /// Keeps it as it is while a step is done, if it is still as it was planned under.
    fn pass(&self, number: u64) -> Option<MutexGuard<'_, Inner>> {
        Some(self.inner()).filter(|inner| inner.number == number && inner.standing.is_some())
    }

    /// Nothing is left to be done. Whether that is so still.
    fn finish(&self, number: u64) -> bool {
        let mut inner = self.inner();
        let is_over = inner.number == number;
        inner.is_running &= !is_over;
        is_over
    }

    fn failed(&self) {
        self.inner().is_running = false;
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No change below the lock can be left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RocksStore {
    /// Deletes nothing more of what the node doesn't hold, until [`RocksStore::release`]. To be called before
    /// the node takes anything in under another state than before; may wait for a commit.
    pub(crate) fn keep_all(&self) {
        self.gate().shut();
    }

    /// Deletes in the background what the node doesn't hold under the state that all of its vnodes, and
    /// whoever shows its trees to others, act under.
    pub(crate) fn release(self: &Arc<Self>, view: Arc<View>, node: &NodeId) {
        if !self.gate().open(view, node.clone()) {
            return;
        }
        let store = Arc::downgrade(self);
        let release = move || while pass(&store).is_some() {};
        if let Err(error) = thread::Builder::new().name("release".into()).spawn(release) {
            self.gate().failed();
            tracing::warn!("can't delete {WHAT}: {error}");
        }
    }
}

/// What there is to be released.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Held in no keyspace.
    partitions: BTreeSet<PartitionId>,
    /// Held in other keyspaces.
    trees: BTreeMap<PartitionId, BTreeSet<KeyspaceId>>,
}

impl Plan {
    fn under(Standing { view, node }: &Standing, there: impl Iterator<Item = TreeId>) -> Self {
        let mut plan = Self::default();
        // Nobody has waited for one that was taken out to hand over what it holds: it may be the last of it.
        if view.cluster().is_written_off(node) {
            return plan;
        }
        let held = view.held_partitions(node);
        // What belongs to a dropped keyspace is left to the sweep, unless its partition goes as a whole.
        let keyspaces: BTreeMap<_, _> = view.keyspaces().map(|(_, it)| (it.id, it)).collect();
        let goes = |(keyspace, partition): &TreeId| {
            let keyspace = keyspaces.get(keyspace);
            keyspace.is_some_and(|it| view.placement_of(it, *partition).index_of(node).is_none())
        };
        for (keyspace, partition) in there.filter(goes) {
            match held.contains(&partition) {
                true => drop(plan.trees.entry(partition).or_default().insert(keyspace)),
                false => drop(plan.partitions.insert(partition)),
            }
        }
        plan
    }

    fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.trees.is_empty()
    }
}

/// What was released.
#[derive(Default)]
struct Account {
    /// Of partitions that went at once, about.
    bytes: u64,
    /// Of the others.
    keys: usize,
}

/// Nothing if there is no more to do, or the store was closed.
fn pass(store: &Weak<RocksStore>) -> Option<()> {
    let (number, standing) = store.upgrade()?.gate().standing()?;
    // Behind everything that vnodes gave in while they held it.
    insist(store, WHAT, |store| commit(store, Vec::new(), Flag::Unconcerned))?;
    let plan = {
        let store = store.upgrade()?;
        let there: Vec<_> = store.shared().trees.read().keys().copied().collect();
        Plan::under(&standing, there.into_iter())
    };
    if plan.is_empty() {
        return (!store.upgrade()?.gate().finish(number)).then_some(());
    }
    let mut account = Account::default();
    let all: Vec<_> = plan.partitions.iter().copied().collect();
    for some in all.chunks(AT_ONCE) {
        let some: BTreeSet<_> = some.iter().copied().collect();
        match insist(store, WHAT, |store| release_whole(store, number, &some))? {
            Some(bytes) => account.bytes += bytes,
            None => return Some(()),
        }
        thread::sleep(PAUSE);
    }
    for (&partition, keyspaces) in &plan.trees {
        match release_part(store, number, partition, keyspaces)? {
            Some(keys) => account.keys += keys,
            None => return Some(()),
        }
    }
    let trees: usize = plan.trees.values().map(BTreeSet::len).sum();
    tracing::info!(
        partitions = plan.partitions.len(),
        mib = account.bytes >> 20,
        trees,
        keys = account.keys,
        "deleted {WHAT}: whole partitions, of about so many MiB, and trees of others, of so many keys"
    );
    for &partition in &plan.partitions {
        let began = Instant::now();
        compact(&*store.upgrade()?, partition);
        // As long again belongs to requests.
        thread::sleep(began.elapsed().max(PAUSE));
    }
    Some(())
}

/// Deletes everything of partitions, about so many bytes of tables; nothing if the state has changed.
fn release_whole(
    store: &RocksStore,
    number: u64,
    partitions: &BTreeSet<PartitionId>,
) -> Result<Option<u64>, Failure> {
    let Some(_gate) = store.gate().pass(number) else { return Ok(None) };
    let shared = store.shared();
    let runs = runs(partitions, shared.trees.partitions());
    let ranges: Vec<_> = runs.iter().map(|(from, until)| Range::new(from, until)).collect();
    let data = shared.family(Family::Data);
    let bytes = shared.db.get_approximate_sizes_cf(data, &ranges).iter().sum();
    // Tables that have nothing else go as they are. That may bring to light what newer ones among them
    // had deleted of older ones that are not, so the run is deleted behind it.
    for (from, until) in &runs {
        for family in RUNS {
            shared.db.delete_file_in_range_cf(shared.family(family), from, until)?;
        }
    }
    let clear = Clear { partitions: partitions.clone(), trees: BTreeSet::new() };
    commit_with(store, Vec::new(), Upkeep::Clear(Box::new(clear)), Flag::Unconcerned)?;
    Ok(Some(bytes))
}

/// Deletes what there is of a partition in some keyspaces, a little at a time, and says how many keys that
/// were; nothing inside if the state has changed, and nothing at all if the store was closed.
fn release_part(
    store: &Weak<RocksStore>,
    number: u64,
    partition: PartitionId,
    keyspaces: &BTreeSet<KeyspaceId>,
) -> Option<Option<usize>> {
    let mut deleted = 0;
    let trees: BTreeSet<TreeId> = keyspaces.iter().map(|keyspace| (*keyspace, partition)).collect();
    let within_gate = |act: &mut dyn FnMut(&RocksStore) -> Result<(), Failure>| {
        insist(store, WHAT, |store| match store.gate().pass(number) {
            Some(_gate) => act(store).map(Some),
            None => Ok(None),
        })
    };
    let partitions = store.upgrade()?.shared().trees.partitions();
    let (first, until) = run(partition, partitions);
    for family in RUNS {
        let mut next = Some(first.clone());
        while let Some(from) = next.take() {
            let mut step = |store: &RocksStore| {
                let stretch = Stretch { family, keyspaces, from: &from, until: Some(&until) };
                let found = sift(store, stretch)?;
                deleted += if family == Family::Data { found.deleted } else { 0 };
                next = found.next;
                Ok(())
            };
            if within_gate(&mut step)?.is_none() {
                return Some(None);
            }
            thread::sleep(PAUSE);
        }
    }
    let mut last = |store: &RocksStore| {
        let clear = Clear { partitions: BTreeSet::new(), trees: trees.clone() };
        commit_with(store, Vec::new(), Upkeep::Clear(Box::new(clear)), Flag::Unconcerned)
    };
    Some(within_gate(&mut last)?.map(|()| deleted))
}

/// Has the tables at the ends of a partition's run written anew without it, which gives their space back.
fn compact(store: &RocksStore, partition: PartitionId) {
    let shared = store.shared();
    let (from, until) = run(partition, shared.trees.partitions());
    let mut options = CompactOptions::default();
    // What goes on by itself need not wait for it.
    options.set_exclusive_manual_compaction(false);
    for family in RUNS {
        let family = shared.family(family);
        shared.db.compact_range_cf_opt(family, Some(&from), Some(&until), &options);
    }
}

#[cfg(test)]
mod tests;
