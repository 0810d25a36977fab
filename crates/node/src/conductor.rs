//! Passes on what membership says: to the arbiters, to the log, to whoever waits for the node.
//!
//! One event after the other, in their order. A new cluster state goes out in two steps: first every
//! arbiter makes the vnodes that the node holds under it, then all act under it, so that no request finds
//! a vnode missing that it was right to ask.

use std::{collections::BTreeSet, sync::Arc};

use actix::Addr;
use anello_gossip::{GossipActor, MembershipEvent, Unfit};
use anello_protocol::{cluster::ClusterState, id::NodeId};
use anello_ring::view::View;
use anello_transport::Peers;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{arbiter::Order, readiness::Readiness, rocks::RocksStore, status::Status};

/// See the head of this file.
pub(crate) struct Conductor {
    pub(crate) node: NodeId,
    /// The arbiters and the steward.
    pub(crate) threads: Vec<mpsc::UnboundedSender<Order>>,
    pub(crate) steward: mpsc::UnboundedSender<Order>,
    /// The connections of each.
    pub(crate) peers: Vec<Peers>,
    pub(crate) store: Arc<RocksStore>,
    pub(crate) readiness: Readiness,
    pub(crate) status: Arc<Status>,
    pub(crate) failure: Arc<watch::Sender<Option<String>>>,
    /// The agreed state that the vnodes act under.
    pub(crate) views: watch::Sender<Option<Arc<View>>>,
    /// The other members whose addresses the peers know.
    pub(crate) known: BTreeSet<NodeId>,
    pub(crate) gossip: Addr<GossipActor>,
    /// Whether what the node holds must be shown to nobody.
    pub(crate) is_unfit: bool,
}

impl Conductor {
    /// Passes events on until membership ends.
    pub(crate) async fn run(
        mut self,
        mut events: mpsc::UnboundedReceiver<MembershipEvent>,
        mut unfit: mpsc::UnboundedReceiver<Option<String>>,
    ) {
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                Some(reason) = unfit.recv() => {
                    self.unfit(reason);
                    continue;
                }
            };
            let Some(event) = event else { return };
            match event {
                MembershipEvent::ClusterChanged(state) => self.cluster_changed(state).await,
                // Membership has logged it, with its reason.
                MembershipEvent::Reachability { node, reachable, .. } => {
                    self.tell(|| Order::Reachability(node.clone(), reachable));
                }
                MembershipEvent::LostDisk => {
                    self.tell(|| Order::Lost);
                    // The vnodes are told before they act under any state.
                    self.tell(|| Order::Quarantine(true));
                }
                MembershipEvent::Ready => self.readiness.set(true),
                // Of the end that follows the daemon hears by itself.
                MembershipEvent::NotReady(_) | MembershipEvent::Left => self.readiness.set(false),
                MembershipEvent::Refused(reason) => {
                    self.readiness.set(false);
                    self.failure.send_replace(Some(reason));
                }
            }
        }
    }

    /// What the node holds must be shown to nobody, for that reason, or it may be.
    fn unfit(&mut self, reason: Option<String>) {
        if reason.is_some() != self.is_unfit {
            self.is_unfit = reason.is_some();
            match &reason {
                Some(reason) => tracing::warn!("serving nothing: {reason}"),
                None => tracing::info!("in step with the other replicas again"),
            }
            self.tell(|| Order::Quarantine(reason.is_some()));
        }
        self.status.quarantined(reason.clone());
        self.gossip.do_send(Unfit(reason));
    }

    async fn cluster_changed(&mut self, state: Arc<ClusterState>) {
        let view = match View::of(Arc::clone(&state)) {
            Ok(view) => Arc::new(view),
            Err(error) => {
                // Membership checks what it is told, so this is a state that no version of it makes.
                let reason = format!("no ring under cluster state {}: {error}", state.epoch);
                self.failure.send_replace(Some(reason));
                return;
            }
        };
        self.know(&state);
        let held = Arc::new(view.held_partitions(&self.node));
        let mut making = Vec::new();
        self.tell(|| {
            let (done, made) = oneshot::channel();
            making.push(made);
            Order::Hold(Arc::clone(&held), done)
        });
        for made in making {
            // An arbiter that has ended has no vnodes to make.
            let _ = made.await;
        }
        let (done, judged) = oneshot::channel();
        if self.steward.send(Order::Judge(Arc::clone(&view), done)).is_ok()
            && let Ok(reason) = judged.await
        {
            self.unfit(reason);
        }
        self.tell(|| Order::Act(Arc::clone(&view)));
        self.views.send_replace(Some(view));
        self.status.acting(state.epoch, held.len());
        let members: Vec<_> = state.members.keys().map(NodeId::as_str).collect();
        tracing::info!(
            epoch = state.epoch.0,
            vnodes = held.len(),
            "acting under a new cluster state, members {}",
            members.join(", ")
        );
        let keyspaces = state.keyspaces.values().map(|keyspace| keyspace.id).collect();
        self.store.sweep(&keyspaces, state.epoch);
    }

    /// Keeps the arbiters' peers what the cluster state says.
    fn know(&mut self, state: &ClusterState) {
        let members = state.members.values().filter(|member| member.id != self.node);
        let next: BTreeSet<_> = members.clone().map(|member| member.id.clone()).collect();
        for peers in &self.peers {
            self.known.difference(&next).for_each(|gone| peers.forget(gone));
            members.clone().for_each(|member| peers.know(&member.id, &member.quic));
        }
        self.known = next;
    }

    /// Tells every thread.
    fn tell(&self, mut order: impl FnMut() -> Order) {
        for thread in &self.threads {
            // One that has ended needs no orders.
            let _ = thread.send(order());
        }
    }
}
