//! The port of the Merkle trees: reading leaves, looking through ranges of the data, and scrubbing.

#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
    mpsc,
};

use anello_antientropy::store::{
    Entries, Entry, Leaves, Scrubbed, Tombstone, TreeError, TreeStore,
};
use anello_protocol::{
    codec::decode_stored,
    id::{KeyspaceId, PartitionId},
    key::DataKey,
    merkle::{CHILDREN, EntryDigest, HashRange, leaf_of},
    version::Versions,
};
use anello_replica::store::{NotTaken, Store};
use rocksdb::{DBRawIterator, ReadOptions, Snapshot};

use super::{
    commit::Flag,
    keeper::{Mend, Upkeep},
    keys::{self, Family},
    leaves::{self, TreeId},
    shared::Shared,
    store::RocksStore,
    tombstones,
};

/// What a scrub has RocksDB read at once.
const READAHEAD_BYTES: usize = 1 << 20;
/// How many entries of the list of tombstones one scrub mends.
const LIST_MENDED_MAX: usize = 1_000;

impl TreeStore for RocksStore {
    fn leaves(&self, keyspace: KeyspaceId, partition: PartitionId) -> Option<Box<Leaves>> {
        match self.shared().trees.read().get(&(keyspace, partition)) {
            Some(tree) if tree.doubt.is_some() => None,
            Some(tree) => Some(tree.leaves.clone()),
            None => Some(leaves::none()),
        }
    }

    fn entries(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Entries, TreeError> {
        let scan = Scan { family: Family::Data, keyspace, range, after, ..Scan::default() };
        let mut data = self.shared().scan(scan);
        let mut found = Entries::default();
        while let Some((at, value)) = data.next()? {
            if found.entries.len() == limit {
                found.has_more = true;
                break;
            }
            let (key, versions) = decode(at, value)?;
            found.entries.push(Entry { key, digest: versions.digest() });
        }
        Ok(found)
    }

    fn children(
        &self,
        keyspace: KeyspaceId,
        range: HashRange,
    ) -> Result<Vec<EntryDigest>, TreeError> {
        if range.children().is_none() {
            return Ok(Vec::new());
        }
        let mut children = vec![EntryDigest::default(); CHILDREN];
        let mut data = self.shared().scan(Scan { keyspace, range, ..Scan::default() });
        while let Some((at, value)) = data.next()? {
            let (key, versions) = decode(at, value)?;
            children[range.child_of(key.hash)].toggle(EntryDigest::of(&key, versions.digest()));
        }
        Ok(children)
    }

    fn read(&self, key: &DataKey) -> Result<Versions, TreeError> {
        Store::read(self, key).map_err(|error| TreeError(error.0))
    }

    fn scrub(&self, keyspace: KeyspaceId, partition: PartitionId) -> Result<Scrubbed, TreeError> {
        let shared = self.shared();
        // A keyspace is held from before its first write is queued: of another there is no tree.
        let is_held = self.held_keyspaces().contains(&keyspace);
        if !is_held || partition.0 >= shared.trees.partitions() {
            return Ok(Scrubbed::default());
        }
        let _alone = shared.trees.scrub_alone();
        let tree = (keyspace, partition);
        let doubt = shared.trees.doubt(tree);
        let clears = shared.trees.clears(partition);
        let found = shared.compare(tree)?;
        let mended = Arc::new(AtomicU32::new(0));
        if !found.listed_wrong.is_empty() {
            tracing::warn!(%partition, keys = found.listed_wrong.len(), "mending the list of tombstones");
        }
        let mend = Mend {
            tree,
            differences: found.differences,
            listed_wrong: found.listed_wrong,
            doubt,
            clears,
            mended: Arc::clone(&mended),
        };
        let (sender, outcome) = mpsc::sync_channel(1);
        let done = move |result| {
            // The scrub waits for exactly this.
            let _ = sender.send(result);
        };
        let upkeep = Upkeep::Mend(Box::new(mend));
        self.submit_with(Vec::new(), upkeep, Flag::Holds(keyspace), Box::new(done))
            .map_err(|refused: NotTaken| TreeError(refused.to_string()))?;
        let outcome = outcome.recv().unwrap_or_else(|_| Err("the store was closed".into()));
        outcome.map_err(TreeError)?;
        Ok(Scrubbed { entries: found.entries, mended: mended.load(Ordering::Relaxed) })
    }

    fn tombstones(
        &self,
        keyspace: KeyspaceId,
        partition: PartitionId,
        after: Option<&DataKey>,
        limit: usize,
    ) -> Result<Vec<Tombstone>, TreeError> {
        let partitions = self.shared().trees.partitions();
        if partition.0 >= partitions {
            return Ok(Vec::new());
        }
        let range = HashRange::of_partition(partition, partitions);
        let scan = Scan { family: Family::Tombstones, keyspace, range, after, ..Scan::default() };
        let mut list = self.shared().scan(scan);
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((at, value)) = list.next()?
        {
            found.push(tombstones::decode(at, value)?);
        }
        Ok(found)
    }

    fn tombstones_estimate(&self) -> u64 {
        self.shared().property(Family::Tombstones, "rocksdb.estimate-num-keys")
    }
}

/// What one snapshot shows of a tree.
struct Compared {
    entries: u64,
    differences: Box<Leaves>,
    listed_wrong: Vec<Vec<u8>>,
}

impl Shared {
    /// What is held at a place of the column family of data, by the database itself.
    pub(super) fn held(&self, at: &[u8]) -> Result<Option<(DataKey, Versions)>, String> {
        let value = self.get(Family::Data, at).map_err(|error| error.into_string())?;
        value.map(|value| decode(at, &value).map_err(|error| error.0)).transpose()
    }

