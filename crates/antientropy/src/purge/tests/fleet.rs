//! A fleet in virtual time: real purgers over simple replicas and hints, and carriers, which are whatever
//! holds versions that it has read or issued and passes them on within [`LIFE`]: writes, reads that repair,
//! exchanges, deliveries. Messages are delayed and lost, nodes go away and die.
//!
//! The judge looks each time that a replica forgets something: then no victim of it may be left anywhere,
//! be it at a replica, in a hint or on its way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    causality::Dot,
    id::NodeId,
    key::DataKey,
    message::{
        repair::Purged,
        replica::{Held, Refusal},
    },
    time::{HybridTime, Moment, Now},
    version::{ConflictRule, Versions},
};
use anello_ring::view::View;

use super::bench::{NODES, cluster, config, data_key, replicas, view};
use crate::{
    purge::{CallFailure, CallNumber, Effect, Incoming, Input, Outgoing, Purger},
    store::Tombstone,
};

/// How long whoever has read or issued something passes it on: less than the settling time.
pub(super) const LIFE: u64 = 1_000_000;
const CALL_DELAY: u64 = 100_000;

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) is_up: bool,
    pub(super) life: u64,
    pub(super) purger: Purger,
    pub(super) data: BTreeMap<DataKey, Versions>,
    /// By owner and key.
    pub(super) hints: BTreeMap<(usize, DataKey), Versions>,
    /// When it was last up, in microseconds.
    pub(super) last_up: u64,
    pub(super) skew_ms: u64,
    /// When its timer goes off.
    pub(super) wake: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Event {
    Call {
        to: usize,
        from: usize,
        life: u64,
        call: CallNumber,
        message: Outgoing,
        deadline: u64,
    },
    Answer {
        at: usize,
        life: u64,
        call: CallNumber,
        outcome: Result<Incoming, CallFailure>,
    },
    /// Versions reach a replica; the hint of `from`, if there is one, goes with it.
    Store {
        to: usize,
        key: DataKey,
        versions: Versions,
        hint_at: Option<usize>,
    },
    Hint {
        to: usize,
        owner: usize,
        key: DataKey,
        versions: Versions,
    },
    Wake {
        at: usize,
        life: u64,
    },
    /// The next thing that chance does.
    Chance,
    /// A round of deliveries and exchanges, once all is calm.
    Mend,
    Restart {
        at: usize,
    },
}

/// A version that was issued, and its rank under last-write-wins.
pub(super) struct Issued {
    pub(super) dot: Dot,
    pub(super) rank: (HybridTime, Dot),
}

pub(super) struct Fleet {
    pub(super) rule: ConflictRule,
    pub(super) view: Arc<View>,
    pub(super) nodes: Vec<Node>,
    /// Which of the nodes are the replicas, in the order of preference.
    pub(super) replicas: Vec<usize>,
    pub(super) events: BTreeMap<(u64, u64), Event>,
    pub(super) now: u64,
    pub(super) sequence: u64,
    pub(super) random: u64,
    pub(super) chaos: bool,
    pub(super) next_version: u64,
    /// All that was ever issued, by key.
    pub(super) history: BTreeMap<DataKey, Vec<Issued>>,
    /// What each tombstone deletes for good.
    pub(super) victims: BTreeMap<Dot, BTreeSet<Dot>>,
    pub(super) forgotten: u64,
}

impl Fleet {
    pub(super) fn new(seed: u64, rule: ConflictRule) -> Self {
        let view = view(cluster(1, &NODES, rule));
        let order = replicas(&view);
        let place = |id: &NodeId| NODES.iter().position(|other| *other == id.as_str());
        let mut fleet = Self {
            rule,
            replicas: order.iter().map(|id| place(id).expect("a member")).collect(),
            view,
            nodes: Vec::new(),
            events: BTreeMap::new(),
            now: 0,
            sequence: 0,
            random: seed,
            chaos: false,
            next_version: 1,
            history: BTreeMap::new(),
            victims: BTreeMap::new(),
            forgotten: 0,
        };
        for id in NODES {
            let id = super::bench::node(id);
            let skew_ms = fleet.draw(1_500);
            let purger = Purger::new(id.clone(), config());
            let (data, hints) = (BTreeMap::new(), BTreeMap::new());
            let (is_up, life, last_up) = (true, 0, 0);
            let wake = None;
            let node = Node { id, is_up, life, purger, data, hints, last_up, skew_ms, wake };
            fleet.nodes.push(node);
        }
        for at in 0..NODES.len() {
            let view = fleet.view.clone();
            fleet.input(at, Input::ClusterChanged(view));
        }
        fleet
    }

