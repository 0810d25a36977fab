//! Membership machines and what lies between them: links that take their time, have a width and lose a
//! little; disks that take a moment; nobody holds data.
//!
//! What a machine says to the sender of a packet at once is the reply to its call, as in the product's
//! actor. Nothing is decided here, and everything that is random is drawn from the seed.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use anello_gossip::{
    Alteration, Effect, Input, Membership, MembershipConfig, MembershipEvent, Ticket, Timing, To,
};
use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    codec,
    id::{Epoch, NodeId},
    message::{admin::AlterKeyspace, gossip::GossipPacket},
    time::{Moment, Now},
};

use crate::{rng::Rng, schedule::Schedule};

const DATACENTERS: [&str; 3] = ["eu", "us", "ap"];
const RACKS: [&str; 4] = ["a", "b", "c", "d"];
const SEEDS: usize = 3;
/// What a call's frame has beside the message, and a reply's beside the reply: as `anello-transport` has
/// it, which the simulator does not use.
const REQUEST_BYTES: usize = 20;
const REPLY_BYTES: usize = 13;
/// How long packets take within a datacenter, and between two, in microseconds.
const NEAR_US: Range<u64> = 400..600;
const FAR_US: Range<u64> = 39_000..41_000;
/// How many of a thousand frames are lost for good. QUIC sends again what is lost, so this is harsher.
const LOST_PER_MILLE: u64 = 1;
/// How wide the link is through which a node sends: 1 Gbit/s.
const LINK_BYTES_PER_US: u64 = 125;
/// How long a save takes, in microseconds.
const SAVE_US: Range<u64> = 1_000..8_000;
const INSPECTION: Duration = Duration::from_millis(1);

/// What is on the schedule.
enum Event {
    Start,
    Wake,
    Saved(Ticket),
    Inspected(Ticket),
    Acting,
    Frame { from: usize, is_call: bool, bytes: Vec<u8> },
}

/// A node; without a machine it is off.
struct Node {
    config: MembershipConfig,
    machine: Option<Membership>,
    cluster: Option<Arc<ClusterState>>,
    wakes_at: Option<Moment>,
    /// When the disk is done with all saves so far: they don't overtake each other.
    disk_free: Moment,
    /// When the link is free again, in nanoseconds.
    link_free_ns: u64,
    sent: Sent,
}

/// What a node has sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    pub(super) bytes: u64,
    pub(super) frames: u64,
}

/// Something that a node has told the rest of itself, and when.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// It acts under that state.
    Epoch(Epoch),
    /// It reaches another one.
    Reached(usize),
    /// It has given up another one, and why.
    GaveUp(usize, String),
    /// It will not do what it was asked for, or can never serve, and why.
    Refused(String),
}

