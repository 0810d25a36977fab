//! Whether this node must serve nothing, because what it holds may have been deleted, and forgotten,
//! while it was away.
//!
//! A purge needs the word of every replica that it holds the tombstone or nothing, twice, a while apart
//! (see [`crate::purge`]). So a replica that was merely away can't hold the victim of a purged tombstone: the
//! purge would still be waiting for it. Quarantine is the second wall, for what that proof takes for granted
//! and an operator or a disk may break: a store that was put back from a copy, above all.
//!
//! A node is quarantined
//! - at its start, if it was last alive longer ago than the smallest grace of the keyspaces that it holds
//!   parts of, if its store was put back from a copy, or if it has lost its store;
//! - when it notices that it stood still for that long, by the clock that nobody sets;
//! - when it meets another member again after that long without any. Not before: to cut off the only node
//!   that is left would cost its clients everything and protect nobody.
//!
//! However short a grace is, an absence of less than some minutes is none: a restart is no reason to take a
//! whole node from its clients, and a purge waits for it anyway.
//!
//! It is over once every partition that it holds is back in step with at least one replica of each
//! datacenter that has others, a replica that serves; and at once where there is no other replica. A store
//! that was put back from a copy, or lost, has forgotten what this node acknowledged: then it takes every other
//! replica, because those that have the rest of a write's quorum may be any of them (CASSANDRA-2434).
//!
//! Where all of a datacenter's other replicas are quarantined too, and can be reached, none of them is waited
//! for: after the whole cluster was off they would wait for each other for ever. That is safe by the same
//! proof: while this node was away nobody can have purged anything that it had not confirmed. One that
//! can't be reached is waited for, because nobody knows whether it serves; an operator who removes it
//! for good ends that. A node that has forgotten what it acknowledged gives them a minute first: one that was
//! merely away has it still, and serves again soon.
//!
//! While the ring changes, those count whose word means something (see `witnesses.rs`): not the new owners
//! that are still being filled, and nobody who was written off. A node that is being filled itself has nothing
//! there that could have been forgotten without its word, and nobody reads it: however long it was away, that is
//! no reason. But one that has lost what it held may have said that it holds everything, and be read next:
//! it must be in step with all who are read until then.
//!
//! While it lasts nothing is saved of being alive, so that another start begins it anew. The machine is to
//! be told of an agreed state, and its effects be carried out, before the vnodes are told of that state:
//! until then they serve nobody anyway.

mod actor;
mod verdict;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    fmt,
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    id::{Datacenter, KeyspaceId, NodeId, PartitionId},
    message::client::Place as Replica,
    time::{Moment, Now},
};
use anello_ring::view::View;

use crate::witnesses::{is_only_filled, witnesses};

pub use actor::{
    AskReason, ClusterChanged, InStep, Lost, PeerQuarantined, QuarantineActor, QuarantineParts,
    ReachabilityChanged, Stop,
};
pub use verdict::{Lone, Others, Verdict, verdict};

/// How often is saved that the node is alive, and looked whether it stood still.
const ALARM: Duration = Duration::from_secs(5);
/// For how long a node that has forgotten what it acknowledged waits for others that are quarantined too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a node remembers of its last life, by its wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LastAlive {
    /// When it was last alive, and not in quarantine.
    pub alive_ms: u64,
    /// When it last had contact with another member, or had no others.
    pub contact_ms: u64,
}

/// The bounds of a quarantine.
#[derive(Clone, Debug)]
pub struct QuarantineConfig {
    /// For how long a node must have been away at least, however short a grace is, default 10 min. Less
    /// takes nodes from their clients at a restart.
    pub away_min: Duration,
}

impl Default for QuarantineConfig {
    fn default() -> Self {
        Self { away_min: Duration::from_secs(10 * 60) }
    }
}

