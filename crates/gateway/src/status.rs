//! A node's own figures, in JSON.

use std::collections::BTreeMap;

use anello_protocol::message::admin::{
    AwaitedStatus, HintStatus, NodeStatus, RepairStarted, RepairStatus, TransferStatus,
};
use serde::Serialize;
use utoipa::ToSchema;

/// A node's own figures.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusBody {
    /// Its name.
    id: String,
    /// The version of its program.
    version: String,
    /// Seconds since its start.
    uptime_s: u64,
    /// The number of the cluster state that it acts under.
    epoch: u64,
    /// How many vnodes it holds.
    vnodes: u32,
    /// What it stores.
    storage: StorageBody,
    /// The hints that it holds, by the node that they are for.
    hints: BTreeMap<String, HintBody>,
    /// What became of hints since its start.
    handoff: HandoffBody,
    /// Its comparing with other replicas.
    antientropy: AntiEntropyBody,
    /// What it has to do for the change of the ring that is under way.
    transfers: TransfersBody,
    /// What it holds of deleted keys.
    tombstones: TombstonesBody,
    /// Why what it holds is shown to nobody; null as a rule.
    quarantine: Option<String>,
    /// Why it takes no writes; null as a rule.
    read_only: Option<String>,
    /// What waits inside of it.
    queues: QueuesBody,
    /// The requests that it coordinates.
    requests: RequestsBody,
}

/// What a node stores.
#[derive(Debug, Serialize, ToSchema)]
struct StorageBody {
    /// Bytes on disk.
    bytes: u64,
    /// About how many keys, tombstones included.
    keys_estimate: u64,
}

/// Writes that a node keeps for another one.
#[derive(Debug, Serialize, ToSchema)]
struct HintBody {
    /// How many.
    count: u64,
    /// Their bytes.
    bytes: u64,
    /// The age of the oldest, in seconds.
    oldest_s: u64,
}

/// What became of hints.
#[derive(Debug, Serialize, ToSchema)]
struct HandoffBody {
    /// Taken by their owners.
    delivered: u64,
    /// Not kept, or not for long enough: a bound was reached, and anti-entropy has to do it.
    dropped: u64,
}

/// How far a node is with comparing what it holds with the other replicas.
#[derive(Debug, Serialize, ToSchema)]
struct AntiEntropyBody {
    /// When the last full round ended, in milliseconds since the Unix epoch.
    last_round: Option<u64>,
    /// Full rounds since its start.
    rounds: u64,
    /// Keys that were brought here or sent to others.
    keys_repaired: u64,
    /// Those that were sent.
    keys_sent: u64,
    /// Bytes that were sent for it, by this node or to it at its request.
    bytes_sent: u64,
    /// Digests that were compared.
    hashes_compared: u64,
    /// Partitions that it holds, once for every keyspace.
    partitions: u32,
    /// Those in step with every replica that could be reached.
    partitions_in_sync: u32,
    /// For how long the pair that was not found in step for longest hasn't been, in seconds.
    oldest_unverified_s: Option<u64>,
    /// Partitions that are being compared.
    running: u32,
    /// Partitions that wait to be compared.
    waiting: u32,
    /// Trees that were worked out anew from the data.
    trees_scrubbed: u64,
    /// Leaves that turned out to be wrong then, and were mended.
    leaves_mended: u64,
}

/// What a node has to do for a change of the ring; nothing while none is under way.
#[derive(Debug, Default, Serialize, ToSchema)]
struct TransfersBody {
    /// Partitions on their way that this node is not through with.
    in_flight: u64,
    /// Those of them that are being filled.
    filling: u64,
    /// Those of them whose new owners are read.
    serving: u64,
    /// Who has what is missing here.
    awaited: BTreeMap<String, AwaitedBody>,
    /// Keys that were fetched for the change.
    keys: u64,
    /// Their bytes.
    bytes: u64,
    /// How many bytes were fetched a second of late.
    bytes_per_s: u64,
    /// About how many seconds it takes until the node is filled; null if that can't be told.
    left_s: Option<u64>,
}

/// What is awaited from one node.
#[derive(Debug, Serialize, ToSchema)]
struct AwaitedBody {
    /// How many trees, each a partition of a keyspace.
    trees: u64,
    /// What stands in the way; null as a rule.
    obstacle: Option<String>,
}

