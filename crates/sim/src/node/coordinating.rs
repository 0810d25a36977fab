//! The node's coordinator, and what it wants done.

use std::collections::VecDeque;

use anello_gossip::To;
use anello_protocol::time::Now;
use anello_replica::{
    coordinator::{
        CallNumber, Effect as CoordinatorEffect, Input as CoordinatorInput, Outgoing,
        Reply as CoordinatorReply,
    },
    hints,
    replica::Request,
};

use super::{Asker, Caller, Inner, Node, Out};
use crate::wire::{AnswerFrame, Ask, Frame};

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
        if in_flight > self.settings.coordinator.requests_max {
            let what = format!("{}: {in_flight} requests in flight", self.config.member.id);
            out.push(Out::Broke("H: everything is bounded", what));
        }
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.coordinator.next_effect() else { return };
            match effect {
                CoordinatorEffect::Send { call, to, message, deadline, .. } => {
                    if let Some(ask) = self.question_of(call, message, queue, out) {
                        let caller = Caller::Coordinator(call);
                        queue.extend(self.ask(now, caller, to, ask, deadline, out));
                    }
                }
                CoordinatorEffect::Ack { to, ack } => {
                    out.push(Out::Send(To::Node(to), Frame::Ack(ack)));
                }
                CoordinatorEffect::Reply(token, reply) => {
                    let Some(asker) = self.asker_of(token.0, out) else { continue };
                    match (asker, reply) {
                        (Asker::Client(client), CoordinatorReply::Get(answer)) => {
                            out.push(Out::Got(client, answer));
                        }
                        (Asker::Client(client), CoordinatorReply::Write(answer)) => {
                            out.push(Out::Wrote(client, answer));
                        }
                        (asker, CoordinatorReply::Forward(answer)) => {
                            let answer = AnswerFrame::Forwarded(answer);
                            queue.extend(self.answer(asker, answer, out));
                        }
                        (asker, CoordinatorReply::Relay(stored)) => {
                            let answer = AnswerFrame::Stored(stored);
                            queue.extend(self.answer(asker, answer, out));
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

    /// What a message is on the wire. A dot is asked for of the own node, on the spot: then there is none, and
    /// what follows is in the queue.
    fn question_of(
        &mut self,
        call: CallNumber,
        message: Outgoing,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) -> Option<Ask> {
        let asker = Asker::Own(Caller::Coordinator(call));
        Some(match message {
            Outgoing::Read(read) => Ask::Read(read),
            Outgoing::Store(store) => Ask::Store(store),
            Outgoing::Relay(relay) => Ask::Relay(relay),
            Outgoing::Forward(forward) => Ask::Forward(forward),
            Outgoing::Hint(hint) => Ask::Hint(hint),
            Outgoing::ReadHints(read) => Ask::ReadHints(read),
            Outgoing::Mint(mint) => {
                let key = mint.key.clone();
                queue.extend(self.ask_replica(&key, Request::Mint(mint), asker, out));
                return None;
            }
            Outgoing::MintHint(mint) => {
                queue.extend(self.ask_hints(hints::Request::Mint(mint), asker));
                return None;
            }
        })
    }
}