    /// A number below `bound`.
    pub(super) fn draw(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(super) fn at(&mut self, after: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((self.now + after, self.sequence), event);
    }

    pub(super) fn key(&self, name: &str) -> DataKey {
        data_key(&self.view, name)
    }

    pub(super) fn clock(&self, at: usize) -> Now {
        let wall_ms = 1_000_000 + self.now / 1_000 + self.nodes[at].skew_ms;
        Now { moment: Moment(self.now), wall_ms }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + u64::try_from(time.as_micros()).expect("it is short");
        while let Some((&(at, sequence), _)) = self.events.first_key_value()
            && at <= until
        {
            let event = self.events.remove(&(at, sequence)).expect("it is the first");
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Call { to, from, life, call, message, deadline } => {
                let outcome = match self.nodes[to].is_up && self.now < deadline {
                    true => Ok(self.serve(to, message)),
                    false => Err(CallFailure::Silent),
                };
                let delay = self.draw(CALL_DELAY);
                let is_lost = self.chaos && self.draw(10) == 0;
                let (outcome, delay) = match outcome {
                    Ok(_) if is_lost || self.now + delay > deadline => {
                        (Err(CallFailure::Silent), deadline.saturating_sub(self.now))
                    }
                    outcome => (outcome, delay),
                };
                self.at(delay, Event::Answer { at: from, life, call, outcome });
            }
            Event::Answer { at, life, call, outcome } => {
                if self.nodes[at].life == life && self.nodes[at].is_up {
                    self.input(at, Input::Answered { call, outcome });
                }
            }
            Event::Store { to, key, versions, hint_at } => {
                if self.nodes[to].is_up {
                    self.join(to, &key, versions.clone());
                    if let Some(holder) = hint_at
                        && self.nodes[holder].hints.get(&(to, key.clone())) == Some(&versions)
                    {
                        self.nodes[holder].hints.remove(&(to, key));
                    }
                }
            }
            Event::Hint { to, owner, key, versions } => {
                if self.nodes[to].is_up {
                    let rule = self.rule;
                    self.nodes[to].hints.entry((owner, key)).or_default().merge(versions, rule);
                }
            }
            Event::Wake { at, life } => {
                let node = &mut self.nodes[at];
                if node.life == life && node.is_up && node.wake == Some(self.now) {
                    node.wake = None;
                    self.input(at, Input::TimeUp);
                }
            }
            Event::Chance if self.chaos => self.chance(),
            Event::Chance => {}
            Event::Mend => self.mend(),
            Event::Restart { at } => self.restart(at),
        }
    }

    pub(super) fn join(&mut self, at: usize, key: &DataKey, versions: Versions) {
        let rule = self.rule;
        self.nodes[at].data.entry(key.clone()).or_default().merge(versions, rule);
    }

    pub(super) fn held(&self, at: usize, key: &DataKey) -> Versions {
        self.nodes[at].data.get(key).cloned().unwrap_or_default()
    }

    pub(super) fn input(&mut self, at: usize, input: Input) {
        let now = self.clock(at);
        let life = self.nodes[at].life;
        self.nodes[at].last_up = self.now;
        self.nodes[at].purger.handle(now, input);
        while let Some(effect) = self.nodes[at].purger.next_effect() {
            match effect {
                Effect::List { number, after, limit, .. } => {
                    let data = self.nodes[at].data.iter();
                    let rest = data.filter(|(key, _)| after.as_ref().is_none_or(|it| *key > it));
                    let deleted = rest.filter(|(_, versions)| versions.is_deleted()).take(limit);
                    let list = deleted.map(|(key, versions)| {
                        let (digest, latest) = (versions.digest(), versions.latest());
                        Tombstone { key: key.clone(), digest, latest }
                    });
                    let result = Ok(list.collect());
                    self.nodes[at].purger.handle(now, Input::Listed { number, result });
                }
                Effect::Send { call, to, message, deadline } => {
                    let to = self.nodes.iter().position(|node| node.id == to).expect("a member");
                    let is_lost = self.chaos && self.draw(10) == 0;
                    if is_lost {
                        let (after, outcome) = (deadline.0 - self.now, Err(CallFailure::Silent));
                        self.at(after, Event::Answer { at, life, call, outcome });
                    } else {
                        let (deadline, delay) = (deadline.0, self.draw(CALL_DELAY));
                        let call = Event::Call { to, from: at, life, call, message, deadline };
                        self.at(delay, call);
                    }
                }
            }
        }
        let Some(Moment(wake)) = self.nodes[at].purger.next_wake() else { return };
        if self.nodes[at].wake.is_none_or(|set| set > wake.max(self.now)) {
            // Of two that are set, the later does nothing when it goes off.
            self.nodes[at].wake = Some(wake.max(self.now));
            self.at(wake.saturating_sub(self.now), Event::Wake { at, life });
        }
    }

    pub(super) fn serve(&mut self, at: usize, message: Outgoing) -> Incoming {
        self.nodes[at].last_up = self.now;
        // A vote or a burst, at times.
        let is_busy = self.chaos && self.draw(20) == 0;
        match message {
            Outgoing::Read(_) if is_busy => Incoming::Read(Err(Refusal::Busy)),
            Outgoing::Purge(_) if is_busy => Incoming::Purged(Err(Refusal::Frozen)),
            Outgoing::Read(read) => {
                Incoming::Read(Ok(Held::Digest(self.held(at, &read.key).digest())))
            }
            Outgoing::Check(check) => {
                let kept = |key| self.nodes[at].hints.keys().any(|(_, hint)| hint == key);
                Incoming::Checked(Ok(check.keys.iter().map(kept).collect()))
            }
            Outgoing::Purge(purge) => {
                let held = self.held(at, &purge.key);
                if held.is_empty() {
                    return Incoming::Purged(Ok(Purged::Gone));
                }
                if !held.is_deleted() || held.digest() != purge.digest {
                    return Incoming::Purged(Ok(Purged::Kept));
                }
                self.nodes[at].data.remove(&purge.key);
                self.judge(&purge.key, &held);
                Incoming::Purged(Ok(Purged::Gone))
            }
        }
    }
}
