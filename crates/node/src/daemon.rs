//! The control thread: starts everything in order, runs the node's membership, passes on what it says,
//! and ends everything in order.
//!
//! ```text
//! start   certificates, data directory, store, both ports -> identity -> arbiters (coordinators,
//!         peers) -> QUIC -> membership -> HTTP
//! end     membership says goodbye and HTTP takes nothing more -> requests under way end
//!         -> QUIC port -> arbiters -> store -> data directory
//! ```
//!
//! One deadline holds for the whole end; what has not ended by then is cut off, with a log line.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    num::NonZero,
    sync::Arc,
    thread,
    time::Duration,
};

use actix::{Actor, Addr};
use anello_antientropy::actor as merkle;
use anello_gateway::{Acceptor, Limits};
use anello_gossip::{
    Depart, GossipActor, MembershipConfig, MembershipEvent, MembershipStore, Timing,
};
use anello_protocol::cluster::{Member, MemberState};
use anello_replica::hints::HintStoreConfig;
use anello_transport::{ActorRef, Listener, ListenerConfig, Peers, PeersConfig, Worker};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{
    arbiter::{Arbiter, ArbiterParts, Order, Serving},
    conductor::Conductor,
    config::Config,
    credentials::Credentials,
    data_dir::{DataDir, Identity as Owner},
    handing_over,
    holdings::NodeHoldings,
    lives::Told,
    mending::{Opened, open_store},
    node::StartError,
    open_files,
    readiness::Readiness,
    rocks::RocksStore,
    routes::{MembershipRefs, Routes},
    salvage::Salvage,
    status::{self, Sources, Status},
    steward::{Memory, Steward, StewardParts},
};

/// How long the end may take, all in all.
const STOP_MAX: Duration = Duration::from_secs(10);
/// The last of it, in which no request is waited for any more: for closing connections and the store.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Between two looks at whether the store is still in use.
const TICK: Duration = Duration::from_millis(1);

/// A node that runs.
pub(crate) struct Daemon {
    pub(crate) listener: Listener,
    pub(crate) http: SocketAddr,
    /// What can be read of damaged stores is being brought back.
    salvage: Option<JoinHandle<()>>,
    arbiters: Vec<Arbiter>,
    steward: Steward,
    gossip: Addr<GossipActor>,
    gossip_peers: Peers,
    pub(crate) store: Arc<RocksStore>,
    data_dir: DataDir,
}

/// A node of which only its store is left.
pub(crate) struct Stopped {
    store: Arc<RocksStore>,
    /// Held until the store is closed.
    data_dir: DataDir,
    deadline: Instant,
}

