//! One owner in a hint store's hands: what is kept for it, where the run over that is, and what it has to be
//! told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::DataKey,
    message::hint::MAX_MARKED,
    time::Moment,
    version::VersionsDigest,
};

use super::{
    events::{CallNumber, PageNumber},
    store::{Hint, HintTotals},
};

/// The most ranges that are remembered for one owner: as many as there are partitions at most. Those
/// beyond, of further keyspaces, are left to the rounds of anti-entropy.
const MARKS_MAX: usize = 1 << 16;
/// The most hints that a run passes over because they failed. With more, it is not they that fail.
const HELD_BACK_MAX: usize = 1024;
/// The pause after a first failure, and the longest one.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A range in which hints were dropped.
pub(super) type Mark = (KeyspaceId, PartitionId);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Owner {
    /// What is kept for it. `oldest_ms` is that of the first hint of the last page, so it may be earlier
    /// than what is true after some were delivered.
    pub(super) totals: HintTotals,
    pub(super) run: Run,
    /// Before this, by the hint store's clock, none of its hints is swept for its age.
    pub(super) swept_until_ms: u64,
    marks: BTreeSet<Mark>,
    /// The ranges that it is being told of.
    marking: Option<(CallNumber, Vec<Mark>)>,
    marks_due: Moment,
    marks_failed: u32,
}

/// The way through the hints of one owner, from the oldest on.
#[derive(Debug, Default)]
pub(super) struct Run {
    pub(super) state: RunState,
    /// How many runs in a row have failed.
    pub(super) attempts: u32,
    /// How many hints in a row have failed.
    pub(super) failures: u32,
    /// How many bytes it can still take.
    pub(super) balance: u64,
    /// What was read and not sent.
    pub(super) queue: VecDeque<(DataKey, Hint)>,
    pub(super) paging: Option<PageNumber>,
    /// Where the next page begins.
    pub(super) cursor: u64,
    /// Whether there is no further page.
    pub(super) is_end: bool,
    /// Whether there was anything on its pages.
    pub(super) has_seen_any: bool,
    /// Whether its first page shows all that there is: no change for the owner was under way when it was
    /// asked for, and none has begun since.
    pub(super) is_exact: bool,
    /// Sent, or delivered and about to be removed, by their numbers. They outlive the run.
    pub(super) in_flight: BTreeMap<u64, Sent>,
    /// Those that failed, by their numbers.
    pub(super) held_back: BTreeMap<u64, HeldBack>,
    /// Whether some may have to go to others in place of the owner, so that a run makes sense while that is
    /// away.
    pub(super) may_redirect: bool,
    /// Whether this run is on its way through all of these.
    is_redirecting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunState {
    /// Nothing is done, until then if ever.
    Resting(Option<Moment>),
    /// The owner is being asked how much it can take.
    Asking(CallNumber),
    Going,
}

impl Default for RunState {
    fn default() -> Self {
        Self::Resting(None)
    }
}

/// A hint on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) key: DataKey,
    pub(super) digest: VersionsDigest,
    /// How many have not answered.
    pub(super) waiting: usize,
    /// Whether one of them holds it durably.
    pub(super) is_stored: bool,
    /// Whether it goes to the replicas that the key has in place of the owner.
    pub(super) is_handover: bool,
}

/// A hint that failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldBack {
    pub(super) attempts: u32,
    pub(super) until: Moment,
}

/// How long to wait after so many failures before this one.
pub(super) fn backoff(attempts: u32) -> Duration {
    (BACKOFF * (1 << attempts.min(8))).min(BACKOFF_MAX)
}

impl Owner {
    /// One of whom the shelf has this.
    pub(super) fn new(totals: HintTotals) -> Self {
        let state = RunState::Resting(Some(Moment::default()));
        let run = Run { state, may_redirect: true, ..Run::default() };
        Self { totals, run, ..Self::default() }
    }

    /// What is kept of a key has changed, by weight.
    pub(super) fn count(&mut self, before: Option<u64>, after: Option<u64>, since_ms: u64) {
        let totals = &mut self.totals;
        if before.is_none() && after.is_some() {
            if totals.count == 0 {
                totals.oldest_ms = since_ms;
            }
            totals.count += 1;
        }
        if before.is_some() && after.is_none() {
            totals.count = totals.count.saturating_sub(1);
        }
        totals.bytes = (totals.bytes + after.unwrap_or(0)).saturating_sub(before.unwrap_or(0));
        if totals.count == 0 {
            (totals.bytes, totals.oldest_ms) = (0, 0);
        }
    }

