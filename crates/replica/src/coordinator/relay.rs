//! The relay's side of a write from another datacenter: store here, pass on to the neighbours, and tell
//! the origin what became of each.
//!
//! A relay decides nothing and waits for nobody longer than the origin does.

use anello_protocol::{
    id::NodeId,
    message::replica::{
        Refusal, RelayFailure, RelayVersions, RelayedAck, StoreVersions, Stored, WriteTicket,
    },
    time::Moment,
};

use super::{
    desk::{Desk, Head},
    events::{CallFailure, Effect, Incoming, Outgoing, Reply},
};

/// A relayed write under way.
#[derive(Debug)]
pub(super) struct RelayRequest {
    pub(super) head: Head,
    origin: NodeId,
    ticket: WriteTicket,
    bytes: usize,
    /// The attempt at the own vnode, while it has not answered.
    own: Option<u32>,
    /// The attempts at the neighbours that have not answered.
    others: Vec<(u32, NodeId)>,
}

impl RelayRequest {
    pub(super) fn start(desk: &mut Desk, mut head: Head, relay: RelayVersions) -> Self {
        let RelayVersions { store, others, origin, ticket, .. } = relay;
        let bytes = bytes(&store);
        let node = desk.node.clone();
        let own = desk.send(&mut head, &node, Outgoing::Store(store.clone()));
        let others = others.into_iter().map(|neighbour| {
            let attempt = desk.send(&mut head, &neighbour, Outgoing::Store(store.clone()));
            (attempt, neighbour)
        });
        let others = others.collect();
        Self { origin, ticket, bytes, own: Some(own), others, head }
    }

    pub(super) fn answered(
        &mut self,
        desk: &mut Desk,
        attempt: u32,
        outcome: Result<Incoming, CallFailure>,
    ) {
        if self.own == Some(attempt) {
            self.own = None;
            desk.reply(&self.head, Reply::Relay(own_outcome(outcome)));
        } else if let Some(at) = self.others.iter().position(|(own, _)| *own == attempt) {
            let (_, replica) = self.others.swap_remove(at);
            let ack = RelayedAck { ticket: self.ticket, replica, outcome: acked(outcome) };
            desk.effects.push_back(Effect::Ack { to: self.origin.clone(), ack });
        }
    }

    /// The origin has stopped waiting.
    pub(super) fn time_up(&mut self, desk: &mut Desk) {
        if desk.moment() >= self.head.deadline {
            if self.own.take().is_some() {
                // It may yet be stored; the origin has given up by itself.
                let late = Refusal::Storage("the relay's vnode did not answer in time".into());
                desk.reply(&self.head, Reply::Relay(Err(late)));
            }
            self.others.clear();
        }
    }

    pub(super) fn due(&self) -> Moment {
        self.head.deadline
    }

    pub(super) fn is_over(&self) -> bool {
        self.own.is_none() && self.others.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// What a relayed write weighs.
pub(super) fn bytes(store: &StoreVersions) -> usize {
    store.key.key.as_bytes().len() + store.versions.value_bytes()
}

fn own_outcome(outcome: Result<Incoming, CallFailure>) -> Result<Stored, Refusal> {
    match outcome {
        Ok(Incoming::Stored(outcome)) => outcome,
        Err(CallFailure::Busy) => Err(Refusal::Busy),
        Ok(_) | Err(_) => Err(Refusal::Storage("the relay's vnode gave no answer".into())),
    }
}

fn acked(outcome: Result<Incoming, CallFailure>) -> Result<Stored, RelayFailure> {
    match outcome {
        Ok(Incoming::Stored(Ok(stored))) => Ok(stored),
        Ok(Incoming::Stored(Err(refusal))) => Err(RelayFailure::Refused(refusal)),
        Ok(_) => Err(RelayFailure::Refused(Refusal::NotOwner)),
        Err(CallFailure::Busy) => Err(RelayFailure::Busy),
        Err(CallFailure::Unreachable) => Err(RelayFailure::Unreachable),
        Err(CallFailure::Timeout | CallFailure::Closed) => Err(RelayFailure::Timeout),
        Err(CallFailure::Refused) => Err(RelayFailure::Refused(Refusal::NotOwner)),
    }
}