impl Daemon {
    /// Starts everything in order.
    pub(crate) async fn start(
        config: &Config,
        credentials: &Credentials,
        readiness: &Readiness,
        told: &Told,
    ) -> Result<Self, StartError> {
        let data_dir_failed = |error| StartError::of_data_dir(error, config);
        let mut data_dir =
            DataDir::open(&config.node.data_dir, Owner::of(config)).map_err(data_dir_failed)?;
        let Opened { store, is_empty, replacement, memory } =
            open_store(&data_dir, config.durability, config.cluster.partitions)?;
        // Both ports come before the identity: a start that fails for a port leaves a directory that
        // belongs to nobody.
        let http = listen_http(config)?;
        let quic_port = hold_quic_port(config)?;
        data_dir.adopt(is_empty).map_err(data_dir_failed)?;

        let status = Arc::new(Status::new());
        let (ask, questions) = status::questions();
        let routes = Routes::new(config.cluster.partitions, ask);
        routes.set_salvaging(replacement.is_some());
        let arbiters = start_arbiters(config, credentials, &store, &routes, &status).await?;
        let coordinators =
            arbiters.iter().map(|arbiter| arbiter.refs.coordinator.clone()).collect();
        routes.set_coordinators(coordinators);
        let (unfit_in, unfit) = mpsc::unbounded_channel();
        let (handed_over_in, handed_over) = mpsc::unbounded_channel();
        let tell = (unfit_in, handed_over_in);
        let steward = start_steward(config, credentials, &store, &routes, memory, tell).await?;
        let sources = Sources {
            node: config.node.id.clone(),
            status: Arc::clone(&status),
            store: Arc::clone(&store),
            coordinators: arbiters.iter().map(|arbiter| arbiter.refs.in_flight.clone()).collect(),
            arbiters: arbiters.iter().map(|arbiter| arbiter.thread.orders.clone()).collect(),
            steward: steward.figures.clone(),
        };
        actix::spawn(status::answer(questions, sources));

        drop(quic_port);
        let listener = listen_quic(config, credentials, &routes, &arbiters).await?;
        let quic = listener.local_address();
        let http_address = http.local_addr().map_err(StartError::Runtime)?;
        log_start(config, quic, http_address);

        let mut membership = membership(config, quic, http_address);
        if replacement.as_ref().is_some_and(|it| it.lost_membership) {
            forbid_founding(&mut membership, &store)?;
        }
        let gossip_peers = Peers::new(credentials.identity.clone(), PeersConfig::default());
        let gossip_peers = gossip_peers.map_err(StartError::Runtime)?;
        let (events_in, events) = mpsc::unbounded_channel();
        let noted_in = Arc::clone(&store);
        let left = Arc::clone(&told.left);
        let holdings =
            NodeHoldings { store: Arc::clone(&store), threads: orders(&arbiters, &steward) };
        let gossip = GossipActor::new(
            membership,
            Arc::clone(&store) as Arc<dyn MembershipStore>,
            Box::new(holdings),
            gossip_peers.clone(),
            rand::random(),
            Box::new(move |event| {
                if let MembershipEvent::LostDisk = event {
                    // Before the record is saved that makes the node a member, so that no crash hides it.
                    noted_in.note_lost();
                }
                if let MembershipEvent::Left = event {
                    left.send_replace(true);
                }
                // Without its receiver the node ends.
                drop(events_in.send(event));
            }),
        );
        let gossip = gossip.map_err(|error| StartError::Broken(error.to_string()))?.start();
        routes.set_membership(MembershipRefs {
            packet: ActorRef::mailbox(gossip.clone().recipient()),
            fetch: ActorRef::mailbox(gossip.clone().recipient()),
            describe: ActorRef::mailbox(gossip.clone().recipient()),
            alter: ActorRef::mailbox(gossip.clone().recipient()),
            alter_ring: ActorRef::mailbox(gossip.clone().recipient()),
        });
        let (views_in, views) = watch::channel(None);
        let figures = steward.figures.clone();
        actix::spawn(handing_over::report(handed_over, figures, gossip.clone(), views.clone()));
        let conductor = Conductor {
            node: config.node.id.clone(),
            arbiters: arbiters.iter().map(|it| it.thread.orders.clone()).collect(),
            steward: steward.thread.orders.clone(),
            peers: peers_of(&arbiters, &steward),
            store: Arc::clone(&store),
            routes: routes.clone(),
            readiness: readiness.clone(),
            status,
            failure: Arc::clone(&told.failure),
            views: views_in,
            known: BTreeSet::new(),
            gossip: gossip.clone().recipient(),
            is_unfit: false,
        };
        actix::spawn(conductor.run(events, unfit));
        let salvage = Salvage {
            node: config.node.id.clone(),
            data_dir: data_dir.path().into(),
            store: Arc::downgrade(&store),
            vnodes: routes.store(),
            views,
        };
        let salvage = replacement.map(|replacement| {
            let routes = routes.clone();
            actix::spawn(async move {
                // What a later start may still bring back must not be forgotten by the others before.
                if salvage.run(replacement).await {
                    routes.set_salvaging(false);
                } else {
                    tracing::warn!(
                        "salvaging was cut short: the next start begins it again, and until that is done \
                         nothing that was deleted is forgotten"
                    );
                }
            })
        });
        serve_http(http, credentials, &arbiters).await?;
        Ok(Self {
            listener,
            http: http_address,
            salvage,
            arbiters,
            steward,
            gossip,
            gossip_peers,
            store,
            data_dir,
        })
    }