    /// The leaves of a tree that are on disk, or in a snapshot.
    pub(super) fn stored_leaves(
        &self,
        (keyspace, partition): TreeId,
        snapshot: Option<&Snapshot<'_>>,
    ) -> Result<Box<Leaves>, String> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(keys::leaf(keyspace, partition, u16::MAX));
        let mut entries = self.raw(Family::Trees, options, snapshot);
        entries.seek(keys::leaf(keyspace, partition, 0));
        let mut all = leaves::none();
        while let Some((at, digest)) = entries.item() {
            let (_, leaf, digest) = leaves::stored(at, digest)?;
            all[leaf] = digest;
            entries.next();
        }
        entries.status().map_err(|error| self.read_failed(error).0)?;
        Ok(all)
    }

    fn raw(
        &self,
        family: Family,
        options: ReadOptions,
        snapshot: Option<&Snapshot<'_>>,
    ) -> DBRawIterator<'_> {
        let family = self.family(family);
        let mut options = options;
        if let Some(snapshot) = snapshot {
            options.set_snapshot(snapshot);
        }
        self.db.raw_iterator_cf_opt(family, options)
    }

    /// Works a tree out anew and compares, and the list of tombstones with it.
    fn compare(&self, tree: TreeId) -> Result<Compared, TreeError> {
        let (keyspace, partition) = tree;
        let partitions = self.trees.partitions();
        let range = HashRange::of_partition(partition, partitions);
        let snapshot = self.db.snapshot();
        let mut differences = self.stored_leaves(tree, Some(&snapshot)).map_err(TreeError)?;
        let scan = |family, readahead| {
            let snapshot = Some(&snapshot);
            self.scan(Scan { family, keyspace, range, snapshot, readahead, after: None })
        };
        let mut data = scan(Family::Data, READAHEAD_BYTES);
        let mut list = scan(Family::Tombstones, 0);
        let mut listed = list.owned()?;
        let mut listed_wrong = Vec::new();
        let mut entries = 0;
        while let Some((at, value)) = data.next()? {
            entries += 1;
            let (key, versions) = decode(at, value)?;
            let leaf = leaf_of(key.hash, partitions);
            differences[leaf].toggle(EntryDigest::of(&key, versions.digest()));
            while let Some((stale, _)) = listed.take_if(|(listed, _)| &**listed < at) {
                listed_wrong.push(stale);
                listed = list.owned()?;
            }
            let found = match listed.take_if(|(listed, _)| listed == at) {
                Some((_, value)) => {
                    listed = list.owned()?;
                    Some(value)
                }
                None => None,
            };
            if found != tombstones::encode(&versions) {
                listed_wrong.push(at.to_vec());
            }
            if listed_wrong.len() >= LIST_MENDED_MAX {
                listed_wrong.truncate(LIST_MENDED_MAX);
            }
        }
        while let Some((stale, _)) = listed
            && listed_wrong.len() < LIST_MENDED_MAX
        {
            listed_wrong.push(stale);
            listed = list.owned()?;
        }
        Ok(Compared { entries, differences, listed_wrong })
    }

    fn scan<'a>(&'a self, scan: Scan<'_>) -> Cursor<'a> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(scan.readahead);
        if let Some(end) = scan.range.last().0.checked_add(1) {
            options.set_iterate_upper_bound(keys::first_of(end));
        }
        let mut entries = self.raw(scan.family, options, scan.snapshot);
        let first = keys::first_of(scan.range.first().0);
        // The smallest key after it.
        let next = scan.after.map(|after| [&*keys::data(after), &[0]].concat());
        entries.seek(next.map_or(first.clone(), |next| next.max(first)));
        Cursor { shared: self, entries, keyspace: scan.keyspace, is_fresh: true }
    }
}

