//! The purger: what is listed, the batches by number, and the messages that are under way for them.
//!
//! Invariants: nothing is purged under another epoch than it was proved under; what arrives for a batch or
//! a listing that is gone is dropped; batches and messages under way are bounded.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    cluster::MemberState,
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    time::{Moment, Now},
};
use anello_ring::view::{Placement, View};

use super::{
    batch::{Batch, Next},
    config::PurgeConfig,
    events::{CallFailure, CallNumber, Effect, Incoming, Input, ListNumber, Outgoing},
    figures::{Account, PurgeFigures, WaitReason},
    rounds::{Listed, PAGE, Rounds},
};
use crate::store::Tombstone;

/// Forgets what was deleted. See the head of the parent.
#[derive(Debug)]
pub struct Purger {
    node: NodeId,
    config: PurgeConfig,
    standing: Option<Standing>,
    unreachable: BTreeSet<NodeId>,
    is_quarantined: bool,
    rounds: Rounds,
    batches: BTreeMap<u64, Batch>,
    next_batch: u64,
    /// Batches that settle, and until when.
    settling: BTreeSet<(Moment, u64)>,
    desk: Desk,
    account: Account,
    effects: VecDeque<Effect>,
}

/// The agreed state, and whoever could keep a hint under it.
#[derive(Debug)]
struct Standing {
    view: Arc<View>,
    members: Arc<[NodeId]>,
}

/// The questions that wait to be sent, and those that are under way.
#[derive(Debug, Default)]
struct Desk {
    queue: BTreeSet<(Moment, u64, u32)>,
    under_way: BTreeMap<CallNumber, Asked>,
    next_call: CallNumber,
}

#[derive(Debug)]
struct Asked {
    batch: u64,
    ask: u32,
    /// The keys that it is about, of a question after hints.
    about: Vec<usize>,
}

impl Purger {
    /// A purger that has not been told of any cluster yet.
    pub fn new(node: NodeId, config: PurgeConfig) -> Self {
        Self {
            node,
            config,
            standing: None,
            unreachable: BTreeSet::new(),
            is_quarantined: false,
            rounds: Rounds::default(),
            batches: BTreeMap::new(),
            next_batch: 0,
            settling: BTreeSet::new(),
            desk: Desk::default(),
            account: Account::default(),
            effects: VecDeque::new(),
        }
    }

