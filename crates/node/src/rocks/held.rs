//! Of which keyspaces there is data here, and which of those have been dropped.
//!
//! Invariants: a keyspace is held from before its first write is queued until its last data is gone from
//! the disk, so that nobody is ever told that there is none; a write that was refused leaves none held; of
//! a keyspace that is known to be dropped nothing more is queued.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anello_protocol::id::{Epoch, KeyspaceId};

/// See the head of this file.
#[derive(Default)]
pub(super) struct Held(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Those that have data here, or may have once what is queued is written.
    keyspaces: BTreeSet<KeyspaceId>,
    /// Those of the newest agreed state that is known, and its epoch.
    agreed: Option<(BTreeSet<KeyspaceId>, Epoch)>,
    is_sweeping: bool,
}

impl Inner {
    /// A keyspace of a later state than the one that is known isn't known to be dropped.
    fn is_dropped(&self, keyspace: KeyspaceId) -> bool {
        let agreed = self.agreed.as_ref();
        agreed.is_some_and(|(all, epoch)| keyspace.0 <= epoch.0 && !all.contains(&keyspace))
    }

    fn dropped(&self) -> BTreeSet<KeyspaceId> {
        self.keyspaces.iter().copied().filter(|keyspace| self.is_dropped(*keyspace)).collect()
    }
}

impl Held {
    /// What the disk says of an earlier process.
    pub(super) fn of(keyspaces: BTreeSet<KeyspaceId>) -> Self {
        Self(Mutex::new(Inner { keyspaces, ..Inner::default() }))
    }

    /// The keyspaces that are held.
    pub(super) fn all(&self) -> BTreeSet<KeyspaceId> {
        self.inner().keyspaces.clone()
    }

    /// Queues a write of a keyspace, which is held from then on; gives it back if the keyspace was
    /// dropped, or if `queue` does.
    pub(super) fn queue<W>(
        &self,
        keyspace: KeyspaceId,
        write: W,
        queue: impl FnOnce(W) -> Result<(), W>,
    ) -> Result<(), W> {
        let mut inner = self.inner();
        if inner.is_dropped(keyspace) {
            return Err(write);
        }
        let is_first = inner.keyspaces.insert(keyspace);
        let queued = queue(write);
        if is_first && queued.is_err() {
            inner.keyspaces.remove(&keyspace);
        }
        queued
    }

    /// The members have agreed on these keyspaces. Whether a sweep has to be begun: one that is under way
    /// goes on to what is dropped meanwhile.
    pub(super) fn agreed(&self, keyspaces: &BTreeSet<KeyspaceId>, epoch: Epoch) -> bool {
        let mut inner = self.inner();
        if inner.agreed.as_ref().is_none_or(|(_, known)| *known <= epoch) {
            inner.agreed = Some((keyspaces.clone(), epoch));
        }
        let begins = !inner.is_sweeping && !inner.dropped().is_empty();
        inner.is_sweeping |= begins;
        begins
    }

    /// What the sweep has to do next; none ends it.
    pub(super) fn next_sweep(&self) -> Option<BTreeSet<KeyspaceId>> {
        let mut inner = self.inner();
        let dropped = inner.dropped();
        inner.is_sweeping = !dropped.is_empty();
        inner.is_sweeping.then_some(dropped)
    }

    /// The sweep could not begin; the next agreed state begins another.
    pub(super) fn sweep_failed(&self) {
        self.inner().is_sweeping = false;
    }

    /// The last of a dropped keyspace is gone.
    pub(super) fn swept(&self, keyspace: KeyspaceId) {
        self.inner().keyspaces.remove(&keyspace);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No change below the lock can be left half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: KeyspaceId = KeyspaceId(1);
    const TWO: KeyspaceId = KeyspaceId(2);

    #[test]
    fn a_refused_write_leaves_nothing_held() {
        let held = Held::default();
        assert_eq!(held.queue(ONE, (), Err), Err(()));
        assert_eq!(held.all(), BTreeSet::new());
        assert_eq!(held.queue(ONE, (), |()| Ok(())), Ok(()));
        assert_eq!(held.queue(ONE, (), Err), Err(()));
        assert_eq!(held.all(), BTreeSet::from([ONE]), "the first may be on the disk");
    }

    #[test]
    fn a_keyspace_is_held_before_its_first_write_is_queued() {
        // Whoever looks while it is queued sees what is so in the end.
        for (outcome, expected) in [(Err(()), BTreeSet::new()), (Ok(()), BTreeSet::from([ONE]))] {
            let held = Held::default();
            let seen = std::thread::scope(|scope| {
                let mut looking = None;
                let queued = held.queue(ONE, (), |()| {
                    looking = Some(scope.spawn(|| held.all()));
                    outcome
                });
                assert_eq!(queued, outcome);
                looking.expect("it was queued").join().expect("it saw something")
            });
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn of_a_dropped_keyspace_nothing_is_queued() {
        let held = Held::of(BTreeSet::from([ONE]));
        assert!(!held.agreed(&BTreeSet::from([ONE, TWO]), Epoch(5)));
        assert!(held.agreed(&BTreeSet::from([TWO]), Epoch(6)));
        for keyspace in [ONE, KeyspaceId(4)] {
            assert_eq!(held.queue(keyspace, (), |()| Ok(())), Err(()));
        }
        for keyspace in [TWO, KeyspaceId(7)] {
            assert_eq!(held.queue(keyspace, (), |()| Ok(())), Ok(()));
        }
        assert!(!held.agreed(&BTreeSet::from([ONE, TWO]), Epoch(5)), "an older state is no news");
        assert_eq!(held.queue(ONE, (), |()| Ok(())), Err(()));
    }

    #[test]
    fn a_sweep_goes_on_to_what_is_dropped_meanwhile() {
        let held = Held::of(BTreeSet::from([ONE, TWO]));
        assert!(held.agreed(&BTreeSet::from([TWO]), Epoch(6)));
        assert_eq!(held.next_sweep(), Some(BTreeSet::from([ONE])));
        assert!(!held.agreed(&BTreeSet::new(), Epoch(7)), "one is under way");
        held.swept(ONE);
        assert_eq!(held.next_sweep(), Some(BTreeSet::from([TWO])));
        held.swept(TWO);
        assert_eq!(held.next_sweep(), None);
        assert_eq!(held.all(), BTreeSet::new());
    }
}
