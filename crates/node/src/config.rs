//! What a node is told: the settings of its file and of the environment, checked, as types.
//!
//! File and environment -> [`raw`] (which keys exist) -> [`reader`] (what a key's value must be) ->
//! [`Config`]. Every problem is one line that names its place, the key and what was expected, and all
//! of them are found in one go. The certificates themselves are looked at by [`crate::daemon`].

mod kinds;
mod raw;
mod reader;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anello_protocol::{
    cluster::MAX_PARTITIONS,
    id::{ClusterName, Datacenter, NodeId, Rack},
};

pub use self::reader::Source;
use self::{kinds::Kind, raw::RawConfig, reader::Reader};

/// The most threads that carry out requests.
const MAX_THREADS: i64 = 256;
/// The longest that a hint is kept: a month.
const MAX_AGE_S: i64 = 30 * 24 * 3600;
/// The most that is kept for one node.
const MAX_BYTES: i64 = 1 << 40;

/// All that a node is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Who the node is.
    pub node: NodeConfig,
    /// Which cluster it belongs to.
    pub cluster: ClusterConfig,
    /// Where it listens.
    pub listen: Listen,
    /// What others are told of where it listens.
    pub advertise: Advertise,
    /// Its certificate between nodes.
    pub tls: Tls,
    /// The certificate of its HTTP API; without one it speaks plain HTTP.
    pub http_tls: Option<HttpTls>,
    /// When a write counts as kept.
    pub durability: Durability,
    /// How much it keeps for nodes that are away.
    pub hints: HintLimits,
    /// What it tells of itself.
    pub telemetry: Telemetry,
    /// Where the settings stand, for messages about them.
    pub source: Source,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// Its name, unique in the cluster.
    pub id: NodeId,
    /// Its datacenter.
    pub datacenter: Datacenter,
    /// Its rack there.
    pub rack: Rack,
    /// Its share of the ring relative to the datacenter's other nodes.
    pub weight: f64,
    /// Where it keeps its data, relative to the working directory.
    pub data_dir: PathBuf,
    /// How many threads carry out requests. By default one a core; fewer leave cores to others, more
    /// cost switches between them.
    pub threads: Option<usize>,
}

/// Which cluster a node belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// Its name.
    pub name: ClusterName,
    /// Peers' QUIC addresses, the same list on every node. A node without seeds founds a cluster of
    /// its own.
    pub seeds: Vec<String>,
    /// Into how many partitions the hash space is cut.
    pub partitions: u32,
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// For nodes and clients, over UDP.
    pub quic: SocketAddr,
    /// For the HTTP API.
    pub http: SocketAddr,
}

/// What others are told of where a node listens, where it differs from what is bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advertise {
    /// For nodes and clients, `host:port`.
    pub quic: Option<String>,
    /// For the HTTP API, `host:port`.
    pub http: Option<String>,
}

/// The files of a node's certificate between nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The certificate of the cluster's CA.
    pub ca: PathBuf,
    /// The node's certificate, whose name is the node's id.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The files of the HTTP API's certificate.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpTls {
    /// The certificate, with those that lead to its CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// When a write counts as kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on disk: it survives the loss of power.
    #[default]
    Sync,
    /// Once it is in the page cache: it survives the end of the process, not of the machine.
    Os,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Durability::Sync => "sync",
            Durability::Os => "os",
        })
    }
}

/// How much a node keeps for others that are away. What is past it is left to anti-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintLimits {
    /// For how long, in seconds; 3 hours by default. Longer costs disk.
    pub age_max_s: u32,
    /// How many bytes for each of them; 256 MiB by default. More costs that much disk.
    pub bytes_max: u64,
}

impl Default for HintLimits {
    fn default() -> Self {
        Self { age_max_s: 3 * 3600, bytes_max: 256 << 20 }
    }
}

/// What a node tells of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// Where traces are sent.
    pub otlp_endpoint: Option<String>,
    /// The share of requests that are traced, 0 to 1.
    pub sample_ratio: f64,
    /// Which log lines are written: a level, or directives such as `info,anello_gossip=debug`.
    pub log: String,
    /// How they are written.
    pub log_format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs, an object a line.
    Json,
}

