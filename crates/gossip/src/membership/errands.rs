//! Changes that somebody waits for, from the request to the answer.
//!
//! A change counts as made when the newest state says what it wanted, whoever had it voted on. It is
//! answered once every member that can be reached has learned of that state, so that a request to any
//! of them finds it.

use std::collections::{BTreeSet, VecDeque};

use anello_protocol::{
    id::{Epoch, NodeId},
    message::{admin::AlterError, gossip::GossipBody},
    time::Moment,
};

use super::{Alteration, Effect, Membership, Phase, To, campaign::Purpose};
use crate::{
    agreement::proposer::Aim,
    change::{self, Change},
};

/// To how many at once the newest state is sent by the one who had it voted on. In a larger cluster those that
/// know it tell the others.
const TOLD_AT_ONCE: usize = 64;
/// The most changes that wait at a time.
const MAX_ERRANDS: usize = 64;

/// A change that somebody waits for.
#[derive(Clone, Debug)]
struct Errand {
    token: u64,
    request: Alteration,
    gives_up: Moment,
    /// Whether voters were asked to accept it: it may come about without this node.
    exposed: bool,
    /// Whether some member is known to hold data that it moves.
    moves_data: bool,
}

impl Errand {
    fn change(&self) -> Change {
        match self.request.clone() {
            Alteration::Ring(request) => Change::Ring(request),
            Alteration::Keyspace(request) if self.moves_data => Change::KeyspaceWithData(request),
            Alteration::Keyspace(request) => Change::Keyspace(request),
        }
    }

    /// Whether data goes to other owners by and by, if there is any: then nobody has to be without.
    fn goes_in_phases(&self) -> bool {
        self.moves_data || matches!(self.request, Alteration::Ring(_))
    }
}

/// A state on its way to everybody.
#[derive(Clone, Debug)]
struct Spread {
    epoch: Epoch,
    awaited: BTreeSet<NodeId>,
    tokens: Vec<u64>,
    asks_again: Moment,
    ends: Moment,
}

/// The changes that somebody waits for.
#[derive(Clone, Debug, Default)]
pub(super) struct Errands {
    /// Not yet made, in the order of their coming.
    open: VecDeque<Errand>,
    /// Made, and on their way to everybody.
    spread: Option<Spread>,
}

impl Membership {
    pub(super) fn has_errands(&self) -> bool {
        !self.errands.open.is_empty()
    }

    /// When there is something to do about changes that somebody waits for, beside ballots.
    pub(super) fn errands_due(&self) -> Option<Moment> {
        let spread = self.errands.spread.as_ref().map(|spread| spread.asks_again.min(spread.ends));
        let gives_up = self.errands.open.iter().map(|errand| errand.gives_up).min();
        [spread, gives_up].into_iter().flatten().min()
    }

    /// Does what it is time for.
    pub(super) fn attend(&mut self) {
        self.give_up_errands();
        self.spread_on();
    }

    /// Somebody wants the cluster changed.
    pub(super) fn alter(&mut self, token: u64, request: Alteration) {
        let running = self.phase == Phase::Running && self.cluster.is_some();
        if !running || self.errands.open.len() >= MAX_ERRANDS {
            let result = Err(AlterError::Unavailable { required: 1, alive: 0 });
            return self.outbox.push(Effect::Answer { token, result });
        }
        let gives_up = self.now + self.config.timing.alter;
        self.errands.open.push_back(Errand {
            token,
            request,
            gives_up,
            exposed: false,
            moves_data: false,
        });
    }

    /// Starts on the first errand that needs a ballot. Returns whether something was set going.
    pub(super) fn run_errand(&mut self) -> bool {
        while let Some(errand) = self.errands.open.front() {
            let Some(decree) = &self.record.decree else { return false };
            let next = match errand.change().apply(decree) {
                Ok(Some(next)) => next,
                Ok(None) => {
                    self.settle_errands();
                    continue;
                }
                Err(error) => {
                    let token = errand.token;
                    self.answer_errand(token, Err(error));
                    continue;
                }
            };
            let moves = match errand.goes_in_phases() {
                true => BTreeSet::new(),
                false => change::moved(&decree.state, &next.state),
            };
            let token = errand.token;
            if let Some(change) = decree.state.change.as_ref().filter(|_| !moves.is_empty()) {
                let error = AlterError::UnderWay(change.purpose.to_string());
                self.answer_errand(token, Err(error));
                continue;
            }
            let voters = decree.state.voters().count();
            let alive = self.voters_alive(&decree.state);
            if !moves.is_empty() {
                let Some(held) = self.inspected(&moves) else { return true };
                if held {
                    self.holds_data(token);
                    continue;
                }
            }
            let required = if moves.is_empty() { voters / 2 + 1 } else { voters };
            if alive < required {
                self.fail_errand(token, required, alive);
                continue;
            }
            self.run(Aim::Propose { decree: Box::new(next), moves }, Purpose::Errand(token));
            return true;
        }
        false
    }

