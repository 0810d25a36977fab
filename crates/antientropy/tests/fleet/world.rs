//! A fleet in virtual time: machines, stores, and a network that loses, delays and doubles messages.

mod network;
mod vnode;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anello_antientropy::{
    AntiEntropy, AntiEntropyConfig, CallFailure, Effect, Figures, Incoming, Input, Look, Looked,
    Outgoing, Question, Reply, Report, Ticket, Token, look,
    store::{MemoryTreeStore, TreeStore},
};
use anello_protocol::{
    cluster::{ClusterState, Member, MemberState, Phase},
    id::{ClusterName, Datacenter, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
    key::DataKey,
    merkle::{CHILDREN, EntryDigest, HashRange},
    message::repair::CompareRanges,
    time::{Moment, Now},
    version::{ConflictRule, Versions},
};
use anello_ring::view::View;

pub(crate) use network::Network;

use crate::content::Contents;

pub(crate) const KEYSPACE: KeyspaceId = KeyspaceId(1);
/// The wall clock at the begin of every test.
pub(crate) const WALL_MS: u64 = 1_800_000_000_000;

pub(crate) fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("within the grammar")
}

/// Chance, from a seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

pub(crate) struct Site {
    pub(crate) store: Arc<MemoryTreeStore>,
    machine: Option<AntiEntropy>,
    /// Which life of the node it is.
    life: u64,
    asked: BTreeMap<Token, (NodeId, u64, Ticket)>,
    next_token: u64,
    started: Vec<u64>,
    pub(crate) quarantined: bool,
    refuses_stores: bool,
    /// A tree that can't be read, and how long it takes to scrub another.
    pub(crate) unreadable: Option<PartitionId>,
    pub(crate) scrub_takes: Duration,
    /// What the quarantine was told.
    pub(crate) in_step: BTreeSet<(PartitionId, NodeId)>,
    pub(crate) reports: Vec<Report>,
    /// What it has given its word for, each with the keys of the partition that it held at that moment.
    pub(crate) handed: Vec<(PartitionId, Phase, BTreeSet<DataKey>)>,
}

enum Event {
    Arrives {
        to: NodeId,
        from: NodeId,
        life: u64,
        ticket: Ticket,
        message: Outgoing,
    },
    Answered {
        to: NodeId,
        life: u64,
        ticket: Ticket,
        outcome: Result<Incoming, CallFailure>,
    },
    Looked {
        at: NodeId,
        life: u64,
        ticket: Ticket,
        looked: Looked,
    },
    /// A client's write arrives at a replica.
    Written {
        at: NodeId,
        key: DataKey,
        versions: Versions,
    },
}

/// What has gone over the network, in frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) bytes: usize,
    /// How often versions of a key travelled.
    pub(crate) keys: BTreeMap<DataKey, usize>,
}

pub(crate) struct World {
    pub(crate) now: Moment,
    pub(crate) sites: BTreeMap<NodeId, Site>,
    pub(crate) sent: Sent,
    pub(crate) network: Network,
    pub(crate) view: Arc<View>,
    pub(crate) rule: ConflictRule,
    pub(crate) chance: Chance,
    pub(crate) config: AntiEntropyConfig,
    events: BTreeMap<(Moment, u64), Event>,
    cut: BTreeSet<(NodeId, NodeId)>,
    next_event: u64,
}

impl World {
    /// A fleet whose nodes are in the datacenters that their names begin with. All have been told of
    /// each other.
    pub(crate) fn new(ids: &[&str], partitions: u32, rule: ConflictRule, seed: u64) -> Self {
        let members = ids.iter().map(|id| (node(id), member(id))).collect();
        let name = ClusterName::new("test").expect("within the grammar");
        let mut cluster = ClusterState::founded(name, partitions, member(ids[0]));
        cluster.members = members;
        let default =
            cluster.keyspaces.get_mut(&KeyspaceName::default_keyspace()).expect("it exists");
        default.config.conflict = rule;
        let mut world = Self {
            now: Moment(1_000_000),
            sites: BTreeMap::new(),
            sent: Sent::default(),
            network: Network::GOOD,
            view: Arc::new(View::of(Arc::new(cluster)).expect("within the grammar")),
            rule,
            chance: Chance(seed),
            config: AntiEntropyConfig::default(),
            events: BTreeMap::new(),
            cut: BTreeSet::new(),
            next_event: 0,
        };
        for id in ids {
            let site = Site {
                store: Arc::new(MemoryTreeStore::new(partitions)),
                machine: None,
                life: 0,
                asked: BTreeMap::new(),
                next_token: 0,
                started: Vec::new(),
                quarantined: false,
                refuses_stores: false,
                unreadable: None,
                scrub_takes: Duration::ZERO,
                in_step: BTreeSet::new(),
                reports: Vec::new(),
                handed: Vec::new(),
            };
            world.sites.insert(node(id), site);
        }
        world
    }

