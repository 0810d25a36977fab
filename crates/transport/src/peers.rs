//! The connections that one thread has opened to other nodes.

use std::{
    collections::HashMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anello_protocol::{id::NodeId, message::Message};
use tokio::{runtime::Handle, task::JoinSet};

use crate::{
    CallContext, CallError, CallFuture, Identity, PeersConfig, dial::Dialler, peer::Peer,
    slot::Complete, visits::Visits,
};

/// How long closing waits for the others to have heard of it.
const GOODBYE: Duration = Duration::from_millis(250);

/// Connections to other nodes, by node. Cheap to clone, and usable from every thread, but cheapest on
/// the one whose runtime it was made on: that one drives the connections.
///
/// A peer whose address is known is connected to at once, and again by itself whenever the connection is
/// lost, after waits that double up to a bound, with jitter. Calls that are made during the first attempt
/// wait for it. After that, a call to a peer that is not connected fails at once.
#[derive(Clone)]
pub struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    dialler: Arc<Dialler>,
    config: Arc<PeersConfig>,
    runtime: Handle,
    visits: Visits,
    peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
    /// What drives the peers; dropped with the last clone.
    tasks: Mutex<JoinSet<()>>,
    closed: AtomicBool,
}

impl Peers {
    /// No peers yet, and a UDP socket of their own. To be called on the runtime that is to drive them;
    /// one with a single thread is best.
    ///
    /// # Panics
    ///
    /// If it is not called on a tokio runtime.
    pub fn new(identity: Identity, config: PeersConfig) -> io::Result<Self> {
        let runtime = Handle::current();
        let dialler = Dialler::new(&identity, &config)?;
        let visits = Visits::new(dialler.clone(), runtime.clone(), config.link.clone());
        Ok(Self {
            inner: Arc::new(Inner {
                dialler,
                config: Arc::new(config),
                runtime,
                visits,
                peers: Mutex::default(),
                tasks: Mutex::default(),
                closed: AtomicBool::new(false),
            }),
        })
    }

    /// Says where a node is, as `host:port`, and begins to connect to it. A node that was known under
    /// another address is connected to anew.
    pub fn know(&self, node: &NodeId, address: &str) {
        if !self.inner.closed.load(Ordering::Relaxed) {
            self.inner.peer(node).locate(Some(address));
        }
    }

    /// Gives a node up: its connection is closed, calls to it are unreachable.
    pub fn forget(&self, node: &NodeId) {
        if let Some(peer) = self.inner.peers().get(node) {
            peer.locate(None);
        }
    }

    /// Whether there is a connection to a node at the moment.
    pub fn is_connected(&self, node: &NodeId) -> bool {
        self.inner.peers().get(node).is_some_and(|peer| peer.is_connected())
    }

    /// Why there is no connection to a node, in words, after an attempt has failed.
    pub fn trouble(&self, node: &NodeId) -> Option<String> {
        self.inner.peers().get(node).and_then(|peer| peer.trouble())
    }

    /// Sends a message to a node. [`ActorRef::peer`](crate::ActorRef::peer) does without looking the
    /// node up every time.
    pub fn call<M: Message>(
        &self,
        node: &NodeId,
        message: M,
        context: CallContext,
    ) -> CallFuture<M::Reply> {
        match self.inner.peers().get(node) {
            Some(peer) => peer.link.call(&message, &context),
            None => CallFuture::failed(CallError::Unreachable),
        }
    }

    /// Sends a message to whichever node of the cluster answers at `host:port`, over a connection that
    /// is made for it unless there is one, and kept while it is used. Says which node it was.
    ///
    /// A node of another cluster or authority is [`CallError::Refused`].
    pub async fn call_address<M: Message>(
        &self,
        address: &str,
        message: M,
        context: CallContext,
    ) -> Result<(NodeId, M::Reply), CallError> {
        if self.inner.closed.load(Ordering::Relaxed) {
            return Err(CallError::Unreachable);
        }
        self.inner.visits.call(address, &message, &context).await
    }

    /// Closes all connections for good, so that the peers notice at once; calls in flight are
    /// [`CallError::Closed`], later ones [`CallError::Unreachable`].
    pub async fn close(&self) {
        self.inner.closed.store(true, Ordering::Relaxed);
        for peer in self.inner.peers().values() {
            peer.locate(None);
        }
        self.inner.visits.close();
        self.inner.dialler.close(GOODBYE).await;
    }

    /// The peer of that name, of which nothing need be known.
    pub(crate) fn refer(&self, node: &NodeId) -> PeerRef {
        PeerRef { peer: self.inner.peer(node), _peers: self.clone() }
    }
}

impl Inner {
    fn peers(&self) -> MutexGuard<'_, HashMap<NodeId, Arc<Peer>>> {
        // Nothing panics while it is locked.
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn peer(&self, node: &NodeId) -> Arc<Peer> {
        let mut peers = self.peers();
        if let Some(peer) = peers.get(node) {
            return peer.clone();
        }
        let peer = Peer::new(node.clone(), &self.config);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let drive = peer.clone().drive(self.dialler.clone(), self.config.clone());
        tasks.spawn_on(drive, &self.runtime);
        tasks.spawn_on(peer.link.clone().watch_deadlines(), &self.runtime);
        peers.insert(node.clone(), peer.clone());
        peer
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.inner.peers().keys()).finish()
    }
}

/// One peer, whose connection lives for as long as somebody refers to it.
#[derive(Clone)]
pub(crate) struct PeerRef {
    peer: Arc<Peer>,
    _peers: Peers,
}

impl PeerRef {
    pub(crate) fn node(&self) -> &NodeId {
        &self.peer.node
    }

    pub(crate) fn call<M: Message>(
        &self,
        message: &M,
        context: &CallContext,
    ) -> CallFuture<M::Reply> {
        self.peer.link.call(message, context)
    }

    pub(crate) fn send<M: Message>(
        &self,
        message: &M,
        context: &CallContext,
        outcome: Arc<dyn Complete>,
    ) -> Result<(), CallError> {
        self.peer.link.send(message, context, outcome)
    }
}
