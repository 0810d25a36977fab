//! A fleet of membership machines on one virtual clock: packets take their time or get lost, disks take a
//! moment, nodes are killed, paused, wiped and cut off. One seed, one history.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    cluster::{ClusterState, KeyspaceConfig, Member, MemberState, Phase},
    codec,
    id::{Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId},
    message::{
        admin::{AlterError, AlterKeyspace, KeyspaceChange, RingRequest},
        gossip::{GossipBody, GossipPacket, VoteStep},
    },
    time::{Moment, Now},
};

use anello_ring::view::View;

use crate::{
    Alteration, Effect, Input, Membership, MembershipConfig, MembershipEvent, Ticket, Timing, To,
    change, dice::Dice, record::Record,
};

/// What is on its way to a node.
#[derive(Debug)]
enum Due {
    Packet { from: usize, packet: Vec<u8> },
    Saved { ticket: Ticket, record: Vec<u8> },
    Holding(Ticket),
    Acting,
    HandedOver(Epoch, PartitionId, Phase),
    Wake,
    Start,
}

/// A node, alive or not.
pub(super) struct Node {
    pub(super) config: MembershipConfig,
    machine: Option<Membership>,
    /// Effects of a former life are not carried out.
    life: u64,
    disk: Option<Vec<u8>>,
    paused: bool,
    /// The keyspaces that it holds data of, with the epoch they were first written under.
    pub(super) data: BTreeMap<KeyspaceId, Epoch>,
    frozen: bool,
    pub(super) cluster: Option<Arc<ClusterState>>,
    pub(super) reachable: BTreeMap<NodeId, bool>,
    pub(super) flips: usize,
    pub(super) ready: bool,
    acting: bool,
    pub(super) lost_disk: bool,
    pub(super) not_ready: String,
    pub(super) refused: Option<String>,
    pub(super) left: bool,
    pub(super) answers: BTreeMap<u64, Result<Epoch, AlterError>>,
}

/// The fleet and what is between its nodes.
pub(super) struct Fleet {
    pub(super) now: Moment,
    pub(super) nodes: Vec<Node>,
    pub(super) notes: Vec<String>,
    due: BTreeMap<(Moment, u64), (usize, u64, Due)>,
    /// Inputs that have waited for a core, and up to when the core is taken.
    waited: BTreeSet<u64>,
    core_free: BTreeMap<usize, Moment>,
    sequence: u64,
    dice: Dice,
    /// In percent.
    pub(super) loss: usize,
    pub(super) delay: (Duration, Duration),
    /// From whom to whom nothing gets through.
    pub(super) cut_ways: BTreeSet<(usize, usize)>,
    /// Whose packets, sent and received, take that much longer, drawn for each.
    pub(super) late: BTreeMap<usize, (Duration, Duration)>,
    /// Whose every input waits for a core, for as long, drawn for each.
    pub(super) starved: BTreeMap<usize, (Duration, Duration)>,
    /// Which part of a split network each node is in.
    pub(super) part: Vec<usize>,
    /// The state under each number, as first heard of: there is only one.
    states: BTreeMap<(ClusterId, Epoch), Arc<ClusterState>>,
    /// Which owners were through with which phases of which partitions, by the change.
    handed_over: BTreeSet<(Epoch, PartitionId, Phase, NodeId)>,
    /// How long an owner takes to be through with a phase.
    pub(super) filling: (Duration, Duration),
    pub(super) bytes: u64,
}

/// Clusters founded apart may have states of the same number.
type ClusterId = String;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn id(number: usize) -> NodeId {
    NodeId::new(&format!("n{number}")).expect("a good name")
}

fn address(number: usize) -> String {
    format!("10.0.0.{number}:7400")
}

pub(super) fn member(number: usize) -> Member {
    Member {
        id: id(number),
        datacenter: if number.is_multiple_of(2) { "eu" } else { "us" }.parse().expect("good"),
        rack: "a".parse().expect("a good name"),
        weight: 1.0,
        quic: address(number),
        http: format!("10.0.0.{number}:7480"),
        state: MemberState::Up,
    }
}

pub(super) fn set(name: &str, config: KeyspaceConfig) -> AlterKeyspace {
    let name = KeyspaceName::new(name).expect("a good name");
    AlterKeyspace { name, change: KeyspaceChange::Set(config) }
}