    pub(crate) fn start_all(&mut self) {
        for id in self.sites.keys().cloned().collect::<Vec<_>>() {
            self.start(&id);
        }
    }

    /// A node begins a new life, with the store that it has.
    pub(crate) fn start(&mut self, id: &NodeId) {
        let seed = self.chance.next();
        let site = self.sites.get_mut(id).expect("it exists");
        site.life += 1;
        site.asked.clear();
        site.machine = Some(AntiEntropy::new(id.clone(), self.config.clone(), seed));
        let view = self.view.clone();
        self.input(id, Input::ClusterChanged(view));
        self.tell_reachability(id, true);
    }

    /// A node's memory is gone, and its connections with it.
    pub(crate) fn crash(&mut self, id: &NodeId) {
        let site = self.sites.get_mut(id).expect("it exists");
        site.machine = None;
        site.life += 1;
        self.tell_reachability(id, false);
    }

    fn tell_reachability(&mut self, about: &NodeId, reachable: bool) {
        for id in self.sites.keys().filter(|id| *id != about).cloned().collect::<Vec<_>>() {
            self.input(&id, Input::ReachabilityChanged { node: about.clone(), reachable });
        }
    }

    /// A node is quarantined from here on, with all that it holds, or no more.
    pub(crate) fn quarantine(&mut self, at: &NodeId, is_on: bool, was_restored: bool) {
        let site = self.sites.get_mut(at).expect("it exists");
        site.quarantined = is_on;
        site.in_step.clear();
        let all = if is_on { self.view.cluster().partitions } else { 0 };
        let partitions = (0..all).map(PartitionId).collect();
        self.input(at, Input::Quarantined { partitions, was_restored });
    }

    /// Whether a quarantined node is in step with another in all that they share.
    pub(crate) fn is_in_step(&self, at: &NodeId, with: &NodeId) -> bool {
        let in_step = &self.sites[at].in_step;
        (0..self.view.cluster().partitions)
            .all(|partition| in_step.contains(&(PartitionId(partition), with.clone())))
    }

    /// A node's disk takes nothing in.
    pub(crate) fn refuse_stores(&mut self, at: &NodeId, refuses: bool) {
        self.sites.get_mut(at).expect("it exists").refuses_stores = refuses;
    }

    /// Two nodes don't hear of each other, and know it.
    pub(crate) fn cut(&mut self, one: &NodeId, two: &NodeId, is_cut: bool) {
        for (a, b) in [(one, two), (two, one)] {
            match is_cut {
                true => self.cut.insert((a.clone(), b.clone())),
                false => self.cut.remove(&(a.clone(), b.clone())),
            };
            self.input(a, Input::ReachabilityChanged { node: b.clone(), reachable: !is_cut });
        }
    }

    pub(crate) fn change_cluster(&mut self, change: impl Fn(&mut ClusterState)) {
        let mut cluster = (**self.view.cluster()).clone();
        cluster.epoch = cluster.epoch.next();
        change(&mut cluster);
        self.view = Arc::new(View::of(Arc::new(cluster)).expect("within the grammar"));
        for id in self.sites.keys().cloned().collect::<Vec<_>>() {
            self.input(&id, Input::ClusterChanged(self.view.clone()));
        }
    }

    pub(crate) fn put(&mut self, at: &NodeId, key: &DataKey, versions: impl Into<Arc<Versions>>) {
        self.sites[at].store.put(key, versions.into());
    }

    /// A client's write comes to every replica, some time soon.
    pub(crate) fn write(&mut self, key: &DataKey, versions: &Versions, within_us: u64) {
        for at in self.replicas(key) {
            let delay = Duration::from_micros(self.chance.below(within_us));
            let (key, versions) = (key.clone(), versions.clone());
            self.later(delay, Event::Written { at, key, versions });
        }
    }

