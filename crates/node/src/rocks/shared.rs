//! What the commit thread, the watch, and readers on all threads share: the database, read and written with
//! whatever goes wrong looked at once, in one place.
//!
//! Invariant: damage is told as [`Trouble`], and a lack of room to [`Room`], whoever met it.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use anello_protocol::{
    codec::{decode_stored, encode_stored},
    id::KeyspaceId,
    key::DataKey,
    version::Versions,
};
use anello_replica::store::{CachedRead, StoreError};
use rocksdb::{ColumnFamily, DB, ErrorKind, IteratorMode, ReadTier, WriteBatch, WriteOptions};

use super::{
    commit::{Change, Class, Flag, Sink, Submission},
    keeper::{Keeper, Upkeep},
    keys::{self, Family},
    leaves::Trees,
    options,
    recent::Recent,
    room::{Room, is_no_space},
    run::Run,
    trouble::{Trouble, Troubles},
};
use crate::config::Durability;

/// What the commit thread, the watch and readers share.
pub(super) struct Shared {
    pub(super) db: DB,
    pub(super) trees: Trees,
    pub(super) room: Room,
    pub(super) troubles: Troubles,
    pub(super) recent: Recent,
    pub(super) durability: Durability,
    pub(super) run: Mutex<Run>,
}

impl Shared {
    pub(super) fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is made when the store is opened")
    }

    pub(super) fn get(
        &self,
        family: Family,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, rocksdb::Error> {
        let read = self.db.get_cf_opt(self.family(family), key, &options::reading());
        read.inspect_err(|error| self.look_into(error))
    }

    /// Tells of it, if that error is damage.
    pub(super) fn look_into(&self, error: &rocksdb::Error) {
        if error.kind() == ErrorKind::Corruption {
            self.troubles.tell(Trouble::Damaged(error.to_string()));
        }
    }

    /// What a reader says of it, once it has been looked into.
    pub(super) fn read_failed(&self, error: rocksdb::Error) -> StoreError {
        self.look_into(&error);
        failed(error)
    }

    /// Tells that the store has stopped writing for good.
    pub(super) fn stuck(&self, sentence: String) {
        self.troubles.tell(Trouble::Stuck(sentence));
    }

    /// Writes the record of this run as it stands.
    pub(super) fn write_run(&self) -> Result<(), String> {
        let run = self.run.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(Family::Meta), keys::RUN, encode_stored(&*run));
        self.write(batch, &synced())
    }

    pub(super) fn write(&self, batch: WriteBatch, options: &WriteOptions) -> Result<(), String> {
        self.db.write_opt(batch, options).map_err(|error| {
            self.look_into(&error);
            let sentence = error.into_string();
            if is_no_space(&sentence) {
                self.room.ran_out();
            }
            sentence
        })
    }

    /// Failures in the background that RocksDB has counted.
    pub(super) fn background_failures(&self) -> u64 {
        self.property(Family::Data, "rocksdb.background-errors")
    }

    /// What lies in memory and has yet to be written to tables.
    pub(super) fn unwritten(&self) -> u64 {
        let each = |family: &Family| self.property(*family, "rocksdb.cur-size-all-mem-tables");
        Family::ALL.iter().map(each).sum()
    }

    pub(super) fn versions(&self, key: &DataKey, tier: ReadTier) -> Result<CachedRead, StoreError> {
        let at = keys::data(key);
        let decode = |bytes: &[u8]| {
            decode_stored(bytes).map(CachedRead::Hit).map_err(|reason| {
                StoreError(format!("what is held of {:?} is damaged: {reason}", key.key))
            })
        };
        if let Some(bytes) = self.recent.get(&at) {
            return decode(&bytes);
        }
        let mut options = options::reading();
        options.set_read_tier(tier);
        match self.db.get_pinned_cf_opt(self.family(Family::Data), at, &options) {
            Ok(None) => Ok(CachedRead::Hit(Versions::new())),
            Ok(Some(bytes)) => decode(&bytes),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(CachedRead::WouldBlock),
            Err(error) => Err(self.read_failed(error)),
        }
    }

    pub(super) fn load_held(&self) -> Result<BTreeSet<KeyspaceId>, rocksdb::Error> {
        load_held(&self.db, self.family(Family::Meta))
    }

    pub(super) fn begin(
        &self,
        run: &Run,
        forget_vnodes: bool,
        is_copy: bool,
    ) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        let meta = self.family(Family::Meta);
        if is_copy {
            batch.put_cf(meta, keys::RESTORED, []);
        }
        if forget_vnodes {
            batch.delete_cf(meta, keys::HINT_STORE);
            for entry in self.db.iterator_cf(self.family(Family::Vnodes), IteratorMode::Start) {
                batch.delete_cf(self.family(Family::Vnodes), entry?.0);
            }
        }
        batch.put_cf(self.family(Family::Meta), keys::RUN, encode_stored(run));
        self.db.write_opt(batch, &synced())
    }

    pub(super) fn bytes(&self) -> u64 {
        let properties = [
            "rocksdb.total-sst-files-size",
            "rocksdb.total-blob-file-size",
            "rocksdb.cur-size-all-mem-tables",
        ];
        let all = Family::ALL.iter().flat_map(|family| properties.map(|name| (*family, name)));
        all.map(|(family, name)| self.property(family, name)).sum()
    }

    pub(super) fn property(&self, family: Family, name: &str) -> u64 {
        self.db.property_int_value_cf(self.family(family), name).ok().flatten().unwrap_or(0)
    }
}