/// What is to be looked through.
struct Scan<'a> {
    family: Family,
    keyspace: KeyspaceId,
    range: HashRange,
    after: Option<&'a DataKey>,
    snapshot: Option<&'a Snapshot<'a>>,
    /// How much is read at once; zero leaves it to RocksDB, which begins with little.
    readahead: usize,
}

impl Default for Scan<'_> {
    fn default() -> Self {
        let range = HashRange::of_partition(PartitionId(0), 1);
        let (family, keyspace) = (Family::Data, KeyspaceId(0));
        Self { family, keyspace, range, after: None, snapshot: None, readahead: 0 }
    }
}

/// A key and a value of a column family.
type Item<'a> = (&'a [u8], &'a [u8]);
type OwnedItem = (Vec<u8>, Vec<u8>);

/// Goes through the entries of one keyspace.
struct Cursor<'a> {
    shared: &'a Shared,
    entries: DBRawIterator<'a>,
    keyspace: KeyspaceId,
    is_fresh: bool,
}

impl Cursor<'_> {
    fn next(&mut self) -> Result<Option<Item<'_>>, TreeError> {
        if !std::mem::take(&mut self.is_fresh) && self.entries.valid() {
            self.entries.next();
        }
        while self.entries.key().is_some_and(|at| keys::keyspace_of(at) != Some(self.keyspace)) {
            self.entries.next();
        }
        self.entries.status().map_err(|error| TreeError(self.shared.read_failed(error).0))?;
        Ok(self.entries.item())
    }

    fn owned(&mut self) -> Result<Option<OwnedItem>, TreeError> {
        Ok(self.next()?.map(|(at, value)| (at.to_vec(), value.to_vec())))
    }
}

fn decode(at: &[u8], value: &[u8]) -> Result<(DataKey, Versions), TreeError> {
    let key = keys::data_key(at).ok_or_else(|| {
        TreeError(format!("the key {} of an entry is damaged", at.escape_ascii()))
    })?;
    let versions = decode_stored(value).map_err(|reason| {
        TreeError(format!("what is held of {:?} is damaged: {reason}", key.key))
    })?;
    Ok((key, versions))
}
