//! Messages between the node's machines and those of other nodes: what arrives, and what is sent.

use std::collections::VecDeque;

use anello_gossip::{Input as GossipInput, To};
use anello_protocol::{
    id::NodeId,
    key::DataKey,
    message::replica::Refusal,
    time::{Moment, Now},
};
use anello_replica::{
    coordinator::{CallFailure, CallNumber, Incoming, Input as CoordinatorInput, Outgoing},
    replica::{Input as ReplicaInput, Reply, Request, Token as ReplicaToken},
};

use super::{Asker, Inner, Node, NodeInput, Out, ReplicaAsker, vnodes::answered};
use crate::wire::{AnswerFrame, Ask, Frame};

impl Node {
    pub(super) fn packet(
        &mut self,
        now: Now,
        from: NodeId,
        frame: Frame,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        match frame {
            Frame::Gossip(packet) => Some(Inner::Gossip(GossipInput::Heard { from, packet })),
            Frame::Ack(ack) => Some(Inner::Coordinator(CoordinatorInput::Acked(ack))),
            Frame::Answer(call, answer) => {
                // Late answers and second copies of one find nobody who waits.
                let (call, callee) = self.running.as_mut()?.calls.remove(&call)?;
                let outcome = Ok(match answer {
                    AnswerFrame::Read(held) => Incoming::Read(held),
                    AnswerFrame::Stored(stored) => Incoming::Stored(stored),
                    AnswerFrame::Forwarded(answer) => Incoming::Forwarded(answer),
                });
                let from = callee;
                Some(Inner::Coordinator(CoordinatorInput::Answered { call, from, outcome }))
            }
            // What has waited past its deadline is dropped, as the actors do.
            Frame::Ask(_, deadline, _) if Frame::deadline(deadline) <= now.moment => None,
            Frame::Ask(call, _, ask) => match ask {
                Ask::Relay(relay) => {
                    let token = self.coordinator_token(Asker::Node(from, call));
                    Some(Inner::Coordinator(CoordinatorInput::Relay { token, relay }))
                }
                Ask::Forward(forward) => {
                    let token = self.coordinator_token(Asker::Node(from, call));
                    Some(Inner::Coordinator(CoordinatorInput::Forward { token, forward }))
                }
                Ask::Read(read) => {
                    let key = read.key.clone();
                    let asker = ReplicaAsker::Node(from, call);
                    self.ask_replica(&key, Request::Read(read), asker, out)
                }
                Ask::Store(store) => {
                    let key = store.key.clone();
                    let asker = ReplicaAsker::Node(from, call);
                    self.ask_replica(&key, Request::Store(store), asker, out)
                }
            },
        }
    }

    /// Passes a request on to the key's vnode. Where there is none, the node says that it isn't an owner.
    fn ask_replica(
        &mut self,
        key: &DataKey,
        request: Request,
        asker: ReplicaAsker,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        let partition = key.hash.partition(self.config.partitions);
        let token = ReplicaToken(self.number());
        let running = self.running.as_mut()?;
        if !running.replicas.contains_key(&partition) {
            let refused = match request {
                Request::Read(_) => Reply::Read(Err(Refusal::NotOwner)),
                Request::Store(_) => Reply::Store(Err(Refusal::NotOwner)),
                Request::Mint(_) => Reply::Mint(Err(Refusal::NotOwner)),
                Request::Purge(_) => Reply::Purge(Err(Refusal::NotOwner)),
            };
            return answered(self.id(), asker, refused, out);
        }
        running.asked_of_replicas.insert(token, asker);
        Some(Inner::Replica(partition, ReplicaInput::Asked { token, request }))
    }

    pub(super) fn send(
        &mut self,
        call: CallNumber,
        to: NodeId,
        message: Outgoing,
        deadline: Moment,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let is_own = to == *self.id();
        let ask = match message {
            Outgoing::Mint(mint) => {
                let key = mint.key.clone();
                let asker = ReplicaAsker::Own(call);
                queue.extend(self.ask_replica(&key, Request::Mint(mint), asker, out));
                return;
            }
            Outgoing::Read(read) if is_own => {
                let key = read.key.clone();
                let asker = ReplicaAsker::Own(call);
                queue.extend(self.ask_replica(&key, Request::Read(read), asker, out));
                return;
            }
            Outgoing::Store(store) if is_own => {
                let key = store.key.clone();
                let asker = ReplicaAsker::Own(call);
                queue.extend(self.ask_replica(&key, Request::Store(store), asker, out));
                return;
            }
            Outgoing::Read(read) => Ask::Read(read),
            Outgoing::Store(store) => Ask::Store(store),
            Outgoing::Relay(relay) => Ask::Relay(relay),
            Outgoing::Forward(forward) => Ask::Forward(forward),
        };
        let wire = self.number();
        let Some(running) = &mut self.running else { return };
        running.calls.insert(wire, (call, to.clone()));
        out.push(Out::At(deadline, NodeInput::CallFailed(wire, CallFailure::Timeout)));
        out.push(Out::Send(To::Node(to), Frame::Ask(wire, deadline.0, ask)));
    }
}
