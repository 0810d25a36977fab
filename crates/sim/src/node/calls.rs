//! Who asked what, on this node or another, and how an answer finds its way back.

use std::time::Duration;

use anello_antientropy::{
    CallFailure as TreeFailure, Incoming as TreeIncoming, Input as TreeInput, Ticket as TreeTicket,
    purge,
};
use anello_gossip::To;
use anello_protocol::{
    id::NodeId,
    time::{Moment, Now},
};
use anello_replica::{
    coordinator::{self, CallFailure},
    hints,
};

use super::{ClientCall, Inner, Node, NodeInput, Out};
use crate::wire::{AnswerFrame, Ask, Frame, WireCall};

/// Which machine's call it is, and which of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    Coordinator(coordinator::CallNumber),
    Hints(hints::CallNumber),
    Trees(TreeTicket),
    Purger(purge::CallNumber),
}

/// Who gets the answer of a machine of this node.
#[derive(Debug)]
pub(super) enum Asker {
    Client(ClientCall),
    Node(NodeId, WireCall),
    Own(Caller),
}

impl Node {
    /// Sends a question: over the network, or to a machine of this node.
    pub(super) fn ask(
        &mut self,
        now: Now,
        caller: Caller,
        to: NodeId,
        ask: Ask,
        deadline: Moment,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        if to == *self.id() {
            return self.take_question(Asker::Own(caller), to, ask, out);
        }
        let wire = self.number();
        let running = self.running.as_mut()?;
        running.calls.insert(wire, (caller, to.clone()));
        let left = deadline.since(now.moment).as_micros();
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        out.push(Out::At(deadline, NodeInput::CallFailed(wire, CallFailure::Timeout)));
        out.push(Out::Send(To::Node(to), Frame::Ask(wire, left, ask)));
        None
    }

    /// Brings an answer to whoever asked.
    pub(super) fn answer(
        &mut self,
        asker: Asker,
        answer: AnswerFrame,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        match asker {
            Asker::Own(caller) => Some(outcome_for(caller, self.id().clone(), Ok(answer))),
            Asker::Node(..) if matches!(answer, AnswerFrame::Minted(_)) => {
                let what = format!("{}: a dot was asked for over the network", self.id());
                out.push(Out::Broke("a vnode issues dots for its own node only", what));
                None
            }
            Asker::Node(to, call) => {
                out.push(Out::Send(To::Node(to), Frame::Answer(call, answer)));
                None
            }
            Asker::Client(_) => {
                let what = format!("{}: a client was answered {answer:?}", self.id());
                out.push(Out::Broke("H: each request is answered once", what));
                None
            }
        }
    }

    /// Notes who asked, under the token that is returned.
    pub(super) fn note_asker(&mut self, asker: Asker) -> u64 {
        let token = self.number();
        if let Some(running) = &mut self.running {
            running.asked.insert(token, asker);
        }
        token
    }

    /// Who asked; whoever is answered twice is noticed.
    pub(super) fn asker_of(&mut self, token: u64, out: &mut Vec<Out>) -> Option<Asker> {
        let asker = self.running.as_mut()?.asked.remove(&token);
        if asker.is_none() {
            let what = format!("{}: request {token} was answered twice", self.id());
            out.push(Out::Broke("H: each request is answered once", what));
        }
        asker
    }

    /// A call to another node has ended.
    pub(super) fn call_ended(
        &mut self,
        call: WireCall,
        outcome: Result<AnswerFrame, CallFailure>,
    ) -> Option<Inner> {
        // Late answers and second copies of one find nobody who waits.
        let running = self.running.as_mut()?;
        let (caller, callee) = running.calls.remove(&call)?;
        Some(outcome_for(caller, callee, outcome))
    }
}

/// The moment of an alarm that is due, but never again within the same moment for ever.
pub(super) fn not_before(now: Now, wake: Moment) -> Moment {
    wake.max(now.moment + Duration::from_micros(1))
}

/// What an answer, or that there is none, is for the machine that asked.
fn outcome_for(caller: Caller, from: NodeId, outcome: Result<AnswerFrame, CallFailure>) -> Inner {
    match caller {
        Caller::Coordinator(call) => {
            let outcome = outcome.and_then(|answer| match answer {
                AnswerFrame::Read(held) => Ok(coordinator::Incoming::Read(held)),
                AnswerFrame::Stored(stored) => Ok(coordinator::Incoming::Stored(stored)),
                AnswerFrame::Minted(minted) => Ok(coordinator::Incoming::Minted(minted)),
                AnswerFrame::Forwarded(answer) => Ok(coordinator::Incoming::Forwarded(answer)),
                _ => Err(CallFailure::Refused),
            });
            Inner::Coordinator(coordinator::Input::Answered { call, from, outcome })
        }
        Caller::Hints(call) => {
            let outcome = outcome.and_then(|answer| match answer {
                AnswerFrame::Stored(stored) => Ok(hints::Incoming::Stored(stored)),
                AnswerFrame::Credit(credit) => Ok(hints::Incoming::Credit(credit)),
                AnswerFrame::Marked => Ok(hints::Incoming::Marked),
                _ => Err(CallFailure::Refused),
            });
            Inner::Hints(hints::Input::Answered(call, outcome))
        }
        Caller::Trees(ticket) => {
            let failure = |failure| match failure {
                CallFailure::Timeout | CallFailure::Busy | CallFailure::Closed => {
                    TreeFailure::Passing
                }
                CallFailure::Unreachable => TreeFailure::Unreachable,
                CallFailure::Refused => TreeFailure::Refused,
            };
            let outcome = outcome.map_err(failure).and_then(|answer| match answer {
                AnswerFrame::Roots(differ) => Ok(TreeIncoming::Roots(differ)),
                AnswerFrame::Ranges(differ) => Ok(TreeIncoming::Ranges(differ)),
                AnswerFrame::Keys(differ) => Ok(TreeIncoming::Keys(differ)),
                AnswerFrame::Read(held) => Ok(TreeIncoming::Read(held)),
                AnswerFrame::Stored(stored) => Ok(TreeIncoming::Stored(stored)),
                _ => Err(TreeFailure::Refused),
            });
            Inner::Trees(TreeInput::Answered { ticket, outcome })
        }
        Caller::Purger(call) => {
            let failure = |failure| match failure {
                CallFailure::Timeout | CallFailure::Closed => purge::CallFailure::Silent,
                CallFailure::Busy => purge::CallFailure::Busy,
                CallFailure::Unreachable => purge::CallFailure::Unreachable,
                CallFailure::Refused => purge::CallFailure::Refused,
            };
            let outcome = outcome.map_err(failure).and_then(|answer| match answer {
                AnswerFrame::Read(held) => Ok(purge::Incoming::Read(held)),
                AnswerFrame::Checked(checked) => Ok(purge::Incoming::Checked(checked)),
                AnswerFrame::Purged(purged) => Ok(purge::Incoming::Purged(purged)),
                _ => Err(purge::CallFailure::Refused),
            });
            Inner::Purger(purge::Input::Answered { call, outcome })
        }
    }
}
