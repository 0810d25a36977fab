//! The client against real nodes of two datacenters in this process, of which one goes and comes back.

#![allow(clippy::unwrap_used, reason = "a fleet that can't be set up fails its test")]

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anello_client::{
    Bytes, Client, Consistency, Error, ErrorKind, Keyspace, Profile, QuorumKind, Read, TlsFiles,
};
use anello_node::{Node, config::Config};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

const IDS: [&str; 4] = ["eu-a-1", "eu-b-1", "eu-c-1", "us-a-1"];

struct Fleet {
    folder: TempDir,
    seeds: Vec<String>,
    nodes: BTreeMap<&'static str, Node>,
}

impl Fleet {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certify(folder.path());
        // Ports that were free a moment ago: the seeds must be known before the nodes start.
        let sockets: Vec<_> = IDS.iter().map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let seeds = sockets.iter().map(|socket| socket.local_addr().unwrap().to_string()).collect();
        drop(sockets);
        let mut fleet = Self { folder, seeds, nodes: BTreeMap::new() };
        for id in IDS {
            fleet.start_node(id);
        }
        for node in fleet.nodes.values() {
            assert!(node.wait_ready(Duration::from_secs(60)), "{node:?} is not ready");
        }
        fleet
    }

    fn start_node(&mut self, id: &'static str) {
        let at = IDS.iter().position(|other| *other == id).unwrap();
        let [datacenter, rack, _] = id.splitn(3, '-').collect::<Vec<_>>()[..] else {
            panic!("{id}")
        };
        let settings = [
            ("NODE__ID", id.to_owned()),
            ("NODE__DATACENTER", datacenter.to_owned()),
            ("NODE__RACK", rack.to_owned()),
            ("NODE__DATA_DIR", self.file(id)),
            ("NODE__THREADS", "1".to_owned()),
            ("CLUSTER__NAME", "demo".to_owned()),
            ("CLUSTER__SEEDS", self.seeds.join(",")),
            ("CLUSTER__PARTITIONS", "16".to_owned()),
            ("LISTEN__QUIC", self.seeds[at].clone()),
            ("LISTEN__HTTP", "127.0.0.1:0".to_owned()),
            ("TLS__CA", self.file("ca.pem")),
            ("TLS__CERT", self.file(&format!("{id}.pem"))),
            ("TLS__KEY", self.file(&format!("{id}.key"))),
        ];
        let settings =
            settings.map(|(name, value)| (format!("ANELLO_{name}").into(), value.into()));
        let config = Config::load(None, settings).unwrap();
        self.nodes.insert(id, Node::start(config).unwrap());
    }

    fn stop_node(&mut self, id: &'static str) {
        self.nodes.remove(id).unwrap().stop();
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    async fn client(&self, datacenter: &str) -> Client {
        let file = |name| PathBuf::from(self.file(name));
        let profile = Profile {
            cluster: None,
            seeds: self.seeds.clone(),
            datacenter: Some(datacenter.parse().unwrap()),
            tls: TlsFiles { ca: file("ca.pem"), cert: file("client.pem"), key: file("client.key") },
        };
        Client::from_profile(&profile).await.unwrap()
    }
}

fn certify(folder: &Path) {
    let write = |name: &str, pem: String| fs::write(folder.join(name), pem).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.pem", ca.self_signed(&ca_key).unwrap().pem());
    let issuer = Issuer::new(ca, ca_key);
    let nodes = IDS.map(|id| (id, id));
    for (file, name) in nodes.into_iter().chain([("client", "client.test")]) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        write(&format!("{file}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{file}.key"), key.serialize_pem());
    }
}

/// Counts by writer, a line for each; siblings merge to the greatest of each.
fn counts(bytes: &[u8]) -> BTreeMap<String, u64> {
    let text = std::str::from_utf8(bytes).unwrap();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    lines.map(|(writer, count)| (writer.to_owned(), count.parse().unwrap())).collect()
}

fn text(counts: &BTreeMap<String, u64>) -> Bytes {
    counts.iter().map(|(writer, count)| format!("{writer} {count}\n")).collect::<String>().into()
}

fn greatest(siblings: Vec<Bytes>) -> Bytes {
    let mut merged = BTreeMap::new();
    for (writer, count) in siblings.iter().flat_map(|sibling| counts(sibling)) {
        let ours = merged.entry(writer).or_default();
        *ours = count.max(*ours);
    }
    text(&merged)
}