    /// Takes one input in; what is to be done about it is in [`Purger::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Listed { number, result } => self.listed(now, number, result),
            Input::Answered { call, outcome } => self.answered(now.moment, call, outcome),
            Input::TimeUp => self.time_up(now.moment),
            Input::ClusterChanged(view) => self.cluster_changed(now.moment, view),
            Input::ReachabilityChanged { node, reachable } => {
                match reachable {
                    true => self.unreachable.remove(&node),
                    false => self.unreachable.insert(node),
                };
            }
            Input::Quarantined(is_quarantined) => {
                self.is_quarantined = is_quarantined;
                if is_quarantined {
                    self.drop_batches();
                }
            }
        }
        self.send(now.moment);
        self.list(now.moment);
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When it wants to hear [`Input::TimeUp`], if nothing else happens before. Earlier and later ones
    /// do no harm.
    pub fn next_wake(&self) -> Option<Moment> {
        let settled = self.settling.first().map(|(moment, _)| *moment);
        let retry = self.desk.queue.first().map(|(moment, ..)| *moment);
        let retry = retry.filter(|_| self.desk.under_way.len() < self.config.calls_max);
        let list = self.rounds.due().filter(|_| self.may_list());
        [settled, retry, list].into_iter().flatten().min()
    }

    /// What was done and what waits, and why.
    pub fn figures(&self) -> PurgeFigures {
        self.account.figures(self.batches.values().map(Batch::len).sum())
    }

    fn cluster_changed(&mut self, now: Moment, view: Arc<View>) {
        let own = self.standing.as_ref().map(|standing| standing.view.epoch()).unwrap_or_default();
        if view.epoch() <= own && own != Epoch::default() {
            return;
        }
        let members = &view.cluster().members;
        self.unreachable.retain(|node| members.contains_key(node));
        let could_keep_hints = members.values().filter(|member| match member.state {
            MemberState::Joining | MemberState::Up | MemberState::Leaving => true,
            MemberState::Left | MemberState::Removed => false,
        });
        let members = could_keep_hints.map(|member| member.id.clone()).collect();
        self.drop_batches();
        self.account.forget_places();
        self.rounds.cluster_changed(now, &view, &self.node);
        self.standing = Some(Standing { view, members });
    }

    /// What was proved so far is proved no longer.
    fn drop_batches(&mut self) {
        self.rounds.forget_listing();
        self.batches.clear();
        self.settling.clear();
        self.desk.queue.clear();
        self.desk.under_way.clear();
    }

    fn time_up(&mut self, now: Moment) {
        while let Some((moment, number)) = self.settling.first().copied() {
            if moment > now {
                break;
            }
            self.settling.remove(&(moment, number));
            if let Some(batch) = self.batches.get_mut(&number) {
                let next = batch.proceed(now, &self.config);
                self.follow(now, number, next);
            }
        }
    }

    fn may_list(&self) -> bool {
        !self.is_quarantined && self.batches.len() < self.config.batches_max
    }

    fn list(&mut self, now: Moment) {
        if !self.may_list() {
            return;
        }
        let batches = &self.batches;
        let is_busy = |place| batches.values().any(|batch| batch.place == place);
        if let Some(page) = self.rounds.next(now, is_busy) {
            let (keyspace, partition) = (page.keyspace, page.partition);
            if page.after.is_none() {
                self.account.begin((keyspace, partition));
            }
            let (number, after, limit) = (page.number, page.after, PAGE);
            self.effects.push_back(Effect::List { number, keyspace, partition, after, limit });
        }
    }

    fn listed(&mut self, now: Now, number: ListNumber, result: Result<Vec<Tombstone>, String>) {
        // A store that fails is asked again with the next pass; the shell has told of it.
        let tombstones = result.unwrap_or_default();
        let last = tombstones.last().filter(|_| tombstones.len() >= PAGE);
        let listed = self.rounds.listed(now.moment, number, last.map(|last| last.key.clone()));
        let (Some(listed), Some(standing)) = (listed, &self.standing) else { return };
        let Listed { keyspace, partition, grace } = listed;
        let place = (keyspace, partition);
        let view = standing.view.clone();
        let Some(placement) = view.keyspace_of(keyspace).map(|of| view.placement_of(of, partition))
        else {
            return;
        };
        let Some(own) = placement.index_of(&self.node) else { return };
        let old_enough = match own {
            0 => grace,
            _ => grace.saturating_add(self.config.patience(grace)),
        };
        let age = |tombstone: &Tombstone| {
            Duration::from_millis(now.wall_ms.saturating_sub(tombstone.latest.wall_ms()))
        };
        let old: Vec<_> =
            tombstones.into_iter().filter(|tombstone| age(tombstone) > old_enough).collect();
        if old.is_empty() {
            return;
        }
        if let Some(reason) = self.hopeless(placement, &standing.members) {
            return self.account.waits(place, reason, old.len() as u64);
        }
        let members = standing.members.clone();
        let batch = Batch::new(place, view.epoch(), placement.clone(), own, members, old);
        self.begin(now.moment, batch);
    }

    /// Who would have to answer and can't, as far as is known.
    fn hopeless(&self, placement: &Placement, members: &[NodeId]) -> Option<WaitReason> {
        let is_away = |node: &&NodeId| **node != self.node && self.unreachable.contains(*node);
        let replica = placement.replicas.iter().map(|place| &place.id).find(is_away);
        if let Some(replica) = replica {
            return Some(WaitReason::ReplicaUnreachable(replica.clone()));
        }
        members.iter().find(is_away).map(|member| WaitReason::HintsUnknown(member.clone()))
    }

    fn begin(&mut self, now: Moment, mut batch: Batch) {
        let number = self.next_batch;
        self.next_batch += 1;
        let next = batch.begin(now, &self.config);
        self.batches.insert(number, batch);
        self.follow(now, number, next);
    }

    fn follow(&mut self, now: Moment, number: u64, next: Next) {
        match next {
            Next::Ask(asks) => {
                self.desk.queue.extend(asks.into_iter().map(|ask| (now, number, ask)));
            }
            Next::Settle(until) => {
                self.settling.insert((until, number));
            }
            Next::End => {
                self.batches.remove(&number);
            }
        }
    }

    fn send(&mut self, now: Moment) {
        while self.desk.under_way.len() < self.config.calls_max
            && let Some((due, number, ask)) = self.desk.queue.first().copied()
            && due <= now
        {
            self.desk.queue.remove(&(due, number, ask));
            let Some(batch) = self.batches.get(&number) else { continue };
            let Some((to, message)) = batch.message(ask) else { continue };
            let call = self.desk.next_call;
            self.desk.next_call.0 += 1;
            let about = match message {
                Outgoing::Check(_) => batch.checked_keys(),
                Outgoing::Read(_) | Outgoing::Purge(_) => Vec::new(),
            };
            self.desk.under_way.insert(call, Asked { batch: number, ask, about });
            let deadline = now + self.config.call_timeout;
            self.effects.push_back(Effect::Send { call, to, message, deadline });
        }
    }

    fn answered(&mut self, now: Moment, call: CallNumber, outcome: Result<Incoming, CallFailure>) {
        let Some(Asked { batch: number, ask, about }) = self.desk.under_way.remove(&call) else {
            return;
        };
        let Some(batch) = self.batches.get_mut(&number) else { return };
        if !batch.waits_for(ask) {
            // The key that it was about has left the batch.
            return;
        }
        let place: (KeyspaceId, PartitionId) = batch.place;
        let outcome = batch.answered(now, &self.config, ask, &about, outcome);
        self.account.purged += outcome.purged;
        if let Some((reason, keys)) = outcome.waits {
            self.account.waits(place, reason, keys);
        }
        if let Some(at) = outcome.retry_at {
            self.desk.queue.insert((at, number, ask));
        }
        if batch.is_step_over() {
            let next = batch.proceed(now, &self.config);
            self.follow(now, number, next);
        }
    }
}
