//! The behaviour of a node's hint store: keeping what others can't take at the moment, and handing it over
//! once they can. The phases are files of their own:
//!
//! ```text
//! keeping.rs      joining versions into a hint, committing, removing
//! minting.rs      issuing a dot when no replica can
//! gathering.rs    reads and checks, over all owners of a key
//! delivering.rs   runs over the hints of an owner that is back; marks
//! answering.rs    what becomes of a run by the owner's answers
//! expiring.rs     hints that are too old, or of dropped keyspaces
//! granting.rs     the other side: how much this node can take
//! ```
//!
//! Invariants:
//! - a hint counts for nothing before the commit that holds it is durable;
//! - one is removed only when somebody whose it is has exactly what is kept durably, its age is past the
//!   bound and no write counts it, or its keyspace is gone;
//! - a run begins with the oldest that is left, whatever became of the one before;
//! - whatever is kept, sent or waited for is bounded; past a bound there is a refusal, and the owner is
//!   told what to compare.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    key::DataKey,
    message::{hint::MAX_CHECKED, replica::Refusal},
    time::{Moment, Now},
};
use anello_ring::view::View;

use super::{
    delivering::Delivery,
    events::{CommitNumber, Effect, HintFigures, Input, OwnerFigures, Reply, Request, Token},
    expiring::Sweeper,
    gathering::Gathering,
    granting::Granter,
    keeping::CommitUnderWay,
    open::KeyState,
    owner::{Owner, RunState},
    store::Shelved,
};
use crate::replica::Issuer;

/// What stands for the hint store where a vnode's partition stands: no partition has this number.
const NO_PARTITION: PartitionId = PartitionId(u32::MAX);

/// The bounds of a hint store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HintStoreConfig {
    /// The most requests that wait for the shelf, default 4,096. More hide a slow disk for longer.
    pub requests_max: usize,
    /// The most bytes of keys and values in them, default 8 MiB. More costs that much memory.
    pub requests_bytes_max: usize,
    /// The most bytes kept for one owner, default 256 MiB. More costs that much disk, and lets an owner be
    /// away for longer before it has to compare what it holds.
    pub bytes_max: u64,
    /// How long a hint is kept after the last write to it, default 3 h. Longer costs disk; anti-entropy does
    /// what comes later. One that counted towards a write quorum is kept until it is delivered.
    pub age_max: Duration,
    /// How many bytes others may have under way to this node, default 4 MiB. More lets hints drain faster
    /// and foreground requests wait for longer behind them.
    pub grant_bytes: u64,
}

impl Default for HintStoreConfig {
    fn default() -> Self {
        Self {
            requests_max: 4096,
            requests_bytes_max: 8 << 20,
            bytes_max: 256 << 20,
            age_max: Duration::from_secs(3 * 3600),
            grant_bytes: 4 << 20,
        }
    }
}

/// A node's hint store. See the head of this file.
#[derive(Debug)]
pub struct HintStore {
    pub(super) node: NodeId,
    pub(super) config: HintStoreConfig,
    pub(super) issuer: Issuer,
    pub(super) view: Option<Arc<View>>,
    pub(super) unreachable: BTreeSet<NodeId>,
    pub(super) frozen: Freezing,
    pub(super) owners: BTreeMap<NodeId, Owner>,
    pub(super) keys: BTreeMap<(NodeId, DataKey), KeyState>,
    pub(super) commits: BTreeMap<CommitNumber, CommitUnderWay>,
    pub(super) next_commit: CommitNumber,
    /// The highest number of any hint, of whatever owner, gone ones included: an owner that was forgotten
    /// and comes again begins after it, so a place in the order never has two hints.
    pub(super) last_number: u64,
    pub(super) gatherings: BTreeMap<u64, Gathering>,
    pub(super) next_gathering: u64,
    pub(super) load: Load,
    pub(super) delivery: Delivery,
    pub(super) sweeper: Sweeper,
    granter: Granter,
    pub(super) dropped: u64,
    /// When the first input came.
    started: Option<Now>,
    pub(super) effects: VecDeque<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freezing {
    No,
    /// Changes are still under way.
    Ending,
    Quiet,
}

/// What waits, by count and bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) requests: usize,
    pub(super) bytes: usize,
}

