//! When to compare what is awaited for a change of the ring: at once when a phase begins, when a node comes
//! back, and when something was proved of the same tree with another node; then again and again, ever less
//! often, until nothing is left. A round a minute would be slow, and there may be two phases to go.

use std::{collections::BTreeMap, time::Duration};

use anello_protocol::{id::NodeId, time::Moment};

use crate::desk::Desk;

/// How soon. All nodes are told of a phase at about the same moment.
const SOON: Duration = Duration::from_millis(200);
/// How long after the first time to compare again; that doubles.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest time between two.
const LONGEST: Duration = Duration::from_secs(10);

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Chase {
    /// When to compare with a node next, and how often it was done since there was news.
    next: BTreeMap<NodeId, (Moment, u32)>,
}

impl Chase {
    /// There is a reason to compare with a node.
    pub(crate) fn soon(&mut self, desk: &mut Desk, peer: &NodeId) {
        let soon = desk.now.moment + desk.jitter(SOON);
        let next = self.next.entry(peer.clone()).or_insert((soon, 0));
        *next = (next.0.min(soon), 0);
    }

    /// With whom to compare at this moment. They are compared with again, unless they are forgotten.
    pub(crate) fn take(&mut self, desk: &mut Desk) -> Vec<NodeId> {
        let now = desk.now.moment;
        let mut due = Vec::new();
        for (peer, (next, times)) in self.next.iter_mut().filter(|(_, (next, _))| *next <= now) {
            let pause = (AGAIN * (1 << (*times).min(4))).min(LONGEST);
            *next = now + desk.jitter(pause);
            *times += 1;
            due.push(peer.clone());
        }
        due
    }

    /// Nothing is left to be compared with a node, or it can't be reached.
    pub(crate) fn forget(&mut self, peer: &NodeId) {
        self.next.remove(peer);
    }

    pub(crate) fn due(&self) -> Option<Moment> {
        self.next.values().map(|(next, _)| *next).min()
    }
}
