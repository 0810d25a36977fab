//! The way into a cluster, seen by the member that lets nodes in: who waits at the door.
//!
//! Those who knock within [`crate::config::Timing::gather`] of the first are taken in together. A
//! candidate that stops knocking is forgotten.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{id::NodeId, message::gossip::Candidate, time::Moment};

/// The most nodes that can wait at a time.
const MAX_WAITING: usize = 256;
/// After how many missed knocks a candidate is forgotten, as a time.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);

/// Nodes that want to be taken in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    waiting: BTreeMap<NodeId, (Candidate, Moment)>,
    opens: Option<Moment>,
    /// Why they have to wait, for people.
    reason: Option<String>,
    /// Whether the cluster is known to hold data: whoever comes in has to be filled.
    pub(crate) fills: bool,
}

impl Admission {
    /// A node knocks. Returns whether it is a new one.
    pub(crate) fn knock(&mut self, now: Moment, candidate: Candidate, gather: Duration) -> bool {
        self.forget(now);
        let id = candidate.member.id.clone();
        let new = !self.waiting.contains_key(&id);
        if new && self.waiting.len() >= MAX_WAITING {
            return false;
        }
        self.waiting.insert(id, (candidate, now));
        self.opens.get_or_insert(now + gather);
        new
    }

    fn forget(&mut self, now: Moment) {
        self.waiting.retain(|_, (_, knocked)| now.since(*knocked) < FORGOTTEN_AFTER);
        self.rest();
    }

    /// With nobody at the door there is nothing to open it for.
    fn rest(&mut self) {
        if self.waiting.is_empty() {
            self.opens = None;
            self.reason = None;
            self.fills = false;
        }
    }

    /// When the door is opened, if somebody waits.
    pub(crate) fn due(&self) -> Option<Moment> {
        self.opens
    }

    /// Puts it off. Returns whether the reason is a new one.
    pub(crate) fn put_off(&mut self, until: Moment, reason: String) -> bool {
        self.opens = self.opens.and(Some(until));
        let reason = Some(reason);
        let new = self.reason != reason;
        self.reason = reason;
        new
    }

    /// Why those who knock have to wait.
    pub(crate) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("the cluster is about to take this node in")
    }

    /// Those who wait, if the door is to be opened.
    pub(crate) fn gathered(&mut self, now: Moment) -> Vec<Candidate> {
        self.forget(now);
        if self.opens.is_none_or(|opens| now < opens) {
            return vec![];
        }
        self.waiting.values().map(|(candidate, _)| candidate.clone()).collect()
    }

    /// Everybody who waits.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Candidate> {
        self.waiting.values().map(|(candidate, _)| candidate)
    }

    /// Nobody waits any more.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.rest();
    }

    /// These are members, and wait for nothing.
    pub(crate) fn took_in<'a>(&mut self, members: impl Iterator<Item = &'a NodeId>) {
        members.for_each(|id| drop(self.waiting.remove(id)));
        self.rest();
    }
}
