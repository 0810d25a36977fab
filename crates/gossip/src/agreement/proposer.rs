//! One ballot: from its prepare to its decree, or to nothing.
//!
//! A ballot that finds an accepted decree proposes that one, whatever it was for. Otherwise a change
//! that moves no data needs the promises of a majority; one that does needs every voter's promise and
//! word that it holds nothing of what would move, its writes frozen since.
//!
//! A ballot that freezes and comes to nothing has to end the freeze, and a decree that some minority
//! accepted in an earlier ballot may yet be chosen in a later one. So either every voter has promised and none
//! had accepted anything: then nothing that was proposed up to this ballot can ever be chosen, and
//! all are released. Or a majority accepts a decree that changes nothing but the epoch.

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId},
    message::gossip::{Ballot, Decree},
};

/// What a ballot is for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Aim {
    /// To have this decree chosen, given that no voter holds data of the keyspaces that it moves.
    Propose { decree: Box<Decree>, moves: BTreeSet<KeyspaceId> },
    /// To bring whatever is under way to an end.
    Finish,
    /// To recall the proposer's own lost vote.
    Recall,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Wait for more votes.
    Wait,
    /// Give the own acceptor this as its vote, then tell [`Proposer::recalled`]. It must be durable before
    /// anything is sent that comes of it.
    Recall(Option<(Ballot, Decree)>),
    /// Ask all voters to accept this.
    Accept(Box<Decree>),
    /// Nothing comes of the aim; if that is because a voter holds data that would move, it is named.
    GiveUp {
        /// Who holds data.
        holder: Option<NodeId>,
        /// What becomes of the epoch instead.
        instead: Instead,
    },
    /// This is chosen: tell everybody.
    Decided(Box<Decree>),
}

/// How a ballot ends that comes to nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Instead {
    /// It froze nothing: no need to do anything.
    Nothing,
    /// Tell all voters that they are released.
    Release,
    /// Ask all voters to accept this, which changes nothing but the epoch.
    Accept(Box<Decree>),
}

#[derive(Clone, Debug)]
struct Promise {
    accepted: Option<(Ballot, Decree)>,
    holding: BTreeSet<KeyspaceId>,
}

#[derive(Clone, Debug, PartialEq)]
enum Phase {
    Preparing,
    Accepting(Box<Decree>),
    Over,
}

/// One ballot.
#[derive(Clone, Debug)]
pub(crate) struct Proposer {
    epoch: Epoch,
    ballot: Ballot,
    voters: BTreeSet<NodeId>,
    aim: Aim,
    /// The decree that changes nothing but the epoch.
    idle: Box<Decree>,
    phase: Phase,
    promises: BTreeMap<NodeId, Promise>,
    accepted: BTreeSet<NodeId>,
}

impl Proposer {
    /// A ballot among the voters, of which its proposer is one. `idle` is the decree for the epoch that
    /// changes nothing else.
    pub(crate) fn new(ballot: Ballot, voters: BTreeSet<NodeId>, idle: Decree, aim: Aim) -> Self {
        Self {
            epoch: idle.state.epoch,
            ballot,
            voters,
            aim,
            idle: Box::new(idle),
            phase: Phase::Preparing,
            promises: BTreeMap::new(),
            accepted: BTreeSet::new(),
        }
    }

    /// The epoch that is voted on.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The ballot's number.
    pub(crate) fn ballot(&self) -> &Ballot {
        &self.ballot
    }

    /// Whether voters have to freeze their data.
    pub(crate) fn freezes(&self) -> bool {
        matches!(&self.aim, Aim::Propose { moves, .. } if !moves.is_empty())
    }

    /// What voters are being asked to accept.
    pub(crate) fn proposed(&self) -> Option<&Decree> {
        match &self.phase {
            Phase::Accepting(decree) => Some(decree),
            _ => None,
        }
    }

