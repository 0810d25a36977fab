//! Nodes that speak the real protocol over the real transport, with nothing behind it: a map that they
//! all share stands for the cluster's data. Each can be told to misbehave.

#![allow(dead_code, reason = "each test file uses its share")]
#![allow(clippy::unwrap_used, reason = "a fake that can't be set up fails its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anello_client::{Client, ClientBuilder, TlsPem};
use anello_protocol::{
    cluster::{
        ClusterState, Keyspace, KeyspaceConfig, Member, MemberState, Phase, Purpose, RingChange,
    },
    id::{ClusterName, Epoch, KeyspaceId, NodeId},
    key::Key,
    message::{
        admin::{AlterError, AlterKeyspace, AlterRing, FetchCluster, KeyspaceChange, RingRequest},
        client::{Answer, ContextToken, Found, FoundVersion, Get, RequestError, Write, Written},
    },
    time::HybridTime,
    version::{Content, WriteId},
};
use anello_transport::{
    ActorRef, Call, CallError, Identity, Listener, ListenerConfig, ReplyTo, Router, Worker,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::runtime::Handle;

/// How a node answers reads and writes.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// As it should.
    Well,
    /// Not at all, though it does what it is asked.
    Silent,
    /// Its mailbox is full.
    Full,
    /// With this error.
    Failing(RequestError),
    /// It drops the call.
    Gone,
}

/// What the fake nodes share.
pub(crate) struct World {
    pub(crate) state: Mutex<ClusterState>,
    data: Mutex<BTreeMap<Key, Vec<(WriteId, Content)>>>,
    authority: Authority,
}

/// One fake node.
pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    listener: Option<Listener>,
    inner: Arc<Inner>,
}

struct Inner {
    world: Arc<World>,
    manner: Mutex<Manner>,
    asked: AtomicUsize,
    /// When reads and writes came, and whose they were.
    writes: Mutex<Vec<(Instant, WriteId)>>,
    /// Replies that are never given.
    unanswered: Mutex<Vec<ReplyTo<Answer<Found>>>>,
    unacknowledged: Mutex<Vec<ReplyTo<Answer<Written>>>>,
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> TlsPem {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        TlsPem { ca: self.pem.clone().into(), cert: cert.into(), key: key.serialize_pem().into() }
    }
}

fn cluster() -> ClusterName {
    ClusterName::new("demo").unwrap()
}

/// A datacenter and a number make a node's id, as `eu-1`.
pub(crate) async fn fleet(ids: &[&str]) -> (Arc<World>, Vec<FakeNode>) {
    let founder = member(ids[0], "127.0.0.1:1");
    let state = ClusterState::founded(cluster(), 64, founder);
    let world = Arc::new(World {
        state: Mutex::new(state),
        data: Mutex::default(),
        authority: Authority::new(),
    });
    let mut nodes = Vec::new();
    for id in ids {
        nodes.push(FakeNode::start(&world, id).await);
    }
    world.epoch(|state| {
        for node in &nodes {
            let member = member(node.id.as_str(), &node.address.to_string());
            state.members.insert(node.id.clone(), member);
        }
    });
    (world, nodes)
}

fn member(id: &str, quic: &str) -> Member {
    Member {
        id: id.parse().unwrap(),
        datacenter: id.split('-').next().unwrap().parse().unwrap(),
        rack: "a".parse().unwrap(),
        weight: 1.0,
        quic: quic.into(),
        http: "127.0.0.1:1".into(),
        state: MemberState::Up,
    }
}

impl World {
    /// Agrees on the next state.
    pub(crate) fn epoch(&self, change: impl FnOnce(&mut ClusterState)) -> Epoch {
        let mut state = self.state.lock().unwrap();
        change(&mut state);
        state.epoch = state.epoch.next();
        state.epoch
    }

    /// The write ids of a key, in the order of their arrival, each once.
    pub(crate) fn events(&self, key: &'static str) -> Vec<WriteId> {
        let data = self.data.lock().unwrap();
        let versions = data.get(&Key::new(key).unwrap());
        versions.into_iter().flatten().map(|(id, _)| *id).collect()
    }

    pub(crate) fn builder(&self, seeds: &[&FakeNode]) -> ClientBuilder {
        Client::builder()
            .cluster("demo")
            .seeds(seeds.iter().map(|node| node.address.to_string()))
            .tls_pem(self.authority.issue("client.test"))
    }

