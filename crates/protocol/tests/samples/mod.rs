//! One sample of everything that is frozen, with every variant somewhere.

pub(crate) mod gossip;

use std::collections::{BTreeMap, BTreeSet};

use anello_protocol::{
    causality::{ActorId, Context, Dot, Incarnation},
    cluster::{
        ClusterState, KeyspaceConfig, Member, MemberState, Phase, Purpose, Replication, RingChange,
    },
    consistency::{Consistency, QuorumKind},
    id::{Datacenter, Epoch, KeyspaceId, KeyspaceName, NodeId, PartitionId, Rack},
    key::{DataKey, Key, KeyHash},
    merkle::{CHILDREN, EntryDigest, HashRange},
    message::{admin::*, client::*, hint::*, repair::*, replica::*},
    time::HybridTime,
    version::{ConflictRule, Content, Value, Version, Versions, VersionsDigest, WriteId},
};

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("a good name")
}

fn datacenter() -> Datacenter {
    Datacenter::new("eu").expect("a good name")
}

fn rack() -> Rack {
    Rack::new("a").expect("a good name")
}

fn key() -> Key {
    Key::new(&b"cart:42"[..]).expect("a short key")
}

fn keyspace() -> KeyspaceName {
    KeyspaceName::default_keyspace()
}

fn dot(birth: u64, counter: u64) -> Dot {
    Dot { actor: ActorId { incarnation: Incarnation(0x0123_4567_89ab_cdef), birth }, counter }
}

pub(crate) fn data_key() -> DataKey {
    DataKey { hash: KeyHash::of(&keyspace(), &key()), keyspace: KeyspaceId(1), key: key() }
}

pub(crate) fn context() -> Context {
    [dot(1, 1), dot(1, 2), dot(1, 4), dot(2, 1)].into_iter().collect()
}

pub(crate) fn versions() -> Versions {
    let value = Version {
        dot: dot(1, 5),
        past: context(),
        write_id: WriteId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        time: HybridTime::from_bits((1_790_000_000_000 << 16) + 3),
        expires_ms: Some(1_890_000_000_000),
        trace_id: Some([7; 16]),
        absorbed: vec![WriteId(1), WriteId(2)],
        content: Content::Value(Value::new("tea").expect("short")),
    };
    let tombstone = Version {
        dot: dot(2, 2),
        past: Context::new(),
        expires_ms: None,
        trace_id: None,
        absorbed: vec![],
        content: Content::Tombstone,
        ..value.clone()
    };
    let mut versions = Versions::from(value);
    versions.merge(tombstone.into(), ConflictRule::Siblings);
    versions
}

pub(crate) fn cluster_state() -> ClusterState {
    let member = |id: &str, weight, state| Member {
        id: node(id),
        datacenter: datacenter(),
        rack: rack(),
        weight,
        quic: "10.0.0.5:7400".into(),
        http: "10.0.0.5:7480".into(),
        state,
    };
    let founder = member("eu-a-1", 1.0, MemberState::Up);
    let mut state = ClusterState::founded("demo".parse().expect("a good name"), 256, founder);
    state.epoch = Epoch(7);
    state.removed = BTreeSet::from([node("eu-a-9")]);
    state.written_off = BTreeSet::from([node("eu-a-5")]);
    state.expected = BTreeMap::from([(node("eu-a-7"), node("eu-a-5"))]);
    let old = state.layout();
    for (id, place) in [
        ("eu-a-2", MemberState::Joining),
        ("eu-a-3", MemberState::Leaving),
        ("eu-a-4", MemberState::Left),
        ("eu-a-5", MemberState::Removed),
    ] {
        state.members.insert(node(id), member(id, 2.5, place));
    }
    let purpose = Purpose::Join(BTreeSet::from([node("eu-a-2")]));
    let phases = [Phase::Filling, Phase::Serving, Phase::Done, Phase::Done];
    let phases = phases.into_iter().cycle().take(256).collect();
    let (began, asked) = (Epoch(5), Epoch(6));
    state.change = Some(Box::new(RingChange { began, asked, purpose, old, phases }));
    state
}

fn keyspace_config() -> KeyspaceConfig {
    KeyspaceConfig {
        replication: Replication::PerDatacenter(BTreeMap::from([(datacenter(), 3)])),
        conflict: ConflictRule::Lww,
        read: Consistency::LocalQuorum,
        write: Consistency::Count(2),
        tombstone_grace_s: 3_600,
    }
}

