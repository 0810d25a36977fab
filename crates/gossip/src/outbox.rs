//! What a membership machine wants done, in order: at once, or once its record is durable.

use std::collections::VecDeque;

use anello_protocol::{
    id::{ClusterName, NodeId},
    message::gossip::{GossipBody, GossipPacket},
};

use crate::membership::{Effect, Ticket, To};

/// Effects on their way out.
#[derive(Debug)]
pub(crate) struct Outbox {
    me: NodeId,
    cluster: ClusterName,
    ready: Vec<Effect>,
    to_self: VecDeque<GossipBody>,
    /// Effects of the input at hand that wait for the record as this input leaves it.
    held: Vec<Effect>,
    /// Effects of earlier inputs, by the save that they wait for.
    waiting: VecDeque<(Ticket, Vec<Effect>)>,
    tickets: u64,
    dirty: bool,
}

impl Outbox {
    pub(crate) fn new(me: NodeId, cluster: ClusterName) -> Self {
        Self {
            me,
            cluster,
            ready: vec![],
            to_self: VecDeque::new(),
            held: vec![],
            waiting: VecDeque::new(),
            tickets: 0,
            dirty: false,
        }
    }

    /// A number that was not given out before.
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// The record has changed.
    pub(crate) fn touch(&mut self) {
        self.dirty = true;
    }

    /// To be done at once.
    pub(crate) fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to: To::Node(to), packet } if to == self.me => {
                self.to_self.push_back(packet.body);
            }
            effect => self.ready.push(effect),
        }
    }

    /// To be done once the record, as the input at hand leaves it, is durable.
    pub(crate) fn push_durably(&mut self, effect: Effect) {
        self.held.push(effect);
    }

    fn packet(&self, to: To, body: GossipBody) -> Effect {
        Effect::Send { to, packet: GossipPacket { cluster: self.cluster.clone(), body } }
    }

    /// To be sent at once.
    pub(crate) fn send(&mut self, to: To, body: GossipBody) {
        let effect = self.packet(to, body);
        self.push(effect);
    }

    /// To be sent once the record is durable.
    pub(crate) fn send_durably(&mut self, to: To, body: GossipBody) {
        let effect = self.packet(to, body);
        self.push_durably(effect);
    }

    /// The next thing that the node says to itself.
    pub(crate) fn next_to_self(&mut self) -> Option<GossipBody> {
        self.to_self.pop_front()
    }

    /// That save is durable, and with it all before.
    pub(crate) fn saved(&mut self, saved: Ticket) {
        while self.waiting.front().is_some_and(|(ticket, _)| *ticket <= saved) {
            let (_, effects) = self.waiting.pop_front().unwrap_or((saved, vec![]));
            effects.into_iter().for_each(|effect| self.push(effect));
        }
    }

    /// Settles what the input at hand held back: returns the ticket under which the record must be
    /// saved, if it must.
    pub(crate) fn settle(&mut self) -> Option<Ticket> {
        let held = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.dirty) {
            let ticket = self.ticket();
            self.waiting.push_back((ticket, held));
            return Some(ticket);
        }
        match self.waiting.back_mut() {
            Some((_, waiting)) => waiting.extend(held),
            None => held.into_iter().for_each(|effect| self.push(effect)),
        }
        None
    }

    /// Whether something waits for the record to be durable.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether nothing is held back by the input at hand, nor said to self.
    pub(crate) fn is_settled(&self) -> bool {
        !self.dirty && self.held.is_empty() && self.to_self.is_empty()
    }

    /// All that is to be done at once.
    pub(crate) fn drain(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.ready)
    }
}
