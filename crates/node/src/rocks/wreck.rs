//! What can be read of a store that is damaged, changing nothing of it.
//!
//! A damaged block hides the keys between two others; the entries around it are read. To find where
//! reading goes on, hashes beyond the damage are tried, twice as far each time, and then the nearest of
//! them is searched for. What is hidden in one table is not looked for in older ones below: there it may
//! be what was deleted since.

use std::path::Path;

use anello_protocol::{codec::decode_stored, key::DataKey, version::Versions};
use rocksdb::{ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator};

use super::{
    keys::{self, Family},
    options,
    shared::load_held,
    store::{Belonging, Replacement},
};

/// Entries that are read in one go.
const STEP: usize = 256;
/// A step ends with the entry that fills these.
const STEP_BYTES: usize = 1 << 20;

/// See the head of this file.
pub(crate) struct Wreck {
    db: DB,
    is_whole: bool,
}

/// What a step has found.
#[derive(Debug, Default)]
pub(crate) struct Salvaged {
    pub(crate) entries: Vec<(DataKey, Versions)>,
    /// How many places could not be read.
    pub(crate) unreadable: u64,
    /// Where to go on; nothing at the end.
    pub(crate) next: Option<Vec<u8>>,
}

impl Wreck {
    /// Opens what is left of a store, or says why nothing can be read.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        let open = |options| {
            let cache = options::small_cache();
            let families = Family::ALL.map(|family| {
                ColumnFamilyDescriptor::new(family.name(), options::family(family, &cache))
            });
            DB::open_cf_descriptors_read_only(&options, path, families, false)
        };
        if let Ok(db) = open(options::database()) {
            return Ok(Self { db, is_whole: true });
        }
        match open(options::wreck()) {
            Ok(db) => Ok(Self { db, is_whole: false }),
            Err(error) => Err(error.into_string()),
        }
    }

    /// Whether its log and its list of files are whole, so that what can be read is the newest that was
    /// written.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The membership record and what goes with it, if all of that can be read.
    pub(crate) fn belonging(&self) -> Option<Belonging> {
        let held = load_held(&self.db, self.family(Family::Meta)).ok()?;
        Some(Belonging { membership: self.meta(keys::MEMBERSHIP)?, held })
    }

    /// Which damaged stores this one was to replace itself.
    pub(crate) fn replacement(&self) -> Option<Replacement> {
        self.meta(keys::REPLACES).and_then(|bytes| decode_stored(&bytes).ok())
    }

    /// Reads some of what is held from a place on.
    pub(crate) fn step(&self, from: &[u8]) -> Salvaged {
        let mut options = options::reading();
        options.fill_cache(false);
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(Family::Data), options);
        iterator.seek(from);
        let mut salvaged = Salvaged::default();
        let mut bytes = 0;
        let mut last = from.to_vec();
        while let Some((key, value)) = iterator.item() {
            if salvaged.entries.len() == STEP || bytes >= STEP_BYTES {
                salvaged.next = Some(key.to_vec());
                return salvaged;
            }
            bytes += key.len() + value.len();
            match (keys::data_key(key), decode_stored(value)) {
                (Some(key), Ok(versions)) => salvaged.entries.push((key, versions)),
                _ => salvaged.unreadable += 1,
            }
            last.clear();
            last.extend_from_slice(key);
            iterator.next();
        }
        if iterator.status().is_err() {
            salvaged.unreadable += 1;
            salvaged.next = beyond(&mut iterator, keys::hash_of(&last).unwrap_or_default());
        }
        salvaged
    }

    fn meta(&self, key: &[u8]) -> Option<Vec<u8>> {
        let read = self.db.get_cf_opt(self.family(Family::Meta), key, &options::reading());
        read.ok().flatten()
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family was named when it was opened")
    }
}

