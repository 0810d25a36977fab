//! A sweep: the roots of all trees that are shared with one node, or of some of them, are compared, a message
//! at a time: first as sums of several, then singly where these differ.
//!
//! Invariant: the roots that are sent under an epoch were looked at under it, so a comparison has begun under the
//! epoch of its questions; see `handover.rs`.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    merkle::EntryDigest,
    message::{
        repair::{CompareRoots, MAX_ROOTS, RootSum},
        replica::Refusal,
    },
    time::Moment,
};

use crate::{
    answering::Compared,
    desk::{Desk, Owner},
    events::{CallFailure, Incoming, Outgoing, Ticket},
    exchange::{Failure, expect},
    looking::{Look, Looked},
    schedule::Pair,
    units::Tree,
};

/// How often in a row a question may fail before the sweep is given up.
const FAILURES_MAX: u32 = 4;
/// The first pause after a failure; it doubles.
const PAUSE: Duration = Duration::from_millis(300);

/// What a sweep is wanted for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    /// The rounds that wait for it.
    pub(crate) rounds: Vec<u64>,
    /// The only trees that it is about; without it, all that are shared.
    pub(crate) only: Option<BTreeSet<Tree>>,
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Sweep {
    peer: NodeId,
    pub(crate) wanted: Wanted,
    /// The last tree that was compared.
    last: Option<Tree>,
    step: Step,
    failures: u32,
    pause_until: Option<Moment>,
    /// Whether it has ended, and whether well.
    pub(crate) ended: Option<bool>,
}

#[derive(Debug)]
enum Step {
    Idle,
    Looking(Ticket, Epoch, KeyspaceId, Vec<PartitionId>),
    Asking(Ticket, Asking),
}

/// What the other node was asked.
#[derive(Debug)]
struct Asking {
    /// Under which state the roots were looked at, and it was asked.
    epoch: Epoch,
    keyspace: KeyspaceId,
    sums: Vec<RootSum>,
    /// The roots that these are of.
    roots: Vec<(PartitionId, EntryDigest)>,
    /// With which partition the stretch ends.
    last: Option<PartitionId>,
}

impl Sweep {
    pub(crate) fn new(peer: NodeId, wanted: Wanted) -> Self {
        Self {
            peer,
            wanted,
            last: None,
            step: Step::Idle,
            failures: 0,
            pause_until: None,
            ended: None,
        }
    }

    /// Begins with the next trees, if it waits for nothing.
    pub(crate) fn advance(&mut self, desk: &mut Desk, pairs: &BTreeMap<Tree, Pair>) {
        let is_paused = self.pause_until.is_some_and(|until| until > desk.now.moment);
        if !matches!(self.step, Step::Idle) || is_paused || self.ended.is_some() {
            return;
        }
        self.pause_until = desk.budget_at();
        if self.pause_until.is_some() {
            return;
        }
        let after = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let only = self.wanted.only.as_ref();
        let trees = pairs.range((after, Bound::Unbounded)).map(|(tree, _)| *tree);
        let mut trees = trees.filter(|tree| only.is_none_or(|only| only.contains(tree))).peekable();
        let Some((keyspace, _)) = trees.peek().copied() else {
            self.ended = Some(true);
            return;
        };
        let same = trees.take_while(|tree| tree.0 == keyspace).take(MAX_ROOTS);
        let partitions: Vec<PartitionId> = same.map(|(_, partition)| partition).collect();
        let look = Look::Roots { keyspace, partitions: partitions.clone() };
        let ticket = desk.look(Owner::Sweep(self.peer.clone()), look);
        self.step = Step::Looking(ticket, desk.epoch(), keyspace, partitions);
    }

