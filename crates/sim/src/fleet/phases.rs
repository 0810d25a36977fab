//! The phases of a run: a cluster is formed, keyspaces are created, clients and faults are let at it, all is
//! mended. Then the replicas must become equal by themselves, tombstones must go where they may, and repair
//! must come to an end, before every key is read at ALL; and in the end nothing may be under way.

use std::time::Duration;

use anello_gossip::Alteration;
use anello_protocol::{
    cluster::{KeyspaceConfig, Replication},
    id::KeyspaceName,
    message::admin::{AlterKeyspace, KeyspaceChange},
    version::ConflictRule,
};

use super::{Event, Fleet, LOOK, NodeInput, Phase, Slot, shape::uses_lww};
use crate::client::{Client, keyspaces};

/// How long a phase that must end by itself may take.
const PHASE_MAX: Duration = Duration::from_secs(180);
/// Within what time after the mending hints have to be with their owners (promise C).
const HEAL: Duration = Duration::from_secs(10);
/// What comes on top of that and of the rounds, for links that lose much and nodes that have just found each
/// other.
const SLACK: Duration = Duration::from_secs(20);
/// How long what was begun before all were equal may go on: an answer that was lost is waited for for 10 s.
const REST_MAX: Duration = Duration::from_secs(40);

impl Fleet {
    pub(super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_began = self.schedule.now();
        self.history.note(self.phase_began, format_args!("== {phase:?}"));
    }

    /// Goes on to the next phase when it is time.
    pub(super) fn look(&mut self) {
        let now = self.schedule.now();
        let lasted = now.since(self.phase_began);
        match self.phase {
            Phase::Forming => {
                if self.is_faulty_from_start && lasted > Duration::from_secs(8) {
                    self.is_faulty_from_start = false;
                    self.mend();
                }
                if !self.is_faulty_from_start && self.is_whole() {
                    self.enter(Phase::Creating);
                    self.create();
                }
            }
            Phase::Creating => {
                if self.are_created() {
                    self.begin_work();
                } else if lasted.as_millis() % 6_000 < LOOK.as_millis() {
                    self.create();
                }
            }
            Phase::Working => {
                let is_done = |client: &Client| client.left == 0 && client.operation.is_none();
                if self.told.is_none() && self.clients.iter().all(is_done) {
                    self.mend();
                    self.enter(Phase::Recovering);
                }
            }
            Phase::Recovering => {
                if self.is_whole() {
                    self.enter(Phase::Converging);
                }
            }
            Phase::Converging => {
                if self.differing().is_none() {
                    self.enter(if self.forgets_all() { Phase::Forgetting } else { Phase::Resting });
                } else if lasted > HEAL + self.settings.trees.round * 2 + SLACK {
                    self.say_what_differs();
                    self.enter(Phase::Reading);
                    self.begin_reading();
                }
            }
            Phase::Forgetting => {
                let grace = self.bounds.grace.unwrap_or_default();
                let settle = self.settings.purge.settle;
                // The first replica of each may be prevented once; then another one takes its turn.
                if self.tombstones_left() == 0 {
                    self.enter(Phase::Resting);
                } else if lasted > grace * 2 + settle * 10 {
                    let what = format!("{} tombstones are left", self.tombstones_left());
                    self.broke("D: what was deleted is forgotten", what);
                    self.enter(Phase::Resting);
                }
            }
            Phase::Resting => {
                if self.bounds.grace.is_some() && self.bounds.skews {
                    // Nodes that disagree by days on what may be forgotten go on about it.
                    self.enter(Phase::Reading);
                    self.begin_reading();
                } else if self.has_rested() {
                    self.check_held();
                    self.check_strays();
                    self.enter(Phase::Reading);
                    self.begin_reading();
                } else if lasted > self.settings.trees.round * 4 + REST_MAX {
                    let what = format!("all are equal, and still: {:?}", self.last_repair);
                    self.broke("D: repair ends", what);
                    self.enter(Phase::Reading);
                    self.begin_reading();
                }
            }
            Phase::Reading => {
                let reader = &self.clients[self.clients.len() - 1];
                if self.told.is_none() && self.to_read.is_empty() && reader.operation.is_none() {
                    self.enter(Phase::Quieting);
                }
            }
            Phase::Quieting => {
                if lasted > Duration::from_secs(4) {
                    let left = self.slots.iter().filter_map(|slot| slot.node.leftovers());
                    for what in left.collect::<Vec<_>>() {
                        self.broke("H: no request is left unanswered", what);
                    }
                    self.phase = Phase::Over;
                }
            }
            Phase::Over => {}
        }
        let has_end = !matches!(self.phase, Phase::Working | Phase::Converging | Phase::Forgetting);
        if now.since(self.phase_began) > PHASE_MAX && has_end {
            let what = self.why_it_takes_so_long();
            self.broke("D: the fleet recovers", what);
            self.phase = Phase::Over;
        }
        self.schedule.after(LOOK, Event::Look);
    }

