//! One simulated node: the real machines, and the shell that carries out what they say.
//!
//! The shell decides nothing. It passes messages between the machines of its own node on the spot, hands
//! packets for others and alarms to the fleet, and keeps the disk. What the actors do in a real node, it
//! does here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use anello_gossip::{
    Effect as GossipEffect, Input as GossipInput, Membership, MembershipConfig, MembershipEvent,
    Ticket, To,
};
use anello_protocol::{
    cluster::ClusterState,
    id::{Epoch, NodeId, PartitionId},
    key::DataKey,
    message::{
        admin::{AlterError, AlterKeyspace},
        client::{Answer, Found, Get, Write, Written},
    },
    time::{Moment, Now},
};
use anello_replica::{
    coordinator::{
        CallFailure, CallNumber, Coordinator, CoordinatorConfig, Effect as CoordinatorEffect,
        Incoming, Input as CoordinatorInput, Outgoing, Reply as CoordinatorReply,
        Token as CoordinatorToken,
    },
    placement::View,
    replica::{
        CommitOutcome, Effect as ReplicaEffect, Input as ReplicaInput, Replica, ReplicaConfig,
        Reply as ReplicaReply, Request, Token as ReplicaToken,
    },
};

use crate::{
    disk::{Disk, DiskWrite},
    rng::Rng,
    wire::{AnswerFrame, Ask, Frame, WireCall},
};

/// Which client's attempt a request is.
pub type ClientCall = u64;

/// What happens to a node.
#[derive(Debug)]
pub enum NodeInput {
    /// A packet of another node.
    Packet(NodeId, Frame),
    /// A client reads.
    Get(ClientCall, Get),
    /// A client writes.
    Write(ClientCall, Write),
    /// An operator changes a keyspace.
    Alter(u64, AlterKeyspace),
    /// Membership's alarm.
    GossipAlarm,
    /// The coordinator's alarm.
    CoordinatorAlarm,
    /// The store has read a key.
    Loaded(PartitionId, DataKey),
    /// The disk has synced, or failed to.
    Synced(SyncOutcome),
    /// A call to another node has failed.
    CallFailed(WireCall, CallFailure),
    /// It can be told of which keyspaces the node holds data.
    Inspected(Ticket),
}

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// All is durable.
    Durable,
    /// It failed, and what was written was kept all the same.
    FailedKept,
    /// It failed, and what was written is lost.
    FailedLost,
}

/// What a node wants done by the world around it.
#[derive(Debug)]
pub enum Out {
    /// A packet to a node.
    Send(To, Frame),
    /// An input of its own, at a moment.
    At(Moment, NodeInput),
    /// A read from the disk, then [`NodeInput::Loaded`].
    Load(PartitionId, DataKey),
    /// The disk has begun a sync, to end in [`NodeInput::Synced`].
    Sync,
    /// A client's read is answered.
    Got(ClientCall, Answer<Found>),
    /// A client's write is answered.
    Wrote(ClientCall, Answer<Written>),
    /// An operator is answered.
    Altered(u64, Result<Epoch, AlterError>),
    /// A version is durable.
    Durable(crate::disk::Fresh),
    /// The node has learned of an agreed state.
    Agreed(Arc<ClusterState>),
    /// Something for the history.
    Note(String),
    /// The node broke a rule that is checked at the node itself.
    Broke(&'static str, String),
}

/// A node that is switched on.
struct Running {
    membership: Membership,
    coordinator: Coordinator,
    replicas: BTreeMap<PartitionId, Replica>,
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