    /// A look is over; one of an earlier sweep says nothing.
    pub(crate) fn looked(&mut self, desk: &mut Desk, ticket: Ticket, looked: Looked) {
        let (epoch, keyspace, partitions) = match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Looking(own, epoch, keyspace, partitions) if own == ticket => {
                (epoch, keyspace, partitions)
            }
            step => return self.step = step,
        };
        if epoch != desk.epoch() {
            // Looked at again, under the state that is.
            return;
        }
        let Looked::Roots(found) = looked else { return self.failed(desk, &Failure::Here) };
        let mut roots = Vec::with_capacity(found.len());
        for (partition, root) in partitions.iter().zip(found) {
            match root {
                Some(root) => roots.push((*partition, root)),
                // It is scrubbed, and compared after that.
                None => drop(desk.untrusted.insert((keyspace, *partition))),
            }
        }
        let last = partitions.last().copied();
        if roots.is_empty() {
            self.last = last.map(|last| (keyspace, last));
            return;
        }
        self.ask(desk, Asking { epoch, keyspace, sums: summed(&roots), roots, last });
    }

    fn ask(&mut self, desk: &mut Desk, asking: Asking) {
        desk.counts.hashes_compared += asking.sums.len() as u64;
        let (epoch, keyspace, sums) = (asking.epoch, asking.keyspace, asking.sums.clone());
        let message = Outgoing::Roots(CompareRoots { epoch, keyspace, sums });
        let ticket = desk.send(Owner::Sweep(self.peer.clone()), &self.peer, message);
        self.step = Step::Asking(ticket, asking);
    }

    /// The other node has answered, or not: says what it came to. An answer to an earlier sweep says nothing.
    pub(crate) fn answered(
        &mut self,
        desk: &mut Desk,
        ticket: Ticket,
        outcome: Result<Incoming, CallFailure>,
    ) -> Option<Compared> {
        let asking = match std::mem::replace(&mut self.step, Step::Idle) {
            Step::Asking(own, asking) if own == ticket => asking,
            step => {
                self.step = step;
                return None;
            }
        };
        let Asking { epoch, keyspace, sums, roots, last } = asking;
        let differing = expect(outcome, |incoming| match incoming {
            Incoming::Roots(differing) => Some(differing),
            _ => None,
        });
        let differing: BTreeSet<PartitionId> = match differing {
            Ok(differing) => differing.into_iter().collect(),
            Err(failure) => {
                self.failed(desk, &failure);
                return None;
            }
        };
        let mut partitions = Vec::with_capacity(roots.len());
        let mut unclear = BTreeSet::new();
        for sum in sums {
            let differs = differing.contains(&sum.first);
            if differs && sum.others != 0 {
                unclear.extend(sum.partitions());
            } else {
                partitions.extend(sum.partitions().map(|partition| (partition, differs)));
            }
        }
        if unclear.is_empty() {
            // Not before: else a question that fails each time were asked without end.
            self.failures = 0;
            self.last = last.map(|last| (keyspace, last));
        } else if epoch == desk.epoch() {
            let roots = roots.into_iter().filter(|(partition, _)| unclear.contains(partition));
            let roots: Vec<_> = roots.collect();
            let sums = roots.iter().map(single).collect();
            self.ask(desk, Asking { epoch, keyspace, sums, roots, last });
        }
        Some(Compared { peer: self.peer.clone(), began: Some(epoch), keyspace, partitions })
    }

    pub(crate) fn due(&self) -> Option<Moment> {
        self.pause_until
    }

    fn failed(&mut self, desk: &mut Desk, failure: &Failure) {
        if let Failure::Refused(Refusal::Quarantined) = failure {
            desk.peer_quarantined(&self.peer);
        }
        self.failures += 1;
        if failure.is_final() || self.failures > FAILURES_MAX {
            self.ended = Some(false);
            return;
        }
        self.pause_until = Some(desk.now.moment + desk.jitter(PAUSE * (1 << self.failures)));
    }
}

fn single((partition, root): &(PartitionId, EntryDigest)) -> RootSum {
    RootSum { first: *partition, others: 0, digest: *root }
}

fn summed(roots: &[(PartitionId, EntryDigest)]) -> Vec<RootSum> {
    let mut sums: Vec<RootSum> = Vec::new();
    for (partition, root) in roots {
        if !sums.last_mut().is_some_and(|sum| sum.add(*partition, *root)) {
            sums.push(single(&(*partition, *root)));
        }
    }
    sums
}
