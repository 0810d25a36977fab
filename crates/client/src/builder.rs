//! Making a client: where the cluster is, as whom to talk to it, how patient to be.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anello_protocol::{
    consistency::{Consistency, QuorumKind},
    id::{BadName, ClusterName, Datacenter},
    message::client::DEFAULT_TIMEOUT_MS,
};
use anello_transport::{Identity, Peers, PeersConfig, TlsPem};

use crate::{
    client::Client,
    error::{Error, ErrorKind},
    fleet::Fleet,
    follow,
    profile::{Profile, TlsFiles},
    request::Options,
    resolve::Resolve,
    scope::Scope,
};

/// A client under construction. Mistakes show in [`connect`](Self::connect).
///
/// Seeds and certificates are needed, all else has a default.
#[must_use]
pub struct ClientBuilder {
    cluster: Option<Result<ClusterName, BadName>>,
    datacenter: Option<Result<Datacenter, BadName>>,
    seeds: Vec<String>,
    tls: Option<Tls>,
    connections: u16,
    connect_timeout: Duration,
    options: Options,
    resolver: Option<Arc<dyn Resolve>>,
}

enum Tls {
    Files(TlsFiles),
    Pem(TlsPem),
}

impl ClientBuilder {
    /// The most sets of connections.
    const MAX_CONNECTIONS: u16 = 256;

    pub(crate) fn new() -> Self {
        let attempt_timeout = Duration::from_millis(DEFAULT_TIMEOUT_MS.into());
        Self {
            cluster: None,
            datacenter: None,
            seeds: Vec::new(),
            tls: None,
            connections: 1,
            connect_timeout: Duration::from_secs(10),
            options: Options::new(Duration::from_secs(5), attempt_timeout),
            resolver: None,
        }
    }

    /// Takes the cluster's name, the seeds, the datacenter and the certificates from a profile.
    pub fn profile(mut self, profile: &Profile) -> Self {
        self.cluster = profile.cluster.clone().map(Ok);
        self.datacenter = profile.datacenter.clone().map(Ok);
        self.seeds = profile.seeds.clone();
        self.tls = Some(Tls::Files(profile.tls.clone()));
        self
    }

    /// QUIC addresses of nodes, `host:port`. One that answers is enough to learn the others; more are
    /// for when some are down. Given again, they replace the ones before.
    pub fn seeds<S: Into<String>>(mut self, seeds: impl IntoIterator<Item = S>) -> Self {
        self.seeds = seeds.into_iter().map(Into::into).collect();
        self
    }

    /// The datacenter that the client is in: its nodes are asked first. Without it all are equally
    /// near, and those that answer fastest are asked most.
    pub fn datacenter(mut self, name: &str) -> Self {
        self.datacenter = Some(Datacenter::new(name));
        self
    }

    /// The cluster's name. Nodes of another cluster are refused even if the same authority vouches for
    /// them; without it the authority decides alone.
    pub fn cluster(mut self, name: &str) -> Self {
        self.cluster = Some(ClusterName::new(name));
        self
    }

    /// The PEM files of the cluster's CA, of the client's certificate and of its private key.
    pub fn tls_files(
        mut self,
        ca: impl Into<PathBuf>,
        cert: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        let files = TlsFiles { ca: ca.into(), cert: cert.into(), key: key.into() };
        self.tls = Some(Tls::Files(files));
        self
    }

    /// The same, as PEM at hand.
    pub fn tls_pem(mut self, pem: TlsPem) -> Self {
        self.tls = Some(Tls::Pem(pem));
        self
    }

    /// How long an operation may take, retries and all. Default 5 s; at most an hour.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.set_timeout(timeout);
        self
    }

    /// How long one attempt at one node may take before another one is tried. Lower it, and a node
    /// that hangs costs less time and a slow one more retries. Default 2 s; at most a minute.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.options.set_attempt_timeout(timeout);
        self
    }

    /// How long [`connect`](Self::connect) may take. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.min(Duration::from_secs(3600));
        self
    }

    /// How many replicas must answer reads that don't say. Default: what the keyspace says.
    pub fn read_consistency(mut self, level: Consistency) -> Self {
        self.options.request.read = Some(level);
        self
    }

    /// How many replicas must acknowledge writes that don't say. Default: what the keyspace says.
    pub fn write_consistency(mut self, level: Consistency) -> Self {
        self.options.request.write = Some(level);
        self
    }

    /// Whether stand-ins count, where an operation doesn't say. Default: they do.
    pub fn quorum(mut self, kind: QuorumKind) -> Self {
        self.options.request.quorum = kind;
        self
    }

    /// What merges siblings in updates that bring nothing of their own. Default: nothing, and an
    /// update that meets siblings fails.
    pub fn resolver(mut self, resolver: impl Resolve + 'static) -> Self {
        self.resolver = Some(Arc::new(resolver));
        self
    }

    /// How many connections to each node, 1 to 256. Default 1, which is best for most. A client that
    /// alone keeps nodes busy needs as many as they have threads (`node.threads`): each connection is
    /// then driven by the thread that holds the keys asked for over it.
    pub fn connections(mut self, count: u16) -> Self {
        self.connections = count.clamp(1, Self::MAX_CONNECTIONS);
        self
    }

    /// Makes the client and learns the ring from the seeds; fails if none of them tells it within the
    /// [connect timeout](Self::connect_timeout).
    ///
    /// To be called on the tokio runtime that is to drive the connections; its timers and I/O must be
    /// enabled.
    pub async fn connect(self) -> Result<Client, Error> {
        let deadline = tokio::time::Instant::now() + self.connect_timeout;
        let client = self.connect_lazy()?;
        follow::learn(&client.scope.fleet, deadline).await?;
        follow::settle(&client.scope.fleet).await;
        Ok(client)
    }

    /// Makes the client and lets it learn the ring in the background: for a service that must start
    /// while the cluster is down. Until then operations go to the seeds.
    ///
    /// To be called on the tokio runtime that is to drive the connections.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn connect_lazy(self) -> Result<Client, Error> {
        if self.seeds.is_empty() {
            return Err(Error::invalid("seeds: at least one address is needed, \"host:port\""));
        }
        let cluster = self.cluster.transpose().map_err(Error::invalid)?;
        let datacenter = self.datacenter.transpose().map_err(Error::invalid)?;
        let identity = match self.tls {
            Some(Tls::Pem(pem)) => Identity::client(cluster, &pem),
            Some(Tls::Files(files)) => Identity::load_client(cluster, &files.into()),
            None => return Err(Error::invalid("TLS: a CA, a certificate and a key are needed")),
        };
        let identity = identity.map_err(Error::invalid)?;
        let peers = (0..self.connections).map(|worker| {
            // One connection goes where the node puts it; several are spread over its threads.
            let worker = (self.connections > 1).then_some(worker);
            Peers::new(identity.clone(), PeersConfig { worker, ..PeersConfig::default() })
        });
        let peers = peers.collect::<Result<Vec<_>, _>>().map_err(|error| {
            Error::clean(ErrorKind::Unreachable(format!("no UDP socket: {error}")))
        })?;
        let fleet = Arc::new(Fleet::new(peers, &self.seeds, datacenter, Instant::now()));
        tokio::spawn(follow::follow(Arc::downgrade(&fleet)));
        let options = Arc::new(self.options);
        let scope = Scope { fleet, options, resolver: self.resolver, pin: None };
        Ok(Client { scope })
    }
}

impl From<TlsFiles> for anello_transport::TlsFiles {
    fn from(TlsFiles { ca, cert, key }: TlsFiles) -> Self {
        Self { ca, cert, key }
    }
}
