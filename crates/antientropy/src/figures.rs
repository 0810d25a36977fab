//! What people are shown of anti-entropy.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::id::{Epoch, NodeId, PartitionId};

use crate::{handover, machine::AntiEntropy};

/// How anti-entropy of a node is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// When the last round was completed, in milliseconds of the wall clock.
    pub last_round_ms: Option<u64>,
    /// How many rounds were completed since the start.
    pub rounds: u64,
    /// The number of the last round of which it, and all before it, are complete.
    pub complete_up_to: u64,
    /// How many partitions this node holds.
    pub partitions_held: u64,
    /// How many of them were in step with all replicas that can be reached, in all keyspaces, when they
    /// were last compared.
    pub partitions_in_sync: u64,
    /// For how many pairs of a tree and another node it has never been seen that they hold the same.
    pub pairs_unverified: u64,
    /// For how long that has not been seen of the pair for which it is the longest, in seconds; none if
    /// there is one of which it was never seen, or no pair at all.
    pub oldest_verified_s: Option<u64>,
    /// How many keys were joined here from other nodes.
    pub keys_pulled: u64,
    /// How many keys were joined at other nodes from here.
    pub keys_sent: u64,
    /// How much was sent for it, by this node or to it at its request, in bytes of messages as they are
    /// framed. So what passes between two nodes is counted once.
    pub bytes_sent: u64,
    /// How many digests were compared.
    pub hashes_compared: u64,
    /// How many trees wait to be walked with another node.
    pub units_waiting: u64,
    /// How many are being walked.
    pub units_running: u64,
    /// How many trees were compared with their data.
    pub trees_scrubbed: u64,
    /// How many of their leaves were wrong, and were mended.
    pub leaves_mended: u64,
    /// What this node has to do for the change of the ring that is under way, if one is.
    pub handover: Option<HandoverFigures>,
}

/// What a node has to do for a change of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandoverFigures {
    /// The change: the epoch that it began with.
    pub change: Epoch,
    /// How many partitions that are being filled are not in step here with all that they have to be.
    pub filling: u64,
    /// The same of those whose new owners are read.
    pub serving: u64,
    /// Who has what is missing.
    pub awaited: BTreeMap<NodeId, Awaited>,
    /// How many keys were fetched for the change, since this node took part in it or was started.
    pub keys_fetched: u64,
    /// How much they weigh, in bytes in memory.
    pub bytes_fetched: u64,
}

/// What is awaited from one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// How many trees.
    pub trees: u64,
    /// What stands in the way.
    pub obstacle: Option<Obstacle>,
}

/// Why it doesn't go on with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It can't be reached.
    Unreachable,
    /// It shows nothing to anybody, because it is quarantined.
    Quarantined,
}

impl Figures {
    /// How many keys were mended, here or elsewhere.
    pub fn keys_repaired(&self) -> u64 {
        self.keys_pulled + self.keys_sent
    }
}

impl AntiEntropy {
    /// See [`Figures`].
    pub fn figures(&self) -> Figures {
        let Self { desk, schedule, units, .. } = self;
        let held = schedule.held.partitions();
        let reachable = schedule.peers.values().filter(|peer| peer.is_reachable);
        let out_of_step = reachable.flat_map(|peer| {
            peer.pairs.iter().filter(|(_, pair)| !pair.is_in_step()).map(|((_, it), _)| *it)
        });
        let out_of_step: BTreeSet<PartitionId> = out_of_step.collect();
        let pairs = || schedule.peers.values().flat_map(|peer| peer.pairs.values());
        let unverified = pairs().filter(|pair| pair.in_step_ms.is_none()).count() as u64;
        let oldest = pairs().filter_map(|pair| pair.in_step_ms).min();
        let age = oldest.map(|oldest| desk.now.wall_ms.saturating_sub(oldest) / 1000);
        let counts = &desk.counts;
        Figures {
            last_round_ms: schedule.rounds.last_ms,
            rounds: schedule.rounds.completed,
            complete_up_to: schedule.rounds.complete_up_to(),
            partitions_held: held.len() as u64,
            partitions_in_sync: held.difference(&out_of_step).count() as u64,
            pairs_unverified: unverified,
            oldest_verified_s: age.filter(|_| unverified == 0),
            keys_pulled: counts.keys_pulled,
            keys_sent: counts.keys_pushed,
            bytes_sent: counts.bytes_sent,
            hashes_compared: counts.hashes_compared,
            units_waiting: units.waiting() as u64,
            units_running: units.running() as u64,
            trees_scrubbed: counts.trees_scrubbed,
            leaves_mended: counts.leaves_mended,
            handover: desk.handovers.left().map(|left| self.handover(left)),
        }
    }

    fn handover(&self, left: handover::Left<'_>) -> HandoverFigures {
        let awaited = left.peers.into_iter().map(|(peer, (trees, is_quarantined))| {
            let obstacle = match is_quarantined {
                _ if !self.schedule.is_reachable(peer) => Some(Obstacle::Unreachable),
                true => Some(Obstacle::Quarantined),
                false => None,
            };
            (peer.clone(), Awaited { trees, obstacle })
        });
        HandoverFigures {
            change: left.change,
            filling: left.filling,
            serving: left.serving,
            awaited: awaited.collect(),
            keys_fetched: left.fetched.keys,
            bytes_fetched: left.fetched.bytes,
        }
    }
}
