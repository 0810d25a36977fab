//! The actors, wired into a fleet within one process: every message between nodes is really encoded
//! and decoded, every store is in memory.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, OnceLock, mpsc},
    thread,
    time::Duration,
};

use actix::{Actor, Addr, System};
use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, Epoch, KeyspaceName, NodeId, PartitionId, Rack},
    key::{DataKey, Key},
    message::{
        Message,
        client::{Found, Get, LocateKey, RequestError, RequestOptions, Write, Written},
        replica::{
            ForwardWrite, MintVersion, ReadVersions, RelayVersions, RelayedAck, StoreVersions, Want,
        },
    },
    version::{Content, Value, Versions, WriteId},
};
use anello_replica::{
    coordinator::{
        self, CoordinatorActor, CoordinatorConfig, CoordinatorParts, NodeRefs, OwnHints, Vnodes,
    },
    replica::{self, ReplicaActor, ReplicaConfig, ReplicaParts},
    store::{
        CachedRead, Commit, CommitDone, MemoryStore, NotTaken, Store, StoreError, StoreEstimate,
        VnodeRecord,
    },
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Call, CallContext, CallError, Router};

const PARTITIONS: u32 = 8;

/// A store whose reads may block, and whose commits come back from a thread of its own.
struct SlowStore {
    kept: Arc<MemoryStore>,
    commits: mpsc::SyncSender<(Commit, CommitDone)>,
}

impl SlowStore {
    fn new() -> Self {
        let kept = Arc::new(MemoryStore::new());
        let (commits, queue) = mpsc::sync_channel::<(Commit, CommitDone)>(64);
        let store = kept.clone();
        thread::spawn(move || {
            for (commit, done) in queue {
                store.commit(commit, done).expect("memory has room");
            }
        });
        Self { kept, commits }
    }
}

impl Store for SlowStore {
    fn read(&self, key: &DataKey) -> Result<Versions, StoreError> {
        self.kept.read(key)
    }

    fn read_cached(&self, _: &DataKey) -> Result<CachedRead, StoreError> {
        Ok(CachedRead::WouldBlock)
    }

    fn commit(&self, commit: Commit, done: CommitDone) -> Result<(), NotTaken> {
        self.commits.try_send((commit, done)).map_err(|_| NotTaken::Busy)
    }

    fn load_vnode(&self, partition: PartitionId) -> Result<Option<VnodeRecord>, StoreError> {
        self.kept.load_vnode(partition)
    }

    fn estimate(&self) -> StoreEstimate {
        self.kept.estimate()
    }
}

struct Node {
    store: Arc<dyn Store>,
    vnodes: Vec<Addr<ReplicaActor>>,
    coordinator: Addr<CoordinatorActor>,
}

struct Fleet {
    nodes: BTreeMap<NodeId, Node>,
    cluster: ClusterState,
    routers: Arc<OnceLock<BTreeMap<NodeId, Router>>>,
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

fn datacenter(id: &str) -> Datacenter {
    Datacenter::new(id.split('-').next().expect("a first part")).expect("a good name")
}

fn put(key: &str, write_id: u128) -> Write {
    Write {
        keyspace: KeyspaceName::default_keyspace(),
        key: Key::new(key.as_bytes().to_vec()).expect("a short key"),
        content: Content::Value(Value::new(write_id.to_string()).expect("short")),
        context: None,
        write_id: WriteId(write_id),
        is_named: false,
        options: RequestOptions::default(),
    }
}

impl Fleet {
    fn start(ids: &[&str], store: fn() -> Arc<dyn Store>) -> Self {
        let member = |id: &&str| Member {
            id: node(id),
            datacenter: datacenter(id),
            rack: Rack::new("r").expect("a good name"),
            weight: 1.0,
            quic: String::new(),
            http: String::new(),
            state: MemberState::Up,
        };
        let name = ClusterName::new("test").expect("a good name");
        let mut cluster = ClusterState::founded(name, PARTITIONS, member(&ids[0]));
        cluster.members = ids.iter().map(|id| (node(id), member(id))).collect();
        let routers = Arc::new(OnceLock::<BTreeMap<NodeId, Router>>::new());
        let nodes: BTreeMap<_, _> =
            ids.iter().map(|id| (node(id), Node::start(id, store(), routers.clone()))).collect();
        let doors = nodes.iter().map(|(id, node)| (id.clone(), node.router())).collect();
        assert!(routers.set(doors).is_ok(), "set once");
        let fleet = Self { nodes, cluster, routers };
        fleet.tell(1);
        fleet
    }

