//! The fleet: nodes, links, clients and faults on one schedule, and the phases of a run.
//!
//! A run forms a cluster, creates a keyspace, lets clients and faults at it, mends everything, waits until
//! all nodes serve and reach each other, reads every key at ALL, and ends once nothing is under way.

mod clients;
mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anello_gossip::{MembershipConfig, Timing};
use anello_protocol::{
    cluster::{ClusterState, KeyspaceConfig, Member, MemberState},
    id::{Datacenter, Epoch, KeyspaceName},
    message::{
        admin::{AlterKeyspace, KeyspaceChange},
        client::{Answer, Found, Written},
    },
    time::Moment,
    version::ConflictRule,
};
use anello_replica::{coordinator::CoordinatorConfig, replica::ReplicaConfig};

use crate::{
    client::{Client, keyspaces},
    faults::{Fault, FaultPlan},
    history::History,
    model::Model,
    network::{Network, Weather},
    node::{ClientCall, Node, NodeInput, Out},
    rng::Rng,
    run::{Counters, Settings},
    schedule::Schedule,
};

/// What every wall clock would say at the beginning, if it were right.
const WALL_START_MS: i64 = 1_700_000_000_000;
/// How often the phase is looked after.
const LOOK: Duration = Duration::from_millis(50);
/// How long a phase that must end by itself may take.
const PHASE_MAX: Duration = Duration::from_secs(180);
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
    Look,
}

/// What a client is told.
enum ClientReply {
    Got(Answer<Found>),
    /// With the nodes that had it durably when the coordinator said so.
    Wrote(Answer<Written>, BTreeMap<anello_protocol::id::NodeId, Datacenter>),
    NoConnection,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Forming,
    Creating,
    Working,
    Recovering,
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
}

/// See the head of this file.
pub struct Fleet {
    schedule: Schedule<Event>,
    slots: Vec<Slot>,
    network: Network,
    rng: Rng,
    plan: FaultPlan,
    is_faulty_from_start: bool,
    clients: Vec<Client>,
    keys: u64,
    /// What the reader at the end has yet to read.
    to_read: Vec<(KeyspaceName, u64)>,
    replication: BTreeMap<Datacenter, usize>,
    calls: u64,
    alters: u64,
    phase: Phase,
    phase_began: Moment,
    model: Model,
    history: History,
    states: BTreeMap<Epoch, Arc<ClusterState>>,
    counters: Counters,
}

impl Fleet {
    /// A fleet that is drawn from the seed.
    pub fn new(settings: Settings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let mut shape = rng.fork(1);
        let datacenters = shape.within(1..3);
        let nodes = shape.within(3..7) as usize;
        let partitions = *shape.pick(&[8, 16]);
        let seeds = nodes.min(3);
        let requests_max = *shape.pick(&[4096, 4096, 4096, 24, 12]);
        let coordinator = CoordinatorConfig { requests_max, ..CoordinatorConfig::default() };
        let replica = ReplicaConfig { requests_max, ..ReplicaConfig::default() };
        let mut plan = FaultPlan::new(settings.faults, nodes, rng.fork(2));
        let mut replication = BTreeMap::new();
        let slots: Vec<Slot> = (0..nodes)
            .map(|number| {
                let member = member(number, datacenters, &mut shape);
                *replication.entry(member.datacenter.clone()).or_insert(0_usize) += 1;
                let others = (0..seeds).filter(|seed| *seed != number).map(address);
                let config = MembershipConfig {
                    member,
                    cluster: "sim".parse().expect("a good name"),
                    partitions,
                    other_seeds: others.collect(),
                    first_seed: number == 0,
                    program: "sim".into(),
                    timing: Timing::lan(),
                };
                let node = Node::new(
                    config,
                    coordinator.clone(),
                    replica.clone(),
                    rng.fork(number as u64),
                );
                let skew_ms = if shape.chance(500) { plan.skew() } else { 0 };
                Slot {
                    node,
                    life: 0,
                    skew_ms,
                    is_disk_slow: false,
                    disk_fails: None,
                    paused_until: Moment::default(),
                    starved_until: Moment::default(),
                    core_at: Moment::default(),
                    gossip_late_until: Moment::default(),
                    starts_at: Moment::default(),
                }
            })
            .collect();
        replication.values_mut().for_each(|nodes| *nodes = (*nodes).min(3));
        let keys = shape.within(3..7);
        let writers = shape.within(3..7);
        let operations = shape.within(150..400) / writers;
        // The last one reads what is there at the end.
        let client = |number| {
            let left = if number < writers { operations as u32 } else { 0 };
            Client::new(number + 1, settings.mix, keys, left, rng.fork(100 + number))
        };
        let clients: Vec<Client> = (0..=writers).map(client).collect();
        let mut fleet = Self {
            schedule: Schedule::new(),
            slots,
            network: Network::new(Weather::draw(&mut shape), rng.fork(3)),
            plan,
            is_faulty_from_start: shape.chance(250),
            clients,
            keys,
            to_read: Vec::new(),
            replication,
            calls: 0,
            alters: 0,
            phase: Phase::Forming,
            phase_began: Moment::default(),
            model: Model::default(),
            history: History::new(settings.is_traced),
            states: BTreeMap::new(),
            counters: Counters::default(),
            rng,
        };
        for node in 0..fleet.slots.len() {
            let after = Duration::from_millis(shape.within(0..800));
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
            Event::Look => self.look(),
        }
    }

