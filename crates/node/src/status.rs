//! The node's own figures, for `DescribeNode`: gathered when somebody asks.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use actix::Recipient;
use anello_antientropy::{
    actor::{AskFigures, AskProgress},
    purge,
};
use anello_protocol::{
    id::{Epoch, NodeId},
    message::admin::{
        DescribeNode, HintStatus, NodeStatus, QueueStatus, RepairStatus, TombstoneStatus,
    },
};
use anello_replica::{
    coordinator::CountInFlight,
    hints::{DescribeHints, OwnerFigures},
    store::Store,
};
use anello_transport::{ActorRef, Call, CallError};
use tokio::sync::{mpsc, oneshot};

use crate::{arbiter::Order, rocks::RocksStore, steward::StewardFigures};

/// Questions that may wait.
const WAITING_MAX: usize = 64;

/// What changes as the node runs.
#[derive(Debug)]
pub(crate) struct Status {
    started: Instant,
    epoch: AtomicU64,
    vnodes: AtomicU32,
    /// Why what the node holds is shown to nobody.
    quarantine: Mutex<Option<String>>,
    /// Requests that were given to the coordinators.
    pub(crate) requests: Arc<AtomicU64>,
}

impl Status {
    /// Of a node that starts.
    pub(crate) fn new() -> Self {
        let (epoch, vnodes) = (AtomicU64::new(0), AtomicU32::new(0));
        let quarantine = Mutex::default();
        Self { started: Instant::now(), epoch, vnodes, quarantine, requests: Arc::default() }
    }

    /// From here on the node acts under this state, and holds so many vnodes.
    pub(crate) fn acting(&self, epoch: Epoch, vnodes: usize) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.vnodes.store(vnodes.try_into().unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// What the node holds is shown to nobody, for that reason, or to everybody again.
    pub(crate) fn quarantined(&self, reason: Option<String>) {
        *self.quarantine.lock().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// Questions on their way to [`answer`].
pub(crate) type Questions = mpsc::Receiver<Call<DescribeNode>>;

/// Where to ask, and where the questions come out.
pub(crate) fn questions() -> (ActorRef<DescribeNode>, Questions) {
    let (ask, questions) = mpsc::channel(WAITING_MAX);
    let actor = ActorRef::function(move |call: Call<DescribeNode>| {
        let (call, error) = match ask.try_send(call) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Full(call)) => (call, CallError::Busy),
            Err(mpsc::error::TrySendError::Closed(call)) => (call, CallError::Closed),
        };
        call.reply.fail(error.clone());
        Err(error)
    });
    (actor, questions)
}

/// Whom the figures are gathered from.
pub(crate) struct Sources {
    pub(crate) node: NodeId,
    pub(crate) status: Arc<Status>,
    pub(crate) store: Arc<RocksStore>,
    pub(crate) coordinators: Vec<Recipient<CountInFlight>>,
    pub(crate) arbiters: Vec<mpsc::UnboundedSender<Order>>,
    pub(crate) steward: StewardFigures,
}

/// Answers questions until nobody can ask any more.
pub(crate) async fn answer(mut questions: Questions, sources: Sources) {
    while let Some(call) = questions.recv().await {
        let status = sources.gather().await;
        call.reply.send(status);
    }
}

impl Sources {
    async fn gather(&self) -> NodeStatus {
        let Self { node, status, store, steward, .. } = self;
        let mut in_flight = 0;
        for coordinator in &self.coordinators {
            // One that has ended has nothing in flight.
            in_flight += coordinator.send(CountInFlight).await.unwrap_or(0) as u64;
        }
        let hints = steward.hints.send(DescribeHints).await.unwrap_or_default();
        let purge = steward.purge.send(purge::Report).await.unwrap_or_default();
        let estimate = store.estimate();
        let quarantine = status.quarantine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        NodeStatus {
            id: node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: status.started.elapsed().as_secs(),
            epoch: Epoch(status.epoch.load(Ordering::Relaxed)),
            vnodes: status.vnodes.load(Ordering::Relaxed),
            storage_bytes: estimate.bytes,
            keys_estimate: estimate.keys,
            requests_in_flight: in_flight,
            requests_total: status.requests.load(Ordering::Relaxed),
            queues: self.queues().await,
            hints: hints
                .owners
                .into_iter()
                .map(|(owner, kept)| (owner, hint_status(kept)))
                .collect(),
            hints_delivered: hints.delivered,
            hints_dropped: hints.dropped,
            repair: self.repair().await,
            tombstones: TombstoneStatus {
                held: purge.tombstones,
                purged: purge.figures.purged,
                waiting: purge.figures.reasons(),
            },
            quarantine,
            read_only: store.read_only(),
        }
    }

    async fn queues(&self) -> QueueStatus {
        let (mut vnodes, mut longest) = (0, 0);
        for arbiter in &self.arbiters {
            let (done, counted) = oneshot::channel();
            // One that has ended has nothing that waits.
            if arbiter.send(Order::CountWaiting(done)).is_ok()
                && let Ok((all, most)) = counted.await
            {
                vnodes += all;
                longest = longest.max(most);
            }
        }
        let commits = *self.steward.commits.lock().unwrap_or_else(PoisonError::into_inner);
        QueueStatus {
            vnodes,
            longest,
            commits: commits.waiting,
            commit_bytes: commits.bytes,
            commit_us: commits.slowest_us,
        }
    }

    async fn repair(&self) -> RepairStatus {
        let merkle = &self.steward.merkle;
        let progress = merkle.send(AskProgress).await.ok().flatten();
        let parts =
            progress.map_or((0, 0), |it| (as_u32(it.total + it.comparing), as_u32(it.done)));
        let figures = merkle.send(AskFigures).await.unwrap_or_default();
        RepairStatus {
            last_round_ms: figures.last_round_ms,
            rounds: figures.complete_up_to,
            partitions_held: as_u32(figures.partitions_held),
            partitions_in_sync: as_u32(figures.partitions_in_sync),
            oldest_unverified_s: figures.oldest_verified_s,
            units_running: as_u32(figures.units_running),
            units_waiting: as_u32(figures.units_waiting),
            keys_repaired: figures.keys_repaired(),
            keys_sent: figures.keys_sent,
            bytes_sent: figures.bytes_sent,
            hashes_compared: figures.hashes_compared,
            trees_scrubbed: figures.trees_scrubbed,
            leaves_mended: figures.leaves_mended,
            round_parts: parts,
        }
    }
}

fn hint_status(kept: OwnerFigures) -> HintStatus {
    let OwnerFigures { count, bytes, oldest_s, .. } = kept;
    HintStatus { count, bytes, oldest_s }
}

fn as_u32(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}
