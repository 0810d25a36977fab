//! The steward: a thread with what goes on behind requests. The node's hint store, its anti-entropy, its
//! purging of tombstones and its quarantine live there, with connections of their own to the other nodes,
//! so that repairs never queue before requests.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix::{Actor, Addr, Recipient};
use anello_antientropy::{
    AntiEntropyConfig, MerkleActor, MerkleParts,
    actor::{self as merkle, NodeRefs, StartRound, Tell, VnodeRefs},
    purge::{self, PurgeActor, PurgeConfig, PurgeParts, PurgeRefs},
    quarantine::{self, LastAlive, QuarantineActor, QuarantineConfig, QuarantineParts},
};
use anello_protocol::id::NodeId;
use anello_replica::hints::{
    self, HintPeers, HintStoreActor, HintStoreConfig, HintStoreParts, Pressure, PressureChanged,
    store::Shelved,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, Identity, Peers, PeersConfig};
use tokio::{sync::mpsc, time::interval};

use crate::{
    arbiter::Order,
    handing_over::{Pace, Words},
    node::StartError,
    rocks::{CommitLook, RocksStore},
    routes::{Routes, StewardRefs},
    thread::{Crew, OrderedThread, behind},
};

/// How often is looked how late commits are.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// From there on repairs give way to requests, and from there on they hardly move: a commit takes less than a
/// millisecond on a disk that has nothing else to do.
const LATE: Duration = Duration::from_millis(20);
const VERY_LATE: Duration = Duration::from_millis(200);

/// What a steward is made with.
pub(crate) struct StewardParts {
    pub(crate) node: NodeId,
    pub(crate) identity: Identity,
    pub(crate) store: Arc<RocksStore>,
    pub(crate) routes: Routes,
    pub(crate) hints: HintStoreConfig,
    /// What the store remembers of the node's last life.
    pub(crate) memory: Memory,
    /// Told why what the node holds must be shown to nobody, or that it may be shown.
    pub(crate) unfit: mpsc::UnboundedSender<Option<String>>,
    /// Told what the node is through with while the ring changes.
    pub(crate) handed_over: mpsc::UnboundedSender<merkle::HandedOver>,
}

/// What the store remembers of the node's last life.
pub(crate) struct Memory {
    pub(crate) shelved: Shelved,
    pub(crate) last_alive: Option<LastAlive>,
    pub(crate) was_restored: bool,
    pub(crate) was_lost: bool,
}

/// A steward as the control thread holds it.
pub(crate) struct Steward {
    pub(crate) thread: OrderedThread,
    pub(crate) peers: Peers,
    pub(crate) figures: StewardFigures,
}

/// Where a steward can be asked for its figures.
#[derive(Clone)]
pub(crate) struct StewardFigures {
    pub(crate) hints: Recipient<hints::DescribeHints>,
    pub(crate) merkle: Addr<MerkleActor>,
    pub(crate) purge: Recipient<purge::Report>,
    /// What waits for the disk.
    pub(crate) commits: Arc<Mutex<CommitLook>>,
    /// How fast the node is filled while the ring changes.
    pub(crate) pace: Arc<Mutex<Pace>>,
}

impl Steward {
    /// Starts it, and tells the routes of it.
    pub(crate) async fn start(parts: StewardParts) -> Result<Self, StartError> {
        let routes = parts.routes.clone();
        let make = move || {
            let crew = Actors::start(parts)?;
            let made = (crew.peers.clone(), crew.refs(), crew.figures());
            Ok((crew, made))
        };
        let (thread, (peers, refs, figures)) = OrderedThread::start("steward".into(), make).await?;
        routes.set_steward(refs);
        Ok(Self { thread, peers, figures })
    }
}

/// What lives on the thread.
struct Actors {
    node: NodeId,
    peers: Peers,
    hints: Addr<HintStoreActor>,
    merkle: Addr<MerkleActor>,
    purge: Addr<PurgeActor>,
    quarantine: Addr<QuarantineActor>,
    commits: Arc<Mutex<CommitLook>>,
    view: Option<Arc<View>>,
    is_quarantined: bool,
    /// Whether the store was put back from a copy, and has not been compared with the others since.
    was_restored: bool,
}

