//! A coordinator, the hand that feeds it, and what it wants done.

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock},
    time::Duration,
};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    cluster::{
        ClusterState, KeyspaceConfig, Member, MemberState, Phase, Purpose, Replication, RingChange,
    },
    consistency::Consistency,
    id::{ClusterName, Datacenter, Epoch, KeyspaceName, NodeId, Rack},
    key::{DataKey, Key, KeyHash},
    message::{
        client::{Answer, Found, Get, RequestError, RequestOptions, Write, Written},
        replica::{Held, MintVersion, Minted, ReadVersions, Refusal, StoreVersions, Stored, Want},
    },
    time::{HybridTime, Moment, Now},
    version::{ConflictRule, Content, Value, Version, Versions, WriteId},
};
use anello_ring::view::View;

use crate::coordinator::{
    CallFailure, CallNumber, Coordinator, CoordinatorConfig, Effect, Incoming, Input, Outgoing,
    Reply, Token,
};

pub(super) fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

pub(super) fn datacenter(name: &str) -> Datacenter {
    Datacenter::new(name).expect("a good name")
}

/// A cluster of nodes named `<datacenter>-<letter>`.
pub(super) fn cluster(epoch: u64, nodes: &[&str], config: KeyspaceConfig) -> ClusterState {
    let member = |id: &str| Member {
        id: node(id),
        datacenter: datacenter(id.split('-').next().expect("a first part")),
        rack: Rack::new("r").expect("a good name"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    };
    let name = ClusterName::new("test").expect("a good name");
    let mut cluster = ClusterState::founded(name, 256, member(nodes[0]));
    cluster.epoch = Epoch(epoch);
    cluster.members = nodes.iter().map(|id| (node(id), member(id))).collect();
    let keyspace = cluster.keyspaces.get_mut(&KeyspaceName::default_keyspace());
    keyspace.expect("it always exists").config = config;
    cluster
}

/// A cluster on its way from some owners to others, with every partition that far.
pub(super) fn moving(
    epoch: u64,
    old: &[&str],
    new: &[&str],
    phase: Phase,
    config: KeyspaceConfig,
) -> ClusterState {
    let joining = new.iter().filter(|id| !old.contains(id));
    let all: Vec<_> = old.iter().chain(joining).copied().collect();
    let mut state = cluster(epoch, &all, config.clone());
    for (id, member) in &mut state.members {
        member.state = match (old.contains(&id.as_str()), new.contains(&id.as_str())) {
            (true, false) => MemberState::Leaving,
            (false, _) => MemberState::Joining,
            (true, true) => MemberState::Up,
        };
    }
    let purpose = Purpose::Join(new.iter().map(|id| node(id)).collect());
    let phases = vec![phase; state.partitions as usize];
    let old = cluster(epoch, old, config).layout();
    state.change =
        Some(Box::new(RingChange { began: Epoch(1), asked: Epoch(1), purpose, old, phases }));
    state
}

pub(super) fn view(cluster: ClusterState) -> Arc<View> {
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

pub(super) fn lww() -> KeyspaceConfig {
    KeyspaceConfig { conflict: ConflictRule::Lww, ..KeyspaceConfig::default() }
}

pub(super) fn replicated(counts: &[(&str, u16)]) -> KeyspaceConfig {
    let counts = counts.iter().map(|(name, count)| (datacenter(name), *count)).collect();
    KeyspaceConfig { replication: Replication::PerDatacenter(counts), ..KeyspaceConfig::default() }
}

pub(super) const EU: [&str; 3] = ["eu-a", "eu-b", "eu-c"];
pub(super) const BOTH: [&str; 6] = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c"];

/// A key whose replicas are preferred in the order of their names, so that transcripts read well.
pub(super) fn key() -> Key {
    static KEY: LazyLock<Key> = LazyLock::new(|| {
        let view = view(cluster(1, &BOTH, KeyspaceConfig::default()));
        let name = KeyspaceName::default_keyspace();
        let keyspace = view.keyspace(&name).expect("it always exists");
        let mut keys = (0..100_000).map(|n| Key::new(format!("k{n}")).expect("a short key"));
        let in_order = |key: &Key| {
            let placement = view.placement(keyspace, KeyHash::of(&name, key));
            placement.replicas.iter().zip(BOTH).all(|(place, id)| place.id.as_str() == id)
        };
        keys.find(in_order).expect("one in 36 is")
    });
    KEY.clone()
}

pub(super) fn data_key() -> DataKey {
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key());
    DataKey { hash, keyspace: anello_protocol::id::KeyspaceId(1), key: key() }
}

pub(super) fn options() -> RequestOptions {
    RequestOptions::default()
}

pub(super) fn at(level: Consistency) -> RequestOptions {
    RequestOptions { read: Some(level), write: Some(level), ..options() }
}

pub(super) fn get(options: RequestOptions) -> Get {
    Get { keyspace: KeyspaceName::default_keyspace(), key: key(), options }
}

pub(super) fn value(text: &str) -> Content {
    Content::Value(Value::new(text.as_bytes().to_vec()).expect("a short value"))
}

pub(super) fn put(write_id: u128, options: RequestOptions) -> Write {
    Write {
        keyspace: KeyspaceName::default_keyspace(),
        key: key(),
        content: value(&write_id.to_string()),
        context: None,
        write_id: WriteId(write_id),
        is_named: false,
        options,
    }
}

pub(super) fn delete(write_id: u128, options: RequestOptions) -> Write {
    Write { content: Content::Tombstone, ..put(write_id, options) }
}

/// A version that some vnode issued.
pub(super) fn version(vnode: u64, counter: u64, write_id: u128, past: Context) -> Version {
    let incarnation = Incarnation(vnode);
    Version {
        dot: Dot { actor: ActorId { incarnation, birth: 0 }, counter },
        past,
        write_id: WriteId(write_id),
        time: HybridTime::from_wall_ms(counter),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: value(&write_id.to_string()),
    }
}

pub(super) fn minted(version: Version) -> Minted {
    let versions = Versions::from(version);
    Minted { context: versions.context(), versions }
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) call: CallNumber,
    pub(super) to: String,
    pub(super) message: Outgoing,
}

