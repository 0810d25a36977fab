//! Gossip actors over real QUIC connections: they find each other, agree, notice and come back.

#![allow(clippy::unwrap_used, reason = "in a test the panic is the report")]

use std::{
    cell::RefCell,
    collections::BTreeSet,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use actix::{Actor, Addr};
use anello_gossip::{
    Condition, Depart, GossipActor, HoldingDone, Holdings, MembershipConfig, MembershipEvent,
    MembershipStore, MemoryMembershipStore, Timing,
};
use anello_protocol::{
    cluster::{KeyspaceConfig, Member, MemberState},
    id::{ClusterName, KeyspaceName, NodeId},
    message::{
        Message,
        admin::{AlterKeyspace, ClusterView, DescribeCluster, FetchCluster, KeyspaceChange},
        gossip::GossipPacket,
    },
};
use anello_transport::{
    ActorRef, Call, CallContext, CallError, Identity, Listener, ListenerConfig, Peers, PeersConfig,
    Router, TlsPem, Worker,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A certificate authority for one test.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem().into();
        let pem = TlsPem { ca: self.pem.clone().into(), cert: cert.into(), key };
        let cluster = ClusterName::new("demo").unwrap();
        Identity::node(cluster, NodeId::new(name).unwrap(), &pem).unwrap()
    }
}

/// A node that holds no data.
struct Empty;

impl Holdings for Empty {
    fn inspect(&self, done: HoldingDone) {
        done(Ok(BTreeSet::new()));
    }

    fn freeze(&self, done: HoldingDone) {
        done(Ok(BTreeSet::new()));
    }

    fn thaw(&self) {}
}

/// A reference to an actor that does not exist yet.
fn later<M: Message>(slot: &Arc<OnceLock<ActorRef<M>>>) -> ActorRef<M> {
    let slot = slot.clone();
    ActorRef::function(move |call: Call<M>| match slot.get() {
        Some(actor) => actor.deliver(call),
        None => Err(CallError::Busy),
    })
}

/// What outlives a node's process.
struct Disk {
    name: &'static str,
    identity: Identity,
    store: MemoryMembershipStore,
    address: SocketAddr,
}

struct Node {
    address: SocketAddr,
    actor: Addr<GossipActor>,
    events: Rc<RefCell<Vec<MembershipEvent>>>,
    listener: Listener,
    peers: Peers,
}

impl Node {
    fn start(disk: &Disk, seed: Option<SocketAddr>) -> Self {
        let gossip = Arc::new(OnceLock::new());
        let fetch = Arc::new(OnceLock::new());
        let router = Router::builder()
            .serve::<GossipPacket>(later(&gossip))
            .serve::<FetchCluster>(later(&fetch))
            .build();
        let workers = vec![Worker { runtime: tokio::runtime::Handle::current(), router }];
        let identity = disk.identity.clone();
        let listener =
            Listener::bind(disk.address, identity.clone(), workers, ListenerConfig::default())
                .unwrap();
        let address = listener.local_address();
        let config = MembershipConfig {
            member: Member {
                id: NodeId::new(disk.name).unwrap(),
                datacenter: "eu".parse().unwrap(),
                rack: "a".parse().unwrap(),
                weight: 1.0,
                quic: address.to_string(),
                http: "127.0.0.1:1".into(),
                state: MemberState::Up,
            },
            cluster: ClusterName::new("demo").unwrap(),
            partitions: 64,
            other_seeds: seed.iter().map(ToString::to_string).collect(),
            first_seed: seed.is_none(),
            program: "1.0".into(),
            timing: Timing::lan(),
        };
        let peers = Peers::new(identity, PeersConfig::default()).unwrap();
        let events = Rc::new(RefCell::new(vec![]));
        let told = events.clone();
        let this = Rc::new(RefCell::new(None::<Addr<GossipActor>>));
        let me = this.clone();
        let store: Arc<dyn MembershipStore> = Arc::new(disk.store.clone());
        let actor = GossipActor::new(
            config,
            store,
            Box::new(Empty),
            peers.clone(),
            u64::from(address.port()),
            Box::new(move |event| {
                if let (MembershipEvent::ClusterChanged(_), Some(me)) = (&event, &*me.borrow()) {
                    me.do_send(Condition::Acting);
                }
                told.borrow_mut().push(event);
            }),
        )
        .unwrap()
        .start();
        this.replace(Some(actor.clone()));
        let full = "set once";
        gossip.set(ActorRef::mailbox(actor.clone().recipient())).expect(full);
        fetch.set(ActorRef::mailbox(actor.clone().recipient())).expect(full);
        Self { address, actor, events, listener, peers }
    }