/// Where reading goes on beyond a hash, if it does.
fn beyond(iterator: &mut DBRawIterator<'_>, hash: u64) -> Option<Vec<u8>> {
    let mut is_readable = |hash: u64| {
        iterator.seek(keys::first_of(hash));
        iterator.status().is_ok()
    };
    let (mut bad, mut distance) = (hash, 1_u64);
    let mut good = loop {
        let next = hash.saturating_add(distance);
        if is_readable(next) {
            break next;
        }
        if next == u64::MAX {
            return None;
        }
        (bad, distance) = (next, distance.saturating_mul(2));
    };
    while good - bad > 1 {
        let middle = bad + (good - bad) / 2;
        if is_readable(middle) { good = middle } else { bad = middle }
    }
    Some(keys::first_of(good))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use anello_protocol::id::PartitionId;
    use anello_replica::store::{Commit, Store, Summary};

    use super::*;
    use crate::{
        config::Durability,
        rocks::{
            RocksStore, Trouble,
            tests::{disk, key, open, versions, write},
        },
    };

    const ENTRIES: u64 = 2_000;

    /// A store with all of its entries in tables, and where it is.
    fn in_tables(dir: &tempfile::TempDir) -> PathBuf {
        let store = open(dir);
        for number in 0..ENTRIES {
            let (key, versions) = (key(1, number), versions(number, 300));
            let commit = Commit {
                partition: PartitionId(0),
                key,
                versions: versions.into(),
                replaced: Summary::default(),
                vnode_record: None,
            };
            store.commit(commit, Box::new(|_| ())).expect("room");
        }
        write(&store, &key(1, ENTRIES), versions(ENTRIES, 300));
        let shared = store.shared();
        shared.db.flush_cf(shared.family(Family::Data)).expect("flushed");
        drop(store);
        dir.path().join("db")
    }

    /// Turns bytes around in the largest table.
    fn damage(db: &Path, places: &[(usize, usize)]) {
        let table = disk::largest(db, "sst");
        places
            .iter()
            .for_each(|(numerator, denominator)| disk::damage(&table, *numerator, *denominator));
    }

    fn salvage(wreck: &Wreck) -> (Vec<(DataKey, Versions)>, u64) {
        let (mut entries, mut unreadable, mut next) = (Vec::new(), 0, Some(Vec::new()));
        while let Some(from) = next {
            let step = wreck.step(&from);
            assert!(step.entries.len() <= STEP, "in bounded steps");
            assert!(step.next.as_ref().is_none_or(|next| *next > from), "it gets on");
            entries.extend(step.entries);
            unreadable += step.unreadable;
            next = step.next;
        }
        (entries, unreadable)
    }

    #[test]
    fn of_a_store_without_damage_everything_is_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = in_tables(&dir);
        let wreck = Wreck::open(&db).expect("opens");
        assert!(wreck.is_whole());
        let (entries, unreadable) = salvage(&wreck);
        assert_eq!((entries.len() as u64, unreadable), (ENTRIES + 1, 0));
    }

    #[test]
    fn around_damaged_blocks_everything_is_read_and_nothing_wrong() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = in_tables(&dir);
        damage(&db, &[(1, 4), (1, 2)]);
        let wreck = Wreck::open(&db).expect("opens");
        assert!(wreck.is_whole(), "its log and its list of files are");
        let (entries, unreadable) = salvage(&wreck);
        assert_eq!(unreadable, 2);
        let missing = ENTRIES + 1 - entries.len() as u64;
        assert!((1..200).contains(&missing), "{missing} are hidden");
        for (found, versions_found) in entries {
            let number = (0..=ENTRIES).find(|number| key(1, *number) == found).expect("its own");
            assert_eq!(versions_found, versions(number, 300));
        }
    }

    /// It may have held anything, newer than what lies below it.
    #[test]
    fn a_table_that_is_gone_is_damage_and_hides_what_it_spanned() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = in_tables(&dir);
        fs::remove_file(disk::largest(&db, "sst")).expect("removed");
        let opened = RocksStore::open(&db, Durability::Sync, 256);
        assert!(matches!(opened, Err(crate::rocks::OpenError::Corrupt { .. })));
        let wreck = Wreck::open(&db).expect("opens");
        assert!(!wreck.is_whole());
        assert_eq!(salvage(&wreck), (Vec::new(), 1));
    }

    #[test]
    fn damage_is_told_by_whoever_reads_it_and_never_read_as_absence() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = in_tables(&dir);
        damage(&db, &[(1, 2)]);
        let store =
            RocksStore::open(&db, Durability::Sync, 256).expect("opens: no block is read for it");
        let trouble = store.trouble();
        assert_eq!(*trouble.borrow(), None);
        let failed = (0..=ENTRIES).filter(|number| match store.read(&key(1, *number)) {
            Ok(found) => {
                assert_eq!(found, versions(*number, 300));
                false
            }
            Err(_) => true,
        });
        assert!(failed.count() > 0);
        assert!(
            matches!(&*trouble.borrow(), Some(Trouble::Damaged(what)) if what.contains("checksum"))
        );
    }
}
