//! The port at which others connect: who is let in, and which worker drives the connection.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quinn::{
    Connection, Endpoint, Incoming, RecvStream, SendStream, crypto::rustls::HandshakeData,
};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use crate::{
    Caller, Identity, ListenerConfig, Router,
    close::Close,
    dial::{certified_name, read_hello},
    hello::Hello,
    identity::Name,
    quic,
    refusals::Refusals,
    serving::Serving,
    tls::{CLIENT_ALPN, PEER_ALPN},
};

/// Handshakes that may wait to be looked at; more are not answered.
const HANDSHAKES_WAITING_MAX: usize = 1_024;
/// With more handshakes than this under way, a dialler first shows that its address is its own.
const HANDSHAKES_UNPROVED_MAX: usize = 64;
/// How long a handshake and the hellos may take together.
const GREETING: Duration = Duration::from_secs(5);
/// How long closing waits for the others to have heard of it.
const GOODBYE: Duration = Duration::from_millis(250);

/// A runtime that drives accepted connections, and what it answers. With one worker a thread, each with
/// a router to its own actors, a call is handled on the thread that its packet arrived on.
#[derive(Clone, Debug)]
pub struct Worker {
    /// The runtime.
    pub runtime: Handle,
    /// What is answered there.
    pub router: Router,
}

/// A UDP port at which nodes and clients connect.
///
/// Each accepted connection is driven by the worker that its dialler asks for
/// ([`PeersConfig::worker`](crate::PeersConfig::worker)), or else by the one that drives the fewest.
/// Dropping the listener closes all of them at once; [`Listener::close`] does so gently.
#[derive(Debug)]
pub struct Listener {
    endpoint: Endpoint,
    address: SocketAddr,
    closing: watch::Sender<Option<Duration>>,
    accepting: JoinHandle<()>,
}

/// What all accepted connections share.
struct Door {
    hello: Hello,
    config: ListenerConfig,
    workers: Vec<(Worker, AtomicUsize)>,
    /// Connections under way, from their first packet on.
    connections: AtomicUsize,
    /// Of them, those that have not said hello yet.
    handshakes: AtomicUsize,
    /// Connections by the name in their certificate.
    callers: Mutex<HashMap<String, usize>>,
    closing: watch::Receiver<Option<Duration>>,
    refusals: Refusals,
}