    /// The keys that a node holds of a partition.
    pub(crate) fn keys_of(&self, at: &NodeId, partition: PartitionId) -> BTreeSet<DataKey> {
        let range = HashRange::of_partition(partition, self.view.cluster().partitions);
        let found = self.sites[at].store.entries(KEYSPACE, range, None, usize::MAX);
        found.expect("memory reads").entries.into_iter().map(|entry| entry.key).collect()
    }

    /// The replicas of a key, those that are being filled included.
    pub(crate) fn replicas(&self, key: &DataKey) -> Vec<NodeId> {
        let partition = key.hash.partition(self.view.cluster().partitions);
        let keyspace = self.view.keyspace_of(KEYSPACE).expect("it exists");
        let replicas = &self.view.placement_of(keyspace, partition).replicas;
        replicas.iter().map(|replica| replica.id.clone()).collect()
    }

    pub(crate) fn contents(&self, at: &NodeId) -> Contents {
        let store = &self.sites[at].store;
        let mut contents = Contents::new();
        for partition in 0..self.view.cluster().partitions {
            let root =
                HashRange::of_partition(PartitionId(partition), self.view.cluster().partitions);
            for entry in
                store.entries(KEYSPACE, root, None, usize::MAX).expect("memory reads").entries
            {
                let versions = store.read(&entry.key).expect("memory reads");
                contents.insert(entry.key, Arc::new(versions));
            }
        }
        contents
    }

    pub(crate) fn figures(&self, at: &NodeId) -> Figures {
        self.machine(at).figures()
    }

    pub(crate) fn machine(&self, at: &NodeId) -> &AntiEntropy {
        self.sites[at].machine.as_ref().expect("it lives")
    }

    /// An operator starts a round: its number.
    pub(crate) fn start_round(&mut self, at: &NodeId) -> u64 {
        self.input(at, Input::Start(Token(u64::MAX)));
        *self.sites[at].started.last().expect("it is answered at once")
    }

