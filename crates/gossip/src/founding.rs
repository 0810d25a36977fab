//! The way into a cluster, seen by a node that is in none: whether it founds one or knocks until it is
//! let in.
//!
//! Only the first seed founds, only with an empty data directory, and only once a majority of the other
//! seeds have said, in answer to this life of the node, that they know of no cluster either. One word of
//! an existing cluster and it never founds.

use std::{collections::BTreeSet, time::Duration};

use anello_protocol::{id::NodeId, message::gossip::KnockAnswer, time::Moment};

use crate::config::MembershipConfig;

/// For how many slow knocks a refusal stays the reason that people are shown.
const REFUSAL_SHOWN: u32 = 3;

/// A node on its way into a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Seeker {
    next_knock: Moment,
    first_knock: Option<Moment>,
    /// Who knows of no cluster either.
    clueless: BTreeSet<NodeId>,
    cluster_exists: bool,
    reason: String,
    refusal_shown_until: Moment,
}

impl Seeker {
    pub(crate) fn new(now: Moment) -> Self {
        Self {
            next_knock: now,
            first_knock: None,
            clueless: BTreeSet::new(),
            cluster_exists: false,
            reason: "asking the seeds for a cluster to join".into(),
            refusal_shown_until: now,
        }
    }

    /// Why the node does not serve.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether it is time to knock; the next time is then set.
    pub(crate) fn knocks(&mut self, now: Moment, every: Duration) -> bool {
        if now < self.next_knock {
            return false;
        }
        self.first_knock.get_or_insert(now);
        self.next_knock = now + every;
        true
    }

    /// When something is to be done again.
    pub(crate) fn due(&self) -> Moment {
        self.next_knock
    }

    /// A seed, or a member in its stead, answered. An error is for good.
    pub(crate) fn answered(
        &mut self,
        now: Moment,
        from: NodeId,
        answer: KnockAnswer,
        config: &MembershipConfig,
    ) -> Result<(), String> {
        match answer {
            KnockAnswer::NoCluster => {
                // A bound for what strangers can make grow.
                if self.clueless.len() < config.other_seeds.len() {
                    self.clueless.insert(from);
                }
                if !self.cluster_exists {
                    self.reason = self.waiting_for_seeds(config);
                }
            }
            KnockAnswer::Wait(reason) => {
                self.cluster_exists = true;
                if now >= self.refusal_shown_until {
                    self.reason = reason;
                }
            }
            KnockAnswer::NotNow(reason) => {
                self.cluster_exists = true;
                self.reason = reason;
                self.next_knock = self.next_knock.max(now + config.timing.knock_refused);
                self.refusal_shown_until = now + config.timing.knock_refused * REFUSAL_SHOWN;
            }
            KnockAnswer::Never(reason) => return Err(reason),
        }
        Ok(())
    }

    fn waiting_for_seeds(&self, config: &MembershipConfig) -> String {
        if config.first_seed {
            format!(
                "founding the cluster: {} of {} other seeds have answered, {} must",
                self.clueless.len(),
                config.other_seeds.len(),
                Self::majority(config),
            )
        } else {
            "waiting for the first seed to found the cluster".into()
        }
    }

    fn majority(config: &MembershipConfig) -> usize {
        match config.other_seeds.len() {
            0 => 0,
            others => others / 2 + 1,
        }
    }

    /// Whether the node is to found the cluster.
    ///
    /// With a majority it still waits a round of knocks for the other seeds, which may know better.
    pub(crate) fn founds(&self, now: Moment, config: &MembershipConfig) -> bool {
        let Some(first_knock) = self.first_knock else { return false };
        let all = self.clueless.len() == config.other_seeds.len();
        let waited = now.since(first_knock) >= config.timing.knock;
        config.first_seed
            && !self.cluster_exists
            && self.clueless.len() >= Self::majority(config)
            && (all || waited)
    }
}
