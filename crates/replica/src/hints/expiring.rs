//! Letting hints go that nobody is to have: those that are too old, and those of keyspaces that were
//! dropped.
//!
//! An old one is dropped and what it was for is marked, so that the owner compares it with the other
//! replicas. One that a write counts is never too old: it may be the only copy. Age is counted from the
//! last write to a hint, so the order of their numbers says nothing about it: a sweep goes through all,
//! and remembers when the next one of the owner can find anything.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use anello_protocol::{
    id::NodeId,
    key::DataKey,
    time::{Moment, Now},
};

use super::{
    events::{Effect, PageNumber},
    machine::HintStore,
    open::{Removal, Removed, Why},
    store::Hint,
};

/// How often the oldest hints are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// The least between two sweeps of an owner, as a part of the age: a sweep reads all there is.
const SWEEPS_PER_AGE: u64 = 32;
/// What a page has at most.
const PAGE_COUNT: usize = 64;
const PAGE_BYTES: usize = 256 << 10;

/// Where the sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// When the next one begins.
    pub(super) due: Moment,
    /// Whether the next one goes through the hints of all owners, and not only where some may be too old.
    is_whole_next: bool,
    owners: VecDeque<NodeId>,
    sweep: Option<Sweep>,
}

/// The way through the hints of one owner.
#[derive(Debug)]
struct Sweep {
    owner: NodeId,
    cursor: u64,
    page: Option<PageNumber>,
    /// Those that are being removed, by their numbers.
    removing: BTreeSet<u64>,
    /// When the first of those that stay will be too old.
    next_ms: u64,
    /// When the first of them began.
    oldest_ms: Option<u64>,
    /// Whether something has to be looked at again.
    has_failed: bool,
    is_end: bool,
}

impl Sweeper {
    /// A keyspace may be gone.
    pub(super) fn sweep_all(&mut self, now: Moment) {
        self.is_whole_next = true;
        self.due = now;
    }

    pub(super) fn is_reading(&self, page: PageNumber) -> bool {
        self.sweep.as_ref().is_some_and(|sweep| sweep.page == Some(page))
    }
}

impl HintStore {
    pub(super) fn sweep_when_due(&mut self, now: Now) {
        if self.view.is_none() || now.moment < self.sweeper.due {
            return;
        }
        self.sweeper.due = now.moment + SWEEP_EVERY;
        if self.sweeper.sweep.is_some() || !self.sweeper.owners.is_empty() {
            return;
        }
        let is_whole = std::mem::take(&mut self.sweeper.is_whole_next);
        let clock_ms = self.clock_ms(now);
        let swept = self.owners.iter().filter(|(_, owner)| {
            owner.totals.count > 0 && (is_whole || owner.swept_until_ms <= clock_ms)
        });
        self.sweeper.owners = swept.map(|(id, _)| id.clone()).collect();
        self.sweep(now);
    }

    /// Goes on with the sweep as far as it can.
    fn sweep(&mut self, now: Now) {
        let clock_ms = self.clock_ms(now);
        let age_max_ms = self.age_max_ms();
        if let Some(sweep) = &self.sweeper.sweep {
            if sweep.page.is_some() || !sweep.removing.is_empty() {
                return;
            }
            if sweep.is_end {
                let soonest_ms = clock_ms.saturating_add(age_max_ms / SWEEPS_PER_AGE);
                let until_ms = if sweep.has_failed { 0 } else { sweep.next_ms.max(soonest_ms) };
                if let Some(owner) = self.owners.get_mut(&sweep.owner) {
                    owner.swept_until_ms = until_ms;
                    owner.totals.oldest_ms = sweep.oldest_ms.unwrap_or(owner.totals.oldest_ms);
                }
                self.sweeper.sweep = None;
            }
        }
        if self.sweeper.sweep.is_none() {
            let Some(owner) = self.sweeper.owners.pop_front() else { return };
            self.sweeper.sweep = Some(Sweep::of(owner, clock_ms.saturating_add(age_max_ms)));
        }
        let page = self.delivery.page();
        if let Some(sweep) = &mut self.sweeper.sweep {
            sweep.page = Some(page);
            let (owner, from) = (sweep.owner.clone(), sweep.cursor);
            let (count, bytes) = (PAGE_COUNT, PAGE_BYTES);
            self.effects.push_back(Effect::Page { page, owner, from, count, bytes });
        }
    }

    fn age_max_ms(&self) -> u64 {
        u64::try_from(self.config.age_max.as_millis()).unwrap_or(u64::MAX)
    }

    /// A page has been read.
    pub(super) fn sweep_page(&mut self, now: Now, found: Result<Vec<(DataKey, Hint)>, String>) {
        let (clock_ms, age_max_ms) = (self.clock_ms(now), self.age_max_ms());
        let (Some(view), Some(sweep)) = (&self.view, &mut self.sweeper.sweep) else { return };
        sweep.page = None;
        // What can't be read is looked at again next time.
        sweep.has_failed |= found.is_err();
        let entries = found.unwrap_or_default();
        let id = sweep.owner.clone();
        match entries.last() {
            Some((_, last)) => sweep.cursor = last.number + 1,
            None => sweep.is_end = true,
        }
        let mut going = Vec::new();
        for (key, hint) in entries {
            let why = if view.keyspace_of(key.keyspace).is_none() {
                Why::Pointless
            } else if hint.counts {
                sweep.oldest_ms.get_or_insert(hint.since_ms);
                continue;
            } else if clock_ms.saturating_sub(hint.joined_ms) > age_max_ms {
                Why::Expired(hint.versions.digest())
            } else {
                let old_ms = hint.joined_ms.saturating_add(age_max_ms).saturating_add(1);
                sweep.oldest_ms.get_or_insert(hint.since_ms);
                sweep.next_ms = sweep.next_ms.min(old_ms);
                continue;
            };
            sweep.removing.insert(hint.number);
            going.push((key, Removal { number: hint.number, why }));
        }
        for (key, removal) in going {
            self.remove_when_known(now, &(id.clone(), key), removal);
        }
        self.sweep(now);
    }

    /// A removal has ended.
    pub(super) fn swept(&mut self, now: Now, id: &NodeId, number: u64, removed: Removed) {
        if let Some(sweep) = &mut self.sweeper.sweep
            && sweep.owner == *id
            && sweep.removing.remove(&number)
        {
            sweep.has_failed |= removed != Removed::Gone;
            self.sweep(now);
        }
    }
}

impl Sweep {
    fn of(owner: NodeId, next_ms: u64) -> Self {
        Self {
            owner,
            cursor: 0,
            page: None,
            removing: BTreeSet::new(),
            next_ms,
            oldest_ms: None,
            has_failed: false,
            is_end: false,
        }
    }
}
