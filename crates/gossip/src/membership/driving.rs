//! A change of the ring on its way: each owner says which partitions can go on, and the member that drives
//! has a state voted on in which they do.
//!
//! The driver is the first member by name that answers ([`Membership::doorkeeper`]). It keeps nothing that
//! the next one would miss: owners say what they have to say again and again, to whoever drives by then,
//! until the state shows that it was heeded.
//!
//! Partitions go on together, at most once every [`PAUSE`], because every state makes the requests that are
//! under way begin anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    cluster::{ClusterState, Phase, RingChange},
    id::{Epoch, NodeId, PartitionId},
    message::gossip::{GossipBody, MAX_HANDED_OVER},
    time::Moment,
};
use anello_ring::view::View;

use super::{Membership, To, campaign::Purpose};
use crate::{agreement::proposer::Aim, change::Change, ring_change::Advance};

/// The least from one state to the next, unless every partition that is left can go on.
const PAUSE: Duration = Duration::from_secs(2);
/// How often an owner says again what was not heeded yet.
const AGAIN: Duration = Duration::from_secs(1);

/// What a member knows of the change of the ring that is under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Driving {
    /// Which change that is, and since when the same is asked of its owners.
    change: Epoch,
    /// What this node has to say: which phases it is through with.
    own: BTreeMap<PartitionId, Phase>,
    reports_at: Option<Moment>,
    /// What owners said, to the member that drives.
    heard: BTreeMap<PartitionId, BTreeMap<NodeId, Phase>>,
    /// Whose word each partition waits for, with the state that this was worked out from.
    awaited: Option<(Epoch, BTreeMap<PartitionId, BTreeSet<NodeId>>)>,
    /// How many hints this node keeps for others.
    hints_left: u64,
    /// When the state began that is acted under.
    since: Moment,
    /// When it is next looked what can go on.
    looks_at: Moment,
}

impl Driving {
    /// Another state is acted under.
    pub(super) fn entered(&mut self, now: Moment, state: &ClusterState) {
        let change = state.change.as_ref().map_or(Epoch(0), |change| change.asked);
        if change != self.change {
            *self = Self { change, hints_left: self.hints_left, ..Self::default() };
        }
        self.since = now;
        // What owners have said of it is worth saying at once.
        if !self.own.is_empty() {
            self.reports_at = Some(now);
        }
    }
}

impl Membership {
    fn change(&self) -> Option<&RingChange> {
        self.cluster.as_ref()?.change.as_deref()
    }

    /// This node is through with a phase of a partition.
    pub(super) fn handed_over(&mut self, change: Epoch, partition: PartitionId, phase: Phase) {
        if self.change().is_some_and(|known| known.asked == change) {
            // A late word of an earlier phase takes nothing back.
            let own = self.driving.own.entry(partition).or_insert(phase);
            *own = phase.max(*own);
            self.driving.reports_at.get_or_insert(self.now + self.config.timing.round / 4);
        }
    }

    /// How many hints this node keeps for others.
    pub(super) fn keeps_hints(&mut self, count: u64) {
        self.driving.hints_left = count;
    }

    pub(super) fn report_due(&self) -> Option<Moment> {
        self.change().and(self.driving.reports_at)
    }

    /// Says what this node is through with and the state doesn't show yet.
    pub(super) fn report(&mut self) {
        if self.driving.reports_at.is_none_or(|at| self.now < at) {
            return;
        }
        self.driving.reports_at = None;
        let Some(change) = self.change() else { return };
        let own = self.driving.own.iter();
        // Who leaves and still keeps something for others has not handed all over.
        let is_kept_up = self.is_leaving() && self.driving.hints_left > 0;
        let open = own.filter(|(partition, phase)| {
            change.phase(**partition) == **phase && !(is_kept_up && **phase == Phase::Serving)
        });
        let partitions: Vec<_> = open.map(|(partition, phase)| (*partition, *phase)).collect();
        let asked = change.asked;
        self.driving.reports_at = Some(self.now + AGAIN);
        if let Some(driver) = self.doorkeeper() {
            for some in partitions.chunks(MAX_HANDED_OVER) {
                let body = GossipBody::HandedOver { change: asked, partitions: some.to_vec() };
                // After the state that it was said under.
                self.outbox.send_durably(To::Node(driver.clone()), body);
            }
        }
    }

    /// An owner is through with these.
    pub(super) fn heard_of_handover(
        &mut self,
        from: NodeId,
        change: Epoch,
        partitions: Vec<(PartitionId, Phase)>,
    ) {
        let is_known = self.change().is_some_and(|known| known.asked == change);
        let Some(state) = self.cluster.as_ref().filter(|_| is_known && self.is_member(&from))
        else {
            return;
        };
        let within = state.partitions;
        for (partition, phase) in partitions.into_iter().filter(|(it, _)| it.0 < within) {
            let heard = self.driving.heard.entry(partition).or_default();
            let word = heard.entry(from.clone()).or_insert(phase);
            *word = phase.max(*word);
        }
    }

    fn is_driver(&self) -> bool {
        self.doorkeeper().as_ref() == Some(&self.config.member.id)
    }

    /// When there may be something to have voted on.
    pub(super) fn change_due(&self) -> Option<Moment> {
        (self.change().is_some() && self.is_driver()).then_some(self.driving.looks_at)
    }

    /// Has those partitions go on that all their owners are through with.
    pub(super) fn drive_change(&mut self) {
        let is_time = self.now >= self.driving.looks_at;
        if !is_time || self.change().is_none() || !self.is_driver() {
            return;
        }
        self.driving.looks_at = self.now + self.config.timing.round;
        let (partitions, left) = self.through();
        let may_be_last = partitions.len() == left;
        let is_time = may_be_last || self.now >= self.driving.since + PAUSE;
        let Some(decree) = self.record.decree.as_ref().filter(|_| is_time) else { return };
        if partitions.is_empty() {
            return;
        }
        let Some(change) = self.change().map(|change| change.began) else { return };
        if let Ok(Some(next)) = Change::Advance(Advance { change, partitions }).apply(decree) {
            let aim = Aim::Propose { decree: Box::new(next), moves: BTreeSet::new() };
            self.run(aim, Purpose::Advance);
        }
    }

    /// The partitions that can go on, with the phases that they leave, and how many are not through yet.
    fn through(&mut self) -> (BTreeMap<PartitionId, Phase>, usize) {
        let Some(state) = self.cluster.clone() else { return Default::default() };
        let Some(change) = &state.change else { return Default::default() };
        let stale = |(epoch, _): &(Epoch, _)| *epoch != state.epoch;
        if self.driving.awaited.as_ref().is_none_or(stale) {
            let Ok(view) = View::of(Arc::clone(&state)) else { return Default::default() };
            let awaited = view.moving().map(|(partition, _)| {
                (partition, view.handover(partition).awaited.into_keys().collect())
            });
            self.driving.awaited = Some((state.epoch, awaited.collect()));
        }
        let Some((_, awaited)) = &self.driving.awaited else { return Default::default() };
        let is_through = |partition: &PartitionId, nodes: &BTreeSet<NodeId>| {
            let phase = change.phase(*partition);
            let heard = self.driving.heard.get(partition);
            nodes.iter().all(|node| heard.and_then(|heard| heard.get(node)) == Some(&phase))
        };
        let through = awaited.iter().filter(|(partition, nodes)| is_through(partition, nodes));
        let through: BTreeMap<_, _> =
            through.map(|(partition, _)| (*partition, change.phase(*partition))).collect();
        (through, awaited.len())
    }
}
