//! A node's disk: what is synced survives a crash, what is not may be lost.
//!
//! Writes are kept in the order in which they came, in batches: those that wait when a sync begins are
//! durable when it ends (group commit). A crash keeps some first part of what waited and loses the rest;
//! nobody was told of either. What a commit changes besides the data, its leaf above all, changes with it
//! or not at all ([`trees`]). Hints are on the same disk ([`shelf`]).

mod shelf;
mod trees;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use anello_antientropy::quarantine::LastAlive;
use anello_gossip::Ticket;
use anello_protocol::{
    id::{Epoch, KeyspaceId, NodeId, PartitionId},
    key::DataKey,
    version::{Version, Versions},
};
use anello_replica::{
    hints::{
        self,
        store::{Hint, HintChange},
    },
    replica::CommitNumber,
    store::{Commit, VnodeRecord},
};

pub use trees::{Tree, exact_leaves};

use self::trees::Trees;
use crate::rng::Rng;

/// Something to be kept.
#[derive(Clone, Debug)]
pub enum DiskWrite {
    /// A vnode's commit.
    Commit(CommitNumber, Commit),
    /// The hint store's change.
    Hint(hints::CommitNumber, HintChange),
    /// The membership record.
    Record(Ticket, Vec<u8>),
    /// That the node is alive.
    Alive(LastAlive),
    /// That the node lost what was on the disk before this one.
    Lost,
    /// That of data nothing but these trees is held any more.
    Release(BTreeSet<Tree>),
}

/// What a sync has made durable.
#[derive(Clone, Debug)]
pub enum Fresh {
    /// A version, as data.
    Version(DataKey, Version),
    /// A version, as a hint for a node.
    Hint(NodeId, DataKey, Version),
    /// A key was forgotten, of which these versions were held.
    Purged(DataKey, Versions),
}

/// What is durable.
#[derive(Debug, Default)]
struct Kept {
    data: BTreeMap<DataKey, Versions>,
    vnodes: BTreeMap<PartitionId, VnodeRecord>,
    hints: BTreeMap<(NodeId, DataKey), Hint>,
    hint_record: Option<VnodeRecord>,
    record: Option<Vec<u8>>,
    alive: Option<LastAlive>,
    /// For which change of the ring trees were last emptied, to be filled.
    emptied: BTreeMap<Tree, Epoch>,
}

