//! The store itself: opening it, reading from it, handing writes to the commit thread.
//!
//! Invariant: a keyspace's flag "holds data here" is set in memory before its first write is queued (see
//! [`Held`]), and on disk in the same batch as that write, so that nobody is ever told that there is none.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use anello_gossip::MembershipStore;
use anello_protocol::{
    codec::{decode_stored, encode_stored},
    id::{Epoch, KeyspaceId, PartitionId},
    key::DataKey,
    version::Versions,
};
use anello_replica::store::{
    CachedRead, Commit, CommitDone, NotTaken, Store, StoreError, StoreEstimate, VnodeRecord,
};
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, ReadTier, WriteBatch};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    commit::{Change, Class, CommitLook, CommitThread, Done, Flag, Sink, Submission},
    held::Held,
    keeper::{Keeper, KeyChange, Upkeep},
    keys::{self, Family},
    layout,
    opening::{OpenError, load_trees},
    options,
    recent::Recent,
    release::Gate,
    room::Room,
    run::Run,
    shared::{DatabaseSink, Shared, failed, synced},
    sweep, tombstones,
    trouble::{Trouble, Troubles},
    watch::Watch,
};
use crate::config::Durability;

/// What the commit thread has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitFigures {
    /// How many groups were committed since the start.
    pub groups: u64,
    /// How many writes these were.
    pub writes: u64,
    /// The most writes in one group.
    pub largest_group: u64,
}

/// A RocksDB that holds what a node stores.
pub struct RocksStore {
    // First, so that it ends, and has written what waits, before the database is closed.
    commits: CommitThread,
    _watch: Watch,
    shared: Arc<Shared>,
    held: Held,
    gate: Gate,
}

/// Which cluster a node is of, as one store hands it on to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Belonging {
    /// The membership record.
    pub(crate) membership: Vec<u8>,
    /// The keyspaces that have data in the damaged store. The node must not give its word that it holds
    /// none of them: it may be the only one that does, once it is salvaged.
    pub(crate) held: BTreeSet<KeyspaceId>,
}

/// What a store begins with that comes in the place of damaged ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replacement {
    /// The damaged stores that have yet to be salvaged, by their names in the data directory.
    pub(crate) damaged: Vec<String>,
    /// Whether the node was in a cluster, most likely, and doesn't know which state it knew.
    pub(crate) lost_membership: bool,
}

impl RocksStore {
    /// Opens the store below a directory, making it if it isn't there. The hash space is cut into so many
    /// `partitions` for as long as the store exists.
    pub fn open(path: &Path, durability: Durability, partitions: u32) -> Result<Self, OpenError> {
        Self::open_with(path, durability, partitions, |sink| sink)
    }