impl Listener {
    /// Listens at an address. To be called on the runtime that is to drive the socket; each accepted
    /// connection is driven by one of the workers.
    ///
    /// # Panics
    ///
    /// If there are no workers, or if it is not called on a tokio runtime: mistakes in the wiring.
    pub fn bind(
        address: SocketAddr,
        identity: Identity,
        workers: Vec<Worker>,
        config: ListenerConfig,
    ) -> io::Result<Self> {
        assert!(!workers.is_empty(), "a listener needs a worker");
        if !matches!(identity.name(), Name::Node(_)) {
            let error = "only a node can listen, and this is a client's certificate";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        let endpoint =
            quic::listening_endpoint(address, &identity, &config.link, HANDSHAKES_WAITING_MAX)?;
        let address = endpoint.local_addr()?;
        let (closing, closed) = watch::channel(None);
        let door = Arc::new(Door {
            hello: Hello::of(&identity),
            config,
            workers: workers.into_iter().map(|worker| (worker, AtomicUsize::new(0))).collect(),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            callers: Mutex::default(),
            closing: closed,
            refusals: Refusals::default(),
        });
        let accepting = tokio::spawn(door.accept_all(endpoint.clone()));
        Ok(Self { endpoint, address, closing, accepting })
    }

    /// The address that is listened at, with the port that was found for port 0.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: new calls are refused as `Busy`, those under way have `grace` to end, then every
    /// connection is closed, so that the others notice at once.
    pub async fn close(self, grace: Duration) {
        self.accepting.abort();
        self.closing.send_replace(Some(grace));
        // Each connection takes its time and no more than its time.
        self.closing.closed().await;
        self.endpoint.close(Close::ShuttingDown.code(), b"shutting down");
        // They notice by their idle timeout otherwise.
        let _ = tokio::time::timeout(GOODBYE, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        self.endpoint.close(Close::ShuttingDown.code(), b"shutting down");
    }
}

impl Door {
    async fn accept_all(self: Arc<Self>, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            if self.connections.load(Ordering::Relaxed) >= self.config.connections_max {
                self.refusals.warn(incoming.remote_address(), "too many connections");
                incoming.refuse();
                continue;
            }
            if self.handshakes.load(Ordering::Relaxed) >= HANDSHAKES_UNPROVED_MAX
                && !incoming.remote_address_validated()
                && incoming.may_retry()
            {
                // An error means that it may not be asked to after all; the next packet asks again.
                let _ = incoming.retry();
                continue;
            }
            let worker = self.pick(&incoming);
            let counted = Counted::new(&self, worker);
            let (runtime, door) = (self.workers[worker].0.runtime.clone(), self.clone());
            runtime.spawn(door.admit(incoming, counted));
        }
    }

    fn pick(&self, incoming: &Incoming) -> usize {
        if let Some(worker) = quic::hinted_worker(&incoming.orig_dst_cid()) {
            return usize::from(worker) % self.workers.len();
        }
        let connections = self.workers.iter().map(|(_, count)| count.load(Ordering::Relaxed));
        connections.enumerate().min_by_key(|(_, count)| *count).map_or(0, |(worker, _)| worker)
    }

    /// Takes a connection in, on the worker that drives it, and answers its calls.
    async fn admit(self: Arc<Self>, incoming: Incoming, mut counted: Counted) {
        let peer = incoming.remote_address();
        let mut closing = self.closing.clone();
        let greeting = async {
            let connection = async { incoming.accept()?.await };
            let connection = connection.await.map_err(|error| error.to_string())?;
            match self.greet(&connection).await {
                Ok((name, control)) => Ok((connection, name, control)),
                Err(why) => {
                    Close::Refused.close(&connection, &why);
                    Err(why)
                }
            }
        };
        let greeted = tokio::select! {
            greeted = tokio::time::timeout(GREETING, greeting) => greeted,
            _ = closing.wait_for(Option::is_some) => return,
        };
        let (connection, name, control) = match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(why)) => return self.refusals.warn(peer, &why),
            Err(_) => return self.refusals.warn(peer, "no hello in time"),
        };
        counted.greeted();
        let Some(_place) = Place::take(&self, &name) else {
            Close::Overloaded.close(&connection, "too many connections of that name");
            return self.refusals.warn(peer, &format!("too many connections of {name}"));
        };
        tracing::debug!(%peer, %name, "connected");
        let caller = match name {
            Name::Node(node) => Caller::Node(node),
            Name::Client(client) => Caller::Client(client),
        };
        let router = self.workers[counted.worker].0.router.clone();
        let serving = Serving::new(caller, router, &self.config.link);
        let closing = async {
            // Without its sender the listener was dropped, and there is no time left.
            let grace = closing.wait_for(Option::is_some).await;
            grace.map_or(Duration::ZERO, |grace| grace.unwrap_or_default())
        };
        serving.run(&connection, control, closing).await;
        Close::ShuttingDown.close(&connection, "shutting down");
        tracing::debug!(%peer, "disconnected");
    }

    /// Finds out who a connection is from, and says who one is.
    async fn greet(
        &self,
        connection: &Connection,
    ) -> Result<(Name, (SendStream, RecvStream)), String> {
        let name = certified_name(connection)?;
        let protocol = connection
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| data.protocol)
            .unwrap_or_default();
        let fits = match name {
            Name::Node(_) => protocol == PEER_ALPN,
            Name::Client(_) => protocol == CLIENT_ALPN,
        };
        if !fits {
            let protocol = String::from_utf8_lossy(&protocol);
            return Err(format!("a certificate for {name} does not go with {protocol}"));
        }
        let lost = |error: quinn::ConnectionError| error.to_string();
        let (mut out, mut calls) = connection.accept_bi().await.map_err(lost)?;
        let theirs = read_hello(&mut calls).await.map_err(|error| error.to_string())?;
        theirs.check(&self.hello, &name).map_err(|error| error.to_string())?;
        out.write_all(&self.hello.encode()).await.map_err(|error| error.to_string())?;
        Ok((name, (out, calls)))
    }
}

/// A connection's part in the counts, for as long as it lasts.
struct Counted {
    door: Arc<Door>,
    worker: usize,
    greeted: bool,
}

impl Counted {
    fn new(door: &Arc<Door>, worker: usize) -> Self {
        door.connections.fetch_add(1, Ordering::Relaxed);
        door.handshakes.fetch_add(1, Ordering::Relaxed);
        door.workers[worker].1.fetch_add(1, Ordering::Relaxed);
        Self { door: door.clone(), worker, greeted: false }
    }

    fn greeted(&mut self) {
        self.door.handshakes.fetch_sub(1, Ordering::Relaxed);
        self.greeted = true;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.greeted {
            self.door.handshakes.fetch_sub(1, Ordering::Relaxed);
        }
        self.door.connections.fetch_sub(1, Ordering::Relaxed);
        self.door.workers[self.worker].1.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of the connections that a name may have.
struct Place {
    door: Arc<Door>,
    name: String,
}

impl Place {
    fn take(door: &Arc<Door>, name: &Name) -> Option<Self> {
        let name = name.to_string();
        let mut callers = door.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = callers.entry(name.clone()).or_default();
        if *count >= door.config.connections_per_caller_max {
            return None;
        }
        *count += 1;
        Some(Self { door: door.clone(), name })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.door.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = callers.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                callers.remove(&self.name);
            }
        }
    }
}
