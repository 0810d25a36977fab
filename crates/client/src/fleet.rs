//! The nodes as one client has them: connections, the view of the ring, each node's health, the retry
//! budget. Shared by all clones of a client.
//!
//! Locks are held for moments and never across an await. No decision is taken here: [`crate::routing`],
//! [`crate::health`] and [`crate::retry`] decide, this is where their state lives.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Instant,
};

use anello_protocol::{
    cluster::ClusterState,
    id::{Datacenter, Epoch, KeyspaceName, PartitionId},
    key::Key,
    message::Message,
};
use anello_ring::RingError;
use anello_transport::{CallContext, CallError, Peers};
use tokio::sync::Notify;

use crate::{
    health::{Ended, HealthBook},
    retry::{Attempts, Failure, RetryBudget, Verdict},
    ring_view::RingView,
    routing::{self, Candidates, Choice, Prospects, Target},
};

/// What an operation is about: decides whom to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// A key.
    Key(&'a KeyspaceName, &'a Key),
    /// Something that every node knows.
    Anything,
}

/// The nodes as one client has them.
#[derive(Debug)]
pub(crate) struct Fleet {
    /// One or more sets of connections; each has one to every node.
    peers: Vec<Peers>,
    seeds: Vec<Target>,
    datacenter: Option<Datacenter>,
    view: RwLock<Option<Arc<RingView>>>,
    health: Mutex<HealthBook>,
    budget: Mutex<RetryBudget>,
    /// Something hints that the ring has changed.
    pub(crate) hints: Arc<Notify>,
}

impl Fleet {
    /// Nothing is known but the seeds' addresses. There is at least one set of connections.
    pub(crate) fn new(
        peers: Vec<Peers>,
        seeds: &[String],
        datacenter: Option<Datacenter>,
        now: Instant,
    ) -> Self {
        debug_assert!(!peers.is_empty());
        Self {
            peers,
            seeds: seeds.iter().map(|seed| Target::Seed(seed.as_str().into())).collect(),
            datacenter,
            view: RwLock::new(None),
            health: Mutex::default(),
            budget: Mutex::new(RetryBudget::new(now)),
            hints: Arc::default(),
        }
    }

    /// Where to begin.
    pub(crate) fn seeds(&self) -> &[Target] {
        &self.seeds
    }

    /// The view of the ring, if the cluster has been heard of.
    pub(crate) fn view(&self) -> Option<Arc<RingView>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest state that is known.
    pub(crate) fn epoch(&self) -> Epoch {
        self.view().map_or(Epoch(0), |view| view.epoch())
    }

    /// Takes over a state if it is newer than the one that is known. Works out the ring, which can
    /// take a while for a large cluster.
    pub(crate) fn adopt(&self, state: ClusterState) -> Result<(), RingError> {
        let new = Arc::new(RingView::new(state, self.datacenter.clone())?);
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.as_ref().is_some_and(|known| known.epoch() >= new.epoch()) {
            return Ok(());
        }
        for peers in &self.peers {
            for (node, address) in new.addresses() {
                peers.know(node, address);
            }
            let known = view.iter().flat_map(|known| known.addresses());
            for (gone, _) in known.filter(|(node, _)| new.addresses().all(|(id, _)| id != *node)) {
                peers.forget(gone);
            }
        }
        tracing::info!(cluster = %new.state().name, epoch = %new.epoch(), "the ring is known");
        *view = Some(new);
        Ok(())
    }

    /// Chooses whom to ask; a pinned operation asks its node only.
    pub(crate) fn choose(
        &self,
        about: About<'_>,
        pin: Option<&Target>,
        tried: &mut Vec<Target>,
        now: Instant,
    ) -> Option<Choice> {
        let health = self.health();
        let view = self.view();
        let candidates = match (pin, &view, about) {
            (Some(pin), _, _) => {
                Candidates { seeds: std::slice::from_ref(pin), ..Candidates::default() }
            }
            (None, Some(view), About::Key(keyspace, key)) => {
                Candidates { seeds: &self.seeds, ..view.for_key(keyspace, key) }
            }
            (None, Some(view), About::Anything) => {
                Candidates { seeds: &self.seeds, ..view.for_anything() }
            }
            (None, None, _) => Candidates { seeds: &self.seeds, ..Candidates::default() },
        };
        let connected = |target: &Target| self.is_connected(target);
        let prospects = Prospects { health: &health, connected: &connected, now };
        routing::choose(&candidates, tried, &prospects, rand::random::<f64>)
    }

