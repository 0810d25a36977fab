//! The promises by property: a small fleet of real machines, two datacenters, one key, and a network
//! that delays, loses and repeats, with processes that die. The simulator does this at length; here it
//! is short enough to run with every test.
//!
//! Also while the ring changes: then the new owners are brought in step by hand, which is all that a phase
//! waits for beside that everybody acts under it.

use std::{collections::BTreeMap, sync::Arc};

use anello_protocol::{
    causality::{Context, Dot, token_decode},
    cluster::{ClusterState, KeyspaceConfig, Phase},
    id::{NodeId, PartitionId},
    message::client::{ContextToken, RequestError, Write},
    message::replica::{RelayedAck, StoreVersions},
    time::{Moment, Now},
    version::{ConflictRule, Content, Versions, WriteId},
};
use anello_ring::view::View;
use proptest::{prelude::*, test_runner::TestCaseError};

use super::bench::{
    cluster, data_key, datacenter, delete, get, lww, moving, node, options, put, view,
};
use crate::{
    coordinator::{
        CallFailure, CallNumber, Coordinator, CoordinatorConfig, Effect, Incoming, Input, Outgoing,
        Reply, Token,
    },
    replica::{self, CommitNumber, CommitOutcome, Replica, ReplicaConfig},
    store::{Commit, VnodeRecord},
};

const NODES: [&str; 7] = ["eu-a", "eu-b", "eu-c", "eu-d", "us-a", "us-b", "us-c"];
/// The owners before a change, and after it.
const OLD: [&str; 6] = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c"];
const NEW: [&str; 6] = ["eu-b", "eu-c", "eu-d", "us-a", "us-b", "us-c"];

/// A node with its disk.
struct Node {
    id: NodeId,
    life: u64,
    /// What it has been told.
    view: Arc<View>,
    coordinator: Coordinator,
    replica: Replica,
    disk: Versions,
    record: Option<VnodeRecord>,
    commits: Vec<(CommitNumber, Commit)>,
    /// Who waits for the vnode's answers, and for the coordinator's.
    at_vnode: BTreeMap<u64, Asker>,
    at_coordinator: BTreeMap<u64, Asker>,
    clock_ms: u64,
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
enum Asker {
    Client(usize),
    Coordinator {
        at: usize,
        life: u64,
        call: CallNumber,
    },
    /// Whoever brings new owners in step, for the time of this number.
    Handover(u64),
}

#[derive(Debug)]
enum Event {
    Call {
        to: usize,
        asker: Asker,
        message: Outgoing,
    },
    Answer {
        at: usize,
        life: u64,
        call: CallNumber,
        from: usize,
        outcome: Result<Incoming, CallFailure>,
    },
    Ack {
        to: usize,
        ack: RelayedAck,
    },
    CommitEnds {
        at: usize,
        life: u64,
    },
    Wake {
        at: usize,
        life: u64,
    },
    Operation,
    Crash {
        at: usize,
    },
    /// It is told of a state.
    Told {
        at: usize,
        view: Arc<View>,
    },
    /// What the next phase waits for is to be looked at.
    Handover,
}

/// What a client did and what came of it.
#[derive(Debug)]
struct Operation {
    write: Option<WriteId>,
    /// What the client said that it had seen; nothing of a delete that covers what a quorum shows.
    seen: Option<Context>,
    began: u64,
    at: usize,
    life: u64,
    answered: Option<(u64, Result<Context, RequestError>)>,
}

struct Fleet {
    rule: ConflictRule,
    /// The newest state.
    view: Arc<View>,
    /// How often new owners were to be brought in step, and how many have yet to be this time.
    handovers: (u64, usize),
    nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    now_us: u64,
    sequence: u64,
    random: u64,
    calm: bool,
    operations: Vec<Operation>,
    contexts: Vec<ContextToken>,
    /// What the last reads showed.
    read: Vec<Context>,
}

impl Fleet {
    fn new(seed: u64, rule: ConflictRule, owners: &[&str]) -> Self {
        let mut fleet = Self {
            rule,
            view: single(cluster(1, owners, config(rule))),
            handovers: (0, 0),
            nodes: Vec::new(),
            events: BTreeMap::new(),
            now_us: 0,
            sequence: 0,
            random: seed,
            calm: false,
            operations: Vec::new(),
            contexts: Vec::new(),
            read: Vec::new(),
        };
        for (at, id) in NODES.iter().enumerate() {
            let view = fleet.view.clone();
            let (coordinator, replica) = fleet.start(at, 0, None, &view);
            let clock_ms = fleet.draw(100_000_000);
            fleet.nodes.push(Node {
                id: node(id),
                life: 0,
                view,
                coordinator,
                replica,
                disk: Versions::new(),
                record: None,
                commits: Vec::new(),
                at_vnode: BTreeMap::new(),
                at_coordinator: BTreeMap::new(),
                clock_ms,
            });
        }
        fleet
    }

