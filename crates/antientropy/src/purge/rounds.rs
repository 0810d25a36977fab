//! Whose tombstones are listed next: keyspace by keyspace, partition by partition, page by page, and how
//! fast.
//!
//! A pass over all partitions of a keyspace begins every `period`, and spreads what it lists over half of
//! it. One page is listed at a time.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{
    id::{KeyspaceId, NodeId, PartitionId},
    key::DataKey,
    time::Moment,
};
use anello_ring::view::View;

use super::events::ListNumber;

/// The most tombstones in a page.
pub(super) const PAGE: usize = 64;
const SHORTEST_PERIOD: Duration = Duration::from_secs(1);
const LONGEST_PERIOD: Duration = Duration::from_secs(3600);
const SHORTEST_GAP: Duration = Duration::from_millis(1);
const LONGEST_GAP: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    period: Duration,
    rounds: BTreeMap<KeyspaceId, Round>,
    /// What is being listed.
    listing: Option<(ListNumber, KeyspaceId)>,
    next_number: ListNumber,
}

/// The pass over a keyspace.
#[derive(Debug)]
struct Round {
    grace: Duration,
    /// Those that this node holds, in their order; never empty.
    partitions: Vec<PartitionId>,
    at: usize,
    after: Option<DataKey>,
    began: Moment,
    /// When the next page is listed, or the next pass begins.
    due: Moment,
}

/// A page to list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) number: ListNumber,
    pub(super) keyspace: KeyspaceId,
    pub(super) partition: PartitionId,
    pub(super) after: Option<DataKey>,
}

/// A page that was listed.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) keyspace: KeyspaceId,
    pub(super) partition: PartitionId,
    pub(super) grace: Duration,
}

impl Rounds {
    /// Other partitions are held, or keyspaces have another grace. Passes go on from where they were.
    pub(super) fn cluster_changed(&mut self, now: Moment, view: &View, node: &NodeId) {
        let mut before = std::mem::take(&mut self.rounds);
        self.listing = None;
        for (_, keyspace) in view.keyspaces() {
            let partitions = view.held_in(keyspace, node);
            if partitions.is_empty() {
                continue;
            }
            let grace = Duration::from_secs(keyspace.config.tombstone_grace_s);
            let round = match before.remove(&keyspace.id) {
                Some(round) => {
                    let reached = round.partitions[round.at];
                    let at = partitions.partition_point(|partition| *partition < reached);
                    let at = if at == partitions.len() { 0 } else { at };
                    Round { grace, partitions, at, after: None, ..round }
                }
                None => Round { grace, partitions, at: 0, after: None, began: now, due: now },
            };
            self.rounds.insert(keyspace.id, round);
        }
        let shortest = self.rounds.values().map(|round| round.grace).min().unwrap_or_default();
        self.period = (shortest / 10).clamp(SHORTEST_PERIOD, LONGEST_PERIOD);
        // A grace that was made shorter is not waited for as long as the one before.
        for round in self.rounds.values_mut() {
            round.due = round.due.min(now + self.period);
        }
    }

    /// What is under way is of no use any more.
    pub(super) fn forget_listing(&mut self) {
        self.listing = None;
    }

    /// When the next page is due; nothing while one is being listed.
    pub(super) fn due(&self) -> Option<Moment> {
        if self.listing.is_some() {
            return None;
        }
        self.rounds.values().map(|round| round.due).min()
    }

    /// The page to list at this moment, if one is due. A partition of which batches are under way still is
    /// passed over when its turn comes again, so no key is in two of them.
    pub(super) fn next(
        &mut self,
        now: Moment,
        is_busy: impl Fn((KeyspaceId, PartitionId)) -> bool,
    ) -> Option<Page> {
        while self.due().is_some_and(|due| due <= now) {
            let first = self.rounds.iter_mut().min_by_key(|(_, round)| round.due);
            let (keyspace, round) = first.map(|(keyspace, round)| (*keyspace, round))?;
            let partition = round.partitions[round.at];
            if round.at == 0 && round.after.is_none() {
                round.began = now;
            }
            if round.after.is_none() && is_busy((keyspace, partition)) {
                round.turn_to_next(now, self.period);
                continue;
            }
            let number = self.next_number;
            self.next_number.0 += 1;
            self.listing = Some((number, keyspace));
            return Some(Page { number, keyspace, partition, after: round.after.clone() });
        }
        None
    }

    /// A page was listed: which, unless it is of no use any more. `next_after` is its last key, if it was
    /// full.
    pub(super) fn listed(
        &mut self,
        now: Moment,
        number: ListNumber,
        next_after: Option<DataKey>,
    ) -> Option<Listed> {
        let (_, keyspace) = self.listing.take_if(|(listing, _)| *listing == number)?;
        let round = self.rounds.get_mut(&keyspace)?;
        let partition = round.partitions[round.at];
        match next_after {
            Some(after) => {
                round.after = Some(after);
                round.due = now + round.gap(self.period);
            }
            None => round.turn_to_next(now, self.period),
        }
        Some(Listed { keyspace, partition, grace: round.grace })
    }
}

impl Round {
    /// The least time between two pages.
    fn gap(&self, period: Duration) -> Duration {
        let partitions = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        (period / 2 / partitions).clamp(SHORTEST_GAP, LONGEST_GAP)
    }

    fn turn_to_next(&mut self, now: Moment, period: Duration) {
        self.after = None;
        self.at += 1;
        self.due = now + self.gap(period);
        if self.at == self.partitions.len() {
            self.at = 0;
            self.due = self.due.max(self.began + period);
        }
    }
}
