//! The node's vnodes, and what they want done.

use std::collections::VecDeque;

use anello_protocol::{id::PartitionId, time::Now};
use anello_replica::{
    replica::{
        CommitOutcome, Effect as ReplicaEffect, Input as ReplicaInput, Reply as ReplicaReply,
    },
    store::NotTaken,
};

use super::{Freezer, Inner, Node, Out};
use crate::{disk::DiskWrite, wire::AnswerFrame};

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
        if replica.waiting() > self.settings.replica.requests_max {
            let what = format!("{me}: {} requests wait at {partition}", replica.waiting());
            out.push(Out::Broke("H: everything is bounded", what));
        }
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(replica) = running.replicas.get_mut(&partition) else { return };
            let Some(effect) = replica.next_effect() else { return };
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
                ReplicaEffect::Quiet => self.quiet(now, Freezer::Vnode(partition), out),
                ReplicaEffect::Reply(token, reply) => {
                    let Some(asker) = self.asker_of(token.0, out) else { continue };
                    queue.extend(self.answer(asker, frame_of(reply), out));
                }
            }
        }
    }
}

/// A vnode's answer as it travels.
pub(super) fn frame_of(reply: ReplicaReply) -> AnswerFrame {
    match reply {
        ReplicaReply::Read(held) => AnswerFrame::Read(held),
        ReplicaReply::Store(stored) => AnswerFrame::Stored(stored),
        ReplicaReply::Mint(minted) => AnswerFrame::Minted(minted),
        ReplicaReply::Purge(purged) => AnswerFrame::Purged(purged),
    }
}