    /// Runs until something is so; panics if it does not become so in time.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        is_so: impl Fn(&World) -> bool,
    ) -> Duration {
        let start = self.now;
        while !is_so(self) {
            assert!(self.now < start + limit, "not in time: {what}");
            self.run_for(Duration::from_millis(50));
        }
        self.now.since(start)
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(until);
        }
    }

    /// The next thing that happens, at `until` at the latest.
    fn step(&mut self, until: Moment) {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let wake = self
            .sites
            .iter_mut()
            .filter_map(|(id, site)| Some((site.machine.as_mut()?.next_wake()?, id.clone())))
            .min();
        let next = event.into_iter().chain(wake.iter().map(|(at, _)| *at)).min();
        let Some(next) = next.filter(|next| *next <= until) else {
            self.now = until;
            return;
        };
        self.now = self.now.max(next);
        match (event, wake) {
            (Some(event), _) if event == next => {
                let (_, event) = self.events.pop_first().expect("it is there");
                self.happen(event);
            }
            (_, Some((_, id))) => self.input(&id, Input::TimeUp),
            _ => unreachable!("one of them is next"),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { to, from, life, ticket, message } => {
                if self.sites[&to].machine.is_some() && !self.is_cut(&from, &to) {
                    self.arrives(to, from, life, ticket, message);
                }
            }
            Event::Answered { to, life, ticket, outcome } => {
                if self.sites[&to].life == life {
                    self.input(&to, Input::Answered { ticket, outcome });
                }
            }
            Event::Looked { at, life, ticket, looked } => {
                if self.sites[&at].life == life {
                    self.input(&at, Input::Looked(ticket, looked));
                }
            }
            Event::Written { at, key, versions } => self.join(&at, &key, versions),
        }
    }

    fn arrives(&mut self, to: NodeId, from: NodeId, life: u64, ticket: Ticket, what: Outgoing) {
        let question = match what {
            Outgoing::Roots(roots) => Question::Roots(roots),
            Outgoing::Ranges(ranges) => Question::Ranges(ranges),
            Outgoing::Keys(keys) => Question::Keys(keys),
            Outgoing::Read(read) => {
                let answer = Incoming::Read(self.read(&to, &read));
                return self.answer(&to, &from, life, ticket, answer);
            }
            Outgoing::Store(store) => {
                let answer = Incoming::Stored(self.store(&to, store));
                return self.answer(&to, &from, life, ticket, answer);
            }
            Outgoing::Purge(purge) => {
                assert_eq!(to, from, "nobody drops what another holds");
                let answer = Incoming::Purged(self.drop_copy(&to, &purge));
                return self.answer(&to, &from, life, ticket, answer);
            }
        };
        let site = self.sites.get_mut(&to).expect("it exists");
        let token = Token(site.next_token);
        site.next_token += 1;
        site.asked.insert(token, (from.clone(), life, ticket));
        self.input(&to, Input::Asked { token, from: Some(from), question });
    }

    /// A node asks another about a tree's root, out of turn; what comes back is of no interest.
    pub(crate) fn walk(&mut self, from: &NodeId, at: &NodeId, partition: PartitionId) {
        let partitions = self.view.cluster().partitions;
        let root = HashRange::of_partition(partition, partitions);
        let ranges = CompareRanges {
            epoch: self.view.epoch(),
            keyspace: KEYSPACE,
            partition,
            ranges: vec![(root, [EntryDigest::default(); CHILDREN])],
        };
        let (life, nobodys) = (self.sites[from].life, Ticket(u64::MAX));
        self.arrives(at.clone(), from.clone(), life, nobodys, Outgoing::Ranges(ranges));
    }

    pub(crate) fn input(&mut self, at: &NodeId, input: Input) {
        let now = Now { moment: self.now, wall_ms: WALL_MS + self.now.0 / 1000 };
        let Some(machine) = &mut self.sites.get_mut(at).expect("it exists").machine else { return };
        machine.handle(now, input);
        let effects: Vec<Effect> = std::iter::from_fn(|| machine.next_effect()).collect();
        effects.into_iter().for_each(|effect| self.perform(at, effect));
    }

    fn perform(&mut self, at: &NodeId, effect: Effect) {
        let life = self.sites[at].life;
        match effect {
            Effect::Send { ticket, to, message, deadline } => {
                self.send(at, life, ticket, to, message, deadline);
            }
            Effect::Look(ticket, what) => {
                let site = &self.sites[at];
                let (is_unreadable, takes) = match &what {
                    Look::Scrub { partition, .. } => {
                        (site.unreadable == Some(*partition), site.scrub_takes)
                    }
                    _ => (false, Duration::ZERO),
                };
                let looked = match is_unreadable {
                    true => Looked::Failed("a checksum differs".into()),
                    false => look(&*site.store, what),
                };
                let delay = takes + Duration::from_micros(50 + self.chance.below(200));
                self.later(delay, Event::Looked { at: at.clone(), life, ticket, looked });
            }
            Effect::Reply(token, reply) => {
                let site = self.sites.get_mut(at).expect("it exists");
                if let Reply::Started(round) = reply {
                    return site.started.push(round);
                }
                let (to, life, ticket) = site.asked.remove(&token).expect("answered once");
                let answer = match reply {
                    Reply::Roots(it) => Incoming::Roots(it),
                    Reply::Ranges(it) => Incoming::Ranges(it),
                    Reply::Keys(it) => Incoming::Keys(it),
                    other => panic!("no node is told {other:?}"),
                };
                self.answer(at, &to, life, ticket, answer);
            }
            Effect::Report(report) => {
                self.sites.get_mut(at).expect("it exists").reports.push(report)
            }
            Effect::InStep { keyspace, partition, peer } => {
                assert_eq!(keyspace, KEYSPACE);
                let site = self.sites.get_mut(at).expect("it exists");
                assert!(site.quarantined, "only a quarantine is told");
                site.in_step.insert((partition, peer));
            }
            Effect::PeerQuarantined(peer) => assert!(self.sites[&peer].quarantined),
            Effect::HandedOver { change, partition, phase, epoch } => {
                let under_way = self.view.cluster().change.as_ref().expect("there is a change");
                assert_eq!((under_way.began, self.view.epoch()), (change, epoch));
                let keys = self.keys_of(at, partition);
                self.sites.get_mut(at).expect("it exists").handed.push((partition, phase, keys));
            }
        }
    }

    fn later(&mut self, delay: Duration, event: Event) {
        self.events.insert((self.now + delay, self.next_event), event);
        self.next_event += 1;
    }
}

pub(crate) fn member(id: &str) -> Member {
    let datacenter = id.split('-').next().expect("there is one");
    Member {
        id: node(id),
        datacenter: Datacenter::new(datacenter).expect("within the grammar"),
        rack: Rack::new("r").expect("within the grammar"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    }
}
