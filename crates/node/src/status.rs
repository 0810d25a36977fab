//! The node's own figures, for `DescribeNode`: gathered when somebody asks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Instant,
};

use actix::Recipient;
use anello_protocol::{
    id::{Epoch, NodeId},
    message::admin::{DescribeNode, NodeStatus},
};
use anello_replica::{coordinator::CountInFlight, store::Store};
use anello_transport::{ActorRef, Call, CallError};
use tokio::sync::mpsc;

/// Questions that may wait.
const WAITING_MAX: usize = 64;

/// What changes as the node runs.
#[derive(Debug)]
pub(crate) struct Status {
    started: Instant,
    epoch: AtomicU64,
    vnodes: AtomicU32,
    /// Requests that were given to the coordinators.
    pub(crate) requests: Arc<AtomicU64>,
}

impl Status {
    /// Of a node that starts.
    pub(crate) fn new() -> Self {
        let (epoch, vnodes) = (AtomicU64::new(0), AtomicU32::new(0));
        Self { started: Instant::now(), epoch, vnodes, requests: Arc::default() }
    }

    /// From here on the node acts under this state, and holds so many vnodes.
    pub(crate) fn acting(&self, epoch: Epoch, vnodes: usize) {
        self.epoch.store(epoch.0, Ordering::Relaxed);
        self.vnodes.store(vnodes.try_into().unwrap_or(u32::MAX), Ordering::Relaxed);
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

/// Answers questions until nobody can ask any more.
pub(crate) async fn answer(
    mut questions: Questions,
    node: NodeId,
    status: Arc<Status>,
    store: Arc<dyn Store>,
    coordinators: Vec<Recipient<CountInFlight>>,
) {
    while let Some(call) = questions.recv().await {
        let mut in_flight = 0;
        for coordinator in &coordinators {
            // One that has ended has nothing in flight.
            in_flight += coordinator.send(CountInFlight).await.unwrap_or(0) as u64;
        }
        let estimate = store.estimate();
        call.reply.send(NodeStatus {
            id: node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_s: status.started.elapsed().as_secs(),
            epoch: Epoch(status.epoch.load(Ordering::Relaxed)),
            vnodes: status.vnodes.load(Ordering::Relaxed),
            storage_bytes: estimate.bytes,
            keys_estimate: estimate.keys,
            requests_in_flight: in_flight,
            requests_total: status.requests.load(Ordering::Relaxed),
        });
    }
}