    /// Ends it within its time.
    pub(crate) async fn stop(self) -> Stopped {
        let deadline = Instant::now() + STOP_MAX;
        let requests_end = deadline - CLOSE_MAX;
        tracing::info!("stopping: no more requests are taken");
        let Self { listener, arbiters, steward, gossip, gossip_peers, store, data_dir, .. } = self;
        if let Some(salvage) = self.salvage {
            salvage.abort();
        }
        let draining: Vec<_> = arbiters
            .iter()
            .map(|arbiter| {
                let (done, drained) = oneshot::channel();
                arbiter.thread.tell(Order::Drain(done));
                drained
            })
            .collect();
        // First of all, so that the others ask elsewhere while requests here end.
        if !matches!(timeout_at(requests_end, gossip.send(Depart)).await, Ok(Ok(()))) {
            tracing::warn!("membership ended before it could say goodbye");
        }
        let drained = async {
            for drained in draining {
                // An arbiter that has ended has no requests.
                let _ = drained.await;
            }
        };
        let grace = requests_end.saturating_duration_since(Instant::now());
        // Saying so to the other side takes it a moment longer.
        let listener_end = requests_end + CLOSE_MAX / 2;
        let closed = async {
            let closed = timeout_at(listener_end, listener.close(grace)).await;
            closed.is_ok() && Instant::now() < requests_end
        };
        let (closed, drained) = tokio::join!(closed, timeout_at(requests_end, drained));
        for (in_time, what) in [(drained.is_ok(), "HTTP"), (closed, "QUIC")] {
            if !in_time {
                tracing::warn!("requests over {what} were cut off: they did not end in time");
            }
        }
        arbiters.iter().for_each(|arbiter| arbiter.thread.tell(Order::Stop));
        steward.thread.tell(Order::Stop);
        let ((), all_ended) =
            tokio::join!(gossip_peers.close(), end_threads(arbiters, steward, deadline));
        // A thread that is left may still write, which a clean end denies.
        if all_ended && let Err(reason) = store.end() {
            tracing::error!("the store did not end cleanly: {reason}");
        }
        Stopped { store, data_dir, deadline }
    }
}

/// Waits for all of them, which were told to stop; whether they have ended in time.
async fn end_threads(arbiters: Vec<Arbiter>, steward: Steward, deadline: Instant) -> bool {
    let mut all_ended = true;
    let named = arbiters.into_iter().enumerate();
    let named = named.map(|(number, arbiter)| (format!("arbiter {number}"), arbiter.thread));
    for (name, thread) in named.chain([("the steward".into(), steward.thread)]) {
        if !thread.ended(deadline).await {
            tracing::warn!("{name} was cut off: it did not end in time");
            all_ended = false;
        }
    }
    all_ended
}

impl Stopped {
    /// Closes the store, then gives the data directory back; whether it could be closed.
    pub(crate) fn close(self) -> bool {
        let figures = self.store.figures();
        let is_closed = close(self.store, self.deadline);
        if is_closed {
            drop(self.data_dir);
        } else {
            tracing::warn!("the store was not closed: something still uses it");
            // The lock stays as long as the process, so that nobody else opens what is still in use.
            std::mem::forget(self.data_dir);
        }
        tracing::info!(
            writes = figures.writes,
            groups = figures.groups,
            largest_group = figures.largest_group,
            "stopped"
        );
        is_closed
    }
}

/// Closes a store once nobody else uses it: a sweep holds it for a step at a time, and begins no other
/// when it is closed. Whether that came to be in time.
fn close(mut store: Arc<RocksStore>, deadline: Instant) -> bool {
    loop {
        store = match Arc::try_unwrap(store) {
            Ok(_closed) => return true,
            Err(_) if Instant::now() >= deadline => return false,
            Err(used) => used,
        };
        thread::sleep(TICK);
    }
}

