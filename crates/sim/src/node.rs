//! One simulated node: the real machines, and the shell that carries out what they say.
//!
//! The shell decides nothing. It passes messages between the machines of its own node on the spot, hands
//! packets for others and alarms to the fleet, and keeps the disk. What the actors do in a real node, it
//! does here.

mod coordinating;
mod events;
mod following;
mod messages;
mod vnodes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use anello_gossip::{Input as GossipInput, Membership, MembershipConfig, Ticket};
use anello_protocol::{
    id::{NodeId, PartitionId},
    time::{Moment, Now},
};
use anello_replica::{
    coordinator::{
        CallNumber, Coordinator, CoordinatorConfig, Input as CoordinatorInput,
        Token as CoordinatorToken,
    },
    replica::{
        CommitOutcome, Input as ReplicaInput, Replica, ReplicaConfig, Token as ReplicaToken,
    },
};
use anello_ring::view::View;

pub use events::{ClientCall, NodeInput, Out, SyncOutcome};

use crate::{
    disk::{Disk, DiskWrite},
    rng::Rng,
    wire::WireCall,
};

/// A node that is switched on.
struct Running {
    membership: Membership,
    coordinator: Coordinator,
    replicas: BTreeMap<PartitionId, Replica>,
    /// Those that it should have and can't open.
    missing: BTreeSet<PartitionId>,
    view: Option<Arc<View>>,
    is_ready: bool,
    refused: Option<String>,
    unreachable: BTreeSet<NodeId>,
    reached: BTreeSet<NodeId>,
    is_frozen: bool,
    /// Freezes that wait for vnodes.
    freezing: Vec<(Ticket, BTreeSet<PartitionId>)>,
    asked_of_coordinator: BTreeMap<CoordinatorToken, Asker>,
    asked_of_replicas: BTreeMap<ReplicaToken, ReplicaAsker>,
    calls: BTreeMap<WireCall, (CallNumber, NodeId)>,
    alarm: Option<Moment>,
}

#[derive(Debug)]
enum Asker {
    Client(ClientCall),
    Node(NodeId, WireCall),
}

#[derive(Debug)]
enum ReplicaAsker {
    Own(CallNumber),
    Node(NodeId, WireCall),
}

/// Inputs of one machine of the node to another.
enum Inner {
    Coordinator(CoordinatorInput),
    Replica(PartitionId, ReplicaInput),
    Gossip(GossipInput),
}

/// See the head of this file.
pub struct Node {
    config: MembershipConfig,
    coordinator_config: CoordinatorConfig,
    replica_config: ReplicaConfig,
    /// What survives a crash.
    pub disk: Disk,
    rng: Rng,
    running: Option<Running>,
    numbers: u64,
}

impl Node {
    /// A node that is switched off.
    pub fn new(
        config: MembershipConfig,
        coordinator_config: CoordinatorConfig,
        replica_config: ReplicaConfig,
        rng: Rng,
    ) -> Self {
        let disk = Disk::default();
        Self { config, coordinator_config, replica_config, disk, rng, running: None, numbers: 0 }
    }

    /// Its name.
    pub fn id(&self) -> &NodeId {
        &self.config.member.id
    }

    /// Its place and addresses.
    pub fn member(&self) -> &anello_protocol::cluster::Member {
        &self.config.member
    }

