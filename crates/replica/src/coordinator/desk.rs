//! What all requests of a coordinator share: who and where it is, the agreed state, how the others are
//! doing, the time, and the tray into which effects go.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anello_protocol::{
    id::{Datacenter, Epoch, NodeId},
    time::{Moment, Now},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    events::{CallNumber, Effect, Outgoing, Reply, Token},
    hedging::Hedging,
    peers::Peers,
};
use anello_ring::view::View;

/// The bounds and delays of a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorConfig {
    /// The most requests in flight, default 4,096. More queue for longer before they are refused.
    pub requests_max: usize,
    /// The most bytes that they hold, default 128 MiB; that much memory.
    pub bytes_max: usize,
    /// After how long another replica is asked to answer a read in place of a silent one, default
    /// 100 ms. Less makes more work when replicas are slow.
    pub read_silence: Duration,
    /// After how long a stand-in is asked to keep a write for a silent replica, while too few have
    /// acknowledged it, default 100 ms. Less keeps more hints when replicas are slow.
    pub stand_in_silence: Duration,
    /// The same once enough have acknowledged it, default 1 s.
    pub hint_silence: Duration,
    /// After how long replicas behind a silent relay are written to directly, default 300 ms. Less than
    /// a round trip between datacenters sends everything twice.
    pub relay_silence: Duration,
    /// After how long another replica is asked to coordinate a write in place of a silent one, default
    /// 500 ms. Less makes more writes be coordinated twice.
    pub forward_silence: Duration,
    /// How long a request with a receipt waits for stragglers, default 50 ms.
    pub explain_wait: Duration,
    /// How long a replica that failed is left alone at first, default 10 ms; twice as long each time,
    /// up to a quarter of a second.
    pub backoff: Duration,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            requests_max: 4096,
            bytes_max: 128 << 20,
            read_silence: Duration::from_millis(100),
            stand_in_silence: Duration::from_millis(100),
            hint_silence: Duration::from_secs(1),
            relay_silence: Duration::from_millis(300),
            forward_silence: Duration::from_millis(500),
            explain_wait: Duration::from_millis(50),
            backoff: Duration::from_millis(10),
        }
    }
}

/// How long a write goes on at most after it was answered, for the replicas that have yet to answer.
pub(super) const LINGER: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_millis(250);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) node: NodeId,
    pub(super) datacenter: Datacenter,
    /// Which of the node's coordinators this is.
    pub(super) number: u16,
    pub(super) config: CoordinatorConfig,
    pub(super) seed: u64,
    pub(super) view: Option<Arc<View>>,
    pub(super) peers: Peers,
    pub(super) hedging: Hedging,
    pub(super) now: Now,
    pub(super) effects: VecDeque<Effect>,
}

impl Desk {
    pub(super) fn moment(&self) -> Moment {
        self.now.moment
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.view.as_ref().map(|view| view.epoch()).unwrap_or_default()
    }

    /// Sends a message on behalf of a request; the attempt under which its answer comes.
    pub(super) fn send(&mut self, head: &mut Head, to: &NodeId, message: Outgoing) -> u32 {
        let attempt = head.attempts;
        head.attempts += 1;
        self.peers.sent(to);
        self.effects.push_back(Effect::Send {
            call: CallNumber { request: head.number, attempt },
            to: to.clone(),
            message,
            deadline: head.deadline,
            cause: head.token,
        });
        attempt
    }

    pub(super) fn reply(&mut self, head: &Head, reply: Reply) {
        self.effects.push_back(Effect::Reply(head.token, reply));
    }

    /// When to ask a replica again that has failed so many times in a row: later each time, and never
    /// in step with the other requests that it failed.
    pub(super) fn retry_at(&self, head: &Head, failures: u32) -> Moment {
        let doubled = self.config.backoff.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
        let mut name = [0; 16];
        name[..8].copy_from_slice(&head.number.to_le_bytes());
        name[8..12].copy_from_slice(&head.attempts.to_le_bytes());
        let share = (xxh3_64_with_seed(&name, self.seed) >> 32) as f64 / f64::from(u32::MAX);
        self.moment() + doubled.mul_f64(0.5 + share / 2.0)
    }
}

/// What every request in flight has.
#[derive(Debug)]
pub(super) struct Head {
    /// Its number here.
    pub(super) number: u64,
    /// Who waits for its answer.
    pub(super) token: Token,
    /// When it came.
    pub(super) started: Moment,
    /// When it is over at the latest.
    pub(super) deadline: Moment,
    /// How many messages were sent for it.
    pub(super) attempts: u32,
}

impl Head {
    /// Microseconds since it came.
    pub(super) fn us(&self, desk: &Desk) -> u64 {
        u64::try_from(desk.moment().since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    /// Milliseconds that are left of it, at least one.
    pub(super) fn left_ms(&self, desk: &Desk) -> u32 {
        let left = self.deadline.since(desk.moment()).as_millis();
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    }
}

/// The earlier of two moments that may not be there.
pub(super) fn earliest(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
