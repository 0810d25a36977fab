//! Who takes the connections of one listening socket: dealt out in turn to the node's workers.
//!
//! One worker accepts, for the others too, and each connection stays for good with the worker that it
//! was dealt to. So workers get equal shares, whoever is quicker at accepting, and two processes can't
//! share a port by accident, as `SO_REUSEPORT` would let them.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::warn;

use crate::{budget::Budget, metrics::Counters};

/// How many connections wait for a worker before the accepting one serves the next itself.
const DEALT_MAX: usize = 64;
/// How long to wait when no connection can be accepted, because there are no file descriptors left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often the log says so, while it lasts.
const EXHAUSTED_LINE_EVERY: Duration = Duration::from_secs(10);

/// What all workers of a node together serve at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The connections. What comes beyond that waits in the socket's backlog.
    pub connections: usize,
    /// The memory that the bodies of all requests under way may take; the first 16 KiB of each are not
    /// counted. Beyond that, larger requests are refused.
    pub bodies_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 256 of the largest values.
        Self { connections: 16 << 10, bodies_bytes: 256 << 20 }
    }
}

/// What the workers of a node share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) counters: Counters,
    /// The memory of all requests' bodies.
    pub(crate) bodies: Arc<Budget>,
    places: Arc<Semaphore>,
    connections: AtomicUsize,
}

impl Shared {
    /// The connections that are open.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One worker's share of the connections that come to a socket.
#[derive(Debug)]
pub struct Acceptor {
    source: Source,
    address: SocketAddr,
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
enum Source {
    /// Accepts, and deals out.
    Socket { listener: TcpListener, others: Vec<mpsc::Sender<Connection>> },
    /// Is dealt to.
    Dealt(mpsc::Receiver<Connection>),
}

/// A connection and its place among those that a node has at most.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) place: Place,
}

/// A connection's place, free again once this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn take(shared: &Arc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Acceptor {
    /// One acceptor for each of so many workers (at least one).
    pub fn split(
        listener: TcpListener,
        workers: usize,
        limits: Limits,
    ) -> io::Result<Vec<Acceptor>> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            bodies: Arc::new(Budget::new(limits.bodies_bytes)),
            places: Arc::new(Semaphore::new(limits.connections)),
            connections: AtomicUsize::new(0),
        });
        let acceptor = |source| Acceptor { source, address, shared: Arc::clone(&shared) };
        let (others, dealt): (Vec<_>, Vec<_>) =
            (1..workers).map(|_| mpsc::channel(DEALT_MAX)).unzip();
        let first = acceptor(Source::Socket { listener, others });
        let rest = dealt.into_iter().map(|dealt| acceptor(Source::Dealt(dealt)));
        Ok(std::iter::once(first).chain(rest).collect())
    }

    /// The address of the socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to accept. Needs the runtime of the worker.
    pub(crate) fn start(self) -> io::Result<Intake> {
        let source = match self.source {
            Source::Socket { listener, others } => {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                Started::Socket { listener, others, turn: 0, logged: None }
            }
            Source::Dealt(dealt) => Started::Dealt(dealt),
        };
        Ok(Intake { source, shared: self.shared })
    }
}

/// An acceptor on its worker's runtime.
pub(crate) struct Intake {
    source: Started,
    shared: Arc<Shared>,
}

enum Started {
    Socket {
        listener: tokio::net::TcpListener,
        others: Vec<mpsc::Sender<Connection>>,
        turn: usize,
        /// When the log last said that no connection can be accepted.
        logged: Option<Instant>,
    },
    Dealt(mpsc::Receiver<Connection>),
}

impl Intake {
    /// The next connection of this worker; `None` when there will be none. May be cancelled.
    pub(crate) async fn next(&mut self) -> Option<Connection> {
        match &mut self.source {
            Started::Dealt(dealt) => dealt.recv().await,
            Started::Socket { listener, others, turn, logged } => loop {
                let places = Arc::clone(&self.shared.places);
                let place = places.acquire_owned().await.ok()?;
                let stream = match accept(listener).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        refused(&error, logged).await;
                        continue;
                    }
                };
                let connection = Connection { stream, place: Place::take(&self.shared, place) };
                *turn = (*turn + 1) % (others.len() + 1);
                match others.get(*turn) {
                    None => return Some(connection),
                    Some(other) => {
                        if let Err(error) = other.try_send(connection) {
                            return Some(error.into_inner());
                        }
                    }
                }
            },
        }
    }
}

async fn accept(listener: &tokio::net::TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    // Without this an answer in two segments waits for the client's delayed acknowledgement: 40 ms.
    stream.set_nodelay(true)?;
    stream.into_std()
}

async fn refused(error: &io::Error, logged: &mut Option<Instant>) {
    match error.kind() {
        // The client has gone while it waited.
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::NotConnected => {}
        _ => {
            if logged.is_none_or(|logged| logged.elapsed() >= EXHAUSTED_LINE_EVERY) {
                warn!(%error, "can't accept HTTP connections");
                *logged = Some(Instant::now());
            }
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_dealt_in_turn_without_delay_and_within_the_bound() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = Limits { connections: 3, ..Limits::default() };
        let mut acceptors = Acceptor::split(listener, 2, limits).unwrap();
        let (second, first) = (acceptors.pop().unwrap(), acceptors.pop().unwrap());
        let (address, shared) = (first.address(), Arc::clone(&first.shared));
        let (mut first, mut second) = (first.start().unwrap(), second.start().unwrap());
        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();

        let mine = first.next().await.unwrap();
        let mine_too = first.next().await.unwrap();
        let dealt = second.next().await.unwrap();
        for connection in [&mine, &mine_too, &dealt] {
            assert!(connection.stream.nodelay().unwrap());
        }
        assert_eq!(shared.connections(), 3);
        let waiting = tokio::time::timeout(Duration::from_millis(50), first.next()).await;
        assert!(waiting.is_err(), "there is no place for a fourth");
        drop(mine);
        // The fourth is the other worker's.
        let fourth = tokio::select! {
            _ = first.next() => None,
            dealt = second.next() => dealt,
        };
        assert!(fourth.is_some());
        drop(clients);
    }
}