impl Actors {
    fn start(parts: StewardParts) -> io::Result<Self> {
        let StewardParts { node, identity, store, routes, hints, memory, .. } = parts;
        let peers = Peers::new(identity, PeersConfig::default())?;
        let quarantine = start_quarantine(&node, &store, &memory, parts.unfit);
        let others = peers.clone();
        let hints = HintStoreActor::new(HintStoreParts {
            node: node.clone(),
            config: hints,
            seed: rand::random(),
            shelved: memory.shelved,
            shelf: Arc::clone(&store) as _,
            own: routes.store(),
            others: Box::new(move |node| HintPeers::peer(&others, node)),
        });
        let others = peers.clone();
        let merkle = MerkleActor::new(MerkleParts {
            node: node.clone(),
            config: AntiEntropyConfig::default(),
            seed: rand::random(),
            store: Arc::clone(&store) as _,
            vnodes: VnodeRefs { read: routes.read(), store: routes.store() },
            purge: routes.purge(),
            others: Box::new(move |node| NodeRefs::peer(&others, node)),
            in_step: quarantine.clone().recipient(),
            peer_quarantined: quarantine.clone().recipient(),
            handed_over: Words(parts.handed_over).start().recipient(),
        });
        let others = peers.clone();
        let purge = PurgeActor::new(PurgeParts {
            node: node.clone(),
            config: PurgeConfig::default(),
            store: Arc::clone(&store) as _,
            own: PurgeRefs {
                read: routes.read(),
                check: routes.check_hints(),
                purge: routes.purge(),
            },
            others: Box::new(move |node| PurgeRefs::peer(&others, node)),
        });
        let actors = Self {
            node,
            peers,
            hints: hints.start(),
            merkle: merkle.start(),
            purge: purge.start(),
            quarantine,
            commits: Arc::default(),
            view: None,
            is_quarantined: false,
            was_restored: memory.was_restored,
        };
        actix::spawn(watch_commits(
            Arc::downgrade(&store),
            Arc::clone(&actors.commits),
            actors.hints.clone(),
            actors.merkle.clone(),
        ));
        Ok(actors)
    }

    fn refs(&self) -> StewardRefs {
        StewardRefs {
            keep_hint: ActorRef::mailbox(self.hints.clone().recipient()),
            read_hints: ActorRef::mailbox(self.hints.clone().recipient()),
            mint_hint: ActorRef::mailbox(self.hints.clone().recipient()),
            check_hints: ActorRef::mailbox(self.hints.clone().recipient()),
            credit: ActorRef::mailbox(self.hints.clone().recipient()),
            mark: ActorRef::mailbox(self.merkle.clone().recipient()),
            roots: ActorRef::mailbox(self.merkle.clone().recipient()),
            ranges: ActorRef::mailbox(self.merkle.clone().recipient()),
            keys: ActorRef::mailbox(self.merkle.clone().recipient()),
            repair: ActorRef::mailbox(self.merkle.clone().recipient()),
        }
    }

    fn figures(&self) -> StewardFigures {
        StewardFigures {
            hints: self.hints.clone().recipient(),
            merkle: self.merkle.clone(),
            purge: self.purge.clone().recipient(),
            commits: Arc::clone(&self.commits),
            pace: Arc::default(),
        }
    }

    /// What anti-entropy is to show to nobody.
    fn quarantined(&self) -> Tell {
        let partitions = match &self.view {
            Some(view) if self.is_quarantined => view.held_partitions(&self.node),
            _ => BTreeSet::new(),
        };
        Tell::Quarantined { partitions, was_restored: self.was_restored }
    }
}