/// The keyspaces of which a database holds data.
pub(super) fn load_held(
    db: &DB,
    meta: &ColumnFamily,
) -> Result<BTreeSet<KeyspaceId>, rocksdb::Error> {
    let from = IteratorMode::From(keys::all_held(), rocksdb::Direction::Forward);
    let mut held = BTreeSet::new();
    for entry in db.iterator_cf_opt(meta, options::reading(), from) {
        let (key, _) = entry?;
        match keys::held_keyspace(&key) {
            Some(keyspace) => held.insert(keyspace),
            None => break,
        };
    }
    Ok(held)
}

/// Writes groups into the database, each as one batch.
pub(super) struct DatabaseSink {
    pub(super) shared: Arc<Shared>,
    /// Keyspaces whose flag is on disk.
    pub(super) flagged: BTreeSet<KeyspaceId>,
    pub(super) keeper: Keeper,
}

impl Sink for DatabaseSink {
    fn write(&mut self, group: &mut [Submission]) -> Result<(), String> {
        let outcome = self.write_batch(group);
        self.settle(group, outcome.is_ok());
        outcome
    }
}

impl DatabaseSink {
    pub(super) fn settle(&mut self, group: &mut [Submission], is_durable: bool) {
        self.keeper.settle(&self.shared, group, is_durable);
        self.shared.recent.committed(group, self.shared.trees.partitions(), is_durable);
    }

    pub(super) fn write_batch(&mut self, group: &[Submission]) -> Result<(), String> {
        let mut batch = WriteBatch::default();
        self.keeper.prepare(&self.shared, group, &mut batch)?;
        let mut flagged = Cow::Borrowed(&self.flagged);
        let meta = self.shared.family(Family::Meta);
        for submission in group {
            if let Upkeep::Clear(clear) = &submission.upkeep {
                clear.add_runs(&self.shared, &mut batch);
            }
            for Change { family, key, value } in &submission.changes {
                match value {
                    Some(value) => batch.put_cf(self.shared.family(*family), key, value),
                    None => batch.delete_cf(self.shared.family(*family), key),
                }
            }
            match submission.flag {
                Flag::Holds(keyspace) if !flagged.contains(&keyspace) => {
                    batch.put_cf(meta, keys::holds_data(keyspace), []);
                    flagged.to_mut().insert(keyspace);
                }
                Flag::Swept(keyspace) => {
                    batch.delete_cf(meta, keys::holds_data(keyspace));
                    flagged.to_mut().remove(&keyspace);
                }
                Flag::Holds(_) | Flag::Unconcerned => {}
            }
        }
        let has_vote = group.iter().any(|submission| submission.class == Class::Vote);
        let options = match self.shared.durability {
            Durability::Os if !has_vote => WriteOptions::default(),
            Durability::Os | Durability::Sync => synced(),
        };
        self.shared.write(batch, &options)?;
        if let Cow::Owned(flagged) = flagged {
            self.flagged = flagged;
        }
        Ok(())
    }
}

pub(super) fn failed(error: rocksdb::Error) -> StoreError {
    StoreError(error.into_string())
}

pub(super) fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}