/// What happens to a quarantine.
#[derive(Clone, Debug)]
pub enum Input {
    /// The members have agreed on another state.
    ClusterChanged(Arc<View>),
    /// The failure detector has another verdict on a node.
    ReachabilityChanged {
        /// The node.
        node: NodeId,
        /// Whether it answers.
        reachable: bool,
    },
    /// What the node held is gone: its disk was lost, or what was on it can't be read.
    Lost,
    /// A comparison with a replica that serves, which began after [`Effect::Quarantine`], has ended: all
    /// that it holds of the partition is held here too, and of what only this node holds nothing is left
    /// of which the [`verdict`] is [`Verdict::Keep`]. An empty partition counts as well.
    InStep {
        /// The keyspace.
        keyspace: KeyspaceId,
        /// The partition.
        partition: PartitionId,
        /// The replica.
        peer: NodeId,
    },
    /// A replica has refused to compare because it is in quarantine itself.
    PeerQuarantined(NodeId),
    /// The moment of [`Quarantine::next_wake`] may have come.
    TimeUp,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell all vnodes, and whoever compares and purges. Once it ends, the store counts no longer as put
    /// back from a copy, also at the next start.
    Quarantine(bool),
    /// Keep this for the next start.
    Save(LastAlive),
}

/// Why a node is quarantined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Away { away: Duration, grace: Duration },
    StoodStill { away: Duration, grace: Duration },
    CutOff { away: Duration, grace: Duration },
    Restored,
    Lost,
}

/// A partition in a keyspace.
type Place = (KeyspaceId, PartitionId);

/// See the head of this file.
#[derive(Debug)]
pub struct Quarantine {
    node: NodeId,
    config: QuarantineConfig,
    view: Option<Arc<View>>,
    /// The smallest grace of what it holds; none while it holds nothing.
    grace: Option<Duration>,
    reachable: BTreeSet<NodeId>,
    /// When it was seen alive last, and in contact last: by its own clocks.
    alive: Now,
    contact_ms: u64,
    /// How long before which moment that was.
    contact: (Duration, Moment),
    /// For how long it was away before this start, and whether its store was put back from a copy: until it
    /// is known what it holds.
    begun_with: Option<(Duration, bool)>,
    watch: Option<Watch>,
    save_at: Moment,
    effects: VecDeque<Effect>,
}

/// A quarantine that is on.
#[derive(Debug)]
struct Watch {
    cause: Cause,
    in_step: BTreeSet<(Place, NodeId)>,
    /// Who refuses to compare because it is quarantined too, and since when.
    quarantined: BTreeMap<NodeId, Moment>,
    /// In which datacenters a replica is still missing, by partition.
    left: BTreeMap<Place, BTreeSet<Datacenter>>,
    held: usize,
}

impl Quarantine {
    /// A node that starts. `last` is none if the store is a fresh one; `was_restored` says that the store
    /// was put back from a copy.
    pub fn new(
        now: Now,
        node: NodeId,
        config: QuarantineConfig,
        last: Option<LastAlive>,
        was_restored: bool,
    ) -> Self {
        let contact_ms = last.map_or(now.wall_ms, |last| last.contact_ms);
        let away =
            |last: LastAlive| Duration::from_millis(now.wall_ms.saturating_sub(last.alive_ms));
        let begun_with = (last.is_some() || was_restored)
            .then(|| (last.map(away).unwrap_or_default(), was_restored));
        Self {
            node,
            config,
            view: None,
            grace: None,
            reachable: BTreeSet::new(),
            alive: now,
            contact_ms,
            contact: (Duration::from_millis(now.wall_ms.saturating_sub(contact_ms)), now.moment),
            begun_with,
            watch: None,
            save_at: now.moment,
            effects: VecDeque::new(),
        }
    }

    /// Takes one input in; what is to be done about it is in [`Quarantine::next_effect`].
    pub fn handle(&mut self, now: Now, input: Input) {
        self.notice_the_time(now);
        match input {
            Input::ClusterChanged(view) => self.cluster_changed(view),
            Input::ReachabilityChanged { node, reachable } => {
                self.reachability(now, node, reachable)
            }
            Input::Lost => {
                self.begun_with = None;
                self.begin(Cause::Lost);
            }
            Input::InStep { keyspace, partition, peer } => {
                if let Some(watch) = &mut self.watch {
                    let place = (keyspace, partition);
                    watch.quarantined.remove(&peer);
                    watch.in_step.insert((place, peer));
                    self.look_at(&[place]);
                }
            }
            Input::PeerQuarantined(peer) => {
                // Patience counts from its first word: it gives it again and again.
                if let Some(watch) = &mut self.watch
                    && let Entry::Vacant(unknown) = watch.quarantined.entry(peer)
                {
                    unknown.insert(now.moment);
                    self.look_at_all();
                }
            }
            Input::TimeUp => self.look_at_all(),
        }
        self.save(now);
    }