fn listen_http(config: &Config) -> Result<TcpListener, StartError> {
    let address = config.listen.http;
    TcpListener::bind(address).map_err(cannot_listen(config, "listen.http", address))
}

/// Takes the QUIC port, which is listened at only once there are arbiters to answer.
fn hold_quic_port(config: &Config) -> Result<UdpSocket, StartError> {
    let address = config.listen.quic;
    UdpSocket::bind(address).map_err(cannot_listen(config, "listen.quic", address))
}

fn cannot_listen(
    config: &Config,
    setting: &str,
    address: SocketAddr,
) -> impl FnOnce(io::Error) -> StartError {
    let place = config.source.place(setting);
    move |source| StartError::Listen { place, address, source }
}

async fn start_arbiters(
    config: &Config,
    credentials: &Credentials,
    store: &Arc<RocksStore>,
    routes: &Routes,
    status: &Status,
) -> Result<Vec<Arbiter>, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let count = config.node.threads.unwrap_or(cores);
    let parts = ArbiterParts {
        arbiters: count,
        node: config.node.id.clone(),
        datacenter: config.node.datacenter.clone(),
        identity: credentials.identity.clone(),
        store: Arc::clone(store) as _,
        routes: routes.clone(),
        requests: Arc::clone(&status.requests),
    };
    let mut arbiters = Vec::new();
    for number in 0..count {
        arbiters.push(Arbiter::start(number, parts.clone()).await?);
    }
    Ok(arbiters)
}

/// Starts what goes on behind requests, from what the store remembers of it.
async fn start_steward(
    config: &Config,
    credentials: &Credentials,
    store: &Arc<RocksStore>,
    routes: &Routes,
    memory: Memory,
    (unfit, handed_over): (
        mpsc::UnboundedSender<Option<String>>,
        mpsc::UnboundedSender<merkle::HandedOver>,
    ),
) -> Result<Steward, StartError> {
    let parts = StewardParts {
        node: config.node.id.clone(),
        identity: credentials.identity.clone(),
        store: Arc::clone(store),
        routes: routes.clone(),
        hints: HintStoreConfig {
            age_max: Duration::from_secs(config.hints.age_max_s.into()),
            bytes_max: config.hints.bytes_max,
            ..HintStoreConfig::default()
        },
        memory,
        unfit,
        handed_over,
    };
    Steward::start(parts).await
}

/// Listens for nodes and clients; each arbiter answers what comes over its share of the connections.
async fn listen_quic(
    config: &Config,
    credentials: &Credentials,
    routes: &Routes,
    arbiters: &[Arbiter],
) -> Result<Listener, StartError> {
    let workers = arbiters.iter().enumerate().map(|(number, arbiter)| Worker {
        runtime: arbiter.refs.runtime.clone(),
        router: routes.router(number),
    });
    let workers: Vec<_> = workers.collect();
    let (address, identity) = (config.listen.quic, credentials.identity.clone());
    // On an arbiter, not on this thread: every packet would be handed over from here, and to wake a
    // thread costs more than to carry out a read.
    let runtime = arbiters.first().map(|arbiter| arbiter.refs.runtime.clone());
    let runtime = runtime.ok_or_else(|| StartError::Broken("there is no arbiter".into()))?;
    let bind = async move { Listener::bind(address, identity, workers, ListenerConfig::default()) };
    let bound = runtime.spawn(bind).await;
    let bound = bound.map_err(|error| StartError::Broken(error.to_string()))?;
    bound.map_err(cannot_listen(config, "listen.quic", address))
}

async fn serve_http(
    listener: TcpListener,
    credentials: &Credentials,
    arbiters: &[Arbiter],
) -> Result<(), StartError> {
    let wanted = Limits::default();
    let connections = open_files::http_connections(wanted.connections, arbiters.len());
    let limits = Limits { connections, ..wanted };
    let acceptors = Acceptor::split(listener, arbiters.len(), limits);
    for (acceptor, arbiter) in acceptors.map_err(StartError::Runtime)?.into_iter().zip(arbiters) {
        let (done, started) = oneshot::channel();
        let serving = Serving { acceptor, tls: credentials.https.clone() };
        arbiter.thread.tell(Order::Serve(Box::new(serving), done));
        let ended = |_| StartError::Broken("an arbiter ended".into());
        started.await.map_err(ended)?.map_err(StartError::Runtime)?;
    }
    Ok(())
}