    fn packet(
        &mut self,
        now: Now,
        from: NodeId,
        frame: Frame,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        match frame {
            Frame::Gossip(packet) => Some(Inner::Gossip(GossipInput::Heard { from, packet })),
            Frame::Ack(ack) => Some(Inner::Coordinator(CoordinatorInput::Acked(ack))),
            Frame::Answer(call, answer) => {
                // Late answers and second copies of one find nobody who waits.
                let (call, callee) = self.running.as_mut()?.calls.remove(&call)?;
                let outcome = match answer {
                    AnswerFrame::Read(held) => Ok(Incoming::Read(held)),
                    AnswerFrame::Stored(stored) => Ok(Incoming::Stored(stored)),
                    AnswerFrame::Forwarded(answer) => Ok(Incoming::Forwarded(answer)),
                    AnswerFrame::Busy => Err(CallFailure::Busy),
                };
                let from = callee;
                Some(Inner::Coordinator(CoordinatorInput::Answered { call, from, outcome }))
            }
            // What has waited past its deadline is dropped, as the actors do.
            Frame::Ask(_, deadline, _) if Frame::deadline(deadline) <= now.moment => None,
            Frame::Ask(call, _, ask) => match ask {
                Ask::Relay(relay) => {
                    let token = self.coordinator_token(Asker::Node(from, call));
                    Some(Inner::Coordinator(CoordinatorInput::Relay { token, relay }))
                }
                Ask::Forward(forward) => {
                    let token = self.coordinator_token(Asker::Node(from, call));
                    Some(Inner::Coordinator(CoordinatorInput::Forward { token, forward }))
                }
                Ask::Read(read) => {
                    let key = read.key.clone();
                    let asker = ReplicaAsker::Node(from, call);
                    self.ask_replica(&key, Request::Read(read), asker, out)
                }
                Ask::Store(store) => {
                    let key = store.key.clone();
                    let asker = ReplicaAsker::Node(from, call);
                    self.ask_replica(&key, Request::Store(store), asker, out)
                }
            },
        }
    }

