//! How the store is laid out, and bringing a store of an older version to it.
//!
//! A store without the record that this writes was made before there were Merkle trees and a list of
//! tombstones: both are made from the data, once, before the store is used. One that was cut short is
//! begun again.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anello_protocol::{
    codec::{decode_stored, encode_stored},
    id::{KeyspaceId, PartitionId},
    merkle::{EntryDigest, leaf_of},
    version::Versions,
};
use rocksdb::{ColumnFamily, DB, IteratorMode, ReadOptions, WriteBatch, WriteOptions};
use serde::{Deserialize, Serialize};

use super::{
    keys::{self, Family},
    leaves::{Tree, TreeId},
    opening::OpenError,
    tombstones,
};

const VERSION: u32 = 1;
/// Tombstones that are written in one go.
const BATCH: usize = 10_000;
const READAHEAD_BYTES: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Layout {
    version: u32,
    /// Into how many parts the hash space is cut, on which the trees depend.
    partitions: u32,
}

/// Makes sure that the store is laid out as this version needs it.
pub(super) fn ensure(db: &DB, path: &Path, partitions: u32) -> Result<(), OpenError> {
    let unfit = |reason: String| OpenError::Database { path: path.into(), reason };
    let meta = family(db, Family::Meta);
    let record = db.get_cf(meta, keys::LAYOUT).map_err(|error| OpenError::of(path, error))?;
    let Some(record) = record else {
        let layout = Layout { version: VERSION, partitions };
        return build(db, path, &layout);
    };
    let layout: Layout = decode_stored(&record).map_err(|reason| OpenError::Damaged {
        path: path.into(),
        record: "layout",
        reason,
    })?;
    if layout.version != VERSION {
        return Err(unfit(format!("its layout is {}, expected {VERSION}", layout.version)));
    }
    if layout.partitions != partitions {
        return Err(unfit(format!(
            "it was made for {} partitions, the settings say {partitions}",
            layout.partitions
        )));
    }
    Ok(())
}

fn build(db: &DB, path: &Path, layout: &Layout) -> Result<(), OpenError> {
    let failed = |error: rocksdb::Error| OpenError::of(path, error);
    let mut unsynced = WriteOptions::default();
    // All of it is made again if the record at the end isn't there.
    unsynced.set_sync(false);
    let write = |batch, options: &WriteOptions| db.write_opt(batch, options).map_err(failed);
    clear(db, &unsynced).map_err(failed)?;
    let list = family(db, Family::Tombstones);
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD_BYTES);
    let began = Instant::now();
    let mut trees = BTreeMap::<TreeId, Tree>::new();
    let mut batch = WriteBatch::default();
    let (mut entries, mut deleted) = (0_u64, 0_u64);
    for entry in db.iterator_cf_opt(family(db, Family::Data), options, IteratorMode::Start) {
        let (at, value) = entry.map_err(failed)?;
        if entries == 0 {
            tracing::info!("making the Merkle trees of a store that has none yet");
        }
        entries += 1;
        let key = keys::data_key(&at).ok_or_else(|| OpenError::Corrupt {
            path: path.into(),
            reason: format!("the key {} of an entry is damaged", at.escape_ascii()),
        })?;
        let tree = trees.entry((key.keyspace, key.hash.partition(layout.partitions))).or_default();
        match decode_stored::<Versions>(&value) {
            Ok(versions) => {
                let leaf = &mut tree.leaves[leaf_of(key.hash, layout.partitions)];
                leaf.toggle(EntryDigest::of(&key, versions.digest()));
                if let Some(value) = tombstones::encode(&versions) {
                    deleted += 1;
                    batch.put_cf(list, &at, value);
                }
            }
            // Reading the key says so as well. What is sound must be served all the same.
            Err(reason) => {
                tracing::error!("what is held of {:?} is damaged: {reason}", key.key);
                tree.doubt = Some(0);
            }
        }
        if batch.len() >= BATCH {
            write(std::mem::take(&mut batch), &unsynced)?;
        }
    }
    for (&(keyspace, partition), tree) in &trees {
        add_tree(db, &mut batch, keyspace, partition, tree);
    }
    batch.put_cf(family(db, Family::Meta), keys::LAYOUT, encode_stored(layout));
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    write(batch, &synced)?;
    if entries > 0 {
        let took_ms = began.elapsed().as_millis() as u64;
        tracing::info!(entries, deleted, took_ms, "made the Merkle trees");
    }
    Ok(())
}

fn add_tree(
    db: &DB,
    batch: &mut WriteBatch,
    keyspace: KeyspaceId,
    partition: PartitionId,
    tree: &Tree,
) {
    for (leaf, digest) in tree.leaves.iter().enumerate() {
        if *digest != EntryDigest::default() {
            let at = keys::leaf(keyspace, partition, leaf as u16);
            batch.merge_cf(family(db, Family::Trees), at, digest.0.to_le_bytes());
        }
    }
    if tree.doubt.is_some() {
        batch.put_cf(family(db, Family::Meta), keys::tree_unsure(keyspace, partition), []);
    }
}

/// Removes what an attempt that was cut short has left.
fn clear(db: &DB, options: &WriteOptions) -> Result<(), rocksdb::Error> {
    for family in [Family::Trees, Family::Tombstones].map(|name| family(db, name)) {
        loop {
            let mut batch = WriteBatch::default();
            for entry in db.iterator_cf(family, IteratorMode::Start).take(BATCH) {
                batch.delete_cf(family, entry?.0);
            }
            if batch.is_empty() {
                break;
            }
            db.write_opt(batch, options)?;
        }
    }
    Ok(())
}

fn family(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(family.name()).expect("every family is made when the store is opened")
}