    /// Whether there is nothing to be done for it.
    pub(super) fn is_idle(&self) -> bool {
        self.totals.count == 0 && self.marked() == 0
    }

    pub(super) fn mark(&mut self, keyspace: KeyspaceId, partition: PartitionId) {
        if self.marked() < MARKS_MAX {
            self.marks.insert((keyspace, partition));
        }
    }

    /// In how many ranges something was dropped of which it doesn't know.
    pub(super) fn marked(&self) -> usize {
        self.marks.len() + self.marking.as_ref().map_or(0, |(_, sent)| sent.len())
    }

    /// When it is to be told of them, if there is anything to tell.
    pub(super) fn marks_due(&self) -> Option<Moment> {
        (self.marking.is_none() && !self.marks.is_empty()).then_some(self.marks_due)
    }

    /// Some of them, to be told with this call.
    pub(super) fn tell_marks(&mut self, call: CallNumber) -> Vec<Mark> {
        let some: Vec<_> = self.marks.iter().take(MAX_MARKED).copied().collect();
        self.marks.retain(|mark| some.binary_search(mark).is_err());
        self.marking = Some((call, some.clone()));
        some
    }

    /// The call has ended.
    pub(super) fn marks_told(&mut self, now: Moment, call: CallNumber, has_heard: bool) {
        let Some((_, told)) = self.marking.take_if(|(own, _)| *own == call) else { return };
        if has_heard {
            (self.marks_failed, self.marks_due) = (0, now);
        } else {
            self.marks.extend(told);
            self.marks_due = now + backoff(self.marks_failed);
            self.marks_failed = self.marks_failed.saturating_add(1);
        }
    }

    /// It answers again: what failed is tried at once.
    pub(super) fn is_back(&mut self, now: Moment) {
        (self.marks_failed, self.marks_due) = (0, now);
        (self.run.attempts, self.run.failures) = (0, 0);
        self.run.held_back.clear();
        if matches!(self.run.state, RunState::Resting(_)) {
            self.run.state = RunState::Resting(Some(now));
        }
    }

    /// It will never be told.
    pub(super) fn forget_marks(&mut self) {
        self.marks.clear();
        self.marking = None;
    }
}

impl Run {
    pub(super) fn is_resting(&self) -> bool {
        matches!(self.state, RunState::Resting(_))
    }

    /// Begins with the oldest.
    pub(super) fn begin(&mut self) {
        self.reset();
        self.is_redirecting = std::mem::take(&mut self.may_redirect);
        self.state = RunState::Going;
    }

    /// Ends it at the end of all that there is.
    pub(super) fn complete(&mut self, until: Option<Moment>) {
        self.is_redirecting = false;
        self.may_redirect |= !self.held_back.is_empty();
        self.rest(until);
    }

    /// Ends it; what is on its way stays so.
    pub(super) fn rest(&mut self, until: Option<Moment>) {
        self.reset();
        self.may_redirect |= std::mem::take(&mut self.is_redirecting);
        self.state = RunState::Resting(until);
    }

    /// Ends it because it failed, unless it has ended already.
    pub(super) fn fail(&mut self, now: Moment, pause: Duration) {
        if !self.is_resting() {
            self.rest(Some(now + pause.max(backoff(self.attempts))));
            self.attempts = self.attempts.saturating_add(1);
            self.balance = 0;
        }
    }

    fn reset(&mut self) {
        self.queue.clear();
        self.paging = None;
        (self.cursor, self.is_end) = (0, false);
        (self.has_seen_any, self.is_exact) = (false, false);
    }

    /// Whether a hint is not to be sent at the moment.
    pub(super) fn is_passed_over(&self, now: Moment, number: u64) -> bool {
        self.in_flight.contains_key(&number)
            || self.held_back.get(&number).is_some_and(|held| held.until > now)
    }

    /// Tries a hint again later; says whether there is room to remember that.
    pub(super) fn hold_back(&mut self, now: Moment, number: u64) -> bool {
        if self.held_back.len() >= HELD_BACK_MAX && !self.held_back.contains_key(&number) {
            return false;
        }
        let held = self.held_back.entry(number).or_insert(HeldBack { attempts: 0, until: now });
        held.until = now + backoff(held.attempts);
        held.attempts = held.attempts.saturating_add(1);
        self.may_redirect = true;
        true
    }
}
