//! Brings what can be read of damaged stores back, while the node serves.
//!
//! It is handed to the node's own vnodes as another replica would hand it over: they join it with what they
//! hold, so what was written meanwhile stays, and doing it twice changes nothing. A start that finds it
//! unfinished begins it again. What can't be read, or is of partitions that the node doesn't hold any
//! more, is left to the other replicas.

use std::{
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use anello_protocol::{
    id::NodeId,
    key::DataKey,
    message::replica::{Refusal, StoreVersions},
    version::Versions,
};
use anello_ring::view::View;
use anello_transport::{ActorRef, CallContext};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::rocks::{Replacement, RocksStore, Salvaged, Wreck};

/// How long one key may take.
const CALL_MAX: Duration = Duration::from_secs(2);
/// Before what was refused is offered again: doubled each time, up to the most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Between two steps, as part of what the step took: requests come first.
const REST: u32 = 1;

/// See the head of this file.
pub(crate) struct Salvage {
    pub(crate) node: NodeId,
    pub(crate) data_dir: PathBuf,
    pub(crate) store: Weak<RocksStore>,
    pub(crate) vnodes: ActorRef<StoreVersions>,
    /// The agreed state that the node acts under.
    pub(crate) views: watch::Receiver<Option<Arc<View>>>,
}

/// What came of one damaged store.
#[derive(Debug, Default)]
struct Account {
    /// Keys that were handed to their vnodes.
    keys: u64,
    /// Keys that the node doesn't hold any more.
    foreign: u64,
    /// Places that could not be read.
    unreadable: u64,
}

impl Salvage {
    /// Salvages one damaged store after the other.
    pub(crate) async fn run(mut self, mut replacement: Replacement) {
        while let Some(name) = replacement.damaged.first().cloned() {
            let path = self.data_dir.join(&name);
            let opened = spawn_blocking({
                let path = path.clone();
                move || Wreck::open(&path)
            });
            match opened.await {
                Ok(Ok(wreck)) => {
                    let Some(account) = self.salvage(wreck).await else { return };
                    tracing::info!(
                        keys = account.keys,
                        unreadable = account.unreadable,
                        foreign = account.foreign,
                        "salvaged what could be read of {}; the node does not need it any more",
                        path.display()
                    );
                }
                Ok(Err(reason)) => {
                    tracing::error!("nothing can be salvaged from {}: {reason}", path.display());
                }
                // The node ends.
                Err(_) => return,
            }
            replacement.damaged.remove(0);
            let Some(store) = self.store.upgrade() else { return };
            let noted = replacement.clone();
            let noted = spawn_blocking(move || store.note_replacement(&noted)).await;
            if let Ok(Err(reason)) = noted {
                tracing::warn!("the next start salvages {} again: {reason}", path.display());
            }
        }
    }

    /// Nothing if the node ends.
    async fn salvage(&mut self, wreck: Wreck) -> Option<Account> {
        let wreck = Arc::new(wreck);
        let mut account = Account::default();
        let mut next = Some(Vec::new());
        while let Some(from) = next {
            let begun = Instant::now();
            let reader = Arc::clone(&wreck);
            let read = spawn_blocking(move || reader.step(&from)).await;
            let Salvaged { entries, unreadable, next: further } = read.ok()?;
            account.unreadable += unreadable;
            self.hand_over(entries, &mut account).await?;
            next = further;
            sleep(begun.elapsed() * REST).await;
        }
        Some(account)
    }

    /// Hands entries to their vnodes until each is taken, or not the node's.
    async fn hand_over(
        &mut self,
        mut entries: Vec<(DataKey, Versions)>,
        account: &mut Account,
    ) -> Option<()> {
        let mut pause = PAUSE;
        loop {
            let view = self.views.wait_for(Option::is_some).await.ok()?.clone()?;
            let calls: Vec<_> = entries
                .drain(..)
                .filter_map(|(key, versions)| {
                    let message = self.message(&view, &key, &versions);
                    account.foreign += u64::from(message.is_none());
                    let call = self.vnodes.call(message?, CallContext::within(CALL_MAX));
                    Some((key, versions, call))
                })
                .collect();
            for (key, versions, call) in calls {
                match call.await {
                    Ok(Ok(_)) => account.keys += 1,
                    Ok(Err(Refusal::NotOwner)) => account.foreign += 1,
                    // It passes: the members vote, the disk is full, the vnode is busy.
                    Ok(Err(_)) | Err(_) => entries.push((key, versions)),
                }
            }
            if entries.is_empty() {
                return Some(());
            }
            // A node that ends has closed its store.
            self.store.upgrade()?;
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// What the vnode is asked; nothing if the node doesn't hold the key under this state.
    fn message(&self, view: &View, key: &DataKey, versions: &Versions) -> Option<StoreVersions> {
        let cluster = view.cluster();
        let keyspace = cluster.keyspaces.values().find(|it| it.id == key.keyspace)?;
        let partition = key.hash.partition(cluster.partitions);
        let message = || StoreVersions {
            epoch: view.epoch(),
            key: key.clone(),
            rule: keyspace.config.conflict,
            versions: versions.clone(),
        };
        view.holds(&self.node, key.keyspace, partition).then(message)
    }
}
