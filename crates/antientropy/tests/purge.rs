//! The purgers' actors, wired into a fleet within one process: every message between nodes is really encoded
//! and decoded, time is real, and what nodes hold is in memory.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix::{Actor, Addr, System};
use anello_antientropy::{
    purge::{
        ClusterChanged, PurgeActor, PurgeConfig, PurgeParts, PurgeRefs, PurgeReport, Quarantine,
        ReachabilityChanged, Report, Stop,
    },
    store::{Entries, Leaves, Scrubbed, Tombstone, TreeError, TreeStore},
};
use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
    key::{DataKey, Key},
    merkle::{EntryDigest, HashRange},
    message::{
        hint::CheckHints,
        repair::{PurgeVersions, Purged},
        replica::{Held, ReadVersions},
    },
    time::HybridTime,
    version::{Content, Value, Version, Versions, WriteId},
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Call, CallError, Router};

const PARTITIONS: u32 = 4;
const NODES: [&str; 3] = ["eu-a", "eu-b", "eu-c"];

/// What a node holds, and whether it can be reached.
#[derive(Default)]
struct Memory {
    data: Mutex<BTreeMap<DataKey, Versions>>,
    is_away: AtomicBool,
    is_broken: AtomicBool,
}

impl Memory {
    fn deleted(&self) -> Vec<Tombstone> {
        let data = self.data.lock().expect("nobody panics with it");
        let deleted = data.iter().filter(|(_, versions)| versions.is_deleted());
        deleted
            .map(|(key, versions)| {
                let (digest, latest) = (versions.digest(), versions.latest());
                Tombstone { key: key.clone(), digest, latest }
            })
            .collect()
    }

    fn held(&self, key: &DataKey) -> Versions {
        self.data.lock().expect("nobody panics with it").get(key).cloned().unwrap_or_default()
    }

    fn purge(&self, purge: &PurgeVersions) -> Purged {
        let held = self.held(&purge.key);
        if !held.is_empty() && held.digest() != purge.digest {
            return Purged::Kept;
        }
        self.data.lock().expect("nobody panics with it").remove(&purge.key);
        Purged::Gone
    }

    fn refs(self: &Arc<Self>) -> PurgeRefs {
        let (read, purge) = (self.clone(), self.clone());
        PurgeRefs {
            read: ActorRef::function(move |call: Call<ReadVersions>| {
                let digest = read.held(&call.message.key).digest();
                call.reply.send(Ok(Held::Digest(digest)));
                Ok(())
            }),
            check: ActorRef::function(|call: Call<CheckHints>| {
                call.reply.send(Ok(vec![false; call.message.keys.len()]));
                Ok(())
            }),
            purge: ActorRef::function(move |call: Call<PurgeVersions>| {
                call.reply.send(Ok(purge.purge(&call.message)));
                Ok(())
            }),
        }
    }

    /// The node over a wire, as another sees it, as long as neither is away.
    fn far(self: &Arc<Self>, from: &Arc<Self>) -> PurgeRefs {
        let refs = self.refs();
        let router = Router::builder().serve(refs.read).serve(refs.check).serve(refs.purge).build();
        let gate = || {
            let ends = [self.clone(), from.clone()];
            move || match ends.iter().any(|end| end.is_away.load(Ordering::Relaxed)) {
                true => Err(CallError::Unreachable),
                false => Ok(()),
            }
        };
        let (read, check, purge) = (gate(), gate(), gate());
        let (to_read, to_check) =
            (ActorRef::loopback(router.clone()), ActorRef::loopback(router.clone()));
        let to_purge = ActorRef::loopback(router);
        PurgeRefs {
            read: ActorRef::function(move |call| read().and_then(|()| to_read.deliver(call))),
            check: ActorRef::function(move |call| check().and_then(|()| to_check.deliver(call))),
            purge: ActorRef::function(move |call| purge().and_then(|()| to_purge.deliver(call))),
        }
    }
}

impl TreeStore for Memory {
    fn leaves(&self, _: KeyspaceId, _: PartitionId) -> Option<Box<Leaves>> {
        unreachable!("a purger lists tombstones")
    }

    fn entries(
        &self,
        _: KeyspaceId,
        _: HashRange,
        _: Option<&DataKey>,
        _: usize,
    ) -> Result<Entries, TreeError> {
        unreachable!("a purger lists tombstones")
    }

    fn children(&self, _: KeyspaceId, _: HashRange) -> Result<Vec<EntryDigest>, TreeError> {
        unreachable!("a purger lists tombstones")
    }

    fn read(&self, _: &DataKey) -> Result<Versions, TreeError> {
        unreachable!("a purger lists tombstones")
    }

    fn scrub(&self, _: KeyspaceId, _: PartitionId) -> Result<Scrubbed, TreeError> {
        unreachable!("a purger lists tombstones")
    }

    fn tombstones(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, TreeError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(TreeError("no disk".into()));
        }
        let is_here = |key: &DataKey| {
            key.keyspace == keyspace
                && key.hash.partition(PARTITIONS) == partition
                && after.is_none_or(|after| key > after)
        };
        let deleted = self.deleted().into_iter().filter(|tombstone| is_here(&tombstone.key));
        Ok(deleted.take(limit).collect())
    }

    fn tombstones_estimate(&self) -> u64 {
        self.deleted().len() as u64
    }
}