/// Nodes that are off until they are started, numbered from 0.
pub(super) struct World {
    schedule: Schedule<(usize, Event)>,
    nodes: Vec<Node>,
    numbers: BTreeMap<NodeId, usize>,
    addresses: BTreeMap<String, usize>,
    rng: Rng,
    /// All that was told, by whom and when, until it is taken.
    pub(super) told: Vec<(Moment, usize, Told)>,
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize) -> Self {
        let members: Vec<Member> = (0..nodes).map(member).collect();
        let seeds: Vec<String> = members.iter().take(SEEDS).map(|seed| seed.quic.clone()).collect();
        let by_id = members.iter().enumerate().map(|(at, member)| (member.id.clone(), at));
        let by_address = members.iter().enumerate().map(|(at, member)| (member.quic.clone(), at));
        Self {
            schedule: Schedule::new(),
            numbers: by_id.collect(),
            addresses: by_address.collect(),
            rng: Rng::new(seed),
            told: Vec::new(),
            nodes: members.into_iter().enumerate().map(|it| Node::new(it, &seeds)).collect(),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.schedule.now()
    }

    pub(super) fn start_in(&mut self, node: usize, after: Duration) {
        self.schedule.after(after, (node, Event::Start));
    }

    /// Switches a node off on the spot.
    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node].machine = None;
    }

    pub(super) fn is_on(&self, node: usize) -> bool {
        self.nodes[node].machine.is_some()
    }

    pub(super) fn alter(&mut self, node: usize, request: AlterKeyspace) {
        self.input(node, Input::Alter { token: 0, request: Alteration::Keyspace(request) }, None);
    }

    /// What each node has sent since the last time that it was asked for.
    pub(super) fn take_sent(&mut self) -> Vec<Sent> {
        self.nodes.iter_mut().map(|node| std::mem::take(&mut node.sent)).collect()
    }

    /// The newest state that a node acts under.
    pub(super) fn epoch(&self, node: usize) -> Epoch {
        self.nodes[node].cluster.as_ref().map_or(Epoch(0), |state| state.epoch)
    }

    /// Whether a node knows itself and as many others as members, all of which it can reach.
    pub(super) fn reaches_all(&self, node: usize, members: usize) -> bool {
        let node = &self.nodes[node];
        let (Some(machine), Some(state)) = (&node.machine, &node.cluster) else { return false };
        state.members.len() == members
            && state.members.keys().all(|id| machine.is_reachable(id))
            && machine.not_ready().is_none()
    }

    /// Lets that much time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now() + time;
        while self.schedule.next_at().is_some_and(|at| at <= end) {
            if let Some((node, event)) = self.schedule.take_next() {
                self.happen(node, event);
            }
        }
        self.schedule.wait_until(end);
    }

    fn happen(&mut self, to: usize, event: Event) {
        match event {
            Event::Start => {
                let (seed, node) = (self.rng.draw(), &mut self.nodes[to]);
                // Only a stored record could make it unserviceable.
                node.machine = Membership::new(node.config.clone(), None, seed).ok();
                self.input(to, Input::Started, None);
            }
            Event::Wake if self.nodes[to].wakes_at == Some(self.now()) => {
                self.input(to, Input::TimeUp, None);
            }
            Event::Wake => {}
            Event::Saved(ticket) => self.input(to, Input::Saved(ticket), None),
            Event::Inspected(ticket) => {
                let keyspaces = Default::default();
                self.input(to, Input::Holding { ticket, keyspaces }, None);
            }
            Event::Acting => self.input(to, Input::Acting, None),
            Event::Frame { from, is_call: true, bytes } if self.is_on(to) => {
                let packet = codec::decode(&bytes).expect("it was encoded as that");
                let id = self.nodes[from].config.member.id.clone();
                self.input(to, Input::Heard { from: id, packet }, Some(from));
            }
            Event::Frame { from, is_call: false, bytes } => {
                let reply: Option<GossipPacket> =
                    codec::decode(&bytes).expect("it was encoded as that");
                if let Some(packet) = reply {
                    let id = self.nodes[from].config.member.id.clone();
                    self.input(to, Input::Heard { from: id, packet }, None);
                }
            }
            Event::Frame { .. } => {}
        }
    }

    /// One input, and what is done about it; `caller` waits for a reply.
    fn input(&mut self, number: usize, input: Input, mut caller: Option<usize>) {
        let moment = self.now();
        let now = Now { moment, wall_ms: moment.0 / 1_000 };
        let mut effects = Vec::new();
        let Some(machine) = &mut self.nodes[number].machine else { return };
        machine.handle(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, packet } => {
                    let Some(to) = self.find(number, &to, caller) else { continue };
                    if caller == Some(to) {
                        caller = None;
                        self.send(number, to, false, codec::encode(&Some(packet)));
                    } else {
                        self.send(number, to, true, codec::encode(&packet));
                    }
                }
                Effect::Save { ticket, .. } => {
                    let takes = Duration::from_micros(self.rng.within(SAVE_US));
                    let node = &mut self.nodes[number];
                    node.disk_free = node.disk_free.max(moment) + takes;
                    self.schedule.at(node.disk_free, (number, Event::Saved(ticket)));
                }
                Effect::Inspect { ticket } | Effect::Freeze { ticket } => {
                    self.schedule.after(INSPECTION, (number, Event::Inspected(ticket)));
                }
                Effect::WakeAt(at) => {
                    let at = at.max(moment);
                    self.nodes[number].wakes_at = Some(at);
                    self.schedule.at(at, (number, Event::Wake));
                }
                Effect::Answer { result: Err(why), .. } => {
                    self.tell(number, Told::Refused(why.to_string()));
                }
                Effect::Event(event) => self.event(number, event),
                Effect::Answer { .. } | Effect::Thaw | Effect::Note(_) => {}
            }
        }
        if let Some(caller) = caller {
            self.send(number, caller, false, codec::encode(&None::<GossipPacket>));
        }
    }

    fn tell(&mut self, number: usize, told: Told) {
        self.told.push((self.now(), number, told));
    }

    fn event(&mut self, number: usize, event: MembershipEvent) {
        let told = match event {
            MembershipEvent::ClusterChanged(state) => {
                let epoch = state.epoch;
                self.nodes[number].cluster = Some(state);
                self.schedule.after(INSPECTION, (number, Event::Acting));
                Told::Epoch(epoch)
            }
            MembershipEvent::Reachability { node, reachable, reason } => {
                let other = self.numbers[&node];
                if reachable { Told::Reached(other) } else { Told::GaveUp(other, reason) }
            }
            MembershipEvent::Refused(reason) => Told::Refused(reason),
            MembershipEvent::Ready
            | MembershipEvent::NotReady(_)
            | MembershipEvent::LostDisk
            | MembershipEvent::Left => return,
        };
        self.tell(number, told);
    }

    /// Who that is, if the sender has a way there.
    fn find(&self, from: usize, to: &To, caller: Option<usize>) -> Option<usize> {
        match to {
            To::Node(id) => {
                let number = self.numbers.get(id).copied()?;
                let state = self.nodes[from].cluster.as_ref();
                let is_known = state.is_some_and(|state| state.members.contains_key(id));
                (is_known || caller == Some(number)).then_some(number)
            }
            To::Address(address) => self.addresses.get(address).copied(),
        }
    }

    fn send(&mut self, from: usize, to: usize, is_call: bool, bytes: Vec<u8>) {
        let is_near =
            self.nodes[from].config.member.datacenter == self.nodes[to].config.member.datacenter;
        let way = self.rng.within(if is_near { NEAR_US } else { FAR_US });
        let is_lost = self.rng.chance(LOST_PER_MILLE);
        let frame = bytes.len() + if is_call { REQUEST_BYTES } else { REPLY_BYTES };
        let now_ns = self.now().0 * 1_000;
        let node = &mut self.nodes[from];
        node.sent.bytes += frame as u64;
        node.sent.frames += 1;
        node.link_free_ns =
            node.link_free_ns.max(now_ns) + frame as u64 * 1_000 / LINK_BYTES_PER_US;
        let arrives = Moment(node.link_free_ns.div_ceil(1_000) + way);
        if !is_lost {
            self.schedule.at(arrives, (to, Event::Frame { from, is_call, bytes }));
        }
    }
}