/// Counts one up under a name that nobody else uses; whether it is known to be kept.
async fn count_up(keyspace: &Keyspace, writer: String) -> bool {
    let update = keyspace.update("counter", move |old| {
        let mut counts = old.map(|bytes| counts(&bytes)).unwrap_or_default();
        *counts.entry(writer).or_default() += 1;
        text(&counts)
    });
    let update = update.quorum(QuorumKind::Strict).timeout(Duration::from_secs(20));
    update
        .read_consistency(Consistency::Quorum)
        .write_consistency(Consistency::Quorum)
        .await
        .is_ok()
}

#[tokio::test]
async fn no_count_is_lost_while_a_node_goes_and_comes_back() {
    let mut fleet = Fleet::start();
    let (eu, us) = (fleet.client("eu").await, fleet.client("us").await);
    static KEPT: AtomicU64 = AtomicU64::new(0);
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let client = if writer % 2 == 0 { &eu } else { &us };
            let keyspace = client.keyspace("default").resolver(greatest);
            tokio::spawn(async move {
                let mut kept = 0;
                for _ in 0..30 {
                    if count_up(&keyspace, format!("writer-{writer}")).await {
                        kept += 1;
                        KEPT.fetch_add(1, Ordering::Relaxed);
                    }
                }
                kept
            })
        })
        .collect();
    let passed = async |count| {
        let passed = async {
            while KEPT.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), passed).await.expect("the count goes on");
    };
    passed(30).await;
    fleet.stop_node("eu-b-1");
    passed(70).await;
    fleet.start_node("eu-b-1");
    let mut kept = Vec::new();
    for writer in writers {
        kept.push(writer.await.unwrap());
    }
    assert!(
        kept.iter().all(|kept| *kept > 20),
        "a node that is away fails next to nothing: {kept:?}"
    );
    let all = us.keyspace("default").resolver(greatest).update("counter", |old| old).await.unwrap();
    let all = counts(&all.value.unwrap());
    for (writer, kept) in kept.iter().enumerate() {
        let counted = all[&format!("writer-{writer}")];
        assert!((*kept..=30).contains(&counted), "writer {writer}: {kept} kept, {counted} counted");
    }
}

#[tokio::test]
async fn two_writers_race_and_an_update_settles_it_everywhere() {
    let fleet = Fleet::start();
    let (eu, us) = (fleet.client("eu").await, fleet.client("us").await);
    let (one, two) = tokio::join!(eu.put("k", "from eu"), us.put("k", "from us"));
    one.unwrap();
    two.unwrap();
    for client in [&eu, &us] {
        let Read::Siblings { siblings, .. } = client.get("k").await.unwrap() else { panic!("two") };
        assert_eq!(siblings.len(), 2);
    }
    let join = |mut values: Vec<Bytes>| {
        values.sort();
        Bytes::from(values.join(&b" and "[..]))
    };
    let settled = us.keyspace("default").resolver(join).update("k", |merged| merged);
    assert_eq!(settled.await.unwrap().value, Some("from eu and from us".into()));
    for client in [&eu, &us] {
        let Read::One { value, .. } = client.get("k").await.unwrap() else { panic!("one") };
        assert_eq!(value, "from eu and from us");
    }
}

/// The rows of the HTTP API's table of errors, over QUIC; overload and timeouts are in `trouble.rs`.
#[tokio::test]
async fn every_error_says_what_it_is() {
    let mut fleet = Fleet::start();
    let client = fleet.client("eu").await;
    let context = client.put("k", "v").await.unwrap();
    let is_invalid = |error: Error| {
        let invalid = matches!(error.kind(), ErrorKind::Invalid(_));
        assert!(invalid && !error.may_have_happened() && !error.is_retryable(), "{error}");
    };
    is_invalid(client.put(vec![b'k'; 1025], "v").await.unwrap_err());
    is_invalid(client.put("", "v").await.unwrap_err());
    is_invalid(client.put("k", vec![0; (1 << 20) + 1]).await.unwrap_err());
    is_invalid(client.put("another", "v").context(context.clone()).await.unwrap_err());
    is_invalid(client.put("k", "v").consistency(Consistency::Count(5)).await.unwrap_err());
    is_invalid(client.get("k").consistency(Consistency::EachQuorum).await.unwrap_err());
    is_invalid(client.put("k", "v").idempotency_key("").await.unwrap_err());
    let error = client.keyspace("nobody").put("k", "v").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NoSuchKeyspace(_)), "{error}");
    assert!(matches!(client.get("never").await.unwrap(), Read::Missing));

    fleet.stop_node("us-a-1");
    let all = client.put("k", "w").context(context).consistency(Consistency::All);
    let error = all.timeout(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable { required: 4, alive: 3 });
    assert!(error.is_retryable() && !error.may_have_happened());
    let Read::One { value, .. } = client.get("k").await.unwrap() else { panic!("one value") };
    assert_eq!(value, "v", "nothing was written");
}