impl Fleet {
    /// Nodes that are switched off; the first ones are the seeds.
    pub(super) fn new(seed: u64, nodes: usize, seeds: usize) -> Self {
        let node = |number: usize| Node {
            config: MembershipConfig {
                member: member(number),
                cluster: "demo".parse().expect("a good name"),
                partitions: 64,
                other_seeds: (0..seeds).filter(|seed| *seed != number).map(address).collect(),
                first_seed: number == 0,
                program: "1.0".into(),
                timing: Timing::lan(),
            },
            machine: None,
            life: 0,
            disk: None,
            paused: false,
            data: BTreeMap::new(),
            frozen: false,
            cluster: None,
            reachable: BTreeMap::new(),
            flips: 0,
            ready: false,
            acting: false,
            lost_disk: false,
            not_ready: String::new(),
            refused: None,
            left: false,
            answers: BTreeMap::new(),
        };
        Self {
            now: Moment(1_000_000),
            nodes: (0..nodes).map(node).collect(),
            notes: vec![],
            due: BTreeMap::new(),
            waited: BTreeSet::new(),
            core_free: BTreeMap::new(),
            sequence: 0,
            dice: Dice::new(seed),
            loss: 0,
            delay: (ms(1), ms(5)),
            cut_ways: BTreeSet::new(),
            late: BTreeMap::new(),
            starved: BTreeMap::new(),
            part: vec![0; nodes],
            states: BTreeMap::new(),
            handed_over: BTreeSet::new(),
            filling: (ms(50), ms(3_000)),
            bytes: 0,
        }
    }

    /// A fleet whose nodes have all started and found each other.
    pub(super) fn formed(seed: u64, nodes: usize) -> Self {
        let mut fleet = Self::new(seed, nodes, nodes.min(3));
        (0..nodes).for_each(|node| fleet.start_in(node, ms(0)));
        fleet.run_until(ms(10_000), "the fleet forms", |fleet| fleet.is_whole());
        fleet
    }

    /// Everybody is a member, knows the same state, reaches everybody and serves.
    pub(super) fn is_whole(&self) -> bool {
        let all = self.nodes.len();
        self.nodes.iter().all(|node| {
            node.ready
                && node.cluster.as_ref().is_some_and(|state| state.members.len() == all)
                && node.cluster == self.nodes[0].cluster
                && node.reachable.values().filter(|reachable| **reachable).count() == all - 1
        })
    }

    pub(super) fn is_dead(&self, node: usize) -> bool {
        self.nodes[node].machine.is_none()
    }

    /// What every node must know that is alive.
    pub(super) fn everybody(&self, knows: impl Fn(&Node) -> bool) -> bool {
        self.nodes.iter().filter(|node| node.machine.is_some()).all(knows)
    }

    pub(super) fn start_in(&mut self, node: usize, after: Duration) {
        assert!(self.is_dead(node), "n{node} is on already");
        self.nodes[node].life += 1;
        self.push(node, after, Due::Start);
    }

    /// Kills a node on the spot; what it was about to save is lost.
    pub(super) fn kill(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.machine = None;
        node.life += 1;
        node.ready = false;
        node.cluster = None;
        node.reachable.clear();
    }

    pub(super) fn wipe(&mut self, node: usize) {
        self.kill(node);
        self.nodes[node].disk = None;
        self.nodes[node].data.clear();
    }

    pub(super) fn corrupt(&mut self, node: usize, disk: Vec<u8>) {
        self.nodes[node].disk = Some(disk);
    }

    pub(super) fn pause(&mut self, node: usize) {
        self.nodes[node].paused = true;
    }

    pub(super) fn resume(&mut self, node: usize) {
        self.nodes[node].paused = false;
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.input(node, Input::Departing);
        self.kill(node);
    }

    pub(super) fn alter(&mut self, node: usize, token: u64, request: AlterKeyspace) {
        self.input(node, Input::Alter { token, request: Alteration::Keyspace(request) });
    }

    pub(super) fn alter_ring(&mut self, node: usize, token: u64, request: RingRequest) {
        self.input(node, Input::Alter { token, request: Alteration::Ring(request) });
    }