    pub(crate) async fn client(&self, seeds: &[FakeNode]) -> Client {
        let seeds: Vec<_> = seeds.iter().collect();
        self.builder(&seeds).datacenter("eu").connect().await.unwrap()
    }
}

impl FakeNode {
    pub(crate) async fn start(world: &Arc<World>, id: &str) -> Self {
        let inner = Arc::new(Inner {
            world: world.clone(),
            manner: Mutex::new(Manner::Well),
            asked: AtomicUsize::new(0),
            writes: Mutex::default(),
            unanswered: Mutex::default(),
            unacknowledged: Mutex::default(),
        });
        let mut node = Self {
            id: id.parse().unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            listener: None,
            inner,
        };
        node.listen().await;
        node
    }

    /// Begins to listen, or to listen again at the same address.
    pub(crate) async fn listen(&mut self) {
        let authority = &self.inner.world.authority;
        let identity =
            Identity::node(cluster(), self.id.clone(), &authority.issue(self.id.as_str())).unwrap();
        let worker = Worker { runtime: Handle::current(), router: self.inner.router() };
        // A port that was given up may have gone to a client of another test for a while.
        until("the port", async || {
            let config = ListenerConfig::default();
            let bound =
                Listener::bind(self.address, identity.clone(), vec![worker.clone()], config);
            self.listener = bound.ok();
            self.listener.is_some()
        })
        .await;
        self.address = self.listener.as_ref().unwrap().local_address();
    }

    /// Stops listening.
    pub(crate) async fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.close(Duration::ZERO).await;
        }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap() = manner;
    }

    /// How many reads and writes have come.
    pub(crate) fn asked(&self) -> usize {
        self.inner.asked.load(Ordering::Relaxed)
    }

    /// When writes came, and which.
    pub(crate) fn writes(&self) -> Vec<(Instant, WriteId)> {
        self.inner.writes.lock().unwrap().clone()
    }
}

impl Inner {
    fn router(self: &Arc<Self>) -> Router {
        let (get, write, alter, fetch) = (self.clone(), self.clone(), self.clone(), self.clone());
        let ring = self.clone();
        Router::builder()
            .serve(ActorRef::function(move |call| get.get(call)))
            .serve(ActorRef::function(move |call| write.write(call)))
            .serve(ActorRef::function(move |call: Call<FetchCluster>| {
                let state = fetch.world.state.lock().unwrap();
                call.reply.send((state.epoch > call.message.have).then(|| state.clone()));
                Ok(())
            }))
            .serve(ActorRef::function(move |call: Call<AlterKeyspace>| {
                call.reply.send(alter.world.alter(call.message));
                Ok(())
            }))
            .serve(ActorRef::function(move |call: Call<AlterRing>| {
                call.reply.send(ring.world.alter_ring(call.message.change));
                Ok(())
            }))
            .build()
    }

    fn get(&self, call: Call<Get>) -> Result<(), CallError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let Get { keyspace, key, .. } = call.message;
        let known = self.world.state.lock().unwrap().keyspaces.contains_key(&keyspace);
        match self.manner.lock().unwrap().clone() {
            Manner::Well if !known => {
                call.reply.send(Err(RequestError::NoSuchKeyspace(keyspace)).into());
            }
            Manner::Well => call.reply.send(Ok(self.world.found(&key)).into()),
            Manner::Silent => self.unanswered.lock().unwrap().push(call.reply),
            Manner::Full => return Err(CallError::Busy),
            Manner::Failing(error) => call.reply.send(Err(error).into()),
            Manner::Gone => {}
        }
        Ok(())
    }

    fn write(&self, call: Call<Write>) -> Result<(), CallError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let write = call.message;
        self.writes.lock().unwrap().push((Instant::now(), write.write_id));
        match self.manner.lock().unwrap().clone() {
            Manner::Well => call.reply.send(Ok(self.world.store(write)).into()),
            Manner::Silent => {
                self.world.store(write);
                self.unacknowledged.lock().unwrap().push(call.reply);
            }
            Manner::Full => return Err(CallError::Busy),
            Manner::Failing(error) => call.reply.send(Err(error).into()),
            Manner::Gone => {
                self.world.store(write);
            }
        }
        Ok(())
    }
}

