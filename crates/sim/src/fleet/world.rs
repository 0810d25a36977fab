//! What lies around the nodes: packets, disks, alarms, crashes and the other faults.

use std::{sync::Arc, time::Duration};

use anello_gossip::To;
use anello_protocol::time::Now;
use anello_replica::coordinator::CallFailure;

use super::{Event, Fault, Fleet, Moment, NodeInput, Out, Phase, WALL_START_MS};
use crate::{node::SyncOutcome, wire::Frame};

impl Fleet {
    pub(super) fn now_at(&self, node: usize) -> Now {
        let moment = self.schedule.now();
        let wall = WALL_START_MS + (moment.0 / 1000) as i64 + self.slots[node].skew_ms;
        Now { moment, wall_ms: u64::try_from(wall).unwrap_or(0) }
    }

    pub(super) fn start_after(&mut self, node: usize, after: Duration) {
        self.slots[node].starts_at = self.schedule.now() + after;
        self.schedule.after(after, Event::Start(node));
    }

    pub(super) fn start(&mut self, node: usize) {
        let now = self.now_at(node);
        let slot = &mut self.slots[node];
        if slot.node.is_running() || slot.starts_at > now.moment {
            return;
        }
        slot.life += 1;
        self.history.note(now.moment, format_args!("start n{node}"));
        let mut out = Vec::new();
        self.slots[node].node.start(now, &mut out);
        self.perform(node, out);
    }

    fn crash(&mut self, node: usize) {
        if !self.slots[node].node.is_running() {
            return;
        }
        self.counters.crashes += 1;
        self.history.note(self.schedule.now(), format_args!("crash n{node}"));
        let slot = &mut self.slots[node];
        slot.life += 1;
        slot.paused_until = Moment::default();
        slot.disk_fails = None;
        let id = slot.node.id().clone();
        let mut out = Vec::new();
        slot.node.crash(&mut out);
        self.perform(node, out);
        // The others' connections to it break, which some of them notice at once.
        for other in 0..self.slots.len() {
            if self.rng.chance(500) {
                let after = Duration::from_micros(self.rng.within(50..20_000));
                for call in self.slots[other].node.calls_to(&id) {
                    let input = NodeInput::CallFailed(call, CallFailure::Closed);
                    self.local_after(other, after, input);
                }
            }
        }
    }

    fn local_after(&mut self, node: usize, after: Duration, input: NodeInput) {
        let life = self.slots[node].life;
        self.schedule.after(after, Event::Local { node, life, input });
    }

    pub(super) fn local(&mut self, node: usize, life: u64, input: NodeInput) {
        let paused = self.slots[node].paused_until;
        if self.slots[node].life != life {
            return;
        }
        if paused > self.schedule.now() {
            self.schedule.at(paused, Event::Local { node, life, input });
            return;
        }
        self.give(node, input);
    }

    /// Gives a node an input on the spot.
    pub(super) fn give(&mut self, node: usize, input: NodeInput) {
        let now = self.now_at(node);
        let mut out = Vec::new();
        self.slots[node].node.take(now, input, &mut out);
        self.perform(node, out);
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, bytes: Arc<[u8]>) {
        let paused = self.slots[to].paused_until;
        if paused > self.schedule.now() {
            self.schedule.at(paused, Event::Deliver { from, to, bytes });
            return;
        }
        let frame = match Frame::decode(&bytes) {
            Ok(frame) => frame,
            Err(error) => return self.broke("what is encoded decodes", error.to_string()),
        };
        if self.slots[to].node.is_running() {
            let from = self.slots[from].node.id().clone();
            return self.give(to, NodeInput::Packet(from, frame));
        }
        // Nobody listens there: most often that is told at once.
        if let Frame::Ask(call, ..) = frame
            && self.rng.chance(700)
        {
            let after = Duration::from_micros(self.rng.within(50..5_000));
            self.local_after(from, after, NodeInput::CallFailed(call, CallFailure::Unreachable));
        }
    }

    /// Carries out what a node wants done.
    fn perform(&mut self, node: usize, out: Vec<Out>) {
        for out in out {
            match out {
                Out::Send(to, frame) => self.send(node, &to, &frame),
                Out::At(at, input) => {
                    let life = self.slots[node].life;
                    self.schedule.at(at, Event::Local { node, life, input });
                }
                Out::Load(partition, key) => {
                    let most = if self.slots[node].is_disk_slow { 80_000 } else { 500 };
                    let after = Duration::from_micros(self.rng.within(0..most));
                    self.local_after(node, after, NodeInput::Loaded(partition, key));
                }
                Out::Sync => {
                    let us =
                        if self.slots[node].is_disk_slow { 50_000..600_000 } else { 300..9_000 };
                    let after = Duration::from_micros(self.rng.within(us));
                    let outcome = match self.slots[node].disk_fails.take() {
                        None => SyncOutcome::Durable,
                        Some(true) => SyncOutcome::FailedKept,
                        Some(false) => SyncOutcome::FailedLost,
                    };
                    self.local_after(node, after, NodeInput::Synced(outcome));
                }
                Out::Durable((key, version)) => {
                    let now = self.schedule.now();
                    let id = self.slots[node].node.id().clone();
                    self.history.note(
                        now,
                        format_args!(
                            "n{node} keeps {:?} {:?} as {:?} past {:?} time {:?}",
                            key.key, version.write_id, version.dot, version.past, version.time
                        ),
                    );
                    self.model.durable(&id, &key, &version, now);
                }
                Out::Agreed(state) => {
                    let known =
                        self.states.entry(state.epoch).or_insert_with(|| Arc::clone(&state));
                    if *known != state {
                        let what = format!("n{node} knows another state of epoch {}", state.epoch);
                        self.broke("one state an epoch", what);
                    }
                }
                Out::Judged(reachable) => {
                    let counts = self.phase == Phase::Working && !reachable;
                    self.counters.given_up += u64::from(counts);
                }
                Out::Note(line) => self.history.note(self.schedule.now(), format_args!("{line}")),
                Out::Altered(token, result) => {
                    let now = self.schedule.now();
                    self.history.note(now, format_args!("n{node} alter {token}: {result:?}"));
                }
                Out::Broke(check, what) => self.broke(check, what),
                Out::Got(call, answer) => self.got(node, call, answer),
                Out::Wrote(call, answer) => self.wrote(node, call, answer),
            }
        }
    }

