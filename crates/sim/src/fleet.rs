//! The fleet: nodes, links, clients and faults on one schedule, and the phases of a run.
//!
//! What happens is in files of its own: the phases of a run ([`phases`]), whether the replicas have become
//! equal ([`converging`]), clients ([`clients`], [`answers`]), and what lies around the nodes ([`world`],
//! [`faulting`]).

mod answers;
mod clients;
mod converging;
mod faulting;
mod phases;
mod reshaping;
mod shape;
pub mod story;
mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anello_protocol::{
    cluster::ClusterState,
    id::{Datacenter, Epoch, KeyspaceName, NodeId},
    key::DataKey,
    message::client::{Answer, Found, Written},
    time::Moment,
};

pub use self::shape::Shape;
use crate::{
    client::{Client, Mix},
    disk::Backup,
    faults::{Bounds, Fault, FaultPlan},
    history::History,
    model::{Holders, Model},
    network::Network,
    node::{ClientCall, Node, NodeInput, NodeSettings, Out},
    rng::Rng,
    run::{Counters, Settings},
    schedule::Schedule,
};

/// What every wall clock would say at the beginning, if it were right.
const WALL_START_MS: i64 = 1_700_000_000_000;
/// How often the phase is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// The most events of a run. More is a loop that feeds itself.
const EVENTS_MAX: u64 = 4_000_000;

/// What is on the schedule.
enum Event {
    Deliver {
        from: usize,
        to: usize,
        bytes: Arc<[u8]>,
    },
    Local {
        node: usize,
        life: u64,
        input: NodeInput,
    },
    Start(usize),
    Fault,
    /// A starved node gets a core.
    Core(usize),
    Think(usize),
    Request {
        client: usize,
        node: usize,
        call: ClientCall,
    },
    Reply {
        client: usize,
        call: ClientCall,
        reply: ClientReply,
    },
    GiveUp {
        client: usize,
        call: ClientCall,
    },
    Alter,
    /// An operator may do something about the ring.
    Reshape,
    /// An operator has a dead node taken out.
    Insist,
    Look,
}

/// What a client is told.
enum ClientReply {
    Got(Answer<Found>),
    /// With the nodes that had it durably when the coordinator said so.
    Wrote(Answer<Written>, Holders),
    NoConnection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Forming,
    Creating,
    Working,
    /// Until all nodes serve and reach each other.
    Recovering,
    /// Until all replicas are equal and no hint is left.
    Converging,
    /// Until no tombstone is left.
    Forgetting,
    /// Nothing may be repaired any more.
    Resting,
    Reading,
    Quieting,
    Over,
}

struct Slot {
    node: Node,
    life: u64,
    skew_ms: i64,
    is_disk_slow: bool,
    /// Whether the next sync fails, and keeps the data all the same.
    disk_fails: Option<bool>,
    paused_until: Moment,
    starved_until: Moment,
    /// When it gets a core the next time, while it is starved.
    core_at: Moment,
    gossip_late_until: Moment,
    starts_at: Moment,
    /// When it lost what its disk held the last time.
    lost_at: Option<Moment>,
    /// The last copy of its data.
    backup: Option<Backup>,
    /// Why it would not start.
    is_unserviceable: Option<String>,
    /// It was never switched on, and is no member.
    is_spare: bool,
    /// It was asked to leave.
    is_leaving: bool,
    /// It is never switched on again.
    is_dead: bool,
}

/// See the head of this file.
pub struct Fleet {
    schedule: Schedule<Event>,
    slots: Vec<Slot>,
    network: Network,
    rng: Rng,
    plan: FaultPlan,
    mix: Mix,
    bounds: Bounds,
    settings: NodeSettings,
    replicas_max: usize,
    is_faulty_from_start: bool,
    clients: Vec<Client>,
    keys: u64,
    /// What the reader at the end has yet to read.
    to_read: Vec<(KeyspaceName, u64)>,
    replication: BTreeMap<Datacenter, usize>,
    /// While a story is told, which says what happens.
    told: Option<story::Told>,
    calls: u64,
    alters: u64,
    phase: Phase,
    phase_began: Moment,
    /// The last time that data was moved between replicas.
    last_repair: Option<(Moment, String)>,
    model: Model,
    history: History,
    states: BTreeMap<Epoch, Arc<ClusterState>>,
    counters: Counters,
}

impl Fleet {
    /// A fleet that is drawn from the seed.
    pub fn new(settings: Settings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let mut drawn = rng.fork(1);
        let shape = Shape::draw(settings, &mut drawn);
        Self::of(shape, settings, rng, drawn)
    }