    fn start(
        &mut self,
        at: usize,
        life: u64,
        record: Option<VnodeRecord>,
        view: &Arc<View>,
    ) -> (Coordinator, Replica) {
        let id = node(NODES[at]);
        let seed = self.draw(u64::MAX) ^ life;
        let place = datacenter(&NODES[at][..2]);
        let config = CoordinatorConfig::default();
        let mut coordinator = Coordinator::new(id.clone(), place, 0, config, seed);
        let config = ReplicaConfig::default();
        let mut replica = Replica::new(id, PartitionId(0), config, seed, record);
        let now = Now { moment: Moment(self.now_us), wall_ms: 0 };
        coordinator.handle(now, Input::ClusterChanged(view.clone()));
        replica.handle(now, replica::Input::ClusterChanged(view.clone()));
        (coordinator, replica)
    }

    /// SplitMix64 (Steele et al., 2014).
    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }

    fn one_in(&mut self, count: u64) -> bool {
        !self.calm && self.draw(count) == 0
    }

    fn at(&mut self, in_us: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now_us + in_us, self.sequence), event);
    }

    fn delay(&mut self) -> u64 {
        match self.one_in(10) {
            true => self.draw(400_000),
            false => 100 + self.draw(5_000),
        }
    }

    fn now(&self, at: usize) -> Now {
        let wall_ms = self.nodes[at].clock_ms + self.now_us / 1000;
        Now { moment: Moment(self.now_us), wall_ms }
    }

    fn place(&self, id: &NodeId) -> usize {
        self.nodes.iter().position(|node| node.id == *id).expect("a member")
    }

    fn run(&mut self, until_us: u64) {
        while let Some(entry) = self.events.first_entry() {
            let (time, _) = *entry.key();
            if time > until_us {
                break;
            }
            let event = entry.remove();
            self.now_us = time;
            self.handle(event);
        }
        self.now_us = until_us;
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Call { to, asker, message } => self.call(to, asker, message),
            Event::Answer { at, life, call, from, outcome } => {
                if self.nodes[at].life == life {
                    let from = self.nodes[from].id.clone();
                    self.coordinator(at, Input::Answered { call, from, outcome });
                }
            }
            Event::Ack { to, ack } => self.coordinator(to, Input::Acked(ack)),
            Event::CommitEnds { at, life } => {
                let node = &mut self.nodes[at];
                if node.life == life && !node.commits.is_empty() {
                    let (number, commit) = node.commits.remove(0);
                    node.keep(commit);
                    self.vnode(at, replica::Input::Committed(number, CommitOutcome::Durable));
                }
            }
            Event::Wake { at, life } => {
                if self.nodes[at].life == life {
                    self.coordinator(at, Input::TimeUp);
                }
            }
            Event::Operation => self.operate(),
            Event::Crash { at } => self.crash(at),
            Event::Told { at, view } => {
                if view.epoch() > self.nodes[at].view.epoch() {
                    self.nodes[at].view = view.clone();
                    self.vnode(at, replica::Input::ClusterChanged(view.clone()));
                    self.coordinator(at, Input::ClusterChanged(view));
                }
            }
            Event::Handover => self.hand_over(),
        }
    }

    /// Everybody is told of a newer state, sooner or later.
    fn tell(&mut self, view: Arc<View>) {
        self.view = view.clone();
        for at in 0..NODES.len() {
            let in_us = 1_000 + self.draw(300_000);
            self.at(in_us, Event::Told { at, view: view.clone() });
        }
        let in_us = 200_000 + self.draw(500_000);
        self.at(in_us, Event::Handover);
    }

    /// Once everybody acts under a phase, the new owners are given what the old ones hold by then.
    fn hand_over(&mut self) {
        let epoch = self.view.epoch();
        self.handovers = (self.handovers.0 + 1, 0);
        if !self.nodes.iter().all(|node| node.replica.epoch() == epoch) {
            return self.at(50_000, Event::Handover);
        }
        let pairs = OLD.iter().flat_map(|from| NEW.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs.filter(|(from, to)| from != to) {
            let (from, to) = (self.place(&node(from)), self.place(&node(to)));
            let versions = self.nodes[from].disk.clone();
            let store = StoreVersions { epoch, key: data_key(), rule: self.rule, versions };
            let asker = Asker::Handover(self.handovers.0);
            self.handovers.1 += 1;
            let (in_us, message) = (self.delay(), Outgoing::Store(store));
            self.at(in_us, Event::Call { to, asker, message });
        }
    }

    fn handed_over(&mut self, number: u64, outcome: &Result<Incoming, CallFailure>) {
        if number != self.handovers.0 {
            return;
        }
        if !matches!(outcome, Ok(Incoming::Stored(Ok(_)))) {
            self.handovers.0 += 1;
            return self.at(50_000, Event::Handover);
        }
        self.handovers.1 -= 1;
        if self.handovers.1 > 0 {
            return;
        }
        let epoch = self.view.epoch().0;
        let moving = |phase| moving(epoch + 1, &OLD, &NEW, phase, config(self.rule));
        match epoch {
            2 => self.tell(single(moving(Phase::Serving))),
            3 => {
                self.view = single(moving(Phase::Done));
                for at in 0..NODES.len() {
                    let (in_us, view) = (1_000 + self.draw(300_000), self.view.clone());
                    self.at(in_us, Event::Told { at, view });
                }
            }
            _ => {}
        }
    }

    fn call(&mut self, to: usize, asker: Asker, message: Outgoing) {
        let token = self.sequence + (1 << 32);
        self.sequence += 1;
        let vnode = |request| replica::Input::Asked { token: replica::Token(token), request };
        match message {
            Outgoing::Read(read) => {
                self.nodes[to].at_vnode.insert(token, asker);
                self.vnode(to, vnode(replica::Request::Read(read)));
            }
            Outgoing::Store(store) => {
                self.nodes[to].at_vnode.insert(token, asker);
                self.vnode(to, vnode(replica::Request::Store(store)));
            }
            Outgoing::Mint(mint) => {
                self.nodes[to].at_vnode.insert(token, asker);
                self.vnode(to, vnode(replica::Request::Mint(mint)));
            }
            // Nobody keeps hints here.
            Outgoing::Hint(_) | Outgoing::ReadHints(_) | Outgoing::MintHint(_) => {
                self.answer(to, asker, Err(CallFailure::Unreachable));
            }
            Outgoing::Relay(relay) => {
                self.nodes[to].at_coordinator.insert(token, asker);
                self.coordinator(to, Input::Relay { token: Token(token), relay });
            }
            Outgoing::Forward(forward) => {
                self.nodes[to].at_coordinator.insert(token, asker);
                self.coordinator(to, Input::Forward { token: Token(token), forward });
            }
        }
    }

    fn vnode(&mut self, at: usize, input: replica::Input) {
        let now = self.now(at);
        self.nodes[at].replica.handle(now, input);
        while let Some(effect) = self.nodes[at].replica.next_effect() {
            match effect {
                replica::Effect::Load(key) => {
                    let found = self.nodes[at].disk.clone();
                    self.nodes[at].replica.handle(now, replica::Input::Loaded(key, Ok(found)));
                }
                replica::Effect::Commit(number, commit) => {
                    let life = self.nodes[at].life;
                    self.nodes[at].commits.push((number, commit));
                    let in_us = 200 + self.draw(3_000);
                    self.at(in_us, Event::CommitEnds { at, life });
                }
                replica::Effect::Reply(token, reply) => {
                    let asker = self.nodes[at].at_vnode.remove(&token.0).expect("asked once");
                    let incoming = match reply {
                        replica::Reply::Read(result) => Incoming::Read(result),
                        replica::Reply::Store(result) => Incoming::Stored(result),
                        replica::Reply::Mint(result) => Incoming::Minted(result),
                        replica::Reply::Purge(_) => panic!("nobody purges"),
                    };
                    self.answer(at, asker, Ok(incoming));
                }
                replica::Effect::Quiet => panic!("nobody froze it"),
            }
        }
    }

    fn coordinator(&mut self, at: usize, input: Input) {
        let now = self.now(at);
        self.nodes[at].coordinator.handle(now, input);
        while let Some(effect) = self.nodes[at].coordinator.next_effect() {
            match effect {
                Effect::Send { call, to, message, deadline, .. } => {
                    self.send(at, call, &to, message, deadline);
                }
                Effect::Ack { to, ack } => {
                    let to = self.place(&to);
                    let in_us = self.delay();
                    if !self.one_in(20) {
                        self.at(in_us, Event::Ack { to, ack });
                    }
                }
                Effect::Reply(token, reply) => {
                    let asker = self.nodes[at].at_coordinator.remove(&token.0).expect("asked once");
                    match reply {
                        Reply::Relay(result) => {
                            self.answer(at, asker, Ok(Incoming::Stored(result)))
                        }
                        Reply::Forward(result) => {
                            self.answer(at, asker, Ok(Incoming::Forwarded(result)));
                        }
                        Reply::Get(answer) => {
                            let Asker::Client(number) = asker else { panic!("a client's") };
                            let result = answer.result.map(|found| {
                                self.contexts.push(found.context.clone());
                                let context = token_decode(&data_key(), &found.context.0);
                                context.expect("our own")
                            });
                            self.done(number, result);
                        }
                        Reply::Write(answer) => {
                            let Asker::Client(number) = asker else { panic!("a client's") };
                            let result = answer.result.map(|written| {
                                token_decode(&data_key(), &written.context.0).expect("our own")
                            });
                            self.done(number, result);
                        }
                    }
                }
            }
        }
        if let Some(wake) = self.nodes[at].coordinator.next_wake() {
            let life = self.nodes[at].life;
            self.at(wake.0.saturating_sub(self.now_us), Event::Wake { at, life });
        }
    }

    fn done(&mut self, number: usize, result: Result<Context, RequestError>) {
        let now = self.now_us;
        let operation = &mut self.operations[number];
        assert!(operation.answered.is_none(), "answered twice");
        operation.answered = Some((now, result));
    }

    /// Sends a message over the network, which has its ways. Its sender hears of it exactly once.
    fn send(
        &mut self,
        at: usize,
        call: CallNumber,
        to: &NodeId,
        message: Outgoing,
        deadline: Moment,
    ) {
        let to = self.place(to);
        let life = self.nodes[at].life;
        let asker = Asker::Coordinator { at, life, call };
        if to == at {
            return self.at(1, Event::Call { to, asker, message });
        }
        let in_us = self.delay();
        if self.one_in(12) {
            let (in_us, failure) = match self.draw(2) {
                0 => (in_us, CallFailure::Unreachable),
                _ => (deadline.0.saturating_sub(self.now_us), CallFailure::Timeout),
            };
            let outcome = Err(failure);
            return self.at(in_us, Event::Answer { at, life, call, from: to, outcome });
        }
        if self.one_in(15) {
            let late = self.delay();
            let nobody = Asker::Coordinator { at, life: u64::MAX, call };
            self.at(in_us + late, Event::Call { to, asker: nobody, message: message.clone() });
        }
        self.at(in_us, Event::Call { to, asker, message });
    }

    fn answer(&mut self, from: usize, asker: Asker, outcome: Result<Incoming, CallFailure>) {
        let (at, life, call) = match asker {
            Asker::Coordinator { at, life, call } => (at, life, call),
            Asker::Handover(number) => return self.handed_over(number, &outcome),
            Asker::Client(_) => return,
        };
        if at == from {
            return self.at(1, Event::Answer { at, life, call, from, outcome });
        }
        let in_us = self.delay();
        let outcome = if self.one_in(20) { Err(CallFailure::Closed) } else { outcome };
        self.at(in_us, Event::Answer { at, life, call, from, outcome });
    }

    fn operate(&mut self) {
        let number = self.operations.len();
        let at = self.draw(NODES.len() as u64) as usize;
        let write_id = number as u128;
        let write = match self.draw(12) {
            0..3 => None,
            3 => Some(delete(write_id, options())),
            _ => Some(put(write_id, options())),
        };
        let write = write.map(|write| {
            let read = self.contexts.len() as u64;
            let context = (read > 0 && self.draw(2) == 0).then(|| {
                let back = self.draw(read.min(4));
                self.contexts[(read - 1 - back) as usize].clone()
            });
            Write { context, ..write }
        });
        self.ask(at, write);
    }

    fn ask(&mut self, at: usize, write: Option<Write>) {
        let number = self.operations.len();
        self.operations.push(Operation {
            write: write.as_ref().map(|write| write.write_id),
            seen: write.as_ref().and_then(seen),
            began: self.now_us,
            at,
            life: self.nodes[at].life,
            answered: None,
        });
        let token = number as u64;
        self.nodes[at].at_coordinator.insert(token, Asker::Client(number));
        let token = Token(token);
        match write {
            Some(write) => self.coordinator(at, Input::Write { token, write }),
            None => self.coordinator(at, Input::Get { token, get: get(options()) }),
        }
    }

    /// A process dies and starts again: what was not committed is gone, or some of it, unheard, is not.
    fn crash(&mut self, at: usize) {
        let kept = self.draw(3) as usize;
        let node = &mut self.nodes[at];
        for (_, commit) in node.commits.drain(..).take(kept).collect::<Vec<_>>() {
            node.keep(commit);
        }
        node.life += 1;
        let (life, record, view) = (node.life, node.record, node.view.clone());
        let askers = [std::mem::take(&mut node.at_vnode), std::mem::take(&mut node.at_coordinator)];
        for asker in askers.into_iter().flat_map(BTreeMap::into_values) {
            self.answer(at, asker, Err(CallFailure::Closed));
        }
        let (coordinator, replica) = self.start(at, life, record, &view);
        self.nodes[at].coordinator = coordinator;
        self.nodes[at].replica = replica;
    }

    /// Everybody reads at a quorum, after peace has come.
    fn read_everywhere(&mut self) {
        self.calm = true;
        self.run(self.now_us + 10_000_000);
        let first = self.operations.len();
        for at in 0..NODES.len() {
            self.ask(at, None);
        }
        self.run(self.now_us + 3_000_000);
        for number in first..self.operations.len() {
            match self.operations[number].answered.take() {
                Some((_, Ok(context))) => self.read.push(context),
                other => panic!("a read in peace came to {other:?}"),
            }
        }
        self.operations.truncate(first);
        let quiet = self
            .nodes
            .iter()
            .all(|node| node.coordinator.in_flight() == 0 && node.replica.waiting() == 0);
        assert!(quiet, "nothing is left of anything");
    }

    /// Everything that all disks hold together.
    fn joined(&self) -> Versions {
        let mut joined = Versions::new();
        for node in &self.nodes {
            joined.merge(node.disk.clone(), self.rule);
        }
        joined
    }
}