/// A context here is the list of the write ids that it covers.
impl World {
    fn found(&self, key: &Key) -> Found {
        let data = self.data.lock().unwrap();
        let Some(versions) = data.get(key) else {
            return Found { versions: vec![], context: ContextToken(String::new()) };
        };
        let ids: Vec<_> = versions.iter().map(|(id, _)| format!("{id:?}")).collect();
        let versions = versions.iter().map(|(_, content)| FoundVersion {
            content: content.clone(),
            time: HybridTime::default(),
        });
        Found { versions: versions.collect(), context: ContextToken(ids.join(",")) }
    }

    fn store(&self, write: Write) -> Written {
        let mut data = self.data.lock().unwrap();
        let versions = data.entry(write.key).or_default();
        let context = write.context.map(|token| token.0).unwrap_or_default();
        let covered: BTreeSet<_> = context.split(',').collect();
        if !versions.iter().any(|(id, _)| *id == write.write_id) {
            versions.retain(|(id, _)| !covered.contains(format!("{id:?}").as_str()));
            versions.push((write.write_id, write.content));
        }
        Written { context: ContextToken(format!("{context},{:?}", write.write_id)) }
    }

    fn alter(&self, alter: AlterKeyspace) -> Result<Epoch, AlterError> {
        let AlterKeyspace { name, change } = alter;
        let known = self.state.lock().unwrap().keyspaces.contains_key(&name);
        match change {
            KeyspaceChange::Set(config) => Ok(self.epoch(|state| {
                let epoch = state.epoch.next();
                let keyspace = Keyspace { id: KeyspaceId(epoch.0), ruled_since: epoch, config };
                state.keyspaces.insert(name, keyspace);
            })),
            KeyspaceChange::Drop if known => Ok(self.epoch(|state| {
                state.keyspaces.remove(&name);
            })),
            KeyspaceChange::Drop => Err(AlterError::NoSuchKeyspace(name)),
        }
    }

    fn alter_ring(&self, change: RingRequest) -> Result<Epoch, AlterError> {
        let RingRequest::Leave(node) = change else {
            return Err(AlterError::Invalid("a fake can only leave".into()));
        };
        let under_way = self.state.lock().unwrap().change.as_ref().map(|it| it.purpose.to_string());
        match under_way {
            Some(what) => Err(AlterError::UnderWay(what)),
            None => Ok(self.begin_change(Purpose::Leave(node.clone()), |state| {
                let member = state.members.get_mut(&node);
                member.expect("it is a member").state = MemberState::Leaving;
            })),
        }
    }

    /// Begins a change of the ring, with every partition on its way.
    pub(crate) fn begin_change(
        &self,
        purpose: Purpose,
        change: impl FnOnce(&mut ClusterState),
    ) -> Epoch {
        self.epoch(|state| {
            let (old, began) = (state.layout(), state.epoch.next());
            change(state);
            let phases = vec![Phase::Filling; state.partitions as usize];
            state.change = Some(Box::new(RingChange { began, asked: began, purpose, old, phases }));
        })
    }

    /// Takes a node into the cluster, to be filled first.
    pub(crate) fn begin_join(&self, node: &FakeNode) {
        let member = member(node.id.as_str(), &node.address.to_string());
        self.begin_change(Purpose::Join([node.id.clone()].into()), |state| {
            let joining = Member { state: MemberState::Joining, ..member };
            state.members.insert(node.id.clone(), joining);
        });
    }

    /// All partitions enter a phase of the change that is under way.
    pub(crate) fn enter(&self, phase: Phase) {
        self.epoch(|state| {
            let change = state.change.as_mut().expect("there is one");
            change.phases.fill(phase);
        });
    }

    /// Adds a keyspace that nobody has told the clients of.
    pub(crate) fn add_keyspace(&self, name: &str) {
        let change = KeyspaceChange::Set(KeyspaceConfig::default());
        self.alter(AlterKeyspace { name: name.parse().unwrap(), change }).unwrap();
    }

    /// Takes a node into the cluster.
    pub(crate) fn join(&self, node: &FakeNode) {
        let member = member(node.id.as_str(), &node.address.to_string());
        self.epoch(|state| {
            state.members.insert(node.id.clone(), member);
        });
    }
}

/// Waits for something that is to come about.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what} has not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