    /// The next thing to do, in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When it wants to hear [`Input::TimeUp`], if nothing else happens before.
    pub fn next_wake(&self) -> Moment {
        self.alive.moment + ALARM
    }

    /// Whether the node must serve nothing.
    pub fn is_on(&self) -> bool {
        self.watch.is_some()
    }

    /// Why the node is not ready, if it is this.
    pub fn reason(&self) -> Option<String> {
        let watch = self.watch.as_ref()?;
        let (left, held) = (watch.left.len(), watch.held);
        Some(format!(
            "quarantined: {}; comparing with the other replicas, {left} of {held} partitions left",
            watch.cause
        ))
    }

    /// Those of the other replicas of what is left that it waits for and can't reach: an operator's next
    /// question.
    pub fn waits_for(&self) -> BTreeSet<NodeId> {
        let (Some(watch), Some(view)) = (&self.watch, &self.view) else { return BTreeSet::new() };
        let mut nodes = BTreeSet::new();
        for ((keyspace, partition), datacenters) in &watch.left {
            let Some(keyspace) = view.keyspace_of(*keyspace) else { continue };
            for replica in witnesses(view, keyspace, *partition, &self.node) {
                if datacenters.contains(&replica.datacenter)
                    && !self.reachable.contains(&replica.id)
                {
                    nodes.insert(replica.id.clone());
                }
            }
        }
        nodes
    }

    /// Looks whether the node stood still since it was last here.
    fn notice_the_time(&mut self, now: Now) {
        // Somebody may set the wall clock at any time, on all nodes at once.
        let away = now.moment.since(self.alive.moment);
        self.alive = now;
        if let Some(grace) = self.grace
            && self.is_too_long(away, grace.max(ALARM * 2))
        {
            self.begin(Cause::StoodStill { away, grace });
        }
    }

    fn is_too_long(&self, away: Duration, grace: Duration) -> bool {
        away > grace.max(self.config.away_min)
    }

    fn cluster_changed(&mut self, view: Arc<View>) {
        if self.view.as_ref().is_some_and(|own| view.epoch() <= own.epoch()) {
            return;
        }
        let graces = view.keyspaces().filter_map(|(_, keyspace)| {
            let holds_some = !view.held_in(keyspace, &self.node).is_empty();
            holds_some.then(|| Duration::from_secs(keyspace.config.tombstone_grace_s))
        });
        self.grace = graces.min();
        self.reachable.retain(|node| view.cluster().members.contains_key(node));
        self.view = Some(view);
        self.judge_the_start();
        self.look_at_all();
    }

    /// Once it is known what the node holds, and for how long tombstones of it stay.
    fn judge_the_start(&mut self) {
        let Some(grace) = self.grace else { return };
        let Some((away, was_restored)) = self.begun_with.take() else { return };
        if was_restored {
            self.begin(Cause::Restored);
        } else if self.is_too_long(away, grace) {
            self.begin(Cause::Away { away, grace });
        }
    }

    fn reachability(&mut self, now: Now, node: NodeId, reachable: bool) {
        if node == self.node {
            return;
        }
        if !reachable {
            self.reachable.remove(&node);
            if let Some(watch) = &mut self.watch {
                // When it is back it may serve.
                watch.quarantined.remove(&node);
                self.look_at_all();
            }
            return;
        }
        let was_cut_off = self.reachable.is_empty();
        self.reachable.insert(node);
        let (before, moment) = self.contact;
        let away = before + now.moment.since(moment);
        if was_cut_off
            && let Some(grace) = self.grace
            && self.is_too_long(away, grace)
        {
            self.begin(Cause::CutOff { away, grace });
        }
        self.look_at_all();
    }

    fn begin(&mut self, cause: Cause) {
        match &self.watch {
            Some(watch) if watch.cause == Cause::Lost || cause != Cause::Lost => return,
            _ => {}
        }
        let (in_step, quarantined) = (BTreeSet::new(), BTreeMap::new());
        self.watch = Some(Watch { cause, in_step, quarantined, left: BTreeMap::new(), held: 0 });
        self.effects.push_back(Effect::Quarantine(true));
        self.look_at_all();
    }