    /// A fleet of that shape.
    fn of(shape: Shape, settings: Settings, mut rng: Rng, mut drawn: Rng) -> Self {
        let nodes = shape.datacenters.len();
        let mut plan = FaultPlan::new(settings.faults, nodes, shape.bounds, rng.fork(2));
        let slots: Vec<Slot> = shape
            .memberships()
            .zip(&shape.skewed)
            .enumerate()
            .map(|(number, (config, is_skewed))| Slot {
                node: Node::new(config, shape.node.clone(), rng.fork(number as u64)),
                life: 0,
                skew_ms: if *is_skewed { plan.skew() } else { 0 },
                is_disk_slow: false,
                disk_fails: None,
                paused_until: Moment::default(),
                starved_until: Moment::default(),
                core_at: Moment::default(),
                gossip_late_until: Moment::default(),
                starts_at: Moment::default(),
                lost_at: None,
                backup: None,
                is_unserviceable: None,
                is_spare: number >= nodes - shape.spares,
                is_leaving: false,
                is_dead: false,
            })
            .collect();
        // The last one reads what is there at the end.
        let clients: Vec<Client> = (0..=shape.writers)
            .map(|number| {
                let own = shape.operations / shape.writers.max(1);
                let left = if number < shape.writers { own as u32 } else { 0 };
                let rng = rng.fork(100 + number);
                Client::new(number + 1, settings.mix, shape.habits, shape.keys, left, rng)
            })
            .collect();
        let right_clocks = shape.bounds.grace.filter(|_| !shape.bounds.skews);
        let mut fleet = Self {
            schedule: Schedule::new(),
            slots,
            network: Network::new(shape.weather, rng.fork(3)),
            plan,
            mix: settings.mix,
            bounds: shape.bounds,
            settings: shape.node.clone(),
            replicas_max: shape.replicas_max,
            is_faulty_from_start: shape.is_faulty_from_start,
            clients,
            keys: shape.keys,
            to_read: Vec::new(),
            replication: shape.replication(),
            told: None,
            calls: 0,
            alters: 0,
            phase: Phase::Forming,
            phase_began: Moment::default(),
            last_repair: None,
            model: Model::new(right_clocks),
            history: History::new(settings.is_traced),
            states: BTreeMap::new(),
            counters: Counters::default(),
            rng,
        };
        if shape.spares > 0 {
            fleet.schedule.after(Duration::from_secs(1), Event::Reshape);
        }
        for node in 0..fleet.slots.len() - shape.spares {
            let after = Duration::from_millis(drawn.within(0..800));
            fleet.start_after(node, after);
        }
        fleet.schedule.after(LOOK, Event::Look);
        fleet.schedule.after(Duration::from_millis(300), Event::Fault);
        fleet
    }

    /// Runs to the end.
    pub fn run(mut self) -> (Model, History, Counters) {
        while self.phase != Phase::Over {
            let Some(event) = self.schedule.take_next() else { break };
            self.counters.events += 1;
            if self.counters.events > EVENTS_MAX {
                let what = format!("{EVENTS_MAX} events and still {:?}", self.phase);
                self.broke("D: the run ends", what);
                break;
            }
            self.happen(event);
            if self.model.violations().len() > 20 {
                break;
            }
        }
        let now = self.schedule.now();
        self.model.finish(now);
        self.counters.virtual_ms = now.0 / 1000;
        (self.model, self.history, self.counters)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, bytes } => self.deliver(from, to, bytes),
            Event::Local { node, life, input } => self.local(node, life, input),
            Event::Start(node) => self.start(node),
            Event::Fault => self.fault(),
            Event::Core(node) => self.starve(node),
            Event::Think(client) => self.think(client),
            Event::Request { client, node, call } => self.request(client, node, call),
            Event::Reply { client, call, reply } => self.reply(client, call, reply),
            Event::GiveUp { client, call } => self.give_up(client, call),
            Event::Alter => self.alter(),
            Event::Reshape => self.reshape(),
            Event::Insist => self.insist(),
            Event::Look => self.look(),
        }
    }

    fn broke(&mut self, check: &'static str, what: String) {
        let now = self.schedule.now();
        self.history.note(now, format_args!("BROKEN {check}: {what}"));
        self.model.report(check, now, what);
    }

    /// The nodes that are replicas of a key under the newest state.
    fn replicas_of(&self, key: &DataKey) -> Vec<NodeId> {
        let views = self.slots.iter().filter_map(|slot| slot.node.view());
        let Some(view) = views.max_by_key(|view| view.epoch()) else { return Vec::new() };
        let Some(keyspace) = view.keyspace_of(key.keyspace) else { return Vec::new() };
        // Those who are read: whoever else is written to counts beside them, never in their place.
        let replicas = &view.readers(keyspace, key.hash).replicas;
        replicas.iter().map(|place| place.id.clone()).collect()
    }
}