    /// Whether there is a connection; a seed is connected to when it is asked.
    fn is_connected(&self, target: &Target) -> bool {
        match target {
            Target::Node(node) => self.peers.iter().any(|peers| peers.is_connected(node)),
            Target::Seed(_) => true,
        }
    }

    /// Whether a member is connected: a near one, if there are any.
    pub(crate) fn is_settled(&self) -> bool {
        let view = self.view();
        let members = view.as_ref().map(|view| view.for_anything().members);
        let near = members.and_then(|members| members.into_iter().find(|group| !group.is_empty()));
        near.is_none_or(|near| near.iter().any(|target| self.is_connected(target)))
    }

    /// Which set of connections an operation uses: with as many as the nodes have threads, the one
    /// whose thread holds the key's partition.
    pub(crate) fn lane(&self, about: About<'_>) -> usize {
        match (self.peers.len(), about) {
            (1, _) | (_, About::Anything) => 0,
            (lanes, About::Key(keyspace, key)) => {
                let partition = self.view().map(|view| view.partition_of(keyspace, key));
                partition.map_or(0, |PartitionId(number)| number as usize % lanes)
            }
        }
    }

    /// One attempt at one node.
    pub(crate) async fn call<M: Message>(
        &self,
        lane: usize,
        target: &Target,
        message: M,
        context: CallContext,
    ) -> Result<M::Reply, CallError> {
        let peers = &self.peers[lane];
        match target {
            Target::Node(node) => peers.call(node, message, context).await,
            Target::Seed(address) => Ok(peers.call_address(address, message, context).await?.1),
        }
    }

    /// Why there is no connection to a node, if that is known.
    pub(crate) fn trouble(&self, target: &Target) -> Option<String> {
        match target {
            Target::Node(node) => self.peers.iter().find_map(|peers| peers.trouble(node)),
            Target::Seed(_) => None,
        }
    }

    /// Notes that an attempt at a node begins. What is returned notes how it ends; dropped before, it
    /// was abandoned.
    pub(crate) fn begin<'a>(&'a self, target: &'a Target, now: Instant) -> UnderWay<'a> {
        self.health().began(target, now);
        UnderWay { fleet: self, target, began: now, how: Ended::Abandoned }
    }

    /// Notes that an operation begins.
    pub(crate) fn operation(&self) {
        self.budget().operation();
    }

    /// What to do after a failed attempt.
    pub(crate) fn failed(
        &self,
        attempts: &mut Attempts,
        failure: Failure,
        now: Instant,
    ) -> Verdict {
        attempts.failed(failure, now, &mut self.budget(), rand::random())
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        for peers in &self.peers {
            peers.close().await;
        }
    }

    fn health(&self) -> MutexGuard<'_, HealthBook> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> MutexGuard<'_, RetryBudget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets the health of nodes that are in the cluster no more.
    pub(crate) fn tidy(&self) {
        let view = self.view();
        let member = |target: &Target| match target {
            Target::Seed(_) => self.seeds.contains(target),
            Target::Node(id) => {
                view.as_ref().is_some_and(|view| view.state().members.contains_key(id))
            }
        };
        self.health().retain(member);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.hints.notify_one(); // whoever follows the ring finds that nobody wants it
    }
}

/// An attempt that is under way.
pub(crate) struct UnderWay<'a> {
    fleet: &'a Fleet,
    target: &'a Target,
    began: Instant,
    how: Ended,
}

impl UnderWay<'_> {
    /// It has ended.
    pub(crate) fn end(mut self, how: Ended) {
        self.how = how;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.fleet.health().ended(self.target, self.began, self.how, Instant::now());
    }
}
