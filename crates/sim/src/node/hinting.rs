//! The node's hint store, and what it wants done.

use std::collections::VecDeque;

use anello_protocol::time::Now;
use anello_replica::{
    hints::{Effect as HintEffect, Input as HintInput, Outgoing, Reply},
    replica::CommitOutcome,
    store::NotTaken,
};

use super::{Caller, Freezer, Inner, Node, Out};
use crate::{
    disk::DiskWrite,
    wire::{AnswerFrame, Ask},
};

impl Node {
    pub(super) fn keep_hints(
        &mut self,
        now: Now,
        input: HintInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        running.hints.handle(now, input);
        if running.hints.waiting() > self.settings.hints.requests_max {
            let what = format!("{}: {} wait for hints", self.id(), self.hints_waiting());
            out.push(Out::Broke("H: everything is bounded", what));
        }
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.hints.next_effect() else { return };
            match effect {
                HintEffect::Load(owner, key) => out.push(Out::LoadHint(owner, key)),
                HintEffect::Page { page, owner, from, count, bytes } => {
                    out.push(Out::PageHints { page, owner, from, count, bytes });
                }
                HintEffect::Commit(number, change) => {
                    if self.disk.is_full && self.rng.chance(500) {
                        let outcome = CommitOutcome::NotTaken(NotTaken::Busy);
                        running.hints.handle(now, HintInput::Committed(number, outcome));
                    } else {
                        self.disk.push(DiskWrite::Hint(number, change));
                    }
                }
                HintEffect::Send { call, to, message, deadline } => {
                    let ask = match message {
                        Outgoing::Store(store) => {
                            out.push(Out::Repair("a hint is delivered"));
                            Ask::Store(store)
                        }
                        Outgoing::Credit(credit) => Ask::Credit(credit),
                        Outgoing::Mark(mark) => Ask::Mark(mark),
                    };
                    queue.extend(self.ask(now, Caller::Hints(call), to, ask, deadline, out));
                }
                HintEffect::Quiet => self.quiet(now, Freezer::Hints, out),
                HintEffect::Reply(token, reply) => {
                    let Some(asker) = self.asker_of(token.0, out) else { continue };
                    let answer = match reply {
                        Reply::Store(stored) => AnswerFrame::Stored(stored),
                        Reply::Mint(minted) => AnswerFrame::Minted(minted),
                        Reply::Read(held) => AnswerFrame::Read(held),
                        Reply::Check(checked) => AnswerFrame::Checked(checked),
                        Reply::Credit(credit) => AnswerFrame::Credit(credit),
                    };
                    queue.extend(self.answer(asker, answer, out));
                }
            }
        }
    }

    pub(super) fn hints_waiting(&self) -> usize {
        self.running.as_ref().map_or(0, |running| running.hints.waiting())
    }
}