    /// A client writes to the default keyspace; taken unless the node refuses.
    pub(super) fn write(&mut self, node: usize) -> bool {
        let node = &mut self.nodes[node];
        let takes = node.ready && !node.frozen;
        if let Some(state) = node.cluster.as_ref().filter(|_| takes) {
            let default = state.keyspaces[&KeyspaceName::default_keyspace()].id;
            node.data.entry(default).or_insert(state.epoch);
        }
        takes
    }

    pub(super) fn cut(&mut self, part: &[usize]) {
        for node in part {
            self.part[*node] = 1;
        }
    }

    pub(super) fn heal(&mut self) {
        self.part.fill(0);
    }

    /// Runs for a while.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until something holds, which it must within that time. Returns how long it took.
    pub(super) fn run_until(
        &mut self,
        within: Duration,
        what: &str,
        mut holds: impl FnMut(&Self) -> bool,
    ) -> Duration {
        let begin = self.now;
        let end = begin + within;
        while !holds(self) {
            let goes_on = self.step(end);
            assert!(goes_on, "not within {within:?}: {what}\n{}", self.notes.join("\n"));
        }
        self.now.since(begin)
    }

    fn push(&mut self, node: usize, after: Duration, due: Due) {
        self.sequence += 1;
        let life = self.nodes[node].life;
        self.due.insert((self.now + after, self.sequence), (node, life, due));
    }

    /// Lets the next thing happen, unless it is past the end.
    fn step(&mut self, end: Moment) -> bool {
        let Some(next) = self.due.first_entry().filter(|next| next.key().0 <= end) else {
            return false;
        };
        let ((at, sequence), (number, life, due)) = next.remove_entry();
        self.now = self.now.max(at);
        if let Some(most) = self.starved.get(&number).copied()
            && !self.waited.remove(&sequence)
        {
            self.wait_for_core(number, most, due);
            return true;
        }
        let node = &mut self.nodes[number];
        if node.life != life && !matches!(due, Due::Packet { .. }) {
            return true;
        }
        if node.paused {
            // Comes later, as it would from a socket's buffer.
            self.push(number, ms(100), due);
            return true;
        }
        match due {
            Due::Start => self.boot(number),
            Due::Wake => self.input(number, Input::TimeUp),
            Due::Saved { ticket, record } => {
                node.disk = Some(record);
                self.input(number, Input::Saved(ticket));
            }
            Due::Holding(ticket) => {
                let keyspaces = node.data.keys().copied().collect();
                self.input(number, Input::Holding { ticket, keyspaces });
            }
            Due::Acting => {
                node.acting = true;
                self.input(number, Input::Acting);
            }
            Due::HandedOver(change, partition, phase) => {
                self.handed_over.insert((change, partition, phase, id(number)));
                self.input(number, Input::HandedOver { change, partition, phase });
            }
            Due::Packet { from, packet } => {
                let packet: GossipPacket = codec::decode(&packet).expect("what was encoded");
                self.input(number, Input::Heard { from: id(from), packet });
            }
        }
        true
    }

    /// What has come meanwhile is handled in one go, in its order, when the node gets a core.
    fn wait_for_core(&mut self, number: usize, most: (Duration, Duration), due: Due) {
        let free = self.core_free.get(&number).copied().unwrap_or_default();
        let free =
            if free > self.now { free } else { self.now + self.dice.between(most.0, most.1) };
        self.core_free.insert(number, free);
        self.push(number, free.since(self.now), due);
        self.waited.insert(self.sequence);
    }

    fn boot(&mut self, number: usize) {
        let seed = self.dice.any();
        let node = &mut self.nodes[number];
        if node.machine.is_some() {
            // A second process in the same data directory is refused.
            return;
        }
        match Membership::new(node.config.clone(), node.disk.as_deref(), seed) {
            Ok(machine) => {
                node.machine = Some(machine);
                node.refused = None;
                node.frozen = false;
                node.acting = false;
                self.input(number, Input::Started);
            }
            Err(error) => node.refused = Some(error.to_string()),
        }
    }

    fn input(&mut self, number: usize, input: Input) {
        let now = Now { moment: self.now, wall_ms: 0 };
        let mut effects = vec![];
        let Some(machine) = &mut self.nodes[number].machine else { return };
        machine.handle(now, input, &mut effects);
        for effect in effects {
            self.effect(number, effect);
        }
    }