    fn broke(&mut self, check: &'static str, what: String) {
        let now = self.schedule.now();
        self.history.note(now, format_args!("BROKEN {check}: {what}"));
        self.model.report(check, now, what);
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.phase_began = self.schedule.now();
        self.history.note(self.phase_began, format_args!("== {phase:?}"));
    }

    /// Goes on to the next phase when it is time.
    fn look(&mut self) {
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
                    self.alter();
                }
            }
            Phase::Creating => {
                let [_, lww] = keyspaces();
                let known =
                    |slot: &Slot| slot.node.view().is_some_and(|v| v.keyspace(&lww).is_some());
                if self.slots.iter().all(known) {
                    self.enter(Phase::Working);
                    for client in 0..self.clients.len() - 1 {
                        let after = self.clients[client].think();
                        self.schedule.after(after, Event::Think(client));
                    }
                    if self.rng.chance(500) {
                        self.schedule.after(Duration::from_secs(2), Event::Alter);
                    }
                } else if lasted.as_millis() % 6_000 < LOOK.as_millis() {
                    self.alter();
                }
            }
            Phase::Working => {
                let is_done = |client: &Client| client.left == 0 && client.operation.is_none();
                if self.clients.iter().all(is_done) {
                    self.mend();
                    self.enter(Phase::Recovering);
                }
            }
            Phase::Recovering => {
                if self.is_whole() {
                    self.enter(Phase::Reading);
                    let keys = 0..self.keys;
                    let all = keyspaces().into_iter();
                    self.to_read = all
                        .flat_map(|name| keys.clone().map(move |key| (name.clone(), key)))
                        .collect();
                    let reader = self.clients.len() - 1;
                    self.schedule.after(Duration::ZERO, Event::Think(reader));
                }
            }
            Phase::Reading => {
                let reader = &self.clients[self.clients.len() - 1];
                if self.to_read.is_empty() && reader.operation.is_none() {
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
        if now.since(self.phase_began) > PHASE_MAX && self.phase != Phase::Working {
            let refused = self.slots.iter().filter_map(|slot| slot.node.refused());
            let refused: Vec<_> = refused.map(str::to_owned).collect();
            let what = format!("{:?} takes more than {PHASE_MAX:?}; {refused:?}", self.phase);
            self.broke("D: the fleet recovers", what);
            self.phase = Phase::Over;
        }
        self.schedule.after(LOOK, Event::Look);
    }

    /// Whether all nodes are members, act under the same state, serve and reach each other.
    fn is_whole(&self) -> bool {
        let epoch = self.slots[0].node.view().map(|view| view.epoch());
        self.slots.iter().all(|slot| {
            let view = slot.node.view();
            slot.node.is_ready()
                && slot.node.reaches_all()
                && view.map(|view| view.epoch()) == epoch
                && view.is_some_and(|view| view.cluster().members.len() == self.slots.len())
        })
    }

    /// An operator sets the `lww` keyspace: first it is created, later altered.
    fn alter(&mut self) {
        let [_, name] = keyspaces();
        let node = self.rng.within(0..self.slots.len() as u64) as usize;
        let config = KeyspaceConfig {
            conflict: ConflictRule::Lww,
            tombstone_grace_s: 864_000 + self.alters,
            ..KeyspaceConfig::default()
        };
        self.alters += 1;
        let request = AlterKeyspace { name, change: KeyspaceChange::Set(config) };
        self.give(node, NodeInput::Alter(self.alters, request));
        if self.phase == Phase::Working {
            let after = Duration::from_millis(self.rng.within(500..6_000));
            self.schedule.after(after, Event::Alter);
        }
    }
}

fn address(number: usize) -> String {
    format!("n{number}:7400")
}

fn member(number: usize, datacenters: u64, shape: &mut Rng) -> Member {
    let datacenter = if (number as u64).is_multiple_of(datacenters) { "eu" } else { "us" };
    let rack = *shape.pick(&["a", "b", "c"]);
    Member {
        id: format!("n{number}").parse().expect("a good name"),
        datacenter: datacenter.parse().expect("a good name"),
        rack: rack.parse().expect("a good name"),
        weight: 1.0,
        quic: address(number),
        http: format!("n{number}:7480"),
        state: MemberState::Up,
    }
}