fn orders(arbiters: &[Arbiter], steward: &Steward) -> Vec<mpsc::UnboundedSender<Order>> {
    let arbiters = arbiters.iter().map(|arbiter| arbiter.thread.orders.clone());
    arbiters.chain([steward.thread.orders.clone()]).collect()
}

fn peers_of(arbiters: &[Arbiter], steward: &Steward) -> Vec<Peers> {
    let arbiters = arbiters.iter().map(|arbiter| arbiter.refs.peers.clone());
    arbiters.chain([steward.peers.clone()]).collect()
}

/// Who the node is to its cluster. What is advertised is what was bound, unless the settings say
/// otherwise.
fn membership(config: &Config, quic: SocketAddr, http: SocketAddr) -> MembershipConfig {
    let own = config.advertise.quic.clone().unwrap_or_else(|| quic.to_string());
    let seeds = &config.cluster.seeds;
    MembershipConfig {
        member: Member {
            id: config.node.id.clone(),
            datacenter: config.node.datacenter.clone(),
            rack: config.node.rack.clone(),
            weight: config.node.weight,
            quic: own.clone(),
            http: config.advertise.http.clone().unwrap_or_else(|| http.to_string()),
            state: MemberState::Up,
        },
        cluster: config.cluster.name.clone(),
        partitions: config.cluster.partitions,
        other_seeds: seeds.iter().filter(|seed| **seed != own).cloned().collect(),
        // A node without seeds is the only one.
        first_seed: seeds.first().is_none_or(|first| *first == own),
        program: env!("CARGO_PKG_VERSION").into(),
        timing: Timing::lan(),
    }
}

/// A node that has lost what it knew of its cluster must not found another one in its place.
fn forbid_founding(
    membership: &mut MembershipConfig,
    store: &RocksStore,
) -> Result<(), StartError> {
    membership.first_seed = false;
    let is_lost = MembershipStore::load(store).map_err(StartError::Broken)?.is_none();
    if is_lost && membership.other_seeds.is_empty() {
        return Err(StartError::Broken(
            "the membership record was lost with a damaged store, and the settings name no other seed to \
             ask for it: restore the data directory from a backup, or give the node an empty one, with \
             which it begins a new cluster"
                .into(),
        ));
    }
    Ok(())
}

fn log_start(config: &Config, quic: SocketAddr, http: SocketAddr) {
    let (node, cluster) = (&config.node, &config.cluster);
    tracing::info!(
        id = %node.id,
        datacenter = %node.datacenter,
        rack = %node.rack,
        cluster = %cluster.name,
        durability = %config.durability,
        version = env!("CARGO_PKG_VERSION"),
        "started, with its data in {}",
        node.data_dir.display()
    );
    let scheme = if config.http_tls.is_some() { "https" } else { "http" };
    tracing::info!("listening: QUIC at {quic}, the HTTP API at {scheme}://{http}");
    if config.telemetry.otlp_endpoint.is_some() {
        let place = config.source.place("telemetry.otlp_endpoint");
        tracing::warn!("{place}: this version sends no traces; trace contexts are passed on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Durability;

    #[test]
    fn a_store_is_closed_once_nobody_else_uses_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || RocksStore::open(&dir.path().join("db"), Durability::Os, 256).map(Arc::new);
        let store = open().expect("opens");
        let used = Arc::clone(&store);
        assert!(!close(store, Instant::now()), "somebody uses it");

        let store = Arc::clone(&used);
        let patience = Instant::now() + Duration::from_secs(60);
        let closing = thread::spawn(move || close(store, patience));
        drop(used);
        assert!(closing.join().expect("no panic"));
        assert!(open().is_ok(), "nothing holds it open");
    }
}