struct Fleet {
    view: Arc<View>,
    memories: BTreeMap<NodeId, Arc<Memory>>,
    purgers: BTreeMap<NodeId, Addr<PurgeActor>>,
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

impl Fleet {
    /// Three nodes that hold everything, and forget without a grace.
    fn new() -> Self {
        let member = |id: &str| Member {
            id: node(id),
            datacenter: Datacenter::new("eu").expect("a good name"),
            rack: Rack::new("r").expect("a good name"),
            weight: 1.0,
            quic: String::new(),
            http: String::new(),
            state: MemberState::Up,
        };
        let name = ClusterName::new("test").expect("a good name");
        let mut cluster = ClusterState::founded(name, PARTITIONS, member(NODES[0]));
        cluster.members = NODES.iter().map(|id| (node(id), member(id))).collect();
        let default = cluster.keyspaces.get_mut(&KeyspaceName::default_keyspace());
        default.expect("it always exists").config.tombstone_grace_s = 0;
        let view = Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"));
        let memories = NODES.map(|id| (node(id), Arc::new(Memory::default()))).into();
        Self { view, memories, purgers: BTreeMap::new() }
    }

    fn start(&mut self) {
        for (id, memory) in &self.memories {
            let (memories, from) = (self.memories.clone(), memory.clone());
            let parts = PurgeParts {
                node: id.clone(),
                config: PurgeConfig {
                    settle: Duration::from_millis(50),
                    persistence: Duration::from_millis(300),
                    ..PurgeConfig::default()
                },
                store: memory.clone(),
                own: memory.refs(),
                others: Box::new(move |other| memories[other].far(&from)),
            };
            let purger = PurgeActor::new(parts).start();
            purger.do_send(ClusterChanged(self.view.clone()));
            self.purgers.insert(id.clone(), purger);
        }
    }

    /// Keys that all hold: deleted ones, and some that are not.
    fn fill(&self, keys: u64) {
        let name = KeyspaceName::default_keyspace();
        let keyspace = self.view.keyspace(&name).expect("it always exists");
        for number in 0..keys {
            let key = Key::new(format!("k{number}")).expect("a short key");
            let key = self.view.data_key(&name, keyspace, key);
            let actor = ActorId { incarnation: Incarnation(number), birth: 1 };
            let content = match number % 5 {
                0 => Content::Value(Value::new("v").expect("short")),
                _ => Content::Tombstone,
            };
            let version = Version {
                dot: Dot { actor, counter: 1 },
                past: Context::new(),
                write_id: WriteId(number.into()),
                time: HybridTime::from_wall_ms(1),
                expires_ms: None,
                trace_id: None,
                absorbed: Vec::new(),
                content,
            };
            for memory in self.memories.values() {
                let mut data = memory.data.lock().expect("nobody panics with it");
                data.insert(key.clone(), version.clone().into());
            }
        }
    }

    async fn reports(&self) -> BTreeMap<NodeId, PurgeReport> {
        let mut reports = BTreeMap::new();
        for (id, purger) in &self.purgers {
            reports.insert(id.clone(), purger.send(Report).await.expect("it lives"));
        }
        reports
    }

    async fn until(&self, what: &str, is_so: impl Fn(&BTreeMap<NodeId, PurgeReport>) -> bool) {
        let patience = tokio::time::Instant::now() + Duration::from_secs(60);
        loop {
            let reports = self.reports().await;
            if is_so(&reports) {
                return;
            }
            assert!(tokio::time::Instant::now() < patience, "{what}: {reports:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn end(self) {
        self.purgers.values().for_each(|purger| purger.do_send(Stop));
    }
}

fn run(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn what_is_deleted_goes_everywhere_and_nothing_else_does() {
    run(async {
        let mut fleet = Fleet::new();
        fleet.fill(600);
        fleet.start();
        fleet
            .until("tombstones go", |reports| {
                let purged: u64 = reports.values().map(|report| report.figures.purged).sum();
                reports.values().all(|report| report.tombstones == 0) && purged >= 480
            })
            .await;
        for memory in fleet.memories.values() {
            assert_eq!(memory.data.lock().expect("nobody panics with it").len(), 120);
        }
        fleet.end();
    });
}

#[test]
fn one_that_is_away_is_waited_for_and_told_of() {
    run(async {
        let mut fleet = Fleet::new();
        fleet.fill(20);
        let away = node("eu-b");
        fleet.memories[&away].is_away.store(true, Ordering::Relaxed);
        fleet.start();
        // Found out by asking; then by the failure detector.
        let waits = |reports: &BTreeMap<NodeId, PurgeReport>| {
            let reasons = reports.values().flat_map(|report| report.figures.reasons());
            reasons.into_iter().any(|(reason, _)| reason == "replica eu-b unreachable")
        };
        fleet.until("it is told of", waits).await;
        for purger in fleet.purgers.values() {
            purger.do_send(ReachabilityChanged { node: away.clone(), reachable: false });
        }
        fleet.until("it is told of", waits).await;
        assert!(fleet.reports().await.values().all(|report| report.tombstones == 16));
        fleet.memories[&away].is_away.store(false, Ordering::Relaxed);
        for purger in fleet.purgers.values() {
            purger.do_send(ReachabilityChanged { node: away.clone(), reachable: true });
        }
        fleet
            .until("tombstones go", |reports| reports.values().all(|report| report.tombstones == 0))
            .await;
        fleet.end();
    });
}

#[test]
fn a_broken_store_and_a_quarantine_end() {
    run(async {
        let mut fleet = Fleet::new();
        fleet.fill(20);
        for memory in fleet.memories.values() {
            memory.is_broken.store(true, Ordering::Relaxed);
        }
        fleet.start();
        for purger in fleet.purgers.values() {
            purger.do_send(Quarantine(true));
        }
        assert!(fleet.reports().await.values().all(|report| report.figures.settling == 0));
        for (id, purger) in &fleet.purgers {
            purger.do_send(Quarantine(false));
            fleet.memories[id].is_broken.store(false, Ordering::Relaxed);
        }
        fleet
            .until("tombstones go", |reports| reports.values().all(|report| report.tombstones == 0))
            .await;
        fleet.end();
    });
}
