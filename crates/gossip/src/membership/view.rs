//! What people are told: whether the node serves, and the cluster as it sees it.

use std::collections::BTreeMap;

use anello_protocol::{
    id::{Epoch, NodeId},
    message::admin::{ClusterView, NodeView},
    time::{Moment, Now},
};

use super::{Effect, Membership, MembershipEvent, Phase};

/// Whether the node serves, and what has been told of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Readiness {
    /// Since when the node is in a cluster.
    entered: Option<Moment>,
    /// Whether the rest of the node acts under the cluster's state.
    pub(super) acting: bool,
    /// Once it has heard of the others, or waited for them, it serves for good.
    settled: bool,
    /// Why what the node holds must be shown to nobody.
    pub(super) unfit: Option<String>,
    told: Option<Option<String>>,
}

impl Readiness {
    pub(super) fn entered(&mut self, now: Moment) {
        self.entered.get_or_insert(now);
    }

    pub(super) fn not_ready(&self) -> Option<&str> {
        match &self.told {
            Some(reason) => reason.as_deref(),
            None => Some("starting"),
        }
    }
}

impl Membership {
    /// Tells the rest of the node whether it serves, where that has changed.
    pub(super) fn tell_readiness(&mut self) {
        let reason = self.reason();
        if self.readiness.told.as_ref() == Some(&reason) {
            return;
        }
        self.readiness.told = Some(reason.clone());
        let event = match reason {
            Some(reason) => MembershipEvent::NotReady(reason),
            None => MembershipEvent::Ready,
        };
        self.outbox.push(Effect::Event(event));
    }

    fn reason(&mut self) -> Option<String> {
        match &self.phase {
            Phase::Refused(reason) => return Some(reason.clone()),
            Phase::Departed => return Some("shutting down".into()),
            Phase::Inspecting(_) => return Some("finding out whether there is data".into()),
            Phase::Created | Phase::Counting => return Some("starting".into()),
            Phase::Running => {}
        }
        if let Some(seeker) = &self.seeker {
            return Some(seeker.reason().into());
        }
        // Until the others are heard of, serving would mean failing; and those who still are silent when
        // it begins must be known to be, or what is written then would be in doubt instead of refused.
        let members = self.cluster.as_ref().map_or(0, |state| state.members.len());
        let timing = &self.config.timing;
        let settle = timing.settle + timing.detector.first_word(members);
        let waited = self.readiness.entered.is_some_and(|at| self.now.since(at) >= settle);
        let durable = !self.outbox.is_waiting();
        if durable && waited && !self.readiness.settled {
            for verdict in self.heartbeats.miss() {
                self.tell_verdict(verdict);
            }
        }
        self.readiness.settled |= durable && (waited || self.heartbeats.heard_of_all());
        match (self.readiness.settled, self.readiness.acting) {
            (false, _) => Some("waiting to hear of the other members".into()),
            (true, false) => Some("taking up its partitions".into()),
            (true, true) => self.readiness.unfit.clone(),
        }
    }

    /// The cluster as this node sees it. `tokens` says how many of its datacenter's tokens each member
    /// owns.
    pub fn view(&self, now: Now, tokens: &BTreeMap<NodeId, u32>) -> ClusterView {
        let mut nodes: Vec<NodeView> = vec![];
        for member in self.cluster.iter().flat_map(|state| state.members.values()) {
            let (phi, verdict, version) = self.heartbeats.describe(&member.id, now.moment);
            nodes.push(NodeView {
                id: member.id.clone(),
                datacenter: member.datacenter.clone(),
                rack: member.rack.clone(),
                quic: member.quic.clone(),
                http: member.http.clone(),
                state: member.state,
                reachable: self.heartbeats.is_reachable(&member.id),
                phi,
                verdict,
                partitions: tokens.get(&member.id).copied().unwrap_or(0),
                version,
            });
        }
        nodes.sort_by(|a, b| (&a.datacenter, &a.rack, &a.id).cmp(&(&b.datacenter, &b.rack, &b.id)));
        ClusterView {
            name: self.config.cluster.clone(),
            epoch: self.cluster.as_ref().map_or(Epoch(0), |state| state.epoch),
            partitions: self.config.partitions,
            not_ready: self.not_ready().map(Into::into),
            nodes,
        }
    }
}