fn options() -> RequestOptions {
    RequestOptions {
        read: Some(Consistency::One),
        write: Some(Consistency::EachQuorum),
        quorum: QuorumKind::Strict,
        timeout_ms: 1_500,
        explain: true,
        trace_id: Some([9; 16]),
    }
}

pub(crate) fn read_versions() -> ReadVersions {
    ReadVersions { epoch: Epoch(7), key: data_key(), want: Want::Digest }
}

pub(crate) fn read_replies() -> Vec<Result<Held, Refusal>> {
    vec![
        Ok(Held::Full(versions())),
        Ok(Held::Digest(VersionsDigest(0xfeed))),
        Err(Refusal::StaleEpoch(Epoch(8))),
        Err(Refusal::Behind(Epoch(8))),
        Err(Refusal::NotOwner),
        Err(Refusal::Frozen),
        Err(Refusal::Storage("no space left".into())),
        Err(Refusal::ForgedContext),
        Err(Refusal::Busy),
        Err(Refusal::TooManySiblings(1024)),
        Err(Refusal::Quarantined),
        Err(Refusal::HintsFull),
        Err(Refusal::DiskFull),
    ]
}

pub(crate) fn store_versions() -> StoreVersions {
    let rule = ConflictRule::Siblings;
    StoreVersions { epoch: Epoch(7), key: data_key(), rule, versions: versions() }
}

pub(crate) fn store_replies() -> Vec<Result<Stored, Refusal>> {
    vec![
        Ok(Stored { lost_to: None, is_quarantined: false }),
        Ok(Stored {
            lost_to: Some(HybridTime::from_wall_ms(1_790_000_000_000)),
            is_quarantined: true,
        }),
    ]
}

pub(crate) fn mint_version() -> MintVersion {
    MintVersion {
        epoch: Epoch(7),
        key: data_key(),
        rule: ConflictRule::Lww,
        ruled_since: Epoch(3),
        context: context(),
        write_id: WriteId(3),
        later_than: Some(HybridTime::from_wall_ms(5)),
        trace_id: None,
        content: Content::Value(Value::new("tea").expect("short")),
    }
}

pub(crate) fn mint_replies() -> Vec<Result<Minted, Refusal>> {
    vec![Ok(Minted { versions: versions(), context: context() })]
}

pub(crate) fn relay_versions() -> RelayVersions {
    RelayVersions {
        store: store_versions(),
        others: vec![node("us-b-1"), node("us-c-1")],
        origin: node("eu-a-1"),
        ticket: WriteTicket { coordinator: 1, number: 99 },
        timeout_ms: 2_000,
    }
}

pub(crate) fn relayed_ack() -> RelayedAck {
    RelayedAck {
        ticket: WriteTicket { coordinator: 1, number: 99 },
        replica: node("us-b-1"),
        outcome: Err(RelayFailure::Refused(Refusal::NotOwner)),
    }
}

pub(crate) fn forward_write() -> ForwardWrite {
    ForwardWrite { epoch: Epoch(7), write: write() }
}

pub(crate) fn forward_replies() -> Vec<Result<Answer<Written>, Refusal>> {
    write_replies().into_iter().map(Ok).collect()
}

pub(crate) fn store_hint() -> StoreHint {
    StoreHint { owner: node("eu-b-1"), store: store_versions(), counts: true }
}

pub(crate) fn read_hints() -> ReadHints {
    ReadHints { epoch: Epoch(7), key: data_key(), want: Want::Full }
}

pub(crate) fn mint_hint() -> MintHint {
    MintHint { owner: node("eu-b-1"), mint: mint_version() }
}

pub(crate) fn request_credit() -> RequestCredit {
    RequestCredit { waiting_bytes: 1 << 20 }
}

pub(crate) fn credit() -> Credit {
    Credit { bytes: 65_536, retry_ms: 250 }
}

pub(crate) fn mark_for_repair() -> MarkForRepair {
    MarkForRepair { ranges: vec![(KeyspaceId(1), PartitionId(17))] }
}

pub(crate) fn check_hints() -> CheckHints {
    CheckHints { keys: vec![data_key()] }
}

fn range() -> HashRange {
    HashRange::of_partition(PartitionId(17), 256)
}

