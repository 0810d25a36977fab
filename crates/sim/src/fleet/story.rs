//! Telling a story to a fleet, step by step: who is killed, what is cut, what a client asks of whom, and how
//! much time passes. The model watches as ever, and [`Story::end`] has the fleet go through all the checks of
//! a run's end.

use std::time::Duration;

use anello_protocol::{
    cluster::KeyspaceConfig,
    consistency::{Consistency, QuorumKind},
    id::{KeyspaceName, NodeId},
    message::{
        admin::KeyspaceChange,
        client::{ContextToken, Get, RequestError, RequestOptions, Write},
    },
    time::Moment,
    version::{Content, Value, WriteId},
};

use super::{ClientReply, Fleet, Phase, Shape};
use crate::{
    client::{self, Habits, Mix, Request},
    faults::FaultMix,
    model::Violation,
    rng::Rng,
    run::Settings,
};

/// The most that a step may take by itself.
const STEP_MAX: Duration = Duration::from_secs(300);

/// Whom the story's client asks, and what it was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) node: usize,
    answer: Option<Result<Seen, RequestError>>,
}

/// What the story's client is shown, or the context of what it wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The values, in their order; a tombstone is `None`.
    pub values: Vec<Option<String>>,
    /// What has been seen.
    pub context: Option<ContextToken>,
}

impl Seen {
    /// Whether there is nothing but tombstones, or nothing at all.
    pub fn is_missing(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// Whether a value is among what is shown.
    pub fn shows(&self, value: &str) -> bool {
        self.values.iter().flatten().any(|shown| shown == value)
    }
}

/// How the story's client asks.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The level.
    pub level: Consistency,
    /// Whether stand-ins count.
    pub quorum: QuorumKind,
}

/// A quorum of the key's own replicas.
pub const STRICT: Manner = Manner { level: Consistency::Quorum, quorum: QuorumKind::Strict };
/// A quorum with stand-ins.
pub const SLOPPY: Manner = Manner { level: Consistency::Quorum, quorum: QuorumKind::Sloppy };
/// Every one of the key's own replicas.
pub const ALL: Manner = Manner { level: Consistency::All, quorum: QuorumKind::Strict };
/// Any one replica.
pub const ONE: Manner = Manner { level: Consistency::One, quorum: QuorumKind::Strict };

/// See the head of this file.
pub struct Story {
    fleet: Fleet,
    written: u64,
}