pub(super) struct Bench {
    pub(super) coordinator: Coordinator,
    pub(super) effects: VecDeque<Effect>,
    pub(super) now: Now,
    tokens: u64,
}

impl Bench {
    /// A coordinator at a node of such a cluster.
    pub(super) fn at(own: &str, nodes: &[&str], config: KeyspaceConfig) -> Self {
        let mut bench = Self::alone(own, CoordinatorConfig::default());
        bench.input(Input::ClusterChanged(view(cluster(1, nodes, config))));
        bench
    }

    /// A coordinator at a node of a cluster in this state.
    pub(super) fn under(own: &str, state: ClusterState) -> Self {
        let mut bench = Self::alone(own, CoordinatorConfig::default());
        bench.input(Input::ClusterChanged(view(state)));
        bench
    }

    /// A coordinator of `eu-a`, with the default keyspace as it is born.
    pub(super) fn of(nodes: &[&str]) -> Self {
        Self::at("eu-a", nodes, KeyspaceConfig::default())
    }

    /// A coordinator that knows of no cluster.
    pub(super) fn alone(own: &str, config: CoordinatorConfig) -> Self {
        Self::in_life(1, own, config)
    }

    /// The same, in a life with this seed.
    pub(super) fn in_life(seed: u64, own: &str, config: CoordinatorConfig) -> Self {
        let place = datacenter(own.split('-').next().expect("a first part"));
        Self {
            coordinator: Coordinator::new(node(own), place, 0, config, seed),
            effects: VecDeque::new(),
            now: Now { moment: Moment(1_000_000), wall_ms: 1 },
            tokens: 0,
        }
    }

    pub(super) fn input(&mut self, input: Input) {
        self.coordinator.handle(self.now, input);
        while let Some(effect) = self.coordinator.next_effect() {
            self.effects.push_back(effect);
        }
    }

    /// Lets time pass, with every timer on the way.
    pub(super) fn wait(&mut self, ms: u64) {
        let end = self.now.moment + Duration::from_millis(ms);
        while let Some(wake) = self.coordinator.next_wake().filter(|wake| *wake <= end) {
            assert!(wake >= self.now.moment, "a timer in the past");
            self.now.moment = wake;
            self.input(Input::TimeUp);
        }
        self.now.moment = end;
    }

    pub(super) fn get(&mut self, get: Get) -> Token {
        let token = self.token();
        self.input(Input::Get { token, get });
        token
    }

    pub(super) fn write(&mut self, write: Write) -> Token {
        let token = self.token();
        self.input(Input::Write { token, write });
        token
    }

    pub(super) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    pub(super) fn reachable(&mut self, id: &str, reachable: bool) {
        self.input(Input::ReachabilityChanged { node: node(id), reachable });
    }

    pub(super) fn next(&mut self) -> Effect {
        self.effects.pop_front().expect("something is to be done")
    }

    pub(super) fn nothing(&self) {
        assert_eq!(self.effects, [], "nothing is to be done");
    }

    pub(super) fn sent(&mut self) -> Sent {
        match self.next() {
            Effect::Send { call, to, message, .. } => Sent { call, to: to.to_string(), message },
            other => panic!("expected a message, not {other:?}"),
        }
    }