    /// Passes a request on to the key's vnode. One that isn't there can't take it in.
    fn ask_replica(
        &mut self,
        key: &DataKey,
        request: Request,
        asker: ReplicaAsker,
        out: &mut Vec<Out>,
    ) -> Option<Inner> {
        let partition = key.hash.partition(self.config.partitions);
        let token = ReplicaToken(self.number());
        let running = self.running.as_mut()?;
        if !running.replicas.contains_key(&partition) {
            match asker {
                ReplicaAsker::Node(to, call) => {
                    out.push(Out::Send(To::Node(to), Frame::Answer(call, AnswerFrame::Busy)));
                    return None;
                }
                ReplicaAsker::Own(call) => {
                    let from = self.id().clone();
                    let outcome = Err(CallFailure::Refused);
                    return Some(Inner::Coordinator(CoordinatorInput::Answered {
                        call,
                        from,
                        outcome,
                    }));
                }
            }
        }
        running.asked_of_replicas.insert(token, asker);
        Some(Inner::Replica(partition, ReplicaInput::Asked { token, request }))
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

    fn gossip(
        &mut self,
        now: Now,
        input: GossipInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        let mut effects = Vec::new();
        running.membership.handle(now, input, &mut effects);
        for effect in effects {
            let Some(running) = &mut self.running else { return };
            match effect {
                GossipEffect::Send { to, packet } => out.push(Out::Send(to, Frame::Gossip(packet))),
                GossipEffect::Save { ticket, record } => {
                    self.disk.push(DiskWrite::Record(ticket, record));
                }
                GossipEffect::Inspect { ticket } => {
                    out.push(Out::At(now.moment, NodeInput::Inspected(ticket)));
                }
                GossipEffect::Freeze { ticket } => {
                    running.is_frozen = true;
                    let partitions: BTreeSet<_> = running.replicas.keys().copied().collect();
                    if partitions.is_empty() {
                        out.push(Out::At(now.moment, NodeInput::Inspected(ticket)));
                    }
                    for partition in &partitions {
                        queue.push_back(Inner::Replica(*partition, ReplicaInput::Freeze));
                    }
                    running.freezing.push((ticket, partitions));
                }
                GossipEffect::Thaw => {
                    running.is_frozen = false;
                    running.freezing.clear();
                    for partition in running.replicas.keys() {
                        queue.push_back(Inner::Replica(*partition, ReplicaInput::Thaw));
                    }
                }
                GossipEffect::Answer { token, result } => out.push(Out::Altered(token, result)),
                GossipEffect::WakeAt(at) => out.push(Out::At(at, NodeInput::GossipAlarm)),
                GossipEffect::Event(event) => self.event(event, queue, out),
                GossipEffect::Note(line) => out.push(Out::Note(format!("{}: {line}", self.id()))),
            }
        }
    }

    fn event(&mut self, event: MembershipEvent, queue: &mut VecDeque<Inner>, out: &mut Vec<Out>) {
        let me = self.id().clone();
        let Some(running) = &mut self.running else { return };
        match event {
            MembershipEvent::ClusterChanged(state) => {
                out.push(Out::Agreed(Arc::clone(&state)));
                match View::of(Arc::clone(&state)) {
                    Ok(view) => self.act_under(Arc::new(view), queue),
                    Err(error) => {
                        let what = format!("{me}: no ring under {}: {error}", state.epoch);
                        out.push(Out::Broke("an agreed state has a ring", what));
                    }
                }
            }
            MembershipEvent::Reachability { node, reachable, reason } => {
                let verdict = if reachable { "reachable" } else { "unreachable" };
                out.push(Out::Note(format!("{me}: {node} is {verdict}: {reason}")));
                if reachable {
                    running.unreachable.remove(&node);
                    running.reached.insert(node.clone());
                } else {
                    running.reached.remove(&node);
                    running.unreachable.insert(node.clone());
                }
                let input = CoordinatorInput::ReachabilityChanged { node, reachable };
                queue.push_back(Inner::Coordinator(input));
            }
            MembershipEvent::Ready => running.is_ready = true,
            MembershipEvent::NotReady(_) => running.is_ready = false,
            MembershipEvent::Refused(reason) => {
                out.push(Out::Note(format!("{me}: refused: {reason}")));
                running.is_ready = false;
                running.refused = Some(reason);
            }
        }
    }

    /// First the vnodes are made that the node holds, then all act under the new state.
    fn act_under(&mut self, view: Arc<View>, queue: &mut VecDeque<Inner>) {
        let me = self.id().clone();
        let Some(running) = &mut self.running else { return };
        let names = view.cluster().keyspaces.keys();
        let keyspaces = names.filter_map(|name| view.keyspace(name));
        let held: BTreeSet<PartitionId> = keyspaces
            .flat_map(|keyspace| view.ring().vnodes_of(&me, &keyspace.replication))
            .collect();
        for partition in held {
            let (disk, rng) = (&self.disk, &mut self.rng);
            let config = &self.replica_config;
            running.replicas.entry(partition).or_insert_with(|| {
                if running.is_frozen {
                    queue.push_back(Inner::Replica(partition, ReplicaInput::Freeze));
                }
                let remembered = disk.vnode(partition);
                Replica::new(me.clone(), partition, config.clone(), rng.draw(), remembered)
            });
        }
        for partition in running.replicas.keys() {
            let input = ReplicaInput::ClusterChanged(Arc::clone(&view));
            queue.push_back(Inner::Replica(*partition, input));
        }
        queue.push_back(Inner::Coordinator(CoordinatorInput::ClusterChanged(Arc::clone(&view))));
        running.view = Some(view);
    }

    fn coordinate(
        &mut self,
        now: Now,
        input: CoordinatorInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let Some(running) = &mut self.running else { return };
        running.coordinator.handle(now, input);
        let in_flight = running.coordinator.in_flight();
        if in_flight > self.coordinator_config.requests_max {
            let what = format!("{}: {in_flight} requests in flight", self.config.member.id);
            out.push(Out::Broke("H: everything is bounded", what));
        }
        loop {
            let Some(running) = &mut self.running else { return };
            let Some(effect) = running.coordinator.next_effect() else { return };
            match effect {
                CoordinatorEffect::Send { call, to, message, deadline, .. } => {
                    self.send(call, to, message, deadline, queue, out);
                }
                CoordinatorEffect::Ack { to, ack } => {
                    out.push(Out::Send(To::Node(to), Frame::Ack(ack)));
                }
                CoordinatorEffect::LearnCluster(_) => {}
                CoordinatorEffect::Reply(token, reply) => {
                    let Some(asker) = running.asked_of_coordinator.remove(&token) else {
                        let what = format!("{}: {token:?} was answered twice", self.id());
                        out.push(Out::Broke("H: each request is answered once", what));
                        continue;
                    };
                    match (asker, reply) {
                        (Asker::Client(client), CoordinatorReply::Get(answer)) => {
                            out.push(Out::Got(client, answer));
                        }
                        (Asker::Client(client), CoordinatorReply::Write(answer)) => {
                            out.push(Out::Wrote(client, answer));
                        }
                        (Asker::Node(to, call), CoordinatorReply::Forward(answer)) => {
                            let frame = Frame::Answer(call, AnswerFrame::Forwarded(answer));
                            out.push(Out::Send(To::Node(to), frame));
                        }
                        (Asker::Node(to, call), CoordinatorReply::Relay(stored)) => {
                            let frame = Frame::Answer(call, AnswerFrame::Stored(stored));
                            out.push(Out::Send(To::Node(to), frame));
                        }
                        (asker, reply) => {
                            let what = format!("{asker:?} was answered {reply:?}");
                            out.push(Out::Broke("H: each request is answered once", what));
                        }
                    }
                }
            }
        }
    }

    fn send(
        &mut self,
        call: CallNumber,
        to: NodeId,
        message: Outgoing,
        deadline: Moment,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let is_own = to == *self.id();
        let ask = match message {
            Outgoing::Mint(mint) => {
                let key = mint.key.clone();
                let asker = ReplicaAsker::Own(call);
                queue.extend(self.ask_replica(&key, Request::Mint(mint), asker, out));
                return;
            }
            Outgoing::Read(read) if is_own => {
                let key = read.key.clone();
                let asker = ReplicaAsker::Own(call);
                queue.extend(self.ask_replica(&key, Request::Read(read), asker, out));
                return;
            }
            Outgoing::Store(store) if is_own => {
                let key = store.key.clone();
                let asker = ReplicaAsker::Own(call);
                queue.extend(self.ask_replica(&key, Request::Store(store), asker, out));
                return;
            }
            Outgoing::Read(read) => Ask::Read(read),
            Outgoing::Store(store) => Ask::Store(store),
            Outgoing::Relay(relay) => Ask::Relay(relay),
            Outgoing::Forward(forward) => Ask::Forward(forward),
        };
        let wire = self.number();
        let Some(running) = &mut self.running else { return };
        running.calls.insert(wire, (call, to.clone()));
        out.push(Out::At(deadline, NodeInput::CallFailed(wire, CallFailure::Timeout)));
        out.push(Out::Send(To::Node(to), Frame::Ask(wire, deadline.0, ask)));
    }

    fn replicate(
        &mut self,
        now: Now,
        partition: PartitionId,
        input: ReplicaInput,
        queue: &mut VecDeque<Inner>,
        out: &mut Vec<Out>,
    ) {
        let me = self.id().clone();
        let Some(running) = &mut self.running else { return };
        let Some(replica) = running.replicas.get_mut(&partition) else { return };
        replica.handle(now, input);
        if replica.waiting() > self.replica_config.requests_max {
            let what = format!("{me}: {} requests wait at {partition}", replica.waiting());
            out.push(Out::Broke("H: everything is bounded", what));
        }
        while let Some(effect) = replica.next_effect() {
            match effect {
                ReplicaEffect::Load(key) => out.push(Out::Load(partition, key)),
                ReplicaEffect::Commit(number, commit) => {
                    self.disk.push(DiskWrite::Commit(number, commit));
                }
                ReplicaEffect::Quiet => {
                    for (ticket, waiting) in &mut running.freezing {
                        if waiting.remove(&partition) && waiting.is_empty() {
                            out.push(Out::At(now.moment, NodeInput::Inspected(*ticket)));
                        }
                    }
                }
                ReplicaEffect::Reply(token, reply) => {
                    let Some(asker) = running.asked_of_replicas.remove(&token) else {
                        let what = format!("{me}: {token:?} was answered twice");
                        out.push(Out::Broke("H: each request is answered once", what));
                        continue;
                    };
                    match asker {
                        ReplicaAsker::Own(call) => {
                            let outcome = Ok(match reply {
                                ReplicaReply::Read(held) => Incoming::Read(held),
                                ReplicaReply::Store(stored) => Incoming::Stored(stored),
                                ReplicaReply::Mint(minted) => Incoming::Minted(minted),
                            });
                            let from = me.clone();
                            let input = CoordinatorInput::Answered { call, from, outcome };
                            queue.push_back(Inner::Coordinator(input));
                        }
                        ReplicaAsker::Node(to, call) => {
                            let answer = match reply {
                                ReplicaReply::Read(held) => AnswerFrame::Read(held),
                                ReplicaReply::Store(stored) => AnswerFrame::Stored(stored),
                                // Nobody asks for a dot over the network.
                                ReplicaReply::Mint(_) => AnswerFrame::Busy,
                            };
                            out.push(Out::Send(To::Node(to), Frame::Answer(call, answer)));
                        }
                    }
                }
            }
        }
    }
}