    fn send(&mut self, from: usize, to: &To, frame: &Frame) {
        let found = match to {
            To::Node(id) => self.slots.iter().position(|slot| slot.node.id() == id),
            To::Address(address) => {
                self.slots.iter().position(|slot| slot.node.member().quic == *address)
            }
        };
        let Some(to) = found else { return };
        self.counters.packets += 1;
        let bytes: Arc<[u8]> = frame.encode().into();
        let (one, other) = (&self.slots[from].node, &self.slots[to].node);
        let is_far = one.member().datacenter != other.member().datacenter;
        let now = self.schedule.now();
        let is_late = matches!(frame, Frame::Gossip(_))
            && [from, to].iter().any(|end| self.slots[*end].gossip_late_until > now);
        for mut delay in self.network.deliveries(one.id(), other.id(), is_far) {
            if is_late {
                delay += Duration::from_millis(self.rng.within(0..15_000));
            }
            self.schedule.after(delay, Event::Deliver { from, to, bytes: Arc::clone(&bytes) });
        }
    }

    pub(super) fn fault(&mut self) {
        let pause = self.plan.pause();
        self.schedule.after(pause, Event::Fault);
        let is_on = self.phase == Phase::Working
            || (self.phase == Phase::Forming && self.is_faulty_from_start);
        if !is_on {
            return;
        }
        let Some(fault) = self.plan.draw() else { return };
        self.counters.faults += 1;
        let now = self.schedule.now();
        self.history.note(now, format_args!("fault {fault:?}"));
        match fault {
            Fault::Cut { some, others, is_one_way } => {
                for one in &some {
                    for other in &others {
                        let one = self.slots[*one].node.id().clone();
                        let other = self.slots[*other].node.id().clone();
                        self.network.cut(&one, &other);
                        if !is_one_way {
                            self.network.cut(&other, &one);
                        }
                    }
                }
            }
            Fault::Heal => self.network.heal(),
            Fault::Crash(nodes) => {
                for (node, away) in nodes {
                    self.crash(node);
                    self.start_after(node, away);
                }
            }
            Fault::Clock(node, skew_ms) => self.slots[node].skew_ms = skew_ms,
            Fault::Pause(node, length) => self.slots[node].paused_until = now + length,
            Fault::Starve(node, length) => {
                self.slots[node].starved_until = now + length;
                if self.slots[node].core_at < now {
                    self.starve(node);
                }
            }
            Fault::LateGossip(node, length) => {
                self.slots[node].gossip_late_until = now + length;
            }
            Fault::SlowDisk(node, is_slow) => self.slots[node].is_disk_slow = is_slow,
            Fault::DiskFails(node, is_kept) => self.slots[node].disk_fails = Some(is_kept),
            Fault::FullStore(node, is_full) => self.slots[node].node.disk.is_full = is_full,
            Fault::UnreadableVnodes(node, is_unreadable) => {
                self.slots[node].node.disk.is_unreadable = is_unreadable;
            }
            Fault::Alarms(node) => {
                self.local_after(node, Duration::ZERO, NodeInput::CoordinatorAlarm);
                self.local_after(node, Duration::ZERO, NodeInput::GossipAlarm);
            }
        }
    }

    /// A starved node had a core for a moment, and waits for the next one.
    pub(super) fn starve(&mut self, node: usize) {
        let now = self.schedule.now();
        if self.slots[node].starved_until <= now {
            return;
        }
        let wait = Duration::from_millis(self.rng.within(50..800));
        let slot = &mut self.slots[node];
        slot.paused_until = slot.paused_until.max(now + wait);
        slot.core_at = now + wait + Duration::from_millis(1);
        self.schedule.at(slot.core_at, Event::Core(node));
    }

    /// Mends everything, and switches everybody on.
    pub(super) fn mend(&mut self) {
        self.network.heal();
        for node in 0..self.slots.len() {
            let slot = &mut self.slots[node];
            slot.is_disk_slow = false;
            slot.starved_until = Moment::default();
            slot.gossip_late_until = Moment::default();
            slot.disk_fails = None;
            slot.node.disk.is_full = false;
            slot.node.disk.is_unreadable = false;
            if slot.node.lacks_vnodes() {
                // Who reads the log restarts it.
                self.crash(node);
            }
            let slot = &self.slots[node];
            if !slot.node.is_running() {
                self.start_after(node, Duration::from_millis(10));
            }
        }
    }
}
