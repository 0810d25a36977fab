//! What lies around the nodes: packets, disks, alarms, crashes and the other faults.

use std::{sync::Arc, time::Duration};

use anello_gossip::To;
use anello_protocol::time::Now;
use anello_replica::coordinator::CallFailure;

use super::{Event, Fleet, Moment, NodeInput, Out, Phase, WALL_START_MS};
use crate::{
    disk::Fresh,
    node::SyncOutcome,
    wire::{Ask, Frame},
};

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
        let is_off = slot.is_spare || slot.is_dead;
        if slot.node.is_running() || slot.starts_at > now.moment || is_off {
            return;
        }
        slot.life += 1;
        self.history.note(now.moment, format_args!("start n{node}"));
        let mut out = Vec::new();
        let started = self.slots[node].node.start(now, &mut out);
        if let Err(why) = &started {
            self.history.note(now.moment, format_args!("n{node} refuses to start: {why}"));
        }
        self.slots[node].is_unserviceable = started.err();
        self.perform(node, out);
    }

    pub(super) fn crash(&mut self, node: usize) {
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

    pub(super) fn local_after(&mut self, node: usize, after: Duration, input: NodeInput) {
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
        self.stop_the_gone(node);
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
                    let after = self.read_takes(node);
                    self.local_after(node, after, NodeInput::Loaded(partition, key));
                }
                Out::LoadHint(owner, key) => {
                    let after = self.read_takes(node);
                    self.local_after(node, after, NodeInput::HintLoaded(owner, key));
                }
                Out::PageHints { page, owner, from, count, bytes } => {
                    let after = self.read_takes(node);
                    let input = NodeInput::HintsPaged { page, owner, from, count, bytes };
                    self.local_after(node, after, input);
                }
                Out::Look(ticket, look) => {
                    let after = self.read_takes(node);
                    self.local_after(node, after, NodeInput::Looked(ticket, look));
                }
                Out::List(list) => {
                    let after = self.read_takes(node);
                    self.local_after(node, after, NodeInput::Listed(list));
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
                Out::Durable(fresh) => self.durable(node, fresh),
                Out::Repair(what) => {
                    self.counters.repairs += 1;
                    self.last_repair = Some((self.schedule.now(), format!("by n{node}: {what}")));
                }
                Out::Quarantined(is_on) => self.counters.quarantines += u64::from(is_on),
                Out::Agreed(state) => {
                    if !self.states.contains_key(&state.epoch) {
                        self.counters.changes += u64::from(self.is_end_of_change(&state));
                    }
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

    fn durable(&mut self, node: usize, fresh: Fresh) {
        let now = self.schedule.now();
        let id = self.slots[node].node.id().clone();
        let (key, version, place) = match fresh {
            Fresh::Version(key, version) => (key, version, String::new()),
            Fresh::Hint(owner, key, version) => {
                self.counters.hints += 1;
                (key, version, format!(" for {owner}"))
            }
            Fresh::Purged(key, held) => {
                self.counters.purges += 1;
                let dots: Vec<_> = held.iter().map(|version| version.dot).collect();
                self.history.note(now, format_args!("n{node} forgets {:?}: {dots:?}", key.key));
                let wall_ms = WALL_START_MS as u64 + now.0 / 1000;
                let was_restored = self.slots[node].node.disk.was_restored;
                return self.model.purged((&id, was_restored), &key, &held, (now, wall_ms));
            }
        };
        self.history.note(
            now,
            format_args!(
                "n{node} keeps{place} {:?} {:?} as {:?} past {:?} time {:?}",
                key.key, version.write_id, version.dot, version.past, version.time
            ),
        );
        self.model.durable(&id, &key, &version, now);
    }

    fn read_takes(&mut self, node: usize) -> Duration {
        let most = if self.slots[node].is_disk_slow { 80_000 } else { 500 };
        Duration::from_micros(self.rng.within(0..most))
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
        let mut deliveries = self.network.deliveries(one.id(), other.id(), is_far);
        // Refused and done at once would be told as refused. A call has a stream of its own and is never
        // sent again by the transport, so there this can't be; for all else a second copy changes nothing.
        if matches!(frame, Frame::Ask(_, _, Ask::Forward(_))) {
            deliveries.truncate(1);
        }
        for mut delay in deliveries {
            if is_late {
                delay += Duration::from_millis(self.rng.within(0..15_000));
            }
            self.schedule.after(delay, Event::Deliver { from, to, bytes: Arc::clone(&bytes) });
        }
    }
}
