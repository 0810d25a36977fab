//! Transcripts of a hint store: inputs in, effects compared; stories of what went wrong elsewhere; and
//! its promises by property, with a shelf that crashes and owners that die.

mod changes;
mod deliveries;
mod laws;
mod removals;
mod shell;
mod stories;
mod transcripts;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    cluster::{ClusterState, KeyspaceConfig, Member, MemberState},
    id::{ClusterName, Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, Rack},
    key::{DataKey, Key, KeyHash},
    message::{
        hint::{CheckHints, Credit, MintHint, ReadHints, StoreHint},
        replica::{Held, MintVersion, Refusal, StoreVersions, Stored, Want},
    },
    time::{HybridTime, Moment, Now},
    version::{ConflictRule, Content, Value, Version, Versions, WriteId},
};
use anello_ring::view::View;

use super::{
    CallFailure, CallNumber, CommitNumber, CommitOutcome, Effect, HintStore, HintStoreConfig,
    Incoming, Input, MemoryShelf, Outgoing, Reply, Request, Token,
    store::{HintChange, HintShelf},
};
use crate::store::NotTaken;

/// The node under test, which stands in for the others.
fn own() -> NodeId {
    node("s")
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

fn member(id: &str) -> Member {
    Member {
        id: node(id),
        datacenter: Datacenter::new("eu").expect("a good name"),
        rack: Rack::new(id).expect("a good name"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    }
}

fn cluster(epoch: u64, ids: &[&str]) -> ClusterState {
    let name = ClusterName::new("test").expect("a good name");
    let mut cluster = ClusterState::founded(name, 16, member(ids[0]));
    cluster.members = ids.iter().map(|id| (node(id), member(id))).collect();
    cluster.epoch = Epoch(epoch);
    cluster
}

fn view_of(cluster: ClusterState) -> Arc<View> {
    Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
}

/// Five nodes, of which each key has three.
fn view(epoch: u64) -> Arc<View> {
    view_of(cluster(epoch, &["a", "b", "c", "d", "s"]))
}

fn lww(epoch: u64) -> Arc<View> {
    let mut cluster = cluster(epoch, &["a", "b", "c", "d", "s"]);
    for keyspace in cluster.keyspaces.values_mut() {
        keyspace.config = KeyspaceConfig { conflict: ConflictRule::Lww, ..Default::default() };
    }
    view_of(cluster)
}

fn key(name: &str) -> DataKey {
    let key = Key::new(name.as_bytes().to_vec()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace: KeyspaceId(1), key }
}

fn replicas(view: &View, key: &DataKey) -> Vec<NodeId> {
    let keyspace = view.keyspace_of(key.keyspace).expect("it is there");
    view.placement(keyspace, key.hash).replicas.iter().map(|place| place.id.clone()).collect()
}

/// Keys of which a node is a replica and the one under test is not.
fn keys_of(owner: &str, count: usize) -> Vec<DataKey> {
    let view = view(1);
    let keys = (0..).map(|number| key(&format!("k{number}")));
    keys.filter(|key| {
        let replicas = replicas(&view, key);
        replicas.contains(&node(owner)) && !replicas.contains(&own())
    })
    .take(count)
    .collect()
}

/// A write of its own birth, with this value.
fn version(birth: u64, past: &[Dot], value: &[u8]) -> Versions {
    let dot = Dot { actor: ActorId { incarnation: Incarnation(7), birth }, counter: 1 };
    Versions::from(Version {
        dot,
        past: past.iter().copied().collect(),
        write_id: WriteId(birth.into()),
        time: HybridTime::from_wall_ms(birth),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(value.to_vec()).expect("within the bound")),
    })
}

fn store(owner: &str, key: &DataKey, versions: Versions) -> Request {
    let store =
        StoreVersions { epoch: Epoch(1), key: key.clone(), rule: ConflictRule::Siblings, versions };
    Request::Store(StoreHint { owner: node(owner), store, counts: false })
}

fn mint(owner: &str, key: &DataKey, write_id: u128, context: &Context) -> Request {
    let mint = MintVersion {
        epoch: Epoch(1),
        key: key.clone(),
        rule: ConflictRule::Siblings,
        ruled_since: Epoch(1),
        context: context.clone(),
        write_id: WriteId(write_id),
        later_than: None,
        trace_id: None,
        content: Content::Value(Value::new(&b"minted"[..]).expect("within the bound")),
    };
    Request::Mint(MintHint { owner: node(owner), mint })
}

fn read(key: &DataKey) -> Request {
    Request::Read(ReadHints { epoch: Epoch(1), key: key.clone(), want: Want::Full })
}

fn check(keys: &[&DataKey]) -> Request {
    Request::Check(CheckHints { keys: keys.iter().map(|key| (*key).clone()).collect() })
}

fn stored() -> Reply {
    Reply::Store(Ok(Stored { lost_to: None, is_quarantined: false }))
}

/// A message on its way.
#[derive(Clone, Debug)]
struct Mail {
    call: CallNumber,
    to: NodeId,
    message: Outgoing,
}

/// A hint store with its shelf, and all that it waits for.
struct World {
    machine: HintStore,
    shelf: Arc<MemoryShelf>,
    config: HintStoreConfig,
    view: Arc<View>,
    now: Now,
    starts: u64,
    tokens: u64,
    reads: VecDeque<Effect>,
    commits: VecDeque<(CommitNumber, HintChange)>,
    mail: VecDeque<Mail>,
    replies: BTreeMap<Token, Reply>,
    quiet: usize,
    /// Whether the shelf has no room for the next commit.
    is_full: bool,
    /// What the others hold, by node and key.
    held: BTreeMap<(NodeId, DataKey), Versions>,
}

impl World {
    fn new() -> Self {
        Self::with(HintStoreConfig::default())
    }

    /// One whose shelf is empty; all other nodes are away.
    fn with(config: HintStoreConfig) -> Self {
        let shelf = Arc::new(MemoryShelf::new());
        let mut world = Self {
            machine: HintStore::new(own(), config.clone(), 1, Default::default()),
            shelf,
            config,
            view: view(1),
            now: Now { moment: Moment(0), wall_ms: 1_000_000 },
            starts: 1,
            tokens: 0,
            reads: VecDeque::new(),
            commits: VecDeque::new(),
            mail: VecDeque::new(),
            replies: BTreeMap::new(),
            quiet: 0,
            is_full: false,
            held: BTreeMap::new(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for id in ["a", "b", "c", "d"] {
            self.reach(id, false);
        }
        self.input(Input::ClusterChanged(self.view.clone()));
    }

    /// The process dies and starts again: what was not committed is gone.
    fn crash(&mut self) {
        self.starts += 1;
        let shelved = self.shelf.load().expect("memory reads");
        self.machine = HintStore::new(own(), self.config.clone(), self.starts, shelved);
        self.reads.clear();
        self.commits.clear();
        self.mail.clear();
        self.begin();
    }

    fn input(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        while let Some(effect) = self.machine.next_effect() {
            match effect {
                Effect::Load(..) | Effect::Page { .. } => self.reads.push_back(effect),
                // A shelf without room says so before the next commit is offered.
                Effect::Commit(number, _) if std::mem::take(&mut self.is_full) => {
                    let outcome = CommitOutcome::NotTaken(NotTaken::Busy);
                    self.machine.handle(self.now, Input::Committed(number, outcome));
                }
                Effect::Commit(number, change) => self.commits.push_back((number, change)),
                Effect::Send { call, to, message, .. } => {
                    self.mail.push_back(Mail { call, to, message });
                }
                Effect::Reply(token, reply) => {
                    assert!(self.replies.insert(token, reply).is_none(), "answered once");
                }
                Effect::Quiet => self.quiet += 1,
            }
        }
    }

    fn ask(&mut self, request: Request) -> Token {
        let token = Token(self.tokens);
        self.tokens += 1;
        self.input(Input::Asked { token, request });
        token
    }

    /// Asks, and lets the disk do all it has to do.
    fn tell(&mut self, request: Request) -> Reply {
        let token = self.ask(request);
        self.disk();
        self.replies.remove(&token).expect("it is answered")
    }

    fn reach(&mut self, id: &str, reachable: bool) {
        self.input(Input::ReachabilityChanged { node: node(id), reachable });
    }

    /// The disk answers its oldest question, if there is one.
    fn read_one(&mut self) -> bool {
        let input = match self.reads.pop_front() {
            Some(Effect::Load(owner, key)) => {
                let found = Ok(self.shelf.read(&owner, &key).expect("memory reads"));
                Input::Loaded { owner, key, found }
            }
            Some(Effect::Page { page, owner, from, count, bytes }) => {
                let found = self.shelf.page(&owner, from, count, bytes).expect("memory reads");
                Input::Paged(page, Ok(found))
            }
            _ => return false,
        };
        self.input(input);
        true
    }

    /// The oldest commit ends, if there is one; it is kept if it is said so.
    fn commit_one(&mut self, outcome: CommitOutcome, is_kept: bool) -> bool {
        let Some((number, change)) = self.commits.pop_front() else { return false };
        if is_kept {
            self.shelf.commit(change, Box::new(|_| {})).expect("memory has room");
        }
        self.input(Input::Committed(number, outcome));
        true
    }

    fn disk(&mut self) {
        while self.read_one() || self.commit_one(CommitOutcome::Durable, true) {}
    }

    /// Lets time pass, with a disk that is quick.
    fn pass(&mut self, ms: u64) {
        let end = self.now.moment + Duration::from_millis(ms);
        self.disk();
        while let Some(wake) = self.machine.next_wake().filter(|wake| *wake <= end) {
            self.turn_clock(wake);
            self.input(Input::TimeUp);
            self.disk();
        }
        self.turn_clock(end);
    }

    fn turn_clock(&mut self, moment: Moment) {
        let moment = moment.max(self.now.moment);
        self.now.wall_ms += moment.since(self.now.moment).as_millis() as u64;
        self.now.moment = moment;
    }

    fn answer(&mut self, call: CallNumber, outcome: Result<Incoming, CallFailure>) {
        self.input(Input::Answered(call, outcome));
        self.disk();
    }

    /// The node that a message is for handles it, and answers.
    fn serve(&mut self, mail: &Mail) -> Incoming {
        match &mail.message {
            Outgoing::Credit(_) => Incoming::Credit(Credit { bytes: 4 << 20, retry_ms: 0 }),
            Outgoing::Mark(_) => Incoming::Marked,
            Outgoing::Store(store) => {
                let place = (mail.to.clone(), store.key.clone());
                self.held.entry(place).or_default().merge(store.versions.clone(), store.rule);
                Incoming::Stored(Ok(Stored { lost_to: None, is_quarantined: false }))
            }
        }
    }

    /// Everybody answers until nothing is on its way; the number of stores.
    fn deliver(&mut self) -> usize {
        let mut stores = 0;
        while let Some(mail) = self.mail.pop_front() {
            stores += usize::from(matches!(mail.message, Outgoing::Store(_)));
            let answer = self.serve(&mail);
            self.answer(mail.call, Ok(answer));
        }
        stores
    }

    fn holds(&self, id: &str, key: &DataKey) -> Versions {
        self.held.get(&(node(id), key.clone())).cloned().unwrap_or_default()
    }

    fn count(&self, owner: &str) -> u64 {
        self.machine.figures(self.now).owners.get(&node(owner)).map_or(0, |owner| owner.count)
    }

    fn is_kept(&mut self, key: &DataKey) -> bool {
        match self.tell(check(&[key])) {
            Reply::Check(Ok(found)) => found == [true],
            other => panic!("a check is answered, not {other:?}"),
        }
    }
}

fn refused(refusal: Refusal) -> Reply {
    Reply::Store(Err(refusal))
}

fn full(versions: Versions) -> Reply {
    Reply::Read(Ok(Held::Full(versions)))
}