    /// The same, with what writes the groups put into something else.
    pub(super) fn open_with<S: Sink>(
        path: &Path,
        durability: Durability,
        partitions: u32,
        wrap: impl FnOnce(DatabaseSink) -> S,
    ) -> Result<Self, OpenError> {
        let cache = options::cache();
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), options::family(family, &cache))
        });
        let failed = |error: rocksdb::Error| OpenError::of(path, error);
        let db = DB::open_cf_descriptors(&options::database(), path, families).map_err(failed)?;
        layout::ensure(&db, path, partitions)?;
        let (trees, unsure) = load_trees(&db, path, partitions)?;
        let run = Run::beginning(path, durability == Durability::Sync).map_err(|error| {
            OpenError::Database { path: path.into(), reason: error.to_string() }
        })?;
        let shared = Arc::new(Shared {
            db,
            trees,
            room: Room::new(),
            troubles: Troubles::new(),
            recent: Recent::new(options::recent_bytes()),
            durability,
            run: Mutex::new(run.clone()),
        });
        let held = shared.load_held().map_err(failed)?;
        let before = shared.get(Family::Meta, keys::RUN).map_err(failed)?;
        let before = before.map(|bytes| decode_stored::<Run>(&bytes)).transpose();
        let before = before.map_err(|reason| OpenError::Damaged {
            path: path.into(),
            record: "run",
            reason,
        })?;
        let is_copy = before.as_ref().is_some_and(|before| run.is_copy(before));
        let may_have_lost = before.as_ref().is_some_and(|before| run.may_have_lost(before));
        if is_copy {
            tracing::warn!(
                "the store was put back from a copy: writes that it acknowledged since may be missing here \
                 until other replicas are asked"
            );
        }
        if may_have_lost {
            tracing::warn!(
                "the machine restarted while writes were in its page cache (durability \"os\"): some that \
                 were acknowledged may be missing here until other replicas are asked"
            );
        }
        shared.begin(&run, is_copy || may_have_lost, is_copy).map_err(failed)?;
        let keeper = Keeper::new(&unsure);
        let sink = DatabaseSink { shared: Arc::clone(&shared), flagged: held.clone(), keeper };
        let commits = CommitThread::start(wrap(sink)).map_err(OpenError::Thread)?;
        let watch = Watch::start(Arc::clone(&shared), path).map_err(OpenError::Thread)?;
        Ok(Self { commits, _watch: watch, shared, held: Held::of(held), gate: Gate::default() })
    }

    /// Makes the store that is to come in the place of damaged ones, and closes it.
    pub(crate) fn replace(
        path: &Path,
        durability: Durability,
        partitions: u32,
        replacement: &Replacement,
        belonging: Option<&Belonging>,
    ) -> Result<(), OpenError> {
        let store = Self::open(path, durability, partitions)?;
        let meta = store.shared.family(Family::Meta);
        let mut batch = WriteBatch::default();
        batch.put_cf(meta, keys::REPLACES, encode_stored(replacement));
        batch.put_cf(meta, keys::LOST, []);
        if let Some(Belonging { membership, held }) = belonging {
            batch.put_cf(meta, keys::MEMBERSHIP, membership);
            held.iter().for_each(|keyspace| batch.put_cf(meta, keys::holds_data(*keyspace), []));
        }
        let written = store.shared.write(batch, &synced()).and_then(|()| store.end());
        written.map_err(|reason| OpenError::Database { path: path.into(), reason })
    }

    /// The damaged stores that this one replaces, as long as they have not been salvaged, or the node's
    /// membership has not been found again.
    pub(crate) fn replacement(&self) -> Result<Option<Replacement>, String> {
        let bytes = self.shared.get(Family::Meta, keys::REPLACES);
        let bytes = bytes.map_err(|error| error.into_string())?;
        let replacement = bytes.map(|bytes| decode_stored(&bytes)).transpose();
        replacement.map_err(|reason| format!("the record \"replaces\" is damaged: {reason}"))
    }

    /// Notes which damaged stores have yet to be salvaged. On a full disk it waits for room.
    pub(crate) fn note_replacement(&self, replacement: &Replacement, done: Done) {
        self.vote(keys::REPLACES, encode_stored(replacement), done);
    }

    /// Writes a record that is taken whatever else waits, and is synced whatever the settings say.
    fn vote(&self, key: &[u8], value: Vec<u8>, done: Done) {
        let changes = vec![Change { family: Family::Meta, key: key.to_vec(), value: Some(value) }];
        let (upkeep, flag) = (Upkeep::Nothing, Flag::Unconcerned);
        let submission = Submission { changes, upkeep, flag, class: Class::Vote, done };
        if let Err(submission) = self.commits.submit(submission) {
            (submission.done)(Err("the store is closed".into()));
        }
    }

    /// To wait for trouble that concerns the store as a whole.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.shared.troubles.told()
    }

    /// Takes no more of what belongs to none of the cluster's keyspaces, and deletes in the background
    /// what there is of it. `newest` is the epoch of the state that these are from: a keyspace of a later
    /// one isn't known to be dropped.
    pub fn sweep(self: &Arc<Self>, keyspaces: &BTreeSet<KeyspaceId>, newest: Epoch) {
        if !self.held.agreed(keyspaces, newest) {
            return;
        }
        if let Err(error) = sweep::start(Arc::downgrade(self)) {
            self.held.sweep_failed();
            tracing::warn!("can't sweep away what dropped keyspaces left: {error}");
        }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Queues changes; refused, and `done` dropped, when too much waits, the disk is full, or they are of
    /// a keyspace that was dropped. What only deletes makes room, and is taken however little there is.
    pub(super) fn submit(
        &self,
        changes: Vec<Change>,
        flag: Flag,
        done: Done,
    ) -> Result<(), NotTaken> {
        self.submit_with(changes, Upkeep::Nothing, flag, done)
    }

    /// The same, with what the changes mean for the trees.
    pub(super) fn submit_with(
        &self,
        changes: Vec<Change>,
        upkeep: Upkeep,
        flag: Flag,
        done: Done,
    ) -> Result<(), NotTaken> {
        let submission = Submission { changes, upkeep, flag, class: Class::Data, done };
        let deletes = matches!(submission.upkeep, Upkeep::Clear(_))
            || submission.changes.iter().all(|change| change.value.is_none());
        if !deletes && !self.shared.room.take(submission.bytes()) {
            return Err(NotTaken::DiskFull);
        }
        let queue = |submission| self.commits.submit(submission);
        let queued = match flag {
            Flag::Holds(keyspace) => self.held.queue(keyspace, submission, queue),
            Flag::Swept(_) | Flag::Unconcerned => queue(submission),
        };
        queued.map_err(|_| NotTaken::Busy)
    }

    /// Queues changes that are taken whatever else waits.
    pub(super) fn insist(&self, changes: Vec<Change>) {
        let (upkeep, flag, class) = (Upkeep::Nothing, Flag::Unconcerned, Class::Vote);
        let submission = Submission { changes, upkeep, flag, class, done: Box::new(|_| ()) };
        // It is refused only by a store that is closed, which nothing is noted in any more.
        drop(self.commits.submit(submission));
    }

    /// The keyspaces that have data here, or may have once what is queued is written.
    pub fn held_keyspaces(&self) -> BTreeSet<KeyspaceId> {
        self.held.all()
    }

    /// Whether nothing that matters has ever been written here.
    pub fn is_empty(&self) -> Result<bool, String> {
        let shared = &self.shared;
        let first = |family: Family| {
            let (family, options) = (shared.family(family), options::reading());
            let mut all = shared.db.iterator_cf_opt(family, options, IteratorMode::Start);
            all.next().transpose().map_err(|error| {
                shared.look_into(&error);
                error.into_string()
            })
        };
        Ok(self.load()?.is_none()
            && first(Family::Data)?.is_none()
            && first(Family::Hints)?.is_none()
            && first(Family::Vnodes)?.is_none())
    }

    /// Why data writes are refused, if they are.
    pub fn read_only(&self) -> Option<String> {
        let is_full = self.shared.room.is_full();
        is_full.then(|| "the disk has too little room left; reads are served".into())
    }

    /// What waits for the disk; to be called by one who looks again and again.
    pub fn look_at_queue(&self) -> CommitLook {
        self.commits.look()
    }

    /// What the commit thread has done.
    pub fn figures(&self) -> CommitFigures {
        let commits = self.commits.figures();
        CommitFigures {
            groups: commits.groups.load(Ordering::Relaxed),
            writes: commits.writes.load(Ordering::Relaxed),
            largest_group: commits.largest_group.load(Ordering::Relaxed),
        }
    }

    /// Writes everything to disk and notes that the process ends cleanly. What is submitted later is
    /// written too, and is not covered by that note.
    pub fn end(&self) -> Result<(), String> {
        {
            let mut run = self.shared.run.lock().unwrap_or_else(PoisonError::into_inner);
            *run = run.clone().ended();
        }
        // A synced write syncs the whole log before it.
        self.shared.write_run()
    }
}

