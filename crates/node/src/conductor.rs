//! Passes on what membership says: to the arbiters, to the log, to whoever waits for the node.
//!
//! One event after the other, in their order. A new cluster state goes out in two steps: first every
//! arbiter makes the vnodes that the node holds under it, then all act under it, so that no request finds
//! a vnode missing that it was right to ask.

use std::{collections::BTreeSet, sync::Arc};

use anello_gossip::MembershipEvent;
use anello_protocol::{
    cluster::ClusterState,
    id::{NodeId, PartitionId},
};
use anello_ring::view::View;
use anello_transport::Peers;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{arbiter::Order, readiness::Readiness, rocks::RocksStore, status::Status};

/// See the head of this file.
pub(crate) struct Conductor {
    pub(crate) node: NodeId,
    pub(crate) arbiters: Vec<mpsc::UnboundedSender<Order>>,
    /// The connections of each arbiter.
    pub(crate) peers: Vec<Peers>,
    pub(crate) store: Arc<RocksStore>,
    pub(crate) readiness: Readiness,
    pub(crate) status: Arc<Status>,
    pub(crate) failure: Arc<watch::Sender<Option<String>>>,
    /// The agreed state that the vnodes act under.
    pub(crate) views: watch::Sender<Option<Arc<View>>>,
    /// The other members whose addresses the peers know.
    pub(crate) known: BTreeSet<NodeId>,
}

impl Conductor {
    /// Passes events on until membership ends.
    pub(crate) async fn run(mut self, mut events: mpsc::UnboundedReceiver<MembershipEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                MembershipEvent::ClusterChanged(state) => self.cluster_changed(state).await,
                // Membership has logged it, with its reason.
                MembershipEvent::Reachability { node, reachable, .. } => {
                    self.tell(|| Order::Reachability(node.clone(), reachable));
                }
                MembershipEvent::Ready => self.readiness.set(true),
                MembershipEvent::NotReady(_) => self.readiness.set(false),
                MembershipEvent::Refused(reason) => {
                    self.readiness.set(false);
                    self.failure.send_replace(Some(reason));
                }
            }
        }
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
        let held = Arc::new(held_partitions(&view, &self.node));
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

    /// Tells every arbiter.
    fn tell(&self, mut order: impl FnMut() -> Order) {
        for arbiter in &self.arbiters {
            // One that has ended needs no orders.
            let _ = arbiter.send(order());
        }
    }
}

/// The partitions of which a node holds a replica in some keyspace.
fn held_partitions(view: &View, node: &NodeId) -> BTreeSet<PartitionId> {
    let names = view.cluster().keyspaces.keys();
    let replications: BTreeSet<_> = names
        .filter_map(|name| view.keyspace(name))
        .map(|keyspace| &keyspace.replication)
        .collect();
    let held = replications.iter().flat_map(|replication| view.ring().vnodes_of(node, replication));
    held.collect()
}