impl HintStore {
    /// A hint store that goes on from what its shelf holds. `seed` is drawn at random at every start.
    ///
    /// The record among it is to be left out when it can't be proved that the shelf holds everything that
    /// it ever acknowledged: dots are then issued under a new incarnation.
    pub fn new(node: NodeId, config: HintStoreConfig, seed: u64, shelved: Shelved) -> Self {
        let numbers = shelved.owners.iter().map(|(_, totals)| totals.last_number);
        let last_number = numbers.max().unwrap_or(0);
        let owners = shelved.owners.into_iter().filter(|(_, totals)| totals.count > 0);
        Self {
            issuer: Issuer::new(&node, NO_PARTITION, seed, shelved.record),
            granter: Granter::new(config.grant_bytes),
            node,
            config,
            view: None,
            unreachable: BTreeSet::new(),
            frozen: Freezing::No,
            owners: owners.map(|(id, totals)| (id, Owner::new(totals))).collect(),
            keys: BTreeMap::new(),
            commits: BTreeMap::new(),
            next_commit: CommitNumber(0),
            last_number,
            gatherings: BTreeMap::new(),
            next_gathering: 0,
            load: Load::default(),
            delivery: Delivery::default(),
            sweeper: Sweeper::default(),
            dropped: 0,
            started: None,
            effects: VecDeque::new(),
        }
    }