pub(crate) fn compare_roots() -> CompareRoots {
    let digest = EntryDigest(0x0123_4567_89ab_cdef);
    let sums = vec![RootSum { first: PartitionId(17), others: 0b1010_0000_0000_0001, digest }];
    CompareRoots { epoch: Epoch(7), keyspace: KeyspaceId(1), sums }
}

pub(crate) fn compare_ranges() -> CompareRanges {
    let children = std::array::from_fn::<_, CHILDREN, _>(|child| EntryDigest(child as u64));
    let (keyspace, partition) = (KeyspaceId(1), PartitionId(17));
    CompareRanges { epoch: Epoch(7), keyspace, partition, ranges: vec![(range(), children)] }
}

pub(crate) fn compare_keys() -> CompareKeys {
    CompareKeys {
        epoch: Epoch(7),
        keyspace: KeyspaceId(1),
        partition: PartitionId(17),
        range: range(),
        entries: vec![(data_key().hash, EntryDigest(5))],
        is_whole: true,
    }
}

pub(crate) fn keys_differ() -> KeysDiffer {
    let hash = data_key().hash;
    let held = vec![(key(), hash, VersionsDigest(9))];
    KeysDiffer { lacking: vec![hash], held, is_too_large: false }
}

pub(crate) fn purge_versions() -> PurgeVersions {
    PurgeVersions { epoch: Epoch(7), key: data_key(), digest: VersionsDigest(9) }
}

pub(crate) fn get() -> Get {
    Get { keyspace: keyspace(), key: key(), options: options() }
}

fn receipt() -> Receipt {
    let replica = |role, outcome| ReplicaReceipt {
        id: node("eu-a-1"),
        datacenter: datacenter(),
        rack: rack(),
        role,
        outcome,
        us: 731,
    };
    Receipt {
        epoch: Epoch(7),
        partition: PartitionId(17),
        coordinator: node("eu-b-1"),
        replicas: vec![
            replica(Role::Replica, ReplicaOutcome::Answered),
            replica(Role::Replica, ReplicaOutcome::Stale),
            replica(Role::Replica, ReplicaOutcome::Timeout),
            replica(Role::StandIn, ReplicaOutcome::Unreachable),
            replica(Role::StandIn, ReplicaOutcome::Refused),
        ],
    }
}

pub(crate) fn get_replies() -> Vec<Answer<Found>> {
    let time = HybridTime::from_wall_ms(1_790_000_000_000);
    let value = Content::Value(Value::new("tea").expect("short"));
    let found = Found {
        versions: vec![
            FoundVersion { content: value, time },
            FoundVersion { content: Content::Tombstone, time },
        ],
        context: ContextToken("AQ".into()),
    };
    vec![
        Answer { result: Ok(found), receipt: Some(receipt()) },
        Err(RequestError::NoSuchKeyspace(keyspace())).into(),
        Err(RequestError::Unavailable { required: 4, alive: 3 }).into(),
        Err(RequestError::Timeout { required: 4, received: 2 }).into(),
        Err(RequestError::Overloaded { retry_after_ms: 1_000 }).into(),
        Err(RequestError::BadConsistency("no".into())).into(),
        Err(RequestError::BadRequest("no".into())).into(),
    ]
}

pub(crate) fn write() -> Write {
    Write {
        keyspace: keyspace(),
        key: key(),
        content: Content::Value(Value::new("tea").expect("short")),
        context: Some(ContextToken("AQ".into())),
        write_id: WriteId(3),
        is_named: true,
        options: options(),
    }
}

pub(crate) fn write_replies() -> Vec<Answer<Written>> {
    vec![
        Ok(Written { context: ContextToken("AQ".into()) }).into(),
        Err(RequestError::BadContext("no".into())).into(),
        Err(RequestError::DiskFull { required: 4, alive: 3 }).into(),
    ]
}

pub(crate) fn locate_key() -> LocateKey {
    LocateKey { keyspace: keyspace(), key: key() }
}

pub(crate) fn locate_replies() -> Vec<Result<KeyLocation, RequestError>> {
    let replicas = vec![Place { id: node("eu-a-1"), datacenter: datacenter(), rack: rack() }];
    vec![Ok(KeyLocation { partition: PartitionId(17), replicas, fallbacks: vec![node("us-a-1")] })]
}

pub(crate) fn fetch_cluster() -> FetchCluster {
    FetchCluster { have: Epoch(6) }
}

