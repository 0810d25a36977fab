//! What membership may ask of the node's vnodes: of which keyspaces they hold data, and to hold still.

use std::sync::Arc;

use anello_gossip::{HoldingDone, Holdings};
use tokio::sync::{mpsc, oneshot};

use crate::{arbiter::Order, rocks::RocksStore};

/// The vnodes of all arbiters, the hint store, and the store below them.
pub(crate) struct NodeHoldings {
    pub(crate) store: Arc<RocksStore>,
    /// The arbiters and the steward.
    pub(crate) threads: Vec<mpsc::UnboundedSender<Order>>,
}

impl Holdings for NodeHoldings {
    fn inspect(&self, done: HoldingDone) {
        // Kept in memory, so there is nothing to wait for.
        done(Ok(self.store.held_keyspaces()));
    }

    fn freeze(&self, done: HoldingDone) {
        let store = Arc::clone(&self.store);
        let mut freezing = Vec::new();
        for thread in &self.threads {
            let (quiet, is_quiet) = oneshot::channel();
            // A thread that has ended writes nothing any more.
            if thread.send(Order::Freeze(quiet)).is_ok() {
                freezing.push(is_quiet);
            }
        }
        actix::spawn(async move {
            for is_quiet in freezing {
                // It was thawed before it was quiet, or ended: the vote is over for this node.
                if is_quiet.await.is_err() {
                    return;
                }
            }
            done(Ok(store.held_keyspaces()));
        });
    }

    fn thaw(&self) {
        for thread in &self.threads {
            let _ = thread.send(Order::Thaw);
        }
    }
}
