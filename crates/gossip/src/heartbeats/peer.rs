//! What is known of another member, how suspicious that makes it, and why, for people.

use std::time::Duration;

use anello_protocol::{
    id::NodeId,
    message::gossip::{Beat, Pulse},
    time::Moment,
};

use super::Verdict;
use crate::{
    detector::{Detector, DetectorConfig},
    direct::Direct,
};

/// Fewer unanswered pings than this say nothing.
const UNANSWERED_MIN: u32 = 3;
/// A node whose heartbeats have been missing for this long is silent, not just out of reach from here.
const SILENT: Duration = Duration::from_millis(1_500);

/// What is known of another member.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) pulse: Option<Pulse>,
    /// Of its heartbeats, whoever brought them. Counts from the moment that a word of it could be
    /// expected.
    pub(super) detector: Detector,
    pub(super) direct: Direct,
    /// When the last packet came from the node itself.
    pub(super) spoke: Option<Moment>,
    /// Whether what it brings is newer than the last time that this node stood still.
    pub(super) in_step: bool,
    /// The generation in which it was last reachable.
    pub(super) life: Option<u64>,
    pub(super) reachable: bool,
    /// Whether anybody was told which of the two it is.
    pub(super) judged: bool,
    pub(super) reason: String,
}

impl Peer {
    pub(super) fn newest(&self, id: &NodeId) -> Beat {
        match &self.pulse {
            Some(pulse) => pulse.beat.clone(),
            None => Beat { node: id.clone(), generation: 0, version: 0 },
        }
    }

    /// How suspicious it is: as a silent node, or as one that doesn't answer.
    pub(super) fn phi(&self, now: Moment, every: Duration, config: &DetectorConfig) -> f64 {
        let silent = self.detector.phi(now, config);
        // Whether a node answers is asked once it is known to be there, and can be told once it was asked.
        let asked = self.life.is_some() && self.direct.unanswered() >= UNANSWERED_MIN;
        if asked { silent.max(self.direct.phi(now, every, config)) } else { silent }
    }

    /// What speaks against it, for people.
    pub(super) fn why(&self, now: Moment, every: Duration, config: &DetectorConfig) -> String {
        let phi = self.phi(now, every, config);
        let silence = self.detector.silence(now);
        if self.life.is_none() || silence >= SILENT {
            let silence = silence.as_secs_f64();
            return format!("silent for {silence:.1} s, nobody hears its heart, phi {phi:.1}");
        }
        let (unanswered, since) = (self.direct.unanswered(), self.direct.silence(now));
        let pings = match self.direct.trip() {
            Some(trip) if trip > config.answer_max => {
                format!("it answers direct pings after {:.1} s", trip.as_secs_f64())
            }
            _ => {
                format!("{unanswered} direct pings in {:.1} s are unanswered", since.as_secs_f64())
            }
        };
        let heard = if self.spoke.is_some_and(|spoke| now.since(spoke) < SILENT) {
            "though its own packets come through: the way there is broken"
        } else {
            "though others hear it: the way to it or back is broken"
        };
        format!("{pings}, {heard}, phi {phi:.1}")
    }

    pub(super) fn judge(
        &mut self,
        node: &NodeId,
        reachable: bool,
        reason: impl FnOnce() -> String,
    ) -> Option<Verdict> {
        if self.judged && self.reachable == reachable {
            return None;
        }
        self.judged = true;
        self.reachable = reachable;
        self.reason = reason();
        Some(Verdict { node: node.clone(), reachable, reason: self.reason.clone() })
    }
}
