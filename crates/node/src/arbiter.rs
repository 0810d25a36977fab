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
    thread,
};

use actix::{Actor, Addr};
use anello_gateway::{Acceptor, Backend, GatewayHandle, start_worker};
use anello_protocol::{
    id::{Datacenter, NodeId, PartitionId},
    message::Message,
};
use anello_replica::{
    coordinator::{self, CoordinatorActor, CoordinatorConfig, CoordinatorParts, NodeRefs, Vnodes},
    replica::{self, ReplicaActor, ReplicaConfig, ReplicaParts},
    store::Store,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Identity, Peers, PeersConfig};
use rustls::ServerConfig;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use crate::{
    node::StartError,
    routes::{CoordinatorRefs, Routes, VnodeRefs, arbiter_of},
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
    /// Make the vnodes of the arbiter's share of these, where they are not there yet.
    Hold(Arc<BTreeSet<PartitionId>>, oneshot::Sender<()>),
    /// Act under this view.
    Act(Arc<View>),
    /// A node can or can't be reached.
    Reachability(NodeId, bool),
    /// Refuse data writes, and answer once those under way have ended.
    Freeze(oneshot::Sender<()>),
    /// Take data writes again.
    Thaw,
    /// Serve HTTP.
    Serve(Box<Serving>, oneshot::Sender<io::Result<()>>),
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

/// An arbiter as the control thread holds it. Dropping it stops it, and waits for that.
pub(crate) struct Arbiter {
    pub(crate) runtime: Handle,
    pub(crate) peers: Peers,
    pub(crate) coordinator: CoordinatorRefs,
    pub(crate) in_flight: actix::Recipient<coordinator::CountInFlight>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// Closed when all that lived on the thread is gone.
    ended: oneshot::Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Arbiter {
    /// Starts the arbiter of that number.
    pub(crate) async fn start(number: usize, parts: ArbiterParts) -> Result<Self, StartError> {
        let (orders, mut incoming) = mpsc::unbounded_channel();
        let (started_in, started) = oneshot::channel();
        let (ended_in, ended) = oneshot::channel();
        let name = thread::Builder::new().name(format!("arbiter-{number}"));
        let run = move || {
            let _ended: oneshot::Sender<()> = ended_in;
            actix::System::new().block_on(async move {
                match Share::start(number, parts) {
                    Ok(mut share) => {
                        let in_flight = share.coordinator.clone().recipient();
                        let parts =
                            (Handle::current(), share.peers.clone(), share.refs(), in_flight);
                        // Without anybody who waits, the orders end at once.
                        let _ = started_in.send(Ok(parts));
                        while let Some(order) = incoming.recv().await {
                            if let Order::Stop = order {
                                break;
                            }
                            share.carry_out(order).await;
                        }
                        share.end().await;
                    }
                    Err(error) => {
                        let _ = started_in.send(Err(error));
                    }
                }
            });
        };
        let thread = name.spawn(run).map_err(StartError::Runtime)?;
        let gone = |_| StartError::Broken(format!("arbiter {number} ended"));
        let (runtime, peers, coordinator, in_flight) =
            started.await.map_err(gone)?.map_err(StartError::Runtime)?;
        let thread = Some(thread);
        Ok(Self { runtime, peers, coordinator, in_flight, orders, ended, thread })
    }

    /// Tells it something; an arbiter that has ended needs no orders.
    pub(crate) fn tell(&self, order: Order) {
        let _ = self.orders.send(order);
    }

    /// Waits for its end, which it was told to come to; whether that was in time. One that is late is
    /// left to itself.
    pub(crate) async fn ended(mut self, deadline: Instant) -> bool {
        let in_time = timeout_at(deadline, &mut self.ended).await.is_ok();
        if !in_time {
            self.thread = None;
        }
        in_time
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        self.tell(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What lives on the arbiter's thread.
struct Share {
    number: usize,
    parts: ArbiterParts,
    peers: Peers,
    coordinator: Addr<CoordinatorActor>,
    vnodes: BTreeMap<PartitionId, Addr<ReplicaActor>>,
    view: Option<Arc<View>>,
    is_frozen: bool,
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
        let others = peers.clone();
        let coordinator = CoordinatorActor::new(CoordinatorParts {
            node: parts.node.clone(),
            datacenter: parts.datacenter.clone(),
            number: worker.unwrap_or_default(),
            config: CoordinatorConfig::default(),
            seed: rand::random(),
            vnodes,
            others: Box::new(move |node| NodeRefs::peer(&others, node)),
        });
        Ok(Self {
            number,
            coordinator: coordinator.start(),
            peers,
            vnodes: BTreeMap::new(),
            view: None,
            is_frozen: false,
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

    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Hold(partitions, done) => {
                self.hold(&partitions);
                let _ = done.send(());
            }
            Order::Act(view) => {
                for vnode in self.vnodes.values() {
                    vnode.do_send(replica::ClusterChanged(Arc::clone(&view)));
                }
                self.coordinator.do_send(coordinator::ClusterChanged(Arc::clone(&view)));
                self.view = Some(view);
            }
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
            Order::Serve(serving, done) => {
                let Serving { acceptor, tls } = *serving;
                let started = start_worker(acceptor, self.backend(), tls);
                drop(done.send(started.map(|gateway| self.gateway = Some(gateway))));
            }
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
            // The one who reads the orders heeds it.
            Order::Stop => {}
        }
    }

    /// Makes the vnodes of this arbiter's share. One that the node has ceased to hold stays, and refuses
    /// what it is asked: its writes may still be under way.
    fn hold(&mut self, partitions: &BTreeSet<PartitionId>) {
        let mut made = Vec::new();
        for &partition in partitions {
            let is_own = arbiter_of(partition, self.parts.arbiters) == self.number;
            if !is_own || self.vnodes.contains_key(&partition) {
                continue;
            }
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
            if self.is_frozen {
                vnode.do_send(replica::Freeze(Box::new(|| ())));
            }
            let refs = VnodeRefs {
                read: ActorRef::mailbox(vnode.clone().recipient()),
                store: ActorRef::mailbox(vnode.clone().recipient()),
                mint: ActorRef::mailbox(vnode.clone().recipient()),
            };
            made.push((partition, refs));
            self.vnodes.insert(partition, vnode);
        }
        if !made.is_empty() {
            self.parts.routes.add_vnodes(made);
        }
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
            get: routes.get(),
            write: routes.write(),
            locate: ActorRef::mailbox(self.coordinator.clone().recipient()),
            cluster: routes.describe(),
            fetch: routes.fetch(),
            alter: routes.alter(),
            status: routes.status(),
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