impl Crew for Actors {
    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Judge(view, done) => {
                self.quarantine.do_send(quarantine::ClusterChanged(view));
                // Without an actor that answers there is nobody to wait for.
                let reason = self.quarantine.send(quarantine::AskReason).await.ok().flatten();
                let _ = done.send(reason);
            }
            Order::Act(view, done) => {
                self.hints.do_send(hints::ClusterChanged(Arc::clone(&view)));
                self.merkle.do_send(Tell::ClusterChanged(Arc::clone(&view)));
                self.purge.do_send(purge::ClusterChanged(Arc::clone(&view)));
                self.view = Some(view);
                if self.is_quarantined {
                    self.merkle.do_send(self.quarantined());
                }
                let acting = [behind(&self.hints), behind(&self.merkle), behind(&self.purge)];
                actix::spawn(async move {
                    for passed in acting {
                        // One that has ended acts no more.
                        let _ = passed.await;
                    }
                    let _ = done.send(());
                });
            }
            Order::Reachability(node, reachable) => {
                let to = || node.clone();
                self.hints.do_send(hints::ReachabilityChanged { node: to(), reachable });
                self.merkle.do_send(Tell::ReachabilityChanged { node: to(), reachable });
                self.purge.do_send(purge::ReachabilityChanged { node: to(), reachable });
                self.quarantine.do_send(quarantine::ReachabilityChanged { node, reachable });
            }
            Order::Quarantine(is_it) => {
                self.is_quarantined = is_it;
                self.was_restored &= is_it;
                self.merkle.do_send(self.quarantined());
                self.purge.do_send(purge::Quarantine(is_it));
                if is_it {
                    // What it waits for is that it has been compared with the others.
                    self.merkle.do_send(StartRound);
                }
            }
            Order::Lost => self.quarantine.do_send(quarantine::Lost),
            Order::Freeze(done) => {
                self.hints.do_send(hints::Freeze(Box::new(move || {
                    let _ = done.send(());
                })));
            }
            Order::Thaw => self.hints.do_send(hints::Thaw),
            Order::End(_, done) | Order::Hold(_, done) | Order::Drain(done) => {
                let _ = done.send(());
            }
            Order::CountWaiting(done) => {
                let _ = done.send((0, 0));
            }
            // No requests come in here; and the one who reads the orders heeds the end.
            Order::Serve(..) | Order::Stop => {}
        }
    }

    async fn end(self) {
        // Each is waited for: an actor that was never polled must not begin when its runtime has gone.
        // Whoever has ended by himself needn't be told.
        let _ = self.hints.send(hints::Stop).await;
        let _ = self.merkle.send(merkle::Stop).await;
        let _ = self.purge.send(purge::Stop).await;
        let _ = self.quarantine.send(quarantine::Stop).await;
        self.peers.close().await;
    }
}

fn start_quarantine(
    node: &NodeId,
    store: &Arc<RocksStore>,
    memory: &Memory,
    unfit: mpsc::UnboundedSender<Option<String>>,
) -> Addr<QuarantineActor> {
    let (alive_in, settled_in) = (Arc::downgrade(store), Arc::downgrade(store));
    let quarantine = QuarantineActor::new(QuarantineParts {
        node: node.clone(),
        config: QuarantineConfig::default(),
        last: memory.last_alive,
        was_restored: memory.was_restored,
        save: Box::new(move |last| {
            if let Some(store) = alive_in.upgrade() {
                store.note_alive(last);
            }
        }),
        tell: Box::new(move |reason| {
            if let (None, Some(store)) = (&reason, settled_in.upgrade()) {
                store.note_in_step();
            }
            // Without its receiver the node ends.
            let _ = unfit.send(reason);
        }),
    });
    let quarantine = quarantine.start();
    if memory.was_lost {
        quarantine.do_send(quarantine::Lost);
    }
    quarantine
}

/// Looks how late commits are, and has repairs give way accordingly, until the store is closed.
async fn watch_commits(
    store: std::sync::Weak<RocksStore>,
    latest: Arc<Mutex<CommitLook>>,
    hints: Addr<HintStoreActor>,
    merkle: Addr<MerkleActor>,
) {
    let mut looks = interval(LOOK_EVERY);
    let mut told = (Pressure::default(), 0);
    loop {
        looks.tick().await;
        let Some(store) = store.upgrade() else { return };
        let look = store.look_at_queue();
        drop(store);
        *latest.lock().unwrap_or_else(PoisonError::into_inner) = look;
        let pressure = pressure(Duration::from_micros(look.slowest_us));
        if told.0 != pressure.0 {
            hints.do_send(PressureChanged(pressure.0));
        }
        if told.1 != pressure.1 {
            merkle.do_send(Tell::Pressure(pressure.1));
        }
        told = pressure;
    }
}

/// How much repairs have to give way when the slowest commit took so long.
fn pressure(slowest: Duration) -> (Pressure, u8) {
    let word = match slowest {
        slowest if slowest < LATE => Pressure::Calm,
        slowest if slowest < VERY_LATE => Pressure::Raised,
        _ => Pressure::Heavy,
    };
    let share = slowest.as_secs_f64() / VERY_LATE.as_secs_f64();
    let percent = if slowest < LATE / 4 { 0.0 } else { (share * 100.0).min(100.0) };
    (word, percent as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repairs_give_way_the_later_commits_are() {
        let at = |ms| pressure(Duration::from_millis(ms));
        assert_eq!(at(0), (Pressure::Calm, 0));
        assert_eq!(at(4), (Pressure::Calm, 0));
        assert_eq!(at(100), (Pressure::Raised, 50));
        assert_eq!(at(5_000), (Pressure::Heavy, 100));
    }
}
