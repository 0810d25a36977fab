//! A store in memory, for tests and for nodes that live as long as a test.
//!
//! Commits are kept on the spot, on the caller's thread. Nothing outlives the last [`std::sync::Arc`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anello_protocol::{id::PartitionId, key::DataKey, version::Versions};

use super::{
    CachedRead, Commit, CommitDone, NotTaken, Store, StoreError, StoreEstimate, VnodeRecord,
};

/// See the head of this file.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    data: BTreeMap<DataKey, Arc<Versions>>,
    vnodes: BTreeMap<PartitionId, VnodeRecord>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while it holds the lock, and every change is a single insertion.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &DataKey) -> Result<Versions, StoreError> {
        Ok(self.kept().data.get(key).map(|versions| (**versions).clone()).unwrap_or_default())
    }

    fn read_cached(&self, key: &DataKey) -> Result<CachedRead, StoreError> {
        self.read(key).map(CachedRead::Hit)
    }

    fn commit(&self, commit: Commit, done: CommitDone) -> Result<(), NotTaken> {
        {
            let mut kept = self.kept();
            match commit.versions.is_empty() {
                true => kept.data.remove(&commit.key),
                false => kept.data.insert(commit.key, commit.versions),
            };
            if let Some(record) = commit.vnode_record {
                kept.vnodes.insert(commit.partition, record);
            }
        }
        done(Ok(()));
        Ok(())
    }

    fn load_vnode(&self, partition: PartitionId) -> Result<Option<VnodeRecord>, StoreError> {
        Ok(self.kept().vnodes.get(&partition).copied())
    }

    fn estimate(&self) -> StoreEstimate {
        let kept = self.kept();
        let bytes = kept.data.iter().map(|(key, versions)| {
            let overhead = size_of::<DataKey>() + versions.len() * size_of::<Versions>();
            (key.key.as_bytes().len() + versions.value_bytes() + overhead) as u64
        });
        StoreEstimate { keys: kept.data.len() as u64, bytes: bytes.sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn is_a_store() {
        conformance::check(|| Arc::new(MemoryStore::new()));
    }
}
