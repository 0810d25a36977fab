//! Anti-entropy of one node: what happens to it goes to its parts, and what these come to is put together.
//!
//! Invariants: every question is answered exactly once; every unit ends, after a bounded number of
//! failures, and none brings itself back; what is remembered of a pair of a tree and a node is a few
//! words, whatever the data.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    message::hint::MAX_MARKED,
    time::{Moment, Now},
};
use anello_ring::view::View;

use crate::{
    answering::{Answering, Compared},
    chase::Chase,
    desk::{AntiEntropyConfig, Desk, Owner},
    events::{CallFailure, Effect, Incoming, Input, Question, Reply, Report, Ticket, Token},
    exchange::Outcome,
    looking::Looked,
    rounds::Progress,
    schedule::{Pair, Peer, Schedule},
    scrub::Scrub,
    units::{Ended, Tree, Units},
};

/// The least time between two looks after what is due.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// Finds what differs between this node and the other replicas, and mends it. See the head of this file.
#[derive(Debug)]
pub struct AntiEntropy {
    pub(crate) desk: Desk,
    pub(crate) schedule: Schedule,
    pub(crate) units: Units,
    /// Trees that are walked before others if they differ.
    urgent: BTreeSet<Tree>,
    /// When to compare what is awaited for a change of the ring.
    chase: Chase,
    answering: Answering,
    scrub: Scrub,
}

impl AntiEntropy {
    /// Anti-entropy of a node that has not been told of any cluster yet. `seed` scatters its times.
    pub fn new(node: NodeId, config: AntiEntropyConfig, seed: u64) -> Self {
        Self {
            desk: Desk::new(node, config, seed),
            schedule: Schedule::default(),
            units: Units::default(),
            urgent: BTreeSet::new(),
            chase: Chase::default(),
            answering: Answering::default(),
            scrub: Scrub::default(),
        }
    }

