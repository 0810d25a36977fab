//! Ten times as much as a node can do: everybody is answered in time, memory stays within its bounds, and
//! once it is over the node is as quick as before.

use std::{
    future::Future,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use actix::{Actor, Addr, System};
use anello_protocol::{
    cluster::{ClusterState, Member, MemberState},
    id::{ClusterName, Datacenter, KeyspaceName, NodeId, PartitionId, Rack},
    key::{DataKey, Key},
    message::{
        Message,
        client::{Answer, RequestError, RequestOptions, Write, Written},
        replica::{MintVersion, ReadVersions, StoreVersions},
    },
    version::{Content, Value, Versions, WriteId},
};
use anello_replica::{
    coordinator::{self, CoordinatorActor, CoordinatorConfig, CoordinatorParts, OwnHints, Vnodes},
    replica::{self, ReplicaActor, ReplicaConfig, ReplicaParts},
    store::{
        CachedRead, Commit, CommitDone, MemoryStore, NotTaken, Store, StoreError, StoreEstimate,
        VnodeRecord,
    },
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Call, CallContext, CallError};

const PARTITIONS: u32 = 8;
const VALUE_BYTES: usize = 16 << 10;
/// What one commit takes the disk.
const COMMIT: Duration = Duration::from_millis(2);
/// So many writes a second are ten times what the disk can do.
const OVERLOAD: u64 = 10 * 1_000 / 2;
const DEADLINE: Duration = Duration::from_secs(2);

/// Nobody is away here, so hints are kept by nobody.
fn nobody<M: Message>() -> ActorRef<M> {
    ActorRef::function(|call| {
        call.reply.fail(CallError::Unreachable);
        Ok(())
    })
}

/// A store with a disk that takes its time for every commit, and a short queue in front of it.
struct Disk {
    kept: Arc<MemoryStore>,
    commits: mpsc::SyncSender<(Commit, CommitDone)>,
}

impl Disk {
    fn new() -> Self {
        let kept = Arc::new(MemoryStore::new());
        let (commits, queue) = mpsc::sync_channel::<(Commit, CommitDone)>(64);
        let store = kept.clone();
        thread::spawn(move || {
            for (commit, done) in queue {
                thread::sleep(COMMIT);
                store.commit(commit, done).expect("memory has room");
            }
        });
        Self { kept, commits }
    }
}

impl Store for Disk {
    fn read(&self, key: &DataKey) -> Result<Versions, StoreError> {
        self.kept.read(key)
    }

    fn read_cached(&self, key: &DataKey) -> Result<CachedRead, StoreError> {
        self.kept.read_cached(key)
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
    vnodes: Vec<Addr<ReplicaActor>>,
    coordinator: Addr<CoordinatorActor>,
}

impl Node {
    fn start() -> Self {
        let member = Member {
            id: NodeId::new("eu-a").expect("a good name"),
            datacenter: Datacenter::new("eu").expect("a good name"),
            rack: Rack::new("r").expect("a good name"),
            weight: 1.0,
            quic: String::new(),
            http: String::new(),
            state: MemberState::Up,
        };
        let store: Arc<dyn Store> = Arc::new(Disk::new());
        let vnode = |partition| {
            let parts = ReplicaParts {
                node: member.id.clone(),
                partition: PartitionId(partition),
                config: ReplicaConfig::default(),
                seed: 1,
                remembered: None,
                store: store.clone(),
            };
            ReplicaActor::new(parts).start()
        };
        let vnodes: Vec<_> = (0..PARTITIONS).map(vnode).collect();
        let parts = CoordinatorParts {
            node: member.id.clone(),
            datacenter: member.datacenter.clone(),
            number: 0,
            config: CoordinatorConfig::default(),
            seed: 1,
            vnodes: refs(&vnodes),
            hints: OwnHints { keep: nobody(), read: nobody(), mint: nobody() },
            others: Box::new(|other| unreachable!("{other} is not there")),
        };
        let coordinator = CoordinatorActor::new(parts).start();
        let name = ClusterName::new("test").expect("a good name");
        let cluster = ClusterState::founded(name, PARTITIONS, member);
        let view = Arc::new(View::of(Arc::new(cluster)).expect("a valid cluster"));
        for vnode in &vnodes {
            vnode.do_send(replica::ClusterChanged(view.clone()));
        }
        coordinator.do_send(coordinator::ClusterChanged(view));
        Self { vnodes, coordinator }
    }

    /// Under way when it returns.
    fn put(
        &self,
        number: u128,
    ) -> impl Future<Output = Result<Answer<Written>, CallError>> + 'static {
        let write = Write {
            keyspace: KeyspaceName::default_keyspace(),
            key: Key::new(number.to_be_bytes().to_vec()).expect("a short key"),
            content: Content::Value(Value::new(vec![7; VALUE_BYTES]).expect("within the bound")),
            context: None,
            write_id: WriteId(number),
            is_named: false,
            options: RequestOptions::default(),
        };
        ActorRef::mailbox(self.coordinator.clone().recipient())
            .call(write, CallContext::within(DEADLINE))
    }

    fn stop(&self) {
        self.coordinator.do_send(coordinator::Stop);
        self.vnodes.iter().for_each(|vnode| vnode.do_send(replica::Stop));
    }
}

fn refs(vnodes: &[Addr<ReplicaActor>]) -> Vnodes {
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

/// The memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("it has memory");
    let kib = line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number");
    kib << 10
}

/// What became of writes, and how long the slowest took.
#[derive(Debug, Default)]
struct Ends {
    kept: u32,
    overloaded: u32,
    timed_out: u32,
    slowest: Duration,
    overloaded_slowest: Duration,
}

impl Ends {
    fn add(&mut self, took: Duration, end: Result<Answer<Written>, CallError>) {
        self.slowest = self.slowest.max(took);
        match end.map(|answer| answer.result) {
            Ok(Ok(_)) => self.kept += 1,
            // What a gateway answers with 429.
            Ok(Err(RequestError::Overloaded { .. })) | Err(CallError::Busy) => {
                self.overloaded += 1;
                self.overloaded_slowest = self.overloaded_slowest.max(took);
            }
            Ok(Err(RequestError::Timeout { .. } | RequestError::Unavailable { .. }))
            | Err(CallError::Timeout) => self.timed_out += 1,
            other => panic!("no answer for such a time: {other:?}"),
        }
    }
}

/// So many writes a second for so long; all their ends, and the most memory that there was meanwhile.
async fn load(node: &Node, rate: u64, time: Duration, first: u128) -> (Ends, u64) {
    let (begin, mut number, mut peak) = (Instant::now(), first, 0);
    let mut under_way = vec![];
    while begin.elapsed() < time {
        let due = begin.elapsed().as_millis() as u64 * rate / 1_000;
        while number - first < u128::from(due) {
            let (put, asked) = (node.put(number), Instant::now());
            under_way.push(tokio::task::spawn_local(async move {
                let end = put.await;
                (asked.elapsed(), end)
            }));
            number += 1;
        }
        peak = peak.max(resident());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut ends = Ends::default();
    for put in under_way {
        let (took, end) = put.await.expect("it does not panic");
        ends.add(took, end);
    }
    (ends, peak.max(resident()))
}

#[test]
fn ten_times_too_much_is_answered_within_bounds_and_over_when_it_is_over() {
    System::new().block_on(async {
        let node = Node::start();
        let (calm, _) = load(&node, 100, Duration::from_millis(500), 0).await;
        assert_eq!((calm.overloaded, calm.timed_out), (0, 0), "{calm:?}");
        let before = resident();
        let (ends, peak) = load(&node, OVERLOAD, Duration::from_secs(4), 1_000).await;
        let more = (peak - before) >> 20;
        println!("{ends:?}, {more} MiB more at the peak; seed 1");
        let asked = ends.kept + ends.overloaded + ends.timed_out;
        assert!(u64::from(asked) > 3 * OVERLOAD, "the load was none: {ends:?}");
        assert!(ends.kept > 800, "nearly half of what the disk can do, at least: {ends:?}");
        assert!(ends.overloaded > asked / 2, "the rest is told so: {ends:?}");
        assert!(ends.overloaded_slowest < Duration::from_secs(1), "and soon: {ends:?}");
        assert!(ends.slowest < DEADLINE + Duration::from_millis(500), "{ends:?}");
        // What was written stays in memory here; beside it, the coordinator holds 128 MiB at most.
        let kept = (u64::from(ends.kept) * VALUE_BYTES as u64) >> 20;
        assert!(more < kept + 128 + 64, "{more} MiB more, {kept} of them kept: {ends:?}");
        // Two seconds after the last of it nothing is left of it.
        let (early, _) = load(&node, 100, Duration::from_secs(2), 1_000_000).await;
        println!("right after: {early:?}");
        let (after, _) = load(&node, 100, Duration::from_secs(1), 2_000_000).await;
        assert_eq!((after.overloaded, after.timed_out), (0, 0), "{after:?}");
        assert!(after.kept > 80 && after.slowest < Duration::from_millis(500), "{after:?}");
        node.stop();
    });
}