    /// Everybody learns of the cluster under this number.
    fn tell(&self, epoch: u64) {
        let view = self.view(epoch);
        for node in self.nodes.values() {
            for vnode in &node.vnodes {
                vnode.do_send(replica::ClusterChanged(view.clone()));
            }
            node.coordinator.do_send(coordinator::ClusterChanged(view.clone()));
        }
    }

    fn view(&self, epoch: u64) -> Arc<View> {
        let mut cluster = self.cluster.clone();
        cluster.epoch = Epoch(epoch);
        Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"))
    }

    async fn get(&self, at: &str, key: &str) -> Result<Found, RequestError> {
        let get = Get {
            keyspace: KeyspaceName::default_keyspace(),
            key: Key::new(key.as_bytes().to_vec()).expect("a short key"),
            options: RequestOptions::default(),
        };
        let actor = ActorRef::mailbox(self.nodes[&node(at)].coordinator.clone().recipient());
        actor.call(get, soon()).await.expect("an answer").result
    }

    async fn put(&self, at: &str, key: &str, write_id: u128) -> Result<Written, RequestError> {
        let write = put(key, write_id);
        let actor = ActorRef::mailbox(self.nodes[&node(at)].coordinator.clone().recipient());
        actor.call(write, soon()).await.expect("an answer").result
    }

    /// Breaks the wiring's circle, so that the actors end.
    fn end(self) {
        for node in self.nodes.values() {
            node.coordinator.do_send(coordinator::Stop);
            node.vnodes.iter().for_each(|vnode| vnode.do_send(replica::Stop));
        }
        drop(self.routers);
    }
}

impl Node {
    fn start(
        id: &str,
        store: Arc<dyn Store>,
        routers: Arc<OnceLock<BTreeMap<NodeId, Router>>>,
    ) -> Self {
        let vnodes: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let partition = PartitionId(partition);
                let parts = ReplicaParts {
                    node: node(id),
                    partition,
                    config: ReplicaConfig::default(),
                    seed: 1,
                    remembered: store.load_vnode(partition).expect("memory reads"),
                    store: store.clone(),
                };
                ReplicaActor::new(parts).start()
            })
            .collect();
        let parts = CoordinatorParts {
            node: node(id),
            datacenter: datacenter(id),
            number: 0,
            config: CoordinatorConfig::default(),
            seed: 1,
            vnodes: vnode_refs(&vnodes),
            hints: nobodys_hints(),
            others: Box::new(move |other| {
                let router = routers.get().expect("all are there")[other].clone();
                NodeRefs {
                    read: ActorRef::loopback(router.clone()),
                    store: ActorRef::loopback(router.clone()),
                    relay: ActorRef::loopback(router.clone()),
                    forward: ActorRef::loopback(router.clone()),
                    acked: ActorRef::loopback(router.clone()),
                    hint: ActorRef::loopback(router.clone()),
                    read_hints: ActorRef::loopback(router),
                }
            }),
        };
        let coordinator = CoordinatorActor::new(parts).start();
        Self { store, vnodes, coordinator }
    }

    fn router(&self) -> Router {
        let vnodes = vnode_refs(&self.vnodes);
        let coordinator = self.coordinator.clone();
        Router::builder()
            .serve(vnodes.read)
            .serve(vnodes.store)
            .serve::<RelayVersions>(ActorRef::mailbox(coordinator.clone().recipient()))
            .serve::<ForwardWrite>(ActorRef::mailbox(coordinator.clone().recipient()))
            .serve::<RelayedAck>(ActorRef::mailbox(coordinator.recipient()))
            .build()
    }
}

/// Hints are kept by nobody.
fn nobodys_hints() -> OwnHints {
    fn unreachable<M: Message>() -> ActorRef<M> {
        ActorRef::function(|call| {
            call.reply.fail(CallError::Unreachable);
            Ok(())
        })
    }
    OwnHints { keep: unreachable(), read: unreachable(), mint: unreachable() }
}