pub(crate) fn fetch_replies() -> Vec<Option<ClusterState>> {
    vec![None, Some(cluster_state())]
}

pub(crate) fn describe_cluster() -> DescribeCluster {
    DescribeCluster {}
}

pub(crate) fn cluster_view() -> ClusterView {
    let seen = NodeView {
        id: node("eu-a-1"),
        datacenter: datacenter(),
        rack: rack(),
        quic: "10.0.0.5:7400".into(),
        http: "10.0.0.5:7480".into(),
        state: MemberState::Up,
        reachable: true,
        phi: 0.25,
        verdict: "heard of 0.2 s ago".into(),
        partitions: 128,
        version: "0.1.0".into(),
    };
    ClusterView {
        name: "demo".parse().expect("a good name"),
        epoch: Epoch(7),
        partitions: 256,
        not_ready: Some("joining".into()),
        nodes: vec![seen],
    }
}

pub(crate) fn alter_keyspace() -> AlterKeyspace {
    AlterKeyspace { name: keyspace(), change: KeyspaceChange::Set(keyspace_config()) }
}

pub(crate) fn alter_rings() -> Vec<(&'static str, AlterRing)> {
    let [old, new] = ["eu-a-5", "eu-a-7"].map(node);
    vec![
        ("alter-ring-leave", AlterRing { change: RingRequest::Leave(old.clone()) }),
        ("alter-ring-remove", AlterRing { change: RingRequest::Remove(old.clone()) }),
        (
            "alter-ring-weigh",
            AlterRing { change: RingRequest::Weigh { node: new.clone(), weight: 2.5 } },
        ),
        ("alter-ring-replace", AlterRing { change: RingRequest::Replace { old, new } }),
    ]
}

pub(crate) fn alter_replies() -> Vec<Result<Epoch, AlterError>> {
    vec![
        Ok(Epoch(8)),
        Err(AlterError::Invalid("no".into())),
        Err(AlterError::NoSuchKeyspace(keyspace())),
        Err(AlterError::Unavailable { required: 4, alive: 3 }),
        Err(AlterError::Timeout),
        Err(AlterError::UnderWay("eu-a-2 joining".into())),
    ]
}

pub(crate) fn describe_node() -> DescribeNode {
    DescribeNode {}
}

pub(crate) fn node_status() -> NodeStatus {
    NodeStatus {
        id: node("eu-a-1"),
        version: "0.1.0".into(),
        uptime_s: 60,
        epoch: Epoch(7),
        vnodes: 128,
        storage_bytes: 1 << 20,
        keys_estimate: 1_000,
        requests_in_flight: 3,
        requests_total: 12_345,
        queues: QueueStatus {
            vnodes: 5,
            longest: 2,
            commits: 3,
            commit_bytes: 4_096,
            commit_us: 800,
        },
        hints: BTreeMap::from([(
            node("eu-b-1"),
            HintStatus { count: 2, bytes: 2_048, oldest_s: 7 },
        )]),
        hints_delivered: 11,
        hints_dropped: 1,
        repair: RepairStatus {
            last_round_ms: Some(1_790_000_000_000),
            rounds: 4,
            partitions_held: 256,
            partitions_in_sync: 255,
            oldest_unverified_s: Some(61),
            units_running: 1,
            units_waiting: 2,
            keys_repaired: 30,
            keys_sent: 10,
            bytes_sent: 65_536,
            hashes_compared: 512,
            trees_scrubbed: 3,
            leaves_mended: 1,
            round_parts: (256, 255),
        },
        tombstones: TombstoneStatus {
            held: 9,
            purged: 100,
            waiting: BTreeMap::from([("eu-b-1 can't be reached".into(), 9)]),
        },
        quarantine: Some("away for 12 days".into()),
        read_only: Some("the disk is full".into()),
        transfers: Some(TransferStatus {
            change: Epoch(7),
            filling: 40,
            serving: 3,
            awaited: BTreeMap::from([(
                node("eu-b-1"),
                AwaitedStatus { trees: 80, obstacle: Some("it can't be reached".into()) },
            )]),
            keys: 1_200,
            bytes: 1 << 20,
            bytes_per_s: 65_536,
            left_s: Some(90),
        }),
    }
}

pub(crate) fn start_repair() -> StartRepair {
    StartRepair {}
}

pub(crate) fn repair_started() -> RepairStarted {
    RepairStarted { round: 5 }
}
