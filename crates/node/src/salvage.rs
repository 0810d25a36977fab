//! Brings what can be read of damaged stores back, while the node serves.
//!
//! It is handed to the node's own vnodes as another replica would hand it over: they join it with what they
//! hold, so what was written meanwhile stays, and doing it twice changes nothing. A start that finds it
//! unfinished begins it again. What can't be read, or is of partitions that the node doesn't hold any
//! more, is left to the other replicas.
//!
//! Of a store whose log could not be read to its end, a deletion may be lost that the replicas have long
//! agreed to forget, with the value that it covered come to light again. Such a deletion is older than its
//! grace, and what it covered older still: of that age nothing is handed over, unless no other replica has it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
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
    sync::{oneshot, watch},
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
    /// Keys that may have been deleted and forgotten since: left to the other replicas.
    stale: u64,
    /// Places that could not be read.
    unreadable: u64,
}

impl Account {
    fn log(&self, path: &Path) {
        let Self { keys, foreign, stale, unreadable } = self;
        let path = path.display();
        if *stale > 0 {
            tracing::warn!(
                "{stale} keys of {path} were left to the other replicas: its log is damaged, and what was \
                 written before the tombstone grace may have been deleted since; they are still in there"
            );
        }
        tracing::info!(
            keys,
            unreadable,
            foreign,
            stale,
            "salvaged what could be read of {path}; the node does not need it any more"
        );
    }
}

/// What becomes of an entry.
enum Fate {
    /// Its vnode is asked to join it.
    Offered(StoreVersions),
    /// The node doesn't hold it.
    Foreign,
    /// It may have been deleted and forgotten since.
    Stale,
}

impl Salvage {
    /// Salvages one damaged store after the other. Whether that is all done, and no later start does any of
    /// it again.
    pub(crate) async fn run(mut self, mut replacement: Replacement) -> bool {
        while let Some(name) = replacement.damaged.first().cloned() {
            let path = self.data_dir.join(&name);
            let opened = spawn_blocking({
                let path = path.clone();
                move || Wreck::open(&path)
            });
            match opened.await {
                Ok(Ok(wreck)) => {
                    let Some(account) = self.salvage(wreck).await else { return false };
                    account.log(&path);
                }
                Ok(Err(reason)) => {
                    tracing::error!("nothing can be salvaged from {}: {reason}", path.display());
                }
                // The node ends, or a panic has been reported where it happened.
                Err(_) => return false,
            }
            replacement.damaged.remove(0);
            if self.note(&replacement).await.is_none() {
                return false;
            }
        }
        true
    }

    /// Makes durable what is left to be done. Nothing if the node ends.
    async fn note(&self, replacement: &Replacement) -> Option<()> {
        let mut pause = PAUSE;
        loop {
            let (told, noted) = oneshot::channel();
            // Nobody waits for it any more if the node ends.
            let done = Box::new(move |outcome| drop(told.send(outcome)));
            self.store.upgrade()?.note_replacement(replacement, done);
            match noted.await.ok()? {
                Ok(()) => return Some(()),
                Err(reason) => {
                    tracing::warn!("can't note what was salvaged, trying again: {reason}")
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Nothing if the node ends, or a reader has panicked.
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
            self.hand_over(entries, wreck.is_whole(), &mut account).await?;
            next = further;
            sleep(begun.elapsed() * REST).await;
        }
        Some(account)
    }

    /// Hands entries to their vnodes until each is taken, or not the node's.
    async fn hand_over(
        &mut self,
        mut entries: Vec<(DataKey, Versions)>,
        is_whole: bool,
        account: &mut Account,
    ) -> Option<()> {
        let mut pause = PAUSE;
        loop {
            let view = self.views.wait_for(Option::is_some).await.ok()?.clone()?;
            let calls: Vec<_> = entries
                .drain(..)
                .filter_map(|(key, versions)| {
                    match self.fate(&view, &key, &versions, is_whole) {
                        Fate::Offered(message) => {
                            let call = self.vnodes.call(message, CallContext::within(CALL_MAX));
                            return Some((key, versions, call));
                        }
                        Fate::Foreign => account.foreign += 1,
                        Fate::Stale => account.stale += 1,
                    }
                    None
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

    /// What becomes of an entry under this state, of a store whose log could be read to its end or not.
    fn fate(&self, view: &View, key: &DataKey, versions: &Versions, is_whole: bool) -> Fate {
        let Some(keyspace) = view.keyspace_of(key.keyspace) else { return Fate::Foreign };
        let placement = view.placement(keyspace, key.hash);
        if placement.index_of(&self.node).is_none() {
            return Fate::Foreign;
        }
        let is_sole = placement.replicas.len() == 1;
        let grace = Duration::from_secs(keyspace.config.tombstone_grace_s);
        let written = Duration::from_millis(versions.latest().wall_ms());
        if !is_whole && !is_sole && wall_clock().saturating_sub(written) >= grace {
            return Fate::Stale;
        }
        Fate::Offered(StoreVersions {
            epoch: view.epoch(),
            key: key.clone(),
            rule: keyspace.config.conflict,
            versions: versions.clone(),
        })
    }
}

/// Since 1970. Before that nothing is old.
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