fn vnode_refs(vnodes: &[Addr<ReplicaActor>]) -> Vnodes {
    let read: Vec<ActorRef<ReadVersions>> =
        vnodes.iter().map(|vnode| ActorRef::mailbox(vnode.clone().recipient())).collect();
    let store: Vec<ActorRef<StoreVersions>> =
        vnodes.iter().map(|vnode| ActorRef::mailbox(vnode.clone().recipient())).collect();
    let mint: Vec<ActorRef<MintVersion>> =
        vnodes.iter().map(|vnode| ActorRef::mailbox(vnode.clone().recipient())).collect();
    let at = |key: &DataKey| key.hash.partition(PARTITIONS).0 as usize;
    Vnodes {
        read: ActorRef::function(move |call: Call<ReadVersions>| {
            read[at(&call.message.key)].deliver(call)
        }),
        store: ActorRef::function(move |call: Call<StoreVersions>| {
            store[at(&call.message.key)].deliver(call)
        }),
        mint: ActorRef::function(move |call: Call<MintVersion>| {
            mint[at(&call.message.key)].deliver(call)
        }),
    }
}

fn soon() -> CallContext {
    CallContext::within(Duration::from_secs(5))
}

fn in_memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

fn slow() -> Arc<dyn Store> {
    Arc::new(SlowStore::new())
}