impl Node {
    fn new((number, member): (usize, Member), seeds: &[String]) -> Self {
        let others = seeds.iter().filter(|seed| **seed != member.quic);
        Self {
            config: MembershipConfig {
                other_seeds: others.cloned().collect(),
                member,
                cluster: "scale".parse().expect("a good name"),
                partitions: 4096,
                first_seed: number == 0,
                program: env!("CARGO_PKG_VERSION").into(),
                timing: Timing::lan(),
            },
            machine: None,
            cluster: None,
            wakes_at: None,
            disk_free: Moment::default(),
            link_free_ns: 0,
            sent: Sent::default(),
        }
    }
}

fn member(number: usize) -> Member {
    let datacenter = DATACENTERS[number % DATACENTERS.len()];
    let rack = RACKS[number / DATACENTERS.len() % RACKS.len()];
    let host = format!("10.{}.{}.{}", number % DATACENTERS.len(), number / 256, number % 256);
    Member {
        id: format!("{datacenter}-{rack}-{number}").parse().expect("a good name"),
        datacenter: datacenter.parse().expect("a good name"),
        rack: rack.parse().expect("a good name"),
        weight: 1.0,
        quic: format!("{host}:7400"),
        http: format!("{host}:7480"),
        state: MemberState::Up,
    }
}
