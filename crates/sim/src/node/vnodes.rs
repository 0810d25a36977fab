//! The node's vnodes, and what they want done.

use std::collections::VecDeque;

use anello_gossip::To;
use anello_protocol::{
    id::{NodeId, PartitionId},
    time::Now,
};
use anello_replica::{
    coordinator::{Incoming, Input as CoordinatorInput},
    replica::{
        CommitOutcome, Effect as ReplicaEffect, Input as ReplicaInput, Reply as ReplicaReply,
    },
    store::NotTaken,
};

use super::{Inner, Node, NodeInput, Out, ReplicaAsker};
use crate::{
    disk::DiskWrite,
    wire::{AnswerFrame, Frame},
};

impl Node {
    pub(super) fn replicate(
        &mut self,
        now: Now,
        partition: PartitionId,
        input: ReplicaInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let me = self.id().clone();
        let Some(running) = &mut self.running else { return };
        let Some(replica) = running.replicas.get_mut(&partition) else { return };
        replica.handle(now, input);
        if replica.waiting() > self.replica_config.requests_max {
            let what = format!("{me}: {} requests wait at {partition}", replica.waiting());
            out.push(Out::Broke("H: everything is bounded", what));
        }
        while let Some(effect) = replica.next_effect() {
            match effect {
                ReplicaEffect::Load(key) => out.push(Out::Load(partition, key)),
                ReplicaEffect::Commit(number, commit) => {
                    if self.disk.is_full && self.rng.chance(500) {
                        let outcome = CommitOutcome::NotTaken(NotTaken::Busy);
                        replica.handle(now, ReplicaInput::Committed(number, outcome));
                    } else {
                        self.disk.push(DiskWrite::Commit(number, commit));
                    }
                }
                ReplicaEffect::Quiet => {
                    for (ticket, waiting) in &mut running.freezing {
                        if waiting.remove(&partition) && waiting.is_empty() {
                            out.push(Out::At(now.moment, NodeInput::Inspected(*ticket)));
                        }
                    }
                }
                ReplicaEffect::Reply(token, reply) => {
                    let Some(asker) = running.asked_of_replicas.remove(&token) else {
                        let what = format!("{me}: {token:?} was answered twice");
                        out.push(Out::Broke("H: each request is answered once", what));
                        continue;
                    };
                    queue.extend(answered(&me, asker, reply, out));
                }
            }
        }
    }
}

/// Brings a vnode's answer to whoever asked.
pub(super) fn answered(
    me: &NodeId,
    asker: ReplicaAsker,
    reply: ReplicaReply,
    out: &mut Vec<Out>,
) -> Option<Inner> {
    match (asker, reply) {
        (_, ReplicaReply::Purge(_)) => {
            let what = format!("{me}: a purge that nobody asked for");
            out.push(Out::Broke("nobody purges", what));
        }
        (ReplicaAsker::Own(call), reply) => {
            let outcome = Ok(match reply {
                ReplicaReply::Read(held) => Incoming::Read(held),
                ReplicaReply::Store(stored) => Incoming::Stored(stored),
                ReplicaReply::Mint(minted) => Incoming::Minted(minted),
                ReplicaReply::Purge(_) => return None,
            });
            let from = me.clone();
            return Some(Inner::Coordinator(CoordinatorInput::Answered { call, from, outcome }));
        }
        (ReplicaAsker::Node(to, call), ReplicaReply::Read(held)) => {
            let frame = Frame::Answer(call, AnswerFrame::Read(held));
            out.push(Out::Send(To::Node(to), frame));
        }
        (ReplicaAsker::Node(to, call), ReplicaReply::Store(stored)) => {
            let frame = Frame::Answer(call, AnswerFrame::Stored(stored));
            out.push(Out::Send(To::Node(to), frame));
        }
        (ReplicaAsker::Node(..), ReplicaReply::Mint(_)) => {
            let what = format!("{me}: a dot was asked for over the network");
            out.push(Out::Broke("a vnode issues dots for its own node only", what));
        }
    }
    None
}