    /// Whether nothing was repaired for two rounds.
    fn has_rested(&self) -> bool {
        let last = self.last_repair.as_ref().map(|(at, _)| *at).unwrap_or_default();
        let since = last.max(self.phase_began);
        self.schedule.now().since(since) > self.settings.trees.round * 3
    }

    fn why_it_takes_so_long(&self) -> String {
        let said = |slot: &Slot| {
            let refused = slot.node.refused().map(str::to_owned);
            let reason = refused.or_else(|| slot.node.quarantine_reason());
            reason.or_else(|| slot.is_unserviceable.clone())
        };
        let said: Vec<_> = self.slots.iter().filter_map(said).collect();
        let change = self.newest().and_then(|state| state.change.as_ref());
        let change = change.map(|it| format!("; under way: {}, {:?}", it.purpose, it.phases));
        format!(
            "{:?} takes more than {PHASE_MAX:?}; {said:?}{}",
            self.phase,
            change.unwrap_or_default()
        )
    }

    fn begin_work(&mut self) {
        self.enter(Phase::Working);
        for client in 0..self.clients.len() - 1 {
            let after = self.clients[client].think();
            self.schedule.after(after, Event::Think(client));
        }
        if self.told.is_none() && self.rng.chance(500) {
            let after = self.until_altered();
            self.schedule.after(after, Event::Alter);
        }
    }

    /// The last client reads every key.
    pub(super) fn begin_reading(&mut self) {
        let keys = 0..self.keys;
        let all = keyspaces().into_iter();
        self.to_read =
            all.flat_map(|name| keys.clone().map(move |key| (name.clone(), key))).collect();
        let reader = self.clients.len() - 1;
        self.schedule.after(Duration::ZERO, Event::Think(reader));
    }

    /// Whether all nodes are members, act under the same state, serve and reach each other, and none is in
    /// quarantine.
    pub(super) fn is_whole(&self) -> bool {
        let epoch = self.newest().map(|state| state.epoch);
        self.is_settled()
            && self.stays().all(|node| {
                let slot = &self.slots[node];
                let view = slot.node.view();
                slot.node.is_ready()
                    && slot.node.reaches_all()
                    && !slot.node.is_quarantined()
                    && view.map(|view| view.epoch()) == epoch
            })
    }

    /// What an operator has in mind for a keyspace.
    pub(super) fn config_of(&self, name: &KeyspaceName) -> KeyspaceConfig {
        let [_, lww] = keyspaces();
        let is_lww = *name == lww;
        // Where clocks are wrong by more than the grace, the last write to a forgotten key may have an
        // earlier time than its tombstone.
        let forgets = !is_lww || !self.bounds.skews;
        let grace = self.bounds.grace.filter(|_| forgets).map_or(864_000, |grace| grace.as_secs());
        let replicas = u16::try_from(self.replicas_max).unwrap_or(u16::MAX);
        let everywhere = self.replication.keys().map(|name| (name.clone(), replicas));
        KeyspaceConfig {
            replication: match replicas {
                3 => Replication::Auto,
                _ => Replication::PerDatacenter(everywhere.collect()),
            },
            conflict: if is_lww { ConflictRule::Lww } else { ConflictRule::Siblings },
            tombstone_grace_s: grace,
            ..KeyspaceConfig::default()
        }
    }

    /// An operator sets the keyspaces that are not as they are to be.
    fn create(&mut self) {
        for name in keyspaces() {
            let is_known = self.slots.iter().any(|slot| self.knows(slot, &name));
            if !is_known {
                let change = KeyspaceChange::Set(self.config_of(&name));
                self.operate(name, change);
            }
        }
    }

    fn are_created(&self) -> bool {
        keyspaces().iter().all(|name| self.stays().all(|at| self.knows(&self.slots[at], name)))
    }

    fn knows(&self, slot: &Slot, name: &KeyspaceName) -> bool {
        let keyspace = slot.node.view().and_then(|view| view.keyspace(name));
        keyspace.is_some_and(|keyspace| keyspace.config == self.config_of(name))
    }

    /// An operator alters the `lww` keyspace, in a way that matters to nobody.
    pub(super) fn alter(&mut self) {
        if self.phase != Phase::Working || !uses_lww(self.mix) {
            return;
        }
        let [_, name] = keyspaces();
        let mut config = self.config_of(&name);
        config.tombstone_grace_s += self.alters;
        self.operate(name, KeyspaceChange::Set(config));
        let after = self.until_altered();
        self.schedule.after(after, Event::Alter);
    }

    pub(super) fn operate(&mut self, name: KeyspaceName, change: KeyspaceChange) {
        let node = self.rng.within(0..self.slots.len() as u64) as usize;
        self.alters += 1;
        let request = Alteration::Keyspace(AlterKeyspace { name, change });
        self.give(node, NodeInput::Alter(self.alters, request));
    }

    /// Every change begins all purges anew.
    fn until_altered(&mut self) -> Duration {
        let ms = if self.bounds.grace.is_some() { 40_000..90_000 } else { 500..6_000 };
        Duration::from_millis(self.rng.within(ms))
    }
}
