//! A vnode, the hand that feeds it, and what it wants done.

use std::{collections::VecDeque, sync::Arc};

use anello_protocol::{
    causality::Context,
    message::replica::{Minted, Refusal},
    version::{ConflictRule, Versions},
};

use super::{key, mint, now, replica, view};
use crate::replica::{CommitNumber, CommitOutcome, Effect, Input, Replica, Reply, Request, Token};

/// See the head of this file.
pub(super) struct Bench {
    pub(super) replica: Replica,
    pub(super) effects: VecDeque<Effect>,
    pub(super) tokens: u64,
    pub(super) wall_ms: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(replica(1))
    }

    pub(super) fn with(replica: Replica) -> Self {
        let mut bench = Self::of(replica);
        bench.input(Input::ClusterChanged(view(1)));
        bench
    }

    /// One that has been told of no cluster.
    pub(super) fn of(replica: Replica) -> Self {
        Self { replica, effects: VecDeque::new(), tokens: 0, wall_ms: 1000 }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.replica.handle(now(self.wall_ms), input);
        self.look();
    }

    pub(super) fn look(&mut self) {
        while let Some(effect) = self.replica.next_effect() {
            self.effects.push_back(effect);
        }
    }

    pub(super) fn ask(&mut self, request: Request) -> Token {
        let token = Token(self.tokens);
        self.tokens += 1;
        self.input(Input::Asked { token, request });
        token
    }

    pub(super) fn next(&mut self) -> Effect {
        self.effects.pop_front().expect("something is to be done")
    }

    pub(super) fn nothing(&self) {
        assert_eq!(self.effects, [], "nothing is to be done");
    }

    /// Answers the load that is asked for.
    pub(super) fn load(&mut self, found: Versions) {
        match self.next() {
            Effect::Load(key) => self.input(Input::Loaded(key, Ok(found))),
            other => panic!("expected a load, not {other:?}"),
        }
    }

    /// The commit that is to be made.
    pub(super) fn commit(&mut self) -> (CommitNumber, Arc<Versions>) {
        match self.next() {
            Effect::Commit(number, commit) => (number, commit.versions),
            other => panic!("expected a commit, not {other:?}"),
        }
    }

    pub(super) fn durable(&mut self, number: CommitNumber) {
        self.input(Input::Committed(number, CommitOutcome::Durable));
    }

    pub(super) fn reply(&mut self, to: Token) -> Reply {
        match self.next() {
            Effect::Reply(token, reply) if token == to => reply,
            other => panic!("expected a reply to {to:?}, not {other:?}"),
        }
    }

    pub(super) fn minted(&mut self, to: Token) -> Minted {
        match self.reply(to) {
            Reply::Mint(Ok(minted)) => minted,
            other => panic!("expected a dot, not {other:?}"),
        }
    }

    pub(super) fn refused(&mut self, to: Token) -> Refusal {
        match self.reply(to) {
            Reply::Read(Err(refusal))
            | Reply::Store(Err(refusal))
            | Reply::Mint(Err(refusal))
            | Reply::Purge(Err(refusal)) => refusal,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    /// A write that goes well, on a key that the store has in this state.
    pub(super) fn write(
        &mut self,
        write_id: u128,
        context: &Context,
        rule: ConflictRule,
        found: &Versions,
    ) -> (Minted, Versions) {
        let token = self.ask(Request::Mint(mint(&key("k"), write_id, context, rule)));
        self.load(found.clone());
        let (number, kept) = self.commit();
        self.durable(number);
        let minted = self.minted(token);
        self.nothing();
        (minted, (*kept).clone())
    }
}