fn seen(write: &Write) -> Option<Context> {
    match (&write.context, &write.content) {
        (Some(token), _) => Some(token_decode(&data_key(), &token.0).expect("our own")),
        (None, Content::Tombstone) => None,
        (None, Content::Value(_)) => Some(Context::new()),
    }
}

impl Node {
    fn keep(&mut self, commit: Commit) {
        self.disk = (*commit.versions).clone();
        self.record = commit.vnode_record.or(self.record);
    }
}

fn config(rule: ConflictRule) -> KeyspaceConfig {
    match rule {
        ConflictRule::Siblings => KeyspaceConfig::default(),
        ConflictRule::Lww => lww(),
    }
}

/// A state with a single partition.
fn single(state: ClusterState) -> Arc<View> {
    view(ClusterState { partitions: 1, ..state })
}

fn fleet_after(seed: u64, rule: ConflictRule) -> Fleet {
    lived(Fleet::new(seed, rule, &NODES))
}

/// One whose ring changes meanwhile: a node leaves and another one joins.
fn moved_fleet_after(seed: u64, rule: ConflictRule) -> Fleet {
    let mut fleet = Fleet::new(seed, rule, &OLD);
    fleet.run(100_000);
    fleet.tell(single(moving(2, &OLD, &NEW, Phase::Filling, config(rule))));
    let fleet = lived(fleet);
    let has_moved = |node: &Node| node.view.epoch().0 == 4;
    assert!(fleet.nodes.iter().all(has_moved), "the change is through");
    fleet
}

