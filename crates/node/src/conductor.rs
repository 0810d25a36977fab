//! Passes on what membership says: to the arbiters, to the log, to whoever waits for the node.
//!
//! One event after the other, in their order. A new cluster state goes out in steps, each of which has ended
//! when the next begins:
//! - what is left from former times of what the node takes in under it is cleared away;
//! - every arbiter makes the vnodes that the node holds under it, so that no request finds one missing that
//!   it was right to ask;
//! - the arbiters act under it;
//! - the steward's actors act under it: what they say of a tree under a state is said of vnodes that refuse
//!   whatever is of an older one;
//! - what the node doesn't hold under it is deleted, of which nobody here shows anything any more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use actix::Recipient;
use anello_gossip::{Condition, MembershipEvent};
use anello_protocol::{cluster::ClusterState, id::NodeId};
use anello_ring::view::View;
use anello_transport::Peers;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    arbiter::Order,
    readiness::Readiness,
    rocks::{RocksStore, clear_joining},
    routes::Routes,
    status::Status,
};

/// Before the store is asked once more for what it has refused or failed to do.
const PAUSE: Duration = Duration::from_millis(250);

/// See the head of this file.
pub(crate) struct Conductor {
    pub(crate) node: NodeId,
    pub(crate) arbiters: Vec<mpsc::UnboundedSender<Order>>,
    pub(crate) steward: mpsc::UnboundedSender<Order>,
    /// The connections of each.
    pub(crate) peers: Vec<Peers>,
    pub(crate) store: Arc<RocksStore>,
    pub(crate) routes: Routes,
    pub(crate) readiness: Readiness,
    pub(crate) status: Arc<Status>,
    pub(crate) failure: Arc<watch::Sender<Option<String>>>,
    /// The agreed state that the vnodes act under.
    pub(crate) views: watch::Sender<Option<Arc<View>>>,
    /// The other members whose addresses the peers know.
    pub(crate) known: BTreeSet<NodeId>,
    pub(crate) gossip: Recipient<Condition>,
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
        self.gossip.do_send(Condition::Unfit(reason));
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
        self.clear(&view).await;
        let held = Arc::new(view.held_partitions(&self.node));
        carried_out(&self.arbiters, |done| Order::Hold(Arc::clone(&held), done)).await;
        let (done, judged) = oneshot::channel();
        if self.steward.send(Order::Judge(Arc::clone(&view), done)).is_ok()
            && let Ok(reason) = judged.await
        {
            self.unfit(reason);
        }
        // Before the first vnode goes: who asks for it then is told that there is a newer state.
        self.routes.set_epoch(state.epoch);
        carried_out(&self.arbiters, |done| Order::Act(Arc::clone(&view), done)).await;
        let steward = std::slice::from_ref(&self.steward);
        carried_out(steward, |done| Order::Act(Arc::clone(&view), done)).await;
        self.views.send_replace(Some(Arc::clone(&view)));
        self.status.acting(state.epoch, held.len());
        self.gossip.do_send(Condition::Acting);
        let members: Vec<_> = state.members.keys().map(NodeId::as_str).collect();
        tracing::info!(
            epoch = state.epoch.0,
            vnodes = held.len(),
            "acting under a new cluster state, members {}",
            members.join(", ")
        );
        let keyspaces = state.keyspaces.values().map(|keyspace| keyspace.id).collect();
        self.store.sweep(&keyspaces, state.epoch);
        self.store.release(view, &self.node);
    }

    /// Clears what is left from former times of what the node takes in under a view. It can't act under the
    /// view before that is done.
    async fn clear(&self, view: &Arc<View>) {
        let (store, seen, node) = (Arc::clone(&self.store), Arc::clone(view), self.node.clone());
        let look = move || {
            store.keep_all();
            store.joining(&seen, &node)
        };
        let joining = Arc::new(self.insist(look).await);
        if joining.is_empty() {
            return;
        }
        // A vnode may believe that it holds what goes.
        let partitions = Arc::new(joining.partitions());
        carried_out(&self.arbiters, |done| Order::End(Arc::clone(&partitions), done)).await;
        let store = Arc::downgrade(&self.store);
        self.insist(move || clear_joining(&store, &joining)).await;
    }

    /// Has the store do something on a thread where it may wait, until it succeeds.
    async fn insist<T: Send + 'static>(
        &self,
        act: impl Fn() -> Result<T, String> + Clone + Send + 'static,
    ) -> T {
        loop {
            match spawn_blocking(act.clone()).await {
                Ok(Ok(done)) => return done,
                Ok(Err(reason)) => {
                    tracing::warn!("can't go over to a new cluster state, trying again: {reason}");
                }
                // The node ends, or a panic has been reported where it happened: it can't be gone on from.
                Err(_) => std::future::pending().await,
            }
            sleep(PAUSE).await;
        }
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
        for thread in self.arbiters.iter().chain([&self.steward]) {
            // One that has ended needs no orders.
            let _ = thread.send(order());
        }
    }
}

/// Gives threads an order, and waits until all of them have carried it out.
async fn carried_out(
    threads: &[mpsc::UnboundedSender<Order>],
    order: impl Fn(oneshot::Sender<()>) -> Order,
) {
    let mut waiting = Vec::new();
    for thread in threads {
        let (done, carried_out) = oneshot::channel();
        // One that has ended drops it.
        let _ = thread.send(order(done));
        waiting.push(carried_out);
    }
    for carried_out in waiting {
        let _ = carried_out.await;
    }
}

#[cfg(test)]
mod tests;
