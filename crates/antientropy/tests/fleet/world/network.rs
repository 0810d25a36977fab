//! The network between the nodes: what it loses, delays and doubles, and what has gone over it.

use std::time::Duration;

use anello_antientropy::{CallFailure, Incoming, Outgoing, Ticket};
use anello_protocol::{codec, id::NodeId, key::DataKey, time::Moment};
use anello_transport::{REPLY_BYTES, REQUEST_BYTES};

use super::{Event, World};

/// What the network does to messages.
#[derive(Clone, Copy)]
pub(crate) struct Network {
    pub(crate) lost_permille: u64,
    pub(crate) doubled_permille: u64,
    pub(crate) delay_us: (u64, u64),
}

impl Network {
    pub(crate) const GOOD: Self =
        Self { lost_permille: 0, doubled_permille: 0, delay_us: (100, 1000) };
    pub(crate) const BAD: Self =
        Self { lost_permille: 60, doubled_permille: 60, delay_us: (100, 80_000) };
}

impl World {
    pub(super) fn send(
        &mut self,
        from: &NodeId,
        life: u64,
        ticket: Ticket,
        to: NodeId,
        message: Outgoing,
        deadline: Moment,
    ) {
        if self.sites[&to].machine.is_none() || self.is_cut(from, &to) {
            let outcome = Err(CallFailure::Unreachable);
            let soon = Duration::from_micros(10);
            return self.later(soon, Event::Answered { to: from.clone(), life, ticket, outcome });
        }
        let outcome = Err(CallFailure::Passing);
        let late = deadline.since(self.now);
        self.later(late, Event::Answered { to: from.clone(), life, ticket, outcome });
        if to == *from {
            let from = from.clone();
            let event = Event::Arrives { to, from, life, ticket, message };
            return self.later(Duration::from_micros(80), event);
        }
        let (bytes, key) = measure(&message);
        self.count(REQUEST_BYTES + bytes, key);
        for delay in self.deliveries() {
            let (to, from, message) = (to.clone(), from.clone(), message.clone());
            self.later(delay, Event::Arrives { to, from, life, ticket, message });
        }
    }

    pub(super) fn answer(
        &mut self,
        from: &NodeId,
        to: &NodeId,
        life: u64,
        ticket: Ticket,
        answer: Incoming,
    ) {
        let deliveries = if from == to {
            vec![Duration::from_micros(80)]
        } else {
            let bytes = match &answer {
                Incoming::Roots(it) => codec::encode(it).len(),
                Incoming::Ranges(it) => codec::encode(it).len(),
                Incoming::Keys(it) => codec::encode(it).len(),
                Incoming::Read(it) => codec::encode(it).len(),
                Incoming::Stored(it) => codec::encode(it).len(),
                Incoming::Purged(it) => codec::encode(it).len(),
            };
            self.count(REPLY_BYTES + bytes, None);
            self.deliveries()
        };
        for delay in deliveries {
            let outcome = Ok(answer.clone());
            self.later(delay, Event::Answered { to: to.clone(), life, ticket, outcome });
        }
    }

    fn count(&mut self, bytes: usize, key: Option<DataKey>) {
        self.sent.bytes += bytes;
        if let Some(key) = key {
            *self.sent.keys.entry(key).or_default() += 1;
        }
    }

    /// After which times a message arrives, how often it does.
    fn deliveries(&mut self) -> Vec<Duration> {
        let Network { lost_permille, doubled_permille, delay_us: (least, most) } = self.network;
        let copies = match () {
            () if self.chance.below(1000) < lost_permille => 0,
            () if self.chance.below(1000) < doubled_permille => 2,
            () => 1,
        };
        let delay = |_| Duration::from_micros(least + self.chance.below(most - least));
        (0..copies).map(delay).collect()
    }

    pub(super) fn is_cut(&self, from: &NodeId, to: &NodeId) -> bool {
        self.cut.contains(&(from.clone(), to.clone()))
    }
}

/// How long a message is on the wire, and the key of which versions travel for it.
fn measure(message: &Outgoing) -> (usize, Option<DataKey>) {
    match message {
        Outgoing::Roots(it) => (codec::encode(it).len(), None),
        Outgoing::Ranges(it) => (codec::encode(it).len(), None),
        Outgoing::Keys(it) => (codec::encode(it).len(), None),
        Outgoing::Read(it) => (codec::encode(it).len(), Some(it.key.clone())),
        Outgoing::Store(it) => (codec::encode(it).len(), Some(it.key.clone())),
        Outgoing::Purge(it) => (codec::encode(it).len(), None),
    }
}