    fn effect(&mut self, number: usize, effect: Effect) {
        match effect {
            Effect::Send { to, packet } => self.send(number, &to, &packet),
            Effect::Save { ticket, record } => {
                let after = self.dice.between(ms(1), ms(8));
                // One disk: saves don't overtake each other.
                let after = after.max(self.last_save(number));
                self.push(number, after, Due::Saved { ticket, record });
            }
            Effect::Inspect { ticket } => self.push(number, ms(1), Due::Holding(ticket)),
            Effect::Freeze { ticket } => {
                self.nodes[number].frozen = true;
                self.push(number, ms(2), Due::Holding(ticket));
            }
            Effect::Thaw => self.nodes[number].frozen = false,
            Effect::Answer { token, result } => {
                let before = self.nodes[number].answers.insert(token, result);
                assert_eq!(before, None, "answered twice");
            }
            Effect::WakeAt(at) => {
                let after = at.since(self.now);
                self.push(number, after, Due::Wake);
            }
            Effect::Event(event) => self.event(number, event),
            Effect::Note(line) => {
                self.notes.push(format!("{:>9} n{number} {line}", self.now.0 / 1_000));
            }
        }
    }

    fn last_save(&self, number: usize) -> Duration {
        let saves = self
            .due
            .iter()
            .filter(|(_, (node, _, due))| *node == number && matches!(due, Due::Saved { .. }));
        saves.map(|((at, _), _)| at.since(self.now)).max().unwrap_or_default()
    }

    fn send(&mut self, from: usize, to: &To, packet: &GossipPacket) {
        let to = match to {
            To::Node(to) => {
                // Also who is no member: the answer to its packet is the reply of its call.
                (0..self.nodes.len()).find(|number| id(*number) == *to)
            }
            To::Address(to) => (0..self.nodes.len()).find(|number| address(*number) == *to),
        };
        let Some(to) = to else { return };
        packet.check().expect("an honest packet");
        self.check_durable(from, &packet.body);
        let packet = codec::encode(packet);
        self.bytes += packet.len() as u64;
        let is_cut = self.part[from] != self.part[to] || self.cut_ways.contains(&(from, to));
        if is_cut || self.dice.below(100) < self.loss {
            return;
        }
        let mut after = self.dice.between(self.delay.0, self.delay.1);
        for end in [from, to] {
            if let Some((least, most)) = self.late.get(&end).copied() {
                after += self.dice.between(least, most);
            }
        }
        self.push(to, after, Due::Packet { from, packet });
    }

    fn event(&mut self, number: usize, event: MembershipEvent) {
        let node = &mut self.nodes[number];
        match event {
            MembershipEvent::ClusterChanged(state) => {
                let before = node.cluster.replace(state.clone());
                let life = before.as_ref().map_or(Epoch(0), |before| before.epoch);
                assert!(
                    state.epoch > life,
                    "n{number}: {} after {life}\n{}",
                    state.epoch,
                    self.notes.join("\n")
                );
                self.check_agreement(&state);
                self.fill(number, before.as_deref(), &state);
                self.push(number, ms(2), Due::Acting);
            }
            MembershipEvent::Reachability { node: other, reachable, .. } => {
                let cluster = node.cluster.as_ref().expect("a cluster first");
                assert!(cluster.members.contains_key(&other), "a verdict on a stranger");
                assert_ne!(node.reachable.insert(other, reachable), Some(reachable), "no news");
                node.flips += 1;
            }
            MembershipEvent::Ready => {
                assert!(
                    node.acting,
                    "n{number} is ready, and refuses all because it acts under no state"
                );
                node.ready = true;
            }
            MembershipEvent::LostDisk => node.lost_disk = true,
            MembershipEvent::NotReady(reason) => {
                node.ready = false;
                node.not_ready = reason;
            }
            MembershipEvent::Refused(reason) => node.refused = Some(reason),
            MembershipEvent::Left => node.left = true,
        }
    }