impl Store for RocksStore {
    fn read(&self, key: &DataKey) -> Result<Versions, StoreError> {
        match self.shared.versions(key, ReadTier::All)? {
            CachedRead::Hit(versions) => Ok(versions),
            CachedRead::WouldBlock => Err(StoreError("a read was not carried out".into())),
        }
    }

    fn read_cached(&self, key: &DataKey) -> Result<CachedRead, StoreError> {
        self.shared.versions(key, ReadTier::BlockCache)
    }

    fn commit(&self, commit: Commit, done: CommitDone) -> Result<(), NotTaken> {
        let versions = &*commit.versions;
        let value = (!versions.is_empty()).then(|| encode_stored(versions));
        let mut changes =
            vec![Change { family: Family::Data, key: keys::data(&commit.key), value }];
        if let Some(record) = commit.vnode_record {
            let key = keys::vnode(commit.partition);
            let value = Some(encode_stored(&record));
            changes.push(Change { family: Family::Vnodes, key, value });
        }
        changes.extend(tombstones::change(&commit));
        let upkeep = Upkeep::Key(KeyChange::of(&commit, self.shared.trees.partitions()));
        let flag = Flag::Holds(commit.key.keyspace);
        let done = Box::new(|outcome: Result<(), String>| done(outcome.map_err(StoreError)));
        self.submit_with(changes, upkeep, flag, done)
    }

    fn load_vnode(&self, partition: PartitionId) -> Result<Option<VnodeRecord>, StoreError> {
        let bytes = self.shared.get(Family::Vnodes, &keys::vnode(partition)).map_err(failed)?;
        let record = bytes.map(|bytes| decode_stored(&bytes)).transpose();
        record.map_err(|reason| {
            StoreError(format!("vnode {partition}: its record is damaged: {reason}"))
        })
    }

    fn estimate(&self) -> StoreEstimate {
        let keys = self.shared.property(Family::Data, "rocksdb.estimate-num-keys");
        StoreEstimate { keys, bytes: self.shared.bytes() }
    }
}

impl MembershipStore for RocksStore {
    fn load(&self) -> Result<Option<Vec<u8>>, String> {
        self.shared.get(Family::Meta, keys::MEMBERSHIP).map_err(|error| error.into_string())
    }

    fn save(&self, record: Vec<u8>, done: Done) {
        self.vote(keys::MEMBERSHIP, record, done);
    }
}
