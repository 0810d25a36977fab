//! Letting hints go that nobody is to have: those that are too old, and those of keyspaces that were
//! dropped.
//!
//! An old one is dropped and what it was for is marked, so that the owner compares it with the other
//! replicas. The bound is far below the shortest grace of a tombstone that makes sense, and no tombstone
//! is purged while anybody keeps a hint of its key; age bounds the disk, not correctness.

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
    open::{Removal, Why},
    store::Hint,
};

/// How often the oldest hints are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// What a page has at most.
const PAGE_COUNT: usize = 64;
const PAGE_BYTES: usize = 256 << 10;

/// Where the sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    /// When the next one begins.
    pub(super) due: Moment,
    /// Whether it goes through all hints, and not only through those that are too old.
    is_whole: bool,
    /// Whether the next one does.
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
        let kept = self.owners.iter().filter(|(_, owner)| owner.totals.count > 0);
        self.sweeper.owners = kept.map(|(id, _)| id.clone()).collect();
        self.sweeper.is_whole = std::mem::take(&mut self.sweeper.is_whole_next);
        self.sweep();
    }

    /// Goes on with the sweep as far as it can.
    fn sweep(&mut self) {
        if let Some(sweep) = &self.sweeper.sweep {
            if sweep.page.is_some() || !sweep.removing.is_empty() {
                return;
            }
            if sweep.is_end {
                self.sweeper.sweep = None;
            }
        }
        if self.sweeper.sweep.is_none() {
            let Some(owner) = self.sweeper.owners.pop_front() else { return };
            self.sweeper.sweep = Some(Sweep::of(owner));
        }
        let page = self.delivery.page();
        if let Some(sweep) = &mut self.sweeper.sweep {
            sweep.page = Some(page);
            let (owner, from) = (sweep.owner.clone(), sweep.cursor);
            let (count, bytes) = (PAGE_COUNT, PAGE_BYTES);
            self.effects.push_back(Effect::Page { page, owner, from, count, bytes });
        }
    }

    /// A page has been read.
    pub(super) fn sweep_page(&mut self, now: Now, found: Result<Vec<(DataKey, Hint)>, String>) {
        let (Some(view), Some(sweep)) = (&self.view, &mut self.sweeper.sweep) else { return };
        sweep.page = None;
        // What can't be read is looked at again next time.
        let entries = found.unwrap_or_default();
        let id = sweep.owner.clone();
        if let (0, Some((_, first)), Some(owner)) =
            (sweep.cursor, entries.first(), self.owners.get_mut(&id))
        {
            owner.totals.oldest_ms = first.since_ms;
        }
        match entries.last() {
            Some((_, last)) => sweep.cursor = last.number + 1,
            None => sweep.is_end = true,
        }
        let age_max_ms = u64::try_from(self.config.age_max.as_millis()).unwrap_or(u64::MAX);
        let mut going = Vec::new();
        for (key, hint) in entries {
            let why = if view.keyspace_of(key.keyspace).is_none() {
                Why::Pointless
            } else if now.wall_ms.saturating_sub(hint.since_ms) > age_max_ms {
                Why::Expired
            } else if self.sweeper.is_whole {
                continue;
            } else {
                sweep.is_end = true;
                break;
            };
            sweep.removing.insert(hint.number);
            going.push((key, Removal { number: hint.number, why }));
        }
        for (key, removal) in going {
            self.remove_when_known(now, &(id.clone(), key), removal);
        }
        self.sweep();
    }

    /// A removal has ended.
    pub(super) fn swept(&mut self, id: &NodeId, number: u64) {
        if let Some(sweep) = &mut self.sweeper.sweep
            && sweep.owner == *id
            && sweep.removing.remove(&number)
        {
            self.sweep();
        }
    }
}

impl Sweep {
    fn of(owner: NodeId) -> Self {
        Self { owner, cursor: 0, page: None, removing: BTreeSet::new(), is_end: false }
    }
}