impl From<TransferStatus> for TransfersBody {
    fn from(status: TransferStatus) -> Self {
        let body = |AwaitedStatus { trees, obstacle }| AwaitedBody { trees, obstacle };
        let awaited = status.awaited.into_iter();
        Self {
            in_flight: status.filling + status.serving,
            filling: status.filling,
            serving: status.serving,
            awaited: awaited.map(|(node, awaited)| (node.to_string(), body(awaited))).collect(),
            keys: status.keys,
            bytes: status.bytes,
            bytes_per_s: status.bytes_per_s,
            left_s: status.left_s,
        }
    }
}

/// What a node holds of deleted keys.
#[derive(Debug, Serialize, ToSchema)]
struct TombstonesBody {
    /// About how many.
    held: u64,
    /// Forgotten everywhere, since its start.
    purged: u64,
    /// Old enough to be forgotten and still held, by the reason.
    waiting: BTreeMap<String, u64>,
}

/// What waits inside a node.
#[derive(Debug, Serialize, ToSchema)]
struct QueuesBody {
    /// Requests that wait at its vnodes.
    vnodes: u64,
    /// The most at one of them.
    longest: u64,
    /// Commits that wait for the disk.
    commits: u64,
    /// Their bytes.
    commit_bytes: u64,
    /// How long the last commit took from its queue to the disk, in microseconds.
    commit_us: u64,
}

/// A round of comparing has begun.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RepairBody {
    /// It has ended once `antientropy.rounds` of this node's status is this.
    round: u64,
}

impl From<RepairStarted> for RepairBody {
    fn from(RepairStarted { round }: RepairStarted) -> Self {
        Self { round }
    }
}

/// The requests that a node coordinates.
#[derive(Debug, Serialize, ToSchema)]
struct RequestsBody {
    /// At work on.
    in_flight: u64,
    /// Since its start.
    total: u64,
}

impl From<HintStatus> for HintBody {
    fn from(HintStatus { count, bytes, oldest_s }: HintStatus) -> Self {
        Self { count, bytes, oldest_s }
    }
}

impl From<RepairStatus> for AntiEntropyBody {
    fn from(status: RepairStatus) -> Self {
        Self {
            last_round: status.last_round_ms,
            rounds: status.rounds,
            keys_repaired: status.keys_repaired,
            keys_sent: status.keys_sent,
            bytes_sent: status.bytes_sent,
            hashes_compared: status.hashes_compared,
            partitions: status.partitions_held,
            partitions_in_sync: status.partitions_in_sync,
            oldest_unverified_s: status.oldest_unverified_s,
            running: status.units_running,
            waiting: status.units_waiting,
            trees_scrubbed: status.trees_scrubbed,
            leaves_mended: status.leaves_mended,
        }
    }
}

impl From<NodeStatus> for StatusBody {
    fn from(status: NodeStatus) -> Self {
        Self {
            id: status.id.to_string(),
            version: status.version,
            uptime_s: status.uptime_s,
            epoch: status.epoch.0,
            vnodes: status.vnodes,
            storage: StorageBody {
                bytes: status.storage_bytes,
                keys_estimate: status.keys_estimate,
            },
            hints: status
                .hints
                .into_iter()
                .map(|(node, hint)| (node.to_string(), hint.into()))
                .collect(),
            handoff: HandoffBody {
                delivered: status.hints_delivered,
                dropped: status.hints_dropped,
            },
            antientropy: status.repair.into(),
            transfers: status.transfers.map(TransfersBody::from).unwrap_or_default(),
            tombstones: TombstonesBody {
                held: status.tombstones.held,
                purged: status.tombstones.purged,
                waiting: status.tombstones.waiting,
            },
            quarantine: status.quarantine,
            read_only: status.read_only,
            queues: QueuesBody {
                vnodes: status.queues.vnodes,
                longest: status.queues.longest,
                commits: status.queues.commits,
                commit_bytes: status.queues.commit_bytes,
                commit_us: status.queues.commit_us,
            },
            requests: RequestsBody {
                in_flight: status.requests_in_flight,
                total: status.requests_total,
            },
        }
    }
}