    fn answer_errand(&mut self, token: u64, result: Result<Epoch, AlterError>) {
        self.errands.open.retain(|errand| errand.token != token);
        self.outbox.push_durably(Effect::Answer { token, result });
    }

    fn errand(&mut self, token: u64) -> Option<&mut Errand> {
        self.errands.open.iter_mut().find(|errand| errand.token == token)
    }

    /// Voters are asked to accept it.
    pub(super) fn expose_errand(&mut self, token: u64) {
        if let Some(errand) = self.errand(token) {
            errand.exposed = true;
        }
    }

    /// Too few voters are there for it.
    pub(super) fn fail_errand(&mut self, token: u64, required: usize, alive: usize) {
        let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
        let Some(exposed) = self.errand(token).map(|errand| errand.exposed) else { return };
        let error = AlterError::Unavailable { required: count(required), alive: count(alive) };
        self.answer_errand(token, Err(if exposed { AlterError::Timeout } else { error }));
    }

    /// A member holds data that it moves: so it has to go in phases.
    pub(super) fn holds_data(&mut self, token: u64) {
        if let Some(errand) = self.errand(token) {
            errand.moves_data = true;
        }
    }

    fn give_up_errands(&mut self) {
        while let Some(at) = self.errands.open.iter().position(|e| e.gives_up <= self.now) {
            let Some(errand) = self.errands.open.remove(at) else { return };
            let result = Err(AlterError::Timeout);
            self.outbox.push(Effect::Answer { token: errand.token, result });
        }
    }

    /// Those errands are done whose wish the newest state fulfils; they are answered once everybody who
    /// can be reached has learned of it.
    pub(super) fn settle_errands(&mut self) {
        let Some(decree) = &self.record.decree else { return };
        let (mut done, mut open) = (vec![], VecDeque::new());
        for errand in std::mem::take(&mut self.errands.open) {
            match errand.change().apply(decree) {
                Ok(None) => done.push(errand.token),
                Err(AlterError::NoSuchKeyspace(_)) if errand.exposed => done.push(errand.token),
                _ => open.push_back(errand),
            }
        }
        self.errands.open = open;
        if !done.is_empty() || self.errands.spread.is_some() {
            self.spread(done);
        }
    }

    /// Sends the newest state to everybody, and has these answered once all who can be reached know it.
    pub(super) fn spread(&mut self, tokens: Vec<u64>) {
        let epoch = self.epoch();
        let timing = &self.config.timing;
        let before = self.errands.spread.take();
        let ends = before.as_ref().map(|spread| spread.ends);
        let awaited = self.heartbeats.peers(true).into_iter();
        let awaited = awaited.filter(|id| self.heartbeats.epoch_of(id) < Some(epoch)).collect();
        self.errands.spread = Some(Spread {
            epoch,
            awaited,
            tokens: before.into_iter().flat_map(|spread| spread.tokens).chain(tokens).collect(),
            asks_again: self.now,
            ends: ends.unwrap_or(self.now + timing.spread),
        });
        self.spread_on();
    }

    fn spread_on(&mut self) {
        let again = self.ballot_takes() / 4;
        let Some(spread) = &mut self.errands.spread else { return };
        if spread.awaited.is_empty() || self.now >= spread.ends {
            let epoch = spread.epoch;
            let tokens = std::mem::take(&mut spread.tokens);
            self.errands.spread = None;
            for token in tokens {
                self.outbox.push_durably(Effect::Answer { token, result: Ok(epoch) });
            }
            return;
        }
        if self.now < spread.asks_again {
            return;
        }
        spread.asks_again = self.now + again;
        let mut awaited: Vec<NodeId> = spread.awaited.iter().cloned().collect();
        if awaited.len() > TOLD_AT_ONCE {
            awaited = self.dice.pick(awaited, TOLD_AT_ONCE);
        }
        let Some(decree) = &self.record.decree else { return };
        for node in awaited {
            let decided = GossipBody::Decided(Box::new(decree.clone()));
            self.outbox.send_durably(To::Node(node), decided);
        }
    }

    /// A member acts under that state.
    pub(super) fn learned(&mut self, from: &NodeId, epoch: Epoch) {
        if let Some(spread) = &mut self.errands.spread
            && epoch >= spread.epoch
        {
            spread.awaited.remove(from);
        }
    }
}
