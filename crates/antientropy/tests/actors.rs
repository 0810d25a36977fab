//! The actors, wired into a fleet within one process: every message between nodes is really encoded and
//! decoded, every store is in memory, and time is real.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix::{Actor, Addr, Context as ActorContext, Handler, System};
use anello_antientropy::{
    AntiEntropyConfig, MerkleActor, MerkleParts,
    actor::{
        AskFigures, AskPairs, AskProgress, HandedOver, NodeRefs, StartRound, Stop, Tell, VnodeRefs,
    },
    quarantine::{QuarantineActor, QuarantineConfig, QuarantineParts},
    store::{MemoryTreeStore, TreeStore},
};
use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
    key::{DataKey, Key, KeyHash},
    merkle::{EntryDigest, HashRange},
    message::{
        hint::MarkForRepair,
        repair::{CompareKeys, CompareRanges, CompareRoots, MAX_RANGES, MAX_ROOTS, RootSum},
        replica::{Held, ReadVersions, Refusal, StoreVersions, Stored},
    },
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Call, CallContext, CallError, Caller, Router};

const PARTITIONS: u32 = 4;
const KEYSPACE: KeyspaceId = KeyspaceId(1);

type Routers = Arc<OnceLock<BTreeMap<NodeId, Router>>>;

struct Node {
    store: Arc<MemoryTreeStore>,
    actor: Addr<MerkleActor>,
}

/// The ring does not change here.
struct Unheard;

impl Actor for Unheard {
    type Context = ActorContext<Self>;
}

impl Handler<HandedOver> for Unheard {
    type Result = ();

    fn handle(&mut self, _: HandedOver, _: &mut Self::Context) {
        panic!("nothing is on its way");
    }
}

struct Fleet {
    nodes: BTreeMap<NodeId, Node>,
    routers: Routers,
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("within the grammar")
}

/// A vnode, as far as repair knows it.
fn vnodes(store: &Arc<MemoryTreeStore>) -> VnodeRefs {
    let (reading, joining) = (store.clone(), store.clone());
    VnodeRefs {
        read: ActorRef::function(move |call: Call<ReadVersions>| {
            let held = reading.read(&call.message.key).expect("memory reads");
            call.reply.send(Ok(Held::Full(held)));
            Ok(())
        }),
        store: ActorRef::function(move |call: Call<StoreVersions>| {
            let StoreVersions { key, rule, versions, .. } = call.message;
            let mut held = joining.read(&key).expect("memory reads");
            held.merge(versions, rule);
            joining.put(&key, Arc::new(held));
            call.reply.send(Ok(Stored { lost_to: None, is_quarantined: false }));
            Ok(())
        }),
    }
}

impl Fleet {
    fn start(ids: &[&str]) -> Self {
        let routers = Routers::default();
        let nodes: BTreeMap<NodeId, Node> = ids
            .iter()
            .map(|id| {
                let store = Arc::new(MemoryTreeStore::new(PARTITIONS));
                let (me, others) = (node(id), routers.clone());
                // No node is quarantined here, so it is told nothing.
                let quarantine = QuarantineActor::new(QuarantineParts {
                    node: me.clone(),
                    config: QuarantineConfig::default(),
                    last: None,
                    was_restored: false,
                    save: Box::new(|_| ()),
                    tell: Box::new(|_| ()),
                });
                let quarantine = quarantine.start();
                let actor = MerkleActor::new(MerkleParts {
                    node: me.clone(),
                    config: AntiEntropyConfig::default(),
                    seed: 1,
                    store: store.clone(),
                    vnodes: vnodes(&store),
                    purge: ActorRef::function(|_| panic!("nothing came back with a copy")),
                    others: Box::new(move |other| {
                        let routers = others.get().expect("all are there before one is asked");
                        refs(routers[other].clone(), Caller::Node(me.clone()))
                    }),
                    handed_over: Unheard.start().recipient(),
                    in_step: quarantine.clone().recipient(),
                    peer_quarantined: quarantine.recipient(),
                });
                (node(id), Node { store, actor: actor.start() })
            })
            .collect();
        let doors = nodes.iter().map(|(id, node)| (id.clone(), node.router())).collect();
        assert!(routers.set(doors).is_ok(), "set once");
        let fleet = Self { nodes, routers };
        let name = ClusterName::new("test").expect("within the grammar");
        let mut cluster = ClusterState::founded(name, PARTITIONS, member(ids[0]));
        cluster.members = ids.iter().map(|id| (node(id), member(id))).collect();
        let view = Arc::new(View::of(Arc::new(cluster)).expect("within the grammar"));
        for node in fleet.nodes.values() {
            node.actor.do_send(Tell::ClusterChanged(view.clone()));
        }
        fleet
    }