/// Something wrong with the settings, as one line: where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file and the key, or the environment variable.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong with the settings, each a line; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter();
        lines.next().map_or(Ok(()), |first| first.fmt(f))?;
        lines.try_for_each(|line| write!(f, "\n{line}"))
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the settings of a file, if there is one, and of the environment, which wins.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let (raw, mut reader) = Reader::read(file, environment);
        let config = Self::from_raw(raw, &mut reader);
        match config {
            Some(config) if reader.problems.is_empty() => Ok(config),
            _ => Err(ConfigError(reader.problems)),
        }
    }

    /// The settings of a node that founds a cluster of its own, at ports that the system chooses: for tests
    /// and examples in one process.
    pub fn alone(id: NodeId, data_dir: PathBuf, tls: Tls) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            node: NodeConfig {
                id,
                datacenter: Datacenter::new("local").expect("follows the grammar"),
                rack: Rack::new("local").expect("follows the grammar"),
                weight: 1.0,
                data_dir,
                threads: Some(1),
            },
            cluster: ClusterConfig {
                name: ClusterName::new("local").expect("follows the grammar"),
                seeds: Vec::new(),
                partitions: 16,
            },
            listen: Listen { quic: any, http: any },
            advertise: Advertise::default(),
            tls,
            http_tls: None,
            durability: Durability::Sync,
            hints: HintLimits::default(),
            telemetry: Telemetry {
                otlp_endpoint: None,
                sample_ratio: 1.0,
                log: "info".into(),
                log_format: LogFormat::Text,
            },
            source: Source::default(),
        }
    }

    /// Makes types of what was written; nothing if something that there must be isn't there.
    fn from_raw(raw: RawConfig, from: &mut Reader) -> Option<Self> {
        let (node, cluster, listen) = (raw.node, raw.cluster, raw.listen);
        let id = from.required("node.id", node.id, Kind::node());
        let datacenter = from.required("node.datacenter", node.datacenter, Kind::datacenter());
        let rack = from.required("node.rack", node.rack, Kind::rack());
        let weight = from.or("node.weight", node.weight, Kind::weight(), 1.0);
        let data_dir = from.required("node.data_dir", node.data_dir, Kind::path("a directory"));
        let threads = from.optional("node.threads", node.threads, Kind::count(MAX_THREADS));

        let name = from.required("cluster.name", cluster.name, Kind::cluster());
        let seeds = from.required("cluster.seeds", cluster.seeds, Kind::addresses());
        let partitions = from.or(
            "cluster.partitions",
            cluster.partitions,
            Kind::power(MAX_PARTITIONS.into()),
            256,
        );

        let default = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let quic = from.or("listen.quic", listen.quic, Kind::socket(), default(7400));
        let http = from.or("listen.http", listen.http, Kind::socket(), default(7480));
        let advertise = Advertise {
            quic: from.optional("advertise.quic", raw.advertise.quic, Kind::reachable_address()),
            http: from.optional("advertise.http", raw.advertise.http, Kind::reachable_address()),
        };
        from.reachable("quic", quic, advertise.quic.as_deref());
        from.reachable("http", http, advertise.http.as_deref());

        let ca = from.required("tls.ca", raw.tls.ca, Kind::path("the file of the cluster's CA"));
        let cert = from.required("tls.cert", raw.tls.cert, Kind::path("a certificate's file"));
        let key = from.required("tls.key", raw.tls.key, Kind::path("a private key's file"));
        let http_tls = raw.http_tls.map(|tls| {
            let cert = from.required("http.tls.cert", tls.cert, Kind::path("a certificate's file"));
            let key = from.required("http.tls.key", tls.key, Kind::path("a private key's file"));
            (cert, key)
        });

        let durability = from.or(
            "storage.durability",
            raw.storage.durability,
            Kind::durability(),
            Durability::Sync,
        );
        let limits = HintLimits::default();
        let hints = HintLimits {
            age_max_s: from.or(
                "hints.age_max_s",
                raw.hints.age_max_s,
                Kind::count(MAX_AGE_S),
                limits.age_max_s,
            ),
            bytes_max: from.or(
                "hints.bytes_max",
                raw.hints.bytes_max,
                Kind::amount(MAX_BYTES),
                limits.bytes_max,
            ),
        };
        let telemetry = raw.telemetry;
        let telemetry = Telemetry {
            otlp_endpoint: from.optional(
                "telemetry.otlp_endpoint",
                telemetry.otlp_endpoint,
                Kind::url(),
            ),
            sample_ratio: from.or(
                "telemetry.sample_ratio",
                telemetry.sample_ratio,
                Kind::ratio(),
                1.0,
            ),
            log: from.or("telemetry.log", telemetry.log, Kind::log(), "info".into()),
            log_format: from.or(
                "telemetry.log_format",
                telemetry.log_format,
                Kind::log_format(),
                LogFormat::Text,
            ),
        };
        Some(Self {
            node: NodeConfig {
                id: id?,
                datacenter: datacenter?,
                rack: rack?,
                weight,
                data_dir: data_dir?,
                threads: threads.map(|threads| threads as usize),
            },
            cluster: ClusterConfig { name: name?, seeds: seeds?, partitions },
            listen: Listen { quic, http },
            advertise,
            tls: Tls { ca: ca?, cert: cert?, key: key? },
            http_tls: match http_tls {
                Some((cert, key)) => Some(HttpTls { cert: cert?, key: key? }),
                None => None,
            },
            durability,
            hints,
            telemetry,
            source: from.source.clone(),
        })
    }
}