fn lived(mut fleet: Fleet) -> Fleet {
    for _ in 0..40 {
        let in_us = fleet.draw(4_000_000);
        fleet.at(in_us, Event::Operation);
    }
    for _ in 0..6 {
        let (in_us, at) = (fleet.draw(4_000_000), fleet.draw(NODES.len() as u64) as usize);
        fleet.at(in_us, Event::Crash { at });
    }
    fleet.run(4_000_000);
    fleet.read_everywhere();
    fleet
}

fn check_acknowledged(fleet: &Fleet) -> Result<(), TestCaseError> {
    let joined = fleet.joined();
    for operation in &fleet.operations {
        // E: everybody whose node lived has an answer in time.
        let lived = fleet.nodes[operation.at].life == operation.life;
        prop_assert!(!lived || operation.answered.is_some());
        let Some((answered, result)) = &operation.answered else { continue };
        prop_assert!(
            answered - operation.began <= 2_001_000,
            "in time: {} {:?}",
            answered - operation.began,
            operation.answered
        );
        let Some(write_id) = operation.write else { continue };
        match result {
            // A: every quorum read shows it, or something that follows it.
            Ok(context) => {
                for seen in &fleet.read {
                    for actor in context.actors() {
                        let dot = Dot { actor, counter: context.highest(actor) };
                        prop_assert!(seen.covers(dot), "{dot:?} of {write_id:?} is lost");
                    }
                }
                // F: it is there, or somebody replaced it who had seen it.
                let there = joined.iter().any(|version| version.write_id == write_id);
                let before = operation.seen.clone().unwrap_or_default();
                let dots =
                    context.actors().map(|actor| Dot { actor, counter: context.highest(actor) });
                let own: Vec<_> = dots.filter(|dot| !before.covers(*dot)).collect();
                let replaced = fleet.operations.iter().any(|other| {
                    other.write.is_some_and(|other| other != write_id)
                        && other
                            .seen
                            .as_ref()
                            .is_none_or(|seen| own.iter().any(|dot| seen.covers(*dot)))
                });
                // Of a retry that comes when it has been replaced, its dot isn't told.
                let is_told = !own.is_empty();
                prop_assert!(!is_told || there || replaced, "{write_id:?} was dropped");
            }
            Err(RequestError::Timeout { .. }) => {}
            Err(_) => prop_assert!(!joined.knows(write_id), "{write_id:?} was kept all the same"),
        }
    }
    Ok(())
}