fn run(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

const SIX: [&str; 6] = ["eu-a", "eu-b", "eu-c", "us-a", "us-b", "us-c"];
const TEN: [&str; 10] =
    ["eu-a", "eu-b", "eu-c", "eu-d", "eu-e", "us-a", "us-b", "us-c", "us-d", "us-e"];

#[test]
fn what_is_written_at_any_node_is_read_at_every_node() {
    for store in [in_memory, slow] {
        run(async move {
            let fleet = Fleet::start(&TEN, store);
            for (number, at) in TEN.iter().enumerate() {
                let key = format!("key-{number}");
                assert_eq!(fleet.get(at, &key).await.expect("it is read").versions, []);
                fleet.put(at, &key, number as u128).await.expect("it is written");
                for other in TEN {
                    let found = fleet.get(other, &key).await.expect("it is read");
                    assert_eq!(found.versions.len(), 1, "{key} at {other}");
                }
            }
            fleet.end();
        });
    }
}

#[test]
fn a_write_comes_to_every_replica() {
    run(async {
        let fleet = Fleet::start(&SIX, in_memory);
        let key = Key::new(&b"everywhere"[..]).expect("a short key");
        fleet.put("eu-a", "everywhere", 1).await.expect("it is written");
        let locate = LocateKey { keyspace: KeyspaceName::default_keyspace(), key: key.clone() };
        let actor = ActorRef::mailbox(fleet.nodes[&node("us-b")].coordinator.clone().recipient());
        let location = actor.call(locate, soon()).await.expect("an answer").expect("a place");
        assert_eq!(location.replicas.len(), 6);
        let view = fleet.view(1);
        let name = KeyspaceName::default_keyspace();
        let data_key = view.data_key(&name, view.keyspace(&name).expect("it exists"), key);
        for node in fleet.nodes.values() {
            // The quorum has answered; the others are about to.
            while node.store.read(&data_key).expect("memory reads").is_empty() {
                tokio::task::yield_now().await;
            }
        }
        fleet.end();
    });
}

#[test]
fn many_requests_at_once_all_have_their_answers() {
    run(async {
        let fleet = Fleet::start(&SIX, slow);
        let writes = (0..200u128).map(|number| {
            let at = SIX[number as usize % SIX.len()];
            let fleet = &fleet;
            async move { fleet.put(at, &format!("k{}", number % 20), number).await }
        });
        let mut kept = 0;
        for written in futures_util::future::join_all(writes).await {
            match written {
                Ok(_) => kept += 1,
                Err(RequestError::Overloaded { .. } | RequestError::Timeout { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        let mut found = 0;
        for key in 0..20 {
            found +=
                fleet.get("us-c", &format!("k{key}")).await.expect("it is read").versions.len();
        }
        assert!(found >= kept, "{found} siblings of {kept} acknowledged writes");
        fleet.end();
    });
}

#[test]
fn freezing_answers_once_writes_have_ended() {
    run(async {
        let fleet = Fleet::start(&["eu-a"], slow);
        fleet.put("eu-a", "k", 1).await.expect("it is written");
        let (sender, frozen) = mpsc::channel();
        for vnode in &fleet.nodes[&node("eu-a")].vnodes {
            let sender = sender.clone();
            vnode.do_send(replica::Freeze(Box::new(move || sender.send(()).expect("it waits"))));
        }
        drop(sender);
        let mut quiet = 0;
        while quiet < PARTITIONS {
            quiet += frozen.try_iter().count() as u32;
            tokio::task::yield_now().await;
        }
        let write = fleet.put("eu-a", "k", 2);
        let thaw = async {
            for vnode in &fleet.nodes[&node("eu-a")].vnodes {
                vnode.do_send(replica::Thaw);
            }
        };
        let (written, ()) = tokio::join!(write, thaw);
        written.expect("it waits for the thaw");
        fleet.end();
    });
}

#[test]
fn a_newer_state_that_others_mention_is_waited_for() {
    run(async {
        let fleet = Fleet::start(&["eu-a", "eu-b", "eu-c"], in_memory);
        fleet.put("eu-a", "k", 1).await.expect("it is written");
        let view = fleet.view(2);
        for (id, node) in &fleet.nodes {
            for vnode in &node.vnodes {
                vnode.do_send(replica::ClusterChanged(view.clone()));
            }
            if id.as_str() != "eu-a" {
                node.coordinator.do_send(coordinator::ClusterChanged(view.clone()));
            }
        }
        let coordinator = fleet.nodes[&node("eu-a")].coordinator.clone();
        let read = fleet.get("eu-a", "k");
        let learn = async {
            // Comes after the read in the mailbox.
            let in_flight = coordinator.send(coordinator::CountInFlight).await.expect("it lives");
            assert!(in_flight > 0);
            fleet.tell(2);
        };
        let (found, ()) = tokio::join!(read, learn);
        assert_eq!(found.expect("it is read").versions.len(), 1);
        fleet.end();
    });
}

#[test]
fn a_call_past_its_deadline_is_not_worth_the_work() {
    run(async {
        let fleet = Fleet::start(&["eu-a"], in_memory);
        let view = fleet.view(1);
        let name = KeyspaceName::default_keyspace();
        let key = Key::new(&b"k"[..]).expect("a short key");
        let read = ReadVersions {
            epoch: Epoch(1),
            key: view.data_key(&name, view.keyspace(&name).expect("it exists"), key),
            want: Want::Full,
        };
        let vnodes = vnode_refs(&fleet.nodes[&node("eu-a")].vnodes);
        let late = vnodes.read.call(read, CallContext::within(Duration::ZERO)).await;
        assert_eq!(late, Err(CallError::Timeout));
        let coordinator = fleet.nodes[&node("eu-a")].coordinator.clone();
        let forward = ActorRef::<ForwardWrite>::mailbox(coordinator.recipient());
        let write = ForwardWrite { epoch: Epoch(1), write: put("k", 1) };
        let late = forward.call(write, CallContext::within(Duration::ZERO)).await;
        assert_eq!(late, Err(CallError::Timeout));
        fleet.end();
    });
}

#[test]
fn what_waited_too_long_in_a_mailbox_is_sent_back_before_it_is_done() {
    run(async {
        let fleet = Fleet::start(&["eu-a"], in_memory);
        fleet.put("eu-a", "before", 1).await.expect("it is written");
        // It is in the mailbox when the thread of the actors is held up.
        let late = fleet.nodes[&node("eu-a")].coordinator.clone();
        let late = ActorRef::mailbox(late.recipient()).call(put("k", 2), soon());
        thread::sleep(Duration::from_millis(600));
        assert_eq!(late.await.map(|answer| answer.result), Err(CallError::Busy));
        assert_eq!(fleet.get("eu-a", "k").await.expect("it is read").versions, []);
        fleet.put("eu-a", "k", 3).await.expect("what comes in time is done");
        fleet.end();
    });
}
