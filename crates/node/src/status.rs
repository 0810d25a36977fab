//! The node's own figures, for `DescribeNode`: gathered when somebody asks.
//!
//! Whoever doesn't answer in time is left out, so that one that is stuck hides nothing else.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use actix::Recipient;
use anello_antientropy::{
    HandoverFigures, Obstacle,
    actor::{AskFigures, AskProgress},
    purge,
};
use anello_protocol::{
    id::{Epoch, NodeId},
    message::admin::{
        AwaitedStatus, DescribeNode, HintStatus, NodeStatus, QueueStatus, RepairStatus,
        TombstoneStatus, TransferStatus,
    },
};
use anello_replica::{
    coordinator::CountInFlight,
    hints::{DescribeHints, OwnerFigures},
    store::Store,
};
use anello_transport::{ActorRef, Call, CallError};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{self, timeout_at},
};

use crate::{arbiter::Order, handing_over::Pace, rocks::RocksStore, steward::StewardFigures};

/// Questions that may wait.
const WAITING_MAX: usize = 64;
/// Questions that are answered at once.
const ANSWERING_MAX: usize = 16;
/// How long the figures of others are waited for.
const GATHER_MAX: Duration = Duration::from_secs(1);

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
    let sources = Arc::new(sources);
    let room = Arc::new(Semaphore::new(ANSWERING_MAX));
    while let Some(call) = questions.recv().await {
        let permit = Arc::clone(&room).acquire_owned().await;
        let sources = Arc::clone(&sources);
        actix::spawn(async move {
            let _permit = permit.expect("it is never closed");
            call.reply.send(sources.gather().await);
        });
    }
}

impl Sources {
    async fn gather(&self) -> NodeStatus {
        let Self { node, status, store, steward, .. } = self;
        let by = time::Instant::now() + GATHER_MAX;
        let (in_flight, hints, purge, queues, (repair, transfers)) = tokio::join!(
            in_flight(&self.coordinators, by),
            answer_of(steward.hints.send(DescribeHints), by),
            answer_of(steward.purge.send(purge::Report), by),
            self.queues(by),
            self.repair(by),
        );
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
            queues,
            hints: hints
                .owners
                .into_iter()
                .map(|(owner, kept)| (owner, hint_status(kept)))
                .collect(),
            hints_delivered: hints.delivered,
            hints_dropped: hints.dropped,
            repair,
            tombstones: TombstoneStatus {
                held: purge.tombstones,
                purged: purge.figures.purged,
                waiting: purge.figures.reasons(),
            },
            quarantine,
            read_only: store.read_only(),
            transfers,
        }
    }

    async fn queues(&self, by: time::Instant) -> QueueStatus {
        let (mut vnodes, mut longest) = (0, 0);
        let asked = self.arbiters.iter().filter_map(|arbiter| {
            let (done, counted) = oneshot::channel();
            // One that has ended has nothing that waits.
            arbiter.send(Order::CountWaiting(done)).is_ok().then_some(counted)
        });
        let asked: Vec<_> = asked.collect();
        for counted in asked {
            let (all, most) = answer_of(counted, by).await;
            vnodes += all;
            longest = longest.max(most);
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

    async fn repair(&self, by: time::Instant) -> (RepairStatus, Option<TransferStatus>) {
        let merkle = &self.steward.merkle;
        let progress = merkle.send(AskProgress);
        let figures = merkle.send(AskFigures);
        let progress = answer_of(progress, by).await;
        let parts =
            progress.map_or((0, 0), |it| (as_u32(it.total + it.comparing), as_u32(it.done)));
        let figures = answer_of(figures, by).await;
        let transfers = figures.handover.as_ref().map(|handover| {
            let pace = self.steward.pace.lock().unwrap_or_else(PoisonError::into_inner);
            transfer_status(handover, &pace)
        });
        let repair = RepairStatus {
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
        };
        (repair, transfers)
    }
}

/// How many requests the coordinators have in flight, as far as they answer in time.
async fn in_flight(coordinators: &[Recipient<CountInFlight>], by: time::Instant) -> u64 {
    let asked: Vec<_> = coordinators.iter().map(|it| it.send(CountInFlight)).collect();
    let mut all = 0;
    for counted in asked {
        all += answer_of(counted, by).await as u64;
    }
    all
}

/// What somebody answers in time; nothing of one that has ended, or is stuck.
async fn answer_of<T: Default, E>(
    answer: impl Future<Output = Result<T, E>>,
    by: time::Instant,
) -> T {
    timeout_at(by, answer).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn hint_status(kept: OwnerFigures) -> HintStatus {
    let OwnerFigures { count, bytes, oldest_s, .. } = kept;
    HintStatus { count, bytes, oldest_s }
}

fn transfer_status(handover: &HandoverFigures, pace: &Pace) -> TransferStatus {
    let awaited = handover.awaited.iter().map(|(node, awaited)| {
        let obstacle = awaited.obstacle.map(|obstacle| match obstacle {
            Obstacle::Unreachable => "it can't be reached".to_owned(),
            Obstacle::Quarantined => "it shows nothing while it is quarantined".to_owned(),
        });
        (node.clone(), AwaitedStatus { trees: awaited.trees, obstacle })
    });
    TransferStatus {
        change: handover.change,
        filling: handover.filling,
        serving: handover.serving,
        awaited: awaited.collect(),
        keys: handover.keys_fetched,
        bytes: handover.bytes_fetched,
        bytes_per_s: pace.bytes_per_s(),
        left_s: pace.left().map(|left| left.as_secs()),
    }
}

fn as_u32(count: u64) -> u32 {
    count.try_into().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use actix::{Actor, Context, Handler, ResponseFuture};

    use super::*;

    /// Has so many in flight, or is stuck.
    struct Coordinator(Option<usize>);

    impl Actor for Coordinator {
        type Context = Context<Self>;
    }

    impl Handler<CountInFlight> for Coordinator {
        type Result = ResponseFuture<usize>;

        fn handle(&mut self, _: CountInFlight, _: &mut Self::Context) -> Self::Result {
            match self.0 {
                Some(count) => Box::pin(async move { count }),
                None => Box::pin(pending()),
            }
        }
    }

    #[test]
    fn one_that_is_stuck_hides_nothing_of_the_others() {
        let counted = actix::System::new().block_on(async {
            let coordinators = [Some(2), None, Some(3)];
            let coordinators = coordinators.map(|it| Coordinator(it).start().recipient());
            in_flight(&coordinators, time::Instant::now() + Duration::from_millis(200)).await
        });
        assert_eq!(counted, 5);
    }
}