    /// Whether it is switched on.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it serves.
    pub fn is_ready(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.is_ready)
    }

    /// Why it will never serve, if so.
    pub fn refused(&self) -> Option<&str> {
        self.running.as_ref().and_then(|running| running.refused.as_deref())
    }

    /// Whether there are vnodes that it should have and couldn't open.
    pub fn lacks_vnodes(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.missing.is_empty())
    }

    /// The state that it acts under.
    pub fn view(&self) -> Option<&Arc<View>> {
        self.running.as_ref().and_then(|running| running.view.as_ref())
    }

    /// Whether it believes that all members can be reached.
    pub fn reaches_all(&self) -> bool {
        let Some(running) = &self.running else { return false };
        let Some(view) = &running.view else { return false };
        running.unreachable.is_empty() && running.reached.len() + 1 == view.cluster().members.len()
    }

    /// The calls that it waits for the answer of, to a node.
    pub fn calls_to(&self, to: &NodeId) -> Vec<WireCall> {
        let Some(running) = &self.running else { return Vec::new() };
        let calls = running.calls.iter().filter(|(_, (_, callee))| callee == to);
        calls.map(|(call, _)| *call).collect()
    }

    /// What is still open at a time when nothing should be.
    pub fn leftovers(&self) -> Option<String> {
        let running = self.running.as_ref()?;
        let in_flight = running.coordinator.in_flight();
        let waiting: usize = running.replicas.values().map(Replica::waiting).sum();
        let (asked, inner) = (running.asked_of_coordinator.len(), running.asked_of_replicas.len());
        (in_flight + waiting + asked + inner > 0).then(|| {
            format!(
                "{}: {in_flight} requests in flight, {waiting} wait at vnodes, {asked} clients or \
                 nodes and {inner} of the vnodes' callers have no answer",
                self.id()
            )
        })
    }

    /// Switches it on.
    pub fn start(&mut self, now: Now, out: &mut Vec<Out>) {
        let id = self.id().clone();
        let seed = self.rng.draw();
        let stored = self.disk.record().map(<[u8]>::to_vec);
        let membership = match Membership::new(self.config.clone(), stored.as_deref(), seed) {
            Ok(membership) => membership,
            Err(error) => {
                out.push(Out::Broke("a node starts on its own disk", format!("{id}: {error}")));
                return;
            }
        };
        let coordinator = Coordinator::new(
            id,
            self.config.member.datacenter.clone(),
            0,
            self.coordinator_config.clone(),
            self.rng.draw(),
        );
        self.running = Some(Running {
            membership,
            coordinator,
            replicas: BTreeMap::new(),
            missing: BTreeSet::new(),
            view: None,
            is_ready: false,
            refused: None,
            unreachable: BTreeSet::new(),
            reached: BTreeSet::new(),
            is_frozen: false,
            freezing: Vec::new(),
            asked_of_coordinator: BTreeMap::new(),
            asked_of_replicas: BTreeMap::new(),
            calls: BTreeMap::new(),
            alarm: None,
        });
        self.turn(now, Inner::Gossip(GossipInput::Started), out);
    }

    /// Kills it.
    pub fn crash(&mut self, out: &mut Vec<Out>) {
        self.running = None;
        let fresh = self.disk.crash(&mut self.rng);
        out.extend(fresh.into_iter().map(Out::Durable));
    }

    /// Gives it an input; what is to be done about it is pushed, in order.
    pub fn take(&mut self, now: Now, input: NodeInput, out: &mut Vec<Out>) {
        let Some(running) = &mut self.running else { return };
        let inner = match input {
            NodeInput::Packet(from, frame) => match self.packet(now, from, frame, out) {
                Some(inner) => inner,
                None => return,
            },
            NodeInput::Get(client, get) => {
                let token = self.coordinator_token(Asker::Client(client));
                Inner::Coordinator(CoordinatorInput::Get { token, get })
            }
            NodeInput::Write(client, write) => {
                let token = self.coordinator_token(Asker::Client(client));
                Inner::Coordinator(CoordinatorInput::Write { token, write })
            }
            NodeInput::Alter(token, request) => {
                Inner::Gossip(GossipInput::Alter { token, request })
            }
            NodeInput::GossipAlarm => Inner::Gossip(GossipInput::TimeUp),
            NodeInput::CoordinatorAlarm => {
                running.alarm = None;
                Inner::Coordinator(CoordinatorInput::TimeUp)
            }
            NodeInput::Loaded(partition, key) => {
                let found = Ok(self.disk.read(&key));
                Inner::Replica(partition, ReplicaInput::Loaded(key, found))
            }
            NodeInput::CallFailed(call, failure) => {
                let Some((call, from)) = running.calls.remove(&call) else { return };
                let outcome = Err(failure);
                Inner::Coordinator(CoordinatorInput::Answered { call, from, outcome })
            }
            NodeInput::Inspected(ticket) => {
                let keyspaces = self.disk.keyspaces();
                Inner::Gossip(GossipInput::Holding { ticket, keyspaces })
            }
            NodeInput::Synced(outcome) => return self.synced(now, outcome, out),
        };
        self.turn(now, inner, out);
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn coordinator_token(&mut self, asker: Asker) -> CoordinatorToken {
        let token = CoordinatorToken(self.number());
        if let Some(running) = &mut self.running {
            running.asked_of_coordinator.insert(token, asker);
        }
        token
    }

    fn synced(&mut self, now: Now, outcome: SyncOutcome, out: &mut Vec<Out>) {
        let (batch, fresh) = match outcome {
            SyncOutcome::Durable => self.disk.end_sync(),
            SyncOutcome::FailedKept => self.disk.fail_sync(true),
            SyncOutcome::FailedLost => self.disk.fail_sync(false),
        };
        out.extend(fresh.into_iter().map(Out::Durable));
        for write in batch {
            let inner = match write {
                DiskWrite::Commit(number, commit) => {
                    let outcome = match outcome {
                        SyncOutcome::Durable => CommitOutcome::Durable,
                        _ => CommitOutcome::Failed("the disk failed".into()),
                    };
                    Inner::Replica(commit.partition, ReplicaInput::Committed(number, outcome))
                }
                DiskWrite::Record(ticket, _) => Inner::Gossip(GossipInput::Saved(ticket)),
            };
            self.turn(now, inner, out);
        }
        self.sync(out);
    }

    fn sync(&mut self, out: &mut Vec<Out>) {
        if self.disk.begin_sync() {
            out.push(Out::Sync);
        }
    }

    /// One input, and all that follows from it within the node.
    fn turn(&mut self, now: Now, first: Inner, out: &mut Vec<Out>) {
        let mut queue = VecDeque::from([first]);
        let mut budget = 100_000_u32;
        while let Some(inner) = queue.pop_front() {
            budget -= 1;
            if budget == 0 {
                out.push(Out::Broke("D: the run ends", format!("{} goes round", self.id())));
                return;
            }
            match inner {
                Inner::Gossip(input) => self.gossip(now, input, &mut queue, out),
                Inner::Coordinator(input) => self.coordinate(now, input, &mut queue, out),
                Inner::Replica(partition, input) => {
                    self.replicate(now, partition, input, &mut queue, out);
                }
            }
        }
        self.set_alarm(out);
        self.sync(out);
    }

    fn set_alarm(&mut self, out: &mut Vec<Out>) {
        let Some(running) = &mut self.running else { return };
        let Some(wake) = running.coordinator.next_wake() else { return };
        if running.alarm.is_none_or(|alarm| wake < alarm) {
            running.alarm = Some(wake);
            out.push(Out::At(wake, NodeInput::CoordinatorAlarm));
        }
    }
}