    /// The voters that are being waited for.
    pub(crate) fn awaited(&self) -> Vec<NodeId> {
        let answered = |voter: &&NodeId| match &self.phase {
            Phase::Preparing => {
                let recalls = self.aim == Aim::Recall && **voter == self.ballot.proposer;
                self.promises.contains_key(*voter) || recalls
            }
            Phase::Accepting(_) => self.accepted.contains(*voter),
            Phase::Over => true,
        };
        self.voters.iter().filter(|voter| !answered(voter)).cloned().collect()
    }

    /// A voter promised.
    pub(crate) fn promised(
        &mut self,
        voter: NodeId,
        accepted: Option<(Ballot, Decree)>,
        holding: BTreeSet<KeyspaceId>,
    ) -> Step {
        if self.phase != Phase::Preparing || !self.voters.contains(&voter) {
            return Step::Wait;
        }
        self.promises.insert(voter, Promise { accepted, holding });
        self.prepared(false)
    }

    /// The own acceptor has recalled its vote.
    pub(crate) fn recalled(&mut self) -> Step {
        let own = Promise { accepted: None, holding: BTreeSet::new() };
        self.promises.insert(self.ballot.proposer.clone(), own);
        match self.latest_accepted() {
            Some((_, decree)) => self.accept(decree),
            None => self.give_up(None, Instead::Nothing),
        }
    }

    /// No more votes are waited for: what can be done without them?
    pub(crate) fn time_up(&mut self) -> Step {
        if self.phase == Phase::Preparing { self.prepared(true) } else { Step::Wait }
    }

    /// A voter accepted.
    pub(crate) fn accepted(&mut self, voter: NodeId) -> Step {
        let Phase::Accepting(decree) = &self.phase else { return Step::Wait };
        if self.voters.contains(&voter) {
            self.accepted.insert(voter);
        }
        if self.accepted.len() < self.majority() {
            return Step::Wait;
        }
        let decided = Step::Decided(decree.clone());
        self.phase = Phase::Over;
        decided
    }

    /// How many voters have promised.
    pub(crate) fn promises(&self) -> usize {
        self.promises.len()
    }

    /// How many more voters must accept what was proposed.
    pub(crate) fn missing(&self) -> usize {
        self.majority().saturating_sub(self.accepted.len())
    }

    /// How many voters are more than half of them.
    pub(crate) fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    fn prepared(&mut self, last_call: bool) -> Step {
        let promised = self.promises.len();
        if self.aim == Aim::Recall {
            // With so many others, every majority that contains the proposer contains one of them.
            if promised + self.majority() <= self.voters.len() {
                return Step::Wait;
            }
            self.phase = Phase::Over;
            return Step::Recall(self.latest_accepted());
        }
        if promised < self.majority() {
            return Step::Wait;
        }
        if let Some((_, decree)) = self.latest_accepted() {
            return self.accept(decree);
        }
        let unanimous = promised == self.voters.len();
        let mut holder = None;
        if let Aim::Propose { decree, moves } = &self.aim {
            let holds = |promise: &Promise| !promise.holding.is_disjoint(moves);
            holder = self.promises.iter().find(|(_, promise)| holds(promise));
            if moves.is_empty() || (unanimous && holder.is_none()) {
                return self.accept(Decree::clone(decree));
            }
        }
        let holder = holder.map(|(holder, _)| holder.clone());
        match (unanimous, last_call) {
            (true, _) => self.give_up(holder, Instead::Release),
            (false, true) => self.give_up(holder, Instead::Accept(self.idle.clone())),
            (false, false) => Step::Wait,
        }
    }

    fn accept(&mut self, decree: Decree) -> Step {
        let decree = Box::new(decree);
        self.phase = Phase::Accepting(decree.clone());
        Step::Accept(decree)
    }

    fn give_up(&mut self, holder: Option<NodeId>, instead: Instead) -> Step {
        self.phase = match &instead {
            Instead::Nothing | Instead::Release => Phase::Over,
            Instead::Accept(idle) => Phase::Accepting(idle.clone()),
        };
        Step::GiveUp { holder, instead }
    }

    fn latest_accepted(&self) -> Option<(Ballot, Decree)> {
        let accepted = self.promises.values().filter_map(|promise| promise.accepted.as_ref());
        accepted.max_by_key(|(ballot, _)| ballot).cloned()
    }
}
