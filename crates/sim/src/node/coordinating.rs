//! The node's coordinator, and what it wants done.

use std::collections::VecDeque;

use anello_gossip::To;
use anello_protocol::time::Now;
use anello_replica::coordinator::{
    Effect as CoordinatorEffect, Input as CoordinatorInput, Reply as CoordinatorReply,
};

use super::{Asker, Inner, Node, Out};
use crate::wire::{AnswerFrame, Frame};

impl Node {
    pub(super) fn coordinate(
        &mut self,
        now: Now,
        input: CoordinatorInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        running.coordinator.handle(now, input);
        let in_flight = running.coordinator.in_flight();
        if in_flight > self.coordinator_config.requests_max {
            let what = format!("{}: {in_flight} requests in flight", self.config.member.id);
            out.push(Out::Broke("H: everything is bounded", what));
        }
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.coordinator.next_effect() else { return };
            match effect {
                CoordinatorEffect::Send { call, to, message, deadline, .. } => {
                    self.send(call, to, message, deadline, queue, out);
                }
                CoordinatorEffect::Ack { to, ack } => {
                    out.push(Out::Send(To::Node(to), Frame::Ack(ack)));
                }
                CoordinatorEffect::Reply(token, reply) => {
                    let Some(asker) = running.asked_of_coordinator.remove(&token) else {
                        let what = format!("{}: {token:?} was answered twice", self.id());
                        out.push(Out::Broke("H: each request is answered once", what));
                        continue;
                    };
                    match (asker, reply) {
                        (Asker::Client(client), CoordinatorReply::Get(answer)) => {
                            out.push(Out::Got(client, answer));
                        }
                        (Asker::Client(client), CoordinatorReply::Write(answer)) => {
                            out.push(Out::Wrote(client, answer));
                        }
                        (Asker::Node(to, call), CoordinatorReply::Forward(answer)) => {
                            let frame = Frame::Answer(call, AnswerFrame::Forwarded(answer));
                            out.push(Out::Send(To::Node(to), frame));
                        }
                        (Asker::Node(to, call), CoordinatorReply::Relay(stored)) => {
                            let frame = Frame::Answer(call, AnswerFrame::Stored(stored));
                            out.push(Out::Send(To::Node(to), frame));
                        }
                        (asker, reply) => {
                            let what = format!("{asker:?} was answered {reply:?}");
                            out.push(Out::Broke("H: each request is answered once", what));
                        }
                    }
                }
            }
        }
    }
}