    /// Works out what is left from the beginning.
    fn look_at_all(&mut self) {
        let (Some(watch), Some(view)) = (&mut self.watch, &self.view) else { return };
        watch.left.clear();
        let mut places = Vec::new();
        for (_, keyspace) in view.keyspaces() {
            let partitions = view.held_in(keyspace, &self.node);
            places.extend(partitions.into_iter().map(|partition| (keyspace.id, partition)));
        }
        watch.held = places.len();
        self.look_at(&places);
    }

    /// Works out what is left of these, and ends the quarantine if it is nothing.
    fn look_at(&mut self, places: &[Place]) {
        let (Some(watch), Some(view)) = (&mut self.watch, &self.view) else { return };
        for place in places {
            let Some(keyspace) = view.keyspace_of(place.0) else { continue };
            if place.1.0 >= view.ring().partitions() {
                continue;
            }
            if view.placement_of(keyspace, place.1).index_of(&self.node).is_none() {
                continue;
            }
            if !watch.cause.has_forgotten() && is_only_filled(view, keyspace, place.1, &self.node) {
                watch.left.remove(place);
                continue;
            }
            let others = || witnesses(view, keyspace, place.1, &self.node);
            let mut left: BTreeSet<_> = others().map(|replica| &replica.datacenter).collect();
            left.retain(|datacenter| {
                let mut here = others().filter(|replica| replica.datacenter == **datacenter);
                let has_forgotten = watch.cause.has_forgotten();
                let patience = if has_forgotten { PATIENCE } else { Duration::ZERO };
                let is_in_step = |it: &Replica| watch.in_step.contains(&(*place, it.id.clone()));
                let is_quarantined = |it: &Replica| {
                    let since = watch.quarantined.get(&it.id);
                    let for_long = |since: &Moment| self.alive.moment.since(*since) >= patience;
                    since.is_some_and(for_long) && self.reachable.contains(&it.id)
                };
                let is_enough = match has_forgotten {
                    true => here.all(|it| is_in_step(it) || is_quarantined(it)),
                    false => here.clone().any(is_in_step) || here.all(is_quarantined),
                };
                !is_enough
            });
            match left.is_empty() {
                true => watch.left.remove(place),
                false => watch.left.insert(*place, left.into_iter().cloned().collect()),
            };
        }
        if watch.left.is_empty() {
            self.watch = None;
            self.effects.push_back(Effect::Quarantine(false));
            self.contact_ms = self.alive.wall_ms;
            self.contact = (Duration::ZERO, self.alive.moment);
            self.save_at = self.alive.moment;
        }
    }

    /// That the node is alive, while that is no reason to forget that it was away.
    fn save(&mut self, now: Now) {
        let Some(view) = &self.view else { return };
        let mut members = view.cluster().members.keys();
        if !self.reachable.is_empty() || members.all(|member| *member == self.node) {
            self.contact_ms = now.wall_ms;
            self.contact = (Duration::ZERO, now.moment);
        }
        if self.watch.is_none() && self.begun_with.is_none() && now.moment >= self.save_at {
            let last = LastAlive { alive_ms: now.wall_ms, contact_ms: self.contact_ms };
            self.effects.push_back(Effect::Save(last));
            self.save_at = now.moment + ALARM;
        }
    }
}

impl Cause {
    /// Whether the node may have acknowledged what it doesn't hold any more.
    fn has_forgotten(self) -> bool {
        match self {
            Cause::Restored | Cause::Lost => true,
            Cause::Away { .. } | Cause::StoodStill { .. } | Cause::CutOff { .. } => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (did, away, grace) = match self {
            Cause::Restored => return f.write_str("its store was put back from a copy"),
            Cause::Lost => return f.write_str("it has lost what it stored"),
            Cause::Away { away, grace } => ("away", away, grace),
            Cause::StoodStill { away, grace } => ("stood still", away, grace),
            Cause::CutOff { away, grace } => ("cut off", away, grace),
        };
        let (away, grace) = (Spoken(*away), Spoken(*grace));
        write!(f, "{did} for {away}, longer than the tombstone grace of {grace}")
    }
}

/// A time in the largest unit of which there is at least one.
struct Spoken(Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            s @ 0..60 => write!(f, "{s} s"),
            s @ 60..3600 => write!(f, "{} min", s / 60),
            s @ 3600..86_400 => write!(f, "{} h", s / 3600),
            s => write!(f, "{} d", s / 86_400),
        }
    }
}