    /// Takes one input in; what is to be done about it is in [`AntiEntropy::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.desk.now = now;
        match input {
            Input::Asked { token, from, question } => self.asked(token, from, question),
            Input::Start(token) => {
                let round = self.schedule.start_round();
                self.desk.reply(token, Reply::Started(round));
            }
            Input::ScrubAll => self.scrub.all(),
            Input::MarkForRepair(trees) => {
                let trees: BTreeSet<Tree> = trees.into_iter().take(MAX_MARKED).collect();
                trees.into_iter().for_each(|tree| self.compare_with_all(tree));
            }
            Input::Answered { ticket, outcome } => self.answered(ticket, outcome),
            Input::Looked(ticket, looked) => self.looked(ticket, looked),
            Input::TimeUp => {}
            Input::ClusterChanged(view) => self.cluster_changed(view),
            Input::ReachabilityChanged { node, reachable } => {
                self.schedule.reachability_changed(&mut self.desk, &node, reachable);
                self.drop_unwanted();
                if reachable {
                    self.chase.soon(&mut self.desk, &node);
                }
            }
            Input::Quarantined { partitions, was_restored } => {
                self.quarantined(partitions, was_restored);
            }
            Input::Pressure(pressure) => self.desk.budget.press(now.moment, pressure),
        }
        self.advance();
    }

    /// What was found before a quarantine began says nothing of what is so within it: all begins anew.
    fn quarantined(&mut self, partitions: BTreeSet<PartitionId>, was_restored: bool) {
        let begins = self.desk.quarantined.is_empty() && !partitions.is_empty();
        self.desk.quarantined = partitions;
        self.desk.was_restored = was_restored;
        if !begins {
            return;
        }
        self.desk.refusing.clear();
        let peers = self.schedule.peers.iter().filter(|(_, peer)| peer.is_reachable);
        let reachable: Vec<NodeId> = peers.map(|(id, _)| id.clone()).collect();
        for is_reachable in [false, true] {
            for peer in &reachable {
                self.schedule.reachability_changed(&mut self.desk, peer, is_reachable);
            }
            self.drop_unwanted();
        }
        let words = self.desk.handovers.begin_anew(self.desk.epoch());
        self.desk.give(words);
        self.chase_all();
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.desk.effects.pop_front()
    }

    /// When it wants to hear [`Input::TimeUp`], if nothing else happens before. Earlier and later ones
    /// do no harm.
    pub fn next_wake(&mut self) -> Option<Moment> {
        let units = self.units.due(&mut self.desk);
        let due = units.into_iter().chain(self.schedule.due()).chain(self.chase.due());
        let due = due.chain(self.scrub.due()).min()?;
        // Never at once again, so that nothing can keep the clock from going on.
        Some(due.max(self.desk.now.moment + SHORTEST_PAUSE))
    }

    /// How far a round has come; nothing of one that was never begun.
    pub fn progress(&self, round: u64) -> Option<Progress> {
        self.schedule.rounds.progress(round)
    }

    /// What is known of a tree that is shared with a node.
    pub fn pair(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        peer: &NodeId,
    ) -> Option<Pair> {
        self.schedule.peers.get(peer)?.pairs.get(&(keyspace, partition)).copied()
    }

    /// What is known of a tree, by the nodes that it is shared with.
    pub fn pairs(&self, keyspace: KeyspaceId, partition: PartitionId) -> Vec<(NodeId, Pair)> {
        let peers = self.schedule.peers.iter();
        let pair = |(id, peer): (&NodeId, &Peer)| {
            peer.pairs.get(&(keyspace, partition)).map(|pair| (id.clone(), *pair))
        };
        peers.filter_map(pair).collect()
    }

    fn asked(&mut self, token: Token, from: Option<NodeId>, question: Question) {
        let tree = match &question {
            Question::Roots(_) => None,
            Question::Ranges(ranges) => Some((ranges.keyspace, ranges.partition)),
            Question::Keys(keys) => Some((keys.keyspace, keys.partition)),
        };
        // A question that is refused walks nothing: who is quarantined and gave way to all that ask would
        // never get in step.
        let is_walked = |tree: &Tree| {
            self.schedule.held.contains(*tree) && !self.desk.quarantined.contains(&tree.1)
        };
        if let Some(tree) = tree.filter(is_walked) {
            self.units.walked_by(&mut self.desk, tree, from.as_ref());
        }
        self.answering.asked(&mut self.desk, &self.schedule.held, token, from, question);
    }

    fn answered(&mut self, ticket: Ticket, outcome: Result<Incoming, CallFailure>) {
        match self.desk.answered(ticket, &outcome) {
            Some(Owner::Sweep(peer)) => {
                let Some(peer) = self.schedule.peers.get_mut(&peer) else { return };
                let Some(sweep) = &mut peer.sweep else { return };
                if let Some(compared) = sweep.answered(&mut self.desk, ticket, outcome) {
                    self.compared(&compared);
                    self.walk(&compared);
                }
            }
            Some(Owner::Walk(unit)) => {
                if let Some(exchange) = self.units.exchange(unit) {
                    exchange.answered(&mut self.desk, outcome);
                }
            }
            Some(Owner::Transfer(unit, number)) => {
                if let Some(exchange) = self.units.exchange(unit) {
                    exchange.transferred(&mut self.desk, number, outcome);
                }
            }
            Some(Owner::Lone(unit, number, node)) => {
                if let Some(exchange) = self.units.exchange(unit) {
                    exchange.heard(&mut self.desk, number, &node, outcome);
                }
            }
            Some(Owner::Answer | Owner::Scrub) | None => {}
        }
    }

    fn looked(&mut self, ticket: Ticket, looked: Looked) {
        match self.desk.owner(ticket) {
            Some(Owner::Answer) => {
                if let Some(mut compared) = self.answering.looked(&mut self.desk, ticket, looked) {
                    let differs = compared.partitions.iter().any(|(_, differs)| *differs);
                    if !self.schedule.compared_by(&mut self.desk, &compared.peer, differs) {
                        compared.partitions.retain(|(_, differs)| !differs);
                    }
                    self.compared(&compared);
                }
            }
            Some(Owner::Sweep(peer)) => {
                let peer = self.schedule.peers.get_mut(&peer);
                if let Some(sweep) = peer.and_then(|peer| peer.sweep.as_mut()) {
                    sweep.looked(&mut self.desk, ticket, looked);
                }
            }
            Some(Owner::Walk(unit)) => {
                if let Some(exchange) = self.units.exchange(unit) {
                    exchange.looked(&mut self.desk, looked);
                }
            }
            Some(Owner::Scrub) => {
                let changed = self.scrub.looked(&mut self.desk, &self.schedule.held, looked);
                changed.into_iter().for_each(|tree| self.compare_with_all(tree));
            }
            Some(Owner::Transfer(unit, number)) => {
                if let Some(exchange) = self.units.exchange(unit) {
                    exchange.weighed(&mut self.desk, number, looked);
                }
            }
            Some(Owner::Lone(..)) | None => {}
        }
    }

    /// Roots were compared: what is equal is in step.
    fn compared(&mut self, compared: &Compared) {
        let Compared { peer, began, keyspace, partitions } = compared;
        let wall_ms = self.desk.now.wall_ms;
        for (partition, differs) in partitions {
            let tree = (*keyspace, *partition);
            let Some(pair) = self.schedule.pair(peer, tree) else { continue };
            if *differs {
                pair.differs = true;
            } else {
                let now = Some(wall_ms);
                *pair = Pair { in_step_ms: now, caught_up_ms: now, differs: false };
                self.desk.in_step(tree, peer);
                if let Some(began) = began {
                    self.proved(*began, tree, peer);
                }
            }
        }
    }

    /// This node holds all that another does of a tree, by a comparison that began under a state. What is awaited
    /// of the same tree from others is most often held as well.
    fn proved(&mut self, began: Epoch, tree: Tree, peer: &NodeId) {
        if !self.desk.handovers.awaits(tree, peer) {
            return;
        }
        let word = self.desk.handovers.proved(began, tree, peer);
        self.desk.give(word);
        let others: Vec<NodeId> = self.desk.handovers.peers_of(tree.1).cloned().collect();
        others.iter().for_each(|other| self.chase.soon(&mut self.desk, other));
    }

    /// Compares what is awaited for a change of the ring.
    fn chase(&mut self) {
        for peer in self.chase.take(&mut self.desk) {
            let left: Vec<Tree> = self.desk.handovers.left_with(&peer).collect();
            if left.is_empty() || !self.schedule.is_reachable(&peer) {
                self.chase.forget(&peer);
            } else if !self.schedule.is_sweeping(&peer) {
                let idle = left.into_iter().filter(|tree| !self.units.has(*tree, &peer));
                idle.for_each(|tree| self.schedule.sweep_soon(&peer, tree));
            }
        }
    }

    fn chase_all(&mut self) {
        let peers: Vec<NodeId> = self.desk.handovers.peers().cloned().collect();
        peers.iter().for_each(|peer| self.chase.soon(&mut self.desk, peer));
    }

    /// What a sweep has found to differ is walked. Where that is done with another node already, most often
    /// nothing is left to do then: the tree is put behind that instead, and its roots are compared once more,
    /// which costs a digest. Only what was put behind is: writes make trees differ all the time, and a sweep
    /// that went over all of them again would never end.
    fn walk(&mut self, compared: &Compared) {
        let Compared { peer, keyspace, partitions, .. } = compared;
        let rounds = self.schedule.swept_for(peer);
        for (partition, _) in partitions.iter().filter(|(_, differs)| *differs) {
            let tree = (*keyspace, *partition);
            let handovers = &self.desk.handovers;
            // But who is quarantined must fetch for itself: the other one is refused here, and would wait for ever.
            let is_quarantined = self.desk.quarantined.contains(partition);
            if handovers.is_filled(tree, peer) && !handovers.awaits(tree, peer) && !is_quarantined {
                continue;
            }
            if self.units.has_other(tree, peer) {
                self.schedule.put_behind(peer, tree);
            } else {
                self.add_unit(tree, peer, &rounds);
            }
        }
    }

    /// A tree is compared with all nodes that share it, and walked before others. Several nodes may ask for
    /// the same, and each of those it is compared with may have what is missing, so roots are compared first.
    fn compare_with_all(&mut self, tree: Tree) {
        self.urgent.insert(tree);
        for peer in self.schedule.sharers(tree) {
            if self.schedule.is_reachable(&peer) {
                self.schedule.sweep_soon(&peer, tree);
            } else {
                self.schedule.mark_due(&peer);
            }
        }
    }

    fn add_unit(&mut self, tree: Tree, peer: &NodeId, rounds: &[u64]) {
        if self.schedule.is_reachable(peer) {
            let is_awaited = self.desk.handovers.awaits(tree, peer);
            let is_first = self.urgent.remove(&tree) || is_awaited;
            let new = self.units.add(tree, peer, rounds, self.desk.now.moment, is_first);
            self.schedule.rounds.unit_added(&new);
        }
    }

    fn cluster_changed(&mut self, view: Arc<View>) {
        if view.epoch() < self.desk.epoch() {
            return;
        }
        self.schedule.adopt(&mut self.desk, &view);
        self.desk.adopt(view);
        self.chase_all();
        self.scrub.retain(&self.schedule.held);
        self.urgent.retain(|tree| self.schedule.held.contains(*tree));
        self.drop_unwanted();
    }

    fn drop_unwanted(&mut self) {
        let peers = &self.schedule.peers;
        let is_wanted = |peer: &NodeId, tree: Tree| {
            peers.get(peer).is_some_and(|it| it.is_reachable && it.pairs.contains_key(&tree))
        };
        let ended = self.units.retain(&mut self.desk, is_wanted);
        ended.into_iter().for_each(|ended| self.ended(ended));
    }

    fn ended(&mut self, ended: Ended) {
        let Ended { tree, peer, rounds, outcome, is_one_way, began, is_filling, dropped } = ended;
        self.schedule.rounds.unit_ended(&rounds);
        self.schedule.walked(tree);
        if dropped > 0 {
            let ((keyspace, partition), keys) = (tree, dropped);
            self.desk.report(Report::Dropped { keyspace, partition, keys });
        }
        let wall_ms = self.desk.now.wall_ms;
        let Some(pair) = self.schedule.pair(&peer, tree) else { return };
        match outcome {
            Some(Outcome::InStep) => {
                let now = Some(wall_ms);
                *pair = match is_one_way {
                    true => Pair { caught_up_ms: now, ..*pair },
                    false => Pair { in_step_ms: now, caught_up_ms: now, differs: false },
                };
                self.desk.in_step(tree, &peer);
                // Any other has left out what this node may have forgotten, and may have begun too early.
                if is_filling {
                    self.proved(began, tree, &peer);
                }
                if self.desk.handovers.awaits(tree, &peer) {
                    self.chase.soon(&mut self.desk, &peer);
                }
            }
            Some(Outcome::Unsettled) => pair.differs = true,
            Some(Outcome::Unresolved) => {
                pair.differs = true;
                self.schedule.mark_due(&peer);
                let (keyspace, partition) = tree;
                // What is awaited is tried again within seconds, and the figures say what holds it up.
                if !is_filling {
                    self.desk.report(Report::Unresolved { keyspace, partition, peer });
                }
            }
            None => {}
        }
    }

    fn advance(&mut self) {
        if self.desk.view.is_none() {
            return;
        }
        let ended = self.units.advance(&mut self.desk);
        ended.into_iter().for_each(|ended| self.ended(ended));
        self.chase();
        self.schedule.advance(&mut self.desk);
        self.scrub.advance(&mut self.desk, &self.schedule.held);
        self.schedule.rounds.settle(self.desk.now.wall_ms);
    }
}
