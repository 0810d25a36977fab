//! The node's vnodes, and what they want done.

use std::collections::VecDeque;

use anello_gossip::To;
use anello_protocol::{id::PartitionId, time::Now};
use anello_replica::{
    coordinator::{Incoming, Input as CoordinatorInput},
    replica::{Effect as ReplicaEffect, Input as ReplicaInput, Reply as ReplicaReply},
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
                    self.disk.push(DiskWrite::Commit(number, commit));
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
                    match asker {
                        ReplicaAsker::Own(call) => {
                            let outcome = Ok(match reply {
                                ReplicaReply::Read(held) => Incoming::Read(held),
                                ReplicaReply::Store(stored) => Incoming::Stored(stored),
                                ReplicaReply::Mint(minted) => Incoming::Minted(minted),
                            });
                            let from = me.clone();
                            let input = CoordinatorInput::Answered { call, from, outcome };
                            queue.push_back(Inner::Coordinator(input));
                        }
                        ReplicaAsker::Node(to, call) => {
                            let answer = match reply {
                                ReplicaReply::Read(held) => AnswerFrame::Read(held),
                                ReplicaReply::Store(stored) => AnswerFrame::Stored(stored),
                                // Nobody asks for a dot over the network.
                                ReplicaReply::Mint(_) => AnswerFrame::Busy,
                            };
                            out.push(Out::Send(To::Node(to), Frame::Answer(call, answer)));
                        }
                    }
                }
            }
        }
    }
}