    async fn until_same(&self, what: &str, keys: u64) {
        for _ in 0..1000 {
            let all = |number| {
                let mut held = self
                    .nodes
                    .values()
                    .map(|it| it.store.read(&key(number)).expect("memory reads"));
                let first = held.next().expect("there are nodes");
                !first.is_empty() && held.all(|other| other == first)
            };
            if (0..keys).all(all) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not in time: {what}");
    }

    fn end(self) {
        self.nodes.values().for_each(|node| node.actor.do_send(Stop));
    }
}

impl Node {
    fn router(&self) -> Router {
        let (vnodes, actor) = (vnodes(&self.store), self.actor.clone());
        Router::builder()
            .serve(vnodes.read)
            .serve(vnodes.store)
            .serve::<CompareRoots>(ActorRef::mailbox(actor.clone().recipient()))
            .serve::<CompareRanges>(ActorRef::mailbox(actor.clone().recipient()))
            .serve::<CompareKeys>(ActorRef::mailbox(actor.clone().recipient()))
            .serve::<MarkForRepair>(ActorRef::mailbox(actor.recipient()))
            .build()
    }
}

fn refs(router: Router, caller: Caller) -> NodeRefs {
    NodeRefs {
        vnodes: VnodeRefs {
            read: ActorRef::loopback_as(router.clone(), caller.clone()),
            store: ActorRef::loopback_as(router.clone(), caller.clone()),
        },
        roots: ActorRef::loopback_as(router.clone(), caller.clone()),
        ranges: ActorRef::loopback_as(router.clone(), caller.clone()),
        keys: ActorRef::loopback_as(router, caller),
    }
}

fn member(id: &str) -> Member {
    Member {
        id: node(id),
        datacenter: Datacenter::new("eu").expect("within the grammar"),
        rack: Rack::new("r").expect("within the grammar"),
        weight: 1.0,
        quic: String::new(),
        http: String::new(),
        state: MemberState::Up,
    }
}

fn key(number: u64) -> DataKey {
    let key = Key::new(format!("key-{number}").into_bytes()).expect("a short key");
    let hash = KeyHash::of(&KeyspaceName::default_keyspace(), &key);
    DataKey { hash, keyspace: KEYSPACE, key }
}

fn versions(number: u64) -> Arc<Versions> {
    let actor = ActorId { incarnation: Incarnation(number + 1), birth: 1 };
    Arc::new(Versions::from(Version {
        dot: Dot { actor, counter: 1 },
        past: Context::new(),
        write_id: WriteId(number.into()),
        time: HybridTime::from_wall_ms(number),
        expires_ms: None,
        trace_id: None,
        absorbed: Vec::new(),
        content: Content::Value(Value::new(vec![b'v'; 100]).expect("short")),
    }))
}

fn soon() -> CallContext {
    CallContext::within(Duration::from_secs(5))
}

fn run(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn a_round_that_an_operator_starts_brings_all_in_step() {
    run(async {
        let fleet = Fleet::start(&["eu-a", "eu-b", "eu-c"]);
        let stores: Vec<_> = fleet.nodes.values().map(|node| node.store.clone()).collect();
        for number in 0..300 {
            stores[number as usize % 3].put(&key(number), versions(number));
        }
        // Whatever its name: the last one compares with all.
        let last = &fleet.nodes[&node("eu-c")].actor;
        last.send(StartRound).await.expect("it lives");
        let mut progress = last.send(AskProgress).await.expect("it lives").expect("begun");
        while !progress.is_complete {
            tokio::time::sleep(Duration::from_millis(10)).await;
            progress = last.send(AskProgress).await.expect("it lives").expect("begun");
        }
        let figures = last.send(AskFigures).await.expect("it lives");
        assert_eq!((figures.partitions_in_sync, figures.rounds), (4, 1), "{figures:?}");
        assert_eq!(figures.keys_pulled, 200, "{figures:?}");
        let pairs = last.send(AskPairs(KEYSPACE, PartitionId(0))).await.expect("it lives");
        assert_eq!(pairs.len(), 2);
        assert!(pairs.iter().all(|(_, pair)| pair.in_step_ms.is_some()), "{pairs:?}");
        // The first round of each node does the rest.
        fleet.until_same("all hold all", 300).await;
        fleet.end();
    });
}

#[test]
fn a_mark_of_another_node_is_followed_at_once() {
    run(async {
        let fleet = Fleet::start(&["eu-a", "eu-b"]);
        fleet.nodes[&node("eu-a")].store.put(&key(0), versions(0));
        let router = fleet.routers.get().expect("set")[&node("eu-b")].clone();
        let marked = ActorRef::<MarkForRepair>::loopback(router);
        let ranges = vec![(KEYSPACE, key(0).hash.partition(PARTITIONS))];
        marked.call(MarkForRepair { ranges }, soon()).await.expect("it is heard");
        fleet.until_same("b has it", 1).await;
        fleet.end();
    });
}

#[test]
fn what_no_node_would_ask_is_refused() {
    run(async {
        let fleet = Fleet::start(&["eu-a"]);
        let router = fleet.routers.get().expect("set")[&node("eu-a")].clone();
        let refs = refs(router, Caller::Node(node("eu-x")));
        let (epoch, keyspace, partition) = (Epoch(1), KEYSPACE, PartitionId(1));
        let zero = EntryDigest::default();
        let sum = |partition| RootSum { first: PartitionId(partition), others: 0, digest: zero };
        let long = vec![sum(0); MAX_ROOTS + 1];
        let answer = refs.roots.call(CompareRoots { epoch, keyspace, sums: long }, soon()).await;
        assert!(matches!(answer, Err(CallError::Refused(_))), "{answer:?}");
        let foreign = vec![sum(77)];
        let answer = refs.roots.call(CompareRoots { epoch, keyspace, sums: foreign }, soon()).await;
        assert_eq!(answer, Ok(Err(Refusal::NotOwner)));
        let root = |partition| HashRange::of_partition(PartitionId(partition), PARTITIONS);
        for ranges in [vec![(root(1), [zero; 16]); MAX_RANGES + 1], vec![(root(2), [zero; 16])]] {
            let asked = CompareRanges { epoch, keyspace, partition, ranges };
            let answer = refs.ranges.call(asked, soon()).await;
            assert!(matches!(answer, Err(CallError::Refused(_))), "{answer:?}");
        }
        let whole = HashRange::of_partition(PartitionId(0), 1);
        for (range, entries) in [
            (root(1), vec![(root(1).first(), zero); 257]),
            (root(1), vec![(root(2).first(), zero)]),
            (whole, Vec::new()),
        ] {
            let is_whole = true;
            let asked = CompareKeys { epoch, keyspace, partition, range, entries, is_whole };
            let answer = refs.keys.call(asked, soon()).await;
            assert!(matches!(answer, Err(CallError::Refused(_))), "{answer:?}");
        }
        for (epoch, refusal) in
            [(Epoch(0), Refusal::StaleEpoch(Epoch(1))), (Epoch(9), Refusal::Behind(Epoch(1)))]
        {
            let asked = CompareRanges { epoch, keyspace, partition, ranges: Vec::new() };
            assert_eq!(refs.ranges.call(asked, soon()).await, Ok(Err(refusal)));
        }
        let quarantined = Tell::Quarantined { partitions: [partition].into(), was_restored: false };
        fleet.nodes[&node("eu-a")].actor.do_send(quarantined);
        let asked = CompareRanges { epoch, keyspace, partition, ranges: Vec::new() };
        assert_eq!(refs.ranges.call(asked, soon()).await, Ok(Err(Refusal::Quarantined)));
        fleet.end();
    });
}
