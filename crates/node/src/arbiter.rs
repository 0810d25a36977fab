//! One arbiter: a thread with a coordinator, a share of the vnodes, an HTTP worker, and connections of its
//! own to the other nodes, so that a request stays on its thread wherever it can.
//!
//! It is told what to do by [`Order`]s from the control thread, one after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use actix::{Actor, Addr};
use anello_gateway::{Acceptor, Backend, GatewayHandle, start_worker};
use anello_protocol::{
    id::{Datacenter, NodeId, PartitionId},
    message::Message,
};
use anello_replica::{
    coordinator::{
        self, CoordinatorActor, CoordinatorConfig, CoordinatorParts, NodeRefs, OwnHints, Vnodes,
    },
    replica::{self, ReplicaActor, ReplicaConfig, ReplicaParts},
    store::Store,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Identity, Peers, PeersConfig};
use rustls::ServerConfig;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    node::StartError,
    routes::{CoordinatorRefs, Routes, VnodeRefs, arbiter_of},
    thread::{Crew, OrderedThread, behind},
};

/// What all arbiters of a node are made with.
#[derive(Clone)]
pub(crate) struct ArbiterParts {
    pub(crate) arbiters: usize,
    pub(crate) node: NodeId,
    pub(crate) datacenter: Datacenter,
    pub(crate) identity: Identity,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) routes: Routes,
    /// Requests that were given to the node's coordinators.
    pub(crate) requests: Arc<AtomicU64>,
}