impl Story {
    /// A fleet that has formed its cluster and created its keyspaces: so many nodes in each datacenter, and
    /// the grace of tombstones.
    pub fn begin(places: &[(&'static str, usize)], grace: Option<Duration>) -> Self {
        let mut shape = Shape::quiet(places);
        shape.bounds.grace = grace;
        shape.writers = 1;
        shape.keys = 8;
        shape.habits = Habits { strict_per_mille: 500, is_careful: false, rests: false };
        let settings = Settings {
            seed: 1,
            mix: Mix::Any,
            faults: FaultMix::Calm,
            is_traced: std::env::var_os("STORY_TRACE").is_some(),
        };
        let mut rng = Rng::new(settings.seed);
        let drawn = rng.fork(1);
        let mut fleet = Fleet::of(shape, settings, rng, drawn);
        fleet.told = Some(Told::default());
        let mut story = Self { fleet, written: 0 };
        story.until("clients can begin", |fleet| fleet.phase == Phase::Working);
        story
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.fleet.schedule.now() + time;
        while self.fleet.schedule.now() < end {
            self.step();
        }
    }

    /// Kills a node.
    pub fn kill(&mut self, node: usize) {
        self.fleet.crash(node);
    }

    /// Switches a node on, and waits until it serves.
    pub fn start(&mut self, node: usize) {
        self.switch_on(node);
        self.until("a node is ready", |fleet| fleet.slots[node].node.is_ready());
    }

    /// Switches a node on.
    pub fn switch_on(&mut self, node: usize) {
        self.fleet.start_after(node, Duration::ZERO);
        self.pass(Duration::from_millis(1));
    }

    /// Waits until all nodes serve and reach each other.
    pub fn gather(&mut self) {
        self.until("all nodes reach each other", Fleet::is_whole);
    }

    /// Waits until those that are switched on know of the others that they can't be reached.
    pub fn notice(&mut self) {
        self.until("the dead are known to be", |fleet| {
            let slots = || fleet.slots.iter();
            let is_cut = |one: usize, other: usize| {
                let (one, other) = (&fleet.slots[one].node, &fleet.slots[other].node);
                !fleet.network.connects(one.id(), other.id())
            };
            slots().enumerate().filter(|(_, slot)| slot.node.is_running()).all(|(own, slot)| {
                slots().enumerate().filter(|(other, _)| *other != own).all(|(at, other)| {
                    let is_gone = !other.node.is_running() || is_cut(own, at);
                    slot.node.unreachable().contains(other.node.id()) == is_gone
                })
            })
        });
    }

    /// Cuts every link between some nodes and others.
    pub fn cut(&mut self, some: &[usize], others: &[usize]) {
        for one in some {
            for other in others {
                let (one, other) = (&self.fleet.slots[*one].node, &self.fleet.slots[*other].node);
                let (one, other) = (one.id().clone(), other.id().clone());
                self.fleet.network.cut(&one, &other);
                self.fleet.network.cut(&other, &one);
            }
        }
    }

    /// Mends all links.
    pub fn heal(&mut self) {
        self.fleet.network.heal();
    }

    /// Puts an empty disk into a node that is switched off.
    pub fn wipe(&mut self, node: usize) {
        self.fleet.wipe(node);
    }

    /// Makes a copy of what a node's disk holds.
    pub fn back_up(&mut self, node: usize) {
        self.fleet.back_up(node);
    }

    /// Kills a node and puts the copy back.
    pub fn restore(&mut self, node: usize) {
        self.fleet.restore(node);
    }

    /// Damages a node's membership record.
    pub fn damage_record(&mut self, node: usize, damage: impl Fn(&[u8]) -> Vec<u8>) {
        let disk = &mut self.fleet.slots[node].node.disk;
        let bytes = damage(disk.record().unwrap_or_default());
        disk.damage_record(bytes);
    }

    /// Has a node's store take only some of what it is given, or all again.
    pub fn fill_store(&mut self, node: usize, is_full: bool) {
        self.fleet.slots[node].node.disk.is_full = is_full;
    }

    /// Why a node refuses to start.
    pub fn refusal(&self, node: usize) -> Option<&str> {
        self.fleet.slots[node].is_unserviceable.as_deref()
    }

    /// Whether a node is in quarantine.
    pub fn is_quarantined(&self, node: usize) -> bool {
        self.fleet.slots[node].node.is_quarantined()
    }

    /// Waits until a node is in quarantine.
    pub fn until_it_is_quarantined(&mut self, node: usize) {
        self.until("a node is quarantined", |fleet| fleet.slots[node].node.is_quarantined());
    }

    /// Waits until a node serves and is in no quarantine.
    pub fn until_it_serves(&mut self, node: usize) {
        self.until("a node serves", |fleet| {
            let node = &fleet.slots[node].node;
            node.is_ready() && !node.is_quarantined()
        });
    }

    /// A node that is switched on and keeps hints.
    pub fn keeper(&self) -> Option<usize> {
        let keeps = |at: &usize| self.fleet.slots[*at].node.is_running() && self.hints_at(*at) > 0;
        (0..self.fleet.slots.len()).find(keeps)
    }

    /// How many hints a node keeps.
    pub fn hints_at(&self, node: usize) -> usize {
        self.fleet.slots[node].node.disk.hints().count()
    }

    /// How many keys of which nothing but tombstones is left the disks hold together.
    pub fn tombstones(&self) -> usize {
        self.fleet.tombstones_left()
    }

    /// The replicas of a key, then the stand-ins in the order in which they are asked.
    pub fn walk(&self, key: u64) -> (Vec<usize>, Vec<usize>) {
        let [default, _] = client::keyspaces();
        let key = self.fleet.data_key(&default, &client::key(key));
        let slots = &self.fleet.slots;
        let at =
            |id: &NodeId| slots.iter().position(|slot| slot.node.id() == id).expect("a member");
        let view = slots.iter().find_map(|slot| slot.node.view()).expect("somebody is on");
        let keyspace = view.keyspace(&default).expect("it is always there");
        let placement = view.placement(keyspace, key.hash);
        let numbers = |places: &[anello_protocol::message::client::Place]| {
            places.iter().map(|place| at(&place.id)).collect()
        };
        (numbers(&placement.replicas), numbers(&placement.stand_ins))
    }

    /// An operator creates or drops a keyspace; waits until all that are on know it.
    pub fn operate(&mut self, name: &str, config: Option<KeyspaceConfig>) {
        let name: KeyspaceName = name.parse().expect("a good name");
        let is_there = config.is_some();
        let change = config.map_or(KeyspaceChange::Drop, KeyspaceChange::Set);
        self.fleet.operate(name.clone(), change);
        self.until("a keyspace is changed", |fleet| {
            let knows = |view: &anello_ring::view::View| view.keyspace(&name).is_some();
            let mut views = fleet.slots.iter().filter_map(|slot| slot.node.view());
            views.all(|view| knows(view) == is_there)
        });
    }

    /// The usual settings of a keyspace of the story.
    pub fn usual_config(&self) -> KeyspaceConfig {
        let [default, _] = client::keyspaces();
        self.fleet.config_of(&default)
    }

    /// Writes a value; without a context blindly.
    pub fn put(
        &mut self,
        node: usize,
        key: u64,
        value: &str,
        context: Option<ContextToken>,
        manner: Manner,
    ) -> Result<ContextToken, RequestError> {
        let value = Value::new(value.as_bytes().to_vec()).expect("within the bound");
        self.write(node, "default", key, Content::Value(value), context, manner)
    }

    /// Deletes a key; without a context what a quorum shows.
    pub fn delete(
        &mut self,
        node: usize,
        key: u64,
        context: Option<ContextToken>,
        manner: Manner,
    ) -> Result<ContextToken, RequestError> {
        self.write(node, "default", key, Content::Tombstone, context, manner)
    }

    /// Writes to any keyspace.
    pub fn write(
        &mut self,
        node: usize,
        keyspace: &str,
        key: u64,
        content: Content,
        context: Option<ContextToken>,
        manner: Manner,
    ) -> Result<ContextToken, RequestError> {
        self.written += 1;
        let options = RequestOptions {
            write: Some(manner.level),
            quorum: manner.quorum,
            timeout_ms: 2_000,
            ..RequestOptions::default()
        };
        let write = Write {
            keyspace: keyspace.parse().expect("a good name"),
            key: client::key(key),
            content,
            context,
            write_id: WriteId(1 << 64 | u128::from(self.written)),
            is_named: false,
            options,
        };
        let seen = self.ask(node, Request::Write(write))?;
        Ok(seen.context.expect("a write is answered with a context"))
    }

    /// Reads a key.
    pub fn get(&mut self, node: usize, key: u64, manner: Manner) -> Result<Seen, RequestError> {
        self.read(node, "default", key, manner)
    }

    /// Reads a key of any keyspace.
    pub fn read(
        &mut self,
        node: usize,
        keyspace: &str,
        key: u64,
        manner: Manner,
    ) -> Result<Seen, RequestError> {
        let options = RequestOptions {
            read: Some(manner.level),
            quorum: manner.quorum,
            timeout_ms: 2_000,
            ..RequestOptions::default()
        };
        let keyspace = keyspace.parse().expect("a good name");
        self.ask(node, Request::Get(Get { keyspace, key: client::key(key), options }))
    }

    /// Tells the rest: all is mended, the replicas become equal, everything is read. What was broken fails
    /// the test.
    pub fn end(mut self) {
        self.fleet.told = None;
        self.fleet.mend();
        self.fleet.enter(Phase::Recovering);
        let (model, _, _) = self.fleet.run();
        let violations: &[Violation] = model.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }

    /// How long ago the fleet was switched on.
    pub fn now(&self) -> Moment {
        self.fleet.schedule.now()
    }

    fn ask(&mut self, node: usize, request: Request) -> Result<Seen, RequestError> {
        self.fleet.told = Some(Told { node, answer: None });
        self.fleet.begin(0, request);
        self.fleet.attempt(0);
        self.until("the client is answered", |fleet| fleet.clients[0].operation.is_none());
        let answer = self.fleet.told.as_mut().and_then(|told| told.answer.take());
        // Nobody was there, or nothing came in time: it may have been done.
        answer.unwrap_or(Err(RequestError::Timeout { required: 0, received: 0 }))
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Fleet) -> bool) {
        let end = self.fleet.schedule.now() + STEP_MAX;
        while !is_so(&self.fleet) {
            assert!(self.fleet.schedule.now() < end, "{what}: not within {STEP_MAX:?}");
            self.step();
        }
    }

    fn step(&mut self) {
        let event = self.fleet.schedule.take_next().expect("there is always something to come");
        self.fleet.counters.events += 1;
        self.fleet.happen(event);
        let violations = self.fleet.model.violations();
        assert!(violations.is_empty(), "{violations:#?}");
    }
}

impl Fleet {
    /// What the story's client is told.
    pub(super) fn hear(&mut self, reply: &ClientReply) {
        let Some(told) = &mut self.told else { return };
        told.answer = match reply {
            ClientReply::Got(answer) => Some(answer.result.clone().map(|found| {
                let shown = found.versions.iter().map(|version| match &version.content {
                    Content::Value(value) => {
                        Some(String::from_utf8_lossy(value.bytes()).into_owned())
                    }
                    Content::Tombstone => None,
                });
                Seen { values: shown.collect(), context: Some(found.context) }
            })),
            ClientReply::Wrote(answer, _) => Some(
                answer
                    .result
                    .clone()
                    .map(|written| Seen { values: Vec::new(), context: Some(written.context) }),
            ),
            ClientReply::NoConnection => None,
        };
    }
}
