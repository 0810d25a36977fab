//! The node's anti-entropy, and what it wants done.

use std::collections::VecDeque;

use anello_antientropy::{Effect, Input, Outgoing, Reply, quarantine};
use anello_gossip::Input as GossipInput;
use anello_protocol::time::Now;

use super::{Caller, Inner, Node, Out};
use crate::wire::{AnswerFrame, Ask};

impl Node {
    pub(super) fn compare(
        &mut self,
        now: Now,
        input: Input,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        running.trees.handle(now, input);
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.trees.next_effect() else { break };
            match effect {
                Effect::Send { ticket, to, message, deadline } => {
                    let is_own = to == *self.id();
                    let ask = match message {
                        Outgoing::Roots(roots) => Ask::Roots(roots),
                        Outgoing::Ranges(ranges) => Ask::Ranges(ranges),
                        Outgoing::Keys(keys) => Ask::Keys(keys),
                        Outgoing::Read(read) => {
                            if !is_own {
                                out.push(Out::Repair("a key is pulled"));
                            }
                            Ask::Read(read)
                        }
                        Outgoing::Store(store) => {
                            if !is_own {
                                out.push(Out::Repair("a key is pushed"));
                            }
                            Ask::Store(store)
                        }
                        Outgoing::Purge(purge) => {
                            out.push(Out::Repair("what came back with a copy is dropped"));
                            Ask::Purge(purge)
                        }
                    };
                    queue.extend(self.ask(now, Caller::Trees(ticket), to, ask, deadline, out));
                }
                Effect::Look(ticket, look) => out.push(Out::Look(ticket, look)),
                Effect::Reply(token, reply) => {
                    let Some(asker) = self.asker_of(token.0, out) else { continue };
                    let answer = match reply {
                        Reply::Roots(differ) => AnswerFrame::Roots(differ),
                        Reply::Ranges(differ) => AnswerFrame::Ranges(differ),
                        Reply::Keys(differ) => AnswerFrame::Keys(differ),
                        Reply::Malformed(what) => {
                            let what = format!("{}: {what}", self.id());
                            out.push(Out::Broke("nodes ask what makes sense", what));
                            AnswerFrame::Malformed
                        }
                        Reply::Started(_) => continue,
                    };
                    queue.extend(self.answer(asker, answer, out));
                }
                Effect::InStep { keyspace, partition, peer } => {
                    let input = quarantine::Input::InStep { keyspace, partition, peer };
                    queue.push_back(Inner::Quarantine(input));
                }
                Effect::HandedOver { change, partition, phase, .. } => {
                    let input = GossipInput::HandedOver { change, partition, phase };
                    queue.push_back(Inner::Gossip(input));
                }
                Effect::PeerQuarantined(peer) => {
                    let input = quarantine::Input::PeerQuarantined(peer);
                    queue.push_back(Inner::Quarantine(input));
                }
                Effect::Report(report) => {
                    out.push(Out::Note(format!("{}: {report:?}", self.id())));
                }
            }
        }
    }
}