    /// What a node says of its votes and of what it knows would survive its death.
    fn check_durable(&self, number: usize, body: &GossipBody) {
        let record = || {
            let disk = self.nodes[number].disk.as_deref().expect("something is saved");
            Record::decode(disk).expect("what was saved")
        };
        let known =
            |epoch: Epoch| record().decree.is_some_and(|decree| decree.state.epoch >= epoch);
        let voted = |epoch: Epoch, round: u64, accepted: bool| {
            let acceptor = record().acceptor;
            let last = match acceptor.accepted() {
                Some((ballot, _)) if accepted => ballot.round,
                _ if accepted => 0,
                _ => acceptor.round(),
            };
            acceptor.epoch() > epoch || (acceptor.epoch() == epoch && last >= round)
        };
        let durable = match body {
            GossipBody::Vote { epoch, ballot, step: VoteStep::Promise { .. } } => {
                voted(*epoch, ballot.round, false)
            }
            GossipBody::Vote { epoch, ballot, step: VoteStep::Accepted } => {
                voted(*epoch, ballot.round, true)
            }
            GossipBody::Decided(decree) => known(decree.state.epoch),
            GossipBody::Learned(epoch) => known(*epoch),
            _ => true,
        };
        assert!(durable, "n{number} says what it has not saved: {body:?}");
    }

    /// An owner fetches what it is to hold, and says so some time later.
    fn fill(&mut self, number: usize, before: Option<&ClusterState>, state: &Arc<ClusterState>) {
        let Some(change) = &state.change else { return };
        let view = View::of(Arc::clone(state)).expect("a ring");
        for (partition, phase) in view.moving() {
            let known = before.and_then(|before| before.change.as_ref());
            let is_news =
                known.is_none_or(|it| it.asked != change.asked || it.phase(partition) != phase);
            if is_news && view.handover(partition).awaited.contains_key(&id(number)) {
                let after = self.dice.between(self.filling.0, self.filling.1);
                self.push(number, after, Due::HandedOver(change.asked, partition, phase));
            }
        }
    }

    /// No partition goes on before all who hold it are through with the phase that it was in.
    fn check_phases(&self, before: &Arc<ClusterState>, state: &ClusterState) {
        let Some(change) = &before.change else { return };
        let view = View::of(Arc::clone(before)).expect("a ring");
        for (partition, phase) in view.moving() {
            let now = match &state.change {
                Some(it) if it.began == change.began => it.phase(partition),
                _ => Phase::Done,
            };
            assert!(now == phase || now == phase.next(), "{partition:?} from {phase:?} to {now:?}");
            for node in view.handover(partition).awaited.into_keys().filter(|_| now != phase) {
                let is_through =
                    self.handed_over.contains(&(change.asked, partition, phase, node.clone()));
                assert!(is_through, "{partition:?} left {phase:?} without {node}");
            }
        }
    }

    /// One state a number, and no data written under a state by whose successor it would have moved.
    fn check_agreement(&mut self, state: &Arc<ClusterState>) {
        let cluster = state.name.to_string();
        let known = self.states.entry((cluster.clone(), state.epoch)).or_insert(state.clone());
        assert_eq!(known, state, "two states under one number");
        let Some(before) = self.states.get(&(cluster, Epoch(state.epoch.0 - 1))) else { return };
        self.check_phases(before, state);
        if before.change.is_some() || state.change.is_some() {
            return;
        }
        let moved = moved_at_once(before, state);
        for node in &self.nodes {
            for (keyspace, epoch) in &node.data {
                let lost = moved.contains(keyspace) && *epoch < state.epoch;
                assert!(!lost, "{keyspace:?} held data of {epoch} when {} moved it", state.epoch);
            }
        }
    }
}

/// The keyspaces of which a partition has other replicas, or that stay and change their rule.
fn moved_at_once(before: &Arc<ClusterState>, state: &Arc<ClusterState>) -> BTreeSet<KeyspaceId> {
    let [old, new] = [before, state].map(|it| View::of(Arc::clone(it)).expect("a ring"));
    let held = |view: &View, id: KeyspaceId| {
        let keyspace = view.keyspace_of(id)?;
        let nodes = state.members.keys().chain(before.members.keys());
        Some(
            nodes
                .map(|node| (node.clone(), view.held_in(keyspace, node)))
                .collect::<BTreeMap<_, _>>(),
        )
    };
    let mut moved = change::moved(before, state);
    moved.retain(|id| held(&old, *id) != held(&new, *id) || before.layout() == state.layout());
    moved
}
