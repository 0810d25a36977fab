//! A node's disk: what is synced survives a crash, what is not may be lost.
//!
//! Writes are kept in the order in which they came, in batches: those that wait when a sync begins are
//! durable when it ends (group commit). A crash keeps some first part of what waited and loses the rest;
//! nobody was told of either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anello_gossip::Ticket;
use anello_protocol::{
    id::{KeyspaceId, PartitionId},
    key::DataKey,
    version::{Version, Versions},
};
use anello_replica::{
    replica::CommitNumber,
    store::{Commit, VnodeRecord},
};

use crate::rng::Rng;

/// Something to be kept.
#[derive(Clone, Debug)]
pub enum DiskWrite {
    /// A vnode's commit.
    Commit(CommitNumber, Commit),
    /// The membership record.
    Record(Ticket, Vec<u8>),
}

/// Versions that have become durable.
pub type Fresh = (DataKey, Version);

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Disk {
    /// Whether too much waits for it, so that of the vnodes' commits it takes only some.
    pub is_full: bool,
    /// Whether what it remembers of vnodes can be read only sometimes.
    pub is_unreadable: bool,
    data: BTreeMap<DataKey, Versions>,
    vnodes: BTreeMap<PartitionId, VnodeRecord>,
    record: Option<Vec<u8>>,
    waiting: VecDeque<DiskWrite>,
    /// How many of those that wait the sync under way is for.
    syncing: usize,
}

impl Disk {
    /// What is durable of a key.
    pub fn read(&self, key: &DataKey) -> Versions {
        self.data.get(key).cloned().unwrap_or_default()
    }

    /// What a vnode asked to be remembered.
    pub fn vnode(&self, partition: PartitionId) -> Option<VnodeRecord> {
        self.vnodes.get(&partition).copied()
    }

    /// The membership record.
    pub fn record(&self) -> Option<&[u8]> {
        self.record.as_deref()
    }

    /// Of which keyspaces there is data, commits under way included.
    pub fn keyspaces(&self) -> BTreeSet<KeyspaceId> {
        let waiting = self.waiting.iter().filter_map(|write| match write {
            DiskWrite::Commit(_, commit) => Some(commit.key.keyspace),
            DiskWrite::Record(..) => None,
        });
        self.data.keys().map(|key| key.keyspace).chain(waiting).collect()
    }

    /// Takes a write in.
    pub fn push(&mut self, write: DiskWrite) {
        self.waiting.push_back(write);
    }

    /// Begins a sync of what waits, unless one is under way or nothing waits. Says whether it did.
    pub fn begin_sync(&mut self) -> bool {
        let begins = self.syncing == 0 && !self.waiting.is_empty();
        if begins {
            self.syncing = self.waiting.len();
        }
        begins
    }

    /// The sync under way has ended: what it was for, and which versions are durable by it.
    pub fn end_sync(&mut self) -> (Vec<DiskWrite>, Vec<Fresh>) {
        let batch = std::mem::take(&mut self.syncing);
        self.keep(batch)
    }

    /// The sync under way has failed: its data commits are lost, or kept, and nobody can tell. The
    /// membership record has no such trouble.
    pub fn fail_sync(&mut self, is_kept: bool) -> (Vec<DiskWrite>, Vec<Fresh>) {
        let batch = std::mem::take(&mut self.syncing);
        if is_kept {
            return self.keep(batch);
        }
        let batch: Vec<DiskWrite> = self.waiting.drain(..batch).collect();
        for write in &batch {
            if let DiskWrite::Record(_, bytes) = write {
                self.record = Some(bytes.clone());
            }
        }
        (batch, Vec::new())
    }

    /// The machine crashes.
    pub fn crash(&mut self, rng: &mut Rng) -> Vec<Fresh> {
        let kept = rng.within(0..self.waiting.len() as u64 + 1) as usize;
        let kept = if rng.chance(500) { kept } else { 0 };
        let (_, fresh) = self.keep(kept);
        self.waiting.clear();
        self.syncing = 0;
        fresh
    }

    fn keep(&mut self, count: usize) -> (Vec<DiskWrite>, Vec<Fresh>) {
        let batch: Vec<DiskWrite> = self.waiting.drain(..count).collect();
        let mut fresh = Vec::new();
        for write in &batch {
            match write {
                DiskWrite::Commit(_, commit) => {
                    let held = self.data.entry(commit.key.clone()).or_default();
                    for version in commit.versions.iter() {
                        if !held.iter().any(|known| known == version) {
                            fresh.push((commit.key.clone(), version.clone()));
                        }
                    }
                    held.clone_from(&commit.versions);
                    if held.is_empty() {
                        self.data.remove(&commit.key);
                    }
                    if let Some(record) = commit.vnode_record {
                        self.vnodes.insert(commit.partition, record);
                    }
                }
                DiskWrite::Record(_, bytes) => self.record = Some(bytes.clone()),
            }
        }
        (batch, fresh)
    }
}
