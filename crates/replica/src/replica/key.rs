//! One key in a vnode's hands: what is durable of it, and what is on its way to be.
//!
//! Invariants: every uncommitted state is a join of the one before; merging starts from the last of
//! them; readers see the durable one.

use std::{collections::VecDeque, sync::Arc};

use anello_protocol::{
    causality::Dot,
    message::{
        repair::{PurgeVersions, Purged},
        replica::{Refusal, StoreVersions},
    },
    time::HybridTime,
    version::{ConflictRule, Version, Versions, WriteId},
};

use super::events::CommitNumber;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct OpenKey {
    committed: Arc<Versions>,
    uncommitted: VecDeque<(CommitNumber, Arc<Versions>)>,
}

impl OpenKey {
    /// A key as the store has it.
    pub(super) fn new(committed: Versions) -> Self {
        Self { committed: Arc::new(committed), uncommitted: VecDeque::new() }
    }

    /// What readers may see.
    pub(super) fn committed(&self) -> &Arc<Versions> {
        &self.committed
    }

    /// What merging starts from.
    pub(super) fn latest(&self) -> &Arc<Versions> {
        self.uncommitted.back().map_or(&self.committed, |(_, versions)| versions)
    }

    /// The commit that has to end before everything in [`OpenKey::latest`] is durable.
    pub(super) fn last_commit(&self) -> Option<CommitNumber> {
        self.uncommitted.back().map(|(number, _)| *number)
    }

    /// A commit is under way.
    pub(super) fn push(&mut self, number: CommitNumber, versions: Arc<Versions>) {
        self.uncommitted.push_back((number, versions));
    }

    /// A commit is durable, and with it all before it.
    pub(super) fn committed_up_to(&mut self, number: CommitNumber) {
        while self.uncommitted.front().is_some_and(|(first, _)| *first <= number) {
            if let Some((_, versions)) = self.uncommitted.pop_front() {
                self.committed = versions;
            }
        }
    }

    /// A commit has come to nothing. Later ones, which contain it, go on.
    pub(super) fn failed(&mut self, number: CommitNumber) {
        self.uncommitted.retain(|(own, _)| *own != number);
    }

    /// A commit was never kept and never will be, and those that contain it are not to be made: the
    /// numbers of these.
    pub(super) fn withdraw_from(&mut self, number: CommitNumber) -> Vec<CommitNumber> {
        let first = self.uncommitted.partition_point(|(own, _)| *own < number);
        self.uncommitted.drain(first..).map(|(own, _)| own).filter(|own| *own != number).collect()
    }

    /// Whether everything is durable, so that the store can tell it as well.
    pub(super) fn is_settled(&self) -> bool {
        self.uncommitted.is_empty()
    }
}

/// Forgets a key, if exactly the tombstones are held that it is to be forgotten for and nothing of it
/// is under way: what is to be kept, if that changes anything, and the answer.
pub(super) fn purge(open: &OpenKey, purge: &PurgeVersions) -> (Option<Versions>, Purged) {
    let held = open.latest();
    if !open.is_settled() {
        return (None, Purged::Kept);
    }
    if held.is_empty() {
        return (None, Purged::Gone);
    }
    match held.is_deleted() && held.digest() == purge.digest {
        true => (Some(Versions::new()), Purged::Gone),
        false => (None, Purged::Kept),
    }
}

/// Forgets a key in quarantine, where nothing but what came back with a copy of the store is forgotten: the
/// node's own anti-entropy asks for that, when no other replica holds anything of the key and what is
/// held here is older than the grace.
///
/// Exactly these versions must be held, durably, and not be tombstones alone. So a purge from elsewhere,
/// which names tombstones, changes nothing and is told nothing; and this request, should it come after
/// the quarantine, changes nothing either, because outside of it only tombstones go.
pub(super) fn drop_copy(
    open: &OpenKey,
    purge: &PurgeVersions,
) -> Result<(Option<Versions>, Purged), Refusal> {
    let held = open.latest();
    let is_meant = open.is_settled() && !held.is_empty() && held.digest() == purge.digest;
    match is_meant && !held.is_deleted() {
        true => Ok((Some(Versions::new()), Purged::Gone)),
        false => Err(Refusal::Quarantined),
    }
}

/// Joins versions from elsewhere into what is held: what is to be kept, if that is more than before,
/// and, under last-write-wins, the later time of the version that was there and stays.
pub(crate) fn join(
    held: &Versions,
    store: StoreVersions,
) -> (Option<Versions>, Option<HybridTime>) {
    let pushed = match store.rule {
        ConflictRule::Siblings => None,
        ConflictRule::Lww => {
            let latest = store.versions.iter().max_by_key(|version| (version.time, version.dot));
            latest.map(|version| (version.dot, version.write_id))
        }
    };
    let mut joined = held.clone();
    let is_new = joined.merge(store.versions, store.rule);
    let winner = joined.iter().max_by_key(|version| (version.time, version.dot));
    let lost = |((dot, write_id), winner): ((Dot, WriteId), &Version)| {
        // A write that knew of the pushed one came after it: nothing is lost that should have stayed. The
        // same write issued elsewhere is no such: its later time is known here and not where the pushed
        // version counts as kept, so the two would not stand for one write towards a third.
        let follows = winner.absorbed.contains(&write_id);
        (winner.dot != dot && !follows).then_some(winner.time)
    };
    let lost_to = pushed.zip(winner).and_then(lost);
    (is_new.then_some(joined), lost_to)
}
