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
    store::Replacement,
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

    /// The membership record, if it can be read.
    pub(crate) fn membership(&self) -> Option<Vec<u8>> {
        self.meta(keys::MEMBERSHIP)
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