/// What an arbiter is told to do. What is to be answered is answered, or dropped, once it is done.
pub(crate) enum Order {
    /// End the vnodes that there are of these, and answer once nothing of theirs is under way.
    End(Arc<BTreeSet<PartitionId>>, oneshot::Sender<()>),
    /// Make the vnodes of the arbiter's share of these, where they are not there yet.
    Hold(Arc<BTreeSet<PartitionId>>, oneshot::Sender<()>),
    /// Say why the node must serve nothing under this view, if it must not.
    Judge(Arc<View>, oneshot::Sender<Option<String>>),
    /// Act under this view, and answer once everybody on the thread does.
    Act(Arc<View>, oneshot::Sender<()>),
    /// A node can or can't be reached.
    Reachability(NodeId, bool),
    /// Refuse data writes, and answer once those under way have ended.
    Freeze(oneshot::Sender<()>),
    /// Take data writes again.
    Thaw,
    /// What the node held is gone.
    Lost,
    /// Whether what the vnodes hold must be shown to nobody.
    Quarantine(bool),
    /// Serve HTTP.
    Serve(Box<Serving>, oneshot::Sender<io::Result<()>>),
    /// Count the requests that wait at the vnodes: all of them, and the most at one.
    CountWaiting(oneshot::Sender<(u64, u64)>),
    /// Take no more HTTP requests, and answer once those under way have ended.
    Drain(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// What an HTTP worker is made with.
pub(crate) struct Serving {
    pub(crate) acceptor: Acceptor,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

/// An arbiter as the control thread holds it.
pub(crate) struct Arbiter {
    pub(crate) thread: OrderedThread,
    pub(crate) refs: ArbiterRefs,
}

/// What the control thread knows of what lives on an arbiter.
pub(crate) struct ArbiterRefs {
    pub(crate) runtime: Handle,
    pub(crate) peers: Peers,
    pub(crate) coordinator: CoordinatorRefs,
    pub(crate) in_flight: actix::Recipient<coordinator::CountInFlight>,
}

impl Arbiter {
    /// Starts the arbiter of that number.
    pub(crate) async fn start(number: usize, parts: ArbiterParts) -> Result<Self, StartError> {
        let make = move || {
            let share = Share::start(number, parts)?;
            let refs = ArbiterRefs {
                runtime: Handle::current(),
                peers: share.peers.clone(),
                coordinator: share.refs(),
                in_flight: share.coordinator.clone().recipient(),
            };
            Ok((share, refs))
        };
        let (thread, refs) = OrderedThread::start(format!("arbiter-{number}"), make).await?;
        Ok(Self { thread, refs })
    }
}

/// What lives on the arbiter's thread.
struct Share {
    number: usize,
    parts: ArbiterParts,
    peers: Peers,
    coordinator: Addr<CoordinatorActor>,
    vnodes: BTreeMap<PartitionId, Addr<ReplicaActor>>,
    /// Vnodes that end, and will say so: until then none of the same partition may begin.
    ending: BTreeMap<PartitionId, oneshot::Receiver<()>>,
    view: Option<Arc<View>>,
    is_frozen: bool,
    is_quarantined: bool,
    gateway: Option<GatewayHandle>,
}

impl Share {
    fn start(number: usize, parts: ArbiterParts) -> io::Result<Self> {
        // At the other end, too, the thread of that number is to drive the connection: with as many
        // arbiters there, what is asked of a vnode arrives on its thread.
        let worker = u16::try_from(number).ok();
        let config = PeersConfig { worker, ..PeersConfig::default() };
        let peers = Peers::new(parts.identity.clone(), config)?;
        let routes = &parts.routes;
        let vnodes = Vnodes { read: routes.read(), store: routes.store(), mint: routes.mint() };
        let hints = OwnHints {
            keep: routes.keep_hint(),
            read: routes.read_hints(),
            mint: routes.mint_hint(),
        };
        let others = peers.clone();
        let coordinator = CoordinatorActor::new(CoordinatorParts {
            node: parts.node.clone(),
            datacenter: parts.datacenter.clone(),
            number: worker.unwrap_or_default(),
            config: CoordinatorConfig::default(),
            seed: rand::random(),
            vnodes,
            hints,
            others: Box::new(move |node| NodeRefs::peer(&others, node)),
        });
        Ok(Self {
            number,
            coordinator: coordinator.start(),
            peers,
            vnodes: BTreeMap::new(),
            ending: BTreeMap::new(),
            view: None,
            is_frozen: false,
            is_quarantined: false,
            gateway: None,
            parts,
        })
    }

    fn refs(&self) -> CoordinatorRefs {
        let coordinator = &self.coordinator;
        let requests = &self.parts.requests;
        CoordinatorRefs {
            get: counted(ActorRef::mailbox(coordinator.clone().recipient()), requests),
            write: counted(ActorRef::mailbox(coordinator.clone().recipient()), requests),
            locate: ActorRef::mailbox(coordinator.clone().recipient()),
            forward: ActorRef::mailbox(coordinator.clone().recipient()),
            relay: ActorRef::mailbox(coordinator.clone().recipient()),
            acked: ActorRef::mailbox(coordinator.clone().recipient()),
        }
    }

    /// Makes the vnodes of this arbiter's share.
    async fn hold(&mut self, partitions: &BTreeSet<PartitionId>) {
        let mut made = Vec::new();
        for &partition in partitions {
            let is_own = arbiter_of(partition, self.parts.arbiters) == self.number;
            if !is_own || self.vnodes.contains_key(&partition) {
                continue;
            }
            // What the former one has yet to finish, its record may not tell.
            self.ended(partition).await;
            let remembered = match self.parts.store.load_vnode(partition) {
                Ok(remembered) => remembered,
                Err(error) => {
                    // Whoever asks is told that the node doesn't hold the partition, and asks others.
                    tracing::error!(%partition, "the vnode can't be opened: {error}");
                    continue;
                }
            };
            let vnode = ReplicaActor::new(ReplicaParts {
                node: self.parts.node.clone(),
                partition,
                config: ReplicaConfig::default(),
                seed: rand::random(),
                remembered,
                store: Arc::clone(&self.parts.store),
            });
            let vnode = vnode.start();
            if let Some(view) = &self.view {
                vnode.do_send(replica::ClusterChanged(Arc::clone(view)));
            }
            if self.is_quarantined {
                vnode.do_send(replica::Quarantine(true));
            }
            if self.is_frozen {
                vnode.do_send(replica::Freeze(Box::new(|| ())));
            }
            let refs = VnodeRefs {
                read: ActorRef::mailbox(vnode.clone().recipient()),
                store: ActorRef::mailbox(vnode.clone().recipient()),
                mint: ActorRef::mailbox(vnode.clone().recipient()),
                purge: ActorRef::mailbox(vnode.clone().recipient()),
            };
            made.push((partition, refs));
            self.vnodes.insert(partition, vnode);
        }
        if !made.is_empty() {
            self.parts.routes.add_vnodes(made);
        }
    }

    /// Takes vnodes out of their places and has them end. Who asks for one from then on is refused at once; its
    /// writes that are under way are answered first.
    fn let_go(&mut self, partitions: &BTreeSet<PartitionId>) {
        let mut gone = Vec::new();
        for &partition in partitions {
            let Some(vnode) = self.vnodes.remove(&partition) else { continue };
            gone.push(partition);
            let (quiet, is_quiet) = oneshot::channel();
            let own = vnode.clone();
            vnode.do_send(replica::Freeze(Box::new(move || {
                // Nobody waits for it if the thread ends.
                let _ = quiet.send(());
                own.do_send(replica::Stop);
            })));
            self.ending.insert(partition, is_quiet);
        }
        if !gone.is_empty() {
            self.parts.routes.remove_vnodes(&gone);
        }
    }

    /// Waits until nothing of a vnode that was let go is under way.
    async fn ended(&mut self, partition: PartitionId) {
        if let Some(is_quiet) = self.ending.remove(&partition) {
            // One that has gone without a word has nothing under way either.
            let _ = is_quiet.await;
        }
    }

    /// Has everybody act under a view, and lets those vnodes go that the node doesn't hold under it.
    fn act(&mut self, view: Arc<View>, done: oneshot::Sender<()>) {
        let mut acting = Vec::new();
        for vnode in self.vnodes.values() {
            vnode.do_send(replica::ClusterChanged(Arc::clone(&view)));
            acting.push(behind(vnode));
        }
        self.coordinator.do_send(coordinator::ClusterChanged(Arc::clone(&view)));
        acting.push(behind(&self.coordinator));
        // Behind the view, so that whatever is still on its way to them hears of that.
        let held = view.held_partitions(&self.parts.node);
        let gone = self.vnodes.keys().filter(|partition| !held.contains(partition)).copied();
        self.let_go(&gone.collect());
        self.view = Some(view);
        actix::spawn(async move {
            for passed in acting {
                // One that has ended acts no more.
                let _ = passed.await;
            }
            let _ = done.send(());
        });
    }

    fn count_waiting(&self, done: oneshot::Sender<(u64, u64)>) {
        let vnodes: Vec<_> = self.vnodes.values().cloned().collect();
        actix::spawn(async move {
            let (mut all, mut most) = (0, 0);
            for vnode in vnodes {
                // One that has ended has nobody who waits.
                let waiting = vnode.send(replica::CountWaiting).await.unwrap_or(0) as u64;
                all += waiting;
                most = most.max(waiting);
            }
            let _ = done.send((all, most));
        });
    }

    /// Freezes every vnode; the last one whose writes have ended answers. None does if it is thawed
    /// before.
    fn freeze(&self, done: oneshot::Sender<()>) {
        if self.vnodes.is_empty() {
            let _ = done.send(());
            return;
        }
        let under_way = Arc::new(Mutex::new((self.vnodes.len(), Some(done))));
        for vnode in self.vnodes.values() {
            let under_way = Arc::clone(&under_way);
            vnode.do_send(replica::Freeze(Box::new(move || {
                let mut under_way = under_way.lock().unwrap_or_else(PoisonError::into_inner);
                under_way.0 -= 1;
                if under_way.0 == 0 {
                    let _ = under_way.1.take().map(|done| done.send(()));
                }
            })));
        }
    }

    fn backend(&self) -> Backend {
        let routes = &self.parts.routes;
        Backend {
            node: self.parts.node.clone(),
            get: routes.get(),
            write: routes.write(),
            locate: ActorRef::mailbox(self.coordinator.clone().recipient()),
            cluster: routes.describe(),
            fetch: routes.fetch(),
            alter: routes.alter(),
            alter_ring: routes.alter_ring(),
            status: routes.status(),
            repair: routes.repair(),
        }
    }
}

impl Crew for Share {
    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::End(partitions, done) => {
                self.let_go(&partitions);
                for &partition in &*partitions {
                    self.ended(partition).await;
                }
                let _ = done.send(());
            }
            Order::Hold(partitions, done) => {
                self.hold(&partitions).await;
                let _ = done.send(());
            }
            Order::Act(view, done) => self.act(view, done),
            Order::Reachability(node, reachable) => {
                self.coordinator.do_send(coordinator::ReachabilityChanged { node, reachable });
            }
            Order::Freeze(done) => {
                self.is_frozen = true;
                self.freeze(done);
            }
            Order::Thaw => {
                self.is_frozen = false;
                self.vnodes.values().for_each(|vnode| vnode.do_send(replica::Thaw));
            }
            Order::Quarantine(is_it) => {
                self.is_quarantined = is_it;
                self.vnodes.values().for_each(|vnode| vnode.do_send(replica::Quarantine(is_it)));
            }
            Order::Serve(serving, done) => {
                let Serving { acceptor, tls } = *serving;
                let started = start_worker(acceptor, self.backend(), tls);
                drop(done.send(started.map(|gateway| self.gateway = Some(gateway))));
            }
            Order::CountWaiting(done) => self.count_waiting(done),
            Order::Drain(done) => match self.gateway.take() {
                Some(gateway) => {
                    actix::spawn(async move {
                        gateway.stop().await;
                        let _ = done.send(());
                    });
                }
                None => {
                    let _ = done.send(());
                }
            },
            // Only the steward is asked.
            Order::Judge(..) => {}
            // The steward hears of it too, and says what follows; the one who reads the orders heeds the end.
            Order::Lost | Order::Stop => {}
        }
    }

    async fn end(self) {
        // Whatever is still under way was told that it had its time.
        drop(self.gateway);
        self.coordinator.do_send(coordinator::Stop);
        self.vnodes.values().for_each(|vnode| vnode.do_send(replica::Stop));
        self.peers.close().await;
    }
}

/// The same actor, with what it is given counted.
fn counted<M: Message>(actor: ActorRef<M>, count: &Arc<AtomicU64>) -> ActorRef<M> {
    let count = Arc::clone(count);
    ActorRef::function(move |call| {
        count.fetch_add(1, Ordering::Relaxed);
        actor.deliver(call)
    })
}

#[cfg(test)]
mod tests;