    pub(super) fn sent_read(&mut self, to: &str, want: Want) -> Sent {
        let sent = self.sent();
        assert_eq!(sent.to, to);
        match &sent.message {
            Outgoing::Read(ReadVersions { want: own, .. }) if *own == want => sent,
            other => panic!("expected a read of {want:?}, not {other:?}"),
        }
    }

    pub(super) fn sent_mint(&mut self) -> (Sent, MintVersion) {
        let sent = self.sent();
        match sent.message.clone() {
            Outgoing::Mint(mint) => (sent, mint),
            other => panic!("expected minting, not {other:?}"),
        }
    }

    pub(super) fn sent_store(&mut self, to: &str) -> (Sent, StoreVersions) {
        let sent = self.sent();
        assert_eq!(sent.to, to);
        match sent.message.clone() {
            Outgoing::Store(store) => (sent, store),
            other => panic!("expected storing, not {other:?}"),
        }
    }

    /// A hint that `keeper` is to keep for `owner`.
    pub(super) fn sent_hint(&mut self, owner: &str, keeper: &str) -> Sent {
        let sent = self.sent();
        assert_eq!(sent.to, keeper);
        match &sent.message {
            Outgoing::Hint(hint) if hint.owner == node(owner) => sent,
            other => panic!("expected a hint for {owner}, not {other:?}"),
        }
    }

    pub(super) fn answer(&mut self, sent: &Sent, outcome: Result<Incoming, CallFailure>) {
        let from = node(&sent.to);
        self.input(Input::Answered { call: sent.call, from, outcome });
    }

    pub(super) fn fails(&mut self, sent: &Sent, failure: CallFailure) {
        self.answer(sent, Err(failure));
    }

    pub(super) fn holds(&mut self, sent: &Sent, versions: &Versions) {
        let want = match &sent.message {
            Outgoing::Read(read) => read.want,
            Outgoing::ReadHints(read) => read.want,
            other => panic!("it was not asked to read, but {other:?}"),
        };
        let held = match want {
            Want::Full => Held::Full(versions.clone()),
            Want::Digest => Held::Digest(versions.digest()),
        };
        self.answer(sent, Ok(Incoming::Read(Ok(held))));
    }

    pub(super) fn mints(&mut self, sent: &Sent, minted: &Minted) {
        self.answer(sent, Ok(Incoming::Minted(Ok(minted.clone()))));
    }

    pub(super) fn stores(&mut self, sent: &Sent) {
        self.answer(
            sent,
            Ok(Incoming::Stored(Ok(Stored { lost_to: None, is_quarantined: false }))),
        );
    }

    pub(super) fn loses(&mut self, sent: &Sent, later: HybridTime) {
        self.answer(
            sent,
            Ok(Incoming::Stored(Ok(Stored { lost_to: Some(later), is_quarantined: false }))),
        );
    }

    pub(super) fn forwarded(&mut self, sent: &Sent, result: Result<Answer<Written>, Refusal>) {
        self.answer(sent, Ok(Incoming::Forwarded(result)));
    }

    pub(super) fn refuses(&mut self, sent: &Sent, refusal: Refusal) {
        let incoming = match &sent.message {
            Outgoing::Read(_) | Outgoing::ReadHints(_) => Incoming::Read(Err(refusal)),
            Outgoing::Store(_) | Outgoing::Relay(_) | Outgoing::Hint(_) => {
                Incoming::Stored(Err(refusal))
            }
            Outgoing::Mint(_) | Outgoing::MintHint(_) => Incoming::Minted(Err(refusal)),
            Outgoing::Forward(_) => Incoming::Forwarded(Err(refusal)),
        };
        self.answer(sent, Ok(incoming));
    }

    pub(super) fn found(&mut self, to: Token) -> Answer<Found> {
        match self.next() {
            Effect::Reply(token, Reply::Get(answer)) if token == to => answer,
            other => panic!("expected the answer to a read, not {other:?}"),
        }
    }

    pub(super) fn written(&mut self, to: Token) -> Answer<Written> {
        match self.next() {
            Effect::Reply(token, Reply::Write(answer)) if token == to => answer,
            other => panic!("expected the answer to a write, not {other:?}"),
        }
    }

    pub(super) fn write_fails(&mut self, to: Token) -> RequestError {
        self.written(to).result.expect_err("the write fails")
    }

    pub(super) fn read_fails(&mut self, to: Token) -> RequestError {
        self.found(to).result.expect_err("the read fails")
    }

    /// Nothing is left of anything.
    pub(super) fn idle(&self) {
        self.nothing();
        assert_eq!(self.coordinator.in_flight(), 0);
        assert_eq!(self.coordinator.next_wake(), None);
    }
}
