//! The promises by property: a small fleet of real machines, two datacenters, one key, and a network
//! that delays, loses and repeats, with processes that die. The simulator does this at length; here it
//! is short enough to run with every test.
//!
//! Also while the ring changes: then the new owners are brought in step by hand, which is all that a phase
//! waits for beside that everybody acts under it.

mod promises;
mod reshaping;
mod wiring;

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