    /// Takes one input in; what is to be done about it is in [`HintStore::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.started.get_or_insert(now);
        match input {
            Input::Asked { token, request } => self.asked(now, token, request),
            Input::Loaded { owner, key, found } => self.loaded(now, (owner, key), found),
            Input::Paged(page, found) => self.paged(now, page, found),
            Input::Committed(number, outcome) => self.committed(now, number, outcome),
            Input::Answered(call, outcome) => self.answered(now, call, outcome),
            Input::ClusterChanged(view) => self.cluster_changed(now, view),
            Input::ReachabilityChanged { node, reachable } => {
                self.reachability_changed(now, node, reachable);
            }
            Input::PressureChanged(pressure) => self.granter.pressure_changed(pressure),
            Input::Freeze => {
                self.frozen = Freezing::Ending;
                self.settle_freeze();
            }
            Input::Thaw => {
                self.frozen = Freezing::No;
                self.drive_all(now);
            }
            Input::TimeUp => self.time_up(now),
        }
        if std::mem::take(&mut self.delivery.is_run_due) {
            self.begin_runs(now);
        }
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::TimeUp`] is due, if ever.
    pub fn next_wake(&self) -> Option<Moment> {
        let run = self.next_run();
        let is_any_kept = self.owners.values().any(|owner| owner.totals.count > 0);
        let sweep = (is_any_kept && self.view.is_some()).then_some(self.sweeper.due);
        run.into_iter().chain(sweep).min()
    }

    /// The state of things.
    pub fn figures(&self, now: Now) -> HintFigures {
        let owners = self.owners.iter().filter(|(_, owner)| !owner.is_idle());
        let figures = |(id, owner): (&NodeId, &Owner)| {
            let oldest_ms = match owner.totals.count {
                0 => 0,
                _ => self.clock_ms(now).saturating_sub(owner.totals.oldest_ms),
            };
            let figures = OwnerFigures {
                count: owner.totals.count,
                bytes: owner.totals.bytes,
                oldest_s: oldest_ms / 1000,
                in_flight: owner.run.in_flight.len(),
                credit_bytes: owner.run.balance,
                marked: owner.marked(),
            };
            (id.clone(), figures)
        };
        HintFigures {
            owners: owners.map(figures).collect(),
            delivered: self.delivery.delivered,
            dropped: self.dropped,
            granted_bytes: self.granter.granted(now.moment),
            pressure: self.granter.pressure(),
        }
    }

    /// The clock by which hints age: the wall clock of the start, carried on by the moments since. The wall
    /// clock may jump ahead, and would make everything too old at once.
    pub(super) fn clock_ms(&self, now: Now) -> u64 {
        let started = self.started.unwrap_or(now);
        let passed = now.moment.since(started.moment).as_millis();
        started.wall_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// How many requests wait for the shelf.
    pub fn waiting(&self) -> usize {
        self.load.requests
    }

    /// The number of the state that it acts under; 0 while it has been told none.
    pub fn epoch(&self) -> Epoch {
        self.view.as_ref().map(|view| view.epoch()).unwrap_or_default()
    }

    fn asked(&mut self, now: Now, token: Token, request: Request) {
        if let Err(refusal) = self.admit(&request) {
            return self.effects.push_back(Effect::Reply(token, request.refused(refusal)));
        }
        match request {
            Request::Credit(from, ask) => {
                let credit = self.granter.grant(now.moment, from, ask.waiting_bytes);
                self.effects.push_back(Effect::Reply(token, Reply::Credit(credit)));
            }
            Request::Read(_) | Request::Check(_) => self.gather(now, token, request),
            Request::Store(_) | Request::Mint(_) => self.take_in(now, token, request),
        }
    }

    /// Whether a request is for this node, under the state that it acts under.
    pub(super) fn admit(&self, request: &Request) -> Result<(), Refusal> {
        if let Request::Check(check) = request
            && check.keys.len() > MAX_CHECKED
        {
            return Err(Refusal::Busy);
        }
        let Some(epoch) = request.epoch() else { return Ok(()) };
        let Some(view) = &self.view else { return Err(Refusal::Behind(Epoch::default())) };
        let own = view.epoch();
        if epoch < own {
            return Err(Refusal::StaleEpoch(own));
        }
        if epoch > own {
            return Err(Refusal::Behind(own));
        }
        let (owner, key, is_mint) = match request {
            Request::Store(hint) => (&hint.owner, &hint.store.key, false),
            Request::Mint(hint) => (&hint.owner, &hint.mint.key, true),
            Request::Read(read) => {
                let keyspace = view.keyspace_of(read.key.keyspace);
                return keyspace.map(|_| ()).ok_or(Refusal::NotOwner);
            }
            Request::Check(_) | Request::Credit(..) => return Ok(()),
        };
        let keyspace = view.keyspace_of(key.keyspace).ok_or(Refusal::NotOwner)?;
        let placement = view.placement(keyspace, key.hash);
        // A replica keeps hints for its neighbours where nobody else is left to. But dots are issued by
        // replicas as such, and in the place of those only who issue them.
        let is_for_owner = match is_mint {
            true => placement.is_read(owner) && placement.index_of(&self.node).is_none(),
            false => placement.index_of(owner).is_some(),
        };
        if !is_for_owner || *owner == self.node {
            return Err(Refusal::NotOwner);
        }
        match self.frozen {
            Freezing::No => Ok(()),
            Freezing::Ending | Freezing::Quiet => Err(Refusal::Frozen),
        }
    }

    fn cluster_changed(&mut self, now: Now, view: Arc<View>) {
        if view.epoch() < self.epoch() {
            return;
        }
        let is_gone = |id: KeyspaceId| view.keyspace_of(id).is_none();
        let was = self.view.as_ref();
        if was.is_none_or(|was| was.keyspaces().any(|(_, keyspace)| is_gone(keyspace.id))) {
            self.sweeper.sweep_all(now.moment);
        }
        let has_moved = was.is_none_or(|was| {
            let (was, is) = (was.cluster(), view.cluster());
            was.change != is.change || was.layout().owners != is.layout().owners
        });
        self.unreachable.retain(|node| view.cluster().members.contains_key(node));
        self.view = Some(view);
        let is_busy = |id: &NodeId| self.keys.keys().any(|(owner, _)| owner == id);
        let idle: Vec<_> = self
            .owners
            .iter()
            .filter(|(id, owner)| owner.is_idle() && owner.run.in_flight.is_empty() && !is_busy(id))
            .map(|(id, _)| id.clone())
            .collect();
        idle.iter().for_each(|id| drop(self.owners.remove(id)));
        for owner in self.owners.values_mut() {
            owner.run.held_back.clear();
            owner.run.may_redirect |= has_moved;
            if matches!(owner.run.state, RunState::Resting(_)) {
                owner.run.state = RunState::Resting(Some(now.moment));
            }
        }
        self.forget_marks_of_the_gone();
        self.drive_all(now);
    }

    fn time_up(&mut self, now: Now) {
        self.delivery.is_run_due = true;
        self.delivery.forget_lurking(now.moment);
        self.sweep_when_due(now);
    }

    pub(super) fn settle_freeze(&mut self) {
        if self.frozen == Freezing::Ending && self.commits.is_empty() {
            self.frozen = Freezing::Quiet;
            self.effects.push_back(Effect::Quiet);
        }
    }

    /// What is known of an owner, from here on.
    pub(super) fn owner(&mut self, id: &NodeId) -> &mut Owner {
        if !self.owners.contains_key(id) {
            self.owners.insert(id.clone(), Owner::default());
        }
        self.owners.get_mut(id).expect("it was just put there")
    }

    /// Has the owner of what was dropped compare it with the other replicas.
    ///
    /// The marks are in memory alone: those of a process that ends are made up for by the rounds of
    /// anti-entropy, which compare everything sooner or later.
    pub(super) fn mark(&mut self, id: &NodeId, key: &DataKey) {
        let Some(view) = &self.view else { return };
        let partition = key.hash.partition(view.cluster().partitions);
        self.owner(id).mark(key.keyspace, partition);
        self.delivery.is_run_due = true;
    }
}