/// A copy of the data of a disk at some moment, as backups are made.
#[derive(Clone, Debug)]
pub struct Backup {
    data: BTreeMap<DataKey, Versions>,
    alive: Option<LastAlive>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Disk {
    /// Whether too much waits for it, so that of the vnodes' commits it takes only some.
    pub is_full: bool,
    /// Whether what it remembers of vnodes can be read only sometimes.
    pub is_unreadable: bool,
    /// Whether its data was put back from a copy, and no quarantine for that has ended yet.
    pub was_restored: bool,
    /// Whether it is another one than that to which the node acknowledged writes, and no quarantine for that
    /// has ended yet.
    pub is_lost: bool,
    partitions: u32,
    kept: Kept,
    trees: Mutex<Trees>,
    waiting: VecDeque<DiskWrite>,
    /// How many of those that wait the sync under way is for.
    syncing: usize,
}

impl Disk {
    /// An empty disk of a node, in a cluster of so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self {
            is_full: false,
            is_unreadable: false,
            was_restored: false,
            is_lost: false,
            partitions,
            kept: Kept::default(),
            trees: Mutex::default(),
            waiting: VecDeque::new(),
            syncing: 0,
        }
    }

    /// What is durable of a key.
    pub fn read(&self, key: &DataKey) -> Versions {
        self.kept.data.get(key).cloned().unwrap_or_default()
    }

    /// All that is durable.
    pub fn data(&self) -> &BTreeMap<DataKey, Versions> {
        &self.kept.data
    }

    /// What a vnode asked to be remembered.
    pub fn vnode(&self, partition: PartitionId) -> Option<VnodeRecord> {
        self.kept.vnodes.get(&partition).copied()
    }

    /// The membership record.
    pub fn record(&self) -> Option<&[u8]> {
        self.kept.record.as_deref()
    }

    /// Damages the membership record.
    pub fn damage_record(&mut self, bytes: Vec<u8>) {
        self.kept.record = Some(bytes);
    }

    /// When the node was last alive.
    pub fn alive(&self) -> Option<LastAlive> {
        self.kept.alive
    }

    /// Of which keyspaces there is data or a hint, commits under way included.
    pub fn keyspaces(&self) -> BTreeSet<KeyspaceId> {
        let waiting = self.waiting.iter().filter_map(|write| match write {
            DiskWrite::Commit(_, commit) => Some(commit.key.keyspace),
            DiskWrite::Hint(_, change) => Some(change.key.keyspace),
            DiskWrite::Record(..)
            | DiskWrite::Alive(_)
            | DiskWrite::Lost
            | DiskWrite::Release(_) => None,
        });
        let data = self.kept.data.keys().map(|key| key.keyspace);
        let hints = self.kept.hints.keys().map(|(_, key)| key.keyspace);
        data.chain(hints).chain(waiting).collect()
    }

    /// A copy of its data.
    pub fn backup(&self) -> Backup {
        Backup { data: self.kept.data.clone(), alive: self.kept.alive }
    }

    /// Puts a copy back in place of all data, as an operator does it: what vnodes remember of the dots that
    /// they issued, and hints, are not put back, and the store is marked.
    pub fn restore(&mut self, backup: Backup) {
        self.kept.data = backup.data;
        self.kept.alive = backup.alive;
        self.kept.vnodes.clear();
        self.kept.hints.clear();
        self.kept.hint_record = None;
        self.was_restored = true;
        self.rebuild_trees();
    }

    /// Takes the disk out, and puts an empty one in.
    pub fn wipe(&mut self) {
        self.kept = Kept::default();
        self.was_restored = false;
        self.is_lost = false;
        self.rebuild_trees();
    }

    /// Removes whatever a tree holds from former times: it is about to be filled in a change of the ring. Does
    /// so once a change.
    pub fn empty(&mut self, tree: Tree, change: Epoch) {
        if self.kept.emptied.insert(tree, change) == Some(change) {
            return;
        }
        let partitions = self.partitions;
        self.kept.data.retain(|key, _| (key.keyspace, key.hash.partition(partitions)) != tree);
        self.forget_trees(|it| *it == tree);
    }

    /// Drops what is in none of these trees.
    fn release(&mut self, held: &BTreeSet<Tree>) {
        let partitions = self.partitions;
        let tree = |key: &DataKey| (key.keyspace, key.hash.partition(partitions));
        self.kept.data.retain(|key, _| held.contains(&tree(key)));
        self.forget_trees(|tree| !held.contains(tree));
    }

    /// The keys that it holds of other trees than these.
    pub fn strays(&self, is_held: impl Fn(Tree) -> bool) -> Vec<DataKey> {
        let tree = |key: &DataKey| (key.keyspace, key.hash.partition(self.partitions));
        self.kept.data.keys().filter(|key| !is_held(tree(key))).cloned().collect()
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

    /// The sync under way has ended: what it was for, and what is durable by it.
    pub fn end_sync(&mut self) -> (Vec<DiskWrite>, Vec<Fresh>) {
        let batch = std::mem::take(&mut self.syncing);
        self.keep(batch)
    }

    /// The sync under way has failed: its data commits are lost, or kept, and nobody can tell. The
    /// membership record has no such trouble.
    pub fn fail_sync(&mut self, is_kept: bool) -> (Vec<DiskWrite>, Vec<Fresh>) {
        let count = std::mem::take(&mut self.syncing);
        let (batch, fresh) = if is_kept {
            self.keep(count)
        } else {
            let batch: Vec<DiskWrite> = self.waiting.drain(..count).collect();
            for write in &batch {
                if let DiskWrite::Record(_, bytes) = write {
                    self.kept.record = Some(bytes.clone());
                }
            }
            (batch, Vec::new())
        };
        for write in &batch {
            if let DiskWrite::Commit(_, commit) = write {
                self.distrust(commit);
            }
        }
        (batch, fresh)
    }

    /// The machine crashes.
    pub fn crash(&mut self, rng: &mut Rng) -> Vec<Fresh> {
        let kept = rng.within(0..self.waiting.len() as u64 + 1) as usize;
        let kept = if rng.chance(500) { kept } else { 0 };
        let (_, fresh) = self.keep(kept);
        self.waiting.clear();
        self.syncing = 0;
        self.forget_doubts();
        fresh
    }

    fn keep(&mut self, count: usize) -> (Vec<DiskWrite>, Vec<Fresh>) {
        let batch: Vec<DiskWrite> = self.waiting.drain(..count).collect();
        let mut fresh = Vec::new();
        for write in &batch {
            match write {
                DiskWrite::Commit(_, commit) => self.keep_commit(commit, &mut fresh),
                DiskWrite::Hint(_, change) => self.keep_hint(change, &mut fresh),
                DiskWrite::Record(_, bytes) => self.kept.record = Some(bytes.clone()),
                DiskWrite::Alive(alive) => self.kept.alive = Some(*alive),
                DiskWrite::Lost => self.is_lost = true,
                DiskWrite::Release(held) => self.release(held),
            }
        }
        (batch, fresh)
    }

    fn keep_commit(&mut self, commit: &Commit, fresh: &mut Vec<Fresh>) {
        let held = self.kept.data.entry(commit.key.clone()).or_default();
        for version in commit.versions.iter() {
            if !held.iter().any(|known| known == version) {
                fresh.push(Fresh::Version(commit.key.clone(), version.clone()));
            }
        }
        let before = std::mem::replace(held, (*commit.versions).clone());
        if commit.versions.is_empty() {
            self.kept.data.remove(&commit.key);
            if !before.is_empty() {
                fresh.push(Fresh::Purged(commit.key.clone(), before.clone()));
            }
        }
        if let Some(record) = commit.vnode_record {
            self.kept.vnodes.insert(commit.partition, record);
        }
        self.trees().change(commit, &before, self.partitions);
    }

    fn trees(&self) -> std::sync::MutexGuard<'_, Trees> {
        // Nothing panics while it holds the lock.
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