/// G: a read that begins after a write was acknowledged shows it, or something that follows it.
fn check_reads(fleet: &Fleet) -> Result<(), TestCaseError> {
    let ended = |operation: &Operation| match &operation.answered {
        Some((at, Ok(context))) => Some((*at, context.clone())),
        _ => None,
    };
    let (writes, reads): (Vec<_>, Vec<_>) =
        fleet.operations.iter().partition(|operation| operation.write.is_some());
    for (write, (written, context)) in writes.iter().filter_map(|it| Some((it, ended(it)?))) {
        for read in reads.iter().filter(|read| read.began >= written) {
            let Some((_, seen)) = ended(read) else { continue };
            for actor in context.actors() {
                let dot = Dot { actor, counter: context.highest(actor) };
                let is_seen = seen.covers(dot);
                prop_assert!(is_seen, "{:?} was not read at {}", write.write, read.began);
            }
        }
    }
    Ok(())
}

fn check_the_later_wins(fleet: &Fleet) -> Result<(), TestCaseError> {
    let joined = fleet.joined();
    let acknowledged = |operation: &&Operation| {
        operation.write.is_some() && matches!(operation.answered, Some((_, Ok(_))))
    };
    let Some(winner) = joined.iter().next().map(|version| version.write_id) else {
        return Ok(());
    };
    let won = fleet.operations.iter().find(|operation| operation.write == Some(winner));
    let Some(Operation { answered: Some((ended, Ok(_))), .. }) = won else { return Ok(()) };
    for other in fleet.operations.iter().filter(acknowledged) {
        // A delete of what a quorum shows to be nothing writes nothing.
        let wrote = matches!(&other.answered, Some((_, Ok(context))) if !context.is_empty());
        prop_assert!(!wrote || other.began <= *ended, "{:?} came after {winner:?}", other.write);
    }
    for seen in &fleet.read {
        prop_assert_eq!(seen, &joined.context(), "every quorum shows the winner");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn acknowledged_writes_are_read_and_errors_are_honest(seed in any::<u64>()) {
        let fleet = fleet_after(seed, ConflictRule::Siblings);
        check_acknowledged(&fleet)?;
        check_reads(&fleet)?;
    }

    /// G: so they are while the ring changes.
    #[test]
    fn so_they_are_while_the_ring_changes(seed in any::<u64>()) {
        let fleet = moved_fleet_after(seed, ConflictRule::Siblings);
        check_acknowledged(&fleet)?;
        check_reads(&fleet)?;
    }

    /// T14: the clocks are days apart; what was acknowledged before another write began does not win
    /// over it.
    #[test]
    fn the_later_acknowledged_lww_write_wins(seed in any::<u64>()) {
        check_the_later_wins(&fleet_after(seed, ConflictRule::Lww))?;
    }

    #[test]
    fn so_it_does_while_the_ring_changes(seed in any::<u64>()) {
        check_the_later_wins(&moved_fleet_after(seed, ConflictRule::Lww))?;
    }

    #[test]
    fn a_seed_is_a_history(seed in any::<u64>()) {
        let answers = |fleet: Fleet| format!("{:?}", fleet.operations);
        let (one, other) = (
            fleet_after(seed, ConflictRule::Siblings),
            fleet_after(seed, ConflictRule::Siblings),
        );
        prop_assert_eq!(answers(one), answers(other));
    }
}