    fn is_ready(&self) -> bool {
        let events = self.events.borrow();
        let ready = events.iter().rev().find_map(|event| match event {
            MembershipEvent::Ready => Some(true),
            MembershipEvent::NotReady(_) => Some(false),
            _ => None,
        });
        ready == Some(true)
    }

    fn reaches(&self, other: &str) -> bool {
        let events = self.events.borrow();
        let last = events.iter().rev().find_map(|event| match event {
            MembershipEvent::Reachability { node, reachable, .. } if node.as_str() == other => {
                Some(*reachable)
            }
            _ => None,
        });
        last == Some(true)
    }

    async fn view(&self) -> ClusterView {
        let describe = ActorRef::mailbox(self.actor.clone().recipient());
        describe.call(DescribeCluster {}, CallContext::within(PATIENCE)).await.unwrap()
    }

    /// Ends without a word.
    async fn kill(self) {
        self.peers.close().await;
        self.listener.close(Duration::ZERO).await;
        drop(self.actor);
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    begin.elapsed()
}

#[test]
fn three_nodes_find_each_other_agree_notice_and_come_back() {
    actix::System::new().block_on(async {
        let authority = Authority::new();
        let mut disks = ["n1", "n2", "n3"].map(|name| Disk {
            name,
            identity: authority.identity(name),
            store: MemoryMembershipStore::default(),
            address: ([127, 0, 0, 1], 0).into(),
        });
        let n1 = Node::start(&disks[0], None);
        let n2 = Node::start(&disks[1], Some(n1.address));
        let n3 = Node::start(&disks[2], Some(n1.address));
        until("all are ready", || n1.is_ready() && n2.is_ready() && n3.is_ready()).await;
        until("all reach all", || {
            let others = |node: &Node, others: [&str; 2]| others.iter().all(|id| node.reaches(id));
            others(&n1, ["n2", "n3"]) && others(&n2, ["n1", "n3"]) && others(&n3, ["n1", "n2"])
        })
        .await;
        let view = n2.view().await;
        assert_eq!(view.nodes.len(), 3);
        assert_eq!(view.nodes.iter().map(|node| node.partitions).sum::<u32>(), 64);
        assert!(view.not_ready.is_none() && view.nodes.iter().all(|node| node.reachable));

        let name = KeyspaceName::new("carts").unwrap();
        let change = KeyspaceChange::Set(KeyspaceConfig::default());
        let alter = ActorRef::mailbox(n3.actor.clone().recipient());
        let request = AlterKeyspace { name: name.clone(), change };
        let epoch = alter.call(request, CallContext::within(PATIENCE)).await.unwrap().unwrap();
        for node in [&n1, &n2, &n3] {
            let fetch = ActorRef::mailbox(node.actor.clone().recipient());
            let request = FetchCluster { have: view.epoch };
            let state = fetch.call(request, CallContext::within(PATIENCE)).await.unwrap().unwrap();
            assert_eq!(state.epoch, epoch);
            assert!(state.keyspaces.contains_key(&name));
        }

        disks[2].address = n3.address;
        n3.kill().await;
        let took = until("the kill is noticed", || !n1.reaches("n3") && !n2.reaches("n3")).await;
        assert!(took < Duration::from_secs(5), "{took:?}");
        let n3 = Node::start(&disks[2], Some(n1.address));
        let back = || n1.reaches("n3") && n2.reaches("n3") && n3.is_ready();
        let took = until("the return is noticed", back).await;
        assert!(took < Duration::from_secs(3), "{took:?}");

        n3.actor.send(Depart).await.unwrap();
        let took = until("the goodbye is heard", || !n1.reaches("n3") && !n2.reaches("n3")).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}
