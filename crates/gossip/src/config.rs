//! What a membership machine is told once: who it is, where its seeds are, how fast it goes.

use std::time::Duration;

use anello_protocol::{cluster::Member, id::ClusterName};

use crate::detector::DetectorConfig;

/// Who a node is and whom it asks.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// The node itself, as others are to know it. Its state is of no account.
    pub member: Member,
    /// Its cluster's name.
    pub cluster: ClusterName,
    /// Into how many partitions the hash space is cut.
    pub partitions: u32,
    /// The QUIC addresses of the seeds, without the node's own.
    pub other_seeds: Vec<String>,
    /// Whether the node is the first seed of the list: the one that founds the cluster.
    pub first_seed: bool,
    /// The version of its program.
    pub program: String,
    /// How fast it goes.
    pub timing: Timing,
}

/// For how many members of a cluster the times of a vote are meant. A state is as large as its cluster, so the
/// one who has it voted on takes that much longer to say it to a majority.
const VOTERS: usize = 256;

/// How fast a node gossips, suspects and votes. Use a preset.
#[derive(Clone, Debug, PartialEq)]
pub struct Timing {
    /// From one round of gossip to the next.
    pub round: Duration,
    /// With how many reachable peers a node gossips in a round.
    pub fanout: usize,
    /// When a node counts as unreachable.
    pub detector: DetectorConfig,
    /// From one knock at the seeds' doors to the next.
    pub knock: Duration,
    /// The same, after it has been told that it can't be taken in as things are.
    pub knock_refused: Duration,
    /// For how long nodes that want in are gathered before they are taken in together.
    pub gather: Duration,
    /// How long a ballot waits for votes; asked for again at a quarter of it.
    pub ballot: Duration,
    /// How long a change of a keyspace may take in all.
    pub alter: Duration,
    /// How long a change waits for every reachable member to have learned it.
    pub spread: Duration,
    /// How long a member refuses writes for somebody else's ballot before it ends the ballot itself.
    pub frozen_max: Duration,
    /// How long a started node waits to hear of every other member before it serves all the same.
    pub settle: Duration,
}

impl Timing {
    /// [`Timing::ballot`] among so many.
    pub(crate) fn ballot_among(&self, voters: usize) -> Duration {
        self.ballot * patience(voters)
    }

    /// [`Timing::frozen_max`] among so many.
    pub(crate) fn frozen_max_among(&self, voters: usize) -> Duration {
        self.frozen_max * patience(voters)
    }

    /// Nodes on one machine or in one datacenter, or in datacenters some 100 ms apart.
    pub fn lan() -> Self {
        Self {
            round: Duration::from_millis(250),
            fanout: 3,
            detector: DetectorConfig {
                interval: Duration::from_millis(250),
                mean_max: Duration::from_millis(500),
                deviation_min: Duration::from_millis(500),
                deviation_max: Duration::from_millis(600),
                threshold: 8.0,
                answer_max: Duration::from_secs(2),
                trial: Duration::from_secs(1),
            },
            knock: Duration::from_millis(300),
            knock_refused: Duration::from_secs(5),
            gather: Duration::from_secs(1),
            ballot: Duration::from_secs(1),
            alter: Duration::from_secs(5),
            spread: Duration::from_secs(2),
            frozen_max: Duration::from_secs(1),
            settle: Duration::from_millis(1_500),
        }
    }

    /// Links that are slow or lose much: slower to suspect, in less of a hurry.
    pub fn wan() -> Self {
        let lan = Self::lan();
        Self {
            round: Duration::from_millis(500),
            fanout: 4,
            detector: DetectorConfig {
                interval: Duration::from_millis(500),
                mean_max: Duration::from_secs(2),
                deviation_min: Duration::from_secs(1),
                deviation_max: Duration::from_secs(3),
                threshold: 8.0,
                answer_max: Duration::from_secs(4),
                trial: Duration::from_secs(2),
            },
            ballot: Duration::from_secs(3),
            frozen_max: Duration::from_secs(4),
            settle: Duration::from_secs(4),
            ..lan
        }
    }
}

fn patience(voters: usize) -> u32 {
    u32::try_from(voters.div_ceil(VOTERS)).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vote_takes_longer_only_among_many() {
        let timing = Timing::lan();
        assert_eq!(timing.ballot_among(256), timing.ballot);
        assert_eq!(timing.ballot_among(0), timing.ballot);
        assert_eq!(timing.ballot_among(1_000), timing.ballot * 4);
        assert_eq!(timing.frozen_max_among(1_000), timing.frozen_max * 4);
    }
}
